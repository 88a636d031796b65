//! What a person, a machine or a peer does wrong, as the real program meets it: each with what happened, why and what next, the
//! right exit code, and nothing lost. Messages are compared whole.
//!
//! | what is wrong | where it is tried |
//! |---|---|
//! | recipe, option or verb that is none: the nearest name | [`a_name_that_is_none_gets_the_nearest`] |
//! | value out of range or of the wrong sort | [`a_value_that_does_not_fit_is_told_what_would`] |
//! | source missing | [`a_source_that_is_missing_is_named`] |
//! | digest that does not match | `node/src/source/tests.rs`: `what_is_not_pinned_is_refused` |
//! | repository or revision that is none | [`crate::git`] |
//! | archive that is hostile | [`crate::hostile`] |
//! | recipe with mistakes | [`crate::stranger`] |
//! | ticket damaged, or of another farm | [`a_ticket_that_is_damaged_or_foreign_is_told_apart`] |
//! | farm that refuses, or is silent: a bounded wait, then what was tried | [`who_cannot_be_reached_is_named_after_a_bounded_wait`] |
//! | port in use | [`a_port_that_somebody_has_is_not_shared`] |
//! | home in use | [`a_home_has_one_daemon`] |
//! | home of another version | [`a_home_of_another_version_says_why_it_does_not_open`] |
//! | home open to others | [`crate::command_line`], [`a_file_of_the_home_that_is_damaged_is_named`] |
//! | key, ticket, charter or address damaged | [`a_file_of_the_home_that_is_damaged_is_named`] |
//! | index damaged: set aside, made anew from what is true | [`a_damaged_index_is_set_aside_and_made_anew`] |
//! | coordinator's log damaged or gone: never an empty start | [`a_log_that_is_gone_is_never_an_empty_start`] |
//! | disk full at start, and while it runs | [`a_full_disk_is_told_and_loses_nothing`]; `node/src/coordinator/wal/tests.rs`: `a_full_disk_is_waited_for_and_nothing_is_acknowledged_meanwhile` |
//! | bubblewrap missing | [`crate::verbs`] |
//! | user namespaces forbidden | `node/src/doctor/tests.rs`: `each_ban_on_user_namespaces_has_its_command` |
//! | mail server that says 5xx | [`crate::mail`] |
//! | mail server that says 4xx, or nothing | [`a_mail_server_that_puts_off_or_is_silent_loses_no_mail`]; `node/src/coordinator/mailer/tests.rs`: `each_answer_of_a_real_server_has_its_consequence`, `a_silent_server_fails_a_letter_for_now_and_gives_the_others_a_rest` |
//! | mail address with control characters | [`an_address_with_control_characters_is_refused_and_harmless`] |
//! | peer that sends nonsense | [`a_peer_that_sends_nonsense_does_no_harm`] |
//! | peer that sends too much, or lies | `node/src/network/tests/calls.rs`: `an_oversize_frame_is_refused_by_its_length`; `tests/network/hostile.rs` |
//! | settings that contradict one another | [`settings_that_contradict_each_other_are_refused_at_start`] |
//! | clock that is wrong | [`crate::clocks`]; `tests/faults/wrong_clock.rs`: `a_senseless_clock_is_told_and_loses_nothing`; `protocol/tests/law/soft.rs`: `stamps_are_monotonic_and_a_senseless_clock_is_not_followed`; `protocol/tests/law/submit.rs`: `what_is_out_of_bounds_or_out_of_time_is_refused` |
//! | told to stop while people wait | [`a_daemon_told_to_stop_ends_within_its_bound`]; [`crate::ending`] in the middle of things |
//! | disk smaller than the files | [`crate::store`]: `files_that_a_disk_has_no_room_for_are_not_asked_for` |
//! | folder that cannot take the files | [`a_folder_that_cannot_take_the_files_is_refused_before_anything_is_asked_for`] |

use crate::deadline::{BUILD, SOON, wait_for};
use crate::disk::{Medium, SmallDisk};
use crate::farm::{Farm, Home, Process};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What every usage error of the command line ends with.
const HELP: &str = "\n\nFor more information, try '--help'.\n";
/// Where a contradiction is refused.
const USAGE: &str = "\n\nUsage: node [OPTIONS] [COMMAND]";
/// How long a command looks for its farm, with time to start and end.
const LOOKING: Duration = Duration::from_secs(14);

