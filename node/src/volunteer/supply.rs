//! Where the source of an attempt comes from: this store, peers of the farm, or where it is published, in this order.
//!
//! What is published is the same for everybody, so it is fetched once: it becomes a tree in the store, remembered by what the
//! request says of it, and the next build with other options fetches nothing. That it cannot be had is never the recipe's
//! fault; that it cannot be unpacked always is, because its bytes are pinned.

use super::builder::{Builder, Failure, Tree, store_failed, unfetched};
use super::workshop::Order;
use crate::artifact::import::{self, ImportError, Imported};
use crate::artifact::{ChunkSource, gather, transfer};
use crate::source::archive::{self, Audience, Fetched, Pinned};
use crate::source::git::{Remote, TreeError};
use crate::source::{FetchError, Progress};
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use protocol::request::Source;
use protocol::source::{Commit, HttpsUrl};
use protocol::tree::Manifest;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tokio::sync::watch;

/// How long peers are asked for an archive before its origin is.
const PEERS_WITHIN: Duration = Duration::from_secs(5);
/// Peers that are asked beside the coordinators.
const PEERS_ASKED: usize = 4;
/// How often the log of a build tells how far a fetch is.
const TELL_EVERY: Duration = Duration::from_secs(3);

impl Builder {
    /// The source, here and verified.
    pub(super) async fn supply(&self, order: &Order, providers: Vec<PeerKey>) -> Result<Tree, Failure> {
        let source = &order.request.request.spec.source;
        let imported = match source {
            Source::Inline => return Ok(Tree { manifest: Manifest::default(), chunks: Arc::new(Nowhere) }),
            Source::Tree(id) => {
                return self.tree(order, *id, providers).await;
            }
            Source::Archive { .. } | Source::Git { .. } => {
                if let Some(tree) = self.store.source(source).await.map_err(|error| store_failed(&error))? {
                    order.log.append(b"the source is here from an earlier build\n");
                    return Ok(self.stored(tree));
                }
                self.published(order, source, providers).await.inspect_err(|failure| {
                    if let Failure::Infrastructure(reason) | Failure::BuildError(reason) = failure {
                        order.log.append(format!("{reason}\n").as_bytes());
                    }
                })?
            }
        };
        let tree = gather::import_into_store(&self.store, imported).await.map_err(|error| store_failed(&error))?;
        self.store.remember_source(source, tree.id()).await.map_err(|error| store_failed(&error))?;
        Ok(self.stored(tree))
    }

    /// A source that a requester has handed over.
    async fn tree(&self, order: &Order, id: ManifestId, providers: Vec<PeerKey>) -> Result<Tree, Failure> {
        let (progress, mut watching) = watch::channel(transfer::Progress::default());
        let fetching = gather::tree_into_store_telling(&self.network, &self.store, id, providers, progress);
        let telling = async {
            while watching.changed().await.is_ok() {
                order.vitals.fetched(watching.borrow_and_update().done_bytes);
            }
        };
        let (tree, ()) = futures::future::join(fetching, telling).await;
        Ok(self.stored(tree.map_err(unfetched)?))
    }

    fn stored(&self, manifest: Manifest) -> Tree {
        Tree { manifest, chunks: Arc::new(self.store.clone()) }
    }

    /// What is published outside the farm.
    async fn published(&self, order: &Order, source: &Source, providers: Vec<PeerKey>) -> Result<Imported, Failure> {
        match source {
            Source::Archive { digest, size, url } => {
                self.archive(order, url, Pinned { digest: *digest, size: *size }, providers).await
            }
            Source::Git { url, commit } => self.commit(order, url, commit).await,
            Source::Inline | Source::Tree(_) => Err(Failure::Infrastructure("it is published nowhere".to_owned())),
        }
    }

    async fn archive(
        &self,
        order: &Order,
        url: &str,
        pinned: Pinned,
        providers: Vec<PeerKey>,
    ) -> Result<Imported, Failure> {
        let fits = pinned.size <= gather::SMALL_BLOB_BYTES as u64;
        let from_peers = if fits { self.archive_from_peers(pinned.digest, providers).await } else { None };
        let file = match from_peers {
            Some(file) => {
                order.log.append(b"the source came from a peer\n");
                file
            }
            None => {
                order.log.append(format!("fetching {url}\n").as_bytes());
                let mut told = Told::new(order);
                let fetched = archive::fetch(&self.fetch, url, pinned, &mut |progress| told.tell(progress)).await;
                let archive = fetched.map_err(|error| unpublished(&error))?;
                if fits {
                    self.keep(&archive, pinned.digest).await?;
                }
                archive.file
            }
        };
        import::import_archive_with(file.path(), &self.fetch.folder).await.map_err(unusable)
    }

