//! Whole clusters of real processes in network namespaces of their own, two networks each, under every fault that
//! Baton promises to survive. Every case asserts the gap bound of DESIGN §2 and, from the first start of its cluster to
//! the end, that no two nodes were ever active at once (S1) and that epochs grew (S2).
//!
//! One cluster serves all the variants of a case, one after another: it has to come back to rest after each. Each kind of fault is played with
//! a node that chance chooses (`matrix`).

mod address;
mod balancers;
mod beside;
mod clients;
mod coordinator;
mod disks;
mod doctor;
mod examples;
mod lost;
mod missing;
mod outages;
mod partition;
mod planned;
mod resize;
mod restart;
mod storm;
mod strangers;
mod streams;
mod translated;
mod twin;
mod witness;

use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::time::Duration;

/// The members of the usual cluster.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// The window of cases that do not ask for the default one: shorter, so that many of them take little time.
const WINDOW: Duration = Duration::from_millis(500);

/// Three members with storage.
#[track_caller]
fn three() -> Cluster {
    Cluster::in_lab(Plan::members(&NAMES).window(WINDOW))
}
