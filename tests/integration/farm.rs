//! Real `node` processes with homes of their own, as a person starts them.
//!
//! Homes are folders of mode 0700 below a temporary one; everything listens on 127.0.0.1. Only processes started here are ever
//! ended, and all of them are, also when a test fails. A tester who is root can run a farm as an ordinary user.

use crate::deadline::{SOON, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

/// The program under test.
pub(crate) const NODE: &str = env!("CARGO_BIN_EXE_node");

/// The most output that is kept of one process, in bytes.
const MAX_OUTPUT_BYTES: usize = 4 << 20;

/// A farm's machines on this machine.
#[derive(Debug)]
pub(crate) struct Farm {
    folder: Arc<tempfile::TempDir>,
    user: User,
    /// The words that start the program.
    program: Arc<[OsString]>,
}

/// As whom the processes of a farm run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// As whoever runs the tests.
    Tester,
    /// As this user and the group of the same number, neither of which needs a name.
    Ordinary(u32),
}

/// One home directory, and commands as its person gives them.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    path: PathBuf,
    program: Arc<[OsString]>,
    /// The folder stays for as long as any home in it.
    _folder: Arc<tempfile::TempDir>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Farm {
    /// No machine yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("barnraise-test-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        Self { folder: Arc::new(folder), user: User::Tester, program: Arc::new([NODE.into()]) }
    }

    /// No machine yet, and all that will come belong to `user`. The program is copied to where that user can reach it.
    pub(crate) fn of(user: User) -> Self {
        let farm = Self::new();
        let User::Ordinary(uid) = user else { return farm };
        let program = farm.folder().join("node");
        fs::copy(NODE, &program).unwrap();
        let drop_rights = [format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".to_owned()];
        let words = ["setpriv".into()].into_iter().chain(drop_rights.map(OsString::from)).chain([program.into()]);
        let farm = Self { user, program: words.collect(), ..farm };
        farm.hand_over(farm.folder());
        farm
    }

    /// Gives a file or folder to the user as whom this farm runs.
    pub(crate) fn hand_over(&self, path: &Path) {
        if let User::Ordinary(uid) = self.user {
            chown(path, Some(uid), Some(uid)).unwrap();
        }
    }

    /// A folder that everything of this farm may use.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A fresh home of this name.
    pub(crate) fn home(&self, name: &str) -> Home {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        self.hand_over(&path);
        Home { path, program: Arc::clone(&self.program), _folder: Arc::clone(&self.folder) }
    }
}

impl Home {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A command in this home, with nothing of the tester's environment that the program reads.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(words).current_dir(&self.path).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("NODE_") || name.starts_with("XDG_")) {
                command.env_remove(name);
            }
        }
        command.env("NODE_HOME", &self.path).env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, words: &[&str], within: Duration) -> Ran {
        let mut started = Process::start(&mut self.command(words));
        wait_for(&format!("the end of `node {}`", words.join(" ")), within, || started.ended());
        started.end(within)
    }

    /// Starts a daemon on a port of 127.0.0.1 that the system chooses.
    pub(crate) fn daemon(&self, words: &[&str]) -> Process {
        self.daemon_at(words, &Self::any_port())
    }

    /// Ports of 127.0.0.1 that the system chooses.
    pub(crate) fn any_port() -> [String; 2] {
        ["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()]
    }

    /// Starts a daemon at these addresses.
    pub(crate) fn daemon_at(&self, words: &[&str], addresses: &[String]) -> Process {
        Process::start(&mut self.daemon_command(words, addresses))
    }

    /// What starts a daemon at these addresses.
    pub(crate) fn daemon_command(&self, words: &[&str], addresses: &[String]) -> Command {
        let listen = addresses.iter().flat_map(|address| ["--listen", address]);
        self.command(words.iter().copied().chain(listen))
    }
}

impl Ran {
    /// The one JSON object on stdout.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("stdout is not one JSON value ({error}): {:?}\n{}", self.stdout, self.stderr)
        });
        assert!(object.is_object(), "{object}");
        object
    }

    /// The same, after the exit code was compared.
    #[track_caller]
    pub(crate) fn ended_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

/// What a process wrote so far.
#[derive(Clone, Debug, Default)]
struct Written(Arc<Mutex<String>>);

impl Written {
    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }

    fn collect(&self, stream: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let written = self.clone();
        thread::spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let mut text = written.0.lock().unwrap();
                if text.len() < MAX_OUTPUT_BYTES {
                    text.push_str(&String::from_utf8_lossy(&line));
                }
                line.clear();
            }
        })
    }
}

/// A process started here; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdout: Written,
    stderr: Written,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts a process and reads all it writes.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (Written::default(), Written::default());
        let readers = vec![stdout.collect(child.stdout.take().unwrap()), stderr.collect(child.stderr.take().unwrap())];
        Self { child, stdout, stderr, readers }
    }

    /// The first line of stdout that `wanted` takes, waited for.
    #[track_caller]
    pub(crate) fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let look = || {
            let text = self.stdout.text();
            // A line that has no end yet may still grow.
            let (whole, _) = text.rsplit_once('\n')?;
            whole.lines().find(|line| wanted(line)).map(str::to_owned)
        };
        let until = std::time::Instant::now() + SOON;
        loop {
            if let Some(line) = look() {
                return line;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status} before {what}: {}{}", self.stdout.text(), self.stderr.text());
            }
            assert!(std::time::Instant::now() < until, "{what} never came: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it says something to stderr, and tells a moment at which it had not been said yet, at most a few
    /// milliseconds before it was.
    #[track_caller]
    pub(crate) fn says(&mut self, words: &str, within: Duration) -> SystemTime {
        let mut before = SystemTime::now();
        wait_for(&format!("`{words}`"), within, || {
            let now = SystemTime::now();
            if self.stderr.text().contains(words) {
                return Some(before);
            }
            before = now;
            if let Some(status) = self.ended() {
                panic!("it ended with {status} before it said `{words}`: {}", self.stderr.text());
            }
            None
        })
    }

    /// Waits until it ends.
    #[track_caller]
    pub(crate) fn end(mut self, within: Duration) -> Ran {
        let status = wait_for("the end of a command", within, || self.ended());
        self.drain();
        Ran { code: status.code(), stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    /// What it wrote to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Asks it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait_for("an orderly end", SOON, || self.ended())
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        // A process that has ended cannot be killed, which is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until everything it wrote was read.
    fn drain(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- stderr of process {}\n{}", self.pid(), self.stderr.text());
        }
    }
}

#[test]
fn a_process_is_read_signalled_and_ended() {
    let shell = |script: &str| Process::start(Command::new("sh").args(["-c", script]).stdin(Stdio::null()));
    let mut polite = shell("trap 'echo bye >&2; exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    assert_eq!(polite.line("a first line", |line| line.starts_with("re")), "ready");
    assert_eq!(polite.stop().code(), Some(7));
    polite.drain();
    assert_eq!(polite.stderr(), "bye\n");

    let mut stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done");
    stubborn.line("a first line", |line| line == "ready");
    stubborn.signal(Signal::TERM);
    let pid = Pid::from_raw(i32::try_from(stubborn.pid()).unwrap()).unwrap();
    assert!(stubborn.ended().is_none());
    drop(stubborn);
    assert!(rustix::process::test_kill_process(pid).is_err(), "what was dropped is gone");
}
