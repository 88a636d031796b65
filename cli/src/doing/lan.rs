//! `--lan`: the one farm on the local network instead of a ticket.

use super::{Place, failure, transports};
use crate::exit::{Exit, Failure};
use crate::sentences;
use node::client::lan::{self, Sighted};
use protocol::ticket::Ticket;

impl Place {
    /// The same place with the ticket of the farm that `--lan` found, if it was given.
    pub(super) async fn on_lan(mut self) -> Result<Self, Failure> {
        if self.shared.lan {
            let sighted = lan::look_around(transports()).await.map_err(|error| failure::of_start(error.into()))?;
            let remembered = self.home.ticket().map_err(|error| failure::of_home(&error))?;
            self.shared.farm = Some(choose(sighted, remembered.as_ref())?);
        }
        Ok(self)
    }
}

/// The only farm, or among several the one that this home belongs to.
fn choose(mut sighted: Vec<Sighted>, remembered: Option<&Ticket>) -> Result<Ticket, Failure> {
    if let Some(known) = remembered
        && let Some(at) = sighted.iter().position(|farm| farm.ticket.farm == known.farm)
    {
        return Ok(sighted.swap_remove(at).ticket);
    }
    match sighted.pop() {
        None => Err(Failure::new(Exit::Unreachable, sentences::no_farm_on_lan())),
        Some(only) if sighted.is_empty() => Ok(only.ticket),
        Some(last) => {
            sighted.push(last);
            let farms = sighted.iter().map(|farm| (farm.name.to_string(), farm.ticket.to_string()));
            Err(Failure::new(Exit::Usage, sentences::farms_on_lan(farms)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::digest::Digest;
    use protocol::id::FarmId;

    fn farm(name: &str) -> Sighted {
        let ticket = Ticket { farm: FarmId(Digest::of(name.as_bytes())), coordinators: vec![], peers: vec![] };
        Sighted { name: name.parse().unwrap(), ticket }
    }

    #[test]
    fn one_is_taken_none_is_unreachable_and_several_are_listed() {
        assert_eq!(choose(vec![farm("barn")], None).unwrap(), farm("barn").ticket);
        assert_eq!(choose(vec![], None).unwrap_err().exit, Exit::Unreachable);
        let several = choose(vec![farm("barn"), farm("mill")], None).unwrap_err();
        assert_eq!(several.exit, Exit::Usage);
        for farm in [farm("barn"), farm("mill")] {
            let next = several.said.next.as_deref().unwrap();
            assert!(next.contains(&farm.name.to_string()) && next.contains(&farm.ticket.to_string()), "{next}");
        }
    }

    #[test]
    fn a_home_that_belongs_to_one_of_several_stays_with_it() {
        let both = || vec![farm("barn"), farm("mill")];
        assert_eq!(choose(both(), Some(&farm("mill").ticket)).unwrap(), farm("mill").ticket);
        assert!(choose(both(), Some(&farm("shed").ticket)).is_err());
    }
}
