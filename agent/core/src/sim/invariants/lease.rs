//! S4: nobody acts past its lease. The lease is worked out anew here, from what was sent and what was granted: a majority of each
//! set of one electorate, each counted from the first sending of what it granted, plus 0.99 W of the holder's own clock (H2, H3).

use super::{Held, violated};
use crate::sim::world::{App, Machine, World};
use baton_shared::clock::Mono;
use baton_shared::id::{ElectorateId, Epoch, NodeId, RoleName};
use baton_shared::seal::Header;
use baton_shared::succession::Electorate;
use baton_shared::wire::Heartbeat;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const NAME: &str = "S4 nobody acts past its lease";

/// One run of one node.
type Run = (NodeId, u64);
/// For each voter, epoch and electorate: when the newest claim that it granted first left, by the claimant's clock.
type Grants = BTreeMap<(Epoch, ElectorateId, NodeId), Mono>;

/// What was sent, and what was granted.
#[derive(Default)]
pub(super) struct Leases {
    /// When each sequence of a run first left; they are counted from 1.
    sent: BTreeMap<Run, Vec<Mono>>,
    grants: BTreeMap<(Run, RoleName), Grants>,
    electorates: BTreeMap<ElectorateId, Electorate>,
    /// The last end worked out for an application that acts since this epoch: it only ever gets later.
    ends: BTreeMap<(Run, RoleName, Epoch), Mono>,
}

fn run(machine: &Machine) -> Run {
    (machine.id, machine.boot)
}

impl Leases {
    /// Takes note of a new electorate.
    pub fn learn(&mut self, world: &World) {
        if self.electorates.len() as u64 != world.log.electorates {
            let electorate = world.log.state().electorate.clone();
            self.electorates.insert(electorate.id, electorate);
        }
    }

    /// Node `n` sends something; only the first sending of a sequence counts.
    pub fn sent(&mut self, world: &World, n: usize, seq: u64) {
        self.first_sent(run(&world.nodes[n]), seq, world.clock(n));
    }

    /// When this sequence first left: now, if it never did.
    fn first_sent(&mut self, run: Run, seq: u64, now: Mono) -> Mono {
        let sent = self.sent.entry(run).or_default();
        let at = seq as usize;
        if sent.len() <= at {
            sent.resize(at + 1, Mono::MAX);
        }
        sent[at] = sent[at].min(now);
        sent[at]
    }

    /// A heartbeat reaches this machine, perhaps with a grant for it.
    pub fn heard(&mut self, machine: &Machine, header: &Header, heartbeat: &Heartbeat) {
        for beat in &heartbeat.roles {
            let Some(grant) = beat.grant.filter(|grant| grant.owner == machine.owner()) else {
                continue;
            };
            let sent = self
                .sent
                .get(&run(machine))
                .and_then(|sent| sent.get(grant.seq as usize))
                .copied();
            if let Some(sent) = sent {
                let grants = self.grants.entry((run(machine), beat.role.clone())).or_default();
                let newest = grants
                    .entry((grant.epoch, grant.electorate, header.sender))
                    .or_default();
                *newest = (*newest).max(sent);
            }
        }
    }

    /// Node `n` may have voted for itself: that claim left when it was judged.
    pub fn voted(&mut self, world: &World, n: usize) {
        let node = &world.nodes[n];
        let Some(core) = &node.core else { return };
        for role in node.guards.keys() {
            let Some(grant) = core
                .voter(role)
                .grant()
                .filter(|grant| grant.owner == node.owner())
            else {
                continue;
            };
            let sent = self.first_sent(run(node), grant.seq, world.clock(n));
            let grants = self.grants.entry((run(node), role.clone())).or_default();
            let newest = grants
                .entry((grant.epoch, grant.electorate, node.id))
                .or_default();
            *newest = (*newest).max(sent);
        }
    }

    /// Until when node `n` may act for a role at `epoch` or, by moving up, at a greater one.
    fn end(&self, world: &World, n: usize, role: &RoleName, epoch: Epoch) -> Option<Mono> {
        let node = &world.nodes[n];
        let grants = self.grants.get(&(run(node), role.clone()))?;
        let window = node.config.cluster.window;
        let lease = Duration::from_nanos(window.as_nanos() as u64 / 100 * 99);
        let mut epochs: Vec<Epoch> = grants.keys().map(|(epoch, ..)| *epoch).collect();
        epochs.dedup();
        let counts = |e: &Epoch| *e >= epoch;
        let of = |epoch: Epoch, electorate: &Electorate| {
            electorate.kth_greatest(|voter| grants.get(&(epoch, electorate.id, voter)).copied())
        };
        let ends = epochs.into_iter().filter(counts).flat_map(|epoch| {
            self.electorates
                .values()
                .filter_map(move |electorate| of(epoch, electorate))
        });
        ends.max().map(|sent| sent + lease)
    }

    /// Node `n` opens its guard.
    pub fn opened(&self, world: &World, n: usize, role: &RoleName, epoch: Epoch, until: Mono) -> Held {
        let end = self.end(world, n, role, epoch);
        if end.is_none_or(|end| until > end) {
            let name = &world.nodes[n].name;
            return violated(
                NAME,
                format!(
                    "{name} would act for {role} at epoch {epoch} until {until:?}; its lease ends at {end:?}"
                ),
            );
        }
        Ok(())
    }

    /// An application of node `n` that takes time to stop, and acted since this epoch, has stopped: in time, unless the last resort
    /// failed (`one_application.rs`).
    pub fn stopped(&self, world: &World, n: usize, role: &RoleName, since: Epoch) -> Held {
        let (node, now) = (&world.nodes[n], world.clock(n));
        let end = self.end(world, n, role, since).unwrap_or_default();
        if now > end && !node.at_wits_end.contains(role) {
            return violated(
                NAME,
                format!(
                    "the application of {} for {role}, since epoch {since}, stops at {now:?}; its lease ended at {end:?}",
                    node.name
                ),
            );
        }
        Ok(())
    }

    /// Node `n` has done all that it was told: its applications act only within its leases.
    pub fn acting(&mut self, world: &World, n: usize) -> Held {
        let node = &world.nodes[n];
        for (role, app) in &node.apps {
            let App::Acting(epoch) = app else { continue };
            let (now, key) = (world.clock(n), (run(node), role.clone(), *epoch));
            if self.ends.get(&key).is_some_and(|end| now < *end) {
                continue;
            }
            let end = self.end(world, n, role, *epoch);
            self.ends.insert(key, end.unwrap_or_default());
            if end.is_none_or(|end| now >= end) {
                return violated(
                    NAME,
                    format!(
                        "the application of {} acts for {role} since epoch {epoch}, after its lease ended",
                        node.name
                    ),
                );
            }
        }
        Ok(())
    }
}
