//! The life of a store: room is made by itself, damage is mended, a damaged index costs nothing, its owner looks after it.

use crate::barn::{Barn, Person, recipe};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::disk::{Medium, SmallDisk};
use crate::farm::{Farm, NODE, Process, Ran};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the output of [`large`] has, a little more than that of two chunks; nobody builds the same bytes twice.
const LARGE_BYTES: u64 = 1_500_000;

/// A recipe whose artifact is [`LARGE_BYTES`] long.
fn large(barn: &Barn) -> String {
    let rest = format!(
        r#"
requires = ["os=linux"]
[option.marker]
type = "text"
help = "one build from the next"
pattern = "[a-z0-9-]{{1,64}}"
default = "nobody"
[[step]]
run = ["sh", "-c", "head -c {LARGE_BYTES} /dev/urandom > made", "{{marker}}"]
"#
    );
    recipe(&barn.farm, "large", &rest)
}

fn builds(person: &Person, file: &str, marker: &str) -> Value {
    let option = format!("marker={marker}");
    person.asks(&["request", file, "-o", &option, "--output", marker], 0)
}

/// The builds that the farm answers for, and what they made.
fn known(person: &Person) -> BTreeMap<String, Value> {
    let shown = person.asks(&["builds"], 0);
    let rows = shown["builds"].as_array().unwrap().iter();
    rows.map(|build| (build["build_key"].as_str().unwrap().to_owned(), build["manifest"].clone())).collect()
}

#[test]
fn what_every_holder_has_evicted_is_unbuilt_and_built_again() {
    if !crate::can_build("eviction") {
        return;
    }
    // Room for two builds and not for three.
    let barn = Barn::found(&["--max-store", "4M"]);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--max-store", "4M"]);
    let file = large(&barn);
    let me = barn.person("me");
    // Nobody fetches the first two: what was fetched from one holder a moment ago is spared there, and another goes.
    let [one, two] = ["one", "two"].map(|marker| {
        let left = me.leaves(&[&file, "-o", &format!("marker={marker}")]);
        me.waits_for(&left, "finished")["build_key"].as_str().unwrap().to_owned()
    });
    let manifest_of_one = known(&me)[&one].clone();
    let three = builds(&me, &file, "three");
    wait_for("the farm to have lost the oldest", BUILD, || (!known(&me).contains_key(&one)).then_some(()));
    let left = known(&me);
    assert!(left.contains_key(&two) && left.contains_key(three["build_key"].as_str().unwrap()), "{left:?}");
    for home in ["coordinator", "volunteer"] {
        assert!(stored_bytes(&barn.farm.folder().join(home)) <= 4 << 20, "{home}");
    }
    let fetched = me.asks(&["fetch", three["build_key"].as_str().unwrap(), "--output", "again"], 0);
    assert_eq!(fetched["files"][0]["digest"], three["files"][0]["digest"]);
    let again = builds(&barn.person("another"), &file, "one");
    assert_eq!((&again["outcome"], &again["build_key"]), (&"built".into(), &one.into()));
    assert_ne!(again["manifest"], manifest_of_one, "these bytes are new");
    assert_eq!(volunteer.attempts(), 4);
}

#[test]
fn files_that_a_disk_has_no_room_for_are_not_asked_for() {
    if !crate::can_build("files larger than a disk") {
        return;
    }
    let barn = Barn::found(&[]);
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let folder = me.folder().join("small");
    fs::create_dir(&folder).unwrap();
    let disk = SmallDisk::mount(&folder, Medium::Memory, 1 << 10);
    let Ok(_disk) = disk.map_err(|because| crate::left_out("a small disk", &because)) else { return };
    let output = folder.join("made");
    let file = large(&barn);
    let ran = me.runs(&["request", &file, "--output", output.to_str().unwrap(), "--log", "off"]);
    let why = format!("they take 2 MiB more, and the disk of `{}` has 1 MiB free", output.display());
    let next = "look at the folder's rights and the free space, or give another with `--output DIR`";
    let said = format!("error: the files cannot be written: {why}\n\nhint: {next}\n");
    assert!(ran.ended_with(5).stderr.ends_with(&said), "{}", ran.stderr);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing was begun");
    builds(&me, &file, "elsewhere");
}

