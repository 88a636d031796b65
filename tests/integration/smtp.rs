//! A real SMTP server: aiosmtpd, with AUTH and STARTTLS, on 127.0.0.1.
//!
//! `scripts/test` installs it and says with which Python it runs (`BARNRAISE_SMTP_PYTHON`). Every mail that the server took is a
//! file in a folder, whole and as it came.

use crate::deadline::{SOON, wait_for};
use crate::farm::Process;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Who may send.
pub(crate) const USER: &str = "farm@example.org";
/// With which password.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// How the server's connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// STARTTLS is required before AUTH.
    Starttls,
    /// TLS from the start.
    Tls,
}

/// A running mail server.
#[derive(Debug)]
pub(crate) struct Smtp {
    process: Process,
    port: u16,
    authority: PathBuf,
    folder: PathBuf,
}

/// A mail that the server took.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The sender of the envelope.
    pub(crate) from: String,
    /// The recipients of the envelope.
    pub(crate) to: Vec<String>,
    /// The mail as it came.
    pub(crate) message: Vec<u8>,
}

/// The Python that can run the server, or why there is none.
pub(crate) fn python() -> Result<PathBuf, String> {
    let python = std::env::var_os("BARNRAISE_SMTP_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let mut ask = Command::new(&python);
    let asked = ask.args(["-c", "import aiosmtpd"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match asked {
        Ok(status) if status.success() => Ok(python),
        Ok(_) => Err(format!("{} has no module aiosmtpd; `scripts/test` installs it", python.display())),
        Err(error) => Err(format!("{} does not run: {error}", python.display())),
    }
}

impl Smtp {
    /// Starts a server that keeps its mail below `folder`.
    pub(crate) fn start(python: &Path, protection: Protection, folder: &Path) -> Self {
        let folder = folder.join("smtp");
        fs::create_dir(&folder).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (authority, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&authority, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/integration/smtp_server.py");
        let protection = match protection {
            Protection::Starttls => "starttls",
            Protection::Tls => "tls",
        };
        let mut command = Command::new(python);
        command.arg(script).arg(protection).args([&authority, &key, &folder]).env("SMTP_USER", USER);
        command.env("SMTP_PASSWORD", PASSWORD).stdin(Stdio::null());
        let mut process = Process::start(&mut command);
        let port =
            process.line("the port", |line| line.starts_with("port ")).trim_start_matches("port ").parse().unwrap();
        Self { process, port, authority, folder }
    }

    /// Its process.
    #[allow(dead_code, reason = "only the test of process faults tells it from what is left over")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority to trust, as PEM.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// The mails taken so far, in order.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        let mut names: Vec<PathBuf> = fs::read_dir(&self.folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        names.sort();
        names.iter().map(|path| Taken::read(path)).collect()
    }

    /// Waits until it took `count` mails.
    #[track_caller]
    pub(crate) fn wait_for_mails(&self, count: usize, within: Duration) -> Vec<Taken> {
        wait_for(&format!("{count} mails"), within.max(SOON), || {
            let taken = self.taken();
            (taken.len() >= count).then_some(taken)
        })
    }
}

impl Taken {
    fn read(path: &Path) -> Self {
        let envelope: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        Self {
            from: envelope["from"].as_str().unwrap().to_owned(),
            to: envelope["to"].as_array().unwrap().iter().map(|to| to.as_str().unwrap().to_owned()).collect(),
            message: fs::read(path.with_extension("eml")).unwrap(),
        }
    }
}
