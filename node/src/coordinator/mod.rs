//! The coordinator: what the farm agreed on, kept safely, and told to those who wait for it.

pub mod replica;
pub mod wal;
pub mod mailer;
