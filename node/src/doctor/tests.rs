#![allow(clippy::unwrap_used)]
use super::*;
use std::time::Duration;

const DEBIAN: &str = "PRETTY_NAME=\"Debian\"\nID=debian\n";

fn debian() -> Packages {
    Packages::of_release(DEBIAN)
}

fn mend(check: &Check) -> &str {
    match &check.finding {
        Finding::Good { seen } => panic!("good: {seen}"),
        Finding::Advice { mend, .. } | Finding::Missing { mend, .. } => mend,
    }
}

fn allowed() -> look::Namespaces {
    look::Namespaces { max: Some(15_000), ..look::Namespaces::default() }
}

#[test]
fn bubblewrap_is_looked_at_by_its_options() {
    let works = |options: &str| look::Bubblewrap::Works {
        path: "/usr/bin/bwrap".into(),
        version: "bubblewrap 0.8.0".to_owned(),
        options: options.to_owned(),
    };
    let all = "--disable-userns --add-seccomp-fd FD --perms OCTAL --size BYTES";
    assert_eq!(
        bubblewrap(&works(&format!("{all} --bind-fd FD DEST")), debian()),
        Check::good("bubblewrap", "bubblewrap 0.8.0 at /usr/bin/bwrap, binds by descriptor")
    );
    assert_eq!(
        bubblewrap(&works(all), debian()),
        Check::good("bubblewrap", "bubblewrap 0.8.0 at /usr/bin/bwrap, binds by path")
    );
    let old = bubblewrap(&works("--add-seccomp-fd --perms --size"), debian());
    assert_eq!(
        old,
        Check::missing(
            "bubblewrap",
            "bubblewrap 0.8.0 is too old: it lacks --disable-userns",
            "sudo apt-get install --only-upgrade bubblewrap"
        )
    );
    assert_eq!(mend(&bubblewrap(&look::Bubblewrap::Absent, debian())), "sudo apt-get install bubblewrap");
}

#[test]
fn each_ban_on_user_namespaces_has_its_command() {
    assert_eq!(user_namespaces(&allowed(), debian()), Check::good("user namespaces", "allowed"));
    let banned = [
        (look::Namespaces { max: Some(0), ..allowed() }, "sudo sysctl -w user.max_user_namespaces=15000"),
        (
            look::Namespaces { unprivileged_clone: Some(0), ..allowed() },
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            look::Namespaces { apparmor_restricts: Some(1), ..allowed() },
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    for (seen, command) in banned {
        let check = user_namespaces(&seen, debian());
        assert!(matches!(check.finding, Finding::Missing { .. }), "{seen:?}");
        assert_eq!(mend(&check), command);
    }
    let with_profile = look::Namespaces { apparmor_restricts: Some(1), has_apparmor_profile: true, ..allowed() };
    assert_eq!(user_namespaces(&with_profile, debian()), Check::good("user namespaces", "allowed"));
    let as_root = look::Namespaces { unprivileged_clone: Some(0), is_root: true, ..allowed() };
    assert_eq!(user_namespaces(&as_root, debian()), Check::good("user namespaces", "allowed"));
}

#[test]
fn a_machine_without_git_leaves_repositories_to_others() {
    let check = |version: Option<&str>| git(version.map(|version| version.parse().unwrap()), debian()).finding;
    assert_eq!(check(Some("2.39.5")), Finding::Good { seen: "2.39.5".to_owned() });
    let Finding::Advice { mend, .. } = check(None) else { unreachable!() };
    assert_eq!(mend, "sudo apt-get install git");
    assert!(matches!(check(Some("2.30")), Finding::Advice { seen, .. } if seen.contains("2.31 is needed")));
}

#[test]
fn a_machine_without_a_compiler_may_still_volunteer() {
    let check = compiler(None, debian());
    assert_eq!(mend(&check), "sudo apt-get install gcc libc6-dev make");
    let mut diagnosis = Diagnosis::default();
    diagnosis.add(check);
    assert!(diagnosis.is_ready());
    diagnosis.add(Check::missing("sandbox", "does not start", "node doctor"));
    assert!(!diagnosis.is_ready());
}

#[test]
fn a_home_that_others_can_read_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let home = parent.path().join("home");
    assert_eq!(look::home(&home), look::Home::WillBeMade { below: parent.path().to_owned() });
    std::fs::create_dir(&home).unwrap();
    let set = |mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o755);
    assert_eq!(look::home(&home), look::Home::OpenToOthers { mode: 0o755 });
    assert_eq!(mend(&home_directory(&home, &look::home(&home))), format!("chmod 700 {}", home.display()));
    set(0o700);
    assert_eq!(look::home(&home), look::Home::Good);
    let file = parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(look::home(&file), look::Home::NotADirectory);
}

#[test]
fn disk_and_clock_are_measured_against_what_builds_need() {
    let home = Path::new("/home/me");
    assert_eq!(disk(home, Ok(5 << 30)), Check::good("disk", "5120 MiB free"));
    assert!(matches!(disk(home, Ok(1 << 30)).finding, Finding::Missing { .. }));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    assert_eq!(clock(now, Some(now - Duration::from_secs(1))), Check::good("clock", "plausible"));
    assert!(matches!(clock(now, Some(now + Duration::from_secs(1))).finding, Finding::Missing { .. }));
}

#[test]
fn the_packager_is_known_by_its_family() {
    let install = |release: &str| Packages::of_release(release).install("bubblewrap");
    assert_eq!(install("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), "sudo apt-get install bubblewrap");
    assert_eq!(install("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), "sudo dnf install bubblewrap");
    assert_eq!(install("ID=arch\n"), "sudo pacman -S bubblewrap");
    assert_eq!(install("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n"), "sudo zypper install bubblewrap");
    assert_eq!(install(""), "install the package bubblewrap of your distribution");
}

#[test]
fn a_program_is_an_executable_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tool");
    let find = || look::program("tool", std::iter::once(folder.path().to_owned()));
    assert_eq!(find(), None);
    std::fs::write(&path, "").unwrap();
    assert_eq!(find(), None, "not executable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(find(), Some(path));
}

#[test]
fn a_sandbox_that_fails_names_its_remedy() {
    assert_eq!(sandbox(&Ok(()), debian()), Check::good("sandbox", "a trial build ran in it"));
    let setuid = Unavailable::SetuidBubblewrap { path: "/usr/bin/bwrap".into() };
    assert_eq!(mend(&sandbox(&Err(setuid), debian())), "sudo chmod u-s /usr/bin/bwrap");
    let nested = sandbox(&Err(Unavailable::NamespacesExhausted), debian());
    assert!(matches!(nested.finding, Finding::Missing { .. }));
}

#[test]
fn this_machine_gets_a_whole_diagnosis() {
    let home = tempfile::tempdir().unwrap();
    let names: Vec<_> = diagnose(home.path()).checks().iter().map(|check| check.name).collect();
    let always = ["bubblewrap", "user namespaces", "C compiler", "git", "cgroups", "home", "disk", "clock"];
    let rest: Vec<_> = names.iter().copied().filter(|name| *name != "sandbox").collect();
    assert_eq!(rest, always);
}
