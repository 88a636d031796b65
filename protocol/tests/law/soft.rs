//! What only the leader knows: liveness, roster, stamps.

use crate::kit::*;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Expiry, Witnesses};
use protocol::farm::explain::Presence;
use protocol::farm::liveness::{Liveness, STILL_BESIDE_STEPS, STUCK_GRACE};
use protocol::farm::roster::{MAX_CLAIMS, ParkError, Roster};
use protocol::farm::stamp::{Clock, Stamper};
use protocol::id::LeaseId;
use protocol::platform::Value;
use protocol::progress::{Motion, Phase, Progress, Pulse};
use protocol::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

fn secs(secs: u64) -> Timestamp {
    Timestamp::EPOCH + Span::from_secs(1_000 + secs).duration()
}

#[test]
fn an_offer_lapses_after_three_seconds_unless_it_is_taken_up() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let mut liveness = Liveness::default();
    liveness.granted(&kit.farm, lease, key(10), secs(0));
    assert_eq!(liveness.due(secs(2)), []);
    assert_eq!(liveness.due(secs(3)), [Expiry::Undelivered(lease)]);
    assert_eq!(liveness.heard(&kit.farm, key(10), &[lease], secs(2)), []);
    assert_eq!(liveness.due(secs(16)), []);
    assert_eq!(liveness.due(secs(17)), [Expiry::VolunteerLost(lease)]);
    liveness.ended(lease);
    assert_eq!((liveness.due(secs(99)), liveness.next_due()), (vec![], None));
}

#[test]
fn a_lease_that_nobody_took_up_before_a_restart_is_nobodys_loss() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let (lease, volunteer) = (kit.grant(job, 10), key(10));
    let offered_until = kit.farm.lease(lease).unwrap().offered_until();
    let after = |seconds: u64| offered_until + Duration::from_secs(seconds);
    let mut liveness = Liveness::of_new_leader(&kit.farm, after(0));
    assert_eq!(liveness.heard(&kit.farm, volunteer, &[], after(1)), []);
    assert_eq!(liveness.due(after(1)), [Expiry::Undelivered(lease)], "alive, and does not list it");
    liveness.granted(&kit.farm, lease, volunteer, after(1));
    assert_eq!(liveness.due(after(2)), [], "offered once more");
    assert_eq!(liveness.heard(&kit.farm, volunteer, &[lease], after(2)), []);
    assert_eq!(liveness.due(after(16)), []);
    assert_eq!(liveness.due(after(17)), [Expiry::VolunteerLost(lease)]);
}

#[test]
fn a_lease_is_not_undelivered_before_its_time_though_its_volunteer_does_not_list_it() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let (lease, volunteer) = (kit.grant(job, 10), key(10));
    let offered_until = kit.farm.lease(lease).unwrap().offered_until();
    // The time of a farm without a leader may stand still.
    let back = offered_until - Duration::from_secs(2);
    let mut liveness = Liveness::of_new_leader(&kit.farm, back);
    assert_eq!(liveness.heard(&kit.farm, volunteer, &[], back), []);
    assert_eq!(liveness.due(offered_until - Duration::from_millis(1)), [], "the law would say that it is not due");
    assert_eq!(liveness.due(offered_until), [Expiry::Undelivered(lease)]);
}

/// A word about `lease`, whose build has written so much and used so many seconds of processor time.
fn pulse(lease: LeaseId, phase: Phase, log_bytes: u64, cpu_s: u64) -> Pulse {
    let cpu = Span::from_secs(cpu_s);
    Pulse { lease, progress: Progress { phase, fetched_bytes: 0, log_bytes, cpu } }
}

