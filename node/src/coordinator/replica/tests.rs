//! The replica as a whole, over a small law of its own: restart, snapshots, kill -9, a group of three.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use openraft::testing::{StoreBuilder, Suite};
use protocol::farm::command::LawVersion;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::database::Database;

const DEADLINE: Duration = Duration::from_secs(60);

/// Remembers which numbers were said, and when.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    said: BTreeMap<u64, u64>,
    stamps: Vec<u64>,
}

/// The law panics at it.
const FORBIDDEN: u64 = u64::MAX;

#[derive(Serialize, Deserialize)]
struct Say {
    number: u64,
    padding: String,
}

fn say(number: u64) -> Say {
    Say { number, padding: String::new() }
}

impl Law for Tally {
    const NEWEST: LawVersion = LawVersion(1);
    type Command = Say;
    type Reply = Result<u64, String>;
    type Event = u64;

    fn apply(&mut self, index: u64, now: Timestamp, command: Say) -> (Self::Reply, Vec<u64>) {
        assert_ne!(command.number, FORBIDDEN, "a fault of the law");
        if self.said.contains_key(&command.number) {
            return (Err(format!("{} was said before", command.number)), vec![]);
        }
        self.said.insert(command.number, index);
        self.stamps.push(now.as_millis());
        (Ok(index), vec![command.number, command.number + 1_000_000])
    }

    fn snapshot(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&encode(self).unwrap())
    }

    fn restore(snapshot: &mut dyn BufRead) -> Result<Self, String> {
        let mut bytes = Vec::new();
        snapshot.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        types::decode(&bytes).map_err(|error| error.to_string())
    }
}

fn records() -> Records {
    Database::temporary().unwrap().records("replica")
}

fn nobody() -> Carry {
    Arc::new(|_, _, _, _| Box::pin(async { Err(CarryError::Unreachable("alone".into())) }))
}

fn alone(folder: &Path, records: Records) -> ReplicaConfig {
    ReplicaConfig {
        folder: folder.to_owned(),
        records,
        id: 1,
        seat: Seat { peer_id: "one".into() },
        beginning: Beginning::Alone,
        clock: Clock::system(),
        carry: nobody(),
        events_kept: 64,
        wal: WalConfig { segment_bytes: 64 << 10, cache_bytes: 16 << 10 },
    }
}

async fn say_all(replica: &Replica<Tally>, numbers: RangeInclusive<u64>, padding: usize) {
    let saying = numbers.map(|number| {
        let replica = replica.clone();
        tokio::spawn(async move {
            let command = Say { number, padding: "x".repeat(padding) };
            replica.propose(&command).await.unwrap().unwrap();
        })
    });
    for said in futures::future::join_all(saying).await {
        said.unwrap();
    }
}

fn said(replica: &Replica<Tally>) -> Vec<u64> {
    replica.read(|tally| tally.said.keys().copied().collect())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Storage;

impl StoreBuilder<Types, LogStore, Machine<Tally>, TempDir> for Storage {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine<Tally>), types::StorageError> {
        let home = tempfile::tempdir().unwrap();
        let (wal, recovered) = Wal::open(&home.path().join("log"), &WalConfig::default()).unwrap();
        let snapshots = SnapshotStore::open(home.path().join("snapshots"), records()).unwrap();
        let machine = Machine::open(snapshots, 16).unwrap();
        Ok((home, LogStore::new(wal, recovered.vote), machine))
    }
}

#[test]
fn the_storage_passes_the_suite_of_openraft() {
    Suite::test_all(Storage).unwrap();
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    for round in 0..3u64 {
        let replica = Replica::<Tally>::open(alone(home.path(), records.clone())).await.unwrap();
        assert_eq!(said(&replica), (1..=round * 10).collect::<Vec<_>>());
        assert_eq!(replica.leader(), Some(1));
        for number in round * 10 + 1..=round * 10 + 10 {
            assert_eq!(replica.propose(&say(number)).await.unwrap(), Ok(number));
        }
        replica.close().await.unwrap();
        assert_eq!(replica.propose(&say(1)).await, Err(ProposeError::Stopped));
    }
}

