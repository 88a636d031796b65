//! mDNS, in a network namespace of its own so that nothing is said on a real network.

use super::*;
use std::process::Command;

const INSIDE: &str = "NETWORK_NAMESPACE_OF_THE_TEST";
const NAME: &str = "network::tests::discovery::a_farm_on_the_same_network_is_found_by_mdns";

#[tokio::test]
async fn a_farm_on_the_same_network_is_found_by_mdns() {
    if std::env::var_os(INSIDE).is_none() {
        return in_namespace();
    }
    let everywhere = |seed, farm| NetworkConfig {
        listen: vec!["/ip4/0.0.0.0/tcp/0".to_owned()],
        mdns: Mdns::On,
        farm,
        ..config(seed, Transports::Tcp)
    };
    let stranger = Node::start(everywhere(3, FarmId(Digest::of(b"other"))));
    let one = Node::start(everywhere(1, farm()));
    let mut changes = one.network.changes();
    let two = Node::start(everywhere(2, farm()));
    change(&mut changes, |change| matches!(change, PeerChange::Greeted { .. })).await;
    let met: Vec<_> = one.network.peers().await.unwrap().iter().map(|contact| contact.key).collect();
    assert_eq!(met, [two.key()]);
    assert_eq!(stranger.network.peers().await, Ok(vec![]));
}

/// Runs this test again inside a fresh network namespace with one interface that can multicast.
fn in_namespace() {
    let setup = "ip link set lo up && ip link add lan type dummy && ip addr add 10.7.0.1/24 dev lan \
                 && ip link set lan up multicast on && exec \"$0\" --exact \"$1\" --nocapture";
    let probe = Command::new("unshare").args(["--net", "sh", "-c", "ip link add lan type dummy"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("not run here: {NAME} needs network namespaces (root, unshare, ip)");
        return;
    }
    let inside = Command::new("unshare")
        .args(["--net", "sh", "-c", setup])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(inside.status.success(), "{}", String::from_utf8_lossy(&inside.stdout));
}
