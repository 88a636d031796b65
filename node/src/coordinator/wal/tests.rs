//! The log against crashes: torn at every byte, bits flipped, files missing, compared with a model.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::mpsc as std_mpsc;

use futures::executor::block_on;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const SMALL: WalConfig = WalConfig { segment_bytes: 600, cache_bytes: 64 };
const LARGE: WalConfig = WalConfig { segment_bytes: 1 << 20, cache_bytes: 1 << 20 };

type Entries = Vec<(u64, Vec<u8>)>;

fn entries(range: Range<u64>) -> Entries {
    range.map(|at| (at, format!("entry {at} {}", "x".repeat(at as usize % 50)).into_bytes())).collect()
}

/// Appends and waits until it is on disk.
fn append(wal: &Wal, entries: &[(u64, Vec<u8>)]) {
    let entries = entries.iter().map(|(at, bytes)| (*at, bytes.as_slice().into())).collect();
    let (done, answer) = answer();
    block_on(wal.append(entries, done)).unwrap();
    block_on(heard("append", answer)).unwrap();
}

fn all(wal: &Wal) -> Entries {
    let read = wal.read(0..u64::MAX, usize::MAX).unwrap();
    read.into_iter().map(|(at, payload)| (at, payload.to_vec())).collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    paths.sort();
    paths
}

fn copied(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

fn flip(path: &Path, bit: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn is_corrupt(folder: &Path) -> bool {
    matches!(Wal::open(folder, &SMALL), Err(WalError::Corrupt { .. }))
}

#[test]
fn entries_are_read_back_from_memory_and_from_disk_and_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let expected = entries(0..60);
    {
        let (wal, recovered) = Wal::open(home.path(), &SMALL).unwrap();
        assert_eq!(recovered, Recovered { entries: 0..0, vote: None, repair: None });
        for chunk in expected.chunks(3) {
            append(&wal, chunk);
        }
        assert_eq!(all(&wal), expected);
        wal.note_committed(b"the 59th");
    }
    assert!(segments(home.path()).len() > 3);
    let (wal, recovered) = Wal::open(home.path(), &SMALL).unwrap();
    assert_eq!(recovered, Recovered { entries: 0..60, vote: None, repair: None });
    assert_eq!(all(&wal), expected);
    assert_eq!(wal.committed(), Some(b"the 59th".to_vec()));
}

#[test]
fn a_read_is_bounded_but_never_empty() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    append(&wal, &entries(0..20));
    assert_eq!(wal.read(4..20, 0).unwrap().len(), 1);
    assert_eq!(wal.read(4..4, 100).unwrap().len(), 0);
    let some = wal.read(4..20, 100).unwrap();
    assert!(some.len() > 1 && some.len() < 16, "{}", some.len());
}

#[test]
fn an_entry_out_of_order_or_too_large_is_refused_and_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    append(&wal, &entries(0..3));
    let try_append = |entries: Vec<(u64, Arc<[u8]>)>| block_on(wal.append(entries, |_| {}));
    let small: Arc<[u8]> = Arc::from([0u8; 4]);
    let gap = try_append(vec![(4, small.clone())]);
    assert!(matches!(gap, Err(WalError::Gap(Gap { expected: 3, found: 4 }))));
    let gap = try_append(vec![(3, small.clone()), (5, small)]);
    assert!(matches!(gap, Err(WalError::Gap(Gap { expected: 4, found: 5 }))));
    let large = try_append(vec![(3, vec![0; ENTRY_BYTES_MAX + 1].into())]);
    assert!(matches!(large, Err(WalError::TooLarge { .. })));
    assert_eq!(all(&wal), entries(0..3));
}

#[test]
fn a_log_has_one_owner() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    assert!(matches!(Wal::open(home.path(), &LARGE), Err(WalError::InUse(_))));
    drop(wal);
    Wal::open(home.path(), &LARGE).unwrap();
}

