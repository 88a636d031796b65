//! Typed values become sentences: what happened, why, and what to do next.
//!
//! Words of peers inside a sentence are not escaped here; [`crate::output`] escapes everything it prints. A sentence has no
//! full stop at its end and puts commands between backticks.

mod standing;

pub(crate) use standing::{clocks_differ, estimate, heard, hearsay, no_progress, passed_on, standing};

use protocol::farm::command::{JobState, Rejection};
use protocol::farm::explain::{Confirmed, Ended, Explanation, HowBuilt, PolicyEnd, Presence, Unmet};
use protocol::id::RequestId;
use protocol::platform::{Acceptance, Constraint};
use protocol::recipe::Recipe;
use protocol::report::{Fingerprint, Holding, Limit, Reproducibility};
use protocol::request::Priority;
use protocol::source::Commit;
use protocol::time::Timestamp;
use protocol::wire::Refusal;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Something said to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// What happened, and why.
    pub(crate) what: String,
    /// What to do next, where there is anything to do.
    pub(crate) next: Option<String>,
}

impl Said {
    /// A sentence after which nothing needs doing.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), next: None }
    }

    /// A sentence and what to do next.
    pub(crate) fn with_next(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: Some(next.into()) }
    }
}

/// Why a request waits; `None` when it does not wait.
pub(crate) fn waiting_because(explanation: &Explanation) -> Option<String> {
    match explanation {
        Explanation::Unknown | Explanation::Ended(_) | Explanation::Running { .. } => None,
        Explanation::AwaitingSource => Some("its recipe or source is still on the way to the farm".to_owned()),
        Explanation::Keeping => Some("it is built; a second copy is being made".to_owned()),
        Explanation::Unmet { volunteers, platform, unmet } => Some(unmet_because(*volunteers, platform, unmet)),
        Explanation::Waiting { busy, free, gone, excluded, ahead, confirming } => {
            let crowd = Crowd { busy: *busy, free: *free, gone: *gone, excluded: *excluded, ahead: *ahead };
            Some(crowd.because(confirming.as_ref()))
        }
    }
}

fn unmet_because(volunteers: u32, platform: &str, unmet: &[Unmet]) -> String {
    let crowd = if platform.is_empty() { "volunteers".to_owned() } else { format!("{platform} volunteers") };
    if volunteers == 0 {
        return format!("needs one of the {crowd}: none is in the farm now");
    }
    match unmet {
        [] => format!("0 of {volunteers} {crowd} accept this recipe"),
        [only] => format!("needs {}: {} of {volunteers} {crowd} have it", need(only), only.met_by),
        several => {
            let parts: Vec<_> =
                several.iter().map(|unmet| format!("{} ({} of {volunteers})", need(unmet), unmet.met_by)).collect();
            format!("needs {}: 0 of {volunteers} {crowd} have all of it", parts.join(", "))
        }
    }
}

/// A constraint as people say it.
fn need(unmet: &Unmet) -> String {
    let name = match unmet.key.split_once('.') {
        Some((sort @ ("tool" | "header"), name)) => format!("{sort} {name}"),
        _ => unmet.key.clone(),
    };
    match (&unmet.constraint, name.as_str()) {
        (Constraint::Present, _) => name,
        (Constraint::AtLeast(value), "cores") => format!("{value} cores"),
        (Constraint::AtLeast(value), "memory_mib") => format!("{value} MiB of memory"),
        (Constraint::AtLeast(value), "disk_mib") => format!("{value} MiB of disk"),
        (Constraint::AtLeast(value), _) => format!("{name} >= {value}"),
        (Constraint::Is(value), _) => format!("{name} = {value}"),
    }
}

/// Volunteers that could do a job, by what keeps them from it.
struct Crowd {
    busy: u32,
    free: u32,
    gone: u32,
    excluded: u32,
    ahead: u32,
}

