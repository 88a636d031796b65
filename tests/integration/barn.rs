//! A farm that works: a coordinator, volunteers and people, each in a home of its own, and builds that wait at a gate.
//!
//! A [`Gate`] is a tool whose owner opens it: a build that goes through it lasts exactly as long as a test wants, whatever the
//! machine is busy with, and its processes can be found by a word of their command line.

use crate::deadline::{BUILD, wait_for};
use crate::farm::{Farm, Home, Process, Ran, User};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, SystemTime};

/// How long a daemon may take to serve. A volunteer tries its sandbox and every tool before that.
const START: Duration = Duration::from_secs(90);
/// Farms that work at the same time.
const FARMS_AT_ONCE: usize = 2;

static WORKING: Mutex<usize> = Mutex::new(0);
static TURN: Condvar = Condvar::new();

/// The right to keep this machine busy; whoever has none waits.
#[derive(Debug)]
struct Turn;

impl Turn {
    fn take() -> Self {
        let mut working = TURN.wait_while(WORKING.lock().unwrap(), |working| *working >= FARMS_AT_ONCE).unwrap();
        *working += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *WORKING.lock().unwrap() -= 1;
        TURN.notify_one();
    }
}

/// A founded farm and its coordinator.
#[derive(Debug)]
pub(crate) struct Barn {
    pub(crate) coordinator: Process,
    /// The coordinator's home.
    home: Home,
    /// What the coordinator was started with.
    words: Vec<String>,
    ticket: String,
    pub(crate) farm: Farm,
    _turn: Turn,
}

/// Somebody who asks.
#[derive(Debug)]
pub(crate) struct Person {
    home: Home,
    ticket: String,
}

/// A daemon that builds.
#[derive(Debug)]
pub(crate) struct Volunteer {
    pub(crate) process: Process,
    /// A moment before it served, as late as can be told.
    pub(crate) serves_since: SystemTime,
    home: Home,
}

impl Barn {
    /// Founds a farm as the tester.
    #[track_caller]
    pub(crate) fn found(words: &[&str]) -> Self {
        Self::found_by(User::Tester, words)
    }

    /// Founds a farm whose processes run as `user`.
    #[track_caller]
    pub(crate) fn found_by(user: User, words: &[&str]) -> Self {
        let turn = Turn::take();
        Self::found_in(turn, Farm::of(user), words)
    }

    /// Founds a farm in a folder where `prepare` has put what the coordinator's words name.
    #[track_caller]
    pub(crate) fn found_with(prepare: impl FnOnce(&Farm) -> Vec<String>) -> Self {
        let (turn, farm) = (Turn::take(), Farm::new());
        let words = prepare(&farm);
        Self::found_in(turn, farm, &words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Founds a farm whose coordinator runs in an environment that `prepare` has changed.
    #[track_caller]
    pub(crate) fn found_at(prepare: impl FnOnce(&mut Command)) -> Self {
        let (turn, farm) = (Turn::take(), Farm::new());
        Self::found_so(turn, farm, &[], prepare)
    }

    #[track_caller]
    fn found_in(turn: Turn, farm: Farm, more: &[&str]) -> Self {
        Self::found_so(turn, farm, more, |_| {})
    }

    #[track_caller]
    fn found_so(turn: Turn, farm: Farm, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let home = farm.home("coordinator");
        let words: Vec<&str> = ["--coordinator", "--no-mdns"].iter().chain(more).copied().collect();
        let named: Vec<&str> = words.iter().copied().chain(["--farm-name", "pypy"]).collect();
        let mut command = home.daemon_command(&named, &Home::any_port());
        prepare(&mut command);
        let mut coordinator = Process::start(&mut command);
        coordinator.says("coordinates", START);
        let ticket = coordinator.line("the ticket", |line| line.starts_with("farm1"));
        let words = words.into_iter().map(str::to_owned).collect();
        Self { coordinator, home, words, ticket, farm, _turn: turn }
    }

    /// Starts a volunteer and waits until it serves.
    #[track_caller]
    pub(crate) fn volunteer(&self, name: &str, more: &[&str]) -> Volunteer {
        let (home, mut command) = self.volunteer_command(name, more);
        let mut process = Process::start(&mut command);
        let serves_since = process.says("volunteers for", START);
        Volunteer { process, serves_since, home }
    }

    /// A fresh home, and what starts a volunteer in it.
    pub(crate) fn volunteer_command(&self, name: &str, more: &[&str]) -> (Home, Command) {
        let words: Vec<&str> =
            ["--volunteer", "--no-mdns", "--slots", "1", "--farm", &self.ticket].iter().chain(more).copied().collect();
        let home = self.farm.home(name);
        let command = home.daemon_command(&words, &Home::any_port());
        (home, command)
    }

    /// Somebody who types at the machine of a volunteer.
    pub(crate) fn at_home_of(&self, volunteer: &Volunteer) -> Person {
        Person { home: volunteer.home.clone(), ticket: self.ticket.clone() }
    }

    /// Somebody with a fresh home and the ticket.
    pub(crate) fn person(&self, name: &str) -> Person {
        Person { home: self.farm.home(name), ticket: self.ticket.clone() }
    }

    /// Where the coordinator listens, over TCP and QUIC.
    #[track_caller]
    pub(crate) fn addresses(&self, asking: &Person) -> Vec<String> {
        let shown = asking.asks(&["farm", "show"], 0);
        let addresses: Vec<String> = serde_json::from_value(shown["coordinators"][0]["addresses"].clone()).unwrap();
        assert_eq!(addresses.len(), 2, "{shown}");
        addresses
    }

    /// Ends the coordinator as a power cut would.
    pub(crate) fn cut_power(&mut self) {
        self.coordinator.kill();
    }

    /// Starts the coordinator again, at the `addresses` where it was before, which its farm's ticket names.
    #[track_caller]
    pub(crate) fn start_again(&mut self, addresses: &[String]) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.coordinator = self.home.daemon_at(&words, addresses);
        self.coordinator.says("coordinates", START);
    }
}

impl Person {
    /// Where the person's files go.
    pub(crate) fn folder(&self) -> &Path {
        self.home.path()
    }

