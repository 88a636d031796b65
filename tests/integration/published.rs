//! A farm whose volunteer may fetch from loopback, and something published there.

use crate::barn::{Barn, Person, Volunteer};
use crate::origin::{Origin, Repository};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

/// A recipe whose output is a file of the source, with what else lies there written into it.
pub(crate) const RECIPE: &str = r#"
recipe = 1
name = "copied"
description = "A file of the source, with the names of all others"
requires = ["os=linux"]
reproducible = true
[source]
hint = "a repository with a file `text`"
[option.mark]
type = "text"
help = "a word below it"
pattern = "[a-z]{1,16}"
default = "none"
[[step]]
run = ["sh", "-c", "cat text > out; find . -not -name out | sort >> out; echo \"$1\" >> out", "_", "{mark}"]
[[output]]
path = "out"
"#;

/// Somebody asks, a volunteer fetches, a server publishes.
pub(crate) struct Published {
    pub(crate) barn: Barn,
    volunteer: Option<Volunteer>,
    pub(crate) person: Person,
    pub(crate) origin: Origin,
    pub(crate) repository: Repository,
    /// The file of [`RECIPE`].
    pub(crate) recipe: String,
    /// The file with the server's certificate authority.
    pub(crate) authority: String,
}

impl Published {
    /// A farm of one volunteer that may fetch from loopback, and a repository there.
    pub(crate) fn new(what: &str) -> Option<Self> {
        let mut it = Self::without_volunteer(what)?;
        it.volunteers();
        Some(it)
    }

    /// Starts the volunteer.
    pub(crate) fn volunteers(&mut self) {
        let words = ["--accept", "any", "--allow-private-sources", "--source-ca", &self.authority];
        self.volunteer = Some(self.barn.volunteer("volunteer", &words));
    }

    /// The same, before anybody volunteers.
    pub(crate) fn without_volunteer(what: &str) -> Option<Self> {
        if !crate::can_build(what) {
            return None;
        }
        let barn = Barn::found(&[]);
        let folder = barn.farm.folder().join("published");
        fs::create_dir(&folder).unwrap();
        let origin = Origin::serve(&folder);
        let repository = origin.repository("it.git");
        let file = |name: &str, content: &[u8]| {
            let path = barn.farm.folder().join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (recipe, authority) = (file("copied.toml", RECIPE.as_bytes()), file("ca.pem", &origin.ca_pem));
        let person = barn.person("me");
        Some(Self { barn, volunteer: None, person, origin, repository, recipe, authority })
    }

    /// Asks for a build of the repository.
    #[track_caller]
    pub(crate) fn asks(&self, more: &[&str], code: i32) -> Value {
        let url = self.origin.url("/git/it.git");
        self.asks_from(&["--source", &url], more, code)
    }

    /// Asks for a build of something else.
    #[track_caller]
    pub(crate) fn asks_from(&self, sources: &[&str], more: &[&str], code: i32) -> Value {
        let output = self.output(more);
        let words = ["request", &self.recipe, "--allow-private-sources"];
        let here = ["--source-ca", &self.authority, "--output", output.to_str().unwrap()];
        self.person.asks(&[&words[..], &here[..], sources, more].concat(), code)
    }

    fn output(&self, more: &[&str]) -> PathBuf {
        self.barn.farm.folder().join(format!("out{}", more.concat().replace('/', "-")))
    }

    /// What such a build left behind.
    pub(crate) fn built(&self, more: &[&str]) -> String {
        fs::read_to_string(self.output(more).join("out")).unwrap()
    }
}
