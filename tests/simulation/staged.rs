//! Runs that go as they are told, in clear weather, and not as chance will have it.

use crate::flaw::Flaw;
use crate::log::Telling;
use crate::world::World;
use node::client::get::Patience;
use node::client::wish::Wish;
use protocol::request::{Conditions, Demand, Priority};
use protocol::time::Span;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LOOK: Duration = Duration::from_millis(500);
/// How long somebody who asks waits for an answer.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A farm with a coordinator and a requester, to which `play` happens; everything must hold afterwards.
pub(crate) fn staged(seed: u64, play: impl AsyncFnOnce(&mut World)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, Flaw::None, Telling::Everything);
        world.clear_up();
        world.start_coordinator().await;
        world.start_requester(0);
        play(&mut world).await;
        world.look();
        assert_eq!(world.checks.broken(), Vec::<String>::new(), "seed {seed}");
    });
}

/// Somebody asks, and does not wait for the end.
pub(crate) fn ask(world: &World) -> impl Future<Output = ()> + use<> {
    let (person, _) = world.person(0).unwrap();
    async move { person.run(&wish(), Patience::Detach).await }
}

/// What somebody asks for.
pub(crate) fn wish() -> Wish {
    Wish {
        recipe: node::catalogue::by_name("hello").unwrap().clone(),
        options: vec![("greeting".to_owned(), "one".to_owned())],
        source: None,
        require: vec![],
        addresses: vec![],
        demand: Demand::default(),
        conditions: Conditions::Usual,
        priority: Priority::Normal,
        expires: Some(Span::from(WEEK)),
    }
}

/// How many attempts have begun.
pub(crate) fn begun(world: &World) -> usize {
    world.log.lines().iter().filter(|line| line.contains("begins")).count()
}

/// Whether the log has such a line.
pub(crate) fn said(world: &World, what: &str) -> bool {
    world.log.lines().iter().any(|line| line.contains(what))
}

/// Waits for a condition, at most so long.
pub(crate) async fn until(what: &str, within: Duration, mut met: impl FnMut() -> bool) {
    let until = Instant::now() + within;
    while !met() {
        assert!(Instant::now() < until, "{what} did not come within {within:?}");
        sleep(LOOK).await;
    }
}
