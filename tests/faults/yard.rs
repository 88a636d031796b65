//! A farm of daemons that can be struck, the people who ask it, and one who only looks.

use crate::ask::Asker;
use crate::clock::{self, Clock};
use crate::deadline::{BUILD, SOON};
use crate::disk::SmallDisk;
use crate::farm::{Farm, Home, Ran, User};
use crate::machine::{Machine, last_lines};
use crate::plan::{ASKERS, MailBy, Season, Who};
use crate::smtp::{self, PASSWORD, Protection, Smtp, USER};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon may take to serve: a volunteer tries its sandbox before.
const START: Duration = Duration::from_secs(90);
/// Room for a daemon: its log and index, what it builds and what it keeps, and what a volunteer leaves free for its owner.
const DAEMON_DISK_KIB: u32 = 768 << 10;
/// Room for a person: sources and results.
const ASKER_DISK_KIB: u32 = 64 << 10;
/// Smaller than what the farm's builds of a season come to, so that a store also makes room while all this happens.
const VOLUNTEER_STORE: &str = "24M";

/// A recipe for everything: it pours lines into a file, and its source after them.
const RECIPE: &str = r#"
recipe = 1
name = "poured"
description = "Pours lines into a file"
requires = ["os=linux"]
reproducible = true
[option.word]
type = "text"
help = "what stands in every line"
pattern = "[a-z0-9-]{1,64}"
default = "nothing"
[option.lines]
type = "text"
help = "how many lines there are"
pattern = "[0-9]{1,7}"
default = "1"
[option.pause]
type = "text"
help = "how long to wait before, in seconds"
pattern = "[0-9]{1,2}[.][0-9]{3}"
default = "0.000"
[[step]]
run = ["sh", "-c", "sleep \"$3\"; yes \"$1\" | head -n \"$2\" > made || exit; [ ! -e poured ] || cat poured >> made", "_", "{word}", "{lines}", "{pause}"]
[[file]]
path = "label"
text = "poured here"
[[output]]
path = "made"
[limits]
time_s = 120
memory_mib = 64
disk_mib = 32
"#;
const SOURCED: &str = "[source]\nhint = \"a folder with the file `poured`\"\n";

/// What this machine has for this.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    faketime: Option<PathBuf>,
    python: Option<PathBuf>,
}

/// The farm.
#[derive(Debug)]
pub(crate) struct Yard {
    /// The coordinator, then the volunteers.
    pub(crate) machines: Vec<Machine>,
    pub(crate) askers: Vec<Asker>,
    pub(crate) ticket: String,
    pub(crate) post: Post,
    /// By which processes and files of this farm are told from all others.
    pub(crate) mark: String,
    observer: Home,
    pub(crate) farm: Farm,
    faketime: Option<PathBuf>,
}

/// Where its mail arrives.
#[derive(Debug)]
pub(crate) enum Post {
    Folder(PathBuf),
    Server(Smtp),
}

impl Means {
    /// Looks. What only some rounds use is said by name where it is not here; an error is what every round needs.
    pub(crate) fn of_this_machine() -> Result<Self, String> {
        let farm = Farm::new();
        let report = farm.home("doctor").run(&["doctor"], SOON);
        if report.code != Some(0) {
            return Err(report.stderr);
        }
        SmallDisk::mount(farm.home("disk").path(), crate::disk::Medium::Memory, 1 << 10)?;
        SmallDisk::mount(farm.home("image").path(), crate::disk::Medium::Image, 4 << 10)?;
        let faketime = clock::library();
        if faketime.is_none() {
            crate::left_out("clocks that jump", "no libfaketime; `apt-get install libfaketime` has it");
        }
        let python = smtp::python().map_err(|because| crate::left_out("mail over SMTP", &because)).ok();
        Ok(Self { faketime, python })
    }
}

impl Yard {
    /// Founds a farm whose machines all serve.
    pub(crate) fn found(means: &Means, season: &Season) -> Result<Self, String> {
        let farm = Farm::of(User::Tester);
        fs::write(farm.folder().join("poured.toml"), RECIPE).map_err(|error| error.to_string())?;
        fs::write(farm.folder().join("sourced.toml"), [RECIPE, SOURCED].concat()).map_err(|error| error.to_string())?;
        let clock_of = |who: Who, name: &str| match &means.faketime {
            Some(library) if who == season.shifted => Some(Clock::right(library, farm.folder(), name)),
            _ => None,
        };
        let home = farm.home("coordinator");
        let disk = SmallDisk::mount(home.path(), season.medium, DAEMON_DISK_KIB)?;
        let (post, mail) = match (&means.python, season.mail) {
            (Some(python), MailBy::Smtp) => server(python, &farm),
            _ => {
                let folder = home.path().join("mail");
                let words = vec!["--mail-dir".to_owned(), folder.display().to_string()];
                (Post::Folder(folder), words)
            }
        };
        let words: Vec<String> = ["--coordinator", "--no-mdns"].into_iter().map(str::to_owned).chain(mail).collect();
        let founding: Vec<String> =
            words.iter().cloned().chain(["--farm-name".to_owned(), "yard".to_owned()]).collect();
        let clock = clock_of(Who::Coordinator, "coordinator");
        let mut coordinator = Machine::new(Who::Coordinator, home, disk, clock, founding);
        coordinator.start();
        let ticket = eventually("the ticket", START, || {
            coordinator.check()?;
            coordinator.line("farm1").ok_or_else(|| "no line of stdout begins with `farm1`".to_owned())
        })?;
        coordinator.say_from_now_on(words);

        let mut machines = vec![coordinator];
        for nr in 0..season.volunteers {
            let (who, name) = (Who::Volunteer(nr), format!("volunteer-{nr}"));
            let home = farm.home(&name);
            let disk = SmallDisk::mount(home.path(), season.medium, DAEMON_DISK_KIB)?;
            let words = ["--volunteer", "--no-mdns", "--slots", "1", "--accept", "any"];
            let more = ["--max-store", VOLUNTEER_STORE, "--farm", &ticket];
            let words = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
            let mut volunteer = Machine::new(who, home, disk, clock_of(who, &name), words);
            volunteer.start();
            machines.push(volunteer);
        }
        let mut askers = Vec::new();
        for nr in 0..ASKERS {
            let name = format!("requester-{nr}");
            let home = farm.home(&name);
            let disk = SmallDisk::mount(home.path(), season.medium, ASKER_DISK_KIB)?;
            let clock = means.faketime.as_ref().map(|library| Clock::right(library, farm.folder(), &name));
            askers.push(Asker { nr, home, disk, clock, ticket: ticket.clone() });
        }
        let mark = farm.folder().display().to_string();
        let (observer, faketime) = (farm.home("observer"), means.faketime.clone());
        let mut yard = Self { machines, askers, ticket, post, mark, observer, farm, faketime };
        yard.all_serve()?;
        Ok(yard)
    }

