//! Turns what the farm decided into a signed answer that a stranger can check.

use protocol::farm::Farm;
use protocol::id::{BuildKey, FarmId};
use protocol::report::Judged;
use protocol::signed::{SecretKey, Signed};

/// The verdict on a build with its whole chain, signed by this coordinator; `None` where there is none.
#[must_use]
pub fn judged(farm: &Farm, id: FarmId, secret: &SecretKey, build_key: BuildKey) -> Option<Judged> {
    let finished = farm.finished(build_key)?;
    let charter = farm.charter()?.clone();
    let verdict = Signed::new(&finished.verdict, id, secret);
    Some(Judged { charter, verdict, reports: finished.reports.to_vec() })
}
