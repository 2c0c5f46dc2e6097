//! `cluster doctor`.

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::{error::Error, human, output};
use crate::{
    config::spec::resources::Controller,
    datapath::{
        feature::Feature,
        kernel::probe::{self, KERNEL_MODE, PLAIN_MODE},
    },
    process::cgroup,
};

/// Shows what this host can do, and how to get what is missing
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster doctor

Every feature is tried, not looked up by version.

With --json: an array of {name, ok, detail, hint, needed_for}")]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Error> {
        let mut features = probe::features(None);
        features.extend(Controller::ALL.map(controller));
        if self.json {
            return Ok(output::json(&features)?);
        }
        Ok(output::answer(&draw(&features))?)
    }
}

/// A controller of cgroup v2, which limits need and nothing else.
fn controller(controller: Controller) -> Feature {
    let offered = cgroup::offered(controller);
    Feature {
        name: format!("cgroup controller {}", controller.name()),
        ok: offered.is_ok(),
        detail: Some(match &offered {
            Ok(path) => format!("offered at {}", path.display()),
            Err(lacking) => lacking.to_string(),
        }),
        hint: offered.err().map(|lacking| lacking.hint()),
        needed_for: controller.limits().join(" and "),
    }
}

fn draw(features: &[Feature]) -> String {
    let (ok, missing) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default().bold());
    let dim = Style::new().dimmed();
    let mut lines = Vec::new();
    for feature in features {
        let (style, word) = if feature.ok { (ok, "ok     ") } else { (missing, "missing") };
        let name = human::plain(&feature.name);
        let detail = feature.detail.as_deref().map(|detail| format!(": {}", human::plain(detail)));
        lines.push(format!("{style}{word}{style:#}  {name}{}", detail.unwrap_or_default()));
        if !feature.ok {
            lines.push(format!("         {dim}needed for {}{dim:#}", feature.needed_for));
            lines.extend(feature.hint.iter().map(|hint| format!("         hint: {hint}")));
        }
    }
    lines.push(match features.iter().filter(|feature| !feature.ok).count() {
        0 => "everything that cluster makes use of is there".to_owned(),
        1 => "1 feature is missing".to_owned(),
        lacking => format!("{lacking} features are missing"),
    });
    lines.push(mode(features));
    lines.join("\n")
}

/// How connections are carried here.
fn mode(features: &[Feature]) -> String {
    let lacking = |mode: &str| {
        let needed = features.iter().filter(|feature| !feature.ok && feature.needed_for == mode);
        needed.map(|feature| human::plain(&feature.name)).collect::<Vec<_>>().join("; ")
    };
    match (lacking(KERNEL_MODE), lacking(PLAIN_MODE)) {
        (kernel, _) if kernel.is_empty() => "mode: kernel".to_owned(),
        (kernel, plain) if plain.is_empty() => {
            format!("mode: plain; for kernel mode it lacks {kernel}")
        }
        (kernel, plain) => {
            format!("mode: none; for kernel mode it lacks {kernel}, and for plain mode {plain}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_for_and_how_to_get_it() {
        let feature = |name: &str, ok| Feature {
            name: name.to_owned(),
            ok,
            detail: Some("cgroup2 on /sys/fs/cgroup".to_owned()),
            hint: (!ok).then(|| "mount it".to_owned()),
            needed_for: "kernel mode".to_owned(),
        };
        let text = draw(&[feature("cgroup v2", true), feature("bpffs", false)]);
        let text = anstream::adapter::strip_str(&text).to_string();
        insta::assert_snapshot!(text, @r"
        ok       cgroup v2: cgroup2 on /sys/fs/cgroup
        missing  bpffs: cgroup2 on /sys/fs/cgroup
                 needed for kernel mode
                 hint: mount it
        1 feature is missing
        mode: plain; for kernel mode it lacks bpffs
        ");
    }
}
