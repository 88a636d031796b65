//! The peer-to-peer parts carry weight: real processes and real drivers on loopback, and in network namespaces made here.
//!
//! [`neighbours`] starts a farm of three whose builds one volunteer alone can make, [`guest`] is a peer inside the test that
//! does as it likes. What a machine cannot run is named by [`lacks`], and is a failure where the tests were told that
//! everything is there.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "../integration/deadline.rs"]
mod deadline;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/farm.rs"]
mod farm;
mod guest;
#[allow(dead_code, reason = "the other tests use all of it")]
#[path = "../integration/lacks.rs"]
mod lacks;
#[allow(dead_code, reason = "the bench uses all of it")]
#[path = "../../cli/benches/coordinator/load.rs"]
mod load;
mod neighbours;
mod wire;

mod bulk;
mod clients;
mod crowd;
mod hostile;
mod lan;
mod large_source;
mod lost;
mod stuck;
mod without_coordinator;

use lacks::left_out;
