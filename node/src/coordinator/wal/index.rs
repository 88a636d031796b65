//! Where each entry is: the log's table of contents, with the newest payloads kept in memory.
//!
//! Pure: it is changed by recovery while it reads the segments, and by the handle and the writer while
//! the log lives. It never touches a file.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::record::Frontier;

/// Where the record of an entry lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// One entry: in memory, on disk, or both; never neither.
#[derive(Clone, Debug)]
pub(super) enum Slot {
    /// Queued, not yet on disk.
    Queued(Arc<[u8]>),
    /// On disk, and still in memory.
    Cached(Arc<[u8]>, Location),
    /// On disk only.
    Stored(Location),
}

/// Why an append does not continue the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {found} cannot follow: the log goes on with {expected}")]
pub struct Gap {
    /// Index that the log would take.
    pub expected: u64,
    /// Index that was offered.
    pub found: u64,
}

/// The table of contents.
#[derive(Debug, Default)]
pub(super) struct Index {
    frontier: Frontier,
    /// The entries held; the last of them comes right before `frontier.next`.
    slots: VecDeque<Slot>,
    /// Position of the first slot that may be in memory and on disk both.
    cached_from: usize,
    cached_bytes: usize,
    cached_bytes_max: usize,
}

impl Index {
    /// No entries, at `frontier`; keeps about `cached_bytes_max` bytes of payloads in memory.
    pub(super) fn new(frontier: Frontier, cached_bytes_max: usize) -> Self {
        Self { frontier, cached_bytes_max, ..Self::default() }
    }

    /// Where the log goes on, what was purged, how far it is committed.
    pub(super) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Indices of the entries held.
    pub(super) fn range(&self) -> Range<u64> {
        let next = self.frontier.next.unwrap_or(0);
        next - self.slots.len() as u64..next
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        let position = index.checked_sub(self.range().start)?;
        self.slots.get(usize::try_from(position).ok()?)
    }

    /// Whether the log goes on with `index`. The first entry of all may have any index.
    pub(super) fn continues_with(&self, index: u64) -> Result<(), Gap> {
        match self.frontier.next {
            Some(expected) if expected != index => Err(Gap { expected, found: index }),
            _ => Ok(()),
        }
    }

    pub(super) fn append(&mut self, index: u64, slot: Slot) -> Result<(), Gap> {
        self.continues_with(index)?;
        self.frontier.append(index);
        self.cached_bytes += slot.memory();
        self.slots.push_back(slot);
        Ok(())
    }

    /// Forgets the entries from `since` on.
    pub(super) fn truncate(&mut self, since: u64) {
        let range = self.range();
        let keep = since.clamp(range.start, range.end) - range.start;
        for slot in self.slots.drain(keep as usize..) {
            self.cached_bytes -= slot.memory();
        }
        self.cached_from = self.cached_from.min(self.slots.len());
        self.frontier.truncate(since);
    }

    /// Forgets the entries up to and with `upto`.
    pub(super) fn purge(&mut self, upto: u64, marker: &[u8]) {
        let range = self.range();
        let gone = ((upto + 1).clamp(range.start, range.end) - range.start) as usize;
        for slot in self.slots.drain(..gone) {
            self.cached_bytes -= slot.memory();
        }
        self.cached_from = self.cached_from.saturating_sub(gone);
        self.frontier.purge(upto, marker);
    }

    pub(super) fn commit(&mut self, marker: &[u8]) {
        self.frontier.committed = Some(marker.to_vec());
    }

    /// Notes that `payload`, queued as entry `index`, is on disk. Ignored if the entry was truncated or
    /// replaced since.
    pub(super) fn stored(&mut self, index: u64, payload: &Arc<[u8]>, location: Location) {
        let position = index.checked_sub(self.range().start);
        let Some(slot) = position.and_then(|p| self.slots.get_mut(p as usize)) else { return };
        if let Slot::Queued(queued) = slot
            && Arc::ptr_eq(queued, payload)
        {
            *slot = Slot::Cached(payload.clone(), location);
        }
        self.shrink();
    }

    /// Lets go of the oldest payloads in memory that are on disk too, down to the limit.
    fn shrink(&mut self) {
        while self.cached_bytes > self.cached_bytes_max
            && let Some(slot) = self.slots.get_mut(self.cached_from)
        {
            match slot {
                Slot::Queued(_) => return,
                Slot::Cached(payload, location) => {
                    self.cached_bytes -= payload.len();
                    *slot = Slot::Stored(*location);
                }
                Slot::Stored(_) => {}
            }
            self.cached_from += 1;
        }
    }
}

impl Slot {
    fn memory(&self) -> usize {
        match self {
            Slot::Queued(payload) | Slot::Cached(payload, _) => payload.len(),
            Slot::Stored(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filled(range: Range<u64>, cached_bytes_max: usize) -> Index {
        let mut index = Index::new(Frontier::default(), cached_bytes_max);
        for at in range {
            index.append(at, Slot::Queued(Arc::from([0u8; 10]))).unwrap();
        }
        index
    }

    fn location(at: u64) -> Location {
        Location { segment: 0, offset: at, length: 1 }
    }

    #[test]
    fn entries_follow_one_another() {
        let mut index = filled(3..6, 100);
        assert_eq!(index.range(), 3..6);
        let gap = index.append(7, Slot::Stored(location(7)));
        assert_eq!(gap, Err(Gap { expected: 6, found: 7 }));
        index.truncate(4);
        assert_eq!(index.range(), 3..4);
        index.truncate(9);
        assert_eq!(index.range(), 3..4);
    }

    #[test]
    fn an_emptied_log_goes_on_where_it_was_cut_and_never_below_what_was_purged() {
        let mut index = filled(3..6, 100);
        index.truncate(0);
        assert_eq!(index.range(), 0..0);
        let mut index = filled(3..6, 100);
        index.purge(4, b"four");
        index.truncate(0);
        assert_eq!(index.range(), 5..5);
        index.purge(9, b"nine");
        index.purge(8, b"eight");
        assert_eq!(index.range(), 10..10);
        assert_eq!(index.frontier().purged, Some((9, b"nine".to_vec())));
    }

    #[test]
    fn memory_shrinks_from_the_oldest_and_never_what_is_queued() {
        let mut index = filled(0..5, 25);
        assert_eq!(index.cached_bytes, 50);
        for at in [0, 1, 3] {
            let Some(Slot::Queued(payload)) = index.slot(at).cloned() else { panic!("queued") };
            index.stored(at, &payload, location(at));
        }
        assert!(matches!(index.slot(0), Some(Slot::Stored(_))));
        assert!(matches!(index.slot(1), Some(Slot::Stored(_))));
        assert!(matches!(index.slot(2), Some(Slot::Queued(_))));
        assert!(matches!(index.slot(3), Some(Slot::Cached(..))));
        index.purge(1, b"");
        index.truncate(3);
        assert_eq!((index.range(), index.cached_bytes), (2..3, 10));
    }

    #[test]
    fn a_replaced_entry_is_not_taken_for_the_one_that_was_written() {
        let mut index = filled(0..1, 0);
        let Some(Slot::Queued(old)) = index.slot(0).cloned() else { panic!("queued") };
        index.truncate(0);
        index.append(0, Slot::Queued(Arc::from([1u8; 10]))).unwrap();
        index.stored(0, &old, location(0));
        assert!(matches!(index.slot(0), Some(Slot::Queued(_))));
    }
}
