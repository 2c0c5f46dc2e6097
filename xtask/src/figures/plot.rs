//! Plots: those of the laboratory's reports that a page shows, as files of their own.

use anyhow::Context as _;

use super::{Measured, Shown};

/// A plot in a file.
pub(super) struct Plot {
    pub(super) file: &'static str,
    pub(super) svg: String,
}

/// Files, and whose caption the plot has in which report, after which heading.
const PLOTS: [(Shown, &str, &str, &str); 5] = [
    (Shown::Frozen, "frozen-time.svg", "load 0.25</h2>", "the slowest request"),
    (Shown::Frozen, "frozen-tail.svg", "load 0.25</h2>", "distribution of latency"),
    (Shown::Bimodal, "bimodal-mean.svg", "", "mean latency against"),
    (Shown::Bimodal, "bimodal-tail.svg", "load 0.85</h2>", "distribution of latency"),
    (Shown::Overload, "overload-tail.svg", "load 2</h2>", "distribution of latency"),
];

/// Every plot of the page.
///
/// # Errors
/// When a report has no such plot.
pub(super) fn all(measured: &[Measured]) -> anyhow::Result<Vec<Plot>> {
    let found = PLOTS.into_iter().filter_map(|(shown, file, heading, caption)| {
        let one = measured.iter().find(|one| one.shown == shown)?;
        let svg = cut(&one.report, heading, caption).map(|svg| Plot { file, svg: on_paper(svg) });
        Some(svg.with_context(|| format!("the report of {} has no plot for {file}", shown.name())))
    });
    found.collect()
}

/// The first plot after a heading whose caption begins like this.
fn cut<'a>(report: &'a str, heading: &str, caption: &str) -> Option<&'a str> {
    let (_, after) = report.split_once(heading)?;
    let mut figures = after.split("<figure>").skip(1);
    figures.find_map(|figure| {
        let (svg, rest) = figure.split_once("<figcaption>")?;
        rest.starts_with(caption).then_some(svg)
    })
}

/// The same on a ground of its own: whoever shows it may have a dark one.
fn on_paper(svg: &str) -> String {
    svg.replacen('>', "><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_found_by_its_heading_and_caption() {
        let report = "<h2>a</h2><figure><svg a=\"1\">1</svg><figcaption>distribution</figcaption></figure>\
                      <h2>b</h2><figure><svg>2</svg><figcaption>slowest</figcaption></figure>\
                      <figure><svg>3</svg><figcaption>distribution of</figcaption></figure>";
        assert_eq!(cut(report, "", "dist"), Some("<svg a=\"1\">1</svg>"));
        assert_eq!(cut(report, "b</h2>", "dist"), Some("<svg>3</svg>"));
        assert_eq!(cut(report, "c</h2>", "dist"), None);
        assert!(on_paper("<svg a=\"1\">1</svg>").starts_with("<svg a=\"1\"><rect "));
    }
}
