//! Rule 9: who holds what was built.

use crate::kit::*;
use protocol::farm::command::{Applied, Command, Event, Expiry, LeaseEnd, Rejection, Reply, Submitted};
use protocol::farm::explain::{Ended, HowBuilt};
use protocol::id::JobId;
use protocol::report::Holding;

fn keeping(kit: &mut Kit, ask: &Ask) -> JobId {
    let job = kit.submit(ask);
    let lease = kit.grant(job, 10);
    let event = Event::Keeping { job, build_key: ask.build_key(), manifest: artifact("lua"), builder: key(10) };
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Reported), event];
    assert_eq!(kit.reports(ask, lease, 10, built("lua")), done(events));
    job
}

fn decided(ask: &Ask, holding: Holding) -> Applied {
    let decided = Event::Decided { build_key: ask.build_key(), manifest: artifact("lua"), holding };
    done(vec![decided, request_ended(ask, ended_built("lua", holding))])
}

#[test]
fn builder_and_keeper_make_the_answer_final() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    keeping(&mut kit, &ask);
    assert_eq!(kit.farm.finished(&ask.build_key()), None);
    assert_eq!(kit.apply(kit.held(&ask, "lua", 10)), done(vec![]), "the builder is known to hold it");
    assert_eq!(kit.apply(kit.held(&ask, "other", 11)), rejected(Rejection::UnknownBuild));
    assert_eq!(kit.apply(kit.held(&ask, "lua", 11)), decided(&ask, Holding::Kept));
    let finished = kit.farm.finished(&ask.build_key()).unwrap();
    assert_eq!(finished.holders.len(), 2);
    assert_eq!(finished.verdict.holding, Holding::Kept);
    assert_eq!(kit.apply(kit.held(&ask, "lua", 12)), done(vec![]));
    assert_eq!(kit.farm.finished(&ask.build_key()).unwrap().holders.len(), 3);
    assert_eq!(kit.apply(kit.held(&Ask::by(1).option(9), "lua", 12)), rejected(Rejection::UnknownBuild));
}

#[test]
fn without_a_keeper_the_answer_is_marked_after_a_minute() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = keeping(&mut kit, &ask);
    kit.wait(59);
    assert_eq!(kit.expire(Expiry::Keeping(job)), rejected(Rejection::NotDue));
    kit.wait(1);
    assert_eq!(kit.due(), [Expiry::Keeping(job)]);
    assert_eq!(kit.expire(Expiry::Keeping(job)), decided(&ask, Holding::SingleHolder));
}

#[test]
fn a_builder_that_is_a_keeper_by_office_is_enough() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, COORDINATOR);
    let (build_key, manifest) = (ask.build_key(), artifact("lua"));
    let events = vec![
        lease_ended(lease, job, COORDINATOR, LeaseEnd::Reported),
        Event::Keeping { job, build_key, manifest, builder: key(COORDINATOR) },
        Event::Decided { build_key, manifest, holding: Holding::SingleHolder },
        request_ended(&ask, ended_built("lua", Holding::SingleHolder)),
    ];
    assert_eq!(kit.reports(&ask, lease, COORDINATOR, built("lua")), done(events));
}

#[test]
fn a_builder_lost_before_anybody_else_holds_it_is_an_infrastructure_loss() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = keeping(&mut kit, &ask);
    assert_eq!(kit.apply(kit.lost(&ask, 11)), done(vec![]), "who never held it loses nothing");
    assert_eq!(kit.apply(kit.lost(&ask, 10)), done(vec![queued(2, &ask)]));
    assert_eq!((kit.candidate(10), kit.candidate(11)), (None, Some(job)));
    kit.build(&ask, job, 11, "lua");
    assert_eq!(kit.attempts(&ask), 2);
}

#[test]
fn a_build_that_nobody_holds_is_as_if_it_had_never_been() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    keeping(&mut kit, &ask);
    kit.ok(kit.held(&ask, "lua", COORDINATOR));
    assert_eq!(kit.apply(kit.lost(&ask, 10)), done(vec![]));
    let again = Ask::by(2);
    let ended = Ended::Built { manifest: artifact("lua"), how: HowBuilt::Cached, holding: Holding::Kept };
    let reply = Ok(Reply::Submitted(Submitted::Finished));
    assert_eq!(kit.apply(again.command()), Applied { reply, events: vec![request_ended(&again, ended)] });
    let unbuilt = Event::Unbuilt { build_key: ask.build_key() };
    assert_eq!(kit.apply(kit.lost(&ask, COORDINATOR)), done(vec![unbuilt]));
    assert_eq!(kit.apply(kit.lost(&ask, COORDINATOR)), rejected(Rejection::UnknownBuild));
    assert_eq!(kit.farm.finished(&ask.build_key()), None);
    let third = Ask::by(3);
    let job = kit.submit(&third);
    assert_eq!(kit.candidate(10), Some(job), "and may be built by anybody again");
}

#[test]
fn a_living_wish_for_a_build_that_is_lost_is_built_from_the_start() {
    let mut kit = Kit::new();
    let (one, two) = (Ask::by(1), Ask::by(2).agree(2));
    let job = kit.submit(&one);
    kit.submit(&two);
    kit.build(&one, job, 10, "lua");
    assert_eq!(kit.candidate(10), None, "a second opinion is awaited");
    kit.ok(kit.lost(&one, COORDINATOR));
    let unbuilt = Event::Unbuilt { build_key: one.build_key() };
    assert_eq!(kit.apply(kit.lost(&one, 10)), done(vec![unbuilt]));
    assert_eq!(kit.candidate(10), Some(job), "its report answers nothing any more");
}

#[test]
fn jobs_that_keep_are_listed_for_the_leader() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = keeping(&mut kit, &ask);
    let listed: Vec<_> = kit.farm.keeping().map(|(job, key, keeping)| (job, key, keeping.manifest)).collect();
    assert_eq!(listed, [(job, ask.build_key(), artifact("lua"))]);
    kit.ok(Command::Cancel { request: ask.id(), by: key(1) });
    assert_eq!(kit.farm.keeping().count(), 0);
}
