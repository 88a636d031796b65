//! Errors of the rooms below, each as an exit code and a sentence that says what to do next.

use crate::exit::{Exit, Failure};
use crate::sentences::Said;
use node::artifact::transfer::TransferError;
use node::client::get::GetError;
use node::client::order::OrderError;
use node::client::owner::OwnerError;
use node::client::session::JoinError;
use node::client::wish::WishError;
use node::coordinator::open::OpenLedgerError;
use node::coordinators::NoCoordinator;
use node::following::LearnError;
use node::founding::MembershipError;
use node::home::HomeError;
use node::network::{CallError, StartError as NetworkError};
use node::node::{LogFailed, StartError};
use node::opening::OpenError;
use node::source::FetchError;
use node::source::git::ResolveError;
use node::volunteer::staff::StaffError;
use node::volunteer::survey::SurveyError;
use protocol::source::HttpsUrl;
use protocol::ticket::Contact;
use protocol::wire::Refusal;
use std::path::Path;

fn failure(exit: Exit, what: impl Into<String>, next: impl Into<String>) -> Failure {
    Failure::new(exit, Said::with_next(what, next))
}

pub(super) fn of_home(error: &HomeError) -> Failure {
    let what = error.to_string();
    match error {
        HomeError::InUse(_) => {
            failure(Exit::Usage, what, "stop it, or give this one a home of its own with `--home DIR`")
        }
        HomeError::Exposed(path) => {
            let mend = format!(
                "take the others' rights away: `chmod 600 {}`; if somebody may have read the key, remove it",
                path.display()
            );
            failure(Exit::Usage, what, mend)
        }
        HomeError::Damaged { path, .. } => failure(Exit::Infrastructure, what, mend(path)),
        HomeError::OtherLayout { .. } => failure(
            Exit::Usage,
            what,
            "use the version of the program that wrote it, or give another home with `--home DIR`",
        ),
        HomeError::Io { .. } => failure(
            Exit::Infrastructure,
            what,
            "look at the rights and the free space of the home, or give another with `--home DIR`",
        ),
    }
}

/// How to go on without a file of the home.
fn mend(path: &Path) -> String {
    let shown = path.display();
    match path.file_name().and_then(|name| name.to_str()) {
        Some("farm.key") => format!("put {shown} back from a copy: without it the farm's charter can never be changed"),
        Some("node.key") => {
            format!(
                "put {shown} back from a copy; without it, moved away, this node is another peer, and no coordinator"
            )
        }
        Some("requester.key") => {
            format!("put {shown} back from a copy; without it, moved away, what waits can no longer be taken back")
        }
        Some("ticket") => format!("move {shown} away, and give the ticket again with `--farm TICKET`"),
        Some("charter") => {
            format!(
                "move {shown} away: it is learnt anew from the farm, or from the farm's own log where it was founded"
            )
        }
        _ => format!("move {shown} away; it is written anew"),
    }
}

/// Peers of a ticket, and how each failed.
fn contacts(tried: &[(Contact, CallError)]) -> String {
    let tried: Vec<String> = tried
        .iter()
        .map(|(contact, error)| match (error, contact.addresses.as_slice()) {
            (_, []) => format!("{} at no address", contact.key.short()),
            // It names the addresses itself.
            (CallError::Unreachable { reason, .. }, [first, ..]) if reason.starts_with(first.as_str()) => {
                format!("{} at {reason}", contact.key.short())
            }
            (error, addresses) => format!("{} at {}: {}", contact.key.short(), addresses.join(", "), why(error)),
        })
        .collect();
    list(&tried)
}

pub(super) fn of_join(error: &JoinError) -> Failure {
    match error {
        JoinError::NoFarm => Failure::new(Exit::Unreachable, crate::sentences::no_farm()),
        JoinError::Unreachable { tried } => {
            let what = format!("no peer of the farm can be reached; tried {}", contacts(tried));
            failure(
                Exit::Unreachable,
                what,
                "look whether a daemon of the farm runs, or ask for a fresh ticket: `node farm show` prints it",
            )
        }
        JoinError::NoCharter => failure(
            Exit::Unreachable,
            "peers answer, but none knows the farm's charter",
            "try again when a coordinator is up",
        ),
        JoinError::Charter(error) => failure(
            Exit::Unreachable,
            format!("a peer's charter is not this farm's: {error}"),
            "check the ticket with whoever gave it to you",
        ),
        JoinError::Home(error) => of_home(error),
        JoinError::Network(_) => failure(Exit::Infrastructure, error.to_string(), "`node doctor` looks for the cause"),
    }
}

