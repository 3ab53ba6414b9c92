//! A voter never runs two promises for one role: what it promised holds until it ends by the voter's own clock, restarts or
//! not, unless exactly that epoch was released or its boot is dead (V1, V2, V4, V6).

use super::released::Released;
use super::{Violation, violated};
use crate::promise::Promise;
use crate::sim::world::World;
use baton_shared::id::{NodeId, RoleName};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "one promise";

/// What each voter promised last; a clone is a voter of its own.
#[derive(Default)]
pub(super) struct Promises(BTreeMap<(usize, NodeId, RoleName), (Promise, u64)>);

impl Promises {
    /// Looks at every role of node `n`. Returns the promises that ended before their time in the present boot.
    pub fn look(
        &mut self,
        world: &World,
        n: usize,
        released: &Released,
    ) -> Result<Vec<(RoleName, Promise)>, Violation> {
        let node = &world.nodes[n];
        let (Some(core), now) = (&node.core, world.clock(n)) else {
            return Ok(Vec::new());
        };
        let mut early = Vec::new();
        for role in node.guards.keys() {
            let running = core.voter(role).running(now);
            let key = (n, node.id, role.clone());
            let before = self
                .0
                .get(&key)
                .filter(|(promise, _)| now < promise.until)
                .copied();
            if let Some((before, boot)) = before
                && running.is_none_or(|promise| promise.owner != before.owner)
            {
                let over = released.ended(role, before.epoch, before.owner);
                if over && boot == node.boot {
                    early.push((role.clone(), before));
                }
                if !over && let Some(promise) = running {
                    return violated(
                        NAME,
                        format!(
                            "{} promised {role} to {:?} until {:?}, and at {now:?} to {:?}",
                            node.name, before.owner, before.until, promise.owner
                        ),
                    );
                }
                if over {
                    self.0.remove(&key);
                }
            }
            if let Some(promise) = running {
                self.0.insert(key, (promise, node.boot));
            }
        }
        Ok(early)
    }
}
