//! Gossip and DHT hints as they pass through the driver: to the validator, to the inbox, out of the store.

use super::driver::Driver;
use super::gossip::validator::{Judgement, Whisper};
use super::{dht, gossip, identity};
use libp2p::core::Endpoint;
use libp2p::gossipsub::{self, MessageAcceptance, MessageId};
use libp2p::kad::store::RecordStore as _;
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
use libp2p::{PeerId, kad};
use protocol::id::BuildKey;
use protocol::signed::Kind;
use protocol::wire::Control;
use tokio::time::Instant;

impl Driver {
    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let kinds = [Kind::CapabilityNews, Kind::RequestNews];
                let is_topic = |kind: &Kind| gossip::topic(self.farm, *kind).is_some_and(|t| t.hash() == message.topic);
                let Some(kind) = kinds.into_iter().find(is_topic) else {
                    return self.report(&message_id, &propagation_source, MessageAcceptance::Reject);
                };
                let whisper = Whisper { id: message_id, from: propagation_source, kind, data: message.data };
                if let Err(error) = self.whispers.try_send(whisper) {
                    let Whisper { id, from, .. } = error.into_inner();
                    tracing::debug!(%from, "a whisper was not judged: too many at once");
                    self.report(&id, &from, MessageAcceptance::Ignore);
                }
            }
            gossipsub::Event::Subscribed { .. } => {
                if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
                    self.unsaid.say_again(gossip, Instant::now());
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "gossip does not get through to a peer in time");
            }
            _ => {}
        }
    }

    /// The validator has judged: forward or not, and tell the rooms above.
    pub(super) fn on_judgement(&mut self, judgement: Judgement) {
        self.report(&judgement.id, &judgement.from, judgement.acceptance);
        if let Some(news) = judgement.news
            && self.outlet.news.try_send(news).is_err()
        {
            tracing::debug!("news were lost: nobody reads them in time");
        }
    }

    fn report(&mut self, id: &MessageId, from: &PeerId, acceptance: MessageAcceptance) {
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
            && !gossip.report_message_validation_result(id, from, acceptance)
        {
            tracing::debug!(%id, "a whisper left the cache before it was judged");
        }
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        let found = self.records.on_event(&mut self.swarm.behaviour_mut().kad, event, Instant::now());
        for peer in found {
            // The DHT knows a provider's addresses only while the search runs: keep them, for it will be called next.
            let kad = &mut self.swarm.behaviour_mut().kad;
            let known = kad.handle_pending_outbound_connection(
                ConnectionId::new_unchecked(0),
                Some(peer),
                &[],
                Endpoint::Dialer,
            );
            if let (Ok(addresses), Some(key)) = (known, identity::peer_key(&peer)) {
                let credible = self.credible(addresses);
                self.learn(key, credible);
            }
        }
    }

    /// Provides no more, and tells those that hold the record: by itself it would be believed for hours.
    pub(super) fn withdraw(&mut self, build_key: BuildKey) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        self.records.withdraw(kad, build_key);
        let target = kad::KBucketKey::new(dht::record_key(build_key));
        let closest: Vec<PeerId> = kad.get_closest_local_peers(&target).map(|key| *key.preimage()).collect();
        for peer in closest {
            let greeted =
                identity::peer_key(&peer).and_then(|key| self.peers.get(&key)).is_some_and(|p| p.is_greeted());
            if greeted {
                // A hint, like the record: nobody waits for the answer.
                self.swarm.behaviour_mut().control.send_request(&peer, Control::Evicted { build_key });
            }
        }
    }

    /// A peer says that it holds the build no more.
    pub(super) fn strike_provider(&mut self, build_key: BuildKey, peer: &PeerId) {
        self.swarm.behaviour_mut().kad.store_mut().remove_provider(&dht::record_key(build_key), peer);
    }
}
