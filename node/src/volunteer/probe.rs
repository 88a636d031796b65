//! Finding out whether this machine has a working sandbox, and if not, the one command that mends it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::build_log::BuildLog;
use super::enclosure::{EnclosureError, Setup, try_once};
use super::hierarchy;
use super::launcher::Moment;
use super::limits::Limits;
use super::outcome::{Outcome, SandboxFailure};
use super::sandbox::{Binding, Confinement, Sandbox, Step};
use super::seccomp::Filters;
use super::surroundings::Surroundings;
use super::vitals::Vitals;
use super::workspace::{BuildUser, Workspace};

/// Options without which there is no sandbox; all are in bubblewrap 0.8.0.
const NEEDED: [&str; 7] =
    ["--args", "--disable-userns", "--add-seccomp-fd", "--size", "--perms", "--json-status-fd", "--die-with-parent"];
const SEARCHED: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/bin"];
const TRIAL: Limits = Limits {
    wall: Duration::from_secs(20),
    memory_bytes: 256 << 20,
    processes: 16,
    log_bytes: 64 << 10,
    disk_bytes: 16 << 20,
    cores: 1,
    quiet: Duration::from_secs(20),
};

/// Why this machine cannot run builds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Builds run on Linux, and the filters exist for x86_64.
    #[error("builds need Linux on x86_64, and this is {os} on {arch}")]
    Platform {
        /// `std::env::consts::OS`
        os: &'static str,
        /// `std::env::consts::ARCH`
        arch: &'static str,
    },
    /// There is no `bwrap` program.
    #[error("bubblewrap is not installed")]
    BubblewrapMissing,
    /// It lacks an option that the sandbox needs.
    #[error("{path} is too old: it has no `{option}`")]
    BubblewrapTooOld {
        /// The program.
        path: PathBuf,
        /// The first option it lacks.
        option: &'static str,
    },
    /// It is installed set-uid root, which forbids what keeps builds from making namespaces of their own.
    #[error("{path} is set-uid root")]
    SetuidBubblewrap {
        /// The program.
        path: PathBuf,
    },
    /// A kernel setting keeps ordinary users from making user namespaces.
    #[error("user namespaces are forbidden by `{setting}`")]
    UserNamespacesForbidden {
        /// The setting's name and the value it needs, as `sysctl -w` takes them.
        setting: &'static str,
    },
    /// AppArmor does (Ubuntu 23.10 and later).
    #[error("AppArmor keeps bubblewrap from using user namespaces")]
    AppArmor,
    /// Namespaces are nested too deep or used up, as in a container.
    #[error("no more namespaces can be made here: they are nested too deep or used up")]
    NamespacesExhausted,
    /// The kernel, or a container around us, refuses a step of the start.
    #[error("the system refuses a step of the sandbox: {0}")]
    Refused(String),
    /// The work folder cannot be used.
    #[error("the work folder cannot be used: {0}")]
    WorkFolder(String),
    /// Something else, in bubblewrap's or our words.
    #[error("a trial of the sandbox failed: {0}")]
    Failed(String),
}

impl Unavailable {
    /// The command that mends it, where one is known. It needs root.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::BubblewrapMissing | Self::BubblewrapTooOld { .. } => Some(install_command().to_owned()),
            Self::SetuidBubblewrap { path } => Some(format!("chmod u-s {}", path.display())),
            Self::UserNamespacesForbidden { setting } => Some(format!("sysctl -w {setting}")),
            Self::AppArmor => Some(
                "apt-get install apparmor-profiles && cp /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ \
                 && apparmor_parser --replace /etc/apparmor.d/bwrap-userns-restrict"
                    .to_owned(),
            ),
            Self::Platform { .. } | Self::NamespacesExhausted | Self::Refused(_) | Self::WorkFolder(_) | Self::Failed(_) => None,
        }
    }
}

fn install_command() -> &'static str {
    let known = [
        ("apt-get", "apt-get install bubblewrap"),
        ("dnf", "dnf install bubblewrap"),
        ("pacman", "pacman -S bubblewrap"),
        ("zypper", "zypper install bubblewrap"),
        ("apk", "apk add bubblewrap"),
    ];
    let installed = known
        .iter()
        .find(|(program, _)| Path::new("/usr/bin").join(program).exists() || Path::new("/sbin").join(program).exists());
    installed.unwrap_or(&known[0]).1
}

