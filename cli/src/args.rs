//! What was typed: flags, verbs and their environment names.
//!
//! Every value is parsed to its type here, and settings that contradict one another are refused here, so that no later code
//! looks at a flag again. Nothing here opens a file or a socket. A list that comes from the environment is written with commas
//! where its values cannot hold any, otherwise one value a line.

mod daemon;
mod value;
mod verbs;

pub(crate) use daemon::{Accept, DaemonArgs, Role, SmtpTls};
pub(crate) use value::{Chosen, RecipeArg, SourcePlace, TlsFrom, ToolArg, combinations};
pub(crate) use verbs::{
    FarmVerb, FetchArgs, FetchingArgs, Hex, LogsArgs, PlatformArg, RecipeVerb, RequestArgs, StoreVerb, Verb,
};

use clap::builder::FalseyValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser};
use protocol::ticket::Ticket;
use std::ffi::OsString;
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Every flag has an environment name: `--farm-name` is NODE_FARM_NAME.

Exit codes:
  0  done: built and fetched     3  no farm or no coordinator reachable
  1  build error                 4  refused, cancelled, limited or expired
  2  usage                       5  infrastructure      130  interrupted";

/// A peer-to-peer build farm: lend a machine, found a farm, or ask it to build.
///
/// `node --volunteer --farm TICKET` lends this machine to a farm; `node --coordinator --farm-name NAME` founds one and prints
/// its ticket; `node request RECIPE` builds something, or fetches what somebody built before.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "node",
    version,
    after_help = EXIT_CODES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Flags that go with daemons and with verbs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SharedArgs {
    /// Where keys, store and settings live [default: $XDG_DATA_HOME/barnraise or ~/.local/share/barnraise]
    #[arg(long, global = true, help_heading = "Everywhere", env = "NODE_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// The farm's ticket; remembered once given
    #[arg(long, global = true, help_heading = "Everywhere", env = "NODE_FARM", value_name = "TICKET")]
    pub(crate) farm: Option<Ticket>,
    /// Take the one farm found on the local network, instead of a ticket
    #[arg(long, global = true, help_heading = "Everywhere", env = "NODE_LAN", value_parser = FalseyValueParser::new())]
    pub(crate) lan: bool,
    /// Print exactly one JSON object to stdout, also on failure
    #[arg(long, global = true, help_heading = "Everywhere", env = "NODE_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// What to log to stderr, such as `debug` or `node=trace,warn` [default: info for a daemon, warn for a verb]
    #[arg(long, global = true, help_heading = "Everywhere", env = "NODE_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum Doing {
    /// Serve until told to stop.
    Serve(Role, Box<DaemonArgs>),
    /// One command.
    Verb(Verb),
}

impl Args {
    /// The description that clap reads, without an environment name at every flag.
    pub(crate) fn described() -> clap::Command {
        fn quiet(command: clap::Command) -> clap::Command {
            command.mut_args(|flag| flag.hide_env(true)).mut_subcommands(quiet)
        }
        quiet(Self::command())
    }

    /// Reads what was typed.
    ///
    /// # Errors
    ///
    /// A usage error, or clap's way to say that help or the version was asked for.
    pub(crate) fn read(typed: impl IntoIterator<Item = OsString>) -> Result<(SharedArgs, Doing), clap::Error> {
        let mut command = Self::described();
        let matches = command.try_get_matches_from_mut(typed)?;
        let args = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        let usage = |kind, text: String| Self::described().error(kind, text);
        if args.shared.lan && args.shared.farm.is_some() {
            let text = "`--farm` names a farm and `--lan` looks for one: choose one";
            return Err(usage(ErrorKind::ArgumentConflict, text.to_owned()));
        }
        let doing = match args.verb {
            Some(verb) => {
                if let Some(flag) = daemon::FLAGS.iter().find(|flag| typed(flag)) {
                    let text = format!("`--{}` is for a daemon and goes with no verb", flag.replace('_', "-"));
                    return Err(usage(ErrorKind::ArgumentConflict, text));
                }
                verb.check().map_err(|text| usage(ErrorKind::ArgumentConflict, text))?;
                Doing::Verb(verb)
            }
            None => {
                let Some(role) = args.daemon.role() else {
                    let text =
                        "nothing to do: name a verb such as `request`, or `--volunteer`, `--coordinator` or both";
                    return Err(usage(ErrorKind::MissingSubcommand, text.to_owned()));
                };
                let names_a_farm = args.shared.farm.is_some() || args.shared.lan;
                args.daemon
                    .check(role, names_a_farm, args.shared.lan, typed)
                    .map_err(|text| usage(ErrorKind::ArgumentConflict, text))?;
                Doing::Serve(role, Box::new(args.daemon))
            }
        };
        Ok((args.shared, doing))
    }
}

/// Whether JSON was asked for by somebody whose command line could not be read.
pub(crate) fn wants_json(typed: &[OsString]) -> bool {
    let by_flag = typed.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    let by_environment = std::env::var("NODE_JSON").is_ok_and(|value| {
        !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "n" | "no" | "f" | "false" | "off")
    });
    by_flag || by_environment
}

#[cfg(test)]
#[path = "args/tests.rs"]
mod tests;
