//! On the coordinator: who belongs to the cluster. Lets nodes in, changes the electorate (V5), and makes the engine's
//! members match. Driven by the configuration and by who is heard; every step is idempotent and asked for again until it
//! is seen to be done.

use crate::cluster::{Cluster, Queue};
use crate::output::{EngineChange, Output};
use crate::role::RoleCore;
use crate::state::Command;
use baton_shared::clock::Mono;
use baton_shared::id::{ClusterId, ElectorateId, NodeId, NodeName, RoleName};
use baton_shared::succession::{Electorate, Floor};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two steps asked for.
const STEP: Duration = Duration::from_millis(250);
/// A learner this close to the end of the log may vote.
const CAUGHT_UP: u64 = 64;

/// How long the end of a change waits for a holder to move up above a floor that somebody burned.
const MOVE_UP_LIMIT: Duration = Duration::from_secs(10);

/// What the coordinator remembers of a change under way. A new coordinator remembers nothing, and waits anew (V5).
#[derive(Default)]
pub(crate) struct Membership {
    /// Since when a majority of each set has reported that it durably adopted this joint electorate.
    adopted: Option<(ElectorateId, Mono)>,
    next_step: Mono,
    bootstrap_at: Mono,
    /// Voters that an operator said not to wait for.
    pub without: BTreeSet<NodeName>,
    /// Floors that were reported before a joint electorate was adopted.
    #[cfg(test)]
    early: Option<(ElectorateId, BTreeMap<RoleName, Floor>)>,
}

impl Membership {
    /// Asks for the next step, if one is due. Returns when to look again.
    pub fn turn(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) -> Mono {
        if c.state.cluster == ClusterId(0) {
            return self.bootstrap(c, q, now);
        }
        if !c.is_coordinator() {
            self.adopted = None;
            return Mono::MAX;
        }
        if c.state.electorate.next.is_some() {
            return self.complete(roles, c, q, now);
        }
        if self.adopted.take().is_some() {
            self.next_step = now; // the change is done: the engine's members follow at once
        }
        if now < self.next_step {
            return self.next_step;
        }
        if self.step(c, q, now) {
            self.next_step = now + STEP;
            return self.next_step;
        }
        Mono::MAX
    }

    /// Every configured voter is fresh, heard both ways and configured alike: the one with the lowest name asks.
    fn bootstrap(&mut self, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        if now < self.bootstrap_at {
            return self.bootstrap_at;
        }
        let Ok(members) = self.starters(c, now) else {
            return Mono::MAX;
        };
        let lowest = members
            .values()
            .filter(|(_, kind)| kind.votes())
            .map(|(name, _)| name)
            .min();
        if lowest != Some(c.me()) {
            return Mono::MAX;
        }
        self.bootstrap_at = now + Duration::from_secs(1);
        q.push(Output::Bootstrap { members });
        self.bootstrap_at
    }

    /// The nodes that would start the cluster; or the voters that are missing.
    pub fn starters(
        &self,
        c: &Cluster,
        now: Mono,
    ) -> Result<BTreeMap<NodeId, (NodeName, baton_shared::id::Kind)>, Vec<NodeName>> {
        let mut members = BTreeMap::new();
        let mut missing = Vec::new();
        let voters: Vec<_> = c
            .config
            .nodes
            .iter()
            .filter(|(_, node)| node.kind.votes())
            .collect();
        for (name, node) in &voters {
            if *name == c.me() {
                members.insert(c.id, ((*name).clone(), node.kind));
                continue;
            }
            let ready = c.peers.get(*name).filter(|peer| {
                peer.fresh(&c.timing, now).is_some_and(|r| {
                    let theirs = r.heartbeat.cluster;
                    r.heartbeat.digest == c.digest && (theirs == ClusterId(0) || theirs == c.cluster)
                })
            });
            match ready {
                Some(peer) => {
                    members.insert(peer.id, ((*name).clone(), node.kind));
                }
                None => missing.push((*name).clone()),
            }
        }
        missing.retain(|name| !self.without.contains(name));
        let enough = members.len() >= baton_shared::succession::majority_of(voters.len());
        if missing.is_empty() && enough && c.config.my_node().kind.votes() {
            Ok(members)
        } else {
            Err(missing)
        }
    }

