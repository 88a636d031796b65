//! Taking the declared outputs out of a work folder whose build is dead.
//!
//! This is where build daemons have been broken into, so it believes nothing: every file is opened by descriptor below the work
//! folder, through no link of any kind, without blocking, and only a plain file that the build user owns is read. What is not
//! such a file is an error that names it, never skipped. Modes are reduced to "executable or not".

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::enclosure::Enclosure;
use super::janitor::open_folder;
use super::output::{Last, OutputPattern, is_acceptable, matches};
use protocol::recipe::Presence;

/// How much may be collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectLimits {
    /// Files.
    pub files: usize,
    /// The sum of their lengths.
    pub bytes: u64,
    /// Folders above a file, below the work folder.
    pub depth: usize,
    /// Bytes of a path.
    pub path_bytes: usize,
    /// Entries of all folders that are listed.
    pub entries: usize,
}

impl Default for CollectLimits {
    fn default() -> Self {
        Self { files: 100_000, bytes: 16 << 30, depth: 32, path_bytes: 1024, entries: 400_000 }
    }
}

/// One output. Its bytes come with it, as an open file at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Relative to the work folder, parts separated by `/`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// All that is kept of its mode.
    pub kind: FileKind,
}

/// All that is kept of a file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// 0644
    Plain,
    /// 0755
    Executable,
}

