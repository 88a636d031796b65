//! A folder that a tree is written into: the one place that creates files at paths which a peer chose.
//!
//! Nothing here can leave the folder. A [`TreePath`] has no `..` and no empty name by construction; every step of it is
//! opened from the folder above with `O_NOFOLLOW`, so that a link somebody left in the way is an error and is never followed;
//! files are created with `O_EXCL` where they must be new. Every method blocks.

use protocol::tree::{LinkTarget, Mode, TreePath};
use rustix::fs::{AtFlags, FileType, OFlags, RawMode, Timespec, Timestamps};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The mode of every folder.
const FOLDER_BITS: RawMode = 0o755;

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    root: OwnedFd,
    /// The folder that was last worked in: entries of a tree come in order of path.
    last: Option<(String, OwnedFd)>,
}

/// What to do about a folder on the way that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTheWay {
    Create,
    Expect,
}

impl Folder {
    /// Opens the folder at `path`; the last name of it must not be a link.
    ///
    /// # Errors
    ///
    /// Whatever opening failed with.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, folder_flags(), rustix::fs::Mode::empty())?;
        Ok(Self { root, last: None })
    }

    /// Opens the folder at `path`, made with mode 0700 if it was not there. One that another user owns, or others may write
    /// to, is refused: its owner could swap what lies in it.
    ///
    /// # Errors
    ///
    /// Whatever making or opening failed with; [`io::ErrorKind::PermissionDenied`] when it is not ours alone.
    pub fn open_private(path: &Path) -> io::Result<Self> {
        match rustix::fs::mkdir(path, rustix::fs::Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = Self::open(path)?;
        let stat = rustix::fs::fstat(&folder.root)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the folder belongs to somebody else"));
        }
        Ok(folder)
    }

    /// Gives the folder itself mode 0755.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn publish(&self) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.root, rustix::fs::Mode::from_raw_mode(FOLDER_BITS))?)
    }

    /// A new file, open for reading and writing, with the folders on the way to it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when something stands there; whatever else the system says.
    pub fn create_file(&mut self, path: &TreePath) -> io::Result<File> {
        self.file(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, OnTheWay::Create)
    }

    /// The file at `path` open for reading and writing, created empty if nothing stands there.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when something other than a regular file stands there; whatever else the system says.
    pub fn open_or_create_file(&mut self, path: &TreePath) -> io::Result<File> {
        let file = self.file(path, OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK, OnTheWay::Create)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(in_the_way(path)) }
    }

    /// The regular file at `path`, open for reading; `None` when there is none.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn read_file(&mut self, path: &TreePath) -> io::Result<Option<File>> {
        match self.file(path, OFlags::RDONLY | OFlags::NONBLOCK, OnTheWay::Expect) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
            Ok(_) => Ok(None),
            Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// A folder at `path`; one that is there already is left as it is.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn create_folder(&mut self, path: &TreePath) -> io::Result<()> {
        let (parent, name) = self.parent(path, OnTheWay::Create)?;
        open_folder(parent, name, OnTheWay::Create).map(drop)
    }

    /// A new symbolic link; what it points to is not looked at.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] when something stands there; whatever else the system says.
    pub fn create_link(&mut self, path: &TreePath, target: &LinkTarget) -> io::Result<()> {
        let (parent, name) = self.parent(path, OnTheWay::Create)?;
        Ok(rustix::fs::symlinkat(target.as_str(), parent, name)?)
    }

    /// Moves the file or link at `path` to the same path below `to`, in place of a file or link that stands there.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::IsADirectory`] when a folder stands there; whatever else the system says.
    pub fn move_into(&mut self, path: &TreePath, to: &mut Self) -> io::Result<()> {
        let (to, name) = to.parent(path, OnTheWay::Create)?;
        let (from, _) = self.parent(path, OnTheWay::Expect)?;
        Ok(rustix::fs::renameat(from, name, to, name)?)
    }

    /// Sets access and modification time of whatever stands at `path`, links not followed.
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn set_time(&mut self, path: &TreePath, since_epoch: Duration) -> io::Result<()> {
        let (parent, name) = self.parent(path, OnTheWay::Expect)?;
        Ok(rustix::fs::utimensat(parent, name, &times(since_epoch), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets access and modification time of the folder at `path` (a part of a [`TreePath`]), or of this folder for "".
    ///
    /// # Errors
    ///
    /// Whatever the system says.
    pub fn set_folder_time(&self, path: &str, since_epoch: Duration) -> io::Result<()> {
        let folder = walk(self.root.as_fd(), path, OnTheWay::Expect)?;
        let folder = folder.as_ref().map_or(self.root.as_fd(), AsFd::as_fd);
        Ok(rustix::fs::futimens(folder, &times(since_epoch))?)
    }

    fn file(&mut self, path: &TreePath, flags: OFlags, on_the_way: OnTheWay) -> io::Result<File> {
        let (parent, name) = self.parent(path, on_the_way)?;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = rustix::fs::Mode::from_raw_mode(Mode::Plain.bits());
        Ok(File::from(rustix::fs::openat(parent, name, flags, mode)?))
    }

    /// The folder that holds `path`, and the last name of it.
    fn parent<'a>(&'a mut self, path: &'a TreePath, on_the_way: OnTheWay) -> io::Result<(BorrowedFd<'a>, &'a str)> {
        let Some((parent, name)) = path.as_str().rsplit_once('/') else {
            return Ok((self.root.as_fd(), path.as_str()));
        };
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            self.last = walk(self.root.as_fd(), parent, on_the_way)?.map(|folder| (parent.to_owned(), folder));
        }
        Ok((self.last.as_ref().map_or(self.root.as_fd(), |(_, folder)| folder.as_fd()), name))
    }
}

