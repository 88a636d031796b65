//! What a machine has, what a build needs, and when the one meets the other.
//!
//! A [`Capability`] is a map of facts that a volunteer found by looking; a [`Requirement`] is a set of constraints on such
//! facts. The matching rule is the ancestor's, completed: every key must exist at the volunteer and a scalar is equal, a
//! list is a subset, a map is a subset recursively, a number or version is at least what is asked. A missing key is no
//! match; an empty requirement matches everything. Nothing here knows volunteers, jobs or time.

use crate::codec;
use crate::digest::Digest;
use crate::id::{CapabilityId, RecipeId, RequirementId};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The most facts, or constraints, that one capability or requirement holds.
pub const MAX_KEYS: usize = 128;
/// The longest dotted key, and the longest text of a fact, in bytes.
pub const MAX_TEXT_BYTES: usize = 128;

/// Dotted numbers, compared number by number: `12.2` < `12.10`, and `12` = `12.0`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(Vec<u32>);

impl Version {
    /// The first version found in `text`: the first run of digits and dots that starts with a digit. Tools print it as
    /// `gcc (Debian 12.2.0-14) 12.2.0`, `Python 2.7.18`, `go1.22.1`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let run = text[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        run.trim_end_matches('.').parse().ok()
    }

    fn trimmed(&self) -> &[u32] {
        let zeros = self.0.iter().rev().take_while(|part| **part == 0).count();
        &self.0[..self.0.len() - zeros]
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.trimmed().cmp(other.trimmed())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            write!(f, "{}{part}", if at == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

/// Why a text is not a version, a key or a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformParseError {
    /// Not one to eight dotted numbers.
    #[error("`{0}` is not a version: one to eight numbers with dots between them, such as 3.11")]
    Version(String),
    /// Not a key.
    #[error("`{0}` is not a key: lower-case words with dots between them, such as tool.python3")]
    Key(String),
    /// Not a constraint.
    #[error("`{0}` is not a requirement: write KEY=VALUE, KEY>=VALUE, tool.NAME, tool.NAME>=VERSION or header.NAME")]
    Constraint(String),
}

impl FromStr for Version {
    type Err = PlatformParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PlatformParseError::Version(text.to_owned());
        let parts: Vec<u32> = text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        if (1..=8).contains(&parts.len()) { Ok(Self(parts)) } else { Err(wrong()) }
    }
}

/// One fact about a machine, or the value a constraint compares with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// A count, or a size in the unit that the key names (`memory_mib`).
    Number(u64),
    /// A word, such as `linux`.
    Text(String),
    /// A version.
    Version(Version),
    /// Words in any order.
    List(BTreeSet<String>),
    /// Facts below this one.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// Whether this fact meets `wanted` by equality: scalar equal, list a subset, map a recursive subset.
    #[must_use]
    pub fn includes(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::List(have), Self::List(wanted)) => wanted.is_subset(have),
            (Self::Map(have), Self::Map(wanted)) => {
                wanted.iter().all(|(key, wanted)| have.get(key).is_some_and(|have| have.includes(wanted)))
            }
            (have, wanted) => have == wanted,
        }
    }

    /// Whether this fact is a number or version and not below `bound` of the same sort.
    #[must_use]
    pub fn at_least(&self, bound: &Self) -> bool {
        match (self, bound) {
            (Self::Number(have), Self::Number(bound)) => have >= bound,
            (Self::Version(have), Self::Version(bound)) => have >= bound,
            // A bound such as `>=12` may be typed for a version; a version never bounds a number.
            (Self::Version(have), Self::Number(bound)) => {
                u32::try_from(*bound).is_ok_and(|bound| *have >= Version(vec![bound]))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Version(version) => write!(f, "{version}"),
            Self::List(words) => f.write_str(&words.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
            Self::Map(facts) => {
                let facts: Vec<_> = facts.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "{{{}}}", facts.join(","))
            }
        }
    }
}

/// What is asked of one fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// The fact exists.
    Present,
    /// The fact includes this value.
    Is(Value),
    /// The fact is a number or version not below this one.
    AtLeast(Value),
}

impl Constraint {
    /// Whether `fact` meets this constraint. A missing fact never does.
    #[must_use]
    pub fn met_by(&self, fact: Option<&Value>) -> bool {
        fact.is_some_and(|fact| match self {
            Self::Present => true,
            Self::Is(wanted) => fact.includes(wanted),
            Self::AtLeast(bound) => fact.at_least(bound),
        })
    }
}

/// What a build needs of the machine that attempts it. Keys are dotted paths into the facts of a capability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Requirement(BTreeMap<String, Constraint>);

