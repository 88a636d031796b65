//! What the farm still does when every coordinator is stopped, on each transport alone too.

use crate::deadline::{SOON, wait_for};
use crate::guest::Guest;
use crate::neighbours::{GREETING, Made, Neighbours, Transport};
use node::artifact::Store;
use protocol::id::PeerKey;
use protocol::ticket::{Contact, Ticket};
use protocol::wire::{Answer, Control, Refusal};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn a_build_is_found_through_a_volunteer_that_does_not_hold_it() {
    serves_without_coordinator(Transport::Both);
}

#[test]
fn the_same_on_tcp_alone() {
    serves_without_coordinator(Transport::Tcp);
}

#[test]
fn the_same_on_quic_alone() {
    serves_without_coordinator(Transport::Quic);
}

fn serves_without_coordinator(transport: Transport) {
    let mut neighbours = Neighbours::settle(transport);
    let made = neighbours.build("first", GREETING);
    assert_eq!(made.says(), GREETING);
    let ticket = neighbours.complete();
    assert_uses_only(transport, &ticket);
    let builder = named(&ticket, |contact| contact.key == made.volunteer);
    let bystander = named(&ticket, |contact| contact.key != made.volunteer);

    let through_bystander = Ticket { farm: ticket.farm, coordinators: vec![], peers: vec![bystander.clone()] };
    have_met(&neighbours, &through_bystander, builder.key);
    assert!(neighbours.coordinator.stop().success());
    hint_is_known(&neighbours, &made, &through_bystander);

    for (home, ticket) in [("whole", &ticket), ("bystander-only", &through_bystander)] {
        let home = neighbours.farm.home(home);
        let ran = neighbours.ask(&home, ticket, GREETING);
        let json = ran.ended_with(0).json();
        eprintln!("{transport:?}, {} contacts: {} ms", ticket.peers.len(), json["elapsed_ms"]);
        assert_eq!((&json["outcome"], &json["request"]), (&Value::from("cached"), &Value::Null), "{json}");
        let fetched = Made::of(&json);
        assert_eq!((fetched.key, fetched.volunteer), (made.key, builder.key));
        assert_eq!(std::fs::read(&fetched.file).unwrap(), std::fs::read(&made.file).unwrap());
        assert_eq!(fetched.says(), GREETING);
    }
    volunteers_are_known(&neighbours, &through_bystander, [builder.key, bystander.key].into());

    // Nobody else has it: with the builder gone, the same request finds nothing.
    assert!(neighbours.builder.stop().success());
    let home = neighbours.farm.home("too-late");
    let ran = neighbours.ask(&home, &through_bystander, GREETING);
    assert_eq!(ran.ended_with(3).json()["outcome"], Value::Null);
    assert!(!home.path().join("out").exists());
}

#[test]
fn a_builder_that_died_before_the_verdict_provides_what_it_built() {
    let mut neighbours = Neighbours::settle(Transport::Both);
    let made = neighbours.build("first", GREETING);
    // What a power cut between report and verdict leaves: the artifact, and no verdict.
    neighbours.restart_builder(|home| {
        for lost in ["store/notes/judged", "index"] {
            std::fs::remove_dir_all(home.join(lost)).unwrap();
        }
    });
    let notes = neighbours.builder_home.path().join("store/notes/judged");
    wait_for("the verdict at the builder", SOON, || std::fs::read_dir(&notes).unwrap().next().map(drop));
    let ticket = neighbours.complete();
    let builder = named(&ticket, |contact| contact.key == made.volunteer);
    assert!(neighbours.coordinator.stop().success());
    let through_builder = Ticket { farm: ticket.farm, coordinators: vec![], peers: vec![builder] };
    let ran = neighbours.ask(&neighbours.farm.home("late"), &through_builder, GREETING);
    assert_eq!(Made::of(&ran.ended_with(0).json()).manifest, made.manifest);
}

