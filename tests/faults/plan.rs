//! What a seed draws: a farm, and for each of its rounds who asks for what and what goes wrong. Nothing here touches a machine.

use crate::disk::Medium;
use node::chance::Chance;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Rounds that share a farm.
pub(crate) const ROUNDS_OF_A_FARM: u64 = 10;
/// People who may ask, each with a home.
pub(crate) const ASKERS: usize = 3;
/// How long a volunteer may be silent before its lease is lost.
const SILENCE_MS: u64 = 15_000;
/// After a build, its report, second copy, verdict, mail and delivery follow; faults strike then too.
const AFTERMATH_MS: u64 = 3_000;

/// Clocks that are wrong, by so many seconds: a little, beyond what peers may differ, by the hour, beyond what a coordinator
/// believes at its start.
const SHIFTS_S: [i64; 7] = [-86_400, -3_600, -30, 30, 400, 3_600, 2 * 86_400];

/// A farm and all its rounds.
#[derive(Clone, Debug)]
pub(crate) struct Season {
    seed: u64,
    /// How many volunteers it has.
    pub(crate) volunteers: usize,
    /// What its homes lie on.
    pub(crate) medium: Medium,
    /// How it mails.
    pub(crate) mail: MailBy,
    /// The daemon whose clock can be changed.
    pub(crate) shifted: Who,
}

/// How a farm mails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MailBy {
    /// Into a folder of the coordinator's home.
    Folder,
    /// Through a mail server.
    Smtp,
}

/// Somebody who can be struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Coordinator,
    Volunteer(usize),
    Asker(usize),
}

/// One round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Which round of its farm.
    pub(crate) round: u64,
    /// What is asked for.
    pub(crate) builds: Vec<Build>,
    /// Who asks for it, each person once.
    pub(crate) wishes: Vec<Wish>,
    /// What goes wrong, each victim once.
    pub(crate) strikes: Vec<Strike>,
}

/// Something to build, new to its farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Build {
    /// How long it takes at least.
    pub(crate) lasts: Duration,
    /// Lines of what is made.
    pub(crate) lines: u64,
    /// Bytes of the source, for a recipe that has one.
    pub(crate) source_bytes: Option<u64>,
}

/// Somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) asker: usize,
    /// Which of the builds.
    pub(crate) build: usize,
    pub(crate) at: Duration,
    pub(crate) manner: Manner,
    pub(crate) mail: Mailed,
    /// How many volunteers must have built the same.
    pub(crate) agree: u64,
}

/// What a command does when the farm holds the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Waits,
    Detaches,
}

/// Whether a wish gives a mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mailed {
    Yes,
    No,
}

/// Something goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) at: Duration,
    pub(crate) whom: Who,
    pub(crate) fault: Fault,
    /// How long until it is mended: started again, continued, freed, set right.
    pub(crate) lasts: Duration,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It is killed, as by a power cut.
    Kill,
    /// It stands still, and goes on later.
    Halt,
    /// Its disk is full.
    FullDisk,
    /// Its clock jumps by so many seconds.
    Shift(i64),
    /// It is killed and started at once with a clock that is so many seconds wrong.
    WakeAt(i64),
}