    /// The archive, if a peer that is near has it: peers are asked first, and not for long.
    async fn archive_from_peers(&self, digest: Digest, coordinators: Vec<PeerKey>) -> Option<NamedTempFile> {
        let near = self.network.peers().await.unwrap_or_default().into_iter().map(|contact| contact.key);
        let near = near.filter(|peer| !coordinators.contains(peer)).take(PEERS_ASKED);
        let providers = coordinators.iter().copied().chain(near).collect();
        let asking = gather::small_blob(&self.network, digest, providers);
        let bytes = match tokio::time::timeout(PEERS_WITHIN, asking).await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                tracing::debug!(%error, %digest, "no peer has the archive");
                return None;
            }
            Err(_) => return None,
        };
        let file = NamedTempFile::with_prefix_in("source-", &self.fetch.folder).ok()?;
        // A disk that is full fails the fetch that follows as well, and is named there.
        tokio::fs::write(file.path(), &bytes).await.ok()?;
        Some(file)
    }

    /// Keeps an archive for those who come later. Lease holders may have it from a coordinator, and what is public anybody.
    async fn keep(&self, archive: &Fetched, digest: Digest) -> Result<(), Failure> {
        let bytes = tokio::fs::read(archive.file.path()).await;
        let bytes = bytes.map_err(|error| Failure::Infrastructure(format!("the source cannot be read: {error}")))?;
        self.store.put(vec![bytes.into()]).await.map_err(|error| store_failed(&error))?;
        if archive.audience == Audience::Everybody {
            self.store.published().add(digest);
        }
        Ok(())
    }

    async fn commit(&self, order: &Order, url: &HttpsUrl, commit: &Commit) -> Result<Imported, Failure> {
        order.log.append(format!("fetching {url} at {commit}\n").as_bytes());
        let mut told = Told::new(order);
        let remote = Remote::open(&self.fetch, url).await.map_err(|error| unpublished(&error))?;
        match remote.files(commit, &mut |progress| told.tell(progress)).await {
            Ok(imported) => Ok(imported),
            Err(TreeError::Fetch(error)) => Err(unpublished(&error)),
            Err(TreeError::Import(error)) => Err(unusable(error)),
        }
    }
}

/// Tells how far a fetch is: the heartbeat always, the readers of the log now and then.
struct Told<'a> {
    order: &'a Order,
    last: Instant,
}

impl<'a> Told<'a> {
    fn new(order: &'a Order) -> Self {
        Self { order, last: Instant::now() }
    }

    fn tell(&mut self, progress: Progress) {
        self.order.vitals.fetched(progress.received);
        if self.last.elapsed() >= TELL_EVERY {
            self.last = Instant::now();
            self.order.log.append(line(progress).as_bytes());
        }
    }
}

fn line(Progress { received, total }: Progress) -> String {
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    match total {
        Some(total) => format!("fetching: {} of {} MB\n", mb(received), mb(total)),
        None => format!("fetching: {} MB\n", mb(received)),
    }
}

fn unpublished(error: &FetchError) -> Failure {
    Failure::Infrastructure(format!("the source cannot be fetched: {error}"))
}

fn unusable(error: ImportError) -> Failure {
    match error {
        ImportError::Io { .. } => Failure::Infrastructure(format!("the source cannot be read: {error}")),
        error => Failure::BuildError(format!("the source cannot be unpacked: {error}")),
    }
}

/// No chunks at all.
struct Nowhere;

impl ChunkSource for Nowhere {
    fn read(&self, _: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_line() {
        let told = |received, total| line(Progress { received, total });
        assert_eq!(told(12_345_678, Some(30_000_000)), "fetching: 13 of 30 MB\n");
        assert_eq!(told(5_000_000, None), "fetching: 5 MB\n");
    }
}
