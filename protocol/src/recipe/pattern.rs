//! The pattern of a text option: a small language that a stranger may write and we still match in bounded time.
//!
//! A pattern is a sequence of classes, each with a count: `[A-Za-z0-9-]{1,64}`, `v[0-9]{1,3}`. A class is
//! `[...]` of printable ASCII with ranges, or one plain character; a count is `?`, `{n}` or `{m,n}`, and absent it is one.
//! There is no alternation, no group and no unbounded repetition, and the whole text must match. A `-` stands for itself at
//! the start or end of a class. Matching takes at most `classes × MAX_VALUE_BYTES` steps, whatever the pattern.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest text that any pattern admits, in bytes.
pub const MAX_VALUE_BYTES: usize = 256;
/// The most classes in a pattern.
pub const MAX_CLASSES: usize = 32;

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or too many classes.
    #[error("a pattern has 1 to {MAX_CLASSES} classes such as `[a-z0-9]{{1,64}}`")]
    Classes,
    /// Only printable ASCII may be named.
    #[error("`{}` is not printable ASCII", .0.escape_debug())]
    Character(char),
    /// A character that other pattern languages give a meaning.
    #[error("`{0}` has no meaning here: put it in a class, `[{0}]`, to match it")]
    Reserved(char),
    /// A class without an end, or an empty one.
    #[error("a class is closed by `]` and not empty")]
    Open,
    /// A range that goes down.
    #[error("the range `{0}-{1}` goes down")]
    Range(char, char),
    /// A count that is no count.
    #[error("a count is `?`, `{{n}}` or `{{m,n}}` with m not above n and n from 1 to {MAX_VALUE_BYTES}")]
    Count,
    /// More text than an option may hold.
    #[error("the pattern admits more than {MAX_VALUE_BYTES} bytes")]
    TooLong,
}

/// The printable ASCII characters of a class, one bit each.
type Set = u128;

#[derive(Clone, Copy, Debug)]
struct Class {
    set: Set,
    least: usize,
    most: usize,
}

/// A bounded pattern over printable ASCII.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    classes: Vec<Class>,
}