    /// Waits until every daemon serves.
    pub(crate) fn all_serve(&mut self) -> Result<(), String> {
        for machine in &mut self.machines {
            eventually("a daemon to serve", START, || match machine.check()? {
                true => Ok(()),
                false => Err(format!("{} does not serve yet", machine.who)),
            })?;
        }
        Ok(())
    }

    /// A daemon.
    pub(crate) fn machine(&mut self, who: Who) -> Option<&mut Machine> {
        self.machines.iter_mut().find(|machine| machine.who == who)
    }

    /// What a command of somebody who only looks answers.
    pub(crate) fn look(&self, words: &[&str]) -> Result<Value, String> {
        let ran = self.command(words);
        match (ran.code, serde_json::from_str(&ran.stdout)) {
            (Some(0), Ok(answer)) => Ok(answer),
            _ => Err(format!("`node {}` ended with {:?}: {}{}", words.join(" "), ran.code, ran.stdout, ran.stderr)),
        }
    }

    /// Runs a command of somebody who only looks, in a home that nothing befalls.
    pub(crate) fn command(&self, words: &[&str]) -> Ran {
        let words: Vec<&str> = words.iter().copied().chain(["--json", "--farm", &self.ticket]).collect();
        self.observer.run(&words, BUILD)
    }

    /// Runs a command of somebody who asks.
    pub(crate) fn command_of(&self, asker: usize, words: &[&str]) -> Ran {
        let words: Vec<&str> = words.iter().copied().chain(["--json", "--farm", &self.ticket]).collect();
        self.askers[asker].home.run(&words, BUILD)
    }

    /// Gives every daemon a clock that is days ahead, where this machine can.
    pub(crate) fn dawn_days_later(&mut self, days: i64) -> bool {
        let Some(library) = &self.faketime else { return false };
        for (nr, machine) in self.machines.iter_mut().enumerate() {
            let clock = Clock::right(library, self.farm.folder(), &format!("later-{nr}"));
            clock.set(days * 86_400);
            machine.see(clock);
        }
        true
    }

    /// The ends of all logs; the whole logs go to files, which are named.
    pub(crate) fn last_words(&self, seed: u64) -> String {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{seed}"));
        let mut text = format!("  whole logs in {}\n", folder.display());
        for machine in &self.machines {
            let kept = fs::create_dir_all(&folder)
                .and_then(|()| fs::write(folder.join(format!("{}.log", machine.who)), machine.log()));
            if let Err(error) = kept {
                text.push_str(&format!("  a log could not be kept: {error}\n"));
            }
            text.push_str(&format!("  {} said last:\n{}", machine.who, machine.last_words()));
        }
        text
    }
}

impl Post {
    /// The process of its server.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Folder(_) => None,
            Self::Server(smtp) => Some(smtp.pid()),
        }
    }
}

/// A mail server, and what a coordinator is told of it.
fn server(python: &Path, farm: &Farm) -> (Post, Vec<String>) {
    let smtp = Smtp::start(python, Protection::Starttls, farm.folder());
    let password = farm.folder().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let words = [
        "--smtp".to_owned(),
        format!("smtp://{USER}@127.0.0.1:{}", smtp.port()),
        "--smtp-ca".to_owned(),
        smtp.authority().display().to_string(),
        "--smtp-password-file".to_owned(),
        password.display().to_string(),
        "--mail-from".to_owned(),
        "barn@example.org".to_owned(),
    ];
    (Post::Server(smtp), words.to_vec())
}

/// The value that `look` finds, looked for again and again; after `within`, why it was not found the last time.
pub(crate) fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let until = Instant::now() + within;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(because) if Instant::now() > until => {
                return Err(format!("waited {within:?} in vain for {what}: {because}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// What a command said, for a story.
pub(crate) fn words_of(ran: &Ran) -> String {
    format!("ended with {:?}\n{}{}", ran.code, last_lines(&ran.stdout), last_lines(&ran.stderr))
}
