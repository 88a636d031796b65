//! Providers of every kind, over pipes.
#![allow(clippy::unwrap_used)]

mod hostile;

use super::frame::{Ask, Head, Reply};
use super::*;
use crate::artifact::{Checking, ChunkSource, Reading, Store};
use crate::database::Database;
use crate::network::{BulkStream, Caller, Command, IncomingBulk, Network};
use futures::future::BoxFuture;
use proptest::prelude::*;
use protocol::tree::{CHUNK_BYTES, Entry, LinkTarget, Manifest, Mode, Node, TreePath};
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const US: PeerKey = PeerKey::from_bytes([255; 32]);
const MIB: u64 = 1 << 20;

fn peer(nr: u8) -> PeerKey {
    PeerKey::from_bytes([nr; 32])
}

/// What happens on a stream that somebody opens; `None` when the peer is not reached.
type Accept = Arc<dyn Fn(BulkStream) -> Option<BoxFuture<'static, ()>> + Send + Sync>;

/// A network of peers by number. Streams are pipes of 64 KiB.
fn network(peers: Vec<(u8, Accept)>) -> Network {
    let peers: BTreeMap<PeerKey, Accept> = peers.into_iter().map(|(nr, accept)| (peer(nr), accept)).collect();
    let (network, mut commands, _changes) = Network::channel(US);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            let Command::OpenBulk { peer, reply } = command else { panic!("only bulk is asked for here") };
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let unreachable = CallError::Unreachable { peer, reason: "nobody is there".to_owned() };
            let accepted = peers.get(&peer).and_then(|accept| accept(Box::new(theirs)));
            // A fetch that is over does not wait for its streams.
            let _nobody_waits = match accepted {
                Some(serving) => {
                    tokio::spawn(serving);
                    reply.send(Ok(Box::new(ours)))
                }
                None => reply.send(Err(unreachable)),
            };
        }
    });
    network
}

fn anybody() -> Arc<dyn Permit> {
    Arc::new(|_, _: &_| Permission::Granted)
}

/// A peer that serves `source` as the program does.
fn serving(source: impl ChunkSource + 'static) -> Accept {
    serving_with(source, anybody())
}

fn serving_with(source: impl ChunkSource + 'static, permit: Arc<dyn Permit>) -> Accept {
    let (bulk, incoming) = mpsc::channel(64);
    tokio::spawn(serve(incoming, Arc::new(source), permit));
    Arc::new(move |stream| {
        let bulk = bulk.clone();
        Some(Box::pin(async move {
            bulk.send(IncomingBulk { caller: Caller { peer: US }, stream }).await.unwrap();
        }))
    })
}

/// A peer that serves `source` at this many bytes a second, and is gone after `max_bytes`, both on all its streams together.
fn limping(source: impl ChunkSource + 'static, bytes_per_second: u64, max_bytes: usize) -> Accept {
    let honest = serving(source);
    let left = Arc::new(tokio::sync::Mutex::new(max_bytes));
    Arc::new(move |mut stream| {
        if left.try_lock().is_ok_and(|left| *left == 0) {
            return None;
        }
        let (mut near, far) = tokio::io::duplex(64 << 10);
        let serving = honest(Box::new(far))?;
        let left = left.clone();
        Some(Box::pin(async move {
            serving.await;
            let (mut answers, mut asks) = tokio::io::split(&mut near);
            let (mut to_ask, mut to_answer) = tokio::io::split(&mut stream);
            let relay = async {
                let mut bytes = vec![0; 32 << 10];
                loop {
                    let read = answers.read(&mut bytes).await?;
                    let mut left = left.lock().await;
                    let passed = read.min(*left);
                    tokio::time::sleep(Duration::from_millis(passed as u64 * 1_000 / bytes_per_second)).await;
                    *left -= passed;
                    let is_over = *left == 0 || read == 0;
                    drop(left);
                    to_answer.write_all(&bytes[..passed]).await?;
                    if is_over {
                        return io::Result::Ok(());
                    }
                }
            };
            tokio::select! {
                _ = relay => {}
                _ = tokio::io::copy(&mut to_ask, &mut asks) => {}
            }
        }))
    })
}

