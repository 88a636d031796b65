//! One file a verb: what it shows, from values that were fetched already.
//!
//! Everything here takes typed values and an [`Output`](crate::output::Output), so that each verb can be tried without a farm.
//! Text and JSON come from the same values; neither fetches anything.

pub(crate) mod builds;
pub(crate) mod cancel;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod farm;
pub(crate) mod fetch;
pub(crate) mod logs;
pub(crate) mod matrix;
pub(crate) mod recipe;
pub(crate) mod request;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod volunteers;