    /// A command with the ticket.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.home.command(words.iter().copied().chain(["--farm", &self.ticket]))
    }

    /// The same, running beside the test.
    pub(crate) fn starts(&self, words: &[&str]) -> Process {
        Process::start(&mut self.command(words))
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn runs(&self, words: &[&str]) -> Ran {
        self.home.run(&words.iter().copied().chain(["--farm", &self.ticket]).collect::<Vec<_>>(), BUILD)
    }

    /// What a command that ends with `code` answers.
    #[track_caller]
    pub(crate) fn asks(&self, words: &[&str], code: i32) -> Value {
        self.runs(&words.iter().copied().chain(["--json"]).collect::<Vec<_>>()).ended_with(code).json()
    }

    /// Leaves a request with the farm; its id.
    #[track_caller]
    pub(crate) fn leaves(&self, words: &[&str]) -> String {
        let words: Vec<&str> = ["request"].iter().chain(words).chain(&["--detach"]).copied().collect();
        let left = self.asks(&words, 0);
        assert_eq!(left["outcome"], Value::Null, "{left}");
        left["request"].as_str().unwrap().to_owned()
    }

    /// One request as the farm sees it.
    #[track_caller]
    pub(crate) fn status(&self, request: &str) -> Value {
        self.asks(&["status", request], 0)
    }

    /// Waits until a request is in this state.
    #[track_caller]
    pub(crate) fn waits_for(&self, request: &str, state: &str) -> Value {
        wait_for(&format!("state {state}"), BUILD, || {
            let status = self.status(request);
            (status["state"] == state).then_some(status)
        })
    }
}

impl Volunteer {
    /// Attempts that it has begun, as its own log counts them.
    pub(crate) fn attempts(&self) -> usize {
        self.process.stderr().lines().filter(|line| line.contains("attempting")).count()
    }
}

/// A tool that holds builds up until it is opened.
#[derive(Debug)]
pub(crate) struct Gate {
    name: String,
    prefix: PathBuf,
}

impl Gate {
    /// A closed gate in a folder of `farm`, offered to builds as the tool `name`.
    pub(crate) fn closed(farm: &Farm, folder: &str, name: &str) -> Self {
        let prefix = farm.folder().join(folder);
        fs::create_dir_all(prefix.join("bin")).unwrap();
        let program = prefix.join("bin").join(name);
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$1\" = --version ]; then echo \"gate 1.0\"; exit; fi\n\
             echo \"before the gate: $1\"\n\
             until [ -e '{}/open' ]; do sleep 0.05; done\n\
             echo \"behind the gate: $1\"\n",
            prefix.display()
        );
        fs::write(&program, script).unwrap();
        for path in [&prefix, &prefix.join("bin"), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
            farm.hand_over(path);
        }
        Self { name: name.to_owned(), prefix }
    }

    /// The path of its program, a word of the command line of everything that waits at it.
    pub(crate) fn program(&self) -> String {
        self.prefix.join("bin").join(&self.name).to_str().unwrap().to_owned()
    }

    /// The words with which a volunteer offers it.
    pub(crate) fn offer(&self) -> String {
        format!("{}={}", self.name, self.prefix.display())
    }

    /// Waits until a build stands at it.
    #[track_caller]
    pub(crate) fn is_reached(&self) {
        wait_for("the build at the gate", BUILD, || (processes_with(&self.program()) > 0).then_some(()));
    }

    /// Lets every build through, those that come later as well.
    pub(crate) fn open(&self) {
        fs::write(self.prefix.join("open"), "").unwrap();
    }

    /// Holds up whoever comes from now on.
    pub(crate) fn shut(&self) {
        fs::remove_file(self.prefix.join("open")).unwrap();
    }
}

/// A recipe, in a file of `farm`, whose only step goes through the tool `gate` with the word of its option `marker`.
pub(crate) fn gated_recipe(farm: &Farm) -> String {
    recipe(
        farm,
        "gated",
        r#"
requires = ["os=linux", "tool.gate"]
[option.marker]
type = "text"
help = "by which the build's processes are found"
pattern = "[a-z0-9-]{1,64}"
default = "nobody"
[[step]]
run = ["gate", "{marker}"]
"#,
    )
}

/// A recipe of this name in a file of `farm`, whose output is a file of its own; `rest` says what it requires and runs.
pub(crate) fn recipe(farm: &Farm, name: &str, rest: &str) -> String {
    let path = farm.folder().join(format!("{name}.toml"));
    let text = format!(
        "recipe = 1\nname = \"{name}\"\ndescription = \"For a test\"\nreproducible = true\n{rest}\n\
         [[file]]\npath = \"made\"\ntext = \"made\\n\"\n[[output]]\npath = \"made\"\n"
    );
    fs::write(&path, text).unwrap();
    farm.hand_over(&path);
    path.to_str().unwrap().to_owned()
}

/// How many processes of this machine have `word` as one of the words of their command line.
pub(crate) fn processes_with(word: &str) -> usize {
    let has_word = |pid: &Path| {
        // A process that has ended meanwhile has no words.
        fs::read(pid.join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
    };
    let is_process =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| is_process(path) && has_word(path)).count()
}