/// A peer that does as `answer` says with every request.
fn raw<F: Future<Output = io::Result<()>> + Send + 'static>(
    answer: impl Fn(BulkStream, Ask) -> F + Send + Sync + Clone + 'static,
) -> Accept {
    Arc::new(move |mut stream| {
        let answer = answer.clone();
        Some(Box::pin(async move {
            if let Ok(Some(ask)) = Ask::read(&mut stream).await {
                // Whoever is found out sees its stream break.
                let _broken = answer(stream, ask).await;
            }
        }))
    })
}

/// A peer that takes requests and never answers.
fn silent() -> Accept {
    raw(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
}

/// A source that changes what it reads, and does not check it.
struct Altered<F>(Store, F);

impl<F: Fn(Vec<u8>) -> Option<Vec<u8>> + Send + Sync> ChunkSource for Altered<F> {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.read(digest)?.and_then(&self.1))
    }

    fn reading(&self) -> Reading {
        Reading::Immediate
    }

    fn checking(&self) -> Checking {
        Checking::Done
    }
}

fn liar(store: &Store) -> Accept {
    serving(Altered(store.clone(), |mut bytes: Vec<u8>| {
        bytes[0] ^= 1;
        Some(bytes)
    }))
}

/// A store that holds a tree of these files, each different.
async fn holder(files: &[(&str, u64)]) -> (Store, Manifest) {
    let store = Store::in_memory();
    let batch = store.batch();
    let mut entries = Vec::new();
    for (path, size) in files {
        let path = TreePath::try_from(*path).unwrap();
        let seed = Digest::of(path.as_str().as_bytes());
        let content = (0..size.div_ceil(32)).flat_map(|nr| {
            let mut block = *seed.as_bytes();
            block[..8].copy_from_slice(&nr.to_le_bytes());
            block
        });
        let content: Vec<u8> = content.take(usize::try_from(*size).unwrap()).collect();
        let file = batch.file(Cursor::new(content)).await.unwrap();
        entries.push(Entry { path, node: Node::File { mode: Mode::Executable, size: file.size, chunks: file.chunks } });
    }
    let manifest = Manifest::new(entries).unwrap();
    batch.commit_artifact(&manifest).await.unwrap();
    (store, manifest)
}

async fn fetch(network: &Network, manifest: &Manifest, peers: &[u8], sink: Sink) -> Result<Sources, TransferError> {
    let providers: Vec<_> = peers.iter().map(|nr| peer(*nr)).collect();
    fetch_artifact(network, manifest, providers, sink, watch::Sender::default()).await
}

fn faults(result: Result<Sources, TransferError>) -> Vec<(PeerKey, Fault)> {
    match result {
        Err(TransferError::Failed(faults)) => faults,
        other => panic!("{other:?} where everybody should have failed"),
    }
}

#[tokio::test]
async fn two_providers_share_64_mib() {
    let (store, manifest) = holder(&[("big", 64 * MIB)]).await;
    let network = network(vec![(1, serving(store.clone())), (2, serving(store))]);
    let sink = Store::in_memory();
    let progress = watch::Sender::default();
    let providers = vec![peer(1), peer(2)];
    let fetched =
        fetch_artifact(&network, &manifest, providers, Sink::Store(sink.clone()), progress.clone()).await.unwrap();
    for nr in [1, 2] {
        assert!(fetched.served[&peer(nr)] >= 16 * MIB, "{fetched:?}");
    }
    assert_eq!(fetched.served.values().sum::<u64>(), 64 * MIB);
    assert_eq!((progress.borrow().done_bytes, progress.borrow().total_bytes), (64 * MIB, 64 * MIB));
    assert!(sink.has_artifact(manifest.id()).await.unwrap());
    assert_eq!(sink.verify().await.unwrap().damaged, []);
}

#[tokio::test]
async fn a_liar_is_banned_and_one_that_dies_is_replaced() {
    let (store, manifest) = holder(&[("big", 64 * MIB)]).await;
    let dying = limping(store.clone(), u64::MAX, 8 << 20);
    let network = network(vec![
        (1, serving(store.clone())),
        (2, serving(store.clone())),
        (3, liar(&store)),
        (4, dying),
        (5, Arc::new(|_| None)),
    ]);
    let sink = Store::in_memory();
    let fetched = fetch(&network, &manifest, &[3, 4, 5, 1, 2], Sink::Store(sink.clone())).await.unwrap();
    assert_eq!(fetched.liars, [peer(3)]);
    assert_eq!(fetched.served.get(&peer(3)), None);
    assert_eq!(fetched.served.values().sum::<u64>(), 64 * MIB);
    for nr in [1, 2] {
        assert!(fetched.served[&peer(nr)] >= 16 * MIB, "{fetched:?}");
    }
    assert_eq!(sink.verify().await.unwrap().damaged, []);
    assert!(sink.has_artifact(manifest.id()).await.unwrap());
}

