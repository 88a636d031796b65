//! What must stay free of the disk that builds lie on: it is the owner's, and what a build writes to a full one is cut off.

use rustix::fs::StatFs;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Below this much free space no build goes on, and none is begun.
pub(super) const BYTES: u64 = 256 << 20;

/// How much builds may still take.
pub(super) fn free_bytes(disk: &StatFs) -> u64 {
    disk.f_bavail.saturating_mul(u64::try_from(disk.f_bsize).unwrap_or(1))
}

/// Whether the disk of an open folder is full. One that cannot be asked counts as having room.
pub(super) fn is_reached(folder: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(folder).is_ok_and(|disk| free_bytes(&disk) < BYTES)
}

/// Whether the disk of the folder at `path` is full. One that cannot be asked counts as having room.
pub(super) fn is_reached_at(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|disk| free_bytes(&disk) < BYTES)
}
