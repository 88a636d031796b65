//! From `--source` and `--revision` to a source that is pinned, and what has to be handed over for it.
//!
//! Names are looked up here, before anything is compared: a branch becomes the commit that it is now. A repository and a pinned
//! archive are left to the volunteers to fetch; folders, files and whatever is put together of several go to the farm.

use super::failure;
use crate::args::{FetchingArgs, RequestArgs, SourcePlace};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::sentences::{self, Said};
use crate::shape::CommitShape;
use node::artifact::import::{self, Imported};
use node::client::session::Session;
use node::client::wish::Wish;
use node::source::archive::{self, Pinned};
use node::source::git::{Remote, TreeError};
use node::source::{FetchRules, PrivateSources};
use protocol::digest::Digest;
use protocol::recipe::{Recipe, SourceRule, SpecError};
use protocol::request::Source;
use protocol::source::{Commit, HttpsUrl, Revision};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// The largest file of certificate authorities: several times what systems have.
const MAX_CA_BYTES: u64 = 2 << 20;

/// What a request is built from.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// For the wish; `None` where the recipe brings its own.
    pub(super) source: Option<Source>,
    /// What the farm is to take over.
    pub(super) handed_over: Option<Arc<Imported>>,
    /// The commits whose builds will do, the one that was named first; one only where nothing was said of others.
    pub(super) commits: Vec<Commit>,
}

impl Settled {
    /// Turns `wish` to the nearest commit that is built, where others than the one that was named will do.
    pub(super) async fn choose_commit(
        &self,
        wish: &mut Wish,
        session: &Session,
        output: &Output,
    ) -> Result<CommitShape, Failure> {
        let Some(Source::Git { url, commit }) = wish.source.clone() else { return Ok(CommitShape::default()) };
        let mut back = 0;
        if self.commits.len() > 1 {
            let mut keys = Vec::new();
            for commit in &self.commits {
                let source = Some(Source::Git { url: url.clone(), commit: commit.clone() });
                let spec = Wish { source, ..wish.clone() }.spec().map_err(|error| failure::of_wish(&error))?;
                keys.push(spec.key());
            }
            back = session.first_built(&keys).await.unwrap_or(0);
        }
        let commit = self.commits.get(back).cloned().unwrap_or(commit);
        if back > 0 {
            output.say(&sentences::older_commit(&commit, back));
        }
        let shape = CommitShape { commit: Some(commit.to_string()), commits_back: u32::try_from(back).ok() };
        wish.source = Some(Source::Git { url, commit });
        Ok(shape)
    }
}

/// How sources are fetched, by the flags of whoever fetches.
pub(super) fn rules(args: &FetchingArgs) -> Result<FetchRules, Failure> {
    let private = if args.allow_private_sources { PrivateSources::Allowed } else { PrivateSources::Refused };
    let extra_ca_pem = args.source_ca.as_deref().map(authorities).transpose()?;
    Ok(FetchRules { private, extra_ca_pem, ..FetchRules::default() })
}

fn authorities(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |what: String| {
        let said = Said::with_next(what, "`--source-ca FILE` takes certificates in PEM form");
        Failure::new(Exit::Usage, said)
    };
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CA_BYTES).read_to_end(&mut pem));
    read.map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))?;
    if String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        Ok(pem)
    } else {
        Err(wrong(format!("{} holds no certificate", path.display())))
    }
}

/// Finds out what `args` name for this recipe.
pub(super) async fn settle(
    output: &Output,
    args: &RequestArgs,
    recipe: &Recipe,
    rules: &FetchRules,
) -> Result<Settled, Failure> {
    let Some((first, further)) = args.source.split_first() else {
        return of_recipe(output, args, recipe, rules).await;
    };
    if !recipe.source().takes_another() {
        let refused = SpecError::SourceRefused { recipe: recipe.name().clone() };
        return Err(failure::of_wish(&refused.into()));
    }
    if !further.is_empty() {
        let first = whole(output, args, &first.place, args.revision.as_ref(), rules).await?;
        let mut others = Vec::new();
        for source in further {
            let Some(below) = source.below.clone() else { continue };
            others.push((below, whole(output, args, &source.place, None, rules).await?));
        }
        let united = import::together(first, others).map_err(|error| unusable("the sources together", &error))?;
        return Ok(handed_over(united));
    }
    match &first.place {
        SourcePlace::Path(path) => Ok(handed_over(imported(output, path).await?)),
        SourcePlace::Archive { url, digest } => {
            let source = pinned(url, *digest, rules).await?;
            Ok(Settled { source: Some(source), ..Settled::default() })
        }
        place => {
            let url = repository(args, place)?;
            git(output, url, args.revision.as_ref(), args.within, rules).await
        }
    }
}

/// The recipe's own source.
async fn of_recipe(
    output: &Output,
    args: &RequestArgs,
    recipe: &Recipe,
    rules: &FetchRules,
) -> Result<Settled, Failure> {
    match recipe.source() {
        SourceRule::Git { url, revision, .. } => {
            let named = args.revision.as_ref().or(revision.as_ref());
            match recipe.source().pinned().filter(|_| args.revision.is_none() && args.within.is_none()) {
                Some(source) => Ok(Settled { source: Some(source), ..Settled::default() }),
                None => git(output, url, named, args.within, rules).await,
            }
        }
        _ if args.revision.is_some() || args.within.is_some() => {
            let what = format!(
                "recipe `{}` does not build from a git repository, so there is no revision to name",
                recipe.name()
            );
            let next = "give a repository with `--source https://….git`, or leave `--revision` and `--within` out";
            Err(Failure::new(Exit::Usage, Said::with_next(what, next)))
        }
        _ => Ok(Settled::default()),
    }
}

