//! Words for sources from outside the farm: where a thing is published, what somebody calls a state of it, and which commit
//! that is.
//!
//! Each is parsed once and then holds nothing wrong: no address but https, nothing that a program could take for a flag, no
//! abbreviated commit where a whole one is meant. Nothing here looks anything up.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest address, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;
/// The longest name of a revision, in bytes.
pub const MAX_REVISION_BYTES: usize = 256;
/// The fewest digits that name a commit by its beginning, as git has it.
pub const MIN_SHORT_DIGITS: usize = 4;

/// An https address: printable ASCII with a host, without user name, password or fragment, of at most [`MAX_URL_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpsUrl(String);

/// The text is not such an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no https address of at most {MAX_URL_BYTES} printable characters, such as https://example.org/x", .0.escape_debug())]
pub struct HttpsUrlError(String);

impl HttpsUrl {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HttpsUrl {
    type Error = HttpsUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
        let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\' | b'"' | b'<' | b'>'));
        if is_plain && text.len() <= MAX_URL_BYTES && !host.is_empty() && !host.contains('@') {
            Ok(Self(text))
        } else {
            Err(HttpsUrlError(text))
        }
    }
}

/// A whole commit id: 40 lower-case hexadecimal digits (SHA-1), or 64 (SHA-256).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Commit(String);

/// The text is not a whole commit id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no commit: 40 or 64 lower-case hexadecimal digits are", .0.escape_debug())]
pub struct CommitError(String);

impl Commit {
    /// All its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Commit {
    type Error = CommitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if matches!(text.len(), 40 | 64) && text.bytes().all(is_digit) {
            Ok(Self(text))
        } else {
            Err(CommitError(text))
        }
    }
}

/// What somebody calls a state of a repository: a branch, a tag, a commit or the beginning of one. By git's own rules for
/// names (git-check-ref-format), so that no name is a flag, a path upwards or an expression.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision(String);

/// The text names no revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` names no revision: give a branch, a tag or a commit, without `~`, `^`, `:` or spaces", .0.escape_debug())]
pub struct RevisionError(String);

impl Revision {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The commit, if all digits of one were written.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        Commit::try_from(self.0.to_ascii_lowercase()).ok()
    }

    /// The digits in lower case, if this may be the beginning of a commit.
    #[must_use]
    pub fn short_commit(&self) -> Option<String> {
        let digits = self.0.to_ascii_lowercase();
        (digits.len() >= MIN_SHORT_DIGITS && digits.len() < 64 && digits.bytes().all(is_digit)).then_some(digits)
    }
}

impl TryFrom<String> for Revision {
    type Error = RevisionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |b: u8| b.is_ascii_graphic() && !b"~^:?*[\\".contains(&b) || !b.is_ascii();
        let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
        let fits = (1..=MAX_REVISION_BYTES).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('.')
            && !text.contains("..")
            && !text.contains("@{")
            && text != "@"
            && text.bytes().all(plain)
            && !text.chars().any(char::is_control)
            && text.split('/').all(part);
        if fits { Ok(Self(text)) } else { Err(RevisionError(text)) }
    }
}

fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

macro_rules! is_a_text {
    ($($name:ident, $error:ident;)*) => {$(
        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

is_a_text! {
    HttpsUrl, HttpsUrlError;
    Commit, CommitError;
    Revision, RevisionError;
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_https_and_carries_no_secret() {
        for good in ["https://example.org/x.git", "https://h:8443/a/b?c=d", "https://[::1]:1/x"] {
            assert_eq!(good.parse::<HttpsUrl>().unwrap().as_str(), good);
        }
        let long = format!("https://x/{}", "y".repeat(MAX_URL_BYTES));
        for bad in [
            "",
            "example.org",
            "http://example.org/",
            "ssh://example.org/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https://?x",
            "https://me@example.org/",
            "https://me:pw@example.org/",
            "https://example.org/#frag",
            "https://example.org/a b",
            "https://example.org/ü",
            "https://example.org/\n",
            "https://example.org\\@evil/",
            "ext::sh -c true",
            &long,
        ] {
            assert!(bad.parse::<HttpsUrl>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_commit_is_whole() {
        let (sha1, sha256) = ("0123456789abcdef".repeat(3)[..40].to_owned(), "0123456789abcdef".repeat(4));
        assert_eq!(sha1.parse::<Commit>().unwrap().short(), "0123456789ab");
        assert_eq!(sha256.parse::<Commit>().unwrap().as_str(), sha256);
        for bad in ["", "main", &sha1[1..], &sha256[1..], &sha1.to_uppercase(), &format!("{sha1} ")] {
            assert!(bad.parse::<Commit>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_revision_is_no_flag_and_no_expression() {
        for good in ["main", "v1.0", "feature/x", "release-3.11", "HEAD", "0123abcd", "täg", "refs/heads/main", "a@b"]
        {
            assert_eq!(good.parse::<Revision>().unwrap().as_str(), good);
        }
        let long = "x".repeat(MAX_REVISION_BYTES + 1);
        for bad in [
            "",
            "-x",
            "--upload-pack=evil",
            "main~1",
            "main^",
            "a..b",
            "a:b",
            "a b",
            "a\nb",
            "@",
            "@{1}",
            "a@{u}",
            "*",
            "a/",
            "/a",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "[a]",
            "a\\b",
            "a\u{85}b",
            &long,
        ] {
            assert!(bad.parse::<Revision>().is_err(), "{bad:?}");
        }
        assert_eq!("DEADbeef".parse::<Revision>().unwrap().short_commit().as_deref(), Some("deadbeef"));
        for not in ["dea", "deadbeeg", "main"] {
            assert_eq!(not.parse::<Revision>().unwrap().short_commit(), None, "{not}");
        }
        let whole = "0123456789".repeat(4);
        assert_eq!(whole.parse::<Revision>().unwrap().commit().unwrap().as_str(), whole);
    }
}
