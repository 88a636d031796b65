//! A coordinator's past, written quickly: through its own ledger and store, so that on disk it is what the program leaves.

use crate::load::Requests;
use futures::StreamExt as _;
use node::artifact::Store;
use node::clock::Clock;
use node::coordinator::judge::judged;
use node::coordinator::ledger::Ledger;
use node::coordinator::open;
use node::coordinator::replica::Replica;
use node::home::{Home, KeyName};
use node::network::Network;
use node::opening;
use protocol::digest::Digest;
use protocol::farm::Farm;
use protocol::farm::command::{Command, Possession, Reply, Submitted, Witnesses};
use protocol::farm::lease::Bounds;
use protocol::id::{CapabilityId, FarmId, JobId, PeerKey};
use protocol::recipe::Limits;
use protocol::report::{Fingerprint, Outcome, Report, Reproducibility, Smoke};
use protocol::request::BuildSpec;
use protocol::signed::{SecretKey, Signed};
use protocol::time::{Span, Timestamp};
use protocol::tree::{Entry, Manifest, Mode, Node};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Commands on their way at a time.
const AT_ONCE: usize = 256;
const CACHE_BYTES: u64 = 32 << 20;
const REQUESTERS: u64 = 32;
const VOLUNTEERS: u64 = 20;
/// What a build leaves at the end of its log, and in its one file.
const LOG_TAIL_BYTES: usize = 200;
const FILE_BYTES: usize = 1 << 10;

/// A home in which no daemon runs, open to be written.
pub(crate) struct Past {
    replica: Replica<Farm>,
    ledger: Ledger,
    store: Store,
    farm: FarmId,
    secret: SecretKey,
    requests: Requests,
    snapshots: PathBuf,
    /// Bytes of commands so far.
    bytes: AtomicU64,
}

impl Past {
    /// Opens the home of a coordinator that has run before, to write what was asked for at `issued_at`.
    pub(crate) async fn open(home: &Path, farm: FarmId, issued_at: Timestamp) -> Self {
        let home = Home::open(home).unwrap();
        let (database, store) = opening::open(&home, CACHE_BYTES).await.unwrap();
        let secret = home.key(KeyName::Node).unwrap();
        let charter = home.charter(farm).unwrap().unwrap();
        let (network, ..) = Network::channel(secret.public());
        let known = (farm, Some(&charter));
        let (replica, _) = open::open(&home, &database, &network, &Clock::system(), known).await.unwrap();
        Self {
            ledger: Ledger::Replicated(replica.clone()),
            replica,
            store,
            farm,
            secret,
            requests: Requests::new(farm, issued_at),
            snapshots: home.path().join("raft").join("snapshots"),
            bytes: AtomicU64::new(0),
        }
    }

    /// Builds that were asked for, granted, reported, kept and judged.
    pub(crate) async fn finish(&self, numbers: std::ops::Range<u64>) {
        futures::stream::iter(numbers).for_each_concurrent(AT_ONCE, |nr| self.finish_one(nr)).await;
    }

    /// Requests that wait.
    pub(crate) async fn queue(&self, numbers: std::ops::Range<u64>) {
        futures::stream::iter(numbers)
            .for_each_concurrent(AT_ONCE, |nr| async move {
                self.submit(nr).await;
            })
            .await;
    }

    /// Asks again for what is queued already, which lengthens the log and changes nothing, until `enough`.
    pub(crate) async fn repeat(&self, numbers: std::ops::Range<u64>, enough: impl Fn(&Self) -> bool) {
        let mut numbers = numbers.cycle();
        while !enough(self) {
            let some: Vec<u64> = numbers.by_ref().take(AT_ONCE).collect();
            futures::future::join_all(some.into_iter().map(|nr| self.submit(nr))).await;
        }
    }

    /// Bytes of commands written since this was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the snapshot on disk: as many of commands may follow it before there is another.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.snapshots().iter().map(|name| self.snapshots.join(name).metadata().unwrap().len()).sum()
    }

    /// The snapshots on disk, by name.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.snapshots).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap());
        names.filter(|name| name.ends_with(".snapshot")).collect()
    }

    pub(crate) async fn close(self) {
        self.replica.close().await.unwrap();
    }

    async fn submit(&self, nr: u64) -> (BuildSpec, JobId) {
        let requester = key(nr % REQUESTERS);
        let (spec, request, subscription) = self.requests.sign(nr, &requester);
        let submit = Command::Submit { request, subscriptions: vec![subscription], source: Possession::Held };
        match self.propose(submit).await {
            Reply::Submitted(Submitted::Attached { job, .. }) => (spec, job),
            other => panic!("{other:?}"),
        }
    }

    async fn finish_one(&self, nr: u64) {
        let (spec, job) = self.submit(nr).await;
        let build_key = spec.key();
        let volunteer = key(1_000 + nr % VOLUNTEERS);
        let words = [("os", "linux"), ("arch", "x86_64"), ("distribution", "debian-12"), ("libc", "glibc-2.36")];
        let fingerprint = Fingerprint(words.map(|(fact, value)| (fact.to_owned(), value.to_owned())).into());
        let grant = Command::Grant {
            job,
            volunteer: volunteer.public(),
            capability: CapabilityId(Digest::of(b"capability")),
            fingerprint: fingerprint.clone(),
            nonce: nr,
            bounds: Bounds::of(&Limits::default()),
        };
        let Reply::Granted(granted) = self.propose(grant).await else { panic!("not granted") };
        let manifest = self.keep(nr).await;
        let report = Report {
            lease: granted.lease,
            build_key,
            outcome: Outcome::Built {
                manifest: manifest.id(),
                size_bytes: manifest.total_bytes(),
                smoke: Smoke::Passed,
                reproducibility: Reproducibility::Claimed,
            },
            fingerprint,
            fetched: Span::from_secs(1),
            built: Span::from_secs(30),
            log: Some(Digest::of(&nr.to_be_bytes())),
            log_tail: "x".repeat(LOG_TAIL_BYTES),
        };
        let report = Signed::new(&report, self.farm, &volunteer);
        self.propose(Command::Report { report, witnesses: Witnesses::Alive }).await;
        let holder: PeerKey = self.secret.public();
        self.propose(Command::Held { build_key, manifest: manifest.id(), holder }).await;
        let judged = self.ledger.read(|farm| judged(farm, self.farm, &self.secret, build_key)).unwrap();
        self.store.keep_judged(build_key, judged, "hello".to_owned()).await.unwrap();
    }

    /// Stores an artifact of one file.
    async fn keep(&self, nr: u64) -> Manifest {
        let batch = self.store.batch();
        let bytes = nr.to_be_bytes().repeat(FILE_BYTES / 8);
        let chunks = batch.blobs(vec![bytes.into()]).await.unwrap();
        let file = Node::File { mode: Mode::Executable, size: FILE_BYTES as u64, chunks };
        let manifest = Manifest::new(vec![Entry { path: "hello".to_owned().try_into().unwrap(), node: file }]).unwrap();
        batch.commit_artifact(&manifest).await.unwrap();
        manifest
    }

    async fn propose(&self, command: Command) -> Reply {
        self.bytes.fetch_add(protocol::codec::encode(&command).len() as u64, Ordering::Relaxed);
        self.ledger.propose(command).await.unwrap()
    }
}

fn key(nr: u64) -> SecretKey {
    SecretKey::from_seed(Digest::of(&nr.to_be_bytes()).as_bytes())
}
