//! Rules 2 and 3: who gets what, and in which order.

use crate::kit::*;
use protocol::farm::command::{Command, Event, Rejection};
use protocol::id::JobId;
use protocol::platform::{Acceptance, Capability, Value};
use protocol::request::Priority;
use protocol::signed::Signed;
use std::collections::BTreeSet;

/// Grants the queue empty; the jobs in the order granted, each to another volunteer.
fn drain(kit: &mut Kit) -> Vec<u64> {
    let mut order = Vec::new();
    for volunteer in 10.. {
        let Some(job) = kit.candidate(volunteer) else { break };
        kit.grant(job, volunteer);
        order.push(job.0);
    }
    order
}

#[test]
fn class_comes_before_fairness_and_fairness_before_age() {
    let mut kit = Kit::new();
    for option in 0..3 {
        kit.submit(&Ask::by(1).option(option)); // jobs 2, 3, 4
    }
    kit.submit(&Ask::by(2).option(10)); // 5
    kit.submit(&Ask::by(2).option(11)); // 6
    kit.submit(&Ask::by(3).option(20).priority(Priority::Batch)); // 7
    kit.submit(&Ask::by(3).option(21).priority(Priority::Urgent)); // 8
    assert_eq!(drain(&mut kit), [8, 2, 5, 3, 6, 4, 7]);
}

#[test]
fn who_comes_late_waits_for_one_round_and_not_for_the_whole_queue() {
    let mut kit = Kit::new();
    for option in 0..6 {
        kit.submit(&Ask::by(1).option(option)); // jobs 2 to 7
    }
    for volunteer in [10, 11] {
        let job = kit.candidate(volunteer).unwrap();
        kit.grant(job, volunteer); // 2, 3 at index 8, 9
    }
    kit.submit(&Ask::by(2).option(20)); // 10
    kit.submit(&Ask::by(2).option(21)); // 11
    assert_eq!(drain(&mut kit), [4, 10, 5, 11, 6, 7]);
}

#[test]
fn requesters_take_turns_whatever_they_have_queued() {
    let mut kit = Kit::new();
    let mut owner = std::collections::BTreeMap::new();
    for by in 1..=5u8 {
        for option in 0..i64::from(by) * 4 {
            let job = kit.submit(&Ask::by(by).option(i64::from(by) * 100 + option));
            owner.insert(job.0, by);
        }
    }
    let order: Vec<_> = drain(&mut kit).into_iter().map(|job| owner[&job]).collect();
    let (mut rest, mut left) = (order.as_slice(), 5);
    // Everybody has four jobs, four of them eight, and so on: each round serves each that is left once.
    for by in 1..=5 {
        for _ in 0..4 {
            let (round, later) = rest.split_at(left);
            assert_eq!(round.iter().copied().collect::<BTreeSet<_>>(), (by..=5).collect());
            rest = later;
        }
        left -= 1;
    }
    assert!(rest.is_empty());
}

#[test]
fn cancelled_jobs_are_not_charged() {
    let mut kit = Kit::new();
    for option in 0..5 {
        kit.submit(&Ask::by(1).option(option));
    }
    for option in 0..5 {
        kit.ok(Command::Cancel { request: Ask::by(1).option(option).id(), by: key(1) });
    }
    kit.submit(&Ask::by(2).option(10)); // 12
    kit.submit(&Ask::by(2).option(11)); // 13
    kit.submit(&Ask::by(1).option(20)); // 14
    assert_eq!(drain(&mut kit), [12, 14, 13]);
}

#[test]
fn cancelled_jobs_are_not_charged_to_who_has_something_else_open() {
    let mut kit = Kit::new();
    kit.submit(&Ask::by(1).option(50).priority(Priority::Batch)); // 2
    for option in 0..5 {
        kit.submit(&Ask::by(1).option(option));
        kit.ok(Command::Cancel { request: Ask::by(1).option(option).id(), by: key(1) });
    }
    kit.submit(&Ask::by(2).option(10)); // 13
    kit.submit(&Ask::by(2).option(11)); // 14
    kit.submit(&Ask::by(1).option(20)); // 15
    assert_eq!(drain(&mut kit), [13, 15, 14, 2]);
}

