#![allow(clippy::unwrap_used)]
use super::sink::{Sink, impatient, scripted};
use super::*;
use crate::coordinator::mailer::config::{MailConfig, SmtpTls, Way};
use crate::coordinator::mailer::letter::Letter;
use protocol::digest::Digest;
use protocol::id::NoticeId;
use protocol::time::Timestamp;

fn mail(to: &str) -> Mail {
    let letter = Letter { subject: "hello".to_owned(), body: "dots\n.\n..\n\nbüild\n".to_owned() };
    let from = crate::coordinator::mailer::mail::From::parse("farm@example.org").unwrap();
    Mail::new(NoticeId(Digest::of(to.as_bytes())), &from, &to.parse().unwrap(), Timestamp::EPOCH, &letter).unwrap()
}

fn server(config: MailConfig) -> Smtp {
    let Way::Smtp(config) = config.way else { unreachable!() };
    Smtp::new(config).unwrap()
}

fn refusal(step: Step, code: Option<u16>, words: &str) -> SmtpError {
    SmtpError { step, code, words: words.to_owned() }
}

#[tokio::test]
async fn every_way_in_is_taken() {
    for (security, auth) in [("none", "none"), ("starttls", "plain"), ("starttls", "login"), ("tls", "none")] {
        let mut sink = Sink::start(security, auth).await;
        let password = (auth != "none").then_some("secret word\n");
        let smtp = server(sink.config(security, password));
        smtp.send(&mail("me@example.org")).await.unwrap();
        let taken = sink.next().await;
        assert_eq!(
            (taken.from.as_str(), taken.to.as_slice()),
            ("farm@example.org", ["me@example.org".to_owned()].as_slice())
        );
        assert_eq!((taken.tls, taken.auth), (security != "none", auth != "none"), "{security} {auth}");
        let message = mail_parser::MessageParser::default().parse(taken.content.as_bytes()).unwrap();
        assert_eq!(message.body_text(0).unwrap().replace("\r\n", "\n").trim_end(), "dots\n.\n..\n\nbüild");
    }
}

#[tokio::test]
async fn a_connection_serves_several_mails_until_it_is_hung_up() {
    let mut sink = Sink::start("starttls", "plain").await;
    let smtp = server(sink.config("starttls", Some("secret word")));
    for _ in 0..3 {
        smtp.send(&mail("me@example.org")).await.unwrap();
        sink.next().await;
    }
    smtp.hang_up().await;
    smtp.send(&mail("me@example.org")).await.unwrap();
    let (taken, connections) = sink.finish().await;
    assert_eq!((taken.len(), connections), (1, 2));
}

#[tokio::test]
async fn refusals_are_judged_and_name_no_address() {
    let mut sink = Sink::start("none", "none").await;
    let smtp = server(sink.config("none", None));
    let error = smtp.send(&mail("never@example.org")).await.unwrap_err();
    assert_eq!(error, refusal(Step::Recipient, Some(550), "550 5.1.1 <address> no such user"));
    assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Permanent, true));
    let error = smtp.send(&mail("spam@example.org")).await.unwrap_err();
    assert_eq!(error, refusal(Step::Content, Some(554), "554 5.7.1 looks like spam"));
    assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Permanent, true));
    let error = smtp.send(&mail("later@example.org")).await.unwrap_err();
    assert_eq!(error, refusal(Step::Recipient, Some(450), "450 4.2.0 <address> greylisted, come again"));
    assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Transient, true));
    let error = smtp.send(&mail("busy@example.org")).await.unwrap_err();
    assert_eq!(error, refusal(Step::Recipient, Some(421), "421 4.3.2 shutting down"));
    assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Transient, false));
    smtp.send(&mail("later@example.org")).await.unwrap();
    assert_eq!(sink.next().await.to, ["later@example.org"]);
}

