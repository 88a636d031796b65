//! The work folder of one attempt: made fresh, handed to the build user, removed whatever the build left in it.
//!
//! ```text
//! WORK/                 0700, ours
//!   ATTEMPT/            0700, ours: no build can rename or replace what lies in it
//!     groups            the control groups of this attempt, for the start after a crash
//!     build/            the build user's, `/build` inside the sandbox, where outputs are collected
//!     home/             the build user's, `/home/build` inside, kept from step to step, never collected
//! ```

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{cgroup, janitor};

/// Uids of builds run by root: `FIRST_BUILD_UID + slot`. They lie in a gap between the users that systemd makes on demand, below
/// 65536 so that containers map them, and need no entry in any user table.
pub const FIRST_BUILD_UID: u32 = 61_000;
/// How many builds can have a uid of their own.
pub const BUILD_UIDS: u32 = 128;

const BUILD: &str = "build";
const HOME: &str = "home";
const GROUPS: &str = "groups";

/// As whom a build runs, seen from the host. Never root: there is no way to make such a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildUser(Identity);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// As the ordinary user that we are.
    Caller,
    /// We are root: as this uid, and the group of the same number, which are nobody else's.
    Own { uid: u32 },
}

impl BuildUser {
    /// The user for the build in `slot`: ourselves, or a uid of its own when we are root.
    #[must_use]
    pub fn for_slot(slot: u16) -> Self {
        if rustix::process::geteuid().is_root() {
            Self(Identity::Own { uid: FIRST_BUILD_UID + u32::from(slot) % BUILD_UIDS })
        } else {
            Self(Identity::Caller)
        }
    }

    /// The uid that owns what the build writes.
    #[must_use]
    pub fn uid(self) -> u32 {
        match self.0 {
            Identity::Caller => rustix::process::geteuid().as_raw(),
            Identity::Own { uid } => uid,
        }
    }

    pub(super) fn identity(self) -> Identity {
        self.0
    }
}

/// What can go wrong with a work folder.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// An attempt is named by 1 to 64 characters of `a-z`, `0-9` and `-`.
    #[error("`{0}` cannot name an attempt")]
    Name(String),
    /// The attempt's folder is already there.
    #[error("{0} already exists")]
    Exists(PathBuf),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(path: &Path) -> impl FnOnce(E) -> WorkspaceError + '_ {
    move |source| WorkspaceError::Io { path: path.to_owned(), source: source.into() }
}

/// The work folder of one attempt.
#[derive(Debug)]
pub struct Workspace {
    name: String,
    path: PathBuf,
    build: OwnedFd,
    home: OwnedFd,
    user: BuildUser,
}

impl Workspace {
    /// Makes a fresh work folder for the attempt `name` below `work`, which is made if it is missing.
    ///
    /// # Errors
    /// [`WorkspaceError`]; an attempt's folder is never used twice.
    pub fn create(work: &Path, name: &str, user: BuildUser) -> Result<Self, WorkspaceError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(WorkspaceError::Name(name.to_owned()));
        }
        let work = make_work(work)?;
        let path = work.join(name);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(WorkspaceError::Exists(path));
            }
            made => made.map_err(io_error(&path))?,
        }
        let folder = open(&path)?;
        let inner = |name: &CStr| {
            rustix::fs::mkdirat(&folder, name, Mode::RWXU).map_err(io_error(&path))?;
            let inner = janitor::open_folder(folder.as_fd(), name).map_err(io_error(&path))?;
            if let Identity::Own { uid } = user.identity() {
                janitor::give_to(inner.as_fd(), uid).map_err(io_error(&path))?;
            }
            Ok(inner)
        };
        let (build, home) = (inner(c"build")?, inner(c"home")?);
        Ok(Self { name: name.to_owned(), build, home, path, user })
    }

    /// The attempt's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the source is unpacked: what the build sees as `/build`.
    #[must_use]
    pub fn build_path(&self) -> PathBuf {
        self.path.join(BUILD)
    }

    /// As whom the build runs.
    #[must_use]
    pub fn user(&self) -> BuildUser {
        self.user
    }

    pub(super) fn home_path(&self) -> PathBuf {
        self.path.join(HOME)
    }

    pub(super) fn build(&self) -> &OwnedFd {
        &self.build
    }

    pub(super) fn home(&self) -> &OwnedFd {
        &self.home
    }

    /// Gives what was unpacked into [`Self::build_path`] to the build user. Call it once, before the first step.
    ///
    /// # Errors
    /// The system's.
    pub fn hand_over(&self) -> Result<(), WorkspaceError> {
        match self.user.identity() {
            Identity::Caller => Ok(()),
            Identity::Own { uid } => janitor::give_to(self.build.as_fd(), uid).map_err(io_error(&self.path)),
        }
    }

    /// What the attempt occupies on disk, in bytes; may be asked while it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn disk_usage(&self) -> io::Result<u64> {
        Ok(janitor::occupied_bytes(self.build.as_fd())? + janitor::occupied_bytes(self.home.as_fd())?)
    }

    /// Notes which control groups belong to the attempt.
    pub(super) fn note_groups<'a>(&self, folders: impl Iterator<Item = &'a Path>) -> Result<(), WorkspaceError> {
        let lines: Vec<String> = folders.map(|folder| format!("{}\n", folder.display())).collect();
        let path = self.path.join(GROUPS);
        fs::write(&path, lines.concat()).map_err(io_error(&path))
    }

    /// Removes the folder and everything in it. The build must be dead.
    ///
    /// # Errors
    /// The system's; what is left is removed by the next [`sweep`].
    pub fn remove(self) -> Result<(), WorkspaceError> {
        remove(&self.path)
    }
}