#[test]
fn an_attempt_that_does_not_move_is_stuck_however_alive_its_volunteer_is() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let (lease, volunteer) = (kit.grant(job, 10), key(10));
    let mut liveness = Liveness::default();
    liveness.granted(&kit.farm, lease, volunteer, secs(0));
    let beat = |liveness: &mut Liveness, at, pulse| {
        liveness.heard(&kit.farm, volunteer, &[lease], secs(at));
        liveness.told(volunteer, &[pulse], secs(at));
        liveness.due(secs(at))
    };
    // Each of these alone is a sign: a phase, output, processor time.
    for (at, word) in [
        (0, pulse(lease, Phase::Fetching, 0, 0)),
        (60, pulse(lease, Phase::Building, 0, 0)),
        (130, pulse(lease, Phase::Building, 0, 1)),
        (200, pulse(lease, Phase::Building, 1, 1)),
    ] {
        assert_eq!(beat(&mut liveness, at, word), [], "at {at} s");
    }
    // The recipe allows a minute, and its volunteer has a moment to say so itself.
    let limit = 200 + bounds().quiet.as_millis() / 1_000 + STUCK_GRACE.as_millis() / 1_000;
    let still = pulse(lease, Phase::Building, 1, 1);
    assert_eq!(beat(&mut liveness, limit - 1, still), []);
    assert_eq!(beat(&mut liveness, limit, still), [Expiry::Stuck(lease)]);
    let motion = Motion { phase: Phase::Building, still_for: Some(Span::from_secs(60)) };
    assert_eq!(liveness.motions(secs(limit)), BTreeMap::from([(lease, motion)]));
    assert_eq!(beat(&mut liveness, limit, pulse(lease, Phase::Building, 2, 1)), [], "it moves again");
    assert_eq!(liveness.motions(secs(limit)).get(&lease).unwrap().still_for, None);
    // Beside its steps a recipe says nothing of how long nothing may move.
    assert_eq!(beat(&mut liveness, limit, pulse(lease, Phase::Collecting, 2, 1)), []);
    let much_later = limit + STILL_BESIDE_STEPS.as_millis() / 1_000;
    assert_eq!(beat(&mut liveness, much_later, pulse(lease, Phase::Collecting, 2, 1)), []);
    let later = much_later + STUCK_GRACE.as_millis() / 1_000;
    assert_eq!(beat(&mut liveness, later, pulse(lease, Phase::Collecting, 2, 1)), [Expiry::Stuck(lease)]);
    liveness.told(key(11), &[pulse(lease, Phase::Collecting, 3, 1)], secs(later));
    assert_eq!(liveness.due(secs(later)), [Expiry::Stuck(lease)], "a stranger's word moves nothing");
}

#[test]
fn a_lease_ends_whatever_its_volunteer_says_of_progress() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let (lease, volunteer) = (kit.grant(job, 10), key(10));
    let mut liveness = Liveness::of_new_leader(&kit.farm, START);
    let whole = bounds().whole.as_millis() / 1_000;
    let mut at = 0;
    while at < whole {
        let now = START + Duration::from_secs(at);
        liveness.heard(&kit.farm, volunteer, &[lease], now);
        liveness.told(volunteer, &[pulse(lease, Phase::Building, at, at)], now);
        assert_eq!(liveness.due(now), [], "at {at} s");
        at += 5;
    }
    assert_eq!(liveness.due(START + Duration::from_secs(whole)), [Expiry::Overdue(lease)]);
    // A leader that was away for longer hears its volunteer first: what was built meanwhile is told before it is too late.
    let back = START + Duration::from_secs(10 * whole);
    let mut liveness = Liveness::of_new_leader(&kit.farm, back);
    liveness.heard(&kit.farm, volunteer, &[lease], back + Duration::from_secs(1));
    assert_eq!(liveness.due(back + Duration::from_secs(14)), []);
    assert_eq!(liveness.due(back + Duration::from_secs(15)), [Expiry::Overdue(lease)]);
}

#[test]
fn a_closed_connection_leaves_five_seconds() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let mut liveness = Liveness::default();
    liveness.granted(&kit.farm, lease, key(10), secs(0));
    liveness.heard(&kit.farm, key(10), &[lease], secs(1));
    liveness.closed(key(10), secs(2));
    liveness.closed(key(10), secs(4));
    assert_eq!(liveness.next_due(), Some(secs(7)), "closing again gives no more time");
    assert_eq!(liveness.due(secs(7)), [Expiry::VolunteerLost(lease)]);
    liveness.heard(&kit.farm, key(10), &[lease], secs(6));
    assert_eq!(liveness.due(secs(7)), [], "it came back");
}

