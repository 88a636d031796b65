//! The deterministic rules of a farm.
//!
//! [`Farm`] is the whole state; [`Farm::apply`] is the only way it changes. The same entries in the same order give the same
//! farm, on every coordinator and byte for byte in its snapshot; a rejected command leaves it untouched.
//!
//! - what is said: [`command`]; what is shown: [`explain`]
//! - the state: `asked` (requests), `job`, [`queue`], [`account`], [`lease`], [`holding`], [`notice`]
//! - the rules: `submit`, `scheduler`, `attempt`, `report`, [`quorum`], `settle`, [`holding`]
//! - what only the leader knows and may forget: [`liveness`], [`roster`], [`stamp`]
//! - what must always hold: [`invariants`]

pub mod account;
mod asked;
mod attempt;
pub mod command;
pub mod durations;
pub mod explain;
pub mod holding;
pub mod invariants;
mod job;
pub mod lease;
pub mod liveness;
pub mod notice;
mod place;
pub mod queue;
pub mod quorum;
mod report;
pub mod roster;
mod scheduler;
mod settle;
pub mod stamp;
mod submit;
mod view;

use crate::charter::Charter;
use crate::codec::CodecError;
use crate::id::{BuildKey, FarmId, RequestId};
use crate::signed::Signed;
use crate::time::Timestamp;
use account::Accounts;
use asked::{Asked, Fate};
use command::{Applied, Command, Entry, Event, Expiry, LawVersion, Rejection, Reply};
use durations::Durations;
use holding::Builds;
use job::{Effort, Job, Jobs};
use lease::Leases;
use notice::Notices;
use queue::Queue;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Read as _, Write};

pub use account::MAX_OPEN_REQUIREMENTS;
pub use asked::REMEMBERED_AFTER_EXPIRY;
pub use attempt::{MAX_CAUSES, MAX_VOLUNTEERS_LOST, RETRY_AFTER};
pub use job::{MAX_EXCLUSIONS, MAX_PAST_LEASES};
pub use report::{CONFIRM_WITHIN, ERROR_REMEMBERED_FOR};
pub use submit::SOURCE_WITHIN;
pub use view::{FarmCounts, JobView, Resolved};

/// The version of the snapshot's form.
pub const SNAPSHOT_VERSION: u16 = 1;

/// A confirmed build error, remembered for an hour.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RememberedError {
    reason: String,
    at: Timestamp,
    trail: job::Trail,
}

/// The charter in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct InForce {
    farm: FarmId,
    charter: Charter,
    signed: Signed,
}

/// One entry while it is applied.
#[derive(Debug)]
struct Turn {
    index: u64,
    now: Timestamp,
    events: Vec<Event>,
}

/// A farm: its charter, requests, jobs, leases, builds and notices.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Farm {
    law: LawVersion,
    applied: u64,
    now: Timestamp,
    in_force: Option<InForce>,
    requests: BTreeMap<RequestId, Box<Asked>>,
    accounts: Accounts,
    jobs: Jobs,
    queue: Queue,
    leases: Leases,
    builds: Builds,
    errors: BTreeMap<BuildKey, RememberedError>,
    durations: Durations,
    notices: Notices,
    /// What is to happen unless something else does first.
    #[serde(skip)]
    deadlines: BTreeSet<(Timestamp, Expiry)>,
    /// Ended requests by the time from which they may be forgotten.
    #[serde(skip)]
    ended: BTreeSet<(Timestamp, RequestId)>,
}

impl Default for Farm {
    fn default() -> Self {
        Self::new()
    }
}

