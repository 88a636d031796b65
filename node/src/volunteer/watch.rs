//! Watching a running step for limits that the kernel does not enforce for us.
//!
//! With a control group that is the disk, and reading what the kernel has counted. Without one it is also memory and processes,
//! found by walking `/proc` from the sandbox's process 1: less exact, a build can overshoot by what it touches between two looks,
//! and one that fails at the process limit between two looks seems to have failed by itself.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::build_log::BuildLog;
use super::cgroup::{Counters, Group};
use super::limits::Limits;
use super::outcome::{Findings, Stop};
use super::vitals::{Stillness, Vitals};
use super::{floor, janitor};
use protocol::report::Limit;

/// Before the first look: a build that ends sooner is not slowed down by being looked at.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// Between two looks at counters of a control group.
const GROUP_INTERVAL: Duration = Duration::from_millis(100);
/// Between two looks at `/proc`.
const PROC_INTERVAL: Duration = Duration::from_millis(20);
/// Between two measurements of the work folder, when free space says that it may be full, and when it does not.
const MEASURE_SOONEST: Duration = Duration::from_millis(250);
const MEASURE_LATEST: Duration = Duration::from_secs(5);
/// Looking may cost one part in this many of a processor's time.
const LEISURE: u32 = 10;
/// A build that was refused this many forks is a bomb, not a wide `make`.
const REFUSED_FORKS: u64 = 1000;
/// How long a build without a control group may stand at its process limit.
const SATURATED: Duration = Duration::from_secs(2);

/// What there is to watch of one step.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) limits: Limits,
    pub(super) group: Option<Arc<Group>>,
    /// Measured together.
    pub(super) folders: Vec<OwnedFd>,
    pub(super) log: BuildLog,
    /// Told of the processor time that is used.
    pub(super) vitals: Vitals,
}

/// The eyes on one step.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    group: Option<Arc<Group>>,
    log: BuildLog,
    vitals: Vitals,
    stillness: Stillness,
    looked: Instant,
    before: Counters,
    disk: Disk,
    next: Instant,
    peak_memory_bytes: u64,
    cpu: Option<Duration>,
    /// Processor time as it was counted last, of whatever was counted.
    used: Option<Duration>,
    at_process_limit_since: Option<Instant>,
    was_at_process_limit: bool,
}

impl Watch {
    pub(super) fn new(subject: Subject, now: Instant) -> Self {
        let Subject { limits, group, folders, log, vitals } = subject;
        let before = group.as_ref().map(|group| group.counters()).unwrap_or_default();
        Self {
            limits,
            group,
            log,
            vitals,
            stillness: Stillness::default(),
            looked: now,
            before,
            disk: Disk { folders, known_bytes: None, due: now + MEASURE_LATEST, soonest: now },
            next: now + FIRST_LOOK,
            peak_memory_bytes: 0,
            cpu: None,
            used: None,
            at_process_limit_since: None,
            was_at_process_limit: false,
        }
    }

    /// When [`Self::look`] should be called next.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Looks once; why the step must end, if it must. `first` is the sandbox's process 1.
    pub(super) fn look(&mut self, first: Option<Pid>, now: Instant) -> Option<Stop> {
        let started = spent();
        let limit = self.look_at_group_or_processes(first, now).map(Stop::Limit);
        let passed = limit
            .or_else(|| self.disk.look(self.limits.disk_bytes, now))
            .or_else(|| self.look_for_progress(now).map(Stop::Limit));
        let interval = if self.group.is_some() { GROUP_INTERVAL } else { PROC_INTERVAL };
        self.next = now + interval.max(spent().saturating_sub(started) * LEISURE);
        passed
    }

    fn look_at_group_or_processes(&mut self, first: Option<Pid>, now: Instant) -> Option<Limit> {
        if let Some(group) = &self.group {
            let seen = group.counters();
            self.used = seen.cpu.or_else(|| Survey::take(first?).cpu());
            if seen.oom_kills > self.before.oom_kills {
                return Some(Limit::Memory);
            }
            return (seen.refused_forks - self.before.refused_forks > REFUSED_FORKS).then_some(Limit::Processes);
        }
        let survey = Survey::take(first?);
        self.used = survey.cpu();
        self.cpu = self.cpu.max(self.used);
        let mut bytes = survey.resident_bytes();
        if bytes > self.limits.memory_bytes {
            // Pages shared after a fork were counted for each process; now share them out.
            bytes = survey.proportional_bytes();
        }
        self.peak_memory_bytes = self.peak_memory_bytes.max(bytes);
        if bytes > self.limits.memory_bytes {
            return Some(Limit::Memory);
        }
        if survey.threads() < u64::from(self.limits.processes) {
            self.at_process_limit_since = None;
            return None;
        }
        self.was_at_process_limit = true;
        let since = *self.at_process_limit_since.get_or_insert(now);
        (now.duration_since(since) >= SATURATED).then_some(Limit::Processes)
    }

