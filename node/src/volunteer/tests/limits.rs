//! Each limit, passed in each way that is known.

use super::*;

async fn ends_by(
    sandbox: &Sandbox,
    limits: Limits,
    files: &[(&str, &str)],
    argv: &[&str],
    word: &str,
    expected: &[Limit],
) {
    let mut attempt = Attempt::new(sandbox, limits, files);
    let started = Instant::now();
    let end = attempt.run(argv).await;
    assert!(
        matches!(&end.outcome, Outcome::Limit(limit) if expected.contains(limit)),
        "{end:?} instead of {expected:?}"
    );
    assert!(started.elapsed() < limits.wall + Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(living(word), 0, "processes are left");
    attempt.close().await;
}

#[tokio::test]
async fn a_fork_bomb_is_capped_and_dies() {
    let word = canary("bomb");
    // The first process forks no more: what cannot fork ends by itself, and without a control group looks as if it had failed.
    let bomb = format!("b() {{ b | b & }}; (b) & exec sleep 30; : {word}");
    let limits = Limits { wall: Duration::from_secs(4), processes: 60, ..ROOMY };
    for sandbox in [sandbox(), polling()] {
        ends_by(&sandbox, limits, &[], &["sh", "-c", &bomb], &word, &[Limit::Processes, Limit::Deadline]).await;
    }
}

const EATER: &str = "#include <stdlib.h>\n#include <string.h>\n#include <sys/wait.h>\n#include <unistd.h>\n\
    int main(int argc, char **argv) { if (argc > 1) { for (int i = 0; i < 4; i++) if (!fork()) break; else if (i == 3) \
    { while (wait(0) > 0); return 0; } } for (;;) { char *p = malloc(1 << 20); if (!p) return 9; memset(p, 1, 1 << 20); } }\n";

#[tokio::test]
async fn memory_is_limited_for_one_process_and_for_its_children() {
    let limits = Limits { memory_bytes: 192 << 20, wall: Duration::from_secs(30), ..ROOMY };
    for sandbox in [sandbox(), polling()] {
        for more in ["", " children"] {
            let word = canary("memory");
            let script = format!("cc -o eater eater.c && ./eater{more}; echo {word}; exit 0");
            // The parent exits with 0 although its children were killed.
            ends_by(&sandbox, limits, &[("eater.c", EATER)], &["sh", "-c", &script], &word, &[Limit::Memory]).await;
        }
    }
}

#[tokio::test]
async fn temporary_files_count_as_memory_and_are_bounded() {
    let mut attempt = Attempt::new(&sandbox(), Limits { memory_bytes: 256 << 20, ..ROOMY }, &[]);
    let said = attempt.shell("dd if=/dev/zero of=/tmp/x bs=1M count=600 2>/dev/null; dd if=/dev/zero of=/dev/shm/x bs=1M count=600 2>/dev/null; du -m /tmp /dev/shm").await;
    match &said.0 {
        Outcome::Limit(Limit::Memory) => {}
        Outcome::Exited(0) => assert_eq!(said.1, "128\t/tmp\n64\t/dev/shm\n"),
        other => panic!("{other:?}"),
    }
    attempt.close().await;
}

#[tokio::test]
async fn a_log_flood_is_killed_and_both_ends_are_kept() {
    let limits = Limits { log_bytes: 64 << 10, ..ROOMY };
    let mut attempt = Attempt::new(&sandbox(), limits, &[]);
    let end = attempt.run(&["sh", "-c", "echo first; yes"]).await;
    assert_limit(&end.outcome, Limit::Log);
    assert!(end.usage.wall < Duration::from_secs(20), "{:?}", end.usage);
    let log = attempt.enclosure.log().to_bytes();
    assert!(log.starts_with(b"first\ny\n") && log.len() < (64 << 10) + 100, "{}", log.len());
    attempt.close().await;
}

#[tokio::test]
async fn the_deadline_kills_what_ignores_signals_and_counts_over_steps() {
    let word = canary("deadline");
    let limits = Limits { wall: Duration::from_millis(1500), ..ROOMY };
    let mut attempt = Attempt::new(&sandbox(), limits, &[]);
    let script = format!("trap '' TERM INT HUP; while :; do sleep 1; done; : {word}");
    assert_exit(&attempt.shell("sleep 0.5").await, 0);
    let started = Instant::now();
    let end = attempt.run(&["sh", "-c", &script]).await;
    assert_limit(&end.outcome, Limit::Deadline);
    assert!(started.elapsed() < Duration::from_secs(1) + Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(living(&word), 0);
    assert_limit(&attempt.run(&["true"]).await.outcome, Limit::Deadline);
    attempt.close().await;
}

#[tokio::test]
async fn a_step_may_have_less_time_than_is_left_and_never_more() {
    let mut attempt = Attempt::new(&sandbox(), Limits { wall: Duration::from_secs(8), ..ROOMY }, &[]);
    let before = attempt.enclosure.left();
    let never = CancellationToken::new();
    let (short, long) = (Duration::from_millis(400), Duration::from_secs(3_600));
    let end = attempt.enclosure.run_within(short, &step(&["sleep", "600"]), &never).await;
    assert_limit(&end.outcome, Limit::Deadline);
    let left = attempt.enclosure.left();
    assert!(left <= before - short && left > Duration::from_secs(1), "{left:?}");
    assert_exit(&attempt.shell("true").await, 0);
    let started = Instant::now();
    let end = attempt.enclosure.run_within(long, &step(&["sleep", "600"]), &never).await;
    assert_limit(&end.outcome, Limit::Deadline);
    assert!(started.elapsed() < before + Duration::from_secs(10), "{:?}", started.elapsed());
    attempt.close().await;
}

#[tokio::test]
async fn the_disk_is_limited_against_big_many_and_promised_files() {
    let limits = Limits { disk_bytes: 32 << 20, wall: Duration::from_secs(40), memory_bytes: 1 << 30, ..ROOMY };
    for script in [
        "exec dd if=/dev/zero of=big bs=1M count=500",
        "exec fallocate -l 20G big",
        "exec truncate -s 1T sparse",
        "i=0; while :; do i=$((i+1)); dd if=/dev/zero of=part$i bs=1M count=8 2>/dev/null; done",
        "mkdir d; i=0; while :; do i=$((i+1)); : > d/$i; done",
        "mkdir locked; dd if=/dev/zero of=locked/a bs=1M count=30 2>/dev/null; dd if=/dev/zero of=locked/b bs=1M count=30 2>/dev/null; \
         chmod 0 locked; sleep 60",
    ] {
        let mut attempt = Attempt::new(&sandbox(), limits, &[]);
        let end = attempt.run(&["sh", "-c", script]).await;
        assert!(matches!(end.outcome, Outcome::Limit(Limit::Disk)), "{script}: {end:?}");
        attempt.close().await;
    }
}

#[tokio::test]
async fn processors_are_limited() {
    for sandbox in [sandbox(), polling()] {
        let mut attempt = Attempt::new(&sandbox, Limits { cores: 1, ..ROOMY }, &[]);
        let busy = "for i in 1 2 3; do (timeout 1 sh -c 'while :; do :; done') & done; wait";
        let end = attempt.run(&["sh", "-c", busy]).await;
        assert!(matches!(end.outcome, Outcome::Exited(0)), "{end:?}");
        let cpu = end.usage.cpu.unwrap();
        assert!(cpu > Duration::from_millis(50) && cpu < end.usage.wall.mul_f64(1.3), "{:?}", end.usage);
        attempt.close().await;
    }
}
