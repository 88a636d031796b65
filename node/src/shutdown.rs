//! Shutdown as a value that everyone listens to.
//!
//! One [`Trigger`] is pulled once; every [`Shutdown`] cloned from it then completes, now and for ever. Nothing here knows
//! signals: `cli` turns SIGINT and SIGTERM into a pull.

use tokio::sync::watch;

/// Pulled to end everything that listens. Dropping it pulls it.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// Completes when the trigger is pulled.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Ending,
}

/// A trigger and the first of its listeners.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Ends everything that listens. Pulling twice is the same as once.
    pub fn pull(&self) {
        self.0.send_replace(Phase::Ending);
    }
}

impl Shutdown {
    /// Completes when the trigger was pulled or dropped.
    pub async fn pulled(&mut self) {
        // An error means that the trigger was dropped: nobody is left who wants this to run.
        let _either_way = self.0.wait_for(|phase| *phase == Phase::Ending).await;
    }

    /// Whether it was pulled already.
    #[must_use]
    pub fn is_pulled(&self) -> bool {
        *self.0.borrow() == Phase::Ending || self.0.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_listener_hears_it_whenever_it_asks() {
        let (trigger, shutdown) = channel();
        assert!(!shutdown.is_pulled());
        let mut early = shutdown.clone();
        let waiting = tokio::spawn(async move { early.pulled().await });
        trigger.pull();
        assert!(waiting.await.is_ok());
        let mut late = shutdown.clone();
        late.pulled().await;
        assert!(late.is_pulled());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_pulled_one() {
        let (trigger, mut shutdown) = channel();
        drop(trigger);
        shutdown.pulled().await;
    }
}
