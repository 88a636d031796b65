#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::*;

/// A work folder as a build could leave it.
struct Left(tempfile::TempDir);

impl Left {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(self, path: &str, mode: u32) -> Self {
        let at = self.path(path);
        fs::write(&at, path).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn link(self, target: &str, path: &str) -> Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn pipe(self, path: &str) -> Self {
        rustix::fs::mknodat(rustix::fs::CWD, self.path(path), FileType::Fifo, Mode::RUSR, 0).unwrap();
        self
    }

    fn take_within(&self, outputs: &[&str], limits: CollectLimits) -> Result<Vec<Collected>, CollectError> {
        let outputs: Vec<OutputPattern> = outputs.iter().map(|text| text.parse().unwrap()).collect();
        self.take_these(&outputs, limits)
    }

    fn take_these(&self, outputs: &[OutputPattern], limits: CollectLimits) -> Result<Vec<Collected>, CollectError> {
        let build: OwnedFd = File::open(self.0.path()).unwrap().into();
        let mut taken = Vec::new();
        collect(&build, rustix::process::geteuid().as_raw(), outputs, &limits, |collected, file| {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            assert_eq!(text.len() as u64, collected.size);
            taken.push(collected.clone());
            Ok(())
        })?;
        Ok(taken)
    }

    fn take(&self, outputs: &[&str]) -> Result<Vec<Collected>, CollectError> {
        self.take_within(outputs, CollectLimits::default())
    }

    fn paths(&self, outputs: &[&str]) -> Vec<String> {
        self.take(outputs).unwrap().into_iter().map(|collected| collected.path).collect()
    }

