//! The nearest of the words there are to one that is none of them.

/// The nearest word, if one is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = plain(word);
    let length = word.chars().count();
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&lower, &plain(known)), known))
        .filter(|(distance, known)| *distance <= (length.min(known.len()) / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Keys have underscores where options and policies have dashes.
fn plain(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_corrected_and_another_word_is_not() {
        let known = ["kill_timeout", "instances", "env"];
        for (word, expected) in [
            ("kill_timout", Some("kill_timeout")),
            ("kill-timeout", Some("kill_timeout")),
            ("instance", Some("instances")),
            ("evn", Some("env")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
