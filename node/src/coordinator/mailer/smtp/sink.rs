//! Real mail servers for the tests: aiosmtpd as a child process, and one that follows a script.
#![allow(clippy::unwrap_used)]

use crate::coordinator::mailer::config::{MailConfig, MailOptions, SmtpTls, Way};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long any condition of a test may take to come true.
pub(in crate::coordinator::mailer) const PATIENCE: Duration = Duration::from_secs(30);

/// aiosmtpd, in a process of its own, with what it needs in a folder of its own. It ends with this value.
pub(in crate::coordinator::mailer) struct Sink {
    home: tempfile::TempDir,
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
    _ends_when_closed: ChildStdin,
    _child: Child,
}

/// What the server took.
#[derive(Debug, serde::Deserialize)]
pub(in crate::coordinator::mailer) struct Taken {
    pub(in crate::coordinator::mailer) from: String,
    pub(in crate::coordinator::mailer) to: Vec<String>,
    pub(in crate::coordinator::mailer) tls: bool,
    pub(in crate::coordinator::mailer) auth: bool,
    pub(in crate::coordinator::mailer) content: String,
}

impl Sink {
    /// Starts one; `security` is `none`, `starttls` or `tls`, `auth` is `none`, `plain` or `login`.
    pub(in crate::coordinator::mailer) async fn start(security: &str, auth: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path("ca.pem"), made.cert.pem()).unwrap();
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("sink.py"), include_str!("sink.py")).unwrap();
        let mut child = Command::new(python().await)
            .arg(path("sink.py"))
            .args([security, auth])
            .args([path("ca.pem"), path("key.pem")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stdin = child.stdin.take().unwrap();
        let mut sink = Self { home, port: 0, lines, _ends_when_closed: stdin, _child: child };
        sink.port = u16::try_from(sink.line().await["port"].as_u64().unwrap()).unwrap();
        sink
    }

    /// A configuration that reaches it, checked as the operator's words are; `password` for the user `farm`.
    pub(in crate::coordinator::mailer) fn config(&self, security: &str, password: Option<&str>) -> MailConfig {
        let scheme = if security == "tls" { "smtps" } else { "smtp" };
        let user = if password.is_some() { "farm@" } else { "" };
        let path = self.home.path().join("password");
        if let Some(password) = password {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::write(&path, password).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let options = MailOptions {
            smtp: Some(format!("{scheme}://{user}localhost:{}", self.port)),
            smtp_tls: (security == "starttls").then_some(SmtpTls::StartTls),
            smtp_ca: (security != "none").then(|| self.home.path().join("ca.pem")),
            smtp_password_file: password.map(|_| path),
            mail_from: Some("farm@example.org".to_owned()),
            mail_dir: None,
        };
        MailConfig::from_options(&options).unwrap().unwrap()
    }

    /// The next mail it takes.
    pub(in crate::coordinator::mailer) async fn next(&mut self) -> Taken {
        loop {
            let line = self.line().await;
            if line.get("content").is_some() {
                return serde_json::from_value(line).unwrap();
            }
        }
    }

    /// Everything it says until it has ended: mails taken, and how many connections there were in all.
    pub(in crate::coordinator::mailer) async fn finish(self) -> (Vec<Taken>, u64) {
        let Self { mut lines, _ends_when_closed: stdin, .. } = self;
        drop(stdin);
        let (mut taken, mut connections) = (Vec::new(), 0);
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            match line.get("connected") {
                Some(count) => connections = count.as_u64().unwrap(),
                None => taken.push(serde_json::from_value(line).unwrap()),
            }
        }
        (taken, connections)
    }

    async fn line(&mut self) -> serde_json::Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.expect("the mail server of the test has ended; its words are above")).unwrap()
    }
}

/// A python that has aiosmtpd: the one that `scripts/test` names, else the system's.
async fn python() -> PathBuf {
    let named = std::env::var_os("BARNRAISE_SMTP_PYTHON").map(PathBuf::from);
    let candidates = named.into_iter().chain([PathBuf::from("python3")]);
    for python in candidates {
        let asked = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status().await;
        if asked.is_ok_and(|status| status.success()) {
            return python;
        }
    }
    panic!(
        "this test needs a real mail server, python3 with aiosmtpd: \
         `scripts/test` installs it, or name one in BARNRAISE_SMTP_PYTHON"
    );
}

/// A server that answers each line with the next of `answers`, the greeting first, and then stays silent.
pub(in crate::coordinator::mailer) async fn scripted(answers: &'static [&'static str]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            silent.push(answer(stream, answers).await);
        }
    });
    port
}

async fn answer(stream: TcpStream, answers: &[&str]) -> BufReader<TcpStream> {
    let mut stream = BufReader::new(stream);
    for answer in answers {
        stream.write_all(answer.as_bytes()).await.unwrap();
        // Bytes: what answers the last line may be a handshake.
        if stream.read_until(b'\n', &mut Vec::new()).await.unwrap_or_default() == 0 {
            break;
        }
    }
    stream
}

/// A configuration for a scripted server, with timeouts of 200 ms.
pub(in crate::coordinator::mailer) fn impatient(port: u16, tls: SmtpTls) -> MailConfig {
    let options = MailOptions {
        smtp: Some(format!("smtp://localhost:{port}")),
        smtp_tls: Some(tls),
        mail_from: Some("farm@example.org".to_owned()),
        ..MailOptions::default()
    };
    let mut config = MailConfig::from_options(&options).unwrap().unwrap();
    if let Way::Smtp(server) = &mut config.way {
        server.timeouts.command = Duration::from_millis(200);
        server.timeouts.acceptance = Duration::from_millis(200);
    }
    config
}
