#![allow(clippy::unwrap_used)]
use super::*;
use crate::coordinator::mailer::mail::{From, Mail};
use crate::coordinator::mailer::samples::{occasion, sender};
use mail_parser::{HeaderValue, Message, MessageParser, MimeHeaders as _};
use protocol::id::ManifestId;

const BUILT: &str = "\
lua is built. Fetch it with

 node fetch 1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047

The files come into the folder lua-2c70e12b, each checked against the
digest of the artifact.

What came of it
  outcome   built
  waited    2 s
  took      41 s
  volunteer 3b3b3b3b
  made on   distribution debian 12, glibc 2.36, cc 12.2.0
  artifact  05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f
  log       836ff184e7b41b1e13cb5fd89fa1de98dbbab99e9d2918913ff43b86a5c7c213

What was asked
  recipe    lua
  option    opt=3
  source    41cf6794ba4200b839c53531555f0f3998df4cbb01a4d5cb0b94e3ca5e23947d
  asked at  2025-11-22 11:17:03 UTC
  request   1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047
  build key 2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683

How the log ends
  | gcc -std=gnu99 -O3 -c lapi.c
  | gcc -o lua lua.o liblua.a -lm -Wl,-E -ldl
  | Lua 5.4.7  Copyright (C) 1994-2024 Lua.org, PUC-Rio

All of it:

 node logs 1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047

-- \n\
Somebody gave me@example.org with --email when asking the farm `pypy` for
this build. The farm mails nobody unasked: one mail for each request that
names your address, and no list to leave.
";

const BUILD_ERROR: &str = "\
lua could not be built: the build itself failed.

  step 2 (make linux): exit status 2

This is a build error: the fault lies in the recipe, its source or its
options, not in the farm.

A second volunteer failed in the same way, so the farm will not try again
by itself: for an hour it gives this answer to everybody who asks for the
same build. With --fresh it tries at once.

How the log ends
  | lapi.c:33:10: fatal error: lapi.h: No such file or directory
  | make: *** [Makefile:7: lapi.o] Error 1

All of it:

 node logs 1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047

What came of it
  outcome   build error, confirmed by a second volunteer
  waited    2 s
  took      41 s
";

fn built(how: HowBuilt, holding: Holding) -> Ended {
    Ended::Built { manifest: ManifestId(Digest::of(b"manifest")), how, holding }
}

fn policy(end: PolicyEnd) -> Ended {
    Ended::Policy(end)
}

/// The letter, parsed back from the bytes that would leave.
fn written(occasion: &Occasion, sender: &Sender) -> (Letter, Vec<u8>) {
    let letter = letter(occasion, sender);
    let from = From::parse("farm@example.org").unwrap().or_named("pypy build farm");
    let mail = Mail::new(occasion.notice, &from, &occasion.address, occasion.ended_at, &letter).unwrap();
    (letter, mail.as_bytes().to_vec())
}

fn parsed(bytes: &[u8]) -> Message<'_> {
    MessageParser::default().parse(bytes).unwrap()
}

#[test]
fn a_letter_about_a_build_word_for_word() {
    let letter = letter(&occasion(built(HowBuilt::Built, Holding::Kept)), &sender());
    assert_eq!(letter.subject, "[pypy] lua is built (opt=3)");
    assert_eq!(letter.body, BUILT);
}

#[test]
fn a_letter_about_a_build_error_begins_with_its_cause() {
    let reason = "step 2 (make linux): exit status 2".to_owned();
    let mut occasion = occasion(Ended::BuildError { reason, confirmed: Confirmed::Yes });
    occasion.log_tail =
        "lapi.c:33:10: fatal error: lapi.h: No such file or directory\nmake: *** [Makefile:7: lapi.o] Error 1\n\n"
            .to_owned();
    let letter = letter(&occasion, &sender());
    assert_eq!(letter.subject, "[pypy] lua: build error in step 2 (opt=3)");
    assert_eq!(&letter.body[..BUILD_ERROR.len()], BUILD_ERROR);
}

