//! The log of one attempt: what its steps wrote, in memory, bounded, readable by offset while it grows.
//!
//! It keeps the first half and the last half of its bound: the start shows what was configured, the end shows what failed. Bytes
//! are stored as they came; whoever shows them escapes them. Nothing here blocks the writer on a slow reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The most bytes that one [`BuildLog::read`] returns.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// A shared handle on the log of one attempt.
#[derive(Clone, Debug)]
pub struct BuildLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    kept: Mutex<Kept>,
    half: usize,
    extent: watch::Sender<Extent>,
}

#[derive(Debug, Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    written: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Extent {
    written: u64,
    finished: bool,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Where the piece starts. Beyond the offset asked for when the bytes in between were dropped.
    pub offset: u64,
    /// At most [`CHUNK_BYTES`]; empty when there is nothing yet.
    pub bytes: Vec<u8>,
    /// Where to ask next.
    pub next: u64,
    /// Whether the log has ended and `next` is its end.
    pub finished: bool,
}

impl BuildLog {
    /// An empty log that keeps at most `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let half = usize::try_from(bytes / 2).unwrap_or(usize::MAX);
        Self(Arc::new(Shared { kept: Mutex::default(), half, extent: watch::Sender::new(Extent::default()) }))
    }

    /// Adds bytes at the end.
    pub fn append(&self, bytes: &[u8]) {
        let written = {
            let mut kept = self.kept();
            let room = self.0.half.saturating_sub(kept.head.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(room);
            kept.head.extend_from_slice(head);
            let rest = &rest[rest.len().saturating_sub(self.0.half)..];
            let excess = (kept.tail.len() + rest.len()).saturating_sub(self.0.half);
            kept.tail.drain(..excess);
            kept.tail.extend(rest);
            kept.written += bytes.len() as u64;
            kept.written
        };
        self.0.extent.send_modify(|extent| extent.written = written);
    }

    /// Says that nothing more will come.
    pub fn finish(&self) {
        self.0.extent.send_modify(|extent| extent.finished = true);
    }

    /// How many bytes have been written, kept or not.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.0.extent.borrow().written
    }

    /// The bytes from `offset` on, as many as one chunk holds. Never waits.
    #[must_use]
    pub fn read(&self, offset: u64) -> LogChunk {
        let finished = self.0.extent.borrow().finished;
        let kept = self.kept();
        let head_end = kept.head.len() as u64;
        let tail_start = kept.written - kept.tail.len() as u64;
        let (offset, bytes): (u64, Vec<u8>) = if offset < head_end {
            let bytes = kept.head.iter().skip(to_index(offset)).take(CHUNK_BYTES).copied().collect();
            (offset, bytes)
        } else {
            let offset = offset.clamp(tail_start, kept.written);
            (offset, kept.tail.iter().skip(to_index(offset - tail_start)).take(CHUNK_BYTES).copied().collect())
        };
        let next = offset + bytes.len() as u64;
        LogChunk { offset, bytes, next, finished: finished && next == kept.written }
    }

    /// Waits until there is something at `offset`, or the log has ended.
    pub async fn grown_past(&self, offset: u64) {
        let mut extent = self.0.extent.subscribe();
        // The sender lives as long as `self`, so waiting ends only by the condition.
        let _ = extent.wait_for(|extent| extent.written > offset || extent.finished).await;
    }

    /// Everything that was kept, with one line in place of what was dropped.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let kept = self.kept();
        let dropped = kept.written - (kept.head.len() + kept.tail.len()) as u64;
        let mut bytes = kept.head.clone();
        if dropped > 0 {
            bytes.extend_from_slice(format!("\n[… {dropped} bytes left out …]\n").as_bytes());
        }
        let (front, back) = kept.tail.as_slices();
        bytes.extend_from_slice(front);
        bytes.extend_from_slice(back);
        bytes
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No step of `append` can leave the halves inconsistent, so a poisoned lock still guards a true log.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_both_ends_and_counts_what_it_dropped() {
        let log = BuildLog::new(8);
        log.append(b"0123");
        log.append(b"456789");
        log.append(b"abcdef");
        assert_eq!(log.to_bytes(), "0123\n[… 8 bytes left out …]\ncdef".as_bytes());
        assert_eq!(log.written(), 16);
        let chunk = log.read(6);
        assert_eq!((chunk.offset, chunk.bytes.as_slice(), chunk.finished), (12, b"cdef".as_slice(), false));
        log.finish();
        assert_eq!(log.read(16), LogChunk { offset: 16, bytes: Vec::new(), next: 16, finished: true });
        assert!(log.read(900).finished, "an offset beyond the end is the end");
    }

    #[tokio::test]
    async fn a_follower_wakes_when_bytes_come_and_when_the_log_ends() {
        let log = BuildLog::new(1 << 20);
        let follower = tokio::spawn({
            let log = log.clone();
            async move {
                let mut seen = Vec::new();
                loop {
                    let chunk = log.read(seen.len() as u64);
                    seen.extend_from_slice(&chunk.bytes);
                    if chunk.finished {
                        return seen;
                    }
                    log.grown_past(chunk.next).await;
                }
            }
        });
        for piece in ["one\n", "two\n"] {
            log.append(piece.as_bytes());
            tokio::task::yield_now().await;
        }
        log.finish();
        let seen = tokio::time::timeout(Duration::from_secs(5), follower).await;
        assert!(matches!(seen, Ok(Ok(bytes)) if bytes == b"one\ntwo\n"));
    }

    proptest! {
        #[test]
        fn reading_by_offset_gives_a_part_of_what_was_written(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            bound in 0u64..64,
        ) {
            let log = BuildLog::new(bound);
            let all: Vec<u8> = pieces.concat();
            for piece in &pieces {
                log.append(piece);
            }
            log.finish();
            let mut offset = 0;
            let mut kept = 0;
            loop {
                let chunk = log.read(offset);
                prop_assert!(chunk.offset >= offset);
                let start = usize::try_from(chunk.offset).unwrap_or(usize::MAX);
                prop_assert_eq!(&all[start..start + chunk.bytes.len()], chunk.bytes.as_slice());
                kept += chunk.bytes.len() as u64;
                offset = chunk.next;
                if chunk.finished {
                    break;
                }
            }
            prop_assert_eq!(offset, all.len() as u64);
            prop_assert_eq!(kept, (bound / 2 * 2).min(all.len() as u64));
        }
    }
}
