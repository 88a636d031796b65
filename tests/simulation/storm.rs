//! One run: people ask while things go wrong, then nothing goes wrong any more and everything must come to its end.

use crate::checks::{Checks, Tally};
use crate::flaw::Flaw;
use crate::log::{Log, Telling};
use crate::net::{Exit, Weather};
use crate::workload::any_wish;
use crate::world::World;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long things go wrong.
const STORM: Duration = Duration::from_secs(400);
/// How long after that everything has come to its end: the longest life of a request, the waits of a mail that was not taken,
/// and time to build.
const CALM: Duration = Duration::from_secs(2_400);
/// How often the end is looked for.
const LOOK: Duration = Duration::from_secs(10);

/// Runs a seed.
pub(crate) async fn run(seed: u64, flaw: Flaw, telling: Telling) -> (Log, Checks, Tally) {
    let mut world = World::new(seed, flaw, telling);
    world.start_coordinator().await;
    for number in 0..world.volunteers.len() {
        // Some come later.
        if world.chance.below(3) > 0 {
            world.start_volunteer(number).await;
        }
    }
    for number in 0..world.requesters.len() {
        world.start_requester(number);
    }
    world.net.set_weather(Weather::storm(&world.chance));
    storm(&mut world).await;
    clear(&mut world).await;
    settle(&mut world).await;
    let tally = world.checks.at_the_end();
    (world.log.clone(), world.checks.clone(), tally)
}

async fn storm(world: &mut World) {
    let until = Instant::now() + STORM;
    while Instant::now() < until && world.checks.broken().is_empty() {
        sleep(Duration::from_millis(500 + world.chance.below(9_500))).await;
        let pick = |world: &World, of: usize| usize::try_from(world.chance.below(of as u64)).unwrap();
        let exit = if world.chance.below(2) == 0 { Exit::Noticed } else { Exit::Silent };
        match world.chance.below(20) {
            0..=7 => ask(world),
            8 => world.crash_coordinator(exit).await,
            9 | 10 if world.coordinator.is_up() => {
                let number = pick(world, world.volunteers.len());
                world.crash_volunteer(number, exit);
            }
            9..=11 if !world.coordinator.is_up() => world.start_coordinator().await,
            9..=14 => start_some(world).await,
            15 => {
                let number = pick(world, world.volunteers.len());
                world.end_volunteer(number).await;
            }
            16 => {
                let (one, other) = (pick(world, 8), pick(world, 8));
                let keys = everybody(world);
                if one != other {
                    world.net.wall(keys[one], keys[other]);
                }
            }
            17 => world.net.clear(),
            18 => {
                let number = pick(world, world.requesters.len());
                world.crash_requester(number, exit);
            }
            _ => world.net.set_weather(Weather::storm(&world.chance)),
        }
        world.look();
    }
}

fn everybody(world: &World) -> Vec<protocol::id::PeerKey> {
    let seats = [&world.coordinator].into_iter().chain(&world.volunteers).chain(&world.requesters);
    seats.map(crate::world::Seat::key).collect()
}

/// Somebody asks for something.
fn ask(world: &World) {
    let number = usize::try_from(world.chance.below(world.requesters.len() as u64)).unwrap();
    let Some((person, life)) = world.person(number) else { return };
    let wish = any_wish(&world.chance);
    world.log.note(&person.name, |_| format!("wants {:?} {:?}", wish.options, wish.demand));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = life.cancelled() => {}
            () = person.ask(wish) => {}
        }
    });
}

/// Some nodes that are down come up.
async fn start_some(world: &mut World) {
    for number in 0..world.volunteers.len() {
        if !world.volunteers[number].is_up() && world.chance.below(2) == 0 {
            world.start_volunteer(number).await;
        }
    }
    for number in 0..world.requesters.len() {
        if !world.requesters[number].is_up() && world.chance.below(2) == 0 {
            world.start_requester(number);
        }
    }
}

/// Everything is up and well.
async fn clear(world: &mut World) {
    world.log.weather(|_| "the storm is over".to_owned());
    world.clear_up();
    if !world.coordinator.is_up() {
        world.start_coordinator().await;
    }
    for number in 0..world.volunteers.len() {
        if !world.volunteers[number].is_up() {
            world.start_volunteer(number).await;
        }
    }
    for number in 0..world.requesters.len() {
        if !world.requesters[number].is_up() {
            world.start_requester(number);
        }
    }
}

async fn settle(world: &mut World) {
    let until = Instant::now() + CALM;
    loop {
        if !everything_ends(world, until).await {
            return;
        }
        everything_can_be_had(world).await;
        world.look();
        // Somebody who had given up for a while may have asked once more meanwhile.
        if world.checks.unended().is_empty() {
            return;
        }
    }
}

/// Waits until everything that was asked has come to its end; `false` when something broke.
async fn everything_ends(world: &World, until: Instant) -> bool {
    loop {
        sleep(LOOK).await;
        world.look();
        if !world.checks.broken().is_empty() {
            return false;
        }
        let waiting = world.checks.unended();
        if waiting.is_empty() {
            return true;
        }
        if Instant::now() > until {
            world.checks.breach(format!("not at its end {CALM:?} after the storm: {waiting:?}"));
            return false;
        }
    }
}

async fn everything_can_be_had(world: &World) {
    let Some((person, _)) = world.person(0) else { return };
    for (key, _) in world.checks.finished() {
        if let Err(error) = person.can_have(key).await {
            let key = world.log.say(|say| say.key(key));
            world.checks.breach(format!("{key} is finished, and cannot be had: {error}"));
        }
    }
}