/// Runs a command that fails with `code` and says nothing but `stderr`.
#[track_caller]
fn says(home: &Home, words: &[&str], code: i32, stderr: &str) {
    let ran = home.run(&[words, &["--log", "off"]].concat(), BUILD);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (Some(code), "", stderr),
        "node {}",
        words.join(" ")
    );
}

/// Its sentence and its hint.
fn error(what: &str, next: &str) -> String {
    format!("error: {what}\n\nhint: {next}\n")
}

/// A coordinator of a new farm `x`, and the ticket.
fn coordinator(home: &Home, more: &[&str]) -> (Process, String) {
    let mut daemon = home.daemon(&[&["--coordinator", "--farm-name", "x", "--no-mdns"], more].concat());
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    (daemon, ticket)
}

/// Words that start that coordinator again.
const AGAIN: [&str; 4] = ["--coordinator", "--no-mdns", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// A home in which a farm was founded and stopped.
fn founded(farm: &Farm, name: &str) -> Home {
    let home = farm.home(name);
    assert!(coordinator(&home, &[]).0.stop().success());
    home
}

/// As the program itself names it.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap()
}

#[test]
fn a_name_that_is_none_gets_the_nearest() {
    let home = Farm::new().home("me");
    let list = "`node recipe list` shows them all; a recipe of your own is a TOML file such as `./my.toml`";
    let near = error("no recipe `lau` came with this program; did you mean `lua`?", list);
    says(&home, &["request", "lau"], 2, &near);
    says(&home, &["recipe", "show", "lau"], 2, &near);
    let near = error("no option `optt`; did you mean `opt`?", "`node recipe show NAME` lists options and source");
    says(&home, &["request", "lua", "-o", "optt=2"], 2, &near);
    let verb = "error: unrecognized subcommand 'requst'\n\n  tip: a similar subcommand exists: 'request'";
    says(&home, &["requst", "lua"], 2, &format!("{verb}{USAGE}{HELP}"));
    assert!(!home.path().join("index").exists(), "nothing was begun");
}

#[test]
fn a_value_that_does_not_fit_is_told_what_would() {
    let home = Farm::new().home("me");
    let options = "`node recipe show NAME` lists options and source";
    let range = error("option `opt` cannot be `9`: it is a whole number from 0 to 3", options);
    says(&home, &["request", "lua", "-o", "opt=9"], 2, &range);
    for (words, what) in [
        (
            &["request", "lua", "-o", "opt"][..],
            "invalid value 'opt' for '--option <NAME=VALUE>': write NAME=VALUE, such as opt=3",
        ),
        (&["request", "lua", "--agree", "0"], "invalid value '0' for '--agree <K>': give a number from 1 to 5"),
        (
            &["request", "lua", "--expires", "400d"],
            "invalid value '400d' for '--expires <TIME>': a request waits from one second to 90 days",
        ),
        (&["--volunteer", "--slots", "0"], "invalid value '0' for '--slots <N>': give a number from 1 to 65535"),
        (
            &["--volunteer", "--max-disk", "8X"],
            "invalid value '8X' for '--max-disk <SIZE>': `8X` is not a size: write 512M, 8G or 1.5T",
        ),
        (
            &["--coordinator", "--farm-name", "a b"],
            "invalid value 'a b' for '--farm-name <NAME>': `a b` is not a name: 1 to 64 of a-z, 0-9, `.`, `_`, `+`, `-`, \
             beginning with a letter or digit",
        ),
        (
            &["--coordinator", "--farm-name", "x", "--listen", "1.2.3.4"],
            "invalid value '1.2.3.4' for '--listen <ADDR>': `1.2.3.4` is not an address like /ip4/192.0.2.7/tcp/4001: \
             invalid multiaddr",
        ),
        (
            &["fetch", "zz"],
            "invalid value 'zz' for '<REQUEST|BUILD-KEY|MANIFEST>': give all 64 hexadecimal digits, or at least the first \
             eight",
        ),
    ] {
        says(&home, words, 2, &format!("error: {what}{HELP}"));
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "what was mistyped founds nothing");
}

