#![allow(clippy::unwrap_used)]
//! Against real repositories behind a real https server on loopback.

use super::*;
use crate::artifact::ChunkSource as _;
use crate::source::PrivateSources;
use protocol::tree::{Mode, Node};
use server::{Manner, Origin, Repository};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use tempfile::TempDir;

#[path = "../../../../tests/origin/server.rs"]
#[allow(dead_code, reason = "shared with the tests of the program")]
mod server;

struct Published {
    origin: Origin,
    repository: Repository,
    rules: FetchRules,
    folder: TempDir,
}

impl Published {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let origin = Origin::serve(folder.path());
        let repository = origin.repository("it.git");
        std::fs::create_dir(folder.path().join("spool")).unwrap();
        let rules = FetchRules {
            private: PrivateSources::Allowed,
            extra_ca_pem: Some(origin.ca_pem.clone()),
            folder: folder.path().join("spool"),
            backoff: Duration::from_millis(10),
            ..FetchRules::default()
        };
        Self { origin, repository, rules, folder }
    }

    fn url(&self, path: &str) -> HttpsUrl {
        self.origin.url(path).parse().unwrap()
    }

    async fn remote(&self) -> Remote {
        Remote::open(&self.rules, &self.url("/git/it.git")).await.unwrap()
    }

    async fn resolve(&self, revision: &str) -> Result<Resolved, ResolveError> {
        let revision: Option<Revision> = (!revision.is_empty()).then(|| revision.parse().unwrap());
        self.remote().await.resolve(revision.as_ref()).await
    }

    async fn commit(&self, revision: &str) -> String {
        self.resolve(revision).await.unwrap().commit.to_string()
    }

    async fn files(&self, commit: &str) -> Result<Imported, TreeError> {
        self.remote().await.files(&commit.parse().unwrap(), &mut |_| {}).await
    }

    fn is_swept(&self) -> bool {
        std::fs::read_dir(&self.rules.folder).unwrap().count() == 0
    }
}

