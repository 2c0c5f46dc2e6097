//! Every help text, in one place for reviewing.

use std::fmt::Write as _;

#[test]
fn every_command_explains_itself() {
    let mut command = super::command().term_width(100);
    command.build();
    let mut text = command.render_help().to_string();
    for subcommand in command.get_subcommands_mut() {
        if subcommand.get_name() != "help" && !subcommand.is_hide_set() {
            let name = subcommand.get_name().to_owned();
            assert!(subcommand.get_about().is_some(), "{name}");
            let help = subcommand.render_help();
            // Wider ones are broken in two by clap, which looks as if something were missing.
            for line in subcommand
                .get_after_help()
                .map(ToString::to_string)
                .iter()
                .flat_map(|text| text.lines())
            {
                assert!(line.chars().count() <= 100, "{name}: {line}");
            }
            // One for every command, so that nobody has to guess.
            let example = help.to_string().lines().any(|line| {
                let line = line.trim_start_matches("Example:").trim_start();
                line.contains("cluster ") && line.contains(&name)
            });
            assert!(example && help.to_string().contains("Example"), "{name} has no example");
            writeln!(text, "\n──────── cluster {name}\n{help}").unwrap();
        }
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 110, "{line}");
    }
    insta::assert_snapshot!(text);
}
