//! `node cancel`: nobody wants it any more.

use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::sentences::Said;
use crate::shape::CancelShape;
use protocol::id::RequestId;

/// Shows that the farm let go of a request.
pub(crate) fn show(output: &Output, request: RequestId) -> Result<Exit, Failure> {
    output.tell(&Said::new(format!("request {} is cancelled", request.short())));
    output.object(&CancelShape { request: Some(request.to_string()), cancelled: Some(true), reason: None })?;
    Ok(Exit::Done)
}