#[test]
fn what_waits_together_is_synced_once() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    // The writer is held inside the first answer while the others queue up.
    let (hold, held) = std_mpsc::sync_channel::<()>(1);
    let (entered, inside) = std_mpsc::sync_channel(1_024);
    block_on(wal.append(vec![(0, Arc::from([0u8; 8]))], move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    }))
    .unwrap();
    inside.recv().unwrap();
    let before = wal.syncs().count();
    let (tell, told) = std_mpsc::sync_channel(1_024);
    for at in 1..101 {
        let tell = tell.clone();
        block_on(wal.append(vec![(at, Arc::from([0u8; 8]))], move |result| {
            tell.send(result.map(|()| at)).unwrap();
        }))
        .unwrap();
    }
    assert_eq!(wal.read(0..101, usize::MAX).unwrap().len(), 101, "readable before they are on disk");
    assert!(told.try_recv().is_err(), "none is acknowledged before it is on disk");
    hold.send(()).unwrap();
    let answered: Vec<u64> = told.iter().take(100).map(Result::unwrap).collect();
    assert_eq!(answered, (1..101).collect::<Vec<_>>());
    assert_eq!(wal.syncs().count() - before, 1);
}

#[test]
fn a_write_torn_at_any_byte_costs_only_what_was_not_acknowledged() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    let expected = entries(0..12);
    let [path] = &segments(home.path())[..] else { panic!("one segment") };
    let length = || fs::metadata(path).unwrap().len();
    let made = length();
    let mut acknowledged = Vec::new();
    for chunk in expected.chunks(3) {
        append(&wal, chunk);
        acknowledged.push((length(), chunk.last().unwrap().0 + 1));
    }
    let image = copied(home.path());
    drop(wal);
    let name = path.file_name().unwrap();
    for torn in 0..=acknowledged.last().unwrap().0 {
        let crashed = copied(image.path());
        cut(&crashed.path().join(name), torn);
        if torn < made {
            assert!(is_corrupt(crashed.path()), "the segment was whole when it got its name");
            continue;
        }
        let (wal, recovered) = Wal::open(crashed.path(), &LARGE).unwrap();
        let safe = acknowledged.iter().rfind(|(length, _)| *length <= torn).map_or(0, |(_, next)| *next);
        let found = all(&wal);
        assert!(found.len() as u64 >= safe && found.len() as u64 <= safe + 2, "cut at {torn}");
        assert_eq!(found[..], expected[..found.len()]);
        let next = found.len() as u64;
        append(&wal, &entries(next..next + 2));
        drop(wal);
        let (wal, again) = Wal::open(crashed.path(), &LARGE).unwrap();
        assert_eq!(again.repair, None, "mended once: {recovered:?}");
        assert_eq!(all(&wal), entries(0..next + 2));
    }
}

#[test]
fn a_flipped_bit_is_an_error_unless_it_is_in_the_last_write() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    append(&wal, &entries(0..3));
    append(&wal, &entries(3..6));
    let [path] = &segments(home.path())[..] else { panic!("one segment") };
    let last_write = fs::metadata(path).unwrap().len();
    append(&wal, &entries(6..9));
    let end = fs::metadata(path).unwrap().len();
    let image = copied(home.path());
    drop(wal);
    let name = path.file_name().unwrap();
    for bit in 0..end * 8 {
        let damaged = copied(image.path());
        flip(&damaged.path().join(name), bit);
        if bit / 8 < last_write {
            assert!(is_corrupt(damaged.path()), "bit {bit}");
        } else {
            let (wal, recovered) = Wal::open(damaged.path(), &LARGE).unwrap();
            assert!(recovered.repair.is_some());
            let found = all(&wal);
            assert!((6..9).contains(&found.len()));
            assert_eq!(found[..], entries(0..9)[..found.len()]);
        }
    }
}

