//! `node request`.

use super::alone::{self, Begun, OTHERS_LOOK};
use super::{Place, failure};
use crate::args::{PlatformArg, RecipeArg, RequestArgs, SourceArg};
use crate::exit::{Exit, Failure};
use crate::output::Progress;
use crate::sentences::{self, Said};
use crate::shape::{FileShape, RequestShape};
use crate::verb;
use node::artifact::import::{self, Imported};
use node::artifact::upload::Uploads;
use node::catalogue;
use node::chance::Chance;
use node::client::deliver::Delivery;
use node::client::get::{Delivered, Errand, Got, Patience, Stage};
use node::client::member::Member;
use node::client::session::{JoinError, Session};
use node::client::wish::Wish;
use node::home::HomeError;
use protocol::farm::explain::HowBuilt;
use protocol::id::RequestId;
use protocol::platform::Require;
use protocol::recipe::Recipe;
use protocol::request::{Demand, Freshness};
use std::path::{Path, PathBuf};
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
    let recipe = recipe_of(&args.recipe)?;
    let source = tokio::select! {
        biased;
        source = source_of(args.source.as_ref()) => source?,
        () = place.stop.cancelled() => return Err(interrupted(Alone::No, None)),
    };
    let wish = wish_of(&args, recipe, source.as_deref());
    wish.spec().map_err(|error| failure::of_wish(&error))?;
    let until = Instant::now() + OTHERS_WITHIN;
    let node = loop {
        match join_or_none(place, until).await {
            Ok(member) if args.detach && place.is_farm_of_one().map_err(failure::of_home)? => {
                // It leaves with its last client: what was left with it would wait for nobody.
                member.leave().await;
                return Err(Failure::new(Exit::Unreachable, sentences::detach_needs_a_farm()));
            }
            Ok(member) => {
                let ask = Ask { place, args: &args, wish: &wish, source, started };
                let done = ask.run(&member.session, &member.uploads, Alone::No).await;
                member.leave().await;
                return done;
            }
            Err(JoinError::NoFarm) if args.detach => {
                return Err(Failure::new(Exit::Unreachable, sentences::detach_needs_a_farm()));
            }
            Err(JoinError::NoFarm) => match alone::start(place).await? {
                Begun::Farm(node) => break node,
                Begun::ByAnother if Instant::now() < until => {}
                Begun::ByAnother => return Err(failure::of_home(HomeError::InUse(place.home.path().to_owned()))),
            },
            Err(_) if place.stop.is_cancelled() => return Err(interrupted(Alone::No, None)),
            Err(error) => return Err(failure::of_join(&error)),
        }
    };
    let session = node.session().map_err(|error| failure::of_join(&error))?;
    let ask = Ask { place, args: &args, wish: &wish, source, started };
    let done = ask.run(&session, node.uploads(), Alone::Yes).await;
    alone::end(place, *node).await;
    done
}

/// Joins the farm; [`JoinError::NoFarm`] when none is known and nobody is about to be one in this home.
async fn join_or_none(place: &Place, until: Instant) -> Result<Member, JoinError> {
    loop {
        let error = match place.try_join().await {
            Ok(member) => return Ok(member),
            Err(error) => error,
        };
        let in_use = || matches!(place.home.lock(), Err(HomeError::InUse(_)));
        let passing = match &error {
            // A farm of one begins: it says where it serves as soon as it does.
            JoinError::NoFarm => in_use(),
            // A farm of one ended while it was being called.
            JoinError::Unreachable { .. } if place.is_farm_of_one()? => place.home.daemon()?.is_none() || !in_use(),
            _ => false,
        };
        if !passing || place.stop.is_cancelled() || Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(OTHERS_LOOK).await;
    }
}

/// Whether this command is its own farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alone {
    Yes,
    No,
}

struct Ask<'a> {
    place: &'a Place,
    args: &'a RequestArgs,
    wish: &'a Wish,
    source: Option<Arc<Imported>>,
    started: Instant,
}

