//! What is there to see on this machine.

use protocol::platform::Version;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// The first executable file of this name in these folders.
pub(super) fn program(name: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let is_executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0);
    folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(is_executable)
}

/// The version that a program tells of itself.
pub(super) fn version(path: &Path) -> Option<Version> {
    let told = Command::new(path).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    Version::find(&String::from_utf8_lossy(&told.stdout))
}

/// The sandbox program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bubblewrap {
    Absent,
    Broken {
        path: PathBuf,
        reason: String,
    },
    Works {
        path: PathBuf,
        /// As it prints it.
        version: String,
        /// Its help text, which names every option.
        options: String,
    },
}

pub(super) fn bubblewrap(path: Option<PathBuf>) -> Bubblewrap {
    let Some(path) = path else { return Bubblewrap::Absent };
    let ask = |option: &str| {
        let asked = Command::new(&path).arg(option).env_clear().stdin(Stdio::null()).output();
        let output = asked.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("`bwrap {option}` ended with {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    match ask("--version").and_then(|version| Ok((version, ask("--help")?))) {
        Ok((version, options)) => Bubblewrap::Works { path, version: version.trim().to_owned(), options },
        Err(reason) => Bubblewrap::Broken { path, reason },
    }
}

/// The kernel's settings for user namespaces; `None` where it has no such setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Namespaces {
    pub(super) max: Option<u64>,
    pub(super) unprivileged_clone: Option<u64>,
    pub(super) apparmor_restricts: Option<u64>,
    pub(super) has_apparmor_profile: bool,
    pub(super) is_root: bool,
}

impl Namespaces {
    pub(super) fn now() -> Self {
        let setting = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            max: setting("/proc/sys/user/max_user_namespaces"),
            unprivileged_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor_restricts: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            has_apparmor_profile: ["bwrap", "bwrap-userns-restrict"]
                .iter()
                .any(|name| Path::new("/etc/apparmor.d").join(name).exists()),
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

/// Whether limits can be set by cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cgroups {
    Writable(&'static str),
    ReadOnly(&'static str),
    Absent,
}

pub(super) fn cgroups() -> Cgroups {
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let mount = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // A line is `0::/path` in version 2 and `4:memory:/path` in version 1.
    let below = |controller: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let names = fields.next()?;
            let path = fields.next()?;
            names.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let memory = mount.join("memory");
    if let Some(path) = below("memory").filter(|_| memory.is_dir()) {
        return if writable(&memory.join(path)) {
            Cgroups::Writable("version 1")
        } else {
            Cgroups::ReadOnly("version 1")
        };
    }
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    match below("") {
        Some(path) if controllers.split_whitespace().any(|name| name == "memory") => {
            let own = mount.join(path);
            if writable(&own) { Cgroups::Writable("version 2") } else { Cgroups::ReadOnly("version 2") }
        }
        _ => Cgroups::Absent,
    }
}

/// The home directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    WillBeMade { below: PathBuf },
    Good,
    OpenToOthers { mode: u32 },
    NotWritable { at: PathBuf },
    NotADirectory,
}

pub(super) fn home(home: &Path) -> Home {
    let writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    match fs::metadata(home) {
        Err(_) => {
            let below = existing(home);
            if writable(&below) { Home::WillBeMade { below } } else { Home::NotWritable { at: below } }
        }
        Ok(seen) if !seen.is_dir() => Home::NotADirectory,
        Ok(_) if !writable(home) => Home::NotWritable { at: home.to_owned() },
        Ok(seen) if seen.mode() & 0o077 != 0 => Home::OpenToOthers { mode: seen.mode() & 0o7777 },
        Ok(_) => Home::Good,
    }
}

/// The nearest folder above `path` that exists, or itself.
fn existing(path: &Path) -> PathBuf {
    let mut at = path;
    while !at.exists() {
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => return PathBuf::from("."),
        }
    }
    at.to_owned()
}

/// Bytes that this user may still write at `home`, or where it will be made.
pub(super) fn free_bytes(home: &Path) -> Result<u64, String> {
    let seen = rustix::fs::statvfs(existing(home)).map_err(|error| error.to_string())?;
    Ok(seen.f_bavail.saturating_mul(seen.f_frsize))
}

/// When this program was installed, as the file system knows it.
pub(super) fn built_at() -> Option<SystemTime> {
    fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()
}