impl FileKind {
    /// The mode that it is given wherever it is written.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Plain => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// Why outputs were not taken. Names in it come from the build: escape them where they are shown.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Nothing matches a declared output.
    #[error("the declared output `{pattern}` is not there")]
    Missing {
        /// As declared.
        pattern: String,
    },
    /// A link, a folder, a pipe, a socket or a device.
    #[error("the output `{path}` is {what}, not a file")]
    NotAFile {
        /// Where.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// A folder on the way is a link or something else.
    #[error("`{path}` on the way to an output is not a folder of the build")]
    NotAFolder {
        /// Where.
        path: String,
    },
    /// Not UTF-8, or with control or direction characters.
    #[error("an output below `{folder}` has an unacceptable name: {name:?}")]
    Name {
        /// The folder.
        folder: String,
        /// The name, lossily.
        name: String,
    },
    /// Two names that are one on systems that ignore case.
    #[error("the outputs `{first}` and `{second}` differ only in case")]
    CaseTwins {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// Set-uid or set-gid.
    #[error("the output `{path}` is set-uid or set-gid")]
    SetId {
        /// Where.
        path: String,
    },
    /// Its owner may not read it.
    #[error("the output `{path}` may not be read by its owner")]
    Locked {
        /// Where.
        path: String,
    },
    /// It does not belong to the build user.
    #[error("the output `{path}` does not belong to the build")]
    Foreign {
        /// Where.
        path: String,
    },
    /// Too much of something.
    #[error("too many {what} to collect: more than {limit}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Processes of the build may still live.
    #[error("the build is not proven dead")]
    Alive,
    /// The system's.
    #[error("`{path}`: {source}")]
    Io {
        /// Where.
        path: String,
        /// What it said.
        source: io::Error,
    },
    /// The visitor's own.
    #[error(transparent)]
    Visitor(io::Error),
}

impl CollectError {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

impl Enclosure {
    /// Shows every declared output to `visit`, sorted by path, one open file at a time. Blocks.
    ///
    /// # Errors
    /// [`CollectError`]. Nothing is shown before all names, kinds and sizes have been found acceptable.
    pub fn collect(
        &self,
        outputs: &[OutputPattern],
        limits: &CollectLimits,
        visit: impl FnMut(&Collected, &mut File) -> io::Result<()>,
    ) -> Result<(), CollectError> {
        if !self.is_quiet() {
            return Err(CollectError::Alive);
        }
        let workspace = self.workspace();
        collect(workspace.build(), workspace.user().uid(), outputs, limits, visit)
    }
}

fn collect(
    build: &OwnedFd,
    owner: u32,
    outputs: &[OutputPattern],
    limits: &CollectLimits,
    mut visit: impl FnMut(&Collected, &mut File) -> io::Result<()>,
) -> Result<(), CollectError> {
    let mut search = Search { build, owner, limits, paths: BTreeSet::new(), entries: 0 };
    for output in outputs {
        search.find(output)?;
    }
    let paths = search.paths;
    refuse_case_twins(&paths)?;
    let mut found = Vec::with_capacity(paths.len());
    let mut bytes: u64 = 0;
    for path in paths {
        let stat = open_output(build, owner, &path)?.1;
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        bytes = bytes.saturating_add(size);
        if bytes > limits.bytes {
            return Err(CollectError::TooMuch { what: "bytes", limit: limits.bytes });
        }
        let kind = if stat.st_mode & 0o100 == 0 { FileKind::Plain } else { FileKind::Executable };
        found.push(Collected { path, size, kind });
    }
    for collected in &found {
        let (file, _) = open_output(build, owner, &collected.path)?;
        visit(collected, &mut File::from(file)).map_err(CollectError::Visitor)?;
    }
    Ok(())
}

/// Paths that the declared outputs name.
struct Search<'a> {
    build: &'a OwnedFd,
    owner: u32,
    limits: &'a CollectLimits,
    paths: BTreeSet<String>,
    entries: usize,
}

impl Search<'_> {
    fn find(&mut self, output: &OutputPattern) -> Result<(), CollectError> {
        match (self.find_required(output), output.presence) {
            (Err(CollectError::Missing { .. }), Presence::Optional) => Ok(()),
            (found, _) => found,
        }
    }

    fn find_required(&mut self, output: &OutputPattern) -> Result<(), CollectError> {
        let before = self.paths.len();
        let missing = || CollectError::Missing { pattern: output.to_string() };
        let folder = output.folders.join("/");
        let mut matched = 0_usize;
        match &output.last {
            Last::Name(name) => {
                let path = join(&folder, name);
                // Whatever else it is, is found out when it is opened.
                if open_output(self.build, self.owner, &path).is_err_and(|error| error.is_missing()) {
                    return Err(missing());
                }
                self.add(path)?;
                matched = 1;
            }
            Last::Glob(glob) => {
                for (name, _) in self.list(&folder, |name| matches(glob, name))?.ok_or_else(missing)? {
                    self.add(join(&folder, &name))?;
                    matched += 1;
                }
            }
            Last::Below => {
                let mut pending = vec![folder];
                let mut first = true;
                while let Some(folder) = pending.pop() {
                    let listed = self.list(&folder, |_| true)?;
                    for (name, kind) in if first { listed.ok_or_else(missing)? } else { listed.unwrap_or_default() } {
                        let path = join(&folder, &name);
                        if kind == FileType::Directory {
                            self.check_depth(&path)?;
                            pending.push(path);
                        } else {
                            self.add(path)?;
                            matched += 1;
                        }
                    }
                    first = false;
                }
            }
        }
        // A path that two patterns name is found by both.
        if matched == 0 && self.paths.len() == before { Err(missing()) } else { Ok(()) }
    }

    fn add(&mut self, path: String) -> Result<(), CollectError> {
        self.check_depth(&path)?;
        self.paths.insert(path);
        if self.paths.len() > self.limits.files {
            return Err(CollectError::TooMuch { what: "files", limit: self.limits.files as u64 });
        }
        Ok(())
    }

    fn check_depth(&self, path: &str) -> Result<(), CollectError> {
        if path.len() > self.limits.path_bytes {
            return Err(CollectError::TooMuch { what: "bytes in a path", limit: self.limits.path_bytes as u64 });
        }
        if path.matches('/').count() > self.limits.depth {
            return Err(CollectError::TooMuch { what: "folders in a path", limit: self.limits.depth as u64 });
        }
        Ok(())
    }

    /// The wanted names in a folder; none when there is no such folder.
    fn list(
        &mut self,
        folder: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Vec<(String, FileType)>>, CollectError> {
        let Some(open) = open_inner_folder(self.build, folder)? else {
            return Ok(None);
        };
        let failed = |errno: Errno| CollectError::Io { path: folder.to_owned(), source: errno.into() };
        let mut names = Vec::new();
        for entry in Dir::read_from(&open).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(CollectError::TooMuch { what: "entries of folders", limit: self.limits.entries as u64 });
            }
            let name = entry.file_name();
            let text = name.to_string_lossy();
            if !wanted(&text) {
                continue;
            }
            if name.to_str().is_err() || !is_acceptable(&text) {
                return Err(CollectError::Name { folder: folder.to_owned(), name: text.into_owned() });
            }
            let kind = match entry.file_type() {
                FileType::Unknown => kind_of(&open, name).map_err(failed)?,
                known => known,
            };
            names.push((text.into_owned(), kind));
        }
        Ok(Some(names))
    }
}

