//! The flags of a daemon: which roles it plays, where it listens, what its owner allows, how it writes mail.

use super::value::{Size, Smtp, TlsFrom, ToolArg, address, slots};
use super::verbs::FetchingArgs;
use clap::ValueEnum;
use clap::builder::FalseyValueParser;
use protocol::request::{Address, Name};
use std::num::NonZeroU16;
use std::path::PathBuf;

/// What a daemon does for its farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Builds.
    Volunteer,
    /// Keeps the queue, judges and writes mail.
    Coordinator,
    /// All of it.
    Both,
}

impl Role {
    /// Whether it builds.
    pub(crate) fn volunteers(self) -> bool {
        matches!(self, Self::Volunteer | Self::Both)
    }

    /// Whether it keeps the queue.
    pub(crate) fn coordinates(self) -> bool {
        matches!(self, Self::Coordinator | Self::Both)
    }
}

/// Whose recipes a volunteer builds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accept {
    /// The recipes that came with the program, from anyone with the ticket.
    #[default]
    Catalogue,
    /// Those, and any recipe from a member of the farm.
    Members,
    /// Any recipe from anyone.
    Any,
}

/// How a plain SMTP connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SmtpTls {
    /// Not at all: a relay on this machine.
    None,
    /// By STARTTLS, required.
    Starttls,
}

/// Flags of a daemon.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DaemonArgs {
    /// Lend this machine: build in a sandbox what the farm asks for
    #[arg(long, env = "NODE_VOLUNTEER", value_parser = FalseyValueParser::new(), help_heading = "Roles")]
    volunteer: bool,
    /// Keep the farm's queue, judge builds and write mail
    #[arg(long, env = "NODE_COORDINATOR", value_parser = FalseyValueParser::new(), help_heading = "Roles")]
    coordinator: bool,
    /// Found a farm of this name, the first time
    #[arg(long, env = "NODE_FARM_NAME", value_name = "NAME", help_heading = "Roles")]
    pub(crate) farm_name: Option<Name>,

    /// Listen here (multiaddr; may be repeated) [default: TCP and QUIC on all interfaces, a port kept between starts]
    #[arg(long, env = "NODE_LISTEN", value_name = "ADDR", value_delimiter = ',', help_heading = "Network",
        value_parser = address)]
    pub(crate) listen: Vec<String>,
    /// Can be reached here from outside (multiaddr; may be repeated)
    #[arg(long, env = "NODE_EXTERNAL", value_name = "ADDR", value_delimiter = ',', help_heading = "Network",
        value_parser = address)]
    pub(crate) external: Vec<String>,
    /// Neither announce the farm on the local network nor look there
    #[arg(long, env = "NODE_NO_MDNS", value_parser = FalseyValueParser::new(), help_heading = "Network")]
    pub(crate) no_mdns: bool,

    /// Disk for what is kept for the farm, such as 20G [default: a quarter of what it has or could have]
    #[arg(long, env = "NODE_MAX_STORE", value_name = "SIZE", help_heading = "Roles")]
    pub(crate) max_store: Option<Size>,

    /// Builds at a time [default: half the cores, at least one]
    #[arg(long, env = "NODE_SLOTS", value_name = "N", value_parser = slots, help_heading = "Volunteer")]
    pub(crate) slots: Option<NonZeroU16>,
    /// Memory for all builds together, such as 8G [default: half of it]
    #[arg(long, env = "NODE_MAX_MEMORY", value_name = "SIZE", help_heading = "Volunteer")]
    pub(crate) max_memory: Option<Size>,
    /// Disk for builds and store together, such as 50G [default: half of what is free]
    #[arg(long, env = "NODE_MAX_DISK", value_name = "SIZE", help_heading = "Volunteer")]
    pub(crate) max_disk: Option<Size>,
    /// Whose recipes to build [default: catalogue]
    #[arg(long, env = "NODE_ACCEPT", value_enum, help_heading = "Volunteer")]
    pub(crate) accept: Option<Accept>,
    /// A tool outside /usr, read-only at the same path in the sandbox (may be repeated; in the environment one a line)
    #[arg(long, env = "NODE_TOOL", value_name = "NAME=PREFIX", value_delimiter = '\n', help_heading = "Volunteer")]
    pub(crate) tool: Vec<ToolArg>,

    #[command(flatten, next_help_heading = "Volunteer")]
    pub(crate) fetching: FetchingArgs,

    /// Mail server: smtp://[USER@]HOST[:PORT] or smtps://…
    #[arg(long, env = "NODE_SMTP", value_name = "URL", help_heading = "Mail")]
    pub(crate) smtp: Option<Smtp>,
    /// How smtp:// is protected [default: starttls; none on this machine, unless --smtp-ca is given]
    #[arg(long, env = "NODE_SMTP_TLS", value_enum, help_heading = "Mail")]
    pub(crate) smtp_tls: Option<SmtpTls>,
    /// Trust this certificate authority (PEM) for the mail server
    #[arg(long, env = "NODE_SMTP_CA", value_name = "FILE", help_heading = "Mail")]
    pub(crate) smtp_ca: Option<PathBuf>,
    /// File that holds the mail password, not readable by everybody
    #[arg(long, env = "NODE_SMTP_PASSWORD_FILE", value_name = "FILE", help_heading = "Mail")]
    pub(crate) smtp_password_file: Option<PathBuf>,
    /// Sender of every mail; required with --smtp
    #[arg(long, env = "NODE_MAIL_FROM", value_name = "ADDRESS", help_heading = "Mail")]
    pub(crate) mail_from: Option<Address>,
    /// Write each mail to a file here instead of sending it
    #[arg(long, env = "NODE_MAIL_DIR", value_name = "DIR", help_heading = "Mail")]
    pub(crate) mail_dir: Option<PathBuf>,

    /// The clock is right although it jumped: let deadlines pass again
    #[arg(long, env = "NODE_TRUST_CLOCK", value_parser = FalseyValueParser::new(), help_heading = "Roles")]
    pub(crate) trust_clock: bool,
}

