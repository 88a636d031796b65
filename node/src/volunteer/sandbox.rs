//! The sandbox of this machine, and what a build sees inside: the composition of the bubblewrap call.
//!
//! | inside | is |
//! |---|---|
//! | `/usr`, `/bin`, `/lib…`, `/etc/alternatives` | the host's, read-only |
//! | `/build` | the attempt's work folder, writable, where steps start |
//! | `/home/build` | `HOME`: fresh and empty at the first step, kept until the last, never collected |
//! | `/tmp`, `/dev/shm` | fresh in every step, in memory, bounded |
//! | a tool's prefix | the same absolute path as outside, read-only |
//!
//! Everything else of the host is absent: no network but an idle loopback, no other process, no user but the build's, no further
//! namespaces, no capabilities. There is no weaker mode that is used silently: what cannot be had is an [`Unavailable`](super::Unavailable).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::process::Resource;
use rustix::thread::CpuSet;

use super::cgroup::{Group, OWN_PROCESSES};
use super::hierarchy::{Absent, Hierarchy};
use super::launcher::{Descent, Gate, Launch, LaunchError, Launched, Moment, Stage, launch};
use super::limits::Limits;
use super::outcome::SandboxFailure;
use super::seccomp::Filters;
use super::surroundings::{ALIAS_DIR, HOME_DIR, Surroundings};
use super::tool::{Alias, Tool};
use super::workspace::{Identity, Workspace};

/// The uid and gid inside.
const INNER_ID: &str = "1000";
const SHARED_MEMORY_BYTES: u64 = 64 << 20;
const OPEN_FILES: u64 = 65_536;

/// A sandbox that was tried and works. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    pub(super) bubblewrap: PathBuf,
    pub(super) binding: Binding,
    pub(super) filters: Filters,
    pub(super) confinement: Confinement,
}

/// How the work folder is named to bubblewrap by an ordinary user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// By descriptor: what was opened is what is bound.
    Descriptor,
    /// By path, where bubblewrap has no `--bind-fd`. Safe because only we can write into the folders above.
    Path,
}

/// What enforces memory, process and processor limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// The kernel, per attempt.
    ControlGroups(Hierarchy),
    /// Rlimits and polling, and why not better.
    Polling(Absent),
}

impl Sandbox {
    /// What enforces the limits here.
    #[must_use]
    pub fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// The bubblewrap program that is used.
    #[must_use]
    pub fn bubblewrap(&self) -> &Path {
        &self.bubblewrap
    }

    /// Starts one step. Blocks for as long as a start takes, and must be called on the thread that will wait for its end.
    pub(super) fn start(&self, scene: &Scene<'_>, step: &Step) -> Result<Launched, LaunchError> {
        let mut start = Launch {
            bubblewrap: &self.bubblewrap,
            options: self.fixed_options(scene, step),
            filters: &self.filters,
            argv: &step.argv,
            binds: Vec::new(),
            entrances: Vec::new(),
            rlimits: vec![
                (Resource::Core, 0),
                (Resource::Fsize, scene.limits.disk_bytes),
                (Resource::Nofile, OPEN_FILES),
            ],
            processors: None,
            descent: None,
            gate: Gate::Open,
        };
        match scene.workspace.user().identity() {
            Identity::Own { uid } => show_to_own(uid, scene, &mut start)?,
            Identity::Caller => self.show_to_caller(scene, &mut start),
        }
        match (scene.group, scene.workspace.user().identity()) {
            (Some(group), _) => {
                let failed = |source| LaunchError { moment: Moment::JoinGroup, source };
                start.entrances = group.entrances().map_err(failed)?;
            }
            // The uid is nobody else's, so the kernel counts this build alone.
            (None, Identity::Own { .. }) => {
                start.rlimits.push((Resource::Nproc, u64::from(scene.limits.processes) + OWN_PROCESSES));
            }
            // Ours would be counted with it: the limit is set from outside, on process 1, before the gate is opened.
            (None, Identity::Caller) => start.gate = Gate::Shut,
        }
        if scene.group.is_none() {
            start.processors = some_processors(scene.limits.cores);
        }
        launch(start)
    }

