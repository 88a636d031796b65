//! What this machine lacks to volunteer, and the command that mends each lack.
//!
//! [`diagnose`] looks and changes nothing that stays: it asks `bwrap` for its version and options, runs `true` once in a whole
//! sandbox below the temporary folder, touches no network and opens no database. Each check is a plain function of what was
//! seen, so that every machine can be tried on any machine.

mod look;
mod mend;

pub use mend::Packages;

use crate::volunteer::Sandbox;
use crate::volunteer::Unavailable;
use protocol::platform::Version;
use protocol::request::MIN_GIT;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Free disk below which a build of any size is a gamble: 2 GiB.
pub const ENOUGH_DISK_BYTES: u64 = 2 << 30;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good {
        /// What was seen.
        seen: String,
    },
    /// It works, but not as well as it could.
    Advice {
        /// What was seen, and what follows from it.
        seen: String,
        /// The command that makes it better.
        mend: String,
    },
    /// This machine cannot volunteer.
    Missing {
        /// What was seen, and what follows from it.
        seen: String,
        /// The command that mends it.
        mend: String,
    },
}

/// A named check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// What was found.
    pub finding: Finding,
}

impl Check {
    /// A check that found everything as it should be.
    #[must_use]
    pub fn good(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, finding: Finding::Good { seen: seen.into() } }
    }

    /// A check that found something to improve.
    #[must_use]
    pub fn advice(name: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, finding: Finding::Advice { seen: seen.into(), mend: mend.into() } }
    }

    /// A check that found why this machine cannot volunteer.
    #[must_use]
    pub fn missing(name: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, finding: Finding::Missing { seen: seen.into(), mend: mend.into() } }
    }
}

/// Every check, in the order in which things are mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    checks: Vec<Check>,
}

impl Diagnosis {
    /// Adds what another room found.
    pub fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// The checks.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.checks.iter().any(|check| matches!(check.finding, Finding::Missing { .. }))
    }
}

/// Looks at this machine and at the home directory, which need not exist.
#[must_use]
pub fn diagnose(home: &Path) -> Diagnosis {
    let packages = Packages::of_this_machine();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |program: &str| look::program(program, std::env::split_paths(&path));
    let mut checks = vec![
        bubblewrap(&look::bubblewrap(on_path("bwrap")), packages),
        user_namespaces(&look::Namespaces::now(), packages),
        compiler(on_path("cc"), packages),
        git(on_path("git").and_then(|path| look::version(&path)), packages),
        cgroups(&look::cgroups()),
        home_directory(home, &look::home(home)),
        disk(home, look::free_bytes(home)),
        clock(SystemTime::now(), look::built_at()),
    ];
    let stands = !checks.iter().take(2).any(|check| matches!(check.finding, Finding::Missing { .. }));
    // A trial says nothing new while its parts are missing.
    if stands {
        checks.insert(2, sandbox(&try_sandbox(), packages));
    }
    Diagnosis { checks }
}

/// Runs `true` once in a whole sandbox.
fn try_sandbox() -> Result<(), Unavailable> {
    let work = tempfile::tempdir().map_err(|error| Unavailable::WorkFolder(error.to_string()))?;
    Sandbox::probe(work.path()).map(drop)
}

fn sandbox(tried: &Result<(), Unavailable>, packages: Packages) -> Check {
    const NAME: &str = "sandbox";
    match tried {
        Ok(()) => Check::good(NAME, "a trial build ran in it"),
        Err(unavailable) => {
            let mend = match unavailable.remedy() {
                Some(command) => format!("{}{command}", packages.prefix()),
                None => "use another machine, or leave the container that this one is".to_owned(),
            };
            Check::missing(NAME, unavailable.to_string(), mend)
        }
    }
}

fn bubblewrap(seen: &look::Bubblewrap, packages: Packages) -> Check {
    const NAME: &str = "bubblewrap";
    match seen {
        look::Bubblewrap::Absent => {
            Check::missing(NAME, "`bwrap` is not installed; builds run in its sandbox", packages.install("bubblewrap"))
        }
        look::Bubblewrap::Broken { path, reason } => {
            Check::missing(NAME, format!("{} does not run: {reason}", path.display()), packages.install("bubblewrap"))
        }
        look::Bubblewrap::Works { path, version, options } => {
            let needed = ["--disable-userns", "--add-seccomp-fd", "--perms", "--size"];
            let lacking: Vec<_> = needed.into_iter().filter(|option| !options.contains(option)).collect();
            if !lacking.is_empty() {
                let seen = format!("{version} is too old: it lacks {}", lacking.join(", "));
                return Check::missing(NAME, seen, packages.upgrade("bubblewrap"));
            }
            let bind = if options.contains("--bind-fd") { "binds by descriptor" } else { "binds by path" };
            Check::good(NAME, format!("{version} at {}, {bind}", path.display()))
        }
    }
}

