//! The verbs and their flags.

use super::value::{Axis, Chosen, Lifetime, MAX_COMBINATIONS, RecipeArg, SourceArg, SourcePlace, ToolArg};
use clap::builder::FalseyValueParser;
use clap::{Subcommand, ValueEnum};
use protocol::digest::Digest;
use protocol::id::RequestId;
use protocol::platform::{Constraint, Require, Value};
use protocol::request::{Address, MAX_ADDRESSES, MAX_AGREE, Name, Priority};
use protocol::source::Revision;
use protocol::wire::RequestRef;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::str::FromStr;

/// What one command does.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build something, or fetch what was built before
    Request(Box<RequestArgs>),
    /// Show the queue and the farm, or why one request waits
    Status {
        /// A request: all its digits, or at least the first eight
        #[arg(value_parser = named)]
        request: Option<Hex>,
    },
    /// Show the log of a request's build
    Logs(LogsArgs),
    /// Take a request back
    Cancel {
        /// The request: all its digits, or at least the first eight
        #[arg(value_parser = named)]
        request: Hex,
    },
    /// Fetch what was built
    Fetch(FetchArgs),
    /// List finished builds
    Builds,
    /// List the volunteers and what they can do
    Volunteers,
    /// Look at recipes
    #[command(subcommand)]
    Recipe(RecipeVerb),
    /// Look at the farm
    #[command(subcommand)]
    Farm(FarmVerb),
    /// Look after what this machine has stored
    #[command(subcommand)]
    Store(StoreVerb),
    /// Say what this machine lacks, and which command mends it
    Doctor,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// 8 to 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hex(String);

impl Hex {
    /// The digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the name of a request.
    pub(crate) fn request(&self) -> RequestRef {
        match self.0.parse::<Digest>() {
            Ok(digest) => RequestRef::Id(RequestId(digest)),
            Err(_) => RequestRef::Prefix(self.0.clone()),
        }
    }
}

fn named(text: &str) -> Result<Hex, String> {
    let digits = text.to_ascii_lowercase();
    if (8..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(Hex(digits))
    } else {
        Err("give all 64 hexadecimal digits, or at least the first eight".to_owned())
    }
}

/// How urgent a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Urgency {
    /// Somebody waits for it.
    Urgent,
    /// The usual.
    #[default]
    Normal,
    /// When nothing else is to be done.
    Batch,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::Urgent => Self::Urgent,
            Urgency::Normal => Self::Normal,
            Urgency::Batch => Self::Batch,
        }
    }
}

/// The platform a build is for, `OS/ARCH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlatformArg {
    os: String,
    arch: String,
}

impl PlatformArg {
    /// This machine's.
    pub(crate) fn here() -> Self {
        Self { os: std::env::consts::OS.to_owned(), arch: std::env::consts::ARCH.to_owned() }
    }

    /// What it asks of a volunteer.
    pub(crate) fn requires(&self) -> [Require; 2] {
        let is = |key: &str, word: &str| Require {
            key: key.to_owned(),
            constraint: Constraint::Is(Value::Text(word.to_owned())),
        };
        [is("os", &self.os), is("arch", &self.arch)]
    }
}

impl FromStr for PlatformArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |word: &str| {
            (1..=32).contains(&word.len())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        match text.split_once('/') {
            Some((os, arch)) if is_word(os) && is_word(arch) => Ok(Self { os: os.to_owned(), arch: arch.to_owned() }),
            _ => Err("write OS/ARCH, such as linux/x86_64".to_owned()),
        }
    }
}

/// From where sources may be fetched: flags of whoever fetches.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct FetchingArgs {
    /// Sources may come from loopback and private networks
    #[arg(long, env = "NODE_ALLOW_PRIVATE_SOURCES", value_parser = FalseyValueParser::new())]
    pub(crate) allow_private_sources: bool,
    /// Trust these certificate authorities (PEM) as well where sources are published
    #[arg(long, env = "NODE_SOURCE_CA", value_name = "FILE")]
    pub(crate) source_ca: Option<PathBuf>,
}

