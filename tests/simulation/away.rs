//! A volunteer that loses its coordinator for a day in the middle of a build: it finishes, keeps what it made, reports when it
//! is heard again, and is believed. Nobody else could have built it meanwhile, and it is not built a second time.

use crate::flaw::Flaw;
use crate::log::Telling;
use crate::net::{Exit, Weather};
use crate::world::World;
use node::client::get::Patience;
use node::client::wish::Wish;
use protocol::request::{Conditions, Demand, Priority};
use protocol::time::Span;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How soon after the day is over the farm has its answer: the longest pauses before a connection and before a report.
const SOON: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(500);

/// Why the coordinator is not heard.
#[derive(Clone, Copy, Debug)]
enum Absence {
    /// It runs, and no message passes between the two.
    Wall,
    /// It is down.
    Down,
}

#[test]
fn a_day_behind_a_wall_costs_no_build() {
    away(1, Absence::Wall);
}

#[test]
fn a_day_without_a_coordinator_costs_no_build() {
    away(2, Absence::Down);
}

fn away(seed: u64, absence: Absence) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, Flaw::None, Telling::Everything);
        world.allow_one_slot(0);
        world.net.set_weather(Weather::CALM);
        world.start_coordinator().await;
        world.start_volunteer(0).await;
        world.start_requester(0);
        let asking = tokio::spawn(ask(&world));
        until("the volunteer builds", SOON, || said(&world, "begins")).await;

        match absence {
            Absence::Wall => world.net.wall(world.coordinator.key(), world.volunteers[0].key()),
            Absence::Down => world.crash_coordinator(Exit::Silent).await,
        }
        sleep(DAY).await;
        assert!(said(&world, "has built"), "seed {seed}: {absence:?} stopped the build");
        assert_eq!(world.checks.finished(), [], "seed {seed}");

        match absence {
            Absence::Wall => world.net.clear(),
            Absence::Down => world.start_coordinator().await,
        }
        until("the verdict", SOON, || {
            world.look();
            world.checks.finished().len() == 1
        })
        .await;
        asking.await.unwrap();
        let lines = world.log.lines();
        let begun = lines.iter().filter(|line| line.contains("begins")).count();
        assert_eq!(begun, 1, "seed {seed}: it was built again\n{}", lines.join("\n"));
        assert_eq!(world.checks.broken(), Vec::<String>::new(), "seed {seed}");
    });
}

/// Somebody asks, and does not wait for the end.
fn ask(world: &World) -> impl Future<Output = ()> + use<> {
    let (person, _) = world.person(0).unwrap();
    let wish = Wish {
        recipe: node::catalogue::by_name("hello").unwrap().clone(),
        options: vec![("greeting".to_owned(), "one".to_owned())],
        source: None,
        require: vec![],
        addresses: vec![],
        demand: Demand::default(),
        conditions: Conditions::Usual,
        priority: Priority::Normal,
        expires: Some(Span::from(7 * DAY)),
    };
    async move { person.run(&wish, Patience::Detach).await }
}

fn said(world: &World, what: &str) -> bool {
    world.log.lines().iter().any(|line| line.contains(what))
}

async fn until(what: &str, within: Duration, mut met: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !met() {
        assert!(Instant::now() < until, "{what} did not come within {within:?}");
        sleep(LOOK).await;
    }
}
