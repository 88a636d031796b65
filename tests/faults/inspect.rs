//! What must hold in clear weather: one verdict a build, one mail an address, no process and no file left over, homes that open.

use crate::ask::Wanted;
use crate::machine::Machine;
use crate::tally::Tally;
use crate::yard::{Post, Yard, eventually};
use mail_parser::MessageParser;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long, in clear weather, a request may take to its end: a lost volunteer is left aside for a minute, and a command looks
/// for a coordinator for another.
pub(crate) const CLEARED: Duration = Duration::from_secs(180);
/// How long the farm may take to tidy up once everything has ended.
const TIDY: Duration = Duration::from_secs(60);
/// What may lie in a home, whatever happened.
const OF_A_HOME: [&str; 17] = [
    "node.key",
    "requester.key",
    "farm.key",
    "ticket",
    "charter",
    "listen",
    "version",
    "begun",
    "daemon.addr",
    "lock",
    "peers",
    "index",
    "store",
    "work",
    "fetch",
    "raft",
    "mail",
];
/// How many days later the homes are opened once more. What a crash left aside is kept for a day, to be taken up.
const DAYS_LATER: i64 = 2;

/// Mails that must have come, and that may have.
#[derive(Debug, Default)]
pub(crate) struct Mails {
    /// By address: the request that was acknowledged, or nothing where the command did not live to hear.
    expected: BTreeMap<String, Option<String>>,
    /// Build keys that were asked for.
    pub(crate) keys: BTreeSet<String>,
    pub(crate) resent: Resent,
}

/// Whether a server may have got a mail twice in this round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Resent {
    /// The farm always knew what it had sent.
    #[default]
    Never,
    /// The coordinator was killed, perhaps between the server's word and its own log.
    Possibly,
}

impl Mails {
    /// A wish with this address, and what the farm said to it.
    pub(crate) fn expect(&mut self, address: Option<String>, request: Option<&str>) {
        if let Some(address) = address {
            self.expected.insert(address, request.map(str::to_owned));
        }
    }
}

/// Looks at the whole farm after a round.
pub(crate) fn after_round(yard: &mut Yard, mails: &Mails, wanted: &[Wanted], tally: &mut Tally) -> Result<(), String> {
    // What a command asked for that was killed is waited for by nobody else.
    eventually("a farm with nothing to do", CLEARED, || {
        let status = yard.look(&["status"])?;
        let idle = ["queued", "running", "mails_waiting"].iter().all(|count| status[count] == 0);
        let mailed = status["mails_failed"].as_array().is_some_and(Vec::is_empty);
        if idle && mailed { Ok(()) } else { Err(status.to_string()) }
    })?;
    each_has_one_verdict(yard, mails)?;
    each_is_mailed_once(yard, mails, tally)?;
    let volunteers = yard.machines.len() - 1;
    eventually("free volunteers", TIDY, || {
        let answer = yard.look(&["volunteers"])?;
        let rows = answer["volunteers"].as_array().cloned().unwrap_or_default();
        let free = rows.iter().filter(|row| row["presence"] == "free" && row["busy"] == 0).count();
        if free == volunteers { Ok(()) } else { Err(answer.to_string()) }
    })?;
    for machine in &mut yard.machines {
        machine.check()?;
    }
    eventually("the end of all processes", TIDY, || no_process_is_left(yard, wanted))?;
    eventually("tidy homes", TIDY, || {
        yard.machines.iter().try_for_each(|machine| is_tidy(machine.home.path(), Scratch::MayLie))
    })?;
    no_mount_is_left(yard)
}

fn each_has_one_verdict(yard: &Yard, mails: &Mails) -> Result<(), String> {
    let answer = yard.look(&["builds"])?;
    let rows = answer["builds"].as_array().cloned().unwrap_or_default();
    for key in &mails.keys {
        let verdicts = rows.iter().filter(|row| row["build_key"] == key.as_str()).count();
        if verdicts != 1 {
            return Err(format!("{key} has {verdicts} verdicts"));
        }
    }
    Ok(())
}

fn each_is_mailed_once(yard: &Yard, mails: &Mails, tally: &mut Tally) -> Result<(), String> {
    // By address the ids of the mails that came.
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (to, message) in arrived(&yard.post)? {
        let id = MessageParser::new().parse(&message).and_then(|mail| mail.message_id().map(str::to_owned));
        came.entry(to).or_default().push(id.ok_or("a mail has no Message-ID")?);
    }
    for (address, request) in &mails.expected {
        let ids = came.get(address).map_or(&[][..], Vec::as_slice);
        tally.mails += u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let copies = ids.iter().collect::<BTreeSet<_>>().len() == 1 && matches!(yard.post, Post::Server(_));
        match (ids.len(), request) {
            (1, _) | (0, None) => {}
            (0, Some(request)) => return Err(format!("{address} was never mailed about {request}")),
            (count, _) if copies && mails.resent == Resent::Possibly => {
                tally.duplicates += u64::try_from(count - 1).unwrap_or(u64::MAX);
            }
            (count, _) => return Err(format!("{address} was mailed {count} times: {ids:?}")),
        }
    }
    Ok(())
}

