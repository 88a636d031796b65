//! Measuring and removing trees that a stranger's program made.
//!
//! Such a tree may be thousands of folders deep, hold folders nobody may enter, or change while it is measured. Nothing here
//! follows a symbolic link, recurses, or holds more than three descriptors, whatever the tree looks like.

use std::ffi::{CStr, CString};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

/// What a file or folder costs at least, so that a flood of empty ones is seen.
const ENTRY_BYTES: u64 = 4096;
/// `st_blocks` counts these.
const BLOCK_BYTES: u64 = 512;
/// Entries visited before a measurement is cut off; by then they count for 16 GiB.
const MAX_ENTRIES: u64 = 4 << 20;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder below `parent` without following a link.
pub(super) fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, FOLDER, Mode::empty())
}

/// How many bytes the tree below `top` occupies: blocks, not lengths, and at least [`ENTRY_BYTES`] for each entry.
///
/// The tree may be alive. What vanishes during the walk is not counted; when a folder is moved away under the walk, it ends early
/// with what it has counted, and the next measurement starts afresh.
pub(super) fn occupied_bytes(top: BorrowedFd<'_>) -> io::Result<u64> {
    let (mut bytes, mut entries) = (0, 0);
    walk(top, |_, _, stat| {
        entries += 1;
        bytes += (u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES).max(ENTRY_BYTES);
        if entries < MAX_ENTRIES { Ok(ControlFlow::Continue(())) } else { Ok(ControlFlow::Break(())) }
    })?;
    Ok(bytes)
}

/// Gives `top` and everything below it to `uid` and the group of the same number. The tree must be dead.
pub(super) fn give_to(top: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    rustix::fs::fchown(top, owner, group)?;
    walk(top, |folder, name, _| {
        rustix::fs::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(ControlFlow::Continue(()))
    })
}