#[test]
fn a_build_whose_verdict_and_files_are_gone_everywhere_is_built_anew() {
    if !crate::can_build("a lost verdict") {
        return;
    }
    let barn = Barn::found(&[]);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let file = large(&barn);
    let made = builds(&me, &file, "gone");
    let homes = ["coordinator", "volunteer"].map(|home| barn.farm.folder().join(home));
    wait_for("both copies", SOON, || homes.iter().all(|home| stored_bytes(home) > LARGE_BYTES).then_some(()));
    for home in &homes {
        blobs(home).iter().for_each(|blob| fs::remove_file(blob).unwrap());
        fs::read_dir(home.join("store/notes/judged"))
            .unwrap()
            .for_each(|note| fs::remove_file(note.unwrap().path()).unwrap());
    }
    let again = builds(&barn.person("another"), &file, "gone");
    assert_eq!((&again["outcome"], &again["build_key"]), (&"built".into(), &made["build_key"]));
    assert_ne!(again["manifest"], made["manifest"], "these bytes are new");
    assert_eq!(volunteer.attempts(), 2);
}

#[test]
fn a_flipped_byte_reaches_nobody_and_is_fetched_again() {
    if !crate::can_build("a flipped byte") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let made = builds(&me, &large(&barn), "flipped");
    let home = barn.farm.folder().join("coordinator");
    let chunk = wait_for("the coordinator's copy", SOON, || {
        blobs(&home).into_iter().find(|path| fs::metadata(path).is_ok_and(|blob| blob.len() == 1 << 20))
    });
    let whole = fs::read(&chunk).unwrap();
    let mut damaged = whole.clone();
    damaged[4_711] ^= 1;
    let addresses = barn.addresses(&me);
    barn.cut_power();
    fs::write(&chunk, damaged).unwrap();
    barn.start_again(&addresses);
    wait_for("the volunteer to be back", BUILD, || {
        me.asks(&["volunteers"], 0)["volunteers"].as_array().is_some_and(|known| !known.is_empty()).then_some(())
    });
    let aside = home.join("store/quarantine").join(chunk.file_name().unwrap());
    let mut nr = 0;
    wait_for("the coordinator to be asked for that chunk", BUILD, || {
        nr += 1;
        let output = format!("fetched-{nr}");
        let fetched = me.asks(&["fetch", made["build_key"].as_str().unwrap(), "--output", &output], 0);
        assert_eq!(fetched["files"][0]["digest"], made["files"][0]["digest"]);
        // Who is asked for which chunk is decided by who is faster: now and then the volunteer is not there to be.
        let _stopped = Stopped::new(&volunteer.process);
        me.runs(&["fetch", made["build_key"].as_str().unwrap(), "--output", &format!("alone-{nr}")]);
        aside.exists().then_some(())
    });
    wait_for("the chunk to be fetched again", BUILD, || {
        fs::read(&chunk).is_ok_and(|bytes| bytes == whole).then_some(())
    });
}

#[test]
fn a_coordinator_with_a_damaged_index_starts_and_has_everything() {
    if !crate::can_build("a damaged index") {
        return;
    }
    let mut barn = Barn::found(&[]);
    let volunteer = barn.volunteer("volunteer", &[]);
    let me = barn.person("me");
    let made = me.asks(&["request", "hello", "--output", "made"], 0);
    let addresses = barn.addresses(&me);
    barn.cut_power();
    let home = barn.farm.folder().join("coordinator");
    for name in ["conf", "db"] {
        fs::write(home.join("index").join(name), b"nothing that a database would write").unwrap();
    }
    barn.start_again(&addresses);
    let said = barn.coordinator.stderr();
    assert!(said.contains("set aside") && said.contains("index.damaged-"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let aside = fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("index.damaged-")).count(), 1);
    drop(volunteer);
    let again = me.asks(&["request", "hello", "--output", "again"], 0);
    assert_eq!((&again["outcome"], &again["manifest"]), (&"cached".into(), &made["manifest"]));
}

