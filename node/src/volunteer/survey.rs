//! Looking at the machine from where builds will: inside the sandbox.
//!
//! Every program is run before it is announced, at the path where builds will find it, with the owner's offers bound. What the
//! owner offers must answer, or the start fails and names it; what the system has is left out where it does not. All headers are
//! looked for in one run of the C compiler's preprocessor. Promises no order of asking, and keeps nothing that was printed but
//! versions and names that were asked for.

use super::machine;
use super::tool::{Alias, Tool, ToolError};
use super::toolchain::{self, KNOWN_HEADERS, KNOWN_TOOLS, TCL_SCRIPT, Telling};
use super::{
    BuildLog, BuildUser, EnclosureError, Limits, Outcome, Sandbox, Setup, Step, Surroundings, Vitals, Workspace,
};
use super::{Enclosure, WorkspaceError};
use crate::catalogue;
use protocol::platform::{Value, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a program may take to answer.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// Memory of a program that answers: a Java machine reserves much.
const TELL_MEMORY_BYTES: u64 = 1 << 30;
/// The folder of the system's programs, outside and inside.
const SYSTEM_PROGRAMS: &str = "/usr/bin";
/// The file that names all headers.
const HEADER_PROBE: &str = "headers.c";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The C library's family and version.
    pub(super) libc: Option<Value>,
    /// Versions by the name of the tool.
    pub(super) tools: BTreeMap<String, Version>,
    /// Those that the C compiler finds.
    pub(super) headers: BTreeSet<String>,
    /// Programs that are called otherwise here.
    pub(super) aliases: Vec<Alias>,
}

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// What the owner offers is not there or does not answer.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// No folder to ask in.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The sandbox failed.
    #[error("a tool cannot be run in the sandbox: {0}")]
    Enclosure(#[from] EnclosureError),
    /// The program is ending.
    #[error("the node is ending")]
    Ending,
}

/// Looks at libc, tools and headers. `work` is the folder below which builds lie.
pub(super) async fn survey(sandbox: &Sandbox, work: &Path, offered: &[Tool]) -> Result<Found, SurveyError> {
    let mut searches = system_searches(offered);
    for tool in offered {
        searches.push(Search::offered(tool)?);
    }
    let right = searches.split_off(searches.len() / 2);
    let (mut found, rest) = tokio::try_join!(
        async {
            let mut room = Room::open(sandbox, work, "look-0", 0, offered).await?;
            let mut found = room.find(&searches).await?;
            found.libc = room.libc().await;
            found.headers = room.headers().await;
            room.close().await?;
            Ok::<_, SurveyError>(found)
        },
        async {
            let mut room = Room::open(sandbox, work, "look-1", 1, offered).await?;
            let found = room.find(&right).await?;
            room.close().await?;
            Ok(found)
        },
    )?;
    found.tools.extend(rest.tools);
    found.aliases.extend(rest.aliases);
    Ok(found)
}

/// Headers that recipes may ask for.
fn sought_headers() -> BTreeSet<String> {
    KNOWN_HEADERS.iter().map(|&header| header.to_owned()).chain(catalogue::headers()).collect()
}

/// A tool to be found: the first of its programs that answers as it should.
#[derive(Debug)]
struct Search {
    name: String,
    programs: Vec<PathBuf>,
    arguments: Vec<String>,
    telling: Telling,
    whose: Whose,
}

/// Whether a tool may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// It may.
    System,
    /// The owner says that it is there.
    Owner,
}

/// What the system has and the owner does not replace.
fn system_searches(offered: &[Tool]) -> Vec<Search> {
    let known = KNOWN_TOOLS.iter().filter(|known| offered.iter().all(|tool| tool.name() != known.name));
    let searches = known.map(|known| Search {
        name: known.name.to_owned(),
        programs: there(Path::new(SYSTEM_PROGRAMS), known.programs.iter().copied()),
        arguments: known.arguments.iter().map(|&word| word.to_owned()).collect(),
        telling: known.telling,
        whose: Whose::System,
    });
    searches.filter(|search| !search.programs.is_empty()).collect()
}

fn there<'a>(folder: &Path, programs: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
    programs.map(|program| folder.join(program)).filter(|path| path.is_file()).collect()
}

impl Search {
    fn offered(tool: &Tool) -> Result<Self, ToolError> {
        let folder = tool.prefix().join("bin");
        let known = toolchain::known(tool.name());
        let names = known.map_or_else(|| vec![tool.name()], |known| known.programs.to_vec());
        let programs = there(&folder, names.iter().copied());
        if programs.is_empty() {
            let names = names.into_iter().map(str::to_owned).collect();
            return Err(ToolError::NoProgram { tool: tool.name().to_owned(), folder, names });
        }
        let arguments = known.map_or(&["--version"][..], |known| known.arguments);
        Ok(Self {
            name: tool.name().to_owned(),
            programs,
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            telling: known.map_or(Telling::Usual, |known| known.telling),
            whose: Whose::Owner,
        })
    }
}

