//! Where sources are published: a real https server on loopback, with real git behind it, and repositories made for a test.
//!
//! `/git/NAME/…` is spoken by `git http-backend`, `/files/NAME` is a file, in ranges where that is asked, and `/moved/…` leads
//! to `/git/…`. Everything below one folder; everything asked is remembered. Used by the tests of the library and of the program.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As it should.
    Good,
    /// Takes requests and says nothing.
    Silent,
    /// Breaks every answer off after this many bytes of a file.
    Breaks(usize),
    /// Sends files with one byte changed.
    Lies,
    /// Knows nothing any more.
    Empty,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) port: u16,
    pub(crate) ca_pem: Vec<u8>,
    folder: PathBuf,
    asked: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
    _end: tokio::sync::oneshot::Sender<()>,
}

/// A request as far as it matters here.
struct Asked {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Origin {
    /// Serves what is below `folder` as `https://localhost:PORT/`.
    pub(crate) fn serve(folder: &Path) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = authority.self_signed(&authority_key).unwrap().pem().into_bytes();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], key)
                .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let manner = Arc::new(Mutex::new(Manner::Good));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (root, log, how) = (folder.to_owned(), asked.clone(), manner.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap().port()).unwrap();
                let serving = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let (acceptor, root, log, how) = (acceptor.clone(), root.clone(), log.clone(), how.clone());
                        tokio::spawn(async move {
                            if let Ok(mut stream) = acceptor.accept(stream).await {
                                let _gone = answer(&mut stream, &root, &log, &how).await;
                                let _gone = stream.shutdown().await;
                            }
                        });
                    }
                };
                tokio::select! {
                    () = serving => {}
                    _ = ended => {}
                }
            });
        });
        Self { port: told.recv().unwrap(), ca_pem, folder: folder.to_owned(), asked, manner, _end: end }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// What was asked so far: method and path.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn behaves(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// A new repository with a branch `main`.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        let work = self.folder.join(format!("{name}-work"));
        fs::create_dir(&work).unwrap();
        let repository = Repository { work };
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        // What `git http-backend` serves.
        fs::create_dir_all(self.folder.join("git")).unwrap();
        std::os::unix::fs::symlink(repository.work.join(".git"), self.folder.join("git").join(name)).unwrap();
        repository.git(&["config", "uploadpack.allowFilter", "true"]);
        repository
    }

    /// Publishes a file.
    pub(crate) fn publish(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.folder.join("files")).unwrap();
        fs::write(self.folder.join("files").join(name), content).unwrap();
    }
}

/// A repository that the server publishes.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    pub(crate) work: PathBuf,
}