    /// Binds what the build needs, when we are an ordinary user and so is the build.
    fn show_to_caller<'a>(&self, scene: &Scene<'a>, start: &mut Launch<'a>) {
        let (workspace, build_dir) = (scene.workspace, scene.surroundings.build_dir);
        match self.binding {
            Binding::Descriptor => {
                start.binds = vec![(workspace.build(), build_dir), (workspace.home(), HOME_DIR)];
            }
            Binding::Path => {
                for (folder, inside) in [(workspace.build_path(), build_dir), (workspace.home_path(), HOME_DIR)] {
                    start.options.extend(["--bind".into(), folder.into(), inside.into()]);
                }
            }
        }
        for prefix in scene.tools.iter().map(Tool::prefix) {
            start.options.extend(["--ro-bind".into(), prefix.into(), prefix.into()]);
        }
    }

    /// All options but the binds that depend on who we are, and what must come last.
    fn fixed_options(&self, scene: &Scene<'_>, step: &Step) -> Vec<OsString> {
        let mut options: Vec<OsString> = [
            // `--unshare-all` alone only tries the user and cgroup namespaces.
            "--unshare-user",
            "--unshare-all",
            "--disable-userns",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
            "--uid",
            INNER_ID,
            "--gid",
            INNER_ID,
            "--hostname",
            scene.surroundings.host_name,
            "--clearenv",
        ]
        .map(OsString::from)
        .into();
        for (name, value) in environment(scene, step) {
            options.extend(["--setenv".into(), name.into(), value.into()]);
        }
        options.extend(["--ro-bind", "/usr", "/usr"].map(OsString::from));
        options.extend(host_folders(Path::new("/")));
        for Alias { name, program } in scene.aliases {
            options.extend(["--symlink".into(), program.into(), Path::new(ALIAS_DIR).join(name).into()]);
        }
        let shared_memory = SHARED_MEMORY_BYTES.to_string();
        let temporary = (scene.limits.memory_bytes / 2).max(SHARED_MEMORY_BYTES).to_string();
        options.extend(
            [
                "--proc",
                "/proc",
                "--dev",
                "/dev",
                // `--dev` makes a file system of half the machine's memory: bounded where it is meant to be written, else read-only.
                "--perms",
                "1777",
                "--size",
                &shared_memory,
                "--tmpfs",
                "/dev/shm",
                "--remount-ro",
                "/dev",
                "--perms",
                "1777",
                "--size",
                &temporary,
                "--tmpfs",
                "/tmp",
                "--chdir",
                scene.surroundings.build_dir,
            ]
            .map(OsString::from),
        );
        options
    }
}

/// Binds what the build needs, when we are root: bubblewrap runs as a user that may not enter the folders above.
fn show_to_own(uid: u32, scene: &Scene<'_>, start: &mut Launch<'_>) -> Result<(), LaunchError> {
    let mut stage = Stage::new()?;
    let folders = [(scene.workspace.build(), scene.surroundings.build_dir), (scene.workspace.home(), HOME_DIR)];
    for (folder, inside) in folders {
        start.options.extend(["--bind".into(), stage.show(folder)?.into(), inside.into()]);
    }
    for prefix in scene.tools.iter().map(Tool::prefix) {
        let folder = fs::File::open(prefix).map_err(|source| LaunchError { moment: Moment::Stage, source })?;
        start.options.extend(["--ro-bind".into(), stage.show(folder.as_fd())?.into(), prefix.into()]);
    }
    start.descent = Some(Descent { uid, stage });
    Ok(())
}

/// What the steps of an attempt have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) tools: &'a [Tool],
    pub(super) aliases: &'a [Alias],
    pub(super) limits: &'a Limits,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) surroundings: &'a Surroundings,
    pub(super) group: Option<&'a Group>,
}

/// One command of a recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The program, looked up in `PATH` inside unless it has a slash, and its arguments. Never a shell's line.
    pub argv: Vec<String>,
    /// Variables of this step, over those of the attempt.
    pub environment: BTreeMap<String, String>,
}

impl Step {
    /// Refuses what no program can be given: no command, a NUL, a variable's name that is empty or holds `=`.
    pub(super) fn check(&self) -> Result<(), SandboxFailure> {
        let refused = |text: &str| Err(SandboxFailure::Unspeakable(text.to_owned()));
        match self.argv.first() {
            None => return refused(""),
            Some(program) if program.is_empty() => return refused(""),
            Some(_) => {}
        }
        if let Some(text) = self.argv.iter().find(|text| text.contains('\0')) {
            return refused(text);
        }
        check_environment(&self.environment)
    }
}

