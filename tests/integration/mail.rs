//! Mail through a real SMTP server with AUTH and STARTTLS: to whom, how often, and what it says when it is parsed back.

use crate::barn::{Barn, Gate, Person, gated_recipe, recipe};
use crate::deadline::{BUILD, SOON, wait_for};
use crate::farm::Farm;
use crate::smtp::{PASSWORD, Protection, Smtp, Taken, USER, python};
use mail_parser::{MessageParser, MimeHeaders};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const FROM: &str = "barn@example.org";

/// A farm that mails through a server of its own; `None` where this machine cannot run one.
fn mailing_farm(what: &str) -> Option<(Barn, Smtp)> {
    if !crate::can_build(what) {
        return None;
    }
    let python = match python() {
        Ok(python) => python,
        Err(because) => {
            crate::left_out(what, &because);
            return None;
        }
    };
    let mut server = None;
    let barn = Barn::found_with(|farm: &Farm| {
        let smtp = Smtp::start(&python, Protection::Starttls, farm.folder());
        let password = farm.folder().join("password");
        fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
        let words = [
            "--smtp",
            &format!("smtp://{USER}@127.0.0.1:{}", smtp.port()),
            "--smtp-ca",
            smtp.authority().to_str().unwrap(),
            "--smtp-password-file",
            password.to_str().unwrap(),
            "--mail-from",
            FROM,
        ];
        let words = words.map(str::to_owned).to_vec();
        server = Some(smtp);
        words
    });
    Some((barn, server?))
}

/// Waits until no mail waits to be sent any more.
fn until_all_are_sent(person: &Person) -> Value {
    wait_for("all mails to be sent", BUILD, || {
        let status = person.asks(&["status"], 0);
        (status["mails_waiting"] == 0).then_some(status)
    })
}

fn addresses(mails: &[Taken]) -> Vec<&str> {
    let mut all: Vec<&str> = mails.iter().flat_map(|mail| &mail.to).map(String::as_str).collect();
    all.sort_unstable();
    all
}

#[test]
fn everybody_who_asked_for_one_build_is_mailed_once() {
    let Some((barn, smtp)) = mailing_farm("one build, four people, four mails") else { return };
    let gate = Gate::closed(&barn.farm, "gate", "gate");
    let file = gated_recipe(&barn.farm);
    let [ann, bob, cid, dan] = ["ann", "bob", "cid", "dan"].map(|name| barn.person(name));
    let wish = |address| ["request", &file, "-o", "marker=four-people", "--detach", "--json", "--email", address];

    // Two at the same time, and nobody yet who could build it.
    let both = [ann.starts(&wish("ann@example.org")), bob.starts(&wish("bob@example.org"))];
    let [first, second] = both.map(|asked| asked.end(BUILD).ended_with(0).json());
    assert_eq!(first["build_key"], second["build_key"]);
    assert_ne!(first["request"], second["request"]);
    // A third while it is queued.
    let third = cid.runs(&wish("cid@example.org")).ended_with(0).json();
    assert_eq!(third["build_key"], first["build_key"]);
    let asked = [(&ann, &first), (&bob, &second), (&cid, &third)];
    for (person, request) in asked {
        assert_eq!(person.status(request["request"].as_str().unwrap())["state"], "queued");
    }
    assert_eq!(smtp.taken().len(), 0);

    let volunteer = barn.volunteer("volunteer", &["--accept", "any", "--tool", &gate.offer()]);
    gate.open();
    smtp.wait_for_mails(3, BUILD);
    let ends = asked.map(|(person, request)| person.waits_for(request["request"].as_str().unwrap(), "finished"));
    for end in &ends {
        assert_eq!((&end["attempts"], &end["manifest"]), (&1.into(), &ends[0]["manifest"]), "{end}");
        assert!(end["manifest"].is_string());
    }
    until_all_are_sent(&ann);
    assert_eq!(addresses(&smtp.taken()), ["ann@example.org", "bob@example.org", "cid@example.org"]);

    // A fourth asks by mail for what is finished, and is mailed at once.
    let fourth = dan.asks(&["request", &file, "-o", "marker=four-people", "--email", "dan@example.org"], 0);
    assert_eq!((&fourth["outcome"], &fourth["manifest"]), (&"cached".into(), &ends[0]["manifest"]));
    let mails = smtp.wait_for_mails(4, SOON);
    until_all_are_sent(&dan);
    assert_eq!(smtp.taken().len(), 4, "each once");
    assert_eq!(mails[3].to, ["dan@example.org"]);
    assert_eq!(volunteer.attempts(), 1);
    let builds = dan.asks(&["builds"], 0);
    assert_eq!(builds["builds"].as_array().unwrap().len(), 1, "one verdict");

    let parsed: Vec<_> = mails.iter().map(|mail| MessageParser::new().parse(&mail.message).unwrap()).collect();
    let ids: BTreeSet<_> = parsed.iter().map(|mail| mail.message_id().unwrap()).collect();
    assert_eq!(ids.len(), 4, "each mail has an id of its own");
    let openings = parsed.iter().map(|mail| mail.body_text(0).unwrap().lines().next().unwrap().to_owned());
    let built = "gated is built. Fetch it with";
    let found = "gated is there already: exactly this was built before. Fetch it with";
    assert_eq!(openings.collect::<Vec<_>>(), [built, built, built, found]);
}

