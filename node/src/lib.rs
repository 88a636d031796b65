//! hands

pub mod volunteer;
