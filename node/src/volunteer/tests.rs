//! The sandbox as it is: hostile steps in the real bubblewrap. On a machine without one, every test here fails and says why.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::cgroup::Absent;
use super::collect::{CollectLimits, OutputPattern};
use super::enclosure::{Enclosure, Setup};
use super::limits::{Limit, Limits};
use super::process::{Outcome, StepEnd};
use super::sandbox::{Confinement, Sandbox, Step, Tool};
use super::workspace::{BuildUser, Workspace};

const ROOMY: Limits = Limits {
    wall: Duration::from_secs(60),
    memory_bytes: 512 << 20,
    processes: 100,
    log_bytes: 1 << 20,
    disk_bytes: 256 << 20,
    cores: 2,
};

/// The machine's sandbox, tried once.
fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let probe = || {
        let home = tempfile::tempdir().unwrap();
        match Sandbox::probe(&home.path().join("work")) {
            Ok(sandbox) => sandbox,
            Err(reason) => panic!(
                "this machine has no sandbox: {reason}; {}",
                reason.remedy().unwrap_or_default()
            ),
        }
    };
    SANDBOX.get_or_init(probe).clone()
}

/// The same sandbox as it is where there are no control groups.
fn polling() -> Sandbox {
    Sandbox {
        confinement: Confinement::Polling(Absent::NotMounted),
        ..sandbox()
    }
}

/// An attempt in a home of its own, which only its owner may enter.
struct Attempt {
    home: tempfile::TempDir,
    enclosure: Enclosure,
}

impl Attempt {
    fn new(sandbox: &Sandbox, limits: Limits, files: &[(&str, &str)]) -> Self {
        Self::with_tools(sandbox, limits, files, Vec::new())
    }

    fn with_tools(
        sandbox: &Sandbox,
        limits: Limits,
        files: &[(&str, &str)],
        tools: Vec<Tool>,
    ) -> Self {
        static SLOT: AtomicU32 = AtomicU32::new(1);
        let slot = SLOT.fetch_add(1, Ordering::Relaxed);
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let user = BuildUser::for_slot(u16::try_from(slot).unwrap());
        let workspace =
            Workspace::create(&home.path().join("work"), &format!("t{slot}"), user).unwrap();
        for (path, text) in files {
            fs::write(workspace.build_path().join(path), text).unwrap();
        }
        workspace.hand_over().unwrap();
        let environment =
            BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), "1700000000".to_owned())]);
        let enclosure = sandbox
            .enclose(Setup {
                workspace,
                tools,
                limits,
                environment,
            })
            .unwrap();
        Self { home, enclosure }
    }

    async fn run(&mut self, argv: &[&str]) -> StepEnd {
        self.enclosure
            .run(&step(argv), &CancellationToken::new())
            .await
    }

    /// Runs a shell script and gives its outcome and what it wrote.
    async fn shell(&mut self, script: &str) -> (Outcome, String) {
        let from = self.enclosure.log().written();
        let end = self.run(&["sh", "-c", script]).await;
        let chunk = self.enclosure.log().read(from);
        (
            end.outcome,
            String::from_utf8_lossy(&chunk.bytes).into_owned(),
        )
    }

    async fn close(self) {
        self.enclosure.close().await.unwrap();
        assert_eq!(
            fs::read_dir(self.home.path().join("work")).unwrap().count(),
            0
        );
    }
}

fn step(argv: &[&str]) -> Step {
    Step {
        argv: argv.iter().map(|&text| text.to_owned()).collect(),
        environment: BTreeMap::new(),
    }
}

async fn shell(script: &str) -> (Outcome, String) {
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let said = attempt.shell(script).await;
    attempt.close().await;
    said
}

/// How many processes carry this word in their command line.
fn living(word: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(word))
        .count()
}

/// A word that no other process has in its command line.
fn canary(name: &str) -> String {
    format!("canary-{name}-{}", std::process::id())
}

fn assert_limit(outcome: &Outcome, expected: Limit) {
    assert!(
        matches!(outcome, Outcome::Limit(limit) if *limit == expected),
        "{outcome:?} instead of {expected}"
    );
}

