//! Nobody acts on a released epoch: the guard stays closed for it (H3), and the application had stopped before the release
//! was said (H4).

use super::{Held, violated};
use crate::sim::world::{App, World};
use baton_shared::id::{Epoch, Owner, RoleName};
use baton_shared::wire::Heartbeat;
use std::collections::BTreeSet;

pub(super) const NAME: &str = "nobody acts on a released epoch";

/// What was given up, and who died.
#[derive(Default)]
pub(super) struct Released {
    released: BTreeSet<(RoleName, Owner, Epoch)>,
    dead: BTreeSet<Owner>,
}

impl Released {
    /// Node `n` closed its guard for good: the release may follow.
    pub fn closed(&mut self, world: &World, n: usize, role: &RoleName, epoch: Epoch) {
        self.released
            .insert((role.clone(), world.nodes[n].owner(), epoch));
    }

    pub fn died(&mut self, owner: Owner) {
        self.dead.insert(owner);
    }

    /// Whether a promise of this may have ended before its time (V6).
    pub fn ended(&self, role: &RoleName, epoch: Epoch, owner: Owner) -> bool {
        self.dead.contains(&owner) || self.released.contains(&(role.clone(), owner, epoch))
    }

    /// Node `n` opens its guard.
    pub fn opened(&self, world: &World, n: usize, role: &RoleName, epoch: Epoch) -> Held {
        let node = &world.nodes[n];
        if self.ended(role, epoch, node.owner()) {
            return violated(NAME, format!("{} acts on the released epoch {epoch}", node.name));
        }
        Ok(())
    }

    /// Node `n` sends a heartbeat, perhaps with a release.
    pub fn said(&self, world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
        let node = &world.nodes[n];
        for beat in &heartbeat.roles {
            let (Some(released), Some(App::Acting(epoch) | App::Stopping(epoch) | App::Loose(epoch))) =
                (beat.released.last(), node.apps.get(&beat.role))
            else {
                continue;
            };
            if released >= epoch {
                return violated(
                    NAME,
                    format!(
                        "{} releases epoch {released}, and its application still acts since {epoch}",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
