//! What happened, in figures.

use crate::plan::Strike;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Counts of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) farms: u64,
    pub(crate) rounds: u64,
    /// Faults that struck, by kind and part.
    faults: BTreeMap<(&'static str, &'static str), u64>,
    /// Requests that the farm acknowledged.
    pub(crate) acknowledged: u64,
    /// Commands that were killed or failed before they heard of it.
    pub(crate) unheard: u64,
    /// Requests that ended with the farm's failure, and were asked again.
    pub(crate) gave_up: u64,
    /// Acknowledged requests for which two volunteers had to build the same.
    pub(crate) agreed: u64,
    /// Attempts beyond those that each build needed.
    pub(crate) attempts_lost: u64,
    pub(crate) mails: u64,
    /// Mails that a server took twice although the farm could not know.
    pub(crate) duplicates: u64,
    /// Rounds in which several people asked for the same at the same time.
    pub(crate) shared: u64,
}

impl Tally {
    /// Notes a fault that struck.
    pub(crate) fn struck(&mut self, strike: &Strike) {
        *self.faults.entry((strike.fault.name(), strike.whom.part())).or_default() += 1;
    }

    /// Adds the figures of another.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            farms,
            rounds,
            faults,
            acknowledged,
            unheard,
            gave_up,
            agreed,
            attempts_lost,
            mails,
            duplicates,
            shared,
        } = other;
        self.farms += farms;
        self.rounds += rounds;
        self.acknowledged += acknowledged;
        self.unheard += unheard;
        self.gave_up += gave_up;
        self.agreed += agreed;
        self.attempts_lost += attempts_lost;
        self.mails += mails;
        self.duplicates += duplicates;
        self.shared += shared;
        for (fault, count) in faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }

    /// All figures, for a person.
    pub(crate) fn summary(&self, took: Duration) -> String {
        let mut text = format!(
            "{} rounds in {} farms and {:.0} s\n{} requests acknowledged, {} unheard, {} given up by the farm and asked again\n\
             {} wanted two volunteers to agree; {} attempts lost; in {} rounds several asked for the same\n\
             {} mails, {} of them duplicates by SMTP\n",
            self.rounds,
            self.farms,
            took.as_secs_f64(),
            self.acknowledged,
            self.unheard,
            self.gave_up,
            self.agreed,
            self.attempts_lost,
            self.shared,
            self.mails,
            self.duplicates,
        );
        for ((kind, part), count) in &self.faults {
            let _ = writeln!(text, "{count:6}  {kind} of a {part}");
        }
        text
    }
}
