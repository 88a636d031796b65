//! A pinned archive from an https address.
//!
//! What arrives counts only with the pinned length and digest. A download that breaks is taken up where it broke, as often as
//! it gets on; where the server does not go on from there, or went on with something else, it starts again.

use super::address::range_of;
use super::error::FetchError;
use super::hop::{Answered, Hop, Internet, Reach, ask};
use super::{FetchRules, Progress};
use futures::StreamExt as _;
use protocol::digest::{Digest, Hasher};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use std::io::{self, SeekFrom};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use url::Url;

/// An archive that is to have this digest and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// An archive that arrived.
#[derive(Debug)]
pub struct Fetched {
    /// The file, removed when it is dropped.
    pub file: NamedTempFile,
    /// Who else may have it.
    pub audience: Audience,
}

/// For whom something is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// It came from a public address: for everybody.
    Everybody,
    /// It came from a network of the owner's.
    Owner,
}

/// Fetches the archive, telling `progress` how far it is.
///
/// # Errors
///
/// [`FetchError`], always a matter of infrastructure.
pub async fn fetch(
    rules: &FetchRules,
    url: &str,
    pinned: Pinned,
    progress: &mut impl FnMut(Progress),
) -> Result<Fetched, FetchError> {
    fetch_within(rules, &Internet { private: rules.private }, url, pinned, progress).await
}

/// How many bytes the archive at `url` has now, as its server says.
///
/// # Errors
///
/// [`FetchError`]; [`FetchError::NoLength`] when the server does not say.
pub async fn length(rules: &FetchRules, url: &str) -> Result<u64, FetchError> {
    let url = Url::parse(url).map_err(|_| FetchError::Url(url.to_owned()))?;
    let Answered { hop, response, .. } =
        ask(rules, &Internet { private: rules.private }, url, &HeaderMap::new()).await?;
    match response.status() {
        StatusCode::OK => number(&response, &CONTENT_LENGTH).ok_or(FetchError::NoLength { host: hop.host }),
        status => Err(FetchError::Status { host: hop.host, status }),
    }
}

pub(super) async fn fetch_within(
    rules: &FetchRules,
    reach: &impl Reach,
    url: &str,
    pinned: Pinned,
    progress: &mut impl FnMut(Progress),
) -> Result<Fetched, FetchError> {
    if pinned.size > rules.max_bytes {
        return Err(FetchError::TooLarge { size: pinned.size, max: rules.max_bytes });
    }
    let url = Url::parse(url).map_err(|_| FetchError::Url(url.to_owned()))?;
    let mut download = Download::new(rules, pinned)?;
    let (mut left, mut backoff) = (rules.retries, rules.backoff);
    loop {
        let before = download.received;
        let error = match download.go_on(reach, &url, progress).await {
            Ok(()) => return Ok(Fetched { file: download.file, audience: download.audience }),
            Err(error) => error,
        };
        if download.received > before {
            (left, backoff) = (rules.retries, rules.backoff);
        }
        let in_time = Instant::now() + backoff < download.deadline;
        if left == 0 || !in_time || !error.may_pass() {
            return Err(error);
        }
        tracing::info!(%error, received = download.received, "trying again");
        left -= 1;
        tokio::time::sleep(backoff).await;
        backoff *= 2;
    }
}

/// What is here of an archive.
struct Download<'a> {
    rules: &'a FetchRules,
    pinned: Pinned,
    file: NamedTempFile,
    writer: tokio::fs::File,
    hasher: Hasher,
    received: u64,
    audience: Audience,
    /// By what the server tells one state of the archive from another.
    validator: Option<HeaderValue>,
    started: Instant,
    deadline: Instant,
}

impl<'a> Download<'a> {
    fn new(rules: &'a FetchRules, pinned: Pinned) -> Result<Self, FetchError> {
        let unwritable = |error| FetchError::Write { folder: rules.folder.clone(), error };
        let file = NamedTempFile::with_prefix_in("source-", &rules.folder).map_err(unwritable)?;
        let writer = tokio::fs::File::from_std(file.reopen().map_err(unwritable)?);
        let started = Instant::now();
        let deadline =
            started + rules.stall_timeout + Duration::from_secs(pinned.size / rules.least_bytes_per_s.max(1));
        Ok(Self {
            rules,
            pinned,
            file,
            writer,
            hasher: Hasher::new(),
            received: 0,
            audience: Audience::Everybody,
            validator: None,
            started,
            deadline,
        })
    }

