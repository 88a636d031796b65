//! A build whose verdict goes between the word that it is there and the question where: whoever asked goes on asking, until it
//! is built anew. Who is to be mailed is mailed once.

use crate::staged::{begun, staged, wish};
use node::client::get::{Errand, Got, Patience, Stage};
use node::client::wish::Wish;
use std::cell::Cell;
use std::time::Duration;
use tokio::time::sleep;

/// By then a mail that was to be sent is sent.
const MAILED_WITHIN: Duration = Duration::from_secs(600);

#[test]
fn a_build_that_is_gone_before_it_is_found_is_built_anew() {
    staged(1, async |world| {
        world.start_volunteer(0).await;
        let losing = world.lose_the_first_build();
        let (person, _) = world.person(0).unwrap();
        let output = tempfile::tempdir().unwrap();
        let errand = Errand {
            session: &person.session,
            uploads: &person.uploads,
            wish: &Wish { addresses: vec!["me@example.org".parse().unwrap()], ..wish() },
            source: None,
            patience: Patience::Wait,
            folder: Some(output.path().join("hello")),
        };
        let requests = Cell::new(0);
        let got = errand
            .run(&person.chance, &mut |stage| {
                requests.set(requests.get() + usize::from(matches!(stage, Stage::Submitted { .. })));
            })
            .await;
        losing.await.unwrap();
        assert!(matches!(got, Ok(Got::Delivered(_))), "{got:?}");
        assert_eq!((requests.get(), begun(world)), (2, 2), "{}", world.log.lines().join("\n"));
        sleep(MAILED_WITHIN).await;
        assert_eq!(world.checks.at_the_end().mails, 1, "{}", world.log.lines().join("\n"));
    });
}
