//! One step from start to proven death.
//!
//! A thread of its own starts bubblewrap and watches it, because the kernel kills the sandbox when the *thread* that started it
//! ends. It sleeps in one `poll` on the output, on bubblewrap's words, on its death and on cancellation; nothing is polled on
//! the way of a healthy build but the disk. It returns only when the sandbox's process 1 is gone, which by the rules of PID
//! namespaces means that every process in it is, or else says that it could not prove it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};

use super::build_log::BuildLog;
use super::cgroup::Group;
use super::launcher::{LaunchError, Launched};
use super::limits::Limits;
use super::outcome::{Ending, Findings, Outcome, SandboxFailure, StepEnd, Stop, Usage, conclude};
use super::vitals::Vitals;
use super::watch::{Subject, Watch};
use protocol::report::Limit;

/// From the first SIGKILL to the proof that nothing is left.
pub const DEATH_TIME: Duration = Duration::from_secs(10);
/// How long bubblewrap, when it is to be killed, gets to name its child: without the name nobody could be sure of its death.
const NAMING_TIME: Duration = Duration::from_secs(2);
/// A build that writes this many times what is kept of its log is killed.
const FLOOD_FACTOR: u64 = 4;
/// How much of a failed start's output goes into the reason.
const LAST_WORDS_BYTES: usize = 1024;

/// What to watch.
pub(super) struct Order {
    pub(super) log: BuildLog,
    pub(super) vitals: Vitals,
    pub(super) limits: Limits,
    /// What is left of [`Limits::wall`].
    pub(super) wall: Duration,
    pub(super) group: Option<Arc<Group>>,
    /// Measured for the disk limit.
    pub(super) folders: Vec<OwnedFd>,
    /// Readable when the step is to be cancelled.
    pub(super) cancel: Arc<OwnedFd>,
}

/// Starts and watches one step; blocks until its end.
pub(super) fn supervise(order: Order, launch: impl FnOnce() -> Result<Launched, LaunchError>) -> StepEnd {
    let started = Instant::now();
    let failed = |failure: SandboxFailure| StepEnd {
        outcome: Outcome::SandboxFailed(failure),
        usage: Usage { wall: started.elapsed(), ..Usage::default() },
    };
    let launched = match launch() {
        Ok(launched) => launched,
        Err(error) => return failed(error.into()),
    };
    let mut watched = match Watched::new(order, launched, started) {
        Ok(watched) => watched,
        Err(error) => return failed(error.into()),
    };
    let outcome = match watched.until_dead() {
        Ok(exit) => conclude(&watched.ending(exit)),
        Err(failure) => Outcome::SandboxFailed(failure),
    };
    let Findings { cpu, peak_memory_bytes, .. } = watched.watch.findings();
    StepEnd { outcome, usage: Usage { wall: started.elapsed(), cpu, peak_memory_bytes } }
}

/// A running sandbox.
struct Watched {
    child: Child,
    outer: OwnedFd,
    /// Process 1 of the sandbox, once bubblewrap has named it.
    inner: Option<(Pid, OwnedFd)>,
    output: Option<OwnedFd>,
    status: Option<OwnedFd>,
    gate: Option<OwnedFd>,
    status_text: String,
    last_words: Vec<u8>,
    written: u64,
    order: Order,
    watch: Watch,
    deadline: Instant,
    stop: Option<(Stop, Instant)>,
    /// Whether the watcher was killed although it had not named its child.
    killed_blindly: bool,
}

