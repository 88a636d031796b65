#![allow(clippy::unwrap_used)]

use super::*;
use crate::volunteer::hierarchy::{Seat, detect};

/// A machine made of plain files.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(mountinfo: &str, own: &str) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.file("proc/self/mountinfo", mountinfo);
        machine.file("proc/self/cgroup", own);
        machine
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn detect(&self) -> Result<Hierarchy, Absent> {
        detect(self.0.path())
    }
}

const V1_MOUNTS: &str = "\
30 24 0:27 / /sys/fs/cgroup rw,relatime - tmpfs cgroup rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:30 /box /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const V2_MOUNTS: &str = "30 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const ALL: &str = "cpuset cpu io memory pids\n";

fn v1_machine() -> Machine {
    let machine = Machine::new(V1_MOUNTS, "9:pids:/box/us\n8:memory:/us\n7:cpu,cpuacct:/elsewhere\n0::/\n");
    for folder in ["memory/us", "pids/us", "cpu,cpuacct"] {
        machine.file(&format!("sys/fs/cgroup/{folder}/cgroup.procs"), "");
    }
    machine
}

#[test]
fn version_1_is_found_at_our_own_group() {
    let machine = v1_machine();
    let cpu = machine.path("sys/fs/cgroup/cpu,cpuacct");
    let expected = Hierarchy::V1 {
        memory: machine.path("sys/fs/cgroup/memory/us"),
        pids: machine.path("sys/fs/cgroup/pids/us"),
        cpu: Some(cpu.clone()),
        cpuacct: Some(cpu),
    };
    assert_eq!(machine.detect(), Ok(expected));
}

#[test]
fn a_version_1_group_gets_its_limits_and_gives_its_counters() {
    let machine = v1_machine();
    let hierarchy = machine.detect().unwrap();
    let limits = Limits {
        wall: Duration::from_secs(1),
        memory_bytes: 1 << 30,
        processes: 100,
        log_bytes: 1,
        disk_bytes: 1,
        cores: 2,
        quiet: Duration::from_secs(1),
    };
    let group = Group::create(&hierarchy, "a1", &limits).unwrap();
    let folder =
        |controller: &str| machine.path(&format!("sys/fs/cgroup/{controller}/barnraise-{}-a1", std::process::id()));
    let text = |controller: &str, file: &str| fs::read_to_string(folder(controller).join(file)).unwrap();
    assert_eq!(text("memory/us", "memory.limit_in_bytes"), "1073741824");
    assert_eq!(text("pids/us", "pids.max"), "103");
    assert!(!folder("memory/us").join("memory.memsw.limit_in_bytes").exists(), "not offered here");
    fs::write(folder("memory/us").join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n").unwrap();
    fs::write(folder("memory/us").join("memory.max_usage_in_bytes"), "4096\n").unwrap();
    fs::write(folder("pids/us").join("pids.events"), "max 17\n").unwrap();
    fs::write(folder("cpu,cpuacct").join("cpuacct.usage"), "2500000000\n").unwrap();
    let expected = Counters {
        oom_kills: 3,
        refused_forks: 17,
        peak_memory_bytes: Some(4096),
        cpu: Some(Duration::from_millis(2500)),
    };
    assert_eq!(group.counters(), expected);
}

#[test]
fn version_2_prefers_a_group_that_already_hands_down() {
    let machine = Machine::new(V2_MOUNTS, "0::/user.slice/user@7.service/app.slice/run-1.scope\n");
    let base = "sys/fs/cgroup/user.slice/user@7.service/app.slice";
    machine.file(&format!("{base}/cgroup.procs"), "");
    machine.file(&format!("{base}/cgroup.subtree_control"), "memory pids\n");
    machine.file(&format!("{base}/run-1.scope/cgroup.procs"), "1\n");
    machine.file(&format!("{base}/run-1.scope/cgroup.controllers"), "memory pids\n");
    machine.file(&format!("{base}/run-1.scope/cgroup.subtree_control"), "\n");
    assert_eq!(machine.detect(), Ok(Hierarchy::V2 { base: machine.path(base), seat: Seat::Ready }));
}

#[test]
fn version_2_delegated_to_us_makes_us_move_into_a_leaf() {
    let machine = Machine::new(V2_MOUNTS, "0::/system.slice/farm.service\n");
    let base = "sys/fs/cgroup/system.slice/farm.service";
    machine.file(&format!("{base}/cgroup.procs"), "1\n");
    machine.file(&format!("{base}/cgroup.controllers"), ALL);
    machine.file(&format!("{base}/cgroup.subtree_control"), "");
    machine.file(&format!("{base}/agent/cgroup.procs"), "");
    let hierarchy = machine.detect().unwrap();
    assert_eq!(hierarchy, Hierarchy::V2 { base: machine.path(base), seat: Seat::OwnGroup });
    hierarchy.prepare().unwrap();
    assert_eq!(fs::read_to_string(machine.path(&format!("{base}/agent/cgroup.procs"))).unwrap(), "0");
    assert_eq!(
        fs::read_to_string(machine.path(&format!("{base}/cgroup.subtree_control"))).unwrap(),
        "+memory +pids +cpu"
    );
}

#[test]
fn version_2_limits_and_counters() {
    let machine = Machine::new(V2_MOUNTS, "0::/\n");
    machine.file("sys/fs/cgroup/cgroup.procs", "");
    machine.file("sys/fs/cgroup/cgroup.subtree_control", ALL);
    let limits = Limits {
        wall: Duration::from_secs(1),
        memory_bytes: 5000,
        processes: 7,
        log_bytes: 1,
        disk_bytes: 1,
        cores: 3,
        quiet: Duration::from_secs(1),
    };
    let group = Group::create(&machine.detect().unwrap(), "b", &limits).unwrap();
    let folder = machine.path(&format!("sys/fs/cgroup/barnraise-{}-b", std::process::id()));
    assert_eq!(fs::read_to_string(folder.join("memory.max")).unwrap(), "5000");
    assert_eq!(fs::read_to_string(folder.join("pids.max")).unwrap(), "10");
    fs::write(folder.join("memory.events"), "low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n").unwrap();
    fs::write(folder.join("cpu.stat"), "usage_usec 1500\nuser_usec 1000\n").unwrap();
    let counters = group.counters();
    assert_eq!((counters.oom_kills, counters.cpu), (1, Some(Duration::from_micros(1500))));
    fs::write(folder.join("cpu.max"), "300000 100000").unwrap();
    group.lift_quota();
    assert_eq!(fs::read_to_string(folder.join("cpu.max")).unwrap(), "max");
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(Machine::new("", "0::/\n").detect(), Err(Absent::NotMounted));
    let machine = Machine::new(V2_MOUNTS, "0::/\n");
    machine.file("sys/fs/cgroup/cgroup.procs", "");
    machine.file("sys/fs/cgroup/cgroup.controllers", "hugetlb\n");
    assert_eq!(machine.detect(), Err(Absent::ControllerMissing("memory")));
    let no_pids = V1_MOUNTS.replace("rw,pids", "rw,devices");
    let machine = Machine::new(&no_pids, "8:memory:/\n");
    machine.file("sys/fs/cgroup/memory/cgroup.procs", "");
    assert_eq!(machine.detect(), Err(Absent::ControllerMissing("pids")));
}

#[test]
fn only_our_own_groups_are_swept() {
    let machine = tempfile::tempdir().unwrap();
    let other = machine.path().join("somebody");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cgroup.procs"), "").unwrap();
    assert_eq!(sweep(&other), Ok(()));
    assert!(other.exists());
}
