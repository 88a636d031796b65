#![allow(clippy::unwrap_used)]
//! Against a real https server on loopback, and against every address that must not be reached.

use super::archive::{self, Pinned};
use super::error::chain;
use super::hop::{Hop, Reach};
use super::*;
use protocol::digest::Digest;
use reqwest::StatusCode;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use url::Url;

/// What the server does after it has read a request.
#[derive(Clone, Debug)]
enum Answer {
    /// Sends this and closes.
    Whole(Vec<u8>),
    /// Sends this and then nothing, without closing.
    Hang(Vec<u8>),
    /// Sends this and then a byte now and then.
    Trickle(Vec<u8>),
}

struct Server {
    port: u16,
    ca_pem: Vec<u8>,
    asked: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
    rules: FetchRules,
}

impl Server {
    /// A server for the names `localhost`, `origin.test` and `mirror.test` with a certificate of its own authority.
    async fn start(answers: impl FnOnce(u16) -> BTreeMap<&'static str, Answer>) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = authority.self_signed(&authority_key).unwrap().pem().into_bytes();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost", "origin.test", "mirror.test"].map(str::to_owned);
        let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = Arc::new(answers(port));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, log) = (acceptor.clone(), answers.clone(), log.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => request.push(byte),
                            Err(_) => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    log.lock().unwrap().push(request);
                    match answers.get(path.as_str()).cloned() {
                        Some(Answer::Whole(bytes)) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.shutdown().await;
                        }
                        Some(Answer::Hang(bytes)) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.flush().await;
                            std::future::pending::<()>().await;
                        }
                        Some(Answer::Trickle(bytes)) => {
                            let mut sent = stream.write_all(&bytes).await;
                            while sent.is_ok() {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                                sent = stream.write_all(b"x").await;
                                let _ = stream.flush().await;
                            }
                        }
                        None => {
                            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
                        }
                    }
                });
            }
        });
        let folder = TempDir::new().unwrap();
        let rules = FetchRules {
            private: PrivateSources::Allowed,
            extra_ca_pem: Some(ca_pem.clone()),
            folder: folder.path().to_owned(),
            backoff: Duration::from_millis(10),
            ..FetchRules::default()
        };
        Self { port, ca_pem, asked, _folder: folder, rules }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    async fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        fetched(archive(&self.rules, &self.url(path), Digest::of(CONTENT), CONTENT.len() as u64).await)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn archive(rules: &FetchRules, url: &str, digest: Digest, size: u64) -> Result<NamedTempFile, FetchError> {
    let fetched = archive::fetch(rules, url, Pinned { digest, size }, &mut |_| {}).await?;
    assert_eq!(fetched.audience, archive::Audience::Owner, "nothing here is public");
    Ok(fetched.file)
}

const CONTENT: &[u8] = b"the bytes of an archive";

fn fetched(outcome: Result<NamedTempFile, FetchError>) -> Result<Vec<u8>, FetchError> {
    outcome.map(|file| std::fs::read(file.path()).unwrap())
}

fn ok(content: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len()).as_bytes(), content].concat()
}

fn open_ended(content: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", content].concat()
}

fn redirect(to: &str) -> Answer {
    Answer::Whole(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes())
}

/// Names are what the test says, loopback is admitted, and everything else is judged as usual.
struct Scripted {
    names: BTreeMap<&'static str, Vec<&'static str>>,
    lookups: AtomicUsize,
}

impl Scripted {
    fn new(names: &[(&'static str, &[&'static str])]) -> Self {
        Self {
            names: names.iter().map(|(name, addresses)| (*name, addresses.to_vec())).collect(),
            lookups: AtomicUsize::new(0),
        }
    }
}

