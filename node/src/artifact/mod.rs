//! The artifact room: blobs, trees, and how they travel between peers.
//!
//! - [`store`]: blobs by digest on disk or in memory, verified on every read; [`index`] remembers which of them form
//!   artifacts and judged builds; [`eviction`] makes room, in two steps, so that the farm hears of a loss before it happens;
//!   [`need`] says what must stay meanwhile, [`upkeep`] does all of it by itself as long as a daemon runs, and [`steward`]
//!   when the owner wishes
//! - [`transfer`]: `bulk/1`, many providers at once, every chunk verified before it counts
//! - [`checkout`]: a tree written out into a folder, which is how a build gets its source; [`folder`] is the one place that
//!   creates files in a tree, and it never follows a link
//! - [`mod@import`]: a folder or an archive read as a tree, which is how a source gets into a farm
//!
//! The room promises that bytes which leave it are those their digest names. It never decides who may fetch what (a
//! [`transfer::Permission`] is asked for), never believes a peer, and knows nothing of leases, verdicts or mail beyond
//! keeping a [`protocol::report::Judged`] for those who ask.

pub mod checkout;
pub mod compare;
pub mod eviction;
pub mod folder;
pub mod gather;
pub mod import;
pub mod index;
pub mod need;
pub mod published;
pub mod sharing;
pub mod steward;
pub mod store;
pub mod transfer;
pub mod upkeep;
pub mod upload;

pub use store::{Batch, FileChunks, Store, StoreError};

use protocol::digest::Digest;
use std::io;

/// Where blobs can be read by digest: a [`Store`], or the folder or archive that a requester's source lies in.
pub trait ChunkSource: Send + Sync {
    /// The blob with this digest; `None` when it is not here. May block.
    ///
    /// A source need not verify what it reads: whoever serves from it does so the first time, and the receiver always.
    ///
    /// # Errors
    ///
    /// Whatever reading failed with.
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>>;

    /// The same, compared with its digest this very time: for whoever uses the bytes here. May block.
    ///
    /// # Errors
    ///
    /// Whatever reading failed with.
    fn read_verified(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.read(digest)?.filter(|bytes| Digest::of(bytes) == *digest))
    }

    /// Whether reading may block, and so belongs on the blocking pool.
    fn reading(&self) -> Reading {
        Reading::Blocks
    }

    /// Whether [`ChunkSource::read`] already compares the bytes with the digest, the first time at least.
    fn checking(&self) -> Checking {
        Checking::LeftToReader
    }
}

impl<T: ChunkSource + ?Sized> ChunkSource for std::sync::Arc<T> {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        (**self).read(digest)
    }

    fn read_verified(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        (**self).read_verified(digest)
    }

    fn reading(&self) -> Reading {
        (**self).reading()
    }

    fn checking(&self) -> Checking {
        (**self).checking()
    }
}

/// Whether reading a [`ChunkSource`] may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It touches a disk.
    Blocks,
    /// It is memory only, and stays on the calling thread.
    Immediate,
}

/// Who compares bytes with their digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checking {
    /// The source, before it first hands them out.
    Done,
    /// Whoever reads.
    LeftToReader,
}
