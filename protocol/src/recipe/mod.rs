//! Recipes: how something is built, in words that a stranger may write and a volunteer may run.
//!
//! A recipe is written as TOML ([`Recipe::parse`]) and travels as a blob in canonical CBOR ([`Recipe::encode`]); its
//! [`RecipeId`] is the digest of that blob, so comments and layout of the text change nothing. Whatever way a recipe came,
//! it passed the same checks: every hole names an option, every tool that is run is required, every list and text is
//! bounded, and no step can grow beyond [`MAX_STEP_BYTES`] whatever the options are.
//!
//! A step is a list of words for `execve`. An option fills a hole inside one word or stands for words that the recipe's
//! author listed; no text of a requester is ever split, joined or given to a shell. A volunteer calls [`Recipe::admit`] on
//! what a stranger asks before it runs anything.
//!
//! What holds only for some options or platforms (a step, an output, a [`VariantRule`]) is decided by the build's options and
//! by the platform that its requirement fixes, so the build key decides it. [`Recipe::plan`] puts it together.
//!
//! Nothing here reads files or runs programs. The page `node/recipes/README.md` describes the language for authors.

mod bound;
mod check;
mod clash;
mod condition;
mod draft;
mod draft_option;
mod env;
mod error;
mod files;
mod fill;
pub mod nearest;
mod option;
mod output;
mod pattern;
mod plan;
mod template;
mod wording;

pub use clash::{Clash, ClashKind};
pub use condition::{Condition, ConditionError, MAX_CONDITION_VALUES, MAX_CONDITIONS, PLATFORM_KEYS};
pub use env::Variable;
pub use error::{OverlayError, Place, Position, Problem, RecipeError, RecipeErrors, SpecError};
pub use files::InlineFile;
pub use option::{Choice, Effect, OptionError, OptionRule, Settings, Sort, Spread};
pub use output::{Output, OutputPattern, OutputPatternError, Presence};
pub use pattern::{MAX_CLASSES, MAX_VALUE_BYTES, Pattern, PatternError};
pub use plan::{Ground, MAX_HERE_BYTES, Plan, SmokeTest, Step};
pub use template::{HERE, JOBS, MAX_WORD_BYTES, Word, WordError};

use crate::codec;
use crate::digest::Digest;
use crate::id::RecipeId;
use crate::platform::{Constraint, MAX_KEYS, MAX_TEXT_BYTES, Require, Requirement, Value};
use crate::report::Reproducibility;
use crate::request::{BuildSpec, Conditions, Name, OptionValue, Source};
use crate::source::{HttpsUrl, Revision};
use crate::time::Span;
use crate::tree::TreePath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The language that this program reads.
pub const LANGUAGE: u32 = 1;
/// The largest recipe, as text and as blob, in bytes.
pub const MAX_RECIPE_BYTES: usize = 256 << 10;
/// The most options.
pub const MAX_OPTIONS: usize = 64;
/// The most values of a choice or a list.
pub const MAX_CHOICES: usize = 128;
/// The most variants.
pub const MAX_VARIANTS: usize = 32;
/// The most words that a value stands for.
pub const MAX_CHOICE_WORDS: usize = 32;
/// The most bytes that names and values of all options take in a request, whatever is chosen.
pub const MAX_SETTINGS_BYTES: usize = 4 << 10;
/// The most steps.
pub const MAX_STEPS: usize = 64;
/// The most words of a step.
pub const MAX_WORDS: usize = 1_024;
/// The most variables that a step sets.
pub const MAX_VARIABLES: usize = 32;
/// The most bytes of a step's words and variables after its holes were filled.
pub const MAX_STEP_BYTES: usize = 256 << 10;
/// The most declared outputs.
pub const MAX_OUTPUTS: usize = 64;
/// The most files inside a recipe.
pub const MAX_FILES: usize = 64;
/// The longest line for people (description, help, hint) in bytes.
pub const MAX_LINE_BYTES: usize = 512;
/// The longest build.
pub const MAX_TIME: Span = Span::from_secs(48 * 3_600);
/// The most memory, and the most disk, that a recipe may ask for: 1 TiB.
pub const MAX_MIB: u64 = 1 << 20;
/// `SOURCE_DATE_EPOCH` where the recipe says nothing, in seconds: 2000-01-01.
pub const DEFAULT_SOURCE_DATE_EPOCH: u64 = 946_684_800;
/// The earliest `SOURCE_DATE_EPOCH`: 1980-01-01, before which zip has no dates.
pub const MIN_SOURCE_DATE_EPOCH: u64 = 315_532_800;
/// The latest `SOURCE_DATE_EPOCH`: 2100-01-01.
pub const MAX_SOURCE_DATE_EPOCH: u64 = 4_102_444_800;

