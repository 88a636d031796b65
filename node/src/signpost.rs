//! The farm's ticket as this node would write it now: coordinators first, then other peers that stay.

use crate::coordinators::Coordinators;
use crate::founding::Membership;
use crate::network::Network;
use protocol::id::FarmId;
use protocol::ticket::{Contact, MAX_ADDRESSES, MAX_PEERS, Ticket};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the ticket is written anew from the peers that are here.
const EVERY: Duration = Duration::from_secs(1);

/// Writes the ticket from the peers that are connected, this node itself, and those known before.
pub async fn write(network: &Network, farm: FarmId, coordinators: &Coordinators, known: &[Contact]) -> Ticket {
    let mut contacts = network.peers().await.unwrap_or_default();
    contacts.push(Contact { key: network.local(), addresses: network.addresses().await.unwrap_or_default() });
    for contact in known {
        if !contacts.iter().any(|here| here.key == contact.key) {
            contacts.push(contact.clone());
        }
    }
    contacts.retain(|contact| !contact.addresses.is_empty());
    contacts.sort_by_key(|contact| contact.key);
    for contact in &mut contacts {
        contact.addresses.truncate(MAX_ADDRESSES);
    }
    let (mut leading, mut others): (Vec<_>, Vec<_>) =
        contacts.into_iter().partition(|contact| coordinators.includes(&contact.key));
    leading.truncate(MAX_PEERS);
    others.truncate(MAX_PEERS);
    Ticket { farm, coordinators: leading, peers: others }
}

/// Whether somebody on another machine could use the ticket.
#[must_use]
pub fn leads_here(ticket: &Ticket) -> bool {
    let outside = |address: &String| !address.starts_with("/ip4/127.") && !address.starts_with("/ip6/::1/");
    ticket.coordinators.iter().chain(&ticket.peers).flat_map(|contact| &contact.addresses).any(outside)
}

/// Writes the ticket again and again, and tells `teller` when it changed, until `stop` is cancelled.
pub async fn keep(
    network: Network,
    membership: Membership,
    coordinators: Coordinators,
    teller: watch::Sender<Ticket>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let ticket = write(&network, membership.farm, &coordinators, &membership.contacts).await;
        teller.send_if_modified(|known| {
            let changed = *known != ticket;
            if changed {
                *known = ticket;
            }
            changed
        });
    }
}
