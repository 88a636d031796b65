//! What is wrong with a recipe, where, and what to write instead.

use super::clash::Clash;
use super::condition::ConditionError;
use super::option::OptionError;
use super::template::WordError;
use crate::codec::CodecError;
use crate::platform::PlatformParseError;
use crate::request::Name;
use crate::source::HttpsUrl;
use crate::tree::{ManifestError, TreePath};
use std::fmt;

/// A place in a text: lines and columns are counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters of that line it covers, at least one.
    pub width: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The field that is wrong, from the outermost inwards; entries of a list are counted from 0 here and from 1 for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub(super) Vec<Part>);

/// One step inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A key of a table.
    Key(String),
    /// An entry of a list.
    At(usize),
}

impl From<&str> for Part {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&Name> for Part {
    fn from(key: &Name) -> Self {
        Self::Key(key.to_string())
    }
}

impl From<usize> for Part {
    fn from(at: usize) -> Self {
        Self::At(at)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            match part {
                Part::Key(key) => write!(f, "{}{}", if at == 0 { "" } else { "." }, key.escape_debug())?,
                Part::At(at) => write!(f, " {}", at + 1)?,
            }
        }
        Ok(())
    }
}

/// Why a text or blob is not a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    /// Where in the text; `None` for a blob, and where a field is missing from the whole.
    pub position: Option<Position>,
    /// Which field; empty where the text is not even TOML.
    pub place: Place,
    /// What is wrong.
    pub problem: Box<Problem>,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        if !self.place.0.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for RecipeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.problem.source()
    }
}

/// Everything that is wrong with a text, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{first}")]
pub struct RecipeErrors {
    /// The first.
    #[source]
    pub first: RecipeError,
    /// The others.
    pub rest: Vec<RecipeError>,
}

