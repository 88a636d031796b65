//! One suite for both shelves, and what only a disk can do.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::artifact::eviction::Policy;
use crate::artifact::index::Completeness;
use crate::artifact::need::Needed;
use crate::database::Database;
use protocol::id::{FarmId, LeaseId, ReportId};
use protocol::report::{Fingerprint, Holding, Outcome, Report, Reproducibility, Smoke, Verdict};
use protocol::signed::{Payload, SecretKey, Signed};
use protocol::time::Span;
use protocol::tree::{CHUNK_BYTES, Entry, Mode, Node, TreePath};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Room for nothing, and patience with everything else.
const POLICY: Policy = Policy {
    max_bytes: 0,
    down_to_bytes: 0,
    idle_for: Duration::ZERO,
    unjudged_for: Duration::from_secs(86_400),
    loose_for: Duration::from_secs(3_600),
    loose_when_full_for: Duration::from_secs(3_600),
};

/// A home on a disk, whose store can be opened again and again.
struct Home {
    dir: tempfile::TempDir,
    db: Database,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::open(&dir.path().join("db"), 4 << 20).unwrap();
        Self { dir, db }
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    async fn open(&self) -> Store {
        Store::open(&self.store_dir(), &self.db).await.unwrap()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.store_dir().join(&name[..2]).join(&name[2..4]).join(name)
    }

