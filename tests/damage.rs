//! What may happen to bytes on their way, or be done to them: for tests that feed decoders with what is almost right.

use proptest::prelude::*;
use proptest::sample::Index;
use std::ops::Range;

/// One piece of damage.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Drop(Index, u8),
    Insert(Index, Vec<u8>),
    Double(Index, u16),
    /// The end of another one.
    Splice(Index, Index, Index),
}

/// So many changes; `telling` are bytes that mean something to what is damaged.
pub(crate) fn changes(telling: Vec<u8>, so_many: Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        4 => (at(), 1u8..).prop_map(|(at, bits)| Change::Flip(at, bits)),
        4 => (at(), prop::sample::select(telling)).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), 1u8..).prop_map(|(at, count)| Change::Drop(at, count)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (at(), 1u16..1_024).prop_map(|(at, count)| Change::Double(at, count)),
        2 => (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ];
    prop::collection::vec(change, so_many)
}

/// Does `changes` to `bytes`, one after the other; pieces of `others` may come in.
pub(crate) fn damage(bytes: &mut Vec<u8>, changes: &[Change], others: &[&[u8]]) {
    for change in changes {
        let length = bytes.len();
        if length == 0 {
            return;
        }
        match change {
            Change::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Change::Set(at, to) => bytes[at.index(length)] = *to,
            Change::Cut(at) => bytes.truncate(at.index(length)),
            Change::Drop(at, count) => {
                let from = at.index(length);
                bytes.drain(from..length.min(from + usize::from(*count)));
            }
            Change::Insert(at, more) => {
                let at = at.index(length);
                bytes.splice(at..at, more.iter().copied());
            }
            Change::Double(at, count) => {
                let from = at.index(length);
                let piece = bytes[from..length.min(from + usize::from(*count))].to_vec();
                bytes.splice(from..from, piece);
            }
            Change::Splice(at, other, from) => {
                let other = others[other.index(others.len())];
                bytes.truncate(at.index(length));
                bytes.extend_from_slice(&other[from.index(other.len())..]);
            }
        }
    }
}
