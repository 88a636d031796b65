//! Words that may be stored and shown: what a mail server answered, made harmless.

/// The most characters of a reason.
const WORDS_MOST: usize = 200;

/// `text` as printable ASCII on one line, without mail addresses, at most 200 characters.
///
/// Reasons become part of the farm's state and are shown by `status`, and servers like to repeat the address they refuse:
/// every word with an `@` in it becomes `<address>`.
pub(super) fn server_words(text: &str) -> String {
    let mut words = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !words.is_empty() {
            words.push(' ');
        }
        if word.contains('@') {
            words.push_str("<address>");
        } else {
            words.extend(word.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }));
        }
    }
    if words.len() > WORDS_MOST {
        words.truncate(WORDS_MOST - 3);
        words.push_str("...");
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_made_harmless() {
        assert_eq!(
            server_words("550 5.1.1 <victim@example.org>: Recipient address rejected\r\n"),
            "550 5.1.1 <address> Recipient address rejected"
        );
        assert_eq!(server_words("450\x1b[2J wait\u{202e}\ngräte"), "450 [2J wait? gr?te");
        assert_eq!(server_words(&"x".repeat(1_000)).len(), 200);
        assert_eq!(server_words(""), "");
    }
}
