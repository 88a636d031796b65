//! Rule 4: leases.

use crate::kit::*;
use protocol::farm::RETRY_AFTER;
use protocol::farm::command::{Applied, Command, Event, Expiry, Granted, LeaseEnd, Rejection, Reply};
use protocol::farm::explain::Ended;
use protocol::farm::lease::OFFERED_FOR;
use protocol::id::{JobId, LeaseId};
use protocol::report::Holding;

fn granted(lease: u64, job: u64, events: Vec<Event>) -> Applied {
    let offered_until = START + OFFERED_FOR.duration();
    let granted = Granted { lease: LeaseId(lease), job: JobId(job), offered_until };
    Applied { reply: Ok(Reply::Granted(granted)), events }
}

#[test]
fn the_same_nonce_gets_the_same_lease() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let other = kit.submit(&Ask::by(1).option(1));
    let grant = kit.grant_command(job, 10);
    let event = Event::Granted { lease: LeaseId(4), job, volunteer: key(10) };
    assert_eq!(kit.apply(grant.clone()), granted(4, 2, vec![event]));
    assert_eq!(kit.apply(grant.clone()), granted(4, 2, vec![]), "said twice");
    let Command::Grant { volunteer, capability, fingerprint, nonce, bounds, .. } = grant else { unreachable!() };
    let elsewhere = Command::Grant { job: other, volunteer, capability, fingerprint, nonce, bounds };
    assert_eq!(kit.apply(elsewhere), granted(4, 2, vec![]), "a claim gets one lease, whatever is proposed next");
    assert_eq!(kit.apply(kit.grant_command(job, 11)), rejected(Rejection::NotGrantable), "a job has one lease");
    assert_eq!(kit.apply(kit.grant_command(JobId(99), 11)), rejected(Rejection::UnknownJob));
}

#[test]
fn an_offer_that_is_not_taken_up_is_no_attempt() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    assert_eq!(kit.expire(Expiry::Undelivered(lease)), rejected(Rejection::NotDue));
    kit.wait(3);
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Undelivered), queued(2, &ask)];
    assert_eq!(kit.expire(Expiry::Undelivered(lease)), done(events));
    assert_eq!(kit.expire(Expiry::Undelivered(lease)), rejected(Rejection::UnknownLease));
    assert_eq!(kit.attempts(&ask), 0);
    assert_eq!(kit.candidate(10), Some(job), "and excludes nobody");
}

#[test]
fn handing_back_costs_nothing_however_often() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    for round in 1..=10 {
        let lease = kit.grant(job, 10);
        let hand_back = |volunteer| Command::HandBack { lease, volunteer: key(volunteer) };
        assert_eq!(kit.apply(hand_back(11)), rejected(Rejection::NotYours));
        let events = vec![lease_ended(lease, job, 10, LeaseEnd::HandedBack), queued(2, &ask)];
        assert_eq!(kit.apply(hand_back(10)), done(events));
        assert_eq!(kit.attempts(&ask), round);
    }
    assert_eq!(kit.candidate(10), Some(job));
}

#[test]
fn a_refusal_holds_until_the_capability_changes() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let refuse = Command::Refuse { lease, volunteer: key(10), reason: "not accepted".to_owned() };
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Refused), queued(2, &ask)];
    assert_eq!(kit.apply(refuse), done(events));
    assert_eq!(kit.attempts(&ask), 0, "it never started");
    assert_eq!(kit.candidate(10), None);
    assert_eq!(kit.apply(kit.grant_command(job, 10)), rejected(Rejection::Excluded));
    let changed = machine(&[("cores", protocol::platform::Value::Number(4))]);
    assert_eq!(kit.farm.candidate(&key(10), &changed), Some(job));
    assert_eq!(kit.candidate(11), Some(job));
}

#[test]
fn a_lost_volunteer_is_replaced_and_may_come_back_after_a_while() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::VolunteerLost), queued(2, &ask)];
    assert_eq!(kit.expire(Expiry::VolunteerLost(lease)), done(events));
    assert_eq!((kit.candidate(10), kit.candidate(11)), (None, Some(job)));
    kit.wait(RETRY_AFTER.as_millis() / 1_000 - 1);
    assert_eq!(kit.expire(Expiry::Exclusion(job)), rejected(Rejection::NotDue));
    kit.wait(1);
    assert_eq!(kit.due(), [Expiry::Exclusion(job)]);
    assert_eq!(kit.expire(Expiry::Exclusion(job)), done(vec![queued(2, &ask)]), "whoever waits is woken");
    assert_eq!(kit.candidate(10), Some(job));
    assert_eq!(kit.attempts(&ask), 1);
}