#[test]
fn a_source_that_is_missing_is_named() {
    let farm = Farm::new();
    let home = farm.home("me");
    let missing = farm.folder().join("none.tar.gz");
    let ran = home.run(&["request", "zstd", "--source", missing.to_str().unwrap()], SOON);
    let what =
        format!("error: the source {} cannot be used: No such file or directory (os error 2)\n", missing.display());
    assert!(ran.ended_with(2).stderr.starts_with(&what), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nhint: give a directory, or "), "{}", ran.stderr);
    let none = home.run(&["request", "zstd"], SOON);
    let what = "error: recipe `zstd` requires --source: a zstd release, such as zstd-1.5.6.tar.gz from ";
    assert!(none.ended_with(2).stderr.starts_with(what), "{}", none.stderr);
}

#[test]
fn a_ticket_that_is_damaged_or_foreign_is_told_apart() {
    let farm = Farm::new();
    let (mut one, ticket) = coordinator(&farm.home("one"), &[]);
    let me = farm.home("me");
    // One character more or less, or another one.
    let flipped = if ticket.ends_with('a') { "b" } else { "a" };
    for wrong in [
        format!("{ticket}a"),
        ticket[..ticket.len() - 1].to_owned(),
        format!("{}{flipped}", &ticket[..ticket.len() - 1]),
    ] {
        let what = format!("error: invalid value '{wrong}' for '--farm <TICKET>': the ticket is damaged: ");
        let ran = me.run(&["status", "--farm", &wrong], SOON);
        assert!(ran.ended_with(2).stderr.starts_with(&what), "{}", ran.stderr);
    }
    assert!(!me.path().join("ticket").exists(), "a damaged ticket is not remembered");

    // The ticket of a farm that has gone, at whose address another one listens now.
    let address = |ticket: &str| {
        let shown = me.run(&["farm", "show", "--json", "--farm", ticket], SOON).ended_with(0).json();
        shown["coordinators"][0]["addresses"][0].as_str().unwrap().to_owned()
    };
    let tcp = address(&ticket);
    assert!(tcp.contains("/tcp/"), "{tcp}");
    let peer = me.run(&["farm", "show", "--json", "--farm", &ticket], SOON).json();
    let peer = peer["coordinators"][0]["key"].as_str().unwrap()[..8].to_owned();
    assert!(one.stop().success());
    let other = farm.home("other");
    let mut other =
        Process::start(&mut other.command(["--coordinator", "--farm-name", "y", "--no-mdns", "--listen", &tcp]));
    other.line("the other ticket", |line| line.starts_with("farm1"));
    let mut command = me.command(["status", "--log", "off", "--farm", &ticket]);
    let ran = Process::start(command.env("NODE_TRANSPORT", "tcp")).end(BUILD);
    ran.ended_with(3);
    let what = format!("error: no peer of the farm can be reached; tried {peer} at ");
    assert!(ran.stderr.starts_with(&what) && ran.stderr.contains("somebody else listens at"), "{}", ran.stderr);
    assert!(ran.stderr.ends_with(&format!("\n\nhint: {TICKET_HINT}\n")), "{}", ran.stderr);
}

/// What to do when nobody of a ticket is there.
const TICKET_HINT: &str =
    "look whether a daemon of the farm runs, or ask for a fresh ticket: `node farm show` prints it";

#[test]
fn who_cannot_be_reached_is_named_after_a_bounded_wait() {
    let farm = Farm::new();
    let home = farm.home("coordinator");
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    drop(listening);
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let words = ["--coordinator", "--farm-name", "x", "--no-mdns", "--listen", &address];
    let mut daemon = Process::start(&mut home.command(words));
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let me = farm.home("me");
    let shown = me.run(&["farm", "show", "--json", "--farm", &ticket], SOON).ended_with(0).json();
    let peer = shown["coordinators"][0]["key"].as_str().unwrap()[..8].to_owned();
    assert!(daemon.stop().success());

    let refused =
        format!("no peer of the farm can be reached; tried {peer} at {address}: Connection refused (os error 111)");
    for words in [&["status"][..], &["request", "hello"], &["builds"], &["volunteers"]] {
        let before = Instant::now();
        says(&me, &[words, &["--farm", &ticket]].concat(), 3, &error(&refused, TICKET_HINT));
        assert!(before.elapsed() < LOOKING);
    }
    // Somebody who takes the connection and says nothing.
    let _silent = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let before = Instant::now();
    let ran = me.run(&["status", "--log", "off", "--farm", &ticket], BUILD);
    assert!(before.elapsed() < LOOKING, "{:?}", before.elapsed());
    let what = format!("error: no peer of the farm can be reached; tried {peer} at {address}: ");
    assert!(ran.ended_with(3).stderr.starts_with(&what), "{}", ran.stderr);
    assert!(ran.stderr.ends_with(&format!("\n\nhint: {TICKET_HINT}\n")), "{}", ran.stderr);
}

#[test]
fn a_port_that_somebody_has_is_not_shared() {
    let farm = Farm::new();
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let addresses = [
        format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port()),
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port()),
    ];
    let home = farm.home("coordinator");
    let next = "another program may have the port: stop it, or choose another with `--listen ADDR`";
    let refused =
        |address: &str| error(&format!("cannot listen on {address}: Address already in use (os error 98)"), next);
    for address in &addresses {
        let words = ["--coordinator", "--farm-name", "x", "--no-mdns", "--listen", address];
        says(&home, &words, 2, &refused(address));
    }
    // Nor is that of another daemon, which would share it.
    drop((tcp, udp));
    let words = ["--coordinator", "--farm-name", "x", "--no-mdns", "--listen", &addresses[0]];
    let mut first = Process::start(&mut home.command(words));
    first.line("the ticket", |line| line.starts_with("farm1"));
    says(&farm.home("second"), &words, 2, &refused(&addresses[0]));
}

