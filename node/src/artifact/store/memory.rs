//! Blobs in memory: the readable specification of a shelf, and the one that simulation uses.
//!
//! It never blocks, iterates in order, and its clock is tokio's, so that a run on a paused clock repeats itself.

use super::shelf::{Listed, Note, NoteKey, Place, Presence, Shelf, Staged};
use protocol::digest::Digest;
use protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

/// A place for blobs that a crash of the node leaves behind, and the end of the process does not. Clones are the same.
#[derive(Clone, Debug)]
pub struct Memory {
    born: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    blobs: BTreeMap<Digest, (Bytes, Timestamp)>,
    aside: BTreeMap<u64, (Digest, Bytes, Timestamp)>,
    left: BTreeMap<Digest, u64>,
    quarantine: BTreeMap<Digest, Bytes>,
    notes: BTreeMap<(Note, NoteKey), Vec<u8>>,
    next: u64,
    sync_rounds: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { born: Instant::now(), state: Arc::default() }
    }
}

impl Memory {
    /// What is left when the power goes now: everything that was settled, and of each blob that was still aside as many bytes
    /// as `kept` makes of its length, or nothing of it. What goes on in the old place has no effect on this one.
    #[must_use]
    pub fn after_power_cut(&self, mut kept: impl FnMut(usize) -> Option<usize>) -> Self {
        let mut state = self.state().clone();
        state.left.clear();
        let State { aside, left, .. } = &mut state;
        aside.retain(|nr, (digest, bytes, _)| {
            let Some(kept) = kept(bytes.len()) else { return false };
            bytes.truncate(kept);
            left.insert(*digest, *nr);
            true
        });
        // Of two that were written aside under one digest, one is found again.
        aside.retain(|nr, (digest, ..)| left.get(digest) == Some(nr));
        Self { born: self.born, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf for Memory {
    fn touch(&self, digest: &Digest) -> io::Result<Presence> {
        let now = self.now();
        Ok(match self.state().blobs.get_mut(digest) {
            Some((_, touched)) => {
                *touched = now;
                Presence::Here
            }
            None => Presence::Absent,
        })
    }

    fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        Ok(self.state().blobs.get(digest).map(|(bytes, _)| bytes.clone()))
    }

    fn quarantine(&self, digest: &Digest) -> io::Result<()> {
        let mut state = self.state();
        if let Some((bytes, _)) = state.blobs.remove(digest) {
            state.quarantine.insert(*digest, bytes);
        }
        Ok(())
    }

    fn stage(&self, digest: &Digest, bytes: Bytes) -> io::Result<Staged> {
        let now = self.now();
        let mut state = self.state();
        let nr = state.next;
        state.next += 1;
        state.aside.insert(nr, (*digest, bytes, now));
        Ok(Staged { digest: *digest, place: Place::Aside(nr) })
    }

    fn left_over(&self, digest: &Digest) -> io::Result<Option<(Staged, Bytes)>> {
        let mut state = self.state();
        let Some(nr) = state.left.remove(digest) else { return Ok(None) };
        let found = state.aside.get(&nr).map(|(_, bytes, _)| bytes.clone());
        Ok(found.map(|bytes| (Staged { digest: *digest, place: Place::Aside(nr) }, bytes)))
    }

    fn settle(&self, staged: &[Staged]) -> io::Result<()> {
        let now = self.now();
        let mut state = self.state();
        for blob in staged {
            if let Place::Aside(nr) = blob.place
                && let Some((digest, bytes, _)) = state.aside.remove(&nr)
            {
                state.blobs.entry(digest).or_insert((bytes, now));
            }
        }
        if !staged.is_empty() {
            state.sync_rounds += 2;
        }
        Ok(())
    }

    fn leave(&self, staged: Vec<Staged>) {
        let mut state = self.state();
        for blob in staged {
            if let Place::Aside(nr) = blob.place
                && let Some(older) = state.left.insert(blob.digest, nr)
            {
                state.aside.remove(&older);
            }
        }
    }

    fn discard(&self, staged: &Staged) -> io::Result<()> {
        if let Place::Aside(nr) = staged.place {
            self.state().aside.remove(&nr);
        }
        Ok(())
    }

    fn sweep_aside(&self, before: Timestamp) -> io::Result<()> {
        let mut state = self.state();
        let State { aside, left, .. } = &mut *state;
        left.retain(|_, nr| {
            let keep = aside.get(nr).is_some_and(|(_, _, since)| *since >= before);
            if !keep {
                aside.remove(nr);
            }
            keep
        });
        Ok(())
    }

    fn remove(&self, digest: &Digest) -> io::Result<u64> {
        Ok(self.state().blobs.remove(digest).map_or(0, |(bytes, _)| bytes.len() as u64))
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        let row = |(digest, (bytes, touched)): (&Digest, &(Bytes, Timestamp))| Listed {
            digest: *digest,
            len: bytes.len() as u64,
            touched: *touched,
        };
        Ok(self.state().blobs.iter().map(row).collect())
    }

    fn put_note(&self, note: Note, key: &NoteKey, bytes: &[u8]) -> io::Result<()> {
        self.state().notes.insert((note, *key), bytes.to_vec());
        Ok(())
    }

    fn note(&self, note: Note, key: &NoteKey) -> io::Result<Option<Vec<u8>>> {
        Ok(self.state().notes.get(&(note, *key)).cloned())
    }

    fn remove_note(&self, note: Note, key: &NoteKey) -> io::Result<()> {
        self.state().notes.remove(&(note, *key));
        Ok(())
    }

    fn notes(&self, note: Note) -> io::Result<Vec<NoteKey>> {
        Ok(self.state().notes.keys().filter(|(kind, _)| *kind == note).map(|(_, key)| *key).collect())
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH + self.born.elapsed()
    }

    fn sync_rounds(&self) -> u64 {
        self.state().sync_rounds
    }

    #[cfg(test)]
    fn damage(&self, digest: &Digest) {
        if let Some((bytes, _)) = self.state().blobs.get_mut(digest) {
            let mut flipped = bytes.to_vec();
            flipped[0] ^= 1;
            *bytes = flipped.into();
        }
    }
}
