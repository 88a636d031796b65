//! Mail handed to somebody in this process, who says whether he took it. The simulation is its mail server.

use super::mail::Mail;
use protocol::id::NoticeId;
use tokio::sync::{mpsc, oneshot};

/// Hands mails over, one at a time for each that is on its way.
#[derive(Clone, Debug)]
pub struct Hand(mpsc::Sender<Handed>);

/// A mail that waits to be taken.
#[derive(Debug)]
pub struct Handed {
    /// Which notice it tells.
    pub notice: NoticeId,
    /// To whom.
    pub to: String,
    /// Rung when it is taken; dropped when it is not.
    pub taken: oneshot::Sender<()>,
}

/// The mail was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody took the mail")]
pub struct HandError;

impl Hand {
    /// A hand that gives, and where it is taken from.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Handed>) {
        let (give, take) = mpsc::channel(16);
        (Self(give), take)
    }

    pub(super) async fn give(&self, mail: &Mail) -> Result<(), HandError> {
        let (taken, answer) = oneshot::channel();
        let handed = Handed { notice: mail.notice, to: mail.to.to_string(), taken };
        self.0.send(handed).await.map_err(|_| HandError)?;
        answer.await.map_err(|_| HandError)
    }
}
