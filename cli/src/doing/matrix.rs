//! `node request --matrix`: every combination of some options, asked for side by side.

use super::alone::Lent;
use super::errand::{self, Asked, Went};
use super::footing::Footing;
use super::source::Settled;
use super::{Place, failure};
use crate::args::{Chosen, RequestArgs, combinations};
use crate::exit::{Exit, Failure};
use crate::output::Board;
use crate::sentences::{self, Said};
use crate::shape::{CommitShape, RequestShape};
use crate::verb;
use crate::verb::matrix::{self, Cell, End};
use futures::{StreamExt as _, stream};
use node::client::get::{Got, Patience, Stage};
use node::client::wish::Wish;
use protocol::farm::explain::HowBuilt;
use protocol::id::RequestId;
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Requests that one command waits for at the same time: enough for the volunteers of a large farm.
const AT_ONCE: usize = 32;

/// Everything that all combinations share.
pub(super) struct Order<'a> {
    pub(super) place: &'a Place,
    pub(super) args: &'a RequestArgs,
    pub(super) settled: &'a Settled,
    pub(super) lent: &'a Lent,
    pub(super) patience: Patience,
    pub(super) started: Instant,
}

pub(super) async fn run(order: Order<'_>, wish: impl Fn(&[Chosen]) -> Wish) -> Result<Exit, Failure> {
    let chosen = combinations(&order.args.matrix);
    let wishes: Vec<Wish> = chosen.iter().map(|chosen| wish(chosen)).collect();
    // A combination that the recipe excludes is told in its row; a command of which nothing can be built is refused.
    let mut excluded: Vec<Option<Failure>> =
        wishes.iter().map(|wish| wish.spec().err().map(|error| failure::of_wish(&error))).collect();
    if let Some(Some(first)) = excluded.first().filter(|_| excluded.iter().all(Option::is_some)) {
        return Err(first.clone());
    }
    let names: Vec<String> = chosen.iter().map(|chosen| matrix::name(chosen)).collect();
    let folders = order.args.output.as_ref().map(|root| matrix::folders(root, &names));
    let footing = Footing::find(order.place, order.patience, order.lent).await?;
    let board = order.place.output.board(&names);
    // What an interruption leaves behind.
    let submitted = RefCell::new(Vec::new());
    let carried = stream::iter(wishes.iter().enumerate())
        .map(|(at, wish)| {
            let (order, footing, board, submitted) = (&order, &footing, &board, &submitted);
            let folder = folders.as_ref().and_then(|folders| folders.get(at).cloned());
            let excluded = excluded[at].take();
            async move {
                if let Some(failure) = excluded {
                    board.set(at, &failure.said.what);
                    return broken_off(failure, RequestShape::default());
                }
                board.set(at, "asking");
                one(order, footing, wish, folder, |stage| {
                    if let Stage::Submitted { request } = stage {
                        submitted.borrow_mut().push(*request);
                    }
                    show(board, at, stage);
                })
                .await
            }
        })
        .buffered(AT_ONCE);
    let ends: Vec<End> = carried.collect().await;
    drop(board);
    let cells = chosen.iter().zip(names).zip(ends).map(|((chosen, name), end)| Cell::new(chosen, name, end)).collect();
    let interrupted = if order.place.stop.is_cancelled() {
        let left: Vec<RequestId> = submitted.take();
        Some(footing.interrupt(&left).await)
    } else {
        None
    };
    let shown = matrix::finished(&order.place.output, cells, interrupted, order.started.elapsed());
    footing.leave(order.place).await;
    shown
}

/// Carries one combination to its end.
async fn one(
    order: &Order<'_>,
    footing: &Footing,
    wish: &Wish,
    folder: Option<PathBuf>,
    show: impl FnMut(&Stage),
) -> End {
    let begun = Instant::now();
    let mut wish = wish.clone();
    let commit = tokio::select! {
        biased;
        commit = order.settled.choose_commit(&mut wish, footing.session(), &order.place.output) => match commit {
            Ok(commit) => commit,
            Err(failure) => return broken_off(failure, RequestShape::default()),
        },
        () = order.place.stop.cancelled() => CommitShape::default(),
    };
    let source = order.settled.handed_over.clone();
    let asked = Asked { wish: &wish, source, patience: order.patience, folder };
    let (went, seen) = errand::carry(footing, asked, &order.place.stop, show).await;
    let end = match went {
        Went::Got(got) => ended(got, begun.elapsed()),
        Went::Failed(failure) => broken_off(failure, seen.shape),
        Went::Interrupted => broken_off(Failure::new(Exit::Interrupted, Said::new("interrupted")), seen.shape),
    };
    End { shape: RequestShape { commit, ..end.shape }, ..end }
}

fn ended(got: Got, elapsed: Duration) -> End {
    match got {
        Got::Delivered(delivered) => {
            let shape = errand::shape_of(&delivered);
            let files = match errand::files_of(&delivered.folder, &delivered.delivery) {
                Ok(files) => files,
                Err(failure) => return broken_off(failure, shape),
            };
            let outcome = match delivered.how {
                HowBuilt::Built => "built",
                HowBuilt::Cached => "already built",
            };
            End {
                exit: Exit::Done,
                outcome: outcome.to_owned(),
                said: None,
                folder: Some(delivered.folder.clone()),
                elapsed: Some(elapsed),
                shape: RequestShape { files: Some(files), ..shape },
            }
        }
        Got::Detached { request, build_key } => End {
            exit: Exit::Done,
            outcome: format!("left as {}", request.short()),
            said: None,
            folder: None,
            elapsed: None,
            shape: RequestShape {
                request: Some(request.to_string()),
                build_key: Some(build_key.to_string()),
                ..RequestShape::default()
            },
        },
        Got::Ended { request, view, ended } => End {
            exit: Exit::from(&ended),
            outcome: matrix::kind(&ended).to_owned(),
            said: Some(sentences::ended(&ended, request)),
            folder: None,
            elapsed: Some(elapsed),
            shape: verb::request::failed_shape(request, &view, &ended, elapsed),
        },
    }
}

/// What did not come to an end, with all that is known of it.
fn broken_off(failure: Failure, known: RequestShape) -> End {
    End {
        exit: failure.exit,
        outcome: if failure.exit == Exit::Usage { "left out" } else { "broken off" }.to_owned(),
        shape: RequestShape { reason: Some(failure.said.what.clone()), ..known },
        said: Some(failure.said),
        folder: None,
        elapsed: None,
    }
}

fn show(board: &Board, at: usize, stage: &Stage) {
    match stage {
        Stage::Signed { .. } => {}
        Stage::Submitted { .. } => board.set(at, "submitted"),
        Stage::Seen { request, view } => board.set(at, &sentences::standing(view, *request)),
        Stage::Fetching(_) => board.set(at, "fetching"),
    }
}