#[test]
fn damage_in_an_earlier_segment_or_a_missing_one_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    for at in 0..40 {
        append(&wal, &entries(at..at + 1));
    }
    drop(wal);
    let paths = segments(home.path());
    assert!(paths.len() >= 4);
    for path in &paths[..paths.len() - 1] {
        let name = path.file_name().unwrap();
        let damaged = copied(home.path());
        let length = fs::metadata(path).unwrap().len();
        cut(&damaged.path().join(name), length - 1);
        assert!(is_corrupt(damaged.path()), "{name:?} cut");
        let damaged = copied(home.path());
        flip(&damaged.path().join(name), length * 8 - 1);
        assert!(is_corrupt(damaged.path()), "{name:?} flipped");
        let damaged = copied(home.path());
        fs::remove_file(damaged.path().join(name)).unwrap();
        assert!(is_corrupt(damaged.path()), "{name:?} missing");
    }
}

#[test]
fn purged_segments_go_and_what_a_crash_left_of_them_does_no_harm() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    for at in 0..40 {
        append(&wal, &entries(at..at + 1));
    }
    let before = copied(home.path());
    block_on(wal.purge(35, b"35".to_vec())).unwrap();
    drop(wal);
    let left = segments(home.path());
    assert!(left.len() < segments(before.path()).len());
    for path in segments(before.path()) {
        // Crash between the deletions: any one of them may not have reached the disk.
        let crashed = copied(home.path());
        let name = path.file_name().unwrap();
        if !crashed.path().join(name).exists() {
            fs::copy(&path, crashed.path().join(name)).unwrap();
        }
        let (wal, _) = Wal::open(crashed.path(), &SMALL).unwrap();
        assert_eq!(all(&wal), entries(36..40));
        assert_eq!(wal.purged(), Some((35, b"35".to_vec())));
    }
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    block_on(wal.purge(90, b"90".to_vec())).unwrap();
    block_on(wal.purge(50, b"50".to_vec())).unwrap();
    append(&wal, &entries(91..92));
    drop(wal);
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    assert_eq!((all(&wal), wal.purged()), (entries(91..92), Some((90, b"90".to_vec()))));
}

#[test]
fn a_log_that_is_purged_now_and_then_stays_small_although_no_segment_is_ever_full() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    let bytes = || segments(home.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    for round in 0..20_u64 {
        let payload = vec![0; 100 << 10];
        append(&wal, &(round * 2..round * 2 + 2).map(|at| (at, payload.clone())).collect::<Vec<_>>());
        // The latest stay for whoever was away shortly.
        block_on(wal.purge((round * 2).saturating_sub(2), round.to_be_bytes().to_vec())).unwrap();
    }
    assert!(bytes() < LARGE.segment_bytes, "{} bytes for the last few entries", bytes());
    drop(wal);
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    assert_eq!(wal.entries(), 37..40);
}