fn assert_exit(said: &(Outcome, String), expected: i32) {
    assert!(
        matches!(said.0, Outcome::Exited(code) if code == expected),
        "{said:?}"
    );
}

const HELLO: &str =
    "#include <stdio.h>\nint main(void) { puts(\"hello from inside\"); return 0; }\n";

#[tokio::test]
async fn a_c_program_is_built_run_and_collected_below_a_0700_home() {
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[("hello.c", HELLO)]);
    let end = attempt.run(&["cc", "-O2", "-o", "hello", "hello.c"]).await;
    assert!(
        matches!(end.outcome, Outcome::Exited(0)),
        "{end:?} {}",
        String::from_utf8_lossy(&attempt.enclosure.log().to_bytes())
    );
    if let Confinement::ControlGroups(_) = sandbox().confinement() {
        assert!(
            end.usage.cpu > Some(Duration::ZERO) && end.usage.peak_memory_bytes > Some(1 << 20),
            "{:?}",
            end.usage
        );
    }
    let said = attempt.shell("./hello").await;
    assert_exit(&said, 0);
    assert_eq!(said.1, "hello from inside\n");
    let outputs: Vec<OutputPattern> = vec!["hello".parse().unwrap()];
    let mut magic = [0; 4];
    attempt
        .enclosure
        .collect(&outputs, &CollectLimits::default(), |collected, file| {
            assert_eq!(
                (collected.path.as_str(), collected.kind.mode()),
                ("hello", 0o755)
            );
            file.read_exact(&mut magic)
        })
        .unwrap();
    assert_eq!(&magic, b"\x7fELF");
    attempt.close().await;
}

#[tokio::test]
async fn equal_steps_see_an_equal_world() {
    let script =
        "env | sort; id -u; id -g; hostname; umask; pwd; ls -A / $HOME; touch $HOME/kept /tmp/gone";
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let said = attempt.shell(script).await;
    assert_exit(&said, 0);
    let expected = "BUILD_CORES=2\nHOME=/home/build\nLC_ALL=C.UTF-8\nPATH=/usr/bin:/bin\nPWD=/build\nPYTHONDONTWRITEBYTECODE=1\n\
                    PYTHONHASHSEED=0\nSOURCE_DATE_EPOCH=1700000000\nTMPDIR=/tmp\nTZ=UTC\n1000\n1000\nbuild\n0022\n/build\n";
    assert!(said.1.starts_with(expected), "{}", said.1);
    for absent in ["root", "sys", "run", "var", "mnt", "srv"] {
        assert!(
            !said.1.lines().any(|line| line == absent),
            "{absent} is visible: {}",
            said.1
        );
    }
    assert_exit(
        &attempt
            .shell("test -e $HOME/kept && test ! -e /tmp/gone")
            .await,
        0,
    );
    attempt.close().await;
}

