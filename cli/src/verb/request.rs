//! `node request`: how a request went.

use crate::exit::{Exit, Failure};
use crate::output::{Output, Progress};
use crate::sentences;
use crate::shape::{CommitShape, FileShape, RequestShape};
use protocol::farm::explain::{Ended, Explanation, RequestView};
use protocol::id::{BuildKey, RequestId};
use protocol::tree::Mode;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the files go when nobody says: `./RECIPE-<8 digits of the build key>`.
pub(crate) fn default_folder(recipe: &str, build_key: BuildKey) -> PathBuf {
    PathBuf::from(format!("{recipe}-{}", build_key.short()))
}

/// The permission bits of a file that was put on disk, as `stat` prints them.
pub(crate) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Plain => "0644",
        Mode::Executable => "0755",
    }
}

/// Shows what a request does while it waits.
pub(crate) fn waiting(progress: &Progress, request: RequestId, view: &RequestView) {
    let sentence = sentences::standing(view, request);
    progress.waiting(&format!("{} {}: {sentence}", view.recipe, request.short()));
}

/// Shows a request whose files are here.
pub(crate) fn delivered(
    output: &Output,
    how: &str,
    mut shape: RequestShape,
    folder: &Path,
    files: Vec<FileShape>,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let count = sentences::files(files.len());
    output.say(&format!("{how} in {}: {count} in {}", sentences::span(elapsed), folder.display()));
    output.answer(&paths.join("\n"))?;
    shape.files = Some(files);
    shape.elapsed_ms = Some(millis(elapsed));
    output.object(&shape)?;
    Ok(Exit::Done)
}

/// Shows a request that the farm holds from now on.
pub(crate) fn detached(
    output: &Output,
    request: RequestId,
    build_key: BuildKey,
    commit: CommitShape,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    output.tell(&sentences::detached(request));
    output.answer(&request.to_string())?;
    output.object(&RequestShape {
        request: Some(request.to_string()),
        build_key: Some(build_key.to_string()),
        commit,
        elapsed_ms: Some(millis(elapsed)),
        ..RequestShape::default()
    })?;
    Ok(Exit::Done)
}

/// Shows a request that ended otherwise than built.
pub(crate) fn failed(
    output: &Output,
    request: RequestId,
    view: &RequestView,
    ended: &Ended,
    commit: CommitShape,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    output.error(&sentences::ended(ended, request));
    output.object(&RequestShape { commit, ..failed_shape(request, view, ended, elapsed) })?;
    Ok(Exit::from(ended))
}

/// Shows why nobody waits here any more for a request that may go on, with all that is known of it.
pub(crate) fn broken_off(
    output: &Output,
    failure: &Failure,
    known: RequestShape,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    output.error(&failure.said);
    let reason = Some(failure.said.what.clone());
    output.object(&RequestShape { reason, elapsed_ms: Some(millis(elapsed)), ..known })?;
    Ok(failure.exit)
}

/// A request that ended otherwise than built, for scripts.
pub(crate) fn failed_shape(request: RequestId, view: &RequestView, ended: &Ended, elapsed: Duration) -> RequestShape {
    let view = RequestView { explanation: Explanation::Ended(ended.clone()), ..view.clone() };
    RequestShape { elapsed_ms: Some(millis(elapsed)), ..RequestShape::of(request, &view) }
}

/// A length of time for scripts.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Outcome;
    use protocol::digest::Digest;
    use protocol::farm::explain::PolicyEnd;
    use protocol::time::Timestamp;

    #[test]
    fn files_go_to_a_folder_of_their_own() {
        assert_eq!(default_folder("lua", BuildKey(Digest::of(b""))), Path::new("lua-e3b0c442"));
        assert_eq!((mode(Mode::Plain), mode(Mode::Executable)), ("0644", "0755"));
    }

    #[test]
    fn an_end_that_is_no_build_keeps_its_reason() {
        let request = RequestId(Digest::of(b""));
        let view = RequestView {
            build_key: BuildKey(Digest::of(b"")),
            recipe: "lua".to_owned(),
            submitted_at: Timestamp::EPOCH,
            job: None,
            state: None,
            attempts: 0,
            started_at: None,
            ended_at: None,
            volunteer: None,
            environment: None,
            log: None,
            explanation: Explanation::Unknown,
            motion: None,
            estimate: None,
        };
        let ended = Ended::Policy(PolicyEnd::Cancelled);
        let shape = failed_shape(request, &view, &ended, Duration::from_millis(7));
        assert_eq!(shape.outcome, Some(Outcome::Policy));
        assert_eq!(shape.reason.as_deref(), Some("cancelled by its requester"));
        assert_eq!((shape.elapsed_ms, shape.files), (Some(7), None));
        assert_eq!(Exit::from(&ended), Exit::Policy);
    }
}