#[tokio::test]
async fn with_liars_only_nothing_is_delivered() {
    let (store, manifest) = holder(&[("a", 3 * MIB)]).await;
    let network = network(vec![(1, liar(&store)), (2, liar(&store))]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let failed = faults(fetch(&network, &manifest, &[1, 2], Sink::Folder(out.clone())).await);
    assert!(failed.len() == 2 && failed.iter().all(|(_, fault)| matches!(fault, Fault::Lied(_))), "{failed:?}");
    assert!(!out.exists());
    let sink = Store::in_memory();
    faults(fetch(&network, &manifest, &[1, 2], Sink::Store(sink.clone())).await);
    assert!(!sink.has_artifact(manifest.id()).await.unwrap());
}

#[tokio::test]
async fn broken_frames_are_lies() {
    let (store, manifest) = holder(&[("a", 10), ("b", 10)]).await;
    let longer = serving(Altered(store.clone(), |bytes: Vec<u8>| Some([bytes, vec![0]].concat())));
    let shorter = serving(Altered(store.clone(), |bytes: Vec<u8>| Some(bytes[1..].to_vec())));
    let of_store = store.clone();
    let one_byte_more = raw(move |mut stream, ask| {
        let store = of_store.clone();
        async move {
            for (at, digest) in ask.digests().iter().enumerate() {
                let bytes = store.get(digest).await.unwrap().unwrap();
                let head = Head { at: at as u16, reply: Reply::Bytes(bytes.len() as u32) };
                stream.write_all(&[&head.encode()[..], &bytes, &[0]].concat()).await?;
            }
            std::future::pending().await
        }
    });
    let endless = raw(|mut stream, _| async move {
        loop {
            stream.write_all(&[7; 4_096]).await?;
        }
    });
    let huge = raw(|mut stream, _| async move {
        stream.write_all(&Head { at: 0, reply: Reply::Bytes(u32::MAX) }.encode()).await?;
        loop {
            stream.write_all(&[7; 4_096]).await?;
        }
    });
    let hostile = vec![(1, longer), (2, shorter), (3, one_byte_more), (4, endless), (5, huge)];
    let mut peers = hostile.clone();
    peers.push((9, serving(store)));
    let network = network(peers);
    for (nr, _) in hostile {
        let failed = faults(fetch(&network, &manifest, &[nr], Sink::Store(Store::in_memory())).await);
        assert!(failed.len() == 1 && failed[0].1.is_lie(), "{nr}: {failed:?}");
        let fetched = fetch(&network, &manifest, &[nr, 9], Sink::Store(Store::in_memory())).await.unwrap();
        assert_eq!(fetched.liars, [peer(nr)]);
    }
}

#[tokio::test]
async fn who_lacks_a_chunk_or_may_not_give_it_is_passed_over() {
    let (store, manifest) = holder(&[("a", 2 * MIB), ("b", MIB)]).await;
    let gap = *manifest.files().next().unwrap().3.first().unwrap();
    let lacking =
        serving(Altered(store.clone(), move |bytes: Vec<u8>| Some(bytes).filter(|bytes| Digest::of(bytes) != gap)));
    let refusing = serving_with(store.clone(), Arc::new(|_, _: &_| Permission::Denied));
    let network = network(vec![(1, lacking), (2, refusing), (3, serving(store))]);
    let failed = faults(fetch(&network, &manifest, &[1, 2], Sink::Store(Store::in_memory())).await);
    assert_eq!(failed, [(peer(1), Fault::Absent), (peer(2), Fault::Refused)]);
    let fetched = fetch(&network, &manifest, &[1, 2, 3], Sink::Store(Store::in_memory())).await.unwrap();
    assert!(fetched.served[&peer(3)] >= MIB && fetched.liars.is_empty(), "{fetched:?}");
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let (store, manifest) = holder(&[("a", 20 * MIB), ("b/c", 5), ("d", 0)]).await;
    let dir = tempfile::tempdir().unwrap();
    let kept = Store::in_memory();
    for sink in [Sink::Store(kept), Sink::Folder(dir.path().join("out"))] {
        let dying = limping(store.clone(), u64::MAX, 10 << 20);
        let network = network(vec![(1, dying), (2, serving(store.clone()))]);
        faults(fetch(&network, &manifest, &[1], sink.clone()).await);
        let fetched = fetch(&network, &manifest, &[2], sink.clone()).await.unwrap();
        assert!(fetched.reused_bytes >= 6 * MIB, "{fetched:?}");
        assert_eq!(fetched.reused_bytes + fetched.served[&peer(2)], 20 * MIB + 5);
        // A third time everything is there, and nobody is needed.
        let fetched = fetch(&network, &manifest, &[], sink).await.unwrap();
        assert_eq!((fetched.reused_bytes, fetched.served.len()), (20 * MIB + 5, 0));
    }
}

#[tokio::test]
async fn ten_thousand_small_files_come_many_to_a_request() {
    let names: Vec<_> = (0..10_000).map(|nr| format!("d{}/f{nr}", nr % 100)).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), 100)).collect();
    files[77].1 = 0;
    let (store, manifest) = holder(&files).await;
    let network = network(vec![(1, serving(store.clone())), (2, serving(store.clone()))]);
    let sink = Store::in_memory();
    fetch(&network, &manifest, &[1, 2], Sink::Store(sink.clone())).await.unwrap();
    assert!(sink.has_artifact(manifest.id()).await.unwrap());

    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fetch(&network, &manifest, &[1, 2], Sink::Folder(out.clone())).await.unwrap();
    compare(&store, &manifest, &out).await;
}

