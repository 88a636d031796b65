//! The hands of a Barnraise farm.
//!
//! Rooms joined only by the law's words: [`network`] (one task owns the swarm), `artifact` (blobs, trees and their
//! transfer), `source` (what is published outside the farm), `coordinator` (the queue, verdicts and mail) and `volunteer` (machines, sandboxes and reports). Coordinator,
//! volunteer and client are siblings that never import each other; they stand on source and artifact, which stands on network.
#![deny(rustdoc::broken_intra_doc_links)]

pub mod acquaintances;
pub mod artifact;
pub mod catalogue;
pub mod chance;
pub mod client;
pub mod clock;
pub mod clocks;
pub mod config;
pub mod coordinator;
pub mod coordinators;
pub mod database;
pub mod doctor;
pub mod following;
pub mod founding;
pub mod hearsay;
pub mod home;
pub mod network;
pub mod node;
pub mod opening;
mod ports;
pub mod router;
pub mod shutdown;
pub mod signpost;
pub mod source;
mod ties;
pub mod volunteer;
