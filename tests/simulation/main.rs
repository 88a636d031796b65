//! Deterministic simulation: a run is a seed.
//!
//! The farm of a run is made of the same parts as the program (coordinator, volunteers, router, mailer, requesters), on one
//! thread, with tokio's paused clock, seeded chance, and a network, stores and a log in memory ([`world`], [`net`]). People
//! ask ([`workload`]) while messages are lost, late, doubled and out of order, walls go up, nodes crash and come back, and a
//! volunteer lies ([`storm`]). Then the weather clears, and everything must come to its end. [`checks`] says what must hold.
//!
//! `SEEDS=n` runs so many seeds instead of 200. `SEED=n` runs one and prints its story.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a run tells its story")]

mod away;
mod checks;
mod log;
mod net;
mod storm;
mod stream;
mod workload;
mod workshop;
mod world;

use checks::Tally;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use world::Flaw;

/// Seeds that a run of the tests covers.
const SEEDS: u64 = 200;
/// Seeds that are run twice.
const TWICE: u64 = 20;

thread_local! {
    /// Panics on this thread since the run began: those in spawned parts of a node end nothing by themselves.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// How a run went.
struct Run {
    seed: u64,
    lines: Vec<String>,
    broken: Vec<String>,
    tally: Tally,
}

fn run(seed: u64, flaw: Flaw) -> Run {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printing = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            printing(panic);
        }));
    });
    PANICS.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (log, checks, tally) = runtime.block_on(storm::run(seed, flaw));
    drop(runtime);
    let mut broken = checks.broken();
    broken.extend(PANICS.take());
    Run { seed, lines: log.lines(), broken, tally }
}

/// Runs seeds on every core, and gives back what `look` makes of each.
fn run_all<T: Send>(seeds: std::ops::Range<u64>, flaw: Flaw, look: impl Fn(Run) -> T + Sync) -> Vec<T> {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let seen = look(run(seed, flaw));
                    found.lock().unwrap().push(seen);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn every_seed_is_safe_and_comes_to_its_end() {
    if let Some(seed) = number("SEED") {
        let run = run(seed, Flaw::None);
        run.lines.iter().for_each(|line| println!("{line}"));
        println!("{:?}", run.tally);
        assert!(run.broken.is_empty(), "SEED={seed}: {:#?}", run.broken);
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let runs = run_all(0..seeds, Flaw::None, |run| (run.seed, run.broken, run.tally));
    let broken: Vec<_> = runs.iter().filter(|(_, broken, _)| !broken.is_empty()).collect();
    assert!(broken.is_empty(), "replay with SEED=n: {broken:#?}");
    let sum = |of: fn(&Tally) -> usize| runs.iter().map(|(.., tally)| of(tally)).sum::<usize>();
    println!(
        "{seeds} seeds: {} entries, {} requests, {} built, {} ended otherwise, {} mails, {} delivered, {} lies, {} crashes",
        sum(|tally| tally.entries),
        sum(|tally| tally.acknowledged),
        sum(|tally| tally.built),
        sum(|tally| tally.ended_otherwise),
        sum(|tally| tally.mails),
        sum(|tally| tally.delivered),
        sum(|tally| tally.lies),
        sum(|tally| tally.crashes),
    );
    for (what, seen) in [
        ("builds", sum(|tally| tally.built)),
        ("other ends", sum(|tally| tally.ended_otherwise)),
        ("mails", sum(|tally| tally.mails)),
        ("deliveries", sum(|tally| tally.delivered)),
        ("crashes of the coordinator", sum(|tally| tally.crashes)),
    ] {
        assert!(seen as u64 >= seeds / 2, "{seeds} seeds saw {seen} {what}: they try too little");
    }
}

#[test]
fn a_seed_gives_the_same_story_twice() {
    let stories = run_all(0..TWICE, Flaw::None, |first| (first.seed, first.lines, run(first.seed, Flaw::None).lines));
    for (seed, lines, again) in stories {
        if let Some(at) = lines.iter().zip(&again).position(|(one, other)| one != other) {
            panic!("seed {seed}, line {at}:\n  {}\n  {}", lines[at], again[at]);
        }
        assert_eq!(lines.len(), again.len(), "seed {seed}");
        assert!(lines.len() > 100, "seed {seed} has a story of {} lines", lines.len());
    }
}

/// Some of a few seeds of a farm that is broken on purpose are noticed, and for the right reason.
fn is_noticed(flaw: Flaw, because: &str) {
    let broken: Vec<String> = run_all(0..6, flaw, |run| run.broken).into_iter().flatten().collect();
    assert!(broken.iter().any(|what| what.contains(because)), "{flaw:?}: {broken:#?}");
}

#[test]
fn a_log_that_forgets_what_it_answered_is_noticed() {
    is_noticed(Flaw::ForgetfulDisk, "and the farm does not know it");
}

#[test]
fn volunteers_that_agree_on_a_lie_are_noticed() {
    is_noticed(Flaw::Collusion, "demanded agreement and was answered with a lie");
}

#[test]
fn a_mail_sent_twice_is_noticed() {
    is_noticed(Flaw::DeafMailer, "was mailed 2 times");
}
