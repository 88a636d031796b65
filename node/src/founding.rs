//! Which farm this home belongs to: founded here, joined by ticket, or remembered.

use crate::config::FarmChoice;
use crate::home::{Home, HomeError, KeyName};
use protocol::charter::{Charter, CharterError, Policy};
use protocol::id::{FarmId, PeerKey};
use protocol::request::Name;
use protocol::signed::{SecretKey, Signed};
use protocol::ticket::{Contact, Ticket};
use std::collections::BTreeSet;

/// What a farm of one is called until somebody names it.
pub const ALONE: &str = "alone";

/// What is known of the farm before anybody was asked.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The farm.
    pub farm: FarmId,
    /// Its charter as last seen, in its envelope.
    pub charter: Option<Signed>,
    /// Where to start: coordinators first.
    pub contacts: Vec<Contact>,
}

/// Why a home belongs to no farm, or to another one.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// No ticket was given and none is remembered.
    #[error("no farm is known in this home")]
    NoFarm,
    /// A farm of another name was founded here.
    #[error("the farm `{founded}` was founded in this home, not `{asked}`")]
    OtherFarm {
        /// The farm of this home.
        founded: Name,
        /// The farm asked for.
        asked: Name,
    },
    /// The charter in this home is not the farm's.
    #[error("the charter in this home is not valid: {0}")]
    Charter(#[from] CharterError),
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
}

impl Membership {
    /// Finds, founds or joins the farm of this home; `node` is the key that a new farm's charter names as coordinator.
    ///
    /// # Errors
    ///
    /// [`MembershipError`].
    pub fn of(home: &Home, choice: &FarmChoice, node: PeerKey) -> Result<Self, MembershipError> {
        match choice {
            FarmChoice::Found(name) => found(home, name, node),
            FarmChoice::Join(ticket) => {
                home.remember_ticket(ticket)?;
                joined(home, ticket)
            }
            FarmChoice::Remembered => match (home.ticket()?, home.existing_key(KeyName::Farm)?) {
                (Some(ticket), _) => joined(home, &ticket),
                (None, Some(key)) => founded(home, FarmId::of(&key.public())),
                (None, None) => Err(MembershipError::NoFarm),
            },
        }
    }

    /// Follows the charter that the farm's own log says is in force.
    ///
    /// # Errors
    ///
    /// [`MembershipError::OtherFarm`] when that is the charter of a farm of another name than the one asked for.
    pub fn follow(&mut self, in_force: Signed, choice: &FarmChoice) -> Result<(), MembershipError> {
        let charter = Charter::open(&in_force, self.farm)?;
        if let FarmChoice::Found(asked) = choice
            && charter.name != *asked
        {
            return Err(MembershipError::OtherFarm { founded: charter.name, asked: asked.clone() });
        }
        self.charter = Some(in_force);
        Ok(())
    }

    /// The coordinators that the known charter names, or else the ticket.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Charter`].
    pub fn coordinators(&self) -> Result<BTreeSet<PeerKey>, MembershipError> {
        match &self.charter {
            Some(signed) => Ok(Charter::open(signed, self.farm)?.coordinators),
            None => Ok(self.contacts.iter().map(|contact| contact.key).collect()),
        }
    }
}

fn found(home: &Home, name: &Name, node: PeerKey) -> Result<Membership, MembershipError> {
    let known = home.existing_key(KeyName::Farm)?.is_some();
    let secret = home.key(KeyName::Farm)?;
    let farm = FarmId::of(&secret.public());
    if known && let Some(signed) = home.charter(farm)? {
        let charter = Charter::open(&signed, farm)?;
        if charter.name.as_str() == ALONE && name.as_str() != ALONE {
            return grow_up(home, farm, &secret, &charter, &signed, name);
        }
        if charter.name != *name {
            return Err(MembershipError::OtherFarm { founded: charter.name, asked: name.clone() });
        }
        return Ok(Membership { farm, charter: Some(signed), contacts: Vec::new() });
    }
    if known && home.has_begun(farm)? {
        // Its first charter was signed long ago, and perhaps others after it: a second first one would split the farm.
        return Ok(Membership { farm, charter: None, contacts: Vec::new() });
    }
    let charter = Charter {
        name: name.clone(),
        version: 1,
        predecessor: None,
        coordinators: BTreeSet::from([node]),
        members: BTreeSet::new(),
        policy: Policy::default(),
    };
    let signed = Signed::new(&charter, farm, &secret);
    home.remember_charter(&signed)?;
    Ok(Membership { farm, charter: Some(signed), contacts: Vec::new() })
}