impl Requirement {
    /// The requirement that everything meets.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a constraint; where the key is constrained already, the stricter one is kept if they can be compared, otherwise
    /// the new one.
    pub fn add(&mut self, key: impl Into<String>, constraint: Constraint) {
        let key = key.into();
        let keep_old = match (self.0.get(&key), &constraint) {
            (Some(Constraint::AtLeast(old) | Constraint::Is(old)), Constraint::AtLeast(new)) => old.at_least(new),
            (Some(_), Constraint::Present) => true,
            _ => false,
        };
        if !keep_old {
            self.0.insert(key, constraint);
        }
    }

    /// The constraint of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Constraint> {
        self.0.get(key)
    }

    /// Key and constraint in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Constraint)> {
        self.0.iter().map(|(key, constraint)| (key.as_str(), constraint))
    }

    /// The number of constraints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `capability` meets every constraint.
    #[must_use]
    pub fn met_by(&self, capability: &Capability) -> bool {
        self.0.iter().all(|(key, constraint)| constraint.met_by(capability.fact(key)))
    }

    /// The constraints that `capability` does not meet.
    pub fn unmet_by<'a>(&'a self, capability: &'a Capability) -> impl Iterator<Item = (&'a str, &'a Constraint)> {
        self.iter().filter(|(key, constraint)| !constraint.met_by(capability.fact(key)))
    }

    /// The digest of the canonical form.
    #[must_use]
    pub fn id(&self) -> RequirementId {
        RequirementId(Digest::of(&codec::encode(self)))
    }

    /// Whether keys, texts and their number are within the limits of the wire.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        self.0.len() <= MAX_KEYS
            && self.0.iter().all(|(key, constraint)| {
                is_key(key)
                    && match constraint {
                        Constraint::Present => true,
                        Constraint::Is(value) | Constraint::AtLeast(value) => value_is_within_limits(value, 4),
                    }
            })
    }
}

/// One constraint as it is typed: `KEY=V`, `KEY>=V`, `tool.NAME`, `tool.NAME>=VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Require {
    /// Dotted key.
    pub key: String,
    /// What is asked of it.
    pub constraint: Constraint,
}

impl FromStr for Require {
    type Err = PlatformParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || PlatformParseError::Constraint(text.to_owned());
        let (key, constraint) = if let Some((key, bound)) = text.split_once(">=") {
            (key, Constraint::AtLeast(typed(bound).ok_or_else(wrong)?))
        } else if let Some((key, value)) = text.split_once('=') {
            (key, Constraint::Is(typed(value).ok_or_else(wrong)?))
        } else {
            (text, Constraint::Present)
        };
        if !is_key(key) {
            return Err(PlatformParseError::Key(key.to_owned()));
        }
        match &constraint {
            Constraint::AtLeast(Value::Number(_) | Value::Version(_)) | Constraint::Is(_) | Constraint::Present => {}
            Constraint::AtLeast(_) => return Err(wrong()),
        }
        // A tool is known by its version, so `tool.cc>=12` compares versions.
        let constraint = match constraint {
            Constraint::AtLeast(Value::Number(number)) if key.starts_with("tool.") => {
                Constraint::AtLeast(Value::Version(number.to_string().parse().map_err(|_| wrong())?))
            }
            Constraint::Is(Value::Number(number)) if key.starts_with("tool.") => {
                Constraint::Is(Value::Version(number.to_string().parse().map_err(|_| wrong())?))
            }
            constraint => constraint,
        };
        Ok(Self { key: key.to_owned(), constraint })
    }
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.constraint {
            Constraint::Present => f.write_str(&self.key),
            Constraint::Is(value) => write!(f, "{}={value}", self.key),
            Constraint::AtLeast(value) => write!(f, "{}>={value}", self.key),
        }
    }
}

fn typed(text: &str) -> Option<Value> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return None;
    }
    Some(match text {
        "true" => Value::Flag(true),
        "false" => Value::Flag(false),
        _ => match (text.parse::<u64>(), text.parse::<Version>()) {
            (Ok(number), _) => Value::Number(number),
            (_, Ok(version)) => Value::Version(version),
            _ if text.contains(',') => Value::List(text.split(',').map(str::to_owned).collect()),
            _ => Value::Text(text.to_owned()),
        },
    })
}

/// Lower-case words with dots between them; the name of a header may hold capitals, as `header.X11/Xlib.h` does.
fn is_key(key: &str) -> bool {
    let names_header = key.starts_with("header.");
    let good = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'_' | b'-' | b'+' | b'/')
            || (names_header && b.is_ascii_uppercase())
    };
    key.len() <= MAX_TEXT_BYTES && key.split('.').all(|word| !word.is_empty() && word.bytes().all(good))
}

