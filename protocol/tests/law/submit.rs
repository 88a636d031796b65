//! Rules 1, 6 and 7: asking, asking again, waiting, cancelling.

use crate::kit::*;
use protocol::charter::Policy;
use protocol::farm::Resolved;
use protocol::farm::command::{
    Applied, Command, Event, Expiry, JobState, LeaseEnd, Possession, Rejection, Reply, Submitted,
};
use protocol::farm::explain::{Ended, HowBuilt, PolicyEnd};
use protocol::id::{JobId, RequestId};
use protocol::platform::{Constraint, Value};
use protocol::report::Holding;
use protocol::request::{Demand, MAX_TTL, Subscription};
use protocol::signed::Signed;
use protocol::time::Span;
use std::collections::BTreeSet;

fn submitted(submitted: Submitted, events: Vec<Event>) -> Applied {
    Applied { reply: Ok(Reply::Submitted(submitted)), events }
}

fn attached(job: u64, state: JobState) -> Submitted {
    Submitted::Attached { job: JobId(job), state }
}

#[test]
fn a_submission_meets_finished_then_running_then_queued_then_nothing() {
    let mut kit = Kit::new();
    let first = Ask::by(1).mail(&["one"]);
    assert_eq!(kit.apply(first.command()), submitted(attached(2, JobState::Queued), vec![queued(2, &first)]), "new");
    let second = Ask::by(2).mail(&["two"]);
    assert_eq!(kit.apply(second.command()), submitted(attached(2, JobState::Queued), vec![]), "queued");
    let lease = kit.grant(JobId(2), 10);
    let third = Ask::by(3).mail(&["three"]);
    assert_eq!(kit.apply(third.command()), submitted(attached(2, JobState::Running), vec![]), "running");
    assert!(kit.reports(&first, lease, 10, built("lua")).reply.is_ok());
    let fourth = Ask::by(4).mail(&["four"]);
    assert_eq!(kit.apply(fourth.command()), submitted(attached(2, JobState::Keeping), vec![]), "keeping");

    let everybody = [(&first, "one"), (&second, "two"), (&third, "three"), (&fourth, "four")];
    let mut expected =
        vec![Event::Decided { build_key: first.build_key(), manifest: artifact("lua"), holding: Holding::Kept }];
    for (ask, name) in everybody {
        expected.push(request_ended(ask, ended_built("lua", Holding::Kept)));
        expected.push(Event::Notice { notice: notice(ask, name) });
    }
    assert_eq!(kit.apply(kit.held(&first, "lua", COORDINATOR)), done(expected), "one verdict, everybody told");

    let fifth = Ask::by(5).mail(&["five"]);
    let cached = Ended::Built { manifest: artifact("lua"), how: HowBuilt::Cached, holding: Holding::Kept };
    let events = vec![request_ended(&fifth, cached), Event::Notice { notice: notice(&fifth, "five") }];
    assert_eq!(kit.apply(fifth.command()), submitted(Submitted::Finished, events), "finished");
    assert_eq!(kit.farm.pending_notices().count(), 5);
}

#[test]
fn asking_again_adds_addresses_and_loses_nobody() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    let again = Ask::by(1).mail(&["two", "one"]);
    assert_eq!(ask.id(), again.id());
    kit.submit(&ask);
    assert_eq!(kit.apply(again.command()), submitted(attached(2, JobState::Queued), vec![]));
    kit.build(&ask, JobId(2), 10, "lua");
    let told: BTreeSet<_> = kit.farm.pending_notices().map(|notice| notice.address.clone()).collect();
    assert_eq!(told, [address("one"), address("two")].into());

    let late = Ask::by(1).mail(&["three", "one"]);
    let told = vec![Event::Notice { notice: notice(&ask, "three") }];
    assert_eq!(kit.apply(late.command()), submitted(Submitted::Ended, told), "only the new address is told");
    assert_eq!(kit.apply(late.command()), submitted(Submitted::Ended, vec![]), "and only once");
}

#[test]
fn who_copies_anothers_request_does_not_become_its_owner() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    kit.submit(&ask);
    let copied = Signed::new(&ask.request(), kit.farm.id().unwrap(), &secret(2));
    assert_eq!(RequestId(copied.id()), ask.id());
    let command = Command::Submit { request: copied, subscriptions: vec![], source: Possession::Held };
    assert_eq!(kit.apply(command), rejected(Rejection::NotYours));
}

#[test]
fn a_job_is_grantable_only_with_its_source() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).awaited();
    assert_eq!(kit.apply(ask.command()), submitted(attached(2, JobState::AwaitingSource), vec![]));
    assert_eq!(kit.candidate(10), None);
    assert_eq!(kit.apply(kit.grant_command(JobId(2), 10)), rejected(Rejection::NotGrantable));
    assert_eq!(kit.apply(Command::SourceHeld { job: JobId(2) }), done(vec![queued(2, &ask)]));
    assert_eq!(kit.apply(Command::SourceHeld { job: JobId(2) }), done(vec![]), "said twice is no error");
    assert_eq!(kit.candidate(10), Some(JobId(2)));
}

