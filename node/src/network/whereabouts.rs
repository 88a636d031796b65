//! Where this node can be reached, and who is told.
//!
//! External addresses come first, then interface addresses, loopback only where nothing else is listened on. The same list
//! goes into `Hello`, into tickets and into the DHT.

use super::address::{self, Reach};
use super::config::Transports;
use super::driver::Driver;
use super::gossip::validator::wall_clock;
use libp2p::Multiaddr;
use protocol::ticket::MAX_ADDRESSES;
use protocol::wire::Hello;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long to wait for listeners before addresses are told.
const LISTENERS_SETTLE: Duration = Duration::from_secs(2);

impl Driver {
    /// Somebody asks where this node can be reached; told once every listener knows.
    pub(super) fn ask_addresses(&mut self, reply: oneshot::Sender<Vec<String>>, now: Instant) {
        self.address_askers.push((now + LISTENERS_SETTLE, reply));
        self.tell_addresses(now);
    }

    /// What this node says of itself now.
    pub(super) fn say_hello(&self) -> Hello {
        Hello { clock: wall_clock(), addresses: texts(&self.addresses()), ..self.hello.clone() }
    }

    /// Which addresses are worth believing: those of loopback only where nothing else is listened on.
    pub(super) fn reach(&self) -> Reach {
        match self.transports {
            Transports::Memory => Reach::Process,
            _ if self.swarm.listeners().all(address::is_loopback) => Reach::Loopback,
            _ => Reach::Wide,
        }
    }

    /// Where this node can be reached, best first: external, then TCP, then QUIC; loopback only if there is nothing else.
    fn addresses(&self) -> Vec<Multiaddr> {
        let reach = self.reach();
        let mut own: Vec<_> = self.swarm.listeners().filter(|address| address::is_credible(address, reach)).collect();
        own.sort_by_key(|address| !address::is_tcp(address));
        self.external.iter().chain(own).take(MAX_ADDRESSES).cloned().collect()
    }

    /// Makes them the external addresses of the swarm: those that the DHT puts into provider records. A record without any
    /// is only of use to servers that happen to have the provider in their routing table.
    pub(super) fn announce_addresses(&mut self) {
        let now = self.addresses();
        let before: Vec<_> = self.swarm.external_addresses().cloned().collect();
        for gone in before.iter().filter(|address| !now.contains(address)) {
            self.swarm.remove_external_address(gone);
        }
        for new in now.into_iter().filter(|address| !before.contains(address)) {
            self.swarm.add_external_address(new);
        }
    }

    /// Tells those that asked, once it is known.
    pub(super) fn tell_addresses(&mut self, now: Instant) {
        if !self.unsettled.is_empty() && self.address_askers.iter().all(|(until, _)| *until > now) {
            return;
        }
        let addresses = texts(&self.addresses());
        for (_, reply) in self.address_askers.drain(..) {
            // Whoever dropped the receiver waits no more.
            drop(reply.send(addresses.clone()));
        }
    }
}

fn texts(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(Multiaddr::to_string).collect()
}
