//! Colours, marks and figures. In a pipe there are no colours (`anstream` strips them) and marks are ASCII.

use anstyle::{AnsiColor, Style};
use std::fmt::Display;

/// For the word `error:`.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// For the word `warning:` and `note:`.
pub const NOTE: Style = AnsiColor::Yellow.on_default().bold();
/// For headings.
pub const HEAD: Style = Style::new().bold();
/// For what is good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what is missing.
pub const BAD: Style = AnsiColor::Red.on_default();
/// For what is secondary.
pub const DIM: Style = Style::new().dimmed();

/// Text in a style.
pub fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}
