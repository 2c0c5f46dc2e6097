//! Evaluates configuration files that are programs, by the JavaScript runtime that is there.

mod evaluate;

use std::{path::Path, time::Duration};

pub(super) use self::evaluate::MARK;
use self::evaluate::{Failure, Outcome, Program};
use super::{
    json,
    place::{Place, Problem},
    tree::{Data, Node, Table},
};
use crate::config::{resolve::Surroundings, script::Lookup};

/// How long a file may take to say what it exports.
const PATIENCE: Duration = Duration::from_secs(10);
const SCRIPT: &str = include_str!("load.mjs");
/// Says to the script which file is meant.
const FILE: &str = "CLUSTER_CONFIG_FILE";

/// Runtimes in the order of preference, with the arguments before the script.
const RUNTIMES: [(&str, &[&str]); 3] =
    [("node", &["--input-type=module", "-e"]), ("bun", &["-e"]), ("deno", &["eval"])];

/// What a file exports, and what there is to be said about it.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) root: Node,
    /// Lowercase fragments.
    pub(super) notices: Vec<String>,
}

/// Evaluates the file at `path`, which is absolute.
pub(super) fn evaluate(path: &Path, around: &Surroundings) -> Result<Exported, Problem> {
    evaluate_within(path, around, PATIENCE)
}

fn evaluate_within(
    path: &Path,
    around: &Surroundings,
    patience: Duration,
) -> Result<Exported, Problem> {
    let lookup = Lookup { folders: vec![around.cwd.clone()], path: around.path() };
    let found = RUNTIMES
        .iter()
        .find_map(|(name, args)| lookup.program(name).map(|program| (*name, program, *args)));
    let Some((name, program, args)) = found else {
        return Err(Problem::new(None, "is a program, and neither node, bun nor deno is on PATH")
            .hint("install Node.js (Debian: apt install nodejs), or write the file as TOML, JSON or YAML"));
    };
    let args: Vec<&str> = args.iter().copied().chain([SCRIPT]).collect();
    let mut env = around.env.clone();
    env.retain(|(key, _)| key != FILE);
    env.push((FILE.into(), path.as_os_str().to_owned()));
    let program = Program { path: &program, args: &args, env: &env, cwd: &around.cwd };
    match evaluate::run(&program, patience) {
        Ok(outcome) => read(path, name, &outcome),
        Err(Failure::Late) => {
            let message = format!("has not ended after {} s, and was ended", patience.as_secs());
            Err(Problem::new(None, message)
                .hint("it is to export what is to be started, and no more"))
        }
        Err(Failure::Loud) => Err(Problem::new(None, "prints without end, and was ended")),
        Err(Failure::Host(error)) => {
            Err(Problem::new(None, format!("failed to evaluate it with {name}: {error}")))
        }
    }
}

fn read(path: &Path, runtime: &str, outcome: &Outcome) -> Result<Exported, Problem> {
    let complained = String::from_utf8_lossy(&outcome.complained);
    let answer = std::str::from_utf8(&outcome.result).ok().and_then(|text| json::parse(text).ok());
    let answer = answer.as_ref().and_then(Node::as_table);
    let text = |key: &str| answer.and_then(|answer| answer.get(key)).and_then(Node::as_text);
    if let Some(message) = text("message") {
        return Err(thrown(path, message, text("stack").unwrap_or_default(), &complained));
    }
    let Some((answer, value)) = answer.and_then(|answer| Some((answer, answer.get("value")?)))
    else {
        return Err(unanswered(path, runtime, outcome, &complained));
    };
    let mut notices = Vec::new();
    let left = answer.get("left").and_then(Node::as_list).unwrap_or_default();
    for place in left.iter().filter_map(Node::as_text) {
        notices.push(format!("`{place}` is a function or a pattern, which is left out"));
    }
    notices.extend(printed(&String::from_utf8_lossy(&outcome.printed)));
    let own_words = |line: &&str| !line.starts_with("(node:") && !line.starts_with("(Use `node");
    let words: Vec<&str> = complained.lines().filter(own_words).collect();
    notices.extend(printed(&words.join("\n")));
    Ok(Exported { root: displaced(value), notices })
}

/// What the file printed is none of the answer, but may be worth knowing.
fn printed(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first: String = lines.next()?.chars().filter(|c| !c.is_control()).take(200).collect();
    Some(match lines.count() {
        0 => format!("it prints `{first}`"),
        more => format!("it prints `{first}` and {more} more lines"),
    })
}

