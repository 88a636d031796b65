//! The deterministic rules of a farm.

pub mod command;
pub mod explain;
