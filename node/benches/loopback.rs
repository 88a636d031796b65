//! 1 GiB over loopback to a synced file, as deployed: encrypted connections, every chunk verified, a store on a disk.
//!
//! Whoever fetches is a process of its own; its providers live in this one. Every figure is a ratio of medians of rounds that
//! take turns, so that a machine that slows down slows down all of them:
//!
//! * one provider, against bare TCP from memory into one file that is synced at the end;
//! * three providers against one;
//! * a fetch killed half-way and begun again: how many bytes went over the wire beyond those of the artifact.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use memmap2::{Advice, MmapMut};
use node::artifact::Store;
use node::artifact::transfer::{Permission, Progress, Providers, Sink, fetch_artifact, fetch_manifest, serve};
use node::database::Database;
use node::network::config::{Mdns, NetworkConfig, Transports};
use node::network::{BulkStream, Inbox, IncomingBulk, Keep, Network, start};
use protocol::digest::Digest;
use protocol::id::{FarmId, ManifestId};
use protocol::signed::SecretKey;
use protocol::ticket::Contact;
use protocol::time::Timestamp;
use protocol::tree::{Entry, Manifest, Mode, Node, TreePath};
use protocol::wire::{Hello, PROTOCOL_VERSION};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

const BYTES: u64 = 1 << 30;
const BUFFER: usize = 256 << 10;
const PAGE: usize = 4 << 10;
const ROUNDS: usize = 5;
const PROVIDERS: u8 = 3;
const SOON: Duration = Duration::from_secs(10);
/// What the process that fetches is started with.
const FETCH: &str = "fetch-of-the-loopback-bench";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [first, folder, manifest, addresses @ ..] if first == FETCH => {
            Runtime::new().unwrap().block_on(fetch(Path::new(folder), manifest.parse().unwrap(), addresses));
        }
        // `cargo test --benches` only wants to know that this starts.
        words if words.iter().any(|word| word == "--test") => {}
        words if words.iter().any(|word| !word.starts_with('-') && !"loopback".contains(word.as_str())) => {}
        _ => measure(),
    }
}

fn measure() {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let farm = runtime.block_on(Farm::open(folder.path()));

    let (mut bare, mut one, mut three) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_tcp(folder.path()));
        one.push(farm.fetch(1));
        three.push(farm.fetch(PROVIDERS));
    }
    let [bare, one, three] = [bare, one, three].map(median);
    println!("1 GiB over loopback to a synced file, medians of {ROUNDS} rounds in turn");
    println!("  bare TCP          {:>6.0} MiB/s", rate(bare));
    println!("  one provider      {:>6.0} MiB/s", rate(one));
    println!("  three providers   {:>6.0} MiB/s", rate(three));
    println!("  one provider / bare TCP: {:.2} (reach: at least 0.45)", bare.as_secs_f64() / one.as_secs_f64());
    println!("  three providers / one: {:.2} (reach: at least 0.8)", one.as_secs_f64() / three.as_secs_f64());
    farm.resume();
}

fn rate(took: Duration) -> f64 {
    (BYTES >> 20) as f64 / took.as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Plain sockets and one file: from memory on one thread, through a buffer into the file on another, synced at the end.
fn bare_tcp(folder: &Path) -> Duration {
    settle(folder);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sending = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let buffer = vec![7; BUFFER];
        (0..BYTES / BUFFER as u64).for_each(|_| stream.write_all(&buffer).unwrap());
    });
    let path = folder.join("bare");
    let mut file = std::fs::File::create_new(&path).unwrap();
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => file.write_all(&buffer[..n]).unwrap(),
        }
    }
    file.sync_all().unwrap();
    let took = began.elapsed();
    sending.join().unwrap();
    assert_eq!(file.metadata().unwrap().len(), BYTES);
    file.set_len(0).unwrap();
    std::fs::remove_file(path).unwrap();
    took
}

