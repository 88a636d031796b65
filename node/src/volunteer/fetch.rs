//! Fetching a source archive from the address that a recipe pins.
//!
//! A stranger's recipe chooses the address, so a fetch must not become a way into the owner's network: https only; the name
//! is looked up once, every address it has must be one of the public internet ([`range_of`]), and the connection goes to
//! those addresses and no others; each of at most [`MAX_REDIRECTS`] redirects is checked as the first address was; proxies
//! named in the environment are not used. What arrives counts only with the pinned length and digest.
//!
//! No recipe runs here, and every [`FetchError`] is an infrastructure failure: elsewhere, or later, it may work.

mod address;
#[cfg(test)]
mod tests;

pub use address::{Range, range_of};

use futures::StreamExt as _;
use protocol::digest::{Digest, Hasher};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{CONTENT_LENGTH, LOCATION};
use reqwest::{Certificate, Client, Response, StatusCode};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};
use url::{Host, Url};

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

/// How archives are fetched.
#[derive(Clone, Debug)]
pub struct FetchRules {
    /// Whether sources may come from the owner's own networks.
    pub private: PrivateSources,
    /// Certificates in PEM form that are trusted beside those of the system.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// Where archives are kept while they are used.
    pub folder: PathBuf,
    /// The largest archive.
    pub max_bytes: u64,
    /// For looking up a name, for connecting, and for an answer to begin.
    pub connect_timeout: Duration,
    /// For the next bytes to arrive.
    pub stall_timeout: Duration,
    /// Slower than this over the whole archive, beyond one `stall_timeout`, is given up.
    pub least_bytes_per_s: u64,
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
        }
    }
}

/// Why an archive was not fetched. All of these are infrastructure failures.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address, or with a user name in it.
    #[error("`{}` is no address of an archive", .0.escape_debug())]
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
    /// Any answer but 200.
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
    /// The recipe pins an archive that the owner does not want.
    #[error("the archive has {size} bytes, and {max} are allowed")]
    TooLarge {
        /// As pinned.
        size: u64,
        /// Limit.
        max: u64,
    },
    /// Another length than pinned.
    #[error("{host} sends {}{found} bytes where the recipe pins {pinned}", if .found > .pinned { "at least " } else { "" })]
    Length {
        /// The other side.
        host: String,
        /// What it sends.
        found: u64,
        /// What the recipe says.
        pinned: u64,
    },
    /// Another content than pinned.
    #[error("{host} sends an archive with digest {found} where the recipe pins {pinned}")]
    OtherDigest {
        /// The other side.
        host: String,
        /// What it sends.
        found: Digest,
        /// What the recipe says.
        pinned: Digest,
    },
    /// The archive cannot be kept.
    #[error("the archive cannot be written to {}: {error}", .folder.display())]
    Write {
        /// Where.
        folder: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
}

/// An error and what is behind it: `reqwest` says the reason only there.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Fetches the archive of `size` bytes with this digest. The file is removed when it is dropped.
///
/// # Errors
///
/// [`FetchError`], always a matter of infrastructure.
pub async fn archive(rules: &FetchRules, url: &str, digest: Digest, size: u64) -> Result<NamedTempFile, FetchError> {
    fetch(rules, &Internet { private: rules.private }, url, digest, size).await
}

/// What names mean, and which addresses are admitted.
trait Reach: Sync {
    /// The addresses of a name.
    fn lookup(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Why an address is not admitted.
    fn refuses(&self, address: IpAddr) -> Option<Range>;
}

struct Internet {
    private: PrivateSources,
}

impl Reach for Internet {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    fn refuses(&self, address: IpAddr) -> Option<Range> {
        range_of(address).filter(|range| self.private == PrivateSources::Refused || !range.can_be_allowed())
    }
}

async fn fetch(
    rules: &FetchRules,
    reach: &impl Reach,
    url: &str,
    digest: Digest,
    size: u64,
) -> Result<NamedTempFile, FetchError> {
    if size > rules.max_bytes {
        return Err(FetchError::TooLarge { size, max: rules.max_bytes });
    }
    let mut url = Url::parse(url).map_err(|_| FetchError::Url(url.to_owned()))?;
    for _ in 0..=MAX_REDIRECTS {
        let hop = Hop::to(rules, reach, &url).await?;
        let response = hop.ask(rules, &url).await?;
        match response.status() {
            StatusCode::OK => return hop.receive(rules, response, digest, size).await,
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let next = location.and_then(|location| url.join(location).ok());
                url = next.ok_or(FetchError::RedirectToNowhere { host: hop.host })?;
            }
            status => return Err(FetchError::Status { host: hop.host, status }),
        }
    }
    Err(FetchError::TooManyRedirects)
}