#[tokio::test]
async fn nothing_of_our_environment_or_descriptors_comes_in() {
    // Variables that test runners set, and a descriptor that is not closed by `exec`.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some() || std::env::var_os("PATH").is_some());
    let open = rustix::fs::open(
        "/etc",
        rustix::fs::OFlags::RDONLY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    let said = shell("cat /proc/*/environ | tr '\\0' '\\n'; echo; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/self/fd | tr '\\n' ' '").await;
    drop(open);
    assert!(!said.1.contains("CARGO"), "{}", said.1);
    for (name, value) in std::env::vars_os() {
        let assignment = format!("{}={}", name.display(), value.display());
        let allowed = [
            "LC_ALL=C.UTF-8",
            "TZ=UTC",
            "TMPDIR=/tmp",
            "PYTHONHASHSEED=0",
            "PYTHONDONTWRITEBYTECODE=1",
        ]
        .contains(&assignment.as_str());
        assert!(
            allowed || !said.1.lines().any(|line| line == assignment),
            "{assignment} came in"
        );
    }
    let last = said.1.lines().last().unwrap_or_default();
    // 3 is the folder that `ls` itself reads.
    assert_eq!(last, "0 1 2 3 ", "{}", said.1);
    let cmdline = said.1.lines().rev().nth(1).unwrap_or_default();
    assert!(
        cmdline.contains(" --args ") && !cmdline.contains("/tmp") && !cmdline.contains("/work"),
        "{cmdline}"
    );
}

#[tokio::test]
async fn host_files_are_absent_and_the_rest_is_read_only() {
    let script = "for f in /etc/shadow /etc/passwd /etc/hostname /root /home/user /sys /run /var /old_root /proc/1/root/etc/shadow; do \
                  test -e $f && echo seen $f; done; \
                  for d in / /usr /usr/bin /etc /dev /home; do touch $d/x 2>/dev/null && echo wrote $d; done; \
                  touch /build/x /tmp/x /dev/shm/x /home/build/x && echo end";
    let said = shell(script).await;
    assert_eq!(said.1, "end\n", "{said:?}");
}

const PROBES: &str = include_str!("tests/probes.c");

#[tokio::test]
async fn forbidden_calls_are_refused_by_name() {
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port().to_string();
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[("probes.c", PROBES)]);
    let built = attempt.run(&["cc", "-o", "probes", "probes.c"]).await;
    assert!(
        matches!(built.outcome, Outcome::Exited(0)),
        "{}",
        String::from_utf8_lossy(&attempt.enclosure.log().to_bytes())
    );
    let said = attempt.shell(&format!("./probes {port}")).await;
    let expected = "loopback refused\nexternal unreachable\nvsock EPERM\nnetlink EPERM\npacket EPERM\nunshare EPERM\nclone-newuser EPERM\n\
                    clone3 ENOSYS\nmount EPERM\nptrace EPERM\nkeyctl EPERM\nbpf EPERM\nperf EPERM\nuserfaultfd EPERM\nio_uring ENOSYS\n\
                    open_tree ENOSYS\nchmod-setuid EPERM\nfchmodat2 ENOSYS\nsetxattr EPERM\ntiocsti EPERM\nchmod-plain ok\nsocketpair ok\n\
                    x32 SIGSYS\ni386 SIGSYS\n";
    assert_eq!(said.1, expected);
    assert_exit(&said, 0);
    attempt.close().await;
}

#[tokio::test]
async fn namespaces_cannot_be_made_inside() {
    let said = shell(
        "unshare -Ur id; unshare -n id; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status",
    )
    .await;
    assert!(!said.1.contains("uid=0"), "{}", said.1);
    assert_eq!(said.1.matches("0000000000000000").count(), 5, "{}", said.1);
    assert!(
        said.1.contains("NoNewPrivs:\t1") && said.1.contains("Seccomp:\t2"),
        "{}",
        said.1
    );
}

#[tokio::test]
async fn no_process_of_a_build_is_root_outside() {
    let word = canary("uid");
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let expected = attempt.enclosure.workspace().user().uid();
    let path = attempt.enclosure.workspace().build_path();
    let cancel = CancellationToken::new();
    let watching = tokio::spawn({
        let (word, cancel, path) = (word.clone(), cancel.clone(), path.clone());
        async move {
            until(|| path.join("up").exists()).await;
            let all = fs::read_dir("/proc").unwrap().flatten();
            let ours = all.filter(|entry| {
                fs::read_to_string(entry.path().join("cmdline"))
                    .is_ok_and(|line| line.contains(&word))
            });
            let uids: Vec<String> = ours
                .filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok())
                .filter_map(|status| {
                    status
                        .lines()
                        .find(|line| line.starts_with("Uid:"))
                        .map(str::to_owned)
                })
                .collect();
            cancel.cancel();
            uids
        }
    });
    let end = attempt
        .enclosure
        .run(
            &step(&["sh", "-c", &format!("touch up; sleep 60; : {word}")]),
            &cancel,
        )
        .await;
    assert!(matches!(end.outcome, Outcome::Cancelled), "{end:?}");
    let uids = watching.await.unwrap();
    assert!(
        uids.len() >= 3,
        "watcher, process 1 and the shell: {uids:?}"
    );
    for line in uids {
        assert!(
            line.split_whitespace()
                .skip(1)
                .all(|uid| uid == expected.to_string()),
            "{line} instead of {expected}"
        );
    }
    attempt.close().await;
}

