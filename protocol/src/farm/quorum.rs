//! When reports are enough to believe an artifact.
//!
//! Pure: [`verdict`] looks at reports and a standard and nothing else. A volunteer counts once, by its latest report that
//! counts; until there are operators, every volunteer key is one. A recipe that claims to be reproducible agrees by manifest
//! under one fingerprint; one that does not agrees by passed smoke tests, whatever the bytes. One report is always enough
//! for a standard of one.

use crate::id::{LeaseId, ManifestId, PeerKey, ReportId};
use crate::report::{Fingerprint, Reproducibility, Smoke};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::num::NonZeroU8;

/// What a volunteer swore to when it built something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sworn {
    /// The report.
    pub id: ReportId,
    /// The lease under which it was built; leases are numbered in the order they were granted.
    pub lease: LeaseId,
    /// Who swears.
    pub volunteer: PeerKey,
    /// What came out.
    pub manifest: ManifestId,
    /// Whether a smoke test ran.
    pub smoke: Smoke,
    /// What the recipe claims.
    pub reproducibility: Reproducibility,
    /// Where it was built.
    pub fingerprint: Fingerprint,
}

/// A demand with its place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standard {
    /// How many distinct volunteers must agree.
    pub agree: NonZeroU8,
    /// Only leases after this one count; `None` where all do.
    pub after: Option<LeaseId>,
}

/// What reports amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Enough of them agree.
    Agreed(Agreed),
    /// More are needed.
    Short {
        /// The environment in which the next one counts; `None` where any will do.
        fingerprint: Option<Fingerprint>,
    },
}

/// Reports that agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The artifact they stand behind.
    pub manifest: ManifestId,
    /// The reports.
    pub by: BTreeSet<ReportId>,
    /// How many distinct volunteers made them.
    pub agreed: u8,
}

/// Reports that say the same.
#[derive(PartialEq)]
enum Claim<'a> {
    /// These bytes, in this environment.
    Bytes(ManifestId, &'a Fingerprint),
    /// Something that passed the recipe's smoke test.
    Smoke,
    /// Something that nothing vouches for but the volunteer: agrees with nobody.
    Word(ReportId),
}

impl Sworn {
    fn claim(&self) -> Claim<'_> {
        match (self.reproducibility, self.smoke) {
            (Reproducibility::Claimed, _) => Claim::Bytes(self.manifest, &self.fingerprint),
            (Reproducibility::NotClaimed, Smoke::Passed) => Claim::Smoke,
            (Reproducibility::NotClaimed, Smoke::None) => Claim::Word(self.id),
        }
    }
}

/// What `reports`, oldest first, amount to under `standard`.
///
/// The largest group that agrees wins, among equals the one that was there first; its artifact is that of its first report.
#[must_use]
pub fn verdict<'a>(reports: impl DoubleEndedIterator<Item = &'a Sworn>, standard: Standard) -> Answer {
    let counts = |sworn: &&Sworn| standard.after.is_none_or(|after| sworn.lease > after);
    match largest(reports.filter(counts)) {
        None => Answer::Short { fingerprint: None },
        Some((agreed, _)) if agreed.agreed >= standard.agree.get() => Answer::Agreed(agreed),
        Some((_, fingerprint)) => Answer::Short { fingerprint: fingerprint.cloned() },
    }
}

/// Everything among `reports` that stands behind `manifest`.
#[must_use]
pub fn behind<'a>(reports: impl DoubleEndedIterator<Item = &'a Sworn> + Clone, manifest: ManifestId) -> Option<Agreed> {
    let with_it: Vec<_> = reports.clone().filter(|sworn| sworn.manifest == manifest).map(Sworn::claim).collect();
    let (agreed, _) = largest(reports.filter(|sworn| with_it.contains(&sworn.claim())))?;
    Some(Agreed { manifest, ..agreed })
}

fn largest<'a>(reports: impl DoubleEndedIterator<Item = &'a Sworn>) -> Option<(Agreed, Option<&'a Fingerprint>)> {
    let mut heard = BTreeSet::new();
    let mut latest: Vec<_> = reports.rev().filter(|sworn| heard.insert(sworn.volunteer)).collect();
    latest.reverse();
    let mut groups: Vec<(Claim<'_>, Agreed)> = Vec::new();
    for sworn in latest {
        let claim = sworn.claim();
        let at = groups.iter().position(|(group, _)| *group == claim).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push((claim, Agreed { manifest: sworn.manifest, by: BTreeSet::new(), agreed: 0 }));
        }
        groups[at].1.by.insert(sworn.id);
        groups[at].1.agreed = groups[at].1.agreed.saturating_add(1);
    }
    let most = groups.iter().map(|(_, agreed)| agreed.agreed).max()?;
    let (claim, agreed) = groups.into_iter().find(|(_, agreed)| agreed.agreed == most)?;
    let fingerprint = match claim {
        Claim::Bytes(_, fingerprint) => Some(fingerprint),
        Claim::Smoke | Claim::Word(_) => None,
    };
    Some((agreed, fingerprint))
}