#[tokio::test]
async fn the_laws_refusal_is_a_reply_and_a_large_command_is_not_proposed() {
    let home = tempfile::tempdir().unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
    assert_eq!(replica.propose(&say(7)).await.unwrap(), Ok(1));
    assert_eq!(replica.propose(&say(7)).await.unwrap(), Err("7 was said before".into()));
    let largest = |padding: usize| Say { number: 8, padding: "x".repeat(padding) };
    let overhead = encode(&largest(MAX_COMMAND_BYTES - 100)).unwrap().len() - (MAX_COMMAND_BYTES - 100);
    let fits = MAX_COMMAND_BYTES - overhead;
    let refused = replica.propose(&largest(fits + 1)).await;
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes: MAX_COMMAND_BYTES + 1 }));
    assert_eq!(replica.propose(&largest(fits)).await.unwrap(), Ok(3));
    assert_eq!(replica.last_index(), 3);
}

#[tokio::test]
async fn events_come_in_order_and_a_slow_reader_starts_over() {
    let home = tempfile::tempdir().unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
    let (mut reader, mut slow) = (replica.events(), replica.events());
    for number in 1..=5 {
        replica.propose(&say(number)).await.unwrap().unwrap();
    }
    for index in 1..=5 {
        for (n, event) in [(0, index), (1, index + 1_000_000)] {
            let told = timeout(DEADLINE, reader.next()).await.unwrap();
            assert_eq!(told, Some(Told::Event(Happened { index, n, event })));
        }
    }
    for number in 6..=70 {
        replica.propose(&say(number)).await.unwrap().unwrap();
    }
    assert_eq!(slow.next().await, Some(Told::StartOver));
    assert!(matches!(slow.next().await, Some(Told::Event(_))));
}

#[tokio::test]
async fn proposals_made_together_share_syncs() {
    let home = tempfile::tempdir().unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
    let syncs = replica.syncs();
    let before = syncs.count();
    replica.propose(&say(0)).await.unwrap().unwrap();
    assert_eq!(syncs.count() - before, 1, "a single command costs one sync");
    say_all(&replica, 1..=640, 0).await;
    let shared = syncs.count() - before - 1;
    assert!(shared < 64, "640 proposals at once cost {shared} syncs");
}

#[tokio::test]
async fn stamps_never_run_backwards() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    let open = async |clock_ms| {
        let clock = Clock::set_to(Timestamp::from_millis(clock_ms));
        let config = ReplicaConfig { clock, ..alone(home.path(), records.clone()) };
        Replica::<Tally>::open(config).await.unwrap()
    };
    let replica = open(1_000_000_000).await;
    say_all(&replica, 1..=3, 0).await;
    let last = replica.last_stamp();
    assert!(last >= Timestamp::from_millis(1_000_000_000));
    replica.close().await.unwrap();
    // The machine's clock was set back between two runs.
    let replica = open(5_000).await;
    say_all(&replica, 4..=5, 0).await;
    let stamps = replica.read(|tally| tally.stamps.clone());
    assert!(stamps.is_sorted(), "{stamps:?}");
    assert_eq!(stamps[3..], [last.as_millis(); 2]);
}

/// A replica with a snapshot behind it and commands after that, closed; and how many were said.
async fn with_snapshot(home: &Path, records: &Records) -> u64 {
    let replica = Replica::<Tally>::open(alone(home, records.clone())).await.unwrap();
    let mut last = 0;
    while snapshots(home).is_empty() {
        assert!(last < 2_000, "2 MB of commands and no snapshot");
        say_all(&replica, last + 1..=last + 100, 1_000).await;
        last += 100;
    }
    say_all(&replica, last + 1..=last + 10, 0).await;
    // The log is purged once the snapshot is made, save for the entries that are kept on purpose.
    replica.close().await.unwrap();
    last + 10
}

fn snapshots(home: &Path) -> Vec<PathBuf> {
    let folder = home.join("snapshots");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
}

#[tokio::test]
async fn a_snapshot_and_the_log_behind_it_give_the_state_again() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    let last = with_snapshot(home.path(), &records).await;
    // Without sled's record, which a power cut may take, the file is found all the same.
    for records in [records, self::records()] {
        let replica = Replica::<Tally>::open(alone(home.path(), records)).await.unwrap();
        assert_eq!(said(&replica), (1..=last).collect::<Vec<_>>());
        assert_eq!(replica.last_index(), last);
        replica.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_that_was_found_without_a_record_is_missed_when_it_goes() {
    let home = tempfile::tempdir().unwrap();
    with_snapshot(home.path(), &records()).await;
    let anew = records();
    Replica::<Tally>::open(alone(home.path(), anew.clone())).await.unwrap().close().await.unwrap();
    let [path] = &snapshots(home.path())[..] else { panic!("one snapshot") };
    std::fs::remove_file(path).unwrap();
    let opened = Replica::<Tally>::open(alone(home.path(), anew)).await;
    assert!(matches!(opened, Err(OpenError::Snapshot(SnapshotError::Lost { .. }))));
}

#[tokio::test]
async fn a_damaged_or_missing_snapshot_is_an_error_never_an_empty_farm() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    with_snapshot(home.path(), &records).await;
    let [path] = &snapshots(home.path())[..] else { panic!("one snapshot") };
    let whole = std::fs::read(path).unwrap();
    for at in [0, 9, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(path, damaged).unwrap();
        let opened = Replica::<Tally>::open(alone(home.path(), records.clone())).await;
        assert!(matches!(opened, Err(OpenError::Snapshot(SnapshotError::Damaged(_)))), "byte {at}");
    }
    std::fs::remove_file(path).unwrap();
    let opened = Replica::<Tally>::open(alone(home.path(), records)).await;
    assert!(matches!(opened, Err(OpenError::Snapshot(SnapshotError::Lost { .. }))));
}