/// Where the source comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceRule {
    /// The recipe's own files are all there is.
    Inline,
    /// Whoever asks gives it.
    Given {
        /// What to give, for people.
        hint: String,
    },
    /// An archive at an https address; whoever asks may give another source in its place.
    Archive {
        /// What to give in its place, for people.
        hint: String,
        /// SHA-256 of the archive file.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// Where it is published.
        url: String,
    },
    /// A git repository; whoever asks chooses the revision, or gives another source in its place.
    Git {
        /// What to give in its place, for people.
        hint: String,
        /// The repository.
        url: HttpsUrl,
        /// What is built when nobody says; `None` for the repository's own choice, its HEAD.
        revision: Option<Revision>,
    },
}

impl SourceRule {
    /// The source that the recipe brings itself, if it is the same for everybody and always.
    #[must_use]
    pub fn pinned(&self) -> Option<Source> {
        match self {
            Self::Inline => Some(Source::Inline),
            Self::Given { .. } => None,
            Self::Git { url, revision, .. } => {
                let commit = revision.as_ref()?.commit()?;
                Some(Source::Git { url: url.clone(), commit })
            }
            Self::Archive { digest, size, url, .. } => {
                Some(Source::Archive { digest: *digest, size: *size, url: url.clone() })
            }
        }
    }

    /// Whether whoever asks may give a source.
    #[must_use]
    pub fn takes_another(&self) -> bool {
        !matches!(self, Self::Inline)
    }

    /// What to give, for people.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Inline => None,
            Self::Given { hint } | Self::Archive { hint, .. } | Self::Git { hint, .. } => Some(hint),
        }
    }
}

/// One step as the author wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRule {
    /// When it runs.
    pub when: Vec<Condition>,
    /// Program and arguments.
    pub run: Vec<Word>,
    /// Variables added to the sandbox's environment.
    pub env: BTreeMap<String, Variable>,
    /// The most wall-clock time of this step, where it has a limit of its own.
    pub time: Option<Span>,
}

/// What counts besides, for some options or platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantRule {
    /// When it counts.
    pub when: Vec<Condition>,
    /// What it adds to the requirement; never about the platform.
    pub requirement: Requirement,
    /// Variables of every step; those of the step itself and of later variants come before them.
    pub env: BTreeMap<String, Variable>,
    /// Limits that are raised to this.
    pub limits: Raised,
}

/// Limits that a variant raises; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Wall-clock time of all steps together.
    pub time: Option<Span>,
    /// Memory of the whole process tree, in MiB.
    pub memory_mib: Option<u64>,
    /// Size of the build folder, in MiB.
    pub disk_mib: Option<u64>,
}

/// The smoke test as the author wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmokeRule {
    /// Program and arguments.
    pub run: Vec<Word>,
    /// What standard output must contain.
    pub expect: Option<Word>,
}

