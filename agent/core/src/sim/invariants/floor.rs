//! A floor never falls, not by a restart either; and it is closed when a promise ends before its time (V1, V3, V6).

use super::{Held, violated};
use crate::promise::Promise;
use crate::sim::world::World;
use baton_shared::id::{Epoch, NodeId, RoleName};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "floors";

/// The greatest floor that each voter had; a clone is a voter of its own.
#[derive(Default)]
pub(super) struct Floors(BTreeMap<(usize, NodeId, RoleName), Epoch>);

impl Floors {
    /// Looks at every role of node `n`; `ended` are the promises that a release or a death ended just now.
    pub fn look(&mut self, world: &World, n: usize, ended: &[(RoleName, Promise)]) -> Held {
        let node = &world.nodes[n];
        let Some(core) = &node.core else { return Ok(()) };
        for role in node.guards.keys() {
            let (floor, grant) = (core.voter(role).floor(), core.voter(role).grant());
            let before = self.0.entry((n, node.id, role.clone())).or_default();
            let granted = grant.map_or(Epoch(0), |grant| grant.epoch);
            if floor.epoch < *before {
                return violated(
                    NAME,
                    format!(
                        "the floor of {} for {role} fell from {before} to {}",
                        node.name, floor.epoch
                    ),
                );
            }
            if granted < *before
                && core
                    .voter(role)
                    .running(world.clock(n))
                    .is_some_and(|p| p.epoch < *before)
            {
                return violated(
                    NAME,
                    format!("{} promised {granted} below its floor {before}", node.name),
                );
            }
            *before = floor.epoch;
            let left_open = ended
                .iter()
                .find(|(of, promise)| of == role && floor.open && floor.admits(promise.epoch, promise.owner));
            if let Some((_, promise)) = left_open {
                return violated(
                    NAME,
                    format!(
                        "the promise of {} to {promise:?} is over, and its floor open",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
