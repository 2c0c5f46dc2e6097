//! `cluster man`: a manual page for each command, written from the same words as its help.

use std::{fs, io, path::PathBuf};

use clap::{Args, Command};
use clap_mangen::Man as Page;
use roff::{Roff, roman};

use super::{error::Error, human, output};

/// When what the pages tell of was released.
const RELEASED: &str = "2026-11-21";

/// Writes manual pages
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster man reload | man -l -                         reads the page of one command
  sudo cluster man --dir /usr/local/share/man/man1      installs all of them: man cluster-reload")]
pub(super) struct Man {
    /// The command whose page is printed; that of cluster itself when left out
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,

    /// Write the pages of all commands into this folder
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Error> {
        let mut root = super::command();
        root.build();
        let Some(dir) = self.dir else {
            let command = match &self.command {
                None => &root,
                Some(name) => root.find_subcommand(name).ok_or_else(|| {
                    Error::usage(format!("there is no command `{}`", human::plain(name)))
                        .hint("cluster --help shows what there is")
                })?,
            };
            return Ok(output::raw(&render(command)?)?);
        };
        let failed = |error: io::Error| {
            Error::failed(format!("failed to write pages into `{}`: {error}", dir.display()))
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let mut count = 0;
        for command in shown(&root) {
            fs::write(dir.join(file_name(command)), render(command)?).map_err(failed)?;
            count += 1;
        }
        Ok(output::answer(&format!("wrote {count} pages into {}", dir.display()))?)
    }
}

/// The root and every command that is not hidden.
fn shown(root: &Command) -> impl Iterator<Item = &Command> {
    let commands = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help");
    std::iter::once(root).chain(commands)
}

fn file_name(command: &Command) -> String {
    format!("{}.1", title(command))
}

fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn render(command: &Command) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut head = Roff::default();
    let name = title(command).to_uppercase();
    let source = format!("cluster {}", env!("CARGO_PKG_VERSION"));
    head.control("TH", [name.as_str(), "1", RELEASED, &source, "Manual of cluster"]);
    head.to_writer(&mut text)?;
    let page = Page::new(command.clone());
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    let mut more = Roff::default();
    for (heading, lines) in sections(command) {
        more.control("SH", [heading]);
        for (at, paragraph) in lines.split(String::is_empty).enumerate() {
            if at > 0 {
                more.control("PP", []);
            }
            // Columns stay columns; prose is as wide as the reader's terminal.
            let columns = heading == "EXAMPLES" || paragraph.iter().any(|line| line.contains("  "));
            if columns {
                more.control("nf", []);
            }
            for line in paragraph {
                more.text([roman(line.trim_end())]);
            }
            if columns {
                more.control("fi", []);
            }
        }
    }
    more.control("SH", ["SEE ALSO"]);
    let other = if title(command) == "cluster" { "cluster help" } else { "cluster(1)" };
    more.text([roman(other)]);
    more.to_writer(&mut text)?;
    Ok(text)
}

/// What follows the options in help: examples under a heading of their own.
fn sections(command: &Command) -> Vec<(&'static str, Vec<String>)> {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (mut examples, mut notes) = (Vec::new(), Vec::new());
    for paragraph in text.split("\n\n") {
        let mut lines = paragraph.lines();
        let first = lines.next().unwrap_or_default();
        if let Some(rest) = first.strip_prefix("Examples:").or(first.strip_prefix("Example:")) {
            let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
            examples.extend(rest.into_iter().chain(lines.map(str::trim_start)).map(str::to_owned));
        } else if !paragraph.is_empty() {
            if !notes.is_empty() {
                notes.push(String::new());
            }
            notes.extend(paragraph.lines().map(str::to_owned));
        }
    }
    let sections = [("EXAMPLES", examples), ("NOTES", notes)];
    sections.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_examples() {
        let mut root = super::super::command();
        root.build();
        for command in shown(&root) {
            let page = String::from_utf8(render(command).unwrap()).unwrap();
            assert!(page.contains(".TH"), "{page}");
            assert!(page.contains("EXAMPLES"), "{}: {page}", title(command));
        }
    }
}
