//! Calls: between two nodes, to oneself, and those that are refused.

use super::*;
use crate::network::behaviour::protocol_name;
use crate::network::{CallError, Incoming, bulk, identity, transport};
use futures::StreamExt as _;
use libp2p::swarm::{Swarm, SwarmEvent};
use protocol::id::{LeaseId, RequestId};
use protocol::time::Span;
use protocol::wire::{Answer, Control, MAX_CONTROL_BYTES, Park, Refusal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn two_nodes_call_each_other_over_one_connection() {
    for transports in [Transports::Tcp, Transports::Quic, Transports::Both] {
        let (mut one, mut two) = (Node::start(config(1, transports)), Node::start(config(2, transports)));
        one.meet(&two).await;
        for (from, to) in [(0, 1), (1, 0)] {
            let nodes = [&mut one, &mut two];
            let caller_key = nodes[from].key();
            let callee = nodes[to].key();
            let network = nodes[from].network.clone();
            let call = tokio::spawn(async move { network.call(callee, Control::Heartbeat { pulses: vec![] }).await });
            let Incoming { caller, call: received, reply } = soon(nodes[to].inbox.control.recv()).await.unwrap();
            assert_eq!(caller.peer, caller_key);
            assert_eq!(received, Control::Heartbeat { pulses: vec![] });
            reply.send(Answer::Revoked(vec![LeaseId(7)])).unwrap();
            assert_eq!(soon(call).await.unwrap(), Ok(Answer::Revoked(vec![LeaseId(7)])), "{transports:?}");
        }
    }
}

#[tokio::test]
async fn a_call_connects_by_itself_when_an_address_is_known() {
    let mut daemon = Node::daemon(1);
    let client = Node::start(NetworkConfig { address_book: vec![daemon.contact().await], ..command(2) });
    let call = tokio::spawn({
        let (network, key) = (client.network.clone(), daemon.key());
        async move { network.call(key, Control::Farm).await }
    });
    soon(daemon.inbox.control.recv()).await.unwrap().reply.send(Answer::Done).unwrap();
    assert_eq!(soon(call).await.unwrap(), Ok(Answer::Done));
}

#[tokio::test]
async fn a_parked_call_waits_and_is_taken_back_when_the_caller_goes() {
    let mut daemon = Node::daemon(1);
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let park = Park::Watch { request: RequestId(Digest::of(b"r")), mark: 0, wait: Span::from_secs(50) };
    let waiting = tokio::spawn({
        let (network, key) = (client.network.clone(), daemon.key());
        async move { network.park(key, park).await }
    });
    let incoming = soon(daemon.inbox.park.recv()).await.unwrap();
    let second = soon(async {
        incoming.reply.send(Answer::Request(None)).unwrap();
        waiting.await.unwrap()
    })
    .await;
    assert_eq!(second, Ok(Answer::Request(None)));

    let park = Park::FollowLease { lease: LeaseId(1), offset: 0, wait: Span::from_secs(50) };
    let waiting = tokio::spawn({
        let (network, key) = (client.network.clone(), daemon.key());
        async move { network.park(key, park).await }
    });
    let mut incoming = soon(daemon.inbox.park.recv()).await.unwrap();
    client.network.shut_down().await;
    assert_eq!(soon(waiting).await.unwrap(), Err(CallError::Closed));
    soon(incoming.reply.closed()).await;
}

#[tokio::test]
async fn calls_to_oneself_go_through_the_same_handlers() {
    let mut node = Node::daemon(1);
    let own = node.key();
    let network = node.network.clone();
    let call = tokio::spawn(async move { network.call(own, Control::Farm).await });
    let incoming = soon(node.inbox.control.recv()).await.unwrap();
    assert_eq!(incoming.caller.peer, own);
    incoming.reply.send(Answer::Refused(Refusal::NotACoordinator)).unwrap();
    let refused = CallError::Refused { peer: own, refusal: Refusal::NotACoordinator };
    assert_eq!(soon(call).await.unwrap(), Err(refused));

    let network = node.network.clone();
    let raft = tokio::spawn(async move { network.raft(own, vec![1, 2]).await });
    let incoming = soon(node.inbox.raft.recv()).await.unwrap();
    incoming.reply.send(incoming.bytes.into_iter().rev().collect()).unwrap();
    assert_eq!(soon(raft).await.unwrap(), Ok(vec![2, 1]));

    let mut ours = node.network.open_bulk(own).await.unwrap();
    let mut theirs = soon(node.inbox.bulk.recv()).await.unwrap();
    assert_eq!(theirs.caller.peer, own);
    ours.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    soon(theirs.stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn a_busy_room_and_a_dropped_reply_are_refusals() {
    let mut daemon = Node::daemon(1);
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let busy = CallError::Refused { peer: daemon.key(), refusal: Refusal::Busy };
    let call = tokio::spawn({
        let (network, key) = (client.network.clone(), daemon.key());
        async move { network.call(key, Control::Farm).await }
    });
    drop(soon(daemon.inbox.control.recv()).await.unwrap());
    assert_eq!(soon(call).await.unwrap(), Err(busy));
    drop(daemon.inbox);
    let gone = CallError::Refused { peer: daemon.network.local(), refusal: Refusal::ShuttingDown };
    assert_eq!(soon(client.network.call(daemon.network.local(), Control::Farm)).await, Err(gone));
}

#[tokio::test]
async fn raft_is_for_coordinators_and_the_set_may_change() {
    let (named, names) = tokio::sync::watch::channel(std::collections::BTreeSet::new());
    let mut daemon = Node::start(NetworkConfig { coordinators: names, ..config(1, Transports::Tcp) });
    let other = Node::daemon(2);
    other.meet(&daemon).await;
    let refused = soon(other.network.raft(daemon.key(), vec![1])).await;
    assert!(matches!(refused, Err(CallError::Broken { .. })), "{refused:?}");
    assert!(daemon.inbox.raft.try_recv().is_err());

    named.send([other.key()].into()).unwrap();
    let call = tokio::spawn({
        let (network, key) = (other.network.clone(), daemon.key());
        async move { network.raft(key, vec![3]).await }
    });
    let incoming = soon(daemon.inbox.raft.recv()).await.unwrap();
    assert_eq!((incoming.caller.peer, &incoming.bytes[..]), (other.key(), &[3][..]));
    incoming.reply.send(vec![4]).unwrap();
    assert_eq!(soon(call).await.unwrap(), Ok(vec![4]));
}

#[tokio::test]
async fn an_oversize_call_is_not_sent() {
    let mut daemon = Node::daemon(1);
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let reason = "x".repeat(MAX_CONTROL_BYTES);
    let sent = soon(client.network.call(daemon.key(), Control::Refuse { lease: LeaseId(1), reason })).await;
    assert!(matches!(&sent, Err(CallError::Broken { reason, .. }) if reason.contains("at most 262144")), "{sent:?}");
    assert!(daemon.inbox.control.try_recv().is_err());
}

#[tokio::test]
async fn other_versions_are_told_and_left() {
    let daemon = Node::daemon(1);
    let other = Hello { protocol: PROTOCOL_VERSION + 1, ..hello() };
    let client = Node::start(NetworkConfig { hello: other, ..command(2) });
    let met = client.network.connect(daemon.contact().await, Keep::Once, PATIENCE).await;
    let version = Refusal::Version(PROTOCOL_VERSION);
    assert_eq!(met, Err(CallError::Refused { peer: daemon.key(), refusal: version }));
    assert_eq!(daemon.network.peers().await, Ok(vec![]));
}

#[tokio::test]
async fn other_farms_are_strangers() {
    let daemon = Node::daemon(1);
    let client = Node::start(NetworkConfig { farm: FarmId(Digest::of(b"other")), ..command(2) });
    let met = client.network.connect(daemon.contact().await, Keep::Once, PATIENCE).await;
    assert_eq!(met, Err(CallError::Refused { peer: daemon.key(), refusal: Refusal::OtherFarm }));
}

/// A peer that speaks one of our protocols by hand.
struct Raw {
    swarm: Swarm<bulk::Behaviour>,
}

impl Raw {
    async fn dial(seed: u8, protocol: &str, target: &Contact) -> (Self, bulk::Substream) {
        let pair = identity::keypair(&secret(seed));
        let transport = transport::build(&pair, Transports::Tcp).unwrap();
        let behaviour = bulk::Behaviour::new(protocol_name(farm(), protocol).unwrap(), 8);
        let settings = libp2p::swarm::Config::with_tokio_executor();
        let mut swarm = Swarm::new(transport, behaviour, pair.public().to_peer_id(), settings);
        swarm.dial(target.addresses[0].parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        let stream = soon(async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                        swarm.behaviour_mut().open(peer_id, connection_id);
                    }
                    SwarmEvent::Behaviour(bulk::Event::Opened { stream, .. }) => return stream,
                    SwarmEvent::Behaviour(event) => panic!("{event:?}"),
                    _ => {}
                }
            }
        })
        .await;
        (Self { swarm }, stream)
    }

    /// What the other side answers until it closes the stream.
    async fn hear(mut self, mut stream: bulk::Substream) -> Vec<u8> {
        let mut heard = Vec::new();
        let reading = async {
            // A reset is an end as good as any.
            let _reset = stream.read_to_end(&mut heard).await;
        };
        soon(async {
            tokio::select! {
                () = reading => {}
                () = async { loop { self.swarm.select_next_some().await; } } => {}
            }
        })
        .await;
        heard
    }
}