#[test]
fn who_comes_back_finds_the_others_though_its_ticket_names_nobody_who_is_left() {
    let mut neighbours = Neighbours::settle(Transport::Both);
    let made = neighbours.build("first", GREETING);
    let ticket = neighbours.complete();
    let bystander = named(&ticket, |contact| contact.key != made.volunteer);
    let key = protocol::digest::Digest::from_bytes(*bystander.key.as_bytes()).to_string();
    let through_bystander = Ticket { farm: ticket.farm, coordinators: vec![], peers: vec![bystander] };
    have_met(&neighbours, &through_bystander, made.volunteer);
    let book = neighbours.builder_home.path().join("peers");
    wait_for("the bystander in the builder's address book", SOON, || {
        std::fs::read_to_string(&book).is_ok_and(|text| text.contains(&key)).then_some(())
    });
    assert!(neighbours.coordinator.stop().success());
    // It listens elsewhere now, and is told of the coordinator alone.
    neighbours.restart_builder(|_| {});
    have_met(&neighbours, &through_bystander, made.volunteer);
}

/// Waits until the bystander is connected to the builder: who has not met by then has nobody left to be introduced by.
fn have_met(neighbours: &Neighbours, through: &Ticket, builder: PeerKey) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let refuse = |_: &_| Answer::Refused(Refusal::NotACoordinator);
        let guest = Guest::join(102, neighbours.transport, through, refuse, Store::in_memory()).await;
        let meeting = async {
            loop {
                let answer = guest.network.call(through.peers[0].key, Control::Ticket).await;
                if let Ok(Answer::Ticket(ticket)) = answer
                    && ticket.peers.iter().any(|peer| peer.key == builder)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, meeting).await.expect("the volunteers should have met by now");
        guest.network.shut_down().await;
    });
}

/// Waits until the bystander's part of the DHT names the builder, and makes sure that the bystander has no verdict itself.
fn hint_is_known(neighbours: &Neighbours, made: &Made, through: &Ticket) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let refuse = |_: &_| Answer::Refused(Refusal::NotACoordinator);
        let guest = Guest::join(101, neighbours.transport, through, refuse, Store::in_memory()).await;
        guest.until_provided(made.key, made.volunteer).await;
        assert_eq!(guest.judged_at(&through.peers[0], made.key).await, None, "the bystander holds it");
        guest.network.shut_down().await;
    });
}

/// Both volunteers are known to the bystander by gossip: to a stranger with the ticket, and to whoever shares its home.
fn volunteers_are_known(neighbours: &Neighbours, through: &Ticket, expected: BTreeSet<PeerKey>) {
    let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
    let stranger = neighbours.farm.home("stranger");
    let word = through.to_string();
    let asked: [(_, &[&str]); 2] = [
        (&stranger, &["volunteers", "--json", "--farm", &word]),
        (&neighbours.bystander_home, &["volunteers", "--json"]),
    ];
    for (home, words) in asked {
        wait_for("both volunteers", SOON, || {
            let json = neighbours.transport.run(home, words).ended_with(0).json();
            let rows = json["volunteers"].as_array().unwrap();
            let known: BTreeSet<String> =
                rows.iter().map(|row| row["volunteer"].as_str().unwrap().to_owned()).collect();
            (known == expected).then_some(())
        });
    }
}

fn named(ticket: &Ticket, wanted: impl Fn(&Contact) -> bool) -> Contact {
    let found: Vec<_> = ticket.peers.iter().filter(|contact| wanted(contact)).collect();
    assert_eq!(found.len(), 1, "{ticket:?}");
    found[0].clone()
}

/// Nobody is said to listen on a transport that is not used.
fn assert_uses_only(transport: Transport, ticket: &Ticket) {
    let everybody = || ticket.coordinators.iter().chain(&ticket.peers);
    assert_eq!(everybody().count(), 3);
    for contact in everybody() {
        let uses = |kind: &str| contact.addresses.iter().any(|address| address.contains(kind));
        assert_eq!(
            (uses("/tcp/"), uses("/udp/")),
            (transport != Transport::Quic, transport != Transport::Tcp),
            "{contact:?}"
        );
    }
}