/// Every file of the tree stands in `out` with its bytes and mode, and nothing else does.
async fn compare(store: &Store, manifest: &Manifest, out: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode, _, chunks) in manifest.files() {
        let mut expected = Vec::new();
        for digest in chunks {
            expected.extend_from_slice(&store.get(digest).await.unwrap().unwrap());
        }
        let at = out.join(path.as_str());
        assert!(std::fs::read(&at).unwrap() == expected, "{path}");
        assert_eq!(std::fs::symlink_metadata(&at).unwrap().permissions().mode() & 0o7777, mode.bits());
    }
    let beside: Vec<_> = std::fs::read_dir(out.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(beside, [out], "nothing is left beside the output");
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_is_left_after_ten_seconds() {
    let (store, manifest) = holder(&[("a", MIB)]).await;
    let network = network(vec![(1, silent()), (2, serving(store))]);
    let begun = Instant::now();
    let failed = faults(fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory())).await);
    assert_eq!(failed, [(peer(1), Fault::Stalled)]);
    assert!(begun.elapsed() < 3 * STALL, "{:?}", begun.elapsed());

    // With another one there it is not even waited for.
    let begun = Instant::now();
    fetch(&network, &manifest, &[1, 2], Sink::Store(Store::in_memory())).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_turns_up_late_is_used_and_one_that_never_does_is_not_waited_for() {
    let (store, manifest) = holder(&[("a", MIB)]).await;
    let network = network(vec![(1, silent()), (2, serving(store))]);
    let (found, arriving) = mpsc::channel(4);
    found.send(peer(1)).await.unwrap();
    let (begun, sink) = (Instant::now(), Sink::Store(Store::in_memory()));
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        found.send(peer(2)).await.unwrap();
    };
    let fetching = fetch_artifact(&network, &manifest, arriving, sink, watch::Sender::default());
    let (fetched, ()) = tokio::join!(fetching, later);
    assert_eq!(fetched.unwrap().served, BTreeMap::from([(peer(2), MIB)]));
    assert_eq!(begun.elapsed().as_secs(), 5);

    let (_found, arriving) = mpsc::channel(4);
    let (begun, sink) = (Instant::now(), Sink::Store(Store::in_memory()));
    let nobody = fetch_artifact(&network, &manifest, arriving, sink, watch::Sender::default()).await;
    assert!(matches!(nobody, Err(TransferError::NoProvider)));
    assert_eq!(begun.elapsed().as_secs(), PATIENCE.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_provider_far_slower_than_the_best_is_left_while_there_is_work() {
    let (store, manifest) = holder(&[("a", 64 * MIB)]).await;
    let left = Arc::new(std::sync::Mutex::new(None));
    let slow = limping(store.clone(), 10_000, usize::MAX);
    let slow = {
        let left = left.clone();
        let noticed: Accept = Arc::new(move |stream| {
            let (served, left) = (slow(stream)?, left.clone());
            Some(Box::pin(async move {
                served.await;
                left.lock().unwrap().get_or_insert(Instant::now());
            }))
        });
        noticed
    };
    let network = network(vec![(1, slow), (2, limping(store, 2_000_000, usize::MAX))]);
    let begun = Instant::now();
    let fetched = fetch(&network, &manifest, &[1, 2], Sink::Store(Store::in_memory())).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(25), "the fast one takes its time: {:?}", begun.elapsed());
    let left_after = left.lock().unwrap().unwrap().duration_since(begun);
    assert!(left_after < Duration::from_secs(15), "{left_after:?}");
    assert!(fetched.served[&peer(2)] >= 60 * MIB && fetched.liars.is_empty());
}

