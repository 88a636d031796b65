//! The mouth of a Barnraise farm: the program `node`.
//!
//! What was typed becomes meaning in [`args`]; [`run`] and [`doing`] do it through the library `node`; values become sentences in
//! [`sentences`] and JSON in [`shape`]; only [`output`] prints; [`exit`] is how it ends.
#![deny(rustdoc::broken_intra_doc_links)]

mod args;
mod doing;
mod exit;
mod output;
mod run;
mod sentences;
mod shape;
mod verb;

use std::process::ExitCode;

fn main() -> ExitCode {
    run::run(std::env::args_os().collect()).into()
}