    /// V5, second half. The floors are those of voters that had durably adopted the joint electorate when they reported;
    /// 1.02 W later no lease under the old one is left.
    fn complete(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) -> Mono {
        let joint = &c.state.electorate;
        broken!(FloorsBeforeAdoption => {
            if self.early.as_ref().is_none_or(|(id, _)| *id != joint.id) {
                self.early = Some((joint.id, reported_floors(joint, roles, c, |_| true)));
            }
        });
        let has_adopted = |id: NodeId| {
            if id == c.id {
                return c.adoption(now) == joint.id;
            }
            // The digest vouches for the window: the wait below is too short for leases of a longer one.
            let report = c.peer(id).and_then(|p| p.fresh(&c.timing, now));
            report.is_some_and(|r| r.heartbeat.electorate == joint.id && r.heartbeat.digest == c.digest)
        };
        if !joint.majority(has_adopted) {
            self.let_in(joint, c, q, now);
            return now + c.timing.interval;
        }
        let since = match self.adopted {
            Some((id, since)) if id == joint.id => since,
            _ => {
                self.adopted = Some((joint.id, now));
                now
            }
        };
        let due = since
            + if broken!(ChangeWithoutWait) {
                Duration::ZERO
            } else {
                c.timing.change
            };
        if now < due {
            return due;
        }
        if now < self.next_step {
            return self.next_step;
        }
        self.next_step = now + STEP;
        let floors = reported_floors(joint, roles, c, has_adopted);
        #[cfg(test)]
        let floors = self.early.as_ref().map_or(floors, |(_, early)| early.clone());
        // The greatest floors bind everybody: a holder below one of them is moved up first (`plan`), not cut off.
        let outgrown = |(name, role): (&RoleName, &RoleCore)| {
            let holder = crate::coordinate::picture(role, c, now).holder;
            holder.is_some_and(|holder| floors[name].epoch > holder.epoch)
        };
        if roles.iter().any(outgrown) && now < due + MOVE_UP_LIMIT {
            return self.next_step;
        }
        q.propose(Command::Settle {
            from: joint.id,
            floors,
        });
        self.next_step
    }

    /// A new voter can adopt the joint electorate only if the log reaches it. A coordinator with an older configuration may have
    /// taken it out of the engine while the change was on its way.
    fn let_in(&mut self, joint: &Electorate, c: &Cluster, q: &mut Queue, now: Mono) {
        if now < self.next_step {
            return;
        }
        self.next_step = now + STEP;
        let engine = engine(c);
        for id in joint.all().into_iter().filter(|id| !engine.contains(id)) {
            if let Some(name) = c.state.name_of(id).cloned() {
                q.push(Output::Engine(EngineChange::AddLearner { id, name }));
            }
        }
    }

    /// One step towards the configured members. False if there is nothing to do.
    fn step(&mut self, c: &Cluster, q: &mut Queue, now: Mono) -> bool {
        let Some(wanted) = Wanted::new(c, now) else {
            return false;
        };
        let engine = engine(c);
        let mut asked = false;
        for (id, (name, kind)) in &wanted.present {
            if c.state
                .nodes
                .get(id)
                .is_none_or(|record| record.name != *name || record.kind != *kind)
            {
                q.propose(Command::Node {
                    id: *id,
                    name: name.clone(),
                    kind: *kind,
                });
                asked = true;
            }
            if !engine.contains(id) {
                q.push(Output::Engine(EngineChange::AddLearner {
                    id: *id,
                    name: name.clone(),
                }));
                asked = true;
            }
        }
        if asked {
            return true;
        }
        let electorate = &c.state.electorate;
        if wanted.voters != electorate.voters {
            let newcomers: Vec<NodeId> = wanted.voters.difference(&electorate.voters).copied().collect();
            let caught_up = |id: &NodeId| {
                c.coordinator
                    .matched
                    .get(id)
                    .is_some_and(|at| at + CAUGHT_UP >= c.coordinator.last_log)
            };
            if !newcomers.iter().all(caught_up) {
                return true;
            }
            q.propose(Command::Joint {
                from: electorate.id,
                next: wanted.voters,
            });
            return true;
        }
        let others: BTreeSet<NodeId> = wanted.ids().difference(&electorate.voters).copied().collect();
        if c.coordinator.voters != electorate.voters
            || engine
                .iter()
                .any(|id| !electorate.contains(*id) && !others.contains(id))
        {
            // Two changes at once the engine refuses by itself.
            if c.coordinator.settled {
                let (voters, learners) = (electorate.voters.clone(), others);
                q.push(Output::Engine(EngineChange::SetMembers { voters, learners }));
            }
            return true;
        }
        let gone = c
            .state
            .nodes
            .keys()
            .find(|id| !engine.contains(id) && !wanted.ids().contains(id));
        if let Some(id) = gone {
            q.propose(Command::Forget { id: *id });
            return true;
        }
        false
    }
}

