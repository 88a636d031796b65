//! From what was typed to how it ends.

use crate::args::{Args, Doing, RecipeVerb, SharedArgs, Verb, wants_json};
use crate::exit::{Exit, Failure};
use crate::output::{Format, Output};
use crate::sentences::Said;
use crate::{doing, shape, verb};
use clap::error::ErrorKind;
use node::catalogue;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Does what was typed.
pub(crate) fn run(typed: Vec<OsString>) -> Exit {
    let verb_typed = typed.iter().skip(1).find_map(|word| Spoken::from_word(word.to_str()?));
    let json_typed = wants_json(&typed);
    let (shared, doing) = match Args::read(typed) {
        Ok(read) => read,
        Err(error) => {
            let format = if json_typed { Format::Json } else { Format::Text };
            return unread(&Output::new(format), verb_typed, &error);
        }
    };
    let output = Output::new(if shared.json { Format::Json } else { Format::Text });
    let spoken = match &doing {
        Doing::Serve(..) => None,
        Doing::Verb(verb) => Some(Spoken::from(verb)),
    };
    let done = start_log(&output, &shared, &doing).and_then(|()| carry_out(&output, &shared, doing));
    done.unwrap_or_else(|failure| fail(&output, spoken, &failure))
}

fn start_log(output: &Output, shared: &SharedArgs, doing: &Doing) -> Result<(), Failure> {
    let default = match doing {
        // The library of the network warns of much that is none of a person's business.
        Doing::Serve(..) => "warn,libp2p=error,node=info",
        Doing::Verb(_) => "error,node=warn",
    };
    let wrong = |reason| Failure::new(Exit::Usage, Said::with_next(reason, "write `debug`, or `node=trace,warn`"));
    output.start_log(shared.log.as_deref(), default).map_err(wrong)
}

fn carry_out(output: &Output, shared: &SharedArgs, doing: Doing) -> Result<Exit, Failure> {
    match doing {
        Doing::Verb(Verb::Doctor) => verb::doctor::show(output, &node::doctor::diagnose(&home(shared)?)),
        Doing::Verb(Verb::Recipe(RecipeVerb::List)) => verb::recipe::list(output, catalogue::all()),
        Doing::Verb(Verb::Recipe(RecipeVerb::Show { recipe })) => {
            verb::recipe::show(output, &verb::recipe::named(&recipe)?)
        }
        Doing::Verb(Verb::Recipe(RecipeVerb::Check { file })) => verb::recipe::check(output, &file),
        Doing::Verb(Verb::Recipe(RecipeVerb::New { name })) => verb::recipe::new(output, &name),
        Doing::Verb(Verb::Completions { shell }) => verb::completions::show(output, shell),
        Doing::Serve(role, args) => doing::serve(output, shared, role, *args),
        Doing::Verb(verb) => doing::verb(output, shared, verb),
    }
}

/// The home directory: as given, or in the place that XDG has for it.
pub(crate) fn home(shared: &SharedArgs) -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let given = shared.home.clone().filter(|home| !home.as_os_str().is_empty());
    given
        .or_else(|| Some(absolute("XDG_DATA_HOME")?.join("barnraise")))
        .or_else(|| Some(absolute("HOME")?.join(".local/share/barnraise")))
        .ok_or_else(|| {
            let what = "no home directory: neither `--home` nor $XDG_DATA_HOME nor $HOME says where";
            Failure::new(Exit::Usage, Said::with_next(what, "give one with `--home DIR`"))
        })
}

/// Ends a command whose line could not be read, or that asked for help or the version.
fn unread(output: &Output, verb: Option<Spoken>, error: &clap::Error) -> Exit {
    let exit = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done,
        _ => Exit::Usage,
    };
    let mut shown = output.usage(error);
    if exit == Exit::Usage {
        shown = shown.and_then(|()| failure_object(output, verb, usage_reason(error)));
    }
    // Where nobody reads, the code is all that is left to give.
    match shown {
        Ok(()) | Err(_) => exit,
    }
}

/// The sentence of a usage error, without the help that follows it.
fn usage_reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let sentence = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = sentence.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

