//! Reads TOML.

use ::toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use serde_json::Number;

use super::{
    place::{Lines, Place, Problem},
    tree::{Data, Entry, Node, Table},
};

pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let lines = Lines::of(text);
    let root = DeTable::parse(text).map_err(|error| {
        let place = error.span().map(|span| lines.place(span.start));
        Problem::new(place, one_line(error.message()))
    })?;
    let table = table(root.get_ref(), &lines)?;
    Ok(Node::new(Data::Table(table), None))
}

fn table(from: &DeTable<'_>, lines: &Lines<'_>) -> Result<Table, Problem> {
    let mut table = Table::default();
    for (key, value) in from {
        let place = Some(lines.place(key.span().start));
        let node = node(value, lines)?;
        table.put(Entry { key: key.get_ref().to_string(), place, node });
    }
    Ok(table)
}

fn node(from: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Result<Node, Problem> {
    let place = lines.place(from.span().start);
    let data = match from.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(digits) => Data::Number(integer(digits.as_str(), digits.radix(), place)?),
        DeValue::Float(digits) => Data::Number(float(digits.as_str(), place)?),
        DeValue::Boolean(value) => Data::Bool(*value),
        DeValue::Datetime(time) => Data::Text(time.to_string()),
        DeValue::Array(list) => {
            Data::List(list.iter().map(|value| node(value, lines)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => Data::Table(table(inner, lines)?),
    };
    Ok(Node::new(data, Some(place)))
}

fn integer(digits: &str, radix: u32, place: Place) -> Result<Number, Problem> {
    i64::from_str_radix(digits, radix).map(Number::from).map_err(|_too_long| {
        Problem::new(Some(place), format!("`{digits}` is a number of more than 64 bits"))
    })
}

fn float(digits: &str, place: Place) -> Result<Number, Problem> {
    digits.parse().ok().and_then(Number::from_f64).ok_or_else(|| {
        Problem::new(Some(place), format!("`{digits}` is no number that can be used here"))
    })
}

/// The parser's words; it breaks lines in some of them.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_order_and_places() {
        let text =
            "[apps.web]\nscript = 'a.js'\ninstances = 0x10\n\n[apps.api]\nenv = { A = 1.5 }\n";
        let root = parse(text).unwrap();
        let expected = json!({ "apps": {
            "web": { "script": "a.js", "instances": 16 }, "api": { "env": { "A": 1.5 } }
        } });
        assert_eq!(root.to_json(), expected);
        let apps = root.as_table().unwrap().get("apps").unwrap().as_table().unwrap();
        assert_eq!(apps.keys().collect::<Vec<_>>(), ["web", "api"]);
        assert_eq!(root.find("apps.api.env.A").unwrap().to_string(), "6:13");
        assert_eq!(root.find("apps.web.instances").unwrap().to_string(), "3:13");
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, place) in [
            ("a = 1\nb = \n", "2:5"),
            ("[apps.web\n", "1:10"),
            ("a = 1\na = 2\n", "2:1"),
            ("a = 99999999999999999999\n", "1:5"),
            ("a = nan\n", "1:5"),
        ] {
            let problem = parse(text).unwrap_err();
            assert_eq!(problem.place.unwrap().to_string(), place, "{text:?}: {}", problem.message);
            assert!(!problem.message.is_empty() && !problem.message.contains('\n'));
        }
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(parse(&deep).is_err());
    }
}
