//! The files of a commit, read from the repository and taken in as a tree. Nothing is checked out.
//!
//! `git ls-tree` says what there is and `git cat-file` gives the content, as it is stored: no attribute, filter or line ending
//! of anybody changes it. A submodule is an empty folder, as a clone without submodules has it.

use super::program::Program;
use crate::artifact::import::{ImportError, Imported, Intake};
use crate::source::FetchError;
use protocol::source::Commit;
use protocol::tree::Mode;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

/// The longest list of files, in bytes: paths together may not be longer in a manifest either.
const MAX_LIST_BYTES: u64 = 128 << 20;
/// The longest line with which git announces an object, in bytes.
const MAX_HEADER_BYTES: u64 = 256;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It could not be fetched, or not be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The commit holds what cannot be part of a source.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// Takes in the files of `commit`, of at most `max_bytes` together. Blocks.
pub(super) fn import(program: &Program, commit: &Commit, spool: &Path, max_bytes: u64) -> Result<Imported, TreeError> {
    let list = list(program, commit)?;
    let mut objects = Objects::start(program)?;
    let mut intake = Intake::new(spool, max_bytes)?;
    for line in list.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        let Some(entry) = Listed::read(line) else { return Err(unclear("ls-tree").into()) };
        let Ok(name) = std::str::from_utf8(entry.name) else { return Err(Intake::not_utf8(entry.name).into()) };
        match entry.mode {
            b"160000" => intake.folder(name)?,
            b"120000" => {
                let mut target = Vec::new();
                objects.blob(entry.object)?.read_to_end(&mut target).map_err(|error| unread(&error))?;
                objects.passed()?;
                intake.link(name, target)?;
            }
            mode => {
                let mode = if mode == b"100755" { Mode::Executable } else { Mode::Plain };
                let content = objects.blob(entry.object)?;
                intake.file(name, mode, content)?;
                objects.passed()?;
            }
        }
    }
    Ok(intake.finish()?)
}

/// What there is at a commit: lines that end with a NUL.
fn list(program: &Program, commit: &Commit) -> Result<Vec<u8>, FetchError> {
    let words = ["ls-tree", "-r", "-z", "--full-tree", commit.as_str()];
    let mut child = Ending(program.command(&words).spawn().map_err(|error| unread(&error))?);
    let mut list = Vec::new();
    if let Some(stdout) = child.0.stdout.take() {
        stdout.take(MAX_LIST_BYTES + 1).read_to_end(&mut list).map_err(|error| unread(&error))?;
    }
    if list.len() as u64 > MAX_LIST_BYTES {
        return Err(FetchError::Git {
            doing: "list the files",
            said: format!("more than {MAX_LIST_BYTES} bytes of them"),
        });
    }
    match child.0.wait() {
        Ok(status) if status.success() => Ok(list),
        Ok(status) => Err(FetchError::Git { doing: "list the files", said: format!("it ended with {status}") }),
        Err(error) => Err(unread(&error)),
    }
}

/// A line of `git ls-tree`: mode, sort, object, and after a tab the path.
struct Listed<'a> {
    mode: &'a [u8],
    object: &'a str,
    name: &'a [u8],
}

impl<'a> Listed<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let mut words = line[..tab].split(|byte| *byte == b' ');
        let (mode, _sort, object) = (words.next()?, words.next()?, words.next()?);
        Some(Self { mode, object: std::str::from_utf8(object).ok()?, name: &line[tab + 1..] })
    }
}

/// A running `git cat-file --batch`, asked for one object after another.
struct Objects {
    _child: Ending,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Objects {
    fn start(program: &Program) -> Result<Self, FetchError> {
        let mut command = program.command(&["cat-file", "--batch"]);
        let mut child = Ending(command.stdin(Stdio::piped()).spawn().map_err(|error| unread(&error))?);
        match (child.0.stdin.take(), child.0.stdout.take()) {
            (Some(asks), Some(stdout)) => {
                Ok(Self { _child: child, asks, answers: BufReader::with_capacity(128 << 10, stdout) })
            }
            _ => Err(unclear("cat-file")),
        }
    }

    /// The content of a blob, to be read to its end; then [`Objects::passed`].
    fn blob(&mut self, object: &str) -> Result<impl Read + '_, FetchError> {
        let asked = self.asks.write_all(format!("{object}\n").as_bytes()).and_then(|()| self.asks.flush());
        asked.map_err(|error| unread(&error))?;
        let mut header = String::new();
        let read = self.answers.by_ref().take(MAX_HEADER_BYTES).read_line(&mut header);
        read.map_err(|error| unread(&error))?;
        let words: Vec<&str> = header.trim_end().split(' ').collect();
        match words.as_slice() {
            [found, "blob", size] if *found == object => {
                let size: u64 = size.parse().map_err(|_| unclear("cat-file"))?;
                Ok(Whole { inner: self.answers.by_ref().take(size) })
            }
            _ => Err(FetchError::Git { doing: "read a file", said: header.trim_end().to_owned() }),
        }
    }

    /// Reads the line end after a blob.
    fn passed(&mut self) -> Result<(), FetchError> {
        let mut end = [0];
        self.answers.read_exact(&mut end).map_err(|error| unread(&error))?;
        if end == *b"\n" { Ok(()) } else { Err(unclear("cat-file")) }
    }
}

/// Content that fails where it ends before its announced length.
struct Whole<R> {
    inner: io::Take<R>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(into)? {
            0 if self.inner.limit() > 0 && !into.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok(len),
        }
    }
}

/// A child that is dead when this is gone.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended, and has no children of its own.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn unread(error: &io::Error) -> FetchError {
    FetchError::Git { doing: "read the files", said: error.to_string() }
}

fn unclear(what: &str) -> FetchError {
    FetchError::Git { doing: "read the files", said: format!("`git {what}` writes what is not understood") }
}
