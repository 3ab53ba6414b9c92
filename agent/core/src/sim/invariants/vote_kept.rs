//! The vote of a name stays with the run that has it while that was heard lately: another run of the name may be somebody's mistake
//! (V7). One that is proven dead, or said that it stops, may be replaced at once.

use super::released::Released;
use super::{Held, violated};
use crate::sim::MS;
use crate::sim::world::{Machine, World};
use crate::state::Command;
use baton_shared::id::{NodeName, Owner};
use baton_shared::seal::Header;
use baton_shared::wire::Heartbeat;
use std::collections::BTreeMap;

pub(super) const NAME: &str = "a vote is kept while its voter is about";

/// Ten seconds, less what clocks may differ in and what a copy may be late.
const ABOUT: u64 = 8_000 * MS;

/// When each run last heard from each other one that did not say that it stops, in true time.
#[derive(Default)]
pub(super) struct Votes(BTreeMap<(Owner, Owner), (NodeName, u64)>);

impl Votes {
    /// A heartbeat reaches this machine.
    pub fn heard(&mut self, machine: &Machine, header: &Header, heartbeat: &Heartbeat, now: u64) {
        let key = (machine.owner(), header.owner());
        if heartbeat.leaving {
            self.0.remove(&key);
        } else {
            self.0.insert(key, (heartbeat.from.clone(), now));
        }
    }

    /// Node `n` proposes.
    pub fn look(&self, world: &World, n: usize, command: &Command, released: &Released) -> Held {
        let Command::Joint { next, .. } = command else {
            return Ok(());
        };
        let node = &world.nodes[n];
        let Some((state, _)) = &node.applied else {
            return Ok(());
        };
        for voter in state.electorate.voters.difference(next) {
            let heard = self.0.iter().find(|((by, of), (_, at))| {
                *by == node.owner() && of.node == *voter && *at + ABOUT > world.now && !released.is_dead(*of)
            });
            let Some((_, (name, _))) = heard else { continue };
            let mut news = next.difference(&state.electorate.voters);
            if news.any(|id| state.name_of(*id) == Some(name)) {
                return violated(
                    NAME,
                    format!(
                        "{} would give the vote of {name} away, and has just heard it",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
