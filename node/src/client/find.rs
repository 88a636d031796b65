//! Is it built already? The coordinators' index and the DHT are asked at once; the first answer that holds wins.
//!
//! A provider record is only a hint: whoever it names is asked for the verdict with its chain, and an answer whose chain does
//! not lead to the farm's key is passed over.

use super::session::Session;
use crate::network::Network;
use futures::StreamExt as _;
use protocol::id::{BuildKey, FarmId, PeerKey};
use protocol::report::{Verdict, Verified};
use protocol::ticket::Contact;
use protocol::wire::{Answer, Control};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the DHT is searched when no coordinator answers.
const SEARCH_WITHIN: Duration = Duration::from_secs(10);
/// How long a search for any of several builds may take.
const SEARCH_ANY_WITHIN: Duration = Duration::from_secs(30);
/// Builds searched for at the same time.
const SOUGHT_AT_ONCE: usize = 16;
/// Peers asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// A build whose verdict was checked, and who may have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The checked verdict.
    pub verified: Verified,
    /// Peers said to hold the artifact, likeliest first.
    pub holders: Vec<Contact>,
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// It is built.
    Found(Box<Found>),
    /// A coordinator answered that it is not.
    NotBuilt,
    /// No coordinator answered, and no peer that did knows it.
    NobodyKnows,
}

enum Said {
    Verdict(Box<Found>),
    CoordinatorSaysNo,
    Nothing,
}

impl Session {
    /// Looks for a finished build, whatever its artifact.
    pub async fn find(&self, key: BuildKey) -> Search {
        self.find_such(key, |_| true).await
    }

    /// The place of the first of these builds that is finished, as far as can be told within half a minute.
    pub async fn first_built(&self, keys: &[BuildKey]) -> Option<usize> {
        let seeking = futures::stream::iter(keys.iter().map(|key| self.find(*key))).buffered(SOUGHT_AT_ONCE);
        let first =
            seeking.enumerate().filter_map(async |(at, search)| matches!(search, Search::Found(_)).then_some(at));
        let mut first = std::pin::pin!(first);
        tokio::time::timeout(SEARCH_ANY_WITHIN, first.next()).await.ok()?
    }

    /// Looks for a finished build whose verdict `will_do`; others are passed over. A peer may still hold a verdict that a
    /// later one has replaced.
    pub async fn find_such(&self, key: BuildKey, will_do: impl Fn(&Verdict) -> bool) -> Search {
        let mut asking = JoinSet::new();
        let mut asked = BTreeSet::new();
        let connected = self.network.peers().await.unwrap_or_default();
        for peer in self.coordinators.in_order().into_iter().chain(connected.into_iter().map(|contact| contact.key)) {
            if asked.insert(peer) {
                asking.spawn(ask(self.network.clone(), self.farm, key, peer, self.coordinators.includes(&peer)));
            }
        }
        let mut providers = self.network.find_providers(key).await.ok();
        let until = tokio::time::Instant::now() + SEARCH_WITHIN;
        loop {
            let searching = providers.is_some() && asking.len() < ASKED_AT_ONCE;
            if asking.is_empty() && providers.is_none() {
                return Search::NobodyKnows;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return Search::NobodyKnows,
                said = asking.join_next(), if !asking.is_empty() => match said {
                    Some(Ok(Said::Verdict(found))) if will_do(&found.verified.verdict) => return Search::Found(found),
                    Some(Ok(Said::CoordinatorSaysNo)) => return Search::NotBuilt,
                    Some(Ok(Said::Verdict(_) | Said::Nothing) | Err(_)) | None => {}
                },
                provider = next(&mut providers), if searching => match provider {
                    Some(peer) => if asked.insert(peer) {
                        asking.spawn(ask(self.network.clone(), self.farm, key, peer, false));
                    },
                    None => providers = None,
                },
            }
        }
    }
}

async fn next(providers: &mut Option<tokio::sync::mpsc::Receiver<PeerKey>>) -> Option<PeerKey> {
    match providers {
        Some(providers) => providers.recv().await,
        None => None,
    }
}

async fn ask(network: Network, farm: FarmId, key: BuildKey, peer: PeerKey, leads: bool) -> Said {
    let answer = match network.call(peer, Control::Find(key)).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "cannot be asked");
            return Said::Nothing;
        }
    };
    let Answer::Found { judged, mut holders } = answer else { return Said::Nothing };
    let Some(judged) = judged else {
        return if leads { Said::CoordinatorSaysNo } else { Said::Nothing };
    };
    match judged.verify(farm, key) {
        Ok(verified) => {
            // Whoever has the verdict has the artifact, as a rule.
            if !holders.iter().any(|contact| contact.key == peer) {
                holders.insert(0, Contact { key: peer, addresses: Vec::new() });
            }
            Said::Verdict(Box::new(Found { verified, holders }))
        }
        Err(error) => {
            tracing::warn!(peer = %peer.short(), %error, "an answer that does not hold is passed over");
            Said::Nothing
        }
    }
}
