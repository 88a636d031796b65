//! The DHT: found after the fact, and forgotten when told.

use super::*;
use crate::network::config::Dht;
use protocol::id::BuildKey;
use protocol::wire::{Answer, Control};
use tokio::time::Instant;

fn build(n: u8) -> BuildKey {
    BuildKey(Digest::of(&[n]))
}

/// Providers as one search finds them.
async fn providers(node: &Node, key: BuildKey) -> Vec<PeerKey> {
    let mut found = node.network.find_providers(key).await.unwrap();
    soon(async {
        let mut providers = Vec::new();
        while let Some(provider) = found.recv().await {
            providers.push(provider);
        }
        providers
    })
    .await
}

/// Searches until it finds exactly these, and says how long it took.
async fn until_found(node: &Node, key: BuildKey, wanted: &[PeerKey]) -> Duration {
    let began = Instant::now();
    soon(async {
        loop {
            let mut found = providers(node, key).await;
            found.sort_unstable();
            if found == wanted {
                return began.elapsed();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn what_was_provided_in_isolation_is_found_after_connecting() {
    let (provider, server) = (Node::daemon(1), Node::daemon(2));
    provider.network.provide(build(1)).await.unwrap();
    assert_eq!(providers(&provider, build(1)).await, [provider.key()], "known to itself");
    provider.meet(&server).await;

    let asker = Node::start(command(3));
    asker.meet(&server).await;
    let took = until_found(&asker, build(1), &[provider.key()]).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(providers(&asker, build(2)).await, [], "nobody provides this one");
}

#[tokio::test]
async fn the_server_itself_learns_what_is_provided_and_withdrawn() {
    let (provider, server) = (Node::daemon(1), Node::daemon(2));
    provider.meet(&server).await;
    provider.network.provide(build(1)).await.unwrap();
    until_found(&server, build(1), &[provider.key()]).await;
    provider.network.withdraw(build(1)).await.unwrap();
    until_found(&server, build(1), &[]).await;
}

#[tokio::test]
async fn providers_whose_server_has_gone_are_found_through_others() {
    let nodes: Vec<_> = (1..=4).map(Node::daemon).collect();
    for node in &nodes[1..] {
        node.meet(&nodes[0]).await;
    }
    nodes[1].network.provide(build(1)).await.unwrap();
    until_found(&nodes[3], build(1), &[nodes[1].key()]).await;
    nodes[0].network.shut_down().await;
    // Every dialable node is a server here, so the hint outlives the one that everybody met through.
    until_found(&nodes[2], build(1), &[nodes[1].key()]).await;
}

#[tokio::test]
async fn a_provider_that_is_no_server_is_found_with_its_address() {
    let server = Node::daemon(1);
    let mut provider = Node::start(NetworkConfig { dht: Dht::Client, ..config(2, Transports::Tcp) });
    provider.meet(&server).await;
    provider.network.provide(build(1)).await.unwrap();
    until_found(&server, build(1), &[provider.key()]).await;

    let asker = Node::start(command(3));
    asker.meet(&server).await;
    assert_eq!(providers(&asker, build(1)).await, [provider.key()], "at the first search, right after Hello");
    let call = tokio::spawn({
        let (network, key) = (asker.network.clone(), provider.key());
        async move { network.call(key, Control::Find(build(1))).await }
    });
    soon(provider.inbox.control.recv()).await.unwrap().reply.send(Answer::Done).unwrap();
    assert_eq!(soon(call).await.unwrap(), Ok(Answer::Done));
}
