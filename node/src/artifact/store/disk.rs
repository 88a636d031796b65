//! Blobs on a disk, at `aa/bb/<digest>` below the folder of the store.
//!
//! A blob is first written aside, at `incoming/<digest>-<number>`; settling syncs its bytes, renames it into its place and
//! syncs the folders. What stands at `aa/bb/` therefore was whole on the disk once. What a crash leaves aside is found again
//! at the next opening and may be taken up by whoever still wants it, after verifying it; after a day it is deleted.
//!
//! Syncing waits twice however many blobs there are: up to [`ONE_BY_ONE`] files or folders are synced side by side, each by
//! a thread of its own; more are left to one `syncfs`, which is cheaper than a thousand journal commits but writes out
//! whatever else is dirty on that filesystem. Writing out begins as soon as a large blob is written, so that whoever syncs a
//! batch at its end waits for the last of it only.

use super::shelf::{ASIDE_FOR, Listed, Note, NoteKey, Place, Presence, Shelf, Staged};
use protocol::digest::Digest;
use protocol::time::Timestamp;
use rustix::fs::{Advice, AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_util::bytes::Bytes;

/// The most files or folders that are synced each by itself.
const ONE_BY_ONE: usize = 16;

/// Blobs of this size are written out at once; smaller ones gain from being written out together.
const WRITE_OUT_BYTES: usize = 256 << 10;

/// How often a folder is made that goes again before a blob is in it, because the last other blob in it goes.
const FOLDER_TRIES: u32 = 8;

/// Damaged blobs that are kept for whoever looks into the damage; the oldest make room.
pub(super) const QUARANTINED: usize = 64;

#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Opened once, so that `syncfs` reports every write error since then.
    root_folder: File,
    next: AtomicU64,
    left: Mutex<BTreeMap<Digest, u64>>,
    sync_rounds: AtomicU64,
}