#[test]
fn a_source_that_never_arrives_ends_the_request_and_one_that_another_brings_does_not() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).awaited().mail(&["one"]);
    kit.submit(&ask);
    kit.wait(599);
    assert_eq!(kit.expire(Expiry::Source(JobId(2))), rejected(Rejection::NotDue));
    kit.wait(1);
    assert_eq!(kit.due(), [Expiry::Source(JobId(2))]);
    let ended = Ended::Policy(PolicyEnd::SourceNeverArrived);
    let events = vec![request_ended(&ask, ended), Event::Notice { notice: notice(&ask, "one") }];
    assert_eq!(kit.expire(Expiry::Source(JobId(2))), done(events));

    let waiting = Ask::by(1).option(1).awaited();
    let job = kit.submit(&waiting);
    kit.wait(599);
    let promised = Ask::by(2).option(1).awaited();
    kit.submit(&promised);
    kit.wait(2);
    assert_eq!(kit.due(), [], "a new promise has its own ten minutes");
    let brought = Ask { source: Possession::Held, ..Ask::by(3).option(1) };
    let expected = submitted(attached(job.0, JobState::Queued), vec![queued(job.0, &waiting)]);
    assert_eq!(kit.apply(brought.command()), expected);
}

#[test]
fn a_request_waits_until_its_own_expiry() {
    let mut kit = Kit::new();
    let ask = Ask { ttl: Span::from_secs(100), ..Ask::by(1).mail(&["one"]) };
    let other = Ask::by(2);
    kit.submit(&ask);
    kit.submit(&other);
    kit.wait(99);
    assert_eq!(kit.due(), []);
    assert_eq!(kit.expire(Expiry::Request(ask.id())), rejected(Rejection::NotDue));
    kit.wait(1);
    assert_eq!(kit.due(), [Expiry::Request(ask.id())]);
    let expired = Ended::Policy(PolicyEnd::Expired);
    let events = vec![request_ended(&ask, expired), Event::Notice { notice: notice(&ask, "one") }];
    assert_eq!(kit.expire(Expiry::Request(ask.id())), done(events));
    assert_eq!(kit.expire(Expiry::Request(ask.id())), rejected(Rejection::NotDue));
    assert_eq!(kit.candidate(10), Some(JobId(2)), "the other still waits");
}

#[test]
fn cancelling_ends_a_job_with_its_last_request_and_reaches_the_volunteer() {
    let mut kit = Kit::new();
    let (one, two) = (Ask::by(1), Ask::by(2).mail(&["two"]));
    let job = kit.submit(&one);
    kit.submit(&two);
    let lease = kit.grant(job, 10);
    let cancel = |ask: &Ask, by| Command::Cancel { request: ask.id(), by: key(by) };
    assert_eq!(kit.apply(cancel(&one, 2)), rejected(Rejection::NotYours));
    let cancelled = Ended::Policy(PolicyEnd::Cancelled);
    assert_eq!(kit.apply(cancel(&one, 1)), done(vec![request_ended(&one, cancelled.clone())]));
    assert!(kit.farm.lease(lease).is_some(), "somebody still wants it");
    let events = vec![
        request_ended(&two, cancelled),
        Event::Notice { notice: notice(&two, "two") },
        lease_ended(lease, job, 10, LeaseEnd::Revoked),
    ];
    assert_eq!(kit.apply(cancel(&two, 2)), done(events));
    assert_eq!(kit.apply(cancel(&two, 2)), done(vec![]), "cancelled is cancelled");
    assert_eq!(kit.attempts(&two), 1, "the attempt was begun");
    assert_eq!(kit.apply(cancel(&Ask::by(9), 9)), rejected(Rejection::UnknownRequest));
    assert_eq!(kit.farm.counts(), protocol::farm::FarmCounts { notices_pending: 1, ..Default::default() });
}