impl RecipeErrors {
    /// All of them, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &RecipeError> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Larger than a recipe may be.
    #[error("a recipe has at most {max} bytes, this one has {len}")]
    TooLarge {
        /// Bytes.
        len: usize,
        /// Limit.
        max: usize,
    },
    /// Written in a language this program does not read.
    #[error("`recipe = {0}`: this program reads recipe language 1")]
    Language(u32),
    /// Not TOML, or not the fields of a recipe.
    #[error("{0}")]
    Toml(String),
    /// Not the canonical form of a recipe.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Too few or too many.
    #[error("{found} {what}: a recipe has {min} to {max}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        min: usize,
        /// How many there may be.
        max: usize,
    },
    /// Text for people that does not fit on a line or carries control characters.
    #[error("one line of 1 to {max} bytes without control characters is wanted here")]
    Line {
        /// Limit in bytes.
        max: usize,
    },
    /// A number out of range.
    #[error("{found} is out of range: {min} to {max}")]
    Range {
        /// What was written.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A field that this sort of option does not have.
    #[error("an option of type `{sort}` has no `{field}`: write {fields}")]
    NoSuchField {
        /// The field.
        field: &'static str,
        /// The sort of option.
        sort: &'static str,
        /// The fields it has.
        fields: &'static str,
    },
    /// A field that this sort of option must have.
    #[error("an option of type `{sort}` needs `{field}`")]
    MissingField {
        /// The field.
        field: &'static str,
        /// The sort of option.
        sort: &'static str,
    },
    /// The name stands for the number of cores, or a part of the platform.
    #[error(
        "`jobs`, `here`, `os` and `arch` mean the volunteer's cores, folder and platform: call the option something else"
    )]
    Reserved,
    /// Options whose values would not fit into a request.
    #[error("the values of all options can take {len} bytes together: at most {max} fit into a request")]
    Settings {
        /// Bytes at worst.
        len: usize,
        /// Limit.
        max: usize,
    },
    /// A bool in a word that has none for either value.
    #[error("`{{{0}}}` has no words: write `words = {{ true = [\"WORD\"] }}` in the option, or ask for it in a `when`")]
    BoolWithoutWords(Name),
    /// The range of an integer goes down.
    #[error("`min` is above `max`")]
    EmptyRange,
    /// The default of a list is none.
    #[error("the default of a list is a list: write `default = []`, or `default = [\"VALUE\"]`")]
    ListDefault,
    /// Twice the same.
    #[error("`{}` stands twice", .0.escape_debug())]
    Twice(String),
    /// Some choices have words and some have none.
    #[error("`{}` has no words: give all choices words, or none", .0.escape_debug())]
    WordsMissing(String),
    /// Words for a value that the option cannot have.
    #[error("`{}` is no value of this option", .0.escape_debug())]
    WordsForNothing(String),
    /// A hole where only plain words may stand.
    #[error("`{}` may not depend on options; write `{{{{` and `}}}}` for plain braces", .0.escape_debug())]
    NotPlain(String),
    /// The default is none of the option's values, or a hole names no option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The value inside a word would be `true` or `false`.
    #[error("`{{{0}}}` is a bool: make it a word of its own and give the words for `true` in the option's `words`")]
    BoolInWord(Name),
    /// A list where one text is wanted.
    #[error("`{{{0}}}` is a list and this is one text: give the option `join = \",\"`, or make this a list of words")]
    ListInText(Name),
    /// A word that would have to be repeated for two lists at once.
    #[error("`{{{0}}}` and `{{{1}}}` are two lists in one word: write a word for each")]
    TwoLists(Name, Name),
    /// A list that is one text has no words for its values.
    #[error("`join` makes the list one text, and `words` makes words of its values: leave one out")]
    JoinAndWords,
    /// A list of words is joined with spaces, so none may come from whoever asks.
    #[error("option `{0}` may hold a space, and this list is joined with spaces: leave the space out of its `pattern`")]
    Spaced(Name),
    /// A variable that is no text and no list of texts.
    #[error("a variable is a text, or a list of words that are joined with spaces")]
    VariableType,
    /// A value that could not be typed or asked for.
    #[error("`{}` cannot be a value: no `,` and no `|` may stand in it, and no blank at its ends", .0.escape_debug())]
    Untypable(String),
    /// Not a condition.
    #[error(transparent)]
    Condition(#[from] ConditionError),
    /// A condition that spells a value in a way of its own.
    #[error("`{}` is spelled `{}` here", .written.escape_debug(), .canonical.escape_debug())]
    Spelling {
        /// As written.
        written: String,
        /// As it must be.
        canonical: String,
    },
    /// Something depends on an option that changes nothing.
    #[error("option `{0}` says `changes_result = false`, so nothing may depend on its value")]
    DependsOnEffort(Name),
    /// Something depends on the platform that may not.
    #[error("options may need or exclude only options: `when` of a step, an output or a variant asks for `{0}`")]
    DependsOnPlatform(Name),
    /// An option that needs or excludes itself.
    #[error("option `{0}` cannot need or exclude itself")]
    DependsOnItself(Name),
    /// An option that changes nothing has rules about others.
    #[error("an option with `changes_result = false` has no `needs` and no `excludes`")]
    EffortWithRules,
    /// The defaults break a rule.
    #[error("the defaults do not go together: {0}")]
    DefaultsClash(Box<Clash>),
    /// A variant that adds nothing.
    #[error("a variant adds something: write `requires`, `env` or `limits`")]
    EmptyVariant,
    /// A variant that asks for the platform that decides whether it counts.
    #[error("a variant cannot require `{0}`: ask for it in its `when`, or in the `requires` of the recipe")]
    VariantPlatform(String),
    /// A step may take longer than all of them.
    #[error("this step may take {step_s} s and all together {all_s} s: raise `time_s` in `[limits]`, or lower it here")]
    StepTime {
        /// Seconds of the step.
        step_s: u64,
        /// Seconds of all steps.
        all_s: u64,
    },
    /// Every output is optional.
    #[error("every output is optional: a build that leaves nothing behind would count as one")]
    NoRequiredOutput,
    /// An option that changes nothing.
    #[error("no step uses option `{0}`: it would change the build key and nothing else")]
    Unused(Name),
    /// The program that a step runs depends on an option, is absolute or empty.
    #[error("the first word is the program: a plain name found on PATH, or a relative path such as `./configure`")]
    Program,
    /// An option inside the text of a shell.
    #[error(
        "an option may not stand in the text of a shell: write `\"$1\"` there, and `_` and the option as further words"
    )]
    ShellText,
    /// A step runs a tool that the recipe does not require.
    #[error("`{0}` is run, so the recipe must require it: add \"tool.{0}\" to `requires`")]
    NotRequired(String),
    /// A step whose words could grow too long.
    #[error("this step can grow to {len} bytes: at most {max} are allowed")]
    LongStep {
        /// Bytes at worst.
        len: usize,
        /// Limit.
        max: usize,
    },
    /// Not the name of an environment variable, or one that the sandbox sets.
    #[error("`{}` cannot be set: variables are A-Z, 0-9 and `_`, and PATH, HOME and TMPDIR belong to the sandbox", .0.escape_debug())]
    Variable(String),
    /// Not an address of an archive.
    #[error(
        "an archive is at an https address of at most {max} printable characters, such as https://example.org/x.tar.gz"
    )]
    Url {
        /// Limit in bytes.
        max: usize,
    },
    /// `archive`, `sha256` and `size` go together.
    #[error("`archive`, `sha256` and `size` go together: give all three, or none and the recipe requires --source")]
    HalfArchive,
    /// An archive and a repository.
    #[error("a source is an archive or a git repository: leave out one of `archive` and `git`")]
    TwoSources,
    /// A revision of nothing.
    #[error("`revision` names a commit of a repository: add `git`")]
    LoneRevision,
    /// Neither a source nor files of its own.
    #[error("there is nothing to build from: write `[source]` or at least one `[[file]]`")]
    NoSource,
    /// The files inside the recipe are not a tree.
    #[error(transparent)]
    Files(#[from] ManifestError),
    /// Not a word of a step.
    #[error(transparent)]
    Word(#[from] WordError),
    /// Not a constraint.
    #[error(transparent)]
    Require(#[from] PlatformParseError),
    /// Too many or too long constraints.
    #[error("the requirement is too large")]
    Requirement,
    /// Agreement of builds that differ bit for bit goes by the smoke test.
    #[error("`reproducible = false` needs a `[smoke]` test: it is what agreement counts then")]
    NoSmoke,
}

/// Why a build cannot be asked for, or is not to be attempted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// An option does not fit.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The recipe brings no source and none was given.
    #[error("recipe `{recipe}` requires --source: {hint}")]
    SourceMissing {
        /// The recipe.
        recipe: Name,
        /// What to give.
        hint: String,
    },
    /// The recipe's own files are all there is.
    #[error("recipe `{recipe}` carries its own source: leave out --source")]
    SourceRefused {
        /// The recipe.
        recipe: Name,
    },
    /// The recipe builds from a repository, and nobody has looked which commit is meant.
    #[error("recipe `{recipe}` builds from {url}, and its revision was not looked up")]
    SourceUnresolved {
        /// The recipe.
        recipe: Name,
        /// The repository.
        url: HttpsUrl,
    },
    /// A request names another recipe.
    #[error("the request is for another recipe than `{recipe}`")]
    OtherRecipe {
        /// The recipe.
        recipe: Name,
    },
    /// A request asks less of the volunteer than the recipe does.
    #[error("the request leaves out what recipe `{recipe}` requires of `{key}`")]
    Requirement {
        /// The recipe.
        recipe: Name,
        /// The key of the constraint.
        key: String,
    },
    /// The recipe differs by platform and the request leaves it open.
    #[error("recipe `{recipe}` differs by `{key}`: say which is wanted, with --platform OS/ARCH")]
    Platform {
        /// The recipe.
        recipe: Name,
        /// `os` or `arch`.
        key: &'static str,
    },
    /// No output is declared for these options on this platform.
    #[error("recipe `{recipe}` makes nothing with these options on this platform")]
    NoOutput {
        /// The recipe.
        recipe: Name,
    },
    /// Too many or too long constraints.
    #[error("too many requirements: at most {max}, each of at most {text} bytes")]
    TooManyRequirements {
        /// Limit of their number.
        max: usize,
        /// Limit of key and text.
        text: usize,
    },
}

/// Why the files of a recipe cannot be laid over a source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recipe's file `{path}` does not fit over the source: {error}")]
pub struct OverlayError {
    /// The file.
    pub path: TreePath,
    /// What is wrong.
    pub error: ManifestError,
}