#[test]
fn a_job_that_changes_its_class_takes_its_turn_there() {
    let mut kit = Kit::new();
    for option in 0..3 {
        kit.submit(&Ask::by(1).option(option)); // 2, 3, 4
    }
    let urgent = |by, option| Ask::by(by).option(option).priority(Priority::Urgent);
    kit.submit(&urgent(2, 10)); // 5
    kit.submit(&urgent(2, 11)); // 6
    kit.submit(&urgent(3, 2)); // lifts 4, the third of its requester
    assert_eq!(drain(&mut kit), [4, 5, 6, 2, 3], "but the first among the urgent ones");
}

#[test]
fn what_one_may_not_have_does_not_change_the_order_of_the_rest() {
    let mut kit = Kit::new();
    let refused = kit.submit(&Ask::by(1).option(1)); // 2, of one recipe
    let lease = kit.grant(refused, 10);
    kit.ok(Command::Refuse { lease, volunteer: key(10), reason: "no".to_owned() });
    let next = kit.submit(&Ask::by(2).recipe("zstd")); // 5, of another
    let last = kit.submit(&Ask::by(2).option(2)); // 6, of the first again
    assert_eq!((next, last), (JobId(5), JobId(6)));
    assert_eq!((kit.candidate(10), kit.candidate(11)), (Some(next), Some(refused)));
}

#[test]
fn an_urgent_wish_lifts_the_job_and_its_end_lowers_it_again() {
    let mut kit = Kit::new();
    kit.submit(&Ask::by(1).option(1)); // 2
    kit.submit(&Ask::by(2).option(2)); // 3
    let urgent = Ask::by(3).option(2).priority(Priority::Urgent);
    assert_eq!(kit.submit(&urgent), JobId(3));
    assert_eq!(kit.candidate(10), Some(JobId(3)));
    kit.ok(Command::Cancel { request: urgent.id(), by: key(3) });
    assert_eq!(kit.candidate(10), Some(JobId(2)));
}

#[test]
fn what_was_handed_back_keeps_its_place() {
    let mut kit = Kit::new();
    for option in 0..3 {
        kit.submit(&Ask::by(1).option(option)); // 2, 3, 4
    }
    let lease = kit.grant(JobId(2), 10);
    kit.submit(&Ask::by(2)); // joins job 2
    kit.ok(Command::HandBack { lease, volunteer: key(10) });
    assert_eq!(kit.candidate(10), Some(JobId(2)), "also for who handed it back");
}

#[test]
fn a_capability_gets_only_what_it_meets_and_its_owner_accepts() {
    let mut kit = Kit::new();
    kit.submit(&Ask::by(1).requires(&["os=linux", "tool.python2"])); // 2
    kit.submit(&Ask::by(2).requires(&["os=linux", "cores>=8"]).option(1)); // 3
    kit.submit(&Ask::by(3).requires(&[]).recipe("zstd")); // 4
    kit.submit(&Ask::by(MEMBER).requires(&[]).recipe("sqlite")); // 5
    let python = machine(&[("tool", Value::Map([("python2".to_owned(), Value::Flag(true))].into()))]);
    let big = machine(&[("cores", Value::Number(8))]);
    let accepting = |accepts| Capability { accepts, ..plain() };
    let only = |name| BTreeSet::from([recipe(name)]);
    let candidate = |capability| kit.farm.candidate(&key(10), &capability);
    assert_eq!(candidate(python), Some(JobId(2)));
    assert_eq!(candidate(big), Some(JobId(3)));
    assert_eq!(candidate(plain()), Some(JobId(4)));
    assert_eq!(candidate(accepting(Acceptance::Catalogue(only("zstd")))), Some(JobId(4)));
    assert_eq!(candidate(accepting(Acceptance::Catalogue(only("lua")))), None);
    assert_eq!(candidate(accepting(Acceptance::Members(only("lua")))), Some(JobId(5)));
    assert_eq!(candidate(accepting(Acceptance::Members(only("zstd")))), Some(JobId(4)));
}

