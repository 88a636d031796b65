//! What a requester asks for, and who is to be told.
//!
//! A [`Request`] holds no address: it may be shown to anyone. A [`Subscription`] is a second word, signed by the same key,
//! that travels on the direct call to a coordinator only. Whatever changes the result is in the [`BuildSpec`]; its digest is
//! the build key, so two people who ask for the same thing ask for the same key.

use crate::codec;
use crate::digest::Digest;
use crate::id::FarmId;
use crate::id::{BuildKey, ManifestId, PeerKey, RecipeId, RequestId};
use crate::platform::{Constraint, Require, Requirement, Value};
use crate::signed::{Kind, OpenError, Payload, Signed};
use crate::source::{Commit, HttpsUrl};
use crate::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

/// The longest life of a request.
pub const MAX_TTL: Span = Span::from_secs(90 * 86_400);
/// How long a request lives when its requester says nothing.
pub const DEFAULT_TTL: Span = Span::from_secs(7 * 86_400);
/// The most mail addresses that may wait for one request.
pub const MAX_ADDRESSES: usize = 8;
/// The largest demand for equal reports.
pub const MAX_AGREE: u8 = 5;

/// A plain name: 1 to 64 of `a-z 0-9 . _ + -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name: 1 to 64 of a-z, 0-9, `.`, `_`, `+`, `-`, beginning with a letter or digit", .0.escape_debug())]
pub struct NameError(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'+' | b'-');
        if starts_well && text.len() <= 64 && text.bytes().all(good) { Ok(Self(text)) } else { Err(NameError(text)) }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value chosen for an option; the recipe says which sort an option takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OptionValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A choice, or a text.
    Text(String),
    /// Several values of a list, in the order of the recipe.
    List(Vec<String>),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(yes) => write!(f, "{yes}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(values) => f.write_str(&values.join(",")),
        }
    }
}

/// A source, pinned to bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// The files inside the recipe.
    Inline,
    /// A tree that the requester hands over to the farm.
    Tree(ManifestId),
    /// An archive at an https address, of which recipe or requester pins digest and size. Volunteers unpack it themselves.
    Archive {
        /// SHA-256 of the archive file.
        digest: Digest,
        /// Its length in bytes.
        size: u64,
        /// Where it is published.
        url: String,
    },
    /// The files of a commit. Volunteers fetch them themselves; what somebody called the commit is no part of it.
    Git {
        /// The repository.
        url: HttpsUrl,
        /// Which state of it.
        commit: Commit,
    },
}

/// The fact that says which git a volunteer fetches with.
pub const FETCH_GIT: &str = "fetch.git";
/// The oldest git that can be shut in: settings by environment, without any file, came with 2.31.
pub const MIN_GIT: &str = "2.31";

impl Source {
    /// What a volunteer must have to fetch it.
    #[must_use]
    pub fn requires(&self) -> Option<Require> {
        match self {
            Self::Inline | Self::Tree(_) | Self::Archive { .. } => None,
            Self::Git { .. } => {
                let constraint = MIN_GIT.parse().map(|least| Constraint::AtLeast(Value::Version(least)));
                Some(Require { key: FETCH_GIT.to_owned(), constraint: constraint.unwrap_or(Constraint::Present) })
            }
        }
    }
}

/// Everything that decides what is built. Its digest is the build key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The recipe.
    pub recipe: RecipeId,
    /// The pinned source.
    pub source: Source,
    /// Every option of the recipe that changes the result, defaults filled in.
    pub options: BTreeMap<Name, OptionValue>,
    /// What the recipe requires together with what `--platform` and `--require` add.
    pub requirement: Requirement,
    /// In which conditions; left out of the encoding where they are the usual ones.
    #[serde(default, skip_serializing_if = "Conditions::are_usual")]
    pub conditions: Conditions,
}

/// The conditions in which a build is made: those that every build has, and others that differ in all that a result must not
/// depend on, so that one that does shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Conditions {
    /// Those that every build has.
    #[default]
    Usual,
    /// Another folder, host name, time zone and number of jobs, and other dates of files.
    Other,
}

impl Conditions {
    fn are_usual(&self) -> bool {
        *self == Self::Usual
    }
}

impl BuildSpec {
    /// The key by which this build is known everywhere.
    #[must_use]
    pub fn key(&self) -> BuildKey {
        BuildKey(Digest::of(&codec::encode(self)))
    }
}

/// How urgent a request is; charged to the requester by the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// Somebody waits for it.
    Urgent,
    /// The usual.
    #[default]
    Normal,
    /// When nothing else is to be done.
    Batch,
}

/// A requester's wish for a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What the recipe calls itself, for people.
    pub recipe: Name,
    /// What is to be built.
    pub spec: BuildSpec,
    /// Every option of the recipe that does not change the result, defaults filled in: not part of the build key. Of several
    /// requests for one build, that of the first counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effort: BTreeMap<Name, OptionValue>,
    /// How urgent.
    pub priority: Priority,
    /// Chosen at random, so that asking again later is another request.
    pub nonce: [u8; 16],
    /// The requester's clock when it signed.
    pub issued_at: Timestamp,
    /// How long it waits before it expires; at most [`MAX_TTL`].
    pub ttl: Span,
}