#[test]
fn the_vote_is_the_last_one_saved_and_a_damaged_one_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &LARGE).unwrap();
    block_on(wal.save_vote(b"term 1".to_vec())).unwrap();
    let early = copied(home.path());
    block_on(wal.save_vote(b"term 2".to_vec())).unwrap();
    let late = copied(home.path());
    drop(wal);
    let vote = |folder: &Path| Wal::open(folder, &LARGE).map(|(_, recovered)| recovered.vote);
    assert_eq!(vote(early.path()).unwrap(), Some(b"term 1".to_vec()));
    assert_eq!(vote(late.path()).unwrap(), Some(b"term 2".to_vec()));
    // Crash before the rename: the new vote was never acknowledged.
    for torn in 0..=fs::metadata(late.path().join("vote")).unwrap().len() {
        fs::copy(late.path().join("vote"), early.path().join("vote.new")).unwrap();
        cut(&early.path().join("vote.new"), torn);
        assert_eq!(vote(early.path()).unwrap(), Some(b"term 1".to_vec()));
        assert!(!early.path().join("vote.new").exists());
    }
    for bit in 0..fs::metadata(late.path().join("vote")).unwrap().len() * 8 {
        flip(&late.path().join("vote"), bit);
        assert!(matches!(vote(late.path()), Err(WalError::Corrupt { .. })), "bit {bit}");
        flip(&late.path().join("vote"), bit);
    }
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_any_more() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("log");
    let (wal, _) = Wal::open(&folder, &SMALL).unwrap();
    append(&wal, &entries(0..3));
    // Without its folder the log cannot begin a new segment.
    fs::rename(&folder, home.path().join("elsewhere")).unwrap();
    for at in 0..2 {
        let (done, answer) = answer();
        let payload: Arc<[u8]> = vec![0; 600].into();
        block_on(wal.append(vec![(3 + at, payload)], done)).unwrap();
        assert!(block_on(heard("append", answer)).is_err());
    }
    assert!(block_on(wal.save_vote(b"term 9".to_vec())).is_err());
    assert!(block_on(wal.truncate(1)).is_err());
    drop(wal);
    let (wal, recovered) = Wal::open(&home.path().join("elsewhere"), &SMALL).unwrap();
    assert_eq!((all(&wal), recovered.vote), (entries(0..3), None));
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_is_acknowledged_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(home.path(), &SMALL).unwrap();
    append(&wal, &entries(0..3));
    // What is to become the next segment, and the vote, lead to a disk that is always full.
    let next = || {
        let last = segments(home.path()).pop().unwrap();
        let sequence = segment::sequence_of(last.file_name().unwrap().to_str().unwrap()).unwrap();
        segment::path(home.path(), sequence + 1).with_extension("wal.new")
    };
    let unfinished = next();
    let vote = home.path().join("vote.new");
    let asked = |at: u64| {
        let (tell, told) = std_mpsc::sync_channel(1);
        let payload: Arc<[u8]> = vec![at as u8; 600].into();
        block_on(wal.append(vec![(at, payload)], move |result| tell.send(result).unwrap())).unwrap();
        told
    };
    for path in [&unfinished, &vote] {
        std::os::unix::fs::symlink("/dev/full", path).unwrap();
    }
    let told = asked(3);
    assert!(told.recv_timeout(Duration::from_millis(600)).is_err(), "it is not acknowledged");
    fs::remove_file(&unfinished).unwrap();
    told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    thread::scope(|scope| {
        let saving = scope.spawn(|| block_on(wal.save_vote(b"term 9".to_vec())));
        thread::sleep(Duration::from_millis(300));
        assert!(!saving.is_finished());
        fs::remove_file(&vote).unwrap();
        saving.join().unwrap().unwrap();
    });
    // Who closes the log does not wait for space.
    std::os::unix::fs::symlink("/dev/full", next()).unwrap();
    let told = asked(4);
    drop(wal);
    assert!(told.recv_timeout(Duration::from_secs(20)).unwrap().is_err());
    let (wal, recovered) = Wal::open(home.path(), &SMALL).unwrap();
    assert_eq!((wal.entries(), recovered.vote), (0..4, Some(b"term 9".to_vec())));
}

/// What a log holds, in the plainest form.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Entries,
    purged: Option<(u64, Vec<u8>)>,
    next: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    /// Entries to cut off the end.
    Truncate(u64),
    /// Distance of the purged index from the first entry held.
    Purge(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let payload = proptest::collection::vec(any::<u8>(), 0..120);
    prop_oneof![
        6 => proptest::collection::vec(payload, 1..6).prop_map(Step::Append),
        2 => (0u64..6).prop_map(Step::Truncate),
        2 => (0u64..12).prop_map(Step::Purge),
        1 => Just(Step::Reopen),
    ]
}

impl Model {
    fn of(wal: &Wal) -> Self {
        Self { entries: all(wal), purged: wal.purged(), next: wal.entries().end }
    }