#[test]
fn what_is_out_of_bounds_or_out_of_time_is_refused() {
    let mut kit = Kit::new();
    let refused = |kit: &mut Kit, ask: Ask, rejection| assert_eq!(kit.apply(ask.command()), rejected(rejection));
    refused(&mut kit, Ask { ttl: Span::from_secs(0), ..Ask::by(1) }, Rejection::Stale);
    refused(&mut kit, Ask { ttl: Span::from_millis(MAX_TTL.as_millis() + 1), ..Ask::by(1) }, Rejection::Stale);
    let long_ago = START - std::time::Duration::from_secs(8 * 86_400);
    refused(&mut kit, Ask { issued_at: long_ago, ..Ask::by(1) }, Rejection::Stale);
    let far_ahead = START + MAX_TTL.duration() + std::time::Duration::from_secs(1);
    refused(&mut kit, Ask { issued_at: far_ahead, ..Ask::by(1) }, Rejection::Stale);
    refused(&mut kit, Ask::by(1).agree(6), Rejection::OutOfBounds);
    let nine = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    refused(&mut kit, Ask::by(1).mail(&nine), Rejection::OutOfBounds);

    kit.submit(&Ask::by(1).mail(&nine[..8]));
    refused(&mut kit, Ask::by(1).mail(&nine[8..]), Rejection::OutOfBounds);

    let other = Subscription { request: Ask::by(2).id(), address: None, demand: Demand::default() };
    let foreign =
        Command::Submit { request: Ask::by(1).signed(), subscriptions: vec![other], source: Possession::Held };
    assert_eq!(kit.apply(foreign), rejected(Rejection::OutOfBounds), "a subscription names its request");

    let elsewhere = Signed { farm: protocol::id::FarmId::of(&key(1)), ..Ask::by(1).signed() };
    let command = Command::Submit { request: elsewhere, subscriptions: vec![], source: Possession::Held };
    assert!(matches!(kit.apply(command).reply, Err(Rejection::Damaged(_))));
    let mut damaged = Ask::by(1).signed();
    damaged.payload = damaged.payload[1..].into();
    let command = Command::Submit { request: damaged, subscriptions: vec![], source: Possession::Held };
    assert!(matches!(kit.apply(command).reply, Err(Rejection::Damaged(_))));

    let mut wide = Ask::by(1).request();
    wide.spec.requirement.add("Not a key", Constraint::Is(Value::Flag(true)));
    let request = Signed::new(&wide, kit.farm.id().unwrap(), &secret(1));
    let command = Command::Submit { request, subscriptions: vec![], source: Possession::Held };
    assert_eq!(kit.apply(command), rejected(Rejection::OutOfBounds));
}

#[test]
fn caps_bind_one_requester_and_lift_when_requests_end() {
    let mut kit = Kit::with_policy(Policy { waiting_per_requester: 2, ..Policy::default() });
    let asks: Vec<_> = (0..3).map(|option| Ask::by(1).option(option)).collect();
    kit.submit(&asks[0]);
    kit.submit(&asks[1]);
    assert_eq!(kit.apply(asks[2].command()), rejected(Rejection::TooMany));
    kit.submit(&Ask::by(2).option(2));
    kit.ok(Command::Cancel { request: asks[0].id(), by: key(1) });
    kit.submit(&asks[2]);
}

#[test]
fn a_requester_has_at_most_64_distinct_requirements_open() {
    let mut kit = Kit::new();
    let names: Vec<&'static str> = (0..65).map(|at| &*format!("cores>={at}").leak()).collect();
    let asks: Vec<_> = names.iter().map(|name| Ask::by(1).requires(&[*name])).collect();
    for ask in &asks[..64] {
        kit.submit(ask);
    }
    assert_eq!(kit.apply(asks[64].command()), rejected(Rejection::TooMany));
    kit.submit(&asks[3].clone().option(9));
    kit.submit(&Ask { by: 2, ..asks[64].clone() });
}

#[test]
fn ended_requests_are_remembered_as_long_as_they_could_be_replayed() {
    let mut kit = Kit::new();
    let ask = Ask { ttl: Span::from_secs(100), ..Ask::by(1).mail(&["one"]) };
    let job = kit.submit(&ask);
    kit.build(&ask, job, 10, "lua");
    kit.wait(100 + 3_599);
    kit.ok(Command::Prune);
    assert_eq!(kit.apply(ask.command()), submitted(Submitted::Ended, vec![]));
    kit.wait(1);
    kit.ok(Command::Prune);
    assert!(kit.farm.view(ask.id(), &[]).is_some(), "somebody is still to be told");
    kit.ok(Command::NoticeSent { notice: notice(&ask, "one") });
    kit.ok(Command::Prune);
    assert_eq!(kit.farm.view(ask.id(), &[]), None);
    assert_eq!(kit.apply(ask.command()), rejected(Rejection::Stale), "and then it is too old");
    assert!(kit.farm.finished(&ask.build_key()).is_some(), "the build stays");
}

#[test]
fn a_request_is_found_by_a_prefix_that_names_one() {
    let mut kit = Kit::new();
    let asks: Vec<_> = (0..40).map(|option| Ask::by(1).option(option)).collect();
    for ask in &asks {
        kit.submit(ask);
    }
    let id = asks[0].id().to_string();
    assert_eq!(kit.farm.resolve(&id), Resolved::One(asks[0].id()));
    assert_eq!(kit.farm.resolve(&id[..16]), Resolved::One(asks[0].id()));
    let mut ids: Vec<RequestId> = asks.iter().map(Ask::id).collect();
    ids.sort();
    assert_eq!(kit.farm.resolve(""), Resolved::Ambiguous(ids[0], ids[1]));
    assert_eq!(kit.farm.resolve(&RequestId(protocol::digest::Digest::of(b"")).to_string()), Resolved::None);
    assert_eq!(kit.farm.resolve("xyz"), Resolved::None);
    assert_eq!(kit.farm.resolve(&"0".repeat(65)), Resolved::None);
}