impl Farm {
    /// A farm that is not founded yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            law: LawVersion(1),
            applied: 0,
            now: Timestamp::EPOCH,
            in_force: None,
            requests: BTreeMap::new(),
            accounts: Accounts::default(),
            jobs: Jobs::default(),
            queue: Queue::default(),
            leases: Leases::default(),
            builds: Builds::default(),
            errors: BTreeMap::new(),
            durations: Durations::default(),
            notices: Notices::default(),
            deadlines: BTreeSet::new(),
            ended: BTreeSet::new(),
        }
    }

    /// Applies one entry of the log: the only way state changes.
    ///
    /// Time never goes back: an entry with an earlier stamp than the last is applied at the last stamp. A rejection leaves
    /// the farm as it was, last index and stamp included.
    pub fn apply(&mut self, entry: Entry) -> Applied {
        let Entry { index, now, command } = entry;
        let mut turn = Turn { index, now: now.max(self.now), events: Vec::new() };
        let reply = if index <= self.applied { Err(Rejection::OutOfOrder) } else { self.command(&mut turn, command) };
        if reply.is_ok() {
            (self.applied, self.now) = (index, turn.now);
        }
        Applied { reply, events: turn.events }
    }

    fn command(&mut self, turn: &mut Turn, command: Command) -> Result<Reply, Rejection> {
        match (&self.in_force, command) {
            (None, Command::Found { charter }) => return self.found(turn, charter),
            (None, _) | (Some(_), Command::Found { .. }) => return Err(Rejection::Founding),
            (Some(_), Command::Submit { request, subscriptions, source }) => {
                return self.submit(turn, request, &subscriptions, source);
            }
            (Some(_), Command::Grant { job, volunteer, capability, fingerprint, nonce, bounds }) => {
                let claim = attempt::Claim { volunteer, capability, fingerprint, nonce, bounds };
                return self.grant(turn, job, claim);
            }
            (Some(_), Command::Cancel { request, by }) => self.cancel(turn, request, by),
            (Some(_), Command::SourceHeld { job }) => self.source_held(turn, job),
            (Some(_), Command::Refuse { lease, volunteer, reason }) => self.refuse(turn, lease, volunteer, &reason),
            (Some(_), Command::HandBack { lease, volunteer }) => self.hand_back(turn, lease, volunteer),
            (Some(_), Command::Report { report, witnesses }) => self.report(turn, report, witnesses),
            (Some(_), Command::Held { build_key, manifest, holder }) => self.held(turn, build_key, manifest, holder),
            (Some(_), Command::Lost { build_key, holder }) => self.lost(turn, build_key, holder),
            (Some(_), Command::Expire(expiry)) => self.expire(turn, expiry),
            (Some(_), Command::NoticeAttempt { notice }) => {
                self.known_notice(notice).map(|()| self.notices.attempt(notice))
            }
            (Some(_), Command::NoticeSent { notice }) => self.known_notice(notice).map(|()| self.notices.sent(notice)),
            (Some(_), Command::NoticeFailed { notice, permanence, reason }) => self.known_notice(notice).map(|()| {
                self.notices.failed(notice, permanence, bounded(reason), turn.now);
            }),
            (Some(_), Command::Amend { charter }) => self.amend(turn, charter),
            (Some(_), Command::Prune) => {
                self.prune(turn.now);
                Ok(())
            }
            (Some(_), Command::RaiseLaw { version }) => self.raise_law(version),
        }
        .map(|()| Reply::Done)
    }

    fn expire(&mut self, turn: &mut Turn, expiry: Expiry) -> Result<(), Rejection> {
        match expiry {
            Expiry::Undelivered(lease) => self.expire_undelivered(turn, lease),
            Expiry::VolunteerLost(lease) => self.expire_volunteer(turn, lease),
            Expiry::Stuck(lease) => self.expire_stuck(turn, lease),
            Expiry::Overdue(lease) => self.expire_overdue(turn, lease),
            Expiry::Request(request) => self.expire_request(turn, request),
            Expiry::Source(job) => self.expire_source(turn, job),
            Expiry::Confirmation(job) => self.expire_doubt(turn, job),
            Expiry::Keeping(job) => self.expire_keeping(turn, job),
            Expiry::Exclusion(job) => self.expire_exclusion(turn, job),
        }
    }

    fn found(&mut self, turn: &mut Turn, signed: Signed) -> Result<Reply, Rejection> {
        let farm = FarmId::of(&signed.key);
        let charter = Charter::open(&signed, farm).map_err(|_| Rejection::Charter)?;
        // A log that was lost for good begins again under the charter that was in force, never under a second first one.
        if charter.version == 0 || (charter.version == 1) != charter.predecessor.is_none() {
            return Err(Rejection::Charter);
        }
        turn.events.push(Event::Amended { version: charter.version });
        self.in_force = Some(InForce { farm, charter, signed });
        Ok(Reply::Done)
    }

    fn amend(&mut self, turn: &mut Turn, signed: Signed) -> Result<(), Rejection> {
        let in_force = self.in_force()?;
        let charter = Charter::open(&signed, in_force.farm).map_err(|_| Rejection::Charter)?;
        if in_force.signed == signed {
            return Ok(());
        }
        in_force.charter.is_followed_by(&in_force.signed, &charter).map_err(|_| Rejection::Charter)?;
        turn.events.push(Event::Amended { version: charter.version });
        self.in_force = Some(InForce { farm: in_force.farm, charter, signed });
        let jobs: Vec<_> = self.jobs.iter().map(|(id, _)| id).collect();
        for job in jobs {
            self.rearrange(job, |_| {});
        }
        Ok(())
    }

    fn raise_law(&mut self, version: LawVersion) -> Result<(), Rejection> {
        if version <= self.law || version > LawVersion::NEWEST {
            return Err(Rejection::Law(version));
        }
        self.law = version;
        Ok(())
    }

    fn known_notice(&self, notice: crate::id::NoticeId) -> Result<(), Rejection> {
        self.notices.get(notice).map(|_| ()).ok_or(Rejection::UnknownNotice)
    }

    /// Forgets ended requests that nobody can repeat any more, with their settled notices, and old build errors.
    fn prune(&mut self, now: Timestamp) {
        let due: Vec<_> = self.ended.iter().take_while(|(at, _)| *at <= now).copied().collect();
        for (at, id) in due {
            let Some(asked) = self.requests.get(&id) else { continue };
            let notices: Vec<_> = asked.addresses.iter().map(|address| notice::Notice::id(id, address)).collect();
            if notices.iter().any(|notice| self.notices.is_pending(*notice)) {
                continue;
            }
            for notice in notices {
                self.notices.forget(notice);
            }
            self.requests.remove(&id);
            self.ended.remove(&(at, id));
        }
        self.errors.retain(|_, error| now.since(error.at) < ERROR_REMEMBERED_FOR.duration());
    }

    fn in_force(&self) -> Result<&InForce, Rejection> {
        self.in_force.as_ref().ok_or(Rejection::Founding)
    }

    /// The whole farm in canonical bytes, with their version first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        crate::codec::encode(&(SNAPSHOT_VERSION, self))
    }

    /// Writes what [`Farm::snapshot`] gives, a little at a time: so a large farm is not twice in memory.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_snapshot(&self, out: impl Write) -> io::Result<()> {
        crate::codec::encode_to(out, &(SNAPSHOT_VERSION, self))
    }

    /// The farm of a snapshot that this program wrote and kept.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] when the bytes are of another version or damaged.
    pub fn restore(mut snapshot: impl BufRead) -> Result<Self, SnapshotError> {
        let damaged = |error: String| SnapshotError::Damaged(CodecError::Malformed(error));
        // An array of two, then the version: read alone, so that another version's form is never misread.
        let mut start = Vec::with_capacity(START_BYTES);
        let read = snapshot.by_ref().take(START_BYTES as u64).read_to_end(&mut start);
        read.map_err(|error| damaged(error.to_string()))?;
        let version = start.get(1..).map(cbor_u16).unwrap_or_default();
        if version != Some(SNAPSHOT_VERSION) {
            return Err(SnapshotError::Version(version));
        }
        let read = cbor4ii::serde::from_reader(start.as_slice().chain(snapshot));
        let (_, mut farm): (u16, Self) = read.map_err(|error| damaged(error.to_string()))?;
        farm.reindex();
        Ok(farm)
    }

    /// Makes everything that snapshots leave out because it follows from the rest.
    fn reindex(&mut self) {
        self.jobs.reindex();
        self.queue.reindex();
        self.leases.reindex();
        self.builds.reindex();
        self.notices.reindex();
        self.deadlines = self.due_dates().collect();
        self.ended = self.forgettable().collect();
        for (id, job) in self.jobs.iter() {
            if job.effort == Effort::Queued {
                self.queue.insert(job.lot, job.rank(id), job.fit());
            }
        }
    }

    /// Every deadline that follows from the state.
    fn due_dates(&self) -> impl Iterator<Item = (Timestamp, Expiry)> {
        let waiting = self.requests.iter().filter(|(_, asked)| matches!(asked.fate, Fate::Waiting(_)));
        let requests = waiting.map(|(id, asked)| (asked.expires_at, Expiry::Request(*id)));
        requests.chain(self.jobs.iter().flat_map(|(id, job)| job_dates(id, job)))
    }

    fn forgettable(&self) -> impl Iterator<Item = (Timestamp, RequestId)> {
        let ended = self.requests.iter().filter(|(_, asked)| matches!(asked.fate, Fate::Ended(_)));
        ended.map(|(id, asked)| (asked.forgotten_at(), *id))
    }
}

