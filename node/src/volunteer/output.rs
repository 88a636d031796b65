//! Outputs as recipes declare them: paths and patterns below the work folder.

use protocol::recipe::Presence;
use std::fmt;
use std::str::FromStr;

/// Which files of the work folder are outputs: `lua`, `lib/*.so`, `share/**`.
///
/// A path relative to the work folder, its parts separated by `/`. A `*` in the last part stands for any characters within one
/// name; `**` as the last part stands for every file below the folder before it. What is read from a text is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPattern {
    pub(super) folders: Vec<String>,
    pub(super) last: Last,
    pub(super) presence: Presence,
}

impl OutputPattern {
    /// The same files, which may or may not be missing.
    #[must_use]
    pub fn with(self, presence: Presence) -> Self {
        Self { presence, ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Last {
    Name(String),
    Glob(String),
    Below,
}

impl FromStr for OutputPattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        let refused = || NotAPattern(text.to_owned());
        let mut parts: Vec<&str> = text.split('/').collect();
        let last = match parts.pop() {
            Some("**") if !parts.is_empty() => Last::Below,
            Some(name) if is_acceptable(name) && name.contains('*') && !name.contains("**") => {
                Last::Glob(name.to_owned())
            }
            Some(name) if is_acceptable(name) && !name.contains('*') => Last::Name(name.to_owned()),
            _ => return Err(refused()),
        };
        if parts.iter().any(|part| !is_acceptable(part) || part.contains('*')) {
            return Err(refused());
        }
        let folders = parts.into_iter().map(str::to_owned).collect();
        Ok(Self { folders, last, presence: Presence::Required })
    }
}

impl fmt::Display for OutputPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for folder in &self.folders {
            write!(f, "{folder}/")?;
        }
        f.write_str(match &self.last {
            Last::Name(name) | Last::Glob(name) => name,
            Last::Below => "**",
        })
    }
}

/// The text is not a relative output path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a relative output path")]
pub struct NotAPattern(String);

/// One part of a path that may be shown, stored and written anywhere: no control characters, none that reorder text.
pub(super) fn is_acceptable(name: &str) -> bool {
    let reorders =
        |c: char| matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = |c: char| matches!(c, '\u{2028}' | '\u{2029}' | '/' | '\\' | char::REPLACEMENT_CHARACTER);
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c.is_control() || reorders(c) || breaks(c))
}

/// Whether `name` is `glob` with each `*` in place of any characters. Greedy parts from the left are enough with one kind of wildcard.
pub(super) fn matches(glob: &str, name: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else {
        return glob == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').map_or((None, rest), |(middle, end)| (Some(middle), end));
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn patterns_cannot_leave_the_work_folder() {
        for text in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "*/b",
            "**",
            "a**",
            "a/**/b",
            "a\nb",
            "a\0",
            "a\\b",
            "\u{202e}a",
        ] {
            assert!(text.parse::<OutputPattern>().is_err(), "{text:?}");
        }
        for text in ["a", "a/b.so", "a/*.so", "*", "a/**"] {
            assert_eq!(text.parse::<OutputPattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn globs_match_as_shells_do() {
        for (glob, name, expected) in [
            ("*", "a", true),
            ("a*", "a", true),
            ("*.so", "lib.so", true),
            ("*.so", "lib.so.1", false),
            ("a*b", "ab", true),
            ("a*b", "a", false),
            ("ab*ba", "aba", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("*x*", "xx", true),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }
}