/// `node store` in the home of a daemon.
fn store_of(farm: &Farm, home: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(NODE);
    command.args(["store"]).args(words).env("NODE_HOME", farm.folder().join(home)).stdin(Stdio::null());
    Process::start(&mut command).end(BUILD)
}

/// What it said to stderr, without what a library logged.
fn said(ran: &Ran) -> String {
    ran.stderr.lines().filter(|line| !line.contains(" WARN ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_store_is_looked_after_beside_its_daemon() {
    if !crate::can_build("the store of a daemon that runs") {
        return;
    }
    let barn = Barn::found(&[]);
    let mut volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let file = large(&barn);
    let made: Vec<Value> = ["one", "two"].iter().map(|marker| builds(&me, &file, marker)).collect();
    let short = |nr: usize, field: &str| made[nr][field].as_str().unwrap()[..8].to_owned();
    let store = |words: &[&str]| store_of(&barn.farm, "volunteer", words);
    let json = |words: &[&str]| store(&[words, &["--json"]].concat()).ended_with(0).json();
    wait_for("both verdicts", BUILD, || {
        let listed = json(&["list"]);
        let kept = listed["artifacts"].as_array()?;
        (kept.len() == 2 && kept.iter().all(|build| build["needed"] == false)).then_some(())
    });

    let pinned = store(&["pin", &short(0, "build_key")]);
    assert_eq!(
        said(pinned.ended_with(0)),
        format!(
            "artifact {0} stays until it is unpinned\n\nhint: `node store unpin {0}` lets it go",
            short(0, "manifest")
        )
    );
    let listed = store(&["list"]).ended_with(0).stdout.clone();
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["BUILD", "RECIPE", "MANIFEST", "SIZE", "KEEPING"]);
    assert_eq!(rows[1], [&short(1, "build_key"), "large", &short(1, "manifest"), "1.43", "MiB", "evictable"]);
    assert_eq!(rows[2], [&short(0, "build_key"), "large", &short(0, "manifest"), "1.43", "MiB", "pinned"]);
    let nobody = store(&["pin", "0123456789"]);
    assert_eq!(
        said(nobody.ended_with(2)),
        "error: no build of this name is stored here\n\nhint: `node store list` shows what is"
    );

    // The farm hears of what goes, and what is pinned stays.
    let told = wait_for("nobody to be fetching what goes", BUILD, || {
        let told = said(store(&["prune"]).ended_with(0));
        if told.starts_with("nothing removed") { None } else { Some(told) }
    });
    assert!(told.starts_with("one artifact removed, 1.4") && told.ends_with(" MiB freed"), "{told}");
    let holders = |nr: usize| -> Value {
        let shown = me.asks(&["builds"], 0);
        let rows = shown["builds"].as_array().unwrap();
        rows.iter().find(|row| row["build_key"] == made[nr]["build_key"]).unwrap()["holders"].clone()
    };
    assert_eq!((holders(0), holders(1)), (2.into(), 1.into()), "two hold the pinned one, the coordinator the other");
    assert_eq!(json(&["unpin", &short(0, "manifest")])["manifest"], made[0]["manifest"]);
    assert_eq!(json(&["prune"])["removed"], 1);
    assert_eq!(json(&["list"])["artifacts"], Value::Array(vec![]));
    assert_eq!(said(store(&["list"]).ended_with(0)), "nothing is stored here yet");
    assert_eq!(volunteer.process.stop().code(), Some(0));
    assert_eq!(said(store(&["verify"]).ended_with(0)).split(" read, ").nth(1), Some("nothing is damaged"));
}

#[test]
fn damage_is_named_and_mended_beside_the_daemon() {
    if !crate::can_build("damage in the store of a daemon that runs") {
        return;
    }
    let barn = Barn::found(&[]);
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let me = barn.person("me");
    let made = builds(&me, &large(&barn), "damaged");
    let home = barn.farm.folder().join("volunteer");
    let is_chunk = |path: &PathBuf| fs::metadata(path).is_ok_and(|blob| blob.len() == 1 << 20);
    let chunk = blobs(&home).into_iter().find(is_chunk).unwrap();
    let whole = fs::read(&chunk).unwrap();
    let mut damaged = whole.clone();
    damaged[4_711] ^= 1;
    wait_for("the verdict", BUILD, || {
        let listed = store_of(&barn.farm, "volunteer", &["list", "--json"]).ended_with(0).json();
        (listed["artifacts"].as_array()?.len() == 1).then_some(())
    });
    fs::write(&chunk, damaged).unwrap();

    let verified = store_of(&barn.farm, "volunteer", &["verify"]);
    let digest = chunk.file_name().unwrap().to_str().unwrap();
    let key = &made["build_key"].as_str().unwrap()[..8];
    assert_eq!(verified.ended_with(5).stdout, format!("{digest}  made of large {key}\n"));
    let told = said(&verified);
    assert!(told.starts_with("error: ") && told.contains(" read, one piece is damaged and was put aside"), "{told}");
    assert!(
        told.ends_with(
            "hint: the daemon fetches it again from other holders: `node store list` shows whether it could; look at the \
             disk's health"
        ),
        "{told}"
    );
    assert!(home.join("store/quarantine").join(digest).exists());
    wait_for("the coordinator's copy of the chunk", BUILD, || {
        fs::read(&chunk).is_ok_and(|bytes| bytes == whole).then_some(())
    });
    wait_for("the build to be whole again", BUILD, || {
        let listed = store_of(&barn.farm, "volunteer", &["list", "--json"]).ended_with(0).json();
        (listed["artifacts"][0]["whole"] == true).then_some(())
    });
}

#[test]
fn only_the_owner_looks_after_the_store_of_a_daemon() {
    let barn = Barn::found(&[]);
    let theirs = barn.farm.folder().join("coordinator");
    let mine = barn.farm.home("stranger");
    // Somebody who knows where the daemon serves, and has its lock to wait for, but not its key.
    fs::copy(theirs.join("daemon.addr"), mine.path().join("daemon.addr")).unwrap();
    let lock = fs::File::create(mine.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let refused = mine.run(&["store", "list"], BUILD);
    assert_eq!(
        said(refused.ended_with(4)),
        "error: the daemon does what its owner says, and `node.key` in this home is not its key\n\n\
         hint: use the home in which the daemon was started: `--home DIR`"
    );
    let shape = mine.run(&["store", "list", "--json"], BUILD).ended_with(4).json();
    assert_eq!((shape["reason"].is_string(), &shape["artifacts"]), (true, &Value::Null));
}

/// Files at `store/aa/bb/` of a home.
fn blobs(home: &Path) -> Vec<PathBuf> {
    let inside = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let two = |path: &PathBuf| path.file_name().unwrap().len() == 2;
    inside(home.join("store")).into_iter().filter(two).flat_map(inside).flat_map(inside).collect()
}

fn stored_bytes(home: &Path) -> u64 {
    // A blob may be evicted while it is looked at.
    blobs(home).iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

/// A process that stands still while this lives.
struct Stopped<'a>(&'a Process);

impl<'a> Stopped<'a> {
    fn new(process: &'a Process) -> Self {
        process.signal(Signal::STOP);
        Self(process)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}
