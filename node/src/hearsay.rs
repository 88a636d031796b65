//! What gossip says of volunteers and requests: enough for `volunteers`, `status REQUEST` and explanations without a coordinator.
//!
//! Scheduling never looks here. News of a volunteer is dropped when its time is up, when the author says farewell, or when too
//! many authors are known: then the one heard longest ago goes first. That a request waits, or its build was judged, is
//! remembered for a day, with the time that it was heard: whoever is told so is told how old it is.

use crate::clock::Clock;
use protocol::farm::explain::{Presence, Sighting};
use protocol::gossip::{CapabilityNews, Leaving, RequestNews};
use protocol::id::{BuildKey, PeerKey, RequestId};
use protocol::time::{Span, Timestamp};
use protocol::wire::{HeardState, RequestRef, VolunteerView};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Authors that are remembered at most.
const MAX_AUTHORS: usize = 10_000;
/// Requests that are remembered at most.
const MAX_REQUESTS: usize = 10_000;
/// How long a request is remembered after it was heard of.
const REQUEST_TTL: Duration = Duration::from_secs(86_400);

/// The latest news of each volunteer and request. Clones share it.
#[derive(Clone, Debug)]
pub struct Hearsay {
    clock: Clock,
    heard: Arc<Mutex<BTreeMap<PeerKey, Heard>>>,
    requests: Arc<Mutex<BTreeMap<RequestId, Rumour>>>,
}

/// What was heard of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rumour {
    /// What it asks for.
    pub build_key: BuildKey,
    /// What it was said to do.
    pub state: HeardState,
    /// When that was heard.
    pub at: Timestamp,
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
        Self { clock, heard: Arc::default(), requests: Arc::default() }
    }

    /// Takes in what a coordinator has said of a request.
    pub fn hear_of_request(&self, news: &RequestNews) {
        let at = self.clock.now();
        let mut requests = self.requests();
        match news {
            RequestNews::Waiting { request, build_key, .. } => {
                let rumour = Rumour { build_key: *build_key, state: HeardState::Waiting, at };
                requests.insert(*request, rumour);
                if requests.len() > MAX_REQUESTS {
                    let oldest = requests.iter().min_by_key(|(_, rumour)| rumour.at).map(|(request, _)| *request);
                    oldest.map(|request| requests.remove(&request));
                }
            }
            RequestNews::Decided { build_key, .. } => {
                for rumour in requests.values_mut().filter(|rumour| rumour.build_key == *build_key) {
                    (rumour.state, rumour.at) = (HeardState::Judged, at);
                }
            }
        }
    }

    /// What was heard of a request, if exactly one of this name was heard of.
    #[must_use]
    pub fn request(&self, named: &RequestRef) -> Option<(RequestId, Rumour)> {
        let now = self.clock.now();
        let mut requests = self.requests();
        requests.retain(|_, rumour| now.since(rumour.at) <= REQUEST_TTL);
        match named {
            RequestRef::Id(id) => requests.get(id).map(|rumour| (*id, *rumour)),
            RequestRef::Prefix(prefix) => {
                let mut found = requests.iter().filter(|(id, _)| id.to_string().starts_with(prefix.as_str()));
                match (found.next(), found.next()) {
                    (Some((id, rumour)), None) => Some((*id, *rumour)),
                    _ => None,
                }
            }
        }
    }

    /// How long ago something was heard.
    #[must_use]
    pub fn age(&self, at: Timestamp) -> Span {
        Span::from(self.clock.now().since(at))
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

    fn requests(&self) -> std::sync::MutexGuard<'_, BTreeMap<RequestId, Rumour>> {
        // Insert, remove and retain leave the map whole.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn presence(news: &CapabilityNews) -> Presence {
    if news.busy >= news.capability.slots { Presence::Busy } else { Presence::Free }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;
    use protocol::id::RequirementId;
    use protocol::platform::{Acceptance, Capability};

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
    async fn a_request_is_remembered_with_its_age_for_a_day() {
        let hearsay = Hearsay::new(Clock::set_to(Timestamp::from_millis(0)));
        let (request, build_key) = (RequestId(Digest::of(b"request")), BuildKey(Digest::of(b"key")));
        let issued_at = Timestamp::from_millis(0);
        let waiting = RequestNews::Waiting {
            request,
            build_key,
            requirement: RequirementId(Digest::of(b"requirement")),
            origin: PeerKey::from_bytes([1; 32]),
            issued_at,
            ttl: Span::from_secs(300),
        };
        hearsay.hear_of_request(&waiting);
        tokio::time::advance(Duration::from_secs(600)).await;
        let prefix = RequestRef::Prefix(request.short());
        let seen =
            |named: &RequestRef| hearsay.request(named).map(|(id, rumour)| (id, rumour.state, hearsay.age(rumour.at)));
        assert_eq!(seen(&prefix), Some((request, HeardState::Waiting, Span::from_secs(600))));
        hearsay.hear_of_request(&RequestNews::Decided { build_key, issued_at });
        assert_eq!(seen(&RequestRef::Id(request)), Some((request, HeardState::Judged, Span::from_secs(0))));
        tokio::time::advance(REQUEST_TTL + Duration::from_secs(1)).await;
        assert_eq!(seen(&prefix), None);
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
