//! Rule 6, second half: why it waits.

use crate::kit::*;
use protocol::farm::command::{Command, JobState};
use protocol::farm::durations::Estimate;
use protocol::farm::explain::{ACCEPTS, Explanation, Presence, Unmet};
use protocol::platform::{Acceptance, Capability, Constraint, Value};
use protocol::time::Span;
use std::collections::BTreeSet;

#[test]
fn what_nobody_has_is_named_with_how_many_lack_it() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).requires(&["os=linux", "arch=x86_64", "tool.python2", "cores>=8"]);
    kit.submit(&ask);
    let big = machine(&[("cores", Value::Number(8))]);
    let mac = machine(&[("os", Value::Text("darwin".to_owned()))]);
    let seen =
        [sighting(10, plain(), Presence::Free), sighting(11, big, Presence::Busy), sighting(12, mac, Presence::Free)];
    let unmet = |key: &str, constraint, met_by| Unmet { key: key.to_owned(), constraint, met_by };
    let expected = Explanation::Unmet {
        volunteers: 2,
        platform: "linux/x86_64".to_owned(),
        unmet: vec![
            unmet("tool.python2", Constraint::Present, 0),
            unmet("cores", Constraint::AtLeast(Value::Number(8)), 1),
        ],
    };
    assert_eq!(kit.farm.explain(ask.id(), &seen), expected);
    let nobody = Explanation::Unmet { volunteers: 0, platform: "linux/x86_64".to_owned(), unmet: vec![] };
    assert_eq!(kit.farm.explain(ask.id(), &[]), nobody);
}

#[test]
fn owners_that_do_not_accept_are_counted() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    kit.submit(&ask);
    let closed = Capability { accepts: Acceptance::Catalogue(BTreeSet::new()), ..plain() };
    let expected = Explanation::Unmet {
        volunteers: 1,
        platform: "linux/?".to_owned(),
        unmet: vec![Unmet { key: ACCEPTS.to_owned(), constraint: Constraint::Present, met_by: 0 }],
    };
    assert_eq!(kit.farm.explain(ask.id(), &[sighting(10, closed, Presence::Free)]), expected);
}

#[test]
fn who_could_but_cannot_now_is_counted_by_reason() {
    let mut kit = Kit::new();
    let first = Ask::by(2).option(1);
    let other = kit.submit(&first);
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    kit.ok(Command::Refuse { lease, volunteer: key(10), reason: "no".to_owned() });
    let seen = [
        sighting(10, plain(), Presence::Free),
        sighting(11, plain(), Presence::Busy),
        sighting(12, plain(), Presence::Gone),
        sighting(13, plain(), Presence::Free),
        sighting(14, machine(&[("os", Value::Text("darwin".to_owned()))]), Presence::Free),
    ];
    let waiting = |ahead| Explanation::Waiting { busy: 1, free: 1, gone: 1, excluded: 1, ahead, confirming: None };
    assert_eq!(kit.farm.explain(ask.id(), &seen), waiting(1));
    let lease = kit.grant(other, 11);
    assert_eq!(kit.farm.explain(ask.id(), &seen), waiting(0));
    let running = Explanation::Running { volunteer: key(11), since: kit.farm.lease(lease).unwrap().granted_at };
    assert_eq!(kit.farm.explain(first.id(), &seen), running);
    assert_eq!(kit.farm.explain(Ask::by(9).id(), &seen), Explanation::Unknown);
}

#[test]
fn the_queue_is_shown_in_order() {
    let mut kit = Kit::new();
    let awaited = Ask::by(1).option(9).awaited();
    kit.submit(&awaited);
    let asks: Vec<_> = (0..5).map(|option| Ask::by(1).option(option)).collect();
    let jobs: Vec<_> = asks.iter().map(|ask| kit.submit(ask)).collect();
    kit.grant(jobs[3], 10);
    let rows = kit.farm.queue_rows(10, &[]);
    let shown: Vec<_> = rows.iter().map(|row| (row.request, row.view.state.unwrap())).collect();
    let expected: Vec<_> = [
        (&asks[3], JobState::Running),
        (&asks[0], JobState::Queued),
        (&asks[1], JobState::Queued),
        (&asks[2], JobState::Queued),
        (&asks[4], JobState::Queued),
        (&awaited, JobState::AwaitingSource),
    ]
    .into_iter()
    .map(|(ask, state)| (ask.id(), state))
    .collect();
    assert_eq!(shown, expected);
    assert_eq!(kit.farm.queue_rows(2, &[]), rows[..2]);
    let counts = kit.farm.counts();
    assert_eq!((counts.queued, counts.running, counts.finished), (5, 1, 0));
    kit.build(&asks[0], jobs[0], 11, "lua");
    let builds: Vec<_> =
        kit.farm.builds().map(|finished| (finished.verdict.build_key, finished.recipe.to_string())).collect();
    assert_eq!(builds, [(asks[0].build_key(), "lua".to_owned())]);
}

#[test]
fn an_estimate_is_a_range_from_past_builds_or_none() {
    let mut kit = Kit::new();
    let seen = [sighting(10, plain(), Presence::Busy), sighting(11, plain(), Presence::Gone)];
    let first = Ask::by(1);
    let job = kit.submit(&first);
    let estimate = |kit: &Kit, ask: &Ask| kit.farm.estimate(ask.id(), &seen, kit.now);
    assert_eq!(estimate(&kit, &first), Some(Estimate::NothingToJudgeBy));
    assert_eq!(kit.farm.estimate(first.id(), &[], kit.now), None, "nobody is here who could build it");
    // Past builds took 100 s and 300 s.
    for (option, took) in [(1, 100), (2, 300)] {
        let ask = Ask::by(2).option(option);
        let job = kit.submit(&ask);
        let lease = kit.grant(job, 10);
        kit.wait(took);
        kit.reports(&ask, lease, 10, built("lua"));
        kit.ok(kit.held(&ask, "lua", COORDINATOR));
    }
    let within = |soonest, latest| {
        Some(Estimate::Within { soonest: Span::from_secs(soonest), latest: Span::from_secs(latest), builds: 2 })
    };
    assert_eq!(estimate(&kit, &first), within(60, 360), "told no more exactly than it is known");
    // The one slot is taken, and another comes first.
    let lease = kit.grant(job, 10);
    assert_eq!(estimate(&kit, &first), within(60, 360), "from its start");
    kit.wait(90);
    assert_eq!(estimate(&kit, &first), within(10, 240), "what is left");
    let next = Ask::by(3).option(5);
    kit.submit(&next);
    assert_eq!(estimate(&kit, &next), within(60, 780), "after what runs: 10 s to 210 s, twice that if they are uneven");
    kit.wait(300);
    let longer = Estimate::Longer { longest: Span::from_secs(360), builds: 2 };
    assert_eq!(estimate(&kit, &first), Some(longer));
    kit.reports(&first, lease, 10, built("lua"));
    kit.ok(kit.held(&first, "lua", COORDINATOR));
    assert_eq!(estimate(&kit, &first), None, "it has ended");
}
