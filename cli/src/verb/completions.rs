//! `node completions`: a script for the shell.

use crate::args::Args;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::shape::CompletionsShape;
use clap_complete::Shell;

/// Prints the completion script for a shell.
pub(crate) fn show(output: &Output, shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::described(), "node", &mut script);
    output.own_bytes(&script)?;
    output.object(&CompletionsShape {
        shell: Some(shell.to_string()),
        script: Some(String::from_utf8_lossy(&script).into_owned()),
        reason: None,
    })?;
    Ok(Exit::Done)
}
