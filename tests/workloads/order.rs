//! Asking for a build as a person does, and what it cost.

use crate::barn::{Person, Volunteer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one build may take on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    pub(crate) recipe: &'a str,
    pub(crate) source: &'a Path,
    pub(crate) options: &'a [&'a str],
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) request: String,
    pub(crate) outcome: String,
    pub(crate) manifest: String,
    /// Where its files are.
    pub(crate) folder: PathBuf,
    pub(crate) bytes: u64,
    /// What building it took, where it was built.
    pub(crate) used: Used,
}

impl Order<'_> {
    /// Asks with `more` words, into the folder `name`, and has it built by `volunteer`, which builds nothing else meanwhile.
    #[track_caller]
    pub(crate) fn placed(&self, me: &Person, volunteer: &Volunteer, name: &str, more: &[&str]) -> Made {
        let folder = me.folder().join(name);
        let source = self.source.to_str().unwrap();
        let mut words =
            vec!["request", self.recipe, "--source", source, "--output", folder.to_str().unwrap(), "--json"];
        words.extend(self.options.iter().flat_map(|option| ["--option", option]));
        words.extend(more);
        let answer = me.starts(&words).end(PATIENCE).ended_with(0).json();
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        let files = answer["files"].as_array().unwrap();
        Made {
            request: text("request"),
            outcome: text("outcome"),
            manifest: text("manifest"),
            folder,
            bytes: files.iter().map(|file| file["size"].as_u64().unwrap()).sum(),
            used: Used::by_the_last_build_of(volunteer),
        }
    }

    /// One line of figures.
    pub(crate) fn tell(&self, made: &Made, remark: &str) {
        eprintln!("{:8} {:40} {}, {:8} bytes  {remark}", self.recipe, self.options.join(" "), made.used, made.bytes,);
    }
}

/// What the steps of a build took, in the words of its volunteer: every process counts, whoever waited for it.
#[derive(Clone, Debug)]
pub(crate) struct Used(BTreeMap<String, u64>);

impl Used {
    fn by_the_last_build_of(volunteer: &Volunteer) -> Self {
        let said = volunteer.process.stderr();
        let line = said.lines().rfind(|line| line.contains("the steps have ended")).unwrap_or_default();
        let fields = line.split_whitespace().filter_map(|word| word.split_once('='));
        Self(fields.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }
}

impl fmt::Display for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |name| match self.0.get(name) {
            Some(ms) => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
            None => "? s".to_owned(),
        };
        let (wall, cpu) = (seconds("wall_ms"), seconds("cpu_ms"));
        let peak = self.0.get("peak_mib").map_or_else(|| "?".to_owned(), u64::to_string);
        write!(f, "{wall:>8}, {cpu:>8} of processors, {peak:>4} MiB at most")
    }
}

/// The file `name` of what was made, run with `words`: what it printed.
#[track_caller]
pub(crate) fn run(made: &Made, name: &str, words: &[&str]) -> String {
    let ran = std::process::Command::new(made.folder.join(name)).args(words).output().unwrap();
    assert!(ran.status.success(), "{name} {words:?}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap()
}

/// The attempts of a request, as the farm counts them.
#[track_caller]
pub(crate) fn attempts(me: &Person, request: &str) -> Value {
    me.status(request)["attempts"].clone()
}
