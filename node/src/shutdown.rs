//! From the signals of the operating system to the one token that everything listens to.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that SIGINT or SIGTERM cancels. A second signal of either kind ends the process at once with status 130, for
/// somebody who will not wait for the orderly end.
///
/// # Errors
///
/// When the operating system refuses a handler.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let ending = token.clone();
    tokio::spawn(async move {
        for heard in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if heard == 0 {
                ending.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
