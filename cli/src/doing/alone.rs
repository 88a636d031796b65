//! The farm of one: both roles in this process, on loopback, for as long as somebody needs it.

use super::interruption::{Alone, interrupted};
use super::{Place, failure, transports};
use crate::exit::{Exit, Failure};
use crate::sentences::{self, Said};
use node::config::{Accept, CoordinatorConfig, FarmChoice, NodeConfig, Reach, StoreLimit, VolunteerConfig, WallClock};
use node::coordinator::mailer::config::{MailConfig, MailOptions};
use node::founding::{ALONE, MembershipError};
use node::home::HomeError;
use node::network::config::{Mdns, Transports};
use node::node::{Node, StartError};
use node::source::FetchRules;
use node::volunteer::machine::{OfferedTool, OwnerLimits};
use std::time::{Duration, Instant};

/// How often a command looks at others in its home: those that joined it, or one that begins or ends.
pub(super) const OTHERS_LOOK: Duration = Duration::from_millis(100);

/// Where its mail is written, in its home.
const MAIL_FOLDER: &str = "mail";
/// How long writing the mail may take; what is not written by then is written at the farm's next start.
const MAIL_WITHIN: Duration = Duration::from_secs(10);
/// From whom its mail comes.
const MAIL_FROM: &str = "barnraise@localhost";

/// What this machine lends to a farm that is this command alone.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    /// From where sources may be fetched.
    pub(super) fetch: FetchRules,
    /// Tools outside `/usr`.
    pub(super) tools: Vec<OfferedTool>,
}

/// Who has become the farm of this home.
pub(super) enum Begun {
    /// This command.
    Farm(Box<Node>),
    /// Another that was faster.
    ByAnother,
}

/// Becomes a farm in this home, whose volunteer fetches sources by `fetch`.
pub(super) async fn start(place: &Place, lent: Lent) -> Result<Begun, Failure> {
    place.output.tell(&sentences::farm_of_one());
    let name = ALONE.parse().map_err(|error: protocol::request::NameError| {
        Failure::new(Exit::Infrastructure, Said::new(error.to_string()))
    })?;
    let options = MailOptions {
        mail_from: Some(MAIL_FROM.to_owned()),
        mail_dir: Some(place.home.path().join(MAIL_FOLDER)),
        ..MailOptions::default()
    };
    let mail = MailConfig::from_options(&options)
        .map_err(|error| Failure::new(Exit::Infrastructure, Said::new(error.to_string())))?;
    let config = NodeConfig {
        home: place.home.clone(),
        farm: FarmChoice::Found(name),
        reach: Reach {
            listen: match transports() {
                // Here nothing is gained by a second one.
                Transports::Both => Transports::Tcp,
                only => only,
            }
            .listen_at("127.0.0.1"),
            external: Vec::new(),
            mdns: Mdns::Off,
            transports: transports(),
        },
        store: StoreLimit::OfDisk,
        // Nobody else is here whose clock could agree with this one.
        coordinator: Some(CoordinatorConfig { mail, wall_clock: WallClock::Trusted }),
        volunteer: Some(VolunteerConfig {
            limits: OwnerLimits::default(),
            accept: Accept::Any,
            tools: lent.tools,
            fetch: lent.fetch,
        }),
    };
    tokio::select! {
        biased;
        started = Node::start(config) => match started {
            Ok(node) => Ok(Begun::Farm(Box::new(node))),
            Err(StartError::Home(HomeError::InUse(_))) => Ok(Begun::ByAnother),
            // The home of a farm that others joined: its requests are not for a farm of one.
            Err(StartError::Membership(MembershipError::OtherFarm { founded, .. })) => Err(Failure::new(
                Exit::Unreachable,
                Said::with_next(
                    format!("the farm `{founded}` of this home does not run"),
                    "start it with `node --coordinator`, or give another home with `--home DIR`",
                ),
            )),
            Err(error) => Err(failure::of_start(error)),
        },
        () = place.stop.cancelled() => Err(interrupted(Alone::Yes, &[])),
    }
}

/// Leaves when nobody needs the farm any more: no other command is connected, and every mail is written that can be.
pub(super) async fn end(place: &Place, node: Node) {
    let until = Instant::now() + MAIL_WITHIN;
    loop {
        let others = node.network().peers().await.map_or(0, |peers| peers.len());
        let mails = node.door().map_or(0, |door| door.mails_waiting());
        if place.stop.is_cancelled() || (others == 0 && mails == 0) {
            break;
        }
        if others == 0 && Instant::now() >= until {
            place.output.tell(&sentences::mail_waits(&place.home.path().join(MAIL_FOLDER)));
            break;
        }
        tokio::time::sleep(OTHERS_LOOK).await;
    }
    node.end().await;
}
