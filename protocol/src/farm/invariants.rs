//! What holds in every farm after every command. Each has a name, a reason and a function.
//!
//! Tests and simulation call [`check_all`] after every command and [`check_step`] across it. The checks walk everything and
//! are not for a farm that works.

use crate::farm::account::{CLASSES, Open, class_at};
use crate::farm::asked::Fate;
use crate::farm::job::{Effort, Job, MAX_EXCLUSIONS, MAX_PAST_LEASES};
use crate::farm::notice::Notice;
use crate::farm::quorum::{self, Answer};
use crate::farm::{Farm, MAX_OPEN_REQUIREMENTS};
use crate::id::{JobId, PeerKey};
use crate::report::{MAX_REPORTS, Outcome, Report};
use std::collections::{BTreeMap, BTreeSet};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant} is broken: {found}")]
pub struct Broken {
    /// Its name: that of its function.
    pub invariant: &'static str,
    /// What was found.
    pub found: String,
}

type Check = fn(&Farm) -> Result<(), String>;

const ALL: [(&str, Check); 13] = [
    ("waiting_requests_hang_on_one_job", waiting_requests_hang_on_one_job),
    ("jobs_serve_somebody", jobs_serve_somebody),
    ("queued_jobs_stand_in_one_place", queued_jobs_stand_in_one_place),
    ("a_job_has_one_lease", a_job_has_one_lease),
    ("a_build_key_has_one_job", a_build_key_has_one_job),
    ("unmet_demands_are_worked_on", unmet_demands_are_worked_on),
    ("builds_are_held_and_backed", builds_are_held_and_backed),
    ("every_subscriber_is_told_once", every_subscriber_is_told_once),
    ("deadlines_follow_from_the_state", deadlines_follow_from_the_state),
    ("indices_agree", indices_agree),
    ("accounts_agree_with_requests", accounts_agree_with_requests),
    ("lots_live_as_long_as_their_jobs", lots_live_as_long_as_their_jobs),
    ("memory_is_bounded", memory_is_bounded),
];

/// Checks all of them.
///
/// # Errors
///
/// The first that does not hold.
pub fn check_all(farm: &Farm) -> Result<(), Broken> {
    ALL.into_iter().try_for_each(|(invariant, check)| check(farm).map_err(|found| Broken { invariant, found }))
}

/// Checks what holds between a farm and the same farm one command later.
///
/// # Errors
///
/// [`Broken`] with the first that does not hold.
pub fn check_step(before: &Farm, after: &Farm) -> Result<(), Broken> {
    time_never_goes_back(before, after).map_err(|found| Broken { invariant: "time_never_goes_back", found }).and_then(
        |()| nobody_is_forgotten(before, after).map_err(|found| Broken { invariant: "nobody_is_forgotten", found }),
    )
}

fn ensure(holds: bool, found: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(found()) }
}

/// Stamps, indices and the virtual time of every class only rise: deadlines and fairness are built on that.
fn time_never_goes_back(before: &Farm, after: &Farm) -> Result<(), String> {
    ensure(after.now >= before.now && after.applied >= before.applied && after.law >= before.law, || {
        format!("{:?} at {} after {:?} at {}", after.now, after.applied, before.now, before.applied)
    })?;
    let (then, now) = (before.accounts.virtual_time(), after.accounts.virtual_time());
    ensure(then.iter().zip(&now).all(|(then, now)| then <= now), || format!("virtual time {now:?} after {then:?}"))
}

/// A request and an address that were accepted stay known until the request is past its time, whatever happens: the
/// ancestor threw them away when something similar was queued.
fn nobody_is_forgotten(before: &Farm, after: &Farm) -> Result<(), String> {
    before.requests.iter().try_for_each(|(id, asked)| match after.requests.get(id) {
        Some(later) => {
            ensure(later.addresses.starts_with(&asked.addresses), || format!("addresses of {id:?} are gone"))
        }
        None => ensure(after.now >= asked.forgotten_at() && matches!(asked.fate, Fate::Ended(_)), || {
            format!("{id:?} is gone")
        }),
    })
}

/// Every waiting request is listed by the job it names, once, and by no other.
fn waiting_requests_hang_on_one_job(farm: &Farm) -> Result<(), String> {
    let mut listed = BTreeMap::new();
    for (id, job) in farm.jobs.iter() {
        for request in job.requests.iter() {
            ensure(listed.insert(*request, id).is_none(), || format!("{request:?} is listed twice"))?;
        }
    }
    let waiting: BTreeMap<_, _> = farm
        .requests
        .iter()
        .filter_map(|(id, asked)| match asked.fate {
            Fate::Waiting(job) => Some((*id, job)),
            Fate::Ended(_) => None,
        })
        .collect();
    ensure(listed == waiting, || format!("jobs list {listed:?}, requests wait for {waiting:?}"))
}

