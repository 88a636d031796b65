//! Gossip across a line of three nodes: what is honest arrives, what is not stops at the first neighbour.

use super::*;
use crate::network::behaviour::{Calls, protocol_name};
use crate::network::config::Gossip;
use crate::network::gossip::{self as room, topic};
use crate::network::{News, identity, transport};
use futures::StreamExt as _;
use libp2p::gossipsub;
use libp2p::request_response::ProtocolSupport;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use protocol::gossip::RequestNews;
use protocol::id::BuildKey;
use protocol::signed::{Kind, Signed};
use protocol::wire::{Answer, Control};
use tokio::sync::mpsc;

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

/// A member of the farm that judges nothing: it publishes what it is told and hears whatever is forwarded.
struct Gullible {
    swarm: Swarm<Bare>,
}

#[derive(NetworkBehaviour)]
struct Bare {
    gossip: room::Behaviour,
    control: Calls<Control, Answer>,
}

impl Gullible {
    async fn meet(seed: u8, node: &Node) -> Self {
        let pair = identity::keypair(&secret(seed));
        let transport = transport::build(&pair, Transports::Tcp).unwrap();
        let control = [(protocol_name(farm(), "control/1").unwrap(), ProtocolSupport::Full)];
        let bare = Bare { gossip: room::behaviour(farm()).unwrap(), control: Calls::new(control, Default::default()) };
        let settings = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(PATIENCE);
        let mut swarm = Swarm::new(transport, bare, pair.public().to_peer_id(), settings);
        swarm.dial(node.contact().await.addresses[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        swarm.behaviour_mut().control.send_request(&identity::peer_id(&node.key()), Control::Hello(hello()));
        soon(async {
            let (mut greeted, mut topics) = (false, 0);
            while !greeted || topics < 2 {
                match swarm.select_next_some().await {
                    SwarmEvent::Behaviour(BareEvent::Gossip(gossipsub::Event::Subscribed { .. })) => topics += 1,
                    SwarmEvent::Behaviour(BareEvent::Control(_)) => greeted = true,
                    _ => {}
                }
            }
        })
        .await;
        Self { swarm }
    }

    fn publish(&mut self, (kind, bytes): (Kind, Vec<u8>)) {
        self.swarm.behaviour_mut().gossip.publish(topic(farm(), kind).unwrap(), bytes).unwrap();
    }

    /// Goes on in the background; what it hears comes through the channel.
    fn listen(mut self) -> mpsc::Receiver<Vec<u8>> {
        let (heard, hearing) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::Behaviour(BareEvent::Gossip(gossipsub::Event::Message { message, .. })) = event {
                    heard.try_send(message.data).unwrap();
                }
            }
        });
        hearing
    }
}

#[tokio::test]
async fn what_is_not_honest_goes_no_further_than_its_first_hearer() {
    let two = Node::daemon(2);
    let mut hearing = Gullible::meet(3, &two).await.listen();
    let author = secret(1);
    let request = |news: RequestNews| (Kind::RequestNews, protocol::codec::encode(&signed(&news, &author)));
    let heard_before = request(decided(1, now()));
    let mut honest = Gullible::meet(10, &two).await;
    honest.publish(heard_before.clone());
    let _honest = honest.listen();
    assert_eq!(soon(hearing.recv()).await.unwrap(), heard_before.1);

    let forged = Signed { key: secret(4).public(), ..signed(&decided(2, now()), &author) };
    let foreign = Signed::new(&decided(3, now()), FarmId(Digest::of(b"other")), &author);
    let mut oversize = request(decided(4, now()));
    oversize.1.resize(protocol::gossip::MAX_GOSSIP_BYTES + 1, 0);
    // The same word in other bytes is another message to the library, but nothing new.
    let mut padded = request(decided(1, now()));
    padded.1.push(0);
    let lies = [
        ("forged", (Kind::RequestNews, protocol::codec::encode(&forged))),
        ("of another farm", (Kind::RequestNews, protocol::codec::encode(&foreign))),
        ("oversize", oversize),
        ("padded", padded),
        ("noise", (Kind::RequestNews, b"noise".to_vec())),
        ("on the wrong topic", (Kind::CapabilityNews, request(decided(5, now())).1)),
        ("stale", request(decided(6, now() - Duration::from_secs(301)))),
        ("from the future", request(decided(7, now() + Duration::from_secs(400)))),
        ("replayed", heard_before),
    ];
    for (n, (name, lie)) in (11..).zip(lies) {
        let mut liar = Gullible::meet(n, &two).await;
        // What comes after the lie on the same connection is judged after it.
        let true_word = request(decided(u64::from(n), now()));
        liar.publish(lie);
        liar.publish(true_word.clone());
        let _liar = liar.listen();
        assert_eq!(soon(hearing.recv()).await.unwrap(), true_word.1, "{name}");
    }
    assert!(hearing.try_recv().is_err());
}

#[tokio::test]
async fn who_leaves_without_a_fault_is_not_remembered() {
    for is_welcome in [true, false] {
        let node = Node::daemon(2);
        let (mut met, peer) = (Gullible::meet(3, &node).await, identity::peer_id(&node.key()));
        let gossip = &mut met.swarm.behaviour_mut().gossip;
        if is_welcome {
            room::welcome(gossip, &peer);
        }
        drop(node);
        soon(async { while !matches!(met.swarm.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {} })
            .await;
        // A score can be set for whoever is remembered.
        let is_remembered = met.swarm.behaviour_mut().gossip.set_application_score(&peer, 0.0);
        assert_eq!(is_remembered, !is_welcome);
    }
}

#[tokio::test]
async fn a_node_without_gossip_hears_nothing_and_stays() {
    let daemon = Node::daemon(1);
    let quiet = Node::start(NetworkConfig { gossip: Gossip::Off, ..config(2, Transports::Tcp) });
    quiet.meet(&daemon).await;
    quiet.network.whisper(signed(&decided(1, now()), &secret(2))).await.unwrap();
    assert_eq!(quiet.network.peers().await.unwrap().len(), 1);
}
