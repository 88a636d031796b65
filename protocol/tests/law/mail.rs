//! Rule 10: mail is state.

use crate::kit::*;
use protocol::charter::Policy;
use protocol::farm::command::{Command, Permanence, Rejection};
use protocol::farm::explain::{Ended, PolicyEnd};
use protocol::id::NoticeId;
use protocol::report::Holding;
use protocol::request::OptionValue;

fn pending(kit: &Kit) -> Vec<NoticeId> {
    kit.farm.pending_notices().map(|notice| notice.id).collect()
}

fn transient(notice: NoticeId) -> Command {
    Command::NoticeFailed { notice, permanence: Permanence::Transient, reason: "451 later".to_owned() }
}

#[test]
fn a_notice_says_everything_and_stays_until_it_is_sent() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).option(3).mail(&["one"]);
    let job = kit.submit(&ask);
    kit.wait(5);
    let started = kit.now;
    let lease = kit.grant(job, 10);
    kit.wait(5);
    kit.reports(&ask, lease, 10, built("lua"));
    kit.ok(kit.held(&ask, "lua", COORDINATOR));
    let id = notice(&ask, "one");
    let told = kit.farm.pending_notices().next().unwrap().clone();
    assert_eq!((told.id, told.request, told.address.clone(), told.requester), (id, ask.id(), address("one"), key(1)));
    assert_eq!(told.recipe.as_str(), "lua");
    assert_eq!(told.options.values().collect::<Vec<_>>(), [&OptionValue::Integer(3)]);
    assert_eq!((told.build_key, &told.ended), (ask.build_key(), &ended_built("lua", Holding::Kept)));
    assert_eq!((told.submitted_at, told.started_at, told.ended_at), (START, Some(started), kit.now));
    assert_eq!((told.volunteer, told.log_tail.as_str()), (Some(key(10)), "the last lines"));
    assert_eq!(told.log, Some(protocol::digest::Digest::of(b"log")));
    kit.ok(Command::NoticeAttempt { notice: id });
    assert_eq!(kit.farm.pending_notices().next().unwrap().attempts, 1);
    kit.ok(Command::NoticeSent { notice: id });
    assert_eq!(pending(&kit), []);
    kit.ok(Command::NoticeSent { notice: id });
    let unknown = NoticeId(protocol::digest::Digest::of(b""));
    assert_eq!(kit.apply(Command::NoticeSent { notice: unknown }), rejected(Rejection::UnknownNotice));
}

#[test]
fn a_failure_that_may_pass_is_tried_again_later_and_later_for_five_days() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    let job = kit.submit(&ask);
    kit.build(&ask, job, 10, "lua");
    let id = notice(&ask, "one");
    let mut waits = Vec::new();
    let next = |kit: &Kit| kit.farm.pending_notices().next().map(|notice| notice.not_before);
    while let Some(due) = next(&kit) {
        kit.now = kit.now.max(due);
        let before = kit.now;
        kit.ok(Command::NoticeAttempt { notice: id });
        kit.ok(transient(id));
        waits.extend(next(&kit).map(|due| due.since(before).as_secs() / 60));
    }
    assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
    assert!(waits[9..].iter().all(|wait| *wait == 360));
    let minutes: u64 = waits.iter().sum();
    assert!((5 * 1_440..5 * 1_440 + 360).contains(&minutes), "given up after five days: {minutes} minutes");
    let failure = kit.farm.failed_notices().next().unwrap();
    assert_eq!((failure.notice, failure.request, failure.reason.as_str()), (id, ask.id(), "451 later"));
}

#[test]
fn a_permanent_failure_is_shown_and_not_tried_again() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    let job = kit.submit(&ask);
    kit.build(&ask, job, 10, "lua");
    let notice = notice(&ask, "one");
    let reason = "550 no such user".to_owned();
    kit.ok(Command::NoticeFailed { notice, permanence: Permanence::Permanent, reason: reason.clone() });
    assert_eq!(pending(&kit), []);
    assert_eq!(kit.farm.failed_notices().map(|failure| failure.reason.clone()).collect::<Vec<_>>(), [reason]);
    kit.ok(ask.command());
    assert_eq!(pending(&kit), [], "asking again does not make a second one");
}

#[test]
fn notices_that_are_due_first_come_first() {
    let mut kit = Kit::new();
    let (one, two) = (Ask::by(1).mail(&["one"]), Ask::by(2).mail(&["two"]));
    let job = kit.submit(&one);
    kit.submit(&two);
    kit.build(&one, job, 10, "lua");
    kit.ok(Command::NoticeAttempt { notice: notice(&one, "one") });
    kit.ok(transient(notice(&one, "one")));
    assert_eq!(pending(&kit), [notice(&two, "two"), notice(&one, "one")]);
}

#[test]
fn daily_caps_bind_by_address_and_by_requester_until_the_next_day() {
    let policy = Policy { mails_per_address: 2, mails_per_requester: 3, ..Policy::default() };
    let mut kit = Kit::with_policy(policy);
    let first = Ask::by(1);
    let job = kit.submit(&first);
    kit.build(&first, job, 10, "lua");
    let ask = |by, nonce, name: &'static str| Ask { mail: vec![name], ..Ask::by(by).nonce(nonce) };
    let mut told = |ask: Ask| {
        let before = kit.farm.counts().notices_pending;
        kit.ok(ask.command());
        kit.farm.counts().notices_pending > before
    };
    assert!(told(ask(1, 1, "a")) && told(ask(2, 2, "a")));
    assert!(!told(ask(3, 3, "a")), "the address has had two");
    assert!(told(ask(1, 4, "b")) && told(ask(1, 5, "c")));
    assert!(!told(ask(1, 6, "d")), "the requester has caused three");
    let reasons: Vec<_> = kit.farm.failed_notices().map(|failure| failure.reason.clone()).collect();
    assert_eq!(
        reasons,
        ["the daily cap of mails for this requester is reached", "the daily cap of mails to this address is reached"]
    );
    kit.wait(86_400);
    kit.ok(ask(1, 7, "a").command());
    assert_eq!(kit.farm.counts().notices_pending, 5);
}

#[test]
fn every_kind_of_end_is_told() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    kit.submit(&ask);
    kit.ok(Command::Cancel { request: ask.id(), by: key(1) });
    let told = kit.farm.pending_notices().next().unwrap();
    assert_eq!((&told.ended, told.started_at), (&Ended::Policy(PolicyEnd::Cancelled), None));
}
