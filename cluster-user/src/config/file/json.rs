//! Reads JSON as people write it: with comments, trailing commas, single quotes, and names without quotes.

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::{ObjectPropName, Value},
    common::Ranged as _,
    parse_to_ast,
};
use serde_json::Number;

use super::{
    place::{Lines, Problem},
    tree::{Data, Entry, Node, Table},
};

pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let lines = Lines::of(text);
    // What a program would evaluate: a missing comma is a mistake to it, too.
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &options).map_err(|error| {
        let place = lines.place(error.range().start);
        Problem::new(Some(place), uncapitalized(&error.kind().to_string()))
    })?;
    match parsed.value {
        Some(value) => node(value, &lines),
        None => Err(Problem::new(None, "has nothing but comments")),
    }
}

fn node(value: Value<'_>, lines: &Lines<'_>) -> Result<Node, Problem> {
    let place = lines.place(value.range().start);
    let data = match value {
        Value::StringLit(text) => Data::Text(text.value.into_owned()),
        Value::NumberLit(number) => Data::Number(self::number(number.value).ok_or_else(|| {
            let message = format!("`{}` is no number that can be used here", number.value);
            Problem::new(Some(place), message)
        })?),
        Value::BooleanLit(value) => Data::Bool(value.value),
        Value::NullKeyword(_) => Data::Null,
        Value::Array(list) => {
            let elements = list.elements.into_iter().map(|element| node(element, lines));
            Data::List(elements.collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            let mut table = Table::default();
            for property in object.properties {
                let place = Some(lines.place(property.range.start));
                let key = match property.name {
                    ObjectPropName::String(text) => text.value.into_owned(),
                    ObjectPropName::Word(word) => word.value.to_owned(),
                };
                let node = node(property.value, lines)?;
                if let Some(Entry { key, .. }) = table.put(Entry { key, place, node }) {
                    return Err(Problem::new(place, format!("`{key}` is there twice")));
                }
            }
            Data::Table(table)
        }
    };
    Ok(Node::new(data, Some(place)))
}

fn number(text: &str) -> Option<Number> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    if let Some(digits) = hexadecimal {
        return i64::from_str_radix(digits, 16).ok().map(|number| Number::from(sign * number));
    }
    if let Ok(number) = digits.parse::<i64>() {
        return Some(Number::from(sign * number));
    }
    // The rest of a program's numbers: 1e3, .5, 5.
    let number = text.strip_prefix('+').unwrap_or(text).parse::<f64>().ok()?;
    Number::from_f64(number)
}

fn uncapitalized(message: &str) -> String {
    let mut rest = message.chars();
    rest.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(rest).collect::<String>().trim_end_matches('.').to_owned()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_commas_quotes_and_bare_names_are_as_in_a_program() {
        let text =
            "// first\n{ apps: [{ 'script': \"a.js\", /* all */ instances: -1, n: 0x10, },], }";
        let root = parse(text).unwrap();
        assert_eq!(
            root.to_json(),
            json!({ "apps": [{ "script": "a.js", "instances": -1, "n": 16 }] })
        );
        assert_eq!(root.find("apps[0].instances").unwrap().line, 2);
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, place) in [
            ("{\n  \"a\": 1\n  \"b\": 2\n}", Some("2:9")),
            ("{\"a\": ]}", Some("1:7")),
            ("{\"a\": 1, \"a\": 2}", Some("1:10")),
            ("{\"a\": [1", Some("1:7")),
            ("{\"a\": Infinity}", Some("1:7")),
            ("// nothing", None),
        ] {
            let problem = parse(text).unwrap_err();
            let found = problem.place.map(|place| place.to_string());
            assert_eq!(found.as_deref(), place, "{text}: {}", problem.message);
        }
        assert!(parse(&"[".repeat(1 << 20)).unwrap_err().message.contains("depth"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,\"'/*a0-9. \n-]{0,40}") {
            drop(parse(&text));
        }
    }
}
