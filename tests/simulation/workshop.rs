//! A workshop that pretends: it takes time, and puts into the store what the build key asks for, or what its nature makes of
//! it.

use crate::checks::Checks;
use crate::log::Log;
use node::artifact::{ChunkSource, Store, gather};
use node::chance::Chance;
use node::network::Network;
use node::volunteer::workshop::{Made, Order, Stopped, Workshop};
use protocol::digest::Digest;
use protocol::id::{BuildKey, LeaseId, ManifestId, PeerKey};
use protocol::platform::Capability;
use protocol::report::{Fingerprint, Limit, Outcome, Reproducibility, Smoke};
use protocol::request::{CheckedRequest, OptionValue};
use protocol::tree::{Entry, Manifest, Mode, Node};
use std::io::{self, Cursor};
use std::pin::Pin;
use std::time::Duration;
use tokio_util::bytes::Bytes;

/// How long a dawdler takes between two signs of progress.
const DAWDLES_FOR: Duration = Duration::from_secs(60);

/// What a volunteer makes of its duty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Builds what was asked for.
    Honest,
    /// Builds something of its own, and serves wrong bytes or none now and then.
    Liar,
    /// Builds the same wrong thing as every other of its kind, and serves as a liar does.
    Colluder,
    /// Reports what it neither built nor holds.
    Boaster,
    /// Takes every lease up, says that it lives, and never ends.
    Idler,
    /// Takes every lease up, gets on with it, and never ends.
    Dawdler,
    /// Builds what was asked for, and falls silent in the middle of what it serves.
    Stutterer,
}

/// One volunteer's workshop.
#[derive(Clone, Debug)]
pub(crate) struct Pretence {
    pub name: String,
    pub nature: Nature,
    pub capability: Capability,
    pub network: Network,
    pub coordinator: PeerKey,
    pub store: Store,
    pub key: PeerKey,
    pub chance: Chance,
    pub checks: Checks,
    pub log: Log,
}

/// A lease that is worked on, until it is dropped.
struct Working<'a> {
    pretence: &'a Pretence,
    lease: LeaseId,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.pretence.checks.ends(self.pretence.key, self.lease);
    }
}

/// The files that an honest build of a key has.
pub(crate) fn honest_files(key: BuildKey) -> Vec<(String, Vec<u8>)> {
    files(key, "")
}

/// The artifact that an honest build of a key is.
pub(crate) fn honest(key: BuildKey) -> ManifestId {
    let chunks = |bytes: &[u8]| vec![Digest::of(bytes)];
    let entry = |(path, bytes): (String, Vec<u8>)| entry(&path, bytes.len() as u64, chunks(&bytes));
    Manifest::new(honest_files(key).into_iter().map(entry).collect()).unwrap().id()
}

fn files(key: BuildKey, flavour: &str) -> Vec<(String, Vec<u8>)> {
    let size = 1_000 + usize::from(key.0.as_bytes()[0]) * 200;
    let file = |name: &str| {
        let seed = Digest::of(format!("{key} {name} {flavour}").as_bytes());
        let mut bytes = seed.as_bytes().repeat(size.div_ceil(seed.as_bytes().len()));
        bytes.truncate(size);
        (name.to_owned(), bytes)
    };
    vec![file("bin/program"), file("share/text")]
}

fn entry(path: &str, size: u64, chunks: Vec<Digest>) -> Entry {
    Entry { path: path.to_owned().try_into().unwrap(), node: Node::File { mode: Mode::of_bits(0o755), size, chunks } }
}

