//! However a build ends, and whoever ends it, nothing of it lives on.

use super::*;
use crate::volunteer::BuildLog;

#[tokio::test]
async fn a_daemon_dies_with_its_step() {
    let word = canary("daemon");
    for sandbox in [sandbox(), polling()] {
        let mut attempt = Attempt::new(&sandbox, ROOMY, &[]);
        let script = format!(
            "(trap '' TERM HUP; setsid sh -c 'while :; do sleep 1; echo late > /build/late; done; : {word}' &) ; sleep 0.2; echo main ends"
        );
        let said = attempt.shell(&script).await;
        assert_exit(&said, 0);
        assert_eq!(living(&word), 0, "the daemon lives");
        attempt.close().await;
    }
}

#[tokio::test]
async fn cancelling_kills_everything() {
    let word = canary("cancel");
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let up = attempt.enclosure.workspace().build_path().join("up");
    let cancel = CancellationToken::new();
    let ordered = tokio::spawn({
        let cancel = cancel.clone();
        async move {
            until(|| up.exists()).await;
            cancel.cancel();
        }
    });
    let script = format!("for i in 1 2 3 4 5; do (sleep 100; : {word}) & done; touch up; wait");
    let end = attempt.enclosure.run(&step(&["sh", "-c", &script]), &cancel).await;
    assert!(matches!(end.outcome, Outcome::Cancelled), "{end:?}");
    assert_eq!(living(&word), 0);
    ordered.await.unwrap();
    let again = attempt.enclosure.run(&step(&["true"]), &cancel).await;
    assert!(matches!(again.outcome, Outcome::Cancelled), "{again:?}");
    attempt.close().await;
}

#[tokio::test]
async fn a_cancelled_start_leaves_nothing_whenever_it_comes() {
    let word = canary("early");
    for delay_us in (0..40).map(|n| n * 700) {
        let mut attempt = Attempt::new(&polling(), ROOMY, &[]);
        let cancel = CancellationToken::new();
        let later = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                tokio::time::sleep(Duration::from_micros(delay_us)).await;
                cancel.cancel();
            }
        });
        let end = attempt.enclosure.run(&step(&["sh", "-c", &format!("sleep 100; : {word}")]), &cancel).await;
        assert!(matches!(end.outcome, Outcome::Cancelled), "{delay_us} us: {end:?}");
        assert_eq!(living(&word), 0, "after {delay_us} us");
        later.await.unwrap();
        attempt.close().await;
    }
}

#[tokio::test]
async fn an_abandoned_step_is_killed_before_the_next_one_starts() {
    let word = canary("abandoned");
    let mut attempt = Attempt::new(&sandbox(), ROOMY, &[]);
    let step = step(&["sh", "-c", &format!("sleep 100; : {word}")]);
    let never = CancellationToken::new();
    tokio::select! {
        end = attempt.enclosure.run(&step, &never) => panic!("{end:?}"),
        () = until(|| living(&word) >= 3) => {}
    }
    let nothing: Result<(), _> = attempt.enclosure.collect(&[], &CollectLimits::default(), |_, _| Ok(()));
    assert!(nothing.is_err(), "collected from a living build");
    assert_exit(&attempt.shell("true").await, 0);
    assert_eq!(living(&word), 0);
    attempt.close().await;
}

const VICTIM_HOME: &str = "BARNRAISE_TEST_VICTIM_HOME";

/// Not a test by itself: the process that the next test kills.
#[tokio::test]
#[ignore = "run by `killing_us_kills_the_build_and_the_next_start_clears_up`"]
async fn a_victim() {
    let work = Path::new(&std::env::var_os(VICTIM_HOME).unwrap()).join("work");
    let workspace = Workspace::create(&work, "victim", BuildUser::for_slot(9)).unwrap();
    let setup = Setup {
        workspace,
        tools: Vec::new(),
        aliases: Vec::new(),
        limits: ROOMY,
        environment: BTreeMap::new(),
        surroundings: Surroundings::USUAL,
        log: BuildLog::new(ROOMY.log_bytes),
        vitals: Vitals::default(),
    };
    let mut enclosure = sandbox().enclose(setup).unwrap();
    let script = format!("touch up; (trap '' TERM HUP; setsid sleep 100) & sleep 100; : {}", work.display());
    enclosure.run(&step(&["sh", "-c", &script]), &CancellationToken::new()).await;
}

#[tokio::test]
async fn killing_us_kills_the_build_and_the_next_start_clears_up() {
    let home = tempfile::tempdir().unwrap();
    let word = home.path().display().to_string();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "volunteer::tests::ending::a_victim", "--ignored"])
        .env(VICTIM_HOME, home.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let up = home.path().join("work/victim/build/up");
    until(|| up.exists()).await;
    assert!(living(&word) >= 3);
    let groups = fs::read_to_string(home.path().join("work/victim/groups")).unwrap_or_default();
    victim.kill().unwrap();
    victim.wait().unwrap();
    until(|| living(&word) == 0).await;
    assert_eq!(sweep(&home.path().join("work")).unwrap(), 1);
    assert!(groups.lines().all(|folder| !Path::new(folder).exists()), "{groups}");
    if let Confinement::ControlGroups(_) = sandbox().confinement() {
        assert!(groups.lines().count() >= 1);
    }
}

/// Runs the tests of this file, and of its neighbours, once more as an ordinary user.
#[test]
fn all_of_this_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // Then the other tests have just been that.
    }
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, mode: u32| -> PathBuf {
        let path = folder.path().join(name);
        if name == "tmp" {
            fs::create_dir(&path).unwrap()
        } else {
            fs::copy(std::env::current_exe().unwrap(), &path).map(drop).unwrap()
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (tests, tmp) = (place("tests", 0o755), place("tmp", 0o1777));
    let again = || {
        Command::new("setpriv")
            .args(["--reuid=61120", "--regid=61120", "--clear-groups", "--"])
            .arg(&tests)
            .args(["volunteer::", "--test-threads=2"])
            .env("TMPDIR", &tmp)
            .current_dir(Path::new("/"))
            .output()
            .unwrap()
    };
    // A test beside this one that forked while the copy was written holds it open for writing until its exec.
    let until = std::time::Instant::now() + Duration::from_secs(30);
    let mut run = again();
    while String::from_utf8_lossy(&run.stderr).contains("Text file busy") && std::time::Instant::now() < until {
        run = again();
    }
    let said = String::from_utf8_lossy(&run.stdout);
    let complained = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "as an ordinary user:\n{said}\n{complained}");
    assert!(said.contains("test volunteer::tests::limits::a_fork_bomb_is_capped_and_dies ... ok"), "{said}");
}
