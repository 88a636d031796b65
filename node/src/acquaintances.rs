//! Who was met: the address book of a home. A node that comes back finds its farm although everybody whom its ticket names has
//! gone or moved meanwhile.
//!
//! It holds hints, as an address book does: who answers at an address proves who it is, and what is in a damaged book is
//! forgotten. At most [`MAX_PEERS`] peers are in it, the ones met last.

use crate::home::{Home, MAX_PEERS};
use crate::network::Network;
use protocol::id::FarmId;
use protocol::ticket::Contact;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Peers that are dialled when a node starts, beside those of its ticket.
pub const VISITED: usize = 3;
/// How often the book is brought up to date.
const EVERY: Duration = Duration::from_secs(10);

/// Writes down who is met, beginning with those `known` from before, until `stop` is cancelled.
pub async fn keep(home: Home, farm: FarmId, network: Network, known: Vec<Contact>, stop: CancellationToken) {
    let mut book = known;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let Ok(here) = network.peers().await else { return };
        let now = merged(&book, here);
        if now == book {
            continue;
        }
        book = now;
        let (home, written) = (home.clone(), book.clone());
        match tokio::task::spawn_blocking(move || home.remember_peers(farm, &written)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "who was met is not remembered"),
            Err(_ending) => return,
        }
    }
}

/// The book with those who are here now: newcomers first, the others where they were, with the addresses they say now.
fn merged(book: &[Contact], here: Vec<Contact>) -> Vec<Contact> {
    let mut known = book.to_vec();
    let mut new = Vec::new();
    // Whoever listens nowhere cannot be found again.
    for contact in here.into_iter().filter(|contact| !contact.addresses.is_empty()) {
        match known.iter_mut().find(|known| known.key == contact.key) {
            Some(known) => *known = contact,
            None => new.push(contact),
        }
    }
    new.sort_by_key(|contact| contact.key);
    new.append(&mut known);
    new.truncate(MAX_PEERS);
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::id::PeerKey;

    fn contact(nr: u8, port: u16) -> Contact {
        let addresses = if port == 0 { vec![] } else { vec![format!("/ip4/192.0.2.7/tcp/{port}")] };
        Contact { key: PeerKey::from_bytes([nr; 32]), addresses }
    }

    #[test]
    fn newcomers_come_first_and_those_known_keep_their_place() {
        let book = [contact(1, 1), contact(2, 2)];
        let here = vec![contact(4, 4), contact(2, 22), contact(3, 3), contact(5, 0)];
        assert_eq!(merged(&book, here), [contact(3, 3), contact(4, 4), contact(1, 1), contact(2, 22)]);
        assert_eq!(merged(&book, vec![]), book);
    }

    #[test]
    fn the_book_is_bounded_and_forgets_who_was_met_first() {
        let book = (0..64).fold(Vec::new(), |book, nr| merged(&book, vec![contact(nr, 1)]));
        let now = merged(&book, vec![contact(100, 1)]);
        assert_eq!(now.len(), MAX_PEERS);
        assert_eq!((&now[0], &now[63]), (&contact(100, 1), &contact(1, 1)));
    }
}
