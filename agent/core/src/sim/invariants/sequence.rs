//! No sequence number is used twice for one recipient and network within a boot: grants name them (H2), and the seal's nonce is
//! made of them.

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::NodeName;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "sequences are used once";

/// The last sequence to each recipient on each network.
#[derive(Default)]
pub(super) struct Sequences(BTreeMap<(usize, u64, NodeName, usize), u64>);

impl Sequences {
    /// Node `n` sends a heartbeat.
    pub fn look(&mut self, world: &World, n: usize, network: usize, to: &NodeName, seq: u64) -> Held {
        let last = self
            .0
            .entry((n, world.nodes[n].boot, to.clone(), network))
            .or_default();
        if seq <= *last {
            return violated(
                NAME,
                format!("node {n} sends sequence {seq} to {to} after {last}"),
            );
        }
        *last = seq;
        Ok(())
    }
}