impl Ask<'_> {
    async fn run(self, session: &Session, uploads: &Uploads, alone: Alone) -> Result<Exit, Failure> {
        let errand = Errand {
            session,
            uploads,
            wish: self.wish,
            source: self.source.clone(),
            patience: if self.args.detach { Patience::Detach } else { Patience::Wait },
            folder: self.args.output.clone(),
        };
        let progress = self.place.output.progress();
        let mut seen = Seen::default();
        let chance = Chance::from_os();
        let got = {
            let mut show = |stage| seen.show(&progress, stage);
            tokio::select! {
                biased;
                () = self.place.stop.cancelled() => None,
                got = errand.run(&chance, &mut show) => Some(got),
            }
        };
        drop(progress);
        match got {
            None => {
                if let (Alone::Yes, Some(request)) = (alone, seen.request) {
                    take_back(session, request).await;
                }
                self.broken_off(&interrupted(alone, seen.request), seen)
            }
            Some(Ok(got)) => self.show(got),
            Some(Err(error)) => self.broken_off(&failure::of_get(&error), seen),
        }
    }

    fn show(&self, got: Got) -> Result<Exit, Failure> {
        let (output, elapsed) = (&self.place.output, self.started.elapsed());
        match got {
            Got::Delivered(delivered) => {
                let how = match delivered.how {
                    HowBuilt::Built => "built",
                    HowBuilt::Cached => "found, already built,",
                };
                let files = files_of(&delivered.folder, &delivered.delivery)?;
                verb::request::delivered(output, how, shape_of(&delivered), &delivered.folder, files, elapsed)
            }
            Got::Detached { request, build_key } => verb::request::detached(output, request, build_key, elapsed),
            Got::Ended { request, view, ended } => verb::request::failed(output, request, &view, &ended, elapsed),
        }
    }

    fn broken_off(&self, failure: &Failure, seen: Seen) -> Result<Exit, Failure> {
        verb::request::broken_off(&self.place.output, failure, seen.shape, self.started.elapsed())
    }
}

fn interrupted(alone: Alone, submitted: Option<RequestId>) -> Failure {
    let said = match (alone, submitted) {
        (Alone::Yes, _) => sentences::interrupted_alone(&again()),
        (Alone::No, Some(request)) => sentences::interrupted(request),
        (Alone::No, None) => {
            Said::with_next("interrupted before the farm had the request", format!("ask again: `{}`", again()))
        }
    };
    Failure::new(Exit::Interrupted, said)
}

/// Nobody waits for it any more: left in the queue it would be built first when another command comes to this home.
async fn take_back(session: &Session, request: RequestId) {
    match tokio::time::timeout(TAKE_BACK_WITHIN, session.cancel(request)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the request was not taken back"),
        Err(_) => tracing::debug!("the request was not taken back in time"),
    }
}

/// The same, before a farm of one was there.
pub(super) fn interrupted_alone() -> Failure {
    interrupted(Alone::Yes, None)
}

/// What is known of the request so far.
#[derive(Debug, Default)]
struct Seen {
    request: Option<RequestId>,
    shape: RequestShape,
}

impl Seen {
    fn show(&mut self, progress: &Progress, stage: Stage) {
        match stage {
            Stage::Signed { build_key } => self.shape.build_key = Some(build_key.to_string()),
            Stage::Submitted { request } => {
                self.request = Some(request);
                self.shape.request = Some(request.to_string());
            }
            Stage::Seen { request, view } => {
                self.shape = RequestShape::of(request, &view);
                if view.ended_at.is_none() {
                    verb::request::waiting(progress, request, &view);
                }
            }
            Stage::Fetching(fetched) => progress.transfer("fetching", fetched.done_bytes, fetched.total_bytes),
        }
    }
}

/// The command as it was typed, to be typed again.
fn again() -> String {
    let words: Vec<String> = std::env::args().skip(1).map(|word| shell_word(&word)).collect();
    format!("node {}", words.join(" "))
}

fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn recipe_of(named: &RecipeArg) -> Result<Recipe, Failure> {
    match named {
        RecipeArg::File(path) => verb::recipe::read(path),
        RecipeArg::Catalogue(name) => {
            let found = catalogue::by_name(name.as_str()).cloned();
            found.ok_or_else(|| verb::recipe::unknown(catalogue::all(), name))
        }
    }
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

fn wish_of(args: &RequestArgs, recipe: Recipe, source: Option<&Imported>) -> Wish {
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
        options: args.option.iter().map(|chosen| (chosen.name.to_string(), chosen.value.clone())).collect(),
        source: source.map(|source| source.manifest.id()),
        require: platform.into_iter().chain(args.require.iter().cloned()).collect(),
        addresses: args.email.clone(),
        demand: Demand { agree: args.agree, freshness: if args.fresh { Freshness::Fresh } else { Freshness::Any } },
        priority: args.priority.into(),
        expires: Some(args.expires.0),
    }
}

fn shape_of(delivered: &Delivered) -> RequestShape {
    let known = match (delivered.request, &delivered.view) {
        (Some(request), Some(view)) => RequestShape::of(request, view),
        _ => RequestShape::default(),
    };
    RequestShape {
        build_key: Some(delivered.build_key.to_string()),
        outcome: Some(match delivered.how {
            HowBuilt::Built => crate::shape::Outcome::Built,
            HowBuilt::Cached => crate::shape::Outcome::Cached,
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

fn digest_of(path: &Path) -> Result<protocol::digest::Digest, Failure> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let mut hasher = protocol::digest::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// How long an interrupted command may take to take its request back.
const TAKE_BACK_WITHIN: Duration = Duration::from_secs(2);
/// How long another farm of one in this home may take to begin or to end.
const OTHERS_WITHIN: Duration = Duration::from_secs(30);