/// Everybody to whom the engine replicates.
fn engine(c: &Cluster) -> BTreeSet<NodeId> {
    let coordinator = &c.coordinator;
    coordinator.voters.union(&coordinator.learners).copied().collect()
}

/// The greatest floors that these voters report.
fn reported_floors(
    electorate: &Electorate,
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    counts: impl Fn(NodeId) -> bool,
) -> BTreeMap<RoleName, Floor> {
    let of = |name: &RoleName, role: &RoleCore, id: NodeId| {
        if id == c.id {
            return role.voter.floor();
        }
        let beat = c.peer(id).and_then(|peer| peer.beat(name));
        beat.map_or(Floor::default(), |beat| beat.floor)
    };
    let voters: Vec<NodeId> = electorate.all().into_iter().filter(|id| counts(*id)).collect();
    let greatest = |(name, role): (&RoleName, &RoleCore)| {
        let floors = voters.iter().map(|id| of(name, role, *id));
        (name.clone(), floors.fold(Floor::default(), Floor::max))
    };
    roles.iter().map(greatest).collect()
}

/// The members that the configuration and the nodes' present ids call for.
struct Wanted {
    /// Nodes that are configured, and belong or may belong to this cluster, by their present id.
    present: BTreeMap<NodeId, (NodeName, baton_shared::id::Kind)>,
    /// Ids of configured nodes that are not heard now, as the log knows them.
    absent: BTreeSet<NodeId>,
    /// The electorate wanted.
    voters: BTreeSet<NodeId>,
}

impl Wanted {
    /// `None` while the nodes disagree about the configuration: then nothing is changed.
    fn new(c: &Cluster, now: Mono) -> Option<Wanted> {
        let mut wanted = Wanted {
            present: BTreeMap::new(),
            absent: BTreeSet::new(),
            voters: BTreeSet::new(),
        };
        for (name, node) in &c.config.nodes {
            let heard = if name == c.me() {
                Some(c.id)
            } else {
                present(c, name)?
            };
            let known = c
                .state
                .nodes
                .iter()
                .filter(|(_, record)| record.name == *name)
                .map(|(id, _)| *id);
            let id = match heard.filter(|id| !keeps_its_vote(c, name, *id, now)) {
                Some(id) => {
                    wanted.present.insert(id, (name.clone(), node.kind));
                    Some(id)
                }
                None => {
                    let id = known.max_by_key(|id| c.state.electorate.contains(*id));
                    wanted.absent.extend(id);
                    id
                }
            };
            if node.kind.votes() {
                wanted.voters.extend(id);
            }
        }
        Some(wanted)
    }

    fn ids(&self) -> BTreeSet<NodeId> {
        self.present.keys().chain(&self.absent).copied().collect()
    }
}

/// Whether the vote of this name stays where it is, though `id` lives under it now: another run of the name was heard lately, and one
/// of the two is not meant to be there. Which one only an operator knows (V7). A node that was replaced has to wait for as long; not if
/// its last run was proven dead, or was stopped in order, before the newcomer was heard: who restarts a node beside its twin does not mean the
/// twin to have its vote.
fn keeps_its_vote(c: &Cluster, name: &NodeName, id: NodeId, now: Mono) -> bool {
    let votes = |(voter, record): (&NodeId, &crate::state::NodeRecord)| {
        record.name == *name && *voter != id && c.state.electorate.contains(*voter)
    };
    let replaces = c.state.nodes.iter().any(votes) && !c.state.electorate.contains(id);
    let peer = c.peers.get(name);
    replaces && peer.is_some_and(|peer| peer.other_id_about(&c.timing, now)) && !broken!(VoteForTwin)
}

/// The id under which a configured node lives now. Outer `None`: it has another configuration.
fn present(c: &Cluster, name: &NodeName) -> Option<Option<NodeId>> {
    let peer = c.peers.get(name)?;
    let Some(report) = peer.report.as_ref() else {
        return Some(None);
    };
    let hb = &report.heartbeat;
    let ours = hb.cluster == c.cluster || hb.cluster == ClusterId(0);
    let usable = ours && peer.id != NodeId(0);
    if !usable {
        return Some(None);
    }
    if hb.digest != c.digest {
        None
    } else {
        Some(Some(peer.id))
    }
}
