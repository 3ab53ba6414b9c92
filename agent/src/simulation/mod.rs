//! Whole agents under a simulated network, in virtual time.

mod dice;
mod disk;
mod entropy;
mod faults;
mod invariants;
mod lives;
mod network;
mod node;
pub(crate) mod runtime;
mod time;
mod trace;
mod world;

use lives::{Cluster, Sabotage};

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

#[test]
fn a_seed_gives_the_same_life_again() {
    let lives = [3, 3].map(|seed| lives::in_a_process(Cluster::Three, seed, None));
    let [first, second] = lives.map(|life| life.unwrap());
    assert_eq!(first, second);
}

/// The invariants can fail: a disk that acknowledges what it does not keep loses changes.
#[test]
fn disks_that_lie_are_found_out() {
    lives::found_out(Sabotage::Disks, &["S2", "S3"]);
}

/// The invariants can fail: clocks whose rates differ by a third end a lease too late.
#[test]
fn clocks_beyond_their_bound_are_found_out() {
    lives::found_out(Sabotage::Clocks, &["S1", "S4"]);
}

/// The invariants can fail: a change that is acknowledged when it is proposed may never be made.
#[test]
fn changes_acknowledged_too_early_are_found_out() {
    lives::found_out(Sabotage::Answers, &["S3"]);
}

/// One life, in this process: what the other tests start.
#[test]
#[ignore = "one life: the other tests start it, each in a process of its own"]
fn one_life() {
    lives::one();
}
