//! The plan never puts observers, witnesses, drained or unfit nodes in line (DESIGN §6). What the coordinator cannot know yet is not
//! held against it: news of a node are younger than W/2, or it counts as unknown and is left out.

use super::{Held, violated};
use crate::sim::world::{App, Machine, World};
use crate::state::Command;
use baton_shared::id::{NodeId, RoleName};
use std::time::Duration;

pub(super) const NAME: &str = "only fit nodes in line";

/// Node `n` proposes.
pub(super) fn look(world: &World, n: usize, command: &Command) -> Held {
    let Command::SetLine { role, order, .. } = command else {
        return Ok(());
    };
    let proposer = &world.nodes[n];
    let window = proposer.config.cluster.window;
    let known = world
        .now
        .saturating_sub((window * 3 / 5 + Duration::from_millis(20)).as_nanos() as u64);
    let drained = proposer.applied.as_ref().map(|(state, _)| &state.drained);
    let up_to_date = world.now >= proposer.behind_until;
    let mut seen: Vec<NodeId> = Vec::new();
    for (place, owner) in order.iter().enumerate() {
        // A holder that is moved up comes first, whatever its health (DESIGN §5).
        if seen.contains(&owner.node) || (place == 0 && held_lately(world, role, owner.node, known)) {
            continue;
        }
        seen.push(owner.node);
        let Some(node) = world.nodes.iter().find(|m| m.id == owner.node) else {
            continue; // wiped since
        };
        let config = proposer.config.nodes.get(&node.name);
        let why = if config.is_none_or(|config| !config.kind.may_act()) {
            "is no member"
        } else if drained.is_some_and(|drained| drained.contains(&node.name)) {
            "is drained"
        } else if up_to_date
            && node.boot == owner.boot.0
            && node.unfit_since.get(role).is_some_and(|since| *since < known)
        {
            "has long been unfit"
        } else {
            continue;
        };
        return violated(
            NAME,
            format!(
                "{} puts {} in line for {role}, which {why}",
                proposer.name, node.name
            ),
        );
    }
    Ok(())
}

/// Its application acts, or did so at an instant of which the coordinator may have the last news.
fn held_lately(world: &World, role: &RoleName, node: NodeId, known: u64) -> bool {
    let holds = |m: &Machine| {
        let acts = m.apps.get(role).is_some_and(|app| *app != App::Passive);
        let acted = m.stopped_acting.get(role).is_some_and(|at| *at >= known);
        m.id == node && (acts || acted)
    };
    world.nodes.iter().any(holds)
}
