//! A daemon's first words: it serves, and how others join.

use crate::args::Role;
use crate::exit::Failure;
use crate::output::Output;
use crate::sentences::Said;
use protocol::id::PeerKey;
use protocol::ticket::Ticket;

/// Shows that a daemon serves. A coordinator prints the ticket to stdout, so that a script can hand it on.
pub(crate) fn show(output: &Output, role: Role, local: PeerKey, ticket: &Ticket) -> Result<(), Failure> {
    let what = match role {
        Role::Volunteer => "volunteers for",
        Role::Coordinator => "coordinates",
        Role::Both => "coordinates and volunteers for",
    };
    let sentence = format!("{} {what} farm {}", local.short(), ticket.farm.short());
    if role.coordinates() {
        output.tell(&Said::with_next(sentence, format!("others join with `node --volunteer --farm {ticket}`")));
        output.answer(&ticket.to_string())?;
    } else {
        output.tell(&Said::new(sentence));
    }
    output.object(&super::farm::shape(ticket))?;
    Ok(())
}
