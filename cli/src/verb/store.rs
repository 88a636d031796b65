//! `node store`: what this machine keeps for the farm.

use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::Said;
use indicatif::HumanBytes;
use protocol::id::ManifestId;
use protocol::owner::{Damage, Part, Place, Pruned, Staying, StoredBuild, Wholeness};
use serde::Serialize;

/// When what is damaged is fetched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mending {
    /// A daemon is at it.
    Now,
    /// When a daemon runs again.
    AtStart,
}

/// A row of `store list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StoredShape {
    pub(crate) build_key: String,
    pub(crate) recipe: String,
    pub(crate) manifest: String,
    pub(crate) size: u64,
    pub(crate) pinned: bool,
    /// Whether the farm, or somebody in it, waits for it.
    pub(crate) needed: bool,
    /// Whether every piece is here.
    pub(crate) whole: bool,
}

/// What a damaged piece belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PlaceShape {
    pub(crate) digest: String,
    pub(crate) build_key: Option<String>,
    pub(crate) recipe: Option<String>,
    pub(crate) manifest: String,
    /// A file of the artifact; null for its list of files and for logs.
    pub(crate) path: Option<String>,
}

/// `store`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StoreShape {
    pub(crate) artifacts: Option<Vec<StoredShape>>,
    /// Digests of what was damaged and put aside.
    pub(crate) damaged: Option<Vec<String>>,
    /// What those are pieces of.
    pub(crate) places: Option<Vec<PlaceShape>>,
    /// Artifacts that were removed.
    pub(crate) removed: Option<u64>,
    /// Bytes that are stored, or were read again or freed.
    pub(crate) bytes: Option<u64>,
    /// The artifact that was pinned or unpinned.
    pub(crate) manifest: Option<String>,
    pub(crate) reason: Option<String>,
}

/// Shows what is stored.
pub(crate) fn list(output: &Output, stored: &[StoredBuild]) -> Result<Exit, Failure> {
    let mut table = Table::new(&["BUILD", "RECIPE", "MANIFEST", "SIZE", "KEEPING"]);
    for build in stored {
        let keeping = match (build.wholeness, build.staying) {
            (Wholeness::Partial, _) => "damaged",
            (Wholeness::Whole, Staying::Pinned) => "pinned",
            (Wholeness::Whole, Staying::Needed) => "waited for",
            (Wholeness::Whole, Staying::Evictable) => "evictable",
        };
        table.row([
            build.build_key.short(),
            build.recipe.clone(),
            build.manifest.short(),
            HumanBytes(build.size_bytes).to_string(),
            keeping.to_owned(),
        ]);
    }
    if table.is_empty() {
        output.say("nothing is stored here yet");
    } else {
        output.answer(&table.text())?;
    }
    let shape = |build: &StoredBuild| StoredShape {
        build_key: build.build_key.to_string(),
        recipe: build.recipe.clone(),
        manifest: build.manifest.to_string(),
        size: build.size_bytes,
        pinned: build.staying == Staying::Pinned,
        needed: build.staying == Staying::Needed,
        whole: build.wholeness == Wholeness::Whole,
    };
    let artifacts = Some(stored.iter().map(shape).collect());
    let bytes = Some(stored.iter().map(|build| build.size_bytes).sum());
    output.object(&StoreShape { artifacts, bytes, ..StoreShape::default() })?;
    Ok(Exit::Done)
}

