//! Splits arguments that stand in one text the way PM2 does.

/// Words are separated by white space. One in quotes is taken without them; in `name="a b"` the quotes hold it together
/// and stay. A quote that is never closed is a character as any other.
pub(super) fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, length) = if let Some(inside) = quoted(rest) {
            (inside, inside.len() + 2)
        } else {
            let end = || rest.find(char::is_whitespace).unwrap_or(rest.len());
            let length = assigned(rest).unwrap_or_else(end).max(first.len_utf8());
            (unquoted(&rest[..length]), length)
        };
        if !word.trim().is_empty() {
            words.push(word.to_owned());
        }
        rest = rest[length..].trim_start();
    }
    words
}

/// What is inside of the quotes that a text begins with.
fn quoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let inside = &text[1..];
    inside.find(quote).map(|end| &inside[..end])
}

/// How long the `name="…"` is that a text begins with.
fn assigned(text: &str) -> Option<usize> {
    let equals = text.find(|c: char| c.is_whitespace() || ['"', '\'', '='].contains(&c))?;
    let value = text[equals..].strip_prefix('=').filter(|_| equals > 0)?;
    quoted(value).map(|inside| equals + 1 + inside.len() + 2)
}

fn unquoted(word: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_as_pm2_passes_them() {
        for (text, expected) in [
            ("a b", &["a", "b"][..]),
            ("  a\t\"b c\"  'd e' ", &["a", "b c", "d e"]),
            ("--name=\"a b\" -x='c d'", &["--name=\"a b\"", "-x='c d'"]),
            ("--a=b it's", &["--a=b", "it's"]),
            ("\"\" ''", &[]),
            ("\"open a", &["\"open", "a"]),
            ("a\"b c\"", &["a\"b", "c\""]),
            ("", &[]),
            ("é=\"ü ö\" ß", &["é=\"ü ö\"", "ß"]),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a='\" é]{0,20}") {
            drop(split(&text));
        }
    }
}