#[tokio::test]
async fn an_entry_of_a_newer_law_stops_the_replica() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    let replica = Replica::<Tally>::open(alone(home.path(), records.clone())).await.unwrap();
    let command = ByteBuf::from(encode(&say(1)).unwrap());
    let stamped = Stamped { now: Timestamp::EPOCH, law_version: LawVersion(2), command };
    let written = replica.inner.raft.client_write(Batch { commands: vec![stamped] }).await;
    assert!(matches!(written, Err(RaftError::Fatal(_))));
    assert_eq!(replica.propose(&say(2)).await, Err(ProposeError::Stopped));
    let failure = timeout(DEADLINE, replica.failure()).await.unwrap();
    assert!(!failure.is_empty(), "whoever runs it hears that it has stopped");
    assert!(replica.close().await.is_ok());
    let opened = timeout(DEADLINE, Replica::<Tally>::open(alone(home.path(), records))).await.unwrap();
    assert!(opened.is_err(), "it does not start without the entry either");
}

#[tokio::test]
async fn a_panic_of_the_law_stops_the_replica_and_leaves_nobody_waiting() {
    let home = tempfile::tempdir().unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
    replica.propose(&say(1)).await.unwrap().unwrap();
    let said = timeout(DEADLINE, replica.propose(&say(FORBIDDEN))).await.unwrap();
    assert_eq!(said, Err(ProposeError::Stopped));
    assert_eq!(timeout(DEADLINE, replica.propose(&say(2))).await.unwrap(), Err(ProposeError::Stopped));
    assert!(replica.close().await.is_ok());
}

/// What the killed process leaves is the work of the same test, run as a child of its own.
const CHILD_HOME: &str = "BARNRAISE_TEST_KILLED_HOME";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9() {
    if let Some(home) = std::env::var_os(CHILD_HOME) {
        return say_until_killed(Path::new(&home)).await;
    }
    let home = tempfile::tempdir().unwrap();
    let mut answered = std::collections::BTreeSet::new();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "coordinator::replica::tests::what_was_answered_survives_kill_9"])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_HOME, home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Killed after a number of answers that differs each round; what else it said before it died
        // still counts as answered.
        let wanted = 40 + 97 * round as usize;
        let mut new = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(number) = line.strip_prefix("answered ") else { continue };
            answered.insert(number.parse::<u64>().unwrap());
            new += 1;
            if new == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(new >= wanted, "the child ended by itself after {new}");
        let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
        let found: std::collections::BTreeSet<u64> = said(&replica).into_iter().collect();
        let lost: Vec<_> = answered.difference(&found).collect();
        assert!(lost.is_empty(), "answered and lost: {lost:?}");
        replica.close().await.unwrap();
    }
}

