//! A peer inside the test, on the program's own driver: it joins the farm like any other and answers as it likes.

use crate::neighbours::Transport;
use node::artifact::ChunkSource;
use node::artifact::transfer::{Permission, serve};
use node::network::config::{Mdns, NetworkConfig};
use node::network::{Inbox, Keep, Network};
use protocol::id::BuildKey;
use protocol::report::Judged;
use protocol::signed::SecretKey;
use protocol::ticket::{Contact, Ticket};
use protocol::time::Timestamp;
use protocol::wire::{Answer, Control, Hello, PROTOCOL_VERSION};
use std::sync::Arc;
use std::time::Duration;

/// The peer.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) network: Network,
}

impl Guest {
    /// Joins everybody whom the ticket names. Calls are answered by `answer`, chunks read from `chunks`.
    pub(crate) async fn join(
        seed: u8,
        transport: Transport,
        ticket: &Ticket,
        answer: impl Fn(&Control) -> Answer + Send + 'static,
        chunks: impl ChunkSource + 'static,
    ) -> Self {
        let secret = SecretKey::from_seed(&[seed; 32]);
        let hello = Hello {
            program: "guest".to_owned(),
            protocol: PROTOCOL_VERSION,
            charter: None,
            clock: Timestamp::EPOCH,
            capability: None,
            addresses: vec![],
        };
        let config = NetworkConfig {
            listen: transport.inside().listen_at("127.0.0.1"),
            mdns: Mdns::Off,
            transports: transport.inside(),
            ..NetworkConfig::daemon(secret, ticket.farm, hello)
        };
        let (network, inbox) = node::network::start(config).unwrap();
        let Inbox { mut control, bulk, .. } = inbox;
        tokio::spawn(async move {
            while let Some(incoming) = control.recv().await {
                // Whoever asked may have gone.
                let _gone = incoming.reply.send(answer(&incoming.call));
            }
        });
        tokio::spawn(serve(bulk, Arc::new(chunks), Arc::new(|_, _: &_| Permission::Granted)));
        for contact in ticket.coordinators.iter().chain(&ticket.peers) {
            network.connect(contact.clone(), Keep::Connected, Duration::from_secs(20)).await.unwrap();
        }
        Self { network }
    }

    /// Where it is.
    pub(crate) async fn contact(&self) -> Contact {
        Contact { key: self.network.local(), addresses: self.network.addresses().await.unwrap() }
    }

    /// The verdict that a peer holds on a build.
    pub(crate) async fn judged_at(&self, peer: &Contact, key: BuildKey) -> Option<Judged> {
        match self.network.call(peer.key, Control::Find(key)).await.unwrap() {
            Answer::Found { judged, .. } => judged.map(|judged| *judged),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the DHT names `provider` for a build.
    pub(crate) async fn until_provided(&self, key: BuildKey, provider: protocol::id::PeerKey) {
        let searching = async {
            loop {
                let mut found = self.network.find_providers(key).await.unwrap();
                while let Some(peer) = found.recv().await {
                    if peer == provider {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(crate::deadline::SOON, searching).await.expect("the DHT should name the provider by now");
    }
}