impl Crowd {
    fn because(&self, confirming: Option<&Fingerprint>) -> String {
        let parts: Vec<String> = [
            (self.busy, "busy"),
            (self.free, "free and about to be asked"),
            (self.gone, "gone silent"),
            (self.excluded, "refused or tried it already"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        let mut sentence = match confirming {
            Some(fingerprint) => format!("waits for a second volunteer with the same environment ({fingerprint})"),
            None => "waits for a volunteer".to_owned(),
        };
        if !parts.is_empty() {
            sentence.push_str(&format!(": {}", parts.join(", ")));
        }
        match self.ahead {
            0 => {}
            1 => sentence.push_str("; 1 job comes first"),
            ahead => sentence.push_str(&format!("; {ahead} jobs come first")),
        }
        sentence
    }
}

/// An older commit is as good, because it is built.
pub(crate) fn older_commit(commit: &Commit, back: usize) -> String {
    let back = match back {
        1 => "1 commit".to_owned(),
        back => format!("{back} commits"),
    };
    format!("taking the build of {commit}, {back} back: the nearest that is finished")
}

/// How a request ended.
pub(crate) fn ended(ended: &Ended, request: RequestId) -> Said {
    let request = request.short();
    match ended {
        Ended::Built { how, holding, .. } => {
            let what = match how {
                HowBuilt::Built => "built",
                HowBuilt::Cached => "it had been built before",
            };
            let copies = match holding {
                Holding::Kept => "",
                Holding::SingleHolder => "; one machine holds the only copy",
            };
            Said::with_next(format!("{what}{copies}"), format!("`node fetch {request}` brings the files"))
        }
        Ended::BuildError { reason, confirmed } => {
            let second = match confirmed {
                Confirmed::Yes => "; a second volunteer failed alike",
                Confirmed::No => "; no other volunteer was there to confirm it",
            };
            Said::with_next(format!("build error: {reason}{second}"), format!("`node logs {request}` shows the log"))
        }
        Ended::Infrastructure { reason } => Said::with_next(
            format!("the farm failed, not the recipe: {reason}"),
            "ask again with the same command; `node volunteers` shows who is there",
        ),
        Ended::Policy(end) => policy(end, &request),
    }
}

fn policy(end: &PolicyEnd, request: &str) -> Said {
    match end {
        PolicyEnd::Limit(limit @ Limit::Step(_)) => Said::with_next(
            format!("stopped at a limit: it {} ({limit})", beyond(*limit)),
            format!(
                "`node logs {request}` shows how far it came; whoever writes the recipe can raise the step's `time_s`"
            ),
        ),
        PolicyEnd::Limit(limit) => Said::with_next(
            format!("stopped at a limit: it {} ({limit})", beyond(*limit)),
            format!("`node logs {request}` shows how far it came; a volunteer whose owner allows more may do it"),
        ),
        PolicyEnd::Cancelled => Said::new("cancelled by its requester"),
        PolicyEnd::Expired => Said::with_next(
            "expired: no volunteer could build it in time",
            format!("ask again with a longer `--expires`; `node status {request}` says what was missing"),
        ),
        PolicyEnd::SourceNeverArrived => Said::with_next(
            "its source never arrived at the farm",
            "ask again, and let the command run until it says that the farm holds the source",
        ),
        PolicyEnd::NoAgreement => Said::with_next(
            "the volunteers' results never agreed as often as demanded",
            "ask with a smaller `--agree`, or build it yourself with `node request` in a home without a farm",
        ),
    }
}

fn beyond(limit: Limit) -> String {
    let words = match limit {
        Limit::Step(number) => return format!("took longer in step {number} than the recipe allows that step"),
        Limit::Deadline => "took longer than allowed",
        Limit::Memory => "needed more memory than allowed",
        Limit::Processes => "started more processes than allowed",
        Limit::Disk => "wrote more to disk than allowed",
        Limit::Log => "wrote a longer log than allowed",
        Limit::Quiet => {
            "showed no sign of progress for longer than its recipe allows, neither output nor processor time"
        }
    };
    words.to_owned()
}

/// What `--agree` counts, where that is not equal bytes.
pub(crate) fn agreement(recipe: &Recipe, agree: NonZeroU8) -> Option<String> {
    match recipe.reproducibility() {
        Reproducibility::NotClaimed if agree.get() > 1 => Some(format!(
            "recipe `{}` does not claim that equal inputs give equal bytes: `--agree {agree}` counts {agree} volunteers \
             whose builds pass its smoke test",
            recipe.name()
        )),
        Reproducibility::Claimed | Reproducibility::NotClaimed => None,
    }
}

/// Why the farm changed nothing.
pub(crate) fn rejected(rejection: &Rejection) -> Said {
    let what = |reason: &str| format!("the farm says no: {reason}");
    match rejection {
        Rejection::UnknownRequest => Said::with_next(
            what("no such request is known"),
            "`node status` lists what waits; finished requests are forgotten after a while, `node builds` lists what they made",
        ),
        Rejection::UnknownBuild => {
            Said::with_next(what("no such build is known"), "`node builds` lists the finished ones")
        }
        Rejection::NotYours => Said::with_next(
            what("somebody else made this request"),
            "use the home directory whose `requester.key` signed it (`--home DIR`)",
        ),
        Rejection::Stale => Said::with_next(
            what("the request has expired or lives too long, or the clocks differ by too much"),
            "compare this machine's clock, and ask again",
        ),
        Rejection::TooMany => Said::with_next(
            what("too many of your requests are waiting"),
            "let some finish, or take some back with `node cancel REQUEST`",
        ),
        Rejection::OutOfBounds => Said::with_next(
            what("something in the request is too long or too many"),
            "ask with fewer addresses, a smaller `--agree` or shorter texts",
        ),
        Rejection::Damaged(reason) => Said::with_next(
            what(&format!("the call arrived damaged ({reason})")),
            "compare `node --version` on both sides",
        ),
        Rejection::Law(_) => {
            Said::with_next(what(&rejection.to_string()), "update the program on the coordinators first")
        }
        Rejection::OutOfOrder
        | Rejection::Founding
        | Rejection::UnknownJob
        | Rejection::UnknownLease
        | Rejection::UnknownNotice
        | Rejection::NotGrantable
        | Rejection::Excluded
        | Rejection::OtherFingerprint
        | Rejection::NotDue
        | Rejection::ReportDoesNotCount
        | Rejection::Charter => Said::with_next(what(&rejection.to_string()), "`node status` shows what the farm does"),
    }
}

/// Why a peer did not answer.
pub(crate) fn refused(refusal: &Refusal) -> Said {
    match refusal {
        Refusal::NotACoordinator => Said::with_next(
            "no coordinator was reached: the peer that answered is none",
            "`node farm show` names the coordinators; give a newer ticket with `--farm`",
        ),
        Refusal::NotTheLeader => {
            Said::with_next("the coordinators have no leader at the moment", "try again in a few seconds")
        }
        Refusal::Version(version) => Said::with_next(
            format!("the peer speaks protocol version {version}, this program {}", protocol::wire::PROTOCOL_VERSION),
            "run the same version of the program on both sides",
        ),
        Refusal::OtherFarm => {
            Said::with_next("the peer belongs to another farm", "give the ticket of the farm you mean with `--farm`")
        }
        Refusal::Invalid(reason) => Said::with_next(
            format!("the peer does not understand the call: {reason}"),
            "compare `node --version` on both sides",
        ),
        Refusal::NotAllowed => Said::with_next(
            "this is not for you to ask",
            "sources are for the volunteer that builds them, and a request is its requester's own",
        ),
        Refusal::ClockAhead => Said::with_next(
            "this machine's clock is more than five minutes ahead of the coordinator's",
            "set the clock that is wrong, then ask again",
        ),
        Refusal::Busy => Said::with_next("the coordinator has too much to do", "try again in a few seconds"),
        Refusal::Failed(reason) => {
            Said::with_next(format!("the coordinator failed: {reason}"), "its log says more; try again")
        }
        Refusal::ShuttingDown => Said::with_next("the coordinator is shutting down", "try again when it is back"),
    }
}

/// No farm is known where one is needed.
pub(crate) fn no_farm() -> Said {
    Said::with_next(
        "no farm is known in this home",
        "join one with `--farm TICKET`, or found one: `node --coordinator --volunteer --farm-name NAME`",
    )
}

/// `--lan` where nobody answers.
pub(crate) fn no_farm_on_lan() -> Said {
    Said::with_next(
        "no farm was found on the local network",
        "look whether a daemon of it runs here without `--no-mdns`, or join it with `--farm TICKET`",
    )
}

/// `--lan` where there is more than one: each with its name and ticket.
pub(crate) fn farms_on_lan(farms: impl Iterator<Item = (String, String)>) -> Said {
    let choices: Vec<String> = farms.map(|(name, ticket)| format!("{name}: `--farm {ticket}`")).collect();
    Said::with_next(
        format!("{} farms are on the local network", choices.len()),
        format!("choose one of them instead of `--lan`\n{}", choices.join("\n")),
    )
}

/// `--detach` where there is nobody to leave the request with.
pub(crate) fn detach_needs_a_farm() -> Said {
    Said::with_next(
        "`--detach` leaves the request with a farm, and none is known in this home",
        "start one that stays: `node --coordinator --volunteer --farm-name NAME`, or join one with `--farm TICKET`",
    )
}

/// The first line of a farm of one.
pub(crate) fn farm_of_one() -> Said {
    Said::new("no farm is known here: this command is a farm of one for as long as it runs")
}

/// A farm of one leaves although its mail could not be written.
pub(crate) fn mail_waits(folder: &Path) -> Said {
    Said::with_next(
        format!("the mail cannot be written to {}", folder.display()),
        "look at its rights and the free space; the next request in this home writes it",
    )
}

/// The keyboard said stop while a farm holds the request.
pub(crate) fn interrupted(request: RequestId) -> Said {
    let request = request.short();
    Said::with_next(
        "interrupted; the farm goes on with the request",
        format!("come back with `node fetch {request}`, or end it with `node cancel {request}`"),
    )
}

/// So many files.
pub(crate) fn files(count: usize) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// The keyboard said stop while a farm holds several requests.
pub(crate) fn interrupted_many(count: usize, again: &str) -> Said {
    Said::with_next(
        format!("interrupted; the farm goes on with {count} requests"),
        format!("`{again}` comes back to them; `node status` lists them, `node cancel REQUEST` ends one"),
    )
}

/// The keyboard said stop in a farm of one.
pub(crate) fn interrupted_alone(again: &str) -> Said {
    Said::with_next("interrupted; the build stopped with this command", format!("`{again}` takes it up again"))
}

/// The request is left with the farm.
pub(crate) fn detached(request: RequestId) -> Said {
    let request = request.short();
    Said::with_next(
        format!("the farm holds request {request} and its source"),
        format!("`node status {request}` says how it goes, `node fetch {request}` brings the files"),
    )
}

/// The state of a job in one word.
pub(crate) fn state(state: JobState) -> &'static str {
    match state {
        JobState::AwaitingSource => "awaiting_source",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Keeping => "keeping",
    }
}

/// A priority in one word.
pub(crate) fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Urgent => "urgent",
        Priority::Normal => "normal",
        Priority::Batch => "batch",
    }
}

/// A presence in one word.
pub(crate) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Free => "free",
        Presence::Busy => "busy",
        Presence::Gone => "gone",
    }
}

/// What an owner accepts in one word.
pub(crate) fn accepts(acceptance: &Acceptance) -> &'static str {
    match acceptance {
        Acceptance::Catalogue(_) => "catalogue",
        Acceptance::Members(_) => "members",
        Acceptance::Any => "any",
    }
}

/// A length of time in at most two units.
pub(crate) fn span(duration: Duration) -> String {
    let whole = match duration.as_secs() {
        0 => return format!("{} ms", duration.as_millis()),
        secs @ 1..3_600 => secs,
        secs @ 3_600..86_400 => secs / 60 * 60,
        secs => secs / 3_600 * 3_600,
    };
    humantime::format_duration(Duration::from_secs(whole)).to_string()
}

/// A moment, in UTC to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    /// The last second of the year 9999, in milliseconds; a peer may claim a later one.
    const LAST: u64 = 253_402_300_799_000;
    if at.as_millis() > LAST {
        return "after the year 9999".to_owned();
    }
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_millis(at.as_millis())).to_string()
}

#[cfg(test)]
#[path = "sentences/tests.rs"]
mod tests;