#[test]
fn every_end_has_its_subject_and_says_whose_fault_it_is() {
    let error = |reason: &str, confirmed| Ended::BuildError { reason: reason.to_owned(), confirmed };
    for (ended, subject, words) in [
        (
            built(HowBuilt::Cached, Holding::SingleHolder),
            "lua is built",
            "lua is there already: exactly this was built before. Fetch it with",
        ),
        (error("smoke test", Confirmed::No), "lua: build error", "No other volunteer was there to confirm it"),
        (
            Ended::Infrastructure { reason: "no sandbox".to_owned() },
            "lua could not be built: infrastructure",
            "and it is not your fault.\n\n  no sandbox\n",
        ),
        (policy(PolicyEnd::Limit(Limit::Memory)), "lua was stopped: limit:memory", "it reached the limit of memory."),
        (policy(PolicyEnd::Limit(Limit::Deadline)), "lua was stopped: limit:deadline", "it reached its deadline."),
        (
            policy(PolicyEnd::Limit(Limit::Step(3.try_into().unwrap()))),
            "lua was stopped: limit:step-3",
            "the time limit of its step 3.",
        ),
        (policy(PolicyEnd::Limit(Limit::Processes)), "lua was stopped: limit:pids", "the limit of processes."),
        (policy(PolicyEnd::Limit(Limit::Disk)), "lua was stopped: limit:disk", "the limit of disk space."),
        (policy(PolicyEnd::Limit(Limit::Log)), "lua was stopped: limit:log", "the limit of its log."),
        (policy(PolicyEnd::Cancelled), "lua was cancelled", "lua was cancelled by whoever asked for it."),
        (policy(PolicyEnd::Expired), "lua was not built: expired", "the request expired after 43 s."),
        (policy(PolicyEnd::SourceNeverArrived), "lua was not built: no source", "its source never arrived."),
        (policy(PolicyEnd::NoAgreement), "lua was not built: no agreement", "those who built it did not agree."),
    ] {
        let is_policy = matches!(ended, Ended::Policy(_));
        let (letter, bytes) = written(&occasion(ended), &sender());
        assert_eq!(letter.subject, format!("[pypy] {subject} (opt=3)"));
        assert!(letter.body.contains(words), "{words}\n{}", letter.body);
        assert_eq!(letter.body.contains("This is a matter of policy."), is_policy, "{}", letter.body);
        assert!(letter.body.lines().all(|line| line.chars().count() <= LINE_MOST), "{}", letter.body);
        let message = parsed(&bytes);
        assert_eq!(message.subject(), Some(letter.subject.as_str()));
        assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), letter.body);
    }
}

#[test]
fn the_mail_parses_back_with_its_headers() {
    let occasion = occasion(built(HowBuilt::Built, Holding::Kept));
    let (letter, bytes) = written(&occasion, &sender());
    let message = parsed(&bytes);
    let one = |address: Option<&mail_parser::Address<'_>>| {
        let addresses: Vec<_> = address.unwrap().iter().collect();
        assert_eq!(addresses.len(), 1);
        (addresses[0].name().map(str::to_owned), addresses[0].address().unwrap().to_owned())
    };
    assert_eq!(one(message.from()), (Some("pypy build farm".to_owned()), "farm@example.org".to_owned()));
    assert_eq!(one(message.to()), (None, "me@example.org".to_owned()));
    assert_eq!(message.message_id(), Some(format!("{}@example.org", occasion.notice).as_str()));
    assert_eq!(message.date().unwrap().to_rfc3339(), "2025-11-22T11:17:46Z");
    assert_eq!(message.header("Auto-Submitted"), Some(&HeaderValue::Text("auto-generated".into())));
    assert_eq!(message.header("MIME-Version"), Some(&HeaderValue::Text("1.0".into())));
    let content = message.content_type().unwrap();
    assert_eq!((content.ctype(), content.subtype()), ("text", Some("plain")));
    assert_eq!(content.attribute("charset"), Some("utf-8"));
    assert_eq!(message.content_transfer_encoding(), Some("quoted-printable"));
    for absent in ["Precedence", "Bcc", "Cc", "Reply-To", "Sender"] {
        assert!(message.header(absent).is_none(), "{absent}");
    }
    assert_eq!(message.subject(), Some("[pypy] lua is built (opt=3)"));
    // Whole in the raw file too, to be copied.
    let raw = String::from_utf8(bytes.clone()).unwrap();
    assert!(raw.contains(&format!("\r\n node fetch {}\r\n", occasion.request)), "{raw}");
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), letter.body);
}

