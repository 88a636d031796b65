//! Rule 8: how many must agree, and on what.

use crate::kit::*;
use protocol::digest::Digest;
use protocol::farm::command::{Applied, Command, Event, LeaseEnd, Rejection, Witnesses};
use protocol::farm::explain::{Ended, Explanation, PolicyEnd};
use protocol::farm::quorum::{Answer, Standard, Sworn, behind, verdict};
use protocol::id::{LeaseId, ReportId};
use protocol::report::{Fingerprint, Holding, Reproducibility, Smoke};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;

fn environment(name: &str) -> Fingerprint {
    Fingerprint(BTreeMap::from([("libc".to_owned(), name.to_owned())]))
}

fn sworn(lease: u64, volunteer: u8, name: &str) -> Sworn {
    Sworn {
        id: ReportId(Digest::of(&lease.to_be_bytes())),
        lease: LeaseId(lease),
        volunteer: key(volunteer),
        manifest: artifact(name),
        smoke: Smoke::Passed,
        reproducibility: Reproducibility::Claimed,
        fingerprint: environment("a"),
    }
}

/// Agreed manifest and count, or the fingerprint that is asked for next.
fn answer(reports: &[Sworn], agree: u8, after: Option<u64>) -> Result<(&'static str, u8), Option<Fingerprint>> {
    let standard = Standard { agree: NonZeroU8::new(agree).unwrap(), after: after.map(LeaseId) };
    match verdict(reports.iter(), standard) {
        Answer::Agreed(agreed) => {
            let name = ["x", "y", "z"].into_iter().find(|name| artifact(name) == agreed.manifest).unwrap();
            assert_eq!(agreed.by.len(), usize::from(agreed.agreed));
            Ok((name, agreed.agreed))
        }
        Answer::Short { fingerprint } => Err(fingerprint),
    }
}

#[test]
fn equal_manifests_by_distinct_volunteers_in_one_environment() {
    let a = || Some(environment("a"));
    let elsewhere = Sworn { fingerprint: environment("b"), ..sworn(2, 11, "x") };
    assert_eq!(answer(&[], 1, None), Err(None));
    assert_eq!(answer(&[sworn(1, 10, "x")], 1, None), Ok(("x", 1)));
    assert_eq!(answer(&[sworn(1, 10, "x")], 2, None), Err(a()), "one is not two");
    assert_eq!(answer(&[sworn(1, 10, "x"), sworn(2, 10, "x")], 2, None), Err(a()), "saying it twice is not two");
    assert_eq!(answer(&[sworn(1, 10, "x"), sworn(2, 11, "x")], 2, None), Ok(("x", 2)));
    assert_eq!(answer(&[sworn(1, 10, "x"), sworn(2, 11, "y")], 2, None), Err(a()), "a disagreement holds the answer");
    assert_eq!(answer(&[sworn(1, 10, "x"), sworn(2, 11, "y"), sworn(3, 12, "y")], 2, None), Ok(("y", 2)));
    assert_eq!(answer(&[sworn(1, 10, "x"), elsewhere], 2, None), Err(a()), "another environment is another build");
    assert_eq!(
        answer(&[sworn(1, 10, "x"), sworn(2, 10, "y"), sworn(3, 11, "x")], 2, None),
        Err(a()),
        "last word counts"
    );
}

#[test]
fn a_fresh_demand_counts_only_later_attempts() {
    let reports = [sworn(5, 10, "x"), sworn(9, 11, "y")];
    assert_eq!(answer(&reports, 1, None), Ok(("x", 1)), "the first of equals");
    assert_eq!(answer(&reports, 1, Some(5)), Ok(("y", 1)));
    assert_eq!(answer(&reports, 1, Some(9)), Err(None));
}

#[test]
fn without_a_claim_smoke_tests_agree_and_mere_words_do_not() {
    let smoke = |lease, volunteer, name| Sworn {
        reproducibility: Reproducibility::NotClaimed,
        fingerprint: environment(name),
        ..sworn(lease, volunteer, name)
    };
    assert_eq!(answer(&[smoke(1, 10, "x"), smoke(2, 11, "y")], 2, None), Ok(("x", 2)));
    assert_eq!(answer(&[smoke(1, 10, "x")], 2, None), Err(None), "any environment will do");
    let word = |lease, volunteer, name| Sworn { smoke: Smoke::None, ..smoke(lease, volunteer, name) };
    assert_eq!(answer(&[word(1, 10, "x")], 1, None), Ok(("x", 1)));
    assert_eq!(answer(&[word(1, 10, "x"), word(2, 11, "x")], 2, None), Err(None));
}

