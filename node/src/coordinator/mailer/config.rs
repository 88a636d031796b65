//! What the operator said about mail, and what it means: checked once, at start.
//!
//! [`MailOptions`] is what was typed, [`MailConfig`] what it means. No secret stands in an option: the password comes from a
//! file that others must not be able to read.

use super::mail::{From, FromError};
use lettre::transport::smtp::client::Certificate;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use url::{Host, Url};

/// The largest password or certificate file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Who mails are from when they are only put into a folder and nobody says otherwise.
const FROM_FOLDER: &str = "barnraise@localhost";

/// How a connection to `smtp://` is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpTls {
    /// Not at all.
    None,
    /// By STARTTLS; without it nothing is sent.
    StartTls,
}

/// The word is neither `none` nor `starttls`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("say `none` or `starttls`")]
pub struct SmtpTlsError;

impl FromStr for SmtpTls {
    type Err = SmtpTlsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "starttls" => Ok(Self::StartTls),
            _ => Err(SmtpTlsError),
        }
    }
}

/// The operator's words, one field per option of the command line.
#[derive(Clone, Debug, Default)]
pub struct MailOptions {
    /// `--smtp`
    pub smtp: Option<String>,
    /// `--smtp-tls`
    pub smtp_tls: Option<SmtpTls>,
    /// `--smtp-ca`
    pub smtp_ca: Option<PathBuf>,
    /// `--smtp-password-file`
    pub smtp_password_file: Option<PathBuf>,
    /// `--mail-from`
    pub mail_from: Option<String>,
    /// `--mail-dir`
    pub mail_dir: Option<PathBuf>,
}

/// How mail leaves.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// Who it is from.
    pub from: From,
    /// By which way.
    pub way: Way,
}

/// The two ways out.
#[derive(Clone, Debug)]
pub enum Way {
    /// A mail server.
    Smtp(SmtpConfig),
    /// Files in a directory.
    Folder(PathBuf),
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct SmtpConfig {
    /// Name or address of the server; the name its certificate must bear.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// Who we are to it.
    pub login: Option<Login>,
    /// How long it may take.
    pub timeouts: SmtpTimeouts,
}

/// How a connection is secured.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all.
    None,
    /// STARTTLS before anything of ours is said.
    StartTls(Trust),
    /// TLS from the first byte.
    Tls(Trust),
}

/// Which certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those the system believes.
    System,
    /// Only those that this authority signed.
    Only(Certificate),
}

/// User and password.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// Secrets are not shown.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, …)", self.user.escape_debug())
    }
}

/// How long a mail server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmtpTimeouts {
    /// For the connection, and for the answer to each command.
    pub command: Duration,
    /// For the answer to the mail itself. RFC 5321 section 4.5.3.2.6 asks for ten minutes: whoever gives up earlier sends
    /// again what the server may have taken.
    pub acceptance: Duration,
}

impl Default for SmtpTimeouts {
    fn default() -> Self {
        Self { command: Duration::from_secs(30), acceptance: Duration::from_secs(600) }
    }
}

