//! What an attempt shows of itself while it goes on, written by whoever does the work and read by the heartbeat.

use super::build_log::BuildLog;
use protocol::progress::{Phase, Progress};
use protocol::time::Span;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The signs of one attempt. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Vitals(Arc<Mutex<Signs>>);

#[derive(Clone, Copy, Debug, Default)]
struct Signs {
    phase: Phase,
    fetched_bytes: u64,
    cpu: Duration,
}

impl Vitals {
    /// The attempt does this from now on.
    pub fn enter(&self, phase: Phase) {
        self.locked().phase = phase;
    }

    /// So much of the source has arrived.
    pub fn fetched(&self, bytes: u64) {
        self.locked().fetched_bytes = bytes;
    }

    /// The processes of the build have used so much processor time.
    pub fn spent(&self, cpu: Duration) {
        self.locked().cpu = cpu;
    }

    /// What there is to tell, with the log of the same attempt.
    #[must_use]
    pub fn progress(&self, log: &BuildLog) -> Progress {
        let Signs { phase, fetched_bytes, cpu } = *self.locked();
        Progress { phase, fetched_bytes, log_bytes: log.written(), cpu: Span::from(cpu) }
    }

    fn locked(&self) -> MutexGuard<'_, Signs> {
        // Each sign is written whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a build has shown no sign of progress: no output, and no processor time worth the name.
///
/// A program that only wakes up to look whether it may go on uses next to nothing, and is as still as one that sleeps. Time
/// in which nobody looked, because this machine was stopped or asleep, does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stillness {
    /// What was used and written at the last sign of progress.
    cpu: Duration,
    written: u64,
    still: Duration,
}

/// Less processor time than this is no work, however short the look.
const LEAST_WORK: Duration = Duration::from_millis(20);
/// Nor is less than this part of the time that has passed.
const IDLE_SHARE: u32 = 1_000;
/// The longest time between two looks that counts.
const LONGEST_LOOK: Duration = Duration::from_secs(2);

impl Stillness {
    /// Looks again after `passed`: how long nothing has moved.
    pub(super) fn look(&mut self, cpu: Duration, written: u64, passed: Duration) -> Duration {
        self.still += passed.min(LONGEST_LOOK);
        let worked = cpu.abs_diff(self.cpu) >= LEAST_WORK.max(self.still / IDLE_SHARE);
        if worked || written != self.written {
            *self = Self { cpu, written, still: Duration::ZERO };
        }
        self.still
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn output_and_work_are_signs_and_waking_up_is_none() {
        let mut still = Stillness::default();
        assert_eq!(still.look(SECOND, 0, SECOND), Duration::ZERO, "it has worked");
        assert_eq!(still.look(SECOND, 0, SECOND), SECOND);
        assert_eq!(still.look(SECOND, 1, SECOND), Duration::ZERO, "it has written");
        // Ten times a second it wakes up for fifty microseconds.
        let mut cpu = SECOND;
        for looked in 1..=600 {
            cpu += Duration::from_micros(500);
            assert_eq!(still.look(cpu, 1, SECOND), SECOND * looked);
        }
        assert_eq!(still.look(cpu + SECOND, 1, SECOND), Duration::ZERO);
        assert_eq!(still.look(SECOND, 1, SECOND), Duration::ZERO, "a survey that lost a process is no sleep");
        assert_eq!(still.look(SECOND, 1, SECOND * 3_600), LONGEST_LOOK, "the machine slept, not the build");
    }

    #[test]
    fn what_is_told_is_what_was_seen_last() {
        let (vitals, log) = (Vitals::default(), BuildLog::new(8));
        vitals.enter(Phase::Building);
        vitals.spent(SECOND);
        vitals.fetched(7);
        log.append(b"hello");
        let told = Progress { phase: Phase::Building, fetched_bytes: 7, log_bytes: 5, cpu: Span::from_secs(1) };
        assert_eq!(vitals.progress(&log), told);
    }
}