pub(super) fn of_owner(error: &OwnerError) -> Failure {
    let what = error.to_string();
    match error {
        OwnerError::Home(error) => of_home(error),
        OwnerError::NotServing => failure(
            Exit::Infrastructure,
            "a daemon holds this home and does not serve: it is starting, or ending",
            "try again in a moment",
        ),
        OwnerError::Network(_) => failure(Exit::Infrastructure, what, "`node doctor` looks for the cause"),
        OwnerError::Unreachable(error) => failure(
            Exit::Infrastructure,
            format!("the daemon of this home cannot be reached: {}", why(error)),
            "look whether it hangs; stopped, its store is open to this command",
        ),
        OwnerError::Refused(Refusal::NotAllowed) => failure(
            Exit::Policy,
            "the daemon does what its owner says, and `node.key` in this home is not its key",
            "use the home in which the daemon was started: `--home DIR`",
        ),
        OwnerError::Refused(Refusal::Failed(reason)) => {
            failure(Exit::Infrastructure, reason.clone(), "look at the disk's health and free space")
        }
        OwnerError::Refused(_) => failure(Exit::Infrastructure, what, "try again in a moment"),
        OwnerError::Unexpected => {
            failure(Exit::Infrastructure, what, "the daemon may be of another version: start it again")
        }
    }
}

pub(super) fn of_order(error: &OrderError) -> Failure {
    match error {
        OrderError::NoCoordinator(none) => of_no_coordinator(none),
        OrderError::Rejected(rejection) => rejection.into(),
        OrderError::Unknown => failure(
            Exit::Usage,
            "the farm knows no such request",
            "`node status` lists those that wait; ended ones are forgotten after a while",
        ),
        OrderError::Nonsense => failure(
            Exit::Infrastructure,
            "a peer gave no sensible answer",
            "compare the versions: `node --version` here and there",
        ),
    }
}

pub(super) fn of_no_coordinator(none: &NoCoordinator) -> Failure {
    if let [(_, CallError::Refused { refusal, .. })] = none.tried.as_slice() {
        return refusal.into();
    }
    let tried: Vec<String> =
        none.tried.iter().map(|(peer, error)| format!("{}: {}", peer.short(), why(error))).collect();
    let what = format!("no coordinator can be reached; tried {}", list(&tried));
    failure(
        Exit::Unreachable,
        what,
        "builds that exist can still be fetched with `node request`; new ones wait until a coordinator is back",
    )
}

pub(super) fn of_wish(error: &WishError) -> Failure {
    failure(Exit::Usage, error.to_string(), "`node recipe show NAME` lists options and source")
}

pub(super) fn of_resolve(url: &HttpsUrl, error: &ResolveError) -> Failure {
    let next = match error {
        ResolveError::Fetch(error) => return of_fetch(url.as_str(), error),
        ResolveError::Unknown { .. } | ResolveError::NoHead { .. } => {
            format!("`git ls-remote {url}` lists its branches and tags; `--revision` names one, or a commit")
        }
        ResolveError::AmbiguousName { .. } => "write the whole name, such as `--revision refs/heads/NAME`".to_owned(),
        ResolveError::AmbiguousCommit { .. } => "write more of its digits".to_owned(),
    };
    failure(Exit::Usage, error.to_string(), next)
}

pub(super) fn of_fetch(url: &str, error: &FetchError) -> Failure {
    let what = format!("{url} cannot be fetched: {error}");
    let look = "look at the address; a browser or `curl` from this machine tells more";
    match error {
        FetchError::NotPublic { range, .. } if range.can_be_allowed() => failure(
            Exit::Usage,
            what,
            "if that network is yours, add `--allow-private-sources`; the volunteer that fetches needs it as well",
        ),
        FetchError::Url(_)
        | FetchError::NotHttps(_)
        | FetchError::NotPublic { .. }
        | FetchError::NotARepository { .. }
        | FetchError::Login { .. } => failure(Exit::Usage, what, look),
        FetchError::NoGit | FetchError::OldGit { .. } => {
            failure(Exit::Infrastructure, what, "`node doctor` says how to install it")
        }
        FetchError::NoLength { .. } => {
            failure(Exit::Infrastructure, what, "download it and give the file with `--source FILE`")
        }
        FetchError::Transport { .. } | FetchError::Setup(_) => failure(
            Exit::Infrastructure,
            what,
            "look whether this machine reaches it; a certificate authority of your own is named with `--source-ca FILE`",
        ),
        FetchError::Write { .. } => {
            failure(Exit::Infrastructure, what, "look at the free space there, or name another folder in TMPDIR")
        }
        _ => failure(Exit::Infrastructure, what, "try again later, or look whether this machine reaches it"),
    }
}