/// Waits for a condition, at most half a minute.
async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ends_by(
    sandbox: &Sandbox,
    limits: Limits,
    files: &[(&str, &str)],
    argv: &[&str],
    word: &str,
    expected: &[Limit],
) {
    let mut attempt = Attempt::new(sandbox, limits, files);
    let started = Instant::now();
    let end = attempt.run(argv).await;
    assert!(
        matches!(&end.outcome, Outcome::Limit(limit) if expected.contains(limit)),
        "{end:?} instead of {expected:?}"
    );
    assert!(
        started.elapsed() < limits.wall + Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(living(word), 0, "processes are left");
    attempt.close().await;
}

#[tokio::test]
async fn a_fork_bomb_is_capped_and_dies() {
    let word = canary("bomb");
    let bomb = format!("b() {{ b | b & }}; (b); sleep 30; : {word}");
    let limits = Limits {
        wall: Duration::from_secs(4),
        processes: 60,
        ..ROOMY
    };
    for sandbox in [sandbox(), polling()] {
        ends_by(
            &sandbox,
            limits,
            &[],
            &["sh", "-c", &bomb],
            &word,
            &[Limit::Processes, Limit::Deadline],
        )
        .await;
    }
}

const EATER: &str = "#include <stdlib.h>\n#include <string.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
    int main(int argc, char **argv) { if (argc > 1) { for (int i = 0; i < 4; i++) if (!fork()) break; else if (i == 3) \
    { while (wait(0) > 0); return 0; } } for (;;) { char *p = malloc(1 << 20); if (!p) return 9; memset(p, 1, 1 << 20); } }\n";

#[tokio::test]
async fn memory_is_limited_for_one_process_and_for_its_children() {
    let limits = Limits {
        memory_bytes: 192 << 20,
        wall: Duration::from_secs(30),
        ..ROOMY
    };
    for sandbox in [sandbox(), polling()] {
        for more in ["", " children"] {
            let word = canary("memory");
            let script = format!("cc -o eater eater.c && ./eater{more}; echo {word}; exit 0");
            // The parent exits with 0 although its children were killed.
            ends_by(
                &sandbox,
                limits,
                &[("eater.c", EATER)],
                &["sh", "-c", &script],
                &word,
                &[Limit::Memory],
            )
            .await;
        }
    }
}

#[tokio::test]
async fn temporary_files_count_as_memory_and_are_bounded() {
    let mut attempt = Attempt::new(
        &sandbox(),
        Limits {
            memory_bytes: 256 << 20,
            ..ROOMY
        },
        &[],
    );
    let said = attempt.shell("dd if=/dev/zero of=/tmp/x bs=1M count=600 2>/dev/null; dd if=/dev/zero of=/dev/shm/x bs=1M count=600 2>/dev/null; du -m /tmp /dev/shm").await;
    match &said.0 {
        Outcome::Limit(Limit::Memory) => {}
        Outcome::Exited(0) => assert_eq!(said.1, "128\t/tmp\n64\t/dev/shm\n"),
        other => panic!("{other:?}"),
    }
    attempt.close().await;
}

#[tokio::test]
async fn a_log_flood_is_killed_and_both_ends_are_kept() {
    let limits = Limits {
        log_bytes: 64 << 10,
        ..ROOMY
    };
    let mut attempt = Attempt::new(&sandbox(), limits, &[]);
    let end = attempt.run(&["sh", "-c", "echo first; yes"]).await;
    assert_limit(&end.outcome, Limit::Log);
    assert!(end.usage.wall < Duration::from_secs(20), "{:?}", end.usage);
    let log = attempt.enclosure.log().to_bytes();
    assert!(
        log.starts_with(b"first\ny\n") && log.len() < (64 << 10) + 100,
        "{}",
        log.len()
    );
    attempt.close().await;
}

#[tokio::test]
async fn the_deadline_kills_what_ignores_signals_and_counts_over_steps() {
    let word = canary("deadline");
    let limits = Limits {
        wall: Duration::from_millis(1500),
        ..ROOMY
    };
    let mut attempt = Attempt::new(&sandbox(), limits, &[]);
    let script = format!("trap '' TERM INT HUP; while :; do sleep 1; done; : {word}");
    assert_exit(&attempt.shell("sleep 0.5").await, 0);
    let started = Instant::now();
    let end = attempt.run(&["sh", "-c", &script]).await;
    assert_limit(&end.outcome, Limit::Deadline);
    assert!(
        started.elapsed() < Duration::from_secs(1) + Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(living(&word), 0);
    assert_limit(&attempt.run(&["true"]).await.outcome, Limit::Deadline);
    attempt.close().await;
}

#[tokio::test]
async fn a_daemon_dies_with_its_step() {
    let word = canary("daemon");
    for sandbox in [sandbox(), polling()] {
        let mut attempt = Attempt::new(&sandbox, ROOMY, &[]);
        let script = format!(
            "(trap '' TERM HUP; setsid sh -c 'while :; do sleep 1; echo late > /build/late; done; : {word}' &) ; sleep 0.2; echo main ends"
        );
        let said = attempt.shell(&script).await;
        assert_exit(&said, 0);
        assert_eq!(living(&word), 0, "the daemon lives");
        attempt.close().await;
    }
}

#[tokio::test]
async fn cancelling_kills_everything() {
    let word = canary("cancel");
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let up = attempt.enclosure.workspace().build_path().join("up");
    let cancel = CancellationToken::new();
    let ordered = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            until(|| up.exists()).await;
            cancel.cancel();
        }
    });
    let script = format!("for i in 1 2 3 4 5; do (sleep 100; : {word}) & done; touch up; wait");
    let end = attempt
        .enclosure
        .run(&step(&["sh", "-c", &script]), &cancel)
        .await;
    assert!(matches!(end.outcome, Outcome::Cancelled), "{end:?}");
    assert_eq!(living(&word), 0);
    ordered.await.unwrap();
    let again = attempt.enclosure.run(&step(&["true"]), &cancel).await;
    assert!(matches!(again.outcome, Outcome::Cancelled), "{again:?}");
    attempt.close().await;
}

