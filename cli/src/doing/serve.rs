//! A daemon.

use super::{Place, failure, source, transports};
use crate::args::{Accept, DaemonArgs, Role, SmtpTls, TlsFrom, ToolArg};
use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use crate::verb;
use node::config::{self, CoordinatorConfig, FarmChoice, NodeConfig, Reach, StoreLimit, VolunteerConfig, WallClock};
use node::coordinator::mailer::config::{MailConfig, MailOptions};
use node::network::config::Mdns;
use node::node::Node;
use node::volunteer::machine::{OfferedTool, OwnerLimits};
use std::num::NonZeroU16;

pub(super) async fn run(place: &Place, role: Role, args: DaemonArgs) -> Result<Exit, Failure> {
    let config = config_of(place, role, args)?;
    let node = tokio::select! {
        biased;
        started = Node::start(config) => started.map_err(failure::of_start)?,
        () = place.stop.cancelled() => return Ok(Exit::Interrupted),
    };
    verb::serve::show(&place.output, role, node.network().local(), &node.ticket())?;
    node.run(place.stop.clone()).await.map_err(|failed| failure::of_log(&failed))?;
    Ok(Exit::Done)
}

fn config_of(place: &Place, role: Role, args: DaemonArgs) -> Result<NodeConfig, Failure> {
    let farm = match (&args.farm_name, &place.shared.farm) {
        (Some(name), _) => FarmChoice::Found(name.clone()),
        (None, Some(ticket)) => FarmChoice::Join(Box::new(ticket.clone())),
        (None, None) => FarmChoice::Remembered,
    };
    let coordinator = if role.coordinates() {
        Some(CoordinatorConfig { mail: mail_of(&args)?, wall_clock: wall_clock(&args) })
    } else {
        None
    };
    let volunteer = if role.volunteers() { Some(volunteer_of(&args)?) } else { None };
    let store = args.max_store.map_or(StoreLimit::OfDisk, |size| StoreLimit::Bytes(size.bytes));
    let reach = Reach {
        listen: args.listen,
        external: args.external,
        mdns: if args.no_mdns { Mdns::Off } else { Mdns::On },
        transports: transports(),
    };
    Ok(NodeConfig { home: place.home.clone(), farm, reach, store, coordinator, volunteer })
}

fn mail_of(args: &DaemonArgs) -> Result<Option<MailConfig>, Failure> {
    let url = args.smtp.as_ref().map(|smtp| {
        let scheme = match smtp.tls {
            TlsFrom::Connection => "smtps",
            TlsFrom::Setting => "smtp",
        };
        let user = smtp.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        format!("{scheme}://{user}{}:{}", smtp.host, smtp.port)
    });
    let options = MailOptions {
        smtp: url,
        smtp_tls: args.smtp_tls.map(|tls| match tls {
            SmtpTls::None => node::coordinator::mailer::config::SmtpTls::None,
            SmtpTls::Starttls => node::coordinator::mailer::config::SmtpTls::StartTls,
        }),
        smtp_ca: args.smtp_ca.clone(),
        smtp_password_file: args.smtp_password_file.clone(),
        mail_from: args.mail_from.as_ref().map(ToString::to_string),
        mail_dir: args.mail_dir.clone(),
    };
    MailConfig::from_options(&options).map_err(|error| {
        Failure::new(Exit::Usage, Said::with_next(error.to_string(), "`node --help` explains the flags for mail"))
    })
}

fn wall_clock(args: &DaemonArgs) -> WallClock {
    if args.trust_clock { WallClock::Trusted } else { WallClock::Checked }
}

/// Tools as they were typed.
pub(super) fn offered(tools: &[ToolArg]) -> Vec<OfferedTool> {
    tools.iter().map(|tool| OfferedTool { name: tool.name.to_string(), prefix: tool.prefix.clone() }).collect()
}

fn volunteer_of(args: &DaemonArgs) -> Result<VolunteerConfig, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let half = u16::try_from(cores / 2).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    Ok(VolunteerConfig {
        limits: OwnerLimits {
            slots: args.slots.unwrap_or(half),
            memory_mib: args.max_memory.map(|size| size.bytes >> 20),
            disk_mib: args.max_disk.map(|size| size.bytes >> 20),
        },
        accept: match args.accept.unwrap_or_default() {
            Accept::Catalogue => config::Accept::Catalogue,
            Accept::Members => config::Accept::Members,
            Accept::Any => config::Accept::Any,
        },
        tools: offered(&args.tool),
        fetch: source::rules(&args.fetching)?,
    })
}
