//! The one signed envelope, and the key that signs.
//!
//! A signature is ed25519 (RFC 8032), checked strictly (no small-order keys, no malleable forms), over
//! `"barnraise/1" ‖ kind ‖ farm id ‖ payload length ‖ payload`. `kind` is one byte and the length eight bytes big-endian, so
//! no two envelopes of different kind, farm or payload share a message. The payload is kept as received, stored and
//! forwarded unchanged; an id is the digest of kind, farm id and payload, never of the signature.
//!
//! This module never decides whether a key *may* say what it said: that is the charter's and the law's part.

use crate::codec::{self, CodecError};
use crate::digest::{Digest, Hasher};
use crate::id::{FarmId, PeerKey};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

const DOMAIN: &[u8] = b"barnraise/1";

/// What an envelope says; part of what is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// [`crate::charter::Charter`], by the farm key.
    Charter,
    /// [`crate::request::Request`], by the requester.
    Request,
    /// [`crate::request::Subscription`], by the requester.
    Subscription,
    /// [`crate::request::Cancellation`], by the requester.
    Cancellation,
    /// [`crate::report::Report`], by the volunteer.
    Report,
    /// [`crate::report::Verdict`], by a coordinator.
    Verdict,
    /// [`crate::gossip::CapabilityNews`], by the volunteer.
    CapabilityNews,
    /// [`crate::gossip::RequestNews`], by a coordinator or the requester's peer.
    RequestNews,
    /// [`crate::owner::OwnersWord`], by the daemon whose owner speaks.
    Owner,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Charter => 1,
            Self::Request => 2,
            Self::Subscription => 3,
            Self::Cancellation => 4,
            Self::Report => 5,
            Self::Verdict => 6,
            Self::CapabilityNews => 7,
            Self::RequestNews => 8,
            Self::Owner => 9,
        }
    }
}

/// A word that travels in an envelope.
pub trait Payload: Serialize + DeserializeOwned {
    /// The kind of its envelope.
    const KIND: Kind;
    /// The most bytes its canonical encoding may have.
    const MAX_BYTES: usize;
}

/// A payload with the key that signed it. Holding one says nothing about its truth: call [`Signed::open`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What the payload is.
    pub kind: Kind,
    /// The farm it is meant for.
    pub farm: FarmId,
    /// Canonical bytes of the word.
    #[serde(with = "serde_bytes")]
    pub payload: Box<[u8]>,
    /// Who signed.
    pub key: PeerKey,
    /// The ed25519 signature.
    pub signature: Signature,
}

/// 64 bytes of ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(…)")
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<64>::deserialize(deserializer).map(|bytes| Self(bytes.into_array()))
    }
}

/// Why an envelope is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It carries another kind of word.
    #[error("a {found:?} where a {expected:?} is expected")]
    Kind {
        /// Kind expected.
        expected: Kind,
        /// Kind found.
        found: Kind,
    },
    /// It was made for another farm.
    #[error("made for another farm")]
    Farm,
    /// The signature is not by this key over these bytes.
    #[error("the signature is not valid")]
    Signature,
    /// The payload is not the canonical form of its word.
    #[error("the payload is damaged: {0}")]
    Payload(#[from] CodecError),
}

impl Signed {
    /// Signs `word` for `farm`.
    #[must_use]
    pub fn new<T: Payload>(word: &T, farm: FarmId, secret: &SecretKey) -> Self {
        let payload = codec::encode(word).into_boxed_slice();
        let signature = Signature(secret.0.sign(&message(T::KIND, farm, &payload)).to_bytes());
        Self { kind: T::KIND, farm, payload, key: secret.public(), signature }
    }

    /// The word, once kind, farm, length, signature and form are found right.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the first check that failed.
    pub fn open<T: Payload>(&self, farm: FarmId) -> Result<T, OpenError> {
        if self.kind != T::KIND {
            return Err(OpenError::Kind { expected: T::KIND, found: self.kind });
        }
        if self.farm != farm {
            return Err(OpenError::Farm);
        }
        if self.payload.len() > T::MAX_BYTES {
            return Err(CodecError::TooLong { len: self.payload.len(), max: T::MAX_BYTES }.into());
        }
        let key = VerifyingKey::from_bytes(self.key.as_bytes()).map_err(|_| OpenError::Signature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.0);
        key.verify_strict(&message(self.kind, self.farm, &self.payload), &signature)
            .map_err(|_| OpenError::Signature)?;
        Ok(codec::decode(&self.payload, T::MAX_BYTES)?)
    }

