//! The line of a file that something is wrong with, and a caret below the place.

use crate::output::escape;
use protocol::recipe::Position;

/// The most characters of a line that are shown.
const SHOWN: usize = 100;
/// How many of them stand before the place, where the line is longer.
const BEFORE: usize = 40;

/// Three lines below a message: a margin, the line with its number, and `^^^` below the place.
pub(super) fn excerpt(text: &str, position: Position) -> String {
    let Position { line, column, width } = position;
    let all: Vec<char> = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().chars().map(plain).collect();
    let at = column.saturating_sub(1).min(all.len());
    let from = if all.len() > SHOWN { at.saturating_sub(BEFORE) } else { 0 };
    let shown: String = all[from..].iter().take(SHOWN).collect();
    let width = width.min(shown.chars().count().saturating_sub(at - from)).max(1);
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let (indent, carets) = (" ".repeat(at - from), "^".repeat(width));
    format!("\n{margin} |\n{number} | {}\n{margin} | {indent}{carets}", shown.trim_end())
}

/// A character that takes one column wherever it is shown.
fn plain(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || escape(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8() => '?',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, line: usize, column: usize, width: usize) -> String {
        excerpt(text, Position { line, column, width })
    }

    #[test]
    fn the_caret_stands_below_the_place() {
        let text = "recipe = 1\nname = \"Lua 5\"\r\n";
        assert_eq!(shown(text, 2, 8, 7), "\n  |\n2 | name = \"Lua 5\"\n  |        ^^^^^^^");
        assert_eq!(shown(text, 1, 11, 1), "\n  |\n1 | recipe = 1\n  |           ^");
        assert_eq!(shown("", 1, 1, 1), "\n  |\n1 | \n  | ^");
        assert_eq!(shown("\ta\u{1b}[31m\u{202e}b", 1, 2, 99), "\n  |\n1 |  a?[31m?b\n  |  ^^^^^^^^");
    }

    #[test]
    fn of_a_long_line_the_part_around_the_place_is_shown() {
        let text = "x".repeat(5_000) + "HERE" + &"y".repeat(5_000);
        let shown = shown(&text, 1, 5_001, 4);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[2].find("HERE"), lines[3].find("^^^^"));
        assert!(lines[2].len() <= SHOWN + 4, "{shown}");
    }
}
