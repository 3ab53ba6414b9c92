//! S1: at no instant of true time are two nodes active for one role. What is asked is what a balancer would be answered.

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::{Epoch, RoleName};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "S1 one active";

/// Who was active when.
#[derive(Default)]
pub(super) struct OneActive(BTreeMap<RoleName, Spans>);

#[derive(Default)]
struct Spans {
    all: Vec<(u64, u64, usize, Epoch)>,
    /// Whether the last of them goes on; and when its guard will end, in true time.
    open: bool,
    until: u64,
}

impl OneActive {
    /// Looks at every node.
    pub fn look(&mut self, world: &World, role: &RoleName) -> Held {
        let mut found: Option<(usize, Epoch)> = None;
        for (n, node) in world.nodes.iter().enumerate() {
            let Some(epoch) = node.active(role, world.now) else {
                continue;
            };
            if let Some((other, at)) = found {
                return violated(
                    NAME,
                    format!(
                        "{} at epoch {at} and {} at epoch {epoch} for role {role}",
                        world.nodes[other].name, node.name
                    ),
                );
            }
            found = Some((n, epoch));
        }
        if !self.0.contains_key(role) {
            self.0.insert(role.clone(), Spans::default());
        }
        let spans = self.0.get_mut(role).expect("it was just put there");
        let now = world.now;
        let same = match (spans.all.last_mut(), found) {
            (Some((_, to, n, epoch)), Some(found)) if (*n, *epoch) == found && now <= spans.until => {
                *to = now;
                true
            }
            (Some((_, to, ..)), _) if spans.open => {
                // It ended between two events, when its guard did.
                *to = (*to).max(spans.until.min(now));
                false
            }
            _ => false,
        };
        spans.open = found.is_some();
        if let Some((n, epoch)) = found {
            if !same {
                spans.all.push((now, now, n, epoch));
            }
            spans.until = world.nodes[n].true_time(world.nodes[n].guards[role].read().1);
        }
        Ok(())
    }

    /// The node that is active now, and its epoch.
    pub fn current(&self, role: &RoleName) -> Option<(usize, Epoch)> {
        let spans = self.0.get(role).filter(|spans| spans.open)?;
        spans.all.last().map(|(_, _, n, epoch)| (*n, *epoch))
    }

    pub fn spans(&self, role: &RoleName) -> &[(u64, u64, usize, Epoch)] {
        self.0.get(role).map_or(&[], |spans| &spans.all)
    }
}
