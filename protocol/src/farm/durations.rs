//! How long builds took here, and what that says of one that waits or runs.
//!
//! Only what this farm has seen itself counts: from grant to report, the last [`MAX_PAST`] of each recipe. What comes of it is
//! a range and the number of builds behind it, never one number, and nothing at all where there is no past build.

use crate::farm::Farm;
use crate::farm::asked::Fate;
use crate::farm::explain::{MAX_AHEAD, Presence, Sighting, Sightings};
use crate::farm::job::{Effort, Job};
use crate::farm::queue::LotId;
use crate::id::{JobId, RecipeId, RequestId};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most recipes whose past builds are remembered; the one built longest ago makes room.
pub const MAX_RECIPES: usize = 256;
/// The most past builds of a recipe that are remembered.
pub const MAX_PAST: usize = 8;

/// How long something will take, judging by past builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Estimate {
    /// No build of the recipe, or of one that comes before it, has been seen here.
    NothingToJudgeBy,
    /// It will be built in about this time from now.
    Within {
        /// At the soonest.
        soonest: Span,
        /// At the latest.
        latest: Span,
        /// So many past builds of its recipe say so.
        builds: u32,
    },
    /// It has taken longer than any past build of its recipe.
    Longer {
        /// The longest of them.
        longest: Span,
        /// How many they are.
        builds: u32,
    },
}

/// What past builds took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Took {
    shortest: Duration,
    longest: Duration,
    builds: u32,
}

/// Past builds by recipe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Durations(BTreeMap<RecipeId, Past>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Past {
    /// Oldest first.
    took: Vec<Span>,
    last: Timestamp,
}

impl Durations {
    /// A build of this recipe took so long.
    pub(super) fn note(&mut self, recipe: RecipeId, took: Duration, now: Timestamp) {
        if self.0.len() >= MAX_RECIPES && !self.0.contains_key(&recipe) {
            let oldest = self.0.iter().min_by_key(|(_, past)| past.last).map(|(recipe, _)| *recipe);
            oldest.map(|recipe| self.0.remove(&recipe));
        }
        let past = self.0.entry(recipe).or_insert(Past { took: Vec::new(), last: now });
        if past.took.len() >= MAX_PAST {
            past.took.remove(0);
        }
        past.took.push(took.into());
        past.last = now;
    }

    fn of(&self, recipe: RecipeId) -> Option<Took> {
        let took = &self.0.get(&recipe)?.took;
        let builds = u32::try_from(took.len()).unwrap_or(u32::MAX);
        Some(Took { shortest: took.iter().min()?.duration(), longest: took.iter().max()?.duration(), builds })
    }
}

impl Farm {
    /// When a request will be built, judging by past builds; `None` where that is no question: it has ended, waits for its
    /// source or a second holder, or nobody is here who could build it.
    #[must_use]
    pub fn estimate(&self, request: RequestId, seen: &Sightings, now: Timestamp) -> Option<Estimate> {
        let Fate::Waiting(id) = self.requests.get(&request)?.fate else { return None };
        let job = self.jobs.get(id)?;
        match job.effort {
            Effort::AwaitingSource(_) | Effort::Idle => None,
            Effort::Leased(lease) => {
                let since = now.since(self.leases.get(lease)?.granted_at);
                Some(match self.took(job.lot) {
                    None => Estimate::NothingToJudgeBy,
                    Some(took) if since > took.longest => {
                        Estimate::Longer { longest: up(took.longest), builds: took.builds }
                    }
                    Some(took) => Estimate::Within {
                        soonest: down(took.shortest.saturating_sub(since)),
                        latest: up(took.longest.saturating_sub(since)),
                        builds: took.builds,
                    },
                })
            }
            Effort::Queued => self.estimate_queued(id, job, seen, now),
        }
    }

    fn took(&self, lot: LotId) -> Option<Took> {
        self.durations.of(self.queue.recipe(lot).0)
    }

    fn estimate_queued(&self, id: JobId, job: &Job, seen: &Sightings, now: Timestamp) -> Option<Estimate> {
        let (recipe, standing) = self.queue.recipe(job.lot);
        let requirement = self.queue.requirement(job.lot);
        let able = |sighting: &&Sighting| {
            let Sighting { volunteer, capability, presence } = sighting;
            *presence != Presence::Gone
                && requirement.met_by(capability)
                && capability.accepts.admits(&recipe, standing)
                && !job.excludes(volunteer, || capability.id())
        };
        let able: Vec<&Sighting> = seen.iter().filter(able).collect();
        let slots: u32 = able.iter().map(|sighting| u32::from(sighting.capability.slots)).sum();
        if slots == 0 {
            return None;
        }
        let Some(own) = self.took(job.lot) else { return Some(Estimate::NothingToJudgeBy) };
        let (mut soonest, mut latest, mut last) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut add = |least: Duration, most: Duration| {
            (soonest, latest, last) = (soonest + least, latest + most, last.max(most));
        };
        let mut busy = 0;
        for lease in able.iter().flat_map(|sighting| self.leases.of(sighting.volunteer)) {
            let since = now.since(lease.granted_at);
            let Some(took) = self.jobs.get(lease.job).and_then(|job| self.took(job.lot)) else {
                return Some(Estimate::NothingToJudgeBy);
            };
            busy += 1;
            add(took.shortest.saturating_sub(since), took.longest.saturating_sub(since));
        }
        // Only what the same volunteers could build comes before it.
        let mut lots: BTreeMap<LotId, Option<Option<Took>>> = BTreeMap::new();
        let own_rank = job.rank(id);
        let mut ahead = 0;
        for rank in self.queue.in_order().take_while(|rank| *rank < own_rank).take(MAX_AHEAD as usize) {
            let Some(lot) = self.jobs.get(rank.job).map(|job| job.lot) else { continue };
            let competes = lots.entry(lot).or_insert_with(|| {
                let requirement = self.queue.requirement(lot);
                able.iter().any(|sighting| requirement.met_by(&sighting.capability)).then(|| self.took(lot))
            });
            match competes {
                None => {}
                Some(None) => return Some(Estimate::NothingToJudgeBy),
                Some(Some(took)) => {
                    ahead += 1;
                    add(took.shortest, took.longest);
                }
            }
        }
        let starts_now = ahead + busy < slots;
        let wait = |sum: Duration, spare: Duration| if starts_now { Duration::ZERO } else { sum / slots + spare };
        Some(Estimate::Within {
            soonest: down(wait(soonest, Duration::ZERO) + own.shortest),
            latest: up(wait(latest, last) + own.longest),
            builds: own.builds,
        })
    }
}

/// How exactly a length of time is told: nobody knows better, and what is told does not change all the time.
fn grain(duration: Duration) -> u64 {
    match duration.as_secs() {
        0..60 => 10,
        60..3_600 => 60,
        _ => 900,
    }
}

fn down(duration: Duration) -> Span {
    let grain = grain(duration);
    Span::from_secs(duration.as_secs() / grain * grain)
}

fn up(duration: Duration) -> Span {
    let grain = grain(duration);
    Span::from_secs((duration.as_secs() + 1).div_ceil(grain) * grain)
}
