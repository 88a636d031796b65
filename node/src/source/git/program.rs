//! Git as it is run here: shut in, and without a will of its own.
//!
//! It sees an empty home, no configuration of the machine or of any person, no hooks, no helpers for credentials, no proxy of
//! the environment and no protocol but those it is told. Nothing is ever checked out, so attributes and filters have nothing
//! to act on, and a submodule is one entry among others. It runs in a process group of its own, which ends with whoever waits.

use super::place::User;
use crate::source::FetchError;
use protocol::platform::Version;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// The most that is kept of what git complains about, in bytes.
const MAX_COMPLAINT_BYTES: usize = 4 << 10;
/// The longest line of a complaint that is passed on.
const MAX_LINE_CHARS: usize = 300;

/// What is set for every run.
const SETTINGS: [(&str, &str); 24] = [
    ("advice.detachedHead", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.bigFileThreshold", "16m"),
    ("credential.helper", ""),
    ("fetch.fsckObjects", "true"),
    // Faults of old tools in the dates and modes of old commits; no reader is misled by them.
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.recurseSubmodules", "false"),
    // Objects stay packed as they came, so that what is written is bounded by what came.
    ("fetch.unpackLimit", "1"),
    ("fetch.writeCommitGraph", "false"),
    ("gc.auto", "0"),
    ("http.followRedirects", "false"),
    ("http.sslVerify", "true"),
    ("maintenance.auto", "false"),
    ("pack.threads", "1"),
    ("protocol.allow", "never"),
    ("remote.origin.tagOpt", "--no-tags"),
    ("submodule.recurse", "false"),
    ("transfer.bundleURI", "false"),
    ("transfer.fsckObjects", "true"),
];

/// How to run git.
#[derive(Clone, Debug)]
pub(super) struct Program {
    user: User,
    environment: Vec<(OsString, OsString)>,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The end of what it wrote to stderr.
    pub(super) complaint: String,
}

impl Program {
    /// Git run as `user`, with an empty folder as its home, working on `repository`, with these settings more.
    pub(super) fn new(user: User, home: &Path, repository: &Path, more: &[(String, String)]) -> Self {
        let mut environment: Vec<(OsString, OsString)> = vec![
            ("HOME".into(), home.into()),
            ("XDG_CONFIG_HOME".into(), home.into()),
            ("GIT_DIR".into(), repository.into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM".into(), "1".into()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("GIT_ASKPASS".into(), "true".into()),
            ("GIT_NO_LAZY_FETCH".into(), "1".into()),
            ("GIT_NO_REPLACE_OBJECTS".into(), "1".into()),
            ("GIT_OPTIONAL_LOCKS".into(), "0".into()),
            ("LC_ALL".into(), "C".into()),
        ];
        environment.extend(std::env::var_os("PATH").map(|path| ("PATH".into(), path)));
        let settings = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut count = 0;
        for (key, value) in settings.chain(more.iter().cloned()) {
            environment.push((format!("GIT_CONFIG_KEY_{count}").into(), key.into()));
            environment.push((format!("GIT_CONFIG_VALUE_{count}").into(), value.into()));
            count += 1;
        }
        environment.push(("GIT_CONFIG_COUNT".into(), count.to_string().into()));
        Self { user, environment }
    }

    /// A run, not yet started: silent, without input.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(words).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        if let User::Own(uid) = self.user {
            // With the groups of root taken away as well.
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs git to its end, handing on what it writes; `None` when it takes longer than `within`, and then it is dead.
    pub(super) async fn run(
        &self,
        words: &[&str],
        within: Duration,
        mut take: impl FnMut(&[u8]),
    ) -> Result<Option<Ended>, FetchError> {
        let mut command = tokio::process::Command::from(self.command(words));
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().map_err(not_started)?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut complaint = Vec::new();
        let running = async {
            let taking = read_all(stdout, &mut take);
            let keeping = read_all(stderr, |bytes| {
                complaint.extend_from_slice(bytes);
                complaint.drain(..complaint.len().saturating_sub(MAX_COMPLAINT_BYTES));
            });
            let (taken, kept) = tokio::join!(taking, keeping);
            taken.and(kept)?;
            child.wait().await
        };
        match timeout(within, running).await {
            Ok(Ok(status)) => {
                group.has_ended();
                Ok(Some(Ended { status, complaint: String::from_utf8_lossy(&complaint).into_owned() }))
            }
            Ok(Err(error)) => Err(FetchError::Git { doing: "be run", said: error.to_string() }),
            Err(_) => Ok(None),
        }
    }
}

impl Ended {
    /// What git said last, for a sentence.
    pub(super) fn said(&self) -> String {
        let mut lines = self.complaint.lines().map(str::trim).filter(|line| !line.is_empty());
        let telling = lines.clone().rfind(|line| line.starts_with("fatal: ") || line.starts_with("error: "));
        match telling.or_else(|| lines.next_back()) {
            Some(line) => {
                let line = line.trim_start_matches("fatal: ").trim_start_matches("error: ");
                line.chars().take(MAX_LINE_CHARS).collect()
            }
            None => format!("it ended with {}", self.status),
        }
    }
}

/// The version of the git that is installed, if it runs.
pub(super) async fn version() -> Option<Version> {
    let nowhere = Path::new("/nonexistent");
    let mut printed = Vec::new();
    let program = Program::new(User::here(), nowhere, nowhere, &[]);
    let ended = program.run(&["--version"], Duration::from_secs(10), |bytes| printed.extend_from_slice(bytes)).await;
    let worked = matches!(ended, Ok(Some(Ended { status, .. })) if status.success());
    worked.then(|| Version::find(&String::from_utf8_lossy(&printed)))?
}

fn not_started(error: io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::NotFound => FetchError::NoGit,
        _ => FetchError::Git { doing: "be started", said: error.to_string() },
    }
}

async fn read_all(stream: Option<impl AsyncRead + Unpin>, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; 32 << 10];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            len => take(&buffer[..len]),
        }
    }
}

/// A process and all it started, killed unless they have ended.
struct Group(Option<Pid>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0
            && let Err(error) = kill_process_group(leader, Signal::KILL)
        {
            tracing::debug!(%error, "a git has ended before it was killed");
        }
    }
}