#[test]
fn a_mail_is_read_as_it_was_meant() {
    let Some((barn, smtp)) = mailing_farm("a mail parsed back") else { return };
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    // What a careless mailer stumbles over: other alphabets, a lonely full stop, `From` at the start, equals signs, a long line.
    let file = recipe(
        &barn.farm,
        "words",
        r#"
requires = ["os=linux"]
[option.word]
type = "text"
help = "said by the build"
pattern = "[a-z=. ]{1,40}"
default = "plain"
[[step]]
run = ["sh", "-c", "echo \"$1\"; echo 'Grüße, 農家 ✓'; echo .; echo 'From here on'; echo 'a=3D=20b'; printf '\\033[31mred\\n'; seq -s ' ' 60", "_", "{word}"]
"#,
    );
    let me = barn.person("me");
    let before = now_secs();
    let built = me.asks(&["request", &file, "-o", "word=two words. a=b", "--email", "me@example.org"], 0);
    let mails = smtp.wait_for_mails(1, BUILD);
    let after = now_secs();
    assert_eq!((mails[0].from.as_str(), mails[0].to.as_slice()), (FROM, &["me@example.org".to_owned()][..]));
    assert!(mails[0].message.is_ascii(), "the bytes that travel are plain");
    let lines: Vec<_> = mails[0].message.split(|byte| *byte == b'\n').collect();
    assert!(lines.iter().all(|line| line.len() <= 998), "RFC 5322, section 2.1.1");

    let mail = MessageParser::new().parse(&mails[0].message).unwrap();
    let sender = mail.from().unwrap().first().unwrap();
    assert_eq!((sender.address(), sender.name()), (Some(FROM), Some("pypy build farm")));
    let to: Vec<_> = mail.to().unwrap().iter().filter_map(|to| to.address()).collect();
    assert_eq!(to, ["me@example.org"]);
    assert!(mail.cc().is_none() && mail.bcc().is_none());
    assert_eq!(mail.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    let id = mail.message_id().unwrap();
    assert!(id.ends_with("@example.org") && id.len() > 64, "{id}");
    let date = mail.date().unwrap().to_timestamp();
    assert!((before..=after).contains(&date), "{before} <= {date} <= {after}");
    assert_eq!(mail.content_type().unwrap().attribute("charset"), Some("utf-8"));
    assert_eq!(mail.content_transfer_encoding(), Some("quoted-printable"));

    let subject = mail.subject().unwrap();
    assert_eq!(subject, "[pypy] words is built (word=two words. a=b)");
    let body = mail.body_text(0).unwrap().replace("\r\n", "\n");
    let request = built["request"].as_str().unwrap();
    assert!(body.starts_with(&format!("words is built. Fetch it with\n\n node fetch {request}\n\n")), "{body}");
    for line in [
        "  outcome   built",
        "  option    word=two words. a=b",
        "  | two words. a=b",
        "  | Grüße, 農家 ✓",
        "  | .",
        "  | From here on",
        "  | a=3D=20b",
        "  | \\u{1b}[31mred",
        &format!("  artifact  {}", built["manifest"].as_str().unwrap()),
        &format!("  build key {}", built["build_key"].as_str().unwrap()),
        &format!(" node logs {request}"),
    ] {
        assert!(body.lines().any(|found| found == line), "{line:?} is not in:\n{body}");
    }
    // A ticket that leads nowhere from elsewhere is left out; the command works on every machine that knows the farm.
    assert!(!body.contains("NODE_FARM"), "{body}");
    let command = body.lines().find_map(|line| line.strip_prefix(" node ")).unwrap();
    let fetched = barn.person("you").asks(&command.split(' ').collect::<Vec<_>>(), 0);
    assert_eq!(fetched["manifest"], built["manifest"]);
}

#[test]
fn a_failure_is_told_with_its_cause_and_an_address_that_is_refused_is_shown() {
    let Some((barn, smtp)) = mailing_farm("mail about a failure") else { return };
    let _volunteer = barn.volunteer("volunteer", &["--accept", "any"]);
    let file = recipe(
        &barn.farm,
        "broken",
        "requires = [\"os=linux\"]\n[[step]]\nrun = [\"sh\", \"-c\", \"echo the barn is on fire; exit 7\"]\n",
    );
    let me = barn.person("me");
    let words = ["request", &file, "--email", "me@example.org", "--email", "never@example.org"];
    let failed = me.asks(&words, 1);
    assert_eq!(failed["outcome"], "build_error");
    let mails = smtp.wait_for_mails(1, BUILD);
    let mail = MessageParser::new().parse(&mails[0].message).unwrap();
    assert_eq!(mail.subject(), Some("[pypy] broken: build error in step 1"));
    let body = mail.body_text(0).unwrap().replace("\r\n", "\n");
    assert!(body.starts_with("broken could not be built: the build itself failed.\n\n"), "{body}");
    assert!(body.contains("\n  | the barn is on fire\n"), "{body}");
    assert!(body.contains("This is a build error: the fault lies in the recipe"), "{body}");

    let status = until_all_are_sent(&me);
    let refused: Vec<&str> =
        status["mails_failed"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert_eq!(refused.len(), 1, "{status}");
    assert!(refused[0].contains("550") && refused[0].contains("no such user"), "{status}");
    assert_eq!(addresses(&smtp.taken()), ["me@example.org"]);
}

/// Seconds since 1970.
fn now_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}