/// A job has at least one living request, and its class is the highest of them: nothing is built that nobody wants.
fn jobs_serve_somebody(farm: &Farm) -> Result<(), String> {
    farm.jobs.iter().try_for_each(|(id, job)| {
        let mut by_class = [0; CLASSES];
        for asked in job.requests.iter().filter_map(|request| farm.requests.get(request)) {
            by_class[class_at(asked.priority)] += 1;
        }
        ensure(!job.requests.is_empty() && by_class == job.by_class && job.class == job.highest_class(), || {
            format!("{id}: {} requests, {by_class:?}, {:?}", job.requests.len(), job.class)
        })
    })
}

/// A queued job stands in the queue once, with its rank and fit; no other job does; the order of heads is that of the lots.
fn queued_jobs_stand_in_one_place(farm: &Farm) -> Result<(), String> {
    let queued: BTreeMap<_, _> = farm
        .jobs
        .iter()
        .filter(|(_, job)| job.effort == Effort::Queued)
        .map(|(id, job)| (job.rank(id), (job.lot, job.fit())))
        .collect();
    let mut places = BTreeMap::new();
    for (lot, rank, fit) in farm.queue.places() {
        ensure(places.insert(rank, (lot, fit)).is_none(), || format!("{rank:?} stands twice"))?;
    }
    ensure(places == queued, || format!("the queue has {places:?}, jobs say {queued:?}"))?;
    ensure(queued.keys().all(|rank| rank.tag > 0), || "a queued job has no tag".to_owned())?;
    ensure(farm.queue.heads_agree(), || "heads do not agree with lots".to_owned())
}

/// Attempts of a job are sequential: a lease belongs to one job, which names it.
fn a_job_has_one_lease(farm: &Farm) -> Result<(), String> {
    let leased: BTreeMap<_, _> = farm
        .jobs
        .iter()
        .filter_map(|(id, job)| match job.effort {
            Effort::Leased(lease) => Some((lease, id)),
            Effort::AwaitingSource(_) | Effort::Queued | Effort::Idle => None,
        })
        .collect();
    let leases: BTreeMap<_, _> = farm.leases.iter().map(|lease| (lease.id, lease.job)).collect();
    ensure(leased == leases, || format!("jobs name {leased:?}, leases name {leases:?}"))
}

/// A build key has at most one living job: equal wishes are built once.
fn a_build_key_has_one_job(farm: &Farm) -> Result<(), String> {
    let by_key: BTreeMap<_, _> = farm.jobs.keys().map(|(key, id)| (*key, id)).collect();
    let jobs: Vec<_> = farm.jobs.iter().map(|(id, job)| (job.build_key, id)).collect();
    let agree = jobs.len() == by_key.len() && jobs.iter().all(|(key, id)| by_key.get(key) == Some(id));
    ensure(agree, || format!("{by_key:?} for {jobs:?}"))
}

/// While some demand is not met the job is queued or leased, and otherwise it is not; what is met is kept until answered.
fn unmet_demands_are_worked_on(farm: &Farm) -> Result<(), String> {
    farm.jobs.iter().try_for_each(|(id, job)| {
        let (unmet, met) = demands(farm, job);
        match job.effort {
            Effort::AwaitingSource(_) => Ok(()),
            Effort::Queued | Effort::Leased(_) => ensure(unmet > 0, || format!("{id} is attempted for nobody")),
            Effort::Idle => ensure(unmet == 0, || format!("{id} is idle with {unmet} demands unmet")),
        }?;
        let awaiting = matches!(job.effort, Effort::AwaitingSource(_));
        ensure(awaiting || met == 0 || job.keeping().is_some(), || {
            format!("{id} has {met} demands met and keeps nothing")
        })?;
        let held = job.keeping().is_none_or(|keeping| !keeping.holders.is_empty());
        ensure(held, || format!("{id} keeps what nobody holds"))
    })
}

fn demands(farm: &Farm, job: &Job) -> (usize, usize) {
    let answers = job
        .requests
        .iter()
        .filter_map(|request| farm.requests.get(request))
        .map(|asked| quorum::verdict(job.reports().iter().map(|report| &report.sworn), asked.standard));
    let (unmet, met): (Vec<_>, Vec<_>) = answers.partition(|answer| matches!(answer, Answer::Short { .. }));
    (unmet.len(), met.len())
}

/// A finished build has a holder, and reports that say what the farm answers: a verdict never stands on nothing.
fn builds_are_held_and_backed(farm: &Farm) -> Result<(), String> {
    farm.builds.iter().try_for_each(|(key, build)| {
        ensure(!build.holders.is_empty(), || format!("nobody holds {key:?}"))?;
        let behind: Vec<_> = build.reports.iter().filter(|report| build.by.contains(&report.sworn.id)).collect();
        let complete = !build.by.is_empty() && behind.len() == build.by.len() && behind.len() <= MAX_REPORTS;
        ensure(complete, || format!("{key:?} stands on {} reports of {}", behind.len(), build.by.len()))?;
        let volunteers: BTreeSet<_> = behind.iter().map(|report| report.sworn.volunteer).collect();
        let agreed = volunteers.len() == usize::from(build.agreed);
        ensure(agreed, || format!("{key:?}: {} volunteers, {} agreed", volunteers.len(), build.agreed))?;
        let backed = behind.iter().any(|report| report.sworn.manifest == build.manifest);
        ensure(backed, || format!("no report of {key:?} names its manifest"))?;
        behind.iter().try_for_each(|report| {
            let said = report.signed.payload_unchecked::<Report>().ok();
            let fits = said.is_some_and(|said| said.build_key == *key && matches!(said.outcome, Outcome::Built { .. }));
            ensure(fits && report.signed.key == report.sworn.volunteer, || {
                format!("a report of {key:?} says otherwise")
            })
        })
    })
}

