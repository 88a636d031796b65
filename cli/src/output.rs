//! The only place that prints.
//!
//! The answer goes to stdout, talk to stderr. Nothing reaches either of them unescaped: every text is passed through [`escape`]
//! here, so a peer's words cannot move the cursor, change a title or turn the direction of reading, whoever forgot where they
//! came from. With `--json` stdout carries one object and nothing else. Colour is for terminals, and `NO_COLOR` is honoured.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod board;
mod escape;
mod progress;
mod table;

pub(crate) use board::Board;
pub(crate) use escape::{LogText, escape};
pub(crate) use progress::Progress;
pub(crate) use table::Table;

use crate::sentences::Said;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// What stdout carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
}

/// Whether talk is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Coloured,
    Plain,
}

/// Where a command's words go.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    paint: Paint,
    progress: progress::Style,
}

impl Output {
    /// An output as the terminal and the environment call for.
    pub(crate) fn new(format: Format) -> Self {
        let talks_to_terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            paint: if talks_to_terminal && !no_color && !dumb { Paint::Coloured } else { Paint::Plain },
            progress: if talks_to_terminal && !dumb { progress::Style::Bars } else { progress::Style::Lines },
        }
    }

    /// What stdout carries.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Sends what the program logs to stderr, filtered by `filter` or else by `default`.
    ///
    /// # Errors
    ///
    /// A sentence when the filter is no filter.
    pub(crate) fn start_log(&self, filter: Option<&str>, default: &str) -> Result<(), String> {
        let text = filter.unwrap_or(default);
        let filter = EnvFilter::try_new(text).map_err(|error| format!("`{text}` is not a log filter: {error}"))?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .with_ansi(self.paint == Paint::Coloured)
            .with_target(false);
        log.try_init().map_err(|error| error.to_string())
    }

    /// Prints the answer, in lines, to stdout.
    ///
    /// # Errors
    ///
    /// When stdout is closed or full.
    pub(crate) fn answer(&self, text: &str) -> io::Result<()> {
        if self.format == Format::Json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", escape(text))?;
        stdout.flush()
    }

    /// Prints text to stdout that was written by this program, such as a completion script, byte by byte.
    ///
    /// # Errors
    ///
    /// When stdout is closed or full.
    pub(crate) fn own_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        if self.format == Format::Json {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Prints text to stdout as it is; [`LogText`] made it safe, and it has line feeds of its own.
    ///
    /// # Errors
    ///
    /// When stdout is closed or full.
    pub(crate) fn safe_text(&self, text: &str) -> io::Result<()> {
        self.own_bytes(text.as_bytes())
    }

    /// Prints the one JSON object, if that is what stdout carries.
    ///
    /// # Errors
    ///
    /// When stdout is closed or full.
    pub(crate) fn object(&self, object: &impl Serialize) -> io::Result<()> {
        if self.format == Format::Text {
            return Ok(());
        }
        let text = serde_json::to_string(object)?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", escape::escape_json(&text))?;
        stdout.flush()
    }

    /// Says something to the person, on stderr.
    pub(crate) fn say(&self, text: &str) {
        self.talk(&escape(text));
    }

    /// Says what went wrong, and what to do next.
    pub(crate) fn error(&self, said: &Said) {
        let label = self.label("error", "31");
        self.talk(&format!("{label}: {}", escape(&said.what)));
        self.next(said);
    }

    /// Says what is not as it should be but does not stop anything.
    pub(crate) fn warn(&self, said: &Said) {
        let label = self.label("warning", "33");
        self.talk(&format!("{label}: {}", escape(&said.what)));
        self.next(said);
    }

    /// Says what happened, and what to do next.
    pub(crate) fn tell(&self, said: &Said) {
        self.talk(&escape(&said.what));
        self.next(said);
    }

    fn next(&self, said: &Said) {
        if let Some(next) = &said.next {
            let label = self.label("hint", "36");
            self.talk(&format!("\n{label}: {}", escape(next)));
        }
    }

    /// Shows how far something is, until it is dropped.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(self.progress)
    }

    /// Shows a usage error, help or the version: help to stdout, errors to stderr.
    ///
    /// # Errors
    ///
    /// When stdout is closed or full.
    pub(crate) fn usage(&self, shown: &clap::Error) -> io::Result<()> {
        let text = shown.render().to_string();
        match escape(&text) {
            Cow::Owned(safe) => {
                write!(io::stderr().lock(), "{safe}")
            }
            Cow::Borrowed(_) => shown.print(),
        }
    }

    /// Shows how far several things are, one line each under its name, until it is dropped.
    pub(crate) fn board(&self, names: &[String]) -> Board {
        Board::new(self.progress, names)
    }

    fn label(&self, word: &str, colour: &str) -> String {
        match self.paint {
            Paint::Coloured => format!("\x1b[1;{colour}m{word}\x1b[0m"),
            Paint::Plain => word.to_owned(),
        }
    }

    fn talk(&self, line: &str) {
        // Where stderr is closed there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{line}");
    }
}