impl Reach for Scripted {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let addresses = self.names.get(host).into_iter().flatten();
        Ok(addresses.map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect())
    }

    fn refuses(&self, address: IpAddr) -> Option<Range> {
        range_of(address).filter(|_| address != IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

#[tokio::test]
async fn an_archive_with_the_pinned_digest_arrives() {
    let server = Server::start(|port| {
        BTreeMap::from([
            ("/a.tar.gz", Answer::Whole(ok(CONTENT))),
            ("/open", Answer::Whole(open_ended(CONTENT))),
            ("/moved", redirect("/moved-again")),
            ("/moved-again", redirect(&format!("https://localhost:{port}/a.tar.gz"))),
        ])
    })
    .await;
    for path in ["/a.tar.gz", "/open", "/moved"] {
        assert_eq!(server.fetch(path).await.unwrap(), CONTENT, "{path}");
    }
    let requests = server.asked.lock().unwrap().clone();
    assert!(requests.iter().all(|request| !request.to_lowercase().contains("referer")), "{requests:?}");
    assert_eq!(std::fs::read_dir(&server.rules.folder).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn what_is_not_pinned_is_refused() {
    let long = [CONTENT, b"!"].concat();
    let other = CONTENT.to_ascii_uppercase();
    let server = Server::start(|_| {
        BTreeMap::from([
            ("/long", Answer::Whole(ok(&long))),
            ("/long-open", Answer::Whole(open_ended(&long))),
            ("/short-open", Answer::Whole(open_ended(&CONTENT[1..]))),
            ("/other", Answer::Whole(ok(&other))),
            ("/cut", Answer::Whole(ok(CONTENT)[..50].to_vec())),
            ("/zipped", Answer::Whole([b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", CONTENT].concat())),
        ])
    })
    .await;
    for path in ["/long", "/long-open", "/short-open"] {
        let error = server.fetch(path).await.unwrap_err();
        assert!(matches!(error, FetchError::Length { pinned: 23, .. }), "{path}: {error}");
    }
    let error = server.fetch("/other").await.unwrap_err();
    assert!(matches!(error, FetchError::OtherDigest { found, .. } if found == Digest::of(&other)), "{error}");
    assert!(matches!(server.fetch("/cut").await, Err(FetchError::Transport { .. })));
    assert!(matches!(server.fetch("/none").await, Err(FetchError::Status { status: StatusCode::NOT_FOUND, .. })));
    assert_eq!(server.fetch("/zipped").await.unwrap(), CONTENT, "nothing unpacks what was pinned packed");

    let asked = server.asked();
    let small = FetchRules { max_bytes: 10, ..server.rules.clone() };
    let refused = archive(&small, &server.url("/other"), Digest::of(CONTENT), 23).await;
    assert!(matches!(refused, Err(FetchError::TooLarge { size: 23, max: 10 })));
    assert_eq!(server.asked(), asked, "what is too large is not even asked for");
    assert_eq!(std::fs::read_dir(&server.rules.folder).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn redirects_are_checked_like_the_first_address() {
    let server = Server::start(|port| {
        BTreeMap::from([
            ("/metadata", redirect("https://169.254.169.254/latest/meta-data/")),
            ("/router", redirect("https://192.168.1.1/")),
            ("/short", redirect("https://0x7f.1/")),
            ("/six", redirect("https://[::ffff:10.0.0.1]/")),
            ("/inside", redirect(&format!("https://inside.test:{port}/a"))),
            ("/plain", redirect("http://example.org/a")),
            ("/file", redirect("file:///etc/passwd")),
            ("/user", redirect("https://me:pw@origin.test/a")),
            ("/loop", redirect("/loop")),
            ("/mirror", redirect(&format!("https://mirror.test:{port}/a"))),
            ("/a", Answer::Whole(ok(CONTENT))),
            ("/nowhere", Answer::Whole(b"HTTP/1.1 301 Moved\r\ncontent-length: 0\r\n\r\n".to_vec())),
        ])
    })
    .await;
    let reach = Scripted::new(&[
        ("origin.test", &["127.0.0.1"]),
        ("mirror.test", &["127.0.0.1"]),
        ("inside.test", &["1.1.1.1", "10.0.0.7"]),
    ]);
    let from = async |path: &str| {
        let url = format!("https://origin.test:{}{path}", server.port);
        let pinned = Pinned { digest: Digest::of(CONTENT), size: CONTENT.len() as u64 };
        let fetched_here = archive::fetch_within(&server.rules, &reach, &url, pinned, &mut |_| {}).await;
        fetched(fetched_here.map(|fetched| fetched.file))
    };
    for (path, address) in [
        ("/metadata", "169.254.169.254"),
        ("/router", "192.168.1.1"),
        ("/six", "::ffff:10.0.0.1"),
        ("/inside", "10.0.0.7"),
    ] {
        let error = from(path).await.unwrap_err();
        let expected: IpAddr = address.parse().unwrap();
        assert!(matches!(error, FetchError::NotPublic { address, .. } if address == expected), "{path}: {error}");
    }
    assert!(matches!(from("/short").await, Err(FetchError::Transport { .. })), "127.0.0.1 by another spelling");
    for path in ["/plain", "/file"] {
        assert!(matches!(from(path).await, Err(FetchError::NotHttps(_))), "{path}");
    }
    assert!(matches!(from("/user").await, Err(FetchError::Url(_))));
    assert!(matches!(from("/nowhere").await, Err(FetchError::RedirectToNowhere { .. })));
    let (asked, before) = (server.asked(), reach.lookups.load(Ordering::Relaxed));
    assert!(matches!(from("/loop").await, Err(FetchError::TooManyRedirects)));
    assert_eq!(server.asked() - asked, MAX_REDIRECTS + 1);
    assert_eq!(reach.lookups.load(Ordering::Relaxed) - before, MAX_REDIRECTS + 1, "one look-up a hop");
    assert_eq!(from("/mirror").await.unwrap(), CONTENT);
}

#[tokio::test]
async fn a_name_that_turns_private_is_not_looked_up_again() {
    let server = Server::start(|_| BTreeMap::from([("/a", Answer::Whole(ok(CONTENT)))])).await;
    // `localhost` would be found by the system; the client must not ask it for a name that was not admitted.
    let client = Hop::to(&server.rules, &Scripted::new(&[("origin.test", &["127.0.0.1"])]), &{
        Url::parse(&format!("https://origin.test:{}/a", server.port)).unwrap()
    })
    .await
    .unwrap()
    .client;
    let outcome = client.get(server.url("/a")).send().await;
    assert!(chain(&outcome.unwrap_err()).contains("localhost was not admitted"));
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn by_default_nothing_but_public_https_is_reached() {
    let rules = FetchRules::default();
    let get = async |url: &str| archive(&rules, url, Digest::of(b""), 1).await.unwrap_err();
    for url in [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::10.0.0.1]/",
        "https://[fe80::1]/",
        "https://10.1.2.3/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://0.0.0.0/",
    ] {
        let error = get(url).await;
        assert!(matches!(error, FetchError::NotPublic { .. }), "{url}: {error}");
    }
    for url in ["http://example.org/", "file:///etc/passwd", "ftp://example.org/x"] {
        assert!(matches!(get(url).await, FetchError::NotHttps(_)), "{url}");
    }
    for url in ["", "example.org", "https://", "https://user@example.org/"] {
        assert!(matches!(get(url).await, FetchError::Url(_)), "{url}");
    }
}

#[tokio::test]
async fn allowed_private_sources_do_not_include_the_local_link() {
    let rules = FetchRules { private: PrivateSources::Allowed, ..FetchRules::default() };
    for url in ["https://169.254.169.254/", "https://[fe80::1]/", "https://0.0.0.0/"] {
        let outcome = archive(&rules, url, Digest::of(b""), 1).await;
        assert!(matches!(outcome, Err(FetchError::NotPublic { .. })), "{url}");
    }
}

#[tokio::test]
async fn a_stranger_to_the_authorities_is_not_believed() {
    let server = Server::start(|_| BTreeMap::from([("/a", Answer::Whole(ok(CONTENT)))])).await;
    let strict = FetchRules { extra_ca_pem: None, ..server.rules.clone() };
    let outcome = archive(&strict, &server.url("/a"), Digest::of(CONTENT), 23).await;
    assert!(matches!(outcome, Err(FetchError::Transport { .. })));
    let other_name = format!("https://127.0.0.1:{}/a", server.port);
    let outcome = archive(&server.rules, &other_name, Digest::of(CONTENT), 23).await;
    assert!(matches!(outcome, Err(FetchError::Transport { .. })), "the certificate names localhost only");
    let broken =
        FetchRules { extra_ca_pem: Some(b"-----BEGIN CERTIFICATE-----\nxx\n".to_vec()), ..server.rules.clone() };
    let outcome = archive(&broken, &server.url("/a"), Digest::of(CONTENT), 23).await;
    assert!(outcome.is_err(), "an authority that cannot be read is not passed over");
    assert!(!server.ca_pem.is_empty() && server.asked() == 0);
}

#[tokio::test]
async fn who_does_not_get_on_is_given_up() {
    let server = Server::start(|_| {
        BTreeMap::from([
            ("/silent", Answer::Hang(Vec::new())),
            ("/stalls", Answer::Hang(ok(CONTENT)[..50].to_vec())),
            ("/trickles", Answer::Trickle(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())),
        ])
    })
    .await;
    let rules = FetchRules {
        connect_timeout: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(300),
        least_bytes_per_s: 10_000,
        retries: 0,
        ..server.rules.clone()
    };
    for (path, size) in [("/silent", 23), ("/stalls", 23), ("/trickles", 5_000)] {
        let started = Instant::now();
        let outcome = archive(&rules, &server.url(path), Digest::of(CONTENT), size).await;
        assert!(matches!(outcome, Err(FetchError::Slow { .. })), "{path}: {outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path}");
    }
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let outcome = archive(&rules, &format!("https://localhost:{nobody}/a"), Digest::of(CONTENT), 23).await;
    assert!(matches!(outcome, Err(FetchError::Transport { .. })));
}