/// Every mail so far, with its recipient.
fn arrived(post: &Post) -> Result<Vec<(String, Vec<u8>)>, String> {
    let folder = match post {
        Post::Server(smtp) => {
            return Ok(smtp.taken().into_iter().map(|mail| (mail.to.join(", "), mail.message)).collect());
        }
        Post::Folder(folder) => folder,
    };
    let mut mails = Vec::new();
    for path in names_in(folder)? {
        if path.extension().is_none_or(|extension| extension != "eml") {
            return Err(format!("{} is no mail", path.display()));
        }
        let message = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let parsed = MessageParser::new().parse(&message).ok_or_else(|| format!("{} is torn", path.display()))?;
        let to = parsed.to().and_then(|to| to.first()).and_then(|to| to.address()).map(str::to_owned);
        mails.push((to.ok_or_else(|| format!("{} has no recipient", path.display()))?, message.clone()));
    }
    Ok(mails)
}

/// No process but our daemons has to do with this farm: none is named after it, none has a folder of it in its sandbox.
fn no_process_is_left(yard: &Yard, wanted: &[Wanted]) -> Result<(), String> {
    let ours: BTreeSet<u32> = yard.machines.iter().filter_map(Machine::pid).chain(yard.post.pid()).collect();
    let disks: Vec<String> = yard.machines.iter().filter_map(|machine| device_of(machine.home.path())).collect();
    let marks: Vec<&str> = [yard.mark.as_str()].into_iter().chain(wanted.iter().map(Wanted::word)).collect();
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if ours.contains(&pid) || pid == std::process::id() {
            continue;
        }
        // A process that has ended meanwhile has no words.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (words, environment) = (read("cmdline"), read("environ"));
        let named = marks.iter().any(|mark| holds(&words, mark) || holds(&environment, mark));
        let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
        if named || mounts.lines().any(|line| shows_part_of(line, &disks)) {
            left.push(format!("{pid} {}", String::from_utf8_lossy(&words).replace('\0', " ")));
        }
    }
    if left.is_empty() { Ok(()) } else { Err(format!("processes are left: {left:?}")) }
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// `major:minor` of the disk that a folder lies on.
fn device_of(folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    Some(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Whether a line of mountinfo shows a folder of one of these disks, not the whole disk as every process sees it.
fn shows_part_of(line: &str, disks: &[String]) -> bool {
    let fields: Vec<&str> = line.split(' ').collect();
    fields.len() > 4 && fields[3] != "/" && disks.iter().any(|disk| disk == fields[2])
}

/// The only mounts below the farm's folder are the disks of its homes.
fn no_mount_is_left(yard: &Yard) -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let below: Vec<&str> = mounts.lines().filter(|line| line.contains(&yard.mark)).collect();
    let expected = yard.machines.len() + yard.askers.len();
    if below.len() == expected { Ok(()) } else { Err(format!("{expected} mounts are ours: {below:#?}")) }
}

/// Whether a file that was being written when its writer died may still lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scratch {
    MayLie,
    MustBeGone,
}

/// Nothing lies in a home that does not belong there.
fn is_tidy(home: &Path, scratch: Scratch) -> Result<(), String> {
    let mut strange = Vec::new();
    for path in names_in(home)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let lies = name.starts_with('.') && scratch == Scratch::MayLie;
        if !OF_A_HOME.contains(&name.as_str()) && !lies {
            strange.push(path);
        }
    }
    for folder in ["work", "fetch"] {
        strange.extend(names_in(&home.join(folder))?);
    }
    if scratch == Scratch::MustBeGone {
        strange.extend(names_in(&home.join("store/incoming"))?);
    }
    if strange.is_empty() { Ok(()) } else { Err(format!("left over: {strange:?}")) }
}

/// What lies in a folder, in order; nothing where there is none.
fn names_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|error| format!("{}: {error}", folder.display()))?,
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    Ok(names)
}

/// Stops the farm in order, looks at what is left, opens every home once more, days later where this machine can, and stops again.
pub(crate) fn end_of(yard: &mut Yard) -> Result<(), String> {
    let finished = yard.look(&["status"])?["finished"].clone();
    stop_all(yard)?;
    let later = yard.dawn_days_later(DAYS_LATER);
    yard.machines.iter_mut().for_each(Machine::start);
    yard.all_serve()?;
    let status = yard.look(&["status"])?;
    if status["queued"] != 0 || status["finished"] != finished {
        return Err(format!("{finished} requests were finished, and after a restart: {status}"));
    }
    stop_all(yard)?;
    let scratch = if later { Scratch::MustBeGone } else { Scratch::MayLie };
    yard.machines.iter().try_for_each(|machine| is_tidy(machine.home.path(), scratch))
}

fn stop_all(yard: &mut Yard) -> Result<(), String> {
    for machine in yard.machines.iter_mut().rev() {
        let status = machine.stop()?;
        if !status.success() {
            return Err(format!("{} was told to stop and ended with {status}", machine.who));
        }
        let address = machine.home.path().join("daemon.addr");
        if address.exists() {
            return Err(format!("{} is gone and {} is still there", machine.who, address.display()));
        }
    }
    no_process_is_left(yard, &[])
}