#[tokio::test]
async fn what_the_operator_has_wrong_costs_no_mail() {
    let sink = Sink::start("starttls", "plain").await;
    let wrong_password =
        server(sink.config("starttls", Some("guess"))).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((wrong_password.step, wrong_password.code), (Step::Login, Some(535)));
    let no_login = server(sink.config("starttls", None)).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((no_login.step, no_login.code), (Step::Sender, Some(530)));
    let mut config = sink.config("starttls", Some("secret word"));
    if let Way::Smtp(server) = &mut config.way {
        server.security = Security::StartTls(Trust::System);
    }
    let unknown_authority = server(config).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((unknown_authority.step, unknown_authority.code), (Step::Encrypt, None));
    assert!(unknown_authority.words.contains("certificate"), "{unknown_authority}");
    for error in [wrong_password, no_login, unknown_authority] {
        assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Transient, false), "{error}");
    }
    assert_eq!(sink.finish().await.0.len(), 0);
}

#[tokio::test]
async fn a_password_is_not_said_where_starttls_is_missing() {
    let sink = Sink::start("none", "plain").await;
    let mut config = sink.config("none", Some("secret word"));
    if let Way::Smtp(server) = &mut config.way {
        server.security = Security::StartTls(Trust::System);
    }
    let error = server(config).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((error.step, error.permanence()), (Step::Encrypt, Permanence::Transient));
    assert!(error.words.contains("STARTTLS is not supported"), "{error}");
}

#[tokio::test]
async fn silence_is_bounded_at_every_step() {
    const GREETING: &str = "220 hello\r\n";
    const EHLO: &str = "250 hello\r\n";
    const OK: &str = "250 ok\r\n";
    for (answers, step) in [
        (&[][..], Step::Connect),
        (&[GREETING], Step::Connect),
        (&[GREETING, EHLO], Step::Sender),
        (&[GREETING, EHLO, OK], Step::Recipient),
        (&[GREETING, EHLO, OK, OK], Step::Open),
        (&[GREETING, EHLO, OK, OK, "354 go\r\n"], Step::Content),
    ] {
        let port = scripted(answers).await;
        let error = server(impatient(port, SmtpTls::None)).send(&mail("me@example.org")).await.unwrap_err();
        assert_eq!(error, refusal(step, None, &format!("localhost port {port} gave no answer within 200ms")));
        assert_eq!((error.permanence(), error.is_about_the_letter()), (Permanence::Transient, false));
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_transient() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = server(impatient(port, SmtpTls::None)).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((error.step, error.permanence()), (Step::Connect, Permanence::Transient));
    assert!(error.words.contains("refused"), "{error}");
}

#[tokio::test]
async fn answers_slipped_in_before_the_handshake_spoil_it() {
    let port = scripted(&[
        "220 hello\r\n",
        "250-hello\r\n250 STARTTLS\r\n",
        // Somebody in between adds what is to be taken for the answer to the encrypted EHLO.
        "220 go\r\n250-hello\r\n250 AUTH PLAIN\r\n",
    ])
    .await;
    let error = server(impatient(port, SmtpTls::StartTls)).send(&mail("me@example.org")).await.unwrap_err();
    assert_eq!((error.step, error.code), (Step::Encrypt, None));
    // Kept for later, the addition would have left the handshake waiting for the server.
    assert!(!error.words.contains("no answer"), "{error}");
}

#[test]
fn only_a_refused_letter_is_refused_for_good() {
    for (step, code, permanence) in [
        (Step::Connect, Some(554), Permanence::Transient),
        (Step::Login, Some(535), Permanence::Transient),
        (Step::Sender, Some(530), Permanence::Transient),
        (Step::Sender, Some(550), Permanence::Permanent),
        (Step::Recipient, Some(452), Permanence::Transient),
        (Step::Recipient, Some(550), Permanence::Permanent),
        (Step::Content, Some(552), Permanence::Permanent),
        (Step::Content, None, Permanence::Transient),
    ] {
        assert_eq!(refusal(step, code, "").permanence(), permanence, "{step:?} {code:?}");
    }
}