#[test]
fn a_home_has_one_daemon() {
    let farm = Farm::new();
    let home = farm.home("coordinator");
    let (_daemon, ticket) = coordinator(&home, &[]);
    let what = format!("another daemon runs in {}", real(home.path()).display());
    says(&home, &AGAIN, 2, &error(&what, "stop it, or give this one a home of its own with `--home DIR`"));
    assert_eq!(home.run(&["status", "--json"], SOON).ended_with(0).json()["queued"], 0, "the first is unharmed");
    drop(ticket);
}

#[test]
fn a_home_of_another_version_says_why_it_does_not_open() {
    let farm = Farm::new();
    let home = founded(&farm, "coordinator");
    let mark = home.path().join("version");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "1\n");
    for found in ["0", "2"] {
        fs::write(&mark, format!("{found}\n")).unwrap();
        let what =
            format!("{} has layout \"{found}\", and this program knows layout 1 only", real(home.path()).display());
        let next = "use the version of the program that wrote it, or give another home with `--home DIR`";
        for words in [&AGAIN[..], &["status"], &["request", "hello"]] {
            says(&home, words, 2, &error(&what, next));
        }
    }
    fs::write(&mark, "1\n").unwrap();
    assert!(coordinator(&home, &[]).0.stop().success());
}

#[test]
fn a_file_of_the_home_that_is_damaged_is_named() {
    let farm = Farm::new();
    let home = founded(&farm, "coordinator");
    let at = |name: &str| real(home.path()).join(name).display().to_string();
    let hex = "not 64 hexadecimal digits";
    for (name, reason, next) in [
        ("farm.key", hex, "put FILE back from a copy: without it the farm's charter can never be changed"),
        (
            "node.key",
            hex,
            "put FILE back from a copy; without it, moved away, this node is another peer, and no coordinator",
        ),
        (
            "charter",
            "it holds no charter",
            "move FILE away: it is learnt anew from the farm, or from the farm's own log where it was founded",
        ),
        ("ticket", "a ticket starts with `farm1`", "move FILE away, and give the ticket again with `--farm TICKET`"),
    ] {
        let path = home.path().join(name);
        let whole = fs::read(&path).ok();
        fs::write(&path, "nonsense").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let what = format!("{} is damaged: {reason}", at(name));
        says(&home, &AGAIN, 5, &error(&what, &next.replace("FILE", &at(name))));
        match whole {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    let key = home.path().join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let mend = format!(
        "take the others' rights away: `chmod 600 {}`; if somebody may have read the key, remove it",
        at("node.key")
    );
    says(&home, &AGAIN, 2, &error(&format!("{} can be read by others", at("node.key")), &mend));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    // Without its own key it is nobody whom the charter names, and says so.
    fs::rename(&key, home.path().join("kept")).unwrap();
    let next =
        "put the `node.key` that founded the farm back from a copy, or volunteer only: leave `--coordinator` out";
    says(&home, &AGAIN, 5, &error("the charter does not name this node as a coordinator", next));
    fs::rename(home.path().join("kept"), &key).unwrap();
    fs::write(home.path().join("daemon.addr"), "nonsense").unwrap();
    let what = format!("{} is damaged: a ticket starts with `farm1`", at("daemon.addr"));
    says(&home, &["status"], 5, &error(&what, &format!("move {} away; it is written anew", at("daemon.addr"))));
    assert!(coordinator(&home, &[]).0.stop().success(), "all is as it was");
}

#[test]
fn a_damaged_index_is_set_aside_and_made_anew() {
    let farm = Farm::new();
    let home = farm.home("coordinator");
    let (mut daemon, ticket) = coordinator(&home, &[]);
    let me = farm.home("me");
    let own = crate::barn::recipe(&farm, "own", "requires = [\"os=linux\"]\n[[step]]\nrun = [\"true\"]\n");
    let left = me.run(&["request", &own, "--detach", "--json", "--farm", &ticket], BUILD).ended_with(0).json();
    assert!(daemon.stop().success());
    fs::write(home.path().join("index/conf"), "this is not what was written here").unwrap();
    let mut daemon = home.daemon(&AGAIN[..2]);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let told = daemon.stderr();
    let named = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().starts_with("index.damaged-");
    let aside = fs::read_dir(real(home.path())).unwrap().map(Result::unwrap).find(named).unwrap().path();
    assert!(told.contains("WARN the index is damaged: set aside, and made anew from the store"), "{told}");
    assert!(told.contains(&format!("aside={}", aside.display())) && aside.join("conf").exists(), "{told}");
    assert!(told.contains("WARN the index was lost: it is made anew from the store"), "{told}");
    let status = me.run(&["status", left["request"].as_str().unwrap(), "--json", "--farm", &ticket], SOON);
    assert_eq!(status.ended_with(0).json()["state"], "queued", "nothing that was acknowledged is gone");
}

#[test]
fn a_log_that_is_gone_is_never_an_empty_start() {
    let farm = Farm::new();
    let home = farm.home("coordinator");
    let (mut daemon, ticket) = coordinator(&home, &[]);
    let me = farm.home("me");
    let left = me.run(&["request", "hello", "--detach", "--json", "--farm", &ticket], BUILD).ended_with(0).json();
    assert!(daemon.stop().success());
    let (raft, kept) = (home.path().join("raft"), home.path().join("kept"));
    let next = "put the folder `raft` of the home back from a copy; or move it and the file `begun` away to begin with an empty \
                queue: finished builds stay, and what waited is forgotten";
    let copy = |from: &Path, to: &Path| {
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&raft, &kept);
    let log = raft.join("log/0000000000000000.wal");

    // A bit that has decayed: what lies behind it was acknowledged.
    let mut bytes = fs::read(&log).unwrap();
    bytes[200] ^= 1;
    fs::write(&log, bytes).unwrap();
    let what = format!(
        "the farm's log cannot be opened: the log is damaged in {} at byte 52: the checksum does not match, though it was \
         synced before what follows it",
        real(&log).display()
    );
    says(&home, &AGAIN, 5, &error(&what, next));

    // All of it gone, also a second time: the first attempt does not make it look begun anew.
    fs::remove_dir_all(&raft).unwrap();
    let what = format!(
        "the farm's log in {} is gone or empty, and this farm had begun",
        real(home.path()).join("raft").display()
    );
    for _ in 0..2 {
        says(&home, &AGAIN, 5, &error(&what, next));
    }

    // The copy, as the hint says.
    fs::remove_dir_all(&raft).unwrap();
    copy(&kept, &raft);
    let mut daemon = home.daemon(&AGAIN[..2]);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let status = me.run(&["status", left["request"].as_str().unwrap(), "--json", "--farm", &ticket], SOON);
    assert_eq!(status.ended_with(0).json()["state"], "queued");
    assert!(daemon.stop().success());

    // A charter that is lost beside it is told by the log, and not signed a second time.
    let charter = home.path().join("charter");
    let signed = fs::read(&charter).unwrap();
    fs::remove_file(&charter).unwrap();
    for words in [&AGAIN[..2], &["--coordinator", "--no-mdns", "--farm-name", "x"]] {
        let mut daemon = home.daemon(words);
        daemon.line("the ticket", |line| line.starts_with("farm1"));
        assert!(daemon.stop().success());
        assert_eq!(fs::read(&charter).unwrap(), signed);
        fs::remove_file(&charter).unwrap();
    }
    fs::write(&charter, &signed).unwrap();

    // Or anew, as the hint says too.
    fs::remove_dir_all(&raft).unwrap();
    fs::remove_file(home.path().join("begun")).unwrap();
    let mut daemon = home.daemon(&AGAIN[..2]);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    assert_eq!(me.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json()["queued"], 0);
}

/// A small disk in memory; `None`, said by name, where this machine does not let us have one.
fn small_disk(at: &Path, size_kib: u32) -> Option<SmallDisk> {
    SmallDisk::mount(at, Medium::Memory, size_kib).map_err(|because| crate::left_out("a full disk", &because)).ok()
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let farm = Farm::new();
    let tiny = farm.home("tiny");
    let Some(disk) = small_disk(tiny.path(), 16) else { return };
    let ran = tiny.run(&[&["--farm-name", "x", "--log", "off"], &AGAIN[..]].concat(), SOON);
    let hint = "\n\nhint: look at the rights and the free space of the home, or give another with `--home DIR`\n";
    assert!(
        ran.ended_with(5).stderr.ends_with(&format!(": No space left on device (os error 28){hint}")),
        "{}",
        ran.stderr
    );
    drop(disk);

    // It fills while the farm runs: what was acknowledged stays, what comes waits, and goes on when there is room.
    let home = farm.home("coordinator");
    let Some(disk) = small_disk(home.path(), 4 << 10) else { return };
    let (mut daemon, ticket) = coordinator(&home, &[]);
    let me = farm.home("me");
    let recipe =
        |name: &str| crate::barn::recipe(&farm, name, "requires = [\"os=linux\"]\n[[step]]\nrun = [\"true\"]\n");
    let (first, second) = (recipe("first"), recipe("second"));
    me.run(&["request", &first, "--detach", "--farm", &ticket], BUILD).ended_with(0);
    disk.fill();
    let asking = Process::start(&mut me.command(["request", &second, "--detach", "--farm", &ticket]));
    daemon.says("the source could not be taken over", BUILD);
    assert!(daemon.stderr().contains("No space left on device"), "{}", daemon.stderr());
    assert_eq!(me.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json()["queued"], 2);
    disk.free();
    asking.end(BUILD).ended_with(0);
    assert!(daemon.stop().success());
    let mut daemon = home.daemon(&AGAIN[..2]);
    let ticket = daemon.line("the ticket", |line| line.starts_with("farm1"));
    let status = me.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json();
    assert_eq!(status["queued"], 2, "{status}");
    assert!(daemon.stop().success());
}

#[test]
fn an_address_with_control_characters_is_refused_and_harmless() {
    let home = Farm::new().home("me");
    let what = "is not a mail address that can be used: plain ASCII such as name@example.org is";
    for (address, shown) in [
        ("a@b.c\r\nBcc: x@y.z", "`a@b.c\\r\\nBcc: x@y.z`"),
        ("a\x1b[2J@b.c", "`a\\u{1b}[2J@b.c`"),
        ("nobody", "`nobody`"),
    ] {
        let ran = home.run(&["request", "hello", "--email", address], SOON);
        assert!(ran.ended_with(2).stderr.contains(&format!("{shown} {what}")), "{:?}", ran.stderr);
        assert!(!ran.stderr.contains(['\r', '\x1b']), "{:?}", ran.stderr);
    }
}

/// A mail server that answers every word after its greeting with `answer`, or says nothing at all.
fn mail_server(answer: Option<&'static str>) -> u16 {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listening.incoming().flatten() {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut lines = BufReader::new(stream.try_clone()?);
                let mut stream = stream;
                if answer.is_some() {
                    stream.write_all(b"220 mail.example.org\r\n")?;
                }
                let mut line = String::new();
                while lines.read_line(&mut line)? > 0 {
                    match answer {
                        Some(_) if line.starts_with("EHLO") => stream.write_all(b"250 mail.example.org\r\n")?,
                        Some(answer) => stream.write_all(format!("{answer}\r\n").as_bytes())?,
                        None => {}
                    }
                    line.clear();
                }
                Ok(())
            });
        }
    });
    port
}

