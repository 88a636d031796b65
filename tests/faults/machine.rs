//! A daemon, its home on a small disk of its own, and what can be done to it.

use crate::clock::Clock;
use crate::disk::SmallDisk;
use crate::farm::{Home, Process};
use crate::plan::Who;
use rustix::process::Signal;
use std::fs;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How long a daemon that is told to stop may take.
const END: Duration = Duration::from_secs(15);
/// Lines of a log that are shown.
const LAST_LINES: usize = 60;

/// A daemon of the farm.
#[derive(Debug)]
pub(crate) struct Machine {
    // Ended before its disk goes.
    process: Option<Process>,
    disk: SmallDisk,
    pub(crate) who: Who,
    pub(crate) home: Home,
    clock: Option<Clock>,
    words: Vec<String>,
    /// What it says when it serves.
    serves: &'static str,
    /// What earlier processes of this home said.
    past: String,
    /// Why an end by itself is no fault of the program.
    excuse: Option<&'static str>,
}

impl Machine {
    /// A daemon that is not started yet.
    pub(crate) fn new(who: Who, home: Home, disk: SmallDisk, clock: Option<Clock>, words: Vec<String>) -> Self {
        let serves = if who == Who::Coordinator { " coordinates farm " } else { " volunteers for farm " };
        Self { process: None, disk, who, home, clock, words, serves, past: String::new(), excuse: None }
    }

    /// Starts it, at the ports it had before.
    pub(crate) fn start(&mut self) {
        let before = fs::read_to_string(self.home.path().join("listen")).unwrap_or_default();
        let mut addresses: Vec<&str> = before.lines().collect();
        if addresses.is_empty() {
            addresses = vec!["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        }
        let listen = addresses.iter().flat_map(|address| ["--listen", address]);
        let mut command = self.home.command(self.words.iter().map(String::as_str).chain(listen));
        if let Some(clock) = &self.clock {
            clock.show_to(&mut command);
        }
        self.process = Some(Process::start(&mut command));
    }

    /// Changes its words from the next start on.
    pub(crate) fn say_from_now_on(&mut self, words: Vec<String>) {
        self.words = words;
    }

    /// Gives it a clock from the next start on.
    pub(crate) fn see(&mut self, clock: Clock) {
        self.clock = Some(clock);
    }

    /// The first line of its stdout that begins like this, if it came.
    pub(crate) fn line(&self, beginning: &str) -> Option<String> {
        let text = self.process.as_ref()?.stdout();
        text.lines().find(|line| line.starts_with(beginning)).map(str::to_owned)
    }

    /// Whether it serves; an error when it ended by itself without an excuse. With one, it is started again.
    pub(crate) fn check(&mut self) -> Result<bool, String> {
        let Some(process) = &mut self.process else { return Ok(false) };
        let Some(status) = process.ended() else { return Ok(process.stderr().contains(self.serves)) };
        if self.excuse.is_none() {
            return Err(format!("{} ended by itself with {status}", self.who));
        }
        self.bury("ended by itself");
        self.start();
        Ok(false)
    }

    /// From here on an end by itself has no excuse.
    pub(crate) fn excuse_ends(&mut self) {
        self.excuse = None;
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        if let (Some(status), None) = (process.ended(), self.excuse) {
            return Err(format!("{} ended by itself with {status}", self.who));
        }
        process.kill();
        self.bury("killed");
        Ok(())
    }

    /// Lets it stand still, or go on.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Ok(()) };
        match (process.ended(), self.excuse) {
            (Some(status), None) => Err(format!("{} ended by itself with {status}", self.who)),
            (Some(_), Some(_)) => Ok(()),
            (None, _) => {
                process.signal(signal);
                Ok(())
            }
        }
    }

    /// Takes all that is free of its disk.
    pub(crate) fn fill_disk(&mut self) {
        self.excuse = Some("its disk was full");
        self.disk.fill();
    }

    /// Gives its disk back.
    pub(crate) fn free_disk(&mut self) {
        self.disk.free();
    }

    /// Changes its clock, where it has one of its own.
    pub(crate) fn set_clock(&self, by_s: i64) {
        if let Some(clock) = &self.clock {
            clock.set(by_s);
        }
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, String> {
        let Some(process) = &mut self.process else { return Err(format!("{} does not run", self.who)) };
        if process.ended().is_none() {
            process.signal(Signal::TERM);
        }
        let until = Instant::now() + END;
        loop {
            if let Some(status) = process.ended() {
                self.bury("stopped");
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(format!("{} was told to stop and is there after {END:?}", self.who));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process, while there is one.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    fn bury(&mut self, how: &str) {
        let Some(process) = self.process.take() else { return };
        self.past.push_str(&process.stderr());
        self.past.push_str(&format!("--- {how}\n"));
    }

    /// All it said.
    pub(crate) fn log(&self) -> String {
        let now = self.process.as_ref().map(Process::stderr).unwrap_or_default();
        format!("{}{now}", self.past)
    }

    /// The last lines of all it said.
    pub(crate) fn last_words(&self) -> String {
        last_lines(&self.log())
    }
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("    {line}\n")).collect()
}
