//! Baton's whole-cluster tests: real processes, and for most of them a network of their own.
//!
//! [`lab`] builds hosts out of network namespaces, one bridge per network, and spoils their traffic ([`fault`]);
//! [`cluster`] runs agents in it, or on plain loopback addresses where no faults of the network are needed; [`watch`]
//! polls every node's `/health` every 2 ms from the first start to the last stop, and at the end says whether two nodes
//! were ever active at once; [`agreement`] compares what `/health`, DNS and `baton status` say. Everything that a test
//! makes ends with the process that made it, however that ends: namespaces have no names, and children are told to die
//! with their parent.
//!
//! What applications did is judged by what they wrote down themselves ([`real`], and `application` for the one that is made for it).
//!
//! The cases in namespaces need root (or `unshare -Urn --map-root-user`, a user namespace of one's own), `ip` of
//! iproute2 and `nft`. They are `#[ignore]`d, and `.ci/run` runs them one after another:
//! `cargo test --workspace --test cluster -- --ignored --test-threads=1`.

pub mod agreement;
pub mod application;
pub mod balancer;
pub mod binary;
pub mod case;
pub mod cgroup;
pub mod cluster;
pub mod cores;
pub mod deadline;
pub mod disk;
pub mod doctor;
pub mod example;
pub mod fault;
pub mod lab;
pub mod load;
pub mod matrix;
pub mod nameserver;
pub mod namespace;
pub mod operator;
pub mod plan;
pub mod process;
pub mod real;
pub mod report;
pub mod through;
pub mod watch;

use std::time::Duration;

/// How late a busy machine of two cores may run any process, on top of what the design allows a takeover: the client
/// that polls, the agents and the test itself all wait for a core.
pub const SCHEDULING_SLACK: Duration = Duration::from_millis(250);