/// Nothing that an earlier round left behind is paid for in this one: what it wrote is on the disk, and memory is at hand.
///
/// A virtual machine gives memory that it frees back to its host, and waits for the host whenever it first writes to it again.
/// How much of that a round meets depends on how the one before it freed its memory, not on what it does itself; so each begins
/// with memory that was written to a moment ago.
fn settle(folder: &Path) {
    rustix::fs::syncfs(std::fs::File::open(folder).unwrap()).unwrap();
    let mut memory = MmapMut::map_anon(2 * BYTES as usize).unwrap();
    // The host is given large pages back, and only they are taken from it again. A kernel without them has nothing to settle.
    let _ = memory.advise(Advice::HugePage);
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
}

static EMPTIED: AtomicU64 = AtomicU64::new(0);

/// Gives back the space of what was fetched, and leaves the files: some filesystems are slow to use again what was a file a
/// moment ago, and the next round would pay for it.
fn empty_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => empty_files(&entry.path()),
            false => drop(std::fs::File::create(entry.path()).unwrap()),
        }
    }
}

/// Bytes of which no two chunks are equal.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for word in buffer.chunks_mut(8) {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
        Ok(buffer.len())
    }
}

async fn store(folder: &Path) -> (Store, Database) {
    let database = Database::open(&folder.join("index"), 4 << 20).unwrap();
    (Store::open(&folder.join("store"), &database).await.unwrap(), database)
}

fn network(nr: u8, listen: Vec<String>) -> (Network, Inbox) {
    let hello = Hello {
        program: "bench".to_owned(),
        protocol: PROTOCOL_VERSION,
        charter: None,
        clock: Timestamp::EPOCH,
        capability: None,
        addresses: vec![],
    };
    let config = NetworkConfig::daemon(key(nr), FarmId(Digest::of(b"bench")), hello);
    start(NetworkConfig { listen, mdns: Mdns::Off, ..config }).unwrap()
}

fn key(nr: u8) -> SecretKey {
    SecretKey::from_seed(&[nr; 32])
}

/// Providers of one artifact, and whoever fetches it.
struct Farm {
    folder: PathBuf,
    manifest: ManifestId,
    addresses: Vec<String>,
    /// Bytes that providers wrote to streams.
    sent: Arc<AtomicU64>,
    _networks: Vec<Network>,
}

impl Farm {
    async fn open(folder: &Path) -> Self {
        let (store, _db) = store(&folder.join("provider")).await;
        let batch = store.batch();
        let file = batch.file(Noise(1).take(BYTES)).await.unwrap();
        let path = TreePath::try_from("gibibyte".to_owned()).unwrap();
        let node = Node::File { mode: Mode::Plain, size: file.size, chunks: file.chunks };
        let manifest = Manifest::new(vec![Entry { path, node }]).unwrap();
        batch.commit_artifact(&manifest).await.unwrap();

        let sent = Arc::new(AtomicU64::new(0));
        let (mut addresses, mut networks) = (Vec::new(), Vec::new());
        for nr in 1..=PROVIDERS {
            let (network, Inbox { mut bulk, .. }) = network(nr, Transports::Both.listen_at("127.0.0.1"));
            let (counted, incoming) = mpsc::channel(64);
            let sent = sent.clone();
            tokio::spawn(async move {
                while let Some(IncomingBulk { caller, stream }) = bulk.recv().await {
                    let stream = Box::new(Counted(stream, sent.clone()));
                    counted.send(IncomingBulk { caller, stream }).await.unwrap();
                }
            });
            tokio::spawn(serve(incoming, Arc::new(store.clone()), Arc::new(|_, _: &_| Permission::Granted)));
            addresses.push(network.addresses().await.unwrap().join(","));
            networks.push(network);
        }
        Self { folder: folder.to_owned(), manifest: manifest.id(), addresses, sent, _networks: networks }
    }

