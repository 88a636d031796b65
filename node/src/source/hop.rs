//! One server after another, each admitted before it is asked.
//!
//! A name is looked up once and every address it has must be admitted; the client that asks can reach those addresses and
//! nothing else. A redirect is an address like the first: looked up, judged, asked by a client of its own.

use super::address::{Range, range_of};
use super::error::FetchError;
use super::{FetchRules, MAX_REDIRECTS, PrivateSources};
use reqwest::dns::{Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Certificate, Client, Response, StatusCode};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

/// What names mean, and which addresses are admitted.
pub(super) trait Reach: Sync {
    /// The addresses of a name.
    fn lookup(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Why an address is not admitted.
    fn refuses(&self, address: IpAddr) -> Option<Range>;
}

/// The system's names, and the owner's word on addresses.
pub(super) struct Internet {
    pub(super) private: PrivateSources,
}

impl Reach for Internet {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    fn refuses(&self, address: IpAddr) -> Option<Range> {
        range_of(address).filter(|range| self.private == PrivateSources::Refused || !range.can_be_allowed())
    }
}

/// An answer that is no redirect, and who gave it.
pub(super) struct Answered {
    pub(super) hop: Hop,
    /// Where the last redirect led.
    pub(super) url: Url,
    pub(super) response: Response,
}

/// Asks for `url`, following redirects.
pub(super) async fn ask(
    rules: &FetchRules,
    reach: &impl Reach,
    mut url: Url,
    headers: &HeaderMap,
) -> Result<Answered, FetchError> {
    for _ in 0..=MAX_REDIRECTS {
        let hop = Hop::to(rules, reach, &url).await?;
        let response = hop.ask(rules, &url, headers).await?;
        match response.status() {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let next = location.and_then(|location| url.join(location).ok());
                url = next.ok_or(FetchError::RedirectToNowhere { host: hop.host })?;
            }
            _ => return Ok(Answered { hop, url, response }),
        }
    }
    Err(FetchError::TooManyRedirects)
}

/// One server that was admitted, with a client that can reach nothing else.
pub(super) struct Hop {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) client: Client,
}

impl Hop {
    pub(super) async fn to(rules: &FetchRules, reach: &impl Reach, url: &Url) -> Result<Self, FetchError> {
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
        Ok(Self { host, port, addresses, client })
    }

    async fn ask(&self, rules: &FetchRules, url: &Url, headers: &HeaderMap) -> Result<Response, FetchError> {
        let started = Instant::now();
        match timeout(rules.connect_timeout, self.client.get(url.clone()).headers(headers.clone()).send()).await {
            Ok(answer) => answer.map_err(|error| self.transport(error)),
            Err(_) => {
                Err(FetchError::Slow { host: self.host.clone(), received: 0, size: 0, elapsed: started.elapsed() })
            }
        }
    }

    pub(super) fn transport(&self, error: reqwest::Error) -> FetchError {
        FetchError::Transport { host: self.host.clone(), error: error.without_url() }
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
