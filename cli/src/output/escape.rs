//! Text from elsewhere, made safe for a terminal.
//!
//! Escaped are C0 and C1 controls, DEL, and the characters that change the direction of reading or break a line by
//! themselves (Unicode Standard Annex #9, and "Trojan Source", CVE-2021-42574). Line feeds and tabs stay.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest line of a log, in bytes; longer ones are broken.
const MAX_LINE_BYTES: usize = 16 << 10;

fn is_dangerous(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn push_escaped(to: &mut String, c: char) {
    match c {
        '\r' => to.push_str("\\r"),
        '\u{0}'..='\u{ff}' => {
            let _ = write!(to, "\\x{:02x}", u32::from(c));
        }
        _ => {
            let _ = write!(to, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// `text` with every dangerous character written out.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_dangerous(c) { push_escaped(&mut safe, c) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// `json`, which is one JSON text, with dangerous characters as JSON escapes: the value stays the same. Such characters occur
/// only inside its strings, since the serializer writes no blanks of its own.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_dangerous) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_dangerous(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// A log that comes in stretches, made safe: characters that are cut between two stretches are put together, bytes that are
/// no UTF-8 are written out, lines without an end are broken.
#[derive(Debug, Default)]
pub(crate) struct LogText {
    /// The beginning of a character, or a carriage return, whose rest has not come.
    cut: Vec<u8>,
    /// Bytes written since the last line feed.
    line_bytes: usize,
}

impl LogText {
    /// The safe text of the next stretch.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.cut);
        all.extend_from_slice(bytes);
        let mut safe = String::with_capacity(all.len() + 16);
        let mut rest = &all[..];
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.push(&mut safe, text, After::Nothing);
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    let text = String::from_utf8_lossy(good);
                    self.push(&mut safe, &text, After::More);
                    let Some(len) = error.error_len() else {
                        self.cut.extend_from_slice(bad);
                        break;
                    };
                    for byte in &bad[..len] {
                        let _ = write!(safe, "\\x{byte:02x}");
                        self.line_bytes += 4;
                    }
                    rest = &bad[len..];
                }
            }
        }
        safe
    }

    /// What is left when nothing more will come: a character that was never finished.
    pub(crate) fn finish(self) -> String {
        let mut safe = String::new();
        for byte in self.cut {
            let _ = write!(safe, "\\x{byte:02x}");
        }
        safe
    }

    fn push(&mut self, safe: &mut String, text: &str, after: After) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let before = safe.len();
            match c {
                '\r' if chars.peek() == Some(&'\n') => {}
                '\r' if chars.peek().is_none() && after == After::Nothing => self.cut.push(b'\r'),
                '\n' => {
                    safe.push('\n');
                    self.line_bytes = 0;
                    continue;
                }
                c if is_dangerous(c) => push_escaped(safe, c),
                c => safe.push(c),
            }
            self.line_bytes += safe.len() - before;
            if self.line_bytes >= MAX_LINE_BYTES {
                safe.push('\n');
                self.line_bytes = 0;
            }
        }
    }
}

/// Whether more of the same stretch follows a piece of text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    More,
    Nothing,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const HOSTILE: [&str; 9] = [
        "\x1b[2J\x1b[H",
        "\x1b]0;title\x07",
        "\u{9b}31m",
        "a\u{202e}cod.exe",
        "\u{2066}x\u{2069}",
        "a\0b",
        "\x7f\x08\x08",
        "\u{e0041}",
        "line\u{2028}break\r",
    ];

    #[test]
    fn hostile_text_is_written_out() {
        assert_eq!(escape("\x1b[31mred"), "\\x1b[31mred");
        assert_eq!(escape("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(escape("tab\tand\nline, ünïcödé 雪"), "tab\tand\nline, ünïcödé 雪");
        for text in HOSTILE {
            assert!(!escape(text).contains(is_dangerous), "{text:?}");
        }
    }

    #[test]
    fn json_keeps_its_value() {
        for text in HOSTILE {
            let json = serde_json::to_string(text).unwrap();
            let safe = escape_json(&json);
            assert!(!safe.contains(is_dangerous), "{safe:?}");
            assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }

    #[test]
    fn a_log_keeps_its_lines_and_loses_its_tricks() {
        let mut log = LogText::default();
        assert_eq!(log.take(b"cc -c a.c\r\nok\n\xff\x1b[0m\rdone\n"), "cc -c a.c\nok\n\\xff\\x1b[0m\\rdone\n");
        assert_eq!(log.take("snow \u{96ea}".as_bytes().split_last().unwrap().1), "snow ");
        assert_eq!(log.take(&["\u{96ea}".as_bytes()[2], b'\n']), "\u{96ea}\n");
        assert_eq!(log.take(b"line\r"), "line");
        assert_eq!(log.take(b"\nnext\n\xe9"), "\nnext\n");
        assert_eq!(log.finish(), "\\xe9");
    }

    #[test]
    fn an_endless_line_is_broken() {
        let mut log = LogText::default();
        let text: String = (0..10).map(|_| log.take(&[b'x'; 10_000])).collect();
        assert!(text.lines().all(|line| line.len() <= MAX_LINE_BYTES));
        assert_eq!(text.matches('x').count(), 100_000);
    }

    proptest! {
        #[test]
        fn no_stretch_of_any_log_is_dangerous(stretches in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let mut log = LogText::default();
            for stretch in &stretches {
                prop_assert!(!log.take(stretch).contains(is_dangerous));
            }
        }

        #[test]
        fn a_log_reads_the_same_however_it_is_cut(text in "[a-z\r\n雪é]{0,40}", at in 0usize..80) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            let mut whole = LogText::default();
            let mut cut = LogText::default();
            let expected = whole.take(bytes);
            let mut got = cut.take(&bytes[..at]);
            got.push_str(&cut.take(&bytes[at..]));
            prop_assert_eq!(got, expected);
        }
    }
}
