//! What the commands print: JSON, tables, human numbers.

use std::fmt::Write as _;
use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::CliError;

/// How a command prints its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // No doc comments: they would spread the help over several lines per option.
    #[default]
    Text,
    Json,
}

/// Writes `text` to standard output at once.
pub(crate) fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Writes `value` to standard output as indented JSON and a line break.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let json = |error: serde_json::Error| CliError::Output(error.into());
    let mut text = serde_json::to_string_pretty(value).map_err(json)?;
    text.push('\n');
    print(&text)
}

/// Text from a file made harmless for a terminal: control characters are escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// `1.24 B`, `135 M`, `153 K`.
pub(crate) fn human_count(count: u64) -> String {
    scaled(count as f64, 1000.0, &["", " K", " M", " B", " T"])
}

/// `2.31 GB`, `533 KB`; powers of 1000, as disks are sold.
pub(crate) fn human_bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &[" B", " KB", " MB", " GB", " TB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // 999.5 would be shown as 1000.
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}{}", units.get(unit).copied().unwrap_or_default())
}

/// Lays `rows` out in columns two blanks apart; columns in `right` are aligned to the right.
pub(crate) fn table<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), right) in row.iter().zip(widths).zip(right) {
            let separator = if line.is_empty() { "" } else { "  " };
            // Writing to a String does not fail.
            let _ = if right {
                write!(line, "{separator}{cell:>width$}")
            } else {
                write!(line, "{separator}{cell:<width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_numbers() {
        let counts = [(0, "0"), (999, "999"), (1000, "1.00 K"), (153_024, "153 K"), (999_600, "1.00 M")];
        for (count, text) in counts {
            assert_eq!(human_count(count), text);
        }
        assert_eq!(human_count(1_235_814_400), "1.24 B");
        assert_eq!(human_bytes(12_345_678), "12.3 MB");
        assert_eq!(human_bytes(u64::MAX), "18446744 TB");
    }

    #[test]
    fn tables_align() {
        let rows = [["a".to_owned(), "12".to_owned()], ["bcd".to_owned(), "3".to_owned()]];
        assert_eq!(table(&rows, [false, true]), "a    12\nbcd   3\n");
    }

    #[test]
    fn escapes_control_characters() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
