//! Gossip across a line of three nodes: what is honest arrives, what is not stops at the first neighbour.

use super::*;
use crate::network::config::Gossip;
use crate::network::gossip::{self as room, topic};
use crate::network::{News, identity, transport};
use futures::StreamExt as _;
use libp2p::gossipsub::{self, PublishError};
use libp2p::swarm::{Swarm, SwarmEvent};
use protocol::gossip::RequestNews;
use protocol::id::BuildKey;
use protocol::signed::{Kind, Signed};

fn now() -> Timestamp {
    room::validator::wall_clock()
}

fn decided(n: u64, issued_at: Timestamp) -> RequestNews {
    RequestNews::Decided { build_key: BuildKey(Digest::of(&n.to_be_bytes())), issued_at }
}

fn signed(news: &RequestNews, by: &SecretKey) -> Signed {
    Signed::new(news, farm(), by)
}

async fn heard(node: &mut Node) -> RequestNews {
    match soon(node.inbox.news.recv()).await.unwrap() {
        News::Request { news, .. } => news,
        other @ News::Capability { .. } => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_whisper_crosses_the_farm_and_waits_for_listeners() {
    let (one, two, mut three) = (Node::daemon(1), Node::daemon(2), Node::daemon(3));
    let (early, late) = (decided(1, now()), decided(2, now()));
    one.network.whisper(signed(&early, &secret(1))).await.unwrap();
    three.meet(&two).await;
    one.meet(&two).await;
    assert_eq!(heard(&mut three).await, early, "said before anybody listened");
    one.network.whisper(signed(&late, &secret(1))).await.unwrap();
    assert_eq!(heard(&mut three).await, late);
}

/// A peer that publishes whatever it is told.
struct Liar {
    swarm: Swarm<room::Behaviour>,
}

impl Liar {
    fn new(seed: u8) -> Self {
        let pair = identity::keypair(&secret(seed));
        let transport = transport::build(&pair, Transports::Tcp).unwrap();
        let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let swarm = Swarm::new(transport, room::behaviour(farm()).unwrap(), pair.public().to_peer_id(), settings);
        Self { swarm }
    }

    async fn meet(&mut self, node: &Node) {
        let address = node.contact().await.addresses[0].parse::<libp2p::Multiaddr>().unwrap();
        self.swarm.dial(address).unwrap();
        soon(async {
            let topics = [Kind::CapabilityNews, Kind::RequestNews];
            let mut listening = 0;
            while listening < topics.len() {
                if let SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. }) = self.swarm.select_next_some().await
                {
                    listening += 1;
                }
            }
        })
        .await;
    }

    fn publish(&mut self, kind: Kind, bytes: Vec<u8>) {
        match self.swarm.behaviour_mut().publish(topic(farm(), kind).unwrap(), bytes) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn run(mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                self.swarm.select_next_some().await;
            }
        })
    }
}

#[tokio::test]
async fn what_is_not_honest_goes_no_further_than_its_first_hearer() {
    let (two, mut three) = (Node::daemon(2), Node::daemon(3));
    three.meet(&two).await;
    let mut liar = Liar::new(9);
    liar.meet(&two).await;

    let author = secret(1);
    let honest = signed(&decided(1, now()), &author);
    let kind = Kind::RequestNews;
    let encode = |signed: &Signed| protocol::codec::encode(signed);

    let mut forged = signed(&decided(2, now()), &author);
    forged.key = secret(4).public();
    let stale = signed(&decided(3, now() - Duration::from_secs(301)), &author);
    let early = signed(&decided(4, now() + Duration::from_secs(400)), &author);
    let foreign = Signed::new(&decided(5, now()), FarmId(Digest::of(b"other")), &author);
    // The same word in another envelope: other bytes, so another message, but nothing new.
    let mut trailing = encode(&honest);
    trailing.push(0);
    let mut oversize = encode(&signed(&decided(6, now()), &author));
    oversize.resize(protocol::gossip::MAX_GOSSIP_BYTES + 1, 0);

    liar.publish(kind, encode(&honest));
    for signed in [&forged, &stale, &early, &foreign, &honest] {
        liar.publish(kind, encode(signed));
    }
    liar.publish(kind, trailing);
    liar.publish(kind, oversize);
    liar.publish(kind, b"noise".to_vec());
    liar.publish(Kind::CapabilityNews, encode(&signed(&decided(7, now()), &author)));
    let last = decided(8, now());
    liar.publish(kind, encode(&signed(&last, &author)));
    let _liar = liar.run();

    assert_eq!(heard(&mut three).await, decided_of(&honest));
    assert_eq!(heard(&mut three).await, last, "whatever came between went no further");
    assert!(three.inbox.news.try_recv().is_err());
}

fn decided_of(signed: &Signed) -> RequestNews {
    signed.payload_unchecked().unwrap()
}

#[tokio::test]
async fn a_node_without_gossip_hears_nothing_and_stays() {
    let daemon = Node::daemon(1);
    let quiet = Node::start(NetworkConfig { gossip: Gossip::Off, ..config(2, Transports::Tcp) });
    quiet.meet(&daemon).await;
    quiet.network.whisper(signed(&decided(1, now()), &secret(2))).await.unwrap();
    assert_eq!(quiet.network.peers().await.unwrap().len(), 1);
}