impl Watched {
    fn new(mut order: Order, launched: Launched, now: Instant) -> io::Result<Self> {
        let Launched { mut child, output, status, gate } = launched;
        let outer = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|errno| {
            // The gate is shut or the work has hardly begun; without a descriptor for its death it must not go on.
            let _ = child.kill();
            let _ = child.wait();
            io::Error::from(errno)
        })?;
        let subject = Subject {
            limits: order.limits,
            group: order.group.clone(),
            folders: std::mem::take(&mut order.folders),
            log: order.log.clone(),
            vitals: order.vitals.clone(),
        };
        let watch = Watch::new(subject, now);
        Ok(Self {
            child,
            outer,
            inner: None,
            output: Some(output),
            status: Some(status),
            gate,
            status_text: String::new(),
            last_words: Vec::new(),
            written: 0,
            deadline: now + order.wall,
            order,
            watch,
            stop: None,
            killed_blindly: false,
        })
    }

    /// Waits for the end, enforcing limits on the way, then proves that nothing is left.
    fn until_dead(&mut self) -> Result<ExitStatus, SandboxFailure> {
        while !self.wait_and_serve()? {
            let now = Instant::now();
            if self.stop.is_none() {
                if now >= self.deadline {
                    self.stop(Stop::Limit(Limit::Deadline), now);
                } else if now >= self.watch.next()
                    && let Some(why) = self.watch.look(self.inner.as_ref().map(|(pid, _)| *pid), now)
                {
                    self.stop(why, now);
                }
            }
            if let Some((_, since)) = self.stop {
                if now > since + DEATH_TIME {
                    return Err(SandboxFailure::Survivors);
                }
                self.kill(now > since + NAMING_TIME);
            }
        }
        let exit = self.child.wait()?;
        self.bury()?;
        Ok(exit)
    }

    /// Sleeps until something happens and serves it. True when bubblewrap's outer process has ended.
    fn wait_and_serve(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let wake = match self.stop {
            None => self.deadline.min(self.watch.next()),
            Some((_, since)) if self.inner.is_none() => since + NAMING_TIME,
            Some((_, since)) => since + DEATH_TIME,
        };
        // One millisecond more than the difference, so that the wake is never just before the moment it is for.
        let ready = poll(
            [
                Some(self.outer.as_fd()),
                fd(&self.output),
                fd(&self.status),
                self.stop.is_none().then(|| self.order.cancel.as_fd()),
            ],
            wake.saturating_duration_since(now) + Duration::from_millis(1),
        )?;
        if ready[1] {
            self.read_output()?;
        }
        if ready[2] {
            self.read_status()?;
        }
        if ready[3] {
            self.stop(Stop::Cancelled, Instant::now());
        }
        Ok(ready[0])
    }

    fn stop(&mut self, why: Stop, now: Instant) {
        if self.stop.is_none() {
            self.stop = Some((why, now));
            if let Some(group) = &self.order.group {
                group.lift_quota();
            }
            self.kill(false);
        }
    }

    /// Kills process 1 inside, then the watcher outside. Before process 1 is known the watcher is spared, unless `blindly`: alone,
    /// a child that has not yet tied its life to the watcher's would stay.
    fn kill(&mut self, blindly: bool) {
        // A process that is already dead is what we want.
        if let Some((_, inner)) = &self.inner {
            let _ = rustix::process::pidfd_send_signal(inner, Signal::KILL);
        }
        if self.inner.is_some() || blindly {
            self.killed_blindly |= self.inner.is_none();
            let _ = rustix::process::pidfd_send_signal(&self.outer, Signal::KILL);
        }
    }

    /// After the watcher's death: waits for that of process 1 and of everything in the control group.
    fn bury(&mut self) -> Result<(), SandboxFailure> {
        let deadline = Instant::now() + DEATH_TIME;
        self.read_status()?;
        self.gate = None;
        if let Some((_, inner)) = &self.inner {
            let _ = rustix::process::pidfd_send_signal(inner, Signal::KILL);
        }
        while let Some((_, inner)) = &self.inner {
            let left = deadline.saturating_duration_since(Instant::now());
            let ready = poll([Some(inner.as_fd()), fd(&self.output), None, None], left)?;
            if ready[0] {
                break;
            }
            if left.is_zero() {
                return Err(SandboxFailure::Survivors);
            }
            if ready[1] {
                self.read_output()?;
            }
        }
        while self.output.is_some() && self.read_output()? > 0 {}
        let proven = match &self.order.group {
            Some(group) => {
                group.kill_all(deadline);
                group.is_empty()
            }
            None => self.inner.is_some() || !self.killed_blindly,
        };
        if proven { Ok(()) } else { Err(SandboxFailure::Survivors) }
    }

    /// Reads what is there, at most once through the buffer. Returns how much it was.
    fn read_output(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let read = read_some(&mut self.output, &mut buffer)?;
        let bytes = &buffer[..read];
        self.order.log.append(bytes);
        self.written += read as u64;
        self.last_words.extend_from_slice(&bytes[read.saturating_sub(LAST_WORDS_BYTES)..]);
        let excess = self.last_words.len().saturating_sub(LAST_WORDS_BYTES);
        self.last_words.drain(..excess);
        if self.order.log.written() > self.order.limits.log_bytes.saturating_mul(FLOOD_FACTOR) {
            self.stop(Stop::Limit(Limit::Log), Instant::now());
        }
        Ok(read)
    }

    fn read_status(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let read = read_some(&mut self.status, &mut buffer)?;
            if read == 0 {
                break;
            }
            self.status_text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        if self.inner.is_none()
            && let Some(pid) = number_after(&self.status_text, "child-pid").and_then(Pid::from_raw)
        {
            match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                Ok(inner) => {
                    self.inner = Some((pid, inner));
                    self.open_gate(pid)?;
                }
                // Already dead, and with it everything inside.
                Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Without a control group: limits the sandbox's processes from the outside, then lets its command start. Set before the
    /// fork, the limit would also count what the same user runs elsewhere.
    fn open_gate(&mut self, inner: Pid) -> io::Result<()> {
        let Some(gate) = self.gate.take() else {
            return Ok(());
        };
        let limit = Some(u64::from(self.order.limits.processes));
        match rustix::process::prlimit(Some(inner), Resource::Nproc, Rlimit { current: limit, maximum: limit }) {
            Ok(_) | Err(Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        match rustix::io::write(&gate, &[1]) {
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn ending(&self, exit: ExitStatus) -> Ending {
        Ending {
            stop: self.stop.map(|(why, _)| why),
            command: number_after(&self.status_text, "exit-code"),
            sandbox: exit,
            findings: self.watch.findings(),
            last_words: String::from_utf8_lossy(&self.last_words).into_owned(),
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Only after an error is anything left to kill; a dead process that nobody waits for would stay a zombie.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill(true);
            let _ = poll([Some(self.outer.as_fd()), None, None, None], DEATH_TIME);
            let _ = self.child.try_wait();
        }
    }
}

/// The number behind `"NAME": ` in bubblewrap's status lines.
fn number_after(status: &str, name: &str) -> Option<i32> {
    let (_, rest) = status.split_once(&format!("\"{name}\": "))?;
    // Up to a character that cannot be part of it, so that half a number is never read.
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

fn fd(fd: &Option<OwnedFd>) -> Option<BorrowedFd<'_>> {
    fd.as_ref().map(AsFd::as_fd)
}

/// Reads once without blocking; at the end of the stream closes it. 0 when there is nothing.
fn read_some(from: &mut Option<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(open) = from else {
        return Ok(0);
    };
    match rustix::io::read(open, buffer) {
        Ok(0) => {
            *from = None;
            Ok(0)
        }
        Ok(read) => Ok(read),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until one of the descriptors is ready or `timeout` has passed, and says which are.
fn poll(fds: [Option<BorrowedFd<'_>>; 4], timeout: Duration) -> io::Result<[bool; 4]> {
    let mut polled: Vec<PollFd<'_>> =
        fds.into_iter().flatten().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut answers = polled.iter().map(|fd| !fd.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && answers.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_only_when_they_are_whole() {
        let status = "{ \"child-pid\": 4711, \"net-namespace\": 40 }\n{ \"exit-code\": 0 }\n";
        assert_eq!(number_after(status, "child-pid"), Some(4711));
        assert_eq!(number_after(status, "exit-code"), Some(0));
        assert_eq!(number_after("{ \"child-pid\": 47", "child-pid"), None);
        assert_eq!(number_after("", "exit-code"), None);
    }
}
