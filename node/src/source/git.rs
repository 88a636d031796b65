//! A git repository at an https address: what its names mean, the commits before a commit, and the files of one.
//!
//! The address is asked by our own client first, through the same checked redirects as an archive. Git itself is then given
//! the address where they ended, follows no redirect, and reaches nothing but that server: its only way out is a
//! `tunnel`. What it fetches lies in a bare repository that is thrown away, each object checked by git as it comes
//! (`fsckObjects`), and the commit that was wanted is the commit that is read.
//!
//! Never as root, never checked out, never run: hooks, filters, submodules, helpers for credentials.

mod files;
mod place;
mod program;
mod refs;
#[cfg(test)]
mod tests;

pub use files::TreeError;

use super::hop::{Answered, Internet, Reach, ask};
use super::tunnel::Tunnel;
use super::{FetchError, FetchRules, Progress};
use crate::artifact::import::{Imported, MAX_GROWTH, MIN_GROWN_BYTES};
use place::Place;
use program::{Ended, Program};
use protocol::platform::Version;
use protocol::request::MIN_GIT;
use protocol::source::{Commit, HttpsUrl, Revision};
use refs::{Listing, Meaning, Refs};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// The most commits that [`Remote::history`] goes back.
pub const MAX_HISTORY: u32 = 1_000;
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The longest that git may take without the network.
const LOCAL_WITHIN: Duration = Duration::from_secs(300);
/// Commits that are told when several begin alike.
const TOLD: usize = 8;
/// Where systems keep the authorities that they trust, as one file: Debian and Arch, Fedora, SUSE, Alpine.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What a server that speaks git says it sends (gitprotocol-http).
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";

/// The git that is installed, if it can fetch sources.
pub async fn usable_version() -> Option<Version> {
    let least: Version = MIN_GIT.parse().ok()?;
    program::version().await.filter(|version| *version >= least)
}

/// Why a revision is no commit.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The repository cannot be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Nothing there has this name.
    #[error("{url} has no branch, tag or commit `{revision}`{}", instead(.nearest))]
    Unknown {
        /// The repository.
        url: HttpsUrl,
        /// What was asked for.
        revision: Revision,
        /// What may have been meant.
        nearest: Vec<String>,
    },
    /// Two refs have this name.
    #[error("`{revision}` is ambiguous at {url}: it may be {}", .names.join(" or "))]
    AmbiguousName {
        /// The repository.
        url: HttpsUrl,
        /// What was asked for.
        revision: Revision,
        /// Full names.
        names: Vec<String>,
    },
    /// Several commits begin so.
    #[error("`{revision}` is ambiguous at {url}: {} commits begin so, among them {}", .count, listed(.commits))]
    AmbiguousCommit {
        /// The repository.
        url: HttpsUrl,
        /// What was asked for.
        revision: Revision,
        /// How many.
        count: usize,
        /// Some of them.
        commits: Vec<Commit>,
    },
    /// Nothing was ever committed, or HEAD names a branch that is not there.
    #[error("{url} does not say which commit is its HEAD: name a branch, a tag or a commit")]
    NoHead {
        /// The repository.
        url: HttpsUrl,
    },
}

fn instead(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("; did you mean `{only}`?"),
        several => format!("; there are `{}`, …", several.join("`, `")),
    }
}

fn listed(commits: &[Commit]) -> String {
    commits.iter().map(Commit::as_str).collect::<Vec<_>>().join(", ")
}

/// What a revision means now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The commit.
    pub commit: Commit,
    /// By which name it was found; `None` for a commit that was named itself.
    pub name: Option<String>,
}

/// How much of a history is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Have {
    Nothing,
    Commits,
}

/// A repository that was asked and answers, and what was fetched of it.
#[derive(Debug)]
pub struct Remote {
    rules: FetchRules,
    url: HttpsUrl,
    host: String,
    tunnel: Tunnel,
    remote: Program,
    local: Program,
    place: Place,
    refs: Option<Refs>,
    have: Have,
    opened: Instant,
}

