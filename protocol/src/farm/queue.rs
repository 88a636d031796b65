//! Queued jobs, ordered so that a claim costs the number of distinct requirements and not the length of the queue.
//!
//! ```text
//! Queue ── Need (one requirement) ── Lot (one recipe, one standing) ── plain jobs by rank
//!                                                                   └─ picky jobs by rank
//! ```
//!
//! Needs are ordered by the rank of their first job, lots inside a need likewise. A claim walks needs in that order and
//! stops as soon as what it found comes before everything not yet looked at. A job is *picky* when it may not go to just
//! anybody who is capable: somebody is excluded, or a fingerprint is required. Picky jobs are looked at one by one, at most
//! [`MAX_PICKY_SCANS`] a claim.

use crate::farm::scheduler::Claimant;
use crate::id::{JobId, RecipeId, RequirementId};
use crate::platform::{Acceptance, Requirement, Standing};
use crate::request::Priority;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// The most picky jobs that one claim looks at.
pub const MAX_PICKY_SCANS: usize = 64;

/// A job's place: class first, then fairness, then age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Rank {
    pub(super) class: Priority,
    pub(super) tag: u64,
    pub(super) job: JobId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct NeedId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct LotId(u32);

/// Who a queued job may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Anybody who is capable.
    Plain,
    /// Not everybody.
    Picky,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Need {
    requirement: Requirement,
    lots: BTreeMap<(RecipeId, Standing), LotId>,
    /// The first job of each lot that has one, by standing.
    #[serde(skip)]
    heads: BTreeSet<(Standing, Rank, LotId)>,
}

impl Need {
    fn first_of(&self, standing: Standing) -> Option<Rank> {
        let rank = |class, tag, job| Rank { class, tag, job: JobId(job) };
        let from = (standing, rank(Priority::Urgent, 0, 0), LotId(0));
        let to = (standing, rank(Priority::Batch, u64::MAX, u64::MAX), LotId(u32::MAX));
        self.heads.range(from..=to).next().map(|(_, rank, _)| *rank)
    }

    fn first(&self) -> Option<Rank> {
        [Standing::Member, Standing::Guest].into_iter().filter_map(|standing| self.first_of(standing)).min()
    }
}

/// Jobs of equal requirement, recipe and standing: whoever may build one may build all of them, picky ones aside.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lot {
    need: NeedId,
    recipe: RecipeId,
    standing: Standing,
    /// Living jobs that name this lot, queued or not.
    jobs: u32,
    #[serde(skip)]
    plain: BTreeSet<Rank>,
    #[serde(skip)]
    picky: BTreeSet<Rank>,
}

impl Lot {
    fn first(&self) -> Option<Rank> {
        match (self.plain.first(), self.picky.first()) {
            (Some(plain), Some(picky)) => Some(*plain.min(picky)),
            (first, None) | (None, first) => first.copied(),
        }
    }
}

/// Every lot of living jobs, and the order of those that are queued.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    needs: BTreeMap<NeedId, Need>,
    lots: BTreeMap<LotId, Lot>,
    next: u32,
    #[serde(skip)]
    known: BTreeMap<RequirementId, NeedId>,
    #[serde(skip)]
    heads: BTreeSet<(Rank, NeedId)>,
    #[serde(skip)]
    len: u64,
}

