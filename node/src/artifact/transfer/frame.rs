//! The frames of `bulk/1`: what is asked, and what stands before every answer.

use protocol::codec::{self, CodecError};
use protocol::digest::Digest;
use protocol::tree::{CHUNK_BYTES, MAX_MANIFEST_BYTES};
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The most chunks in one request.
pub const MAX_DIGESTS: usize = 256;
/// The largest encoded request.
pub const MAX_ASK_BYTES: usize = 12 << 10;
/// The length of a [`Head`] on the wire.
pub const HEAD_BYTES: usize = 8;

/// A request: four bytes of length, big-endian, then this in canonical CBOR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Blobs of at most [`CHUNK_BYTES`], answered one by one in this order.
    Chunks(Vec<Digest>),
    /// One blob of at most [`MAX_MANIFEST_BYTES`].
    Blob(Digest),
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This many bytes.
    Bytes(u32),
    /// Nothing: the provider does not have it.
    Absent,
    /// Nothing: the provider may not give it to this peer.
    Refused,
    /// Nothing, and the stream ends: the provider serves too many streams.
    Busy,
}

/// What stands before every answer: a byte of kind, a zero byte, the position of the digest in its request (two bytes), the
/// length of what follows (four bytes); integers big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Position of the digest in its request.
    pub at: u16,
    /// What follows.
    pub reply: Reply,
}

/// Bytes that are no frame of `bulk/1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A request that is too long or not canonical.
    #[error("the request is damaged: {0}")]
    Ask(#[from] CodecError),
    /// A request for nothing, or for more than [`MAX_DIGESTS`].
    #[error("a request for {0} chunks")]
    Count(usize),
    /// A head of no known kind, or with bits that must be zero.
    #[error("the answer begins with no head")]
    Head,
    /// An answer to another digest than the next.
    #[error("answer {found} where answer {expected} is due")]
    Order {
        /// Position due.
        expected: u16,
        /// Position found.
        found: u16,
    },
    /// An answer of another length than the manifest says, or more than is allowed.
    #[error("an answer of {found} bytes where {expected} are due")]
    Length {
        /// Length due, or the most allowed.
        expected: u64,
        /// Length announced.
        found: u64,
    },
}

impl Ask {
    /// The frame: length and canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = codec::encode(self);
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut frame = len.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        frame
    }

    /// The request in `body`, without its length.
    ///
    /// # Errors
    ///
    /// [`FrameError::Ask`] or [`FrameError::Count`].
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let ask: Self = codec::decode(body, MAX_ASK_BYTES)?;
        match &ask {
            Self::Chunks(digests) if digests.is_empty() || digests.len() > MAX_DIGESTS => {
                Err(FrameError::Count(digests.len()))
            }
            _ => Ok(ask),
        }
    }

    /// Reads the next request; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// What the stream failed with; [`io::ErrorKind::InvalidData`] with a [`FrameError`] inside.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut len = [0; 4];
        if stream.read(&mut len[..1]).await? == 0 {
            return Ok(None);
        }
        stream.read_exact(&mut len[1..]).await?;
        let len = u32::from_be_bytes(len) as usize;
        if len > MAX_ASK_BYTES {
            return Err(invalid(CodecError::TooLong { len, max: MAX_ASK_BYTES }.into()));
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).await?;
        Self::decode(&body).map(Some).map_err(invalid)
    }

    /// The digests asked for, in order.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        match self {
            Self::Chunks(digests) => digests,
            Self::Blob(digest) => std::slice::from_ref(digest),
        }
    }

    /// The most bytes that one answer to this may have.
    #[must_use]
    pub const fn max_answer_bytes(&self) -> u64 {
        match self {
            Self::Chunks(_) => CHUNK_BYTES,
            Self::Blob(_) => MAX_MANIFEST_BYTES as u64,
        }
    }
}

impl Head {
    /// The eight bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HEAD_BYTES] {
        let (kind, len) = match self.reply {
            Reply::Bytes(len) => (0, len),
            Reply::Absent => (1, 0),
            Reply::Refused => (2, 0),
            Reply::Busy => (3, 0),
        };
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = kind;
        bytes[2..4].copy_from_slice(&self.at.to_be_bytes());
        bytes[4..].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    /// The head in eight bytes.
    ///
    /// # Errors
    ///
    /// [`FrameError::Head`] unless [`Head::encode`] gives the same bytes back.
    pub fn decode(bytes: [u8; HEAD_BYTES]) -> Result<Self, FrameError> {
        let [kind, _, at0, at1, len @ ..] = bytes;
        let reply = match kind {
            0 => Reply::Bytes(u32::from_be_bytes(len)),
            1 => Reply::Absent,
            2 => Reply::Refused,
            3 => Reply::Busy,
            _ => return Err(FrameError::Head),
        };
        let head = Self { at: u16::from_be_bytes([at0, at1]), reply };
        if head.encode() == bytes { Ok(head) } else { Err(FrameError::Head) }
    }
}

/// A frame error as the failure of the stream it came on.
pub(super) fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    proptest! {
        #[test]
        fn asks_survive_the_wire(digests in prop::collection::vec(digest(), 1..=MAX_DIGESTS), one in digest()) {
            for ask in [Ask::Chunks(digests), Ask::Blob(one)] {
                let frame = ask.encode();
                prop_assert!(frame.len() <= MAX_ASK_BYTES);
                prop_assert_eq!(Ask::decode(&frame[4..]), Ok(ask));
            }
        }

        #[test]
        fn decoding_never_panics_and_takes_only_what_encodes_to_the_same(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(ask) = Ask::decode(&bytes) {
                prop_assert_eq!(&ask.encode()[4..], &bytes[..]);
            }
            if let Some(Ok(head)) = bytes.first_chunk().map(|bytes| Head::decode(*bytes)) {
                prop_assert_eq!(&head.encode()[..], &bytes[..HEAD_BYTES]);
            }
        }

        #[test]
        fn a_damaged_ask_is_refused_or_another_ask(one in digest(), at in 0usize..40, flip in 1u8..) {
            let ask = Ask::Blob(one);
            let mut body = ask.encode().split_off(4);
            let at = at % body.len();
            body[at] ^= flip;
            prop_assert_ne!(Ask::decode(&body), Ok(ask));
        }

        #[test]
        fn heads_survive_the_wire(at in any::<u16>(), len in any::<u32>()) {
            for reply in [Reply::Bytes(len), Reply::Absent, Reply::Refused, Reply::Busy] {
                let head = Head { at, reply };
                prop_assert_eq!(Head::decode(head.encode()), Ok(head));
            }
        }
    }

    #[test]
    fn too_many_digests_and_none_are_refused() {
        let many = Ask::Chunks(vec![Digest::of(b""); MAX_DIGESTS + 1]);
        assert_eq!(Ask::decode(&many.encode()[4..]), Err(FrameError::Count(MAX_DIGESTS + 1)));
        assert_eq!(Ask::decode(&Ask::Chunks(Vec::new()).encode()[4..]), Err(FrameError::Count(0)));
    }

    #[tokio::test]
    async fn a_lying_length_is_refused_before_anything_is_read() {
        let mut lie = &[0xff, 0xff, 0xff, 0xff, 0, 0][..];
        assert_eq!(Ask::read(&mut lie).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(lie.len(), 2);
        assert!(Ask::read(&mut &[][..]).await.unwrap().is_none());
        assert_eq!(Ask::read(&mut &[0, 0][..]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
