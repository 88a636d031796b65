//! `node request --matrix`: how every combination went.

use crate::args::Chosen;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::{self, Said};
use crate::shape::RequestShape;
use crate::verb::request::millis;
use protocol::farm::explain::Ended;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How one combination went.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// As a command of its own would have ended.
    pub(crate) exit: Exit,
    /// In a word or two.
    pub(crate) outcome: String,
    /// Why it is not built.
    pub(crate) said: Option<Said>,
    /// Where its files are.
    pub(crate) folder: Option<PathBuf>,
    /// From asking to the last file; `None` where nobody waited.
    pub(crate) elapsed: Option<Duration>,
    /// For scripts.
    pub(crate) shape: RequestShape,
}

/// A combination of options and how it went.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    options: BTreeMap<String, String>,
    name: String,
    end: End,
}

impl Cell {
    /// A combination under its name.
    pub(crate) fn new(chosen: &[Chosen], name: String, end: End) -> Self {
        let options = chosen.iter().map(|chosen| (chosen.name.to_string(), chosen.value.clone())).collect();
        Self { options, name, end }
    }
}

/// `request --matrix`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct MatrixShape {
    pub(crate) combinations: Option<Vec<CellShape>>,
    /// From the start of the command to the last file on disk.
    pub(crate) elapsed_ms: Option<u64>,
    pub(crate) reason: Option<String>,
}

/// A combination in `request --matrix`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CellShape {
    /// The options that differ between combinations, as typed.
    pub(crate) options: BTreeMap<String, String>,
    /// With which code a command of its own would have ended.
    pub(crate) exit_code: u8,
    #[serde(flatten)]
    pub(crate) request: RequestShape,
}

/// A combination as people read it: `gc=boehm opt=1`.
pub(crate) fn name(chosen: &[Chosen]) -> String {
    chosen.iter().map(|chosen| format!("{}={}", chosen.name, chosen.value)).collect::<Vec<_>>().join(" ")
}

/// A folder below `root` for each combination, no two the same.
pub(crate) fn folders(root: &Path, names: &[String]) -> Vec<PathBuf> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "=._+-".contains(c) { c } else { '_' };
    let mut taken = BTreeSet::new();
    let mut folder = |name: &String| {
        let mut name: String = name.replace(' ', ",").chars().map(|c| if c == ',' { c } else { plain(c) }).collect();
        name.truncate(200);
        // Values that differ only in what a file name cannot hold.
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        root.join(name)
    };
    names.iter().map(&mut folder).collect()
}

/// The kind of an end, in a word or two.
pub(crate) fn kind(ended: &Ended) -> &'static str {
    match ended {
        Ended::Built { .. } => "built",
        Ended::BuildError { .. } => "build error",
        Ended::Infrastructure { .. } => "infrastructure",
        Ended::Policy(_) => "policy",
    }
}

/// Shows how all of it went. The exit code is the worst of them.
pub(crate) fn finished(
    output: &Output,
    cells: Vec<Cell>,
    interrupted: Option<Failure>,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    let worst = cells.iter().map(|cell| cell.end.exit).max_by_key(|exit| *exit as u8).unwrap_or(Exit::Done);
    for cell in &cells {
        if let Some(said) = cell.end.said.as_ref().filter(|_| interrupted.is_none()) {
            output.error(&Said { what: format!("{}: {}", cell.name, said.what), next: said.next.clone() });
        }
    }
    output.answer(&table(&cells))?;
    let exit = match &interrupted {
        Some(failure) => {
            output.error(&failure.said);
            failure.exit
        }
        None => {
            output.say(&format!("{} in {}", summary(&cells), sentences::span(elapsed)));
            worst
        }
    };
    let combinations = cells.into_iter().map(|Cell { options, end, .. }| CellShape {
        options,
        exit_code: end.exit as u8,
        request: RequestShape { elapsed_ms: end.elapsed.map(millis), ..end.shape },
    });
    output.object(&MatrixShape {
        combinations: Some(combinations.collect()),
        elapsed_ms: Some(millis(elapsed)),
        reason: interrupted.map(|failure| failure.said.what),
    })?;
    Ok(exit)
}

fn table(cells: &[Cell]) -> String {
    let mut table = Table::new(&["COMBINATION", "OUTCOME", "TIME", "FILES"]);
    for Cell { name, end, .. } in cells {
        let time = end.elapsed.map(sentences::span).unwrap_or_default();
        let folder = end.folder.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default();
        table.row([name.clone(), end.outcome.clone(), time, folder]);
    }
    table.text()
}

/// `3 combinations: 2 built, 1 build error`.
fn summary(cells: &[Cell]) -> String {
    let mut outcomes: Vec<(&str, usize)> = Vec::new();
    for cell in cells {
        // Requests that were left have an outcome each.
        let outcome = if cell.end.outcome.starts_with("left as") { "left with the farm" } else { &cell.end.outcome };
        match outcomes.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, count)) => *count += 1,
            None => outcomes.push((outcome, 1)),
        }
    }
    let parts: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let noun = if cells.len() == 1 { "combination" } else { "combinations" };
    format!("{} {noun}: {}", cells.len(), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, outcome: &str) -> Cell {
        let end = End {
            exit: Exit::Done,
            outcome: outcome.to_owned(),
            said: None,
            folder: Some(PathBuf::from("out")),
            elapsed: Some(Duration::from_secs(2)),
            shape: RequestShape::default(),
        };
        Cell { options: BTreeMap::new(), name: name.to_owned(), end }
    }

    #[test]
    fn outcomes_are_counted_in_the_order_they_come() {
        let cells = [cell("a=1", "built"), cell("a=2", "build error"), cell("a=3", "built")];
        assert_eq!(summary(&cells), "3 combinations: 2 built, 1 build error");
        assert_eq!(
            table(&cells[..1]).lines().map(|line| line.split_whitespace().collect()).collect::<Vec<Vec<_>>>(),
            [vec!["COMBINATION", "OUTCOME", "TIME", "FILES"], vec!["a=1", "built", "2s", "out"]]
        );
    }

    #[test]
    fn every_combination_has_a_folder_of_its_own() {
        let names = ["gc=boehm opt=1", "t=a/b", "t=a:b", "t=.."].map(str::to_owned);
        let folders = folders(Path::new("out"), &names);
        assert_eq!(folders, ["out/gc=boehm,opt=1", "out/t=a_b", "out/t=a_b_", "out/t=.."].map(PathBuf::from));
    }
}
