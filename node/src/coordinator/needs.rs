//! What the farm still needs of a coordinator's store: recipes and sources of living jobs, artifacts that are being kept.
//!
//! The queue may be long, so it is read a page at a time; whatever comes to the queue meanwhile has just been put, and what
//! was just put is not evicted.

use super::ledger::Ledger;
use crate::artifact::need::Needed;
use protocol::id::JobId;
use protocol::request::Request;
use protocol::signed::Signed;

/// Jobs looked at while nothing else can be applied.
const PAGE: usize = 256;

/// Everything that living jobs need.
pub(super) async fn needed(ledger: &Ledger) -> Needed {
    let mut needed = Needed::default();
    let mut after: Option<JobId> = None;
    loop {
        let page: Vec<(JobId, Signed, Option<Needed>)> = ledger.read(|farm| {
            let jobs = farm.jobs_after(after).take(PAGE);
            jobs.map(|job| (job.id, job.signed, job.keeping.map(|keeping| Needed::tree(keeping.manifest)))).collect()
        });
        let Some((last, ..)) = page.last() else { return needed };
        after = Some(*last);
        for (_, signed, kept) in page {
            // The farm took it in, so it was opened and checked before.
            let by = signed.payload_unchecked::<Request>().ok().map(|request| Needed::by(&request.spec));
            needed.extend(by.into_iter().chain(kept));
        }
        tokio::task::yield_now().await;
    }
}
