//! Logs that stand still: what is decided does not get there.

use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::finding::Finding;
use crate::cli::wall::short_ms;

/// An entry is everywhere well before so long, and nodes say so in their next heartbeat, which goes ten times in a window.
const ENOUGH_MS: f64 = 800.0;
const BEATS: f64 = 2.5;

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let (Some(status), Some(later)) = (facts.status(), &facts.later) else {
        return;
    };
    let enough = ENOUGH_MS.max(facts.window_ms().unwrap_or(0.0) / 10.0 * BEATS);
    if later.after_ms < enough || !status.in_touch || !status.waiting_for.is_empty() {
        return;
    }
    let newest = status.nodes.iter().filter_map(|node| node.applied).max();
    for node in &status.nodes {
        let (Some(newest), Some(before)) = (newest, node.applied) else {
            continue;
        };
        let unready = node.name == status.node && !status.ready && !later.ready;
        if later.applied.get(&node.name) != Some(&before) || (before == newest && !unready) {
            continue;
        }
        let behind = match newest - before {
            0 => "the coordinator has more".into(),
            behind => format!("{behind} behind the newest that is known"),
        };
        out.push(Finding::broken(
            "log",
            format!(
                "the log of {} stands still at entry {before}, {behind}; nothing came in there for {}",
                node.name,
                short_ms(later.after_ms)
            ),
            format!(
                "run `baton doctor` on {}: its disk may hang, or TCP may be blocked on the port of the networks; meanwhile it is a \
                 standby that does not know what was decided",
                node.name
            ),
        ));
    }
}