fn kind_of(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<FileType> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

fn open_inner_folder(build: &OwnedFd, folder: &str) -> Result<Option<OwnedFd>, CollectError> {
    if folder.is_empty() {
        return open_folder(build.as_fd(), c".")
            .map(Some)
            .map_err(|errno| CollectError::Io { path: ".".to_owned(), source: errno.into() });
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(build, folder, flags, Mode::empty(), INSIDE) {
        Ok(open) => Ok(Some(open)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Err(CollectError::NotAFolder { path: folder.to_owned() }),
        Err(Errno::ACCESS) => Err(CollectError::Locked { path: folder.to_owned() }),
        Err(errno) => Err(CollectError::Io { path: folder.to_owned(), source: errno.into() }),
    }
}

/// Opens one output for reading, after looking at it, and looks again at what was opened.
fn open_output(build: &OwnedFd, owner: u32, path: &str) -> Result<(OwnedFd, Stat), CollectError> {
    let failed = |errno: Errno| match errno {
        Errno::NOENT => CollectError::Missing { pattern: path.to_owned() },
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => CollectError::NotAFolder { path: path.to_owned() },
        errno => CollectError::Io { path: path.to_owned(), source: errno.into() },
    };
    // `O_PATH` opens no device and waits for no writer of a pipe.
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match rustix::fs::openat2(build, path, look, Mode::empty(), INSIDE) {
        // With `NO_SYMLINKS` the kernel does not say whether the last part was the link.
        Err(Errno::LOOP) if is_link(build, path) => {
            return Err(CollectError::NotAFile { path: path.to_owned(), what: "a symbolic link" });
        }
        opened => opened.map_err(failed)?,
    };
    let seen = rustix::fs::fstat(&place).map_err(failed)?;
    check_file(&seen, owner, path)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(build, path, flags, Mode::empty(), INSIDE).map_err(failed)?;
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    check_file(&stat, owner, path)?;
    if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(CollectError::Alive);
    }
    Ok((file, stat))
}

fn check_file(stat: &Stat, owner: u32, path: &str) -> Result<(), CollectError> {
    let path = || path.to_owned();
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a folder"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a pipe"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    };
    match what {
        Some(what) => Err(CollectError::NotAFile { path: path(), what }),
        None if stat.st_uid != owner => Err(CollectError::Foreign { path: path() }),
        None if stat.st_mode & 0o6000 != 0 => Err(CollectError::SetId { path: path() }),
        // Equally for root, who could read it.
        None if stat.st_mode & 0o400 == 0 => Err(CollectError::Locked { path: path() }),
        None => Ok(()),
    }
}

fn is_link(build: &OwnedFd, path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let Ok(Some(folder)) = open_inner_folder(build, folder) else {
        return false;
    };
    rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Folders count too: `A/x` and `a/y` are written into one folder where case is ignored.
fn refuse_case_twins(paths: &BTreeSet<String>) -> Result<(), CollectError> {
    let mut known: HashMap<String, &str> = HashMap::new();
    for path in paths {
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        for part in ends.map(|end| &path[..end]) {
            let first = known.entry(part.to_lowercase()).or_insert(part);
            if *first != part {
                return Err(CollectError::CaseTwins { first: (*first).to_owned(), second: part.to_owned() });
            }
        }
    }
    Ok(())
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
