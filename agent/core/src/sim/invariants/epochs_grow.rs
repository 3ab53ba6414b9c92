//! S2: whoever becomes active has a greater epoch than everybody before. And H1: a boot never claims an epoch below one that it
//! claimed before.

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::{Epoch, RoleName};
use baton_shared::wire::Heartbeat;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "S2 epochs grow";

/// The greatest epochs seen.
#[derive(Default)]
pub(super) struct EpochsGrow {
    active: BTreeMap<RoleName, (Epoch, usize)>,
    claimed: BTreeMap<(usize, u64, RoleName), Epoch>,
}

impl EpochsGrow {
    /// This node is active at this epoch.
    pub fn active(&mut self, role: &RoleName, (n, epoch): (usize, Epoch)) -> Held {
        match self.active.get(role) {
            Some((greatest, by)) if (epoch, n) == (*greatest, *by) => Ok(()),
            Some((greatest, by)) if epoch <= *greatest => violated(
                NAME,
                format!("node {n} is active at epoch {epoch} after node {by} was at {greatest}"),
            ),
            _ => {
                self.active.insert(role.clone(), (epoch, n));
                Ok(())
            }
        }
    }

    pub fn greatest(&self, role: &RoleName) -> Epoch {
        self.active.get(role).map_or(Epoch(0), |(epoch, _)| *epoch)
    }

    /// The greatest epoch that node `n` claimed in this boot; 0 if none.
    pub fn claims(&self, n: usize, boot: u64, role: &RoleName) -> Epoch {
        self.claimed
            .get(&(n, boot, role.clone()))
            .copied()
            .unwrap_or_default()
    }

    /// A heartbeat leaves.
    pub fn claimed(&mut self, world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
        for beat in &heartbeat.roles {
            let Some(claim) = beat.claim else { continue };
            let key = (n, world.nodes[n].boot, beat.role.clone());
            let before = self.claimed.entry(key).or_default();
            if claim.epoch < *before {
                return violated(
                    NAME,
                    format!("node {n} claims epoch {} after {before}", claim.epoch),
                );
            }
            if beat.released.contains(&claim.epoch) {
                return violated(
                    NAME,
                    format!("node {n} claims epoch {} after it gave it up", claim.epoch),
                );
            }
            *before = claim.epoch;
        }
        Ok(())
    }
}