/// The operator's words make no sense.
#[derive(Debug, thiserror::Error)]
pub enum MailConfigError {
    /// Two ways out.
    #[error("`--smtp` and `--mail-dir` exclude each other: mail leaves by one way")]
    TwoWays,
    /// An option that needs another.
    #[error("`{option}` means nothing without {needs}")]
    Alone {
        /// The option.
        option: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Nobody is the sender.
    #[error("`--smtp` needs `--mail-from ADDRESS`: who the mails are from")]
    FromMissing,
    /// The sender cannot be used.
    #[error("`--mail-from`: {0}")]
    From(#[from] FromError),
    /// The address of the server. The text is not repeated, it may hold a password.
    #[error("`--smtp` takes smtp://[USER@]HOST[:PORT] or smtps://[USER@]HOST[:PORT]: {0}")]
    Server(&'static str),
    /// A secret among the arguments.
    #[error(
        "`--smtp` holds a password, which every user of this machine can see: put it into a file and name that with `--smtp-password-file`"
    )]
    PasswordInUrl,
    /// A user needs a password.
    #[error("`--smtp` names a user: name the file with the password by `--smtp-password-file`")]
    PasswordMissing,
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Others may read the password.
    #[error("{}: everybody on this machine can read this password (mode {mode:04o}): `chmod 600` it", path.display())]
    PasswordOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no password.
    #[error("{}: a password is one line of text", path.display())]
    PasswordEmpty {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no certificate.
    #[error("{}: no PEM certificate in it", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
}

impl MailConfig {
    /// What the options mean; `None` when mail is not asked for.
    ///
    /// # Errors
    ///
    /// [`MailConfigError`] says which options do not fit together, or which file is not as it should be.
    pub fn from_options(options: &MailOptions) -> Result<Option<Self>, MailConfigError> {
        let from = options.mail_from.as_deref().map(From::parse).transpose()?;
        let way = match (&options.smtp, &options.mail_dir) {
            (Some(_), Some(_)) => return Err(MailConfigError::TwoWays),
            (Some(server), None) => Some(Way::Smtp(SmtpConfig::from_options(server, options)?)),
            (None, directory) => {
                let stray = [
                    (options.smtp_tls.is_some(), "--smtp-tls"),
                    (options.smtp_ca.is_some(), "--smtp-ca"),
                    (options.smtp_password_file.is_some(), "--smtp-password-file"),
                ];
                if let Some((_, option)) = stray.into_iter().find(|(given, _)| *given) {
                    return Err(MailConfigError::Alone { option, needs: "`--smtp`" });
                }
                directory.clone().map(Way::Folder)
            }
        };
        match (way, from) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(MailConfigError::Alone { option: "--mail-from", needs: "`--smtp` or `--mail-dir`" }),
            (Some(Way::Smtp(_)), None) => Err(MailConfigError::FromMissing),
            (Some(way), None) => Ok(Some(Self { from: From::parse(FROM_FOLDER)?, way })),
            (Some(way), Some(from)) => Ok(Some(Self { from, way })),
        }
    }
}

impl SmtpConfig {
    fn from_options(server: &str, options: &MailOptions) -> Result<Self, MailConfigError> {
        let url = Url::parse(server).map_err(|_| MailConfigError::Server("this is no address of that form"))?;
        if url.password().is_some() {
            return Err(MailConfigError::PasswordInUrl);
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(MailConfigError::Server("nothing follows host and port"));
        }
        let host = host(&url)?;
        let trust = || trust(options.smtp_ca.as_deref());
        let (security, default_port) = match (url.scheme(), options.smtp_tls) {
            ("smtps", None) => (Security::Tls(trust()?), 465),
            ("smtps", Some(_)) => {
                return Err(MailConfigError::Server("smtps is TLS from the first byte; `--smtp-tls` is for smtp://"));
            }
            ("smtp", Some(SmtpTls::StartTls)) => (Security::StartTls(trust()?), 587),
            // Whoever names an authority wants TLS.
            ("smtp", None) if options.smtp_ca.is_some() || !is_this_machine(&host) => {
                (Security::StartTls(trust()?), 587)
            }
            ("smtp", _) if options.smtp_ca.is_some() => {
                return Err(MailConfigError::Alone { option: "--smtp-ca", needs: "TLS: leave `--smtp-tls none` out" });
            }
            ("smtp", _) => (Security::None, 25),
            _ => return Err(MailConfigError::Server("the scheme is neither smtp nor smtps")),
        };
        let login = login(url.username(), options.smtp_password_file.as_deref())?;
        if login.is_some() && matches!(security, Security::None) && !is_this_machine(&host) {
            tracing::warn!("the password for the mail server crosses the network unencrypted (--smtp-tls none)");
        }
        let port = url.port().unwrap_or(default_port);
        Ok(Self { host, port, security, login, timeouts: SmtpTimeouts::default() })
    }
}

fn host(url: &Url) -> Result<String, MailConfigError> {
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_ascii_lowercase(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || ".-:_".contains(c);
    if host.is_empty() || !host.chars().all(named) {
        return Err(MailConfigError::Server("it names no host"));
    }
    Ok(host)
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn trust(authority: Option<&Path>) -> Result<Trust, MailConfigError> {
    let Some(path) = authority else { return Ok(Trust::System) };
    let wrong = || MailConfigError::Certificate { path: path.to_owned() };
    let text = open(path).and_then(|file| read(file, path))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong());
    }
    Certificate::from_pem(text.as_bytes()).map(Trust::Only).map_err(|_| wrong())
}

fn login(user: &str, password_file: Option<&Path>) -> Result<Option<Login>, MailConfigError> {
    let path = match (user, password_file) {
        ("", None) => return Ok(None),
        ("", Some(_)) => {
            return Err(MailConfigError::Alone { option: "--smtp-password-file", needs: "a user: smtp://USER@HOST" });
        }
        (_, None) => return Err(MailConfigError::PasswordMissing),
        (_, Some(path)) => path,
    };
    let user = percent_decoded(user).ok_or(MailConfigError::Server("the user is not percent-encoded UTF-8"))?;
    let file = open(path)?;
    let metadata = file.metadata().map_err(|source| MailConfigError::File { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o004 != 0 {
        return Err(MailConfigError::PasswordOpen { path: path.to_owned(), mode });
    }
    let text = read(file, path)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains(char::is_control) {
        return Err(MailConfigError::PasswordEmpty { path: path.to_owned() });
    }
    Ok(Some(Login { user, password: password.to_owned() }))
}

/// RFC 3986 section 2.1. `None` when what comes out is not UTF-8, or holds controls.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

fn open(path: &Path) -> Result<File, MailConfigError> {
    File::open(path).map_err(|source| MailConfigError::File { path: path.to_owned(), source })
}

fn read(file: File, path: &Path) -> Result<String, MailConfigError> {
    let mut text = String::new();
    match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(source) => Err(MailConfigError::File { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