    /// Whether the build does anything at all.
    fn look_for_progress(&mut self, now: Instant) -> Option<Limit> {
        let passed = now.saturating_duration_since(self.looked);
        self.looked = now;
        let used = self.used.unwrap_or_default();
        let still = self.stillness.look(used, self.log.written(), passed);
        if still.is_zero() {
            self.vitals.spent(used);
        }
        (still >= self.limits.quiet).then_some(Limit::Quiet)
    }

    /// What is known after the step's last process has died.
    pub(super) fn findings(&self) -> Findings {
        let Some(group) = &self.group else {
            return Findings {
                ran_out_of_memory: false,
                ran_out_of_processes: self.was_at_process_limit,
                host_is_full: self.disk.host_is_full(),
                peak_memory_bytes: (self.peak_memory_bytes > 0).then_some(self.peak_memory_bytes),
                cpu: self.cpu,
            };
        };
        let after = group.counters();
        Findings {
            ran_out_of_memory: after.oom_kills > self.before.oom_kills,
            ran_out_of_processes: after.refused_forks > self.before.refused_forks,
            host_is_full: self.disk.host_is_full(),
            peak_memory_bytes: after.peak_memory_bytes,
            cpu: after.cpu.zip(self.before.cpu).map(|(after, before)| after.saturating_sub(before)),
        }
    }
}

/// The disk is measured when free space has shrunk by what is left of the limit, and now and then in case others freed as much.
#[derive(Debug)]
struct Disk {
    folders: Vec<OwnedFd>,
    /// What was occupied at the last measurement, and what was free then.
    known_bytes: Option<(u64, u64)>,
    due: Instant,
    soonest: Instant,
}

impl Disk {
    fn host_is_full(&self) -> bool {
        self.folders.first().is_some_and(|folder| floor::is_reached(folder.as_fd()))
    }

    fn look(&mut self, limit_bytes: u64, now: Instant) -> Option<Stop> {
        let free = self.folders.first().and_then(|folder| rustix::fs::fstatfs(folder).ok())?;
        let free_bytes = floor::free_bytes(&free);
        if free_bytes < floor::BYTES {
            return Some(Stop::HostFull);
        }
        // An entry costs a measurement at least a block, also where inodes are not free space.
        let room = free_bytes.saturating_add(free.f_ffree.saturating_mul(4096));
        let suspicious = self.known_bytes.is_none_or(|(used, then)| used + then.saturating_sub(room) > limit_bytes);
        if now < self.due && (!suspicious || now < self.soonest) {
            return None;
        }
        let started = spent();
        let measured: std::io::Result<u64> =
            self.folders.iter().map(|folder| janitor::occupied_bytes(folder.as_fd())).sum();
        let cost = spent().saturating_sub(started) * LEISURE;
        self.soonest = now + MEASURE_SOONEST.max(cost);
        self.due = now + MEASURE_LATEST.max(cost);
        match measured {
            Ok(used) => {
                self.known_bytes = Some((used, room));
                (used > limit_bytes).then_some(Stop::Limit(Limit::Disk))
            }
            Err(error) => {
                tracing::debug!(%error, "the work folder changed while it was measured");
                None
            }
        }
    }
}

/// Processor time that this thread has used. What looking costs is told by this and not by a clock: on a busy machine a look takes
/// long because others run, and would then be put off just when there is most to see.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The processes of one sandbox at one moment, each before its children.
struct Survey {
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    pid: i32,
    parent: i32,
    threads: u64,
    /// In ticks of `CLK_TCK`, with those of children that were waited for.
    ticks: u64,
}

/// `USER_HZ` is 100 on every Linux that has `/proc`.
const TICK: Duration = Duration::from_millis(10);

