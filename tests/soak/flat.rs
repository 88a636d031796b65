//! What flat means: the median of the last quarter of a run against that of its second quarter.
//!
//! In the first quarter a farm fills: stores reach what their owners allow, caches get warm. From then on nothing may grow but
//! what is to be remembered: each finished request by the coordinator, for as long as it could be sent once more, a week; the
//! farm's log, until the next snapshot; who provides a build, for three hours; the log of a build that failed beside a full
//! store, for an hour. That is counted by the build ([`What::explained`]). Beside it each measure has room for its own unrest
//! ([`What::unrest`]). Of the peers that asked, each command a new one, nothing may stay.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

/// What is measured of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Resident bytes.
    Memory,
    /// Open files and sockets.
    Descriptors,
    Threads,
    /// Files and folders in its home.
    Files,
    /// Bytes of the database.
    Database,
    /// Bytes of the farm's log and snapshots.
    Log,
    /// Bytes of artifacts.
    Store,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Since the run began.
    pub(crate) at: Duration,
    /// What had ended by then.
    pub(crate) ended: Ended,
    pub(crate) value: u64,
}

/// How many builds have ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) built: u64,
    pub(crate) failed: u64,
}

/// One measure of one daemon over a run.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) who: String,
    pub(crate) what: What,
    /// In order of time.
    pub(crate) points: Vec<Point>,
}

impl What {
    const ALL: [Self; 7] =
        [Self::Memory, Self::Descriptors, Self::Threads, Self::Files, Self::Database, Self::Log, Self::Store];

    fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory KiB",
            Self::Descriptors => "descriptors",
            Self::Threads => "threads",
            Self::Files => "files and folders",
            Self::Database => "database KiB",
            Self::Log => "log KiB",
            Self::Store => "store KiB",
        }
    }

    fn shown(self, value: u64) -> u64 {
        match self {
            Self::Memory | Self::Database | Self::Log | Self::Store => value >> 10,
            Self::Descriptors | Self::Threads | Self::Files => value,
        }
    }

    /// How far two medians may lie apart although nothing grows.
    fn unrest(self) -> u64 {
        match self {
            // The allocator keeps what a moment needed in which much was done at once.
            Self::Memory => 4 << 20,
            Self::Descriptors => 8,
            // Threads that wait for a disk stay for some seconds.
            Self::Threads => 16,
            Self::Files => 100,
            // It grows by half a megabyte at a time, and fills what it has before it uses any of it again.
            Self::Database => 1 << 20,
            // What lies before a snapshot is given up with the next one, and a snapshot is due by the megabyte.
            Self::Log => 3 << 20,
            Self::Store => 1 << 20,
        }
    }

    /// How much of it builds that have ended may leave behind.
    fn explained(self, ended: Ended) -> u64 {
        match self {
            // A build comes with 1.7 requests by as many peers; for each a coordinator was seen to grow by 7.4 KiB. Some two of
            // them are what the farm remembers; the log's cache, which fills, and the allocator take the others.
            Self::Memory => ended.built * (8 << 10),
            // A log, in two folders of its own.
            Self::Files => ended.failed * 3,
            _ => 0,
        }
    }
}

impl Measured {
    /// The medians of the four quarters of the run, of the value and of what of it is explained.
    fn quarters(&self) -> Vec<(u64, u64)> {
        let Some(end) = self.points.last().map(|point| point.at) else { return Vec::new() };
        let quarter = |nr: u32| {
            let within = |point: &&Point| point.at > end * nr / 4 && point.at <= end * (nr + 1) / 4;
            let points: Vec<&Point> = self.points.iter().filter(within).collect();
            Some((
                median(points.iter().map(|point| point.value).collect())?,
                median(points.iter().map(|point| self.what.explained(point.ended)).collect())?,
            ))
        };
        (0..4).filter_map(quarter).collect()
    }

    /// A sentence, if it has grown.
    pub(crate) fn growth(&self) -> Option<String> {
        let quarters = self.quarters();
        let &[_, (second, explained_then), _, (last, explained)] = &quarters[..] else {
            return Some(format!("{}, {}: not measured in every quarter", self.who, self.what.title()));
        };
        let allowed = second + self.what.unrest() + explained - explained_then;
        (last > allowed).then(|| {
            let [second, last, allowed] = [second, last, allowed].map(|value| self.what.shown(value));
            format!(
                "{}, {}: {second} in the second quarter, {last} in the last; up to {allowed} are explained",
                self.who,
                self.what.title()
            )
        })
    }
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Every measure of everybody, quarter by quarter.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut text =
        format!("{:18} {:13} {:>9} {:>9} {:>9} {:>9}\n", "", "median of quarter", "1st", "2nd", "3rd", "4th");
    for who in measured.iter().map(|row| &row.who).collect::<BTreeSet<_>>() {
        for what in What::ALL {
            let Some(row) = measured.iter().find(|row| row.who == *who && row.what == what) else { continue };
            write!(text, "{who:18} {:17}", what.title()).unwrap();
            for (value, _) in row.quarters() {
                write!(text, " {:>9}", what.shown(value)).unwrap();
            }
            text.push_str(match row.growth() {
                Some(_) => "  grows\n",
                None => "\n",
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen points; ten builds and one that fails between two of them.
    fn measured(what: What, value: impl Fn(u64) -> u64) -> Measured {
        let point = |nr| Point { at: Duration::from_secs(nr), ended: ended(nr), value: value(nr) };
        Measured { who: "me".to_owned(), what, points: (1..=16).map(point).collect() }
    }

    const fn ended(nr: u64) -> Ended {
        Ended { built: 10 * nr, failed: nr }
    }

    #[test]
    fn what_fills_and_stays_is_flat_whatever_a_single_moment_is_like() {
        let filled = measured(What::Memory, |nr| match nr {
            0..4 => nr << 20,
            14 => 1 << 40,
            _ => 80 << 20,
        });
        assert_eq!(filled.growth(), None);
        assert_eq!(filled.quarters()[1], (80 << 20, 70 * (8 << 10)));
    }

    #[test]
    fn what_grows_by_more_than_its_unrest_is_named() {
        let leak = measured(What::Descriptors, |nr| 20 + nr);
        let said = "me, descriptors: 27 in the second quarter, 35 in the last; up to 35 are explained";
        assert_eq!(leak.growth(), None, "eight more are unrest");
        let leak = measured(What::Descriptors, |nr| 20 + 2 * nr);
        let said = said.replace("27", "34").replace("35 in", "50 in").replace("to 35", "to 42");
        assert_eq!(leak.growth(), Some(said));
    }

    #[test]
    fn what_every_build_leaves_is_allowed_and_no_more() {
        for what in [What::Memory, What::Files] {
            assert_eq!(measured(what, |nr| what.explained(ended(nr))).growth(), None);
            assert!(measured(what, |nr| 20 * what.explained(ended(nr))).growth().is_some());
        }
    }

    #[test]
    fn a_quarter_without_a_point_is_no_proof() {
        let mut late = measured(What::Files, |_| 7);
        late.points.retain(|point| point.at > Duration::from_secs(4));
        assert!(late.growth().unwrap().contains("not measured"));
        assert!(table(&[late]).contains("me"));
    }
}
