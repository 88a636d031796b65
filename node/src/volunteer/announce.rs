//! What a volunteer whispers of itself: when it starts, when its load changes, every ten minutes, and a farewell.

use super::running::Running;
use crate::chance::Chance;
use crate::clock::Clock;
use crate::network::Network;
use protocol::gossip::{CapabilityNews, Leaving, MAX_GOSSIP_BYTES};
use protocol::id::FarmId;
use protocol::platform::{Acceptance, Capability, Value};
use protocol::signed::{SecretKey, Signed};
use protocol::time::Span;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it whispers when nothing changes.
const EVERY: Duration = Duration::from_secs(600);
/// How often it looks whether its load changed; also the least time between two whispers.
const LOOK: Duration = Duration::from_secs(5);
/// How long others believe it: two whispers may be lost.
const TTL: Span = Span::from_secs(1_800);
/// Room for the envelope around the payload.
const ENVELOPE_BYTES: usize = 256;

/// Whispers for one volunteer.
#[derive(Debug)]
pub struct Announcer {
    /// The network.
    pub network: Network,
    /// The farm.
    pub farm: FarmId,
    /// Signs the news.
    pub secret: SecretKey,
    /// What the volunteer can do.
    pub capability: Capability,
    /// The leases it holds.
    pub running: Running,
    /// Time.
    pub clock: Clock,
    /// Jitter.
    pub chance: Chance,
}

impl Announcer {
    /// Whispers until `stop` is cancelled, then says farewell.
    pub async fn run(self, stop: CancellationToken) {
        let capability = whisperable(self.capability.clone());
        let mut told: Option<usize> = None;
        let mut next = tokio::time::Instant::now();
        loop {
            let busy = self.running.leases().len();
            if told != Some(busy) || tokio::time::Instant::now() >= next {
                self.whisper(&capability, busy, Leaving::No).await;
                told = Some(busy);
                next = tokio::time::Instant::now() + self.chance.around(EVERY);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.whisper(&capability, 0, Leaving::Yes).await;
    }

    async fn whisper(&self, capability: &Capability, busy: usize, leaving: Leaving) {
        let news = CapabilityNews {
            capability: capability.clone(),
            busy: u16::try_from(busy).unwrap_or(u16::MAX),
            issued_at: self.clock.now(),
            ttl: TTL,
            leaving,
        };
        // A closed network means that the node is ending.
        let _closed = self.network.whisper(Signed::new(&news, self.farm, &self.secret)).await;
    }
}

/// The capability as it fits into a whisper: without the list of recipes, and with as many tools as there is room for.
fn whisperable(mut capability: Capability) -> Capability {
    if !matches!(capability.accepts, Acceptance::Any) {
        capability.accepts = Acceptance::Catalogue(std::collections::BTreeSet::new());
    }
    let room = MAX_GOSSIP_BYTES - ENVELOPE_BYTES - 64;
    while protocol::codec::encode(&capability).len() > room {
        let Some(Value::Map(tools)) = capability.facts.get_mut("tool") else { break };
        let Some((left_out, _)) = tools.pop_last() else { break };
        tracing::debug!(tool = left_out, "no room for this tool in gossip");
    }
    capability
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_capability_is_cut_to_fit_a_whisper() {
        let tools =
            (0..100).filter_map(|n| Some((format!("tool-{n:03}"), Value::Version("12.2.0".parse().ok()?)))).collect();
        let capability = Capability {
            facts: BTreeMap::from([
                ("os".to_owned(), Value::Text("linux".to_owned())),
                ("tool".to_owned(), Value::Map(tools)),
            ]),
            accepts: Acceptance::Catalogue(std::collections::BTreeSet::new()),
            slots: 1,
        };
        let cut = whisperable(capability);
        assert!(cut.fact("os").is_some() && cut.fact("tool.tool-000").is_some() && cut.fact("tool.tool-099").is_none());
        let news = CapabilityNews {
            capability: cut,
            busy: u16::MAX,
            issued_at: protocol::time::Timestamp::from_millis(u64::MAX),
            ttl: TTL,
            leaving: Leaving::Yes,
        };
        let secret = SecretKey::from_seed(&[1; 32]);
        let signed = Signed::new(&news, FarmId::of(&secret.public()), &secret);
        assert!(protocol::codec::encode(&signed).len() <= MAX_GOSSIP_BYTES);
    }
}
