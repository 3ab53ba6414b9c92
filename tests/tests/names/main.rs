//! Our DNS server among other people's: clients, resolvers and servers from Debian packages, and hickory-server as an
//! oracle. What needs packages and root is `#[ignore]`d and run by `.ci/run names`; a missing program is a failure.

mod asked;
mod compliance;
mod libc;
mod malformed;
mod oracle;
mod resolvers;
mod serial;
mod served;
mod tools;
mod wire;
mod zonemaster;

use wire::read;

/// The nodes of every cluster here.
const NAMES: [&str; 3] = ["a", "b", "c"];
