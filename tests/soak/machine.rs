//! What of this machine belongs to a run: its processes, by words of their command lines, and the files of its homes.

use crate::deadline::SOON;
use crate::farm::Farm;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What a home may hold when its daemon has ended in order, beside folders that hold nothing.
const KEPT_FILES: [&str; 10] =
    ["begun", "charter", "farm.key", "listen", "lock", "node.key", "peers", "requester.key", "ticket", "version"];
/// Folders of a home that are a daemon's to fill, and are measured while it runs.
const KEPT_FOLDERS: [&str; 5] = ["index", "raft/log", "raft/snapshots", "store/notes", "store/quarantine"];

/// One run of the driver.
#[derive(Debug)]
pub(crate) struct Run {
    word: String,
    folder: PathBuf,
}

impl Run {
    pub(crate) fn new(farm: &Farm) -> Self {
        Self { word: format!("soak-{}", std::process::id()), folder: farm.folder().to_owned() }
    }

    /// The word by which every build of this run is found.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// What is still there although everything has ended: processes, and files that no home keeps.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let until = Instant::now() + SOON;
        let mut processes = self.processes();
        while !processes.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
            processes = self.processes();
        }
        let temporary = files(&self.folder.join("tmp")).into_iter().map(|(path, _)| path);
        let files = folders(&self.folder).flat_map(|home| stray(&home)).chain(temporary);
        let processes = processes.into_iter().map(|line| format!("still runs: {line}"));
        processes.chain(files.map(|path| format!("left behind: {}", path.display()))).collect()
    }

    /// The command lines of processes that name this run or its folder.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.to_str().unwrap();
        // A process that has ended meanwhile has no words; nor has a thread of the kernel.
        let lines = entries(Path::new("/proc")).into_iter().filter_map(|pid| fs::read(pid.join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&self.word) || line.contains(folder)).collect()
    }
}

/// The homes of a run.
fn folders(run: &Path) -> impl Iterator<Item = PathBuf> {
    entries(run).into_iter().filter(|path| path.join("ticket").exists() || path.join("lock").exists())
}

/// Files of a home that should not be there any more.
fn stray(home: &Path) -> Vec<PathBuf> {
    let kept = |path: &Path| {
        let inside = path.strip_prefix(home).unwrap();
        KEPT_FILES.iter().any(|name| inside == Path::new(name))
            || KEPT_FOLDERS.iter().any(|folder| inside.starts_with(folder))
            || is_blob(inside)
    };
    files(home).into_iter().map(|(path, _)| path).filter(|path| !kept(path)).collect()
}

/// Whether it is `store/aa/bb/DIGEST`.
fn is_blob(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap_or_default()).collect();
    matches!(parts[..], ["store", first, second, digest]
        if digest.len() == 64 && digest.starts_with(first) && digest[2..].starts_with(second))
}

/// How many files and folders there are below `folder`.
pub(crate) fn count(folder: &Path) -> u64 {
    let (mut count, mut open) = (0, vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let inside = entries(&folder);
        count += inside.len() as u64;
        open.extend(inside.into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
    }
    count
}

/// Every file below `folder`, with its length in bytes. What goes while it is looked at is not counted.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for path in entries(&folder) {
            match fs::symlink_metadata(&path) {
                Ok(seen) if seen.is_dir() => open.push(path),
                Ok(seen) => found.push((path, seen.len())),
                Err(_) => {}
            }
        }
    }
    found
}

/// What lies in a folder; nothing when it is gone.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[test]
fn what_no_home_keeps_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let digest = "ab".repeat(32);
    let blob = format!("store/ab/ab/{digest}");
    let known = ["ticket", "index/db", "raft/log/0001", &blob];
    let strange =
        ["work/attempt-1/build/made", ".ticket.0123", "daemon.addr", "store/incoming/1", "index.damaged-7/db"];
    for name in known.iter().chain(&strange) {
        let path = home.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    let mut named = stray(&home);
    named.sort();
    let mut expected: Vec<PathBuf> = strange.iter().map(|name| home.join(name)).collect();
    expected.sort();
    assert_eq!(named, expected);
    assert!(folders(folder.path()).eq([home.clone()]));
    assert_eq!(files(&home).len(), known.len() + strange.len());
    let folders =
        ["index", "raft", "raft/log", "store", "store/ab", "store/ab/ab", "store/incoming", "index.damaged-7"];
    let work = ["work", "work/attempt-1", "work/attempt-1/build"];
    assert_eq!(count(&home), (known.len() + strange.len() + folders.len() + work.len()) as u64);
}
