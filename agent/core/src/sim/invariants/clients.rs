//! A role is handed over because its holder is cut off from clients at most once a minute, and only while somebody else has had the network of
//! clients within the last window, by what the world knows of cables and cuts.

use super::{Held, violated};
use crate::sim::world::World;
use baton_shared::id::{Epoch, RoleName};
use baton_shared::wire::Heartbeat;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "clients";

/// Between two such handovers at least, in true time: clocks may run fast.
const PAUSE: u64 = 59_000_000_000;

#[derive(Default)]
pub(super) struct Clients {
    /// When a node last could have proved that it has the network, to all but another.
    could: BTreeMap<(usize, usize), u64>,
    /// At which epoch each node said that it holds a role.
    held: BTreeMap<(usize, RoleName), Epoch>,
    /// When each role was last handed over.
    last: BTreeMap<RoleName, u64>,
}

impl Clients {
    /// Node `n` sends a heartbeat.
    pub fn sent(&mut self, world: &World, n: usize, heartbeat: &Heartbeat) -> Held {
        if !world.config.networks[0].clients {
            return Ok(());
        }
        let now = world.now;
        let others: Vec<usize> = world.members().into_iter().filter(|m| *m != n).collect();
        for m in &others {
            let reaches = |k: &usize| k != m && linked(world, *m, *k);
            if others.iter().any(reaches) {
                self.could.insert((*m, n), now);
            }
        }
        for beat in &heartbeat.roles {
            let before = match beat.holding {
                Some(epoch) => self.held.insert((n, beat.role.clone()), epoch),
                None => self.held.remove(&(n, beat.role.clone())),
            };
            let why = beat.farewell.as_deref().unwrap_or_default();
            let gave_up = before.is_some_and(|epoch| beat.released.contains(&epoch));
            if beat.holding.is_some() || !gave_up || !why.starts_with("cut off from clients") {
                continue;
            }
            let name = &world.nodes[n].name;
            if let Some(at) = self.last.insert(beat.role.clone(), now)
                && now < at + PAUSE
            {
                let after = (now - at) / 1_000_000;
                return violated(
                    NAME,
                    format!("{name} hands {} over {after} ms after the last time", beat.role),
                );
            }
            let window = world.config.cluster.window.as_nanos() as u64;
            let could = |m: &usize| self.could.get(&(*m, n)).is_some_and(|at| at + window >= now);
            if !others.iter().any(could) {
                return violated(
                    NAME,
                    format!("{name} hands {} over, and nobody has the network", beat.role),
                );
            }
        }
        Ok(())
    }
}

/// Whether the two reach each other on the first network, both ways, and are there.
fn linked(world: &World, a: usize, b: usize) -> bool {
    let there = |n: usize| world.nodes[n].up && !world.nodes[n].frozen && !world.unplugged.contains(&(n, 0));
    there(a) && there(b) && !world.cut.contains(&(a, b, 0)) && !world.cut.contains(&(b, a, 0))
}