fn user_namespaces(seen: &look::Namespaces, packages: Packages) -> Check {
    const NAME: &str = "user namespaces";
    let sudo = packages.prefix();
    if seen.max == Some(0) {
        return Check::missing(
            NAME,
            "the kernel allows none (user.max_user_namespaces = 0)",
            format!("{sudo}sysctl -w user.max_user_namespaces=15000"),
        );
    }
    if seen.unprivileged_clone == Some(0) && !seen.is_root {
        return Check::missing(
            NAME,
            "forbidden to ordinary users (kernel.unprivileged_userns_clone = 0)",
            format!("{sudo}sysctl -w kernel.unprivileged_userns_clone=1"),
        );
    }
    if seen.apparmor_restricts == Some(1) && !seen.is_root && !seen.has_apparmor_profile {
        return Check::missing(
            NAME,
            "forbidden by AppArmor to programs without a profile (kernel.apparmor_restrict_unprivileged_userns = 1)",
            format!("{sudo}sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        );
    }
    if seen.max.is_none() {
        return Check::missing(
            NAME,
            "the kernel has none (there is no /proc/sys/user/max_user_namespaces)",
            "use a Linux kernel with CONFIG_USER_NS, outside a container that hides it",
        );
    }
    Check::good(NAME, "allowed")
}

fn compiler(cc: Option<PathBuf>, packages: Packages) -> Check {
    const NAME: &str = "C compiler";
    match cc {
        Some(path) => Check::good(NAME, path.display().to_string()),
        None => Check::advice(NAME, "no `cc`: recipes for C are left to others", packages.install_compiler()),
    }
}

fn git(version: Option<Version>, packages: Packages) -> Check {
    const NAME: &str = "git";
    match version {
        None => Check::advice(NAME, "no `git`: sources in repositories are left to others", packages.install("git")),
        Some(version) if MIN_GIT.parse::<Version>().is_ok_and(|least| version < least) => Check::advice(
            NAME,
            format!("{version} is too old to fetch sources with: {MIN_GIT} is needed"),
            packages.upgrade("git"),
        ),
        Some(version) => Check::good(NAME, version.to_string()),
    }
}

fn cgroups(seen: &look::Cgroups) -> Check {
    const NAME: &str = "cgroups";
    let advice = "systemd-run --user --scope -p Delegate=yes node --volunteer …";
    match seen {
        look::Cgroups::Writable(version) => Check::good(NAME, format!("{version}, writable")),
        look::Cgroups::ReadOnly(version) => Check::advice(
            NAME,
            format!("{version}, not writable: memory and processes are limited by rlimits and a poller"),
            advice,
        ),
        look::Cgroups::Absent => {
            Check::advice(NAME, "none mounted: memory and processes are limited by rlimits and a poller", advice)
        }
    }
}

fn home_directory(home: &Path, seen: &look::Home) -> Check {
    const NAME: &str = "home";
    let shown = home.display();
    match seen {
        look::Home::WillBeMade { below } => Check::good(NAME, format!("{shown} will be made in {}", below.display())),
        look::Home::Good => Check::good(NAME, shown.to_string()),
        look::Home::OpenToOthers { mode } => Check::missing(
            NAME,
            format!("{shown} is open to others (mode {mode:04o}), and it holds keys"),
            format!("chmod 700 {shown}"),
        ),
        look::Home::NotWritable { at } => Check::missing(
            NAME,
            format!("{} cannot be written to", at.display()),
            "give a directory of your own with `--home DIR`",
        ),
        look::Home::NotADirectory => {
            Check::missing(NAME, format!("{shown} is not a directory"), "give another with `--home DIR`")
        }
    }
}

fn disk(home: &Path, free: Result<u64, String>) -> Check {
    const NAME: &str = "disk";
    let elsewhere = "free some, or give a directory on another disk with `--home DIR`";
    match free {
        Err(reason) => Check::advice(NAME, format!("cannot be measured at {}: {reason}", home.display()), elsewhere),
        Ok(bytes) => {
            let seen = format!("{} MiB free", bytes >> 20);
            if bytes < ENOUGH_DISK_BYTES {
                let seen = format!("{seen}, where builds and store want {} MiB", ENOUGH_DISK_BYTES >> 20);
                Check::missing(NAME, seen, elsewhere)
            } else {
                Check::good(NAME, seen)
            }
        }
    }
}

fn clock(now: SystemTime, built_at: Option<SystemTime>) -> Check {
    const NAME: &str = "clock";
    match built_at {
        Some(built_at) if now < built_at => Check::missing(
            NAME,
            "this machine's clock is behind the day this program was installed; its signatures would be refused",
            "timedatectl set-ntp true",
        ),
        Some(_) | None => Check::good(NAME, "plausible"),
    }
}

#[cfg(test)]
mod tests;