impl Sandbox {
    /// Looks for bubblewrap and tries the whole sandbox once, with a work folder below `work`. Blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`Unavailable`] says what is missing. Control groups are not: without them the result polls, and says so.
    pub fn probe(work: &Path) -> Result<Self, Unavailable> {
        let program = find_bubblewrap(std::env::var_os("PATH").as_deref())?;
        Self::probe_with(program, work)
    }

    pub(super) fn probe_with(bubblewrap: PathBuf, work: &Path) -> Result<Self, Unavailable> {
        if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
            return Err(Unavailable::Platform { os: std::env::consts::OS, arch: std::env::consts::ARCH });
        }
        let found = fs::metadata(&bubblewrap).map_err(|_| Unavailable::BubblewrapMissing)?;
        if found.mode() & 0o4000 != 0 {
            return Err(Unavailable::SetuidBubblewrap { path: bubblewrap });
        }
        let help = help_of(&bubblewrap)?;
        let has = |option: &str| help.split_whitespace().any(|word| word == option);
        if let Some(option) = NEEDED.into_iter().find(|option| !has(option)) {
            return Err(Unavailable::BubblewrapTooOld { path: bubblewrap, option });
        }
        let filters = Filters::compile().map_err(|error| Unavailable::Failed(error.to_string()))?;
        let binding = if has("--bind-fd") { Binding::Descriptor } else { Binding::Path };
        let groups = hierarchy::detect(Path::new("/")).and_then(|hierarchy| hierarchy.prepare().map(|()| hierarchy));
        let confinement = groups.map_or_else(Confinement::Polling, Confinement::ControlGroups);
        let sandbox = Self { bubblewrap, binding, filters, confinement };
        match sandbox.try_it(work) {
            // The groups look usable and are not: say so, and see whether the rest works.
            Err(Trial::Group(absent)) => {
                let sandbox = Self { confinement: Confinement::Polling(absent), ..sandbox };
                sandbox.try_it(work).map(|()| sandbox)
            }
            tried => tried.map(|()| sandbox),
        }
        .map_err(Trial::into_unavailable)
    }

    fn try_it(&self, work: &Path) -> Result<(), Trial> {
        let other = |unavailable| Err(Trial::Other(unavailable));
        let name = format!("trial-{}", std::process::id());
        let workspace = match Workspace::create(work, &name, BuildUser::for_slot(0)) {
            Ok(workspace) => workspace,
            Err(error) => return other(Unavailable::WorkFolder(error.to_string())),
        };
        let setup = Setup {
            workspace,
            tools: Vec::new(),
            aliases: Vec::new(),
            limits: TRIAL,
            environment: BTreeMap::new(),
            log: BuildLog::new(TRIAL.log_bytes),
            vitals: Vitals::default(),
            surroundings: Surroundings::USUAL,
        };
        let step = Step { argv: vec!["true".to_owned()], environment: BTreeMap::new() };
        let (end, log) = match try_once(self, setup, &step) {
            Ok(tried) => tried,
            Err(EnclosureError::Group(absent)) => return Err(Trial::Group(absent)),
            Err(error) => return other(Unavailable::Failed(error.to_string())),
        };
        match end.outcome {
            Outcome::Exited(0) => Ok(()),
            Outcome::SandboxFailed(SandboxFailure::Launch(error)) if error.moment == Moment::JoinGroup => {
                Err(Trial::Group(hierarchy::Absent::NotWritable(PathBuf::from("cgroup.procs"))))
            }
            Outcome::SandboxFailed(SandboxFailure::Launch(error)) if error.moment != Moment::Execute => {
                other(Unavailable::Refused(error.to_string()))
            }
            Outcome::SandboxFailed(SandboxFailure::Setup { words }) => other(diagnose(&words, |setting| {
                fs::read_to_string(Path::new("/proc/sys").join(setting.replace('.', "/"))).ok()
            })),
            outcome => other(Unavailable::Failed(format!("{outcome:?} {}", String::from_utf8_lossy(&log.to_bytes())))),
        }
    }
}

/// How a trial failed.
enum Trial {
    Group(hierarchy::Absent),
    Other(Unavailable),
}

impl Trial {
    fn into_unavailable(self) -> Unavailable {
        match self {
            Self::Group(absent) => Unavailable::Failed(absent.to_string()),
            Self::Other(unavailable) => unavailable,
        }
    }
}

