//! How one record lies in a segment, as bytes: encoding and checking, no files.
//!
//! ```text
//! mark u32 | crc u32 | length u32 | kind u8 | end u8 | zero u16 | batch u64 | payload
//! ```
//!
//! Integers are little-endian. The checksum (CRC-32) covers everything after itself and is seeded with
//! the segment's salt, so bytes of another segment, or bytes that a peer put into a payload to look
//! like a record, do not pass for one.
//!
//! `batch` numbers the write that carried the record; `end` is 1 on the last record of that write. A
//! batch is written only after the one before it was synced. That is what lets [`super::recover`] tell
//! a torn write (nothing of a later batch follows) from decay of bytes that had been acknowledged.

use std::ops::Range;

/// First bytes of every record: lets recovery look for records behind a damaged one.
const MARK: [u8; 4] = *b"rec\n";
const HEADER_BYTES: usize = 24;

/// Largest payload of one record, in bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Where a batch number stands among the records of its write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// More records of the same batch follow.
    Within,
    /// The last record of its batch.
    End,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// First in every segment: the state of the log where the segment begins.
    Frontier(Frontier),
    /// One log entry.
    Entry { index: u64, payload: &'a [u8] },
    /// Entries from `since` on are void.
    Truncate { since: u64 },
    /// Entries up to and with `upto` are void; `marker` names the last of them in the caller's terms.
    Purge { upto: u64, marker: &'a [u8] },
    /// The caller's note of how far the log is committed.
    Committed { marker: &'a [u8] },
}

/// The state of the log at one point of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frontier {
    /// Index that the next entry gets; none while nothing was ever appended or purged.
    pub(super) next: Option<u64>,
    /// Last purged index and its marker.
    pub(super) purged: Option<(u64, Vec<u8>)>,
    /// Last marker of [`Record::Committed`].
    pub(super) committed: Option<Vec<u8>>,
}

impl Frontier {
    /// Entry `index` was appended.
    pub(super) fn append(&mut self, index: u64) {
        self.next = Some(index + 1);
    }

    /// Entries from `since` on were cut off; what was purged stays so.
    pub(super) fn truncate(&mut self, since: u64) {
        let floor = self.purged.as_ref().map_or(0, |(upto, _)| upto + 1);
        self.next = self.next.map(|next| next.min(since.max(floor)));
    }

    /// Entries up to and with `upto` are gone. A lower `upto` than before changes nothing.
    pub(super) fn purge(&mut self, upto: u64, marker: &[u8]) {
        if self.purged.as_ref().is_none_or(|(before, _)| *before < upto) {
            self.purged = Some((upto, marker.to_vec()));
            self.next = Some(self.next.unwrap_or(0).max(upto + 1));
        }
    }
}

/// A record that was read and found whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) record: Record<'a>,
    pub(super) batch: u64,
    pub(super) place: Place,
    /// Bytes of the segment that the record occupies.
    pub(super) span: Range<usize>,
}

/// Why no record could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the record is cut short")]
    Short,
    #[error("no record begins here")]
    Mark,
    #[error("the record says {0} bytes, more than any record has")]
    Length(u32),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the payload does not decode")]
    Payload,
}

impl Record<'_> {
    const FRONTIER: u8 = 1;
    const ENTRY: u8 = 2;
    const TRUNCATE: u8 = 3;
    const PURGE: u8 = 4;
    const COMMITTED: u8 = 5;

    /// Appends the record to `out`. The payload must be within [`PAYLOAD_BYTES_MAX`].
    pub(super) fn encode(&self, salt: u32, batch: u64, place: Place, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&[0; HEADER_BYTES - MARK.len()]);
        let kind = self.encode_payload(out);
        let length = out.len() - start - HEADER_BYTES;
        debug_assert!(length <= PAYLOAD_BYTES_MAX);
        out[start + 8..start + 12].copy_from_slice(&(length as u32).to_le_bytes());
        out[start + 12] = kind;
        out[start + 13] = u8::from(place == Place::End);
        out[start + 16..start + 24].copy_from_slice(&batch.to_le_bytes());
        let crc = checksum(salt, &out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    fn encode_payload(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Record::Frontier(frontier) => {
                put_optional(out, frontier.next.map(u64::to_le_bytes).as_ref().map(|b| &b[..]));
                let (index, marker) = match &frontier.purged {
                    Some((index, marker)) => (Some(index.to_le_bytes()), Some(marker.as_slice())),
                    None => (None, None),
                };
                put_optional(out, index.as_ref().map(|b| &b[..]));
                put_optional(out, marker);
                put_optional(out, frontier.committed.as_deref());
                Self::FRONTIER
            }
            Record::Entry { index, payload } => {
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(payload);
                Self::ENTRY
            }
            Record::Truncate { since } => {
                out.extend_from_slice(&since.to_le_bytes());
                Self::TRUNCATE
            }
            Record::Purge { upto, marker } => {
                out.extend_from_slice(&upto.to_le_bytes());
                out.extend_from_slice(marker);
                Self::PURGE
            }
            Record::Committed { marker } => {
                out.extend_from_slice(marker);
                Self::COMMITTED
            }
        }
    }
}

