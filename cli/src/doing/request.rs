//! `node request`.

use super::alone::Lent;
use super::errand::{self, Asked, Seen, Went};
use super::footing::Footing;
use super::interruption::{Alone, interrupted};
use super::{Place, check, destination, failure, matrix, serve, source};
use crate::args::{Chosen, PlatformArg, RequestArgs};
use crate::exit::{Exit, Failure};
use crate::output::Progress;
use crate::sentences;
use crate::shape::{CommitShape, RequestShape};
use crate::verb;
use node::client::get::{Got, Patience, Stage};
use node::client::wish::Wish;
use protocol::farm::explain::HowBuilt;
use protocol::platform::Require;
use protocol::recipe::Recipe;
use protocol::request::{Conditions, Demand, Freshness, Source};
use std::time::{Duration, Instant};

pub(super) async fn run(place: &Place, args: RequestArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    let recipe = verb::recipe::named(&args.recipe)?;
    let rules = source::rules(&args.fetching)?;
    if !args.detach {
        destination::check(args.output.as_deref())?;
    }
    let settled = tokio::select! {
        biased;
        settled = source::settle(&place.output, &args, &recipe, &rules) => settled?,
        () = place.stop.cancelled() => return Err(interrupted(Alone::No, &[])),
    };
    if let Some(said) = sentences::agreement(&recipe, args.agree) {
        place.output.say(&said);
    }
    let lent = Lent { fetch: rules, tools: serve::offered(&args.tool) };
    let wish = |more: &[Chosen]| wish_of(&args, recipe.clone(), settled.source.clone(), more);
    let patience = if args.detach { Patience::Detach } else { Patience::Wait };
    if !args.matrix.is_empty() {
        let order = matrix::Order { place, args: &args, settled: &settled, lent: &lent, patience, started };
        return matrix::run(order, wish).await;
    }
    let mut wish = wish(&[]);
    wish.spec().map_err(|error| failure::of_wish(&error))?;
    if args.check {
        return check::run(place, &args, wish, (&settled, &lent), started).await;
    }
    let footing = Footing::find(place, patience, &lent).await?;
    let commit = tokio::select! {
        biased;
        commit = settled.choose_commit(&mut wish, footing.session(), &place.output) => commit?,
        () = place.stop.cancelled() => CommitShape::default(),
    };
    let asked = Asked { wish: &wish, source: settled.handed_over.clone(), patience, folder: args.output.clone() };
    let progress = place.output.progress();
    let (went, seen) = errand::carry(&footing, asked, &place.stop, |stage| show(&progress, stage)).await;
    drop(progress);
    let shown = match went {
        Went::Got(got) => end(place, got, commit, started.elapsed()),
        Went::Failed(failure) => broken_off(place, &failure, seen, commit, started.elapsed()),
        Went::Interrupted => {
            let failure = footing.interrupt(seen.request.as_slice()).await;
            broken_off(place, &failure, seen, commit, started.elapsed())
        }
    };
    footing.leave(place).await;
    shown
}

fn show(progress: &Progress, stage: &Stage) {
    match stage {
        Stage::Seen { request, view } if view.ended_at.is_none() => verb::request::waiting(progress, *request, view),
        Stage::Fetching(fetched) => progress.transfer("fetching", fetched.done_bytes, fetched.total_bytes),
        Stage::Signed { .. } | Stage::Submitted { .. } | Stage::Seen { .. } => {}
    }
}

fn end(place: &Place, got: Got, commit: CommitShape, elapsed: Duration) -> Result<Exit, Failure> {
    let output = &place.output;
    match got {
        Got::Delivered(delivered) => {
            let how = match delivered.how {
                HowBuilt::Built => "built",
                HowBuilt::Cached => "found, already built,",
            };
            let files = errand::files_of(&delivered.folder, &delivered.delivery)?;
            let shape = RequestShape { commit, ..errand::shape_of(&delivered) };
            verb::request::delivered(output, how, shape, &delivered.folder, files, elapsed)
        }
        Got::Detached { request, build_key } => verb::request::detached(output, request, build_key, commit, elapsed),
        Got::Ended { request, view, ended } => verb::request::failed(output, request, &view, &ended, commit, elapsed),
    }
}

fn broken_off(
    place: &Place,
    failure: &Failure,
    seen: Seen,
    commit: CommitShape,
    elapsed: Duration,
) -> Result<Exit, Failure> {
    verb::request::broken_off(&place.output, failure, RequestShape { commit, ..seen.shape }, elapsed)
}

/// What is wanted, with these options beside those of the command line.
fn wish_of(args: &RequestArgs, recipe: Recipe, source: Option<Source>, more: &[Chosen]) -> Wish {
    let platform = match &args.platform {
        Some(platform) => platform.requires().to_vec(),
        // Whoever says nothing wants what runs here, as far as the recipe leaves that open.
        None => {
            let asked = recipe.requirement();
            let is_open = |require: &Require| asked.iter().all(|(key, _)| key != require.key);
            PlatformArg::here().requires().into_iter().filter(is_open).collect()
        }
    };
    Wish {
        recipe,
        options: args.option.iter().chain(more).map(|chosen| (chosen.name.to_string(), chosen.value.clone())).collect(),
        source,
        require: platform.into_iter().chain(args.require.iter().cloned()).collect(),
        addresses: args.email.clone(),
        demand: Demand { agree: args.agree, freshness: if args.fresh { Freshness::Fresh } else { Freshness::Any } },
        conditions: Conditions::Usual,
        priority: args.priority.into(),
        expires: Some(args.expires.0),
    }
}
