//! The ticket: one word to paste.
//!
//! `farm1` followed by base32 (RFC 4648, lower case, no padding) of the canonical CBOR of [`Ticket`] and the first four bytes
//! of its SHA-256, so that a word cut short or mistyped is refused instead of leading nowhere. Addresses are multiaddrs as
//! text; nothing here dials them.

use crate::codec;
use crate::digest::Digest;
use crate::id::{FarmId, PeerKey};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "farm1";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const CHECK_BYTES: usize = 4;
const MAX_BYTES: usize = 4 << 10;

/// The most coordinators, and the most stable peers, that a ticket lists.
pub const MAX_PEERS: usize = 3;
/// The most addresses of one peer.
pub const MAX_ADDRESSES: usize = 8;

/// One peer to start from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its key.
    pub key: PeerKey,
    /// Multiaddrs without the peer id, best first.
    pub addresses: Vec<String>,
}

/// A farm's name and where to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The farm.
    pub farm: FarmId,
    /// Up to [`MAX_PEERS`] coordinators.
    pub coordinators: Vec<Contact>,
    /// Up to [`MAX_PEERS`] other stable peers.
    pub peers: Vec<Contact>,
}

/// The text is not a ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// It does not start with `farm1`.
    #[error("a ticket starts with `{PREFIX}`")]
    Prefix,
    /// A character is wrong, or the word was cut short.
    #[error("the ticket is damaged: a character is wrong or missing")]
    Damaged,
    /// It was made by a version of this program that says more than this one understands.
    #[error("the ticket is of another version of this program")]
    Version,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = codec::encode(self);
        let check = Digest::of(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..CHECK_BYTES]);
        f.write_str(PREFIX)?;
        f.write_str(&to_base32(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = text.trim().strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        if word.len() > MAX_BYTES * 2 {
            return Err(TicketError::Damaged);
        }
        let bytes = from_base32(word).ok_or(TicketError::Damaged)?;
        let split = bytes.len().checked_sub(CHECK_BYTES).ok_or(TicketError::Damaged)?;
        let (bytes, check) = bytes.split_at(split);
        if Digest::of(bytes).as_bytes()[..CHECK_BYTES] != *check {
            return Err(TicketError::Damaged);
        }
        let ticket: Self = codec::decode(bytes, MAX_BYTES).map_err(|_| TicketError::Version)?;
        let bounded = |contacts: &[Contact]| {
            contacts.len() <= MAX_PEERS && contacts.iter().all(|contact| contact.addresses.len() <= MAX_ADDRESSES)
        };
        if bounded(&ticket.coordinators) && bounded(&ticket.peers) { Ok(ticket) } else { Err(TicketError::Version) }
    }
}

fn to_base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut window, mut bits) = (0u32, 0);
    for byte in bytes {
        window = window << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(window >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(window << (5 - bits) & 31) as usize]));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut window, mut bits) = (0u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'a'..=b'z' => letter - b'a',
            b'2'..=b'7' => letter - b'2' + 26,
            _ => return None,
        };
        window = window << 5 | u32::from(value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((window >> bits & 255) as u8);
        }
    }
    // Left-over bits are padding: fewer than five, and zero.
    (bits < 5 && window & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            farm: FarmId(Digest::of(b"farm")),
            coordinators: vec![Contact {
                key: PeerKey::from_bytes([3; 32]),
                addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned(), "/ip4/127.0.0.1/udp/4001/quic-v1".to_owned()],
            }],
            peers: vec![],
        }
    }

    #[test]
    fn a_ticket_is_one_word_and_reads_back() {
        let word = ticket().to_string();
        assert!(word.starts_with("farm1") && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_eq!(word.parse(), Ok(ticket()));
        assert_eq!(format!(" {word}\n").parse(), Ok(ticket()), "pasted with blanks");
    }

    #[test]
    fn any_wrong_character_is_noticed() {
        let word = ticket().to_string();
        for at in PREFIX.len()..word.len() {
            let other = if &word[at..=at] == "a" { "b" } else { "a" };
            let wrong = format!("{}{other}{}", &word[..at], &word[at + 1..]);
            assert_eq!(wrong.parse::<Ticket>(), Err(TicketError::Damaged), "at {at}");
        }
        assert_eq!(word[..word.len() - 1].parse::<Ticket>(), Err(TicketError::Damaged));
        assert_eq!("barn1abc".parse::<Ticket>(), Err(TicketError::Prefix));
    }

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(to_base32(bytes.as_bytes()), text);
            assert_eq!(from_base32(text).as_deref(), Some(bytes.as_bytes()));
        }
    }
}
