//! The volunteers: three that join and leave all the time, and one that stays, so that its memory can be judged.
//!
//! They leave in order or as by a power cut, and come back to their home, or now and then to a fresh one.

use crate::deadline::{SOON, wait_for};
use crate::farm::{Farm, Home, Process};
use crate::gauge::Daemon;
use node::chance::Chance;
use rustix::process::Signal;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

/// Who they are; the first stays.
const SEATS: [&str; 4] = ["stays", "comes and goes 1", "comes and goes 2", "comes and goes 3"];
/// What each may keep: some seven of the small builds, so that room must be made all the time.
const STORE: &str = "1M";
/// How long one stays of those that come and go.
const STAY: Duration = Duration::from_secs(40);
/// One in so many leaves by a power cut.
const CUTS: u64 = 3;
/// One in so many that left in order comes back to a fresh home.
const FRESH_HOMES: u64 = 5;

/// Everybody who builds.
#[derive(Debug)]
pub(crate) struct Company {
    ticket: String,
    seats: Vec<Seat>,
    chance: Chance,
    wrong: Vec<String>,
    left: u32,
    cut: u32,
    moved: u32,
}

/// A place that is taken again as soon as it is free.
#[derive(Debug)]
struct Seat {
    name: &'static str,
    home: Home,
    process: Process,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Builds, and leaves then.
    Until(Instant),
    /// Builds to the end of the run.
    Staying,
    /// Was asked to end, and has to by then.
    Leaving(Instant),
}

impl Company {
    /// Lets everybody join.
    pub(crate) fn new(farm: &Farm, ticket: &str, chance: Chance) -> Self {
        fs::create_dir(farm.folder().join("tmp")).unwrap();
        let seat = |(nr, name)| {
            let home = farm.home(&format!("volunteer-{nr}"));
            let process = join(farm, &home, ticket);
            let phase = if nr == 0 { Phase::Staying } else { Phase::Until(Instant::now() + chance.around(STAY)) };
            Seat { name, home, process, phase }
        };
        let seats = SEATS.into_iter().enumerate().map(seat).collect();
        Self { ticket: ticket.to_owned(), seats, chance, wrong: Vec::new(), left: 0, cut: 0, moved: 0 }
    }

    /// Lets those leave whose time has come, and those join who have left.
    pub(crate) fn look(&mut self, farm: &Farm, now: Instant) {
        for nr in 0..self.seats.len() {
            let ended = self.seats[nr].process.ended();
            match (self.seats[nr].phase, ended) {
                (Phase::Leaving(_), Some(status)) => {
                    if status.code() != Some(0) {
                        self.wrong.push(format!("a volunteer left with {status}"));
                    }
                    self.left += 1;
                    if self.chance.below(FRESH_HOMES) == 0 {
                        self.moved += 1;
                        self.seats[nr].home = farm.home(&format!("volunteer-{nr}-{}", self.moved));
                    }
                    self.join_again(farm, nr, now);
                }
                (Phase::Leaving(until), None) if now >= until => {
                    self.wrong.push(format!("a volunteer did not leave within {SOON:?}"));
                    self.seats[nr].process.kill();
                }
                (Phase::Leaving(_), None) => {}
                (Phase::Until(_) | Phase::Staying, Some(status)) => {
                    let said = self.seats[nr].process.stderr();
                    self.wrong.push(format!("a volunteer ended with {status} by itself: {said}"));
                    self.join_again(farm, nr, now);
                }
                (Phase::Until(until), None) if now >= until => {
                    if self.chance.below(CUTS) == 0 {
                        self.cut += 1;
                        self.seats[nr].process.kill();
                        self.join_again(farm, nr, now);
                    } else {
                        self.seats[nr].process.signal(Signal::TERM);
                        self.seats[nr].phase = Phase::Leaving(now + SOON);
                    }
                }
                (Phase::Until(_) | Phase::Staying, None) => {}
            }
        }
    }

    fn join_again(&mut self, farm: &Farm, nr: usize, now: Instant) {
        let seat = &mut self.seats[nr];
        seat.process = join(farm, &seat.home, &self.ticket);
        seat.phase = Phase::Until(now + self.chance.around(STAY));
    }

    /// Those that run now.
    pub(crate) fn daemons(&self) -> impl Iterator<Item = Daemon> {
        self.seats.iter().map(|seat| Daemon {
            who: seat.name.to_owned(),
            pid: seat.process.pid(),
            home: seat.home.path().to_owned(),
        })
    }

    /// Lets everybody leave for good; what was wrong with their comings and goings.
    pub(crate) fn leave(&mut self) -> Vec<String> {
        for seat in &mut self.seats {
            if seat.process.ended().is_none() {
                seat.process.signal(Signal::TERM);
            }
            let status = wait_for("a volunteer's orderly end", SOON, || seat.process.ended());
            if status.code() != Some(0) {
                self.wrong.push(format!("{} ended with {status}", seat.name));
            }
        }
        std::mem::take(&mut self.wrong)
    }
}

fn join(farm: &Farm, home: &Home, ticket: &str) -> Process {
    let words = ["--volunteer", "--no-mdns", "--slots", "1", "--accept", "any", "--max-store", STORE, "--farm", ticket];
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"];
    let mut command = home.command(words.into_iter().chain(listen));
    Process::start(command.env("TMPDIR", farm.folder().join("tmp")))
}

impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { left, cut, moved, .. } = self;
        write!(f, "volunteers left {left} times in order and {cut} times by a power cut; {moved} times to a fresh home")
    }
}
