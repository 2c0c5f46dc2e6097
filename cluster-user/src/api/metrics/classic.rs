//! Prometheus' own text format (0.0.4), from `OpenMetrics`: the two differ in what describes a metric.

/// The same metrics in the classic format. There a counter is described by its whole name, an info is a gauge, and units
/// and the end are not marked.
pub(super) fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(comment) = line.strip_prefix("# ") else {
            push(&mut classic, line);
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (Some("HELP"), Some(name), Some(help)) = (words.next(), words.next(), words.next())
        else {
            continue; // units, and the end
        };
        // The type follows.
        let Some(kind) = lines.next_if(|next| next.starts_with("# TYPE ")) else { continue };
        let (name, kind) = match kind.rsplit(' ').next() {
            Some("counter") => (format!("{name}_total"), "counter"),
            Some("info") => (format!("{name}_info"), "gauge"),
            Some(kind) => (name.to_owned(), kind),
            None => continue,
        };
        push(&mut classic, &format!("# HELP {name} {help}"));
        push(&mut classic, &format!("# TYPE {name} {kind}"));
    }
    classic
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptions_differ() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\n\
                    a_seconds_total{app=\"# HELP\"} 1\n# HELP b Something.\n# TYPE b info\nb_info{x=\"\"} 1\n\
                    # HELP c_bytes Size.\n# TYPE c_bytes gauge\n# UNIT c_bytes bytes\nc_bytes 3\n# EOF\n";
        let expected = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\n\
                        a_seconds_total{app=\"# HELP\"} 1\n# HELP b_info Something.\n# TYPE b_info gauge\n\
                        b_info{x=\"\"} 1\n# HELP c_bytes Size.\n# TYPE c_bytes gauge\nc_bytes 3\n";
        assert_eq!(classic(open), expected);
    }
}
