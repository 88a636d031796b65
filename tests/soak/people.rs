//! The people: each new build is asked for once, twice, by three at a time or by mail; some fail, some are taken back.
//!
//! What is asked is a command of the real program, watched until it ends. How each must end is known when it is asked; what
//! ended otherwise is remembered in full.

use crate::barn::{Barn, Person, recipe};
use crate::deadline::{BUILD, wait_for};
use crate::farm::{Process, Ran};
use crate::flat::Ended;
use node::chance::Chance;
use serde_json::Value;
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of each artifact.
const ARTIFACT_BYTES: u64 = 128 << 10;
/// Of so many new builds, one is left by mail, one asked for by three at a time, one followed by an old one that is asked for
/// again, by one that fails, by one that is taken back.
const MAILED: u64 = 5;
const THREE: u64 = 8;
const AGAIN: u64 = 4;
const FAILING: u64 = 8;
const TAKEN_BACK: u64 = 8;
/// Old builds that may be asked for again.
const OLD: usize = 40;
/// The longest that a request is left alone before it is taken back.
const SECOND_THOUGHT: Duration = Duration::from_secs(3);

/// Everybody who asks, and what was asked.
#[derive(Debug)]
pub(crate) struct People {
    people: Vec<Person>,
    mails: PathBuf,
    word: String,
    recipes: Recipes,
    chance: Chance,
    nr: u64,
    /// Markers of builds that were asked for, the newest last.
    old: VecDeque<String>,
    running: Vec<Asked>,
    /// Requests that were left with the farm, and how each is to end.
    left: Vec<(String, Fate)>,
    second_thoughts: Vec<(Instant, String)>,
    built: u64,
    cached: u64,
    failed: u64,
    wrong: Vec<String>,
}

/// Files of the recipes.
#[derive(Debug)]
struct Recipes {
    small: String,
    failing: String,
    endless: String,
}

/// A command that runs.
#[derive(Debug)]
struct Asked {
    process: Process,
    words: String,
    end: End,
    since: Instant,
}

/// What is to come of a command.
#[derive(Clone, Debug)]
enum End {
    /// Files in this folder, built or found.
    Files(PathBuf),
    /// A build error.
    Failure,
    /// A request left with the farm, which will end so.
    Left(Fate),
    /// A request taken back.
    TakenBack,
}

/// What becomes of a request that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Built, and a mail says so.
    Mailed,
    /// Taken back.
    TakenBack,
}

impl People {
    /// Three people; `word` is in every marker.
    pub(crate) fn new(barn: &Barn, word: &str, chance: Chance) -> Self {
        let of = |name: &str, script: &str| {
            let rest = format!(
                "requires = [\"os=linux\"]\n\
                 [option.marker]\ntype = \"text\"\nhelp = \"one build from the next\"\npattern = \"[a-z0-9-]{{1,64}}\"\n\
                 default = \"nobody\"\n\
                 [[step]]\nrun = [\"sh\", \"-c\", '{script}', \"{{marker}}\"]\n"
            );
            recipe(&barn.farm, name, &rest)
        };
        Self {
            people: (0..3).map(|nr| barn.person(&format!("person-{nr}"))).collect(),
            mails: barn.farm.folder().join("mails"),
            word: word.to_owned(),
            recipes: Recipes {
                small: of("small", &format!("yes \"$0\" | head -c {ARTIFACT_BYTES} > made")),
                failing: of("failing", "echo \"$0 fails\"; exit 3"),
                endless: of("endless", "sleep 3600"),
            },
            chance,
            nr: 0,
            old: VecDeque::new(),
            running: Vec::new(),
            left: Vec::new(),
            second_thoughts: Vec::new(),
            built: 0,
            cached: 0,
            failed: 0,
            wrong: Vec::new(),
        }
    }

    /// The farm's ticket.
    pub(crate) fn ticket(&self) -> String {
        self.people[0].asks(&["farm", "show"], 0)["ticket"].as_str().unwrap().to_owned()
    }