fn contents(imported: &Imported) -> BTreeMap<String, String> {
    let text = |chunks: &[protocol::digest::Digest]| {
        let bytes = chunks.iter().flat_map(|chunk| imported.read(chunk).unwrap().unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    let entries = imported.manifest.entries().iter();
    entries
        .map(|entry| {
            let what = match &entry.node {
                Node::File { mode: Mode::Plain, chunks, .. } => text(chunks),
                Node::File { mode: Mode::Executable, chunks, .. } => format!("x {}", text(chunks)),
                Node::Link { target } => format!("-> {}", target.as_str()),
                Node::Folder => "folder".to_owned(),
            };
            (entry.path.as_str().to_owned(), what)
        })
        .collect()
}

#[tokio::test]
async fn names_and_short_commits_mean_what_they_mean_in_git() {
    let it = Published::new();
    let first = it.repository.commit("a", "one");
    it.repository.git(&["tag", "light"]);
    let second = it.repository.commit("a", "two!");
    it.repository.git(&["tag", "--annotate", "--message", "x", "v1.0"]);
    it.repository.git(&["branch", "feature/x", &first]);
    let third = it.repository.commit("a", "three");
    it.repository.git(&["tag", "both", &first]);
    it.repository.git(&["branch", "both", &second]);
    for (revision, commit) in [
        ("", &third),
        ("HEAD", &third),
        ("main", &third),
        ("light", &first),
        ("v1.0", &second),
        ("feature/x", &first),
        ("refs/heads/both", &second),
        (second.as_str(), &second),
        (&second[..8], &second),
        (&second[..8].to_uppercase(), &second),
        (&first[..12], &first),
    ] {
        assert_eq!(it.commit(revision).await, *commit, "{revision:?}");
    }
    assert_eq!(it.resolve("").await.unwrap().name.as_deref(), Some("main"));

    let said = async |revision: &str| it.resolve(revision).await.unwrap_err().to_string();
    let url = it.url("/git/it.git");
    assert_eq!(said("mian").await, format!("{url} has no branch, tag or commit `mian`; did you mean `main`?"));
    assert_eq!(said("v1.1").await, format!("{url} has no branch, tag or commit `v1.1`; did you mean `v1.0`?"));
    assert!(said("0000").await.starts_with(&format!("{url} has no branch, tag or commit `0000`")));
    let nowhere = "0".repeat(40);
    assert!(said(&nowhere).await.contains(&format!("no branch, tag or commit `{nowhere}`")));
    let both = said("both").await;
    assert!(both.contains("ambiguous") && both.contains("refs/tags/both or refs/heads/both"), "{both}");

    let history = it.remote().await.history(&third.parse().unwrap(), 2).await.unwrap();
    assert_eq!(history.iter().map(Commit::as_str).collect::<Vec<_>>(), [&third, &second]);
    let whole = it.remote().await.history(&third.parse().unwrap(), 1_000).await.unwrap();
    assert_eq!(whole.len(), 3, "a history may be shorter");
    assert!(it.is_swept(), "nothing is left behind");
}

#[tokio::test]
async fn a_history_is_that_of_first_parents() {
    let it = Published::new();
    let first = it.repository.commit("a", "one");
    it.repository.git(&["checkout", "--quiet", "-b", "side"]);
    it.repository.commit("b", "side");
    it.repository.git(&["checkout", "--quiet", "main"]);
    let second = it.repository.commit("a", "two!");
    it.repository.git(&["merge", "--quiet", "--no-ff", "--message", "m", "side"]);
    let merge = it.repository.git(&["rev-parse", "HEAD"]);
    let mut remote = it.remote().await;
    // After a look for a short commit as well.
    let commit = remote.resolve(Some(&merge[..10].parse().unwrap())).await.unwrap().commit;
    let history = remote.history(&commit, 10).await.unwrap();
    assert_eq!(history.iter().map(Commit::as_str).collect::<Vec<_>>(), [&merge, &second, &first]);
}

#[tokio::test]
async fn commits_that_begin_alike_are_ambiguous() {
    let it = Published::new();
    let mut import = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(&it.repository.work)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = import.stdin.take().unwrap();
    for at in 0..1_500 {
        let person = format!("A <a@example.org> {} +0000", 1_000_000_000 + at);
        writeln!(stdin, "commit refs/heads/main\nauthor {person}\ncommitter {person}\ndata 1\nx").unwrap();
    }
    drop(stdin);
    assert!(import.wait().unwrap().success());
    let mut by_digits: BTreeMap<String, usize> = BTreeMap::new();
    for commit in it.repository.git(&["rev-list", "main"]).lines() {
        *by_digits.entry(commit[..4].to_owned()).or_default() += 1;
    }
    let (digits, count) = by_digits.into_iter().max_by_key(|(_, count)| *count).unwrap();
    assert!(count > 1, "1500 commits share four digits somewhere");
    let error = it.resolve(&digits).await.unwrap_err();
    let ResolveError::AmbiguousCommit { count: found, commits, .. } = &error else { unreachable!("{error}") };
    assert_eq!((*found, commits.len()), (count, count));
    assert!(commits.iter().all(|commit| commit.as_str().starts_with(&digits)), "{error}");
}

#[tokio::test]
async fn the_files_of_a_commit_come_as_they_were_committed() {
    let it = Published::new();
    let canary = it.folder.path().join("canary");
    let touch = format!("touch {}", canary.display());
    it.repository.git(&["config", "filter.evil.smudge", &touch]);
    it.repository.git(&["config", "filter.evil.clean", "cat"]);
    it.repository.write(".gitattributes", "* text eol=crlf filter=evil export-ignore\n*.c ident\n");
    it.repository.write("a.c", "int a; /* $Id$ */\n");
    it.repository.write_program("run.sh", "#!/bin/sh\n");
    it.repository.write("deep/er/file", "x");
    std::os::unix::fs::symlink("a.c", it.repository.work.join("link")).unwrap();
    it.repository
        .write(".gitmodules", &format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {}\n", it.url("/git/it.git")));
    std::fs::create_dir(it.repository.work.join("sub")).unwrap();
    let gitlink = format!("160000,{},sub", "1".repeat(40));
    it.repository.git(&["update-index", "--add", "--cacheinfo", &gitlink]);
    let commit = it.repository.commit("empty", "");
    for hook in ["post-checkout", "reference-transaction", "post-update", "pre-auto-gc"] {
        it.repository.write_program(&format!(".git/hooks/{hook}"), &format!("#!/bin/sh\n{touch}-hook\n"));
    }
    let asked = it.origin.asked().len();
    let imported = it.files(&commit).await.unwrap();
    let expected = [
        (".gitattributes", "* text eol=crlf filter=evil export-ignore\n*.c ident\n"),
        ("a.c", "int a; /* $Id$ */\n"),
        ("deep/er/file", "x"),
        ("empty", ""),
        ("link", "-> a.c"),
        ("run.sh", "x #!/bin/sh\n"),
        ("sub", "folder"),
    ];
    let mut contents = contents(&imported);
    assert!(contents.remove(".gitmodules").unwrap().contains("submodule"));
    let expected: BTreeMap<_, _> = expected.map(|(name, what)| (name.to_owned(), what.to_owned())).into();
    assert_eq!(contents, expected);
    assert!(!canary.exists() && !canary.with_file_name("canary-hook").exists(), "nothing of the repository runs");
    assert!(it.origin.asked().len() - asked <= 4, "no submodule is asked for: {:?}", it.origin.asked());
    assert!(it.is_swept(), "nothing is left behind");
}

#[tokio::test]
async fn a_repository_that_moved_is_found_and_one_that_is_none_is_named() {
    let it = Published::new();
    let commit = it.repository.commit("a", "one");
    let open = async |path: &str| Remote::open(&it.rules, &it.url(path)).await;
    let moved = open("/moved/it.git/").await.unwrap();
    let imported = moved.files(&commit.parse().unwrap(), &mut |_| {}).await.unwrap();
    assert_eq!(imported.manifest.entries().len(), 1);
    for path in ["/git/other.git", "/files/x", "/"] {
        let error = open(path).await.unwrap_err();
        assert!(matches!(&error, FetchError::NotARepository { found, .. } if found.contains("404")), "{path}: {error}");
    }
    assert!(
        matches!(open("/dumb/it.git").await, Err(FetchError::NotARepository { .. })),
        "no other way than git's own"
    );
    assert!(matches!(open("/login/it.git").await, Err(FetchError::Login { .. })));
    let strangers = FetchRules { extra_ca_pem: None, retries: 0, ..it.rules.clone() };
    assert!(matches!(Remote::open(&strangers, &it.url("/git/it.git")).await, Err(FetchError::Transport { .. })));
    let public = FetchRules { private: PrivateSources::Refused, ..it.rules.clone() };
    let refused = Remote::open(&public, &it.url("/git/it.git")).await;
    assert!(matches!(refused, Err(FetchError::NotPublic { .. })));
}

#[tokio::test]
async fn what_vanished_is_too_large_or_does_not_come_is_named() {
    let it = Published::new();
    let commit = it.repository.commit("a", "one");
    let gone = it.files(&"1".repeat(40)).await.unwrap_err();
    assert!(matches!(&gone, TreeError::Fetch(FetchError::Vanished { .. })), "{gone}");
    let tree = it.repository.git(&["rev-parse", "HEAD^{tree}"]);
    let no_commit = it.files(&tree).await.unwrap_err();
    assert!(matches!(&no_commit, TreeError::Fetch(_)), "{no_commit}");

    let small = FetchRules { max_bytes: 3_000, retries: 0, ..it.rules.clone() };
    let noise: String = (0..20_000u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761))).collect();
    let large = it.repository.commit("noise", &noise);
    let remote = Remote::open(&small, &it.url("/git/it.git")).await.unwrap();
    let error = remote.files(&large.parse().unwrap(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, TreeError::Fetch(FetchError::RepositoryTooLarge { max: 3_000, .. })), "{error}");

    let hasty = FetchRules {
        connect_timeout: Duration::from_millis(500),
        stall_timeout: Duration::from_millis(500),
        retries: 0,
        ..it.rules.clone()
    };
    let remote = Remote::open(&hasty, &it.url("/git/it.git")).await.unwrap();
    it.origin.behaves(Manner::Silent);
    let error = remote.files(&commit.parse().unwrap(), &mut |_| {}).await.unwrap_err();
    assert!(matches!(&error, TreeError::Fetch(FetchError::RepositorySlow { .. })), "{error}");
    let error = Remote::open(&hasty, &it.url("/git/it.git")).await.unwrap_err();
    assert!(matches!(&error, FetchError::Slow { .. }), "{error}");
    assert!(it.is_swept(), "nothing is left behind");
}

#[tokio::test]
async fn a_link_out_of_the_tree_is_refused_by_name() {
    let it = Published::new();
    std::os::unix::fs::symlink("../../etc/passwd", it.repository.work.join("evil")).unwrap();
    let commit = it.repository.commit("a", "one");
    let error = it.files(&commit).await.unwrap_err();
    assert!(matches!(&error, TreeError::Import(_)) && error.to_string().contains("`evil`"), "{error}");
}
