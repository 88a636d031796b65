//! The database of a home: small records under keys, of several kinds, in sled.
//!
//! It holds nothing that is not true elsewhere, so nobody waits for it to flush. What sled 0.34 is known for is held in
//! check here, and nowhere else:
//!
//! - its cache is bounded by the caller, not by its default of a gibibyte;
//! - its file gives no room back that old records took, beyond using it again. A database that has become many times larger
//!   than what is in it is written anew, when it is opened and while it is in use: [`Database::look_after`];
//! - values belong in it only if they are small; what is larger than some kilobytes is a blob of the store.
//!
//! Writing it anew takes as long as copying its records; who reads or writes meanwhile waits. The new one is whole and synced
//! before the two folders change places in one step, so a crash at any moment leaves one or the other.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// While it is written anew, and what was before it.
const ANEW: &str = "index.new";
/// A database that takes no more than this is never written anew.
const SMALL_BYTES: u64 = 16 << 20;
/// How many times the bytes of its records a database may take.
const BLOAT: u64 = 8;
/// How often its size is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long, and how often, a file is tried that a program just being started still holds a copy of.
const FREE_WITHIN: Duration = Duration::from_secs(10);
const FREE_AGAIN: Duration = Duration::from_millis(5);

/// A handle on the database. Clones share it.
#[derive(Clone, Debug)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` for one that ends with the process.
    path: Option<PathBuf>,
    cache_bytes: u64,
    open: RwLock<Open>,
}

/// The database as it is open now.
#[derive(Debug)]
struct Open {
    /// `None` after it could not be opened again; then every use tries to.
    file: Option<sled::Db>,
    kinds: BTreeMap<&'static str, sled::Tree>,
}

/// The records of one kind.
#[derive(Clone, Debug)]
pub struct Records {
    database: Database,
    kind: &'static str,
}

/// A key and its value.
pub type Row = (sled::IVec, sled::IVec);

