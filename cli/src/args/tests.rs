#![allow(clippy::unwrap_used)]
use super::verbs::Urgency;
use super::*;

fn read(line: &str) -> Result<(SharedArgs, Doing), clap::Error> {
    Args::read(std::iter::once("node").chain(line.split_whitespace()).map(OsString::from))
}

fn request(line: &str) -> RequestArgs {
    match read(line).unwrap().1 {
        Doing::Verb(Verb::Request(request)) => *request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn clap_finds_no_contradiction_in_the_description() {
    Args::command().debug_assert();
}

#[test]
fn every_flag_has_an_environment_name() {
    fn visit(command: &clap::Command) {
        for flag in command.get_arguments() {
            let Some(long) = flag.get_long() else { continue };
            if matches!(long, "help" | "version") {
                continue;
            }
            let expected = format!("NODE_{}", long.replace('-', "_").to_ascii_uppercase());
            assert_eq!(flag.get_env().and_then(|name| name.to_str()), Some(&*expected), "{}", command.get_name());
        }
        command.get_subcommands().for_each(visit);
    }
    visit(&Args::command());
}

#[test]
fn every_daemon_flag_is_refused_with_a_verb() {
    let mut command = Args::command();
    command.build();
    let listed: Vec<&str> = command
        .get_arguments()
        .map(|flag| flag.get_id().as_str())
        .filter(|id| !["home", "farm", "lan", "json", "log", "help", "version"].contains(id))
        .collect();
    assert_eq!(listed.len(), daemon::FLAGS.len(), "{listed:?}");
    assert!(listed.iter().all(|id| daemon::FLAGS.contains(id)), "{listed:?}");
    let error = read("--slots 2 status").unwrap_err();
    assert!(error.to_string().contains("`--slots` is for a daemon"), "{error}");
}

#[test]
fn a_request_is_read_whole() {
    let request = request(
        "request lua --source lua.tar.gz -o opt=3 --platform linux/x86_64 --require tool.cc>=12 --require cores>=2 \
         --email me@example.org --output out --agree 2 --priority urgent --expires 2h --fresh",
    );
    assert_eq!(request.recipe, RecipeArg::Catalogue("lua".parse().unwrap()));
    assert_eq!(request.source, ["lua.tar.gz".parse().unwrap()]);
    assert_eq!(request.option, ["opt=3".parse().unwrap()]);
    assert_eq!(request.platform.unwrap().requires().map(|require| require.to_string()), ["os=linux", "arch=x86_64"]);
    assert_eq!(request.require, ["tool.cc>=12".parse().unwrap(), "cores>=2".parse().unwrap()]);
    assert_eq!(request.email, ["me@example.org".parse().unwrap()]);
    assert_eq!(
        (request.agree.get(), request.priority, request.fresh, request.detach),
        (2, Urgency::Urgent, true, false)
    );
    assert_eq!(request.expires, "2h".parse().unwrap());
}

#[test]
fn a_list_that_is_required_keeps_its_commas() {
    assert_eq!(request("request x --require sets=avx,sse2").require, ["sets=avx,sse2".parse().unwrap()]);
}

#[test]
fn roles_combine() {
    let role = |line: &str| match read(line).unwrap().1 {
        Doing::Serve(role, _) => role,
        other => panic!("{other:?}"),
    };
    assert_eq!(role("--volunteer"), Role::Volunteer);
    assert_eq!(role("--coordinator --farm-name pypy"), Role::Coordinator);
    assert_eq!(role("--coordinator --volunteer --slots 2"), Role::Both);
}

#[test]
fn shared_flags_go_before_and_after_the_verb() {
    for line in ["--home /h --json status", "status --home /h --json"] {
        let (shared, _) = read(line).unwrap();
        assert_eq!((shared.home, shared.json), (Some("/h".into()), true), "{line}");
    }
}

#[test]
fn a_request_is_named_in_full_or_by_its_beginning() {
    use protocol::wire::RequestRef;
    let named = |line: &str| match read(line).unwrap().1 {
        Doing::Verb(Verb::Cancel { request }) => request.request(),
        other => panic!("{other:?}"),
    };
    assert_eq!(named("cancel DEADBEEF"), RequestRef::Prefix("deadbeef".to_owned()));
    let whole = "ab".repeat(32);
    assert_eq!(named(&format!("cancel {whole}")), RequestRef::Id(whole.parse().unwrap()));
}

#[test]
fn contradictions_are_usage_errors_at_once() {
    let smtp = "--coordinator --smtp smtp://h";
    let cases = [
        ("status --volunteer".to_owned(), "unexpected argument"),
        ("--farm-name x --volunteer".to_owned(), "is for a coordinator"),
        ("--coordinator --slots 2".to_owned(), "is for a volunteer"),
        ("--coordinator --lan --farm-name x".to_owned(), "choose one"),
        ("--volunteer --lan --no-mdns".to_owned(), "choose one"),
        ("--volunteer --mail-dir d".to_owned(), "is for a coordinator"),
        (smtp.to_owned(), "--mail-from ADDRESS"),
        (format!("{smtp} --mail-from a@b --mail-dir d"), "choose one"),
        (format!("{smtp} --mail-from a@b --smtp-password-file f"), "go together"),
        ("--coordinator --smtp smtp://me@h --mail-from a@b".to_owned(), "go together"),
        ("--coordinator --smtp smtps://h --mail-from a@b --smtp-tls starttls".to_owned(), "encrypted from the start"),
        (
            "--coordinator --smtp smtp://me@h --mail-from a@b --smtp-password-file f --smtp-tls none".to_owned(),
            "a password is not sent",
        ),
        ("--coordinator --smtp-ca f".to_owned(), "goes with `--smtp`"),
        ("--no-mdns".to_owned(), "nothing to do"),
        ("request x --detach --output d".to_owned(), "leave one out"),
        ("request x --revision a..b".to_owned(), "names no revision"),
        ("request x --revision 1 --source a.tar.gz".to_owned(), "this source has none"),
        ("request x --within 2 --source dir".to_owned(), "this source has none"),
        ("request x --within 0".to_owned(), "1..=1000"),
        ("request x --within 2 --fresh".to_owned(), "choose one"),
        ("request x --within 2 --source https://h/a.git --source b=c".to_owned(), "several sources"),
        ("request x --source py=a".to_owned(), "without `py=`"),
        ("request x --source a --source b".to_owned(), "write `--source NAME=b`"),
        ("request x -o a=1 -o a=2".to_owned(), "given twice"),
        ("request x --agree 0".to_owned(), "1 to 5"),
        ("request x --agree 6".to_owned(), "1 to 5"),
        ("request x --source http://h/a".to_owned(), "is not taken"),
        ("request x --platform linux".to_owned(), "OS/ARCH"),
        ("request x --email a@b\u{202e}c".to_owned(), "is not a mail address"),
        ("cancel deadbee".to_owned(), "at least the first eight"),
        ("--farm barn1 status".to_owned(), "a ticket starts with"),
        ("sing".to_owned(), "unrecognized subcommand"),
    ];
    for (line, part) in cases {
        match read(&line) {
            Ok(read) => panic!("{line}: {read:?}"),
            Err(error) => {
                assert!(error.to_string().contains(part), "{line}: {error}");
                assert_eq!(error.exit_code(), 2, "{line}");
            }
        }
    }
}
