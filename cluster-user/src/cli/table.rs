//! A table that fits the terminal: the least important columns go first, then long texts are cut.

use anstyle::{AnsiColor, Color, Effects, Style};
use comfy_table::{
    Attribute, CellAlignment, ContentArrangement, TableComponent, presets::UTF8_FULL_CONDENSED,
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::human;

/// How narrow a text may be cut, in two steps: before columns are dropped, and after.
const CUT: [usize; 2] = [24, 6];

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What is above it.
    pub(super) title: &'static str,
    /// The lowest goes first; [`KEEP`] never goes.
    pub(super) importance: u8,
    /// Whether it holds numbers.
    pub(super) right: bool,
    /// Whether its texts may be cut.
    pub(super) cut: bool,
}

/// Importance of a column that is never dropped.
pub(super) const KEEP: u8 = u8::MAX;

/// A cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { text: human::plain(text.as_ref()), style }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(value: T) -> Self {
        Self::styled(value.to_string(), Style::new())
    }
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    titles: bool,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), titles: true }
    }

    /// A table of names and values.
    pub(super) fn pairs() -> Self {
        let name = Column { title: "", importance: KEEP, right: false, cut: false };
        let value = Column { title: "", importance: KEEP, right: false, cut: true };
        Self { columns: vec![name, value], rows: Vec::new(), titles: false }
    }

    /// Adds a row, with a cell for every column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes it, as wide as `width` at most, if that can be.
    pub(super) fn render(mut self, width: Option<usize>, colour: bool) -> String {
        if let Some(width) = width {
            self.fit(width);
        }
        let mut table = comfy_table::Table::new();
        table
            .load_preset(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Disabled);
        for (component, symbol) in [
            (TableComponent::VerticalLines, '│'),
            (TableComponent::HeaderLines, '─'),
            (TableComponent::LeftHeaderIntersection, '├'),
            (TableComponent::MiddleHeaderIntersections, '┼'),
            (TableComponent::RightHeaderIntersection, '┤'),
        ] {
            table.set_style(component, symbol);
        }
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let heading = AnsiColor::Cyan.on_default().bold();
        if self.titles {
            table.set_header(
                self.columns.iter().map(|column| drawn(column.title, heading, column.right)),
            );
        }
        for row in &self.rows {
            let cells = row.iter().zip(&self.columns);
            table.add_row(cells.map(|(cell, column)| drawn(&cell.text, cell.style, column.right)));
        }
        let mut text = table.to_string();
        text.push('\n');
        text
    }

    fn fit(&mut self, width: usize) {
        self.cut(width, CUT[0]);
        while self.width() > width {
            let candidates = self.columns.iter().enumerate();
            let least = candidates.filter(|(_, column)| column.importance != KEEP);
            let Some((at, _)) = least.min_by_key(|(_, column)| column.importance) else { break };
            self.columns.remove(at);
            for row in &mut self.rows {
                row.remove(at);
            }
        }
        self.cut(width, CUT[1]);
    }

    /// Cuts the widest column that may be cut, until it fits or all are `least` wide.
    fn cut(&mut self, width: usize, least: usize) {
        loop {
            let excess = self.width().saturating_sub(width);
            let columns = self.columns.iter().enumerate().filter(|(_, column)| column.cut);
            let widest = columns.map(|(at, _)| (self.column_width(at), at)).max();
            let Some((wide, at)) = widest.filter(|(wide, _)| excess > 0 && *wide > least) else {
                break;
            };
            let target = wide.saturating_sub(excess).max(least);
            for row in &mut self.rows {
                row[at].text = shorten(&row[at].text, target);
            }
            if self.column_width(at) >= wide {
                break; // its title is what is wide
            }
        }
    }

    fn width(&self) -> usize {
        1 + (0..self.columns.len()).map(|at| self.column_width(at) + 3).sum::<usize>()
    }

    fn column_width(&self, at: usize) -> usize {
        let title = if self.titles { self.columns[at].title.width() } else { 0 };
        self.rows.iter().map(|row| row[at].text.width()).fold(title, usize::max)
    }
}

/// The text, or as much of its beginning as fits with an ellipsis.
pub(super) fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| match left.checked_sub(c.width().unwrap_or(0)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

fn drawn(text: &str, style: Style, right: bool) -> comfy_table::Cell {
    let mut cell = comfy_table::Cell::new(text);
    if right {
        cell = cell.set_alignment(CellAlignment::Right);
    }
    if style.get_effects().contains(Effects::BOLD) {
        cell = cell.add_attribute(Attribute::Bold);
    }
    if style.get_effects().contains(Effects::DIMMED) {
        cell = cell.add_attribute(Attribute::Dim);
    }
    let colour = match style.get_fg_color() {
        Some(Color::Ansi(AnsiColor::Red)) => comfy_table::Color::DarkRed,
        Some(Color::Ansi(AnsiColor::Green)) => comfy_table::Color::DarkGreen,
        Some(Color::Ansi(AnsiColor::Yellow)) => comfy_table::Color::DarkYellow,
        Some(Color::Ansi(AnsiColor::Cyan)) => comfy_table::Color::DarkCyan,
        Some(Color::Ansi(_) | Color::Ansi256(_) | Color::Rgb(_)) | None => return cell,
    };
    cell.fg(colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_shown_when_there_is_no_terminal() {
        insta::assert_snapshot!(sample("приложение").render(None, false), @r"
        ┌────┬────────────┬────────┬────────┐
        │ id │ name       │ policy │ status │
        ├────┼────────────┼────────┼────────┤
        │  0 │ приложение │ rr     │ online │
        └────┴────────────┴────────┴────────┘
        ");
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_columns_then_the_ends_of_names() {
        insta::assert_snapshot!(sample("a-rather-long-name").render(Some(40), false), @r"
        ┌────┬────────────────────┬────────┐
        │ id │ name               │ status │
        ├────┼────────────────────┼────────┤
        │  0 │ a-rather-long-name │ online │
        └────┴────────────────────┴────────┘
        ");
        insta::assert_snapshot!(sample("日本語のアプリケーション").render(Some(28), false), @r"
        ┌────┬───────────┬────────┐
        │ id │ name      │ status │
        ├────┼───────────┼────────┤
        │  0 │ 日本語の… │ online │
        └────┴───────────┴────────┘
        ");
    }

    #[test]
    fn no_width_is_exceeded_that_can_be_met() {
        for width in 27..80 {
            let text = sample("an-app-with-a-long-name-indeed").render(Some(width), false);
            assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
        }
    }

    #[test]
    fn colours_and_control_characters_are_the_callers_choice_only() {
        let coloured = sample("a\u{1b}[2J").render(None, true);
        assert!(coloured.contains("a\\u{1b}[2J"));
        assert!(coloured.contains("\u{1b}[38;5;2m online"));
        assert!(!sample("a").render(None, false).contains('\u{1b}'));
    }

    fn sample(name: &str) -> Table {
        let column = |title, importance, right, cut| Column { title, importance, right, cut };
        let mut table = Table::new(&[
            column("id", KEEP, true, false),
            column("name", KEEP, false, true),
            column("policy", 1, false, false),
            column("status", KEEP, false, false),
        ]);
        let online = Cell::styled("online", AnsiColor::Green.on_default());
        table.row(vec![0.into(), name.into(), "rr".into(), online]);
        table
    }
}
