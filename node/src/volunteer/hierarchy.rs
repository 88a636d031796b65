//! Finding where control groups can be made, in version 1 or 2.
//!
//! Detection only reads and is a pure function over a directory, so every layout can be tested from a folder of plain files. A
//! group always lies below, or beside, the one we run in, so a limit that the owner put on us binds our builds too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// Where groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// Version 1: a folder for each controller, our own group in each of them.
    V1 {
        /// `memory`
        memory: PathBuf,
        /// `pids`
        pids: PathBuf,
        /// `cpu`, for the quota.
        cpu: Option<PathBuf>,
        /// `cpuacct`, for the time used.
        cpuacct: Option<PathBuf>,
    },
    /// Version 2.
    V2 {
        /// The folder in which job groups are made.
        base: PathBuf,
        /// Whether `base` must be made ready first.
        seat: Seat,
    },
}

/// Our own place in a version 2 hierarchy, whose inner groups may hold no processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// `base` already hands its controllers to the groups in it.
    Ready,
    /// `base` is our own group, delegated to us: we must first move into a leaf of it.
    OwnGroup,
}

/// Why no control group can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// Neither version is mounted.
    #[error("no control groups are mounted")]
    NotMounted,
    /// A controller that the limits need is not offered here.
    #[error("the {0} controller is not offered here")]
    ControllerMissing(&'static str),
    /// The groups exist but are not ours to write.
    #[error("{0} may not be written by this user")]
    NotWritable(PathBuf),
    /// Reading or making a group failed.
    #[error("{path}: {error}")]
    Failed {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
}

impl Absent {
    pub(super) fn failed(path: &Path, error: &io::Error) -> Self {
        Self::Failed { path: path.to_owned(), error: error.to_string() }
    }
}

/// Finds where job groups can be made, looking only at files below `root` (`/` on a real machine).
///
/// # Errors
/// [`Absent`] says what is missing; limits then fall to rlimits and polling.
pub(super) fn detect(root: &Path) -> Result<Hierarchy, Absent> {
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(|error| Absent::failed(&path, &error))
    };
    let mounts = parse_mounts(&read("proc/self/mountinfo")?);
    let own = read("proc/self/cgroup")?;
    let first_version = |controller: &'static str| -> Option<PathBuf> {
        let mount =
            mounts.iter().find(|mount| mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller))?;
        let group = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next()?.split(',').any(|name| name == controller).then(|| fields.next())?
        })?;
        Some(mount.folder_of(root, group))
    };
    match (first_version("memory"), first_version("pids")) {
        (Some(memory), Some(pids)) => {
            for folder in [&memory, &pids] {
                check_writable(folder)?;
            }
            let usable = |folder: PathBuf| check_writable(&folder).is_ok().then_some(folder);
            let cpu = first_version("cpu").and_then(usable);
            let cpuacct = first_version("cpuacct").and_then(usable);
            Ok(Hierarchy::V1 { memory, pids, cpu, cpuacct })
        }
        (Some(_), None) => Err(Absent::ControllerMissing("pids")),
        (None, _) => {
            let mount = mounts.iter().find(|mount| mount.kind == "cgroup2").ok_or(Absent::NotMounted)?;
            let group = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
            detect_second(&mount.folder_of(root, "/"), &mount.folder_of(root, group))
        }
    }
}

/// The nearest group at or above ours that hands its controllers down; else ours, if it was delegated.
fn detect_second(top: &Path, own: &Path) -> Result<Hierarchy, Absent> {
    let offers = |folder: &Path, file: &str, controller: &str| {
        fs::read_to_string(folder.join(file)).is_ok_and(|text| text.split_whitespace().any(|name| name == controller))
    };
    let mut handing_down = None;
    for folder in own.ancestors().take_while(|folder| folder.starts_with(top)) {
        if ["memory", "pids"].iter().all(|controller| offers(folder, "cgroup.subtree_control", controller)) {
            if check_writable(folder).is_ok() {
                return Ok(Hierarchy::V2 { base: folder.to_owned(), seat: Seat::Ready });
            }
            handing_down.get_or_insert_with(|| folder.to_owned());
        }
    }
    for controller in ["memory", "pids"] {
        if !offers(own, "cgroup.controllers", controller) {
            return Err(Absent::ControllerMissing(controller));
        }
    }
    match check_writable(own) {
        Ok(()) => Ok(Hierarchy::V2 { base: own.to_owned(), seat: Seat::OwnGroup }),
        Err(refusal) => Err(handing_down.map_or(refusal, Absent::NotWritable)),
    }
}

fn check_writable(folder: &Path) -> Result<(), Absent> {
    for path in [folder.to_owned(), folder.join("cgroup.procs")] {
        rustix::fs::access(&path, Access::WRITE_OK).map_err(|_| Absent::NotWritable(path))?;
    }
    Ok(())
}

struct Mount {
    kind: String,
    options: String,
    /// The part of the hierarchy that is mounted.
    root: String,
    point: String,
}

impl Mount {
    /// The folder of `group`, or of the mount itself when the group lies outside of what is mounted here.
    fn folder_of(&self, root: &Path, group: &str) -> PathBuf {
        let top = root.join(self.point.trim_start_matches('/'));
        let inside = group.strip_prefix(self.root.trim_end_matches('/')).unwrap_or("").trim_start_matches('/');
        let folder = top.join(inside);
        if !inside.is_empty() && folder.is_dir() { folder } else { top }
    }
}

/// `ID PARENT DEVICE ROOT POINT OPTIONS [TAGS…] - KIND SOURCE SUPER_OPTIONS`, see proc_pid_mountinfo(5).
fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (first, second) = line.split_once(" - ")?;
        let mut first = first.split(' ').skip(3);
        let mut second = second.split(' ');
        Some(Mount {
            root: first.next()?.to_owned(),
            point: first.next()?.replace("\\040", " "),
            kind: second.next()?.to_owned(),
            options: second.nth(1)?.to_owned(),
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

impl Hierarchy {
    /// Makes a version 2 base ready. A no-op elsewhere.
    ///
    /// # Errors
    /// [`Absent::Failed`] when we cannot move or the controllers cannot be handed down.
    pub(super) fn prepare(&self) -> Result<(), Absent> {
        let Self::V2 { base, seat: Seat::OwnGroup } = self else {
            return Ok(());
        };
        let leaf = base.join("agent");
        let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(|error| Absent::failed(&path, &error));
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Absent::failed(&leaf, &error));
            }
            _ => write(leaf.join("cgroup.procs"), "0")?,
        }
        // Processor shares may be withheld; memory and processes may not.
        let control = base.join("cgroup.subtree_control");
        write(control.clone(), "+memory +pids +cpu").or_else(|_| write(control, "+memory +pids"))
    }
}