/// What a build may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall-clock time of all steps together.
    pub time: Span,
    /// Memory of the whole process tree, in MiB; the volunteer must have as much.
    pub memory_mib: u64,
    /// Size of the build folder, in MiB; the volunteer must have as much.
    pub disk_mib: u64,
    /// Wall-clock time without a sign of progress: no output, and no processor time worth the name.
    pub quiet: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Span::from_secs(3_600), memory_mib: 1_024, disk_mib: 2_048, quiet: Span::from_secs(900) }
    }
}

/// The canonical form, field by field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Form {
    recipe: u32,
    name: Name,
    description: String,
    options: BTreeMap<Name, OptionRule>,
    requirement: Requirement,
    source: SourceRule,
    files: BTreeMap<TreePath, InlineFile>,
    env: BTreeMap<String, Variable>,
    variants: Vec<VariantRule>,
    steps: Vec<StepRule>,
    outputs: Vec<Output>,
    smoke: Option<SmokeRule>,
    limits: Limits,
    source_date_epoch: u64,
    reproducibility: Reproducibility,
}

/// A recipe that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe(Form);

impl Recipe {
    /// Reads a recipe as its author wrote it.
    ///
    /// # Errors
    ///
    /// The first [`RecipeError`], with line and column.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        Self::parse_all(text).map_err(|errors| errors.first)
    }

    /// Reads a recipe as its author wrote it, and does not stop at the first thing that is wrong.
    ///
    /// # Errors
    ///
    /// Every [`RecipeError`] that does not follow from another, with line and column.
    pub fn parse_all(text: &str) -> Result<Self, RecipeErrors> {
        draft::parse(text).map(Self)
    }

    /// Reads a recipe as it travels.
    ///
    /// # Errors
    ///
    /// [`RecipeError`] when the blob is not the canonical form of a recipe, or breaks a rule of the language.
    pub fn decode(blob: &[u8]) -> Result<Self, RecipeError> {
        let wrong = |place, problem| RecipeError { position: None, place, problem };
        let form = codec::decode::<Form>(blob, MAX_RECIPE_BYTES)
            .map_err(|error| wrong(Place::default(), Box::new(Problem::Codec(error))))?;
        match check::check(&form).into_iter().next() {
            Some(fault) => Err(wrong(fault.place, fault.problem)),
            None => Ok(Self(form)),
        }
    }

    /// The blob that travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&self.0)
    }

    /// The digest of the blob: comments and layout of the text do not change it.
    #[must_use]
    pub fn id(&self) -> RecipeId {
        RecipeId(Digest::of(&self.encode()))
    }

    /// What the recipe calls itself.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// One line for people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// The options by name.
    #[must_use]
    pub fn options(&self) -> &BTreeMap<Name, OptionRule> {
        &self.0.options
    }

    /// Where the source comes from.
    #[must_use]
    pub fn source(&self) -> &SourceRule {
        &self.0.source
    }

    /// The files inside the recipe, laid over the source before the first step.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<TreePath, InlineFile> {
        &self.0.files
    }

    /// The steps as the author wrote them.
    #[must_use]
    pub fn step_rules(&self) -> &[StepRule] {
        &self.0.steps
    }

    /// What holds only for some options or platforms.
    #[must_use]
    pub fn variants(&self) -> &[VariantRule] {
        &self.0.variants
    }

    /// What the build leaves behind.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.0.outputs
    }

    /// What a build may use, unless a variant raises it.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Whether equal inputs are claimed to give equal bytes.
    #[must_use]
    pub fn reproducibility(&self) -> Reproducibility {
        self.0.reproducibility
    }

    /// What every build needs of a volunteer: the author's constraints, and room for the limits of memory and disk. Variants
    /// may add to it.
    #[must_use]
    pub fn requirement(&self) -> Requirement {
        with_room(self.0.requirement.clone(), self.0.limits)
    }

    /// Every option with its value: what was given as `K=V`, and the defaults.
    ///
    /// # Errors
    ///
    /// [`OptionError`] for the first value that does not fit, or does not go with another.
    pub fn resolve(&self, given: &[(String, String)]) -> Result<Settings, OptionError> {
        option::resolve(&self.0.options, given)
    }

    /// What is to be built: this recipe with these options that change the result, the source that was given if any, and what
    /// `--platform` and `--require` add.
    ///
    /// # Errors
    ///
    /// [`SpecError`] when the options do not fit, or a source is missing or not wanted.
    pub fn spec(
        &self,
        options: BTreeMap<Name, OptionValue>,
        given: Option<Source>,
        extra: &[Require],
    ) -> Result<BuildSpec, SpecError> {
        let Some(source) = given.or_else(|| self.0.source.pinned()) else { return Err(self.lacks_source()) };
        let mut requirement = self.requirement_with(&options, extra)?;
        if let Some(Require { key, constraint }) = source.requires() {
            requirement.add(key, constraint);
        }
        let spec = BuildSpec { recipe: self.id(), source, options, requirement, conditions: Conditions::Usual };
        self.admit_spec(&spec)?;
        Ok(spec)
    }

    /// Why there is nothing to build from unless whoever asks says more.
    fn lacks_source(&self) -> SpecError {
        let recipe = self.0.name.clone();
        match &self.0.source {
            SourceRule::Git { url, .. } => SpecError::SourceUnresolved { recipe, url: url.clone() },
            rule => SpecError::SourceMissing { recipe, hint: rule.hint().unwrap_or_default().to_owned() },
        }
    }

    /// Checks what somebody else asks: a spec for this recipe whose options fit, whose source is one the recipe takes, and which
    /// asks of the volunteer whatever recipe and source ask; and, beside it, the options that do not change the result.
    ///
    /// # Errors
    ///
    /// [`SpecError`] with what does not fit.
    pub fn admit(&self, spec: &BuildSpec, effort: &BTreeMap<Name, OptionValue>) -> Result<(), SpecError> {
        option::check(&self.0.options, &spec.options, effort)?;
        self.admit_spec(spec)
    }

    fn admit_spec(&self, spec: &BuildSpec) -> Result<(), SpecError> {
        let recipe = || self.0.name.clone();
        if spec.recipe != self.id() {
            return Err(SpecError::OtherRecipe { recipe: recipe() });
        }
        match (self.0.source.takes_another(), &spec.source) {
            (false, Source::Inline) => {}
            (false, _) => return Err(SpecError::SourceRefused { recipe: recipe() }),
            (true, Source::Inline) => return Err(self.lacks_source()),
            (true, Source::Tree(_) | Source::Archive { .. } | Source::Git { .. }) => {}
        }
        option::check_spec(&self.0.options, &spec.options)?;
        if !spec.requirement.is_within_limits() {
            return Err(SpecError::TooManyRequirements { max: MAX_KEYS, text: MAX_TEXT_BYTES });
        }
        let circumstances = self.circumstances(&spec.options, &spec.requirement)?;
        if !self.outputs_in(circumstances).any(|output| output.presence == Presence::Required) {
            return Err(SpecError::NoOutput { recipe: recipe() });
        }
        let mut strict = spec.requirement.clone();
        let asked = self.requirement_in(circumstances);
        let asked =
            asked.iter().map(|(key, constraint)| Require { key: key.to_owned(), constraint: constraint.clone() });
        for Require { key, constraint } in asked.chain(spec.source.requires()) {
            strict.add(key.clone(), constraint);
            // Adding what is there already, or less, changes nothing.
            if strict != spec.requirement {
                return Err(SpecError::Requirement { recipe: recipe(), key });
            }
        }
        Ok(())
    }
}

/// With room for the limits of memory and disk.
fn with_room(mut requirement: Requirement, limits: Limits) -> Requirement {
    requirement.add("memory_mib", Constraint::AtLeast(Value::Number(limits.memory_mib)));
    requirement.add("disk_mib", Constraint::AtLeast(Value::Number(limits.disk_mib)));
    requirement
}

#[cfg(test)]
mod tests;