fn thrown(path: &Path, message: &str, stack: &str, complained: &str) -> Problem {
    let head = complained.lines().find_map(|line| {
        let (file, number) = line.strip_prefix("file://").unwrap_or(line).rsplit_once(':')?;
        let number = number.parse::<usize>().ok()?;
        file.starts_with('/').then(|| (file.to_owned(), number))
    });
    let own = position(path, stack);
    let (place, elsewhere) = match head {
        Some((file, line)) if Path::new(&file) == path => {
            let column = own.filter(|place| place.line == line).map_or(1, |place| place.column);
            (Some(Place { line, column }), None)
        }
        Some((file, line)) => (own, Some(format!(" (in {file}:{line})"))),
        None => (own, None),
    };
    let message: String = message.lines().next().unwrap_or_default().chars().take(400).collect();
    let message = message.strip_prefix("TypeError: ").unwrap_or(&message);
    Problem::new(place, format!("throws {message}{}", elsewhere.unwrap_or_default()))
}

/// Where the file itself stands in a stack trace.
fn position(path: &Path, stack: &str) -> Option<Place> {
    let path = path.to_str()?;
    let (_, after) = stack.split_once(&format!("{path}:"))?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit());
    let line = numbers.next()?.parse().ok()?;
    let column = numbers.next().and_then(|column| column.parse().ok()).unwrap_or(1);
    Some(Place { line, column })
}

/// It ended by itself without saying what it exports.
fn unanswered(path: &Path, runtime: &str, outcome: &Outcome, complained: &str) -> Problem {
    // Node's code for a promise that nothing is left to settle (nodejs.org/api/process.html, exit codes).
    if runtime == "node" && outcome.status.code() == Some(13) {
        return Problem::new(None, "exports a promise that is never settled");
    }
    let reason = complained.lines().map(str::trim).find(|line| line.contains("Error"));
    let reason = reason.map(|line| format!(": {}", line.chars().take(400).collect::<String>()));
    let place = position(path, complained);
    let message = format!(
        "ended {runtime} ({}) before it was known what it exports{}",
        outcome.status,
        reason.unwrap_or_default()
    );
    Problem::new(place, message)
}