/// Each address of an ended request has one notice, and nobody is told before the end.
fn every_subscriber_is_told_once(farm: &Farm) -> Result<(), String> {
    let mut expected = BTreeSet::new();
    for (id, asked) in &farm.requests {
        let distinct: BTreeSet<_> = asked.addresses.iter().collect();
        ensure(distinct.len() == asked.addresses.len(), || format!("{id:?} names an address twice"))?;
        if matches!(asked.fate, Fate::Ended(_)) {
            expected.extend(asked.addresses.iter().map(|address| Notice::id(*id, address)));
        }
    }
    let notices: BTreeSet<_> = farm.notices.iter().map(|(id, _)| id).collect();
    ensure(notices == expected, || format!("notices {notices:?}, expected {expected:?}"))
}

/// Everything that is to happen at some time is in the index of deadlines, and nothing else.
fn deadlines_follow_from_the_state(farm: &Farm) -> Result<(), String> {
    let expected: BTreeSet<_> = farm.due_dates().collect();
    ensure(farm.deadlines == expected, || format!("deadlines {:?}, expected {expected:?}", farm.deadlines))?;
    let ended: BTreeSet<_> = farm.forgettable().collect();
    ensure(farm.ended == ended, || format!("ended {:?}, expected {ended:?}", farm.ended))
}

/// What is looked up by another key is the same as what is there.
fn indices_agree(farm: &Farm) -> Result<(), String> {
    let awaiting = farm.jobs.iter().filter(|(_, job)| matches!(job.effort, Effort::AwaitingSource(_))).count();
    ensure(farm.jobs.awaiting_source() == awaiting as u64, || format!("{awaiting} jobs await their source"))?;
    ensure(farm.leases.index_agrees(), || "leases by volunteer".to_owned())?;
    ensure(farm.builds.index_agrees(), || "builds by age".to_owned())?;
    ensure(farm.notices.index_agrees(), || "notices by due time".to_owned())
}

/// What is charged to a requester is what it has open: else a cap would bind forever, or never.
fn accounts_agree_with_requests(farm: &Farm) -> Result<(), String> {
    let mut waiting: BTreeMap<PeerKey, Open> = BTreeMap::new();
    for asked in farm.requests.values() {
        if let Fate::Waiting(job) = asked.fate
            && let Some(job) = farm.jobs.get(job)
        {
            let account = waiting.entry(asked.requester).or_default();
            account.0 += 1;
            *account.2.entry(farm.queue.lot_need(job.lot)).or_default() += 1;
        }
    }
    for (_, job) in farm.jobs.iter().filter(|(_, job)| job.effort == Effort::Queued) {
        let owner = job.requests.first().and_then(|oldest| farm.requests.get(oldest));
        if let Some(owner) = owner {
            waiting.entry(owner.requester).or_default().1[class_at(job.class)] += 1;
        }
    }
    let accounts: BTreeMap<_, _> = farm.accounts.open_by_requester().collect();
    ensure(accounts == waiting, || format!("accounts {accounts:?}, expected {waiting:?}"))
}

/// A lot lives as long as a job names it: neither leaks nor dangles.
fn lots_live_as_long_as_their_jobs(farm: &Farm) -> Result<(), String> {
    let mut named = BTreeMap::new();
    for (_, job) in farm.jobs.iter() {
        *named.entry(job.lot).or_insert(0) += 1;
    }
    let lots: BTreeMap<_, _> = farm.queue.membership().collect();
    ensure(lots == named, || format!("lots {lots:?}, named {named:?}"))
}

/// What a peer can make grow has a bound.
fn memory_is_bounded(farm: &Farm) -> Result<(), String> {
    let within = |(id, job): (JobId, &Job)| {
        let Some(history) = &job.history else { return Ok(()) };
        let bounded = history.past.len() <= MAX_PAST_LEASES
            && history.exclusions.len() <= MAX_EXCLUSIONS
            && history.reports.len() <= MAX_REPORTS;
        ensure(bounded, || format!("{id} remembers too much"))
    };
    farm.jobs.iter().try_for_each(within)?;
    let needs = farm.accounts.open_by_requester().map(|(_, (_, _, needs))| needs.len()).max().unwrap_or(0);
    ensure(needs <= MAX_OPEN_REQUIREMENTS, || format!("{needs} requirements of one requester"))
}
