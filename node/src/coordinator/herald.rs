//! Tells the world what the farm decided: keeps verdicts, provides builds in the DHT, and whispers that there is work.
//!
//! Nothing here is the only carrier of a duty. A verdict that was not kept is made again from the farm at the next start, and
//! a whisper that nobody heard costs a volunteer at most the wait of its parked claim.

use super::judge::judged;
use super::ledger::Ledger;
use super::replica::Told;
use crate::artifact::Store;
use crate::clock::Clock;
use crate::network::Network;
use protocol::farm::command::Event;
use protocol::gossip::RequestNews;
use protocol::id::{BuildKey, FarmId, JobId};
use protocol::signed::{SecretKey, Signed};
use protocol::time::Span;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long the news that there is work is news: after that the job was granted, or waits for somebody who cannot be woken.
const WORK_NEWS_TTL: Span = Span::from_secs(300);

/// Everything the herald stands on.
#[derive(Debug)]
pub struct Herald {
    pub(super) ledger: Ledger,
    pub(super) network: Network,
    pub(super) store: Store,
    pub(super) farm: FarmId,
    pub(super) secret: SecretKey,
    pub(super) clock: Clock,
}

impl Herald {
    /// Serves until `stop` is cancelled. `kept` names builds whose artifact has just come here, perhaps after their verdict.
    pub async fn run(self, mut kept: mpsc::Receiver<BuildKey>, stop: CancellationToken) {
        let mut events = self.ledger.events();
        self.keep_all().await;
        loop {
            let told = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                told = events.next() => told,
                Some(build_key) = kept.recv() => {
                    self.keep(build_key).await;
                    continue;
                }
            };
            match told {
                Some(Told::Event(happened)) => match happened.event {
                    Event::Decided { build_key, .. } => {
                        self.keep(build_key).await;
                        self.whisper(&RequestNews::Decided { build_key, issued_at: self.clock.wall() }).await;
                    }
                    Event::Queued { job, .. } => self.whisper_job(job).await,
                    Event::Unbuilt { build_key } => {
                        if self.network.withdraw(build_key).await.is_err() {
                            return;
                        }
                    }
                    Event::Granted { .. }
                    | Event::LeaseEnded { .. }
                    | Event::Keeping { .. }
                    | Event::Ended { .. }
                    | Event::Notice { .. }
                    | Event::Amended { .. } => {}
                },
                Some(Told::StartOver) => self.keep_all().await,
                None => return,
            }
        }
    }

    /// Keeps every verdict on an artifact that is here.
    async fn keep_all(&self) {
        for build_key in self.ledger.read(|farm| farm.builds().map(|build| build.verdict.build_key).collect::<Vec<_>>())
        {
            self.keep(build_key).await;
        }
    }

    async fn keep(&self, build_key: BuildKey) {
        let found = self.ledger.read(|farm| {
            let finished = farm.finished(&build_key)?;
            let (manifest, recipe) = (finished.verdict.manifest, finished.recipe.to_string());
            Some((judged(farm, self.farm, &self.secret, build_key)?, manifest, recipe))
        });
        let Some((judged, manifest, recipe)) = found else { return };
        match self.store.has_artifact(manifest).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "the store cannot be read");
                return;
            }
        }
        if let Err(error) = self.store.keep_judged(build_key, judged, recipe).await {
            tracing::warn!(key = %build_key.short(), %error, "a verdict cannot be kept");
            return;
        }
        // A closed network means that the node is ending.
        let _closed = self.network.provide(build_key).await;
    }

    async fn whisper_job(&self, job: JobId) {
        let news = self.ledger.read(|farm| {
            let job = farm.job(job)?;
            Some(RequestNews::Waiting {
                request: job.request,
                build_key: job.build_key,
                requirement: job.requirement.id(),
                origin: self.network.local(),
                issued_at: self.clock.wall(),
                ttl: WORK_NEWS_TTL,
            })
        });
        if let Some(news) = news {
            self.whisper(&news).await;
        }
    }

    async fn whisper(&self, news: &RequestNews) {
        // A closed network means that the node is ending.
        let _closed = self.network.whisper(Signed::new(news, self.farm, &self.secret)).await;
    }
}