/// One server that was admitted, with a client that can reach nothing else.
struct Hop {
    host: String,
    client: Client,
}

impl Hop {
    async fn to(rules: &FetchRules, reach: &impl Reach, url: &Url) -> Result<Self, FetchError> {
        if url.scheme() != "https" {
            return Err(FetchError::NotHttps(url.to_string()));
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let (Some(host), "", None) = (url.host(), url.username(), url.password()) else {
            return Err(FetchError::Url(url.to_string()));
        };
        let addresses = match host {
            Host::Ipv4(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Domain(name) => {
                let late = |_| io::Error::from(io::ErrorKind::TimedOut);
                let found = timeout(rules.connect_timeout, reach.lookup(name, port)).await.map_err(late);
                let found = found.and_then(|found| found).and_then(|found| match found.is_empty() {
                    true => Err(io::Error::new(io::ErrorKind::NotFound, "it has no address")),
                    false => Ok(found),
                });
                found.map_err(|error| FetchError::Lookup { host: name.to_owned(), error })?
            }
        };
        let host = host.to_string();
        for address in addresses.iter().map(SocketAddr::ip) {
            if let Some(range) = reach.refuses(address) {
                return Err(FetchError::NotPublic { host, address, range });
            }
        }
        let mut client = Client::builder()
            .https_only(true)
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(NoLookup)
            .resolve_to_addrs(&host, &addresses)
            .connect_timeout(rules.connect_timeout)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("barnraise/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &rules.extra_ca_pem {
            client = client.tls_certs_merge(Certificate::from_pem_bundle(pem).map_err(FetchError::Setup)?);
        }
        let client = client.build().map_err(FetchError::Setup)?;
        Ok(Self { host, client })
    }

    async fn ask(&self, rules: &FetchRules, url: &Url) -> Result<Response, FetchError> {
        let started = Instant::now();
        match timeout(rules.connect_timeout, self.client.get(url.clone()).send()).await {
            Ok(answer) => answer.map_err(|error| self.transport(error)),
            Err(_) => Err(self.slow(0, 0, started)),
        }
    }

    async fn receive(
        self,
        rules: &FetchRules,
        response: Response,
        digest: Digest,
        size: u64,
    ) -> Result<NamedTempFile, FetchError> {
        let announced = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(found) = announced.filter(|announced| *announced != size) {
            return Err(FetchError::Length { host: self.host, found, pinned: size });
        }
        let unwritable = |error| FetchError::Write { folder: rules.folder.clone(), error };
        let file = NamedTempFile::with_prefix_in("source-", &rules.folder).map_err(unwritable)?;
        let mut writer = tokio::fs::File::from_std(file.reopen().map_err(unwritable)?);
        let started = Instant::now();
        let deadline = started + rules.stall_timeout + Duration::from_secs(size / rules.least_bytes_per_s.max(1));
        let (mut hasher, mut received) = (Hasher::new(), 0u64);
        let mut body = response.bytes_stream();
        loop {
            let patience = rules.stall_timeout.min(deadline.saturating_duration_since(Instant::now()));
            let bytes = match timeout(patience, body.next()).await {
                Ok(None) => break,
                Ok(Some(bytes)) => bytes.map_err(|error| self.transport(error))?,
                Err(_) => return Err(self.slow(received, size, started)),
            };
            received += bytes.len() as u64;
            if received > size {
                return Err(FetchError::Length { host: self.host, found: received, pinned: size });
            }
            hasher.update(&bytes);
            writer.write_all(&bytes).await.map_err(unwritable)?;
        }
        writer.flush().await.map_err(unwritable)?;
        let found = hasher.finish();
        if received != size {
            Err(FetchError::Length { host: self.host, found: received, pinned: size })
        } else if found != digest {
            Err(FetchError::OtherDigest { host: self.host, found, pinned: digest })
        } else {
            Ok(file)
        }
    }

    fn transport(&self, error: reqwest::Error) -> FetchError {
        FetchError::Transport { host: self.host.clone(), error: error.without_url() }
    }

    fn slow(&self, received: u64, size: u64, started: Instant) -> FetchError {
        FetchError::Slow { host: self.host.clone(), received, size, elapsed: started.elapsed() }
    }
}

/// Looks nothing up: a client knows the addresses that were admitted, and no name besides.
#[derive(Clone, Copy, Debug)]
struct NoLookup;

impl Resolve for NoLookup {
    fn resolve(&self, name: Name) -> Resolving {
        let refusal = format!("{} was not admitted", name.as_str());
        Box::pin(async move { Err(refusal.into()) })
    }
}
