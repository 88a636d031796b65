//! The law of a Barnraise farm: its words, its messages and its rules.
//!
//! Pure by construction: no runtime, no files, no sockets, no clock, no dice, no iteration in hash order. Time is an
//! argument; chance comes in as a nonce that somebody else drew. Read in this order:
//!
//! - words: [`digest`], [`id`], [`time`], [`platform`], [`tree`], [`source`], [`request`], [`recipe`],
//!   [`report`]
//! - trust: [`signed`], [`charter`], [`ticket`]
//! - messages: [`codec`], [`wire`], [`gossip`], [`progress`]
//! - messages: [`codec`], [`wire`], [`gossip`], [`owner`]
//! - rules: [`farm`]
#![deny(missing_docs, rustdoc::broken_intra_doc_links, unreachable_pub)]

pub mod codec;
pub mod digest;
pub mod id;
pub mod time;

pub mod platform;
pub mod recipe;
pub mod report;
pub mod request;
pub mod source;
pub mod tree;

pub mod charter;
pub mod signed;
pub mod ticket;

pub mod gossip;
pub mod owner;
pub mod progress;
pub mod wire;

pub mod farm;