async fn say_until_killed(home: &Path) {
    let replica = Replica::<Tally>::open(alone(home, records())).await.unwrap();
    let next = Arc::new(AtomicU64::new(replica.last_index() + 1_000));
    let saying = (0..16).map(|_| {
        let (replica, next) = (replica.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let command = Say { number, padding: "x".repeat(500) };
                if replica.propose(&command).await.unwrap().is_ok() {
                    let line = format!("answered {number}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            }
        })
    });
    futures::future::join_all(saying).await;
}

/// Coordinators in one process; a call to one that is not in the map is unreachable.
type Group = Arc<RwLock<BTreeMap<NodeId, Replica<Tally>>>>;

fn through(group: &Group) -> Carry {
    let group = group.clone();
    Arc::new(move |target, _, call, within| {
        let replica = group.read().unwrap().get(&target).cloned();
        Box::pin(async move {
            let replica = replica.ok_or_else(|| CarryError::Unreachable("cut off".into()))?;
            let answer = timeout(within, replica.answer(&call)).await.map_err(|_| CarryError::Timeout)?;
            answer.map_err(|error| CarryError::Broken(error.to_string()))
        })
    })
}

/// Says `number` at whichever of them leads, as often as it takes: who leads may change.
async fn say_at_leader(replicas: &[&Replica<Tally>], number: u64) {
    let begun = Instant::now();
    loop {
        for replica in replicas {
            match replica.propose(&say(number)).await {
                Ok(_) => return,
                Err(error) => assert!(matches!(error, ProposeError::NotLeader { .. }), "{error}"),
            }
        }
        assert!(begun.elapsed() < DEADLINE, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_coordinators_agree_and_one_may_fall() {
    let home = tempfile::tempdir().unwrap();
    let folder = |id: NodeId| home.path().join(id.to_string());
    let group = Group::default();
    let open = async |id: NodeId, beginning| {
        let config = ReplicaConfig {
            id,
            seat: Seat { peer_id: id.to_string() },
            beginning,
            carry: through(&group),
            ..alone(&folder(id), records())
        };
        let replica = Replica::<Tally>::open(config).await.unwrap();
        group.write().unwrap().insert(id, replica.clone());
        replica
    };
    let one = open(1, Beginning::Alone).await;
    say_and_purge(&one, &folder(1)).await;

    let (two, three) = (open(2, Beginning::Invited).await, open(3, Beginning::Invited).await);
    for id in [2, 3] {
        one.inner.raft.add_learner(id, Seat { peer_id: id.to_string() }, true).await.unwrap();
    }
    one.inner.raft.change_membership([1, 2, 3], false).await.unwrap();
    for number in 1_201..=1_230 {
        say_at_leader(&[&one, &two, &three], number).await;
    }
    let everything: Vec<u64> = (1..=1_230).collect();
    until("all three agree", || [&one, &two, &three].iter().all(|replica| said(replica) == everything)).await;
    assert_eq!((snapshots(&folder(2)).len(), snapshots(&folder(3)).len()), (1, 1), "they began with a snapshot");

    group.write().unwrap().remove(&1);
    one.close().await.unwrap();
    say_at_leader(&[&two, &three], 9_999).await;
    until("both have it", || said(&two).contains(&9_999) && said(&three).contains(&9_999)).await;
    assert_eq!(two.read(|tally| encode(tally).unwrap()), three.read(|tally| encode(tally).unwrap()));
    let follower = if two.leader() == Some(2) { &three } else { &two };
    let elsewhere = follower.propose(&say(0)).await;
    assert!(matches!(elsewhere, Err(ProposeError::NotLeader { leader: Some(_) })), "{elsewhere:?}");
    two.close().await.unwrap();
    three.close().await.unwrap();
}

/// Says 1 to 1200, more entries than the log keeps behind a snapshot, and makes one.
async fn say_and_purge(replica: &Replica<Tally>, home: &Path) {
    for number in 1..=1_200 {
        replica.propose(&say(number)).await.unwrap().unwrap();
    }
    replica.inner.raft.trigger().snapshot().await.unwrap();
    until("a snapshot", || !snapshots(home).is_empty()).await;
    until("a purged log", || replica.inner.raft.metrics().borrow().purged.is_some()).await;
}

#[tokio::test]
async fn a_purged_log_needs_its_snapshot() {
    let home = tempfile::tempdir().unwrap();
    let records = records();
    let replica = Replica::<Tally>::open(alone(home.path(), records.clone())).await.unwrap();
    say_and_purge(&replica, home.path()).await;
    replica.close().await.unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records)).await.unwrap();
    assert_eq!(said(&replica), (1..=1_200).collect::<Vec<_>>());
    replica.close().await.unwrap();
    for path in snapshots(home.path()) {
        std::fs::remove_file(path).unwrap();
    }
    let opened = Replica::<Tally>::open(alone(home.path(), self::records())).await;
    assert!(matches!(opened, Err(OpenError::Gap { snapshot: None, .. })), "{opened:?}");
}

#[tokio::test]
async fn a_call_for_another_coordinator_or_of_nonsense_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let replica = Replica::<Tally>::open(alone(home.path(), records())).await.unwrap();
    let request = openraft::raft::VoteRequest::new(openraft::Vote::new(9, 2), None);
    let call = peers::vote_call(7, request);
    assert!(matches!(replica.answer(&call).await, Err(AnswerError::NotForUs { target: 7 })));
    assert!(matches!(replica.answer(b"nonsense").await, Err(AnswerError::Codec(_))));
}