/// Shows every entry below `top` to `visit`, with the folder it lies in.
fn walk(
    top: BorrowedFd<'_>,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<ControlFlow<()>>,
) -> io::Result<()> {
    let mut here = open_folder(top, c".")?;
    // The way back up, by identity instead of by open descriptors, which would be as many as the tree is deep.
    let mut levels = Vec::new();
    let mut entered = true;
    loop {
        if entered {
            match list(&here, &mut visit)? {
                ControlFlow::Continue(level) => levels.push(level),
                ControlFlow::Break(()) => return Ok(()),
            }
        }
        let Some(level) = levels.last_mut() else {
            return Ok(());
        };
        let Some(name) = level.folders.pop() else {
            levels.pop();
            let Some(above) = levels.last() else {
                return Ok(());
            };
            let parent = open_folder(here.as_fd(), c"..")?;
            if identity(&rustix::fs::fstat(&parent)?) != above.identity {
                return Ok(());
            }
            (here, entered) = (parent, false);
            continue;
        };
        entered = match open_unlocked(here.as_fd(), &name) {
            Ok(folder) => {
                here = folder;
                true
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => false,
            Err(error) => return Err(error.into()),
        };
    }
}

/// A folder on the way down, and what is still to be visited in it.
struct Level {
    identity: (u64, u64),
    folders: Vec<CString>,
}

fn list(
    folder: &OwnedFd,
    visit: &mut impl FnMut(BorrowedFd<'_>, &CStr, &Stat) -> io::Result<ControlFlow<()>>,
) -> io::Result<ControlFlow<(), Level>> {
    let mut level = Level { identity: identity(&rustix::fs::fstat(folder)?), folders: Vec::new() };
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if is_self_or_parent(name) {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if visit(folder.as_fd(), name, &stat)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            level.folders.push(name.to_owned());
        }
    }
    Ok(ControlFlow::Continue(level))
}

/// Removes everything below `top`, but not `top` itself. The tree must be dead.
///
/// Each folder that is not empty is first moved up into `top`, so that the walk is never more than one level deep.
pub(super) fn remove_contents(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut moved: u64 = 0;
    loop {
        let mut folders = Vec::new();
        for entry in Dir::read_from(open_folder(top, c".")?)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_self_or_parent(name) && remove_one(top, name)? == Removal::IsFolder {
                folders.push(name.to_owned());
            }
        }
        if folders.is_empty() {
            return Ok(());
        }
        for name in folders {
            empty_into(top, &name, &mut moved)?;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Removal {
    Gone,
    IsFolder,
}

/// Removes what lies in the folder `name`, then the folder; folders in it move up into `top`.
fn empty_into(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> io::Result<()> {
    let folder = open_unlocked(top, name)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = entry.file_name();
        if is_self_or_parent(inner) || remove_one(folder.as_fd(), inner)? == Removal::Gone {
            continue;
        }
        // A folder can only be moved elsewhere by one who may write into it.
        open_unlocked(folder.as_fd(), inner)?;
        loop {
            *moved += 1;
            let fresh = format!(".barnraise-removed-{moved}");
            match rustix::fs::renameat_with(&folder, inner, top, fresh.as_str(), RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)?)
}

fn remove_one(folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Removal> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removal::Gone),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removal::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => Ok(Removal::IsFolder),
        Err(error) => Err(error.into()),
    }
}

/// Opens a folder, giving its owner back the right to do so when it was taken away.
fn open_unlocked(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let place = rustix::fs::openat(
        parent,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Through the descriptor: a name could be exchanged for a link between two calls.
        let through = format!("/proc/self/fd/{}", place.as_raw_fd());
        rustix::fs::chmod(through.as_str(), mode | Mode::RWXU)?;
    }
    open_folder(place.as_fd(), c".")
}

fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
    }

    /// A chain of `depth` folders below `top`, with a file at its end.
    fn chain(top: &OwnedFd, depth: usize) {
        let mut here = top.try_clone().unwrap();
        for _ in 0..depth {
            rustix::fs::mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = open_folder(here.as_fd(), c"d").unwrap();
        }
        let end = rustix::fs::openat(&here, c"end", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        rustix::io::write(&end, &[7; 10_000]).unwrap();
    }

    #[test]
    fn a_tree_5000_deep_is_measured_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let top = open(place.path());
        chain(&top, 5000);
        let bytes = occupied_bytes(top.as_fd()).unwrap();
        assert!(bytes >= 5000 * ENTRY_BYTES + 10_000, "{bytes}");
        remove_contents(top.as_fd()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn locked_folders_odd_names_and_links_are_removed_and_nothing_outside_is() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), b"kept").unwrap();
        let place = tempfile::tempdir().unwrap();
        let locked = place.path().join("a/locked");
        fs::create_dir_all(locked.join("inner/more")).unwrap();
        fs::write(locked.join("inner/file"), b"x").unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join("a/link")).unwrap();
        fs::write(place.path().join("new\nline\u{1b}[31m"), b"x").unwrap();
        fs::create_dir_all(place.path().join(".barnraise-removed-1/full")).unwrap();
        for folder in [locked.join("inner"), locked.clone(), place.path().join("a")] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_contents(open(place.path()).as_fd()).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"kept");
    }

    #[test]
    fn a_locked_folder_hides_nothing_from_the_measurement() {
        let place = tempfile::tempdir().unwrap();
        let locked = place.path().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("big"), vec![1; 1 << 20]).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        let top = open(place.path());
        assert!(occupied_bytes(top.as_fd()).unwrap() >= 1 << 20);
        remove_contents(top.as_fd()).unwrap();
    }

    #[test]
    fn sparse_files_cost_their_blocks_and_empty_ones_an_entry() {
        let place = tempfile::tempdir().unwrap();
        fs::File::create(place.path().join("sparse")).unwrap().set_len(1 << 40).unwrap();
        for n in 0..100 {
            fs::write(place.path().join(format!("empty{n}")), b"").unwrap();
        }
        let bytes = occupied_bytes(open(place.path()).as_fd()).unwrap();
        assert_eq!(bytes, 101 * ENTRY_BYTES);
    }
}
