//! Whole agents on a simulated network, in virtual time: random faults from a seed, the promises S1 to S4 checked from
//! outside in every millisecond, and peace at the end, in which everything must come right.
//!
//! What runs is the production code: control loop and core, sealed datagrams, openraft, Noise streams, store and database.
//! Exchanged is the ground under it alone: sockets ([`network`], on turmoil's hosts), clocks ([`time`]), disks ([`disk`]) and
//! the system's randomness ([`entropy`]). [`node`] puts a node together and says what is left out; [`world`] has true time
//! and the power to cut, hold, kill and wipe; [`faults`] is a life; [`invariants`] is what must hold in it.
//!
//! **Replay.** A seed gives the same life again, to the last line of its trace; a test holds that. openraft draws its
//! election timeouts from the kernel, past any seed, and tokio's `select!` and hash maps from the C library: so the test
//! build gives the engine a runtime with other random numbers ([`runtime`]), replaces the C library's `getrandom`, and lives
//! each life on a thread of its own in a process of its own ([`lives`]). What is not repeated: the wall clock in the names of
//! snapshots, which nobody reads. Another build, or another version of a dependency, makes another life of the same seed.
//!
//! **A life that goes wrong** prints its cluster, seed, the promise that broke, and the file with everything that its nodes
//! and the world logged. `BATON_SEED=17 cargo test -p baton-agent simulation::three` lives that one alone;
//! `BATON_TRACE=warn,world=debug,baton_agent=trace` says what is traced, and keeps the trace of a life that came right too.
//!
//! **Time.** A step is 1 ms of true time; hosts take their steps one after the other, in an order that changes. What happens
//! within a step is not seen from outside. Only the control loop can be frozen, not the whole process.

mod dice;
mod disk;
mod entropy;
mod faults;
mod invariants;
mod lives;
mod network;
mod node;
pub(crate) mod runtime;
mod settings;
mod time;
mod trace;
mod world;

use lives::{Cluster, Life, Sabotage, Story};

#[test]
fn three_members_under_random_faults() {
    lives::live(Cluster::Three);
}

#[test]
fn two_members_and_a_witness_under_random_faults() {
    lives::live(Cluster::Witness);
}

#[test]
fn three_members_and_an_observer_under_random_faults() {
    lives::live(Cluster::Observer);
}

/// A change may be proposed twice, but not after it was answered (S3).
#[test]
fn an_order_held_back_on_one_network_does_not_undo_a_later_one() {
    for seed in 0..6 {
        let life = Life {
            story: Story::LateOrder,
            ..Life::new(Cluster::Three, seed)
        };
        life.in_a_process().unwrap();
    }
}

#[test]
fn a_seed_gives_the_same_life_again() {
    let life = Life::new(Cluster::Three, 3);
    assert_eq!(life.in_a_process().unwrap(), life.in_a_process().unwrap());
}

/// The invariants can fail: a disk that acknowledges what it does not keep loses changes.
#[test]
fn disks_that_lie_are_found_out() {
    lives::found_out(Sabotage::Disks, &["S2", "S3"]);
}

/// The invariants can fail: a holder's clock that is far too slow ends its lease too late.
#[test]
fn clocks_beyond_their_bound_are_found_out() {
    lives::found_out(Sabotage::Clocks, &["S1"]);
}

/// The invariants can fail: a change that is acknowledged when it is proposed may never be made.
#[test]
fn changes_acknowledged_too_early_are_found_out() {
    lives::found_out(Sabotage::Answers, &["S3"]);
}

/// One life, in this process: what the other tests start.
#[test]
#[ignore = "one life: the other tests start it, each time in a process of its own"]
fn one_life() {
    lives::one();
}
