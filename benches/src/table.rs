//! Rows of figures, each beside its peer's where one is given.

use std::str::FromStr;

use crate::Result;

/// A peer's figure for the row of a label: `LABEL=FIGURE`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    label: String,
    figure: f64,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (label, figure) = text.rsplit_once('=').ok_or("is no LABEL=FIGURE")?;
        let figure = figure.parse().map_err(|_| format!("`{figure}` is no number"))?;
        Ok(Self { label: label.trim().to_owned(), figure })
    }
}

/// A table that is printed row by row, since rows may take minutes.
pub(crate) struct Table {
    widths: Vec<usize>,
    peers: Vec<Peer>,
    /// Labels printed.
    labels: Vec<String>,
}

impl Table {
    /// Prints the header: the label's column, `columns`, and the peer's when any is given.
    pub(crate) fn new(label: &str, label_width: usize, columns: &[&str], peers: &[Peer]) -> Self {
        const LEAST: usize = 10;
        let mut widths = vec![label_width];
        widths.extend(columns.iter().map(|column| column.chars().count().max(LEAST)));
        let table = Self { widths, peers: peers.to_vec(), labels: Vec::new() };
        let mut cells: Vec<String> = std::iter::once(label).chain(columns.iter().copied()).map(str::to_owned).collect();
        if !peers.is_empty() {
            cells.extend(["PEER".into(), "RATIO".into()]);
        }
        table.print(&cells);
        table
    }

    /// Prints a row; `figure` is what the peer's is compared with.
    pub(crate) fn row(&mut self, label: &str, cells: &[String], figure: f64) {
        let mut row = vec![label.to_owned()];
        row.extend_from_slice(cells);
        if let Some(peer) = self.peers.iter().find(|peer| peer.label == label) {
            row.extend([format!("{:.1}", peer.figure), format!("{:.2}", figure / peer.figure)]);
        }
        self.print(&row);
        self.labels.push(label.to_owned());
    }

    /// Ends the table.
    ///
    /// # Errors
    /// When a peer's figure belongs to no row.
    pub(crate) fn end(self) -> Result<()> {
        match self.peers.iter().find(|peer| !self.labels.contains(&peer.label)) {
            None => Ok(()),
            Some(peer) => Err(format!("--peer: no row is called `{}`", peer.label).into()),
        }
    }

    fn print(&self, cells: &[String]) {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let width = self.widths.get(i).copied().unwrap_or(10);
            line += &if i == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        println!("{}", line.trim_end());
    }
}

/// A share as `47 %`; `-` where it is not known.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.0} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_and_must_have_a_row() {
        let peer: Peer = "c128 x1=788".parse().unwrap_or_else(|error| unreachable!("{error}"));
        assert_eq!(peer, Peer { label: "c128 x1".into(), figure: 788.0 });
        assert!("788".parse::<Peer>().is_err() && "a=b".parse::<Peer>().is_err());
        let mut table = Table::new("TEST", 8, &["TOKENS/S"], &[peer]);
        table.row("c128 x2", &["1.0".into()], 1.0);
        assert!(table.end().is_err());
    }
}
