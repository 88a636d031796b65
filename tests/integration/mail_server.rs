//! The tests' own mail server does what a real one does: no AUTH before TLS, no mail without AUTH.

use crate::farm::Farm;
use crate::smtp::{PASSWORD, Protection, Smtp, USER, python};
use std::process::Command;
use std::time::Duration;

const CLIENT: &str = r#"
import smtplib, ssl, sys
port, authority, how, user, password = int(sys.argv[1]), *sys.argv[2:]
tls = ssl.create_default_context(cafile=authority)
server = smtplib.SMTP_SSL("localhost", port, context=tls) if how == "tls" else smtplib.SMTP("localhost", port)
try:
    if how == "starttls":
        server.starttls(context=tls)
    if password:
        server.login(user, password)
    server.sendmail("a@example.org", ["b@example.org"], b"Subject: hello\r\n\r\nhello\r\n")
    print("sent")
except smtplib.SMTPException as error:
    print(type(error).__name__)
"#;

#[test]
fn mail_needs_tls_and_the_password() {
    let python = match python() {
        Ok(python) => python,
        Err(because) => return crate::left_out("mail over SMTP", &because),
    };
    for (protection, how) in [(Protection::Starttls, "starttls"), (Protection::Tls, "tls")] {
        let farm = Farm::new();
        let smtp = Smtp::start(&python, protection, farm.folder());
        let send = |how: &str, password: &str| {
            let mut client = Command::new(&python);
            client.args(["-c", CLIENT, &smtp.port().to_string()]).arg(smtp.authority()).args([how, USER, password]);
            let sent = client.output().unwrap();
            String::from_utf8(sent.stdout).unwrap().trim().to_owned()
        };
        assert_ne!(send(how, ""), "sent");
        assert_eq!(send(how, "wrong"), "SMTPAuthenticationError");
        if protection == Protection::Starttls {
            assert_ne!(send("plain", PASSWORD), "sent", "no password before TLS");
        }
        assert!(smtp.taken().is_empty());
        assert_eq!(send(how, PASSWORD), "sent");
        let taken = smtp.wait_for_mails(1, Duration::from_secs(5));
        assert_eq!((taken.len(), taken[0].from.as_str()), (1, "a@example.org"));
        assert_eq!(taken[0].to, ["b@example.org"]);
        assert!(taken[0].message.starts_with(b"Subject: hello"));
    }
}
