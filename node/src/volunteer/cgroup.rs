//! Control groups: one per attempt, with its limits, its counters and its end.
//!
//! Nothing is ever killed or removed but groups whose name says that we made them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};

use super::hierarchy::{Absent, Hierarchy};
use super::limits::Limits;

/// The first part of the name of every group we make. Nothing else is ever killed or removed.
const PREFIX: &str = "barnraise-";
/// The sandbox's own processes: the watcher outside, process 1 inside, and one more while it starts.
pub(super) const OWN_PROCESSES: u64 = 3;
const CPU_PERIOD_US: u64 = 100_000;
const REMOVAL_TIME: Duration = Duration::from_secs(10);

/// One attempt's group. Removed by [`Group::remove`]; dropped without it, removed if it is empty.
#[derive(Debug)]
pub(super) struct Group {
    folders: Folders,
}

#[derive(Debug)]
enum Folders {
    V1 { memory: PathBuf, pids: PathBuf, cpu: Option<PathBuf>, cpuacct: Option<PathBuf> },
    V2(PathBuf),
}

/// What a group has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Processes that the kernel killed for want of memory.
    pub(super) oom_kills: u64,
    /// Forks refused at the process limit.
    pub(super) refused_forks: u64,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) cpu: Option<Duration>,
}

impl Group {
    /// Makes the group and writes its limits.
    pub(super) fn create(hierarchy: &Hierarchy, name: &str, limits: &Limits) -> Result<Self, Absent> {
        let place = |base: &PathBuf| base.join(format!("{PREFIX}{}-{name}", std::process::id()));
        let folders = match hierarchy {
            Hierarchy::V1 { memory, pids, cpu, cpuacct } => Folders::V1 {
                memory: place(memory),
                pids: place(pids),
                cpu: cpu.as_ref().map(place),
                cpuacct: cpuacct.as_ref().map(place),
            },
            Hierarchy::V2 { base, .. } => Folders::V2(place(base)),
        };
        let group = Self { folders };
        for folder in group.folders() {
            match fs::create_dir(folder) {
                // Two controllers may be mounted as one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(|error| Absent::failed(folder, &error))?,
            }
        }
        group.limit(limits)?;
        Ok(group)
    }

