//! Rows under headings, as wide as they need to be.

/// Rows of text under headings. The last column is never padded.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these headings.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; one cell a heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headings.len());
        self.rows.push(cells.map(|cell| super::escape(&cell).replace(['\n', '\t'], " ")).into());
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, without a line feed at the end.
    pub(crate) fn text(&self) -> String {
        let headings: Vec<String> = self.headings.iter().map(|&heading| heading.to_owned()).collect();
        let lines = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..headings.len())
            .map(|column| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0))
            .collect();
        let line = |cells: &Vec<String>| {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            line.trim_end().to_owned()
        };
        lines().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "WHAT"]);
        table.row(["lua".to_owned(), "a language".to_owned()]);
        table.row(["hellö".to_owned(), "x\ny\x1b[0m".to_owned()]);
        assert_eq!(table.text(), "NAME   WHAT\nlua    a language\nhellö  x y\\x1b[0m");
    }
}
