#![allow(clippy::unwrap_used)]
use super::samples::{ASKED_AT, occasion};
use super::smtp::sink::{PATIENCE, Sink, impatient, scripted};
use super::*;
use config::SmtpTls;
use protocol::digest::Digest;
use protocol::farm::explain::{Ended, HowBuilt};
use protocol::id::ManifestId;
use protocol::report::Holding;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The part of the law that the mailer sees, with a wait of 100 ms after a failure that may pass.
struct Farm {
    state: Mutex<State>,
    started: Instant,
    changed: Notify,
}

#[derive(Default)]
struct State {
    pending: BTreeMap<NoticeId, (Timestamp, Occasion)>,
    heard: Vec<Command>,
    /// Commands that are not committed, and those whose answer never comes.
    refuse: BTreeSet<&'static str>,
    swallow: BTreeSet<&'static str>,
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::NoticeAttempt { .. } => "attempt",
        Command::NoticeSent { .. } => "sent",
        Command::NoticeFailed { .. } => "failed",
        _ => "other",
    }
}

fn to(address: &str) -> Occasion {
    let built =
        Ended::Built { manifest: ManifestId(Digest::of(b"manifest")), how: HowBuilt::Built, holding: Holding::Kept };
    let mut occasion = occasion(built);
    occasion.notice = NoticeId(Digest::of(address.as_bytes()));
    occasion.address = address.parse().unwrap();
    occasion
}

impl Farm {
    fn with(addresses: &[&str]) -> Self {
        let farm = Self { state: Mutex::new(State::default()), started: Instant::now(), changed: Notify::new() };
        for address in addresses {
            farm.add(to(address), Duration::ZERO);
        }
        farm
    }

    fn add(&self, occasion: Occasion, after: Duration) {
        let not_before = self.now() + after;
        self.state.lock().unwrap().pending.insert(occasion.notice, (not_before, occasion));
    }

    fn now(&self) -> Timestamp {
        ASKED_AT + self.started.elapsed()
    }

    fn pending(&self, now: Timestamp, most: usize) -> Waiting {
        let state = self.state.lock().unwrap();
        let mut all: Vec<_> = state.pending.values().collect();
        all.sort_by_key(|(not_before, occasion)| (*not_before, occasion.notice));
        Waiting {
            due: all.iter().filter(|(at, _)| *at <= now).take(most).map(|(_, occasion)| occasion.clone()).collect(),
            next_at: all.iter().map(|(at, _)| *at).find(|at| *at > now),
        }
    }

    async fn propose(&self, command: Command) -> Result<Reply, &'static str> {
        let (swallowed, refused) = {
            let mut state = self.state.lock().unwrap();
            state.heard.push(command.clone());
            let name = name(&command);
            let refused = state.refuse.contains(name);
            if !refused {
                match &command {
                    Command::NoticeSent { notice } if !state.swallow.contains(name) => {
                        state.pending.remove(notice);
                    }
                    Command::NoticeFailed { notice, permanence: Permanence::Permanent, .. } => {
                        state.pending.remove(notice);
                    }
                    Command::NoticeFailed { notice, .. } => {
                        let later = self.now() + Duration::from_millis(100);
                        state.pending.get_mut(notice).unwrap().0 = later;
                    }
                    _ => {}
                }
            }
            (state.swallow.contains(name), refused)
        };
        self.changed.notify_waiters();
        if swallowed {
            std::future::pending::<()>().await;
        }
        if refused { Err("not the leader") } else { Ok(Reply::Done) }
    }

    fn names(&self) -> Vec<&'static str> {
        self.state.lock().unwrap().heard.iter().map(name).collect()
    }

    /// Runs `mailer` until `done` is true of the state, then shuts it down.
    async fn run_until(&self, mailer: &Mailer, wake: &Notify, done: impl Fn(&State) -> bool) {
        let (stop, stopped) = oneshot::channel::<()>();
        let law = Law {
            pending: |now, most| self.pending(now, most),
            propose: |command| self.propose(command),
            now: || self.now(),
            sender: samples::sender,
        };
        let running = mailer.run(law, wake, async {
            let _ = stopped.await;
        });
        let watching = async {
            loop {
                let changed = self.changed.notified();
                if done(&self.state.lock().unwrap()) {
                    break;
                }
                changed.await;
            }
            stop.send(()).unwrap();
        };
        timeout(20 * PATIENCE, async { tokio::join!(running, watching) }).await.unwrap();
    }
}

fn is_quiet(state: &State) -> bool {
    state.pending.is_empty()
}

fn into_folder(directory: &Path) -> Mailer {
    let options = config::MailOptions { mail_dir: Some(directory.to_owned()), ..config::MailOptions::default() };
    Mailer::new(MailConfig::from_options(&options).unwrap().unwrap()).unwrap()
}

fn files(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn expected_files(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| format!("{}.eml", to(address).notice)).collect()
}