    /// Takes `step` in model and log alike.
    fn step(&mut self, step: &Step, wal: &Wal) {
        match step {
            Step::Append(payloads) => {
                let new: Entries = (self.next..).zip(payloads.iter().cloned()).collect();
                append(wal, &new);
                self.next += new.len() as u64;
                self.entries.extend(new);
            }
            Step::Truncate(count) => {
                self.next -= (*count).min(self.entries.len() as u64);
                self.entries.retain(|(at, _)| *at < self.next);
                block_on(wal.truncate(self.next)).unwrap();
            }
            Step::Purge(distance) => {
                let upto = self.next - self.entries.len() as u64 + distance;
                let marker = upto.to_string().into_bytes();
                block_on(wal.purge(upto, marker.clone())).unwrap();
                self.entries.retain(|(at, _)| *at > upto);
                self.next = self.next.max(upto + 1);
                self.purged = Some((upto, marker));
            }
            Step::Reopen => {}
        }
    }

    /// Whether a crash during `step`, which leads from here to `after`, may leave `found`.
    fn may_become(&self, step: &Step, after: &Self, found: &Self) -> bool {
        if found == self || found == after {
            return true;
        }
        let Step::Append(_) = step else { return false };
        (self.next..after.next).contains(&found.next)
            && found.purged == self.purged
            && found.entries[..] == after.entries[..found.entries.len()]
            && found.entries.len() >= self.entries.len()
    }
}

/// Leaves in `crashed` what a crash during the last write may leave: the write cut short at `torn` of
/// its length, and perhaps a hole in it.
fn tear(crashed: &Path, written: Range<u64>, torn: f64, hole: Option<f64>) {
    let paths = segments(crashed);
    let path = paths.last().unwrap();
    let length = written.end - written.start;
    let end = written.start + (length as f64 * torn) as u64;
    cut(path, end);
    if let Some(hole) = hole
        && end > written.start
    {
        let at = written.start + ((end - written.start) as f64 * hole) as u64;
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&vec![0; ((end - at) as usize).min(40)], at).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_crash_at_any_step_leaves_the_log_before_or_after_it(
        steps in proptest::collection::vec((step(), 0.0..1.0f64, proptest::option::of(0.0..1.0f64)), 1..25),
    ) {
        let home = tempfile::tempdir().unwrap();
        let (mut wal, _) = Wal::open(home.path(), &SMALL).unwrap();
        let mut model = Model::default();
        for (step, torn, hole) in &steps {
            let before = model.clone();
            let active = segments(home.path()).pop().unwrap();
            let begin = fs::metadata(&active).unwrap().len();
            let image = copied(home.path());
            model.step(step, &wal);
            if let Step::Reopen = step {
                drop(wal);
                wal = Wal::open(home.path(), &SMALL).unwrap().0;
            }
            prop_assert_eq!(&Model::of(&wal), &model);

            let crashed = copied(home.path());
            let now = segments(crashed.path()).pop().unwrap();
            let end = fs::metadata(&now).unwrap().len();
            // Purged segments are deleted only when the write that says so is on disk.
            for path in segments(image.path()) {
                let deleted = crashed.path().join(path.file_name().unwrap());
                if !deleted.exists() {
                    fs::copy(&path, deleted).unwrap();
                }
            }
            if now.file_name() == active.file_name() {
                tear(crashed.path(), begin..end, *torn, *hole);
            } else {
                // Crash before the new segment got its name.
                fs::rename(&now, now.with_extension("wal.new")).unwrap();
            }
            let (reopened, _) = Wal::open(crashed.path(), &SMALL).unwrap();
            let found = Model::of(&reopened);
            prop_assert!(before.may_become(step, &model, &found), "{before:?} -> {found:?}");
            let mut onward = found;
            onward.step(&Step::Append(vec![b"after the crash".to_vec()]), &reopened);
            drop(reopened);
            let (reopened, recovered) = Wal::open(crashed.path(), &SMALL).unwrap();
            prop_assert_eq!((Model::of(&reopened), recovered.repair), (onward, None));
        }
    }
}