#[tokio::test]
async fn a_peer_that_has_not_said_hello_is_refused() {
    let mut daemon = Node::daemon(1);
    let (raw, mut stream) = Raw::dial(9, "control/1", &daemon.contact().await).await;
    let call = protocol::codec::encode(&Control::Farm);
    stream.write_all(&u32::try_from(call.len()).unwrap().to_be_bytes()).await.unwrap();
    stream.write_all(&call).await.unwrap();
    stream.flush().await.unwrap();
    let heard = raw.hear(stream).await;
    let refused = protocol::codec::encode(&Answer::Refused(Refusal::NotAllowed));
    assert_eq!(heard[4..], refused);
    assert!(daemon.inbox.control.try_recv().is_err());

    let (raw, mut stream) = Raw::dial(8, "bulk/1", &daemon.contact().await).await;
    // It may be reset before the first word is out.
    let _reset = stream.write_all(b"give").await;
    assert_eq!(raw.hear(stream).await, b"");
    assert!(daemon.inbox.bulk.try_recv().is_err());
}

#[tokio::test]
async fn an_oversize_frame_is_refused_by_its_length() {
    let mut daemon = Node::daemon(1);
    for protocol in ["control/1", "park/1", "raft/1"] {
        let (raw, mut stream) = Raw::dial(9, protocol, &daemon.contact().await).await;
        let length = u32::try_from(MAX_CONTROL_BYTES + 1).unwrap();
        stream.write_all(&length.to_be_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(raw.hear(stream).await, b"", "closed without waiting for the rest: {protocol}");
    }
    assert!(daemon.inbox.control.try_recv().is_err());
}
