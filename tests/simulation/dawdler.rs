//! A volunteer that gets on with a build and never ends: its lease has an end whatever it shows, it is told, and another builds.

use crate::staged::{ask, begun, said, staged, until};
use crate::workshop::Nature;
use protocol::farm::lease::BESIDE_STEPS;
use std::time::Duration;
use tokio::time::sleep;

/// What its recipe gives the steps of the build that is asked for.
const OF_STEPS: Duration = Duration::from_secs(60);
/// How much earlier its lease still stands: what it took to be granted and begun.
const SHORTLY: Duration = Duration::from_secs(30);
/// How soon after its end another has built it.
const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_build_that_gets_on_and_never_ends_is_given_to_another() {
    staged(1, async |world| {
        world.set_nature(0, Nature::Dawdler);
        world.set_nature(1, Nature::Honest);
        world.start_volunteer(0).await;
        let asking = tokio::spawn(ask(world));
        until("the dawdler's attempt", SOON, || begun(world) == 1).await;
        world.start_volunteer(1).await;

        sleep(BESIDE_STEPS.duration() + OF_STEPS - SHORTLY).await;
        assert_eq!(begun(world), 1, "it was taken from whom it was not lost to");
        assert!(!said(world, "nothing moves on"), "it was taken for stuck");

        until("the verdict", SHORTLY + SOON, || {
            world.look();
            world.checks.finished().len() == 1
        })
        .await;
        asking.await.unwrap();
        assert!(said(world, "has taken as long as it may"));
        assert!(said(world, "stops"), "the dawdler works in vain");
        assert_eq!(begun(world), 2);
    });
}
