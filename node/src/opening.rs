//! Opening the store of a home and the database of its index.
//!
//! The index holds nothing that is not true elsewhere: artifacts and verdicts lie in the store, snapshots beside the farm's
//! log. So a database that cannot be opened or read is set aside, under a name that says when, and a new one is filled from
//! the store: a node with a damaged index starts, with a warning. What is set aside is never empty state in disguise: an error
//! of the disk itself (no space, no permission, a failing read) stops the start, for nothing would be better with a new
//! database.

use crate::artifact::Store;
use crate::artifact::index::IndexError;
use crate::artifact::store::StoreError;
use crate::database::{Database, absent_is_fine};
use crate::home::{Home, HomeError};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of the database, in the home.
const FOLDER: &str = "index";
/// How the name of one that was set aside begins; seconds since 1970 follow.
const ASIDE: &str = "index.damaged-";
/// How many of those stay.
const ASIDE_KEPT: usize = 2;

/// Why store and index cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The index cannot be opened.
    #[error("the index in this home cannot be opened: {0}")]
    Index(#[from] sled::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens both; the home is locked by the caller.
///
/// # Errors
///
/// [`OpenError`].
pub async fn open(home: &Home, cache_bytes: u64) -> Result<(Database, Store), OpenError> {
    let error = match open_both(home, cache_bytes).await {
        Err(error) if is_damage(&error) => error,
        other => return other,
    };
    let aside = set_aside(home)?;
    tracing::warn!(
        %error,
        aside = %aside.display(),
        "the index is damaged: set aside, and made anew from the store"
    );
    open_both(home, cache_bytes).await
}

/// Bytes that the disk of a home has free; none when that cannot be told.
pub(crate) fn free_bytes(home: &Home) -> u64 {
    match rustix::fs::statvfs(home.path()) {
        Ok(seen) => seen.f_bavail.saturating_mul(seen.f_frsize),
        Err(error) => {
            tracing::warn!(%error, "how much of the disk is free cannot be told");
            0
        }
    }
}

async fn open_both(home: &Home, cache_bytes: u64) -> Result<(Database, Store), OpenError> {
    let path = home.folder(FOLDER)?;
    let folder = path.clone();
    let opening = tokio::task::spawn_blocking(move || Database::open(&folder, cache_bytes));
    // sled panics on some damage.
    let opened = opening.await.unwrap_or_else(|_| Err(sled::Error::ReportableBug("it gave up".to_owned())));
    let index = opened.map_err(|error| match error {
        sled::Error::Io(error) if !is_decay(&error) => OpenError::Home(HomeError::Io { path, error }),
        error => error.into(),
    })?;
    let store = Store::open(&home.folder("store")?, &index).await?;
    Ok((index, store))
}

/// Whether a new database would do what this one does not.
fn is_damage(error: &OpenError) -> bool {
    let (OpenError::Index(error) | OpenError::Store(StoreError::Index(IndexError::Database(error)))) = error else {
        return false;
    };
    match error {
        sled::Error::Io(error) => is_decay(error),
        _ => true,
    }
}

/// Whether the disk answers, and gives what was never written.
fn is_decay(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Gives the database another name and says which. Only the last few are kept.
fn set_aside(home: &Home) -> Result<PathBuf, HomeError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = home.path().join(format!("{ASIDE}{seconds}"));
    let failed = |error| HomeError::Io { path: aside.clone(), error };
    let mut older = Vec::new();
    for entry in fs::read_dir(home.path()).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(ASIDE)) {
            older.push(path);
        }
    }
    older.sort();
    while older.len() >= ASIDE_KEPT {
        absent_is_fine(fs::remove_dir_all(older.remove(0))).map_err(failed)?;
    }
    // Two within a second: the later one is the one to look at.
    absent_is_fine(fs::remove_dir_all(&aside)).map_err(failed)?;
    fs::rename(home.path().join(FOLDER), &aside).map_err(failed)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CACHE_BYTES: u64 = 1 << 20;

    #[tokio::test]
    async fn a_database_that_cannot_be_opened_is_set_aside_and_filled_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        let (index, store) = open(&home, CACHE_BYTES).await.unwrap();
        let digest = store.put(vec![b"kept".to_vec().into()]).await.unwrap()[0];
        index.records("raft").put(b"current", b"record").unwrap();
        index.records("raft").flush().unwrap();
        drop((index, store));

        let noise = |seed: u8| (0..4_096).map(|at: usize| (at as u8).wrapping_mul(113) ^ seed).collect::<Vec<_>>();
        for round in 0..4 {
            for name in ["conf", "db"] {
                fs::write(home.path().join(FOLDER).join(name), noise(round)).unwrap();
            }
            let (_index, store) = open(&home, CACHE_BYTES).await.unwrap();
            assert!(store.get(&digest).await.unwrap().is_some());
        }
        let aside = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let aside: Vec<_> = aside.filter(|name| name.starts_with(ASIDE)).collect();
        assert!((1..=ASIDE_KEPT).contains(&aside.len()), "{aside:?}");
    }

    #[test]
    fn an_error_of_the_disk_is_no_damage() {
        let of = |kind: io::ErrorKind| is_damage(&OpenError::Index(sled::Error::Io(kind.into())));
        assert!(!of(io::ErrorKind::StorageFull) && !of(io::ErrorKind::PermissionDenied) && !of(io::ErrorKind::Other));
        assert!(of(io::ErrorKind::InvalidData) && of(io::ErrorKind::UnexpectedEof));
        assert!(is_damage(&OpenError::Index(sled::Error::Corruption { at: None, bt: () })));
    }
}