    /// Fetches what is missing.
    async fn go_on(
        &mut self,
        reach: &impl Reach,
        url: &Url,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        let resumes = self.received > 0;
        let Answered { hop, response, .. } = ask(self.rules, reach, url.clone(), &self.asks()).await?;
        if hop.addresses.iter().any(|address| range_of(address.ip()).is_some()) {
            self.audience = Audience::Owner;
        }
        match response.status() {
            StatusCode::PARTIAL_CONTENT if resumes && starts_at(&response, self.received) => {}
            StatusCode::OK => self.start_over().await?,
            // Nothing to go on with: whatever is there now is something else.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resumes => {
                self.start_over().await?;
                return Err(self.cut(hop));
            }
            status => return Err(FetchError::Status { host: hop.host, status }),
        }
        // A weak validator (RFC 9110, 8.8.1) does not promise equal bytes, and is not to be used for a range.
        let strong = response.headers().get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/"));
        self.validator = strong.cloned();
        self.receive(&hop, response, progress).await?;
        let found = std::mem::take(&mut self.hasher).finish();
        if found == self.pinned.digest {
            return self.writer.flush().await.map_err(|error| self.unwritable(error));
        }
        self.start_over().await?;
        // What was put together of two answers may be of two archives.
        if resumes {
            Err(self.cut(hop))
        } else {
            Err(FetchError::OtherDigest { host: hop.host, found, pinned: self.pinned.digest })
        }
    }

    fn asks(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.received > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.received))
        {
            headers.insert(RANGE, range);
            if let Some(validator) = &self.validator {
                headers.insert(IF_RANGE, validator.clone());
            }
        }
        headers
    }

    async fn start_over(&mut self) -> Result<(), FetchError> {
        (self.hasher, self.received) = (Hasher::new(), 0);
        let emptied = async {
            self.writer.flush().await?;
            self.writer.set_len(0).await?;
            self.writer.seek(SeekFrom::Start(0)).await
        };
        let emptied = emptied.await;
        emptied.map(drop).map_err(|error| self.unwritable(error))
    }

    async fn receive(
        &mut self,
        hop: &Hop,
        response: Response,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        let pinned = self.pinned.size;
        let wrong_length = |found| FetchError::Length { host: hop.host.clone(), found, pinned };
        if let Some(rest) = number(&response, &CONTENT_LENGTH)
            && let found = self.received.saturating_add(rest)
            && found != pinned
        {
            return Err(wrong_length(found));
        }
        let mut body = response.bytes_stream();
        loop {
            let patience = self.rules.stall_timeout.min(self.deadline.saturating_duration_since(Instant::now()));
            let bytes = match timeout(patience, body.next()).await {
                Ok(None) => break,
                Ok(Some(bytes)) => bytes.map_err(|error| hop.transport(error))?,
                Err(_) => {
                    let (host, received) = (hop.host.clone(), self.received);
                    return Err(FetchError::Slow { host, received, size: pinned, elapsed: self.started.elapsed() });
                }
            };
            let received = self.received + bytes.len() as u64;
            if received > pinned {
                return Err(wrong_length(received));
            }
            self.writer.write_all(&bytes).await.map_err(|error| self.unwritable(error))?;
            self.hasher.update(&bytes);
            self.received = received;
            progress(Progress { received, total: Some(pinned) });
        }
        if self.received == pinned { Ok(()) } else { Err(wrong_length(self.received)) }
    }

    fn cut(&self, hop: Hop) -> FetchError {
        FetchError::Cut { host: hop.host, received: self.received, size: self.pinned.size }
    }

    fn unwritable(&self, error: io::Error) -> FetchError {
        FetchError::Write { folder: self.rules.folder.clone(), error }
    }
}

/// Whether a partial answer begins where the last one broke (RFC 9110, 14.4).
fn starts_at(response: &Response, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()) == Some(at)
}

fn number(response: &Response, header: &reqwest::header::HeaderName) -> Option<u64> {
    response.headers().get(header)?.to_str().ok()?.parse().ok()
}
