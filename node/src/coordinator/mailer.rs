//! The mailer: turns the law's pending notices into mails, one for each.
//!
//! ```text
//! the law: pending ──► NoticeAttempt committed ──► letter ──► SMTP or a file ──► NoticeSent committed
//!             ▲                                                  └─ not taken ──► NoticeFailed committed
//!             └───────── asked again when woken, when something is due, and every 30 s
//! ```
//!
//! - The duty lies in the law, never here: what this forgets, by a crash or a lost wake, is pending still and comes again.
//! - SMTP is at least once: a second copy is possible only when the farm stops between the server's "taken" and the commit of
//!   `NoticeSent`. It bears the same Message-ID. Files are exactly once.
//! - A server that is away is not asked again for each letter: the mailer rests, longer each time, up to a minute.
//! - No address is written to a log, to an error or to a reason that the farm keeps.

pub mod config;
pub mod folder;
pub mod hand;
pub mod letter;
pub mod mail;
mod reason;
pub mod smtp;
mod text;

use config::{MailConfig, Way};
use folder::{Folder, FolderError};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use hand::{Hand, HandError};
use letter::{Occasion, letter};
use mail::{From, Mail, MailError};
use protocol::farm::command::{Command, Permanence, Reply};
use protocol::id::NoticeId;
use protocol::time::Timestamp;
use reason::server_words;
use smtp::{Smtp, SmtpError};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

/// Letters on their way at the same time.
const ON_THE_WAY_MAX: usize = 4;
/// How long the law is not asked when nobody wakes the mailer.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The first and the longest rest after a failure that is not about one letter.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_LONGEST: Duration = Duration::from_secs(60);
/// How long letters on their way may take at shutdown. A letter cut off may arrive twice.
const GRACE: Duration = Duration::from_secs(5);
/// Letters remembered as taken while the commit of that fact is awaited.
const TAKEN_MAX: usize = 1_024;

/// What the mailer needs of its coordinator.
#[derive(Clone, Debug)]
pub struct Law<Pending, Propose, Now, Sender> {
    /// `Fn(now, most) -> Waiting`: the notices due at `now`, at most `most` of them, longest due first.
    pub pending: Pending,
    /// `Fn(Command) -> Future<Result<Reply, E>>`: an error when the command was not committed, or the law rejected it.
    pub propose: Propose,
    /// `Fn() -> Timestamp`: the farm's time.
    pub now: Now,
    /// `Fn() -> letter::Sender`: the farm's name and ticket as they are now.
    pub sender: Sender,
}

/// Notices that wait to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those that are due.
    pub due: Vec<Occasion>,
    /// When the next of the others is.
    pub next_at: Option<Timestamp>,
}

/// Sends the farm's mail.
#[derive(Debug)]
pub struct Mailer {
    from: From,
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    Smtp(Box<Smtp>),
    Folder(Folder),
    Hand(Hand),
}

