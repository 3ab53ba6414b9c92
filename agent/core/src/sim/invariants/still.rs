//! A holder keeps its epoch while it stays, unless a voter was promised a greater one (DESIGN §5).

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::{Epoch, RoleName};
use baton_shared::wire::Heartbeat;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::Excluded;

pub(super) const NAME: &str = "a holder's epoch stands still";

/// Every epoch of which a voter ever had the floor. Also one of this very run, at a later place than the one that it took, which was
/// written ahead and kept over a restart.
#[derive(Default)]
pub(super) struct Still(BTreeMap<RoleName, BTreeSet<Epoch>>);

impl Still {
    /// Node `n` has handled an input.
    pub fn look(&mut self, world: &World, n: usize) {
        let node = &world.nodes[n];
        let Some(core) = &node.core else { return };
        for role in node.guards.keys() {
            let floors = self.0.entry(role.clone()).or_default();
            floors.insert(core.voter(role).floor().epoch);
        }
    }

    /// Node `n` sends a heartbeat.
    pub fn sent(&self, world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
        let node = &world.nodes[n];
        if world.nodes.iter().filter(|m| m.owner() == node.owner()).count() > 1 {
            return Ok(()); // what was promised to the other one is under the same name
        }
        for beat in &heartbeat.roles {
            let (Some(claim), Some(held)) = (beat.claim, beat.holding) else {
                continue;
            };
            let between = (Excluded(held), Excluded(claim.epoch));
            let promised = |floors: &BTreeSet<Epoch>| floors.range(between).next().is_some();
            if claim.epoch > held && !self.0.get(&beat.role).is_some_and(promised) {
                return violated(
                    NAME,
                    format!(
                        "{} holds {} at epoch {held} and claims {}, though nobody was promised more",
                        node.name, beat.role, claim.epoch
                    ),
                );
            }
        }
        Ok(())
    }
}
