//! Colours and tables. Colours switch off in a pipe (`anstream` strips them).

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Arguments;
use std::io::Write;

/// Prints a line to standard output. A reader that has enough and closes the pipe (`| head`) is no error.
pub fn line(text: Arguments<'_>) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// [`line`] with a format string.
macro_rules! say {
    () => { $crate::cli::style::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::cli::style::line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// For the word `error:`.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// For headings.
pub const HEAD: Style = Style::new().bold();
/// For what is good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what is secondary.
pub const DIM: Style = Style::new().dimmed();

/// Nanoseconds as microseconds.
pub fn micros(ns: f64) -> String {
    format!("{:.1}", ns / 1e3)
}

/// A table without vertical lines; columns from `numbers_from` on are right-aligned.
pub fn table(header: &[&str], numbers_from: usize, rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if i >= numbers_from {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
