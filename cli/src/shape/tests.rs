#![allow(clippy::unwrap_used)]
use super::*;
use protocol::digest::Digest;
use protocol::farm::command::JobState;
use protocol::farm::explain::{Confirmed, Presence, Unmet};
use protocol::id::{BuildKey, JobId, ManifestId, PeerKey};
use protocol::platform::{Acceptance, Constraint, Value};
use protocol::report::{Fingerprint, Holding};
use protocol::request::Priority;
use protocol::time::Span;
use serde_json::json;

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn view(explanation: Explanation) -> RequestView {
    RequestView {
        build_key: BuildKey(Digest::of(b"")),
        recipe: "lua".to_owned(),
        submitted_at: Timestamp::from_millis(1_000),
        job: Some(JobId(7)),
        state: None,
        attempts: 1,
        started_at: Some(Timestamp::from_millis(1_250)),
        ended_at: Some(Timestamp::from_millis(3_250)),
        volunteer: Some(PeerKey::from_bytes([0xab; 32])),
        environment: None,
        log: None,
        explanation,
        motion: None,
        estimate: None,
    }
}

fn id() -> RequestId {
    RequestId(Digest::of(b""))
}

fn object(shape: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(shape).unwrap()
}

#[test]
fn a_finished_request() {
    let built = Ended::Built { manifest: ManifestId(Digest::of(b"")), how: HowBuilt::Built, holding: Holding::Kept };
    let mut shape = RequestShape::of(id(), &view(Explanation::Ended(built)));
    shape.elapsed_ms = Some(2_500);
    shape.files = Some(vec![FileShape {
        path: "/tmp/lua".to_owned(),
        digest: EMPTY.to_owned(),
        size: 0,
        mode: "0755".to_owned(),
    }]);
    assert_eq!(
        object(&shape),
        json!({
            "request": EMPTY, "build_key": EMPTY, "outcome": "built", "reason": null, "manifest": EMPTY,
            "volunteer": "ab".repeat(32), "commit": null, "commits_back": null,
            "files": [{"path": "/tmp/lua", "digest": EMPTY, "size": 0, "mode": "0755"}],
            "queued_ms": 250, "built_ms": 2_000, "elapsed_ms": 2_500
        })
    );
}

#[test]
fn a_request_that_failed_says_why() {
    let error = Ended::BuildError { reason: "step 1 exited with 2".to_owned(), confirmed: Confirmed::Yes };
    let shape = object(&RequestShape::of(id(), &view(Explanation::Ended(error))));
    assert_eq!(shape["outcome"], "build_error");
    assert_eq!(shape["reason"], "build error: step 1 exited with 2; a second volunteer failed alike");
    assert_eq!(shape["manifest"], json!(null));
}

#[test]
fn what_is_not_known_is_null_and_never_left_out() {
    assert_eq!(
        object(&RequestShape::default()),
        json!({
            "request": null, "build_key": null, "outcome": null, "reason": null, "manifest": null, "volunteer": null,
            "commit": null, "commits_back": null,
            "files": null, "queued_ms": null, "built_ms": null, "elapsed_ms": null
        })
    );
    assert_eq!(
        object(&FarmShape::default()),
        json!({"farm_id": null, "ticket": null, "coordinators": null, "reason": null})
    );
}

#[test]
fn a_waiting_request_says_for_what() {
    let unmet = Unmet { key: "tool.python2".to_owned(), constraint: Constraint::Present, met_by: 0 };
    let mut view = view(Explanation::Unmet { volunteers: 7, platform: "linux/x86_64".to_owned(), unmet: vec![unmet] });
    view.state = Some(JobState::Queued);
    view.attempts = 0;
    (view.started_at, view.ended_at, view.volunteer) = (None, None, None);
    assert_eq!(
        object(&RequestStatusShape::of(id(), &view)),
        json!({
            "request": EMPTY, "build_key": EMPTY, "recipe": "lua", "state": "queued", "attempts": 0,
            "waiting_because": "needs tool python2: 0 of 7 linux/x86_64 volunteers have it",
            "outcome": null, "manifest": null, "volunteer": null, "environment": null, "submitted_at_ms": 1_000, "started_at_ms": null,
            "ended_at_ms": null, "ahead": null, "volunteers_free": null, "volunteers_busy": null,
            "volunteers_gone": null, "volunteers_refusing": null, "phase": null, "no_progress_ms": null,
            "soonest_ms": null, "latest_ms": null, "past_builds": null, "told_by": null, "heard_ms": null, "reason": null
        })
    );
    let row = QueueRow { request: id(), recipe: "lua".to_owned(), priority: Priority::Urgent, view };
    let farm = FarmView { queued: 1, volunteers: 7, queue: vec![row], ..FarmView::default() };
    assert_eq!(
        object(&StatusShape::from(&farm)),
        json!({
            "queued": 1, "running": 0, "finished": 0, "volunteers": 7, "mails_waiting": 0, "mails_failed": [],
            "queue": [{
                "request": EMPTY, "recipe": "lua", "priority": "urgent", "state": "queued", "attempts": 0,
                "waiting_because": "needs tool python2: 0 of 7 linux/x86_64 volunteers have it"
            }],
            "reason": null
        })
    );
}

#[test]
fn every_outcome_has_its_word() {
    let words: Vec<_> =
        [Outcome::Built, Outcome::Cached, Outcome::BuildError, Outcome::Infrastructure, Outcome::Policy]
            .iter()
            .map(object)
            .collect();
    assert_eq!(words, ["built", "cached", "build_error", "infrastructure", "policy"]);
}

#[test]
fn a_volunteer_shows_its_facts_by_dotted_key() {
    let tools = [("cc".to_owned(), Value::Version("12.2".parse().unwrap()))];
    let capability = Capability {
        facts: [
            ("os".to_owned(), Value::Text("linux".to_owned())),
            ("arch".to_owned(), Value::Text("x86_64".to_owned())),
            ("tool".to_owned(), Value::Map(tools.into())),
        ]
        .into(),
        accepts: Acceptance::Any,
        slots: 2,
    };
    let view = VolunteerView {
        volunteer: PeerKey::from_bytes([0xab; 32]),
        capability,
        presence: Presence::Busy,
        busy: 2,
        heard: Span::from_millis(40),
    };
    assert_eq!(
        object(&VolunteerShape::from(&view)),
        json!({
            "volunteer": "ab".repeat(32), "platform": "linux/x86_64", "presence": "busy", "slots": 2, "busy": 2,
            "accepts": "any", "heard_ms": 40, "facts": {"os": "linux", "arch": "x86_64", "tool.cc": "12.2"}
        })
    );
}

#[test]
fn a_build_row() {
    let row = BuildRow {
        build_key: BuildKey(Digest::of(b"")),
        recipe: "lua".to_owned(),
        manifest: ManifestId(Digest::of(b"")),
        size_bytes: 300,
        holders: 2,
        environment: Fingerprint([("tool.cc".to_owned(), "12.2".to_owned())].into()),
        decided_at: Timestamp::from_millis(9),
    };
    assert_eq!(
        object(&BuildShape::from(&row)),
        json!({"build_key": EMPTY, "recipe": "lua", "manifest": EMPTY, "size": 300, "holders": 2, "environment": {"tool.cc": "12.2"}, "decided_at_ms": 9})
    );
}
