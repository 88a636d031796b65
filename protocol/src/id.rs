//! Names of things: each its own type, so that one is never taken for another.
//!
//! Ids made from content are digests; ids made by the law ([`JobId`], [`LeaseId`]) are positions in its log, unique in a farm
//! and never used twice. A [`PeerKey`] is the ed25519 public key (RFC 8032) behind a peer: libp2p's peer id for such a key is
//! that key in another coat, so the law needs no second name for the same party.

use crate::digest::{Digest, DigestParseError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! digest_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.short())
            }
        }

        impl FromStr for $name {
            type Err = DigestParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

digest_id! {
    /// A farm: the digest of its public key.
    FarmId
}
digest_id! {
    /// What is built: the digest of a [`crate::request::BuildSpec`].
    BuildKey
}
digest_id! {
    /// A requester's signed wish: the digest of kind, farm id and payload, never of the signature.
    RequestId
}
digest_id! {
    /// A manifest's digest; it names the artifact or the source.
    ManifestId
}
digest_id! {
    /// A recipe in canonical form.
    RecipeId
}
digest_id! {
    /// What is to be told to one address about one request.
    NoticeId
}
digest_id! {
    /// A volunteer's sworn report: the digest of kind, farm id and payload.
    ReportId
}
digest_id! {
    /// A canonical [`crate::platform::Requirement`].
    RequirementId
}
digest_id! {
    /// A canonical [`crate::platform::Capability`].
    CapabilityId
}

macro_rules! index_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

index_id! {
    /// A job: the index of the log entry that created it.
    JobId, "job-"
}
index_id! {
    /// A lease: the index of the log entry that granted it.
    LeaseId, "lease-"
}

/// An ed25519 public key: a peer, a requester or a farm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey([u8; 32]);

impl PeerKey {
    /// A key from its 32 bytes. Whether they are a point on the curve is found out when a signature is checked.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.short())
    }
}

impl Serialize for PeerKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for PeerKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<32>::deserialize(deserializer).map(|bytes| Self(bytes.into_array()))
    }
}