fn value_is_within_limits(value: &Value, depth: usize) -> bool {
    match value {
        Value::Flag(_) | Value::Number(_) => true,
        Value::Version(version) => (1..=8).contains(&version.0.len()),
        Value::Text(text) => text_is_within_limits(text),
        Value::List(words) => words.len() <= MAX_KEYS && words.iter().all(|word| text_is_within_limits(word)),
        Value::Map(facts) => {
            depth > 0
                && facts.len() <= MAX_KEYS
                && facts
                    .iter()
                    .all(|(key, value)| text_is_within_limits(key) && value_is_within_limits(value, depth - 1))
        }
    }
}

fn text_is_within_limits(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)
}

/// What a volunteer's owner lets others build on it. Part of the capability, so that it is matched, not negotiated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceptance {
    /// The recipes that came with the program, from anyone with the ticket.
    Catalogue(BTreeSet<RecipeId>),
    /// Those, and any recipe from a requester whom the charter names a member.
    Members(BTreeSet<RecipeId>),
    /// Any recipe from anyone.
    Any,
}

/// Whether the charter names a requester as a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Named in the charter.
    Member,
    /// Anyone else with the ticket.
    Guest,
}

impl Acceptance {
    /// Whether the owner accepts `recipe` from a requester of this standing.
    #[must_use]
    pub fn admits(&self, recipe: &RecipeId, standing: Standing) -> bool {
        match self {
            Self::Catalogue(shipped) => shipped.contains(recipe),
            Self::Members(shipped) => standing == Standing::Member || shipped.contains(recipe),
            Self::Any => true,
        }
    }
}

/// What a volunteer is and has.
///
/// Facts in use: `os`, `arch`, `libc` (text), `cores`, `memory_mib`, `disk_mib` (numbers, of one slot), `tool.NAME`
/// (versions), `header.NAME` (flags), `sandbox` (text: the tier).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Facts by key; nested maps hold dotted keys.
    pub facts: BTreeMap<String, Value>,
    /// What the owner accepts.
    pub accepts: Acceptance,
    /// How many builds it runs at a time.
    pub slots: u16,
}