impl Pattern {
    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        if bytes.len() > MAX_VALUE_BYTES {
            return false;
        }
        // `ends[at]`: what was read of the pattern can end before byte `at`.
        let mut ends = vec![false; bytes.len() + 1];
        ends[0] = true;
        for class in &self.classes {
            ends = class.extend(&ends, bytes);
        }
        ends[bytes.len()]
    }

    /// The greatest length of a text that matches, in bytes.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.classes.iter().map(|class| class.most).sum()
    }

    /// Whether a text that matches can hold this character.
    #[must_use]
    pub fn admits(&self, character: u8) -> bool {
        self.classes.iter().any(|class| holds(class.set, character))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Class {
    /// Where a text can end once this class follows `starts`.
    fn extend(&self, starts: &[bool], bytes: &[u8]) -> Vec<bool> {
        let mut ends = vec![false; starts.len()];
        // Starts within reach of `at` form a window: they slide in once `least` bytes back, out beyond `most`, and all of
        // them are lost at a byte outside the class.
        let (mut run, mut live) = (0, 0usize);
        for at in 0..starts.len() {
            if at > 0 && !holds(self.set, bytes[at - 1]) {
                (run, live) = (0, 0);
            } else if at > 0 {
                run += 1;
                if run > self.most && starts[at - 1 - self.most] {
                    live -= 1;
                }
            }
            if run >= self.least && starts[at - self.least] {
                live += 1;
            }
            ends[at] = live > 0;
        }
        ends
    }
}

fn holds(set: Set, byte: u8) -> bool {
    byte < 128 && set >> byte & 1 == 1
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(bad) = text.chars().find(|c| !matches!(c, ' '..='~')) {
            return Err(PatternError::Character(bad));
        }
        let mut classes: Vec<Class> = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            if classes.len() == MAX_CLASSES {
                return Err(PatternError::Classes);
            }
            let (set, after) = read_set(rest)?;
            let (least, most, after) = read_count(after)?;
            classes.push(Class { set, least, most });
            rest = after;
        }
        let pattern = Self { text, classes };
        match pattern.longest() {
            0 => Err(PatternError::Classes),
            1..=MAX_VALUE_BYTES => Ok(pattern),
            _ => Err(PatternError::TooLong),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

fn read_set(text: &str) -> Result<(Set, &str), PatternError> {
    let first = text.bytes().next().ok_or(PatternError::Open)?;
    if first != b'[' {
        return match first {
            b'(' | b')' | b'|' | b'*' | b'+' | b'.' | b'^' | b'$' | b'\\' | b']' | b'{' | b'}' | b'?' => {
                Err(PatternError::Reserved(char::from(first)))
            }
            plain => Ok((1 << plain, &text[1..])),
        };
    }
    let (inside, after) = text[1..].split_once(']').ok_or(PatternError::Open)?;
    if inside.is_empty() {
        return Err(PatternError::Open);
    }
    if inside.starts_with('^') {
        return Err(PatternError::Reserved('^'));
    }
    let (mut set, mut bytes) = (0, inside.as_bytes());
    while let [low, rest @ ..] = bytes {
        if let [b'-', high, rest @ ..] = rest {
            if low > high {
                return Err(PatternError::Range(char::from(*low), char::from(*high)));
            }
            (*low..=*high).for_each(|byte| set |= 1 << byte);
            bytes = rest;
        } else {
            set |= 1 << low;
            bytes = rest;
        }
    }
    Ok((set, after))
}

fn read_count(text: &str) -> Result<(usize, usize, &str), PatternError> {
    if let Some(after) = text.strip_prefix('?') {
        return Ok((0, 1, after));
    }
    let Some(text) = text.strip_prefix('{') else { return Ok((1, 1, text)) };
    let (inside, after) = text.split_once('}').ok_or(PatternError::Count)?;
    let (least, most) = inside.split_once(',').unwrap_or((inside, inside));
    let number = |text: &str| match text.parse::<usize>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(PatternError::Count),
    };
    let (least, most) = (number(least)?, number(most)?);
    if least <= most && (1..=MAX_VALUE_BYTES).contains(&most) {
        Ok((least, most, after))
    } else {
        Err(PatternError::Count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn the_whole_text_matches_or_nothing() {
        let table: [(&str, &[&str], &[&str]); 6] = [
            ("[A-Za-z0-9-]{1,64}", &["a", "-", "Hello-World-9"], &["", "a b", "a\n", "ü", "a_"]),
            ("v[0-9]{1,3}[.]?[0-9]{0,2}", &["v1", "v123", "v1.2", "v12345"], &["v", "1", "v1.234", "v1.."]),
            ("[a]{2}", &["aa"], &["a", "aaa"]),
            ("[a-c]{0,3}c", &["c", "abc", "cccc"], &["ccccc", "ab", ""]),
            ("[-+]?[0-9]{1,2}", &["-1", "+12", "7"], &["--1", "-", "123"]),
            ("[/._a-z-]{1,8}", &["a/b", "../x"], &["a b"]),
        ];
        for (text, good, bad) in table {
            for value in good {
                assert!(pattern(text).matches(value), "{text} must match {value:?}");
            }
            for value in bad {
                assert!(!pattern(text).matches(value), "{text} must not match {value:?}");
            }
        }
        let long = "a".repeat(65);
        assert!(!pattern("[A-Za-z0-9-]{1,64}").matches(&long));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Classes),
            ("[a-z]*", PatternError::Reserved('*')),
            ("(a|b)", PatternError::Reserved('(')),
            ("[^a]", PatternError::Reserved('^')),
            ("[a", PatternError::Open),
            ("[]{1,2}", PatternError::Open),
            ("[z-a]", PatternError::Range('z', 'a')),
            ("[a]{2,1}", PatternError::Count),
            ("[a]{1,}", PatternError::Count),
            ("[a]{0}", PatternError::Count),
            ("[a]{+1}", PatternError::Count),
            ("[a]{1,99999999999999999999}", PatternError::Count),
            ("[a]{1,200}[b]{1,200}", PatternError::TooLong),
            ("[ä]", PatternError::Character('ä')),
            ("a\u{1b}", PatternError::Character('\u{1b}')),
        ] {
            assert_eq!(text.parse::<Pattern>(), Err(error), "{text}");
        }
        assert_eq!("[a]".repeat(33).parse::<Pattern>(), Err(PatternError::Classes));
    }

    proptest! {
        /// The window of [`Class::extend`] agrees with the plain definition, tried by recursion.
        #[test]
        fn agrees_with_the_definition(
            classes in proptest::collection::vec(("[abc]{1,3}", 0usize..4, 0usize..4), 1..5),
            text in "[abcd]{0,10}",
        ) {
            let written: String =
                classes.iter().map(|(set, least, more)| format!("[{set}]{{{least},{}}}", least + more.max(&1))).collect();
            let classes: Vec<(&str, usize, usize)> =
                classes.iter().map(|(set, least, more)| (set.as_str(), *least, least + more.max(&1))).collect();
            fn defined(classes: &[(&str, usize, usize)], text: &str) -> bool {
                let Some((&(set, least, most), rest)) = classes.split_first() else { return text.is_empty() };
                (least..=most.min(text.len())).any(|count| {
                    text[..count].chars().all(|c| set.contains(c)) && defined(rest, &text[count..])
                })
            }
            prop_assert_eq!(pattern(&written).matches(&text), defined(&classes, &text));
        }
    }
}
