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

use super::{
    Absent, Alias, BuildLog, BuildUser, CollectLimits, Confinement, Enclosure, Limits, Outcome, OutputPattern, Sandbox,
    Setup, Step, StepEnd, Surroundings, Tool, Vitals, Workspace, sweep,
};
use protocol::report::Limit;

const ROOMY: Limits = Limits {
    wall: Duration::from_secs(60),
    memory_bytes: 512 << 20,
    processes: 100,
    log_bytes: 1 << 20,
    disk_bytes: 256 << 20,
    cores: 2,
    quiet: Duration::from_secs(60),
};

/// The machine's sandbox, tried once.
fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    let probe = || {
        let home = tempfile::tempdir().unwrap();
        match Sandbox::probe(&home.path().join("work")) {
            Ok(sandbox) => sandbox,
            Err(reason) => panic!("this machine has no sandbox: {reason}; {}", reason.remedy().unwrap_or_default()),
        }
    };
    SANDBOX.get_or_init(probe).clone()
}

/// The same sandbox as it is where there are no control groups.
fn polling() -> Sandbox {
    Sandbox { confinement: Confinement::Polling(Absent::NotMounted), ..sandbox() }
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

    fn with_tools(sandbox: &Sandbox, limits: Limits, files: &[(&str, &str)], tools: Vec<Tool>) -> Self {
        Self::furnished(sandbox, limits, files, tools, Vec::new())
    }

    fn furnished(
        sandbox: &Sandbox,
        limits: Limits,
        files: &[(&str, &str)],
        tools: Vec<Tool>,
        aliases: Vec<Alias>,
    ) -> Self {
        static SLOT: AtomicU32 = AtomicU32::new(1);
        let slot = SLOT.fetch_add(1, Ordering::Relaxed);
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let user = BuildUser::for_slot(u16::try_from(slot).unwrap());
        let workspace = Workspace::create(&home.path().join("work"), &format!("t{slot}"), user).unwrap();
        for (path, text) in files {
            fs::write(workspace.build_path().join(path), text).unwrap();
        }
        workspace.hand_over().unwrap();
        let environment = BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), "1700000000".to_owned())]);
        let log = BuildLog::new(limits.log_bytes);
        let surroundings = Surroundings::USUAL;
        let enclosure = sandbox
            .enclose(Setup {
                workspace,
                tools,
                aliases,
                limits,
                environment,
                surroundings,
                log,
                vitals: Vitals::default(),
            })
            .unwrap();
        Self { home, enclosure }
    }

    async fn run(&mut self, argv: &[&str]) -> StepEnd {
        self.enclosure.run(&step(argv), &CancellationToken::new()).await
    }

    /// Runs a shell script and gives its outcome and what it wrote.
    async fn shell(&mut self, script: &str) -> (Outcome, String) {
        let from = self.enclosure.log().written();
        let end = self.run(&["sh", "-c", script]).await;
        let chunk = self.enclosure.log().read(from);
        (end.outcome, String::from_utf8_lossy(&chunk.bytes).into_owned())
    }

    async fn close(self) {
        self.enclosure.close().await.unwrap();
        assert_eq!(fs::read_dir(self.home.path().join("work")).unwrap().count(), 0);
    }
}

fn step(argv: &[&str]) -> Step {
    Step { argv: argv.iter().map(|&text| text.to_owned()).collect(), environment: BTreeMap::new() }
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
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

/// A word that no other process has in its command line.
fn canary(name: &str) -> String {
    format!("canary-{name}-{}", std::process::id())
}

fn assert_limit(outcome: &Outcome, expected: Limit) {
    assert!(matches!(outcome, Outcome::Limit(limit) if *limit == expected), "{outcome:?} instead of {expected}");
}

fn assert_exit(said: &(Outcome, String), expected: i32) {
    assert!(matches!(said.0, Outcome::Exited(code) if code == expected), "{said:?}");
}

/// Waits for a condition, at most half a minute.
async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

mod ending;
mod inside;
mod limits;
