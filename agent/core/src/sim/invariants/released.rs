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

    /// The guardian of node `n` says that this boot is dead: nothing of its applications lives, whatever the kernel does not let go of.
    pub fn died(&mut self, world: &World, n: usize, owner: Owner) -> Held {
        self.dead.insert(owner);
        let node = &world.nodes[n];
        for role in node.config.roles.keys() {
            if node.settings(role).is_some() && (node.app(role) != App::Passive || node.living(role) > 0) {
                return violated(
                    NAME,
                    format!(
                        "{} is announced as dead, and its application for {role} acts ({:?}, {} processes)",
                        node.name,
                        node.app(role),
                        node.living(role)
                    ),
                );
            }
        }
        Ok(())
    }

    /// Whether this boot was said to be dead.
    pub fn is_dead(&self, owner: Owner) -> bool {
        self.dead.contains(&owner)
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
            let Some(released) = beat.released.last() else {
                continue;
            };
            let living = node.living(&beat.role);
            let since = match node.app(&beat.role) {
                App::Acting(epoch) | App::Stopping(epoch) | App::Loose(epoch) => Some(epoch),
                // Nobody keeps account of them, and they live.
                App::Passive => (living > 0).then_some(Epoch(0)),
            };
            if let Some(epoch) = since.filter(|epoch| released >= epoch) {
                return violated(
                    NAME,
                    format!(
                        "{} releases epoch {released}, and its application still acts since {epoch} ({living} processes)",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