    /// The word without checking who said it: for bytes that [`Signed::open`] accepted before they were stored or proposed.
    /// Their form is not checked again either.
    ///
    /// # Errors
    ///
    /// [`OpenError::Kind`] or [`OpenError::Payload`].
    pub fn payload_unchecked<T: Payload>(&self) -> Result<T, OpenError> {
        if self.kind != T::KIND {
            return Err(OpenError::Kind { expected: T::KIND, found: self.kind });
        }
        Ok(codec::decode_accepted(&self.payload, T::MAX_BYTES)?)
    }

    /// The digest of kind, farm id and payload: the same however often the word is signed.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(&[self.kind.byte()]);
        hasher.update(self.farm.0.as_bytes());
        hasher.update(&self.payload);
        hasher.finish()
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({:?} {} by {})", self.kind, self.id().short(), self.key.short())
    }
}

fn message(kind: Kind, farm: FarmId, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(DOMAIN.len() + 1 + 32 + 8 + payload.len());
    message.extend_from_slice(DOMAIN);
    message.push(kind.byte());
    message.extend_from_slice(farm.0.as_bytes());
    message.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    message.extend_from_slice(payload);
    message
}

/// An ed25519 secret key. It prints nothing of itself and is wiped when dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key for 32 secret bytes; where they come from is the caller's duty.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The 32 secret bytes, to be written to a file of mode 0600 and nowhere else.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PeerKey {
        PeerKey::from_bytes(self.0.verifying_key().to_bytes())
    }
}

impl Clone for SecretKey {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public().short())
    }
}

impl FarmId {
    /// The id of the farm that `key` founded.
    #[must_use]
    pub fn of(key: &PeerKey) -> Self {
        Self(Digest::of(key.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Word(String);

    impl Payload for Word {
        const KIND: Kind = Kind::Report;
        const MAX_BYTES: usize = 32;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(String);

    impl Payload for Other {
        const KIND: Kind = Kind::Verdict;
        const MAX_BYTES: usize = 32;
    }

    fn sign(text: &str) -> (Signed, FarmId) {
        let secret = SecretKey::from_seed(&[7; 32]);
        let farm = FarmId::of(&secret.public());
        (Signed::new(&Word(text.to_owned()), farm, &secret), farm)
    }

    #[test]
    fn opens_what_was_signed_and_nothing_else() {
        let (signed, farm) = sign("hello");
        assert_eq!(signed.open::<Word>(farm), Ok(Word("hello".to_owned())));
        assert_eq!(signed.open::<Word>(FarmId(Digest::of(b"other"))), Err(OpenError::Farm));
        assert_eq!(signed.open::<Other>(farm), Err(OpenError::Kind { expected: Kind::Verdict, found: Kind::Report }));
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (signed, farm) = sign("hello");
        for bit in 0..signed.payload.len() * 8 {
            let mut forged = signed.clone();
            forged.payload[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(forged.open::<Word>(farm), Err(OpenError::Signature), "payload bit {bit}");
        }
        for bit in 0..512 {
            let mut forged = signed.clone();
            forged.signature.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(forged.open::<Word>(farm), Err(OpenError::Signature), "signature bit {bit}");
        }
    }

    #[test]
    fn the_kind_is_part_of_what_is_signed() {
        let (mut signed, farm) = sign("hello");
        signed.kind = Kind::Verdict;
        assert_eq!(signed.open::<Other>(farm), Err(OpenError::Signature));
    }

    #[test]
    fn an_id_does_not_depend_on_the_signature() {
        let (signed, _) = sign("hello");
        let mut other = signed.clone();
        other.signature.0 = [0; 64];
        assert_eq!(signed.id(), other.id());
    }

    #[test]
    fn a_long_payload_is_refused_before_the_signature_is_checked() {
        let (signed, farm) = sign(&"x".repeat(40));
        assert!(matches!(signed.open::<Word>(farm), Err(OpenError::Payload(CodecError::TooLong { .. }))));
    }
}