#[tokio::test]
async fn a_cancelled_start_leaves_nothing_whenever_it_comes() {
    let word = canary("early");
    for delay_us in (0..40).map(|n| n * 700) {
        let mut attempt = Attempt::new(&polling(), ROOMY, &[]);
        let cancel = CancellationToken::new();
        let later = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                tokio::time::sleep(Duration::from_micros(delay_us)).await;
                cancel.cancel();
            }
        });
        let end = attempt
            .enclosure
            .run(
                &step(&["sh", "-c", &format!("sleep 100; : {word}")]),
                &cancel,
            )
            .await;
        assert!(
            matches!(end.outcome, Outcome::Cancelled),
            "{delay_us} us: {end:?}"
        );
        assert_eq!(living(&word), 0, "after {delay_us} us");
        later.await.unwrap();
        attempt.close().await;
    }
}

#[tokio::test]
async fn an_abandoned_step_is_killed_before_the_next_one_starts() {
    let word = canary("abandoned");
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let step = step(&["sh", "-c", &format!("sleep 100; : {word}")]);
    let never = CancellationToken::new();
    tokio::select! {
        end = attempt.enclosure.run(&step, &never) => panic!("{end:?}"),
        () = until(|| living(&word) >= 3) => {}
    }
    let nothing: Result<(), _> =
        attempt
            .enclosure
            .collect(&[], &CollectLimits::default(), |_, _| Ok(()));
    assert!(nothing.is_err(), "collected from a living build");
    assert_exit(&attempt.shell("true").await, 0);
    assert_eq!(living(&word), 0);
    attempt.close().await;
}

#[tokio::test]
async fn the_disk_is_limited_against_big_many_and_promised_files() {
    let limits = Limits {
        disk_bytes: 32 << 20,
        wall: Duration::from_secs(40),
        memory_bytes: 1 << 30,
        ..ROOMY
    };
    for script in [
        "exec dd if=/dev/zero of=big bs=1M count=500",
        "exec fallocate -l 20G big",
        "exec truncate -s 1T sparse",
        "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=part$i bs=1M count=8 2>/dev/null; done",
        "mkdir d; i=0; while :; do i=$((i+1)); : > d/$i; done",
        "mkdir locked; dd if=/dev/zero of=locked/a bs=1M count=30 2>/dev/null; dd if=/dev/zero of=locked/b bs=1M count=30 2>/dev/null; \
         chmod 0 locked; sleep 60",
    ] {
        let mut attempt = Attempt::new(&sandbox(), limits, &[]);
        let end = attempt.run(&["sh", "-c", script]).await;
        assert!(
            matches!(end.outcome, Outcome::Limit(Limit::Disk)),
            "{script}: {end:?}"
        );
        attempt.close().await;
    }
}