/// A provider that says little and never stops is no reason to wait: what it owes is doubled by whoever is idle.
#[tokio::test(start_paused = true)]
async fn a_trickle_holds_nobody_up() {
    let (store, manifest) = holder(&[("a", 16 * MIB)]).await;
    let trickle = limping(store.clone(), 100, usize::MAX);
    let network = network(vec![(1, trickle), (2, limping(store, 8_000_000, usize::MAX))]);
    let begun = Instant::now();
    let fetched = fetch(&network, &manifest, &[1, 2], Sink::Store(Store::in_memory())).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "16 MiB at 8 MB/s took {:?}", begun.elapsed());
    assert_eq!(fetched.served.get(&peer(1)), None);
}

#[tokio::test]
async fn a_lone_provider_is_read_by_as_many_streams_as_it_grants() {
    for granted in [1, 4] {
        let (store, manifest) = holder(&[("a", 64 * MIB)]).await;
        let (honest, asked) = (serving(store), Arc::new(AtomicUsize::new(0)));
        let counting: Accept = {
            let asked = asked.clone();
            Arc::new(move |stream| (asked.fetch_add(1, Ordering::Relaxed) < granted).then(|| honest(stream)).flatten())
        };
        let network = network(vec![(1, counting)]);
        let fetched = fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory())).await.unwrap();
        assert_eq!(fetched.served[&peer(1)], 64 * MIB);
        assert_eq!(asked.load(Ordering::Relaxed), 4, "the refused are not asked for again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_tried_again() {
    let (store, manifest) = holder(&[("a", 3 * MIB)]).await;
    let (honest, opened) = (serving(store), Arc::new(AtomicUsize::new(0)));
    let flaky: Accept = {
        let opened = opened.clone();
        Arc::new(move |stream| match opened.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Box::pin(async move { drop(stream) })),
            _ => honest(stream),
        })
    };
    let network = network(vec![(1, flaky)]);
    let fetched = fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory())).await.unwrap();
    assert_eq!(fetched.served, BTreeMap::from([(peer(1), 3 * MIB)]));
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_fetch_that_is_dropped_closes_its_streams() {
    let (_, manifest) = holder(&[("a", MIB)]).await;
    let (asked, was_asked) = tokio::sync::oneshot::channel();
    let (closed, was_closed) = tokio::sync::oneshot::channel();
    let signals = std::sync::Mutex::new(Some((asked, closed)));
    let watching: Accept = Arc::new(move |mut stream| {
        let (asked, closed) = signals.lock().unwrap().take()?;
        Some(Box::pin(async move {
            asked.send(Ask::read(&mut stream).await.unwrap()).unwrap();
            closed.send(stream.read_to_end(&mut Vec::new()).await).unwrap();
        }))
    });
    let network = network(vec![(1, watching)]);
    tokio::select! {
        ended = fetch(&network, &manifest, &[1], Sink::Store(Store::in_memory())) => panic!("{ended:?}"),
        asked = was_asked => assert!(asked.unwrap().is_some()),
    }
    was_closed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_manifest_comes_from_whoever_has_it() {
    let (store, manifest) = holder(&[("a", 5)]).await;
    let id = manifest.id();
    let network = network(vec![(1, liar(&store)), (2, serving(Store::in_memory())), (3, serving(store.clone()))]);
    let mut providers = Providers::from(vec![peer(1), peer(2), peer(3)]);
    assert_eq!(fetch_manifest(&network, id, &mut providers).await.unwrap(), manifest);
    // Who gave it comes first now, and the liar not at all.
    assert_eq!((providers.next().await, providers.next().await), (Some(peer(3)), Some(peer(2))));
    assert_eq!(providers.next().await, None);

    let mut nobody = Providers::default();
    assert!(matches!(fetch_manifest(&network, id, &mut nobody).await, Err(TransferError::NoProvider)));
    let chunk = *manifest.files().next().unwrap().3.first().unwrap();
    let no_manifest = fetch_manifest(&network, ManifestId(chunk), &mut Providers::from(vec![peer(3)])).await;
    assert!(matches!(no_manifest, Err(TransferError::NotAManifest { .. })), "{no_manifest:?}");
    let too_large = fetch_blob(&network, id.0, 4, &mut Providers::from(vec![peer(3)])).await;
    assert!(matches!(&too_large, Err(TransferError::Failed(faults)) if faults[0].1.is_lie()), "{too_large:?}");
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_asked_of_a_second_provider_when_the_first_is_slow() {
    let (store, manifest) = holder(&[("a", 5)]).await;
    let network = network(vec![(1, silent()), (2, serving(store))]);
    let begun = Instant::now();
    let mut providers = Providers::from(vec![peer(1), peer(2)]);
    assert_eq!(fetch_manifest(&network, manifest.id(), &mut providers).await.unwrap(), manifest);
    assert_eq!(begun.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn a_manifest_that_gives_one_chunk_two_lengths_is_refused() {
    let file = |path: &str, size| Entry {
        path: TreePath::try_from(path).unwrap(),
        node: Node::File { mode: Mode::Plain, size, chunks: vec![Digest::of(b"x")] },
    };
    let manifest = Manifest::new(vec![file("a", 1), file("b", 2)]).unwrap();
    let refused = fetch(&network(vec![]), &manifest, &[1], Sink::Store(Store::in_memory())).await;
    assert!(matches!(refused, Err(TransferError::Contradiction(_))));
}

#[tokio::test]
async fn nothing_is_written_outside_the_output_folder() {
    let (store, manifest) = holder(&[("sub/file", 10), ("top", 10)]).await;
    let network = network(vec![(1, serving(store.clone()))]);
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), b"untouched").unwrap();

    // A folder of the tree is a link out of it.
    let out = dir.path().join("linked-folder");
    std::fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&outside, out.join("sub")).unwrap();
    let refused = fetch(&network, &manifest, &[1], Sink::Folder(out)).await;
    assert!(matches!(refused, Err(TransferError::Sink(_))), "{refused:?}");

    // A file of the tree is a link out of it: the link is replaced.
    let out = dir.path().join("linked-file");
    std::fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(outside.join("precious"), out.join("top")).unwrap();
    fetch(&network, &manifest, &[1], Sink::Folder(out.clone())).await.unwrap();
    assert!(std::fs::symlink_metadata(out.join("top")).unwrap().is_file());

    // The hidden folder beside the output is a link.
    let out = dir.path().join("out");
    let hidden = dir.path().join(format!(".out.{}.partial", manifest.id().short()));
    std::os::unix::fs::symlink(&outside, hidden).unwrap();
    let refused = fetch(&network, &manifest, &[1], Sink::Folder(out)).await;
    assert!(matches!(refused, Err(TransferError::Sink(_))), "{refused:?}");

    let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["precious"]);
    assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"untouched");
}