/// Reads the record that begins at `at`.
pub(super) fn decode(bytes: &[u8], at: usize, salt: u32) -> Result<Found<'_>, RecordError> {
    let rest = bytes.get(at..).ok_or(RecordError::Short)?;
    let header = rest.get(..HEADER_BYTES).ok_or(RecordError::Short)?;
    if header[..4] != MARK {
        return Err(RecordError::Mark);
    }
    let length = u32_at(header, 8);
    if length as usize > PAYLOAD_BYTES_MAX {
        return Err(RecordError::Length(length));
    }
    let end = HEADER_BYTES + length as usize;
    let whole = rest.get(..end).ok_or(RecordError::Short)?;
    if checksum(salt, &whole[8..]) != u32_at(header, 4) {
        return Err(RecordError::Checksum);
    }
    let place = match header[13] {
        0 => Place::Within,
        1 => Place::End,
        _ => return Err(RecordError::Payload),
    };
    let record = decode_payload(header[12], &whole[HEADER_BYTES..]).ok_or(RecordError::Payload)?;
    Ok(Found { record, batch: u64_at(header, 16), place, span: at..at + end })
}

/// The highest batch among whole records that begin after `from`, if there are any.
pub(super) fn latest_batch_after(bytes: &[u8], from: usize, salt: u32) -> Option<u64> {
    let mut latest = None;
    let mut at = from + 1;
    while at + HEADER_BYTES <= bytes.len() {
        match decode(bytes, at, salt) {
            Ok(found) => {
                latest = latest.max(Some(found.batch));
                at = found.span.end;
            }
            Err(_) => at += 1,
        }
    }
    latest
}

fn decode_payload(kind: u8, payload: &[u8]) -> Option<Record<'_>> {
    match kind {
        Record::FRONTIER => decode_frontier(payload).map(Record::Frontier),
        Record::ENTRY => {
            let (index, payload) = split_u64(payload)?;
            Some(Record::Entry { index, payload })
        }
        Record::TRUNCATE => match split_u64(payload)? {
            (since, []) => Some(Record::Truncate { since }),
            _ => None,
        },
        Record::PURGE => {
            let (upto, marker) = split_u64(payload)?;
            Some(Record::Purge { upto, marker })
        }
        Record::COMMITTED => Some(Record::Committed { marker: payload }),
        _ => None,
    }
}

fn decode_frontier(mut payload: &[u8]) -> Option<Frontier> {
    let next = take_optional(&mut payload)?.map(exact_u64);
    let purged_index = take_optional(&mut payload)?.map(exact_u64);
    let purged_marker = take_optional(&mut payload)?;
    let committed = take_optional(&mut payload)?.map(<[u8]>::to_vec);
    let next = match next {
        Some(number) => Some(number?),
        None => None,
    };
    let purged = match (purged_index, purged_marker) {
        (Some(index), Some(marker)) => Some((index?, marker.to_vec())),
        (None, None) => None,
        _ => return None,
    };
    payload.is_empty().then_some(Frontier { next, purged, committed })
}

/// One byte of presence, then length and bytes.
fn put_optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    out.push(u8::from(value.is_some()));
    if let Some(bytes) = value {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
}

fn take_optional<'a>(payload: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (presence, rest) = payload.split_first()?;
    *payload = rest;
    match presence {
        0 => Some(None),
        1 => {
            let length = u32::from_le_bytes(*payload.first_chunk::<4>()?) as usize;
            let bytes = payload.get(4..4 + length)?;
            *payload = &payload[4 + length..];
            Some(Some(bytes))
        }
        _ => None,
    }
}

fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_le_bytes(*number), rest))
}

fn exact_u64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn frontier() -> impl Strategy<Value = Frontier> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        (
            proptest::option::of(any::<u64>()),
            proptest::option::of((any::<u64>(), bytes())),
            proptest::option::of(bytes()),
        )
            .prop_map(|(next, purged, committed)| Frontier { next, purged, committed })
    }

    fn encoded(record: &Record<'_>, salt: u32, batch: u64, place: Place) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode(salt, batch, place, &mut out);
        out
    }

    proptest! {
        #[test]
        fn every_record_reads_back(
            frontier in frontier(), index: u64, salt: u32, batch: u64, ends: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let place = if ends { Place::End } else { Place::Within };
            for record in [
                Record::Frontier(frontier),
                Record::Entry { index, payload: &payload },
                Record::Truncate { since: index },
                Record::Purge { upto: index, marker: &payload },
                Record::Committed { marker: &payload },
            ] {
                let bytes = encoded(&record, salt, batch, place);
                let found = decode(&bytes, 0, salt).unwrap();
                prop_assert_eq!(found, Found { record, batch, place, span: 0..bytes.len() });
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..64), bit: prop::sample::Index,
        ) {
            let mut bytes = encoded(&Record::Entry { index: 3, payload: &payload }, 7, 1, Place::End);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, 0, 7).is_err());
        }

        #[test]
        fn any_bytes_are_refused_or_read_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0usize..130,
        ) {
            prop_assert!(decode(&bytes, at, 0).is_err());
        }
    }

    #[test]
    fn a_record_inside_a_payload_does_not_count_as_one() {
        let forged = encoded(&Record::Truncate { since: 0 }, 1, u64::MAX, Place::End);
        let bytes = encoded(&Record::Entry { index: 0, payload: &forged }, 2, 5, Place::End);
        assert_eq!(latest_batch_after(&bytes, 0, 2), None);
    }

    #[test]
    fn the_latest_batch_is_found_behind_damage() {
        let mut bytes = encoded(&Record::Truncate { since: 1 }, 9, 4, Place::End);
        let damaged = bytes.len() - 1;
        Record::Truncate { since: 2 }.encode(9, 5, Place::End, &mut bytes);
        Record::Truncate { since: 3 }.encode(9, 6, Place::End, &mut bytes);
        bytes[damaged] ^= 1;
        assert_eq!(latest_batch_after(&bytes, 0, 9), Some(6));
    }
}