#[test]
fn a_lease_that_the_volunteer_no_longer_lists_is_not_kept_alive() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let mut liveness = Liveness::default();
    liveness.granted(&kit.farm, lease, key(10), secs(0));
    liveness.heard(&kit.farm, key(10), &[lease], secs(0));
    for at in [5, 10] {
        liveness.heard(&kit.farm, key(10), &[], secs(at));
    }
    assert_eq!(liveness.due(secs(15)), [Expiry::VolunteerLost(lease)]);
}

#[test]
fn heartbeats_are_told_what_the_farm_does_not_know() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let mut liveness = Liveness::default();
    liveness.granted(&kit.farm, lease, key(10), secs(0));
    assert_eq!(liveness.heard(&kit.farm, key(11), &[lease, LeaseId(99)], secs(1)), [lease, LeaseId(99)]);
    assert_eq!(liveness.due(secs(3)), [Expiry::Undelivered(lease)], "a stranger keeps nothing alive");
    kit.ok(Command::Cancel { request: Ask::by(1).id(), by: key(1) });
    assert_eq!(liveness.heard(&kit.farm, key(10), &[lease], secs(2)), [lease]);
    assert_eq!(liveness.due(secs(99)), []);
}

#[test]
fn a_new_leader_grants_fifteen_fresh_seconds() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    let lease = kit.grant(job, 10);
    let liveness = Liveness::of_new_leader(&kit.farm, secs(0));
    assert_eq!(liveness.due(secs(14)), []);
    assert_eq!(liveness.due(secs(15)), [Expiry::VolunteerLost(lease)]);
}

#[test]
fn the_longest_parked_claim_that_can_is_woken() {
    let mut kit = Kit::new();
    let big = machine(&[("cores", Value::Number(8))]);
    let mut roster = Roster::default();
    roster.park(key(10), 1, &plain(), secs(0)).unwrap();
    roster.park(key(11), 1, &big, secs(1)).unwrap();
    roster.park(key(12), 1, &plain(), secs(2)).unwrap();
    let anybody = kit.submit(&Ask::by(1));
    let only_big = kit.submit(&Ask::by(1).option(1).requires(&["cores>=8"]));
    let nobody = kit.submit(&Ask::by(1).option(2).requires(&["cores>=9"]));
    let woken = |roster: &Roster, farm: &Farm, job| roster.wake(farm, job).map(|claim| claim.volunteer);
    assert_eq!(woken(&roster, &kit.farm, anybody), Some(key(10)));
    assert_eq!(woken(&roster, &kit.farm, only_big), Some(key(11)));
    assert_eq!(woken(&roster, &kit.farm, nobody), None);
    let lease = kit.grant(anybody, 10);
    kit.ok(Command::Refuse { lease, volunteer: key(10), reason: "no".to_owned() });
    assert_eq!(woken(&roster, &kit.farm, anybody), Some(key(11)), "not who refused it");
    assert!(roster.withdraw(key(11), 1) && !roster.withdraw(key(11), 1));
    assert_eq!(woken(&roster, &kit.farm, anybody), Some(key(12)));
    roster.park(key(11), 2, &big, secs(3)).unwrap();
    roster.closed(key(12), secs(3));
    assert_eq!(woken(&roster, &kit.farm, anybody), Some(key(11)));
    roster.park(key(11), 2, &plain(), secs(4)).unwrap();
    assert_eq!(woken(&roster, &kit.farm, only_big), None, "it can do less now");
}