#[test]
fn everything_behind_an_artifact_is_found() {
    let reports = [sworn(1, 10, "x"), sworn(2, 11, "y"), sworn(3, 12, "x")];
    let agreed = behind(reports.iter(), artifact("x")).unwrap();
    assert_eq!((agreed.agreed, agreed.by), (2, BTreeSet::from([reports[0].id, reports[2].id])));
    assert_eq!(behind(reports.iter(), artifact("z")), None);
}

#[test]
fn a_second_opinion_needs_another_volunteer_in_the_same_environment() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).agree(2);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    let events = vec![lease_ended(lease, job, 10, LeaseEnd::Reported), queued(2, &ask)];
    assert_eq!(kit.reports(&ask, lease, 10, built("lua")), done(events), "one report answers nothing yet");
    assert_eq!(kit.candidate(10), None);
    assert_eq!(kit.apply(kit.grant_command(job, 10)), rejected(Rejection::Excluded));
    let other = machine(&[("libc", protocol::platform::Value::Text("musl-1.2".to_owned()))]);
    assert_eq!(kit.farm.candidate(&key(11), &other), None);
    let wrong = Command::Grant {
        job,
        volunteer: key(11),
        capability: other.id(),
        fingerprint: Fingerprint::of(&other, &requirement(&["os=linux"])),
        nonce: 1,
        bounds: bounds(),
    };
    assert_eq!(kit.apply(wrong), rejected(Rejection::OtherFingerprint));
    let seen = [
        sighting(10, plain(), protocol::farm::explain::Presence::Free),
        sighting(11, other, protocol::farm::explain::Presence::Free),
    ];
    let waiting =
        Explanation::Waiting { busy: 0, free: 0, gone: 0, excluded: 2, ahead: 0, confirming: Some(fingerprint()) };
    assert_eq!(kit.farm.explain(ask.id(), &seen), waiting);
    assert_eq!(kit.candidate(11), Some(job));
    let lease = kit.grant(job, 11);
    let decided = Event::Decided { build_key: ask.build_key(), manifest: artifact("lua"), holding: Holding::Kept };
    let events = vec![
        lease_ended(lease, job, 11, LeaseEnd::Reported),
        Event::Keeping { job, build_key: ask.build_key(), manifest: artifact("lua"), builder: key(11) },
        decided,
        request_ended(&ask, ended_built("lua", Holding::Kept)),
    ];
    assert_eq!(kit.reports(&ask, lease, 11, built("lua")), done(events), "two builders are two holders");
    let finished = kit.farm.finished(&ask.build_key()).unwrap();
    assert_eq!((finished.verdict.agreed, finished.reports.len()), (2, 2));
}

#[test]
fn each_demand_on_a_job_is_answered_when_it_is_met() {
    let mut kit = Kit::new();
    let (one, two) = (Ask::by(1), Ask::by(2).agree(2));
    let job = kit.submit(&one);
    kit.submit(&two);
    kit.build(&one, job, 10, "lua");
    assert_eq!(kit.ended(&one), Some(ended_built("lua", Holding::Kept)));
    assert_eq!(kit.ended(&two), None);
    assert_eq!(kit.farm.job_of(&two.build_key()), Some(job), "the job lives for the other");
    kit.build(&two, job, 11, "lua");
    assert_eq!(kit.ended(&two), Some(ended_built("lua", Holding::Kept)));
    let three = Ask::by(3).agree(3);
    let next = kit.submit(&three);
    assert_eq!((kit.candidate(10), kit.candidate(12)), (None, Some(next)), "earlier reports count for a later demand");
    kit.build(&three, next, 12, "lua");
    assert_eq!(kit.farm.finished(&three.build_key()).unwrap().verdict.agreed, 3);
}

#[test]
fn a_modest_wish_that_joins_is_answered_from_the_report_at_hand() {
    let mut kit = Kit::new();
    let demanding = Ask::by(1).agree(2);
    let job = kit.submit(&demanding);
    let lease = kit.grant(job, 10);
    kit.reports(&demanding, lease, 10, built("lua"));
    let confirming = kit.grant(job, 11);
    let modest = Ask::by(2);
    let events = kit.ok(modest.command());
    let keeping = Event::Keeping { job, build_key: modest.build_key(), manifest: artifact("lua"), builder: key(10) };
    assert_eq!(events, [keeping]);
    assert_eq!(kit.farm.explain(modest.id(), &[]), Explanation::Keeping);
    assert!(kit.farm.lease(confirming).is_some(), "the confirming attempt goes on");
    kit.ok(kit.held(&modest, "lua", COORDINATOR));
    assert_eq!(kit.ended(&modest), Some(ended_built("lua", Holding::Kept)));
    kit.reports(&demanding, confirming, 11, built("lua"));
    assert_eq!(kit.ended(&demanding), Some(ended_built("lua", Holding::Kept)));
}

