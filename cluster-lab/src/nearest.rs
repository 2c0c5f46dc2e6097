//! The nearest of the words there are to one that is none of them.

/// The nearest word, if one is near enough to have been meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let length = word.chars().count();
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, known), known))
        .filter(|(distance, known)| *distance <= (length.min(known.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A hint that names the nearest word, else all of them.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied()).map_or_else(
        || format!("there are: {}", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_another_word_is_not() {
        let known = ["least-conn", "round-robin", "p2c"];
        for (word, expected) in [
            ("least-con", Some("least-conn")),
            ("roundrobin", Some("round-robin")),
            ("fastest", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