impl Disk {
    /// Opens the store in `root`, makes its folders where they are missing, and clears away what a crash left torn.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for folder in ["incoming", "quarantine", "notes/judged", "notes/pins"] {
            builder.create(root.join(folder))?;
        }
        let disk = Self {
            root: root.to_owned(),
            root_folder: File::open(root)?,
            next: AtomicU64::new(0),
            left: Mutex::default(),
            sync_rounds: AtomicU64::new(0),
        };
        disk.root_folder.sync_all()?;
        disk.find_left_over()?;
        disk.sweep_aside(disk.now() - ASIDE_FOR)?;
        Ok(disk)
    }

    fn find_left_over(&self) -> io::Result<()> {
        let mut next = 0;
        let mut left = BTreeMap::new();
        for entry in fs::read_dir(self.root.join("incoming"))? {
            let entry = entry?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(|name| {
                let (digest, nr) = name.split_once('-')?;
                Some((digest.parse::<Digest>().ok()?, nr.parse::<u64>().ok()?))
            });
            let Some((digest, nr)) = parsed else {
                fs::remove_file(entry.path())?;
                continue;
            };
            next = next.max(nr + 1);
            if let Some(older) = left.insert(digest, nr) {
                fs::remove_file(self.aside(&digest, older))?;
            }
        }
        self.next.store(next, Ordering::Relaxed);
        *self.left() = left;
        Ok(())
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, u64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(&name[2..4]).join(name)
    }

    fn aside(&self, digest: &Digest, nr: u64) -> PathBuf {
        self.root.join("incoming").join(format!("{digest}-{nr}"))
    }

    fn note_path(&self, note: Note, key: &NoteKey) -> PathBuf {
        self.notes_folder(note).join(Digest::from_bytes(*key).to_string())
    }

    fn notes_folder(&self, note: Note) -> PathBuf {
        self.root.join(match note {
            Note::Judged => "notes/judged",
            Note::Pin => "notes/pins",
        })
    }

    /// Moves a staged blob to its place and says which folders changed by that.
    fn shelve(&self, staged: &Staged, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        let path = self.path(&staged.digest);
        let Some(inner) = path.parent() else { return Ok(()) };
        changed.insert(inner.to_owned());
        let Place::Aside(nr) = staged.place else { return Ok(()) };
        let aside = self.aside(&staged.digest, nr);
        for _ in 0..FOLDER_TRIES {
            match fs::rename(&aside, &path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && aside.exists() => {
                    fs::create_dir_all(inner)?;
                    if let Some(outer) = inner.parent() {
                        changed.insert(outer.to_owned());
                    }
                    changed.insert(self.root.clone());
                }
                renamed => return renamed,
            }
        }
        fs::rename(&aside, &path)
    }

    /// One round: waits until all of `paths` are on the disk. A folder that is gone was emptied meanwhile.
    fn sync(&self, paths: &[PathBuf]) -> io::Result<()> {
        let sync_one = |path: &PathBuf| match absent_as_none(File::open(path))? {
            Some(file) => file.sync_all(),
            None => Ok(()),
        };
        self.sync_rounds.fetch_add(1, Ordering::Relaxed);
        match paths {
            [] => Ok(()),
            [path] => sync_one(path),
            paths if paths.len() > ONE_BY_ONE => Ok(rustix::fs::syncfs(&self.root_folder)?),
            paths => std::thread::scope(|scope| {
                let syncs: Vec<_> = paths.iter().map(|path| scope.spawn(move || sync_one(path))).collect();
                syncs.into_iter().try_for_each(|sync| match sync.join() {
                    Ok(synced) => synced,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            }),
        }
    }
}

impl Shelf for Disk {
    fn touch(&self, digest: &Digest) -> io::Result<Presence> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match rustix::fs::utimensat(CWD, self.path(digest), &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(Presence::Here),
            Err(rustix::io::Errno::NOENT) => Ok(Presence::Absent),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        let Some(mut file) = absent_as_none(File::open(self.path(digest)))? else { return Ok(None) };
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(len);
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes.into()))
    }

    fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let folder = self.root.join("quarantine");
        let mut older = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if let Some(metadata) = absent_as_none(entry.metadata())? {
                older.push((metadata.modified()?, entry.path()));
            }
        }
        older.sort();
        for (_, path) in older.iter().take((older.len() + 1).saturating_sub(QUARANTINED)) {
            absent_as_none(fs::remove_file(path))?;
        }
        absent_as_none(fs::rename(self.path(digest), folder.join(digest.to_string()))).map(drop)
    }

    fn stage(&self, digest: &Digest, bytes: Bytes) -> io::Result<Staged> {
        let nr = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.aside(digest, nr);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        let staged = Staged { digest: *digest, place: Place::Aside(nr) };
        if let Err(error) = file.write_all(&bytes) {
            // A full disk is the likely cause: give back what was taken, and report the cause, not the tidying.
            let _removed = self.discard(&staged);
            return Err(error);
        }
        if bytes.len() >= WRITE_OUT_BYTES
            // Bytes that will not be read soon are written out now, without a wait: what syncing does again is cheap then.
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)
        {
            tracing::debug!(%error, "the system takes no advice about a file");
        }
        Ok(staged)
    }

    fn left_over(&self, digest: &Digest) -> io::Result<Option<(Staged, Bytes)>> {
        let Some(nr) = self.left().remove(digest) else { return Ok(None) };
        let bytes = absent_as_none(fs::read(self.aside(digest, nr)))?;
        Ok(bytes.map(|bytes| (Staged { digest: *digest, place: Place::Aside(nr) }, bytes.into())))
    }

    fn settle(&self, staged: &[Staged]) -> io::Result<()> {
        if staged.is_empty() {
            return Ok(());
        }
        let written: Vec<_> = staged
            .iter()
            .filter_map(|blob| match blob.place {
                Place::Aside(nr) => Some(self.aside(&blob.digest, nr)),
                Place::Shelf => None,
            })
            .collect();
        if !written.is_empty() {
            self.sync(&written)?;
        }
        let mut changed = BTreeSet::new();
        for blob in staged {
            self.shelve(blob, &mut changed)?;
        }
        self.sync(&changed.into_iter().collect::<Vec<_>>())
    }

    fn leave(&self, staged: Vec<Staged>) {
        for blob in staged {
            let Place::Aside(nr) = blob.place else { continue };
            let older = self.left().insert(blob.digest, nr);
            if let Some(older) = older
                && let Err(error) = fs::remove_file(self.aside(&blob.digest, older))
            {
                tracing::warn!(%error, digest = %blob.digest, "a blob left aside could not be deleted");
            }
        }
    }

    fn discard(&self, staged: &Staged) -> io::Result<()> {
        match staged.place {
            Place::Aside(nr) => absent_as_none(fs::remove_file(self.aside(&staged.digest, nr))).map(drop),
            Place::Shelf => Ok(()),
        }
    }

    fn sweep_aside(&self, before: Timestamp) -> io::Result<()> {
        let candidates: Vec<_> = self.left().iter().map(|(digest, nr)| (*digest, *nr)).collect();
        for (digest, nr) in candidates {
            let path = self.aside(&digest, nr);
            let Some(metadata) = absent_as_none(fs::metadata(&path))? else { continue };
            // Whoever takes it from the map first has it: a batch that wants it, or this sweep.
            if timestamp(metadata.modified()?) < before && self.left().remove(&digest).is_some() {
                absent_as_none(fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    fn remove(&self, digest: &Digest) -> io::Result<u64> {
        let path = self.path(digest);
        let Some(metadata) = absent_as_none(fs::metadata(&path))? else { return Ok(0) };
        absent_as_none(fs::remove_file(&path))?;
        // Its two folders go with the last blob in them; else a store that lives long is 65,536 empty ones.
        for folder in path.ancestors().skip(1).take(2) {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(metadata.len())
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for outer in folders_of_two_digits(&self.root)? {
            for inner in folders_of_two_digits(&outer)? {
                for entry in absent_as_none(fs::read_dir(inner))?.into_iter().flatten() {
                    let entry = entry?;
                    let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                    let Some(metadata) = absent_as_none(entry.metadata())? else { continue };
                    let touched = timestamp(metadata.modified()?);
                    listed.push(Listed { digest, len: metadata.len(), touched });
                }
            }
        }
        listed.sort_by_key(|blob| blob.digest);
        Ok(listed)
    }

    /// Not synced: a note repeats what the farm has said and can say again, and a torn one does not decode.
    fn put_note(&self, note: Note, key: &NoteKey, bytes: &[u8]) -> io::Result<()> {
        let nr = self.next.fetch_add(1, Ordering::Relaxed);
        let aside = self.root.join("incoming").join(format!("note-{nr}"));
        fs::write(&aside, bytes)?;
        fs::rename(aside, self.note_path(note, key))
    }

    fn note(&self, note: Note, key: &NoteKey) -> io::Result<Option<Vec<u8>>> {
        absent_as_none(fs::read(self.note_path(note, key)))
    }

    fn remove_note(&self, note: Note, key: &NoteKey) -> io::Result<()> {
        absent_as_none(fs::remove_file(self.note_path(note, key))).map(drop)
    }

    fn notes(&self, note: Note) -> io::Result<Vec<NoteKey>> {
        let mut keys = Vec::new();
        for entry in fs::read_dir(self.notes_folder(note))? {
            if let Some(digest) = entry?.file_name().to_str().and_then(|name| name.parse::<Digest>().ok()) {
                keys.push(*digest.as_bytes());
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    fn now(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }

    fn sync_rounds(&self) -> u64 {
        self.sync_rounds.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    fn damage(&self, digest: &Digest) {
        let path = self.path(digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

fn absent_as_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn folders_of_two_digits(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in absent_as_none(fs::read_dir(folder))?.into_iter().flatten() {
        let entry = entry?;
        if entry.file_name().len() == 2 && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