pub(super) fn of_get(error: &GetError) -> Failure {
    match error {
        GetError::Wish(error) => of_wish(error),
        GetError::Order(error) => of_order(error),
        GetError::Transfer(error) => of_transfer(error),
        GetError::NoVerdict => {
            failure(Exit::Infrastructure, error.to_string(), "ask again: the build is then made anew if nobody has it")
        }
    }
}

pub(super) fn of_transfer(error: &TransferError) -> Failure {
    match error {
        TransferError::Sink(error) => failure(
            Exit::Infrastructure,
            format!("the files cannot be written: {error}"),
            "look at the folder's rights and the free space, or give another with `--output DIR`",
        ),
        error => failure(
            Exit::Infrastructure,
            format!("the files cannot be fetched: {error}"),
            "ask again: the farm has been told, and builds it anew if nobody has it",
        ),
    }
}

/// The farm's log failed under a coordinator that served.
pub(super) fn of_log(failed: &LogFailed) -> Failure {
    failure(
        Exit::Infrastructure,
        failed.to_string(),
        "look after the disk and start it again with the same command: what was acknowledged is in the log",
    )
}

/// A daemon did not start.
pub(super) fn of_start(error: StartError) -> Failure {
    match error {
        StartError::Home(error)
        | StartError::Opening(OpenError::Home(error))
        | StartError::Membership(MembershipError::Home(error))
        | StartError::Ledger(OpenLedgerError::Home(error)) => of_home(&error),
        StartError::Membership(MembershipError::NoFarm) => Failure::new(Exit::Usage, crate::sentences::no_farm()),
        StartError::Membership(error @ MembershipError::OtherFarm { .. }) => {
            failure(Exit::Usage, error.to_string(), "use that name, or another home with `--home DIR`")
        }
        StartError::Membership(error) => {
            failure(Exit::Infrastructure, error.to_string(), "move the file `charter` of the home away")
        }
        StartError::Volunteer(StaffError::Sandbox(error)) => {
            let mend = error.remedy().unwrap_or_else(|| "`node doctor` looks for the cause".to_owned());
            failure(Exit::Infrastructure, format!("this machine cannot run builds: {error}"), mend)
        }
        StartError::Volunteer(StaffError::Survey(SurveyError::Tool(error))) => {
            failure(Exit::Usage, error.to_string(), "write `--tool NAME=PREFIX` with a folder that holds bin/NAME")
        }
        StartError::Network(error @ NetworkError::Listen { .. }) => failure(
            Exit::Usage,
            error.to_string(),
            "another program may have the port: stop it, or choose another with `--listen ADDR`",
        ),
        StartError::Network(error) => failure(Exit::Usage, error.to_string(), "`node --help` explains the flags"),
        error @ StartError::Opening(OpenError::Index(_)) => failure(
            Exit::Infrastructure,
            error.to_string(),
            "move the folder `index` of the home away: it is made anew from the store",
        ),
        StartError::Ledger(error) => of_ledger(&error),
        StartError::NoCharter(LearnError::Nobody { tried }) => failure(
            Exit::Unreachable,
            format!("no peer that knows the farm's charter can be reached; tried {}", contacts(&tried)),
            "look whether a coordinator runs and can be reached at an address of the ticket",
        ),
        error @ StartError::NoCharter(_) => failure(
            Exit::Unreachable,
            error.to_string(),
            "look whether a coordinator runs and can be reached at an address of the ticket",
        ),
        error @ (StartError::Charterless | StartError::Mail(_)) => {
            failure(Exit::Usage, error.to_string(), "`node --help` explains the flags")
        }
        error => failure(Exit::Infrastructure, error.to_string(), "`node doctor` looks for the cause"),
    }
}

fn of_ledger(error: &OpenLedgerError) -> Failure {
    let next = match error {
        OpenLedgerError::Lost(_) | OpenLedgerError::Log(_) => {
            "put the folder `raft` of the home back from a copy; or move it and the file `begun` away to begin with an empty \
             queue: finished builds stay, and what waited is forgotten"
        }
        OpenLedgerError::NotACoordinator => {
            "put the `node.key` that founded the farm back from a copy, or volunteer only: leave `--coordinator` out"
        }
        _ => "`node doctor` looks for the cause",
    };
    failure(Exit::Infrastructure, error.to_string(), next)
}

fn why(error: &CallError) -> String {
    match error {
        CallError::Unreachable { reason, .. } | CallError::Broken { reason, .. } => reason.clone(),
        CallError::Timeout(_) => "no answer in time".to_owned(),
        CallError::Refused { refusal, .. } => refusal.to_string(),
        CallError::Closed => "the network was closed".to_owned(),
    }
}

fn list(tried: &[String]) -> String {
    if tried.is_empty() { "nobody".to_owned() } else { tried.join("; ") }
}