impl Queue {
    /// Jobs that are queued.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn need(&self, requirement: &RequirementId) -> Option<NeedId> {
        self.known.get(requirement).copied()
    }

    /// The lot for such jobs, with one more job in it.
    pub(super) fn join(
        &mut self,
        requirement: Requirement,
        id: RequirementId,
        recipe: RecipeId,
        standing: Standing,
    ) -> LotId {
        let need = *self.known.entry(id).or_insert_with(|| {
            let need = NeedId(self.next);
            self.next += 1;
            self.needs.insert(need, Need { requirement, lots: BTreeMap::new(), heads: BTreeSet::new() });
            need
        });
        self.join_need(need, recipe, standing)
    }

    /// The lot beside `lot` for the other standing, with one more job in it.
    pub(super) fn join_beside(&mut self, lot: LotId, standing: Standing) -> LotId {
        let Lot { need, recipe, .. } = self.lots[&lot];
        self.join_need(need, recipe, standing)
    }

    fn join_need(&mut self, need: NeedId, recipe: RecipeId, standing: Standing) -> LotId {
        let next = &mut self.next;
        let lots = &mut self.lots;
        let Some(known) = self.needs.get_mut(&need) else { unreachable!("a need lives as long as its lots") };
        let lot = *known.lots.entry((recipe, standing)).or_insert_with(|| {
            let lot = LotId(*next);
            *next += 1;
            lots.insert(lot, Lot { need, recipe, standing, jobs: 0, plain: BTreeSet::new(), picky: BTreeSet::new() });
            lot
        });
        if let Some(lot) = self.lots.get_mut(&lot) {
            lot.jobs += 1;
        }
        lot
    }

    /// One job less in this lot; the last one takes the lot, and perhaps its need, with it.
    pub(super) fn leave(&mut self, id: LotId) {
        let Some(lot) = self.lots.get_mut(&id) else { return };
        lot.jobs -= 1;
        if lot.jobs > 0 {
            return;
        }
        let (need_id, place) = (lot.need, (lot.recipe, lot.standing));
        self.lots.remove(&id);
        if let Some(need) = self.needs.get_mut(&need_id) {
            need.lots.remove(&place);
            if need.lots.is_empty() {
                self.known.remove(&need.requirement.id());
                self.needs.remove(&need_id);
            }
        }
    }

    pub(super) fn insert(&mut self, lot: LotId, rank: Rank, fit: Fit) {
        self.change(lot, |lot| match fit {
            Fit::Plain => lot.plain.insert(rank),
            Fit::Picky => lot.picky.insert(rank),
        });
        self.len += 1;
    }

    pub(super) fn remove(&mut self, lot: LotId, rank: Rank) {
        if self.change(lot, |lot| lot.plain.remove(&rank) || lot.picky.remove(&rank)) {
            self.len -= 1;
        }
    }

    fn change(&mut self, id: LotId, change: impl FnOnce(&mut Lot) -> bool) -> bool {
        let Some(lot) = self.lots.get_mut(&id) else { return false };
        let old = lot.first();
        let changed = change(lot);
        let new = lot.first();
        if old != new
            && let Some(need) = self.needs.get_mut(&lot.need)
        {
            let first = need.first();
            old.map(|rank| need.heads.remove(&(lot.standing, rank, id)));
            new.map(|rank| need.heads.insert((lot.standing, rank, id)));
            let now_first = need.first();
            if first != now_first {
                first.map(|rank| self.heads.remove(&(rank, lot.need)));
                now_first.map(|rank| self.heads.insert((rank, lot.need)));
            }
        }
        changed
    }

    pub(super) fn lot_need(&self, lot: LotId) -> NeedId {
        self.lots[&lot].need
    }

    pub(super) fn requirement(&self, lot: LotId) -> &Requirement {
        &self.needs[&self.lots[&lot].need].requirement
    }

    pub(super) fn recipe(&self, lot: LotId) -> (RecipeId, Standing) {
        let lot = &self.lots[&lot];
        (lot.recipe, lot.standing)
    }

    /// The first job in the queue that this claimant may have.
    pub(super) fn candidate(&self, claimant: &impl Claimant) -> Option<JobId> {
        let mut best: Option<Rank> = None;
        let mut scans = MAX_PICKY_SCANS;
        for (head, need) in &self.heads {
            if best.is_some_and(|best| best < *head) {
                break;
            }
            let need = &self.needs[need];
            if need.requirement.met_by(claimant.capability()) {
                best = self.best_of(need, claimant, &mut scans).into_iter().chain(best).min();
            }
        }
        best.map(|rank| rank.job)
    }

    fn best_of(&self, need: &Need, claimant: &impl Claimant, scans: &mut usize) -> Option<Rank> {
        let accepts = &claimant.capability().accepts;
        match accepts {
            Acceptance::Catalogue(shipped) | Acceptance::Members(shipped) if shipped.len() * 2 < need.lots.len() => {
                let member = matches!(accepts, Acceptance::Members(_)).then_some(Standing::Member);
                let any_of_members = member.and_then(|standing| {
                    let heads = need.heads.iter().filter(move |(of, ..)| *of == standing);
                    self.first_in(heads.map(|(_, rank, lot)| (*rank, *lot)), claimant, scans)
                });
                let mut heads: Vec<_> = shipped
                    .iter()
                    .flat_map(|recipe| [(*recipe, Standing::Member), (*recipe, Standing::Guest)])
                    .filter_map(|place| need.lots.get(&place))
                    .filter_map(|lot| Some((self.lots[lot].first()?, *lot)))
                    .collect();
                heads.sort_unstable();
                self.first_in(heads.into_iter(), claimant, scans).into_iter().chain(any_of_members).min()
            }
            _ => {
                let of = |standing| need.heads.iter().filter(move |(of, ..)| *of == standing);
                let admitted = |(_, rank, lot): &(Standing, Rank, LotId)| {
                    let lot_of = &self.lots[lot];
                    accepts.admits(&lot_of.recipe, lot_of.standing).then_some((*rank, *lot))
                };
                let member = self.first_in(of(Standing::Member).filter_map(admitted), claimant, scans);
                let guest = self.first_in(of(Standing::Guest).filter_map(admitted), claimant, scans);
                member.into_iter().chain(guest).min()
            }
        }
    }

    /// The first job in these lots, given with their first ranks in rising order.
    fn first_in(
        &self,
        lots: impl Iterator<Item = (Rank, LotId)>,
        claimant: &impl Claimant,
        scans: &mut usize,
    ) -> Option<Rank> {
        let mut best: Option<Rank> = None;
        for (head, lot) in lots {
            if best.is_some_and(|best| best < head) {
                break;
            }
            let lot = &self.lots[&lot];
            best = lot.plain.first().copied().into_iter().chain(best).min();
            for rank in &lot.picky {
                if *scans == 0 || best.is_some_and(|best| best < *rank) {
                    break;
                }
                *scans -= 1;
                if claimant.may_have(rank.job) {
                    best = Some(*rank);
                    break;
                }
            }
        }
        best
    }

    /// Queued jobs in order.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Rank> {
        let mut streams: Vec<_> = self.lots.values().flat_map(|lot| [lot.plain.iter(), lot.picky.iter()]).collect();
        let mut next: BinaryHeap<_> =
            streams.iter_mut().enumerate().filter_map(|(at, stream)| Some(Reverse((*stream.next()?, at)))).collect();
        std::iter::from_fn(move || {
            let Reverse((rank, at)) = next.pop()?;
            next.extend(streams[at].next().map(|rank| Reverse((*rank, at))));
            Some(rank)
        })
    }

    /// How many queued jobs come before `rank`, counted up to `bound`.
    pub(super) fn ahead(&self, rank: Rank, bound: u32) -> u32 {
        let mut count = 0;
        for (_, need) in self.heads.iter().take_while(|(head, _)| *head < rank) {
            for lot in self.needs[need].lots.values() {
                let lot = &self.lots[lot];
                let room = (bound - count) as usize;
                let before = lot.plain.range(..rank).chain(lot.picky.range(..rank)).take(room).count();
                count += u32::try_from(before).unwrap_or(bound);
                if count >= bound {
                    return bound;
                }
            }
        }
        count
    }

    /// Makes the indices that snapshots leave out; the queued jobs have to be inserted again.
    pub(super) fn reindex(&mut self) {
        self.known = self.needs.iter().map(|(id, need)| (need.requirement.id(), *id)).collect();
    }

    /// Where a job stands: the lots that list its rank, with the fit under which they do. For the invariants.
    pub(super) fn places(&self) -> impl Iterator<Item = (LotId, Rank, Fit)> {
        self.lots.iter().flat_map(|(id, lot)| {
            let plain = lot.plain.iter().map(|rank| (*id, *rank, Fit::Plain));
            plain.chain(lot.picky.iter().map(|rank| (*id, *rank, Fit::Picky)))
        })
    }

    /// Living jobs per lot. For the invariants.
    pub(super) fn membership(&self) -> impl Iterator<Item = (LotId, u32)> {
        self.lots.iter().map(|(id, lot)| (*id, lot.jobs))
    }

    /// Whether the derived order agrees with the lots. For the invariants.
    pub(super) fn heads_agree(&self) -> bool {
        let heads: BTreeSet<_> = self.needs.iter().filter_map(|(id, need)| Some((need.first()?, *id))).collect();
        let lots_agree = self.needs.values().all(|need| {
            let firsts: BTreeSet<_> = need
                .lots
                .iter()
                .filter_map(|((_, standing), lot)| Some((*standing, self.lots[lot].first()?, *lot)))
                .collect();
            firsts == need.heads
        });
        lots_agree && heads == self.heads && self.len == self.places().count() as u64
    }
}