impl Capability {
    /// The fact at a dotted key. Names below the first word may hold dots themselves: `header.gc.h` is `gc.h` of `header`.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&Value> {
        let (mut facts, mut rest) = (&self.facts, key);
        loop {
            if let Some(fact) = facts.get(rest) {
                return Some(fact);
            }
            let (word, below) = rest.split_once('.')?;
            let Value::Map(inner) = facts.get(word)? else { return None };
            (facts, rest) = (inner, below);
        }
    }

    /// The digest of the canonical form.
    #[must_use]
    pub fn id(&self) -> CapabilityId {
        CapabilityId(Digest::of(&codec::encode(self)))
    }

    /// `linux/x86_64`, or what is known of it.
    #[must_use]
    pub fn platform(&self) -> String {
        let word = |key| self.fact(key).map_or_else(|| "?".to_owned(), Value::to_string);
        format!("{}/{}", word("os"), word("arch"))
    }

    /// Whether keys, texts and their number are within the limits of the wire.
    #[must_use]
    pub fn is_within_limits(&self) -> bool {
        let recipes = match &self.accepts {
            Acceptance::Catalogue(shipped) | Acceptance::Members(shipped) => shipped.len(),
            Acceptance::Any => 0,
        };
        recipes <= MAX_KEYS
            && self.slots >= 1
            && self.facts.len() <= MAX_KEYS
            && self.facts.iter().all(|(key, value)| text_is_within_limits(key) && value_is_within_limits(value, 4))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn version(text: &str) -> Value {
        Value::Version(text.parse().unwrap())
    }

    fn list(words: &[&str]) -> Value {
        Value::List(words.iter().map(|&word| word.to_owned()).collect())
    }

    fn machine() -> Capability {
        Capability {
            facts: BTreeMap::from([
                ("os".to_owned(), Value::Text("linux".to_owned())),
                ("cores".to_owned(), Value::Number(4)),
                ("sets".to_owned(), list(&["sse2", "avx"])),
                (
                    "tool".to_owned(),
                    Value::Map(BTreeMap::from([
                        ("cc".to_owned(), version("12.2.0")),
                        ("python3".to_owned(), version("3.11.7")),
                    ])),
                ),
            ]),
            accepts: Acceptance::Any,
            slots: 1,
        }
    }

    fn meets(requires: &[&str]) -> bool {
        let mut requirement = Requirement::none();
        for text in requires {
            let Require { key, constraint } = text.parse().unwrap();
            requirement.add(key, constraint);
        }
        requirement.met_by(&machine())
    }

    #[test]
    fn the_matching_rule() {
        assert!(meets(&[]), "an empty requirement matches all");
        assert!(meets(&["os=linux", "cores>=4", "tool.cc", "tool.cc>=12", "tool.cc>=12.2", "tool.python3>=3.9"]));
        assert!(meets(&["sets=avx,sse2"]), "a list is a subset in any order");
        for unmet in
            ["os=darwin", "cores>=5", "tool.go", "tool.cc>=12.10", "gpu=true", "sets=avx,avx512", "os>=3", "tool.cc.x"]
        {
            assert!(!meets(&[unmet]), "{unmet}");
        }
    }

    #[test]
    fn names_of_headers_and_tools_may_hold_dots() {
        let mut have = machine();
        let below = |names: &[(&str, Value)]| {
            Value::Map(names.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
        };
        have.facts
            .insert("header".to_owned(), below(&[("gc.h", Value::Flag(true)), ("X11/Xlib.h", Value::Flag(true))]));
        have.facts.insert("tool".to_owned(), below(&[("python3.11", version("3.11.2"))]));
        have.facts.insert("libc".to_owned(), below(&[("glibc", version("2.36"))]));
        assert!(have.is_within_limits());
        for (text, met) in [
            ("header.gc.h", true),
            ("header.X11/Xlib.h", true),
            ("header.zlib.h", false),
            ("header.gc", false),
            ("tool.python3.11>=3.11", true),
            ("tool.python3", false),
            ("libc.glibc>=2.28", true),
            ("libc.musl", false),
        ] {
            let require: Require = text.parse().unwrap();
            assert_eq!(require.to_string(), text);
            let mut requirement = Requirement::none();
            requirement.add(require.key, require.constraint);
            assert!(requirement.is_within_limits());
            assert_eq!(requirement.met_by(&have), met, "{text}");
        }
    }

    #[test]
    fn maps_match_as_recursive_subsets() {
        let have = machine();
        let wanted = Value::Map(BTreeMap::from([("cc".to_owned(), version("12.2"))]));
        let mut requirement = Requirement::none();
        requirement.add("tool", Constraint::Is(wanted));
        assert!(requirement.met_by(&have), "12.2 equals 12.2.0");
        assert!(!Value::Text("1".to_owned()).includes(&Value::Number(1)), "text is not a number");
        assert!(!list(&["a"]).includes(&Value::Text("a".to_owned())), "a list does not equal its member");
        assert!(list(&["a"]).includes(&list(&[])), "the empty list is a subset of any");
    }

    #[test]
    fn versions_compare_by_number() {
        let parse = |text: &str| text.parse::<Version>().unwrap();
        assert!(parse("12.2") < parse("12.10"));
        assert_eq!(parse("12"), parse("12.0.0"));
        assert!("12.".parse::<Version>().is_err());
        assert!("1.2.3.4.5.6.7.8.9".parse::<Version>().is_err());
        assert_eq!(Version::find("gcc (Debian 12.2.0-14+deb12u1) 12.2.0"), Some(parse("12.2.0")));
        assert_eq!(Version::find("go version go1.22.1 linux/amd64"), Some(parse("1.22.1")));
        assert_eq!(Version::find("no digits"), None);
    }

    #[test]
    fn the_stricter_bound_is_kept() {
        let mut requirement = Requirement::none();
        for text in ["tool.cc>=12", "tool.cc>=9", "tool.cc"] {
            let Require { key, constraint } = text.parse().unwrap();
            requirement.add(key, constraint);
        }
        assert_eq!(requirement.iter().collect::<Vec<_>>(), [("tool.cc", &Constraint::AtLeast(version("12")))]);
        let Require { key, constraint } = "tool.cc=13.2".parse().unwrap();
        requirement.add(key, constraint);
        requirement.add("tool.cc", Constraint::AtLeast(version("12")));
        assert_eq!(
            requirement.get("tool.cc"),
            Some(&Constraint::Is(version("13.2"))),
            "one version is above the bound"
        );
    }

    #[test]
    fn what_is_typed_prints_back() {
        for text in ["os=linux", "cores>=4", "tool.cc", "tool.cc>=12.2"] {
            assert_eq!(text.parse::<Require>().unwrap().to_string(), text);
        }
        for wrong in ["", "=x", "Tool", "tool.", "a=", "a>=text", "tool.cc>=a"] {
            assert!(wrong.parse::<Require>().is_err(), "{wrong}");
        }
    }
}
