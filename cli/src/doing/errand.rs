//! One wish carried to its end, and what was seen on the way; nothing is shown here.

use super::failure;
use super::footing::Footing;
use crate::exit::Failure;
use crate::shape::{FileShape, Outcome, RequestShape};
use crate::verb;
use node::artifact::import::Imported;
use node::chance::Chance;
use node::client::deliver::Delivery;
use node::client::get::{Delivered, Errand, Got, Patience, Stage};
use node::client::wish::Wish;
use protocol::digest::{Digest, Hasher};
use protocol::farm::explain::HowBuilt;
use protocol::id::RequestId;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A wish and everything that goes with it.
#[derive(Clone, Debug)]
pub(super) struct Asked<'a> {
    /// What is wanted.
    pub(super) wish: &'a Wish,
    /// The source that was given.
    pub(super) source: Option<Arc<Imported>>,
    /// Whether to wait.
    pub(super) patience: Patience,
    /// Where the files go; `None` for the usual place.
    pub(super) folder: Option<PathBuf>,
}

/// How an errand went.
#[derive(Debug)]
pub(super) enum Went {
    /// To an end.
    Got(Got),
    /// It was broken off; the request may go on.
    Failed(Failure),
    /// The person broke it off.
    Interrupted,
}

/// What is known of a request so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Which the farm holds.
    pub(super) request: Option<RequestId>,
    /// Everything else.
    pub(super) shape: RequestShape,
}

impl Seen {
    fn take_in(&mut self, stage: &Stage) {
        match stage {
            Stage::Signed { build_key } => self.shape.build_key = Some(build_key.to_string()),
            Stage::Submitted { request } => {
                self.request = Some(*request);
                self.shape.request = Some(request.to_string());
            }
            Stage::Seen { request, view } => self.shape = RequestShape::of(*request, view),
            Stage::Fetching(_) => {}
        }
    }
}

/// Carries a wish to its end, telling `show` what happens.
pub(super) async fn carry(
    footing: &Footing,
    asked: Asked<'_>,
    stop: &CancellationToken,
    mut show: impl FnMut(&Stage),
) -> (Went, Seen) {
    let errand = Errand {
        session: footing.session(),
        uploads: footing.uploads(),
        wish: asked.wish,
        source: asked.source,
        patience: asked.patience,
        folder: asked.folder,
    };
    let (chance, mut seen) = (Chance::from_os(), Seen::default());
    let mut shown = |stage: Stage| {
        seen.take_in(&stage);
        show(&stage);
    };
    let went = tokio::select! {
        biased;
        () = stop.cancelled() => Went::Interrupted,
        got = errand.run(&chance, &mut shown) => match got {
            Ok(got) => Went::Got(got),
            Err(error) => Went::Failed(failure::of_get(&error)),
        },
    };
    (went, seen)
}

/// Everything about a delivered request but its files and the time it took.
pub(super) fn shape_of(delivered: &Delivered) -> RequestShape {
    let known = match (delivered.request, &delivered.view) {
        (Some(request), Some(view)) => RequestShape::of(request, view),
        _ => RequestShape::default(),
    };
    RequestShape {
        build_key: Some(delivered.build_key.to_string()),
        outcome: Some(match delivered.how {
            HowBuilt::Built => Outcome::Built,
            HowBuilt::Cached => Outcome::Cached,
        }),
        manifest: Some(delivered.manifest.to_string()),
        volunteer: delivered.volunteer.map(|volunteer| volunteer.to_string()),
        ..known
    }
}

/// Every file that was put on disk, with the digest of its whole content.
pub(super) fn files_of(folder: &Path, delivery: &Delivery) -> Result<Vec<FileShape>, Failure> {
    let folder = std::path::absolute(folder)?;
    delivery
        .manifest
        .files()
        .map(|(path, mode, size, chunks)| {
            let place: PathBuf = folder.join(path.as_str());
            let digest = match chunks {
                // A file of one chunk has its digest.
                [only] => *only,
                _ => digest_of(&place)?,
            };
            Ok(FileShape {
                path: place.display().to_string(),
                digest: digest.to_string(),
                size,
                mode: verb::request::mode(mode).to_owned(),
            })
        })
        .collect()
}

fn digest_of(path: &Path) -> Result<Digest, Failure> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
