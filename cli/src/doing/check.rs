//! `node request --check`: built twice in conditions that differ, and compared.

use super::Place;
use super::alone::Lent;
use super::errand::{self, Asked, Went};
use super::footing::Footing;
use super::source::Settled;
use crate::args::RequestArgs;
use crate::exit::{Exit, Failure};
use crate::output::Progress;
use crate::sentences::{self, Said};
use crate::shape::RequestShape;
use crate::verb::check::{self, Checked};
use node::artifact::compare::{self, Side};
use node::client::get::{Delivered, Got, Patience, Stage};
use node::client::wish::Wish;
use protocol::request::Conditions;
use protocol::tree::{CHUNK_BYTES, TreePath};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between the end of one build and the start of the next: so that both see another second, and show it if they write it down.
const NEXT_SECOND: Duration = Duration::from_millis(1_100);

pub(super) async fn run(
    place: &Place,
    args: &RequestArgs,
    wish: Wish,
    (settled, lent): (&Settled, &Lent),
    started: Instant,
) -> Result<Exit, Failure> {
    let footing = Footing::find(place, Patience::Wait, lent).await?;
    let checked = both(place, args, &footing, wish, settled, started).await;
    footing.leave(place).await;
    checked
}

async fn both(
    place: &Place,
    args: &RequestArgs,
    footing: &Footing,
    mut wish: Wish,
    settled: &Settled,
    started: Instant,
) -> Result<Exit, Failure> {
    let commit = settled.choose_commit(&mut wish, footing.session(), &place.output).await?;
    let aside = tempfile::tempdir_in(place.home.path())?;
    let mut delivered: Vec<Box<Delivered>> = Vec::new();
    for (conditions, folder) in
        [(Conditions::Usual, args.output.clone()), (Conditions::Other, Some(aside.path().join("other")))]
    {
        if conditions == Conditions::Other {
            tokio::time::sleep(NEXT_SECOND).await;
        }
        let wish = Wish { conditions, ..wish.clone() };
        let asked = Asked { wish: &wish, source: settled.handed_over.clone(), patience: Patience::Wait, folder };
        let progress = place.output.progress();
        let (went, seen) = errand::carry(footing, asked, &place.stop, |stage| show(&progress, conditions, stage)).await;
        drop(progress);
        let failure = match went {
            Went::Got(Got::Delivered(done)) => {
                delivered.push(done);
                continue;
            }
            Went::Got(Got::Ended { request, ended, .. }) => {
                let said = sentences::ended(&ended, request);
                let what = format!("in {} conditions: {}", check::name(conditions), said.what);
                Failure::new(Exit::from(&ended), Said { what, next: said.next })
            }
            Went::Got(Got::Detached { .. }) => unreachable!("it was to be waited for"),
            Went::Failed(failure) => failure,
            Went::Interrupted => footing.interrupt(seen.request.as_slice()).await,
        };
        let known = RequestShape { commit, ..seen.shape };
        return check::broken_off(&place.output, &failure, known, started.elapsed());
    }
    let [first, second] = <[Box<Delivered>; 2]>::try_from(delivered).map_err(|_| {
        Failure::new(Exit::Infrastructure, Said::new("two builds were asked for, and two were not made"))
    })?;
    let read = |side, path: &TreePath, nr| match side {
        Side::First => chunk(&first.folder, path, nr),
        Side::Second => chunk(&second.folder, path, nr),
    };
    let differences = compare::differences(&first.delivery.manifest, &second.delivery.manifest, read)?;
    let files = errand::files_of(&first.folder, &first.delivery)?;
    let checked =
        Checked { first: RequestShape { commit, ..errand::shape_of(&first) }, second: second.manifest, differences };
    check::finished(&place.output, checked, &first.folder, files, started.elapsed())
}

fn show(progress: &Progress, conditions: Conditions, stage: &Stage) {
    match stage {
        Stage::Seen { request, view } if view.ended_at.is_none() => {
            let sentence = sentences::standing(view, *request);
            progress.waiting(&format!("{} in {} conditions: {sentence}", view.recipe, check::name(conditions)));
        }
        Stage::Fetching(fetched) => progress.transfer("fetching", fetched.done_bytes, fetched.total_bytes),
        Stage::Signed { .. } | Stage::Submitted { .. } | Stage::Seen { .. } => {}
    }
}

/// One chunk of a file on disk.
fn chunk(folder: &Path, path: &TreePath, nr: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(folder.join(path.as_str()))?;
    file.seek(SeekFrom::Start(nr * CHUNK_BYTES))?;
    let mut bytes = Vec::new();
    file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
