//! Starting bubblewrap: the one place where code runs between `fork` and `exec`, and the only one with `unsafe`.
//!
//! Everything is prepared before the fork: paths, descriptors, detached mounts. The child then makes system calls and nothing
//! else, no allocation and no lock, because another thread may have held one when the process was copied. What it promises of
//! the program it becomes: an empty environment, standard input from `/dev/null`, one pipe for both outputs, no other descriptor
//! than the few that bubblewrap consumes, its own session, death with the thread that started it, and never host uid 0.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SeekFrom};
use rustix::io::FdFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};
use rustix::thread::{CpuSet, UnshareFlags};

/// Where the private tree is mounted when we are root. Every Linux system has this folder and lets everyone pass through it.
const STAGE_POINT: &CStr = c"/tmp";
/// Builds give way to whatever the volunteer's owner does.
const NICENESS: i32 = 10;
/// When the host itself runs out of memory, builds are the first to go.
const OOM_SCORE: &[u8] = b"1000";

/// Everything about one start.
pub(super) struct Launch<'a> {
    pub(super) bubblewrap: &'a Path,
    /// Options for bubblewrap; descriptors are added to them here.
    pub(super) options: Vec<OsString>,
    pub(super) filters: &'a super::seccomp::Filters,
    pub(super) argv: &'a [String],
    /// Bound writable by descriptor, each at its place inside.
    pub(super) binds: Vec<(&'a OwnedFd, &'static str)>,
    /// Files that are joined by writing `0` into them.
    pub(super) entrances: Vec<OwnedFd>,
    pub(super) rlimits: Vec<(Resource, u64)>,
    pub(super) processors: Option<CpuSet>,
    /// Only root has a stage and drops to a uid.
    pub(super) descent: Option<Descent>,
    pub(super) gate: Gate,
}

/// How root becomes a build user: folders shown on a private stage, then the uid.
#[derive(Debug)]
pub(super) struct Descent {
    pub(super) uid: u32,
    pub(super) stage: Stage,
}

/// Whether the sandbox waits for a word before its command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    Shut,
}

/// A started bubblewrap.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) child: Child,
    /// Both outputs; does not block.
    pub(super) output: OwnedFd,
    /// What bubblewrap says about its child, as JSON lines; does not block.
    pub(super) status: OwnedFd,
    /// Written or closed, it opens the gate.
    pub(super) gate: Option<OwnedFd>,
}

/// Why bubblewrap was not started.
#[derive(Debug, thiserror::Error)]
#[error("{moment}: {source}")]
pub struct LaunchError {
    /// What was being done.
    pub moment: Moment,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

macro_rules! moments {
    ($($name:ident => $text:literal),+ $(,)?) => {
        /// The steps of a start, so that a refusal can be named.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Moment {
            $(#[doc = concat!("While trying to ", $text, ".")] $name),+
        }

        impl Moment {
            const ALL: &[Self] = &[$(Self::$name),+];
        }

        impl fmt::Display for Moment {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => concat!("cannot ", $text)),+ })
            }
        }
    };
}

moments! {
    Prepare => "prepare the start",
    Stage => "prepare the private mount tree",
    Session => "start a session",
    Priority => "lower the priority",
    Resources => "set resource limits",
    JoinGroup => "join the control group",
    PrivateMounts => "enter a private mount namespace",
    Show => "show the work folder and the tools to the build user",
    DropGroups => "drop the groups",
    DropUser => "become the build user",
    Lifeline => "tie the build to this process",
    CloseDescriptors => "close inherited descriptors",
    Execute => "execute bubblewrap",
}

fn at(moment: Moment) -> impl Fn(rustix::io::Errno) -> LaunchError {
    move |errno| LaunchError { moment, source: errno.into() }
}

/// Options for bubblewrap, and the descriptors that they name by number.
///
/// The numbers are the parent's: a fork keeps them, so nothing is moved and nothing can be overwritten by moving.
struct Handover {
    options: Vec<OsString>,
    fds: Vec<OwnedFd>,
}

impl Handover {
    fn give(&mut self, option: &str, fd: OwnedFd) {
        self.options.extend([option.into(), fd.as_raw_fd().to_string().into()]);
        self.fds.push(fd);
    }

    /// All options as bubblewrap's `--args` reads them.
    fn list(&self) -> Vec<u8> {
        self.options.iter().flat_map(|option| [option.as_bytes(), b"\0"].concat()).collect()
    }
}