    fn refusal(&self, outputs: &[&str]) -> String {
        self.take(outputs).unwrap_err().to_string()
    }
}

#[test]
fn an_optional_output_may_be_missing_and_nothing_else() {
    let left = Left::new().file("lua", 0o755).link("lua", "link");
    let take = |optional: &str| {
        let outputs = ["lua".parse().unwrap(), optional.parse::<OutputPattern>().unwrap().with(Presence::Optional)];
        let taken = left.take_these(&outputs, CollectLimits::default());
        taken.map(|taken| taken.into_iter().map(|collected| collected.path).collect::<Vec<_>>())
    };
    for missing in ["luac", "no/folder", "*.so", "share/**"] {
        assert_eq!(take(missing).unwrap(), ["lua"], "{missing}");
        assert!(left.refusal(&["lua", missing]).ends_with("is not there"), "{missing}");
    }
    assert_eq!(take("link").unwrap_err().to_string(), "the output `link` is a symbolic link, not a file");
}

#[test]
fn declared_outputs_come_sorted_once_and_with_plain_modes() {
    let left = Left::new()
        .file("lua", 0o751)
        .file("lib/a.so", 0o600)
        .file("lib/b.so", 0o777)
        .file("lib/note", 0o644)
        .file("x/y/z", 0o644);
    let taken = left.take(&["x/**", "lib/*.so", "lua", "lib/a.so"]).unwrap();
    let shown: Vec<(&str, u64, u32)> = taken.iter().map(|c| (c.path.as_str(), c.size, c.kind.mode())).collect();
    assert_eq!(shown, [("lib/a.so", 8, 0o644), ("lib/b.so", 8, 0o755), ("lua", 3, 0o755), ("x/y/z", 5, 0o644)]);
}

#[test]
fn what_is_not_there_is_named() {
    let left = Left::new().file("lib/a.o", 0o644);
    fs::create_dir(left.path("empty")).unwrap();
    for output in ["lua", "lib/*.so", "empty/**", "nowhere/**", "nowhere/x", "nowhere/*"] {
        assert!(
            matches!(left.take(&[output]), Err(CollectError::Missing { pattern }) if pattern == output),
            "{output}"
        );
    }
}

#[test]
fn links_are_refused_wherever_they_lead() {
    let left = Left::new()
        .link("/etc/shadow", "shadow")
        .link("/etc", "etc")
        .file("d/real", 0o644)
        .link("d", "inner")
        .link("real", "d/near");
    assert_eq!(left.refusal(&["shadow"]), "the output `shadow` is a symbolic link, not a file");
    assert_eq!(left.refusal(&["sh*"]), "the output `shadow` is a symbolic link, not a file");
    assert_eq!(left.refusal(&["etc/passwd"]), "`etc/passwd` on the way to an output is not a folder of the build");
    assert_eq!(left.refusal(&["etc/**"]), "`etc` on the way to an output is not a folder of the build");
    assert_eq!(left.refusal(&["inner/real"]), "`inner/real` on the way to an output is not a folder of the build");
    assert_eq!(left.refusal(&["d/**"]), "the output `d/near` is a symbolic link, not a file");
}

#[test]
fn pipes_sockets_and_folders_are_refused_without_waiting() {
    let left = Left::new().pipe("p/pipe").file("folder/x", 0o644);
    let _socket = std::os::unix::net::UnixListener::bind(left.path("s/socket")).unwrap();
    assert_eq!(left.refusal(&["p/pipe"]), "the output `p/pipe` is a pipe, not a file");
    assert_eq!(left.refusal(&["p/**"]), "the output `p/pipe` is a pipe, not a file");
    assert_eq!(left.refusal(&["s/socket"]), "the output `s/socket` is a socket, not a file");
    assert_eq!(left.refusal(&["folder"]), "the output `folder` is a folder, not a file");
}

#[test]
fn modes_that_mean_more_than_executable_are_refused() {
    assert_eq!(Left::new().file("su", 0o4755).refusal(&["su"]), "the output `su` is set-uid or set-gid");
    assert_eq!(Left::new().file("sg", 0o2755).refusal(&["*"]), "the output `sg` is set-uid or set-gid");
    assert_eq!(Left::new().file("no", 0o000).refusal(&["no"]), "the output `no` may not be read by its owner");
}

#[test]
fn names_that_could_deceive_are_refused() {
    for name in ["a\n\u{1b}[31m", "bell\u{7}", "c1\u{9b}", "gpj.\u{202e}exe", "back\\slash"] {
        let left = Left::new().file(&format!("out/{name}"), 0o644);
        assert!(
            matches!(left.take(&["out/**"]), Err(CollectError::Name { folder, .. }) if folder == "out"),
            "{name:?}"
        );
        assert!(matches!(left.take(&["out/*"]), Err(CollectError::Name { .. })), "{name:?}");
    }
    let left = Left::new();
    let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    fs::write(left.path("out/x").with_file_name(Path::new(bytes)), b"").unwrap();
    assert!(matches!(left.take(&["out/**"]), Err(CollectError::Name { .. })));
}

#[test]
fn case_twins_are_refused_also_as_folders() {
    let twins = Left::new().file("o/Readme", 0o644).file("o/README", 0o644);
    assert_eq!(twins.refusal(&["o/**"]), "the outputs `o/README` and `o/Readme` differ only in case");
    let folders = Left::new().file("o/A/x", 0o644).file("o/a/y", 0o644);
    assert_eq!(folders.refusal(&["o/**"]), "the outputs `o/A` and `o/a` differ only in case");
}

#[test]
fn a_hard_link_is_a_file_with_two_names() {
    let left = Left::new().file("one", 0o644);
    fs::hard_link(left.path("one"), left.path("two")).unwrap();
    assert_eq!(left.paths(&["*"]), ["one", "two"]);
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let left = Left::new().file("one", 0o644);
    let build: OwnedFd = File::open(left.0.path()).unwrap().into();
    let outputs = ["one".parse().unwrap()];
    let taken =
        collect(&build, rustix::process::geteuid().as_raw() + 1, &outputs, &CollectLimits::default(), |_, _| Ok(()));
    assert!(matches!(taken, Err(CollectError::Foreign { .. })));
}

#[test]
fn counts_sizes_and_depths_are_bounded() {
    let left = Left::new();
    for n in 0..20 {
        fs::write(left.path(&format!("many/{n}")), b"12345").unwrap();
    }
    let mut deep = "deep".to_owned();
    for _ in 0..40 {
        deep.push_str("/d");
    }
    fs::write(left.path(&deep), b"x").unwrap();
    let refusal = |outputs: &[&str], limits: CollectLimits| left.take_within(outputs, limits).unwrap_err().to_string();
    let limits = CollectLimits::default();
    assert_eq!(refusal(&["many/**"], CollectLimits { files: 19, ..limits }), "too many files to collect: more than 19");
    assert_eq!(refusal(&["many/**"], CollectLimits { bytes: 99, ..limits }), "too many bytes to collect: more than 99");
    assert_eq!(
        refusal(&["many/*"], CollectLimits { entries: 10, ..limits }),
        "too many entries of folders to collect: more than 10"
    );
    assert_eq!(refusal(&["deep/**"], limits), "too many folders in a path to collect: more than 32");
    assert_eq!(
        refusal(&["deep/**"], CollectLimits { path_bytes: 9, ..limits }),
        "too many bytes in a path to collect: more than 9"
    );
    assert_eq!(left.take_within(&["many/**"], CollectLimits { files: 20, bytes: 100, ..limits }).unwrap().len(), 20);
}

#[test]
fn a_sparse_terabyte_is_refused_by_its_length() {
    let left = Left::new();
    File::create(left.path("sparse")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(left.refusal(&["sparse"]), format!("too many bytes to collect: more than {}", 16_u64 << 30));
}

#[test]
fn ten_thousand_files_need_few_descriptors() {
    let left = Left::new();
    for n in 0..10_000 {
        fs::write(left.path(&format!("many/{n:05}")), b"").unwrap();
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let build: OwnedFd = File::open(left.0.path()).unwrap().into();
    let outputs = ["many/**".parse().unwrap()];
    let mut most = 0;
    let owner = rustix::process::geteuid().as_raw();
    collect(&build, owner, &outputs, &CollectLimits::default(), |collected, _| {
        if collected.path.ends_with("00") {
            most = most.max(open());
        }
        Ok(())
    })
    .unwrap();
    // Other tests of this process open files meanwhile.
    assert!(most < before + 500, "{most} descriptors, {before} before");
}
