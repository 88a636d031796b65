//! `node fetch`: by request, by build key, or by manifest.

use super::{Place, destination, errand, failure};
use crate::args::FetchArgs;
use crate::exit::{Exit, Failure};
use crate::sentences::{self, Said};
use crate::shape::{CommitShape, Outcome, RequestShape};
use crate::verb;
use node::artifact::transfer::{Progress, Sink};
use node::client::find::{Found, Search};
use node::client::member::Member;
use node::client::order::OrderError;
use protocol::digest::Digest;
use protocol::farm::explain::{Ended, Explanation};
use protocol::id::{BuildKey, ManifestId};
use protocol::wire::{Answer, Control};
use std::path::PathBuf;
use std::time::Instant;
use tokio::sync::watch;

pub(super) async fn run(place: &Place, args: FetchArgs) -> Result<Exit, Failure> {
    let started = Instant::now();
    destination::check(args.output.as_deref())?;
    let member = place.join().await?;
    let done = fetch(place, &args, &member, started).await;
    member.leave().await;
    done
}

async fn fetch(place: &Place, args: &FetchArgs, member: &Member, started: Instant) -> Result<Exit, Failure> {
    let session = &member.session;
    let mut shape = RequestShape::default();
    let mut recipe = "build".to_owned();
    // A peer may still hold an earlier build of the same key, which did not meet what this request demanded.
    let mut ended_with: Option<ManifestId> = None;
    let mut key = args.what.as_str().parse::<Digest>().ok().map(BuildKey);
    let looked = session.look(args.what.request()).await;
    if let Ok((request, view)) = &looked {
        let request = *request;
        shape = RequestShape::of(request, view);
        recipe.clone_from(&view.recipe);
        match &view.explanation {
            Explanation::Ended(Ended::Built { manifest, .. }) => {
                key = Some(view.build_key);
                ended_with = Some(*manifest);
            }
            Explanation::Ended(ended) => {
                let commit = CommitShape::default();
                return verb::request::failed(&place.output, request, view, ended, commit, started.elapsed());
            }
            _ => {
                let what = format!("not built yet: {}", sentences::standing(view, request));
                let next = format!("follow it with `node logs --follow {}`", request.short());
                return Err(Failure::new(Exit::Policy, Said::with_next(what, next)));
            }
        }
    } else if key.is_none() {
        key = by_prefix(member, args.what.as_str(), &mut recipe).await;
    }
    let Some(key) = key else {
        return Err(match looked {
            Err(error) if error != OrderError::Unknown => failure::of_order(&error),
            _ => unknown(),
        });
    };
    let (progress, _) = watch::channel(Progress::default());
    let folder =
        |recipe: &str, key: BuildKey| args.output.clone().unwrap_or_else(|| verb::request::default_folder(recipe, key));
    match session.find_such(key, |verdict| ended_with.is_none_or(|manifest| verdict.manifest == manifest)).await {
        Search::Found(found) => {
            let folder = folder(&recipe, key);
            let sink = Sink::Folder(folder.clone());
            let delivery =
                session.deliver(&found, sink, progress).await.map_err(|error| failure::of_transfer(&error))?;
            let files = errand::files_of(&folder, &delivery)?;
            verb::fetch::show(&place.output, with_verdict(shape, &found), &folder, files, started.elapsed())
        }
        Search::NotBuilt | Search::NobodyKnows => {
            by_manifest(place, member, ManifestId(key.0), folder(&recipe, key), shape, started).await
        }
    }
}

/// The build or manifest that the farm's list knows under these leading digits.
async fn by_prefix(member: &Member, prefix: &str, recipe: &mut String) -> Option<BuildKey> {
    let Ok((_, Answer::Builds(rows))) = member.session.coordinators.call(Control::Builds).await else { return None };
    let mut matching = rows
        .into_iter()
        .filter(|row| row.build_key.to_string().starts_with(prefix) || row.manifest.to_string().starts_with(prefix));
    let row = matching.next()?;
    recipe.clone_from(&row.recipe);
    matching.next().is_none().then_some(row.build_key)
}

/// What is named is no build key: perhaps it is a manifest, and one of the peers that are here has it.
async fn by_manifest(
    place: &Place,
    member: &Member,
    manifest: ManifestId,
    folder: PathBuf,
    shape: RequestShape,
    started: Instant,
) -> Result<Exit, Failure> {
    let contacts = member.network().peers().await.unwrap_or_default();
    let (progress, _) = watch::channel(Progress::default());
    match member.session.fetch(manifest, contacts, None, Sink::Folder(folder.clone()), progress).await {
        Ok(delivery) => {
            let files = errand::files_of(&folder, &delivery)?;
            let shape = RequestShape { manifest: Some(manifest.to_string()), ..shape };
            verb::fetch::show(&place.output, shape, &folder, files, started.elapsed())
        }
        Err(node::artifact::transfer::TransferError::Sink(error)) => Err(failure::of_transfer(&error.into())),
        Err(_) => Err(unknown()),
    }
}

fn with_verdict(shape: RequestShape, found: &Found) -> RequestShape {
    let verdict = &found.verified.verdict;
    RequestShape {
        build_key: Some(verdict.build_key.to_string()),
        outcome: shape.outcome.or(Some(Outcome::Cached)),
        manifest: Some(verdict.manifest.to_string()),
        volunteer: found.verified.reports.first().map(|(volunteer, _)| volunteer.to_string()),
        ..shape
    }
}

fn unknown() -> Failure {
    let said = Said::with_next(
        "nothing of this name is known or held by anybody who answers",
        "`node builds` lists what is built",
    );
    Failure::new(Exit::Infrastructure, said)
}