/// A sandbox in which programs are asked one after another.
#[derive(Debug)]
struct Room {
    enclosure: Enclosure,
    log: BuildLog,
}

impl Room {
    async fn open(
        sandbox: &Sandbox,
        work: &Path,
        name: &'static str,
        slot: u16,
        offered: &[Tool],
    ) -> Result<Self, SurveyError> {
        let limits = Limits {
            wall: TELL_WITHIN * u32::try_from(KNOWN_TOOLS.len() + offered.len()).unwrap_or(u32::MAX),
            memory_bytes: TELL_MEMORY_BYTES,
            processes: 256,
            log_bytes: 1 << 20,
            disk_bytes: 16 << 20,
            cores: 1,
            quiet: TELL_WITHIN,
        };
        let log = BuildLog::new(limits.log_bytes);
        let (sandbox, work, tools, said) = (sandbox.clone(), work.to_owned(), offered.to_vec(), log.clone());
        let enclosing = tokio::task::spawn_blocking(move || -> Result<_, SurveyError> {
            let workspace = Workspace::create(&work, name, BuildUser::for_slot(slot))?;
            let folder = workspace.build_path();
            for (file, text) in [TCL_SCRIPT, (HEADER_PROBE, &toolchain::header_probe(&sought_headers()))] {
                std::fs::write(folder.join(file), text).map_err(EnclosureError::Io)?;
            }
            workspace.hand_over()?;
            let environment = BTreeMap::new();
            Ok(sandbox.enclose(Setup {
                workspace,
                tools,
                aliases: Vec::new(),
                limits,
                environment,
                surroundings: Surroundings::USUAL,
                log: said,
                vitals: Vitals::default(),
            })?)
        });
        Ok(Self { enclosure: enclosing.await.map_err(|_| SurveyError::Ending)??, log })
    }

    /// What a program printed on both outputs; how it ended where that is not well.
    async fn ask(&mut self, argv: Vec<String>) -> Result<String, String> {
        let before = self.log.written();
        let step = Step { argv, environment: BTreeMap::new() };
        let end = self.enclosure.run(&step, &CancellationToken::new()).await;
        let printed = String::from_utf8_lossy(&self.log.read(before).bytes).into_owned();
        match end.outcome {
            Outcome::Exited(0) => Ok(printed),
            outcome => {
                let last = printed.lines().last().unwrap_or_default().trim();
                Err(if last.is_empty() { format!("{outcome:?}") } else { last.to_owned() })
            }
        }
    }

    async fn find(&mut self, searches: &[Search]) -> Result<Found, SurveyError> {
        let mut found = Found::default();
        for search in searches {
            match self.first_that_answers(search).await {
                Ok((program, version)) => {
                    found.tools.insert(search.name.clone(), version);
                    if !program.ends_with(&search.name) {
                        found.aliases.push(Alias { name: search.name.clone(), program: program.clone() });
                    }
                }
                Err(reason) if search.whose == Whose::Owner => {
                    let program = search.programs[0].clone();
                    return Err(ToolError::NoAnswer { tool: search.name.clone(), program, reason }.into());
                }
                Err(reason) => tracing::info!(tool = search.name, reason, "does not answer in the sandbox: left out"),
            }
        }
        Ok(found)
    }

    /// The first program of a search that tells a version of the right kind, or why the best of them does not.
    async fn first_that_answers<'s>(&mut self, search: &'s Search) -> Result<(&'s PathBuf, Version), String> {
        let mut first_reason = None;
        for program in &search.programs {
            let argv = std::iter::once(program.display().to_string()).chain(search.arguments.iter().cloned());
            let reason = match self.ask(argv.collect()).await {
                Ok(printed) => match search.telling.version(&printed) {
                    Some(version) => return Ok((program, version)),
                    None => format!("it says `{}`", printed.lines().next().unwrap_or_default()),
                },
                Err(reason) => reason,
            };
            first_reason.get_or_insert(reason);
        }
        Err(first_reason.unwrap_or_else(|| "it is not there".to_owned()))
    }

    async fn libc(&mut self) -> Option<Value> {
        let printed = self.ask(vec!["ldd".to_owned(), "--version".to_owned()]).await.ok()?;
        machine::libc_fact(&printed)
    }

    /// Without a C compiler that knows `__has_include`, none.
    async fn headers(&mut self) -> BTreeSet<String> {
        let argv = ["cc", "-E", "-P", HEADER_PROBE].map(str::to_owned).to_vec();
        match self.ask(argv).await {
            Ok(printed) => toolchain::headers_found(&sought_headers(), &printed),
            Err(reason) => {
                tracing::info!(reason, "headers cannot be looked for: none is announced");
                BTreeSet::new()
            }
        }
    }

    async fn close(self) -> Result<(), SurveyError> {
        Ok(self.enclosure.close().await?)
    }
}
