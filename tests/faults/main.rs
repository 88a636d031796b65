//! Machines die, stop, run full and lose their time, and a farm of real processes holds what it promised.
//!
//! A run is a number of rounds and a seed. The seed draws farms ([`plan`]): who is in one, how it mails, and for each round who asks
//! for what and which machine meets which fault at which moment. [`yard`] is such a farm, [`machine`] one of its daemons,
//! [`clock`] changes what time a process sees; [`round`] carries a round out, waits for clear weather and for the end of every
//! acknowledged request, [`ask`] is somebody who asks. Then [`inspect`] looks whether each build has one verdict, everybody was
//! mailed once (or, by a server, perhaps twice where the coordinator was killed), and nothing is left over. [`tally`] counts.
//! [`wrong_clock`] has a coordinator with a senseless date.
//!
//! `ROUNDS` and `SEED` say how many and which; `scripts/faults` sets them. What is drawn repeats, what the machine was doing at that
//! moment does not: a failing round tells seed and round, and both again are the best try, not a certain one.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod ask;
mod clock;
#[path = "../integration/deadline.rs"]
mod deadline;
#[path = "../integration/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/farm.rs"]
mod farm;
mod inspect;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/lacks.rs"]
mod lacks;
mod machine;
mod plan;
mod round;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/smtp.rs"]
mod smtp;
mod tally;
mod wrong_clock;
mod yard;

use crate::plan::{ROUNDS_OF_A_FARM, Season};
use crate::tally::Tally;
use crate::yard::{Means, Yard};
use lacks::left_out;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Rounds where nobody says how many.
const ROUNDS: u64 = 30;
/// The first seed where nobody says which.
const SEED: u64 = 2006;
/// Farms that live at the same time.
const FARMS_AT_ONCE: u64 = 3;

#[test]
fn what_was_acknowledged_ends_once_whatever_befalls_the_machines() {
    let means = match Means::of_this_machine() {
        Ok(means) => means,
        Err(because) => return left_out("process faults", &because),
    };
    let (rounds, first) = (number("ROUNDS", ROUNDS), number("SEED", SEED));
    let farms = rounds.div_ceil(ROUNDS_OF_A_FARM);
    let (next, tally, broken) = (AtomicU64::new(0), Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _lane in 0..FARMS_AT_ONCE.min(farms) {
            scope.spawn(|| {
                loop {
                    let farm = next.fetch_add(1, Ordering::Relaxed);
                    if farm >= farms {
                        return;
                    }
                    let of_this = ROUNDS_OF_A_FARM.min(rounds - farm * ROUNDS_OF_A_FARM);
                    let mut counted = Tally::default();
                    if let Err(story) = season(&means, first + farm, of_this, &mut counted) {
                        eprintln!("{story}");
                        broken.lock().unwrap().push(story.lines().next().unwrap_or_default().to_owned());
                    }
                    tally.lock().unwrap().add(&counted);
                }
            });
        }
    });
    eprintln!("{}", tally.into_inner().unwrap().summary(began.elapsed()));
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// One farm from its founding to its end; the story of what broke, its first line in short.
fn season(means: &Means, seed: u64, rounds: u64, tally: &mut Tally) -> Result<(), String> {
    let season = Season::draw(seed);
    let mut yard = Yard::found(means, &season).map_err(|because| format!("seed {seed}: no farm: {because}"))?;
    tally.farms += 1;
    for round in 0..rounds {
        let weather = season.weather(round);
        let began = Instant::now();
        let mut story = Vec::new();
        let done = round::carry_out(&mut yard, &weather, &mut story, tally);
        match done {
            Ok(()) => eprintln!("seed {seed}, round {round}: {:.1} s: {weather}", began.elapsed().as_secs_f64()),
            Err(because) => return Err(told(seed, round, &because, &story, &yard)),
        }
    }
    let end = inspect::end_of(&mut yard);
    end.map_err(|because| told(seed, rounds, &format!("at the end of the farm: {because}"), &[], &yard))
}

/// Everything that may help to understand a failure.
fn told(seed: u64, round: u64, because: &str, story: &[String], yard: &Yard) -> String {
    let mut text = format!("seed {seed}, round {round}: {because}\n");
    let _ = writeln!(text, "again, as far as can be: scripts/faults {} {seed}", (round + 1).min(ROUNDS_OF_A_FARM));
    for line in story {
        let _ = writeln!(text, "  {line}");
    }
    text.push_str(&yard.last_words(seed));
    text
}

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")),
        Err(_) => otherwise,
    }
}
