//! Reads YAML: anchors, aliases and merge keys included, tags left aside.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::Number;

use super::{
    place::{Place, Problem},
    tree::{Data, Entry, Node, Table},
};

/// Aliases may multiply a small file into an endless one; none that is meant has this many values.
const MOST_NODES: usize = 100_000;
/// Nor is one nested this deep.
const DEEPEST: usize = 100;

pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0 };
    loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
            (Event::StreamEnd, _) => return Err(Problem::new(None, "has nothing but comments")),
            (event, span) => {
                let node = reader.node(event, span, 0)?;
                return reader.end().map(|()| node);
            }
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// What each anchor stands for; `None` while that is still being read.
    anchors: BTreeMap<usize, Option<Node>>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let marker = error.marker();
                let place = Place { line: marker.line(), column: marker.col() + 1 };
                Err(Problem::new(Some(place), error.info()))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn end(&mut self) -> Result<(), Problem> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd | Event::Nothing, _) => {}
                (_, span) => {
                    return Err(Problem::new(Some(place(span)), "a second document begins here"));
                }
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = place(span);
        if depth > DEEPEST {
            return Err(Problem::new(Some(place), format!("is nested more than {DEEPEST} deep")));
        }
        self.count(1, place)?;
        let (anchor, data) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text =
                    style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
                (anchor, if is_text { Data::Text(text.into_owned()) } else { plain(&text, place)? })
            }
            Event::SequenceStart(anchor, _) => {
                self.anchors.insert(anchor, None);
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(anchor, _) => {
                self.anchors.insert(anchor, None);
                (anchor, self.table(depth)?)
            }
            Event::Alias(anchor) => return self.alias(anchor, place),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => {
                return Err(Problem::new(Some(place), "ends where a value should be"));
            }
        };
        let node = Node::new(data, Some(place));
        // Anchors are numbered from 1.
        if anchor > 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Node, Problem> {
        let Some(Some(node)) = self.anchors.get(&anchor) else {
            return Err(Problem::new(Some(place), "an alias stands within what it is an alias of"));
        };
        let node = node.clone();
        self.count(size(&node), place)?;
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Data, Problem> {
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Data::List(list)),
                (event, span) => list.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Data, Problem> {
        let mut table = Table::default();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let at = place(span);
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            let key = match key.data {
                Data::Text(key) => key,
                Data::Number(number) => number.to_string(),
                Data::Bool(value) => value.to_string(),
                Data::Null | Data::List(_) | Data::Table(_) => {
                    return Err(Problem::new(Some(at), format!("{} is no name", key.kind())));
                }
            };
            if key == "<<" {
                merged.push((at, node));
            } else if table.put(Entry { key: key.clone(), place: Some(at), node }).is_some() {
                return Err(Problem::new(Some(at), format!("`{key}` is there twice")));
            }
        }
        for (at, node) in merged {
            merge(&mut table, node, at)?;
        }
        Ok(Data::Table(table))
    }

    fn count(&mut self, nodes: usize, place: Place) -> Result<(), Problem> {
        self.nodes += nodes;
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        Err(Problem::new(Some(place), format!("has more than {MOST_NODES} values")))
    }
}

/// What a merge key brings goes under what is said beside it (yaml.org/type/merge).
fn merge(table: &mut Table, node: Node, at: Place) -> Result<(), Problem> {
    let tables = match node.data {
        Data::List(list) => list,
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::Table(_) => vec![node],
    };
    for node in tables {
        let Data::Table(more) = node.data else {
            return Err(Problem::new(Some(at), format!("`<<` takes a table, not {}", node.kind())));
        };
        for entry in more {
            if table.entry(&entry.key).is_none() {
                table.put(entry);
            }
        }
    }
    Ok(())
}

/// A scalar without quotes means what YAML 1.2's core schema says (yaml.org/spec/1.2.2, section 10.3.2).
fn plain(text: &str, place: Place) -> Result<Data, Problem> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = || text.strip_prefix('+').unwrap_or(text).parse::<f64>().ok();
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Bool(true),
        "false" | "False" | "FALSE" => Data::Bool(false),
        _ if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            Data::Text(text.to_owned())
        }
        _ => {
            let radix = |prefix, radix| {
                i64::from_str_radix(text.strip_prefix(prefix)?, radix).ok().map(Number::from)
            };
            let whole = text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok();
            let whole =
                whole.map(Number::from).or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8));
            match (whole, unsigned) {
                (Some(number), _) => Data::Number(number),
                (None, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") => {
                    let message = format!("`{text}` is no number that can be used here");
                    return Err(Problem::new(Some(place), message));
                }
                (None, _) => number()
                    .and_then(Number::from_f64)
                    .map_or_else(|| Data::Text(text.to_owned()), Data::Number),
            }
        }
    })
}

fn size(node: &Node) -> usize {
    match &node.data {
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => 1,
        Data::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Data::Table(table) => 1 + table.entries().map(|entry| size(&entry.node)).sum::<usize>(),
    }
}

fn place(span: Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_mean_what_yaml_says() {
        let text = "apps:\n  - script: a.js\n    instances: max\n    watch: yes\n    time: true\n    \
                    kill_timeout: 1600\n    version: '20'\n    cron: \"0 3 * * *\"\n    none: ~\n    x: 1.5\n";
        let expected = json!({ "apps": [{
            "script": "a.js", "instances": "max", "watch": "yes", "time": true, "kill_timeout": 1600,
            "version": "20", "cron": "0 3 * * *", "none": null, "x": 1.5
        }] });
        let root = parse(text).unwrap();
        assert_eq!(root.to_json(), expected);
        assert_eq!(root.find("apps[0].kill_timeout").unwrap().to_string(), "6:19");
    }

    #[test]
    fn anchors_aliases_and_merge_keys_are_followed() {
        let text = "x-base: &base { A: 1, B: 2 }\nenv: { <<: *base, B: 3 }\ncopy: *base\n";
        let root = parse(text).unwrap().to_json();
        assert_eq!(root["env"], json!({ "A": 1, "B": 3 }));
        assert_eq!(root["copy"], json!({ "A": 1, "B": 2 }));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, place, message) in [
            ("a: 1\na: 2\n", "2:1", "twice"),
            ("a: &x [1, *x]\n", "1:11", "within what it is an alias of"),
            ("a: [1\nb: 2\n", "2:2", ""),
            ("a: 1\n---\nb: 2\n", "2:1", "second document"),
            ("a: .inf\n", "1:4", "no number"),
            ("? [a]\n: 1\n", "1:3", "no name"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.message.contains(message), "{text:?}: {}", problem.message);
            assert_eq!(problem.place.unwrap().to_string(), place, "{text:?}: {}", problem.message);
        }
    }

    #[test]
    fn neither_depth_nor_aliases_make_it_endless() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            let line = format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
            bomb.push_str(&line);
        }
        assert!(parse(&bomb).unwrap_err().message.contains("more than 100000 values"));
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"- ".repeat(10_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,\"'&*a0-9. \n<~#!|>-]{0,40}") {
            drop(parse(&text));
        }
    }
}