/// Says why a command failed, in both formats.
fn fail(output: &Output, verb: Option<Spoken>, failure: &Failure) -> Exit {
    output.error(&failure.said);
    match failure_object(output, verb, failure.said.what.clone()) {
        // Where nobody reads, the code is all that is left to give.
        Ok(()) | Err(_) => failure.exit,
    }
}

/// A verb whose failures have a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Request,
    Matrix,
    Check,
    Status,
    StatusOfRequest,
    Logs,
    Cancel,
    Builds,
    Volunteers,
    Recipes,
    Recipe,
    Farm,
    Store,
    Doctor,
    Completions,
}

impl From<&Verb> for Spoken {
    fn from(verb: &Verb) -> Self {
        match verb {
            Verb::Request(args) if !args.matrix.is_empty() => Self::Matrix,
            Verb::Request(args) if args.check => Self::Check,
            Verb::Request(_) | Verb::Fetch(_) => Self::Request,
            Verb::Status { request: None } => Self::Status,
            Verb::Status { request: Some(_) } => Self::StatusOfRequest,
            Verb::Logs(_) => Self::Logs,
            Verb::Cancel { .. } => Self::Cancel,
            Verb::Builds => Self::Builds,
            Verb::Volunteers => Self::Volunteers,
            Verb::Recipe(RecipeVerb::List) => Self::Recipes,
            Verb::Recipe(_) => Self::Recipe,
            Verb::Farm(_) => Self::Farm,
            Verb::Store(_) => Self::Store,
            Verb::Doctor => Self::Doctor,
            Verb::Completions { .. } => Self::Completions,
        }
    }
}

impl Spoken {
    /// The verb that a word of the command line names.
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "request" | "fetch" => Self::Request,
            "status" => Self::Status,
            "logs" => Self::Logs,
            "cancel" => Self::Cancel,
            "builds" => Self::Builds,
            "volunteers" => Self::Volunteers,
            "recipe" => Self::Recipe,
            "farm" => Self::Farm,
            "store" => Self::Store,
            "doctor" => Self::Doctor,
            "completions" => Self::Completions,
            _ => return None,
        })
    }
}

/// Prints a failure in the shape of its verb.
fn failure_object(output: &Output, verb: Option<Spoken>, reason: String) -> io::Result<()> {
    let reason = Some(reason);
    match verb {
        Some(Spoken::Request) => output.object(&shape::RequestShape { reason, ..Default::default() }),
        Some(Spoken::Check) => output.object(&verb::check::CheckShape {
            request: shape::RequestShape { reason, ..Default::default() },
            ..Default::default()
        }),
        Some(Spoken::Matrix) => output.object(&verb::matrix::MatrixShape { reason, ..Default::default() }),
        Some(Spoken::Status) => output.object(&shape::StatusShape { reason, ..Default::default() }),
        Some(Spoken::StatusOfRequest) => output.object(&shape::RequestStatusShape { reason, ..Default::default() }),
        Some(Spoken::Logs) => output.object(&shape::LogShape { reason, ..Default::default() }),
        Some(Spoken::Cancel) => output.object(&shape::CancelShape { reason, ..Default::default() }),
        Some(Spoken::Builds) => output.object(&shape::BuildsShape { reason, ..Default::default() }),
        Some(Spoken::Volunteers) => output.object(&shape::VolunteersShape { reason, ..Default::default() }),
        Some(Spoken::Farm) | None => output.object(&shape::FarmShape { reason, ..Default::default() }),
        Some(Spoken::Store) => output.object(&verb::store::StoreShape { reason, ..Default::default() }),
        Some(Spoken::Doctor) => output.object(&shape::DoctorShape { reason, ..Default::default() }),
        Some(Spoken::Completions) => output.object(&shape::CompletionsShape { reason, ..Default::default() }),
        Some(Spoken::Recipes) => output.object(&verb::recipe::RecipesShape { reason, ..Default::default() }),
        Some(Spoken::Recipe) => output.object(&verb::recipe::RecipeShape { reason, ..Default::default() }),
    }
}