/// A farm of one is given a name: same farm, same builds, the next charter.
fn grow_up(
    home: &Home,
    farm: FarmId,
    secret: &SecretKey,
    charter: &Charter,
    current: &Signed,
    name: &Name,
) -> Result<Membership, MembershipError> {
    let next = Charter {
        name: name.clone(),
        version: charter.version + 1,
        predecessor: Some(current.id()),
        ..charter.clone()
    };
    let signed = Signed::new(&next, farm, secret);
    home.remember_charter(&signed)?;
    Ok(Membership { farm, charter: Some(signed), contacts: Vec::new() })
}

fn founded(home: &Home, farm: FarmId) -> Result<Membership, MembershipError> {
    let charter = home.charter(farm)?;
    match &charter {
        Some(signed) => drop(Charter::open(signed, farm)?),
        // The farm's log knows it.
        None if home.has_begun(farm)? => {}
        None => return Err(MembershipError::NoFarm),
    }
    Ok(Membership { farm, charter, contacts: Vec::new() })
}

fn joined(home: &Home, ticket: &Ticket) -> Result<Membership, MembershipError> {
    let charter = match home.charter(ticket.farm)? {
        Some(signed) => {
            Charter::open(&signed, ticket.farm)?;
            Some(signed)
        }
        None => None,
    };
    let contacts = ticket.coordinators.iter().chain(&ticket.peers).cloned().collect();
    Ok(Membership { farm: ticket.farm, charter, contacts })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(folder.path()).unwrap();
        (folder, home)
    }

    #[test]
    fn a_farm_is_founded_once() {
        let (_folder, home) = home();
        let node = home.key(KeyName::Node).unwrap().public();
        let pypy = FarmChoice::Found("pypy".parse().unwrap());
        let first = Membership::of(&home, &pypy, node).unwrap();
        assert_eq!(first.coordinators().unwrap(), BTreeSet::from([node]));
        let again = Membership::of(&home, &pypy, node).unwrap();
        assert_eq!(again.charter, first.charter);
        let other = FarmChoice::Found("lua".parse().unwrap());
        assert!(matches!(Membership::of(&home, &other, node), Err(MembershipError::OtherFarm { .. })));
        assert_eq!(Membership::of(&home, &FarmChoice::Remembered, node).unwrap().farm, first.farm);
    }

    #[test]
    fn a_lost_charter_is_never_signed_a_second_time() {
        let (_folder, home) = home();
        let node = home.key(KeyName::Node).unwrap().public();
        let pypy = FarmChoice::Found("pypy".parse().unwrap());
        let first = Membership::of(&home, &pypy, node).unwrap();
        home.remember_begun(first.farm).unwrap();
        std::fs::remove_file(home.path().join("charter")).unwrap();
        for choice in [&pypy, &FarmChoice::Remembered] {
            let mut again = Membership::of(&home, choice, node).unwrap();
            assert_eq!((again.farm, &again.charter), (first.farm, &None), "it is for the log to say");
            again.follow(first.charter.clone().unwrap(), choice).unwrap();
            assert_eq!(again.charter, first.charter);
        }
        let other = FarmChoice::Found("lua".parse().unwrap());
        let mut asked = Membership::of(&home, &other, node).unwrap();
        let refused = asked.follow(first.charter.clone().unwrap(), &other);
        assert!(matches!(refused, Err(MembershipError::OtherFarm { .. })));
    }

    #[test]
    fn a_farm_of_one_can_be_named_later() {
        let (_folder, home) = home();
        let node = home.key(KeyName::Node).unwrap().public();
        let alone = Membership::of(&home, &FarmChoice::Found(ALONE.parse().unwrap()), node).unwrap();
        let named = Membership::of(&home, &FarmChoice::Found("pypy".parse().unwrap()), node).unwrap();
        assert_eq!(named.farm, alone.farm);
        let (before, after) = (alone.charter.unwrap(), named.charter.unwrap());
        let open = |signed| Charter::open(signed, alone.farm).unwrap();
        assert_eq!(open(&before).is_followed_by(&before, &open(&after)), Ok(()));
        assert_eq!(open(&after).name.as_str(), "pypy");
    }

    #[test]
    fn a_ticket_given_once_is_remembered() {
        let (_folder, home) = home();
        let node = home.key(KeyName::Node).unwrap().public();
        assert!(matches!(Membership::of(&home, &FarmChoice::Remembered, node), Err(MembershipError::NoFarm)));
        let coordinator = PeerKey::from_bytes([9; 32]);
        let ticket = Ticket {
            farm: FarmId::of(&PeerKey::from_bytes([8; 32])),
            coordinators: vec![Contact { key: coordinator, addresses: vec![] }],
            peers: vec![],
        };
        Membership::of(&home, &FarmChoice::Join(Box::new(ticket.clone())), node).unwrap();
        let remembered = Membership::of(&home, &FarmChoice::Remembered, node).unwrap();
        assert_eq!((remembered.farm, remembered.coordinators().unwrap()), (ticket.farm, BTreeSet::from([coordinator])));
    }
}
