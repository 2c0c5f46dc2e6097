//! What Tab offers, in the shells themselves.

use cluster_tests::{built::fixture, command, host::Host};

#[test]
fn tab_completes_the_name_of_an_app_in_bash() {
    let (host, tab) = (with_apps(), fixture("tab.py"));
    let load = "eval \"$(cluster completion bash)\"";
    for (typed, expected) in [
        ("cluster reload w", "reload web "),
        ("cluster compl", "cluster completion "),
        ("cluster reload web --upd", "--update-env "),
        ("cluster daemon --mode pl", "--mode plain "),
        ("cluster sendSignal USR", "USR"),
    ] {
        let shell = ["--", "bash", "--norc", "--noprofile", "-i"];
        let args = [&[tab.as_str(), expected, load, typed][..], &shell].concat();
        command::run(host.command("python3").args(&args)).ok();
    }
}

#[test]
fn tab_completes_the_name_of_an_app_in_zsh() {
    let (host, tab) = (with_apps(), fixture("tab.py"));
    let load = "autoload -U compinit; compinit -u; source <(cluster completion zsh)";
    for (typed, expected) in
        [("cluster reload w", "reload web "), ("cluster daemon --mode pl", "--mode plain ")]
    {
        let shell = ["--", "zsh", "-f", "-i"];
        let args = [&[tab.as_str(), expected, load, typed][..], &shell].concat();
        command::run(host.command("python3").args(&args)).ok();
    }
}

#[test]
fn what_is_installed_for_zsh_answers_the_first_tab() {
    let (host, tab) = (with_apps(), fixture("tab.py"));
    let install = ["completion", "install", "zsh"];
    command::run(host.command("cluster").args(install).env("HOME", host.work()))
        .ok()
        .says("site-functions/_cluster");
    let folder = install_folder(&host);
    let load = format!("fpath+=({folder}); autoload -U compinit; compinit -u");
    let shell = ["--", "zsh", "-f", "-i"];
    let typed = [tab.as_str(), "reload web ", &load, "cluster reload w"];
    command::run(host.command("python3").args([&typed[..], &shell].concat())).ok();
    command::run(host.command("cluster").args(["completion", "uninstall", "zsh"])).ok();
    assert!(!std::path::Path::new(&folder).join("_cluster").exists());
}

/// As root a file is for everybody: it is this host's, and goes again.
fn install_folder(_host: &Host) -> String {
    "/usr/local/share/zsh/site-functions".to_owned()
}

#[test]
fn fish_is_offered_names_with_what_they_are() {
    let host = with_apps();
    let offered = |typed: &str| {
        let script = format!("cluster completion fish | source; complete -C '{typed}'");
        command::run(host.command("fish").args(["--no-config", "-c", &script])).ok()
    };
    let names = offered("cluster reload w");
    assert_eq!(names.lines(), ["web\tapp 0, online"]);
    offered("cluster reload ").says("all\tevery app").says("shop\tnamespace").says("api\t");
    offered("cluster describe web:").says("web:1\t");
    offered("cluster start --kill-signal US").says("USR1");
    offered("cluster list --").says("--mini-list\t");
    // Neither names of files nor anything else is a number.
    assert_eq!(offered("cluster logs --lines ").stdout, "");
}

#[test]
fn without_a_daemon_nothing_is_offered_and_none_is_started() {
    let host = Host::kernel();
    let script = "cluster completion fish | source; complete -C 'cluster reload '";
    let offered = command::run(host.command("fish").args(["--no-config", "-c", script])).ok();
    offered.says("--batch").never_mentions("every app");
    assert!(host.processes().is_empty(), "no daemon was started");
    host.cluster(&["completion", "tcsh"]).fails().code(2);
    command::run(host.command("cluster").arg("completion").env("SHELL", "/bin/tcsh"))
        .fails()
        .code(2)
        .complains("tcsh");
    command::run(host.command("cluster").arg("completion").env("SHELL", "/usr/bin/zsh"))
        .ok()
        .says("#compdef cluster");
}

fn with_apps() -> Host {
    let host = Host::kernel();
    host.cluster(&["start", "app", "--name", "web", "-i", "2"]).ok();
    let other = ["--name", "api", "--namespace", "shop", "--env", "PORT=8081"];
    host.cluster(&[&["start", "app"][..], &other].concat()).ok();
    host
}
