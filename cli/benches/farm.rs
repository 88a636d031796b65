//! A warm farm on loopback: how much a request costs over the bare build, and how long a build that exists takes to fetch.
//!
//! One coordinator and two volunteers, each with its own home and network. Every figure is paired: the same commands are run
//! bare in the same sandbox right after each request. Prints medians and the syncs that one request waited for.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use node::artifact::upload::Uploads;
use node::chance::Chance;
use node::client::get::{Errand, Got, Patience};
use node::client::member::Member;
use node::client::wish::Wish;
use node::config::{Accept, CoordinatorConfig, FarmChoice, NodeConfig, Reach, StoreLimit, VolunteerConfig, WallClock};
use node::home::Home;
use node::network::config::{Mdns, Transports};
use node::node::Node;
use node::source::FetchRules;
use node::volunteer::machine::OwnerLimits;
use node::volunteer::{BuildLog, BuildUser, Limits, Outcome, Sandbox, Setup, Step, Surroundings, Vitals, Workspace};
use protocol::request::{Conditions, Demand, Priority};
use protocol::ticket::Ticket;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Requests measured, after [`WARM_UP`] that are not.
const REQUESTS: usize = 30;
const WARM_UP: usize = 3;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` only wants to know that this starts.
    let asked_for = words.iter().all(|word| word.starts_with('-') || "farm".contains(word.as_str()));
    if !asked_for || words.iter().any(|word| word == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = start(folder.path(), "coordinator", FarmChoice::Found("bench".parse().unwrap())).await;
    let ticket = coordinator.ticket();
    let join = || FarmChoice::Join(Box::new(ticket.clone()));
    let one = start(folder.path(), "one", join()).await;
    let two = start(folder.path(), "two", join()).await;
    let home = Home::open(folder.path().join("requester")).unwrap();
    let member = Member::join(&home, Some(&ticket), Transports::Both).await.unwrap();
    let sandbox = {
        let work = folder.path().join("bare");
        tokio::task::spawn_blocking(move || Sandbox::probe(&work)).await.unwrap().unwrap()
    };
    until_all_are_free(&coordinator).await;

    let (mut asked, mut bare, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..WARM_UP + REQUESTS {
        let greeting = format!("round-{round}");
        let before = [&coordinator, &one, &two].map(Node::sync_rounds);
        let started = Instant::now();
        request(&member, &greeting, &folder.path().join(format!("out-{round}"))).await;
        let request_took = started.elapsed();
        let after = [&coordinator, &one, &two].map(Node::sync_rounds);
        let started = Instant::now();
        build_bare(&sandbox, folder.path(), round, &greeting).await;
        let bare_took = started.elapsed();
        if round >= WARM_UP {
            asked.push(request_took);
            bare.push(bare_took);
            syncs.push(before.iter().zip(after).map(|(before, after)| after - before).sum::<u64>());
        }
    }
    let over: Vec<Duration> = asked.iter().zip(&bare).map(|(asked, bare)| asked.saturating_sub(*bare)).collect();
    println!("warm farm, trivial build, {REQUESTS} requests");
    println!("  request to files on disk   {}", spread(asked));
    println!("  the same commands, bare    {}", spread(bare));
    println!("  request over bare          {}", spread(over));
    syncs.sort_unstable();
    println!(
        "  syncs of all three nodes until the files were there: median {}, most {}",
        syncs[syncs.len() / 2],
        syncs[syncs.len() - 1]
    );
    member.leave().await;
    found(&ticket, folder.path());
    for node in [one, two, coordinator] {
        node.end().await;
    }
}

/// A command that fetches what exists, from its start to its end.
fn found(ticket: &Ticket, folder: &Path) {
    let home = folder.join("finder");
    let mut took = Vec::new();
    for round in 0..WARM_UP + REQUESTS {
        let started = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_node"))
            .args(["request", "hello", "--option", "greeting=round-5", "--output"])
            .arg(folder.join(format!("found-{round}")))
            .arg("--home")
            .arg(&home)
            .args(["--farm", &ticket.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
        if round >= WARM_UP {
            took.push(started.elapsed());
        }
    }
    println!("a build that exists, {REQUESTS} commands");
    println!("  start of the command to its end   {}", spread(took));
}

fn spread(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let ms = |at: usize| took[at].as_secs_f64() * 1_000.0;
    format!("median {:7.1} ms  (min {:.1}, max {:.1})", ms(took.len() / 2), ms(0), ms(took.len() - 1))
}

async fn start(folder: &Path, name: &str, farm: FarmChoice) -> Node {
    let coordinates = matches!(farm, FarmChoice::Found(_));
    let config = NodeConfig {
        home: Home::open(folder.join(name)).unwrap(),
        farm,
        reach: Reach {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned(), "/ip4/127.0.0.1/udp/0/quic-v1".to_owned()],
            external: Vec::new(),
            mdns: Mdns::Off,
            transports: Transports::Both,
        },
        store: StoreLimit::OfDisk,
        coordinator: coordinates.then_some(CoordinatorConfig { mail: None, wall_clock: WallClock::Checked }),
        volunteer: (!coordinates).then(|| VolunteerConfig {
            limits: OwnerLimits::default(),
            accept: Accept::Catalogue,
            tools: Vec::new(),
            fetch: FetchRules::default(),
        }),
    };
    Node::start(config).await.unwrap()
}

async fn until_all_are_free(coordinator: &Node) {
    let until = Instant::now() + Duration::from_secs(30);
    while coordinator.door().map_or(0, |door| door.volunteers_free()) < 2 {
        assert!(Instant::now() < until, "the volunteers did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn wish(greeting: &str) -> Wish {
    Wish {
        recipe: node::catalogue::by_name("hello").unwrap().clone(),
        options: vec![("greeting".to_owned(), greeting.to_owned())],
        source: None,
        require: ["os=linux", "arch=x86_64"].map(|word| word.parse().unwrap()).to_vec(),
        addresses: Vec::new(),
        demand: Demand::default(),
        conditions: Conditions::Usual,
        priority: Priority::Normal,
        expires: None,
    }
}

async fn request(member: &Member, greeting: &str, output: &Path) {
    let wish = wish(greeting);
    let uploads = Uploads::default();
    let errand = Errand {
        session: &member.session,
        uploads: &uploads,
        wish: &wish,
        source: None,
        patience: Patience::Wait,
        folder: Some(output.to_owned()),
    };
    let got = errand.run(&Chance::from_os(), &mut |_| {}).await.unwrap();
    assert!(matches!(got, Got::Delivered(_)), "{got:?}");
    assert!(output.join("hello").exists());
}

/// The steps and the smoke test of the same recipe, in the same sandbox, without a farm.
async fn build_bare(sandbox: &Sandbox, folder: &Path, round: usize, greeting: &str) {
    let recipe = node::catalogue::by_name("hello").unwrap();
    let settings = recipe.resolve(&[("greeting".to_owned(), greeting.to_owned())]).unwrap();
    let spec = recipe.spec(settings.options, None, &[]).unwrap();
    let plan = recipe.plan(&spec, &settings.effort, Surroundings::USUAL.ground(1)).unwrap();
    let (steps, smoke) = (plan.steps, plan.smoke.unwrap());
    let limits = Limits {
        wall: Duration::from_secs(60),
        memory_bytes: 1 << 30,
        processes: 256,
        log_bytes: 1 << 20,
        disk_bytes: 1 << 30,
        cores: 1,
        quiet: Duration::from_secs(60),
    };
    let workspace = Workspace::create(&folder.join("bare"), &format!("bare-{round}"), BuildUser::for_slot(9)).unwrap();
    for (path, file) in recipe.files() {
        std::fs::write(workspace.build_path().join(path.as_str()), &file.text).unwrap();
    }
    workspace.hand_over().unwrap();
    let log = BuildLog::new(limits.log_bytes);
    let mut enclosure = sandbox
        .enclose(Setup {
            workspace,
            tools: Vec::new(),
            aliases: Vec::new(),
            limits,
            environment: BTreeMap::new(),
            surroundings: Surroundings::USUAL,
            log,
            vitals: Vitals::default(),
        })
        .unwrap();
    let never = CancellationToken::new();
    for argv in steps.into_iter().map(|step| step.argv).chain([smoke.argv]) {
        let end = enclosure.run(&Step { argv, environment: BTreeMap::new() }, &never).await;
        assert!(matches!(end.outcome, Outcome::Exited(0)), "{end:?}");
    }
    tokio::spawn(enclosure.close());
}