/// `node request`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RequestArgs {
    /// A recipe of the catalogue (see `node recipe list`), or a TOML file
    pub(crate) recipe: RecipeArg,
    /// Choose an option's value (may be repeated; in the environment one a line)
    #[arg(short, long, env = "NODE_OPTION", value_name = "NAME=VALUE", value_delimiter = '\n')]
    pub(crate) option: Vec<Chosen>,
    /// Ask for every combination of these values of options (may be repeated; in the environment one a line)
    #[arg(long, env = "NODE_MATRIX", value_name = "NAME=VALUE,VALUE…", value_delimiter = '\n')]
    pub(crate) matrix: Vec<Axis>,
    /// Build from this directory, archive (tar, tar.gz, tar.bz2, tar.xz, tar.zst, zip), git repository (https://….git) or pinned
    /// archive (https://…#sha256=HEX); a further one is written NAME=… and lies in the folder NAME (in the environment one a line)
    #[arg(long, env = "NODE_SOURCE", value_name = "DIR|ARCHIVE|URL", value_delimiter = '\n')]
    pub(crate) source: Vec<SourceArg>,
    /// Which branch, tag or commit of a git repository [default: what the recipe says, or the repository's HEAD]
    #[arg(long, env = "NODE_REVISION", value_name = "REV")]
    pub(crate) revision: Option<Revision>,
    /// Take a finished build of one of the last N commits, the nearest there is, before building anew
    #[arg(long, env = "NODE_WITHIN", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) within: Option<u32>,
    #[command(flatten)]
    pub(crate) fetching: FetchingArgs,
    /// With no farm known: a tool outside /usr for builds on this machine (may be repeated; in the environment one a line)
    #[arg(long, env = "NODE_TOOL", value_name = "NAME=PREFIX", value_delimiter = '\n')]
    pub(crate) tool: Vec<ToolArg>,
    /// Build for this platform [default: this machine's]
    #[arg(long, env = "NODE_PLATFORM", value_name = "OS/ARCH")]
    pub(crate) platform: Option<PlatformArg>,
    /// Ask more of the volunteer: KEY=V, KEY>=V, tool.NAME, tool.NAME>=VERSION, header.NAME (may be repeated; in the environment one a line)
    #[arg(long, env = "NODE_REQUIRE", value_name = "EXPR", value_delimiter = '\n')]
    pub(crate) require: Vec<Require>,
    /// Write to this address when it is done (may be repeated)
    #[arg(long, env = "NODE_EMAIL", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) email: Vec<Address>,
    /// Build twice, in conditions that differ, and say whether both came out the same
    #[arg(long, env = "NODE_CHECK", value_parser = FalseyValueParser::new())]
    pub(crate) check: bool,
    /// Return as soon as the farm holds the request and its source
    #[arg(long, env = "NODE_DETACH", value_parser = FalseyValueParser::new())]
    pub(crate) detach: bool,
    /// Put the files here [default: ./RECIPE-<8 digits of the build key>]
    #[arg(long, env = "NODE_OUTPUT", value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// Want this many volunteers to have built the same
    #[arg(long, env = "NODE_AGREE", value_name = "K", default_value = "1", value_parser = agree)]
    pub(crate) agree: NonZeroU8,
    /// How urgent it is
    #[arg(long, env = "NODE_PRIORITY", value_enum, default_value_t)]
    pub(crate) priority: Urgency,
    /// Stop waiting after this time
    #[arg(long, env = "NODE_EXPIRES", value_name = "TIME", default_value = "7d")]
    pub(crate) expires: Lifetime,
    /// Build again even if a build exists
    #[arg(long, env = "NODE_FRESH", value_parser = FalseyValueParser::new())]
    pub(crate) fresh: bool,
}

impl RequestArgs {
    fn check_sources(&self) -> Result<(), String> {
        let (first, further) = match self.source.split_first() {
            Some((first, further)) => (Some(first), further),
            None => (None, &[][..]),
        };
        if let Some(name) = first.and_then(|first| first.below.as_ref()) {
            return Err(format!(
                "the first `--source` is the source itself: write it without `{name}=`, or as `./{name}=…`"
            ));
        }
        if let Some(place) = further.iter().find(|source| source.below.is_none()) {
            let shown = place.place.shown();
            return Err(format!("a further `--source` lies in a folder of its own: write `--source NAME={shown}`"));
        }
        let is_git = |place: &SourcePlace| matches!(place, SourcePlace::Git(_) | SourcePlace::Url(_));
        let flag = match (&self.revision, self.within) {
            (Some(_), _) => "revision",
            (None, Some(_)) => "within",
            (None, None) => return Ok(()),
        };
        if first.is_some_and(|first| !is_git(&first.place)) {
            return Err(format!(
                "`--{flag}` is about commits, and this source has none: it goes with a git repository"
            ));
        }
        if self.within.is_some() && !further.is_empty() {
            return Err("`--within` looks for builds of one repository, and there are several sources: leave one out"
                .to_owned());
        }
        if self.within.is_some() && self.check {
            return Err("`--within` takes a build that exists and `--check` makes two: choose one".to_owned());
        }
        if self.within.is_some() && self.fresh {
            return Err("`--within` takes a build that exists and `--fresh` wants none of those: choose one".to_owned());
        }
        Ok(())
    }
}

