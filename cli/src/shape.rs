//! The JSON objects of `--json`: an interface.
//!
//! One shape a verb. Every field is always there; what is not known, or does not apply, is null. A failure has the shape of
//! its verb with everything null but `reason`. Digests, keys and ids are 64 hexadecimal digits; times are milliseconds since
//! 1970 (`…_at_ms`) or lengths in milliseconds (`…_ms`); sizes are bytes.

mod outlook;

pub(crate) use outlook::{OutlookShape, heard};

use crate::sentences;
use protocol::farm::explain::{Ended, Explanation, HowBuilt, RequestView};
use protocol::id::RequestId;
use protocol::platform::Capability;
use protocol::time::Timestamp;
use protocol::wire::{BuildRow, FarmView, QueueRow, VolunteerView};
use serde::Serialize;
use std::collections::BTreeMap;

/// How a request ended, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A volunteer built it for this request.
    Built,
    /// It had been built before.
    Cached,
    /// The recipe's own failure.
    BuildError,
    /// The farm's failure.
    Infrastructure,
    /// A rule ended it.
    Policy,
}

impl From<&Ended> for Outcome {
    fn from(ended: &Ended) -> Self {
        match ended {
            Ended::Built { how: HowBuilt::Built, .. } => Self::Built,
            Ended::Built { how: HowBuilt::Cached, .. } => Self::Cached,
            Ended::BuildError { .. } => Self::BuildError,
            Ended::Infrastructure { .. } => Self::Infrastructure,
            Ended::Policy(_) => Self::Policy,
        }
    }
}

/// A file that was put on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FileShape {
    /// Absolute.
    pub(crate) path: String,
    /// SHA-256, as `sha256sum` prints it.
    pub(crate) digest: String,
    /// Bytes.
    pub(crate) size: u64,
    /// Permission bits, octal: `0755`.
    pub(crate) mode: String,
}

/// The commit that is built, where the source is a git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CommitShape {
    /// All its digits.
    pub(crate) commit: Option<String>,
    /// How many commits before the one that was named it is; 0 for that one itself.
    pub(crate) commits_back: Option<u32>,
}

/// `request` and `fetch`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RequestShape {
    pub(crate) request: Option<String>,
    pub(crate) build_key: Option<String>,
    /// Null while detached.
    pub(crate) outcome: Option<Outcome>,
    /// Why it ended as it did, where that is not success.
    pub(crate) reason: Option<String>,
    pub(crate) manifest: Option<String>,
    pub(crate) volunteer: Option<String>,
    #[serde(flatten)]
    pub(crate) commit: CommitShape,
    pub(crate) files: Option<Vec<FileShape>>,
    /// From acceptance to the start of the last attempt.
    pub(crate) queued_ms: Option<u64>,
    /// From that start to the end of the request.
    pub(crate) built_ms: Option<u64>,
    /// From the start of the command to the last file on disk.
    pub(crate) elapsed_ms: Option<u64>,
}

impl RequestShape {
    /// What a view tells about a request; files and elapsed time are the command's to add.
    pub(crate) fn of(request: RequestId, view: &RequestView) -> Self {
        let mut shape = Self {
            request: Some(request.to_string()),
            build_key: Some(view.build_key.to_string()),
            volunteer: view.volunteer.map(|volunteer| volunteer.to_string()),
            queued_ms: view.started_at.map(|at| millis(view.submitted_at, at)),
            built_ms: view.started_at.zip(view.ended_at).map(|(from, to)| millis(from, to)),
            ..Self::default()
        };
        if let Explanation::Ended(ended) = &view.explanation {
            shape.outcome = Some(ended.into());
            match ended {
                Ended::Built { manifest, .. } => shape.manifest = Some(manifest.to_string()),
                _ => shape.reason = Some(sentences::ended(ended, request).what),
            }
        }
        shape
    }
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    to.as_millis().saturating_sub(from.as_millis())
}

/// A coordinator in `farm show`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ContactShape {
    /// Public key.
    pub(crate) key: String,
    /// Multiaddrs, best first.
    pub(crate) addresses: Vec<String>,
}

