//! Why a source does not come from where it is published.

use super::MAX_REDIRECTS;
use super::address::Range;
use protocol::digest::Digest;
use protocol::platform::Version;
use protocol::request::MIN_GIT;
use protocol::source::Commit;
use reqwest::StatusCode;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a source was not fetched. All of these are infrastructure failures: elsewhere, or later, it may work.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address, or with a user name in it.
    #[error("`{}` is no address of a source", .0.escape_debug())]
    Url(String),
    /// Anything but https.
    #[error("`{}` is not an https address", .0.escape_debug())]
    NotHttps(String),
    /// The name has no address, or was not answered.
    #[error("the name {host} cannot be looked up: {error}")]
    Lookup {
        /// The name.
        host: String,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The name leads to where sources may not come from.
    #[error("{host} has the address {address}, which is {range}: sources come from public addresses only")]
    NotPublic {
        /// The name or address in the URL.
        host: String,
        /// One of its addresses.
        address: IpAddr,
        /// Where that lies.
        range: Range,
    },
    /// More than [`MAX_REDIRECTS`].
    #[error("more than {MAX_REDIRECTS} redirects")]
    TooManyRedirects,
    /// A redirect to nowhere.
    #[error("{host} redirects without saying where to")]
    RedirectToNowhere {
        /// Who redirects.
        host: String,
    },
    /// Any answer but the one that was asked for.
    #[error("{host} answers {status}")]
    Status {
        /// Who answers.
        host: String,
        /// What.
        status: StatusCode,
    },
    /// The certificates, or the set-up of TLS.
    #[error("https cannot be set up: {0}")]
    Setup(#[source] reqwest::Error),
    /// Connecting, TLS or HTTP failed.
    #[error("{host}: {}", chain(.error))]
    Transport {
        /// The other side.
        host: String,
        /// What failed.
        #[source]
        error: reqwest::Error,
    },
    /// Nothing arrived for too long, or too little.
    #[error("{host} is too slow: {received} of {size} bytes after {} s", .elapsed.as_secs())]
    Slow {
        /// The other side.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes expected.
        size: u64,
        /// Since the request.
        elapsed: Duration,
    },
    /// The connection ended early.
    #[error("{host} ends the connection after {received} of {size} bytes")]
    Cut {
        /// The other side.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes expected.
        size: u64,
    },
    /// A source that the owner does not want.
    #[error("the archive has {size} bytes, and {max} are allowed")]
    TooLarge {
        /// As pinned.
        size: u64,
        /// Limit.
        max: u64,
    },
    /// Nobody says how long the archive is.
    #[error("{host} does not say how long the archive is")]
    NoLength {
        /// The other side.
        host: String,
    },
    /// Another length than pinned.
    #[error("{host} sends {}{found} bytes where {pinned} are pinned", if .found > .pinned { "at least " } else { "" })]
    Length {
        /// The other side.
        host: String,
        /// What it sends.
        found: u64,
        /// What was pinned.
        pinned: u64,
    },
    /// Another content than pinned.
    #[error("{host} sends an archive with digest {found} where {pinned} is pinned")]
    OtherDigest {
        /// The other side.
        host: String,
        /// What it sends.
        found: Digest,
        /// What was pinned.
        pinned: Digest,
    },
    /// The source cannot be kept.
    #[error("the source cannot be written to {}: {error}", .folder.display())]
    Write {
        /// Where.
        folder: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// Git sources need a git.
    #[error("git is not installed here, and it is what fetches git sources")]
    NoGit,
    /// Git cannot be shut in.
    #[error("git {found} is too old to fetch sources with: {MIN_GIT} is needed")]
    OldGit {
        /// What is installed.
        found: Version,
    },
    /// The address is not one of a repository.
    #[error("there is no git repository at {url}: {found}")]
    NotARepository {
        /// The address.
        url: String,
        /// What is there instead.
        found: String,
    },
    /// The repository is not public.
    #[error(
        "{host} asks for a login: only public repositories can be fetched, and one that does not exist may look alike"
    )]
    Login {
        /// Who asks.
        host: String,
    },
    /// The commit is gone.
    #[error("the repository at {host} has no commit {commit}: it has vanished, or never was there")]
    Vanished {
        /// The other side.
        host: String,
        /// What was wanted.
        commit: Commit,
    },
    /// The repository is larger than wanted.
    #[error("the repository at {host} sends more than {max} bytes")]
    RepositoryTooLarge {
        /// The other side.
        host: String,
        /// Limit.
        max: u64,
    },
    /// The repository does not get on.
    #[error("the repository at {host} is too slow: {received} bytes after {} s", .elapsed.as_secs())]
    RepositorySlow {
        /// The other side.
        host: String,
        /// Bytes received.
        received: u64,
        /// Since the beginning.
        elapsed: Duration,
    },
    /// Git failed otherwise.
    #[error("git cannot {doing}: {said}")]
    Git {
        /// At what.
        doing: &'static str,
        /// The last line that it wrote.
        said: String,
    },
}

impl FetchError {
    /// Whether the same may work a moment later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Slow { .. } | Self::Cut { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Lookup { error, .. } => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }
}

/// An error and what is behind it: `reqwest` says the reason only there.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