/// Mail cannot be sent as configured.
#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    /// The directory is not usable.
    #[error("`--mail-dir`: {0}")]
    Folder(#[from] FolderError),
    /// The server's name or the authority cannot be used for TLS.
    #[error("`--smtp`: {0}")]
    Tls(#[from] lettre::transport::smtp::Error),
}

/// Why a letter did not leave.
#[derive(Debug, thiserror::Error)]
enum NotSent {
    #[error(transparent)]
    Smtp(#[from] SmtpError),
    // The path is for the operator's log, not for everybody who asks for the status.
    #[error("the mail directory cannot be written")]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error(transparent)]
    Hand(#[from] HandError),
}

impl NotSent {
    fn permanence(&self) -> Permanence {
        match self {
            Self::Smtp(error) => error.permanence(),
            Self::Folder(_) | Self::Hand(_) => Permanence::Transient,
            Self::Mail(_) => Permanence::Permanent,
        }
    }

    fn is_about_the_letter(&self) -> bool {
        match self {
            Self::Smtp(error) => error.is_about_the_letter(),
            Self::Folder(_) | Self::Hand(_) => false,
            Self::Mail(_) => true,
        }
    }
}

/// What became of one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landing {
    /// Sent, and the farm knows.
    Sent,
    /// Refused, and the farm knows; the next letter may fare better.
    Refused,
    /// Nothing can be sent at the moment, or the farm takes no commands.
    Blocked,
    /// Sent, but the farm does not know yet.
    Unrecorded,
}

impl Mailer {
    /// A mailer that has sent nothing.
    ///
    /// # Errors
    ///
    /// [`MailerError`] when the directory cannot be made, or TLS cannot be set up as configured.
    pub fn new(config: MailConfig) -> Result<Self, MailerError> {
        let carrier = match config.way {
            Way::Smtp(server) => Carrier::Smtp(Box::new(Smtp::new(server)?)),
            Way::Folder(directory) => Carrier::Folder(Folder::open(directory)?),
        };
        Ok(Self { from: config.from, carrier })
    }

    /// A mailer whose mails are taken by somebody in this process: for simulation.
    #[must_use]
    pub fn by_hand(from: From, hand: Hand) -> Self {
        Self { from, carrier: Carrier::Hand(hand) }
    }

    /// Sends what is pending until `shutdown`; `wake` is notified when there may be something new.
    ///
    /// At shutdown no letter is begun, and those on their way have five seconds.
    pub async fn run<Pending, Propose, Proposed, Error, Now, Sender>(
        &self,
        law: Law<Pending, Propose, Now, Sender>,
        wake: &Notify,
        shutdown: impl Future<Output = ()>,
    ) where
        Pending: Fn(Timestamp, usize) -> Waiting,
        Propose: Fn(Command) -> Proposed,
        Proposed: Future<Output = Result<Reply, Error>>,
        Error: Display,
        Now: Fn() -> Timestamp,
        Sender: Fn() -> letter::Sender,
    {
        let mut shutdown = pin!(shutdown);
        let mut on_the_way = FuturesUnordered::new();
        let mut desk = Desk::default();
        loop {
            let mut look_at = Instant::now() + LOOK_EVERY;
            if desk.is_resting() {
                look_at = desk.rest_until;
            } else if desk.busy.len() < ON_THE_WAY_MAX {
                let now = (law.now)();
                // Those on their way are due as well: asked for so many, at least one is new if one is there.
                let waiting = (law.pending)(now, 2 * ON_THE_WAY_MAX);
                for occasion in waiting.due {
                    if desk.busy.len() < ON_THE_WAY_MAX && desk.busy.insert(occasion.notice) {
                        let taken = desk.taken.contains(&occasion.notice);
                        let sender = (law.sender)();
                        on_the_way.push(self.settle(&law.propose, occasion, sender, taken));
                    }
                }
                if let Some(next_at) = waiting.next_at {
                    look_at = look_at.min(Instant::now() + next_at.since(now));
                }
                if on_the_way.is_empty() {
                    self.carrier.hang_up().await;
                }
            }
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some((notice, landing)) = on_the_way.next() => desk.landed(notice, landing),
                () = wake.notified(), if !desk.is_resting() => {}
                () = sleep_until(look_at) => {}
            }
        }
        let rest = async { while on_the_way.next().await.is_some() {} };
        if timeout(GRACE, rest).await.is_err() {
            tracing::warn!("the farm stops before the mail server has answered; a mail may come twice");
        }
        self.carrier.hang_up().await;
    }

    /// One letter, from the decision to send it to the farm's knowing what became of it.
    async fn settle<Propose, Proposed, Error>(
        &self,
        propose: &Propose,
        occasion: Occasion,
        sender: letter::Sender,
        taken: bool,
    ) -> (NoticeId, Landing)
    where
        Propose: Fn(Command) -> Proposed,
        Proposed: Future<Output = Result<Reply, Error>>,
        Error: Display,
    {
        let notice = occasion.notice;
        let committed = async |command: Command| match propose(command).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(notice = %notice.short(), %error, "not committed");
                false
            }
        };
        let landing = if taken {
            if committed(Command::NoticeSent { notice }).await { Landing::Sent } else { Landing::Unrecorded }
        } else if !committed(Command::NoticeAttempt { notice }).await {
            Landing::Blocked
        } else {
            match self.send(&occasion, &sender).await {
                Ok(()) if committed(Command::NoticeSent { notice }).await => {
                    tracing::info!(notice = %notice.short(), request = %occasion.request.short(), "mail sent");
                    Landing::Sent
                }
                Ok(()) => Landing::Unrecorded,
                Err(error) => {
                    let permanence = error.permanence();
                    tracing::warn!(notice = %notice.short(), ?permanence, %error, "mail not sent");
                    let reason = server_words(&error.to_string());
                    let failed = Command::NoticeFailed { notice, permanence, reason };
                    let told = committed(failed).await;
                    if told && error.is_about_the_letter() { Landing::Refused } else { Landing::Blocked }
                }
            }
        };
        (notice, landing)
    }

    async fn send(&self, occasion: &Occasion, sender: &letter::Sender) -> Result<(), NotSent> {
        let from = self.from.clone().or_named(&format!("{} build farm", sender.farm));
        let letter = letter(occasion, sender);
        let mail = Mail::new(occasion.notice, &from, &occasion.address, occasion.ended_at, &letter)?;
        self.carrier.carry(&mail).await
    }
}

impl Carrier {
    async fn carry(&self, mail: &Mail) -> Result<(), NotSent> {
        match self {
            Self::Smtp(smtp) => Ok(smtp.send(mail).await?),
            Self::Hand(hand) => Ok(hand.give(mail).await?),
            Self::Folder(folder) => folder.store(mail).await.map_err(|error| {
                tracing::error!(%error, "the mail directory cannot be written");
                error.into()
            }),
        }
    }

    async fn hang_up(&self) {
        if let Self::Smtp(smtp) = self {
            smtp.hang_up().await;
        }
    }
}

/// What lies before the mailer: all of it may be forgotten.
#[derive(Debug)]
struct Desk {
    /// Letters on their way.
    busy: BTreeSet<NoticeId>,
    /// Letters that were taken, of which the farm does not know yet.
    taken: BTreeSet<NoticeId>,
    rest_until: Instant,
    next_rest: Duration,
}

impl Default for Desk {
    fn default() -> Self {
        Self { busy: BTreeSet::new(), taken: BTreeSet::new(), rest_until: Instant::now(), next_rest: REST_FIRST }
    }
}

impl Desk {
    fn is_resting(&self) -> bool {
        Instant::now() < self.rest_until
    }

    fn landed(&mut self, notice: NoticeId, landing: Landing) {
        self.busy.remove(&notice);
        match landing {
            Landing::Sent | Landing::Refused => {
                self.taken.remove(&notice);
                self.next_rest = REST_FIRST;
            }
            Landing::Blocked => self.rest(),
            Landing::Unrecorded => {
                if self.taken.len() < TAKEN_MAX {
                    self.taken.insert(notice);
                }
                self.rest();
            }
        }
    }

    /// Several letters may fail for one cause: only the first after a rest makes the next one longer.
    fn rest(&mut self) {
        if !self.is_resting() {
            self.rest_until = Instant::now() + self.next_rest;
            self.next_rest = (self.next_rest * 2).min(REST_LONGEST);
        }
    }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