impl Payload for Request {
    const KIND: Kind = Kind::Request;
    const MAX_BYTES: usize = 8 << 10;
}

impl Request {
    /// When it stops waiting.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.issued_at + self.ttl.duration()
    }
}

/// A request whose signature was checked, with the envelope it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRequest {
    /// Its name.
    pub id: RequestId,
    /// Who asks.
    pub requester: PeerKey,
    /// What is asked.
    pub request: Request,
    /// The build key of its spec.
    pub build_key: BuildKey,
    /// The envelope, to be stored and forwarded unchanged.
    pub signed: Signed,
}

impl CheckedRequest {
    /// Opens the envelope.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when the envelope is not a valid request for `farm`.
    pub fn open(signed: Signed, farm: FarmId) -> Result<Self, OpenError> {
        let request: Request = signed.open(farm)?;
        Ok(Self { id: RequestId(signed.id()), requester: signed.key, build_key: request.spec.key(), request, signed })
    }
}

/// A mail address that cannot carry anything but an address: printable ASCII, one `@`, no quoting, at most 254 bytes
/// (RFC 5321 section 4.5.3.1, less the quoted and internationalised forms).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

/// The text is not an address we would write to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a mail address that can be used: plain ASCII such as name@example.org is", .0.escape_debug())]
pub struct AddressError(String);

impl Address {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let local_good = |local: &str| {
            (1..=64).contains(&local.len())
                && local.split('.').all(|atom| {
                    !atom.is_empty()
                        && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
                })
        };
        let domain_good = |domain: &str| {
            domain.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
        };
        match text.rsplit_once('@') {
            Some((local, domain)) if text.len() <= 254 && local_good(local) && domain_good(domain) => Ok(Self(text)),
            _ => Err(AddressError(text)),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Addresses are private: debug output hides them.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// Whether a finished build will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Freshness {
    /// Any finished build, whenever it was made.
    #[default]
    Any,
    /// Only attempts that were granted after this subscription.
    Fresh,
}

/// What has to be true before a subscriber is told "built".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Demand {
    /// How many distinct operators must have reported the same manifest, 1 to [`MAX_AGREE`].
    pub agree: NonZeroU8,
    /// Which attempts count.
    pub freshness: Freshness,
}

impl Default for Demand {
    fn default() -> Self {
        Self { agree: NonZeroU8::MIN, freshness: Freshness::Any }
    }
}

/// Somebody waits for a request's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The request.
    pub request: RequestId,
    /// Where to write; `None` for somebody who looks by himself.
    pub address: Option<Address>,
    /// What has to be true first.
    pub demand: Demand,
}

impl Payload for Subscription {
    const KIND: Kind = Kind::Subscription;
    const MAX_BYTES: usize = 1 << 10;
}

/// The requester does not want it any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// The request.
    pub request: RequestId,
    /// The requester's clock when it signed.
    pub issued_at: Timestamp,
}

impl Payload for Cancellation {
    const KIND: Kind = Kind::Cancellation;
    const MAX_BYTES: usize = 1 << 10;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_carry_nothing_but_an_address() {
        for good in ["me@example.org", "a.b+c@x-y.example", "x@localhost"] {
            assert!(good.parse::<Address>().is_ok(), "{good}");
        }
        let long = format!("{}@example.org", "x".repeat(65));
        for bad in [
            "",
            "me",
            "@example.org",
            "me@",
            "a@b\r\nBcc: c@d",
            "a b@c",
            "\"a b\"@c",
            "a@b..c",
            ".a@b",
            "a.@b",
            "a@-b.c",
            "a@b\u{2028}c",
            "ü@b",
            "a@b@c",
            "<a@b>",
            "a@[127.0.0.1]",
            &long,
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
        assert_eq!(format!("{:?}", "me@example.org".parse::<Address>().unwrap()), "Address(…)");
    }

    #[test]
    fn the_key_depends_on_everything_that_changes_the_result() {
        let spec = BuildSpec {
            recipe: RecipeId(Digest::of(b"recipe")),
            source: Source::Inline,
            options: BTreeMap::from([("opt".parse().unwrap(), OptionValue::Integer(2))]),
            requirement: Requirement::none(),
            conditions: Conditions::Usual,
        };
        let mut other = spec.clone();
        other.options.insert("opt".parse().unwrap(), OptionValue::Integer(3));
        assert_ne!(spec.key(), other.key());
        let mut other = spec.clone();
        other.source = Source::Tree(ManifestId(Digest::of(b"tree")));
        assert_ne!(spec.key(), other.key());
        let mut other = spec.clone();
        other.requirement.add("cores", Constraint::Present);
        assert_ne!(spec.key(), other.key());
        let other = BuildSpec { conditions: Conditions::Other, ..spec.clone() };
        assert_ne!(spec.key(), other.key());
        for spec in [&spec, &other] {
            assert_eq!(&codec::decode::<BuildSpec>(&codec::encode(spec), 1 << 10).unwrap(), spec);
        }
        assert_eq!(spec.key(), spec.clone().key());
    }

    #[test]
    fn names_are_plain() {
        for good in ["lua", "py3.11", "a", "9p", "x_y+z-1"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-x", ".x", "A", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