/// `farm show`, and what a daemon prints once it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct FarmShape {
    pub(crate) farm_id: Option<String>,
    pub(crate) ticket: Option<String>,
    pub(crate) coordinators: Option<Vec<ContactShape>>,
    pub(crate) reason: Option<String>,
}

/// A row of the queue in `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct QueueShape {
    pub(crate) request: String,
    pub(crate) recipe: String,
    pub(crate) priority: &'static str,
    pub(crate) state: &'static str,
    pub(crate) attempts: u32,
    pub(crate) waiting_because: Option<String>,
}

impl From<&QueueRow> for QueueShape {
    fn from(row: &QueueRow) -> Self {
        Self {
            request: row.request.to_string(),
            recipe: row.recipe.clone(),
            priority: sentences::priority(row.priority),
            state: state(&row.view),
            attempts: row.view.attempts,
            waiting_because: sentences::waiting_because(&row.view.explanation),
        }
    }
}

/// What a request does, in one word.
pub(crate) fn state(view: &RequestView) -> &'static str {
    match (&view.explanation, view.state) {
        (Explanation::Ended(_), _) => "finished",
        (_, Some(state)) => sentences::state(state),
        (Explanation::Unknown, None) => "unknown",
        (Explanation::AwaitingSource, None) => "awaiting_source",
        (Explanation::Running { .. }, None) => "running",
        (Explanation::Keeping, None) => "keeping",
        (Explanation::Unmet { .. } | Explanation::Waiting { .. }, None) => "queued",
    }
}

/// `status` of the farm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StatusShape {
    pub(crate) queued: Option<u64>,
    pub(crate) running: Option<u64>,
    pub(crate) finished: Option<u64>,
    pub(crate) volunteers: Option<u64>,
    pub(crate) mails_waiting: Option<u64>,
    pub(crate) mails_failed: Option<Vec<String>>,
    /// The first rows, in order.
    pub(crate) queue: Option<Vec<QueueShape>>,
    pub(crate) reason: Option<String>,
}

impl From<&FarmView> for StatusShape {
    fn from(view: &FarmView) -> Self {
        Self {
            queued: Some(view.queued),
            running: Some(view.running),
            finished: Some(view.finished),
            volunteers: Some(view.volunteers),
            mails_waiting: Some(view.mails_waiting),
            mails_failed: Some(view.mails_failed.clone()),
            queue: Some(view.queue.iter().map(QueueShape::from).collect()),
            reason: None,
        }
    }
}

/// `status` of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct RequestStatusShape {
    pub(crate) request: Option<String>,
    pub(crate) build_key: Option<String>,
    pub(crate) recipe: Option<String>,
    pub(crate) state: Option<&'static str>,
    pub(crate) attempts: Option<u32>,
    pub(crate) waiting_because: Option<String>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) manifest: Option<String>,
    pub(crate) volunteer: Option<String>,
    /// Distribution, libc and the tools that the recipe requires, with versions, where it is or was built.
    pub(crate) environment: Option<BTreeMap<String, String>>,
    pub(crate) submitted_at_ms: Option<u64>,
    pub(crate) started_at_ms: Option<u64>,
    pub(crate) ended_at_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) outlook: OutlookShape,
    pub(crate) reason: Option<String>,
}

impl RequestStatusShape {
    pub(crate) fn of(request: RequestId, view: &RequestView) -> Self {
        let ended = RequestShape::of(request, view);
        Self {
            request: ended.request,
            build_key: ended.build_key,
            recipe: Some(view.recipe.clone()),
            state: Some(state(view)),
            attempts: Some(view.attempts),
            waiting_because: sentences::waiting_because(&view.explanation),
            outcome: ended.outcome,
            manifest: ended.manifest,
            volunteer: ended.volunteer,
            environment: view.environment.as_ref().map(|environment| environment.0.clone()),
            submitted_at_ms: Some(view.submitted_at.as_millis()),
            started_at_ms: view.started_at.map(Timestamp::as_millis),
            ended_at_ms: view.ended_at.map(Timestamp::as_millis),
            outlook: view.into(),
            reason: ended.reason,
        }
    }
}