#[tokio::test]
async fn commands_that_cannot_run_are_the_recipes_fault() {
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[("data", "text")]);
    for (argv, code) in [
        (vec!["no-such-compiler"], 127),
        (vec!["./data"], 126),
        (vec!["sh", "-c", "exit 7"], 7),
    ] {
        let end = attempt.run(&argv).await;
        assert!(
            matches!(end.outcome, Outcome::Exited(found) if found == code),
            "{argv:?}: {end:?}"
        );
    }
    let end = attempt.run(&["sh", "-c", "kill -SEGV $$"]).await;
    assert!(matches!(end.outcome, Outcome::Signalled(11)), "{end:?}");
    assert!(matches!(
        attempt.run(&[]).await.outcome,
        Outcome::SandboxFailed(_)
    ));
    attempt.close().await;
}

#[tokio::test]
async fn a_tool_is_at_its_own_path_first_in_path_and_read_only() {
    let prefix = tempfile::Builder::new().prefix("tool").tempdir().unwrap();
    let inner = prefix.path().join("opt/greet");
    fs::create_dir_all(inner.join("bin")).unwrap();
    fs::write(
        inner.join("bin/greet"),
        "#!/bin/sh\necho greetings from $0\n",
    )
    .unwrap();
    fs::set_permissions(inner.join("bin/greet"), fs::Permissions::from_mode(0o755)).unwrap();
    let tool = Tool::new("greet", &inner).unwrap();
    let mut attempt = Attempt::with_tools(&sandbox(), ROOMY, &[], vec![tool.clone(), tool]);
    let said = attempt
        .shell(&format!(
            "greet; touch {0}/x 2>/dev/null && echo wrote; ls {0}; ls {1}",
            inner.display(),
            prefix.path().display()
        ))
        .await;
    assert_eq!(
        said.1,
        format!("greetings from {}/bin/greet\nbin\nopt\n", inner.display()),
        "{said:?}"
    );
    attempt.close().await;
}

#[tokio::test]
async fn the_log_is_followed_while_the_step_runs() {
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let log = attempt.enclosure.log().clone();
    let go = attempt.enclosure.workspace().build_path().join("go");
    let uid = attempt.enclosure.workspace().user().uid();
    let follower = tokio::spawn(async move {
        log.grown_past(0).await;
        let first = log.read(0);
        assert_eq!(
            (first.bytes.as_slice(), first.finished),
            (b"one\n".as_slice(), false)
        );
        fs::write(&go, b"").unwrap();
        std::os::unix::fs::chown(&go, Some(uid), Some(uid)).ok();
        log.grown_past(first.next).await;
        log.read(first.next).bytes
    });
    let end = attempt
        .run(&[
            "sh",
            "-c",
            "echo one; while ! test -e go; do sleep 0.01; done; echo two",
        ])
        .await;
    assert!(matches!(end.outcome, Outcome::Exited(0)), "{end:?}");
    assert_eq!(follower.await.unwrap(), b"two\n");
    attempt.close().await;
}

