//! What gossip says of the volunteers: enough for `volunteers`, `status` and explanations on any peer, and nothing more.
//!
//! Scheduling never looks here. News is dropped when its time is up, when the author says farewell, or when too many authors
//! are known: then the one heard longest ago goes first.

use crate::clock::Clock;
use protocol::farm::explain::{Presence, Sighting};
use protocol::gossip::{CapabilityNews, Leaving};
use protocol::id::PeerKey;
use protocol::time::{Span, Timestamp};
use protocol::wire::VolunteerView;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Authors that are remembered at most.
const MAX_AUTHORS: usize = 10_000;

/// The latest news of each volunteer. Clones share it.
#[derive(Clone, Debug)]
pub struct Hearsay {
    clock: Clock,
    heard: Arc<Mutex<BTreeMap<PeerKey, Heard>>>,
}

#[derive(Clone, Debug)]
struct Heard {
    at: Timestamp,
    news: CapabilityNews,
}

impl Hearsay {
    /// Nothing heard yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, heard: Arc::default() }
    }

    /// Takes in news that the network found valid.
    pub fn hear(&self, author: PeerKey, news: CapabilityNews) {
        let now = self.clock.now();
        let mut heard = self.locked();
        if heard.get(&author).is_some_and(|old| old.news.issued_at >= news.issued_at) {
            return;
        }
        if news.leaving == Leaving::Yes {
            heard.remove(&author);
            return;
        }
        heard.insert(author, Heard { at: now, news });
        if heard.len() > MAX_AUTHORS {
            let oldest = heard.iter().min_by_key(|(_, heard)| heard.at).map(|(author, _)| *author);
            oldest.map(|author| heard.remove(&author));
        }
    }

    /// Every volunteer whose news still counts, in the order of their keys.
    #[must_use]
    pub fn volunteers(&self) -> Vec<VolunteerView> {
        let now = self.clock.now();
        let mut heard = self.locked();
        heard.retain(|_, heard| now.since(heard.at) <= heard.news.ttl.duration());
        heard
            .iter()
            .map(|(author, heard)| VolunteerView {
                volunteer: *author,
                capability: heard.news.capability.clone(),
                presence: presence(&heard.news),
                busy: heard.news.busy,
                heard: Span::from(now.since(heard.at)),
            })
            .collect()
    }

    /// The same as sightings, for explanations.
    #[must_use]
    pub fn sightings(&self) -> Vec<Sighting> {
        self.volunteers()
            .into_iter()
            .map(|view| Sighting { volunteer: view.volunteer, capability: view.capability, presence: view.presence })
            .collect()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerKey, Heard>> {
        // Insert, remove and retain leave the map whole.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn presence(news: &CapabilityNews) -> Presence {
    if news.busy >= news.capability.slots { Presence::Busy } else { Presence::Free }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::platform::{Acceptance, Capability};
    use std::time::Duration;

    fn news(issued_ms: u64, busy: u16, leaving: Leaving) -> CapabilityNews {
        CapabilityNews {
            capability: Capability { facts: BTreeMap::new(), accepts: Acceptance::Any, slots: 1 },
            busy,
            issued_at: Timestamp::from_millis(issued_ms),
            ttl: Span::from_secs(60),
            leaving,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_news_counts_until_its_time_is_up() {
        let hearsay = Hearsay::new(Clock::set_to(Timestamp::from_millis(0)));
        let author = PeerKey::from_bytes([1; 32]);
        hearsay.hear(author, news(2, 1, Leaving::No));
        hearsay.hear(author, news(1, 0, Leaving::No));
        assert_eq!(
            hearsay.sightings().first().map(|seen| seen.presence),
            Some(Presence::Busy),
            "older news is no news"
        );
        hearsay.hear(author, news(3, 0, Leaving::No));
        assert_eq!(hearsay.sightings().first().map(|seen| seen.presence), Some(Presence::Free));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(hearsay.volunteers().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_farewell_is_believed() {
        let hearsay = Hearsay::new(Clock::set_to(Timestamp::from_millis(0)));
        let author = PeerKey::from_bytes([1; 32]);
        hearsay.hear(author, news(1, 0, Leaving::No));
        hearsay.hear(author, news(2, 0, Leaving::Yes));
        assert!(hearsay.volunteers().is_empty());
    }
}
