//! A long life: real processes that work for an hour, or for a few minutes in CI, and must be no larger at the end than early on.
//!
//! A coordinator serves, three volunteers join and leave all the time, one stays; people ask for small builds at an even pace,
//! some twice, some together, some by mail, and take some back. Every few seconds everything that could grow is measured.
//! `BARNRAISE_SOAK_MINUTES` says how long, `SEED` repeats who comes and goes when and who asks for what.
//!
//! [`company`] comes and goes, [`people`] ask, [`gauge`] measures, [`flat`] judges.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/barn.rs"]
mod barn;
mod company;
#[path = "../integration/deadline.rs"]
mod deadline;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/farm.rs"]
mod farm;
mod flat;
mod gauge;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/lacks.rs"]
mod lacks;
mod machine;
mod people;

use barn::Barn;
use company::Company;
use gauge::Gauge;
use lacks::can_build;
use node::chance::Chance;
use people::People;
use std::thread;
use std::time::{Duration, Instant};

/// What the coordinator may keep: some fourteen of the small builds, which the first quarter of a short run fills.
const COORDINATOR_STORE: &str = "2M";
/// New builds asked for in an hour.
const BUILDS_AN_HOUR: u32 = 1_030;
/// How many of them are to be built at least, an hour.
const BUILT_AN_HOUR: u64 = 1_000;
/// How often everything is measured in a run of this many.
const SAMPLES: u32 = 240;
/// How often the driver looks at what it has started.
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn a_farm_that_lives_long_grows_nothing() {
    if !can_build("a long life") {
        return;
    }
    let minutes = minutes();
    let length = Duration::from_secs(60 * u64::from(minutes));
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("a farm for {minutes} min; SEED={seed}");
    let chance = Chance::seeded(seed);
    let mut barn = Barn::found_with(|farm| {
        let mails = farm.folder().join("mails");
        ["--max-store", COORDINATOR_STORE, "--mail-dir", mails.to_str().unwrap()].map(str::to_owned).to_vec()
    });
    let run = machine::Run::new(&barn.farm);
    let mut people = People::new(&barn, run.word(), chance.clone());
    let mut company = Company::new(&barn.farm, &people.ticket(), chance);
    let mut gauge = Gauge::new(&barn.coordinator, &barn.farm, length / SAMPLES);
    let (begun, mut next_build) = (Instant::now(), Instant::now());
    while begun.elapsed() < length {
        let now = Instant::now();
        company.look(&barn.farm, now);
        people.look(now);
        if now >= next_build {
            people.ask(now);
            next_build += Duration::from_secs(3_600) / BUILDS_AN_HOUR;
        }
        gauge.look(now.duration_since(begun), &company, people.ended());
        thread::sleep(LOOK);
    }
    people.end();
    let mut wrong = company.leave();
    assert_eq!(barn.coordinator.stop().code(), Some(0), "the coordinator ends in order");
    eprintln!("{people}, {company}");
    let measured = gauge.measured();
    eprintln!("{}", flat::table(&measured));

    wrong.extend_from_slice(people.wrong());
    let built = people.ended().built;
    if built < BUILT_AN_HOUR * u64::from(minutes) / 60 {
        wrong.push(format!("only {built} builds in {minutes} min"));
    }
    wrong.extend(measured.iter().filter_map(flat::Measured::growth));
    wrong.extend(run.left_over());
    assert!(wrong.is_empty(), "SEED={seed}\n{}", wrong.join("\n"));
}

/// How long to live: what `BARNRAISE_SOAK_MINUTES` says, or as long as every change can wait for.
fn minutes() -> u32 {
    let told = std::env::var("BARNRAISE_SOAK_MINUTES").ok();
    told.map_or(5, |minutes| minutes.parse().unwrap())
}