    /// The folders of this group, so that what a crash leaves behind can be found again.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        let (first, rest) = match &self.folders {
            Folders::V1 { memory, pids, cpu, cpuacct } => (memory, [Some(pids), cpu.as_ref(), cpuacct.as_ref()]),
            Folders::V2(folder) => (folder, [None; 3]),
        };
        std::iter::once(first).chain(rest.into_iter().flatten()).map(PathBuf::as_path)
    }

    fn limit(&self, limits: &Limits) -> Result<(), Absent> {
        let write = |folder: &Path, file: &str, value: String| {
            let path = folder.join(file);
            fs::write(&path, value).map_err(|error| Absent::failed(&path, &error))
        };
        let write_if_offered = |folder: &Path, file: &str, value: String| {
            if folder.join(file).exists() { write(folder, file, value) } else { Ok(()) }
        };
        let memory_bytes = limits.memory_bytes.to_string();
        let processes = (u64::from(limits.processes) + OWN_PROCESSES).to_string();
        let quota_us = u64::from(limits.cores) * CPU_PERIOD_US;
        match &self.folders {
            Folders::V1 { memory, pids, cpu, .. } => {
                write(memory, "memory.limit_in_bytes", memory_bytes.clone())?;
                write_if_offered(memory, "memory.memsw.limit_in_bytes", memory_bytes)?;
                write(pids, "pids.max", processes)?;
                match cpu {
                    Some(cpu) => write_if_offered(cpu, "cpu.cfs_quota_us", quota_us.to_string()),
                    None => Ok(()),
                }
            }
            Folders::V2(folder) => {
                write(folder, "memory.max", memory_bytes)?;
                write_if_offered(folder, "memory.swap.max", "0".to_owned())?;
                write_if_offered(folder, "memory.oom.group", "1".to_owned())?;
                write(folder, "pids.max", processes)?;
                write_if_offered(folder, "cpu.max", format!("{quota_us} {CPU_PERIOD_US}"))
            }
        }
    }

    /// Files into which a process writes `0` to join.
    pub(super) fn entrances(&self) -> io::Result<Vec<OwnedFd>> {
        let file = match self.folders {
            // A single thread joins without the kernel waiting for all processors (6 ms here), and a fresh fork is a single thread.
            Folders::V1 { .. } => "tasks",
            Folders::V2(_) => "cgroup.procs",
        };
        let open = |folder: &Path| {
            let entrance = rustix::fs::open(folder.join(file), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(entrance)
        };
        self.folders().map(open).collect()
    }

    /// Takes the processor quota away: a throttled process is slow to die.
    pub(super) fn lift_quota(&self) {
        let (path, unlimited) = match &self.folders {
            Folders::V1 { cpu: Some(cpu), .. } => (cpu.join("cpu.cfs_quota_us"), "-1"),
            Folders::V1 { cpu: None, .. } => return,
            Folders::V2(folder) => (folder.join("cpu.max"), "max"),
        };
        if let Err(error) = fs::write(&path, unlimited) {
            tracing::debug!(path = %path.display(), %error, "the processor quota stays");
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        match &self.folders {
            Folders::V1 { memory, pids, cpuacct, .. } => Counters {
                oom_kills: field(&read(memory, "memory.oom_control"), "oom_kill"),
                refused_forks: field(&read(pids, "pids.events"), "max"),
                peak_memory_bytes: read(memory, "memory.max_usage_in_bytes").trim().parse().ok(),
                cpu: cpuacct
                    .as_ref()
                    .and_then(|it| read(it, "cpuacct.usage").trim().parse().ok())
                    .map(Duration::from_nanos),
            },
            Folders::V2(folder) => Counters {
                oom_kills: field(&read(folder, "memory.events"), "oom_kill"),
                refused_forks: field(&read(folder, "pids.events"), "max"),
                peak_memory_bytes: read(folder, "memory.peak").trim().parse().ok(),
                cpu: Some(Duration::from_micros(field(&read(folder, "cpu.stat"), "usage_usec"))),
            },
        }
    }

    /// Whether no process is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.folders().all(|folder| members(folder).is_empty())
    }

    /// Kills whatever is in it, again and again until nothing is or `deadline` has passed.
    pub(super) fn kill_all(&self, deadline: Instant) {
        for folder in self.folders() {
            kill_members(folder, deadline);
        }
    }

    /// Kills what is left and removes the group.
    pub(super) fn remove(self) -> Result<(), Absent> {
        let deadline = Instant::now() + REMOVAL_TIME;
        let folders: Vec<PathBuf> = self.folders().map(Path::to_owned).collect();
        folders.iter().try_for_each(|folder| remove_folder(folder, deadline))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in self.folders() {
            // Already gone after `remove`; still in use, it is named in the workspace and swept at the next start.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Kills and removes the group at `folder` that an earlier run left behind. Refuses any folder that we cannot have made.
pub(super) fn sweep(folder: &Path) -> Result<(), Absent> {
    let ours = folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    if !ours || !folder.join("cgroup.procs").exists() {
        return Ok(());
    }
    remove_folder(folder, Instant::now() + REMOVAL_TIME)
}

fn remove_folder(folder: &Path, deadline: Instant) -> Result<(), Absent> {
    loop {
        kill_members(folder, deadline);
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A dead process stays a member until its parent has looked at it.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            removed => return removed.map_err(|error| Absent::failed(folder, &error)),
        }
    }
}

fn kill_members(folder: &Path, deadline: Instant) {
    // Version 2 kills a whole group at once; elsewhere there is no such file.
    let kill = folder.join("cgroup.kill");
    if kill.exists() && !members(folder).is_empty() {
        let _ = fs::write(kill, "1");
    }
    loop {
        let left = members(folder);
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        for pid in left {
            // Gone in the meantime is what we want.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn members(folder: &Path) -> Vec<Pid> {
    let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

/// The number after `name` in lines of `name number`; 0 when it is not there.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
