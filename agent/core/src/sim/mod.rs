//! The simulator: whole clusters of real cores in virtual time, random faults, and invariants after every event.
//!
//! [`world`] is the machine room: nodes, clocks, disks, networks, applications and guardians; [`log`] the consensus that the cores are
//! told of; [`fault`] what can go wrong, as data; [`life`] a schedule of faults drawn from a seed, and the peace that follows;
//! [`invariants`] what must hold. [`seeds`] runs many lives, [`shrink`] shortens one that failed, [`corpus`] keeps those that
//! failed once, and [`sabotage`] proves that the simulator finds what it is for: it breaks the rules of the core one by one.
//!
//! It lives in the unit tests of the crate because only there can rules be broken (`broken.rs`), and state be looked at.
//!
//! - `cargo test -p baton-core` runs a few hundred lives.
//! - `cargo simulate` runs lives without end, or as many as `BATON_SEEDS` says, or for `BATON_MINUTES`.
//! - `BATON_SEED=17 cargo simulate` replays one with its log, and shortens it if it fails.

mod candidates;
mod clients;
mod copies;
mod corpus;
mod dice;
mod differing;
mod disks;
mod epochs;
mod fault;
mod guarded;
mod hostile;
mod invariants;
mod lacking;
mod life;
mod log;
mod ordered;
mod outages;
mod peace;
mod sabotage;
mod scenarios;
mod seeds;
mod shrink;
mod told;
mod twins;
mod world;

/// A millisecond, in nanoseconds: the unit of true time here.
pub(crate) const MS: u64 = 1_000_000;

pub(crate) use world::{config_of, idle_beat};
