//! Peers that could not be dialled: no stream is tried to them for a while, so that whoever is said to provide and is gone costs
//! one dial, not one for every fetch.
//!
//! It is forgotten as soon as there is a reason to hope: the peer connects, or another address of it becomes known. Calls are
//! not held back by it: whoever calls has nobody else to ask.

use protocol::id::PeerKey;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long a peer is left alone.
const FOR: Duration = Duration::from_secs(60);
/// Peers remembered; the one that failed first is forgotten for a new one.
const MAX_PEERS: usize = 1_024;

/// Peers, and why each was not reached.
#[derive(Debug, Default)]
pub(super) struct Unreached {
    failed: HashMap<PeerKey, (Instant, String)>,
    order: VecDeque<(Instant, PeerKey)>,
}

impl Unreached {
    /// A dial at every known address failed.
    pub(super) fn remember(&mut self, peer: PeerKey, reason: String, now: Instant) {
        self.failed.insert(peer, (now, reason));
        self.order.push_back((now, peer));
        while let Some((at, peer)) = self.order.front().copied() {
            if self.order.len() <= MAX_PEERS && now - at < FOR {
                break;
            }
            self.order.pop_front();
            // It may have failed again since.
            if self.failed.get(&peer).is_some_and(|(last, _)| *last == at) {
                self.failed.remove(&peer);
            }
        }
    }

    /// There is hope again.
    pub(super) fn forget(&mut self, peer: &PeerKey) {
        self.failed.remove(peer);
    }

    /// Why the peer is not worth another dial now.
    pub(super) fn reason(&self, peer: &PeerKey, now: Instant) -> Option<&str> {
        let (at, reason) = self.failed.get(peer)?;
        (now - *at < FOR).then_some(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(nr: usize) -> PeerKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&nr.to_be_bytes());
        PeerKey::from_bytes(key)
    }

    #[test]
    fn a_failure_is_remembered_for_a_while_or_until_there_is_hope() {
        let (mut unreached, now) = (Unreached::default(), Instant::now());
        assert_eq!(unreached.reason(&peer(1), now), None);
        unreached.remember(peer(1), "refused".to_owned(), now);
        unreached.remember(peer(2), "no route".to_owned(), now);
        assert_eq!(unreached.reason(&peer(1), now + FOR / 2), Some("refused"));
        assert_eq!(unreached.reason(&peer(1), now + FOR), None);
        unreached.forget(&peer(2));
        assert_eq!(unreached.reason(&peer(2), now), None);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_second_failure_counts() {
        let (mut unreached, now) = (Unreached::default(), Instant::now());
        (0..MAX_PEERS + 3).for_each(|nr| unreached.remember(peer(nr), String::new(), now));
        assert_eq!((unreached.failed.len(), unreached.order.len()), (MAX_PEERS, MAX_PEERS));
        let later = now + FOR / 2;
        unreached.remember(peer(9), "again".to_owned(), later);
        unreached.remember(peer(0), String::new(), now + FOR);
        assert_eq!(unreached.reason(&peer(9), now + FOR), Some("again"));
        assert_eq!(unreached.failed.len(), 2);
    }
}
