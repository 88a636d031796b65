//! What this machine has, found by looking.
//!
//! Facts come from the operating system (`sysinfo`, `/etc/os-release`) and from looking where builds will ([`super::survey`]).
//! The owner's limits come first: what is announced is never more than the owner allows. Nothing here runs a program or decides
//! what is built.

use protocol::platform::{Acceptance, Capability, Value, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// What the owner allows, before anything is looked for.
#[derive(Clone, Debug)]
pub struct OwnerLimits {
    /// Builds at a time.
    pub slots: NonZeroU16,
    /// Memory of all builds together, in MiB; `None` for three quarters of what there is.
    pub memory_mib: Option<u64>,
    /// Disk of all builds together, in MiB; `None` for half of what is free.
    pub disk_mib: Option<u64>,
}

impl Default for OwnerLimits {
    fn default() -> Self {
        Self { slots: NonZeroU16::MIN, memory_mib: None, disk_mib: None }
    }
}

/// A tool outside `/usr` that the owner offers: bound read-only at the same path, its `bin` first on the PATH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedTool {
    /// How recipes name it.
    pub name: String,
    /// The folder that is bound.
    pub prefix: PathBuf,
}

/// What one build may use of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Processors.
    pub cores: u64,
    /// Memory.
    pub memory_mib: u64,
    /// Disk.
    pub disk_mib: u64,
}

/// The part of the machine that one of `limits.slots` builds may use; `work` is the folder on whose disk builds lie.
#[must_use]
pub fn share(limits: &OwnerLimits, work: &Path) -> Share {
    let slots = u64::from(limits.slots.get());
    let memory_mib = total_memory_mib();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let free_mib = free_disk_mib(work);
    Share {
        cores: (cores / slots).max(1),
        memory_mib: limits.memory_mib.unwrap_or(memory_mib * 3 / 4).min(memory_mib) / slots,
        disk_mib: limits.disk_mib.unwrap_or(free_mib / 2).min(free_mib) / slots,
    }
}

fn total_memory_mib() -> u64 {
    match sysinfo::System::new() {
        Ok(mut system) => {
            system.refresh_memory();
            system.total_memory() >> 20
        }
        Err(error) => {
            tracing::warn!(%error, "the size of the memory is not known: announcing none");
            0
        }
    }
}

fn free_disk_mib(folder: &Path) -> u64 {
    match rustix::fs::statvfs(folder) {
        Ok(stat) => (stat.f_bavail.saturating_mul(stat.f_frsize)) >> 20,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "free disk space is not known: announcing none");
            0
        }
    }
}

/// What the operating system says of itself.
#[must_use]
pub fn system_facts() -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::from([
        ("os".to_owned(), Value::Text(std::env::consts::OS.to_owned())),
        ("arch".to_owned(), Value::Text(std::env::consts::ARCH.to_owned())),
    ]);
    if let Ok(text) = std::fs::read_to_string("/etc/os-release")
        && let Some(distribution) = distribution(&text)
    {
        facts.insert("distribution".to_owned(), Value::Text(distribution));
    }
    facts
}

/// `debian 12` from the text of `/etc/os-release` (os-release(5): ID and VERSION_ID).
fn distribution(os_release: &str) -> Option<String> {
    let field = |name: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(name)?.strip_prefix('=')?.trim().trim_matches(['"', '\'']);
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            (plain && !value.is_empty() && value.len() <= 64).then(|| value.to_owned())
        })
    };
    let id = field("ID")?;
    Some(field("VERSION_ID").map_or_else(|| id.clone(), |version| format!("{id} {version}")))
}

/// The C library's fact from what `ldd --version` prints.
#[must_use]
pub fn libc_fact(printed: &str) -> Option<Value> {
    let first = printed.lines().next()?;
    let family = if first.to_ascii_lowercase().contains("musl") { "musl" } else { "glibc" };
    // The distribution's package version comes first, in brackets; the library's own comes last.
    let version = Version::find(first.rsplit(' ').next()?)?;
    Some(Value::Map(BTreeMap::from([(family.to_owned(), Value::Version(version))])))
}

/// Puts a capability together.
#[must_use]
pub fn capability(
    mut facts: BTreeMap<String, Value>,
    tools: BTreeMap<String, Version>,
    headers: BTreeSet<String>,
    share: Share,
    tier: &str,
    accepts: Acceptance,
    slots: NonZeroU16,
) -> Capability {
    facts.insert("cores".to_owned(), Value::Number(share.cores));
    facts.insert("memory_mib".to_owned(), Value::Number(share.memory_mib));
    facts.insert("disk_mib".to_owned(), Value::Number(share.disk_mib));
    facts.insert("sandbox".to_owned(), Value::Text(tier.to_owned()));
    let tools = tools.into_iter().map(|(name, version)| (name, Value::Version(version))).collect();
    facts.insert("tool".to_owned(), Value::Map(tools));
    let headers = headers.into_iter().map(|header| (header, Value::Flag(true))).collect();
    facts.insert("header".to_owned(), Value::Map(headers));
    Capability { facts, accepts, slots: slots.get() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_c_library_is_named_with_its_own_version() {
        let fact = libc_fact("ldd (Debian GLIBC 2.36-9+deb12u10) 2.36\n").unwrap();
        assert_eq!(fact.to_string(), "{glibc=2.36}");
        assert_eq!(libc_fact("no version"), None);
    }

    #[test]
    fn the_distribution_is_read_as_data() {
        assert_eq!(distribution("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n").as_deref(), Some("debian 12"));
        assert_eq!(distribution("ID=arch\n").as_deref(), Some("arch"));
        assert_eq!(distribution("ID=a b\n"), None);
        assert_eq!(distribution(""), None);
    }

    #[test]
    fn the_owner_comes_first() {
        let limits =
            OwnerLimits { slots: NonZeroU16::new(2).unwrap(), memory_mib: Some(100), disk_mib: Some(u64::MAX) };
        let share = share(&limits, Path::new("/"));
        assert_eq!(share.memory_mib, 50);
        assert!(share.cores >= 1 && share.disk_mib < u64::MAX / 2, "never more than there is");
    }
}
