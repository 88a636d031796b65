//! Streams: many at once, over whichever connection there is, and none lost.

use super::*;
use crate::network::CallError;
use crate::network::config::Limits;
use protocol::wire::Control;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Answers every stream with what it was sent.
fn echo(mut inbox: Inbox) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(mut incoming) = inbox.bulk.recv().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                incoming.stream.read_to_end(&mut bytes).await.unwrap();
                incoming.stream.write_all(&bytes).await.unwrap();
                incoming.stream.shutdown().await.unwrap();
            });
        }
    })
}

async fn said_back(network: &Network, to: PeerKey, word: &str) -> String {
    let mut stream = network.open_bulk(to).await.unwrap();
    stream.write_all(word.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_streams_opened_at_once_none_is_lost() {
    for transports in [Transports::Tcp, Transports::Quic] {
        let (one, two) = (Node::start(config(1, transports)), Node::start(config(2, transports)));
        one.meet(&two).await;
        let to = two.key();
        let _echo = echo(two.inbox);
        let opened: Vec<_> = (0..200)
            .map(|n| {
                let network = one.network.clone();
                tokio::spawn(async move { said_back(&network, to, &format!("word {n}")).await })
            })
            .collect();
        for (n, word) in opened.into_iter().enumerate() {
            assert_eq!(soon(word).await.unwrap(), format!("word {n}"), "{transports:?}");
        }
    }
}

/// Somebody listens there who is no peer of ours; counts who comes.
fn nobody() -> (Contact, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let dialled = Arc::new(AtomicUsize::new(0));
    let counting = dialled.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    (Contact { key: secret(7).public(), addresses: vec![address] }, dialled)
}

#[tokio::test]
async fn a_provider_that_is_gone_costs_one_dial_and_not_one_for_every_stream() {
    let (gone, dialled) = nobody();
    let client = Node::start(NetworkConfig { address_book: vec![gone.clone()], ..command(2) });
    for _ in 0..20 {
        let opened = soon(client.network.open_bulk(gone.key)).await;
        assert!(matches!(opened, Err(CallError::Unreachable { .. })), "{opened:?}");
    }
    assert_eq!(dialled.load(Ordering::SeqCst), 1);
    // Whoever calls it has nobody else to ask.
    assert!(soon(client.network.call(gone.key, Control::Farm)).await.is_err());
    assert_eq!(dialled.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_provider_that_was_gone_is_asked_as_soon_as_another_address_is_known() {
    let (gone, _) = nobody();
    let client = Node::start(NetworkConfig { address_book: vec![gone.clone()], ..command(2) });
    assert!(soon(client.network.open_bulk(gone.key)).await.is_err());
    let back = Node::daemon(7);
    assert_eq!(back.key(), gone.key);
    client.network.connect(back.contact().await, Keep::Once, PATIENCE).await.unwrap();
    let _echo = echo(back.inbox);
    assert_eq!(soon(said_back(&client.network, gone.key, "back")).await, "back");
}

#[tokio::test]
async fn a_peer_that_cannot_be_dialled_is_reached_over_its_own_connection() {
    let daemon = Node::daemon(1);
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let key = client.key();
    let _echo = echo(client.inbox);
    for word in ["first", "second"] {
        assert_eq!(soon(said_back(&daemon.network, key, word)).await, word);
    }
}

#[tokio::test]
async fn bulk_takes_a_tcp_connection_of_its_own_beside_the_first() {
    for (transports, at_first) in [(Transports::Tcp, 1), (Transports::Both, 0)] {
        let (one, two) = (Node::start(config(1, transports)), Node::start(config(2, transports)));
        one.meet(&two).await;
        let (to, port) = (two.key(), tcp_port(&two).await);
        let _echo = echo(two.inbox);
        assert_eq!(tcp_connections(port), at_first, "{transports:?}");
        for word in ["first", "second"] {
            assert_eq!(soon(said_back(&one.network, to, word)).await, word);
            assert_eq!(tcp_connections(port), at_first + 1, "{transports:?}");
        }
    }
}

#[tokio::test]
async fn who_cannot_be_dialled_opens_the_lane_itself() {
    let daemon = Node::daemon(1);
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let (key, port) = (client.key(), tcp_port(&daemon).await);
    let _echo = echo(client.inbox);
    assert_eq!(soon(said_back(&daemon.network, key, "first")).await, "first");
    soon(async {
        while tcp_connections(port) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(soon(said_back(&daemon.network, key, "second")).await, "second");
    assert_eq!(tcp_connections(port), 2, "one for calls, one for bulk");
}

async fn tcp_port(node: &Node) -> u16 {
    let addresses = node.contact().await.addresses;
    addresses.iter().find_map(|address| address.strip_prefix("/ip4/127.0.0.1/tcp/")).unwrap().parse().unwrap()
}

/// Established connections that were taken at this port, as the kernel counts them; its table may show a line twice.
fn tcp_connections(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3 && fields[1] == local && fields[3] == ESTABLISHED)
        .map(|fields| fields[2])
        .collect::<HashSet<_>>()
        .len()
}

#[tokio::test]
async fn of_several_processes_with_one_key_the_last_to_greet_is_called_back() {
    let daemon = Node::daemon(1);
    let mut processes = Vec::new();
    for _ in 0..3 {
        let mut latest = Node::start(command(2));
        latest.meet(&daemon).await;
        let _stream = soon(daemon.network.open_bulk(latest.key())).await.unwrap();
        soon(latest.inbox.bulk.recv()).await.unwrap();
        processes.push(latest);
    }
}

#[tokio::test]
async fn what_exceeds_a_peers_share_is_reset_and_a_closed_stream_frees_its_place() {
    let limits = Limits { bulk_per_peer: 2, ..Limits::VOLUNTEER };
    let mut daemon = Node::start(NetworkConfig { limits, ..config(1, Transports::Tcp) });
    let client = Node::start(command(2));
    client.meet(&daemon).await;
    let mut first = client.network.open_bulk(daemon.key()).await.unwrap();
    let _second = client.network.open_bulk(daemon.key()).await.unwrap();
    let held = [soon(daemon.inbox.bulk.recv()).await.unwrap(), soon(daemon.inbox.bulk.recv()).await.unwrap()];
    let mut third = client.network.open_bulk(daemon.key()).await.unwrap();
    let mut nothing = Vec::new();
    // Reset or closed: either way the opener learns it.
    let _reset = soon(third.read_to_end(&mut nothing)).await;
    assert_eq!(nothing, b"");
    assert!(daemon.inbox.bulk.try_recv().is_err());

    drop(held);
    let _closed = soon(first.read_to_end(&mut nothing)).await;
    let _fourth = client.network.open_bulk(daemon.key()).await.unwrap();
    soon(daemon.inbox.bulk.recv()).await.unwrap();
}
