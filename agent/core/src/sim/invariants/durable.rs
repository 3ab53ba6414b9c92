//! Nothing is said that the disk does not hold: grants and floors (V3), and the electorate adopted (V5).

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::Epoch;
use baton_shared::wire::Heartbeat;

pub(super) const NAME: &str = "nothing is said before it is on disk";

/// Node `n` sends a heartbeat.
pub(super) fn look(world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
    let (name, disk) = (&world.nodes[n].name, &world.nodes[n].disk);
    if heartbeat.electorate > disk.electorate.id {
        return violated(
            NAME,
            format!("{name} says that it adopted {:?}", heartbeat.electorate),
        );
    }
    for beat in &heartbeat.roles {
        let on_disk = disk.floors.get(&beat.role).map_or(Epoch(0), |floor| floor.epoch);
        let granted = beat.grant.map_or(Epoch(0), |grant| grant.epoch);
        if granted.max(beat.floor.epoch) > on_disk {
            return violated(
                NAME,
                format!(
                    "{name} granted {granted}, floor {}, and its disk holds {on_disk}",
                    beat.floor.epoch
                ),
            );
        }
    }
    Ok(())
}