impl Survey {
    fn take(first: Pid) -> Self {
        let all: Vec<Member> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| Member::read(entry.file_name().to_str()?.parse().ok()?))
            .collect();
        Self { members: family(first.as_raw_nonzero().get(), &all) }
    }

    fn threads(&self) -> u64 {
        self.members.iter().map(|member| member.threads).sum()
    }

    /// Read again, each process before its children: whoever is read after he has waited for a child that was read counts the
    /// child's time twice.
    fn cpu(&self) -> Option<Duration> {
        let ticks: u64 = self.members.iter().filter_map(|member| Member::read(member.pid)).map(|now| now.ticks).sum();
        (ticks > 0).then(|| TICK * u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    fn resident_bytes(&self) -> u64 {
        self.members
            .iter()
            .map(|member| kibibytes(member.pid, "status", ["RssAnon:", "RssShmem:"]).unwrap_or(0) << 10)
            .sum()
    }

    fn proportional_bytes(&self) -> u64 {
        let of = |member: &Member| {
            kibibytes(member.pid, "smaps_rollup", ["Pss_Anon:", "Pss_Shmem:"])
                .or_else(|| kibibytes(member.pid, "status", ["RssAnon:", "RssShmem:"]))
        };
        self.members.iter().map(|member| of(member).unwrap_or(0) << 10).sum()
    }
}

impl Member {
    fn read(pid: i32) -> Option<Self> {
        parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// `first` and what descends from it, each before its children.
fn family(first: i32, all: &[Member]) -> Vec<Member> {
    let mut children: HashMap<i32, Vec<Member>> = HashMap::new();
    // Not `first` itself: processes that were not read at the same moment may seem to descend from each other.
    for member in all.iter().filter(|member| member.pid != first) {
        children.entry(member.parent).or_default().push(*member);
    }
    let mut family: Vec<Member> = all.iter().filter(|member| member.pid == first).copied().collect();
    let mut at = 0;
    while let Some(parent) = family.get(at).map(|member| member.pid) {
        family.extend(children.remove(&parent).unwrap_or_default());
        at += 1;
    }
    family
}

/// The sum of two lines `NAME: number kB` of a file of `/proc/PID`; none when neither is there.
fn kibibytes(pid: i32, file: &str, names: [&str; 2]) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = |line: &str| {
        names.iter().find_map(|name| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    text.lines().filter_map(value).reduce(|a, b| a + b)
}

/// See proc_pid_stat(5): the name in parentheses may hold anything, so fields are counted from its end.
fn parse_stat(pid: i32, stat: &str) -> Option<Member> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Member {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
        threads: number(17)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_process_may_call_itself_anything() {
        let stat = "42 (a) b) R 7 42 42 0 -1 4194304 90 0 0 0 3 4 5 6 20 0 9 0 12345 1000 100 184467";
        let member = parse_stat(42, stat).unwrap();
        assert_eq!((member.parent, member.ticks, member.threads), (7, 18, 9));
        assert!(parse_stat(1, "garbage").is_none());
    }

    #[test]
    fn a_family_is_listed_from_its_oldest_whatever_its_numbers() {
        let member = |pid, parent| Member { pid, parent, threads: 1, ticks: 0 };
        // After its numbers were used up the kernel begins again with small ones; 8 and 9 are torn.
        let all =
            [member(3, 40), member(7, 3), member(8, 9), member(9, 8), member(40, 90), member(90, 7), member(95, 90)];
        let pids: Vec<i32> = family(90, &all).iter().map(|member| member.pid).collect();
        assert_eq!(pids, [90, 40, 95, 3, 7]);
        assert_eq!(family(1, &all), []);
    }

    #[test]
    fn a_survey_finds_descendants_and_nobody_else() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "sleep 60 & sleep 60"]).spawn().unwrap();
        let first = Pid::from_child(&child);
        let deadline = Instant::now() + Duration::from_secs(10);
        let survey = loop {
            let survey = Survey::take(first);
            if survey.members.len() == 3 || Instant::now() > deadline {
                break survey;
            }
            std::thread::yield_now();
        };
        let processes: Vec<Pid> = survey.members.iter().filter_map(|member| Pid::from_raw(member.pid)).collect();
        assert_eq!(processes.len(), 3);
        assert!(survey.resident_bytes() > 0 && survey.proportional_bytes() <= survey.resident_bytes() * 2);
        for pid in processes {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        child.wait().unwrap();
    }

    #[test]
    fn the_disk_is_measured_again_only_when_space_has_shrunk() {
        let place = tempfile::tempdir().unwrap();
        let folder: OwnedFd = fs::File::open(place.path()).unwrap().into();
        let now = Instant::now();
        let mut disk = Disk { folders: vec![folder], known_bytes: None, due: now + MEASURE_LATEST, soonest: now };
        assert_eq!(disk.look(1 << 40, now), None);
        fs::write(place.path().join("big"), vec![1; 2 << 20]).unwrap();
        assert_eq!(disk.look(1 << 40, now + Duration::from_secs(1)), None);
        assert_eq!(disk.look(1 << 20, now + Duration::from_secs(10)), Some(Stop::Limit(Limit::Disk)));
    }
}
