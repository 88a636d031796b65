//! What a volunteer swears to, what the farm answers, and how a stranger checks the answer.
//!
//! A [`Judged`] build carries its whole chain: verdict ← coordinator ← charter ← farm key ← farm id. Whoever holds the farm id
//! of the ticket can check it alone, which is why any peer may keep and serve it.

use crate::charter::{Charter, CharterError};
use crate::digest::Digest;
use crate::id::{BuildKey, FarmId, LeaseId, ManifestId, PeerKey, ReportId};
use crate::platform::{Capability, Requirement};
use crate::signed::{Kind, OpenError, Payload, Signed};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU8;

/// The most reports that one verdict stands on.
pub const MAX_REPORTS: usize = 16;
/// The longest free text in a report, in bytes.
pub const MAX_REASON_BYTES: usize = 1_024;

/// The environment a build ran in: distribution release, libc, versions of the tools the recipe requires.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub BTreeMap<String, String>);

impl Fingerprint {
    /// The environment that a machine of this capability gives a build with this requirement: platform, distribution, libc,
    /// and what it has of the tools and headers that the requirement names. Facts that do not matter for the result (memory,
    /// cores) are left out, so that two like machines have the same fingerprint.
    #[must_use]
    pub fn of(capability: &Capability, requirement: &Requirement) -> Self {
        let always = ["os", "arch", "distribution", "libc"];
        let named = requirement.iter().map(|(key, _)| key);
        let named = named.filter(|key| key.starts_with("tool.") || key.starts_with("header."));
        let fact = |key: &str| Some((key.to_owned(), capability.fact(key)?.to_string()));
        Self(always.into_iter().chain(named).filter_map(fact).collect())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(key, value)| format!("{key} {value}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// Whether the recipe's smoke test ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Smoke {
    /// It ran and passed.
    Passed,
    /// The recipe has none.
    None,
}

/// Whether equal inputs are claimed to give equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reproducibility {
    /// The recipe claims it; agreement is by manifest.
    Claimed,
    /// It does not; agreement counts passed smoke tests.
    NotClaimed,
}

/// A limit that a build ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Limit {
    /// Wall-clock time of the recipe, or of the owner.
    Deadline,
    /// Wall-clock time of one step, which has a limit of its own; steps that run are counted from 1.
    Step(NonZeroU8),
    /// Memory.
    Memory,
    /// Processes.
    Processes,
    /// Disk.
    Disk,
    /// Length of the log.
    Log,
    /// Wall-clock time without a sign of progress.
    Quiet,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "limit:deadline",
            Self::Step(number) => return write!(f, "limit:step-{number}"),
            Self::Memory => "limit:memory",
            Self::Processes => "limit:pids",
            Self::Disk => "limit:disk",
            Self::Log => "limit:log",
            Self::Quiet => "limit:quiet",
        })
    }
}

/// How an attempt ended, as the volunteer saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The declared outputs are there and the smoke test passed; the volunteer holds the artifact.
    Built {
        /// The artifact.
        manifest: ManifestId,
        /// Bytes of its files.
        size_bytes: u64,
        /// Whether a smoke test ran.
        smoke: Smoke,
        /// What the recipe claims.
        reproducibility: Reproducibility,
    },
    /// The recipe's own failure: a step, the outputs or the smoke test.
    BuildError {
        /// What failed, for people.
        reason: String,
    },
    /// The volunteer's or the network's failure: sandbox, source unreachable.
    Infrastructure {
        /// What failed, for people.
        reason: String,
    },
    /// A limit was reached.
    Limit {
        /// Which.
        limit: Limit,
    },
}

/// A volunteer's sworn statement about one attempt. The signer is the volunteer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The lease it held.
    pub lease: LeaseId,
    /// What was to be built.
    pub build_key: BuildKey,
    /// How it ended.
    pub outcome: Outcome,
    /// The environment.
    pub fingerprint: Fingerprint,
    /// Time to get and unpack the source.
    pub fetched: Span,
    /// Time of the steps.
    pub built: Span,
    /// The log: a blob that the volunteer holds.
    pub log: Option<Digest>,
    /// The last lines of the log, at most [`MAX_REASON_BYTES`], for mail.
    pub log_tail: String,
}

