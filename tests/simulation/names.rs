//! Short names for what a story is about: `q1` is the first request that it mentions, `k2` the second build key, `m3` the third
//! artifact, `n4` the fourth notice; jobs (`j17`) and leases (`l18`) are named by the entry of the log that made them, nodes
//! (`c0`, `v1`, `r2`) by what they are.

use protocol::id::{BuildKey, JobId, LeaseId, ManifestId, NoticeId, PeerKey, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// Names given so far, and what belongs to what.
#[derive(Debug, Default)]
pub(crate) struct Names {
    given: BTreeMap<(char, [u8; 32]), usize>,
    nodes: BTreeMap<PeerKey, String>,
    parts: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    pub(crate) fn request(&mut self, id: RequestId) -> String {
        self.name('q', id.0.as_bytes())
    }

    pub(crate) fn key(&mut self, key: BuildKey) -> String {
        self.name('k', key.0.as_bytes())
    }

    pub(crate) fn manifest(&mut self, id: ManifestId) -> String {
        self.name('m', id.0.as_bytes())
    }

    pub(crate) fn notice(&mut self, id: NoticeId) -> String {
        self.name('n', id.0.as_bytes())
    }

    pub(crate) fn job(&self, id: JobId) -> String {
        format!("j{}", id.0)
    }

    pub(crate) fn lease(&self, id: LeaseId) -> String {
        format!("l{}", id.0)
    }

    pub(crate) fn node(&self, key: &PeerKey) -> String {
        self.nodes.get(key).cloned().unwrap_or_else(|| key.short())
    }

    /// Names a node.
    pub(crate) fn introduce(&mut self, key: PeerKey, name: &str) {
        self.nodes.insert(key, name.to_owned());
    }

    /// Whoever reads about `whole` wants to read about `part` too.
    pub(crate) fn link(&mut self, whole: &str, part: &str) {
        self.parts.entry(whole.to_owned()).or_default().insert(part.to_owned());
    }

    /// What a story about these has to mention.
    pub(crate) fn around(&self, subjects: BTreeSet<String>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = subjects.into_iter().collect();
        while let Some(name) = open.pop() {
            open.extend(self.parts.get(&name).into_iter().flatten().filter(|part| !found.contains(*part)).cloned());
            found.insert(name);
        }
        found
    }

    fn name(&mut self, kind: char, digest: &[u8; 32]) -> String {
        let next = self.given.keys().filter(|(of, _)| *of == kind).count() + 1;
        format!("{kind}{}", self.given.entry((kind, *digest)).or_insert(next))
    }
}

/// The names that a text mentions.
pub(crate) fn mentioned(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| {
        let mut letters = word.chars();
        letters.next().is_some_and(|first| "qkmnjl".contains(first))
            && word.len() > 1
            && letters.all(|letter| letter.is_ascii_digit())
    })
}