impl Database {
    /// Opens the database in the folder `path`, which is made where it is missing. One that has grown too large is written
    /// anew first. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Whatever sled finds; every record is read, so that damage is found now.
    ///
    /// # Panics
    ///
    /// sled panics on some damage.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, sled::Error> {
        absent_is_fine(fs::remove_dir_all(path.with_file_name(ANEW)))?;
        let file = config(cache_bytes).path(path).open()?;
        content_bytes(&file)?;
        let open = RwLock::new(Open { file: Some(file), kinds: BTreeMap::new() });
        let database = Self(Arc::new(Inner { path: Some(path.to_owned()), cache_bytes, open }));
        database.shrink()?;
        Ok(database)
    }

    /// A database that ends with the process.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn temporary() -> Result<Self, sled::Error> {
        let cache_bytes = 4 << 20;
        let file = config(cache_bytes).temporary(true).open()?;
        let open = RwLock::new(Open { file: Some(file), kinds: BTreeMap::new() });
        Ok(Self(Arc::new(Inner { path: None, cache_bytes, open })))
    }

    /// The records of one kind.
    #[must_use]
    pub fn records(&self, kind: &'static str) -> Records {
        Records { database: self.clone(), kind }
    }

    /// Bytes of its file.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn bytes(&self) -> Result<u64, sled::Error> {
        self.read().file.as_ref().map_or(Ok(0), sled::Db::size_on_disk)
    }

    /// Watches its size, and writes it anew when it has grown too large, until `stop` is cancelled.
    pub async fn look_after(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let database = self.clone();
            match tokio::task::spawn_blocking(move || database.shrink()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the database cannot be written anew"),
                Err(error) => tracing::warn!(%error, "the database could not be looked after"),
            }
        }
    }

    /// Writes it anew if it is many times larger than what is in it.
    fn shrink(&self) -> Result<(), sled::Error> {
        let before = self.bytes()?;
        if before <= SMALL_BYTES {
            return Ok(());
        }
        let content = match &self.read().file {
            Some(file) => content_bytes(file)?,
            None => return Ok(()),
        };
        if !is_bloated(before, content) {
            return Ok(());
        }
        self.write_anew()?;
        tracing::info!(before, content, now = self.bytes()?, "the database was written anew");
        Ok(())
    }

    fn write_anew(&self) -> Result<(), sled::Error> {
        let Some(path) = &self.0.path else { return Ok(()) };
        let anew = path.with_file_name(ANEW);
        let mut open = self.write();
        let Some(file) = &open.file else { return Ok(()) };
        absent_is_fine(fs::remove_dir_all(&anew))?;
        let copy = config(self.0.cache_bytes).path(&anew).open()?;
        copy_rows(file, &copy)?;
        drop(copy);
        sync(&anew)?;
        // No copy is outside this lock, so the file is closed with this.
        (open.file, open.kinds) = (None, BTreeMap::new());
        change_places(&anew, path)?;
        self.open_again(&mut open)
    }

    fn open_again(&self, open: &mut Open) -> Result<(), sled::Error> {
        let Some(path) = &self.0.path else { return Ok(()) };
        let until = Instant::now() + FREE_WITHIN;
        open.file = loop {
            match config(self.0.cache_bytes).path(path).open() {
                Ok(file) => break Some(file),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => std::thread::sleep(FREE_AGAIN),
            }
        };
        Ok(())
    }

    fn with_kind<T>(
        &self,
        kind: &'static str,
        work: impl Fn(&sled::Tree) -> Result<T, sled::Error>,
    ) -> Result<T, sled::Error> {
        if let Some(rows) = self.read().kinds.get(kind) {
            return work(rows);
        }
        let mut open = self.write();
        if open.file.is_none() {
            self.open_again(&mut open)?;
        }
        let Some(file) = &open.file else { return Err(sled::Error::Unsupported("the database is closed".to_owned())) };
        let rows = file.open_tree(kind)?;
        let done = work(&rows);
        open.kinds.insert(kind, rows);
        done
    }

    fn read(&self) -> RwLockReadGuard<'_, Open> {
        // What a panicking thread left is the database as it was.
        self.0.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Open> {
        self.0.open.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    /// The value under `key`.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, sled::Error> {
        self.database.with_kind(self.kind, |rows| rows.get(key))
    }

    /// Puts `value` under `key`; durable some time after.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), sled::Error> {
        self.database.with_kind(self.kind, |rows| rows.insert(key, value).map(drop))
    }

    /// Removes what is under `key`.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn remove(&self, key: &[u8]) -> Result<(), sled::Error> {
        self.database.with_kind(self.kind, |rows| rows.remove(key).map(drop))
    }

    /// Removes everything of this kind.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn clear(&self) -> Result<(), sled::Error> {
        self.database.with_kind(self.kind, sled::Tree::clear)
    }

    /// Everything of this kind, in the order of the keys.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn rows(&self) -> Result<Vec<Row>, sled::Error> {
        self.database.with_kind(self.kind, |rows| rows.iter().collect())
    }

    /// Writes out what was put. sled does not ask the disk to make it durable.
    ///
    /// # Errors
    ///
    /// Whatever sled finds.
    pub fn flush(&self) -> Result<(), sled::Error> {
        self.database.with_kind(self.kind, |rows| rows.flush().map(drop))
    }
}

fn config(cache_bytes: u64) -> sled::Config {
    sled::Config::new().mode(sled::Mode::LowSpace).cache_capacity(cache_bytes).flush_every_ms(Some(500))
}

fn is_bloated(on_disk: u64, content_bytes: u64) -> bool {
    on_disk > SMALL_BYTES.max(content_bytes.saturating_mul(BLOAT))
}

fn content_bytes(file: &sled::Db) -> Result<u64, sled::Error> {
    let mut bytes = 0;
    for name in file.tree_names() {
        for row in &file.open_tree(name)? {
            let (key, value) = row?;
            bytes += (key.len() + value.len()) as u64;
        }
    }
    Ok(bytes)
}