#[test]
fn what_later_reports_outvote_is_not_kept_any_longer() {
    let mut kit = Kit::new();
    let (modest, demanding) = (Ask::by(1), Ask::by(2).agree(2));
    let job = kit.submit(&modest);
    kit.submit(&demanding);
    for (volunteer, name) in [(10, "lie"), (11, "lua")] {
        let lease = kit.grant(job, volunteer);
        kit.reports(&demanding, lease, volunteer, built(name));
        assert_eq!(kit.farm.explain(modest.id(), &[]), Explanation::Keeping, "the first of equals waits for a holder");
    }
    let lease = kit.grant(job, 12);
    let Applied { events, .. } = kit.reports(&demanding, lease, 12, built("lua"));
    let decided = Event::Decided { build_key: modest.build_key(), manifest: artifact("lua"), holding: Holding::Kept };
    assert!(events.contains(&decided), "{events:?}");
    assert_eq!(kit.ended(&modest), Some(ended_built("lua", Holding::Kept)));
    assert_eq!(kit.ended(&demanding), Some(ended_built("lua", Holding::Kept)));
    assert_eq!(kit.apply(kit.held(&modest, "lie", COORDINATOR)), rejected(Rejection::UnknownBuild));
}

#[test]
fn a_fresh_wish_is_built_again_even_by_the_same_volunteer() {
    let mut kit = Kit::new();
    let old = Ask::by(1);
    let job = kit.submit(&old);
    kit.build(&old, job, 10, "lua");
    let fresh = Ask::by(2).fresh();
    let job = kit.submit(&fresh);
    assert_eq!(kit.candidate(10), Some(job));
    kit.build(&fresh, job, 10, "newer");
    assert_eq!(kit.ended(&fresh), Some(ended_built("newer", Holding::Kept)));
    assert_eq!(kit.farm.finished(&fresh.build_key()).unwrap().verdict.manifest, artifact("newer"));

    let running = Ask::by(3).option(1);
    let job = kit.submit(&running);
    let lease = kit.grant(job, 10);
    let late = Ask::by(4).option(1).fresh();
    kit.submit(&late);
    kit.reports(&running, lease, 10, built("lua"));
    kit.ok(kit.held(&running, "lua", COORDINATOR));
    assert_eq!(kit.ended(&running), Some(ended_built("lua", Holding::Kept)));
    assert_eq!(kit.ended(&late), None, "that attempt was granted before");
    kit.build(&late, job, 10, "lua");
    assert_eq!(kit.ended(&late), Some(ended_built("lua", Holding::Kept)));
}

#[test]
fn saying_fresh_again_does_not_set_it_back() {
    let mut kit = Kit::new();
    let fresh = Ask::by(1).fresh();
    let job = kit.submit(&fresh);
    let lease = kit.grant(job, 10);
    kit.submit(&fresh);
    kit.reports(&fresh, lease, 10, built("lua"));
    assert_eq!(kit.farm.explain(fresh.id(), &[]), Explanation::Keeping);
}

#[test]
fn asking_again_with_more_demand_holds_the_answer() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let more = Ask::by(1).agree(2);
    assert_eq!(more.id(), Ask::by(1).id());
    kit.submit(&more);
    kit.reports(&more, lease, 10, built("lua"));
    assert_eq!(kit.candidate(11), Some(job));
}

#[test]
fn reports_that_never_agree_end_it() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).agree(2);
    let job = kit.submit(&ask);
    for at in 0..16u8 {
        assert_eq!(kit.ended(&ask), None, "after {at}");
        let lease = kit.grant(job, 10 + at);
        let outcome = if at == 7 { build_error() } else { built(&format!("differs {at}")) };
        assert!(kit.reports(&ask, lease, 10 + at, outcome).reply.is_ok());
    }
    assert_eq!(kit.ended(&ask), Some(Ended::Policy(PolicyEnd::NoAgreement)));
}

#[test]
fn one_machines_failure_does_not_end_what_another_has_built() {
    let mut kit = Kit::new();
    let ask = Ask::by(1).agree(2);
    let job = kit.submit(&ask);
    let lease = kit.grant(job, 10);
    kit.reports(&ask, lease, 10, built("lua"));
    let lease = kit.grant(job, 11);
    let report = kit.report(&ask, lease, 11, build_error());
    kit.ok(Command::Report { report, witnesses: Witnesses::Nobody });
    assert_eq!((kit.ended(&ask), kit.candidate(11), kit.candidate(12)), (None, None, Some(job)));
}
