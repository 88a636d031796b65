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
    Theirs { peer: PeerKey, skew: Skew, others: usize },
    /// One of the two.
    OneOfBoth { peer: PeerKey, skew: Skew },
}

/// The clocks of the peers that are connected, and what was said of them.
#[derive(Debug, Default)]
struct Clocks {
    seen: BTreeMap<PeerKey, Option<Skew>>,
    told: BTreeMap<PeerKey, Odd>,
}

impl Clocks {
    /// A peer's clock was seen; what is to be said now that was not said before.
    fn see(&mut self, peer: PeerKey, ours: Timestamp, theirs: Timestamp) -> Vec<Odd> {
        if self.seen.len() >= MAX_PEERS && !self.seen.contains_key(&peer) {
            let first = self.seen.keys().next().copied();
            first.inspect(|first| self.forget(first));
        }
        self.seen.insert(peer, Skew::between(ours, theirs));
        let odd: BTreeMap<PeerKey, Odd> =
            self.seen.iter().filter_map(|(peer, skew)| Some((*peer, self.judge(*peer, (*skew)?)))).collect();
        let mut news: Vec<Odd> = Vec::new();
        for (peer, odd) in &odd {
            let is_known = self.told.get(peer).is_some_and(|told| told.is_like(odd));
            // That this machine's clock is off is one piece of news, however many peers say so.
            if !is_known && !news.iter().chain(self.told.values()).any(|told| told.is_ours() && odd.is_ours()) {
                news.push(*odd);
            }
        }
        self.told = odd;
        news
    }

    fn judge(&self, peer: PeerKey, skew: Skew) -> Odd {
        let others = || self.seen.iter().filter(|(other, _)| **other != peer).map(|(_, skew)| skew);
        let with_us = others().filter(|other| other.is_none()).count();
        let against_us = others().filter(|other| other.is_some_and(|other| alike(other, skew))).count();
        if against_us > with_us {
            Odd::Ours { skew, peers: against_us + 1 }
        } else if with_us > against_us {
            Odd::Theirs { peer, skew, others: with_us }
        } else {
            Odd::OneOfBoth { peer, skew }
        }
    }

    fn forget(&mut self, peer: &PeerKey) {
        self.seen.remove(peer);
        self.told.remove(peer);
    }
}

impl Odd {
    const fn is_ours(&self) -> bool {
        matches!(self, Self::Ours { .. })
    }

    /// Whether both say that the same clock is off.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours { skew, peers } => {
                write!(f, "this machine's clock is {skew} those of {peers} peers, which agree with one another: set it")
            }
            Self::Theirs { peer, skew, others } => {
                let others =
                    if *others == 1 { "that of 1 other".to_owned() } else { format!("those of {others} others") };
                let skew = skew.seen_from_there();
                write!(f, "the clock of peer {} is {skew} this machine's and {others}", peer.short())
            }
            Self::OneOfBoth { peer, skew } => {
                write!(f, "this machine's clock is {skew} that of peer {}: one of the two is wrong", peer.short())
            }
        }
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
                for odd in clocks.see(peer, clock.now(), hello.clock) {
                    tracing::warn!("{odd}");
                }
            }
            Ok(PeerChange::Closed { peer }) => clocks.forget(&peer),
            // Whoever was missed greets again one day.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
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
        let both = Odd::OneOfBoth { peer: key(1), skew: ahead };
        assert_eq!(clocks.see(key(1), now, now - HOUR), [both], "nobody else is there");
        assert_eq!(clocks.see(key(1), now, now - HOUR), [], "that was said");
        // A third clock decides.
        let theirs = Odd::Theirs { peer: key(1), skew: ahead, others: 1 };
        assert_eq!(clocks.see(key(2), now, now + Duration::from_secs(299)), [theirs]);
        let said = format!("the clock of peer {} is 1 h behind this machine's and that of 1 other", key(1).short());
        assert_eq!(theirs.to_string(), said);
        // Two against two, then three.
        let both = |peer| Odd::OneOfBoth { peer, skew: ahead };
        assert_eq!(clocks.see(key(3), now, now - HOUR), [both(key(1)), both(key(3))]);
        let ours = Odd::Ours { skew: ahead, peers: 3 };
        assert_eq!(clocks.see(key(4), now, now - HOUR), [ours]);
        assert_eq!(clocks.see(key(5), now, now - HOUR), [], "once more says nothing new");
        let said = "this machine's clock is 1 h ahead of those of 3 peers, which agree with one another: set it";
        assert_eq!(ours.to_string(), said);
        clocks.forget(&key(2));
        let behind = Odd::OneOfBoth { peer: key(6), skew: Skew::Behind(HOUR) };
        assert_eq!(clocks.see(key(6), now, now + HOUR), [behind], "nobody agrees with it");
    }

    #[test]
    fn a_difference_is_told_to_the_minute() {
        assert_eq!(Skew::Ahead(HOUR - Duration::from_millis(20)).to_string(), "1 h ahead of");
        assert_eq!(Skew::Behind(HOUR + Duration::from_secs(360)).to_string(), "1 h 6 min behind");
        assert_eq!(Skew::Behind(HOUR * 25).seen_from_there().to_string(), "more than a day ahead of");
        assert_eq!(Skew::Ahead(Duration::from_secs(301)).to_string(), "5 min ahead of");
    }
}