pub(super) fn check_environment(environment: &BTreeMap<String, String>) -> Result<(), SandboxFailure> {
    let bad =
        |(name, value): &(&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    match environment.iter().find(bad) {
        Some((name, _)) => Err(SandboxFailure::Unspeakable(name.clone())),
        None => Ok(()),
    }
}

/// Equal on every volunteer in the same surroundings; then the attempt's own, then the step's.
fn environment(scene: &Scene<'_>, step: &Step) -> BTreeMap<String, String> {
    let tools = scene.tools.iter().map(|tool| format!("{}/bin:", tool.prefix().display()));
    let aliases = (!scene.aliases.is_empty()).then(|| format!("{ALIAS_DIR}:"));
    let path = aliases.into_iter().chain(tools).chain(["/usr/bin:/bin".to_owned()]).collect::<String>();
    let cores = scene.limits.cores.to_string();
    let fixed = [
        ("PATH", path.as_str()),
        ("HOME", HOME_DIR),
        ("TMPDIR", "/tmp"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", scene.surroundings.time_zone),
        ("PYTHONHASHSEED", "0"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        // For `make -j`: the host's count of processors is not this build's.
        ("BUILD_CORES", cores.as_str()),
    ];
    let mut all: BTreeMap<String, String> = fixed.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    for more in [scene.environment, &step.environment] {
        all.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    all
}

/// The top folders that are links into `/usr` on some distributions and folders on others, and what programs in `/usr` stand on
/// in `/etc`: what lies behind `cc` on Debian, where libraries are, how Java is set up.
fn host_folders(root: &Path) -> Vec<OsString> {
    let mut options = Vec::new();
    for name in ["bin", "lib", "lib64", "lib32", "sbin"] {
        let inside = Path::new("/").join(name);
        let outside = root.join(name);
        if let Ok(target) = fs::read_link(&outside) {
            options.extend(["--symlink".into(), target.into(), inside.into()]);
        } else if outside.is_dir() {
            options.extend(["--ro-bind".into(), outside.into(), inside.into()]);
        }
    }
    let etc = root.join("etc");
    let entries = fs::read_dir(&etc).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_java = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("java-"));
    let mut java: Vec<OsString> = entries.filter(is_java).collect();
    java.sort();
    for name in ["alternatives", "ld.so.cache"].map(OsString::from).into_iter().chain(java) {
        let outside = etc.join(&name);
        if outside.exists() {
            options.extend(["--ro-bind".into(), outside.into(), Path::new("/etc").join(name).into()]);
        }
    }
    options
}

/// As many processors as a build may use, out of those that we may use; none when that is all of them.
fn some_processors(cores: u32) -> Option<CpuSet> {
    let ours = rustix::thread::sched_getaffinity(None).ok()?;
    let cores = cores.max(1);
    if ours.count() <= cores {
        return None;
    }
    let mut chosen = CpuSet::new();
    // Builds that start at different moments should not all sit on the first processors.
    let start = rustix::thread::sched_getcpu();
    let all = (start..CpuSet::MAX_CPU).chain(0..start);
    all.filter(|&cpu| ours.is_set(cpu)).take(cores as usize).for_each(|cpu| chosen.set(cpu));
    Some(chosen)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn merged_and_unmerged_hosts_are_both_shown() {
        let host = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("usr/bin", host.path().join("bin")).unwrap();
        fs::create_dir(host.path().join("lib")).unwrap();
        fs::create_dir_all(host.path().join("etc/java-17-openjdk")).unwrap();
        fs::write(host.path().join("etc/ld.so.cache"), "").unwrap();
        fs::write(host.path().join("etc/shadow"), "").unwrap();
        let mut expected: Vec<OsString> = ["--symlink", "usr/bin", "/bin"].map(OsString::from).into();
        for place in ["lib", "etc/ld.so.cache", "etc/java-17-openjdk"] {
            expected.extend(["--ro-bind".into(), host.path().join(place).into(), Path::new("/").join(place).into()]);
        }
        assert_eq!(host_folders(host.path()), expected);
    }

    #[test]
    fn steps_that_no_program_can_be_given_are_refused() {
        let step = |argv: &[&str], environment: &[(&str, &str)]| Step {
            argv: argv.iter().map(|&text| text.to_owned()).collect(),
            environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        for bad in [
            step(&[], &[]),
            step(&[""], &[]),
            step(&["a", "b\0"], &[]),
            step(&["a"], &[("", "")]),
            step(&["a"], &[("A=B", "")]),
        ] {
            assert!(matches!(bad.check(), Err(SandboxFailure::Unspeakable(_))), "{bad:?}");
        }
        assert!(step(&["a", ""], &[("A", "b=c")]).check().is_ok());
    }
}