impl Season {
    /// The farm of this seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let chance = Chance::seeded(seed);
        let volunteers = 2 + index(&chance, 2);
        let medium = pick(&chance, &[Medium::Memory, Medium::Image]);
        let mail = pick(&chance, &[MailBy::Folder, MailBy::Folder, MailBy::Smtp]);
        let shifted = pick(&chance, &[Who::Coordinator, Who::Volunteer(0)]);
        Self { seed, volunteers, medium, mail, shifted }
    }

    /// One of its rounds.
    pub(crate) fn weather(&self, round: u64) -> Weather {
        let chance = Chance::seeded(self.seed.wrapping_mul(1_000_003).wrapping_add(round + 1));
        let builds: Vec<Build> = (0..1 + index(&chance, 2)).map(|_| Build::draw(&chance)).collect();
        let mut askers: Vec<usize> = (0..ASKERS).collect();
        let wishes: Vec<Wish> = (0..1 + index(&chance, ASKERS))
            .map(|_| Wish {
                asker: askers.swap_remove(index(&chance, askers.len())),
                build: index(&chance, builds.len()),
                // Some at the very same time, some a little later.
                at: millis(chance.below(2) * chance.below(1_500)),
                manner: pick(&chance, &[Manner::Waits, Manner::Waits, Manner::Detaches]),
                mail: pick(&chance, &[Mailed::Yes, Mailed::Yes, Mailed::No]),
                agree: pick(&chance, &[1, 1, 1, 2]),
            })
            .collect();
        let longest = builds.iter().map(|build| build.lasts).max().unwrap_or_default();
        let span = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) + AFTERMATH_MS;
        let mut victims: Vec<Who> =
            [Who::Coordinator].into_iter().chain((0..self.volunteers).map(Who::Volunteer)).collect();
        victims.extend(wishes.iter().map(|wish| Who::Asker(wish.asker)));
        let strikes = (0..1 + index(&chance, 3))
            .map(|_| {
                let whom = victims.swap_remove(index(&chance, victims.len()));
                let fault = self.fault(&chance, whom);
                Strike { at: millis(chance.below(span)), whom, fault, lasts: fault.draw_length(&chance) }
            })
            .collect();
        Weather { round, builds, wishes, strikes }
    }

    fn fault(&self, chance: &Chance, whom: Who) -> Fault {
        let shift = pick(chance, &SHIFTS_S);
        let has_clock = whom == self.shifted || matches!(whom, Who::Asker(_));
        match chance.below(10) {
            0..=3 => Fault::Kill,
            4 | 5 => Fault::Halt,
            6 | 7 => Fault::FullDisk,
            8 if has_clock => Fault::Shift(shift),
            _ if has_clock && !matches!(whom, Who::Asker(_)) => Fault::WakeAt(shift),
            _ => Fault::Kill,
        }
    }
}

impl Build {
    fn draw(chance: &Chance) -> Self {
        let lasts = millis(200 + chance.below(2_500));
        let lines = pick(chance, &[1, 1_000, 60_000, 120_000]);
        let source_bytes = pick(chance, &[None, Some(1_000), Some(3 << 20)]);
        Self { lasts, lines, source_bytes }
    }
}

impl Fault {
    fn draw_length(self, chance: &Chance) -> Duration {
        let short = 100 + chance.below(4_000);
        match self {
            // Some stand still for longer than a lease lives without a word.
            Self::Halt if chance.below(4) == 0 => millis(SILENCE_MS + 1_000 + chance.below(4_000)),
            _ => millis(short),
        }
    }

    /// Its name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Halt => "SIGSTOP",
            Self::FullDisk => "full disk",
            Self::Shift(_) => "clock jump",
            Self::WakeAt(_) => "restart with a wrong clock",
        }
    }
}

impl Who {
    /// Its part in figures.
    pub(crate) fn part(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Volunteer(_) => "volunteer",
            Self::Asker(_) => "requester",
        }
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("the coordinator"),
            Self::Volunteer(nr) => write!(f, "volunteer {nr}"),
            Self::Asker(nr) => write!(f, "requester {nr}"),
        }
    }
}

impl Display for Strike {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { at, whom, fault, lasts } = self;
        write!(f, "{} of {whom} at {at:?} for {lasts:?}", fault.name())?;
        match fault {
            Fault::Shift(by_s) | Fault::WakeAt(by_s) => write!(f, " by {by_s} s"),
            Fault::Kill | Fault::Halt | Fault::FullDisk => Ok(()),
        }
    }
}

impl Display for Weather {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ask for {}", self.wishes.len(), self.builds.len())?;
        self.strikes.iter().try_for_each(|strike| write!(f, "; {strike}"))
    }
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn index(chance: &Chance, len: usize) -> usize {
    usize::try_from(chance.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
}

fn pick<T: Copy>(chance: &Chance, from: &[T]) -> T {
    from[index(chance, from.len())]
}

#[test]
fn a_seed_draws_the_same_again_and_seeds_draw_everything() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..30 {
        let season = Season::draw(seed);
        for round in 0..ROUNDS_OF_A_FARM {
            let weather = season.weather(round);
            assert_eq!(Season::draw(seed).weather(round), weather);
            let mut victims: Vec<Who> = weather.strikes.iter().map(|strike| strike.whom).collect();
            victims.sort_unstable();
            victims.dedup();
            assert_eq!(victims.len(), weather.strikes.len(), "each victim once");
            seen.extend(weather.strikes.iter().map(|strike| (strike.fault.name(), strike.whom.part())));
        }
    }
    // Three parts by five faults; a requester is a command, and is not started again with another clock.
    assert_eq!(seen.len(), 14, "{seen:?}");
}
