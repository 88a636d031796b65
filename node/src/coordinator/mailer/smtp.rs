//! Mail by SMTP: one conversation, each step bounded in time, each failure judged.
//!
//! A refusal of the letter (5xx from `MAIL` on) is permanent. Everything that says nothing about the letter is transient: 4xx,
//! no connection, silence, a certificate we do not believe, a login that fails. An operator who mends the password loses no
//! mail by having had it wrong. Connections are kept between mails until [`Smtp::hang_up`].
//!
//! The conversation is our own, over lettre's connection, because lettre bounds only the connecting in time.

use super::config::{Security, SmtpConfig, Trust};
use super::mail::Mail;
use super::reason::server_words;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::ClientId;
use protocol::farm::command::Permanence;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connections that are kept between mails.
const KEPT_MAX: usize = 4;
/// How long the server may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// A mail server and the connections to it.
pub struct Smtp {
    config: SmtpConfig,
    tls: Option<TlsParameters>,
    kept: Mutex<Vec<AsyncSmtpConnection>>,
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Smtp({}:{})", self.config.host, self.config.port)
    }
}

/// The step of the conversation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Connecting, greeting and `EHLO`.
    Connect,
    /// `STARTTLS`.
    Encrypt,
    /// `AUTH`.
    Login,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`.
    Open,
    /// The mail itself.
    Content,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting to the mail server",
            Self::Encrypt => "STARTTLS",
            Self::Login => "logging in at the mail server",
            Self::Sender => "sender",
            Self::Recipient => "recipient",
            Self::Open => "DATA",
            Self::Content => "mail",
        })
    }
}

/// A mail was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {words}")]
pub struct SmtpError {
    /// Where it failed.
    pub step: Step,
    /// The answer's code, where there was one.
    pub code: Option<u16>,
    /// The server's words or ours: printable ASCII without addresses, at most 200 characters.
    pub words: String,
}

impl SmtpError {
    /// Whether the same letter may be taken later. Codes of RFC 4954 section 6 are about our login, wherever they come.
    #[must_use]
    pub fn permanence(&self) -> Permanence {
        match self.code {
            Some(530 | 534 | 535 | 538) => Permanence::Transient,
            Some(500..=599) if self.step >= Step::Sender => Permanence::Permanent,
            _ => Permanence::Transient,
        }
    }

    /// Whether the server spoke about this letter; otherwise the next letter would fare no better.
    #[must_use]
    pub fn is_about_the_letter(&self) -> bool {
        self.step >= Step::Sender && !matches!(self.code, None | Some(421 | 530 | 534 | 535 | 538))
    }

    fn judged(step: Step, error: &Error) -> Self {
        let code = error.status().map(u16::from);
        let words = match (code, std::error::Error::source(error)) {
            (Some(code), Some(words)) => server_words(&format!("{code} {words}")),
            _ => server_words(&error.to_string()),
        };
        Self { step, code, words }
    }
}

impl Smtp {
    /// A mail server that is not spoken to yet.
    ///
    /// # Errors
    ///
    /// When the host's name or the authority's certificate cannot be used for TLS.
    pub fn new(config: SmtpConfig) -> Result<Self, Error> {
        let parameters = |trust: &Trust| {
            let builder = TlsParameters::builder(config.host.clone());
            match trust {
                Trust::System => builder.build(),
                Trust::Only(authority) => {
                    builder.certificate_store(CertificateStore::None).add_root_certificate(authority.clone()).build()
                }
            }
        };
        let tls = match &config.security {
            Security::None => None,
            Security::StartTls(trust) | Security::Tls(trust) => Some(parameters(trust)?),
        };
        Ok(Self { config, tls, kept: Mutex::new(Vec::new()) })
    }

    /// Gives `mail` to the server; when this returns, the server has taken it over.
    ///
    /// # Errors
    ///
    /// [`SmtpError`] says what the server answered, if it did.
    pub async fn send(&self, mail: &Mail) -> Result<(), SmtpError> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(connection) = kept {
            match self.offer(connection, mail).await {
                // The server closed it since the last mail: nothing of this one was said.
                Err(SmtpError { step: Step::Sender, code: None | Some(421), .. }) => {}
                outcome => return outcome,
            }
        }
        let connection = self.connect().await?;
        self.offer(connection, mail).await
    }

    /// Says goodbye on the connections that are kept.
    pub async fn hang_up(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        for mut connection in kept {
            // Whoever does not answer a goodbye is left without.
            let _ = timeout(GOODBYE, connection.abort()).await;
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SmtpError> {
        let (host, port) = (self.config.host.as_str(), self.config.port);
        let name = ClientId::default();
        let mut connection = match (&self.config.security, &self.tls) {
            (Security::Tls(_), tls) => {
                let connecting = AsyncSmtpConnection::connect_tokio1((host, port), None, &name, tls.clone(), None);
                self.within(Step::Connect, connecting).await?
            }
            _ => {
                let stream = self.tcp(host, port).await?;
                let connecting = AsyncSmtpConnection::connect_with_transport(Box::new(LineByLine::new(stream)), &name);
                self.within(Step::Connect, connecting).await?
            }
        };
        if let (Security::StartTls(_), Some(tls)) = (&self.config.security, &self.tls) {
            self.within(Step::Encrypt, connection.starttls(tls.clone(), &name)).await?;
        }
        if let Some(login) = &self.config.login {
            let credentials = Credentials::new(login.user.clone(), login.password.clone());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            self.within(Step::Login, connection.auth(&mechanisms, &credentials)).await?;
        }
        Ok(connection)
    }

    async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, SmtpError> {
        let failed = |words: String| SmtpError { step: Step::Connect, code: None, words: server_words(&words) };
        match timeout(self.config.timeouts.command, TcpStream::connect((host, port))).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(format!("{host} port {port}: {error}"))),
            Err(_) => Err(self.silence(Step::Connect, self.config.timeouts.command)),
        }
    }

    /// One mail over one connection, which is kept if that went well.
    async fn offer(&self, mut connection: AsyncSmtpConnection, mail: &Mail) -> Result<(), SmtpError> {
        match self.converse(&mut connection, mail).await {
            Ok(()) => {
                let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < KEPT_MAX {
                    kept.push(connection);
                }
                Ok(())
            }
            Err(error) => {
                // A server that answered hears a goodbye; one that is silent or gone would only cost time.
                if error.code.is_some() {
                    let _ = timeout(GOODBYE, connection.abort()).await;
                }
                Err(error)
            }
        }
    }

    async fn converse(&self, connection: &mut AsyncSmtpConnection, mail: &Mail) -> Result<(), SmtpError> {
        let sender = commands::Mail::new(Some(mail.from.clone()), Vec::new());
        self.within(Step::Sender, connection.command(sender)).await?;
        let recipient = commands::Rcpt::new(mail.to.clone(), Vec::new());
        self.within(Step::Recipient, connection.command(recipient)).await?;
        self.within(Step::Open, connection.command(commands::Data)).await?;
        let limit = self.config.timeouts.acceptance;
        match timeout(limit, connection.message(&mail.bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(SmtpError::judged(Step::Content, &error)),
            Err(_) => Err(self.silence(Step::Content, limit)),
        }
    }

    async fn within<T>(&self, step: Step, action: impl Future<Output = Result<T, Error>>) -> Result<T, SmtpError> {
        match timeout(self.config.timeouts.command, action).await {
            Ok(outcome) => outcome.map_err(|error| SmtpError::judged(step, &error)),
            Err(_) => Err(self.silence(step, self.config.timeouts.command)),
        }
    }

    fn silence(&self, step: Step, limit: Duration) -> SmtpError {
        let words = format!("{} port {} gave no answer within {limit:?}", self.config.host, self.config.port);
        SmtpError { step, code: None, words: server_words(&words) }
    }
}

/// A stream that never gives more than the rest of one line at a time.
///
/// What somebody in between adds to the answer to `STARTTLS` in clear text must not be read as an answer that came encrypted.
/// lettre's reader keeps what it has read across the handshake; so it is given nothing beyond the line it waits for, and what
/// was added spoils the handshake instead.
#[derive(Debug)]
struct LineByLine(BufReader<TcpStream>);

impl LineByLine {
    fn new(stream: TcpStream) -> Self {
        Self(BufReader::new(stream))
    }
}

impl AsyncTokioStream for LineByLine {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().peer_addr()
    }
}

impl AsyncRead for LineByLine {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let there = ready!(Pin::new(&mut self.0).poll_fill_buf(cx))?;
        let room = &there[..there.len().min(buf.remaining())];
        let line = room.iter().position(|byte| *byte == b'\n').map_or(room, |end| &room[..=end]);
        let length = line.len();
        buf.put_slice(line);
        Pin::new(&mut self.0).consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LineByLine {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(super) mod sink;
#[cfg(test)]
mod tests;