impl Remote {
    /// Asks whether there is a repository at `url`.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn open(rules: &FetchRules, url: &HttpsUrl) -> Result<Self, FetchError> {
        Self::open_within(rules, &Internet { private: rules.private }, url).await
    }

    async fn open_within(rules: &FetchRules, reach: &impl Reach, url: &HttpsUrl) -> Result<Self, FetchError> {
        let found = program::version().await.ok_or(FetchError::NoGit)?;
        if MIN_GIT.parse::<Version>().is_ok_and(|least| found < least) {
            return Err(FetchError::OldGit { found });
        }
        let opened = Instant::now();
        let (answered, base) = find(rules, reach, url).await?;
        let host = answered.hop.host.clone();
        let unwritable = |error| FetchError::Write { folder: rules.folder.clone(), error };
        let tunnel = Tunnel::to(&answered.hop, rules).await.map_err(unwritable)?;
        let place = Place::make(&rules.folder).map_err(unwritable)?;
        let mut settings = vec![
            ("remote.origin.url".to_owned(), base.to_string()),
            ("protocol.https.allow".to_owned(), "always".to_owned()),
            ("http.proxy".to_owned(), tunnel.url()),
            ("http.proxyAuthMethod".to_owned(), "basic".to_owned()),
        ];
        if let Some(path) = authorities(rules, &place).map_err(unwritable)? {
            settings.push(("http.sslCAInfo".to_owned(), path.to_string_lossy().into_owned()));
        }
        Ok(Self {
            rules: rules.clone(),
            url: url.clone(),
            host,
            tunnel,
            remote: Program::new(place.user(), &place.home(), &place.repository(), &settings),
            local: Program::new(place.user(), &place.home(), &place.repository(), &[]),
            place,
            refs: None,
            have: Have::Nothing,
            opened,
        })
    }

    /// What `revision` means now; without one, what HEAD is.
    ///
    /// # Errors
    ///
    /// [`ResolveError`]: nothing is taken in the place of what was named.
    pub async fn resolve(&mut self, revision: Option<&Revision>) -> Result<Resolved, ResolveError> {
        let refs = self.refs().await?.clone();
        let url = || self.url.clone();
        let Some(revision) = revision else {
            let (commit, name) = refs.head().ok_or_else(|| ResolveError::NoHead { url: url() })?;
            return Ok(Resolved { commit, name: Some(name) });
        };
        let unknown = |refs: &Refs, url| ResolveError::Unknown {
            url,
            revision: revision.clone(),
            nearest: refs.instead(revision),
        };
        match refs.meaning(revision) {
            Meaning::Named(commit, name) => Ok(Resolved { commit, name: Some(name) }),
            Meaning::Whole(commit) if refs.name(&commit) => Ok(Resolved { commit, name: None }),
            Meaning::Whole(commit) => match self.fetch_commits(&commit, 1).await {
                Ok(()) => Ok(Resolved { commit, name: None }),
                Err(FetchError::Vanished { .. }) => Err(unknown(&refs, self.url.clone())),
                Err(error) => Err(error.into()),
            },
            Meaning::Short(digits) => {
                let (count, mut commits) = self.commits_beginning(&digits).await?;
                match (count, commits.pop()) {
                    (1, Some(commit)) => Ok(Resolved { commit, name: None }),
                    (_, None) => Err(unknown(&refs, self.url.clone())),
                    (count, Some(last)) => {
                        commits.push(last);
                        let (url, revision) = (self.url.clone(), revision.clone());
                        Err(ResolveError::AmbiguousCommit { url, revision, count, commits })
                    }
                }
            }
            Meaning::Ambiguous { names } => {
                Err(ResolveError::AmbiguousName { url: url(), revision: revision.clone(), names })
            }
            Meaning::Unknown => Err(unknown(&refs, url())),
        }
    }

    /// The last `count` commits up to `commit`, by first parents, it itself first; fewer where the history is shorter.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    pub async fn history(&mut self, commit: &Commit, count: u32) -> Result<Vec<Commit>, FetchError> {
        let count = count.clamp(1, MAX_HISTORY);
        if self.have == Have::Nothing {
            self.fetch_commits(commit, count).await?;
        }
        let (max, mut printed) = (format!("--max-count={count}"), Vec::new());
        let words = ["rev-list", "--first-parent", &max, commit.as_str()];
        let ended = self.local.run(&words, LOCAL_WITHIN, |bytes| printed.extend_from_slice(bytes)).await?;
        self.succeeded("list the history", ended)?;
        let commits: Vec<Commit> =
            String::from_utf8_lossy(&printed).lines().filter_map(|line| line.parse().ok()).collect();
        if commits.first() == Some(commit) {
            Ok(commits)
        } else {
            Err(FetchError::Vanished { host: self.host.clone(), commit: commit.clone() })
        }
    }

    /// The files of `commit`, telling `progress` how far it is.
    ///
    /// # Errors
    ///
    /// [`TreeError`].
    pub async fn files(
        mut self,
        commit: &Commit,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Imported, TreeError> {
        self.init(commit.as_str().len()).await?;
        self.fetch_commit(&["--depth=1"], commit, progress).await?;
        let max_bytes = MIN_GROWN_BYTES.max(self.tunnel.received().saturating_mul(MAX_GROWTH));
        let (program, commit, spool) = (self.local.clone(), commit.clone(), self.rules.folder.clone());
        let reading = tokio::task::spawn_blocking(move || files::import(&program, &commit, &spool, max_bytes));
        match reading.await {
            Ok(imported) => imported,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => {
                    Err(FetchError::Git { doing: "read the files", said: "the node is ending".to_owned() }.into())
                }
            },
        }
    }

    async fn refs(&mut self) -> Result<&Refs, FetchError> {
        if self.refs.is_none() {
            let mut listing = Listing::default();
            let words = ["ls-remote", "--quiet", "--symref", "origin"];
            let ended = self.remote.run(&words, self.rules.git_timeout, |bytes| listing.take(bytes)).await?;
            self.succeeded("list the branches and tags", ended)?;
            self.refs = Some(listing.refs());
        }
        Ok(self.refs.get_or_insert_default())
    }

    /// Makes the repository anew, for commits of so many digits.
    async fn init(&mut self, digits: usize) -> Result<(), FetchError> {
        let format = if digits == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        let repository = self.place.repository();
        match std::fs::remove_dir_all(&repository) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FetchError::Write { folder: self.rules.folder.clone(), error });
            }
            Ok(()) | Err(_) => {}
        }
        self.have = Have::Nothing;
        let words = ["init", "--quiet", "--bare", "--template=", format];
        let ended = self.local.run(&words, LOCAL_WITHIN, |_| {}).await?;
        self.succeeded("make a repository", ended)
    }

    /// Fetches commits without their files: the last `depth` of a history.
    async fn fetch_commits(&mut self, commit: &Commit, depth: u32) -> Result<(), FetchError> {
        self.init(commit.as_str().len()).await?;
        let depth = format!("--depth={depth}");
        self.fetch_commit(&["--filter=tree:0", &depth], commit, &mut |_| {}).await
    }

    /// All commits that a branch or tag leads to and that begin so: how many, and the first few.
    async fn commits_beginning(&mut self, digits: &str) -> Result<(usize, Vec<Commit>), FetchError> {
        let len = self.refs.as_ref().and_then(Refs::commit_digits).unwrap_or(40);
        self.init(len).await?;
        self.fetch_all(&["--filter=tree:0"], &mut |_| {}).await?;
        self.have = Have::Commits;
        let (mut line, mut count, mut commits) = (Vec::new(), 0, Vec::new());
        let take = |bytes: &[u8]| {
            for byte in bytes {
                if *byte != b'\n' {
                    // No line is longer than a commit.
                    line.truncate(64);
                    line.push(*byte);
                    continue;
                }
                if line.starts_with(digits.as_bytes()) {
                    count += 1;
                    let commit = std::str::from_utf8(&line).ok().and_then(|text| text.parse().ok());
                    commits.extend(commit.filter(|_| count <= TOLD));
                }
                line.clear();
            }
        };
        let ended = self.local.run(&["rev-list", "--all"], LOCAL_WITHIN, take).await?;
        self.succeeded("list the commits", ended)?;
        Ok((count, commits))
    }

    /// Fetches one commit, or all there is where the server gives none by its digits.
    async fn fetch_commit(
        &mut self,
        how: &[&str],
        commit: &Commit,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), FetchError> {
        let vanished = || FetchError::Vanished { host: self.host.clone(), commit: commit.clone() };
        match self.fetch(how, &[commit.as_str()], progress).await {
            Err(FetchError::Git { said, .. }) if said.contains("not our ref") => return Err(vanished()),
            Err(FetchError::Git { said, .. }) if said.contains("unadvertised object") => {
                let filters: Vec<&str> = how.iter().copied().filter(|word| word.starts_with("--filter")).collect();
                self.fetch_all(&filters, progress).await?;
            }
            fetched => fetched?,
        }
        let peeled = format!("{}^{{commit}}", commit.as_str());
        let mut printed = Vec::new();
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &peeled];
        let ended = self.local.run(&words, LOCAL_WITHIN, |bytes| printed.extend_from_slice(bytes)).await?;
        let is_there = ended.is_some_and(|ended| ended.status.success());
        if is_there && printed.trim_ascii() == commit.as_str().as_bytes() { Ok(()) } else { Err(vanished()) }
    }

    async fn fetch_all(&self, how: &[&str], progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), FetchError> {
        self.fetch(how, &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], progress).await
    }

    /// Fetches, and once more when the connection broke.
    async fn fetch(
        &self,
        how: &[&str],
        what: &[&str],
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), FetchError> {
        let always =
            ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--update-shallow"];
        let words: Vec<&str> = always.iter().chain(how).chain(&["origin"]).chain(what).copied().collect();
        match self.fetch_once(&words, progress).await {
            Err(error) if self.rules.retries > 0 && broke(&error) => {
                tracing::info!(%error, "trying again");
                tokio::time::sleep(self.rules.backoff).await;
                self.fetch_once(&words, progress).await
            }
            fetched => fetched,
        }
    }

    async fn fetch_once(&self, words: &[&str], progress: &mut (dyn FnMut(Progress) + Send)) -> Result<(), FetchError> {
        let left = self.rules.git_timeout.saturating_sub(self.opened.elapsed());
        let mut fetching = std::pin::pin!(self.remote.run(words, left, |_| {}));
        loop {
            tokio::select! {
                biased;
                ended = &mut fetching => return self.succeeded("fetch", ended?),
                () = tokio::time::sleep(TELL_EVERY) => {
                    progress(Progress { received: self.tunnel.received(), total: None });
                }
            }
        }
    }

    /// What a run came to.
    fn succeeded(&self, doing: &'static str, ended: Option<Ended>) -> Result<(), FetchError> {
        let (host, received) = (self.host.clone(), self.tunnel.received());
        let slow = || FetchError::RepositorySlow { host: self.host.clone(), received, elapsed: self.opened.elapsed() };
        match ended {
            Some(ended) if ended.status.success() => Ok(()),
            _ if self.tunnel.is_over() => Err(FetchError::RepositoryTooLarge { host, max: self.rules.max_bytes }),
            None => Err(slow()),
            Some(_) if self.tunnel.has_stalled() => Err(slow()),
            Some(ended) => Err(FetchError::Git { doing, said: ended.said() }),
        }
    }
}

