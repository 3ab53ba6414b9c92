//! Guardian, keepers and agent look after one another. Nothing that a guardian has started outlives it by more than a kill takes, but what
//! the kernel does not let go of. And an agent that is well does not stay active under a guardian that stands still: nobody would stop
//! its application if it stood still, too.

use super::{Held, violated};
use crate::sim::MS;
use crate::sim::world::World;
use baton_shared::id::RoleName;

pub(super) const NAME: &str = "nothing acts unguarded";

/// From the death of a guardian until everything below its keepers is gone.
const KILL: u64 = 60 * MS;
/// A guardian that has not beaten for a quarter of W of 1 s is taken to stand still; that may be some looks of 50 ms late, and it had
/// up to a third of that until its next beat.
const NOTICED: u64 = 250 * MS + 3 * 50 * MS;

/// Whether all of it is looked after.
pub(super) fn look(world: &World, role: &RoleName) -> Held {
    for node in &world.nodes {
        let living = node.living(role);
        let dead = node.above.dead.is_some_and(|at| world.now > at + KILL);
        if dead && living > 0 && !node.at_wits_end.contains(role) {
            return violated(
                NAME,
                format!(
                    "{living} processes of {} for {role} outlive their guardian",
                    node.name
                ),
            );
        }
        let still = node.above.still.is_some_and(|at| world.now > at + NOTICED);
        let well = !node.frozen && world.now >= node.behind_until;
        if still && well && node.active(role, world.now).is_some() {
            return violated(
                NAME,
                format!(
                    "{} is active for {role}, and its guardian stands still since {} ms",
                    node.name,
                    (world.now - node.above.still.unwrap_or_default()) / MS
                ),
            );
        }
    }
    Ok(())
}