#[test]
fn sightings_fade_and_are_bounded() {
    let mut roster = Roster::default();
    roster.see(key(10), &plain(), secs(0)).unwrap();
    roster.park(key(11), 1, &plain(), secs(0)).unwrap();
    let presence = |roster: &Roster, at| (roster.presence(&key(10), at), roster.presence(&key(11), at));
    assert_eq!(presence(&roster, secs(14)), (Some(Presence::Busy), Some(Presence::Free)));
    assert_eq!(presence(&roster, secs(15)), (Some(Presence::Gone), Some(Presence::Free)));
    roster.heard(key(10), secs(15));
    assert_eq!(presence(&roster, secs(16)).0, Some(Presence::Busy));
    assert_eq!((roster.sightings(secs(16)).len(), roster.alive(secs(16))), (2, 2));
    roster.prune(secs(700));
    assert_eq!(presence(&roster, secs(700)), (None, Some(Presence::Free)), "who has a claim parked stays");
    for nonce in 1..=MAX_CLAIMS as u64 {
        roster.park(key(11), nonce, &plain(), secs(1)).unwrap();
    }
    assert_eq!(roster.park(key(11), 1_000, &plain(), secs(1)), Err(ParkError::TooManyClaims));
    let long = machine(&[("x", Value::Text("x".repeat(1_000)))]);
    assert_eq!(roster.park(key(12), 1, &long, secs(1)), Err(ParkError::OutOfBounds));
}

#[test]
fn a_witness_is_somebody_else_alive_who_could_do_it() {
    let mut kit = Kit::new();
    let job = kit.submit(&Ask::by(1));
    kit.grant(job, 10);
    let mut roster = Roster::default();
    roster.see(key(10), &plain(), secs(0)).unwrap();
    roster.see(key(11), &machine(&[("os", Value::Text("darwin".to_owned()))]), secs(0)).unwrap();
    assert_eq!(roster.witnesses(&kit.farm, job, &key(10), secs(1)), Witnesses::Nobody);
    roster.see(key(12), &plain(), secs(0)).unwrap();
    assert_eq!(roster.witnesses(&kit.farm, job, &key(10), secs(1)), Witnesses::Alive);
    assert_eq!(roster.witnesses(&kit.farm, job, &key(10), secs(20)), Witnesses::Nobody, "gone");
}

#[test]
fn stamps_are_monotonic_and_a_senseless_clock_is_not_followed() {
    let hours = |hours: u64| START + Duration::from_secs(hours * 3_600);
    let mut sane = Stamper::start(START, hours(2));
    assert_eq!((sane.clock(), sane.stamp(Duration::from_secs(3_600))), (Clock::Trusted, hours(3)));
    assert_eq!(sane.stamp(Duration::ZERO), hours(3), "never back");
    sane.observe(hours(5));
    assert_eq!(sane.stamp(Duration::from_secs(3_600)), hours(5));
    assert_eq!(Stamper::start(Timestamp::EPOCH, START).clock(), Clock::Trusted, "a new farm");

    let mut ahead = Stamper::start(START, hours(25));
    assert_eq!((ahead.clock(), ahead.stamp(Duration::from_secs(3_600))), (Clock::Doubted, hours(1)));
    ahead.heard(hours(26) + Duration::from_secs(301), Duration::from_secs(3_600));
    assert_eq!(ahead.clock(), Clock::Doubted, "no agreement");
    ahead.heard(hours(26) - Duration::from_secs(300), Duration::from_secs(3_600));
    assert_eq!((ahead.clock(), ahead.stamp(Duration::from_secs(3_600))), (Clock::Trusted, hours(26)));

    let mut behind = Stamper::start(hours(2), hours(1));
    assert_eq!((behind.clock(), behind.stamp(Duration::ZERO)), (Clock::Doubted, hours(2)));
    behind.trust();
    assert_eq!((behind.clock(), behind.at_start()), (Clock::Trusted, hours(2)), "time does not stand still");
    assert_eq!(behind.stamp(Duration::from_secs(3_600)), hours(3));

    let mut set_right = Stamper::start(hours(26), hours(1));
    set_right.heard(hours(27), Duration::from_secs(3_600));
    assert_eq!(set_right.clock(), Clock::Doubted, "no agreement");
    set_right.read_again(hours(26));
    set_right.heard(hours(27), Duration::from_secs(3_600));
    assert_eq!((set_right.clock(), set_right.at_start()), (Clock::Trusted, hours(26)));
}