/// What bubblewrap's words mean, given the kernel settings that `read` shows.
fn diagnose(words: &str, read: impl Fn(&str) -> Option<String>) -> Unavailable {
    let is = |setting: &str, value: &str| read(setting).is_some_and(|text| text.trim() == value);
    let namespaces = ["namespace", "uid map", "RTM_NEWADDR", "Operation not permitted", "Permission denied"];
    if namespaces.iter().any(|word| words.contains(word)) {
        if is("kernel.unprivileged_userns_clone", "0") {
            return Unavailable::UserNamespacesForbidden { setting: "kernel.unprivileged_userns_clone=1" };
        }
        if is("user.max_user_namespaces", "0") {
            return Unavailable::UserNamespacesForbidden { setting: "user.max_user_namespaces=10000" };
        }
        if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
            return Unavailable::AppArmor;
        }
    }
    if words.contains("nesting depth") || words.contains("No space left on device") {
        return Unavailable::NamespacesExhausted;
    }
    Unavailable::Failed(words.to_owned())
}

fn find_bubblewrap(path: Option<&OsStr>) -> Result<PathBuf, Unavailable> {
    let listed = path.into_iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    let searched = listed.chain(SEARCHED.iter().map(PathBuf::from));
    searched.map(|folder| folder.join("bwrap")).find(|program| program.is_file()).ok_or(Unavailable::BubblewrapMissing)
}

fn help_of(program: &Path) -> Result<String, Unavailable> {
    let asked = Command::new(program).arg("--help").env_clear().stdin(Stdio::null()).output();
    match asked {
        // Some versions say it on one output, some on the other.
        Ok(said) => Ok([said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unavailable::BubblewrapMissing),
        Err(error) => Err(Unavailable::Failed(format!("{}: {error}", program.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program in a folder that everyone may enter.
    fn program(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        // Not below `/tmp`, which a build user started by root sees another of.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("bwrap");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    fn refusal(path: &Path) -> Unavailable {
        let home = tempfile::tempdir().unwrap();
        Sandbox::probe_with(path.to_owned(), &home.path().join("work")).unwrap_err()
    }

    #[test]
    fn a_missing_old_or_setuid_bubblewrap_is_named() {
        assert_eq!(refusal(Path::new("/nowhere/bwrap")), Unavailable::BubblewrapMissing);
        assert!(Unavailable::BubblewrapMissing.remedy().unwrap().contains("bubblewrap"));
        let (_old, path) = program("#!/bin/sh\necho '--args FD --size BYTES'\n", 0o755);
        assert_eq!(refusal(&path), Unavailable::BubblewrapTooOld { path: path.clone(), option: "--disable-userns" });
        let (_setuid, path) = program("#!/bin/sh\n", 0o4755);
        assert_eq!(refusal(&path), Unavailable::SetuidBubblewrap { path: path.clone() });
        assert_eq!(refusal(&path).remedy(), Some(format!("chmod u-s {}", path.display())));
    }

    #[test]
    fn a_bubblewrap_that_gives_up_is_quoted() {
        let options = NEEDED.join(" ");
        let (_broken, path) = program(
            &format!("#!/bin/sh\n[ \"$1\" = --help ] && echo '{options}' && exit\necho 'bwrap: oh no' >&2\nexit 1\n"),
            0o755,
        );
        assert_eq!(refusal(&path), Unavailable::Failed("bwrap: oh no".to_owned()));
    }

    #[test]
    fn what_bubblewrap_says_is_understood() {
        let denied = "bwrap: setting up uid map: Permission denied";
        let setting =
            |name: &'static str, value: &'static str| move |asked: &str| (asked == name).then(|| format!("{value}\n"));
        assert_eq!(
            diagnose(denied, setting("kernel.apparmor_restrict_unprivileged_userns", "1")),
            Unavailable::AppArmor
        );
        assert_eq!(
            diagnose("bwrap: No permissions to create new namespace", setting("kernel.unprivileged_userns_clone", "0")),
            Unavailable::UserNamespacesForbidden { setting: "kernel.unprivileged_userns_clone=1" }
        );
        let nested =
            "bwrap: Creating new namespace failed: nesting depth or /proc/sys/user/max_*_namespaces exceeded (ENOSPC)";
        assert_eq!(diagnose(nested, |_| None), Unavailable::NamespacesExhausted);
        assert_eq!(
            diagnose(nested, setting("user.max_user_namespaces", "0")),
            Unavailable::UserNamespacesForbidden { setting: "user.max_user_namespaces=10000" }
        );
        assert_eq!(diagnose(denied, |_| None), Unavailable::Failed(denied.to_owned()));
    }
}