fn agree(text: &str) -> Result<NonZeroU8, String> {
    let count: Option<NonZeroU8> = text.parse().ok();
    count.filter(|count| count.get() <= MAX_AGREE).ok_or_else(|| format!("give a number from 1 to {MAX_AGREE}"))
}

/// `node logs`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// The request: all its digits, or at least the first eight
    #[arg(value_parser = named)]
    pub(crate) request: Hex,
    /// Go on until the build ends
    #[arg(short, long, env = "NODE_FOLLOW", value_parser = FalseyValueParser::new())]
    pub(crate) follow: bool,
}

/// `node fetch`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// A request, a build key or a manifest: all its digits, or at least the first eight
    #[arg(value_parser = named, value_name = "REQUEST|BUILD-KEY|MANIFEST")]
    pub(crate) what: Hex,
    /// Put the files here [default: ./RECIPE-<8 digits of the build key>]
    #[arg(long, env = "NODE_OUTPUT", value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
}

/// `node recipe`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RecipeVerb {
    /// List the recipes that came with the program
    List,
    /// Show what a recipe takes, needs and makes
    Show {
        /// A recipe of the catalogue, or a TOML file
        recipe: RecipeArg,
    },
    /// Check a recipe in a file, and say what to write instead
    Check {
        /// A TOML file
        file: PathBuf,
    },
    /// Write a recipe to start from, `NAME.toml`, into this folder
    New {
        /// What it is called
        name: Name,
    },
}

/// `node farm`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FarmVerb {
    /// Show the farm's id, ticket and coordinators
    Show,
}

/// `node store`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum StoreVerb {
    /// List what is stored here
    List,
    /// Read everything again and compare it with its digest
    Verify,
    /// Remove everything that is neither pinned nor waited for, after the farm has heard of it
    Prune,
    /// Never remove this build
    Pin {
        /// A build key or a manifest: all its digits, or at least the first eight
        #[arg(value_parser = named, value_name = "BUILD-KEY|MANIFEST")]
        what: Hex,
    },
    /// Let a pinned build go when room is needed
    Unpin {
        /// A build key or a manifest: all its digits, or at least the first eight
        #[arg(value_parser = named, value_name = "BUILD-KEY|MANIFEST")]
        what: Hex,
    },
}

impl Verb {
    /// Settings that contradict one another, as a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self::Request(request) = self else { return Ok(()) };
        if request.detach && request.output.is_some() {
            let text = "`--detach` fetches nothing and `--output` says where to put it: leave one out, and fetch later \
                        with `node fetch REQUEST --output DIR`";
            return Err(text.to_owned());
        }
        if request.check && (request.detach || !request.matrix.is_empty() || request.agree.get() > 1) {
            let text = "`--check` builds twice and compares: it goes neither with `--detach` nor with `--matrix` nor with \
                        `--agree`";
            return Err(text.to_owned());
        }
        request.check_sources()?;
        if request.email.len() > MAX_ADDRESSES {
            return Err(format!("at most {MAX_ADDRESSES} addresses can wait for one request"));
        }
        for (at, axis) in request.matrix.iter().enumerate() {
            if request.matrix[..at].iter().any(|earlier| earlier.name == axis.name) {
                return Err(format!("`--matrix {}=…` is given twice: write all its values in one", axis.name));
            }
            if request.option.iter().any(|chosen| chosen.name == axis.name) {
                return Err(format!("`--option {0}=…` and `--matrix {0}=…` contradict each other", axis.name));
            }
        }
        let count = request.matrix.iter().try_fold(1, |count: usize, axis| count.checked_mul(axis.values.len()));
        if count.is_none_or(|count| count > MAX_COMBINATIONS) {
            return Err(format!("more than {MAX_COMBINATIONS} combinations: ask for fewer at a time"));
        }
        for (at, chosen) in request.option.iter().enumerate() {
            if request.option[..at].iter().any(|earlier| earlier.name == chosen.name) {
                return Err(format!("`--option {}=…` is given twice", chosen.name));
            }
        }
        Ok(())
    }
}