    /// Builds that somebody has waited for, or got a mail about, and how they ended.
    pub(crate) fn ended(&self) -> Ended {
        Ended { built: self.built, failed: self.failed }
    }

    /// Asks for one more build, and now and then for something else beside it.
    pub(crate) fn ask(&mut self, now: Instant) {
        let small = self.recipes.small.clone();
        let marker = self.marker();
        if self.one_in(MAILED) {
            self.leave(now, &small, &marker, Fate::Mailed);
        } else {
            let askers = if self.one_in(THREE) { self.people.len() } else { 1 };
            (0..askers).for_each(|_| self.wait_for(now, &small, &marker));
        }
        if self.one_in(AGAIN)
            && let Some(old) = self.old.get(usize::try_from(self.chance.below(self.old.len() as u64)).unwrap()).cloned()
        {
            self.wait_for(now, &small, &old);
        }
        self.old.push_back(marker);
        if self.old.len() > OLD {
            self.old.pop_front();
        }
        if self.one_in(FAILING) {
            let (failing, marker) = (self.recipes.failing.clone(), self.marker());
            let words = ["request", &failing, "-o", &format!("marker={marker}"), "--json"].map(str::to_owned);
            self.start(now, words.to_vec(), End::Failure);
        }
        if self.one_in(TAKEN_BACK) {
            let (endless, marker) = (self.recipes.endless.clone(), self.marker());
            self.leave(now, &endless, &marker, Fate::TakenBack);
        }
    }

    fn marker(&mut self) -> String {
        self.nr += 1;
        format!("{}-{}", self.word, self.nr)
    }

    fn one_in(&self, so_many: u64) -> bool {
        self.chance.below(so_many) == 0
    }

    fn wait_for(&mut self, now: Instant, recipe: &str, marker: &str) {
        self.nr += 1;
        let folder = self.people[0].folder().join(format!("made-{}", self.nr));
        let words =
            ["request", recipe, "-o", &format!("marker={marker}"), "--json", "--output", folder.to_str().unwrap()];
        self.start(now, words.map(str::to_owned).to_vec(), End::Files(folder.clone()));
    }

    fn leave(&mut self, now: Instant, recipe: &str, marker: &str, fate: Fate) {
        let mut words = vec!["request", recipe, "-o"];
        let option = format!("marker={marker}");
        // One address gets a hundred mails a day and no more.
        let address = format!("me-{}@example.org", self.chance.below(10));
        words.extend([option.as_str(), "--json", "--detach"]);
        if fate == Fate::Mailed {
            words.extend(["--email", &address]);
        }
        self.start(now, words.into_iter().map(str::to_owned).collect(), End::Left(fate));
    }

    fn start(&mut self, now: Instant, words: Vec<String>, end: End) {
        // Only whoever has asked for something can take it back.
        let asker = match end {
            End::Left(Fate::TakenBack) | End::TakenBack => 0,
            _ => usize::try_from(self.chance.below(self.people.len() as u64)).unwrap(),
        };
        let process = self.people[asker].starts(&words.iter().map(String::as_str).collect::<Vec<_>>());
        self.running.push(Asked { process, words: words.join(" "), end, since: now });
    }

    /// Takes in what has ended, and takes back what is to be.
    pub(crate) fn look(&mut self, now: Instant) {
        let mut running = Vec::new();
        for mut asked in std::mem::take(&mut self.running) {
            if asked.process.ended().is_some() {
                let Asked { process, words, end, .. } = asked;
                let ran = process.end(BUILD);
                if let Err(because) = self.take_in(now, &end, &ran) {
                    self.wrong.push(format!("`node {words}`: {because}: {:?} {} {}", ran.code, ran.stdout, ran.stderr));
                }
            } else if now.duration_since(asked.since) > BUILD {
                self.wrong.push(format!("`node {}` did not end: {}", asked.words, asked.process.stderr()));
            } else {
                running.push(asked);
            }
        }
        self.running.extend(running);
        let (due, later) = std::mem::take(&mut self.second_thoughts).into_iter().partition(|(at, _)| *at <= now);
        self.second_thoughts = later;
        for (_, request) in due {
            let words = ["cancel", &request, "--json"].map(str::to_owned).to_vec();
            self.start(now, words, End::TakenBack);
        }
    }