    fn aside(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.store_dir().join("incoming")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Store {
    /// Flips a bit of a blob.
    pub(in crate::artifact) fn damage(&self, digest: &Digest) {
        self.inner.shelf.damage(digest);
    }
}

async fn on_both(test: impl AsyncFn(Store)) {
    test(Store::in_memory()).await;
    let home = Home::new();
    test(home.open().await).await;
}

pub(in crate::artifact) fn blob(seed: u8, len: usize) -> Bytes {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}

fn file(path: &str, chunks: FileChunks) -> Entry {
    let node = Node::File { mode: Mode::Plain, size: chunks.size, chunks: chunks.chunks };
    Entry { path: TreePath::try_from(path).unwrap(), node }
}

/// An artifact of one file, in the store.
pub(in crate::artifact) async fn artifact(store: &Store, content: Bytes) -> Manifest {
    let batch = store.batch();
    let chunks = batch.file(std::io::Cursor::new(content)).await.unwrap();
    let manifest = Manifest::new(vec![file("bin", chunks)]).unwrap();
    let added = batch.commit_artifact(&manifest).await.unwrap();
    assert_eq!(added, Added::Complete(manifest.id()));
    manifest
}

/// Waits until the shelf's clock, which counts milliseconds, has moved on.
async fn a_later_moment(store: &Store) {
    let now = store.inner.now();
    while store.inner.now() <= now {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(in crate::artifact) fn judged(nr: u8, manifest: &Manifest, log: Option<Digest>) -> (BuildKey, Judged) {
    let secret = SecretKey::from_seed(&[nr; 32]);
    let farm = FarmId(Digest::of(b"farm"));
    let build_key = BuildKey(Digest::of(&[nr]));
    let report = Signed::new(
        &Report {
            lease: LeaseId(1),
            build_key,
            outcome: Outcome::Built {
                manifest: manifest.id(),
                size_bytes: manifest.total_bytes(),
                smoke: Smoke::Passed,
                reproducibility: Reproducibility::Claimed,
            },
            fingerprint: Fingerprint::default(),
            fetched: Span::from_millis(1),
            built: Span::from_millis(1),
            log,
            log_tail: String::new(),
        },
        farm,
        &secret,
    );
    let verdict = Verdict {
        build_key,
        manifest: manifest.id(),
        reports: BTreeSet::from([ReportId(report.id())]),
        agreed: 1,
        holding: Holding::Kept,
        decided_at: Timestamp::from_millis(u64::from(nr)),
    };
    let charter = Signed { kind: protocol::charter::Charter::KIND, ..report.clone() };
    (build_key, Judged { charter, verdict: Signed::new(&verdict, farm, &secret), reports: vec![report] })
}

#[tokio::test]
async fn what_is_put_is_there_and_the_rest_is_missing() {
    on_both(async |store| {
        let blobs = vec![blob(1, 0), blob(2, 1), blob(3, 1 << 20), blob(2, 1)];
        let digests = store.put(blobs.clone()).await.unwrap();
        for (digest, bytes) in digests.iter().zip(&blobs) {
            assert_eq!(store.get(digest).await.unwrap().as_ref(), Some(bytes));
        }
        let absent = Digest::of(b"nobody put this");
        assert_eq!(store.missing(vec![digests[0], absent, digests[2]]).await.unwrap(), [absent]);
        assert_eq!(store.get(&absent).await.unwrap(), None);
        let huge = Bytes::from(vec![0; MAX_BLOB_BYTES + 1]);
        assert!(matches!(store.put(vec![huge]).await, Err(StoreError::TooLarge(_))));
    })
    .await;
}

#[tokio::test]
async fn a_file_is_chunked_from_its_own_start() {
    on_both(async |store| {
        let content = blob(9, (2 << 20) + 5);
        let batch = store.batch();
        let chunks = batch.file(std::io::Cursor::new(content.clone())).await.unwrap();
        let empty = batch.file(std::io::empty()).await.unwrap();
        batch.commit().await.unwrap();
        assert_eq!(empty, FileChunks { size: 0, chunks: Vec::new() });
        assert_eq!(chunks.size, content.len() as u64);
        let expected: Vec<_> = content.chunks(CHUNK_BYTES as usize).map(Digest::of).collect();
        assert_eq!(chunks.chunks, expected);
        assert_eq!(store.missing(expected).await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn an_artifact_is_complete_when_its_last_chunk_is() {
    on_both(async |store| {
        let content = blob(4, 10);
        let chunks = FileChunks { size: 10, chunks: vec![Digest::of(&content)] };
        let manifest = Manifest::new(vec![file("a", chunks.clone()), file("b", chunks.clone())]).unwrap();
        let id = manifest.id();
        let partial = store.add_artifact(&manifest).await.unwrap();
        assert_eq!(partial, Added::Partial(id, chunks.chunks));
        assert!(!store.has_artifact(id).await.unwrap());
        assert_eq!(store.manifest(id).await.unwrap(), Some(manifest.clone()));
        store.put(vec![content]).await.unwrap();
        assert_eq!(store.add_artifact(&manifest).await.unwrap(), Added::Complete(id));
        assert!(store.has_artifact(id).await.unwrap());
        let not_one = ManifestId(store.put(vec![Bytes::from_static(b"no manifest")]).await.unwrap()[0]);
        assert!(matches!(store.manifest(not_one).await, Err(StoreError::NotAManifest { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_flipped_bit_is_noticed_quarantined_and_healed_by_the_next_put() {
    on_both(async |store| {
        let content = blob(5, 1_000);
        let manifest = artifact(&store, content.clone()).await;
        let digest = Digest::of(&content);
        store.damage(&digest);
        assert_eq!(store.get(&digest).await.unwrap(), None);
        assert_eq!(store.missing(vec![digest]).await.unwrap(), [digest]);
        assert!(!store.has_artifact(manifest.id()).await.unwrap());
        store.put(vec![content.clone()]).await.unwrap();
        assert_eq!(store.get(&digest).await.unwrap(), Some(content));
        assert!(matches!(store.add_artifact(&manifest).await.unwrap(), Added::Complete(_)));
    })
    .await;
}

#[tokio::test]
async fn a_flipped_bit_is_neither_served_nor_used() {
    on_both(async |store| {
        let digest = store.put(vec![blob(6, 100)]).await.unwrap()[0];
        store.damage(&digest);
        assert_eq!(ChunkSource::read(&store, &digest).unwrap(), None);
        assert_eq!(store.missing(vec![digest]).await.unwrap(), [digest]);

        // Served whole once, damaged later: whoever uses the bytes here notices.
        store.put(vec![blob(6, 100)]).await.unwrap();
        assert_eq!(ChunkSource::read(&store, &digest).unwrap(), Some(blob(6, 100).to_vec()));
        store.damage(&digest);
        assert_eq!(ChunkSource::read_verified(&store, &digest).unwrap(), None);
        assert_eq!(store.missing(vec![digest]).await.unwrap(), [digest]);
    })
    .await;
}

#[tokio::test]
async fn a_scrub_finds_every_damaged_blob_and_names_what_is_lost() {
    on_both(async |store| {
        let kept = artifact(&store, blob(1, 100)).await;
        let hurt = artifact(&store, blob(2, 100)).await;
        let (kept_key, word) = judged(1, &kept, None);
        store.keep_judged(kept_key, word, "kept".to_owned()).await.unwrap();
        let (hurt_key, word) = judged(2, &hurt, None);
        store.keep_judged(hurt_key, word, "hurt".to_owned()).await.unwrap();
        let clean = store.verify().await.unwrap();
        assert_eq!((clean.blobs, clean.damaged, clean.lost), (4, vec![], vec![]));
        let digest = Digest::of(&blob(2, 100));
        store.damage(&digest);
        let scrub = store.verify().await.unwrap();
        assert_eq!((scrub.damaged, scrub.partial, scrub.lost), (vec![digest], vec![hurt.id()], vec![hurt_key]));
        assert!(store.has_artifact(kept.id()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn judged_builds_are_kept_and_listed_newest_first() {
    on_both(async |store| {
        let manifest = artifact(&store, blob(1, 7)).await;
        let absent = Manifest::new(vec![]).unwrap();
        let (older, first) = judged(1, &manifest, None);
        let (newer, second) = judged(2, &absent, None);
        store.keep_judged(older, first.clone(), "lua".to_owned()).await.unwrap();
        store.keep_judged(newer, second, "zstd".to_owned()).await.unwrap();
        store.pin(manifest.id().0).await.unwrap();
        let kept = store.judged(older).await.unwrap();
        assert_eq!(kept, Some(Kept { judged: first, recipe: "lua".to_owned() }));
        assert_eq!(store.judged(BuildKey(Digest::of(b"other"))).await.unwrap(), None);
        let builds = store.builds().await.unwrap();
        let rows: Vec<_> =
            builds.iter().map(|b| (b.build_key, b.recipe.as_str(), b.size_bytes, b.completeness, b.pinned)).collect();
        assert_eq!(
            rows,
            [
                (newer, "zstd", 0, Completeness::Partial, Pinned::No),
                (older, "lua", 7, Completeness::Complete, Pinned::Yes),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_batch_leaves_is_taken_up_if_it_is_whole() {
    on_both(async |store| {
        let whole = blob(1, 100);
        let digest = Digest::of(&whole);
        let batch = store.batch();
        let fitting = batch.verified(vec![(digest, whole.clone()), (Digest::of(b"lie"), whole.clone())]).await.unwrap();
        assert_eq!(fitting, [digest]);
        drop(batch);
        assert_eq!(store.get(&digest).await.unwrap(), None);
        let again = store.batch();
        assert_eq!(again.take_up(vec![digest, Digest::of(b"lie")]).await.unwrap(), [digest]);
        assert_eq!(store.batch().take_up(vec![digest]).await.unwrap(), []);
        again.commit().await.unwrap();
        assert_eq!(store.get(&digest).await.unwrap(), Some(whole));
    })
    .await;
}

#[tokio::test]
async fn a_put_waits_for_the_disk_twice_however_many_blobs_it_has() {
    on_both(async |store| {
        for count in [1, 3, 40] {
            let before = store.sync_rounds();
            store.put((0..count).map(|nr| blob(nr, 50 + usize::from(count))).collect()).await.unwrap();
            assert_eq!(store.sync_rounds() - before, 2, "{count} blobs");
        }
        let before = store.sync_rounds();
        artifact(&store, blob(200, 3 << 20)).await;
        assert_eq!(store.sync_rounds() - before, 2);
    })
    .await;
}

#[tokio::test]
async fn eviction_takes_the_least_used_spares_the_pinned_and_keeps_what_is_shared() {
    on_both(async |store| {
        let shared = blob(77, 1 << 20);
        let with = |seed| [shared.as_ref(), &blob(seed, 1_000)].concat().into();
        let pinned = artifact(&store, with(1)).await;
        let oldest = artifact(&store, with(2)).await;
        let log = store.put(vec![blob(99, 10)]).await.unwrap()[0];
        let (key, word) = judged(2, &oldest, Some(log));
        store.keep_judged(key, word, "old".to_owned()).await.unwrap();
        store.pin(pinned.id().0).await.unwrap();
        a_later_moment(&store).await;
        let newest = artifact(&store, with(3)).await;

        let roomy = Policy { max_bytes: u64::MAX, ..POLICY };
        assert_eq!(store.plan_eviction(roomy, Needed::default()).await.unwrap().manifests().count(), 0);
        let stored_bytes = store.plan_eviction(roomy, Needed::default()).await.unwrap().stored_bytes;

        let tight = Policy { max_bytes: stored_bytes - 1, down_to_bytes: stored_bytes - 1, ..roomy };
        let plan = store.plan_eviction(tight, Needed::default()).await.unwrap();
        assert_eq!(plan.manifests().collect::<Vec<_>>(), [oldest.id()]);
        assert_eq!(plan.build_keys().collect::<Vec<_>>(), [key]);
        assert_eq!(store.builds().await.unwrap()[0].completeness, Completeness::Complete, "a plan deletes nothing");

        let remaining_bytes = plan.remaining_bytes;
        let evicted = store.evict(plan, Needed::default()).await.unwrap();
        assert_eq!((evicted.manifests, evicted.spared), (vec![oldest.id()], vec![]));
        assert_eq!(evicted.freed_bytes, stored_bytes - remaining_bytes);
        assert_eq!(store.judged(key).await.unwrap(), None);
        assert_eq!(store.missing(vec![log, oldest.id().0]).await.unwrap(), [log, oldest.id().0]);
        for spared in [&pinned, &newest] {
            assert!(store.has_artifact(spared.id()).await.unwrap());
            assert!(matches!(store.add_artifact(spared).await.unwrap(), Added::Complete(_)));
        }
    })
    .await;
}

#[tokio::test]
async fn eviction_spares_what_was_pinned_after_the_plan() {
    on_both(async |store| {
        let manifest = artifact(&store, blob(1, 1_000)).await;
        let (key, word) = judged(1, &manifest, None);
        store.keep_judged(key, word, "r".to_owned()).await.unwrap();
        let nothing = Policy { max_bytes: 0, ..POLICY };
        let plan = store.plan_eviction(nothing, Needed::default()).await.unwrap();
        store.pin(manifest.id().0).await.unwrap();
        let evicted = store.evict(plan, Needed::default()).await.unwrap();
        assert_eq!((evicted.manifests, evicted.spared, evicted.freed_bytes), (vec![], vec![key], 0));
        store.unpin(manifest.id().0).await.unwrap();
        let plan = store.plan_eviction(nothing, Needed::default()).await.unwrap();
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().manifests, [manifest.id()]);
        assert_eq!(store.plan_eviction(nothing, Needed::default()).await.unwrap().stored_bytes, 0);
    })
    .await;
}

#[tokio::test]
async fn eviction_spares_chunks_that_were_put_again_after_the_plan() {
    on_both(async |store| {
        let content = blob(1, 1_000);
        let manifest = artifact(&store, content.clone()).await;
        let nothing = Policy { max_bytes: 0, ..POLICY };
        let plan = store.plan_eviction(nothing, Needed::default()).await.unwrap();
        // The system stamps files with a clock that ticks every few milliseconds.
        let planned = store.inner.now();
        while store.inner.now().since(planned) < Duration::from_millis(20) {
            a_later_moment(&store).await;
        }
        let digest = store.put(vec![content]).await.unwrap()[0];
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().manifests, [manifest.id()]);
        assert_eq!(store.missing(vec![digest, manifest.id().0]).await.unwrap(), [manifest.id().0]);
    })
    .await;
}

#[tokio::test]
async fn eviction_spares_what_is_needed_and_what_is_being_served() {
    on_both(async |store| {
        let needed = artifact(&store, blob(1, 100)).await;
        let served = artifact(&store, blob(2, 100)).await;
        let asked_for = artifact(&store, blob(3, 100)).await;
        let gone = artifact(&store, blob(4, 100)).await;
        let need = store.need(Needed::tree(needed.id()));
        ChunkSource::read(&store, &Digest::of(&blob(2, 100))).unwrap();
        let from_outside = Needed::tree(asked_for.id());
        let plan = store.plan_eviction(POLICY, from_outside.clone()).await.unwrap();
        assert_eq!(plan.manifests().collect::<Vec<_>>(), [gone.id()]);
        assert_eq!(store.evict(plan, from_outside).await.unwrap().manifests, [gone.id()]);
        for spared in [&needed, &served, &asked_for] {
            assert!(store.whole(spared.id()).await.unwrap().is_some());
        }
        drop(need);
        let plan = store.plan_eviction(POLICY, Needed::default()).await.unwrap();
        let going: BTreeSet<_> = plan.manifests().collect();
        assert_eq!(going, [needed.id(), asked_for.id()].into());
        let late = store.need(Needed::tree(needed.id()));
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().manifests, [asked_for.id()]);
        drop(late);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_no_verdict_stands_behind_goes_by_age_and_its_source_is_forgotten() {
    let store = Store::in_memory();
    let (judged_build, unjudged) = (artifact(&store, blob(1, 100)).await, artifact(&store, blob(2, 100)).await);
    let (key, word) = judged(1, &judged_build, None);
    store.keep_judged(key, word, "r".to_owned()).await.unwrap();
    let git = |digit: &str| Source::Git {
        url: "https://example.org/a.git".parse().unwrap(),
        commit: digit.repeat(40).parse().unwrap(),
    };
    let (old, new) = (git("a"), git("b"));
    store.remember_source(&old, unjudged.id()).await.unwrap();
    let policy = Policy { max_bytes: u64::MAX, down_to_bytes: u64::MAX, ..POLICY };
    let evict = async || {
        let plan = store.plan_eviction(policy, Needed::default()).await.unwrap();
        store.evict(plan, Needed::default()).await.unwrap().manifests
    };
    assert_eq!(evict().await, []);
    tokio::time::sleep(POLICY.unjudged_for + Duration::from_secs(1)).await;
    let newer = artifact(&store, blob(3, 100)).await;
    store.remember_source(&new, newer.id()).await.unwrap();
    assert_eq!(evict().await, [unjudged.id()]);
    assert_eq!(store.source(&old).await.unwrap(), None);
    assert_eq!(store.source(&new).await.unwrap(), Some(newer));
    assert!(store.has_artifact(judged_build.id()).await.unwrap(), "a verdict stands behind it");
    assert!(store.missing(vec![unjudged.id().0]).await.unwrap().len() == 1);
}

#[tokio::test]
async fn room_is_made_down_to_the_lower_mark() {
    on_both(async |store| {
        for seed in 1..=4 {
            artifact(&store, blob(seed, 1_000)).await;
            a_later_moment(&store).await;
        }
        let stored_bytes = store.stored_bytes().await.unwrap();
        let policy = Policy { max_bytes: stored_bytes - 1, down_to_bytes: stored_bytes / 2, ..POLICY };
        let plan = store.plan_eviction(policy, Needed::default()).await.unwrap();
        assert_eq!(plan.manifests().count(), 2);
        assert!(plan.remaining_bytes <= policy.down_to_bytes);
        store.evict(plan, Needed::default()).await.unwrap();
        assert_eq!(store.stored_bytes().await.unwrap(), stored_bytes / 2);
        assert_eq!(store.plan_eviction(policy, Needed::default()).await.unwrap().manifests().count(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_index_with_records_that_cannot_be_read_is_filled_anew() {
    let home = Home::new();
    let store = home.open().await;
    let manifest = artifact(&store, blob(1, 100)).await;
    drop(store);
    home.db.records("artifact.manifests").put(manifest.id().0.as_bytes(), b"\x01nonsense").unwrap();
    let store = home.open().await;
    assert!(store.has_artifact(manifest.id()).await.unwrap());
}

#[tokio::test]
async fn loose_blobs_go_when_nobody_has_asked_for_a_while() {
    on_both(async |store| {
        let loose = store.put(vec![blob(1, 10), blob(2, 10)]).await.unwrap();
        store.pin(loose[1]).await.unwrap();
        let kept = artifact(&store, blob(3, 10)).await;
        let patient = Policy { max_bytes: u64::MAX, ..POLICY };
        let plan = store.plan_eviction(patient, Needed::default()).await.unwrap();
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().freed_bytes, 0);
        a_later_moment(&store).await;
        let hasty = Policy { loose_for: Duration::ZERO, ..patient };
        let plan = store.plan_eviction(hasty, Needed::default()).await.unwrap();
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().freed_bytes, 10);
        assert_eq!(store.missing(loose.clone()).await.unwrap(), loose[..1]);
        assert!(store.has_artifact(kept.id()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn loose_blobs_go_sooner_while_the_store_is_too_large() {
    on_both(async |store| {
        store.put(vec![blob(1, 10)]).await.unwrap();
        let kept = artifact(&store, blob(3, 10)).await;
        a_later_moment(&store).await;
        let full = Policy { max_bytes: 1, down_to_bytes: u64::MAX, loose_when_full_for: Duration::ZERO, ..POLICY };
        let plan = store.plan_eviction(full, Needed::default()).await.unwrap();
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().freed_bytes, 10);
        assert!(store.has_artifact(kept.id()).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn folders_go_with_the_last_blob_in_them_and_come_again() {
    let home = Home::new();
    let store = home.open().await;
    let folders = || {
        let names = std::fs::read_dir(home.store_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.len() == 2).count()
    };
    let blobs: Vec<_> = (0..20).map(|seed| blob(seed, 10)).collect();
    for _ in 0..2 {
        let digests = store.put(blobs.clone()).await.unwrap();
        assert!(folders() > 1);
        a_later_moment(&store).await;
        let all = Policy { max_bytes: u64::MAX, loose_for: Duration::ZERO, ..POLICY };
        let plan = store.plan_eviction(all, Needed::default()).await.unwrap();
        assert_eq!(store.evict(plan, Needed::default()).await.unwrap().freed_bytes, 200);
        assert_eq!((folders(), store.missing(digests).await.unwrap().len()), (0, 20));
    }
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let home = Home::new();
    let store = home.open().await;
    let manifest = artifact(&store, blob(1, 2 << 20)).await;
    let (key, word) = judged(1, &manifest, None);
    store.keep_judged(key, word.clone(), "lua".to_owned()).await.unwrap();
    drop(store);
    let store = home.open().await;
    assert!(store.has_artifact(manifest.id()).await.unwrap());
    assert_eq!(store.judged(key).await.unwrap().unwrap().judged, word);
    assert_eq!(store.verify().await.unwrap().damaged, []);
}

#[tokio::test]
async fn a_lost_index_is_rebuilt_from_blobs_and_notes() {
    let home = Home::new();
    let store = home.open().await;
    let whole = artifact(&store, blob(1, 100)).await;
    let torn = artifact(&store, blob(2, 100)).await;
    let (key, word) = judged(1, &whole, None);
    store.keep_judged(key, word, "lua".to_owned()).await.unwrap();
    store.pin(whole.id().0).await.unwrap();
    let before = store.builds().await.unwrap();
    drop(store);
    std::fs::remove_file(home.path(&Digest::of(&blob(2, 100)))).unwrap();
    std::fs::write(home.store_dir().join("notes/judged").join(Digest::of(b"torn").to_string()), b"torn").unwrap();

    let empty = Database::temporary().unwrap();
    let store = Store::open(&home.store_dir(), &empty).await.unwrap();
    assert!(store.has_artifact(whole.id()).await.unwrap());
    assert!(!store.has_artifact(torn.id()).await.unwrap());
    let after = store.builds().await.unwrap();
    let row = |build: &KeptBuild| (build.build_key, build.size_bytes, build.completeness, build.pinned);
    assert_eq!(after.iter().map(row).collect::<Vec<_>>(), before.iter().map(row).collect::<Vec<_>>());
    assert_eq!(after.len(), 1);
}

#[tokio::test]
async fn an_index_whose_last_words_were_cut_off_catches_up_with_the_notes() {
    let home = Home::new();
    let store = home.open().await;
    let [kept, forgotten] = [artifact(&store, blob(1, 100)).await, artifact(&store, blob(2, 100)).await];
    let (key, word) = judged(1, &kept, None);
    store.keep_judged(key, word.clone(), "lua".to_owned()).await.unwrap();
    let (gone, other) = judged(2, &forgotten, None);
    store.keep_judged(gone, other, "lua".to_owned()).await.unwrap();
    drop(store);
    // As a process that is killed leaves it: the files are there or gone, the last rows of the index do not know yet.
    let index = Index::open(&home.db);
    index.remove_judged(&key).unwrap();
    index.remove_artifact(&kept.id()).unwrap();
    std::fs::remove_file(home.store_dir().join("notes/judged").join(gone.0.to_string())).unwrap();

    let store = home.open().await;
    let builds = store.builds().await.unwrap();
    let rows: Vec<_> = builds.iter().map(|build| (build.build_key, build.completeness)).collect();
    assert_eq!(rows, [(key, Completeness::Complete)]);
    assert_eq!(store.judged(key).await.unwrap().unwrap().judged, word);
    store.publish_judged().await.unwrap();
    assert!(store.published().includes(&kept.id().0) && !store.published().includes(&forgotten.id().0));
}

#[tokio::test]
async fn the_quarantine_is_bounded() {
    let home = Home::new();
    let store = home.open().await;
    let folder = home.store_dir().join("quarantine");
    for nr in 0..disk::QUARANTINED {
        std::fs::write(folder.join(format!("older-{nr}")), b"damaged").unwrap();
    }
    let digest = store.put(vec![blob(1, 10)]).await.unwrap()[0];
    store.damage(&digest);
    assert_eq!(store.get(&digest).await.unwrap(), None);
    assert_eq!(store.damages(), 1);
    assert!(folder.join(digest.to_string()).exists());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), disk::QUARANTINED);
}

#[tokio::test]
async fn what_a_crash_left_torn_never_becomes_a_blob() {
    let home = Home::new();
    let store = home.open().await;
    let (whole, torn) = (blob(1, 100), blob(2, 100));
    let digests = [Digest::of(&whole), Digest::of(&torn)];
    let incoming = home.store_dir().join("incoming");
    drop(store);
    std::fs::write(incoming.join(format!("{}-5", digests[0])), &whole).unwrap();
    std::fs::write(incoming.join(format!("{}-6", digests[1])), &torn[..50]).unwrap();
    std::fs::write(incoming.join("note-7"), b"torn").unwrap();
    std::fs::write(incoming.join("anything"), b"else").unwrap();

    let store = home.open().await;
    assert_eq!(home.aside().len(), 2, "what has no digest for a name is cleared away");
    assert_eq!(store.missing(digests.to_vec()).await.unwrap(), digests);
    let batch = store.batch();
    assert_eq!(batch.take_up(digests.to_vec()).await.unwrap(), digests[..1]);
    batch.commit().await.unwrap();
    assert_eq!(store.get(&digests[0]).await.unwrap(), Some(whole));
    assert_eq!(store.get(&digests[1]).await.unwrap(), None);
    assert_eq!(home.aside(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn two_batches_of_the_same_blobs_do_not_disturb_each_other() {
    let home = Home::new();
    let store = home.open().await;
    let blobs: Vec<_> = (0..20).map(|nr| blob(nr, 1_000)).collect();
    let puts = (0..8).map(|_| store.put(blobs.clone()));
    let digests = futures::future::try_join_all(puts).await.unwrap();
    assert_eq!(store.missing(digests[0].clone()).await.unwrap(), []);
    assert_eq!(store.verify().await.unwrap(), Scrub { blobs: 20, bytes: 20_000, ..Scrub::default() });
    assert_eq!(home.aside(), Vec::<PathBuf>::new());
}

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_tokios_time() {
    let store = Store::in_memory();
    let manifest = artifact(&store, blob(1, 10)).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let (key, word) = judged(1, &manifest, None);
    store.keep_judged(key, word, "r".to_owned()).await.unwrap();
    assert_eq!(store.builds().await.unwrap()[0].last_used, Timestamp::EPOCH);
    ChunkSource::read(&store, &manifest.id().0).unwrap();
    assert_eq!(store.builds().await.unwrap()[0].last_used, Timestamp::from_millis(100_000));
}
