//! The farms on the local network, as somebody may join them who has no ticket.
//!
//! Peers say whose they are, and nobody need believe them: a farm is listed only when one of its peers hands over a charter
//! that the farm's key signed. Which of the farms that are here is the right one is for a person to know.

use super::member::{hello, passing_key};
use crate::network::config::{NetworkConfig, StartError, Transports};
use crate::network::{self, Keep, Network, scout};
use futures::future::join_all;
use protocol::charter::Charter;
use protocol::id::{FarmId, PeerKey};
use protocol::request::Name;
use protocol::ticket::{Contact, MAX_PEERS, Ticket};
use protocol::wire::{Answer, Control};
use std::time::Duration;

/// How long one peer may take to connect and answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A farm that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// What its charter calls it.
    pub name: Name,
    /// How to join it.
    pub ticket: Ticket,
}

/// Looks for farms on the local network, and lists those whose charter holds, in the order of their names.
///
/// # Errors
///
/// [`StartError`] when the network cannot be used.
pub async fn look_around(transports: Transports) -> Result<Vec<Sighted>, StartError> {
    let heard = scout::look_around(transports).await?;
    let asking = heard.into_iter().map(|(farm, contacts)| visit(farm, contacts, transports));
    let mut farms = Vec::new();
    for visited in join_all(asking).await {
        farms.extend(visited?);
    }
    farms.sort_by(|one: &Sighted, other| (&one.name, one.ticket.farm).cmp(&(&other.name, other.ticket.farm)));
    Ok(farms)
}

/// Asks peers for charter and ticket; `None` when none of them proves that the farm is what it says.
async fn visit(farm: FarmId, contacts: Vec<Contact>, transports: Transports) -> Result<Option<Sighted>, StartError> {
    let config = NetworkConfig { transports, ..NetworkConfig::command(passing_key(), farm, hello()) };
    let (network, _inbox) = network::start(config)?;
    let mut sighted = None;
    for contact in &contacts {
        let asking = ask(&network, farm, contact, &contacts);
        if let Ok(Some(found)) = tokio::time::timeout(ANSWER_WITHIN, asking).await {
            sighted = Some(found);
            break;
        }
    }
    network.shut_down().await;
    Ok(sighted)
}

async fn ask(network: &Network, farm: FarmId, contact: &Contact, heard: &[Contact]) -> Option<Sighted> {
    network.connect(contact.clone(), Keep::Once, ANSWER_WITHIN).await.ok()?;
    let Ok(Answer::Charter(Some(signed))) = network.call(contact.key, Control::Charter).await else { return None };
    let charter = Charter::open(&signed, farm)
        .inspect_err(|error| tracing::warn!(%farm, peer = %contact.key.short(), %error, "a farm that is none"))
        .ok()?;
    let told = match network.call(contact.key, Control::Ticket).await {
        Ok(Answer::Ticket(ticket)) if ticket.farm == farm => [ticket.coordinators, ticket.peers].concat(),
        _ => Vec::new(),
    };
    Some(Sighted { name: charter.name, ticket: merged(farm, heard, told, |key| charter.coordinators.contains(key)) })
}

/// Who was heard here, each at where it was heard, before whom one of them tells of.
fn merged(farm: FarmId, heard: &[Contact], told: Vec<Contact>, leads: impl Fn(&PeerKey) -> bool) -> Ticket {
    let mut contacts = heard.to_vec();
    contacts.extend(told.into_iter().filter(|contact| heard.iter().all(|known| known.key != contact.key)));
    let (mut coordinators, mut peers): (Vec<_>, Vec<_>) = contacts.into_iter().partition(|contact| leads(&contact.key));
    coordinators.truncate(MAX_PEERS);
    peers.truncate(MAX_PEERS);
    Ticket { farm, coordinators, peers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;

    fn at(nr: u8, address: &str) -> Contact {
        Contact { key: PeerKey::from_bytes([nr; 32]), addresses: vec![address.to_owned()] }
    }

    #[test]
    fn who_was_heard_comes_before_who_was_told_of() {
        let farm = FarmId(Digest::of(b"farm"));
        let heard = [at(2, "/ip4/10.0.0.2/tcp/1")];
        let told = vec![at(1, "/ip4/10.0.0.1/tcp/1"), at(2, "/ip4/192.0.2.2/tcp/1"), at(3, "/ip4/10.0.0.3/tcp/1")];
        let ticket = merged(farm, &heard, told, |key| *key == PeerKey::from_bytes([1; 32]));
        assert_eq!(ticket.coordinators, [at(1, "/ip4/10.0.0.1/tcp/1")]);
        assert_eq!(ticket.peers, [at(2, "/ip4/10.0.0.2/tcp/1"), at(3, "/ip4/10.0.0.3/tcp/1")]);
        let crowd = (1..9).map(|nr| at(nr, "/ip4/10.0.0.1/tcp/1")).collect();
        assert_eq!(merged(farm, &heard, crowd, |_| false).peers.len(), MAX_PEERS, "a ticket has its bounds");
    }
}
