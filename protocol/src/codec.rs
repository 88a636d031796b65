//! Canonical CBOR: the one byte form of every word that crosses a border.
//!
//! Encoding is the data model of serde over RFC 8949 as `cbor4ii` writes it: definite lengths, shortest integers, struct
//! fields in the order of their declaration, map keys in the order of a `BTreeMap`. Decoding encodes what it read again and
//! refuses anything that is not byte-equal, which rules out trailing bytes, long integers, indefinite lengths, duplicate and
//! unknown fields in one step. Callers limit the size *before* they decode; nothing here allocates more than a small
//! multiple of the bytes it was given.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;

/// Why bytes are not the canonical form of a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes exceed the limit the caller set for this word.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Length received.
        len: usize,
        /// Limit of the word.
        max: usize,
    },
    /// The bytes are not CBOR of the expected shape.
    #[error("not the expected CBOR: {0}")]
    Malformed(String),
    /// The bytes decode, but are not the canonical encoding of what they decode to.
    #[error("not in canonical form")]
    NotCanonical,
}

/// The canonical bytes of `value`.
///
/// # Panics
///
/// When a `Serialize` implementation fails by itself. Every word of this crate is plain derived data, for which writing to
/// memory cannot fail.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    match cbor4ii::serde::to_vec(Vec::with_capacity(128), value) {
        Ok(bytes) => bytes,
        Err(error) => panic!("plain data encodes to memory: {error}"),
    }
}

/// Writes the canonical bytes of `value`, many small pieces one after the other.
///
/// # Errors
///
/// Those of `out`.
pub fn encode_to<T: Serialize>(out: impl io::Write, value: &T) -> io::Result<()> {
    cbor4ii::serde::to_writer(out, value).map_err(io::Error::other)
}

/// The word of which `bytes` are the canonical encoding.
///
/// # Errors
///
/// [`CodecError`] when the bytes are longer than `max`, not CBOR of this shape, or not canonical.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { len: bytes.len(), max });
    }
    let value: T = cbor4ii::serde::from_slice(bytes).map_err(|error| CodecError::Malformed(error.to_string()))?;
    if encode(&value) == bytes { Ok(value) } else { Err(CodecError::NotCanonical) }
}

/// The word of bytes that [`decode`] accepted before: twice as fast, as it does not encode them again.
///
/// # Errors
///
/// [`CodecError`] when the bytes are longer than `max` or not CBOR of this shape.
pub fn decode_accepted<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { len: bytes.len(), max });
    }
    cbor4ii::serde::from_slice(bytes).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// The word at the start of a CBOR sequence (RFC 8742), and how many bytes it took.
///
/// # Errors
///
/// [`CodecError`] when the sequence does not start with the canonical form of such a word of at most `max` bytes.
pub fn decode_first<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<(T, usize), CodecError> {
    let window = &bytes[..bytes.len().min(max)];
    let value: T = cbor4ii::serde::from_slice(window).map_err(|error| CodecError::Malformed(error.to_string()))?;
    let encoded = encode(&value);
    if window.starts_with(&encoded) { Ok((value, encoded.len())) } else { Err(CodecError::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn decodes_only_the_canonical_form() {
        let bytes = encode(&BTreeMap::from([("a".to_owned(), 1u64)]));
        assert_eq!(bytes, [0xa1, 0x61, b'a', 0x01]);
        assert_eq!(decode(&bytes, 16), Ok(BTreeMap::from([("a".to_owned(), 1u64)])));

        let long_integer = [0xa1, 0x61, b'a', 0x18, 0x01];
        let trailing = [0xa1, 0x61, b'a', 0x01, 0x00];
        let indefinite = [0xbf, 0x61, b'a', 0x01, 0xff];
        let duplicate = [0xa2, 0x61, b'a', 0x01, 0x61, b'a', 0x01];
        for bytes in [&long_integer[..], &trailing, &indefinite, &duplicate] {
            assert!(decode::<BTreeMap<String, u64>>(bytes, 16).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn limits_come_before_decoding() {
        assert_eq!(decode::<u64>(&[0x01, 0x02, 0x03], 2), Err(CodecError::TooLong { len: 3, max: 2 }));
    }

    #[test]
    fn a_lying_length_costs_nothing() {
        let lie = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode::<Vec<u64>>(&lie, 64), Err(CodecError::Malformed(_))));
    }
}