#[tokio::test]
async fn an_existing_output_folder_keeps_its_other_files_and_lends_its_chunks() {
    let (store, manifest) = holder(&[("bin/tool", 2 * MIB), ("share/text", 10)]).await;
    let mut entries = manifest.entries().to_vec();
    let node = Node::Link { target: LinkTarget::new(&TreePath::try_from("link").unwrap(), "bin/tool").unwrap() };
    entries.push(Entry { path: TreePath::try_from("link").unwrap(), node });
    entries.push(Entry { path: TreePath::try_from("empty").unwrap(), node: Node::Folder });
    let manifest = Manifest::new(entries).unwrap();
    let network = network(vec![(1, serving(store.clone()))]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("deep/out");
    fetch(&network, &manifest, &[1], Sink::Folder(out.clone())).await.unwrap();
    compare(&store, &manifest, &out).await;
    assert_eq!(std::fs::read_link(out.join("link")).unwrap(), Path::new("bin/tool"));
    assert!(out.join("empty").is_dir());

    std::fs::write(out.join("mine"), b"mine").unwrap();
    std::fs::write(out.join("share/text"), b"changed").unwrap();
    let fetched = fetch(&network, &manifest, &[1], Sink::Folder(out.clone())).await.unwrap();
    assert_eq!((fetched.reused_bytes, fetched.served[&peer(1)]), (2 * MIB, 10));
    compare(&store, &manifest, &out).await;
    assert_eq!(std::fs::read(out.join("mine")).unwrap(), b"mine");
}

#[tokio::test]
async fn the_same_chunk_in_many_files_is_fetched_once() {
    let (store, manifest) = holder(&[("a", MIB)]).await;
    let one = manifest.entries()[0].clone();
    let copy = Entry { path: TreePath::try_from("b").unwrap(), ..one.clone() };
    let manifest = Manifest::new(vec![one, copy]).unwrap();
    let network = network(vec![(1, serving(store.clone()))]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let fetched = fetch(&network, &manifest, &[1], Sink::Folder(out.clone())).await.unwrap();
    assert_eq!(fetched.served[&peer(1)], MIB);
    compare(&store, &manifest, &out).await;
}

#[tokio::test]
async fn a_peer_gets_four_streams_and_a_word_about_the_fifth() {
    let (store, manifest) = holder(&[("a", 10)]).await;
    let (bulk, incoming) = mpsc::channel(64);
    let server = tokio::spawn(serve(incoming, Arc::new(store), anybody()));
    let open = async |peer| {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        bulk.send(IncomingBulk { caller: Caller { peer }, stream: Box::new(theirs) }).await.unwrap();
        ours
    };
    let ask = Ask::Blob(manifest.id().0).encode();
    let reply = async |stream: &mut tokio::io::DuplexStream| {
        stream.write_all(&ask).await.unwrap();
        let mut head = [0; frame::HEAD_BYTES];
        stream.read_exact(&mut head).await.unwrap();
        Head::decode(head).unwrap().reply
    };
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS_OF_PEER {
        streams.push(open(peer(1)).await);
        assert!(matches!(reply(streams.last_mut().unwrap()).await, Reply::Bytes(_)));
    }
    let mut fifth = open(peer(1)).await;
    assert_eq!(reply(&mut fifth).await, Reply::Busy);
    assert!(matches!(reply(&mut open(peer(2)).await).await, Reply::Bytes(_)));

    // A stream that ends makes room.
    streams.pop();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !matches!(reply(&mut open(peer(1)).await).await, Reply::Bytes(_)) {}
    })
    .await
    .unwrap();
    drop((bulk, streams));
    server.await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_its_digest_is_not_served() {
    struct Rotten(Digest);
    impl ChunkSource for Rotten {
        fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
            Ok((*digest == self.0).then(|| b"something else".to_vec()))
        }
    }
    let digest = Digest::of(b"x");
    let network = network(vec![(1, serving(Rotten(digest)))]);
    let absent = fetch_blob(&network, digest, 100, &mut Providers::from(vec![peer(1)])).await;
    assert!(matches!(&absent, Err(TransferError::Failed(faults)) if faults[0].1 == Fault::Absent), "{absent:?}");
}