/// A repository at the commit that `revision` means now.
async fn git(
    output: &Output,
    url: &HttpsUrl,
    revision: Option<&Revision>,
    within: Option<u32>,
    rules: &FetchRules,
) -> Result<Settled, Failure> {
    let (mut remote, commit) = resolved(output, url, revision, rules).await?;
    let commits = match within {
        Some(count) => remote.history(&commit, count).await.map_err(|error| failure::of_fetch(url.as_str(), &error))?,
        None => vec![commit.clone()],
    };
    Ok(Settled { source: Some(Source::Git { url: url.clone(), commit }), handed_over: None, commits })
}

async fn resolved(
    output: &Output,
    url: &HttpsUrl,
    revision: Option<&Revision>,
    rules: &FetchRules,
) -> Result<(Remote, Commit), Failure> {
    let remote = Remote::open(rules, url).await;
    let mut remote = remote.map_err(|error| failure::of_fetch(url.as_str(), &error))?;
    let resolved = remote.resolve(revision).await.map_err(|error| failure::of_resolve(url, &error))?;
    let name = resolved.name.map(|name| format!("`{name}` of ")).unwrap_or_default();
    output.say(&format!("{name}{url} is at {}", resolved.commit));
    Ok((remote, resolved.commit))
}

/// A source with all its files, to be put together with others.
async fn whole(
    output: &Output,
    args: &RequestArgs,
    place: &SourcePlace,
    revision: Option<&Revision>,
    rules: &FetchRules,
) -> Result<Imported, Failure> {
    match place {
        SourcePlace::Path(path) => imported(output, path).await,
        SourcePlace::Archive { url, digest } => {
            let Source::Archive { size, .. } = pinned(url, *digest, rules).await? else { return Err(unpinned(url)) };
            let progress = output.progress();
            let mut told = |at: node::source::Progress| progress.transfer("fetching", at.received, size);
            let fetched = archive::fetch(rules, url.as_str(), Pinned { digest: *digest, size }, &mut told).await;
            let archive = fetched.map_err(|error| failure::of_fetch(url.as_str(), &error))?;
            import::import_archive(archive.file.path()).await.map_err(|error| unusable(url.as_str(), &error))
        }
        place => {
            let url = repository(args, place)?;
            let (remote, commit) = resolved(output, url, revision, rules).await?;
            remote.files(&commit, &mut |_| {}).await.map_err(|error| match error {
                TreeError::Fetch(error) => failure::of_fetch(url.as_str(), &error),
                TreeError::Import(error) => unusable(url.as_str(), &error),
            })
        }
    }
}

/// The repository that a place is, if it is one.
fn repository<'a>(args: &RequestArgs, place: &'a SourcePlace) -> Result<&'a HttpsUrl, Failure> {
    match place {
        SourcePlace::Git(url) => Ok(url),
        SourcePlace::Url(url) if args.revision.is_some() || args.within.is_some() => Ok(url),
        SourcePlace::Url(url) | SourcePlace::Archive { url, .. } => Err(unpinned(url)),
        SourcePlace::Path(path) => Err(unusable(&path.display().to_string(), &"it is no repository")),
    }
}

fn unpinned(url: &HttpsUrl) -> Failure {
    let what = format!("`{url}` may hold something else tomorrow: an https archive is pinned by its digest");
    let next = format!(
        "write `--source {url}#sha256=HEX`, with the digits that its publisher names or `sha256sum` prints; for a git \
         repository write `--source git+{url}`"
    );
    Failure::new(Exit::Usage, Said::with_next(what, next))
}

/// An archive that its digest names; its length is what its server says.
async fn pinned(url: &HttpsUrl, digest: Digest, rules: &FetchRules) -> Result<Source, Failure> {
    let size = archive::length(rules, url.as_str()).await;
    let size = size.map_err(|error| failure::of_fetch(url.as_str(), &error))?;
    Ok(Source::Archive { digest, size, url: url.to_string() })
}

async fn imported(output: &Output, path: &Path) -> Result<Imported, Failure> {
    let shown = path.display().to_string();
    let is_folder = std::fs::metadata(path).map_err(|error| unusable(&shown, &error))?.is_dir();
    let imported = if is_folder { import::import_directory(path).await } else { import::import_archive(path).await };
    let imported = imported.map_err(|error| unusable(&shown, &error))?;
    match imported.left_out {
        0 => {}
        1 => output.say(&format!("{shown}: 1 entry is left out, as `.gitignore` or version control has it")),
        count => {
            output.say(&format!("{shown}: {count} entries are left out, as `.gitignore` or version control has it"))
        }
    }
    Ok(imported)
}

fn handed_over(imported: Imported) -> Settled {
    let source = Some(Source::Tree(imported.manifest.id()));
    Settled { source, handed_over: Some(Arc::new(imported)), commits: Vec::new() }
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> Failure {
    let said = Said::with_next(
        format!("the source {what} cannot be used: {error}"),
        "give a directory, or an archive: tar, tar.gz, tar.bz2, tar.xz, tar.zst or zip",
    );
    Failure::new(Exit::Usage, said)
}