#[tokio::test]
async fn what_a_hostile_build_leaves_is_refused_and_removed() {
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let script = "ln -s /etc/shadow shadow; mkfifo pipe; mkdir -p locked/inner; touch locked/inner/x \"$(printf 'bad\\n\\033[31mname')\"; \
                  chmod 000 locked/inner locked; d=.; for i in $(seq 300); do mkdir d && cd d; done";
    assert_exit(&attempt.shell(script).await, 0);
    for (output, named) in [
        ("shadow", "a symbolic link"),
        ("pipe", "a pipe"),
        ("bad*", "unacceptable name"),
        ("locked/**", "locked"),
    ] {
        let outputs = [output.parse().unwrap()];
        let refusal = attempt
            .enclosure
            .collect(&outputs, &CollectLimits::default(), |_, _| Ok(()))
            .map_err(|error| error.to_string());
        match refusal {
            Err(text) => assert!(text.contains(named), "{output}: {text}"),
            // Root may look into a locked folder, and finds a plain file there.
            Ok(()) => assert!(
                output == "locked/**" && rustix::process::geteuid().is_root(),
                "{output} was collected"
            ),
        }
    }
    attempt.close().await;
}

#[tokio::test]
async fn processors_are_limited() {
    for sandbox in [sandbox(), polling()] {
        let mut attempt = Attempt::new(&sandbox, Limits { cores: 1, ..ROOMY }, &[]);
        let busy = "for i in 1 2 3; do (timeout 1 sh -c 'while :; do :; done') & done; wait";
        let end = attempt.run(&["sh", "-c", busy]).await;
        assert!(matches!(end.outcome, Outcome::Exited(0)), "{end:?}");
        let cpu = end.usage.cpu.unwrap();
        assert!(
            cpu > Duration::from_millis(50) && cpu < end.usage.wall.mul_f64(1.3),
            "{:?}",
            end.usage
        );
        attempt.close().await;
    }
}

const VICTIM_HOME: &str = "BARNRAISE_TEST_VICTIM_HOME";

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
#[ignore = "run by `killing_us_kills_the_build_and_the_next_start_clears_up`"]
async fn a_victim() {
    let work = Path::new(&std::env::var_os(VICTIM_HOME).unwrap()).join("work");
    let workspace = Workspace::create(&work, "victim", BuildUser::for_slot(9)).unwrap();
    let setup = Setup {
        workspace,
        tools: Vec::new(),
        limits: ROOMY,
        environment: BTreeMap::new(),
    };
    let mut enclosure = sandbox().enclose(setup).unwrap();
    let script = format!(
        "touch up; (trap '' TERM HUP; setsid sleep 100) & sleep 100; : {}",
        work.display()
    );
    enclosure
        .run(&step(&["sh", "-c", &script]), &CancellationToken::new())
        .await;
}

#[tokio::test]
async fn killing_us_kills_the_build_and_the_next_start_clears_up() {
    let home = tempfile::tempdir().unwrap();
    let word = home.path().display().to_string();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "volunteer::tests::a_victim", "--ignored"])
        .env(VICTIM_HOME, home.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let up = home.path().join("work/victim/build/up");
    until(|| up.exists()).await;
    assert!(living(&word) >= 3);
    let groups = fs::read_to_string(home.path().join("work/victim/groups")).unwrap_or_default();
    victim.kill().unwrap();
    victim.wait().unwrap();
    until(|| living(&word) == 0).await;
    assert_eq!(
        super::workspace::sweep(&home.path().join("work")).unwrap(),
        1
    );
    assert!(
        groups.lines().all(|folder| !Path::new(folder).exists()),
        "{groups}"
    );
    if let Confinement::ControlGroups(_) = sandbox().confinement() {
        assert!(groups.lines().count() >= 1);
    }
}

/// Runs the tests of this file, and of its neighbours, once more as an ordinary user.
#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // Then the other tests have just been that.
    }
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, mode: u32| -> PathBuf {
        let path = folder.path().join(name);
        if name == "tmp" {
            fs::create_dir(&path).unwrap()
        } else {
            fs::copy(std::env::current_exe().unwrap(), &path)
                .map(drop)
                .unwrap()
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (tests, tmp) = (place("tests", 0o755), place("tmp", 0o1777));
    let run = Command::new("setpriv")
        .args(["--reuid=61120", "--regid=61120", "--clear-groups", "--"])
        .arg(tests)
        .args(["volunteer::", "--test-threads=2"])
        .env("TMPDIR", tmp)
        .current_dir(Path::new("/"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "as an ordinary user:\n{said}");
    assert!(
        said.contains("test volunteer::tests::a_fork_bomb_is_capped_and_dies ... ok"),
        "{said}"
    );
}
