//! A letter in its envelope: headers, encoding and the bytes that leave the house.
//!
//! The same notice gives the same bytes each time, with the same Message-ID, so that a mail sent twice is seen to be one. Every
//! address is checked twice, by the law's [`Address`] and by lettre; the body is always quoted-printable, so nothing in it can
//! be taken for SMTP.

use super::letter::Letter;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message, SinglePart};
use protocol::id::NoticeId;
use protocol::request::{Address, AddressError};
use protocol::time::Timestamp;
use std::fmt;
use std::time::{Duration, SystemTime};

/// The last moment that a date header can say: the end of the year 9999.
const LAST_MOMENT: Duration = Duration::from_secs(253_402_300_799);
/// The longest display name, in characters.
const NAME_MOST: usize = 64;

/// Who mails are from: an address and the name shown with it.
#[derive(Clone, PartialEq, Eq)]
pub struct From {
    name: Option<String>,
    address: Address,
}

/// The text does not say who mails are from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FromError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The name shown with it cannot be used.
    #[error("the name before the address is at most {NAME_MOST} characters without quotes, brackets or controls")]
    Name,
}

impl From {
    /// Reads `farm@example.org` or `The farm <farm@example.org>`.
    ///
    /// # Errors
    ///
    /// [`FromError`] when name or address carries anything else.
    pub fn parse(text: &str) -> Result<Self, FromError> {
        let Some((name, address)) = text.trim().strip_suffix('>').and_then(|text| text.split_once('<')) else {
            return Ok(Self { name: None, address: text.trim().parse()? });
        };
        let name = name.trim();
        let plain = |c: char| !c.is_control() && !"\"<>@,;:\\()[]\u{2028}\u{2029}".contains(c);
        if name.chars().count() > NAME_MOST || !name.chars().all(plain) {
            return Err(FromError::Name);
        }
        Ok(Self { name: (!name.is_empty()).then(|| name.to_owned()), address: address.parse()? })
    }

    /// The same, with `name` shown where none was given.
    #[must_use]
    pub fn or_named(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.to_owned());
        self
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl fmt::Debug for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "From({})", self.address)
    }
}

/// A mail, ready to leave.
#[derive(Clone)]
pub struct Mail {
    pub(super) notice: NoticeId,
    pub(super) from: lettre::Address,
    pub(super) to: lettre::Address,
    pub(super) bytes: Vec<u8>,
}

/// Why no mail could be made. Trying again would not help.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mail library takes no such address.
    #[error("the address cannot be used in a mail: {0}")]
    Address(#[from] lettre::address::AddressError),
    /// The mail library makes no such message.
    #[error("the mail cannot be made: {0}")]
    Message(#[from] lettre::error::Error),
}

impl Mail {
    /// Puts `letter` into an envelope `from` the farm `to` one address.
    ///
    /// # Errors
    ///
    /// [`MailError`] when the mail library refuses one of the addresses.
    pub fn new(
        notice: NoticeId,
        from: &From,
        to: &Address,
        date: Timestamp,
        letter: &Letter,
    ) -> Result<Self, MailError> {
        let (sender, recipient) = (to_lettre(&from.address)?, to_lettre(to)?);
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(date.as_millis()).min(LAST_MOMENT);
        let message = Message::builder()
            .from(Mailbox::new(from.name.clone(), sender.clone()))
            .to(Mailbox::new(None, recipient.clone()))
            .subject(&letter.subject)
            .date(date)
            .message_id(Some(format!("<{notice}@{}>", sender.domain())))
            // RFC 3834 section 5: so that no responder answers.
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
            .singlepart(
                SinglePart::builder()
                    .header(ContentType::TEXT_PLAIN)
                    .header(ContentTransferEncoding::QuotedPrintable)
                    // The part's own line end closes the last line.
                    .body(letter.body.trim_end_matches('\n').to_owned()),
            )?;
        Ok(Self { notice, from: sender, to: recipient, bytes: message.formatted() })
    }

    /// The whole mail as RFC 5322 writes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Addresses are private: debug output hides them.
impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mail({}, {} bytes)", self.notice.short(), self.bytes.len())
    }
}

fn to_lettre(address: &Address) -> Result<lettre::Address, lettre::address::AddressError> {
    address.as_str().parse()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use protocol::digest::Digest;

    #[test]
    fn from_is_an_address_with_or_without_a_name() {
        let bare = From::parse(" farm@example.org ").unwrap();
        assert_eq!((bare.name.as_deref(), bare.address.as_str()), (None, "farm@example.org"));
        let named = From::parse("The büild farm <farm@example.org>").unwrap();
        assert_eq!((named.name.as_deref(), named.address.as_str()), (Some("The büild farm"), "farm@example.org"));
        assert_eq!(bare.or_named("pypy").name.as_deref(), Some("pypy"));
        assert_eq!(named.or_named("pypy").name.as_deref(), Some("The büild farm"));
        for bad in [
            "",
            "farm",
            "A <b>",
            "A\r\nBcc: <v@example.org>",
            "A\u{2028}B <a@b>",
            "a@b, <c@d>",
            "<a@b> c",
            "\"A\" <a@b>",
        ] {
            assert!(From::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn whatever_a_letter_says_there_is_one_mail() {
        let from = From::parse("Farm <farm@example.org>").unwrap();
        let to: Address = "me@example.org".parse().unwrap();
        let hostile = [
            "a\r\nBcc: victim@example.org",
            "a\nBcc: victim@example.org\n\nbody",
            "\r\n.\r\nMAIL FROM:<x@example.org>\r\n",
            ".\r\n.\n.\r",
            "\u{2028}Bcc: victim@example.org\u{2029}\u{85}",
            "\0\x1b[2J",
            "=?utf-8?q?=0D=0ABcc:_victim@example.org?=",
        ];
        for text in hostile {
            let letter = Letter { subject: text.to_owned(), body: format!("{text}\n") };
            let mail = Mail::new(NoticeId(Digest::of(b"n")), &from, &to, Timestamp::EPOCH, &letter).unwrap();
            let raw = String::from_utf8(mail.bytes.clone()).unwrap();
            let (head, body) = raw.split_once("\r\n\r\n").unwrap();
            let names: Vec<_> = head
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .filter_map(|l| l.split_once(':'))
                .collect();
            let expected = [
                "From",
                "To",
                "Subject",
                "Date",
                "Message-ID",
                "Auto-Submitted",
                "MIME-Version",
                "Content-Type",
                "Content-Transfer-Encoding",
            ];
            assert_eq!(names.iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected, "{text:?}");
            assert!(!raw.replace("\r\n", "").contains(['\r', '\n']), "bare line ends: {raw:?}");
            assert!(raw.is_ascii() && body.split("\r\n").all(|line| line.len() <= 76), "{raw:?}");
            let parsed = mail_parser::MessageParser::default().parse(raw.as_bytes()).unwrap();
            assert!(parsed.bcc().is_none() && parsed.attachment_count() == 0, "{raw:?}");
        }
    }

    #[test]
    fn a_date_beyond_the_calendar_is_its_last() {
        let from = From::parse("farm@example.org").unwrap();
        let letter = Letter { subject: "s".to_owned(), body: "b\n".to_owned() };
        let last = Timestamp::from_millis(u64::MAX);
        let mail =
            Mail::new(NoticeId(Digest::of(b"n")), &from, &"me@localhost".parse().unwrap(), last, &letter).unwrap();
        assert!(String::from_utf8(mail.bytes).unwrap().contains("Date: Fri, 31 Dec 9999 23:59:59 +0000\r\n"));
    }
}
