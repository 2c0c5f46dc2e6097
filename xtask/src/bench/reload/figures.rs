//! Figures: one value for each row and column, as a table for people, as Markdown and as JSON.

use std::fs;

use anyhow::Context as _;
use comfy_table::{
    Table,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};
use serde_json::{Value, json};

use super::side::Column;
use crate::bench::{contestant, report};

/// All values so far.
pub(super) struct Figures {
    columns: Vec<Column>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Figures {
    /// None yet.
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Enters a value; a row is made when it gets its first one.
    pub(super) fn note(&mut self, name: &str, column: Column, value: f64) {
        let at = self.rows.iter().position(|(row, _)| row == name).unwrap_or_else(|| {
            self.rows.push((name.to_owned(), vec![None; self.columns.len()]));
            self.rows.len() - 1
        });
        if let Some(place) = self.columns.iter().position(|other| *other == column) {
            self.rows[at].1[place] = Some(value);
        }
    }

    /// Prints all of it twice: as a table, and to be copied.
    pub(super) fn print(&self) {
        println!("{}\n\n{}", self.table(UTF8_FULL_CONDENSED), self.table(ASCII_MARKDOWN));
        println!(
            "four workers of an unmodified app; the clients account for every request and try none again"
        );
    }

    /// Writes all of it into `target/bench`.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let rows: Vec<Value> =
            self.rows.iter().map(|(name, values)| self.row(name, values)).collect();
        let folder = contestant::folder();
        fs::create_dir_all(&folder)?;
        let path = folder.join("reload.json");
        fs::write(&path, serde_json::to_string_pretty(&rows)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
        println!("bench: every value is in {}", path.display());
        Ok(())
    }

    fn table(&self, preset: &str) -> Table {
        let mut table = Table::new();
        table.load_preset(preset);
        let names = self.columns.iter().map(|column| column.name().to_owned());
        table.set_header(std::iter::once(String::new()).chain(names));
        for (name, values) in &self.rows {
            let cells = values.iter().map(|value| report::show(*value));
            table.add_row(std::iter::once(name.clone()).chain(cells));
        }
        table
    }

    fn row(&self, name: &str, values: &[Option<f64>]) -> Value {
        let cells = self.columns.iter().zip(values);
        let cells: serde_json::Map<_, _> =
            cells.map(|(column, value)| (column.name().to_owned(), json!(value))).collect();
        json!({ "name": name, "values": cells })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_into_the_row_and_column_they_belong_to() {
        let mut figures = Figures::new(&[Column::Node, Column::Pm2]);
        figures.note("failed", Column::Pm2, 17.0);
        figures.note("reloads", Column::Node, 100.0);
        figures.note("failed", Column::Node, 0.0);
        let table = figures.table(ASCII_MARKDOWN).to_string();
        let lines: Vec<_> = table.lines().map(|line| line.replace(' ', "")).collect();
        assert_eq!(lines[0], "||cluster,Node|PM2,Node|");
        assert_eq!(lines[2..], ["|failed|0|17.0|", "|reloads|100|–|"]);
    }
}
