//! Connections: who is told of them, what is remembered, and what comes back by itself.

use super::*;
use crate::network::CallError;
use crate::network::config::StartError;
use protocol::wire::Control;

fn is_greeted(peer: PeerKey) -> impl Fn(&PeerChange) -> bool {
    move |change| matches!(change, PeerChange::Greeted { peer: other, .. } if *other == peer)
}

fn is_closed(peer: PeerKey) -> impl Fn(&PeerChange) -> bool {
    move |change| matches!(change, PeerChange::Closed { peer: other } if *other == peer)
}

#[tokio::test]
async fn both_sides_learn_of_a_peer_and_of_what_it_says_anew() {
    let (one, two) = (Node::daemon(1), Node::daemon(2));
    let (mut at_one, mut at_two) = (one.network.changes(), two.network.changes());
    one.meet(&two).await;
    change(&mut at_one, is_greeted(two.key())).await;
    change(&mut at_two, is_greeted(one.key())).await;
    assert_eq!(two.network.peers().await.unwrap(), [one.contact().await]);

    one.network.greet_with(Hello { charter: Some((3, Digest::of(b"charter"))), ..hello() }).await.unwrap();
    let again = change(&mut at_two, is_greeted(one.key())).await;
    let PeerChange::Greeted { hello, .. } = again else { panic!("{again:?}") };
    assert_eq!(hello.charter, Some((3, Digest::of(b"charter"))));
    assert_eq!(hello.addresses, one.contact().await.addresses);
    assert!(hello.clock > Timestamp::EPOCH, "the network fills in the clock");

    one.network.shut_down().await;
    change(&mut at_two, is_closed(one.key())).await;
    assert_eq!(two.network.peers().await, Ok(vec![]));
}

#[tokio::test]
async fn a_kept_peer_is_redialled_when_it_comes_back() {
    let client = Node::start(command(2));
    let mut changes = client.network.changes();
    let first = Node::daemon(1);
    let contact = first.contact().await;
    client.network.connect(contact.clone(), Keep::Connected, PATIENCE).await.unwrap();
    change(&mut changes, is_greeted(contact.key)).await;
    first.network.shut_down().await;
    drop(first);
    change(&mut changes, is_closed(contact.key)).await;
    let unreached = client.network.call(contact.key, Control::Farm).await;
    assert!(matches!(unreached, Err(CallError::Unreachable { .. } | CallError::Refused { .. })), "{unreached:?}");

    let _second = Node::start(NetworkConfig { listen: contact.addresses.clone(), ..config(1, Transports::Tcp) });
    change(&mut changes, is_greeted(contact.key)).await;
}

#[tokio::test]
async fn a_peer_that_was_down_at_first_is_kept_all_the_same() {
    let contact = {
        let node = Node::daemon(1);
        let contact = node.contact().await;
        node.network.shut_down().await;
        contact
    };
    let client = Node::start(command(2));
    let mut changes = client.network.changes();
    let met = client.network.connect(contact.clone(), Keep::Connected, PATIENCE).await;
    assert!(matches!(&met, Err(CallError::Unreachable { reason, .. }) if reason.contains("refused")), "{met:?}");
    let _node = Node::start(NetworkConfig { listen: contact.addresses.clone(), ..config(1, Transports::Tcp) });
    change(&mut changes, is_greeted(contact.key)).await;
}

#[tokio::test]
async fn somebody_else_at_the_address_is_not_the_peer() {
    let node = Node::daemon(1);
    let wrong = Contact { key: secret(7).public(), addresses: node.contact().await.addresses };
    let client = Node::start(command(2));
    let met = client.network.connect(wrong, Keep::Once, PATIENCE).await;
    assert!(matches!(&met, Err(CallError::Unreachable { reason, .. }) if reason.contains("somebody else")), "{met:?}");
}

#[tokio::test]
async fn an_unknown_peer_is_unreachable_at_once() {
    let client = Node::start(command(2));
    let called = soon(client.network.call(secret(7).public(), Control::Farm)).await;
    assert!(
        matches!(&called, Err(CallError::Unreachable { reason, .. }) if reason.contains("no address")),
        "{called:?}"
    );
}

#[tokio::test]
async fn two_that_dial_each_other_at_once_are_greeted_once_each() {
    for _ in 0..4 {
        let (one, two) = (Node::daemon(1), Node::daemon(2));
        let (to_one, to_two) = (one.contact().await, two.contact().await);
        let (there, back) = tokio::join!(
            one.network.connect(to_two, Keep::Connected, PATIENCE),
            two.network.connect(to_one, Keep::Connected, PATIENCE)
        );
        assert_eq!((there, back), (Ok(()), Ok(())));
    }
}

#[tokio::test]
async fn external_addresses_come_first_and_loopback_only_alone() {
    let external = "/ip4/192.0.2.7/tcp/4001".to_owned();
    let node = Node::start(NetworkConfig { external: vec![external.clone()], ..config(1, Transports::Both) });
    let addresses = node.contact().await.addresses;
    assert_eq!(addresses[0], external);
    assert!(addresses[1].starts_with("/ip4/127.0.0.1/tcp/"), "{addresses:?}");
    assert!(addresses[2].starts_with("/ip4/127.0.0.1/udp/"), "{addresses:?}");
}

#[tokio::test]
async fn loopback_addresses_are_not_told_where_more_is_listened_on() {
    let listen = vec!["/ip4/0.0.0.0/tcp/0".to_owned()];
    let node = Node::start(NetworkConfig { listen, ..config(1, Transports::Tcp) });
    let addresses = node.contact().await.addresses;
    // Where the machine has no other interface, loopback is all there is.
    let elsewhere = addresses.iter().filter(|address| !address.contains("/127.0.0.1/")).count();
    assert!(elsewhere == addresses.len() || elsewhere == 0, "{addresses:?}");
}

#[tokio::test]
async fn a_wrong_address_is_an_error_with_its_text() {
    let wrong = NetworkConfig { listen: vec!["localhost:1".to_owned()], ..config(1, Transports::Tcp) };
    let error = start(wrong).unwrap_err();
    assert!(matches!(&error, StartError::Address(error) if error.text == "localhost:1"), "{error}");

    let first = Node::daemon(1);
    let taken = NetworkConfig { listen: first.contact().await.addresses, ..config(2, Transports::Quic) };
    let error = start(taken).unwrap_err();
    assert!(matches!(&error, StartError::Listen { .. }), "TCP is not listened on when QUIC alone is used: {error}");
}

#[tokio::test]
async fn the_driver_ends_with_its_last_handle() {
    let (network, commands, changes) = Network::channel(secret(1).public());
    let (outlet, _inbox) = Inbox::channel();
    let driver = crate::network::spawn(config(1, Transports::Tcp), outlet, commands, changes).unwrap();
    drop(network);
    soon(driver).await.unwrap();
}

#[tokio::test]
async fn commands_of_one_person_may_follow_each_other_without_pause() {
    let daemon = Node::daemon(1);
    for _ in 0..40 {
        let command = Node::start(command(2));
        command.meet(&daemon).await;
        command.network.shut_down().await;
    }
}