/// Sets the permission bits of an open file, whatever the umask.
///
/// # Errors
///
/// Whatever the system says.
pub fn set_mode(file: &File, mode: Mode) -> io::Result<()> {
    Ok(rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode.bits()))?)
}

/// Sets access and modification time of an open file.
///
/// # Errors
///
/// Whatever the system says.
pub fn set_file_time(file: &File, since_epoch: Duration) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &times(since_epoch))?)
}

fn folder_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC
}

/// Steps down `path`; `None` when it is empty.
fn walk(root: BorrowedFd<'_>, path: &str, on_the_way: OnTheWay) -> io::Result<Option<OwnedFd>> {
    let mut folder: Option<OwnedFd> = None;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let above = folder.as_ref().map_or(root, AsFd::as_fd);
        folder = Some(open_folder(above, name, on_the_way)?);
    }
    Ok(folder)
}

fn open_folder(above: BorrowedFd<'_>, name: &str, on_the_way: OnTheWay) -> io::Result<OwnedFd> {
    match rustix::fs::openat(above, name, folder_flags(), rustix::fs::Mode::empty()) {
        Err(Errno::NOENT) if on_the_way == OnTheWay::Create => {
            match rustix::fs::mkdirat(above, name, rustix::fs::Mode::from_raw_mode(FOLDER_BITS)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let folder = rustix::fs::openat(above, name, folder_flags(), rustix::fs::Mode::empty())?;
            rustix::fs::fchmod(&folder, rustix::fs::Mode::from_raw_mode(FOLDER_BITS))?;
            Ok(folder)
        }
        opened => Ok(opened?),
    }
}

fn in_the_way(path: &TreePath) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("something that is no regular file stands at `{path}`"))
}

fn times(since_epoch: Duration) -> Timestamps {
    let time = Timespec {
        tv_sec: since_epoch.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: since_epoch.subsec_nanos().into(),
    };
    Timestamps { last_access: time, last_modification: time }
}

/// Whether nothing, a folder, or something else stands at a path outside any tree.
///
/// # Errors
///
/// Whatever the system says.
pub(super) fn stands_at(path: &Path) -> io::Result<Option<FileType>> {
    match rustix::fs::lstat(path) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