impl Repository {
    /// Runs git in it, as nobody in particular.
    pub(crate) fn git(&self, words: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "protocol.file.allow=always"]).args(words).current_dir(&self.work).env_clear();
        for (name, value) in [
            ("PATH", std::env::var("PATH").unwrap().as_str()),
            ("HOME", "/nonexistent"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "A"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "A"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
            ("GIT_AUTHOR_DATE", "1000000000 +0000"),
            ("GIT_COMMITTER_DATE", "1000000000 +0000"),
        ] {
            git.env(name, value);
        }
        let ran = git.output().unwrap();
        assert!(ran.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// Writes a file and commits everything; the commit.
    pub(crate) fn commit(&self, name: &str, content: &str) -> String {
        self.write(name, content);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", &format!("{name}: {}", content.len())]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.work.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    /// A file that may be run.
    pub(crate) fn write_program(&self, name: &str, content: &str) {
        self.write(name, content);
        fs::set_permissions(self.work.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

type Stream = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;

async fn answer(
    stream: &mut Stream,
    root: &Path,
    log: &Mutex<Vec<String>>,
    how: &Mutex<Manner>,
) -> std::io::Result<()> {
    let asked = read(stream).await?;
    log.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let manner = *how.lock().unwrap();
    if manner == Manner::Silent {
        std::future::pending::<()>().await;
    }
    let parts: Vec<&str> = asked.path.splitn(3, '/').collect();
    match parts.as_slice() {
        _ if manner == Manner::Empty => status(stream, "404 Not Found", "").await,
        ["", "moved", rest] => {
            let to = format!("location: /git/{rest}?{}\r\n", asked.query);
            status(stream, "301 Moved Permanently", &to).await
        }
        ["", "git", rest] => backend(stream, root, rest, &asked).await,
        ["", "dumb", rest] => {
            let content = fs::read(root.join("git").join(rest)).unwrap_or_default();
            status(stream, "200 OK", "content-type: text/plain\r\n").await?;
            stream.write_all(&content).await
        }
        ["", "login", _] => status(stream, "401 Unauthorized", "www-authenticate: Basic\r\n").await,
        ["", "files", name] if !name.contains('/') => match fs::read(root.join("files").join(name)) {
            Ok(content) => file(stream, content, asked.header("range"), manner).await,
            Err(_) => status(stream, "404 Not Found", "").await,
        },
        _ => status(stream, "404 Not Found", "").await,
    }
}

async fn status(stream: &mut Stream, status: &str, headers: &str) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await
}

async fn file(stream: &mut Stream, mut content: Vec<u8>, range: Option<&str>, manner: Manner) -> std::io::Result<()> {
    let whole = content.len();
    let from: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    if manner == Manner::Lies {
        content[whole / 2] ^= 1;
    }
    let rest = &content[from.min(whole)..];
    let (code, more) = match range {
        Some(_) => ("206 Partial Content", format!("content-range: bytes {from}-{}/{whole}\r\n", whole - 1)),
        None => ("200 OK", String::new()),
    };
    let headers = format!("content-length: {}\r\netag: \"{whole}\"\r\n{more}", rest.len());
    status(stream, code, &headers).await?;
    let sent = match manner {
        Manner::Breaks(after) => &rest[..after.min(rest.len())],
        _ => rest,
    };
    stream.write_all(sent).await?;
    stream.flush().await
}

async fn read(stream: &mut Stream) -> std::io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let words: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut asked = Asked {
        method: words[0].to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    let len = asked.header("content-length").map_or(0, |len| len.parse().unwrap());
    asked.body = vec![0; len];
    stream.read_exact(&mut asked.body).await?;
    Ok(asked)
}

/// Hands a request to `git http-backend` (RFC 3875).
async fn backend(stream: &mut Stream, root: &Path, path: &str, asked: &Asked) -> std::io::Result<()> {
    let mut command = tokio::process::Command::new("git");
    command.arg("http-backend").env_clear();
    for (name, value) in [
        ("PATH", std::env::var("PATH").unwrap()),
        ("HOME", "/nonexistent".to_owned()),
        ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
        ("GIT_PROJECT_ROOT", root.join("git").display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("REQUEST_METHOD", asked.method.clone()),
        ("PATH_INFO", format!("/{path}")),
        ("QUERY_STRING", asked.query.clone()),
        ("CONTENT_LENGTH", asked.body.len().to_string()),
        ("CONTENT_TYPE", asked.header("content-type").unwrap_or_default().to_owned()),
        ("HTTP_CONTENT_ENCODING", asked.header("content-encoding").unwrap_or_default().to_owned()),
        ("GIT_PROTOCOL", asked.header("git-protocol").unwrap_or_default().to_owned()),
    ] {
        command.env(name, value);
    }
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let body = asked.body.clone();
    tokio::spawn(async move {
        let _gone = stdin.write_all(&body).await;
    });
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).await?;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let code = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let headers: String =
        head.lines().filter(|line| !line.starts_with("Status: ")).map(|line| format!("{line}\r\n")).collect();
    status(stream, code, &format!("{headers}content-length: {}\r\n", output.len() - end - 4)).await?;
    stream.write_all(&output[end + 4..]).await?;
    stream.flush().await
}
