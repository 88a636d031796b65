//! The requester's room: from a wish to verified files.
//!
//! - [`session`]: connected to a farm, with a key that signs
//! - [`wish`]: what somebody wants becomes a signed request
//! - [`find`]: is it built already?
//! - [`order`]: submit, watch, cancel, read the log
//!
//! A requester promises its user that nothing is delivered whose verdict does not lead to the farm's key and whose bytes do
//! not have the digests that the verdict names. It never builds and never keeps a queue.

pub mod find;
pub mod order;
pub mod session;
pub mod wish;