#[tokio::test]
async fn a_notice_is_attempted_then_sent_and_once() {
    let home = tempfile::tempdir().unwrap();
    let farm = Farm::with(&["me@example.org"]);
    farm.run_until(&into_folder(home.path()), &Notify::new(), is_quiet).await;
    let notice = to("me@example.org").notice;
    assert_eq!(farm.state.lock().unwrap().heard, [Command::NoticeAttempt { notice }, Command::NoticeSent { notice }]);
    assert_eq!(files(home.path()), expected_files(&["me@example.org"]));
}

#[tokio::test]
async fn a_mailer_runs_as_a_task_of_its_own_and_ends_at_shutdown() {
    let home = tempfile::tempdir().unwrap();
    let (farm, mailer, wake) = (Arc::new(Farm::with(&[])), into_folder(home.path()), Arc::new(Notify::new()));
    let (stop, stopped) = oneshot::channel::<()>();
    let law = Law {
        pending: {
            let farm = farm.clone();
            move |now, most| farm.pending(now, most)
        },
        propose: {
            let farm = farm.clone();
            move |command| {
                let farm = farm.clone();
                async move { farm.propose(command).await }
            }
        },
        now: {
            let farm = farm.clone();
            move || farm.now()
        },
        sender: samples::sender,
    };
    let task = tokio::spawn(async move {
        mailer
            .run(law, &wake, async {
                let _ = stopped.await;
            })
            .await
    });
    stop.send(()).unwrap();
    timeout(PATIENCE, task).await.unwrap().unwrap();
    assert_eq!(farm.names(), [] as [&str; 0]);
}