#[test]
fn a_long_catalogue_and_many_lots_give_the_same_answer() {
    let mut kit = Kit::new();
    let names: Vec<&'static str> = (0..20).map(|at| &*format!("recipe{at}").leak()).collect();
    for name in &names {
        kit.submit(&Ask::by(1).recipe(name));
    }
    let accepting = |names: &[&str]| Capability {
        accepts: Acceptance::Catalogue(names.iter().map(|name| recipe(name)).collect()),
        ..plain()
    };
    assert_eq!(kit.farm.candidate(&key(10), &accepting(&names[7..8])), Some(JobId(9)), "few of many lots");
    assert_eq!(kit.farm.candidate(&key(10), &accepting(&names[5..])), Some(JobId(7)), "many of many lots");
}

#[test]
fn a_new_member_is_one_for_jobs_that_wait_already() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let members_only = Capability { accepts: Acceptance::Members(BTreeSet::new()), ..plain() };
    assert_eq!(kit.farm.candidate(&key(10), &members_only), None);
    let (charter, envelope) = kit.farm.charter().unwrap();
    let mut next = charter.clone();
    next.version = 2;
    next.predecessor = Some(envelope.id());
    next.members.insert(key(1));
    let sign = |charter, seed| Signed::new(charter, kit.farm.id().unwrap(), &secret(seed));
    let (forged, skipped, good) =
        (sign(&next, 1), sign(&protocol::charter::Charter { version: 3, ..next.clone() }, FARM), sign(&next, FARM));
    assert_eq!(kit.apply(Command::Amend { charter: forged }), rejected(Rejection::Charter));
    assert_eq!(kit.apply(Command::Amend { charter: skipped }), rejected(Rejection::Charter));
    assert_eq!(kit.apply(Command::Amend { charter: good.clone() }), done(vec![Event::Amended { version: 2 }]));
    assert_eq!(kit.apply(Command::Amend { charter: good }), done(vec![]), "said twice");
    assert_eq!(kit.farm.candidate(&key(10), &members_only), Some(job));
}

#[test]
fn picky_jobs_do_not_hide_what_comes_after_them() {
    let mut kit = Kit::new();
    // Volunteer 10 refuses a hundred jobs, more than one claim looks at.
    for option in 0..100 {
        let job = kit.submit(&Ask::by(1).option(option));
        let lease = kit.grant(job, 10);
        kit.ok(Command::Refuse { lease, volunteer: key(10), reason: "no".to_owned() });
    }
    assert_eq!(kit.candidate(10), None);
    assert_eq!(kit.candidate(11), Some(JobId(2)), "somebody else gets the first");
    let last = kit.submit(&Ask::by(1).option(100));
    assert_eq!(kit.candidate(10), Some(last), "a plain job is found behind them");
}

#[test]
fn living_jobs_are_read_a_page_at_a_time_each_once() {
    let mut kit = Kit::new();
    let jobs: Vec<JobId> = (0..5).map(|option| kit.submit(&Ask::by(1).option(option))).collect();
    kit.build(&Ask::by(1).option(1), jobs[1], 10, "one");
    kit.ok(kit.held(&Ask::by(1).option(1), "one", 11));
    let lease = kit.grant(jobs[2], 12);
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let page: Vec<JobId> = kit.farm.jobs_after(after).take(2).map(|job| job.id).collect();
        let Some(last) = page.last() else { break };
        after = Some(*last);
        read.extend(page);
    }
    assert_eq!(read, [jobs[0], jobs[2], jobs[3], jobs[4]], "the finished one is none");
    assert_eq!(kit.farm.jobs_after(Some(jobs[0])).next().unwrap().lease.map(|lease| lease.id), Some(lease));
}
