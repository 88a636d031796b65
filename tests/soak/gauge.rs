//! Measuring every daemon now and then: the process, its home, its database.

use crate::company::Company;
use crate::farm::{Farm, Process};
use crate::flat::{Ended, Measured, Point, What};
use crate::machine::{count, files};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Everything measured so far.
#[derive(Debug)]
pub(crate) struct Gauge {
    coordinator: Daemon,
    every: Duration,
    next: Duration,
    points: BTreeMap<(String, What), Vec<Point>>,
}

/// A daemon that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) who: String,
    pub(crate) pid: u32,
    pub(crate) home: PathBuf,
}

impl Gauge {
    pub(crate) fn new(coordinator: &Process, farm: &Farm, every: Duration) -> Self {
        let coordinator =
            Daemon { who: "coordinator".to_owned(), pid: coordinator.pid(), home: farm.folder().join("coordinator") };
        Self { coordinator, every, next: every, points: BTreeMap::new() }
    }

    /// Measures, if it is time to.
    pub(crate) fn look(&mut self, at: Duration, company: &Company, ended: Ended) {
        if at < self.next {
            return;
        }
        self.next += self.every;
        for daemon in std::iter::once(self.coordinator.clone()).chain(company.daemons()) {
            for (what, value) in measure(&daemon) {
                let point = Point { at, ended, value };
                self.points.entry((daemon.who.clone(), what)).or_default().push(point);
            }
        }
    }

    /// What was measured of whom.
    pub(crate) fn measured(self) -> Vec<Measured> {
        let rows = self.points.into_iter();
        rows.map(|((who, what), points)| Measured { who, what, points }).collect()
    }
}

/// Everything that can be told of a daemon now; nothing when it has just ended.
fn measure(daemon: &Daemon) -> Vec<(What, u64)> {
    let proc = Path::new("/proc").join(daemon.pid.to_string());
    let (Ok(status), Ok(open)) = (fs::read_to_string(proc.join("status")), fs::read_dir(proc.join("fd"))) else {
        return Vec::new();
    };
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (Some(memory_kib), Some(threads)) = (field("VmRSS:"), field("Threads:")) else { return Vec::new() };
    let files = files(&daemon.home);
    let bytes_in = |name: &str| {
        let folder = daemon.home.join(name);
        files.iter().filter(|(path, _)| path.starts_with(&folder)).map(|(_, bytes)| bytes).sum::<u64>()
    };
    vec![
        (What::Memory, memory_kib << 10),
        (What::Descriptors, open.count() as u64),
        (What::Threads, threads),
        (What::Files, count(&daemon.home)),
        (What::Database, bytes_in("index")),
        (What::Log, bytes_in("raft")),
        (What::Store, bytes_in("store")),
    ]
}

#[test]
fn a_process_and_its_home_are_measured() {
    let home = tempfile::tempdir().unwrap();
    for (name, bytes) in
        [("index/db", 10), ("index/blobs/1", 1), ("raft/log/1", 20), ("store/aa/bb/c", 30), ("lock", 0)]
    {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; bytes]).unwrap();
    }
    let daemon = Daemon { who: "me".to_owned(), pid: std::process::id(), home: home.path().to_owned() };
    let measured: BTreeMap<What, u64> = measure(&daemon).into_iter().collect();
    assert!(measured[&What::Memory] > 1 << 20 && measured[&What::Descriptors] > 2 && measured[&What::Threads] > 0);
    let home = [What::Files, What::Database, What::Log, What::Store].map(|what| measured[&what]);
    assert_eq!(home, [12, 11, 20, 30], "five files in seven folders");
}
