//! Gossip: two topics, two kinds of signed word.
//!
//! Messages are anonymous on the wire: the author is the key of our own envelope, whose signature the [`validator`] checks
//! once, after copies were dropped, and before anything is forwarded. The id of a message is the first 20 bytes of the digest
//! of topic and data, so the same word is the same message whoever passes it on. Only the farm's topics can be subscribed to.

pub(super) mod bucket;
pub(super) mod validator;

use super::config::StartError;
use libp2p::PeerId;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, MaxCountSubscriptionFilter, MessageAuthenticity, MessageId, PeerScoreParams,
    PeerScoreThresholds, PublishError, TopicHash, TopicScoreParams, ValidationMode, WhitelistSubscriptionFilter,
};
use protocol::digest::Hasher;
use protocol::gossip::MAX_GOSSIP_BYTES;
use protocol::id::FarmId;
use protocol::signed::{Kind, Signed};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The largest exchange of gossip between two peers: several messages and their bookkeeping.
const MAX_TRANSMIT_BYTES: usize = 16 << 10;
/// How long a message is recognised as a copy.
const COPIES: Duration = Duration::from_secs(300);
/// The score of a peer that has done nothing wrong: above nought, and less than any wrong takes.
const STANDING: f64 = 0.01;
/// Bytes of a message id.
const ID_BYTES: usize = 20;
/// Whispers that wait until somebody listens.
const MAX_UNSAID: usize = 64;
/// How long they wait: after this a receiver would find them stale.
const UNSAID_FOR: Duration = Duration::from_secs(240);

pub(super) type Behaviour =
    gossipsub::Behaviour<gossipsub::IdentityTransform, MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>>;

/// The topic on which words of this kind are whispered; `None` for words that are not.
pub(super) fn topic(farm: FarmId, kind: Kind) -> Option<IdentTopic> {
    let name = match kind {
        Kind::CapabilityNews => "capability",
        Kind::RequestNews => "request",
        _ => return None,
    };
    Some(IdentTopic::new(format!("/barnraise/{farm}/{name}/1")))
}

/// Gossipsub as this farm uses it, subscribed to its topics.
pub(super) fn behaviour(farm: FarmId) -> Result<Behaviour, StartError> {
    let setup = |error: String| StartError::Setup(error);
    let topics: Vec<_> =
        [Kind::CapabilityNews, Kind::RequestNews].iter().filter_map(|kind| topic(farm, *kind)).collect();
    let config = ConfigBuilder::default()
        .max_transmit_size(MAX_TRANSMIT_BYTES)
        .duplicate_cache_time(COPIES)
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(message_id)
        .build()
        .map_err(|error| setup(error.to_string()))?;
    let hashes: HashSet<TopicHash> = topics.iter().map(IdentTopic::hash).collect();
    let filter = MaxCountSubscriptionFilter {
        max_subscribed_topics: hashes.len(),
        max_subscriptions_per_request: 2 * hashes.len(),
        filter: WhitelistSubscriptionFilter(hashes),
    };
    let mut gossip = gossipsub::Behaviour::new_with_subscription_filter(MessageAuthenticity::Anonymous, config, filter)
        .map_err(|error| setup(error.to_owned()))?;
    gossip.with_peer_score(scoring(&topics), thresholds()).map_err(setup)?;
    for topic in &topics {
        gossip.subscribe(topic).map_err(|error| setup(error.to_string()))?;
    }
    Ok(gossip)
}

fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut hasher = Hasher::new();
    hasher.update(message.topic.as_str().as_bytes());
    hasher.update(&message.data);
    MessageId::from(&hasher.finish().as_bytes()[..ID_BYTES])
}

/// Only invalid messages and misuse of the protocol cost a peer its standing. The library's defaults also punish peers that
/// deliver little, which on topics as quiet as ours are all of them, and peers behind one address, which is any laboratory.
fn scoring(topics: &[IdentTopic]) -> PeerScoreParams {
    let topic = TopicScoreParams {
        topic_weight: 0.1,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -1_000.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(Duration::from_secs(3_600)),
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: topics.iter().map(|name| (name.hash(), topic.clone())).collect(),
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: gossipsub::score_parameter_decay(Duration::from_secs(3_600)),
        ..PeerScoreParams::default()
    }
}

/// Gives a peer that has just connected its standing. The library remembers for an hour whoever leaves with a score that is not
/// above nought, so that nobody sheds a bad one by coming again; each command is a peer of its own, and is to be forgotten. So is
/// misuse of the protocol that is too little to cost anything.
pub(super) fn welcome(gossip: &mut Behaviour, peer: &PeerId) {
    gossip.set_application_score(peer, STANDING);
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -500.0,
        publish_threshold: -1_000.0,
        graylist_threshold: -2_500.0,
        accept_px_threshold: 1_000.0,
        opportunistic_graft_threshold: 3.5,
    }
}

/// Whispers that found nobody listening yet.
#[derive(Debug, Default)]
pub(super) struct Unsaid(VecDeque<(Instant, IdentTopic, Vec<u8>)>);

impl Unsaid {
    /// Whispers a word, or keeps it until somebody listens.
    pub(super) fn whisper(&mut self, gossip: &mut Behaviour, farm: FarmId, word: &Signed, now: Instant) {
        let Some(topic) = topic(farm, word.kind) else {
            return tracing::warn!(kind = ?word.kind, "not a word for gossip");
        };
        let bytes = protocol::codec::encode(word);
        if bytes.len() > MAX_GOSSIP_BYTES {
            // Every neighbour would refuse it, and hold it against us.
            return tracing::warn!(kind = ?word.kind, bytes = bytes.len(), MAX_GOSSIP_BYTES, "too long for gossip");
        }
        self.say(gossip, topic, bytes, now + UNSAID_FOR);
    }

    /// Somebody listens now: says what was kept.
    pub(super) fn say_again(&mut self, gossip: &mut Behaviour, now: Instant) {
        for (until, topic, bytes) in std::mem::take(&mut self.0) {
            if until > now {
                self.say(gossip, topic, bytes, until);
            }
        }
    }

    fn say(&mut self, gossip: &mut Behaviour, topic: IdentTopic, bytes: Vec<u8>, until: Instant) {
        match gossip.publish(topic.clone(), bytes.clone()) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {
                if self.0.len() == MAX_UNSAID {
                    self.0.pop_front();
                }
                self.0.push_back((until, topic, bytes));
            }
            Err(error) => tracing::warn!(%error, "a whisper was not sent"),
        }
    }
}
