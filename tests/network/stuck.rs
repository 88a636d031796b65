//! A volunteer that only says that it is alive loses its lease; and a volunteer passes on what a coordinator has told it.

use crate::deadline::{BUILD, SOON};
use crate::guest::Guest;
use crate::neighbours::{Neighbours, Transport, ticket_in};
use node::artifact::ChunkSource;
use protocol::digest::Digest;
use protocol::platform::{Acceptance, Capability, Value};
use protocol::progress::{Phase, Progress, Pulse};
use protocol::ticket::Ticket;
use protocol::time::Span;
use protocol::wire::{Answer, Control, Park, Refusal, RequestRef};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// What the recipe allows without a sign of progress, and what its volunteer has beyond that to say so itself.
const QUIET: Duration = Duration::from_secs(50);
const GRACE: Duration = Duration::from_secs(15);

const RECIPE: &str = r#"
recipe = 1
name = "idle"
description = "Is never built"
requires = ["os=linux"]
reproducible = true
[[file]]
path = "made"
text = "made\n"
[[step]]
run = ["sh", "-c", "true"]
[[output]]
path = "made"
[limits]
quiet_s = 50
"#;

struct Nothing;

impl ChunkSource for Nothing {
    fn read(&self, _: &Digest) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// A machine that could build anything of this platform.
fn able() -> Capability {
    let words = [("os", "linux"), ("arch", std::env::consts::ARCH)];
    let numbers = [("memory_mib", 1 << 20), ("disk_mib", 1 << 20), ("cores", 8)];
    let words = words.map(|(key, word)| (key.to_owned(), Value::Text(word.to_owned())));
    let numbers = numbers.map(|(key, number)| (key.to_owned(), Value::Number(number)));
    Capability { facts: words.into_iter().chain(numbers).collect(), accepts: Acceptance::Any, slots: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volunteer_that_only_says_that_it_is_alive_loses_its_lease() {
    let farm = crate::farm::Farm::new();
    let transport = Transport::Tcp;
    let mut coordinator =
        transport.daemon(&farm.home("coordinator"), &["--json", "--coordinator", "--no-mdns", "--farm-name", "x"]);
    let ticket: Ticket = ticket_in(&coordinator.line("a ticket", |line| line.contains("ticket")));
    let file = farm.folder().join("idle.toml");
    fs::write(&file, RECIPE).unwrap();
    let (me, shown) = (farm.home("me"), ticket.to_string());
    let left = transport.run(&me, &["request", file.to_str().unwrap(), "--detach", "--json", "--farm", &shown]);
    let request = left.ended_with(0).json()["request"].as_str().unwrap().to_owned();

    let guest = Guest::join(9, transport, &ticket, |_| Answer::Refused(Refusal::NotAllowed), Nothing).await;
    let leader = ticket.coordinators[0].key;
    let claim = Park::Claim { nonce: 1, capability: able(), leases: vec![], wait: Span::from_secs(20) };
    let Ok(Answer::Offer(Some(offer))) = guest.network.park(leader, claim).await else { panic!("no offer") };
    let lease = offer.lease;
    let progress = Progress { phase: Phase::Building, fetched_bytes: 0, log_bytes: 3, cpu: Span::from_secs(1) };
    let since = Instant::now();
    let mut told = false;
    loop {
        let beat = Control::Heartbeat { pulses: vec![Pulse { lease, progress }] };
        let Ok(Answer::Revoked(revoked)) = guest.network.call(leader, beat).await else { panic!("no answer") };
        if revoked == [lease] {
            break;
        }
        assert!(revoked.is_empty() && since.elapsed() < QUIET + GRACE + SOON, "it may go on and on");
        if since.elapsed() > Duration::from_secs(61) && !told {
            let status = transport.run(&me, &["status", &request, "--farm", &shown]);
            let log = transport.run(&me, &["logs", &request, "--farm", &shown]);
            told = status.stdout.contains("builds it; no sign of progress for 1m\n")
                && log.stderr.contains("no sign of progress for 1m\n");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = since.elapsed();
    assert!(took >= QUIET + GRACE - Duration::from_secs(1), "it had {took:?}");
    assert!(told, "and whoever looked was told");
    let status = transport.run(&me, &["status", &request, "--json", "--farm", &shown]).ended_with(0).json();
    assert_eq!((&status["state"], &status["attempts"]), (&"queued".into(), &1.into()), "tried elsewhere: {status}");
    assert_eq!((&status["volunteers_refusing"], &status["phase"]), (&1.into(), &serde_json::Value::Null));
    assert!(coordinator.stderr().contains("Stuck"), "{}", coordinator.stderr());
    assert!(coordinator.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volunteer_passes_on_what_a_coordinator_has_told_it() {
    let mut neighbours = Neighbours::settle(Transport::Tcp);
    let (me, shown) = (neighbours.farm.home("me"), neighbours.founding.to_string());
    let words = ["request", "hello", "--require", "tool.nobody-has-it", "--detach", "--json", "--farm", &shown];
    let left = neighbours.transport.run(&me, &words).ended_with(0).json();
    let request = left["request"].as_str().unwrap().to_owned();
    // A guest who knows the volunteer only.
    let serves: Ticket =
        fs::read_to_string(neighbours.builder_home.path().join("daemon.addr")).unwrap().trim().parse().unwrap();
    let builder = serves.peers[0].key;
    let guest = Guest::join(8, Transport::Tcp, &serves, |_| Answer::Refused(Refusal::NotAllowed), Nothing).await;
    let ask = || guest.network.call(builder, Control::Request(RequestRef::Prefix(request[..8].to_owned())));
    match ask().await {
        Ok(Answer::Request(Some((id, view)))) => {
            assert_eq!((id.to_string(), view.ended_at), (request.clone(), None));
        }
        other => panic!("{other:?}"),
    }
    // Without a coordinator it says what it has heard, and that this is all.
    neighbours.coordinator.kill();
    let until = Instant::now() + BUILD;
    let heard = loop {
        match ask().await {
            Ok(Answer::Heard(heard)) => break heard,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
    };
    let heard = heard.unwrap();
    assert_eq!((heard.request.to_string(), heard.free, heard.busy), (request, 1, 0));
    let unknown = guest.network.call(builder, Control::Request(RequestRef::Prefix("00000000".to_owned()))).await;
    assert!(matches!(unknown, Ok(Answer::Heard(None))), "{unknown:?}");
}
