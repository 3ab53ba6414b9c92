//! The view that HTTP and DNS answer from is never older than allowed: another node is named as active for at most W after it
//! last was, and only at an epoch at which it was (S4).

use super::one_active::OneActive;
use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::view::Word;

pub(super) const NAME: &str = "S4 no old word";

/// Asks node `n`'s view, as its faces would now.
pub(super) fn look(world: &World, n: usize, active: &OneActive) -> Held {
    let node = &world.nodes[n];
    let Some(view) = &node.view else { return Ok(()) };
    for role in node.guards.keys() {
        let Word::Other(name, epoch) = view.word_of_others(role, world.clock(n)) else {
            continue;
        };
        let spans = active.spans(role).iter().rev();
        let last = spans
            .filter(|(_, _, who, at)| *at == epoch && world.nodes[*who].name == name)
            .map(|(_, to, ..)| *to)
            .next();
        // The clock of this node may be slower than true time.
        let window = node.config.cluster.window;
        let allowed = (window + window / 100).as_nanos() as u64;
        if last.is_none_or(|last| world.now.saturating_sub(last) > allowed) {
            return violated(
                NAME,
                format!(
                    "{} names {name} at epoch {epoch} for {role}, which was last so at {last:?}",
                    node.name
                ),
            );
        }
    }
    Ok(())
}
