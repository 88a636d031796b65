use super::*;
use protocol::digest::Digest;
use protocol::farm::command::JobState;
use protocol::farm::explain::Unmet;
use protocol::id::{BuildKey, JobId};
use protocol::platform::Constraint;
use protocol::request::Priority;
use protocol::time::Timestamp;
use protocol::wire::QueueRow;

fn waiting() -> RequestView {
    let unmet = Unmet { key: "tool.python2".to_owned(), constraint: Constraint::Present, met_by: 0 };
    RequestView {
        build_key: BuildKey(Digest::of(b"")),
        recipe: "pypy".to_owned(),
        submitted_at: Timestamp::from_millis(1_700_000_000_000),
        job: Some(JobId(3)),
        state: Some(JobState::Queued),
        attempts: 0,
        started_at: None,
        ended_at: None,
        volunteer: None,
        environment: None,
        log: None,
        explanation: Explanation::Unmet { volunteers: 7, platform: "linux/x86_64".to_owned(), unmet: vec![unmet] },
        motion: None,
        estimate: None,
    }
}

#[test]
fn a_waiting_request_says_what_is_missing() {
    let digest = Digest::of(b"");
    assert_eq!(
        request_text(RequestId(digest), &waiting()),
        format!(
            "request    {digest}\nrecipe     pypy\nbuild key  {digest}\nsubmitted  2023-11-14T22:13:20Z\n\
             state      queued\nbecause    needs tool python2: 0 of 7 linux/x86_64 volunteers have it\nattempts   0"
        )
    );
}

#[test]
fn the_farm_is_counted_and_its_queue_listed() {
    let row = QueueRow {
        request: RequestId(Digest::of(b"")),
        recipe: "pypy".to_owned(),
        priority: Priority::Normal,
        view: waiting(),
    };
    let view = FarmView {
        queued: 1,
        volunteers: 7,
        mails_waiting: 2,
        mails_failed: vec!["550 no such user".to_owned()],
        queue: vec![row],
        ..FarmView::default()
    };
    assert_eq!(
        farm_text(&view),
        "1 queued, 0 running, 0 finished, 7 volunteers\n2 mails wait to be sent\nmail not sent: 550 no such user\n\n\
         REQUEST   RECIPE  PRIORITY  STATE   BECAUSE\n\
         e3b0c442  pypy    normal    queued  needs tool python2: 0 of 7 linux/x86_64 volunteers have it"
    );
}