impl Payload for Report {
    const KIND: Kind = Kind::Report;
    const MAX_BYTES: usize = 12 << 10;
}

/// How many peers hold the artifact when the verdict is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Holding {
    /// The builder and a keeper.
    Kept,
    /// One peer only: no keeper could store it, or the farm is one node.
    SingleHolder,
}

/// The farm's answer for a build key. The signer is a coordinator that the charter names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was built.
    pub build_key: BuildKey,
    /// The artifact.
    pub manifest: ManifestId,
    /// The reports behind it, in the order of their ids.
    pub reports: BTreeSet<ReportId>,
    /// How many distinct operators reported it.
    pub agreed: u8,
    /// How many hold it.
    pub holding: Holding,
    /// The farm's time.
    pub decided_at: Timestamp,
}

impl Payload for Verdict {
    const KIND: Kind = Kind::Verdict;
    const MAX_BYTES: usize = 4 << 10;
}

/// A verdict with everything needed to check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The farm key's word on who is a coordinator.
    pub charter: Signed,
    /// The answer.
    pub verdict: Signed,
    /// The reports behind it.
    pub reports: Vec<Signed>,
}

/// A verdict whose chain was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The answer.
    pub verdict: Verdict,
    /// Report and volunteer, in the order of report ids.
    pub reports: Vec<(PeerKey, Report)>,
}

/// Why a verdict is ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JudgedError {
    /// The charter is not the farm's.
    #[error("the charter is not valid: {0}")]
    Charter(#[from] CharterError),
    /// The verdict is not valid.
    #[error("the verdict is not valid: {0}")]
    Verdict(OpenError),
    /// The verdict's signer is no coordinator.
    #[error("the verdict is signed by {0:?}, which the charter does not name")]
    NotACoordinator(PeerKey),
    /// It answers something else.
    #[error("the verdict is about another build")]
    OtherBuild,
    /// A report is missing, doubled, not valid or contradicts the verdict.
    #[error("the reports do not support the verdict")]
    Reports,
}

impl Judged {
    /// Checks the whole chain from the farm id to the reports.
    ///
    /// # Errors
    ///
    /// [`JudgedError`] names the first link that does not hold.
    pub fn verify(&self, farm: FarmId, build_key: BuildKey) -> Result<Verified, JudgedError> {
        let charter = Charter::open(&self.charter, farm)?;
        let verdict: Verdict = self.verdict.open(farm).map_err(JudgedError::Verdict)?;
        if !charter.is_coordinator(&self.verdict.key) {
            return Err(JudgedError::NotACoordinator(self.verdict.key));
        }
        if verdict.build_key != build_key {
            return Err(JudgedError::OtherBuild);
        }
        if verdict.reports.is_empty()
            || verdict.reports.len() > MAX_REPORTS
            || self.reports.len() != verdict.reports.len()
        {
            return Err(JudgedError::Reports);
        }
        let mut reports = BTreeMap::new();
        for signed in &self.reports {
            let report: Report = signed.open(farm).map_err(|_| JudgedError::Reports)?;
            let id = ReportId(signed.id());
            let supports = report.build_key == build_key && matches!(report.outcome, Outcome::Built { .. });
            if !supports || !verdict.reports.contains(&id) {
                return Err(JudgedError::Reports);
            }
            reports.insert(id, (signed.key, report));
        }
        let backed = reports.values().any(
            |(_, report)| matches!(&report.outcome, Outcome::Built { manifest, .. } if *manifest == verdict.manifest),
        );
        if reports.len() != verdict.reports.len() || !backed {
            return Err(JudgedError::Reports);
        }
        Ok(Verified { verdict, reports: reports.into_values().collect() })
    }
}
