//! Peers of other farms, met on the same network: left alone for a while so that neither side keeps dialling.

use libp2p::PeerId;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How long a stranger is left alone.
const AVOIDED_FOR: Duration = Duration::from_secs(3_600);
/// Strangers remembered.
const MAX_STRANGERS: usize = 1_024;

/// Strangers and when they may be met again.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    until: HashMap<PeerId, Instant>,
    order: VecDeque<PeerId>,
}

impl Strangers {
    /// Leaves a peer alone; whether it was not avoided already.
    pub(super) fn avoid(&mut self, peer: PeerId, now: Instant) -> bool {
        let new = self.until.insert(peer, now + AVOIDED_FOR).is_none();
        if new {
            self.order.push_back(peer);
        }
        new
    }

    /// Whether a peer is left alone.
    pub(super) fn is_avoided(&self, peer: &PeerId) -> bool {
        self.until.contains_key(peer)
    }

    /// Those that may be met again.
    pub(super) fn forgive(&mut self, now: Instant) -> Vec<PeerId> {
        let mut forgiven = Vec::new();
        while let Some(peer) = self.order.front() {
            if self.order.len() <= MAX_STRANGERS && self.until.get(peer).is_some_and(|until| *until > now) {
                break;
            }
            self.until.remove(peer);
            forgiven.extend(self.order.pop_front());
        }
        forgiven
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_forgiven_in_time_and_bounded_in_number() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        let peer = PeerId::random();
        assert!(strangers.avoid(peer, now));
        assert!(!strangers.avoid(peer, now));
        assert_eq!(strangers.forgive(now), []);
        assert_eq!(strangers.forgive(now + AVOIDED_FOR), [peer]);
        for _ in 0..MAX_STRANGERS + 3 {
            strangers.avoid(PeerId::random(), now);
        }
        assert_eq!(strangers.forgive(now).len(), 3);
    }
}
