//! The law by tables: one module per rule, every command followed by every invariant.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod kit;

mod golden;
mod holding;
mod leases;
mod mail;
mod mutants;
mod outcomes;
mod properties;
mod queue;
mod quorum;
mod soft;
mod submit;
mod waiting;
