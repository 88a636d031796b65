//! A farm of one inside this process: founded, asked, built, fetched.
#![allow(clippy::unwrap_used)]

use node::chance::Chance;
use node::client::get::{Errand, Got, Patience};
use node::client::wish::Wish;
use node::config::{Accept, CoordinatorConfig, FarmChoice, NodeConfig, Reach, VolunteerConfig};
use node::home::Home;
use node::network::config::{Mdns, Transports};
use node::node::Node;
use node::volunteer::machine::OwnerLimits;
use protocol::farm::explain::HowBuilt;
use protocol::request::{Demand, Priority};
use std::os::unix::fs::PermissionsExt;

fn reach() -> Reach {
    Reach {
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()],
        external: vec![],
        mdns: Mdns::Off,
        transports: Transports::Both,
    }
}

fn wish(greeting: &str) -> Wish {
    Wish {
        recipe: node::catalogue::by_name("hello").unwrap().clone(),
        options: vec![("greeting".to_owned(), greeting.to_owned())],
        source: None,
        require: vec![],
        addresses: vec![],
        demand: Demand::default(),
        priority: Priority::Normal,
        expires: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_of_one_builds_and_remembers() {
    let _ = tracing_subscriber::fmt().with_env_filter("node=debug").with_test_writer().try_init();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(NodeConfig {
        home: Home::open(folder.path().join("home")).unwrap(),
        farm: FarmChoice::Found("one".parse().unwrap()),
        reach: reach(),
        coordinator: Some(CoordinatorConfig { mail: None }),
        volunteer: Some(VolunteerConfig {
            limits: OwnerLimits::default(),
            accept: Accept::Catalogue,
            tools: vec![],
            fetch: Default::default(),
        }),
    })
    .await
    .unwrap();
    let session = node.session().unwrap();
    for (output, expected) in [("first", HowBuilt::Built), ("second", HowBuilt::Cached)] {
        let started = std::time::Instant::now();
        let wish = wish("farm");
        let errand = Errand {
            session: &session,
            uploads: node.uploads(),
            wish: &wish,
            source: None,
            patience: Patience::Wait,
            folder: Some(folder.path().join(output)),
        };
        let got = tokio::time::timeout(
            std::time::Duration::from_secs(60),
            errand.run(&Chance::from_os(), &mut |stage| println!("{:?} {stage:?}", started.elapsed())),
        )
        .await
        .unwrap()
        .unwrap();
        let Got::Delivered(delivered) = got else { panic!("{got:?}") };
        println!("{:?}", started.elapsed());
        assert_eq!(delivered.how, expected);
        let hello = folder.path().join(output).join("hello");
        assert_eq!(std::fs::metadata(&hello).unwrap().permissions().mode() & 0o777, 0o755);
        let said = std::process::Command::new(&hello).output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).contains("farm"), "{said:?}");
    }
    node.end().await;
}
