//! The farm's verdicts on what was built here: kept, and told to the DHT.
//!
//! Nobody provides a build key before holding its verdict, so a volunteer waits for the verdict on each of its builds. One
//! that was restarted meanwhile, or was away, goes through the farm's latest builds and keeps the verdicts on those it has.

use crate::artifact::Store;
use crate::artifact::need::Need;
use crate::chance::{Backoff, Chance};
use crate::coordinators::Coordinators;
use crate::network::Network;
use protocol::id::{BuildKey, FarmId};
use protocol::request::CheckedRequest;
use protocol::time::Span;
use protocol::wire::{Answer, BuildRow, CLAIM_WAIT, Control, Park};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often, ever more rarely, a verdict is looked for after the request that was built for has ended.
const VERDICT_LOOKS: u32 = 20;
/// Between two passes through the farm's latest builds: soon after the start, when something may still be on its way, then seldom.
const SOON: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(3_600);

/// Waits for verdicts and keeps them.
#[derive(Clone, Debug)]
pub(super) struct Verdicts {
    pub(super) network: Network,
    pub(super) store: Store,
    pub(super) coordinators: Coordinators,
    pub(super) farm: FarmId,
    pub(super) chance: Chance,
}

impl Verdicts {
    /// Waits for the verdict on what was built here, keeps it, and says in the DHT that the artifact is here. The artifact is
    /// needed until then.
    pub(super) async fn follow(self, request: CheckedRequest, need: Need, stop: CancellationToken) {
        let following = self.until_judged(&request);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = following => {}
        }
        drop(need);
    }

    async fn until_judged(&self, request: &CheckedRequest) {
        let mut backoff = Backoff::new(self.chance.clone(), Duration::from_secs(1), Duration::from_secs(300));
        let mut mark = 0;
        let mut looks = 0;
        while looks < VERDICT_LOOKS {
            let wait = Span::from(self.chance.around(CLAIM_WAIT));
            match self.coordinators.park(Park::Watch { request: request.id, mark, wait }).await {
                Ok((_, Answer::Request(Some((_, view))))) => {
                    mark = protocol::wire::view_mark(&view);
                    if view.ended_at.is_none() {
                        backoff.reset();
                        continue;
                    }
                    looks += 1;
                }
                Ok((_, Answer::Request(None))) => return,
                Ok(_) | Err(_) => {
                    tokio::time::sleep(backoff.step()).await;
                    continue;
                }
            }
            if self.keep_if_judged(request.build_key, request.request.recipe.as_str()).await {
                return;
            }
            tokio::time::sleep(backoff.step()).await;
        }
    }

    /// Keeps the verdict on a build that is here. `true` when nothing remains to be done.
    async fn keep_if_judged(&self, key: BuildKey, recipe: &str) -> bool {
        let Ok((_, Answer::Found { judged, .. })) = self.coordinators.call(Control::Find(key)).await else {
            return false;
        };
        // This request may have been taken back while others wait for the same build.
        let Some(judged) = judged else { return false };
        match judged.verify(self.farm, key) {
            Ok(verified) if self.store.has_artifact(verified.verdict.manifest).await.unwrap_or(false) => {
                if let Err(error) = self.store.keep_judged(key, *judged, recipe.to_owned()).await {
                    tracing::warn!(%error, "the verdict cannot be kept");
                    return false;
                }
                self.network.provide(key).await.is_ok()
            }
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, %key, "a verdict that does not hold");
                true
            }
        }
    }

    /// Keeps the verdicts on builds that are here and for which nobody waits, now and again.
    pub(super) async fn catch_up(self) {
        let mut backoff = Backoff::new(self.chance.clone(), SOON, SELDOM);
        loop {
            if let Ok((_, Answer::Builds(rows))) = self.coordinators.call(Control::Builds).await {
                for row in rows {
                    self.catch_up_with(&row).await;
                }
            }
            tokio::time::sleep(backoff.step()).await;
        }
    }

    async fn catch_up_with(&self, row: &BuildRow) {
        let is_here = self.store.has_artifact(row.manifest).await.unwrap_or(false);
        // What cannot be read now is looked at again in the next pass.
        let is_kept = self.store.judged(row.build_key).await.is_ok_and(|kept| kept.is_some());
        if is_here && !is_kept && !self.keep_if_judged(row.build_key, &row.recipe).await {
            tracing::debug!(key = %row.build_key, "the verdict on a build that is here was not to be had");
        }
    }
}