/// Asks for the advertisement of a repository, and says where it was found.
async fn find(rules: &FetchRules, reach: &impl Reach, url: &HttpsUrl) -> Result<(Answered, Url), FetchError> {
    const ASKED: &str = "/info/refs";
    let wrong = || FetchError::Url(url.to_string());
    let mut asked = Url::parse(url.as_str()).map_err(|_| wrong())?;
    let path = format!("{}{ASKED}", asked.path().trim_end_matches('/'));
    asked.set_path(&path);
    asked.set_query(Some("service=git-upload-pack"));
    let mut headers = HeaderMap::new();
    headers.insert("git-protocol", HeaderValue::from_static("version=2"));
    let answered = ask(rules, reach, asked, &headers).await?;
    let host = || answered.hop.host.clone();
    let not_there = |found: String| Err(FetchError::NotARepository { url: url.to_string(), found });
    match answered.response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(FetchError::Login { host: host() }),
        status @ (StatusCode::NOT_FOUND | StatusCode::GONE) => return not_there(format!("it answers {status}")),
        status => return Err(FetchError::Status { host: host(), status }),
    }
    let kind = answered.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind != Some(ADVERTISEMENT) {
        return not_there("it does not speak git's own protocol over https".to_owned());
    }
    let mut base = answered.url.clone();
    let path = base.path().strip_suffix(ASKED).ok_or_else(wrong)?.to_owned();
    base.set_path(&path);
    base.set_query(None);
    Ok((answered, base))
}

/// A file with the authorities of the system and the one that was given, as git wants them: one file in the place of all.
fn authorities(rules: &FetchRules, place: &Place) -> std::io::Result<Option<PathBuf>> {
    let Some(extra) = &rules.extra_ca_pem else { return Ok(None) };
    let system = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
    place.file("authorities.pem", &[&system, b"\n".as_slice(), extra].concat()).map(Some)
}

/// Whether a fetch that failed so may work when it is tried again.
fn broke(error: &FetchError) -> bool {
    match error {
        FetchError::Git { said, .. } => {
            !["not our ref", "unadvertised object"].iter().any(|known| said.contains(known))
        }
        error => error.may_pass(),
    }
}
