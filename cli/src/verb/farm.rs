//! `node farm show`: who the farm is.

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::shape::{ContactShape, FarmShape};
use protocol::ticket::Ticket;

/// Shows a farm's id, ticket and coordinators, all of which the ticket tells.
pub(crate) fn show(output: &Output, ticket: &Ticket) -> Result<Exit, Failure> {
    output.answer(&text(ticket))?;
    output.object(&shape(ticket))?;
    Ok(Exit::Done)
}

/// The JSON object of a farm.
pub(crate) fn shape(ticket: &Ticket) -> FarmShape {
    let contact = |contact: &protocol::ticket::Contact| ContactShape {
        key: contact.key.to_string(),
        addresses: contact.addresses.clone(),
    };
    FarmShape {
        farm_id: Some(ticket.farm.to_string()),
        ticket: Some(ticket.to_string()),
        coordinators: Some(ticket.coordinators.iter().map(contact).collect()),
        reason: None,
    }
}

fn text(ticket: &Ticket) -> String {
    let mut lines = vec![format!("farm    {}", ticket.farm), format!("ticket  {ticket}")];
    for coordinator in &ticket.coordinators {
        lines.push(format!("coordinator {}", coordinator.key));
        lines.extend(coordinator.addresses.iter().map(|address| format!("  {address}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::digest::Digest;
    use protocol::id::{FarmId, PeerKey};
    use protocol::ticket::Contact;

    #[test]
    fn a_farm_is_its_ticket() {
        let ticket = Ticket {
            farm: FarmId(Digest::of(b"")),
            coordinators: vec![Contact {
                key: PeerKey::from_bytes([0xab; 32]),
                addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()],
            }],
            peers: vec![],
        };
        let shape = shape(&ticket);
        assert_eq!(shape.ticket, Some(ticket.to_string()));
        assert_eq!(
            shape.coordinators,
            Some(vec![ContactShape { key: "ab".repeat(32), addresses: vec!["/ip4/127.0.0.1/tcp/4001".to_owned()] }])
        );
        assert!(text(&ticket).ends_with("\n  /ip4/127.0.0.1/tcp/4001"));
    }
}