#[test]
fn a_mail_server_that_puts_off_or_is_silent_loses_no_mail() {
    let farm = Farm::new();
    for (name, answer) in [("puts-off", Some("451 4.7.1 come back later")), ("silent", None)] {
        let smtp = format!("smtp://127.0.0.1:{}", mail_server(answer));
        let words = ["--smtp", &smtp, "--smtp-tls", "none", "--mail-from", "barn@example.org"];
        let home = farm.home(name);
        let (mut daemon, ticket) = coordinator(&home, &words);
        let me = farm.home(&format!("{name}-me"));
        let words = ["request", "hello", "--detach", "--json", "--email", "me@example.org", "--farm", &ticket];
        let left = me.run(&words, BUILD).ended_with(0).json();
        me.run(&["cancel", left["request"].as_str().unwrap(), "--farm", &ticket], SOON).ended_with(0);
        if answer.is_some() {
            daemon.says("451", BUILD);
        }
        // The farm goes on, the mail waits, and nobody is told that it failed.
        let status = me.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json();
        assert_eq!(
            (&status["mails_waiting"], &status["mails_failed"]),
            (&1.into(), &serde_json::json!([])),
            "{name}: {status}"
        );
        let before = Instant::now();
        assert!(daemon.stop().success());
        assert!(before.elapsed() < Duration::from_secs(12), "{name}: {:?}", before.elapsed());
        // After a restart it still waits.
        let mut daemon = home.daemon(&[&AGAIN[..2], &["--mail-dir", "mail"]].concat());
        daemon.line("the ticket", |line| line.starts_with("farm1"));
        let mails = || fs::read_dir(home.path().join("mail")).map_or(0, |files| files.flatten().count());
        if answer.is_none() {
            wait_for("the mail, by another way", SOON, || (mails() == 1).then_some(()));
        }
        assert!(daemon.stop().success());
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_at_start() {
    let home = Farm::new().home("me");
    for (words, what) in [
        (&["--coordinator", "--slots", "2"][..], "`--slots` is for a volunteer: add `--volunteer`, or leave it out"),
        (
            &["--volunteer", "--mail-dir", "m"],
            "`--mail-dir` is for a coordinator: add `--coordinator`, or leave it out",
        ),
        (
            &["--coordinator", "--smtp", "smtp://h", "--mail-from", "a@b.c", "--mail-dir", "m"],
            "`--smtp` sends mail and `--mail-dir` writes it to files: choose one",
        ),
        (&["--coordinator", "--smtp", "smtp://h"], "`--smtp` needs a sender: add `--mail-from ADDRESS`"),
        (
            &["--coordinator", "--smtp", "smtp://u@h", "--mail-from", "a@b.c"],
            "a user in `--smtp` and `--smtp-password-file` go together",
        ),
        (
            &["--coordinator", "--lan", "--no-mdns"],
            "`--lan` looks on the local network and `--no-mdns` forbids it: choose one",
        ),
        (
            &["--coordinator", "--lan", "--farm-name", "x"],
            "`--farm-name` founds a new farm and `--farm` or `--lan` joins another: choose one",
        ),
        (&["--volunteer", "status"], "`--volunteer` is for a daemon and goes with no verb"),
    ] {
        says(&home, words, 2, &format!("error: {what}{USAGE}{HELP}"));
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "nothing was founded");
    // A farm has one name.
    let farm = Farm::new();
    let home = founded(&farm, "coordinator");
    let words = ["--coordinator", "--farm-name", "y", "--no-mdns"];
    let next = "use that name, or another home with `--home DIR`";
    says(&home, &words, 2, &error("the farm `x` was founded in this home, not `y`", next));
}

#[test]
fn a_peer_that_sends_nonsense_does_no_harm() {
    let farm = Farm::new();
    let (mut daemon, ticket) = coordinator(&farm.home("coordinator"), &[]);
    let me = farm.home("me");
    let shown = me.run(&["farm", "show", "--json", "--farm", &ticket], SOON).ended_with(0).json();
    let addresses: Vec<String> = serde_json::from_value(shown["coordinators"][0]["addresses"].clone()).unwrap();
    let port = |kind: &str| -> u16 {
        let (_, rest) = addresses.iter().find_map(|address| address.split_once(kind)).unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    };
    // The beginning of the right exchange and then noise, noise from the start, a length without its bytes, and nothing at all.
    let noise: Vec<u8> = (0..1_u32 << 18).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let begun = [b"\x13/multistream/1.0.0\n".as_slice(), &noise].concat();
    let length = [b"\x13/multistream/1.0.0\n\xff\xff\xff\xff\x7f".as_slice()].concat();
    let mut open = Vec::new();
    for bytes in [&begun[..], &noise, &length, b"", b"GET / HTTP/1.1\r\n\r\n"] {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(("127.0.0.1", port("/tcp/"))).unwrap();
            // The other side may hang up before it has read it all.
            let _ = stream.write_all(bytes);
            open.push(stream);
        }
    }
    let quic = UdpSocket::bind("127.0.0.1:0").unwrap();
    for part in noise.chunks(1_200) {
        // What does not fit the receiver's buffer is lost, as on any network.
        let _ = quic.send_to(part, ("127.0.0.1", port("/udp/")));
    }
    let left = me.run(&["request", "hello", "--detach", "--json", "--farm", &ticket], BUILD).ended_with(0).json();
    let status = me.run(&["status", left["request"].as_str().unwrap(), "--json", "--farm", &ticket], SOON);
    assert_eq!(status.ended_with(0).json()["state"], "queued");
    drop(open);
    assert!(daemon.ended().is_none());
    assert!(!daemon.stderr().contains("panicked"), "{}", daemon.stderr());
    assert!(daemon.stop().success());
}

#[test]
fn a_folder_that_cannot_take_the_files_is_refused_before_anything_is_asked_for() {
    let farm = Farm::new();
    let (mut daemon, ticket) = coordinator(&farm.home("coordinator"), &[]);
    let home = farm.home("me");
    let file = real(farm.folder()).join("a file");
    fs::write(&file, "mine").unwrap();
    let in_file = file.join("below");
    let rights = "look at the folder and its rights, or give another with `--output DIR`";
    let mut wrong = vec![
        (file.clone(), format!("{}: something that is no folder stands there", file.display()), rights),
        (in_file.clone(), format!("{}: Not a directory (os error 20)", in_file.display()), rights),
    ];
    let full = real(farm.folder()).join("full");
    fs::create_dir(&full).unwrap();
    let disk = small_disk(&full, 4);
    if disk.is_some() {
        fs::write(full.join("all there is"), [1; 4_096]).unwrap();
        let room = "make room there, or give another with `--output DIR`";
        wrong.push((full.clone(), format!("{}: No space left on device (os error 28)", full.display()), room));
    }
    for (output, what, next) in wrong {
        let words = ["--output", output.to_str().unwrap(), "--farm", &ticket];
        let said = error(&format!("the files cannot go to {what}"), next);
        for verb in [&["request", "hello"][..], &["fetch", "12345678"]] {
            says(&home, &[verb, &words].concat(), 2, &said);
        }
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    let status = home.run(&["status", "--json", "--farm", &ticket], SOON).ended_with(0).json();
    assert_eq!((&status["queued"], &status["running"]), (&0.into(), &0.into()), "nothing was asked for");
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_told_to_stop_ends_within_its_bound() {
    let farm = Farm::new();
    let (mut daemon, ticket) = coordinator(&farm.home("coordinator"), &[]);
    let me = farm.home("me");
    // Somebody waits at it, and hears that it goes.
    let mut waiting =
        Process::start(&mut me.command(["request", "hello", "--require", "tool.nobody-has-it", "--farm", &ticket]));
    wait_for("the reason for waiting", SOON, || waiting.stderr().contains("none is in the farm now").then_some(()));
    let before = Instant::now();
    assert!(daemon.stop().success());
    assert!(before.elapsed() < Duration::from_secs(12), "{:?}", before.elapsed());
    assert!(waiting.ended().is_none(), "whoever waits waits for it to come back: {}", waiting.stderr());
}