/// `logs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LogShape {
    pub(crate) request: Option<String>,
    /// The log as text; bytes that are no UTF-8 are written `\xNN`.
    pub(crate) log: Option<String>,
    /// Whether the build has ended, so that the log grows no more.
    pub(crate) complete: Option<bool>,
    pub(crate) reason: Option<String>,
}

/// `cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CancelShape {
    pub(crate) request: Option<String>,
    pub(crate) cancelled: Option<bool>,
    pub(crate) reason: Option<String>,
}

/// A row of `builds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct BuildShape {
    pub(crate) build_key: String,
    pub(crate) recipe: String,
    pub(crate) manifest: String,
    pub(crate) size: u64,
    pub(crate) holders: u32,
    /// Distribution, libc and the tools that the recipe requires, with versions.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) decided_at_ms: u64,
}

impl From<&BuildRow> for BuildShape {
    fn from(row: &BuildRow) -> Self {
        Self {
            build_key: row.build_key.to_string(),
            recipe: row.recipe.clone(),
            manifest: row.manifest.to_string(),
            size: row.size_bytes,
            holders: row.holders,
            environment: row.environment.0.clone(),
            decided_at_ms: row.decided_at.as_millis(),
        }
    }
}

/// `builds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct BuildsShape {
    pub(crate) builds: Option<Vec<BuildShape>>,
    pub(crate) reason: Option<String>,
}

/// A row of `volunteers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct VolunteerShape {
    pub(crate) volunteer: String,
    pub(crate) platform: String,
    /// `free`, `busy` or `gone`.
    pub(crate) presence: &'static str,
    pub(crate) slots: u16,
    pub(crate) busy: u16,
    /// `catalogue`, `members` or `any`.
    pub(crate) accepts: &'static str,
    /// How long ago it was heard.
    pub(crate) heard_ms: u64,
    /// What it found by looking; dotted keys, values as text.
    pub(crate) facts: BTreeMap<String, String>,
}

impl From<&VolunteerView> for VolunteerShape {
    fn from(view: &VolunteerView) -> Self {
        Self {
            volunteer: view.volunteer.to_string(),
            platform: view.capability.platform(),
            presence: sentences::presence(view.presence),
            slots: view.capability.slots,
            busy: view.busy,
            accepts: sentences::accepts(&view.capability.accepts),
            heard_ms: view.heard.as_millis(),
            facts: flat(&view.capability),
        }
    }
}

/// The facts of a capability by dotted key.
pub(crate) fn flat(capability: &Capability) -> BTreeMap<String, String> {
    use protocol::platform::Value;
    let mut flat = BTreeMap::new();
    let mut open: Vec<(String, &Value)> = capability.facts.iter().map(|(key, value)| (key.clone(), value)).collect();
    while let Some((key, value)) = open.pop() {
        match value {
            Value::Map(below) => open.extend(below.iter().map(|(word, value)| (format!("{key}.{word}"), value))),
            value => {
                flat.insert(key, value.to_string());
            }
        }
    }
    flat
}

/// `volunteers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct VolunteersShape {
    pub(crate) volunteers: Option<Vec<VolunteerShape>>,
    pub(crate) reason: Option<String>,
}

/// `completions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CompletionsShape {
    pub(crate) shell: Option<String>,
    pub(crate) script: Option<String>,
    pub(crate) reason: Option<String>,
}

/// A check of `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CheckShape {
    pub(crate) name: &'static str,
    /// `good`, `advice` or `missing`.
    pub(crate) state: &'static str,
    pub(crate) found: String,
    /// The command that mends it.
    pub(crate) mend: Option<String>,
}

/// `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DoctorShape {
    /// Whether this machine can volunteer.
    pub(crate) ready: Option<bool>,
    pub(crate) checks: Option<Vec<CheckShape>>,
    pub(crate) reason: Option<String>,
}

#[cfg(test)]
#[path = "shape/tests.rs"]
mod tests;
