//! What a daemon is to be: one struct, filled once by `cli`, never read from flags or environment here.

use crate::coordinator::mailer::config::MailConfig;
use crate::home::Home;
use crate::source::FetchRules;
use crate::volunteer::machine::{OfferedTool, OwnerLimits};
use protocol::request::Name;
use protocol::ticket::Ticket;

/// Everything a daemon is told when it starts.
#[derive(Debug)]
pub struct NodeConfig {
    /// Where it lives.
    pub home: Home,
    /// Which farm it belongs to.
    pub farm: FarmChoice,
    /// Where it listens.
    pub reach: Reach,
    /// How much it may keep.
    pub store: StoreLimit,
    /// The coordinator's part, if it has one.
    pub coordinator: Option<CoordinatorConfig>,
    /// The volunteer's part, if it has one.
    pub volunteer: Option<VolunteerConfig>,
}

/// How much a daemon keeps for its farm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreLimit {
    /// A quarter of what the store has and the disk has free when the daemon starts.
    #[default]
    OfDisk,
    /// So many bytes.
    Bytes(u64),
}

/// Which farm a daemon belongs to.
#[derive(Clone, Debug)]
pub enum FarmChoice {
    /// The farm founded here before under this name, or a new one.
    Found(Name),
    /// The farm of this ticket, remembered from now on.
    Join(Box<Ticket>),
    /// The farm remembered in this home.
    Remembered,
}

/// Where a daemon can be reached.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Multiaddrs to listen on; empty for every interface, at the ports taken before.
    pub listen: Vec<String>,
    /// Public multiaddrs.
    pub external: Vec<String>,
    /// Whether to look for peers on the local network.
    pub mdns: crate::network::config::Mdns,
    /// Which transports to use.
    pub transports: crate::network::config::Transports,
}

/// The coordinator's part.
#[derive(Debug)]
pub struct CoordinatorConfig {
    /// How mail leaves; `None` where none is sent.
    pub mail: Option<MailConfig>,
    /// Whether the system's clock is believed although it jumped.
    pub wall_clock: WallClock,
}

/// Whether the system's clock is believed when it makes no sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WallClock {
    /// Not before a peer's clock agrees with it.
    #[default]
    Checked,
    /// The operator says that it is right.
    Trusted,
}

/// The volunteer's part.
#[derive(Clone, Debug)]
pub struct VolunteerConfig {
    /// What the owner allows.
    pub limits: OwnerLimits,
    /// Whose recipes are built.
    pub accept: Accept,
    /// Tools from outside `/usr`.
    pub tools: Vec<OfferedTool>,
    /// Where sources may be fetched from.
    pub fetch: FetchRules,
}

/// Whose recipes a volunteer builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// The catalogue's, for anyone with the ticket.
    #[default]
    Catalogue,
    /// Those, and any of a member of the farm.
    Members,
    /// Any, for anyone.
    Any,
}