/// Shows what reading everything again found; damage ends the command with the code of an infrastructure failure.
pub(crate) fn verified(output: &Output, bytes: u64, damaged: &[Damage], mending: Mending) -> Result<Exit, Failure> {
    let read = HumanBytes(bytes);
    let exit = if damaged.is_empty() {
        output.tell(&Said::new(format!("{read} read, nothing is damaged")));
        Exit::Done
    } else {
        let what = match damaged.len() {
            1 => format!("{read} read, one piece is damaged and was put aside"),
            count => format!("{read} read, {count} pieces are damaged and were put aside"),
        };
        let next = match mending {
            Mending::Now => "the daemon fetches it again from other holders: `node store list` shows whether it could",
            Mending::AtStart => "a daemon in this home fetches it again from other holders",
        };
        output.error(&Said::with_next(what, format!("{next}; look at the disk's health")));
        output.answer(&damaged.iter().flat_map(lines).collect::<Vec<_>>().join("\n"))?;
        Exit::Infrastructure
    };
    let places = damaged.iter().flat_map(|damage| damage.places.iter().map(|place| shape(damage, place))).collect();
    output.object(&StoreShape {
        damaged: Some(damaged.iter().map(|damage| damage.digest.to_string()).collect()),
        places: Some(places),
        bytes: Some(bytes),
        ..StoreShape::default()
    })?;
    Ok(exit)
}

/// What a damaged piece belongs to, a line each.
fn lines(damage: &Damage) -> Vec<String> {
    let digest = damage.digest;
    if damage.places.is_empty() {
        return vec![format!("{digest}  a recipe, an archive or a log that nothing here needs")];
    }
    let line = |place: &Place| {
        let of = match (&place.recipe, place.build_key) {
            (Some(recipe), Some(key)) => format!("{recipe} {}", key.short()),
            _ => format!("tree {}", place.manifest.short()),
        };
        match &place.part {
            Part::File(path) => format!("{digest}  {path} of {of}"),
            Part::Manifest => format!("{digest}  the list of files of {of}"),
            Part::Log => format!("{digest}  a log of {of}"),
        }
    };
    damage.places.iter().map(line).collect()
}

fn shape(damage: &Damage, place: &Place) -> PlaceShape {
    PlaceShape {
        digest: damage.digest.to_string(),
        build_key: place.build_key.map(|key| key.to_string()),
        recipe: place.recipe.clone(),
        manifest: place.manifest.to_string(),
        path: match &place.part {
            Part::File(path) => Some(path.clone()),
            Part::Manifest | Part::Log => None,
        },
    }
}

/// Shows how much was removed; what stays because the farm could not be told ends the command as an unreachable farm does.
pub(crate) fn pruned(output: &Output, pruned: Pruned) -> Result<Exit, Failure> {
    let Pruned { artifacts, freed_bytes, unheard, .. } = pruned;
    let removed = match artifacts {
        0 => "nothing".to_owned(),
        1 => "one artifact".to_owned(),
        count => format!("{count} artifacts"),
    };
    output.tell(&Said::new(format!("{removed} removed, {} freed", HumanBytes(freed_bytes))));
    let reason = (unheard > 0).then(|| {
        let stay = if unheard == 1 { "one build stays".to_owned() } else { format!("{unheard} builds stay") };
        format!("{stay}: no coordinator could be told that this machine would lose it")
    });
    if let Some(reason) = &reason {
        output.error(&Said::with_next(reason, "prune again when `node status` reaches a coordinator"));
    }
    let exit = if reason.is_some() { Exit::Unreachable } else { Exit::Done };
    output.object(&StoreShape {
        removed: Some(artifacts),
        bytes: Some(freed_bytes),
        reason,
        ..StoreShape::default()
    })?;
    Ok(exit)
}

/// Shows that an artifact stays.
pub(crate) fn pinned(output: &Output, manifest: ManifestId) -> Result<Exit, Failure> {
    let what = format!("artifact {} stays until it is unpinned", manifest.short());
    output.tell(&Said::with_next(what, format!("`node store unpin {}` lets it go", manifest.short())));
    marked(output, manifest)
}

/// Shows that an artifact stays no longer than others.
pub(crate) fn unpinned(output: &Output, manifest: ManifestId) -> Result<Exit, Failure> {
    output.tell(&Said::new(format!("artifact {} goes when room is needed", manifest.short())));
    marked(output, manifest)
}

fn marked(output: &Output, manifest: ManifestId) -> Result<Exit, Failure> {
    output.object(&StoreShape { manifest: Some(manifest.to_string()), ..StoreShape::default() })?;
    Ok(Exit::Done)
}