#[test]
fn an_attempt_that_is_stuck_or_overdue_is_tried_elsewhere_and_nobody_is_lost() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let ended = |lease, volunteer| vec![lease_ended(lease, job, volunteer, LeaseEnd::OutOfTime), queued(2, &ask)];
    let first = kit.grant(job, 10);
    assert_eq!(kit.expire(Expiry::Stuck(first)), done(ended(first, 10)));
    assert_eq!((kit.candidate(10), kit.candidate(11)), (None, Some(job)));
    assert_eq!(kit.expire(Expiry::Stuck(first)), rejected(Rejection::UnknownLease));

    let second = kit.grant(job, 11);
    kit.wait(bounds().whole.as_millis() / 1_000 - 1);
    assert_eq!(kit.expire(Expiry::Overdue(second)), rejected(Rejection::NotDue));
    kit.wait(1);
    assert_eq!(kit.expire(Expiry::Overdue(second)), done(ended(second, 11)));
    assert_eq!(kit.attempts(&ask), 2);

    // Five causes end it, and no third of them is a lost volunteer.
    for volunteer in 12..14 {
        let lease = kit.grant(job, volunteer);
        assert_eq!(kit.expire(Expiry::Stuck(lease)), done(ended(lease, volunteer)));
    }
    let last = kit.grant(job, 14);
    kit.expire(Expiry::Stuck(last));
    let reason = "a volunteer was alive, and its attempt showed no sign of progress".to_owned();
    assert_eq!(kit.ended(&ask), Some(Ended::Infrastructure { reason }));
}

#[test]
fn a_late_artifact_counts_and_a_late_failure_does_not() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let first = kit.grant(job, 10);
    kit.expire(Expiry::VolunteerLost(first));
    let second = kit.grant(job, 11);
    assert_eq!(kit.reports(&ask, first, 10, build_error()), rejected(Rejection::ReportDoesNotCount));
    assert_eq!(kit.reports(&ask, first, 12, built("lua")), rejected(Rejection::ReportDoesNotCount), "not its lease");
    assert_eq!(kit.reports(&ask, second, 10, built("lua")), rejected(Rejection::NotYours));
    let keeping = Event::Keeping { job, build_key: ask.build_key(), manifest: artifact("lua"), builder: key(10) };
    let events = vec![lease_ended(second, job, 11, LeaseEnd::Revoked), keeping];
    assert_eq!(kit.reports(&ask, first, 10, built("lua")), done(events), "and stops the other");
    let report = kit.report(&ask, first, 10, built("lua"));
    kit.ok(kit.held(&ask, "lua", COORDINATOR));
    let again = Command::Report { report, witnesses: protocol::farm::command::Witnesses::Nobody };
    assert_eq!(kit.apply(again), done(vec![]), "a volunteer that missed the answer says it again");
    assert_eq!(kit.reports(&ask, second, 11, built("other")), rejected(Rejection::ReportDoesNotCount), "decided");
    assert_eq!(kit.ended(&ask), Some(ended_built("lua", Holding::Kept)));
}

#[test]
fn attempts_are_leases_that_were_begun() {
    let mut kit = Kit::new();
    let ask = Ask::by(1);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    assert_eq!(kit.attempts(&ask), 1, "one runs");
    kit.expire(Expiry::VolunteerLost(lease));
    let lease = kit.grant(job, 11);
    kit.wait(3);
    kit.expire(Expiry::Undelivered(lease));
    assert_eq!(kit.attempts(&ask), 1);
    kit.build(&ask, job, 12, "lua");
    assert_eq!(kit.attempts(&ask), 2);
    let view = kit.farm.view(ask.id(), &[]).unwrap();
    assert_eq!((view.volunteer, view.ended_at), (Some(key(12)), Some(kit.now)));
    let cached = Ask::by(2);
    kit.ok(cached.command());
    assert_eq!(kit.attempts(&cached), 2, "those of the build that answered it");
}

#[test]
fn entries_are_applied_once_and_time_never_goes_back() {
    let mut kit = Kit::new();
    kit.submit(&Ask::by(1));
    kit.index -= 1;
    assert_eq!(kit.apply(Ask::by(2).command()), rejected(Rejection::OutOfOrder));
    kit.now = START - std::time::Duration::from_secs(1_000);
    kit.submit(&Ask::by(2));
    assert_eq!(kit.farm.last_stamp(), START);
    let view = kit.farm.view(Ask::by(2).id(), &[]).unwrap();
    assert_eq!(view.submitted_at, START);
}
