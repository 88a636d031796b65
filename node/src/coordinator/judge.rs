//! Turns what the farm decided into a signed answer that a stranger can check.

use protocol::farm::Farm;
use protocol::id::{BuildKey, FarmId};
use protocol::report::Judged;
use protocol::signed::{SecretKey, Signed};

/// The verdict on a build with its whole chain, signed by this coordinator; `None` where there is none.
#[must_use]
pub fn judged(farm: &Farm, id: FarmId, secret: &SecretKey, build_key: BuildKey) -> Option<Judged> {
    let finished = farm.finished(&build_key)?;
    let (_, charter) = farm.charter()?;
    let verdict = Signed::new(&finished.verdict, id, secret);
    Some(Judged { charter: charter.clone(), verdict, reports: finished.reports.into_iter().cloned().collect() })
}
