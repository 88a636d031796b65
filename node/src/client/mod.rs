//! The requester's room: from a wish to verified files.
//!
//! - [`lan`]: which farms are here; [`member`]: a command as a short-lived peer; [`session`]: connected to a farm, with a key that signs
//! - [`wish`]: what somebody wants becomes a signed request
//! - [`find`]: is it built already? [`deliver`]: its files into a folder
//! - [`order`]: submit, watch, cancel, read the log
//! - [`get`]: all of it in order
//! - [`owner`]: the owner of a home speaks to the daemon that runs in it
//!
//! A requester promises its user that nothing is delivered whose verdict does not lead to the farm's key and whose bytes do
//! not have the digests that the verdict names. It never builds and never keeps a queue.

pub mod deliver;
pub mod find;
pub mod get;
pub mod lan;
pub mod member;
pub mod order;
pub mod owner;
pub mod session;
pub mod wish;