/// The deadlines of one job.
fn job_dates(id: crate::id::JobId, job: &Job) -> impl Iterator<Item = (Timestamp, Expiry)> {
    let source = match job.effort {
        Effort::AwaitingSource(until) => Some((until, Expiry::Source(id))),
        Effort::Queued | Effort::Leased(_) | Effort::Idle => None,
    };
    let history = job.history.as_ref();
    let doubt = job.doubt().map(|doubt| (doubt.until, Expiry::Confirmation(id)));
    let keeping = job.keeping().map(|keeping| (keeping.until, Expiry::Keeping(id)));
    let retry = history.and_then(|history| history.retry_at).map(|at| (at, Expiry::Exclusion(id)));
    [source, doubt, keeping, retry].into_iter().flatten()
}

/// Why bytes are not a snapshot of this program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Written in another form; `None` when no version can be read.
    #[error("the snapshot is of version {0:?}, this program reads {SNAPSHOT_VERSION}")]
    Version(Option<u16>),
    /// The bytes are damaged.
    #[error("the snapshot is damaged: {0}")]
    Damaged(CodecError),
}

/// The bytes in which the version lies: the head of the array, and at most three of a small integer.
const START_BYTES: usize = 4;

/// A small CBOR integer at the start of `bytes`.
fn cbor_u16(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [small @ 0..=23, ..] => Some(u16::from(*small)),
        [0x18, byte, ..] => Some(u16::from(*byte)),
        [0x19, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Free text from outside, cut to what the farm keeps.
fn bounded(mut text: String) -> String {
    let mut end = text.len().min(crate::report::MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