/// Starts bubblewrap. The calling thread must outlive it: the kernel kills the child when that thread ends.
pub(super) fn launch(launch: Launch<'_>) -> Result<Launched, LaunchError> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(at(Moment::Prepare));
    let (output, output_in) = pipe()?;
    let (status, status_in) = pipe()?;
    let (trouble, trouble_in) = pipe()?;
    for ours in [&output, &status] {
        rustix::fs::fcntl_setfl(ours, OFlags::NONBLOCK).map_err(at(Moment::Prepare))?;
    }
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|source| LaunchError { moment: Moment::Prepare, source });
    let mut handover = Handover { options: launch.options, fds: Vec::new() };
    for (folder, inside) in &launch.binds {
        handover.give("--bind-fd", copy(folder)?);
        handover.options.push((*inside).into());
    }
    let mut gate = None;
    if launch.gate == Gate::Shut {
        let (gate_out, gate_in) = pipe()?;
        handover.give("--block-fd", gate_out);
        gate = Some(gate_in);
    }
    handover.give("--json-status-fd", status_in);
    // After every bind: their places are made in what is then read-only.
    handover.options.extend(["--remount-ro".into(), "/".into()]);
    for program in launch.filters.programs() {
        handover.give("--add-seccomp-fd", memory_file(program)?);
    }
    let list = memory_file(&handover.list())?;

    let mut command = Command::new(launch.bubblewrap);
    command.arg("--args").arg(list.as_raw_fd().to_string()).arg("--").args(launch.argv);
    command.env_clear().current_dir("/").stdin(Stdio::null()).stderr(copy(&output_in)?).stdout(output_in);
    handover.fds.push(list);
    let entry = Entry {
        parent: rustix::process::getpid(),
        entrances: launch.entrances,
        rlimits: launch.rlimits,
        processors: launch.processors,
        descent: launch.descent,
        handed_over: handover.fds,
        trouble: trouble_in,
    };
    // SAFETY: `Entry::run` makes only async-signal-safe system calls on what it owns; it neither allocates nor locks.
    unsafe { command.pre_exec(move || entry.run()) };
    let spawned = command.spawn();
    // The parent's copies of everything that was handed over, also the writing end of `trouble`.
    drop(command);
    match spawned {
        Ok(child) => Ok(Launched { child, output, status, gate }),
        Err(source) => Err(LaunchError { moment: told(trouble), source }),
    }
}

/// In which step the child failed; none told means that `exec` did.
fn told(trouble: OwnedFd) -> Moment {
    let mut moment = [0];
    match File::from(trouble).read(&mut moment) {
        Ok(1) => Moment::ALL.get(usize::from(moment[0])).copied().unwrap_or(Moment::Execute),
        _ => Moment::Execute,
    }
}

/// An anonymous file with these bytes, to be read from its start.
fn memory_file(bytes: &[u8]) -> Result<OwnedFd, LaunchError> {
    let failed = |source| LaunchError { moment: Moment::Prepare, source };
    let mut file =
        File::from(rustix::fs::memfd_create(c"barnraise", MemfdFlags::CLOEXEC).map_err(at(Moment::Prepare))?);
    file.write_all(bytes).map_err(failed)?;
    rustix::fs::seek(&file, SeekFrom::Start(0)).map_err(at(Moment::Prepare))?;
    Ok(file.into())
}

/// A private tree for the build user: an empty file system that it may enter, with the folders it needs bound onto it. It may enter
/// it even when the folders lie below one that only root may enter.
///
/// Made from detached mounts, so that the child only has to attach them; what is never attached vanishes with its descriptor.
pub(super) struct Stage {
    floor: OwnedFd,
    shown: Vec<(OwnedFd, CString)>,
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shown.iter().map(|(_, path)| path)).finish()
    }
}

impl Stage {
    pub(super) fn new() -> Result<Self, LaunchError> {
        let failed = at(Moment::Stage);
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(&failed)?;
        for (key, value) in [(c"mode", c"0755"), (c"size", c"64k")] {
            rustix::mount::fsconfig_set_string(&context, key, value).map_err(&failed)?;
        }
        rustix::mount::fsconfig_create(&context).map_err(&failed)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let floor = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(&failed)?;
        Ok(Self { floor, shown: Vec::new() })
    }

