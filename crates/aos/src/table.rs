//! Tables for people: no lines, a header, columns as wide as their content.

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use crate::output::{Output, Tone};
use crate::screen;

/// A table under construction.
pub(crate) struct Columns {
    table: Table,
    out: Output,
}

impl Columns {
    /// A table with these headings.
    pub(crate) fn new(out: Output, headings: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(if out.is_terminal() {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        if out.colours() {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(headings.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
        Self { table, out }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        let cells: Vec<Cell> = cells.into_iter().map(|text| text.cell()).collect();
        self.table.add_row(cells);
    }

    /// Prints the table.
    pub(crate) fn print(self) -> std::io::Result<()> {
        for line in self.table.lines() {
            let line = line.trim_end();
            // The style pads every cell on both sides.
            self.out.line(line.strip_prefix(' ').unwrap_or(line))?;
        }
        Ok(())
    }
}

/// The content of a cell.
pub(crate) struct Text {
    text: String,
    tone: Option<Tone>,
}

impl Text {
    /// Text from anywhere; it is made safe to show.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: screen::one_line(text.as_ref()), tone: None }
    }

    /// Text with a meaning.
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { tone: Some(tone), ..Self::new(text) }
    }

    /// Text, or a dash when there is none.
    pub(crate) fn or_dash(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::new("-"), Self::new)
    }

    fn cell(self) -> Cell {
        let cell = Cell::new_owned(self.text);
        match self.tone {
            Some(Tone::Good) => cell.fg(Color::Green),
            Some(Tone::Warn) => cell.fg(Color::Yellow),
            Some(Tone::Bad) => cell.fg(Color::Red),
            Some(Tone::Faint) => cell.add_attribute(Attribute::Dim),
            Some(Tone::Strong) => cell.add_attribute(Attribute::Bold),
            None => cell,
        }
    }
}
