//! Whether this machine's clock agrees with those of its peers, by what they say in their greetings.
//!
//! A clock that is wrong does little harm here: deadlines run on the leader's stamps, and lengths of time on monotonic clocks.
//! But gossip that seems to come from the future or the past is not forwarded, and a person who compares dates is misled. So a
//! difference is told, with how much it is and, where enough peers can be compared, whose clock is off.

use crate::clock::Clock;
use crate::network::{Network, PeerChange};
use protocol::farm::stamp::AGREES_WITHIN;
use protocol::id::PeerKey;
use protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Peers whose clocks are compared at the same time.
const MAX_PEERS: usize = 1_024;

/// How this machine's clock differs from another, where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skew {
    /// It shows a later time.
    Ahead(Duration),
    /// It shows an earlier time.
    Behind(Duration),
}

impl Skew {
    /// The difference, unless the two agree as well as peers have to.
    #[must_use]
    pub fn between(ours: Timestamp, theirs: Timestamp) -> Option<Self> {
        let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
        if ahead > AGREES_WITHIN.duration() {
            Some(Self::Ahead(ahead))
        } else if behind > AGREES_WITHIN.duration() {
            Some(Self::Behind(behind))
        } else {
            None
        }
    }

    /// The same as whoever has the other clock would say it.
    #[must_use]
    pub const fn seen_from_there(self) -> Self {
        match self {
            Self::Ahead(by) => Self::Behind(by),
            Self::Behind(by) => Self::Ahead(by),
        }
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, word) = match self {
            Self::Ahead(by) => (by, "ahead of"),
            Self::Behind(by) => (by, "behind"),
        };
        // A greeting takes its time: parts of a minute say nothing.
        let minutes = (by.as_secs() + 30) / 60;
        match (minutes / 1_440, minutes / 60 % 24, minutes % 60) {
            (0, 0, minutes) => write!(f, "{minutes} min {word}"),
            (0, hours, 0) => write!(f, "{hours} h {word}"),
            (0, hours, minutes) => write!(f, "{hours} h {minutes} min {word}"),
            (1, ..) => write!(f, "more than a day {word}"),
            (days, ..) => write!(f, "{days} days {word}"),
        }
    }
}

/// Whose clock is off, as far as the peers that were compared can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    /// This machine's: so many peers agree with one another against it.
    Ours { skew: Skew, peers: usize },
    /// The peer's: so many others agree with this machine's.
    Theirs { skew: Skew, others: usize },
    /// One of the two.
    OneOfBoth { skew: Skew },
}

/// The clocks of the peers that are connected.
#[derive(Debug, Default)]
struct Clocks(BTreeMap<PeerKey, Option<Skew>>);

impl Clocks {
    /// A peer's clock was seen; what is to be said of it, if that is anything.
    fn see(&mut self, peer: PeerKey, ours: Timestamp, theirs: Timestamp) -> Option<Odd> {
        let skew = Skew::between(ours, theirs);
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(&peer) {
            self.0.pop_first();
        }
        self.0.insert(peer, skew);
        let skew = skew?;
        let others = || self.0.iter().filter(|(other, _)| **other != peer).map(|(_, skew)| skew);
        let with_us = others().filter(|other| other.is_none()).count();
        let against_us = others().filter(|other| other.is_some_and(|other| alike(other, skew))).count();
        Some(match (with_us, against_us) {
            (with_us, against_us) if against_us > with_us => Odd::Ours { skew, peers: against_us + 1 },
            (with_us, against_us) if with_us > against_us => Odd::Theirs { skew, others: with_us },
            _ => Odd::OneOfBoth { skew },
        })
    }

    fn forget(&mut self, peer: &PeerKey) {
        self.0.remove(peer);
    }
}

/// Whether two peers that differ from this machine agree with one another.
fn alike(one: Skew, other: Skew) -> bool {
    match (one, other) {
        (Skew::Ahead(one), Skew::Ahead(other)) | (Skew::Behind(one), Skew::Behind(other)) => {
            one.abs_diff(other) <= AGREES_WITHIN.duration()
        }
        (Skew::Ahead(_), Skew::Behind(_)) | (Skew::Behind(_), Skew::Ahead(_)) => false,
    }
}

/// Compares clocks with every peer that greets, and tells the owner, until `stop` is cancelled.
pub async fn compare(network: Network, clock: Clock, stop: CancellationToken) {
    let mut changes = network.changes();
    let mut clocks = Clocks::default();
    loop {
        let change = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            // Commands come and go, each with the clock of its person.
            Ok(PeerChange::Greeted { hello, .. }) if hello.addresses.is_empty() => {}
            Ok(PeerChange::Greeted { peer, hello }) => {
                if let Some(odd) = clocks.see(peer, clock.now(), hello.clock) {
                    tell(peer, odd);
                }
            }
            Ok(PeerChange::Closed { peer }) => clocks.forget(&peer),
            // Whoever was missed greets again one day.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell(peer: PeerKey, odd: Odd) {
    match odd {
        Odd::Ours { skew, peers } => {
            tracing::warn!(
                "this machine's clock is {skew} those of {peers} peers, which agree with one another: set it"
            );
        }
        Odd::Theirs { skew, others } => {
            let skew = skew.seen_from_there();
            tracing::warn!("the clock of peer {} is {skew} this machine's and those of {others} others", peer.short());
        }
        Odd::OneOfBoth { skew } => {
            tracing::warn!("this machine's clock is {skew} that of peer {}: one of the two is wrong", peer.short());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_one_that_stands_alone_is_off() {
        let now = Timestamp::EPOCH + HOUR * 24;
        let key = |at| PeerKey::from_bytes([at; 32]);
        let ahead = Skew::Ahead(HOUR);
        let mut clocks = Clocks::default();
        assert_eq!(clocks.see(key(1), now, now + Duration::from_secs(299)), None);
        assert_eq!(clocks.see(key(2), now, now - HOUR), Some(Odd::Theirs { skew: ahead, others: 1 }));
        assert_eq!(clocks.see(key(3), now, now - HOUR), Some(Odd::OneOfBoth { skew: ahead }), "two against two");
        assert_eq!(clocks.see(key(4), now, now - HOUR), Some(Odd::Ours { skew: ahead, peers: 3 }));
        clocks.forget(&key(1));
        let behind = Skew::Behind(HOUR);
        assert_eq!(clocks.see(key(5), now, now + HOUR), Some(Odd::OneOfBoth { skew: behind }), "nobody agrees with it");
        let mut alone = Clocks::default();
        assert_eq!(alone.see(key(1), now, now + HOUR), Some(Odd::OneOfBoth { skew: behind }));
    }

    #[test]
    fn a_difference_is_told_to_the_minute() {
        assert_eq!(Skew::Ahead(HOUR - Duration::from_millis(20)).to_string(), "1 h ahead of");
        assert_eq!(Skew::Behind(HOUR + Duration::from_secs(360)).to_string(), "1 h 6 min behind");
        assert_eq!(Skew::Behind(HOUR * 25).seen_from_there().to_string(), "more than a day ahead of");
        assert_eq!(Skew::Ahead(Duration::from_secs(301)).to_string(), "5 min ahead of");
    }
}
