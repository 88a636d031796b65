//! `node request`.

use super::errand::{self, Asked, Seen, Went};
use super::footing::{self, Alone, Footing};
use super::{Place, check, failure, matrix};
use crate::args::{Chosen, PlatformArg, RequestArgs, SourceArg};
use crate::exit::{Exit, Failure};
use crate::output::Progress;
use crate::sentences::{self, Said};
use crate::verb;
use node::artifact::import::{self, Imported};
use node::client::get::{Got, Patience, Stage};
use node::client::wish::Wish;
use protocol::farm::explain::HowBuilt;
use protocol::platform::Require;
use protocol::recipe::Recipe;
use protocol::request::{Conditions, Demand, Freshness};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) async fn run(place: &Place, args: RequestArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    if args.revision.is_some() {
        let what = "`--revision` names a commit of a git source, and this version takes directories and archives only";
        return Err(Failure::new(
            Exit::Usage,
            Said::with_next(what, "check the revision out and give the folder with `--source DIR`"),
        ));
    }
    let recipe = verb::recipe::named(&args.recipe)?;
    let source = tokio::select! {
        biased;
        source = source_of(args.source.as_ref()) => source?,
        () = place.stop.cancelled() => return Err(footing::interrupted(Alone::No, &[])),
    };
    if let Some(said) = sentences::agreement(&recipe, args.agree) {
        place.output.say(&said);
    }
    let wish = |more: &[Chosen]| wish_of(&args, recipe.clone(), source.as_deref(), more);
    let patience = if args.detach { Patience::Detach } else { Patience::Wait };
    if !args.matrix.is_empty() {
        let order = matrix::Order { place, args: &args, source: source.clone(), patience, started };
        return matrix::run(order, wish).await;
    }
    let wish = wish(&[]);
    wish.spec().map_err(|error| failure::of_wish(&error))?;
    if args.check {
        return check::run(place, &args, wish, source, started).await;
    }
    let footing = Footing::find(place, patience).await?;
    let asked = Asked { wish: &wish, source, patience, folder: args.output.clone() };
    let progress = place.output.progress();
    let (went, seen) = errand::carry(&footing, asked, &place.stop, |stage| show(&progress, stage)).await;
    drop(progress);
    let shown = match went {
        Went::Got(got) => end(place, got, started.elapsed()),
        Went::Failed(failure) => broken_off(place, &failure, seen, started.elapsed()),
        Went::Interrupted => {
            let failure = footing.interrupt(seen.request.as_slice()).await;
            broken_off(place, &failure, seen, started.elapsed())
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

fn end(place: &Place, got: Got, elapsed: Duration) -> Result<Exit, Failure> {
    let output = &place.output;
    match got {
        Got::Delivered(delivered) => {
            let how = match delivered.how {
                HowBuilt::Built => "built",
                HowBuilt::Cached => "found, already built,",
            };
            let files = errand::files_of(&delivered.folder, &delivered.delivery)?;
            let shape = errand::shape_of(&delivered);
            verb::request::delivered(output, how, shape, &delivered.folder, files, elapsed)
        }
        Got::Detached { request, build_key } => verb::request::detached(output, request, build_key, elapsed),
        Got::Ended { request, view, ended } => verb::request::failed(output, request, &view, &ended, elapsed),
    }
}

fn broken_off(place: &Place, failure: &Failure, seen: Seen, elapsed: Duration) -> Result<Exit, Failure> {
    verb::request::broken_off(&place.output, failure, seen.shape, elapsed)
}

async fn source_of(source: Option<&SourceArg>) -> Result<Option<Arc<Imported>>, Failure> {
    let path = match source {
        None => return Ok(None),
        Some(SourceArg::Path(path)) => path,
        Some(SourceArg::Url(url)) => {
            let said = Said::with_next(
                format!("`{url}`: only a recipe can name an https source, because only a recipe pins its digest"),
                "download it and give the file with `--source FILE`",
            );
            return Err(Failure::new(Exit::Usage, said));
        }
    };
    let wrong = |error: &dyn std::fmt::Display| {
        let said = Said::with_next(
            format!("the source {} cannot be used: {error}", path.display()),
            "give a directory, or a tar.gz, tar.xz or tar.zst archive",
        );
        Failure::new(Exit::Usage, said)
    };
    let is_folder = std::fs::metadata(path).map_err(|error| wrong(&error))?.is_dir();
    let imported = if is_folder { import::import_directory(path).await } else { import::import_archive(path).await };
    imported.map(|imported| Some(Arc::new(imported))).map_err(|error| wrong(&error))
}

/// What is wanted, with these options beside those of the command line.
fn wish_of(args: &RequestArgs, recipe: Recipe, source: Option<&Imported>, more: &[Chosen]) -> Wish {
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
        source: source.map(|source| source.manifest.id()),
        require: platform.into_iter().chain(args.require.iter().cloned()).collect(),
        addresses: args.email.clone(),
        demand: Demand { agree: args.agree, freshness: if args.fresh { Freshness::Fresh } else { Freshness::Any } },
        conditions: Conditions::Usual,
        priority: args.priority.into(),
        expires: Some(args.expires.0),
    }
}
