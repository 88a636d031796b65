//! Somebody who asks: a person with a home on a small disk, and the one command that runs there.

use crate::clock::Clock;
use crate::disk::SmallDisk;
use crate::farm::{Home, Process, Ran};
use crate::plan::{Build, Mailed, Manner, Wish};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A person.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) nr: usize,
    pub(crate) home: Home,
    pub(crate) disk: SmallDisk,
    pub(crate) clock: Option<Clock>,
    pub(crate) ticket: String,
}

/// A build of this round, with all that a command says of it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    recipe: String,
    word: String,
    lines: u64,
    pause: String,
    source: Option<PathBuf>,
    poured: Vec<u8>,
}

/// A command under way.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) wish: Wish,
    process: Option<Process>,
    /// Where its files go.
    pub(crate) output: PathBuf,
    /// The address that only this command gave.
    pub(crate) address: Option<String>,
    pub(crate) end: Option<End>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// By us.
    Killed,
    /// By itself.
    Ran(Ran),
}

impl Wanted {
    /// Prepares a build in a folder of its farm; `word` tells it from all others.
    pub(crate) fn prepare(build: &Build, word: String, farm: &Path) -> Self {
        let poured: Vec<u8> = match build.source_bytes {
            Some(bytes) => word.bytes().cycle().take(usize::try_from(bytes).unwrap()).collect(),
            None => Vec::new(),
        };
        let source = build.source_bytes.map(|_| {
            let folder = farm.join(format!("source-{word}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("poured"), &poured).unwrap();
            folder
        });
        let recipe = if source.is_some() { "sourced.toml" } else { "poured.toml" };
        let recipe = farm.join(recipe).display().to_string();
        let pause = format!("{}.{:03}", build.lasts.as_secs(), build.lasts.subsec_millis());
        Self { recipe, word, lines: build.lines, pause, source, poured }
    }

    /// The words of a command that asks for it, and wants it in `output`.
    pub(crate) fn request(&self, output: Option<&PathBuf>) -> Vec<String> {
        let options = [("word", self.word.clone()), ("lines", self.lines.to_string()), ("pause", self.pause.clone())];
        let options = options.iter().flat_map(|(name, value)| ["--option".to_owned(), format!("{name}={value}")]);
        let source = self.source.iter().flat_map(|path| ["--source".to_owned(), path.display().to_string()]);
        let output = output.into_iter().flat_map(|path| ["--output".to_owned(), path.display().to_string()]);
        ["request".to_owned(), self.recipe.clone()].into_iter().chain(options).chain(source).chain(output).collect()
    }

    /// Whether what lies in `output` is what was wanted, to the last byte.
    pub(crate) fn is_in(&self, output: &Path) -> bool {
        let line = format!("{}\n", self.word);
        let mut expected = line.repeat(usize::try_from(self.lines).unwrap()).into_bytes();
        expected.extend_from_slice(&self.poured);
        fs::read(output.join("made")).is_ok_and(|found| found == expected)
    }

    /// Tells it from all others.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }
}

impl Asker {
    /// Starts the command of a wish.
    pub(crate) fn ask(&self, wish: &Wish, wanted: &Wanted) -> Asking {
        let output = self.home.path().join(wanted.word());
        let mut words = wanted.request((wish.manner == Manner::Waits).then_some(&output));
        words.extend(["--json", "--farm", &self.ticket].map(str::to_owned));
        let address = (wish.mail == Mailed::Yes).then(|| format!("{}-{}@example.org", wanted.word(), self.nr));
        words.extend(address.iter().flat_map(|address| ["--email".to_owned(), address.clone()]));
        words.extend(["--agree".to_owned(), wish.agree.to_string()]);
        if wish.manner == Manner::Detaches {
            words.push("--detach".to_owned());
        }
        let mut command = self.home.command(&words);
        if let Some(clock) = &self.clock {
            clock.show_to(&mut command);
        }
        let process = Some(Process::start(&mut command));
        Asking { wish: wish.clone(), process, output, address, end: None }
    }
}

impl Asking {
    /// Whether the command is still there.
    pub(crate) fn is_under_way(&mut self) -> bool {
        let Some(process) = &mut self.process else { return false };
        if process.ended().is_none() {
            return true;
        }
        let ran = self.process.take().map(|process| process.end(Duration::from_secs(5)));
        self.end = ran.map(End::Ran);
        false
    }

    /// Kills the command, unless it has ended; says which.
    pub(crate) fn kill(&mut self) -> bool {
        let is_there = self.is_under_way();
        if let Some(mut process) = self.process.take() {
            process.kill();
            self.end = Some(End::Killed);
        }
        is_there
    }

    /// Sends the command a signal, unless it has ended; says which.
    pub(crate) fn signal(&mut self, signal: Signal) -> bool {
        let is_there = self.is_under_way();
        if let Some(process) = &self.process {
            process.signal(signal);
        }
        is_there
    }

    /// The request, where the farm acknowledged it and the command lived to say so.
    pub(crate) fn acknowledged(&self) -> Option<String> {
        let Some(End::Ran(ran)) = &self.end else { return None };
        let answer: Value = serde_json::from_str(&ran.stdout).ok()?;
        Some(answer["request"].as_str()?.to_owned())
    }
}
