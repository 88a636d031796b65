//! What a crash makes of a log's last bytes: those that no sync had covered may all be there, or none, or some.

use node::chance::Chance;
use node::coordinator::wal::Stretch;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a disk writes whole or not at all, in bytes.
const SECTOR: u64 = 512;

/// A folder for a run's log: in memory where the system offers that, so that a sync costs nothing.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a folder for the log")
}

/// Tears a batch that was written and not synced, and says how.
pub(crate) fn tear(batch: &Stretch, chance: &Chance) -> io::Result<String> {
    let file = OpenOptions::new().write(true).open(&batch.file)?;
    let bytes = batch.to - batch.from;
    match chance.below(4) {
        0 => Ok(format!("all {bytes} bytes that were not synced are there")),
        1 => {
            file.set_len(batch.from)?;
            Ok(format!("none of {bytes} bytes that were not synced are there"))
        }
        2 => {
            let kept = chance.below(bytes);
            file.set_len(batch.from + kept)?;
            Ok(format!("{kept} of {bytes} bytes that were not synced are there"))
        }
        _ => {
            let mut lost = 0;
            for sector in batch.from / SECTOR..=(batch.to - 1) / SECTOR {
                if chance.below(2) == 0 {
                    let from = batch.from.max(sector * SECTOR);
                    let to = batch.to.min((sector + 1) * SECTOR);
                    file.write_all_at(&vec![0; usize::try_from(to - from).unwrap()], from)?;
                    lost += to - from;
                }
            }
            Ok(format!("{lost} of {bytes} bytes that were not synced are zeros"))
        }
    }
}

/// Forgets a third of the newest segment, synced or not: what a disk does that says it has written what it has not.
pub(crate) fn forget(folder: &Path) -> io::Result<()> {
    let mut segments: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        segments.push(entry?.path());
    }
    segments.sort();
    let Some(newest) = segments.pop() else { return Ok(()) };
    let file = OpenOptions::new().write(true).open(newest)?;
    let length = file.metadata()?.len();
    file.set_len(length - length / 3)
}