fn copy_rows(from: &sled::Db, to: &sled::Db) -> Result<(), sled::Error> {
    for name in from.tree_names() {
        let copy = to.open_tree(&name)?;
        for row in &from.open_tree(&name)? {
            let (key, value) = row?;
            copy.insert(key, value)?;
        }
    }
    to.flush().map(drop)
}

/// Waits until every file of a folder is on the disk, which sled's own flush does not.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    File::open(folder)?.sync_all()
}

/// Puts the folder `anew` where `path` is, and deletes what was there.
fn change_places(anew: &Path, path: &Path) -> io::Result<()> {
    if renameat_with(CWD, anew, CWD, path, RenameFlags::EXCHANGE).is_err() {
        // Not every file system can do it in one step. Lost in between, the index is filled anew from the store.
        fs::remove_dir_all(path)?;
        fs::rename(anew, path)?;
    }
    if let Some(above) = path.parent() {
        File::open(above)?.sync_all()?;
    }
    absent_is_fine(fs::remove_dir_all(anew))
}

/// What was to go may be gone already.
pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CACHE_BYTES: u64 = 1 << 20;

    fn fill(records: &Records, keys: std::ops::Range<u32>) {
        for key in keys {
            records.put(&key.to_be_bytes(), &key.to_le_bytes().repeat(8)).unwrap();
        }
    }

    #[test]
    fn a_database_written_anew_has_every_record_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("index"), CACHE_BYTES).unwrap();
        let (one, two) = (database.records("one"), database.records("two"));
        fill(&one, 0..1_000);
        fill(&two, 7..8);
        let before = (one.rows().unwrap(), two.rows().unwrap());
        for round in 0..3 {
            database.write_anew().unwrap();
            assert_eq!((one.rows().unwrap(), two.rows().unwrap()), before, "round {round}");
            assert!(!folder.path().join(ANEW).exists());
        }
        two.remove(&7_u32.to_be_bytes()).unwrap();
        fill(&one, 1_000..1_001);
        drop((database, one, two));
        let database = Database::open(&folder.path().join("index"), CACHE_BYTES).unwrap();
        assert_eq!(database.records("one").rows().unwrap().len(), 1_001);
        assert_eq!(database.records("two").rows().unwrap(), []);
    }

    #[test]
    fn those_who_use_it_while_it_is_written_anew_notice_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("index"), CACHE_BYTES).unwrap();
        std::thread::scope(|scope| {
            let users: Vec<_> = ["one", "two"]
                .map(|kind| {
                    let records = database.records(kind);
                    scope.spawn(move || {
                        for key in 0..2_000_u32 {
                            fill(&records, key..key + 1);
                            assert!(records.get(&key.to_be_bytes()).unwrap().is_some());
                        }
                    })
                })
                .into();
            while users.iter().any(|user| !user.is_finished()) {
                database.write_anew().unwrap();
            }
        });
        for kind in ["one", "two"] {
            assert_eq!(database.records(kind).rows().unwrap().len(), 2_000, "{kind}");
        }
    }

    #[test]
    fn what_is_written_and_removed_all_the_time_takes_no_more_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("index"), CACHE_BYTES).unwrap();
        let records = database.records("artifacts");
        for key in 0..100_000_u32 {
            records.put(&key.to_be_bytes(), &[7; 200]).unwrap();
            if let Some(old) = key.checked_sub(200) {
                records.remove(&old.to_be_bytes()).unwrap();
            }
        }
        database.shrink().unwrap();
        let bytes = database.bytes().unwrap();
        assert!(bytes <= SMALL_BYTES, "{bytes} bytes for 200 small records");
        assert_eq!(records.rows().unwrap().len(), 200);
    }

    #[test]
    fn only_a_large_database_with_little_in_it_is_bloated() {
        assert!(!is_bloated(SMALL_BYTES, 0) && is_bloated(SMALL_BYTES + 1, 0));
        assert!(!is_bloated(8 << 30, 1 << 30) && is_bloated((8 << 30) + 1, 1 << 30));
    }
}
