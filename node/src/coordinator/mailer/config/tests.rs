#![allow(clippy::unwrap_used)]
use super::*;
use std::fs;

fn smtp(server: &str) -> MailOptions {
    MailOptions {
        smtp: Some(server.to_owned()),
        mail_from: Some("farm@example.org".to_owned()),
        ..MailOptions::default()
    }
}

fn server(options: &MailOptions) -> Result<SmtpConfig, MailConfigError> {
    match MailConfig::from_options(options)?.unwrap().way {
        Way::Smtp(config) => Ok(config),
        Way::Folder(_) => unreachable!(),
    }
}

#[test]
fn servers_by_their_address() {
    for (address, tls, host, port, security) in [
        ("smtp://mail.example.org", None, "mail.example.org", 587, "StartTls"),
        ("smtp://mail.example.org:25", Some(SmtpTls::None), "mail.example.org", 25, "None"),
        ("smtp://localhost:2525", None, "localhost", 2525, "None"),
        ("smtp://127.0.0.1", None, "127.0.0.1", 25, "None"),
        ("smtp://[::1]:2525/", Some(SmtpTls::StartTls), "::1", 2525, "StartTls"),
        ("smtps://Mail.Example.org", None, "mail.example.org", 465, "Tls"),
    ] {
        let config = server(&MailOptions { smtp_tls: tls, ..smtp(address) }).unwrap();
        assert_eq!((config.host.as_str(), config.port), (host, port), "{address}");
        assert!(format!("{:?}", config.security).starts_with(security), "{address}: {config:?}");
    }
    for bad in ["", "mail.example.org", "http://x", "smtp://", "smtp://x/y", "smtp://x?tls=none", "smtp://a%0d%0ab"] {
        assert!(matches!(server(&smtp(bad)), Err(MailConfigError::Server(_))), "{bad}");
    }
}

#[test]
fn options_that_do_not_fit_together() {
    let refusal = |options: &MailOptions| MailConfig::from_options(options).unwrap_err().to_string();
    let folder = || MailOptions { mail_dir: Some("mail".into()), ..MailOptions::default() };
    assert!(MailConfig::from_options(&MailOptions::default()).unwrap().is_none());
    assert_eq!(MailConfig::from_options(&folder()).unwrap().unwrap().from.address().as_str(), FROM_FOLDER);
    assert!(refusal(&MailOptions { mail_dir: Some("mail".into()), ..smtp("smtp://x") }).contains("exclude"));
    assert!(refusal(&MailOptions { mail_from: None, ..smtp("smtp://x") }).contains("needs `--mail-from"));
    assert!(
        refusal(&MailOptions { mail_from: Some("a@b\r\nBcc: c@d".to_owned()), ..smtp("smtp://x") })
            .starts_with("`--mail-from`")
    );
    assert!(refusal(&MailOptions { smtp_tls: Some(SmtpTls::None), ..folder() }).starts_with("`--smtp-tls`"));
    assert!(
        refusal(&MailOptions { mail_dir: None, mail_from: Some("a@b".to_owned()), ..folder() })
            .starts_with("`--mail-from`")
    );
    assert!(refusal(&MailOptions { smtp_tls: Some(SmtpTls::StartTls), ..smtp("smtps://x") }).contains("first byte"));
    assert!(refusal(&smtp("smtp://me@x")).contains("--smtp-password-file"));
    let leaked = refusal(&smtp("smtp://me:hunter2@x"));
    assert!(leaked.contains("--smtp-password-file") && !leaked.contains("hunter2"));
}

#[test]
fn a_password_comes_from_a_file_that_others_cannot_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("password");
    let options = || MailOptions { smtp_password_file: Some(path.clone()), ..smtp("smtp://me%40example.org@x") };
    let put = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert!(matches!(server(&options()), Err(MailConfigError::File { .. })));
    put("secret word\n", 0o644);
    assert!(matches!(server(&options()), Err(MailConfigError::PasswordOpen { mode: 0o644, .. })));
    put("secret word\n", 0o640);
    let login = server(&options()).unwrap().login.unwrap();
    assert_eq!((login.user.as_str(), login.password.as_str()), ("me@example.org", "secret word"));
    assert!(!format!("{login:?}").contains("secret"));
    for bad in ["", "\n", "two\nlines\n"] {
        put(bad, 0o600);
        assert!(matches!(server(&options()), Err(MailConfigError::PasswordEmpty { .. })), "{bad:?}");
    }
    put("x", 0o600);
    assert!(matches!(
        server(&MailOptions { smtp: Some("smtp://x".to_owned()), ..options() }),
        Err(MailConfigError::Alone { option: "--smtp-password-file", .. })
    ));
}

#[test]
fn an_authority_is_a_certificate() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ca.pem");
    let options = |address: &str| MailOptions { smtp_ca: Some(path.clone()), ..smtp(address) };
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(server(&options("smtps://x")), Err(MailConfigError::Certificate { .. })));
    let key = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    fs::write(&path, key.cert.pem()).unwrap();
    let Security::Tls(Trust::Only(_)) = server(&options("smtps://x")).unwrap().security else { unreachable!() };
    let named = server(&options("smtp://localhost")).unwrap().security;
    assert!(matches!(named, Security::StartTls(Trust::Only(_))), "whoever names an authority wants it used: {named:?}");
}