/// Places in what the script wrote mean nothing to who wrote the file.
fn displaced(node: &Node) -> Node {
    let data = match &node.data {
        Data::List(list) => Data::List(list.iter().map(displaced).collect()),
        Data::Table(table) => {
            let mut without = Table::default();
            for entry in table.entries().filter(|entry| entry.key != MARK) {
                without.set(&entry.key, displaced(&entry.node));
            }
            Data::Table(without)
        }
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => node.data.clone(),
    };
    Node::new(data, None)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_way_to_export_is_understood() {
        for (name, text) in [
            ("a.config.js", "module.exports = { apps: [{ script: 'x' }] }"),
            ("a.config.cjs", "exports.apps = [{ script: 'x' }]"),
            ("a.config.mjs", "export default { apps: [{ script: 'x' }] }"),
            ("b.config.mjs", "export const apps = [{ script: 'x' }]"),
            ("b.config.js", "module.exports = () => ({ apps: [{ script: 'x' }] })"),
            ("c.config.js", "module.exports = (async () => ({ apps: [{ script: 'x' }] }))()"),
            ("d.config.mjs", "export default async () => ({ apps: [{ script: 'x' }] })"),
            (
                "e.config.js",
                "Object.defineProperty(exports, '__esModule', { value: true }); exports.default = { apps: [{ script: 'x' }] }",
            ),
            (
                "f.config.js",
                "const a = { script: 'x', b: undefined }; module.exports = { apps: [a] }",
            ),
            (
                "g.config.js",
                "console.log('{\"value\":'.repeat(9)); module.exports = { apps: [{ script: 'x' }] }",
            ),
            (
                "h.config.js",
                "setInterval(() => {}, 1000); module.exports = { apps: [{ script: 'x' }] }",
            ),
        ] {
            let exported = Folder::new().evaluate(name, text).unwrap();
            assert_eq!(exported.root.to_json(), json!({ "apps": [{ "script": "x" }] }), "{text}");
        }
    }

    #[test]
    fn what_no_file_can_say_is_left_out_and_what_it_prints_is_told() {
        let text = "console.log('hello'); console.log('there');\n\
                    const same = { A: 1 };\n\
                    module.exports = { a: () => 1, b: [/x/, 'y'], c: 10n, d: new Set(['z']), e: same, f: same }";
        let exported = Folder::new().evaluate("a.config.js", text).unwrap();
        let expected =
            json!({ "b": ["y"], "c": "10", "d": ["z"], "e": { "A": 1 }, "f": { "A": 1 } });
        assert_eq!(exported.root.to_json(), expected);
        let notices = exported.notices.join("; ");
        assert!(notices.contains("`a` is a function") && notices.contains("`b[0]`"), "{notices}");
        assert!(notices.contains("it prints `hello` and 1 more lines"), "{notices}");
        let nothing = Folder::new().evaluate("a.config.js", "").unwrap();
        assert_eq!(nothing.root.to_json(), json!({}));
    }

    #[test]
    fn a_file_that_fails_is_told_with_line_and_reason() {
        for (name, text, line, reason) in [
            (
                "a.config.js",
                "module.exports = {\n apps: [\n  { script: ]\n}",
                Some(3),
                "SyntaxError",
            ),
            (
                "a.config.mjs",
                "export default {\n apps: [\n  { script: ]\n}",
                Some(3),
                "SyntaxError",
            ),
            ("b.config.js", "const x = 1\n\nthrow new Error('no db')", Some(3), "no db"),
            ("c.config.js", "const y = nope.z", Some(1), "nope is not defined"),
            ("d.config.js", "\nrequire('./gone')", Some(2), "Cannot find module './gone'"),
            ("e.config.mjs", "import './gone.mjs'", None, "Cannot find module"),
            ("f.config.js", "\n\nthrow 'text'", None, "throws text"),
            (
                "g.config.js",
                "module.exports = (async () => {\n await 1; throw new Error('later') })()",
                Some(2),
                "later",
            ),
            ("h.config.js", "module.exports = new Promise(() => {})", None, "never settled"),
            ("i.config.js", "process.exit(7)", None, "exit status: 7"),
            (
                "j.config.js",
                "const a = {}; a.b = { a }; module.exports = a",
                None,
                "b.a contains itself",
            ),
            ("k.config.js", "module.exports = { n: NaN }", None, "n is NaN"),
            (
                "l.config.js",
                "setTimeout(() => { throw new Error('async') }); module.exports = new Promise(() => {})",
                Some(1),
                "async",
            ),
        ] {
            let problem = Folder::new().evaluate(name, text).unwrap_err();
            assert!(problem.message.contains(reason), "{text}: {}", problem.message);
            assert_eq!(problem.place.map(|place| place.line), line, "{text}: {}", problem.message);
        }
    }

    #[test]
    fn a_file_that_loops_for_ever_is_ended() {
        let folder = Folder::new();
        let path = folder.write("a.config.js", "for (;;);");
        let patience = Duration::from_secs(1);
        let problem = evaluate_within(&path, &folder.around(), patience).unwrap_err();
        assert!(problem.message.contains("has not ended after 1 s"), "{}", problem.message);
    }

    #[test]
    fn without_a_runtime_it_is_said_what_to_install() {
        let folder = Folder::new();
        let path = folder.write("a.config.js", "");
        let around =
            Surroundings { env: vec![("PATH".into(), "/nowhere".into())], ..folder.around() };
        let problem = evaluate(&path, &around).unwrap_err();
        assert!(problem.message.contains("neither node, bun nor deno"), "{}", problem.message);
        assert!(problem.hint.unwrap().contains("nodejs"));
    }

    #[test]
    fn it_sees_the_environment_and_the_folder_of_the_command() {
        let text =
            "module.exports = { env: { ...process.env }, cwd: process.cwd(), dir: __dirname }";
        let folder = Folder::new();
        let around = Surroundings { cwd: "/".into(), ..folder.around() };
        let path = folder.write("a.config.js", text);
        let root = evaluate(&path, &around).unwrap().root.to_json();
        assert_eq!(root["cwd"], "/");
        assert_eq!(root["dir"], Value::from(folder.0.path().to_str().unwrap()));
        let env = root["env"].as_object().unwrap();
        assert_eq!(env["A"], "1");
        assert!(!env.contains_key(FILE) && !env.contains_key(MARK));
    }

    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn around(&self) -> Surroundings {
            let path = std::env::var_os("PATH").unwrap();
            let env = vec![("PATH".into(), path), ("A".into(), "1".into())];
            Surroundings { cwd: self.0.path().to_owned(), env, cpus: 1 }
        }

        fn evaluate(&self, name: &str, text: &str) -> Result<Exported, Problem> {
            evaluate(&self.write(name, text), &self.around())
        }
    }
}
