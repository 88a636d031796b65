//! Rule 5: built, build error, infrastructure, policy.

use crate::kit::*;
use protocol::farm::command::{Applied, Command, Event, Expiry, LeaseEnd, Rejection, Reply, Submitted, Witnesses};
use protocol::farm::explain::{Confirmed, Ended, PolicyEnd};
use protocol::id::JobId;
use protocol::report::{Limit, Outcome};

fn error(confirmed: Confirmed) -> Ended {
    Ended::BuildError { reason: "cc exited with 1".to_owned(), confirmed }
}

#[test]
fn a_build_error_is_confirmed_by_another_volunteer_and_remembered_for_an_hour() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Reported), queued(2, &ask)];
    assert_eq!(kit.reports(&ask, lease, 10, build_error()), done(events));
    assert_eq!((kit.candidate(10), kit.candidate(11)), (None, Some(job)));
    let lease = kit.grant(job, 11);
    let events = vec![
        lease_ended(lease, job, 11, LeaseEnd::Reported),
        request_ended(&ask, error(Confirmed::Yes)),
        Event::Notice { notice: notice(&ask, "one") },
    ];
    assert_eq!(kit.reports(&ask, lease, 11, build_error()), done(events));
    assert_eq!(kit.attempts(&ask), 2);

    kit.wait(3_599);
    let again = Ask::by(2);
    let reply = Ok(Reply::Submitted(Submitted::RememberedError));
    assert_eq!(
        kit.apply(again.command()),
        Applied { reply, events: vec![request_ended(&again, error(Confirmed::Yes))] }
    );
    let fresh = kit.submit(&Ask::by(3).fresh());
    assert_eq!(kit.submit(&Ask::by(4)), fresh, "who comes while it is tried again joins");
    kit.ok(Command::Cancel { request: Ask::by(3).fresh().id(), by: key(3) });
    kit.ok(Command::Cancel { request: Ask::by(4).id(), by: key(4) });
    kit.wait(1);
    kit.submit(&Ask::by(5));
}

#[test]
fn an_unconfirmed_build_error_is_final_after_a_minute_and_not_remembered() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    kit.reports(&ask, lease, 10, build_error());
    kit.wait(59);
    assert_eq!(kit.expire(Expiry::Confirmation(job)), rejected(Rejection::NotDue));
    let confirming = kit.grant(job, 11);
    kit.wait(1);
    assert_eq!(kit.due(), [], "a confirming attempt that runs is waited for");
    assert_eq!(kit.expire(Expiry::Confirmation(job)), rejected(Rejection::NotDue));
    kit.ok(Command::HandBack { lease: confirming, volunteer: key(11) });
    assert_eq!(kit.due(), [], "who comes next has a minute again");
    kit.wait(60);
    assert_eq!(kit.due(), [Expiry::Confirmation(job)]);
    let events = vec![request_ended(&ask, error(Confirmed::No))];
    assert_eq!(kit.expire(Expiry::Confirmation(job)), done(events));
    kit.submit(&Ask::by(2));
}

#[test]
fn without_a_witness_a_build_error_is_final_at_once() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let report = kit.report(&ask, lease, 10, build_error());
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Reported), request_ended(&ask, error(Confirmed::No))];
    assert_eq!(kit.apply(Command::Report { report, witnesses: Witnesses::Nobody }), done(events));
}

#[test]
fn an_artifact_from_the_confirming_attempt_wins() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    kit.reports(&ask, lease, 10, build_error());
    kit.build(&ask, job, 11, "lua");
    assert_eq!(kit.ended(&ask), Some(ended_built("lua", protocol::report::Holding::Kept)));
    assert_eq!(kit.due(), []);
}

#[test]
fn the_third_lost_volunteer_ends_the_job() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).mail(&["one"]);
    let job = kit.submit(&ask);
    for volunteer in [10, 11] {
        let lease = kit.grant(job, volunteer);
        kit.ok(Command::Expire(Expiry::VolunteerLost(lease)));
    }
    let lease = kit.grant(job, 12);
    let ended = Ended::Infrastructure { reason: "volunteers were lost while they attempted it".to_owned() };
    let events = vec![
        lease_ended(lease, job, 12, LeaseEnd::VolunteerLost),
        request_ended(&ask, ended),
        Event::Notice { notice: notice(&ask, "one") },
    ];
    assert_eq!(kit.expire(Expiry::VolunteerLost(lease)), done(events));
    assert_eq!(kit.submit(&Ask::by(2)), JobId(kit.index), "never remembered");
}

#[test]
fn the_fifth_cause_ends_the_job_and_so_does_one_volunteer_lost_again_and_again() {
    for lost in [false, true] {
        let mut kit = Kit::new();
        let ask = Ask::by(1);
        let job = kit.submit(&ask);
        let rounds = if lost { 6 } else { 5 };
        for round in 1..=rounds {
            assert_eq!(kit.ended(&ask), None, "before round {round}");
            let lease = kit.grant(job, 10);
            if lost {
                kit.ok(Command::Expire(Expiry::VolunteerLost(lease)));
            } else {
                assert!(kit.reports(&ask, lease, 10, infrastructure()).reply.is_ok());
            }
            if round < rounds {
                assert_eq!(kit.candidate(10), None, "tried elsewhere first");
                kit.wait(60);
                kit.ok(Command::Expire(Expiry::Exclusion(job)));
            }
        }
        assert!(matches!(kit.ended(&ask), Some(Ended::Infrastructure { .. })));
        assert_eq!(kit.attempts(&ask), rounds);
    }
}

#[test]
fn a_limit_is_a_rule_and_no_verdict() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let ended = Ended::Policy(PolicyEnd::Limit(Limit::Memory));
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Reported), request_ended(&ask, ended)];
    assert_eq!(kit.reports(&ask, lease, 10, Outcome::Limit { limit: Limit::Memory }), done(events));
    kit.submit(&Ask::by(2));
}

#[test]
fn a_report_is_checked_against_its_lease_and_bounds() {
    let mut kit = Kit::new();
    let (ask, other) = (Ask::by(1), Ask::by(1).option(1));
    let job = kit.submit(&ask);
    kit.submit(&other);
    let lease = kit.grant(job, 10);
    assert_eq!(kit.reports(&other, lease, 10, built("lua")), rejected(Rejection::ReportDoesNotCount));
    assert_eq!(kit.reports(&Ask::by(9).option(9), lease, 10, built("lua")), rejected(Rejection::ReportDoesNotCount));
    let long = Outcome::BuildError { reason: "x".repeat(1_025) };
    assert_eq!(kit.reports(&ask, lease, 10, long), rejected(Rejection::OutOfBounds));
    let mut foreign = kit.report(&ask, lease, 10, built("lua"));
    foreign.farm = protocol::id::FarmId::of(&key(1));
    let command = Command::Report { report: foreign, witnesses: Witnesses::Alive };
    assert!(matches!(kit.apply(command).reply, Err(Rejection::Damaged(_))));
    let no_report = Command::Report { report: ask.signed(), witnesses: Witnesses::Alive };
    assert!(matches!(kit.apply(no_report).reply, Err(Rejection::Damaged(_))));
}
