//! Colours and figures. Colours switch off in a pipe (`anstream` strips them).

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

/// Bytes with a unit, three significant digits.
pub fn bytes(n: u64) -> String {
    let (unit, scale) = match n {
        0..1024 => return format!("{n} B"),
        1024..0x10_0000 => ("KiB", 10),
        0x10_0000..0x4000_0000 => ("MiB", 20),
        _ => ("GiB", 30),
    };
    let value = n as f64 / f64::from(1u32 << scale);
    format!("{value:.*} {unit}", digits(value))
}

fn digits(value: f64) -> usize {
    if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    }
}

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
