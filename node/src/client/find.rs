//! Is it built already? The coordinators' index and the DHT are asked at once; the first answer that holds wins.
//!
//! A provider record is only a hint: whoever it names is asked for the verdict with its chain, and an answer whose chain does
//! not lead to the farm's key is passed over.

use super::session::Session;
use crate::network::Network;
use protocol::id::{BuildKey, FarmId, ManifestId, PeerKey};
use protocol::report::Verified;
use protocol::ticket::Contact;
use protocol::wire::{Answer, Control};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long the DHT is searched when no coordinator answers.
const SEARCH_WITHIN: Duration = Duration::from_secs(10);
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

/// Whether a coordinator says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    Yes,
    No,
}

enum Said {
    Verdict(Box<Found>, Leads),
    CoordinatorSaysNo,
    Nothing,
}

impl Session {
    /// Looks for a finished build.
    pub async fn find(&self, key: BuildKey) -> Search {
        self.search(key, None).await
    }

    /// Looks for the build that a request ended with. A peer may still hold an earlier one of the same key: only a coordinator
    /// is believed about another artifact, because the farm may have judged anew since.
    pub async fn find_exactly(&self, key: BuildKey, manifest: ManifestId) -> Search {
        self.search(key, Some(manifest)).await
    }

    async fn search(&self, key: BuildKey, wanted: Option<ManifestId>) -> Search {
        let mut asking = JoinSet::new();
        let mut asked = BTreeSet::new();
        let connected = self.network.peers().await.unwrap_or_default();
        for peer in self.coordinators.in_order().into_iter().chain(connected.into_iter().map(|contact| contact.key)) {
            if asked.insert(peer) {
                let leads = if self.coordinators.includes(&peer) { Leads::Yes } else { Leads::No };
                asking.spawn(ask(self.network.clone(), self.farm, key, peer, leads));
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
                    Some(Ok(Said::Verdict(found, leads))) => {
                        let is_it = wanted.is_none_or(|wanted| found.verified.verdict.manifest == wanted);
                        if is_it || leads == Leads::Yes {
                            return Search::Found(found);
                        }
                    }
                    Some(Ok(Said::CoordinatorSaysNo)) => return Search::NotBuilt,
                    Some(Ok(Said::Nothing) | Err(_)) | None => {}
                },
                provider = next(&mut providers), if searching => match provider {
                    Some(peer) => if asked.insert(peer) {
                        asking.spawn(ask(self.network.clone(), self.farm, key, peer, Leads::No));
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

async fn ask(network: Network, farm: FarmId, key: BuildKey, peer: PeerKey, leads: Leads) -> Said {
    let answer = match network.call(peer, Control::Find(key)).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "cannot be asked");
            return Said::Nothing;
        }
    };
    let Answer::Found { judged, mut holders } = answer else { return Said::Nothing };
    let Some(judged) = judged else {
        return if leads == Leads::Yes { Said::CoordinatorSaysNo } else { Said::Nothing };
    };
    match judged.verify(farm, key) {
        Ok(verified) => {
            // Whoever has the verdict has the artifact, as a rule.
            if !holders.iter().any(|contact| contact.key == peer) {
                holders.insert(0, Contact { key: peer, addresses: Vec::new() });
            }
            Said::Verdict(Box::new(Found { verified, holders }), leads)
        }
        Err(error) => {
            tracing::warn!(peer = %peer.short(), %error, "an answer that does not hold is passed over");
            Said::Nothing
        }
    }
}
