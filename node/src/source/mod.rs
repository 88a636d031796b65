//! Sources from outside the farm: archives at https addresses, and git repositories.
//!
//! A stranger chooses the address, so a fetch must not become a way into the network of whoever fetches: https only; a name
//! is looked up once, every address it has must be one of the public internet ([`range_of`]), and the connection goes to
//! those addresses and no others; each of at most [`MAX_REDIRECTS`] redirects is checked as the first address was; proxies
//! named in the environment are not used.
//!
//! - [`archive`]: a file that counts only with the pinned length and digest
//! - [`git`]: what a name means now, the commits before it, and the files of a commit
//!
//! No recipe runs here, nothing is checked out, and every [`FetchError`] is a matter of infrastructure. The room stands on
//! artifact alone; volunteers fetch with it, and requesters look revisions up.

mod address;
pub mod archive;
mod error;
pub mod git;
mod hop;
#[cfg(test)]
mod tests;
mod tunnel;

pub use address::{Range, range_of};
pub use error::FetchError;

use std::path::PathBuf;
use std::time::Duration;

/// The most redirects that are followed.
pub const MAX_REDIRECTS: usize = 5;

/// Whether sources may come from the owner's own networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivateSources {
    /// They may not.
    #[default]
    Refused,
    /// Loopback and private networks may serve sources. Link-local addresses never do.
    Allowed,
}

/// How sources are fetched.
#[derive(Clone, Debug)]
pub struct FetchRules {
    /// Whether sources may come from the owner's own networks.
    pub private: PrivateSources,
    /// Certificates in PEM form that are trusted beside those of the system.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// Where sources are kept while they are used.
    pub folder: PathBuf,
    /// The largest archive, and the most bytes that a repository may send.
    pub max_bytes: u64,
    /// For looking up a name, for connecting, and for an answer to begin.
    pub connect_timeout: Duration,
    /// For the next bytes to arrive.
    pub stall_timeout: Duration,
    /// Slower than this over the whole archive, beyond one `stall_timeout`, is given up.
    pub least_bytes_per_s: u64,
    /// The longest that git may take.
    pub git_timeout: Duration,
    /// How often in a row a fetch that does not get on is tried again.
    pub retries: u32,
    /// How long the first of them waits; each further one waits twice as long.
    pub backoff: Duration,
}

impl Default for FetchRules {
    fn default() -> Self {
        Self {
            private: PrivateSources::Refused,
            extra_ca_pem: None,
            folder: std::env::temp_dir(),
            max_bytes: 4 << 30,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            least_bytes_per_s: 8 << 10,
            git_timeout: Duration::from_secs(3_600),
            retries: 3,
            backoff: Duration::from_millis(500),
        }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes received.
    pub received: u64,
    /// Bytes in all, where they are known.
    pub total: Option<u64>,
}