#[tokio::test(start_paused = true)]
async fn who_refuses_because_it_has_not_heard_of_the_verdict_yet_is_asked_again() {
    let (store, manifest) = holder(&[("a", 5)]).await;
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let times = asked.clone();
    let hears_late = move |_, _: &Digest| match times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0..3 => Permission::Denied,
        _ => Permission::Granted,
    };
    let network = network(vec![(1, serving_with(store.clone(), Arc::new(hears_late)))]);
    let mut providers = Providers::from(vec![peer(1)]);
    assert_eq!(fetch_manifest(&network, manifest.id(), &mut providers).await.unwrap(), manifest);

    let never = network_of_refusal(store);
    let refused = fetch_blob(&never, manifest.id().0, 100, &mut Providers::from(vec![peer(1)])).await;
    assert!(matches!(&refused, Err(TransferError::Failed(faults)) if faults[0].1 == Fault::Refused), "{refused:?}");
}

fn network_of_refusal(store: Store) -> Network {
    network(vec![(1, serving_with(store, Arc::new(|_, _: &_| Permission::Denied)))])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_on_disks_exchange_artifacts_across_threads() {
    let (memory, manifest) = holder(&[("a", 20 * MIB), ("b", 3)]).await;
    let network_of = |store: Store| network(vec![(1, serving(store.clone())), (2, serving(store))]);
    let mut from = memory;
    let mut homes = Vec::new();
    for _ in 0..2 {
        let home = tempfile::tempdir().unwrap();
        let db = Database::open(&home.path().join("db"), 4 << 20).unwrap();
        let store = Store::open(&home.path().join("store"), &db).await.unwrap();
        let rounds = store.sync_rounds();
        fetch(&network_of(from), &manifest, &[1, 2], Sink::Store(store.clone())).await.unwrap();
        assert_eq!(store.sync_rounds() - rounds, 2, "however many chunks");
        assert!(store.has_artifact(manifest.id()).await.unwrap());
        from = store;
        homes.push((home, db));
    }
    assert_eq!(from.verify().await.unwrap().damaged, []);
}

/// The same seedless run twice on a paused clock serves the same bytes from the same providers.
#[test]
fn a_fetch_in_memory_repeats_itself() {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (store, manifest) = holder(&[("a", 30 * MIB), ("b", 7)]).await;
            let network = network(vec![
                (1, limping(store.clone(), 3_000_000, usize::MAX)),
                (2, limping(store.clone(), 1_000_000, usize::MAX)),
                (3, liar(&store)),
            ]);
            let begun = Instant::now();
            let fetched = fetch(&network, &manifest, &[1, 2, 3], Sink::Store(Store::in_memory())).await.unwrap();
            (fetched, begun.elapsed())
        })
    };
    assert_eq!(run(), run());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever bytes a provider sends, the fetch ends, and nothing but the artifact is ever delivered.
    #[test]
    fn no_bytes_of_a_provider_do_harm(noise in prop::collection::vec(any::<u8>(), 0..200), honest_first in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let delivered = runtime.block_on(async {
            let (store, manifest) = holder(&[("a", 10), ("b", 20)]).await;
            let (of_store, first) = (store.clone(), manifest.files().next().unwrap().3[0]);
            let noisy = raw(move |mut stream, ask| {
                let (noise, store) = (noise.clone(), of_store.clone());
                async move {
                    if honest_first && ask.digests()[0] == first {
                        let bytes = store.get(&first).await.unwrap().unwrap();
                        let head = Head { at: 0, reply: Reply::Bytes(bytes.len() as u32) };
                        stream.write_all(&[&head.encode()[..], &bytes].concat()).await?;
                    }
                    stream.write_all(&noise).await
                }
            });
            let network = network(vec![(1, noisy)]);
            let sink = Store::in_memory();
            let _failed = fetch(&network, &manifest, &[1], Sink::Store(sink.clone())).await;
            sink.has_artifact(manifest.id()).await.unwrap()
        });
        prop_assert!(!delivered);
    }
}

#[tokio::test]
async fn a_chunk_is_never_more_than_a_chunk() {
    let store = Store::in_memory();
    let large = vec![1; usize::try_from(CHUNK_BYTES).unwrap() + 1];
    let digest = store.put(vec![large.into()]).await.unwrap()[0];
    let (bulk, incoming) = mpsc::channel(1);
    tokio::spawn(serve(incoming, Arc::new(store), anybody()));
    let (mut ours, theirs) = tokio::io::duplex(1 << 10);
    bulk.send(IncomingBulk { caller: Caller { peer: US }, stream: Box::new(theirs) }).await.unwrap();
    ours.write_all(&Ask::Chunks(vec![digest]).encode()).await.unwrap();
    let mut head = [0; frame::HEAD_BYTES];
    ours.read_exact(&mut head).await.unwrap();
    assert_eq!(Head::decode(head), Ok(Head { at: 0, reply: Reply::Absent }));
}