/// Ids of the flags above, as clap knows them.
pub(super) const FLAGS: [&str; 21] = [
    "volunteer",
    "coordinator",
    "farm_name",
    "listen",
    "external",
    "no_mdns",
    "max_store",
    "slots",
    "max_memory",
    "max_disk",
    "accept",
    "tool",
    "allow_private_sources",
    "source_ca",
    "smtp",
    "smtp_tls",
    "smtp_ca",
    "smtp_password_file",
    "mail_from",
    "mail_dir",
    "trust_clock",
];

impl DaemonArgs {
    /// The roles that were named, if any.
    pub(super) fn role(&self) -> Option<Role> {
        match (self.volunteer, self.coordinator) {
            (true, true) => Some(Role::Both),
            (true, false) => Some(Role::Volunteer),
            (false, true) => Some(Role::Coordinator),
            (false, false) => None,
        }
    }

    /// Settings that contradict one another, as a sentence. `typed` says whether a flag stood on the command line: what comes
    /// from the environment may be meant for another role and is then left aside.
    pub(super) fn check(
        &self,
        role: Role,
        names_a_farm: bool,
        lan: bool,
        typed: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        let stray =
            |flags: &'static [&'static str]| flags.iter().find(|flag| typed(flag)).map(|flag| flag.replace('_', "-"));
        if !role.volunteers()
            && let Some(flag) =
                stray(&["slots", "max_memory", "max_disk", "accept", "tool", "allow_private_sources", "source_ca"])
        {
            return Err(format!("`--{flag}` is for a volunteer: add `--volunteer`, or leave it out"));
        }
        let mail = &["smtp", "smtp_tls", "smtp_ca", "smtp_password_file", "mail_from", "mail_dir"];
        if !role.coordinates()
            && let Some(flag) = stray(mail).or_else(|| stray(&["farm_name", "trust_clock"]))
        {
            return Err(format!("`--{flag}` is for a coordinator: add `--coordinator`, or leave it out"));
        }
        if names_a_farm && self.farm_name.is_some() {
            return Err("`--farm-name` founds a new farm and `--farm` or `--lan` joins another: choose one".to_owned());
        }
        if lan && self.no_mdns {
            return Err("`--lan` looks on the local network and `--no-mdns` forbids it: choose one".to_owned());
        }
        if role.coordinates() { self.check_mail() } else { Ok(()) }
    }

    fn check_mail(&self) -> Result<(), String> {
        let Some(smtp) = &self.smtp else {
            let needs_smtp = [
                ("smtp-tls", self.smtp_tls.is_some()),
                ("smtp-ca", self.smtp_ca.is_some()),
                ("smtp-password-file", self.smtp_password_file.is_some()),
            ];
            return match needs_smtp.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(format!("`--{flag}` goes with `--smtp`")),
                None => Ok(()),
            };
        };
        if self.mail_dir.is_some() {
            return Err("`--smtp` sends mail and `--mail-dir` writes it to files: choose one".to_owned());
        }
        if self.mail_from.is_none() {
            return Err("`--smtp` needs a sender: add `--mail-from ADDRESS`".to_owned());
        }
        if smtp.tls == TlsFrom::Connection && self.smtp_tls.is_some() {
            return Err("`smtps://` is encrypted from the start: leave `--smtp-tls` out".to_owned());
        }
        if smtp.user.is_some() != self.smtp_password_file.is_some() {
            return Err("a user in `--smtp` and `--smtp-password-file` go together".to_owned());
        }
        if smtp.user.is_some() && self.smtp_tls == Some(SmtpTls::None) {
            return Err("a password is not sent over an unprotected connection: leave `--smtp-tls none` out".to_owned());
        }
        Ok(())
    }
}
