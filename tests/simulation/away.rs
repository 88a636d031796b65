//! A volunteer that loses its coordinator for a day in the middle of a build: it finishes, keeps what it made, reports when it
//! is heard again, and is believed. Nobody else could have built it meanwhile, and it is not built a second time.

use crate::net::Exit;
use crate::staged::{ask, begun, said, staged, until};
use std::time::Duration;
use tokio::time::sleep;

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How soon after the day is over the farm has its answer: the longest pauses before a connection and before a report.
const SOON: Duration = Duration::from_secs(180);

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
    staged(seed, async |world| {
        world.allow_one_slot(0);
        world.start_volunteer(0).await;
        let asking = tokio::spawn(ask(world));
        until("the volunteer builds", SOON, || begun(world) == 1).await;

        match absence {
            Absence::Wall => world.net.wall(world.coordinator.key(), world.volunteers[0].key()),
            Absence::Down => world.crash_coordinator(Exit::Silent).await,
        }
        sleep(DAY).await;
        assert!(said(world, "has built"), "seed {seed}: {absence:?} stopped the build");
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
        assert_eq!(begun(world), 1, "seed {seed}: it was built again\n{}", world.log.lines().join("\n"));
    });
}