    fn take_in(&mut self, now: Instant, end: &End, ran: &Ran) -> Result<(), &'static str> {
        let answer: Value = serde_json::from_str(&ran.stdout).map_err(|_| "no answer")?;
        let is = |code, outcome: &str| ran.code == Some(code) && answer["outcome"] == outcome;
        match end {
            End::Files(folder) => {
                let made = fs::metadata(folder.join("made")).map_or(0, |made| made.len());
                // Only what was asked for is here, so nothing else can go with it.
                let _gone = fs::remove_dir_all(folder);
                match (is(0, "built"), is(0, "cached")) {
                    (false, false) => return Err("neither built nor found"),
                    _ if made != ARTIFACT_BYTES => return Err("the file is not whole"),
                    (true, _) => self.built += 1,
                    (_, true) => self.cached += 1,
                }
            }
            End::Failure if is(1, "build_error") => self.failed += 1,
            End::Failure => return Err("no build error"),
            End::Left(fate) => {
                let request = answer["request"].as_str().ok_or("no request")?.to_owned();
                if *fate == Fate::TakenBack {
                    let ms = self.chance.below(u64::try_from(SECOND_THOUGHT.as_millis()).unwrap());
                    self.second_thoughts.push((now + Duration::from_millis(ms), request.clone()));
                }
                self.left.push((request, *fate));
            }
            End::TakenBack if ran.code == Some(0) && answer["cancelled"] == true => {}
            End::TakenBack => return Err("not taken back"),
        }
        Ok(())
    }

    /// Waits for everything that was asked, and compares how it ended.
    pub(crate) fn end(&mut self) {
        let until = Instant::now() + BUILD;
        while !(self.running.is_empty() && self.second_thoughts.is_empty()) && Instant::now() < until {
            self.look(Instant::now());
            thread::sleep(Duration::from_millis(20));
        }
        let mut seen = Value::Null;
        wait_for("the farm to have nothing to do", BUILD, || {
            let farm = self.people[0].asks(&["status"], 0);
            if farm["queue"] != seen {
                seen = farm["queue"].clone();
                eprintln!("to be done: {seen}, {} mails", farm["mails_waiting"]);
            }
            (farm["queued"] == 0 && farm["running"] == 0 && farm["mails_waiting"] == 0).then_some(())
        });
        for (request, fate) in &self.left {
            let status = self.people[0].status(request);
            let ended = (status["state"].clone(), status["outcome"].clone());
            let expected = match fate {
                Fate::Mailed => ("finished".into(), "built".into()),
                Fate::TakenBack => ("finished".into(), "policy".into()),
            };
            if ended != expected {
                self.wrong.push(format!("{fate:?} was to be the end of {status}"));
            }
            self.built += u64::from(*fate == Fate::Mailed);
        }
        let (mailed, mails) = (self.mailed(), mails(&self.mails));
        if mailed != mails {
            self.wrong.push(format!("{mailed} mails were to be written, {mails} were"));
        }
    }

    fn mailed(&self) -> usize {
        self.left.iter().filter(|(_, fate)| *fate == Fate::Mailed).count()
    }

    /// What ended otherwise than it should have.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.wrong
    }
}

fn mails(folder: &Path) -> usize {
    fs::read_dir(folder).into_iter().flatten().filter(|entry| entry.is_ok()).count()
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { built, cached, failed, .. } = self;
        let mailed = self.mailed();
        let taken_back = self.left.len() - mailed;
        write!(f, "{built} built ({mailed} by mail), {cached} found, {failed} failed, {taken_back} taken back")
    }
}
