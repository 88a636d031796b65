//! `node fetch`: bring what was built, by request, build key or manifest.

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::shape::{FileShape, RequestShape};
use std::path::Path;
use std::time::Duration;

/// Shows what was brought. `shape` holds what is known of the build.
pub(crate) fn show(
    output: &Output,
    shape: RequestShape,
    folder: &Path,
    files: Vec<FileShape>,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    super::request::delivered(output, "fetched", shape, folder, files, elapsed)
}
