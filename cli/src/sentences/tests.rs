#![allow(clippy::unwrap_used)]
use super::*;
use protocol::digest::Digest;
use protocol::id::{ManifestId, PeerKey};
use protocol::platform::{Require, Value};
use std::collections::BTreeMap;

fn unmet(text: &str, met_by: u32) -> Unmet {
    let Require { key, constraint } = text.parse().unwrap();
    Unmet { key, constraint, met_by }
}

fn because(volunteers: u32, platform: &str, unmet: Vec<Unmet>) -> String {
    waiting_because(&Explanation::Unmet { volunteers, platform: platform.to_owned(), unmet }).unwrap()
}

#[test]
fn what_is_missing_is_named_and_counted() {
    assert_eq!(
        because(7, "linux/x86_64", vec![unmet("tool.python2", 0)]),
        "needs tool python2: 0 of 7 linux/x86_64 volunteers have it"
    );
    assert_eq!(
        because(3, "", vec![unmet("tool.cc>=14", 1), unmet("memory_mib>=8192", 2)]),
        "needs tool cc >= 14 (1 of 3), 8192 MiB of memory (2 of 3): 0 of 3 volunteers have all of it"
    );
    assert_eq!(because(2, "", vec![unmet("os=plan9", 0)]), "needs os = plan9: 0 of 2 volunteers have it");
    assert_eq!(because(0, "", vec![]), "needs one of the volunteers: none is in the farm now");
    assert_eq!(
        because(0, "linux/riscv64", vec![unmet("cores>=2", 0)]),
        "needs one of the linux/riscv64 volunteers: none is in the farm now"
    );
    assert_eq!(because(2, "", vec![]), "0 of 2 volunteers accept this recipe");
    let list = Unmet {
        key: "sets".to_owned(),
        constraint: Constraint::Is(Value::List(["avx".to_owned(), "sse2".to_owned()].into())),
        met_by: 0,
    };
    assert_eq!(because(1, "", vec![list]), "needs sets = avx,sse2: 0 of 1 volunteers have it");
}

#[test]
fn who_could_do_it_is_counted() {
    let waiting =
        |busy, gone, ahead, confirming| Explanation::Waiting { busy, free: 0, gone, excluded: 0, ahead, confirming };
    let because = |explanation| waiting_because(&explanation).unwrap();
    assert_eq!(because(waiting(2, 1, 5, None)), "waits for a volunteer: 2 busy, 1 gone silent; 5 jobs come first");
    assert_eq!(because(waiting(0, 0, 1, None)), "waits for a volunteer; 1 job comes first");
    let debian = Fingerprint(BTreeMap::from([("release".to_owned(), "debian 12".to_owned())]));
    assert_eq!(
        because(waiting(1, 0, 0, Some(debian))),
        "waits for a second volunteer with the same environment (release debian 12): 1 busy"
    );
}

#[test]
fn what_does_not_wait_has_no_reason_to() {
    let running = Explanation::Running { volunteer: PeerKey::from_bytes([0xab; 32]), since: Timestamp::EPOCH };
    assert_eq!(waiting_because(&running), None);
    assert_eq!(waiting_because(&Explanation::Unknown), None);
}

#[test]
fn an_end_names_its_kind_its_cause_and_the_next_step() {
    let request = RequestId(Digest::of(b""));
    let built =
        Ended::Built { manifest: ManifestId(Digest::of(b"m")), how: HowBuilt::Built, holding: Holding::SingleHolder };
    assert_eq!(
        ended(&built, request),
        Said::with_next("built; one machine holds the only copy", "`node fetch e3b0c442` brings the files")
    );
    let error = Ended::BuildError { reason: "step 2 exited with 1".to_owned(), confirmed: Confirmed::Yes };
    assert_eq!(
        ended(&error, request),
        Said::with_next(
            "build error: step 2 exited with 1; a second volunteer failed alike",
            "`node logs e3b0c442` shows the log"
        )
    );
    let limit = ended(&Ended::Policy(PolicyEnd::Limit(Limit::Memory)), request);
    assert_eq!(limit.what, "stopped at a limit: it needed more memory than allowed (limit:memory)");
    assert_eq!(ended(&Ended::Policy(PolicyEnd::Cancelled), request), Said::new("cancelled by its requester"));
}

#[test]
fn every_no_says_what_to_do_next() {
    let rejections = [
        Rejection::UnknownRequest,
        Rejection::NotYours,
        Rejection::Stale,
        Rejection::TooMany,
        Rejection::OutOfBounds,
        Rejection::Damaged("x".to_owned()),
        Rejection::NotDue,
    ];
    for rejection in &rejections {
        assert!(rejected(rejection).next.is_some(), "{rejection:?}");
    }
    let refusals = [
        Refusal::NotACoordinator,
        Refusal::NotTheLeader,
        Refusal::Version(9),
        Refusal::OtherFarm,
        Refusal::Invalid("x".to_owned()),
        Refusal::NotAllowed,
        Refusal::Busy,
        Refusal::ClockAhead,
        Refusal::Failed("x".to_owned()),
        Refusal::ShuttingDown,
    ];
    for refusal in &refusals {
        assert!(refused(refusal).next.is_some(), "{refusal:?}");
    }
}

#[test]
fn no_sentence_ends_with_a_full_stop() {
    let request = RequestId(Digest::of(b""));
    for said in [no_farm(), detach_needs_a_farm(), farm_of_one(), interrupted(request), detached(request)] {
        assert!(!said.what.ends_with('.') && !said.next.unwrap_or_default().ends_with('.'));
    }
}

#[test]
fn times_are_short_and_never_panic() {
    assert_eq!(span(Duration::from_millis(12)), "12 ms");
    assert_eq!(span(Duration::from_millis(61_900)), "1m 1s");
    assert_eq!(span(Duration::from_secs(2 * 86_400 + 3_700)), "2days 1h");
    assert_eq!(moment(Timestamp::from_millis(1_700_000_000_999)), "2023-11-14T22:13:20Z");
    assert_eq!(moment(Timestamp::from_millis(u64::MAX)), "after the year 9999");
}

#[test]
fn whoever_wants_agreement_hears_what_it_counts() {
    let recipe = |reproducible: &str| {
        let text = format!(
            "recipe = 1\nname = \"x\"\ndescription = \"x\"\nreproducible = {reproducible}\n[[file]]\npath = \"a\"\ntext = \"a\"\n\
             [[step]]\nrun = [\"true\"]\n[[output]]\npath = \"a\"\n[smoke]\nrun = [\"test\", \"-s\", \"a\"]\n"
        );
        Recipe::parse(&text).unwrap()
    };
    let two = NonZeroU8::new(2).unwrap();
    assert_eq!(agreement(&recipe("true"), two), None);
    assert_eq!(agreement(&recipe("false"), NonZeroU8::MIN), None);
    assert!(agreement(&recipe("false"), two).unwrap().ends_with("2 volunteers whose builds pass its smoke test"));
}