    /// Adds a folder and says at which path the build user will find it.
    pub(super) fn show(&mut self, folder: impl AsFd) -> Result<PathBuf, LaunchError> {
        let failed = at(Moment::Stage);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = rustix::mount::open_tree(folder, c"", flags).map_err(&failed)?;
        let name = self.shown.len().to_string();
        rustix::fs::mkdirat(&self.floor, name.as_str(), Mode::from_raw_mode(0o755)).map_err(&failed)?;
        let path = [STAGE_POINT.to_bytes(), b"/", name.as_bytes()].concat();
        let path = CString::new(path).map_err(|error| LaunchError { moment: Moment::Stage, source: error.into() })?;
        let shown = PathBuf::from(std::ffi::OsStr::from_bytes(path.to_bytes()));
        self.shown.push((tree, path));
        Ok(shown)
    }

    fn attach(&self) -> rustix::io::Result<()> {
        let from_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&self.floor, c"", CWD, STAGE_POINT, from_descriptor)?;
        for (tree, path) in &self.shown {
            rustix::mount::move_mount(tree, c"", CWD, path.as_c_str(), from_descriptor)?;
        }
        Ok(())
    }
}

/// What the child does between `fork` and `exec`.
struct Entry {
    parent: Pid,
    entrances: Vec<OwnedFd>,
    rlimits: Vec<(Resource, u64)>,
    processors: Option<CpuSet>,
    descent: Option<Descent>,
    handed_over: Vec<OwnedFd>,
    trouble: OwnedFd,
}

impl Entry {
    fn run(&self) -> io::Result<()> {
        self.step(Moment::Session, || {
            rustix::process::setsid()?;
            rustix::process::umask(Mode::from_raw_mode(0o022));
            Ok(())
        })?;
        self.step(Moment::Priority, || {
            rustix::process::nice(NICENESS)?;
            let score = rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&score, OOM_SCORE)?;
            match &self.processors {
                Some(processors) => rustix::thread::sched_setaffinity(None, processors),
                None => Ok(()),
            }
        })?;
        self.step(Moment::Resources, || {
            for (resource, limit) in &self.rlimits {
                let maximum = rustix::process::getrlimit(*resource).maximum;
                let limit = Some(maximum.map_or(*limit, |maximum| maximum.min(*limit)));
                rustix::process::setrlimit(*resource, Rlimit { current: limit, maximum: limit })?;
            }
            Ok(())
        })?;
        self.step(Moment::JoinGroup, || {
            for entrance in &self.entrances {
                rustix::io::write(entrance, b"0")?;
            }
            Ok(())
        })?;
        if let Some(descent) = &self.descent {
            self.descend(descent)?;
        }
        self.step(Moment::Lifeline, || {
            // After the change of user, which would clear it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            match rustix::process::getppid() {
                Some(parent) if parent == self.parent => Ok(()),
                _ => Err(rustix::io::Errno::SRCH),
            }
        })?;
        self.step(Moment::CloseDescriptors, || {
            close_on_exec_from(3)?;
            self.handed_over.iter().try_for_each(|fd| rustix::io::fcntl_setfd(fd, FdFlags::empty()))
        })
    }

    /// From root to the build user.
    fn descend(&self, descent: &Descent) -> io::Result<()> {
        self.step(Moment::PrivateMounts, || {
            // SAFETY: the child has one thread and unshares no table of descriptors.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
            rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        })?;
        self.step(Moment::Show, || descent.stage.attach())?;
        let (uid, gid) = (Uid::from_raw(descent.uid), Gid::from_raw(descent.uid));
        self.step(Moment::DropGroups, || {
            rustix::thread::set_thread_groups(&[])?;
            rustix::thread::set_thread_res_gid(gid, gid, gid)
        })?;
        self.step(Moment::DropUser, || {
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
            // Fails closed: nothing below may ever run as root.
            if rustix::process::geteuid().is_root() { Err(rustix::io::Errno::PERM) } else { Ok(()) }
        })
    }

    /// Does one step; when it fails, tells the parent which.
    fn step(&self, moment: Moment, act: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
        act().map_err(|errno| {
            // If even this cannot be written, the error number alone must do.
            let _ = rustix::io::write(&self.trouble, &[moment as u8]);
            io::Error::from_raw_os_error(errno.raw_os_error())
        })
    }
}

/// Marks every descriptor from `first` on to be closed by `exec`.
fn close_on_exec_from(first: RawFd) -> rustix::io::Result<()> {
    // SAFETY: takes three numbers and touches no memory of ours; it closes nothing before `exec`.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if answer == 0 {
        return Ok(());
    }
    // SAFETY: reads the calling thread's own error number.
    let errno = unsafe { *libc::__errno_location() };
    Err(rustix::io::Errno::from_raw_os_error(errno))
}
