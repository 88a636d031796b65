//! Sources on their way from a requester to the farm: served to whoever pulls them, for as long as they are wanted.

use super::{Checking, ChunkSource, Reading};
use protocol::digest::Digest;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// Trees and recipes that are being handed over. Clones share them.
#[derive(Clone, Default)]
pub struct Uploads(Arc<Mutex<BTreeMap<u64, Arc<dyn ChunkSource>>>>);

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Uploads({})", self.locked().len())
    }
}

/// Takes the source back when dropped.
#[derive(Debug)]
pub struct Upload {
    uploads: Uploads,
    number: u64,
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.locked().remove(&self.number);
    }
}

impl Uploads {
    /// Serves a source for as long as the answer lives.
    #[must_use]
    pub fn serve(&self, source: Arc<dyn ChunkSource>) -> Upload {
        let mut uploads = self.locked();
        let number = uploads.last_key_value().map_or(0, |(last, _)| last + 1);
        uploads.insert(number, source);
        Upload { uploads: self.clone(), number }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<dyn ChunkSource>>> {
        // Insert and remove leave the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkSource for Uploads {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let sources: Vec<_> = self.locked().values().cloned().collect();
        for source in sources {
            if let Some(bytes) = source.read(digest)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn reading(&self) -> Reading {
        let blocks = self.locked().values().any(|source| source.reading() == Reading::Blocks);
        if blocks { Reading::Blocks } else { Reading::Immediate }
    }
}

/// One source before another: what the first does not have is looked for in the second.
#[derive(Debug)]
pub struct Both<A, B>(pub A, pub B);

impl<A: ChunkSource, B: ChunkSource> ChunkSource for Both<A, B> {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        match self.0.read(digest)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.1.read(digest),
        }
    }

    fn read_verified(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        match self.0.read_verified(digest)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.1.read_verified(digest),
        }
    }

    fn reading(&self) -> Reading {
        match (self.0.reading(), self.1.reading()) {
            (Reading::Immediate, Reading::Immediate) => Reading::Immediate,
            _ => Reading::Blocks,
        }
    }

    fn checking(&self) -> Checking {
        match (self.0.checking(), self.1.checking()) {
            (Checking::Done, Checking::Done) => Checking::Done,
            _ => Checking::LeftToReader,
        }
    }
}

/// A few blobs in memory, such as a recipe and the manifest of its source.
#[derive(Clone, Debug, Default)]
pub struct Blobs(BTreeMap<Digest, Vec<u8>>);

impl Blobs {
    /// These blobs, under their digests.
    #[must_use]
    pub fn new(blobs: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(blobs.into_iter().map(|blob| (Digest::of(&blob), blob)).collect())
    }
}

impl ChunkSource for Blobs {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.get(digest).cloned())
    }

    fn reading(&self) -> Reading {
        Reading::Immediate
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_is_served_while_it_is_wanted() {
        let uploads = Uploads::default();
        let digest = Digest::of(b"recipe");
        let upload = uploads.serve(Arc::new(Blobs::new([b"recipe".to_vec()])));
        let other = uploads.serve(Arc::new(Blobs::new([b"other".to_vec()])));
        assert_eq!(uploads.read(&digest).unwrap(), Some(b"recipe".to_vec()));
        drop(upload);
        assert_eq!(uploads.read(&digest).unwrap(), None);
        assert_eq!(Both(&uploads, Blobs::new([b"recipe".to_vec()])).read(&digest).unwrap(), Some(b"recipe".to_vec()));
        drop(other);
    }

    impl ChunkSource for &Uploads {
        fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
            (*self).read(digest)
        }
    }
}
