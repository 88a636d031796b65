//! Entries of the farm's log in words.

use crate::names::Names;
use protocol::farm::command::{Command, Event, Expiry, Possession};
use protocol::farm::explain::Ended;
use protocol::id::{LeaseId, ManifestId, RequestId};
use protocol::report::{Outcome, Report};
use protocol::request::{Request, Subscription};
use protocol::signed::Signed;

/// What a command asks.
pub(crate) fn command(names: &mut Names, command: &Command) -> String {
    match command {
        Command::Found { .. } => "the farm is founded".to_owned(),
        Command::Submit { request, subscriptions, source } => submission(names, request, subscriptions, *source),
        Command::Cancel { request, by } => format!("{} takes {} back", names.node(by), names.request(*request)),
        Command::SourceHeld { job } => format!("the source of {} is here", names.job(*job)),
        Command::Grant { job, volunteer, .. } => format!("{} is for {}", names.job(*job), names.node(volunteer)),
        Command::Refuse { lease, volunteer, reason } => {
            format!("{} refuses {}: {reason}", names.node(volunteer), names.lease(*lease))
        }
        Command::HandBack { lease, volunteer } => {
            format!("{} hands {} back", names.node(volunteer), names.lease(*lease))
        }
        Command::Report { report, .. } => reported(names, report),
        Command::Held { build_key, manifest, holder } => {
            format!("{} holds {}, built for {}", names.node(holder), names.manifest(*manifest), names.key(*build_key))
        }
        Command::Lost { build_key, holder } => {
            format!("{} has not got what was built for {}", names.node(holder), names.key(*build_key))
        }
        Command::Expire(expiry) => expired(names, *expiry),
        Command::NoticeAttempt { notice } => format!("{} is about to be mailed", names.notice(*notice)),
        Command::NoticeSent { notice } => format!("{} was mailed", names.notice(*notice)),
        Command::NoticeFailed { notice, reason, .. } => format!("{} was not mailed: {reason}", names.notice(*notice)),
        Command::Amend { .. } => "a new charter".to_owned(),
        Command::Prune => "old things are forgotten".to_owned(),
        Command::RaiseLaw { version } => format!("the law is raised to {version:?}"),
    }
}

fn submission(names: &mut Names, signed: &Signed, subscriptions: &[Subscription], source: Possession) -> String {
    let request = names.request(RequestId(signed.id()));
    let Ok(said) = signed.payload_unchecked::<Request>() else { return format!("{request} cannot be read") };
    let key = names.key(said.spec.key());
    let options: Vec<String> = said.spec.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let addresses: Vec<String> =
        subscriptions.iter().filter_map(|one| one.address.as_ref()).map(ToString::to_string).collect();
    let demand = subscriptions.first().map(|one| format!("agree {} {:?}", one.demand.agree, one.demand.freshness));
    let whom = if addresses.is_empty() { "nobody by mail".to_owned() } else { addresses.join(" and ") };
    names.link(&request, &key);
    format!(
        "{} submits {request} for {key} ({} {}, {}; tell {whom}; source {source:?})",
        names.node(&signed.key),
        said.recipe,
        options.join(" "),
        demand.unwrap_or_default(),
    )
}

fn reported(names: &mut Names, signed: &Signed) -> String {
    let Ok(report) = signed.payload_unchecked::<Report>() else { return "a report that cannot be read".to_owned() };
    let (lease, volunteer) = (names.lease(report.lease), names.node(&signed.key));
    let outcome = match report.outcome {
        Outcome::Built { manifest, .. } => format!("built {}", names.manifest(manifest)),
        Outcome::BuildError { reason } => format!("build error: {reason}"),
        Outcome::Infrastructure { reason } => format!("infrastructure: {reason}"),
        other => format!("{other:?}"),
    };
    format!("{volunteer} reports on {lease}: {outcome}")
}

fn expired(names: &mut Names, expiry: Expiry) -> String {
    match expiry {
        Expiry::Undelivered(lease) => format!("{} was never taken up", names.lease(lease)),
        Expiry::VolunteerLost(lease) => format!("the volunteer of {} is silent", names.lease(lease)),
        Expiry::Stuck(lease) => format!("nothing moves on {}", names.lease(lease)),
        Expiry::Overdue(lease) => format!("{} has taken as long as it may", names.lease(lease)),
        Expiry::Request(request) => format!("{} is over its time", names.request(request)),
        Expiry::Source(job) => format!("the source of {} did not come", names.job(job)),
        Expiry::Confirmation(job) => format!("nobody confirmed the error of {}", names.job(job)),
        Expiry::Keeping(job) => format!("nobody kept what {} built", names.job(job)),
        Expiry::Exclusion(job) => format!("all may try {} again", names.job(job)),
    }
}

/// What came of it.
pub(crate) fn event(names: &mut Names, event: &Event) -> String {
    match event {
        Event::Queued { job, build_key } => {
            let (job, key) = (names.job(*job), names.key(*build_key));
            names.link(&key, &job);
            format!("{job} for {key} waits for a volunteer")
        }
        Event::Granted { lease, job, volunteer } => {
            let (lease, job) = (names.lease(*lease), names.job(*job));
            names.link(&job, &lease);
            format!("{} gets {lease} on {job}", names.node(volunteer))
        }
        Event::LeaseEnded { lease, job, volunteer, end } => {
            format!("{} of {} on {} ends: {end:?}", names.lease(*lease), names.node(volunteer), names.job(*job))
        }
        Event::Keeping { job, build_key, manifest, builder } => {
            let (key, manifest) = (names.key(*build_key), names.manifest(*manifest));
            names.link(&key, &manifest);
            format!("{manifest}, built by {} in {} for {key}, is to be kept", names.node(builder), names.job(*job))
        }
        Event::Decided { build_key, manifest, holding } => {
            format!("the verdict on {} is {} ({holding:?})", names.key(*build_key), names.manifest(*manifest))
        }
        Event::Ended { request, ended } => format!("{} has ended: {}", names.request(*request), end(names, ended)),
        Event::Notice { notice } => format!("{} is to be mailed", names.notice(*notice)),
        Event::Unbuilt { build_key } => format!("nobody has what was built for {}", names.key(*build_key)),
        Event::Amended { version } => format!("charter {version} is in force"),
    }
}

/// How a request ended.
pub(crate) fn end(names: &mut Names, ended: &Ended) -> String {
    match ended {
        Ended::Built { manifest, how, holding } => format!("{} ({how:?}, {holding:?})", artifact(names, *manifest)),
        Ended::BuildError { reason, confirmed } => format!("build error: {reason} (confirmed: {confirmed:?})"),
        Ended::Infrastructure { reason } => format!("infrastructure: {reason}"),
        Ended::Policy(end) => format!("{end:?}"),
    }
}

fn artifact(names: &mut Names, id: ManifestId) -> String {
    format!("built {}", names.manifest(id))
}

/// Several leases.
pub(crate) fn leases(names: &mut Names, leases: &[LeaseId]) -> String {
    leases.iter().map(|lease| names.lease(*lease)).collect::<Vec<_>>().join(" ")
}
