//! Deterministic simulation: a run is a seed.
//!
//! The farm of a run is made of the same parts as the program (coordinator, volunteers, router, mailer, requesters), on one
//! thread, with tokio's paused clock, seeded chance, a network and stores in memory, and the program's own log and recovery
//! ([`world`], [`net`]). People ask ([`workload`]) while messages are lost, late, doubled and out of order, walls go up, nodes
//! crash and come back with what a disk had of their last writes ([`disk`]) and a snapshot of anything before them, clocks are
//! up to an hour off ([`hours`]), and volunteers lie, boast, idle or fall silent ([`workshop`]). Then the weather clears, and
//! everything must come to its end ([`storm`]). [`checks`] says what must hold, and is itself tried on farms that are broken on
//! purpose ([`flaw`]). What chance hardly ever meets is played as it is told ([`staged`]).
//!
//! `SEEDS=n` runs so many seeds instead of a thousand, `SEEDS=a..b` those from `a` to before `b`. `SEED=n` runs one and prints
//! every line of it; the first seeds that break something are run again and print the lines that concern it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a run tells its story")]

mod away;
mod checks;
mod dawdler;
mod disk;
mod flaw;
mod hours;
mod log;
mod loss;
mod names;
mod net;
mod staged;
mod storm;
mod stream;
mod tell;
mod workload;
mod workshop;
mod world;

use checks::Tally;
use flaw::Flaw;
use log::Telling;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

/// Seeds that a run of the tests covers.
const SEEDS: Range<u64> = 0..1_000;
/// Seeds that are run twice.
const TWICE: u64 = 20;
/// Seeds among which each broken farm is noticed.
const FEW: u64 = 6;
/// Seeds whose stories are printed when many break.
const STORIES: usize = 3;

thread_local! {
    /// Panics on this thread since the run began: those in spawned parts of a node end nothing by themselves.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// How a run went.
struct Run {
    seed: u64,
    lines: Vec<String>,
    story: Vec<String>,
    broken: Vec<String>,
    tally: Tally,
}

fn run(seed: u64, flaw: Flaw, telling: Telling) -> Run {
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
    let (log, checks, tally) = runtime.block_on(storm::run(seed, flaw, telling));
    drop(runtime);
    let mut broken = checks.broken();
    broken.extend(PANICS.take());
    Run { seed, lines: log.lines(), story: log.story(), broken, tally }
}

/// Runs seeds on every core, and gives back what `look` makes of each.
fn run_all<T: Send>(seeds: Range<u64>, flaw: Flaw, telling: Telling, look: impl Fn(Run) -> T + Sync) -> Vec<T> {
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
                    let seen = look(run(seed, flaw, telling));
                    found.lock().unwrap().push(seen);
                }
            });
        }
    });
    found.into_inner().unwrap()
}