/// Ends what an earlier run left below `work`: its processes, its control groups, its folders. Returns how many attempts it was.
/// Only for the one daemon that owns the home, before its first attempt.
///
/// # Errors
/// The system's, for the first attempt that could not be removed.
pub fn sweep(work: &Path) -> Result<usize, WorkspaceError> {
    let work = make_work(work)?;
    let mut swept = 0;
    for entry in fs::read_dir(&work).map_err(io_error(&work))? {
        let path = entry.map_err(io_error(&work))?.path();
        let groups = fs::read_to_string(path.join(GROUPS)).unwrap_or_default();
        for folder in groups.lines() {
            if let Err(error) = cgroup::sweep(Path::new(folder)) {
                tracing::warn!(%error, "a control group of an earlier run stays");
            }
        }
        remove(&path)?;
        swept += 1;
    }
    Ok(swept)
}

fn make_work(work: &Path) -> Result<PathBuf, WorkspaceError> {
    let work = std::path::absolute(work).map_err(io_error(work))?;
    match fs::DirBuilder::new().mode(0o700).create(&work) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(&work)(error)),
        _ => open(&work).map(|_| work),
    }
}

fn open(path: &Path) -> Result<OwnedFd, WorkspaceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(io_error(path))
}

fn remove(path: &Path) -> Result<(), WorkspaceError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            janitor::remove_contents(open(path)?.as_fd()).map_err(io_error(path))?;
            rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR).map_err(io_error(path))
        }
        Ok(_) => fs::remove_file(path).map_err(io_error(path)),
        Err(error) => Err(io_error(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_fresh_folder_belongs_to_the_build_user_and_lies_behind_our_own() {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        let space = Workspace::create(&work, "a-1", BuildUser::for_slot(3)).unwrap();
        fs::write(space.build_path().join("source.c"), b"int x;").unwrap();
        fs::create_dir(space.build_path().join("lib")).unwrap();
        std::os::unix::fs::symlink("/etc/shadow", space.build_path().join("lib/link")).unwrap();
        space.hand_over().unwrap();
        let uid = space.user().uid();
        assert_ne!(uid, 0);
        for inside in ["", "source.c", "lib", "lib/link"] {
            assert_eq!(fs::symlink_metadata(space.build_path().join(inside)).unwrap().uid(), uid, "{inside}");
        }
        assert_eq!(fs::metadata("/etc/shadow").map_or(0, |found| found.uid()), 0, "no link is followed");
        let outer = fs::metadata(work.join("a-1")).unwrap();
        assert_eq!((outer.uid(), outer.permissions().mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o700));
        assert!(matches!(Workspace::create(&work, "a-1", space.user()), Err(WorkspaceError::Exists(_))));
        space.remove().unwrap();
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
    }

    #[test]
    fn names_cannot_leave_the_work_folder() {
        let home = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "A", "a\n", &"a".repeat(65)] {
            let made = Workspace::create(&home.path().join("work"), name, BuildUser::for_slot(0));
            assert!(matches!(made, Err(WorkspaceError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn a_work_folder_that_is_a_link_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", home.path().join("work")).unwrap();
        assert!(matches!(
            Workspace::create(&home.path().join("work"), "a", BuildUser::for_slot(0)),
            Err(WorkspaceError::Io { .. })
        ));
    }

    #[test]
    fn the_sweep_removes_what_an_earlier_run_left() {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        for name in ["one", "two"] {
            let space = Workspace::create(&work, name, BuildUser::for_slot(0)).unwrap();
            fs::create_dir_all(space.build_path().join("deep/er")).unwrap();
        }
        assert_eq!(sweep(&work).unwrap(), 2);
        assert_eq!(sweep(&work).unwrap(), 0);
    }
}
