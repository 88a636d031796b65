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
#[allow(clippy::print_stderr, reason = "what a machine cannot run is reported by name")]
fn in_namespace() {
    const LAN: &str = "ip link set lo up && ip link add lan type veth peer name far && ip addr add 10.7.0.1/24 dev lan \
                       && ip link set lan up multicast on && ip link set far up";
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).env(INSIDE, "1");
        command
    };
    if !namespace(LAN).output().is_ok_and(|output| output.status.success()) {
        eprintln!("not run here: {NAME} needs network namespaces (root, unshare, ip)");
        return;
    }
    let inside = namespace(&format!("{LAN} && exec \"$0\" --exact {NAME} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(inside.status.success() && said.contains("1 passed"), "{said}");
}
