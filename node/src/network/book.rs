//! The address book: where peers were said to be.

use super::address;
use libp2p::Multiaddr;
use protocol::id::PeerKey;
use protocol::ticket::{Contact, MAX_ADDRESSES};
use std::collections::{HashMap, VecDeque};

/// Peers remembered; the one learned of first is forgotten for a new one.
const MAX_PEERS: usize = 16_384;

/// Addresses by peer, at most [`MAX_ADDRESSES`] each, the latest heard first.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    addresses: HashMap<PeerKey, Vec<Multiaddr>>,
    order: VecDeque<PeerKey>,
}

impl AddressBook {
    /// Remembers what somebody we trust said: filtered for form only.
    pub(super) fn learn_contact(&mut self, contact: &Contact) {
        let addresses = contact.addresses.iter().filter_map(|text| {
            address::parse(text).inspect_err(|error| tracing::debug!(%error, "a contact's address is of no use")).ok()
        });
        self.learn(contact.key, addresses.collect());
    }

    /// Remembers addresses, before those known already.
    pub(super) fn learn(&mut self, peer: PeerKey, mut addresses: Vec<Multiaddr>) {
        if addresses.is_empty() {
            return;
        }
        if !self.addresses.contains_key(&peer) {
            self.order.push_back(peer);
            if self.order.len() > MAX_PEERS
                && let Some(oldest) = self.order.pop_front()
            {
                self.addresses.remove(&oldest);
            }
        }
        let known = self.addresses.entry(peer).or_default();
        known.retain(|address| !addresses.contains(address));
        addresses.append(known);
        addresses.truncate(MAX_ADDRESSES);
        *known = addresses;
    }

    /// Remembers where a peer itself says it is, and forgets what it has left: a port it had before, unless it answers there.
    pub(super) fn heard_from(&mut self, peer: PeerKey, addresses: Vec<Multiaddr>, answered: &[Multiaddr]) {
        if let Some(known) = self.addresses.get_mut(&peer) {
            let is_left = |old: &Multiaddr| addresses.iter().any(|new| address::is_same_but_for_port(new, old));
            known.retain(|old| answered.contains(old) || !is_left(old));
        }
        self.learn(peer, addresses);
    }

    /// Where the peer may be.
    pub(super) fn of(&self, peer: &PeerKey) -> &[Multiaddr] {
        self.addresses.get(peer).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(port: u16) -> Multiaddr {
        format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap()
    }

    #[test]
    fn the_latest_addresses_come_first_and_their_number_is_bounded() {
        let mut book = AddressBook::default();
        let peer = PeerKey::from_bytes([1; 32]);
        (0..20).for_each(|port| book.learn(peer, vec![at(port)]));
        book.learn(peer, vec![at(15)]);
        assert_eq!(book.of(&peer), [15, 19, 18, 17, 16, 14, 13, 12].map(at));
    }

    #[test]
    fn who_moves_is_looked_for_where_it_says_it_is_and_where_others_said() {
        let mut book = AddressBook::default();
        let peer = PeerKey::from_bytes([1; 32]);
        let elsewhere: Multiaddr = "/dns/farm.example.org/tcp/1".parse().unwrap();
        book.learn(peer, vec![elsewhere.clone()]);
        book.heard_from(peer, vec![at(1), at(2)], &[]);
        book.heard_from(peer, vec![at(5)], &[at(1)]);
        assert_eq!(book.of(&peer), [at(5), at(1), elsewhere.clone()], "it answers at one that it does not name");
        book.heard_from(peer, vec![at(3)], &[]);
        assert_eq!(book.of(&peer), [at(3), elsewhere.clone()]);
        book.heard_from(peer, vec![], &[]);
        book.learn(peer, vec![at(4)]);
        assert_eq!(book.of(&peer), [at(4), at(3), elsewhere], "what others say may be newer, or older");
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = AddressBook::default();
        for n in 0..MAX_PEERS as u64 + 10 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            book.learn(PeerKey::from_bytes(key), vec![at(1)]);
        }
        assert_eq!(book.addresses.len(), MAX_PEERS);
        assert_eq!(book.of(&PeerKey::from_bytes([0; 32])), []);
    }
}