#[tokio::test]
async fn many_notices_become_one_file_each_however_often_the_farm_restarts() {
    let home = tempfile::tempdir().unwrap();
    let addresses: Vec<_> = (0..50).map(|n| format!("n{n}@example.org")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    for _run in 0..3 {
        // Each run begins with everything pending, as if the farm had died before it knew of any mail.
        let farm = Farm::with(&addresses);
        farm.run_until(&into_folder(home.path()), &Notify::new(), is_quiet).await;
        assert_eq!(farm.names().iter().filter(|name| **name == "attempt").count(), addresses.len());
    }
    assert_eq!(files(home.path()), expected_files(&addresses));
}

#[tokio::test(start_paused = true)]
async fn a_notice_waits_until_it_is_due_and_a_lost_wake_costs_half_a_minute_at_most() {
    let home = tempfile::tempdir().unwrap();
    let farm = Farm::with(&[]);
    let mailer = into_folder(home.path());
    farm.add(to("later@example.org"), Duration::from_secs(5));
    let begun = Instant::now();
    farm.run_until(&mailer, &Notify::new(), is_quiet).await;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");

    let begun = Instant::now();
    let unheard = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        farm.add(to("unheard@example.org"), Duration::ZERO);
    };
    let until_sent = |state: &State| state.heard.len() == 4;
    let nobody_wakes = Notify::new();
    tokio::join!(farm.run_until(&mailer, &nobody_wakes, until_sent), unheard);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(3) && waited <= LOOK_EVERY + Duration::from_secs(1), "{waited:?}");

    let begun = Instant::now();
    let wake = Notify::new();
    let heard = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        farm.add(to("heard@example.org"), Duration::ZERO);
        wake.notify_one();
    };
    let until_sent = |state: &State| state.heard.len() == 6;
    tokio::join!(farm.run_until(&mailer, &wake, until_sent), heard);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_attempt_is_committed() {
    let home = tempfile::tempdir().unwrap();
    let farm = Farm::with(&["me@example.org"]);
    farm.state.lock().unwrap().refuse.insert("attempt");
    farm.run_until(&into_folder(home.path()), &Notify::new(), |state| state.heard.len() == 5).await;
    assert_eq!(farm.names(), ["attempt"; 5]);
    assert_eq!(files(home.path()), BTreeSet::new());
    // It rested longer each time: 1 + 2 + 4 + 8 s.
    assert_eq!(farm.started.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn a_mail_whose_sending_was_not_committed_is_not_sent_again_by_the_same_farm() {
    let sink = Sink::start("none", "none").await;
    let farm = Farm::with(&["me@example.org"]);
    farm.state.lock().unwrap().refuse.insert("sent");
    let mailer = Mailer::new(sink.config("none", None)).unwrap();
    let stop_refusing = async {
        loop {
            let changed = farm.changed.notified();
            if farm.names().len() == 2 {
                break farm.state.lock().unwrap().refuse.clear();
            }
            changed.await;
        }
    };
    let wake = Notify::new();
    tokio::join!(farm.run_until(&mailer, &wake, is_quiet), stop_refusing);
    assert_eq!(farm.names(), ["attempt", "sent", "sent"]);
    assert_eq!(sink.finish().await.0.len(), 1);
}

#[tokio::test]
async fn a_farm_killed_before_it_knew_sends_the_same_mail_with_the_same_message_id() {
    let mut sink = Sink::start("starttls", "plain").await;
    let farm = Farm::with(&["me@example.org"]);
    farm.state.lock().unwrap().swallow.insert("sent");
    let first = {
        let mailer = Mailer::new(sink.config("starttls", Some("secret word"))).unwrap();
        let wake = Notify::new();
        let running = farm.run_until(&mailer, &wake, |_| false);
        // Dropped in the middle, as a kill would.
        tokio::select! { () = running => unreachable!(), taken = sink.next() => taken }
    };
    farm.state.lock().unwrap().swallow.clear();
    let mailer = Mailer::new(sink.config("starttls", Some("secret word"))).unwrap();
    farm.run_until(&mailer, &Notify::new(), is_quiet).await;
    let second = sink.next().await;
    let id = |content: &str| {
        mail_parser::MessageParser::default().parse(content.as_bytes()).unwrap().message_id().unwrap().to_owned()
    };
    assert_eq!(id(&first.content), format!("{}@example.org", to("me@example.org").notice));
    assert_eq!(first.content, second.content);
    assert_eq!(sink.finish().await.0.len(), 0);
}

#[tokio::test]
async fn each_answer_of_a_real_server_has_its_consequence() {
    let sink = Sink::start("starttls", "plain").await;
    let farm = Farm::with(&["me@example.org", "later@example.org", "never@example.org", "spam@example.org"]);
    let mailer = Mailer::new(sink.config("starttls", Some("secret word"))).unwrap();
    farm.run_until(&mailer, &Notify::new(), is_quiet).await;
    let of = |address: &str| {
        let id = to(address).notice;
        let state = farm.state.lock().unwrap();
        let is_about = |command: &&Command| match command {
            Command::NoticeAttempt { notice } | Command::NoticeSent { notice } => *notice == id,
            Command::NoticeFailed { notice, .. } => *notice == id,
            _ => false,
        };
        state.heard.iter().filter(is_about).cloned().collect::<Vec<_>>()
    };
    let attempt = |address: &str| Command::NoticeAttempt { notice: to(address).notice };
    let sent = |address: &str| Command::NoticeSent { notice: to(address).notice };
    let failed = |address: &str, permanence, reason: &str| Command::NoticeFailed {
        notice: to(address).notice,
        permanence,
        reason: reason.to_owned(),
    };
    assert_eq!(of("me@example.org"), [attempt("me@example.org"), sent("me@example.org")]);
    assert_eq!(
        of("later@example.org"),
        [
            attempt("later@example.org"),
            failed("later@example.org", Permanence::Transient, "recipient: 450 4.2.0 <address> greylisted, come again"),
            attempt("later@example.org"),
            sent("later@example.org"),
        ]
    );
    let never = failed("never@example.org", Permanence::Permanent, "recipient: 550 5.1.1 <address> no such user");
    assert_eq!(of("never@example.org"), [attempt("never@example.org"), never]);
    let spam = failed("spam@example.org", Permanence::Permanent, "mail: 554 5.7.1 looks like spam");
    assert_eq!(of("spam@example.org"), [attempt("spam@example.org"), spam]);
    let (taken, _) = sink.finish().await;
    let mut recipients: Vec<_> = taken.iter().flat_map(|taken| taken.to.clone()).collect();
    recipients.sort();
    assert_eq!(recipients, ["later@example.org", "me@example.org"]);
}

#[tokio::test]
async fn a_silent_server_fails_a_letter_for_now_and_gives_the_others_a_rest() {
    let port = scripted(&["220 hello\r\n"]).await;
    let addresses: Vec<_> = (0..20).map(|n| format!("n{n}@example.org")).collect();
    let farm = Farm::with(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let mailer = Mailer::new(impatient(port, SmtpTls::None)).unwrap();
    let failures = |state: &State| state.heard.iter().filter(|command| name(command) == "failed").count();
    farm.run_until(&mailer, &Notify::new(), |state| failures(state) == ON_THE_WAY_MAX).await;
    let state = farm.state.lock().unwrap();
    assert_eq!(state.heard.len(), 2 * ON_THE_WAY_MAX, "no fifth letter was begun: {:?}", state.heard);
    for command in &state.heard {
        if let Command::NoticeFailed { permanence, reason, .. } = command {
            assert_eq!(*permanence, Permanence::Transient);
            let silent = format!("connecting to the mail server: localhost port {port} gave no answer within 200ms");
            assert_eq!(*reason, silent);
        }
    }
    assert_eq!(state.pending.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn rests_grow_to_a_minute_and_end_with_the_first_success() {
    let mut desk = Desk::default();
    let notice = to("me@example.org").notice;
    let mut rests = Vec::new();
    for _ in 0..8 {
        // Four letters that fail together are one failure.
        (0..4).for_each(|_| desk.landed(notice, Landing::Blocked));
        rests.push((desk.rest_until - Instant::now()).as_secs());
        tokio::time::sleep_until(desk.rest_until).await;
        assert!(!desk.is_resting());
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60]);
    desk.landed(notice, Landing::Sent);
    desk.landed(notice, Landing::Blocked);
    assert_eq!(desk.rest_until - Instant::now(), REST_FIRST);
}
