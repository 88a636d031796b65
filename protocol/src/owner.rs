//! What the owner of a home asks of the daemon that runs in it: to look after its store.
//!
//! Commands open no database while a daemon runs; they ask it, in a word that is signed with the daemon's own key. That key
//! lies in the home and only its owner can read it, so whoever reaches the port without it is refused. The word names the
//! caller, whose key the connection has proved: nobody who has seen it can say it again.
//!
//! Long work is done in pieces: each call does some of it and says how to go on.

use crate::digest::Digest;
use crate::id::{BuildKey, ManifestId, PeerKey};
use crate::signed::{Kind, Payload};
use serde::{Deserialize, Serialize};

/// The most places that are named of one damaged blob.
pub const MAX_PLACES: usize = 8;

/// A wish of the owner, signed with the daemon's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnersWord {
    /// Under which key the command is connected.
    pub caller: PeerKey,
    /// What is to be done.
    pub wish: StoreWish,
}

impl Payload for OwnersWord {
    const KIND: Kind = Kind::Owner;
    const MAX_BYTES: usize = 1 << 10;
}

/// What is to be done with the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreWish {
    /// Tell what is kept, newest verdict first.
    List {
        /// Builds that were told already.
        skip: u64,
    },
    /// Read every blob again, or some of them.
    Verify {
        /// The last one that was read; `None` at the beginning.
        after: Option<Digest>,
    },
    /// Remove what is neither pinned nor needed, or some of it.
    Prune,
    /// Keep a build for good.
    Pin {
        /// A build key or manifest, or its leading digits.
        named: String,
    },
    /// Keep it no longer than others.
    Unpin {
        /// A build key or manifest, or its leading digits.
        named: String,
    },
}

/// The answer to a [`StoreWish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreAnswer {
    /// To `List`: as many as fit, and how many there are in all.
    Listed {
        /// The builds.
        builds: Vec<StoredBuild>,
        /// Builds in the store.
        total: u64,
    },
    /// To `Verify`.
    Read(ReadAgain),
    /// To `Prune`.
    Pruned(Pruned),
    /// To `Pin` and `Unpin`: the artifact.
    Marked(ManifestId),
    /// To `Pin` and `Unpin`: this many builds are named so, and it has to be one.
    Named(u64),
}

/// A judged build in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBuild {
    /// The build.
    pub build_key: BuildKey,
    /// The artifact.
    pub manifest: ManifestId,
    /// Recipe, for people.
    pub recipe: String,
    /// Bytes of its files.
    pub size_bytes: u64,
    /// Whether it may go.
    pub staying: Staying,
    /// Whether all of it is here.
    pub wholeness: Wholeness,
}

/// Whether a build in a store may go when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Staying {
    /// Never: its owner pinned it.
    Pinned,
    /// Not now: the farm or somebody in it waits for it.
    Needed,
    /// It may.
    Evictable,
}

/// Whether every piece of an artifact is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wholeness {
    /// All of it.
    Whole,
    /// Some is missing, and is fetched from other holders when there are any.
    Partial,
}

/// What reading blobs again has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAgain {
    /// Bytes read by this call.
    pub bytes: u64,
    /// Blobs that were damaged, and were put aside.
    pub damaged: Vec<Damage>,
    /// From where to go on; `None` when all have been read.
    pub next: Option<Digest>,
}

/// A damaged blob and what it is a piece of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The blob.
    pub digest: Digest,
    /// Where it belongs, at most [`MAX_PLACES`]; nowhere when nothing that is kept needs it.
    pub places: Vec<Place>,
}

/// A piece of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The artifact or source.
    pub manifest: ManifestId,
    /// The build that it answers; `None` for a source, or what was never judged.
    pub build_key: Option<BuildKey>,
    /// Recipe of that build, for people.
    pub recipe: Option<String>,
    /// Which part.
    pub part: Part,
}

/// A part of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// The file of this path.
    File(String),
    /// The list of its files.
    Manifest,
    /// A log of its build.
    Log,
}

/// What pruning has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Artifacts that went with this call.
    pub artifacts: u64,
    /// Bytes that this call has freed.
    pub freed_bytes: u64,
    /// Builds that stay because no coordinator could be told.
    pub unheard: u64,
    /// What is left to do.
    pub rest: Rest,
}

/// Whether there is more to be pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rest {
    /// Nothing that can go now.
    #[default]
    Nothing,
    /// Another call goes on.
    Some,
}