/// What a recipe's option says is to happen.
fn greeting(request: &CheckedRequest) -> String {
    match request.request.spec.options.values().next() {
        Some(OptionValue::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

impl Pretence {
    async fn make(&self, request: &CheckedRequest) -> Outcome {
        let greeting = greeting(request);
        let recipe = request.request.spec.recipe;
        if node::catalogue::by_id(&recipe).is_none()
            && let Err(error) = gather::small_blob(&self.network, recipe.0, vec![self.coordinator]).await
        {
            self.log.note(&self.name, |say| format!("has no recipe for {}", say.key(request.build_key)));
            return Outcome::Infrastructure { reason: error.to_string() };
        }
        if greeting.starts_with("err") {
            return Outcome::BuildError { reason: "step 1 ended with status 1".to_owned() };
        }
        if greeting.starts_with("limit") {
            return Outcome::Limit { limit: Limit::Memory };
        }
        if greeting.starts_with("shaky") && self.chance.below(3) == 0 {
            return Outcome::Infrastructure { reason: "the sandbox did not start".to_owned() };
        }
        let flavour = match self.nature {
            Nature::Honest | Nature::Stutterer | Nature::Idler | Nature::Dawdler => "",
            Nature::Liar | Nature::Boaster => &self.name,
            Nature::Colluder => "as agreed",
        };
        let batch = self.store.batch();
        let (mut entries, mut size_bytes) = (Vec::new(), 0);
        for (path, bytes) in files(request.build_key, flavour) {
            size_bytes += bytes.len() as u64;
            let file = batch.file(Cursor::new(bytes)).await.unwrap();
            entries.push(entry(&path, file.size, file.chunks));
        }
        let manifest = Manifest::new(entries).unwrap();
        if self.nature == Nature::Boaster {
            drop(batch);
        } else {
            batch.commit_artifact(&manifest).await.unwrap();
        }
        self.log.note(&self.name, |say| {
            let what = if flavour.is_empty() { "what was asked for" } else { "a lie" };
            format!("has built {} for {}, {what}", say.manifest(manifest.id()), say.key(request.build_key))
        });
        Outcome::Built {
            manifest: manifest.id(),
            size_bytes,
            smoke: Smoke::Passed,
            reproducibility: Reproducibility::Claimed,
        }
    }
}

impl Workshop for Pretence {
    fn accept(&self, request: &CheckedRequest) -> Result<(), String> {
        if greeting(request).starts_with("taboo") && self.name.ends_with('1') {
            return Err("not here".to_owned());
        }
        Ok(())
    }

    fn attempt(&self, order: Order) -> Pin<Box<dyn Future<Output = Result<Made, Stopped>> + Send + '_>> {
        Box::pin(async move {
            self.checks.begins(self.key, order.lease);
            let _working = Working { pretence: self, lease: order.lease };
            let built = Duration::from_millis(200 + self.chance.below(40_000));
            let building = async {
                order.log.append(b"step 1\n");
                match self.nature {
                    Nature::Idler => {
                        self.checks.count(|tally| &mut tally.idlers);
                        std::future::pending::<()>().await;
                    }
                    Nature::Dawdler => loop {
                        tokio::time::sleep(DAWDLES_FOR).await;
                        order.log.append(b"still at it\n");
                    },
                    Nature::Honest | Nature::Liar | Nature::Colluder | Nature::Boaster | Nature::Stutterer => {}
                }
                tokio::time::sleep(built / 2).await;
                order.log.append(b"step 2\n");
                tokio::time::sleep(built / 2).await;
                self.make(&order.request).await
            };
            self.log.note(&self.name, |say| {
                format!("begins {} for {}", say.lease(order.lease), say.key(order.request.build_key))
            });
            tokio::select! {
                biased;
                () = order.stop.cancelled() => {
                    self.log.note(&self.name, |say| format!("stops {}", say.lease(order.lease)));
                    Err(Stopped)
                }
                outcome = building => Ok(Made {
                    outcome,
                    fingerprint: Fingerprint::of(&self.capability, &order.request.request.spec.requirement),
                    fetched: Duration::ZERO,
                    built,
                }),
            }
        })
    }
}

/// Serves from a store, and lies when its owner does.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub store: Store,
    pub nature: Nature,
    pub chance: Chance,
}

impl ChunkSource for Shelf {
    fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let mut found = self.store.read(digest)?;
        if matches!(self.nature, Nature::Liar | Nature::Colluder) {
            match self.chance.below(4) {
                0 => found = None,
                1 => {
                    if let Some(byte) = found.as_mut().and_then(|bytes| bytes.first_mut()) {
                        *byte ^= 1;
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn reading(&self) -> node::artifact::Reading {
        self.store.reading()
    }

    fn checking(&self) -> node::artifact::Checking {
        node::artifact::Checking::Done
    }
}

/// Reads an artifact that is said to be in a store, and compares every byte with its digests.
pub(crate) async fn read_whole(store: &Store, manifest: &Manifest) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut files = Vec::new();
    for (path, _, size, chunks) in manifest.files() {
        let mut whole = Vec::new();
        for chunk in chunks {
            let bytes: Bytes = match store.get(chunk).await {
                Ok(Some(bytes)) => bytes,
                other => return Err(format!("{path}: {other:?}")),
            };
            if Digest::of(&bytes) != *chunk {
                return Err(format!("{path}: a chunk does not fit its digest"));
            }
            whole.extend_from_slice(&bytes);
        }
        if whole.len() as u64 != size {
            return Err(format!("{path}: {} bytes of {size}", whole.len()));
        }
        files.push((path.to_string(), whole));
    }
    Ok(files)
}