    /// Starts a process that fetches the artifact into the folder `into`.
    fn start(&self, into: &Path, providers: u8) -> (Child, BufReader<ChildStdout>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(FETCH).arg(into).arg(self.manifest.0.to_string()).args(&self.addresses[..providers.into()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        (child, said)
    }

    /// How long a fetch takes from the first request to a complete and synced artifact.
    fn fetch(&self, providers: u8) -> Duration {
        settle(&self.folder);
        let into = self.folder.join("fetched");
        let (child, said) = self.start(&into, providers);
        let Ended { took, .. } = ended(child, said);
        empty_files(&into);
        std::fs::rename(&into, self.folder.join(format!("emptied-{}", EMPTIED.fetch_add(1, Ordering::Relaxed))))
            .unwrap();
        took
    }

    /// A fetch killed half-way, and another that goes on where it was.
    fn resume(&self) {
        let into = self.folder.join("resumed");
        self.sent.store(0, Ordering::Relaxed);
        let (mut child, mut said) = self.start(&into, 1);
        let mut line = String::new();
        while word::<u64>(&line, "at ").is_none_or(|done| done < BYTES / 2) {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended before it was killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (child, said) = self.start(&into, 1);
        let before = self.sent.load(Ordering::Relaxed);
        let Ended { took, reused } = ended(child, said);
        let sent = self.sent.load(Ordering::Relaxed);
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "  killed after {} MiB; begun again: {} MiB verified in place, {} MiB fetched, {took:.1?}",
            mib(word::<u64>(&line, "at ").unwrap()),
            mib(reused),
            mib(sent - before)
        );
        println!(
            "  bytes on the wire, both together / bytes of the artifact: {:.3} (reach: no chunk twice but those under way)",
            sent as f64 / BYTES as f64
        );
        std::fs::remove_dir_all(into).unwrap();
    }
}

/// How a process that fetched has ended.
struct Ended {
    took: Duration,
    /// Bytes that were there before.
    reused: u64,
}

fn ended(mut child: Child, said: BufReader<ChildStdout>) -> Ended {
    let (mut took, mut reused) = (None, None);
    for line in said.lines() {
        let line = line.unwrap();
        took = took.or(word(&line, "took "));
        reused = reused.or(word(&line, "reused "));
    }
    assert!(child.wait().unwrap().success());
    Ended { took: Duration::from_micros(took.unwrap()), reused: reused.unwrap() }
}

fn word<T: std::str::FromStr>(line: &str, before: &str) -> Option<T> {
    line.strip_prefix(before)?.trim().parse().ok()
}

/// The other process: connects, fetches, and says how far it is.
async fn fetch(folder: &Path, manifest: Digest, addresses: &[String]) {
    std::fs::create_dir_all(folder).unwrap();
    let (store, _db) = store(folder).await;
    let (network, _inbox) = network(9, vec!["/ip4/127.0.0.1/tcp/0".to_owned()]);
    let mut providers = Vec::new();
    for (nr, addresses) in (1..).zip(addresses) {
        let addresses = addresses.split(',').map(str::to_owned).collect();
        let contact = Contact { key: key(nr).public(), addresses };
        network.connect(contact, Keep::Once, SOON).await.unwrap();
        providers.push(key(nr).public());
    }
    let (progress, mut far) = watch::channel(Progress::default());
    let watching = tokio::spawn(async move {
        while far.changed().await.is_ok() {
            println!("at {}", far.borrow_and_update().done_bytes);
        }
    });
    let began = Instant::now();
    let mut known = Providers::from(providers.clone());
    let manifest = fetch_manifest(&network, ManifestId(manifest), &mut known).await.unwrap();
    let sources = fetch_artifact(&network, &manifest, known, Sink::Store(store), progress).await.unwrap();
    let took = began.elapsed();
    assert!(sources.served.len() <= providers.len() && sources.liars.is_empty());
    watching.await.unwrap();
    println!("reused {}", sources.reused_bytes);
    println!("took {}", took.as_micros());
    network.shut_down().await;
}

/// A stream that counts what is written to it.
#[derive(Debug)]
struct Counted(BulkStream, Arc<AtomicU64>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.0).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            self.1.fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