/// What the environment asks for under `name`: one number or a range.
fn asked_for(name: &str) -> Option<Range<u64>> {
    let text = std::env::var(name).ok()?;
    let parsed = match text.split_once("..") {
        Some((from, to)) => from.parse().and_then(|from| to.parse().map(|to| from..to)),
        None => text.parse().map(|most| 0..most),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{name} is a number or a range `a..b`, not `{text}`")))
}

/// A seed that broke something, as a person reads it.
fn story(seed: u64, flaw: Flaw) -> String {
    let told = run(seed, flaw, Telling::Everything);
    format!("SEED={seed}: {}\n{}\n", told.broken.join("; "), told.story.join("\n"))
}

#[test]
fn every_seed_is_safe_and_comes_to_its_end() {
    if let Some(seed) = asked_for("SEED") {
        let run = run(seed.end, Flaw::None, Telling::Everything);
        run.lines.iter().for_each(|line| println!("{line}"));
        println!("{:?}", run.tally);
        assert!(run.broken.is_empty(), "{}", story(seed.end, Flaw::None));
        return;
    }
    let range = asked_for("SEEDS").unwrap_or(SEEDS);
    let started = std::time::Instant::now();
    let runs = run_all(range.clone(), Flaw::None, Telling::Nothing, |run| (run.seed, run.broken, run.tally));
    let mut broken: Vec<_> = runs.iter().filter(|(_, broken, _)| !broken.is_empty()).map(|(seed, ..)| *seed).collect();
    broken.sort_unstable();
    for seed in broken.iter().take(STORIES) {
        println!("{}", story(*seed, Flaw::None));
    }
    assert!(broken.is_empty(), "replay with SEED=n: {broken:?}");
    let seeds = runs.len() as u64;
    let sum = |of: fn(&Tally) -> usize| runs.iter().map(|(.., tally)| of(tally)).sum::<usize>();
    println!(
        "seeds {range:?} in {} s: {} entries, {} requests, {} built, {} ended otherwise, {} mails, {} delivered, {} lies, \
         {} starts of the coordinator, {} batches torn, {} refused for their clock, {} leases idled away",
        started.elapsed().as_secs(),
        sum(|tally| tally.entries),
        sum(|tally| tally.acknowledged),
        sum(|tally| tally.built),
        sum(|tally| tally.ended_otherwise),
        sum(|tally| tally.mails),
        sum(|tally| tally.delivered),
        sum(|tally| tally.lies),
        sum(|tally| tally.crashes),
        sum(|tally| tally.torn),
        sum(|tally| tally.clock_refusals),
        sum(|tally| tally.idlers),
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
    for (what, seen) in [
        ("torn batches", sum(|tally| tally.torn)),
        ("lies", sum(|tally| tally.lies)),
        ("refusals for a clock", sum(|tally| tally.clock_refusals)),
        ("leases idled away", sum(|tally| tally.idlers)),
    ] {
        assert!(seen as u64 >= seeds / 20, "{seeds} seeds saw {seen} {what}: they try too little");
    }
}

#[test]
fn a_seed_gives_the_same_story_twice() {
    let again = |seed| run(seed, Flaw::None, Telling::Everything).lines;
    let stories =
        run_all(0..TWICE, Flaw::None, Telling::Everything, |first| (first.seed, first.lines, again(first.seed)));
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
    let mut runs = run_all(0..FEW, flaw, Telling::Nothing, |run| (run.seed, run.broken));
    runs.sort();
    let broken: Vec<_> = runs.iter().filter(|(_, broken)| !broken.is_empty()).collect();
    let right = broken.iter().find(|(_, broken)| broken.iter().any(|what| what.contains(because)));
    let Some((seed, _)) = right else { panic!("{flaw:?}: {broken:#?}") };
    println!("{flaw:?}: {} of {FEW} seeds break\n{}", broken.len(), story(*seed, flaw));
}

#[test]
fn a_log_that_forgets_what_it_answered_is_noticed() {
    is_noticed(Flaw::ForgetfulDisk, "and the farm does not know it");
}

#[test]
fn a_keeper_that_loses_what_it_keeps_is_noticed() {
    is_noticed(Flaw::ForgetfulShelf, "is gone from the keeper");
}

#[test]
fn volunteers_that_agree_on_a_lie_are_noticed() {
    is_noticed(Flaw::Collusion, "demanded agreement and was answered with a lie");
}

#[test]
fn a_mail_sent_twice_is_noticed() {
    is_noticed(Flaw::DeafMailer, "was mailed 2 times");
}

#[test]
fn a_mail_that_counts_as_sent_before_it_is_is_noticed() {
    is_noticed(Flaw::HastyMailer, "asked to be written to about");
}

#[test]
fn a_subscription_lost_to_a_running_job_is_noticed() {
    is_noticed(Flaw::LostSubscription, "asked to be written to about");
}

#[test]
fn a_lease_that_outlives_its_volunteer_is_noticed() {
    is_noticed(Flaw::ImmortalLease, "has been gone for");
}

#[test]
fn a_verdict_before_its_keeper_is_noticed() {
    is_noticed(Flaw::HastyVerdict, "the keeper is noted as a holder of what it does not hold");
}

#[test]
fn bytes_that_nobody_compared_are_noticed() {
    is_noticed(Flaw::BlindReceiver, "was delivered with other bytes");
}

#[test]
fn a_build_that_nobody_wants_and_nobody_stops_is_noticed() {
    is_noticed(Flaw::UnheardCancel, "still works on");
}

#[test]
fn a_lease_given_twice_is_noticed() {
    is_noticed(Flaw::DoubleGrant, "works on");
}

#[test]
fn a_cancellation_that_is_forgotten_is_noticed() {
    is_noticed(Flaw::DeafQueue, "was cancelled, and");
}
