//! Faces show no epoch of which the application was not told: a store that it writes to, and that refuses lesser epochs than it saw, would
//! refuse the application itself if somebody had shown it that epoch.

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::{Epoch, RoleName};
use baton_shared::wire::Heartbeat;

pub(super) const NAME: &str = "no epoch is shown before it was told";

/// Node `n` lets its faces say that it is active at this epoch.
pub(super) fn opened(world: &World, n: usize, role: &RoleName, epoch: Epoch) -> Held {
    let node = &world.nodes[n];
    let told = node.told.get(role).copied().unwrap_or_default();
    if epoch > told {
        return violated(
            NAME,
            format!(
                "{} shows epoch {epoch} for {role}, and its application knows of {told}",
                node.name
            ),
        );
    }
    Ok(())
}

/// Node `n` sends a heartbeat: what it says of itself is what others show.
pub(super) fn sent(world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
    let serving = heartbeat
        .roles
        .iter()
        .filter_map(|beat| Some((&beat.role, beat.serving?)));
    for (role, epoch) in serving {
        opened(world, n, role, epoch)?;
    }
    Ok(())
}