#[test]
fn peers_words_stay_words() {
    let hostile = "\x1b[2Jstep 1\r\n.\r\nMAIL FROM:<x@y>\r\nBcc: v@example.org\u{2028}\u{202e}\0";
    let mut occasion = occasion(Ended::BuildError { reason: hostile.to_owned(), confirmed: Confirmed::No });
    occasion.options.insert("text".parse().unwrap(), OptionValue::Text(format!("a\r\nBcc: v@example.org{hostile}")));
    occasion.log_tail = format!("{hostile}\n.\n..\nFrom me\n{}\n", "x".repeat(1_000));
    occasion.fingerprint.0.insert("tool.\x07".to_owned(), hostile.to_owned());
    occasion.source = Some(Source::Archive { digest: Digest::of(b"a"), size: 1, url: format!("https://x/{hostile}") });
    let (letter, bytes) = written(&occasion, &sender());
    assert!(
        letter.subject.len() <= SUBJECT_MOST && letter.subject.starts_with("[pypy] lua: build error ("),
        "{}",
        letter.subject
    );
    assert!(letter.subject.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{:?}", letter.subject);
    assert!(!letter.body.contains(|c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{202e}')));
    assert!(
        letter.body.lines().all(|line| !line.starts_with(['.', 'B']) && !line.starts_with("From")),
        "{}",
        letter.body
    );
    assert!(letter.body.contains("\n  | .\n  | ..\n  | From me\n  | xxxx"), "{}", letter.body);
    assert!(letter.body.len() < 6_000, "{}", letter.body.len());
    let message = parsed(&bytes);
    assert!(message.bcc().is_none());
    assert_eq!(message.subject(), Some(letter.subject.as_str()));
    assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n"), letter.body);
}

#[test]
fn a_long_log_is_shown_by_its_end() {
    let mut occasion = occasion(built(HowBuilt::Built, Holding::Kept));
    occasion.log_tail = (0..1_000).map(|line| format!("line {line}\n")).collect();
    let body = letter(&occasion, &sender()).body;
    assert!(body.contains("How the log ends\n  | line 960\n"), "{body}");
    assert!(body.contains("  | line 999\n\nAll of it:"), "{body}");
    occasion.log_tail = "\n \n".to_owned();
    assert!(!letter(&occasion, &sender()).body.contains("How the log ends"));
}

#[test]
fn long_names_leave_a_subject_of_one_line() {
    let mut occasion = occasion(policy(PolicyEnd::NoAgreement));
    occasion.recipe = "r".repeat(64).parse().unwrap();
    for option in 0..50 {
        occasion.options.insert(format!("option{option:02}").parse().unwrap(), OptionValue::Bool(true));
    }
    let long = Sender { farm: "f".repeat(64).parse().unwrap(), ticket: None };
    let subject = letter(&occasion, &long).subject;
    assert_eq!(subject, format!("[{}..] {}.. was not built: no agreement", "f".repeat(14), "r".repeat(30)));
    occasion.ended = built(HowBuilt::Built, Holding::Kept);
    occasion.recipe = "lua".parse().unwrap();
    let subject = letter(&occasion, &sender()).subject;
    assert_eq!(subject, "[pypy] lua is built (opt=3, option00=true, option01=true, option02=true, op..)");
    assert_eq!(subject.len(), SUBJECT_MOST);
}

#[test]
fn a_ticket_is_offered_for_other_machines() {
    let with = Sender { ticket: Some("farm1abc".to_owned()), ..sender() };
    let body = letter(&occasion(built(HowBuilt::Built, Holding::Kept)), &with).body;
    assert!(body.contains("\n\n export NODE_FARM=farm1abc\n\n"), "{body}");
}

#[test]
fn what_is_not_known_is_not_said() {
    let mut occasion = occasion(policy(PolicyEnd::Expired));
    (occasion.started_at, occasion.volunteer, occasion.log, occasion.source) = (None, None, None, None);
    occasion.fingerprint = Fingerprint::default();
    occasion.log_tail.clear();
    let body = letter(&occasion, &sender()).body;
    assert!(body.contains("What came of it\n  outcome   policy, expired\n  waited    43 s\n\nWhat was asked\n  recipe    lua\n  option    opt=3\n  asked at"), "{body}");
}
