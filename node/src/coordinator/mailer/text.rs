//! Plain text for people: wrapping, escaping, spans and dates.
//!
//! Everything that comes from a peer passes through here before it stands in a letter: [`escape`] leaves no character that a
//! terminal or a mail reader would obey, [`subject_safe`] leaves no character that a header could trip over.

use protocol::time::Timestamp;
use std::fmt::Write as _;
use std::time::Duration;

/// Where our own lines of prose are broken.
pub(super) const WIDTH: usize = 74;

/// `text` with every character escaped that is not simply shown: controls, line and paragraph separators, bidirectional and
/// zero-width marks. Cut after `most` characters, with an ellipsis.
pub(super) fn escape(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for (count, character) in text.chars().enumerate() {
        if count == most {
            shown.push('…');
            break;
        }
        match character {
            '\t' => shown.push(' '),
            c if is_obeyed(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that change what is around them instead of being shown (Unicode categories Cc and Zl, Zp, and the format
/// characters that reorder or hide text).
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` on one line: escaped, with runs of white space and line ends as one space.
pub(super) fn one_line(text: &str, most: usize) -> String {
    escape(&text.split_whitespace().collect::<Vec<_>>().join(" "), most)
}

/// `text` in the characters that a subject may have from a peer; others become `_`. Cut after `most` characters.
pub(super) fn subject_safe(text: &str, most: usize) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._+=:,()[]/ -".contains(c) { c } else { '_' };
    if text.chars().count() <= most {
        return text.chars().map(safe).collect();
    }
    text.chars().take(most.saturating_sub(2)).map(safe).chain("..".chars()).collect()
}

/// Breaks `text` at spaces into lines of at most `width` characters; a longer word has a line of its own.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A span as people say it: `350 ms`, `41 s`, `3 min 20 s`, `2 h 5 min`, `7 days`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, big_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{big} {big_name}"),
        _ => format!("{big} {big_name} {small} {small_name}"),
    };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => {
            let days = seconds / 86_400;
            two(days, if days == 1 { "day" } else { "days" }, seconds % 86_400 / 3_600, "h")
        }
    }
}

/// A moment as `2026-11-22 11:17:03 UTC`.
pub(super) fn moment(timestamp: Timestamp) -> String {
    let seconds = timestamp.as_millis() / 1_000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    );
    text
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar. The year is counted from March, so that the leap
/// day comes last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_obeyed_is_escaped() {
        assert_eq!(escape("plain, ünïcode", 99), "plain, ünïcode");
        assert_eq!(escape("\x1b[31mred\x07\r\n", 99), "\\u{1b}[31mred\\u{7}\\r\\n");
        assert_eq!(escape("a\u{2028}b\u{202e}c\u{200b}d\u{9b}", 99), "a\\u{2028}b\\u{202e}c\\u{200b}d\\u{9b}");
        assert_eq!(escape("abcdef", 3), "abc…");
        assert_eq!(one_line("a\r\n.\r\nb\u{2029}\0", 99), "a . b \\u{0}");
    }

    #[test]
    fn a_subject_has_only_plain_characters() {
        assert_eq!(subject_safe("opt=3, gc:x/y (z) [1]", 40), "opt=3, gc:x/y (z) [1]");
        assert_eq!(subject_safe("a\r\nBcc: v@x\u{2028}ü\"<>;", 40), "a__Bcc: v_x______");
        assert_eq!(subject_safe("abcdefgh", 6), "abcd..");
    }

    #[test]
    fn prose_is_broken_at_spaces() {
        assert_eq!(wrap("aa bb cc dddddddd e", 5), ["aa bb", "cc", "dddddddd", "e"]);
        assert_eq!(wrap("  ", 5), [] as [&str; 0]);
    }

    #[test]
    fn spans_and_moments_read_well() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (41_999, "41 s"),
            (200_000, "3 min 20 s"),
            (7_500_000, "2 h 5 min"),
            (604_800_000, "7 days"),
            (90_000_000, "1 day 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_763_810_223, "2025-11-22 11:17:03 UTC"),
        ] {
            assert_eq!(moment(Timestamp::from_millis(seconds * 1_000)), text);
        }
    }
}
