//! The replicated state: what consensus agrees on. [`State::apply`] is the whole of the state machine; the engine only
//! orders commands and keeps them.
//!
//! Every command that depends on what its proposer saw names the version that it saw, and is ignored, with a reason,
//! when that is no longer current. So a command applied twice, or late, does no harm.

use baton_shared::id::{ClusterId, ElectorateId, Epoch, Kind, NodeId, NodeName, Owner, RoleName};
use baton_shared::succession::{Electorate, Floor, Line, Place};
use baton_shared::view::Event;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Events kept.
pub const MAX_EVENTS: usize = 1000;
/// An event that is proposed again is looked for among so many of the newest.
pub const TOLD_AGAIN_WITHIN: usize = 64;
/// Places in one line at most: several rounds of the largest cluster meant (32 nodes).
pub const MAX_PLACES: usize = 96;

/// A change to the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first: names the cluster, its nodes and its first electorate (the voters among them). Later ones are ignored.
    Init {
        /// The new cluster's id.
        cluster: ClusterId,
        /// Its nodes.
        nodes: Vec<(NodeId, NodeName, Kind)>,
    },
    /// Replaces a role's line. Each of `order` gets an epoch above all that were ever given.
    SetLine {
        /// The role.
        role: RoleName,
        /// Version of the line that the proposer saw.
        replaces: u64,
        /// Who comes next, in order; several rounds.
        order: Vec<Owner>,
        /// Lower bound for the epochs, Unix milliseconds; so tokens grow even past a lost cluster.
        wall_ms: u64,
        /// The holder at this epoch shall hand over.
        handover: Option<Epoch>,
        /// Why.
        cause: String,
    },
    /// First half of a change of voters: old and new set together (V5).
    Joint {
        /// The electorate that the proposer saw; must be a single set.
        from: ElectorateId,
        /// The new voters.
        next: BTreeSet<NodeId>,
    },
    /// Second half: the new set alone, with the greatest floors that a majority of each set reported (V5).
    Settle {
        /// The joint electorate that the proposer saw.
        from: ElectorateId,
        /// The floors.
        floors: BTreeMap<RoleName, Floor>,
    },
    /// A node joined, or an id got a name.
    Node {
        /// Its consensus id.
        id: NodeId,
        /// Its name.
        name: NodeName,
        /// Its kind.
        kind: Kind,
    },
    /// A node is gone for good. Ignored while it votes.
    Forget {
        /// Its consensus id.
        id: NodeId,
    },
    /// An operator takes a node out of line, or puts it back.
    Drain {
        /// The node.
        node: NodeName,
        /// Out or back.
        drained: bool,
    },
    /// An operator suspends or resumes automatic takeovers.
    Pause(bool),
    /// Something that happened, for the history. A takeover also raises the recorded epoch.
    Record {
        /// The event; its number is given when it is applied.
        event: Event,
        /// For a takeover: who became active.
        place: Option<Place>,
    },
    /// What copies of the DNS zone show from now on.
    Copy {
        /// The digest that the proposer saw.
        replaces: Option<u64>,
        /// The new one.
        digest: u64,
    },
}

/// What applying a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The state changed, or already was so.
    Applied,
    /// Ignored, and why.
    Ignored(String),
}

/// A node known to the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its kind.
    pub kind: Kind,
}

/// What is agreed about one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct RoleRecord {
    /// The line of succession.
    pub line: Line,
    /// Greatest epoch ever given.
    pub last: Epoch,
    /// The greatest epoch recorded as active, and whose it is (V3).
    pub active: Option<Place>,
}

/// The replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct State {
    /// The cluster's id; 0 before `Init`.
    pub cluster: ClusterId,
    /// Every node that was ever let in and not forgotten.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Who votes.
    pub electorate: Electorate,
    /// Floors in the electorate's entry (V3, V5).
    pub floors: BTreeMap<RoleName, Floor>,
    /// Every role that had a line or an event.
    pub roles: BTreeMap<RoleName, RoleRecord>,
    /// Nodes out of line by an operator's word.
    pub drained: BTreeSet<NodeName>,
    /// Automatic takeovers are suspended.
    pub paused: bool,
    /// The newest events, oldest first.
    pub events: VecDeque<Event>,
    /// Number of the newest event.
    pub event_number: u64,
    /// Digest of what copies of the DNS zone show (`baton_shared::copy`).
    pub copy: Option<u64>,
}

impl State {
    /// Applies one committed command. Deterministic: the same commands in the same order give the same state.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Init { cluster, nodes } => self.init(*cluster, nodes),
            Command::SetLine {
                role,
                replaces,
                order,
                wall_ms,
                handover,
                cause,
            } => self.set_line(role, *replaces, order, *wall_ms, *handover, cause),
            Command::Joint { from, next } => self.joint(*from, next),
            Command::Settle { from, floors } => self.settle(*from, floors),
            Command::Node { id, name, kind } => {
                self.nodes.insert(
                    *id,
                    NodeRecord {
                        name: name.clone(),
                        kind: *kind,
                    },
                );
                Outcome::Applied
            }
            Command::Forget { id } => {
                if self.electorate.contains(*id) {
                    return ignored("the node still votes");
                }
                self.nodes.remove(id);
                Outcome::Applied
            }
            Command::Drain { node, drained } => {
                if *drained {
                    self.drained.insert(node.clone());
                } else {
                    self.drained.remove(node);
                }
                Outcome::Applied
            }
            Command::Pause(paused) => {
                self.paused = *paused;
                Outcome::Applied
            }
            Command::Record { event, place } => self.record(event, *place),
            Command::Copy { replaces, digest } => self.copy(*replaces, *digest),
        }
    }

    /// The name of a consensus id.
    pub fn name_of(&self, id: NodeId) -> Option<&NodeName> {
        self.nodes.get(&id).map(|record| &record.name)
    }

    /// The greatest epoch ever given to any role.
    pub fn greatest(&self) -> Epoch {
        self.roles
            .values()
            .map(|role| role.last)
            .max()
            .unwrap_or_default()
    }

    /// The floor that the log knows of for a role: of the electorate's entry and of what was recorded as active (V3).
    pub fn floor(&self, role: &RoleName) -> Floor {
        let entry = self.floors.get(role).copied().unwrap_or_default();
        match self.roles.get(role).and_then(|r| r.active) {
            Some(place) if place.epoch > entry.epoch => Floor {
                epoch: place.epoch,
                owner: Some(place.owner),
                open: true,
            },
            _ => entry,
        }
    }

    fn init(&mut self, cluster: ClusterId, nodes: &[(NodeId, NodeName, Kind)]) -> Outcome {
        if self.cluster != ClusterId(0) {
            return if self.cluster == cluster {
                Outcome::Applied
            } else {
                ignored("the cluster has another id")
            };
        }
        if cluster == ClusterId(0) {
            return ignored("0 is no cluster's id");
        }
        self.cluster = cluster;
        for (id, name, kind) in nodes {
            self.nodes.insert(
                *id,
                NodeRecord {
                    name: name.clone(),
                    kind: *kind,
                },
            );
        }
        let voters = nodes
            .iter()
            .filter(|(_, _, kind)| kind.votes())
            .map(|(id, ..)| *id)
            .collect();
        self.electorate = Electorate {
            id: ElectorateId(1),
            voters,
            next: None,
        };
        Outcome::Applied
    }

    fn set_line(
        &mut self,
        role: &RoleName,
        replaces: u64,
        order: &[Owner],
        wall_ms: u64,
        handover: Option<Epoch>,
        cause: &str,
    ) -> Outcome {
        let record = self.roles.entry(role.clone()).or_default();
        if record.line.version != replaces {
            return ignored("another line was made meanwhile");
        }
        if order.len() > MAX_PLACES {
            return ignored("the line is too long");
        }
        // S2: an epoch that wrapped around, or was given twice, would be no fencing token.
        let first = record.last.0.checked_add(1).map(|next| next.max(wall_ms));
        let Some(first) = first.filter(|first| first.checked_add(MAX_PLACES as u64).is_some()) else {
            return ignored("epochs have run out");
        };
        let places: Vec<Place> = (first..)
            .map(Epoch)
            .zip(order)
            .map(|(epoch, owner)| Place { epoch, owner: *owner })
            .collect();
        record.last = places.last().map_or(record.last, |place| place.epoch);
        record.line = Line {
            version: replaces + 1,
            places,
            handover,
            cause: cause.to_owned(),
        };
        Outcome::Applied
    }

    fn joint(&mut self, from: ElectorateId, next: &BTreeSet<NodeId>) -> Outcome {
        if self.electorate.id != from || self.electorate.next.is_some() {
            return ignored("the electorate changed meanwhile");
        }
        // Without voters, as before `Init`, there is nobody to agree; and `Init` would count from 1 again.
        if next.is_empty() || self.electorate.voters.is_empty() {
            return ignored("an electorate needs a voter");
        }
        self.electorate.id.0 += 1;
        self.electorate.next = Some(next.clone());
        Outcome::Applied
    }

    fn settle(&mut self, from: ElectorateId, floors: &BTreeMap<RoleName, Floor>) -> Outcome {
        if self.electorate.id != from {
            return ignored("the electorate changed meanwhile");
        }
        let Some(next) = self.electorate.next.take() else {
            return ignored("no change of the electorate is under way");
        };
        self.electorate = Electorate {
            id: ElectorateId(from.0 + 1),
            voters: next,
            next: None,
        };
        for (role, floor) in floors {
            let entry = self.floors.entry(role.clone()).or_default();
            *entry = entry.max(*floor);
        }
        Outcome::Applied
    }

    fn copy(&mut self, replaces: Option<u64>, digest: u64) -> Outcome {
        if self.copy != Some(digest) {
            if self.copy != replaces {
                return ignored("copies of the zone changed meanwhile");
            }
            self.copy = Some(digest);
        }
        Outcome::Applied
    }

    fn record(&mut self, event: &Event, place: Option<Place>) -> Outcome {
        if let (Some(place), Some(role)) = (place, &event.role) {
            let record = self.roles.entry(role.clone()).or_default();
            match record.active {
                Some(active) if active == place => return Outcome::Applied,
                Some(active) if active.epoch >= place.epoch => {
                    return ignored("a later takeover is recorded");
                }
                _ => record.active = Some(place),
            }
            record.last = record.last.max(place.epoch);
        }
        // Whoever had no answer proposes it again, and the first may be in the log by then.
        let mut newest = self.events.iter().rev().take(TOLD_AGAIN_WITHIN);
        if place.is_none() && newest.any(|known| known.same(event)) {
            return Outcome::Applied;
        }
        self.event_number += 1;
        self.events.push_back(Event {
            number: self.event_number,
            ..event.clone()
        });
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
        Outcome::Applied
    }
}

fn ignored(why: &str) -> Outcome {
    Outcome::Ignored(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::Boot;
    use proptest::prelude::*;

    fn owner(n: u64) -> Owner {
        Owner {
            node: NodeId(n),
            boot: Boot(1),
        }
    }

    fn line(role: &RoleName, replaces: u64, order: &[u64], wall_ms: u64) -> Command {
        let order = order.iter().map(|n| owner(*n)).collect();
        Command::SetLine {
            role: role.clone(),
            replaces,
            order,
            wall_ms,
            handover: None,
            cause: String::new(),
        }
    }

    #[test]
    fn epochs_only_grow_whatever_the_wall_clock_says() {
        let role = RoleName::new("main").unwrap();
        let mut state = State::default();
        state.apply(&line(&role, 0, &[1, 2], 1000));
        state.apply(&line(&role, 1, &[2, 1], 5));
        let epochs: Vec<u64> = state.roles[&role].line.places.iter().map(|p| p.epoch.0).collect();
        assert_eq!(epochs, [1002, 1003]);
        assert!(matches!(
            state.apply(&line(&role, 1, &[1], 0)),
            Outcome::Ignored(_)
        ));
    }

    #[test]
    fn epochs_run_out_before_they_repeat() {
        let role = RoleName::new("main").unwrap();
        let mut state = State::default();
        state.apply(&line(&role, 0, &[1], u64::MAX - 1));
        let before = state.clone();
        assert!(matches!(
            state.apply(&line(&role, 1, &[1, 2], 0)),
            Outcome::Ignored(_)
        ));
        assert_eq!(state, before);
    }

    #[test]
    fn there_is_no_electorate_before_the_cluster() {
        let mut state = State::default();
        let joint = Command::Joint {
            from: ElectorateId(0),
            next: [NodeId(1)].into(),
        };
        let nameless = Command::Init {
            cluster: ClusterId(0),
            nodes: vec![(NodeId(1), NodeName::new("a").unwrap(), Kind::Member)],
        };
        for early in [joint, nameless] {
            assert!(matches!(state.apply(&early), Outcome::Ignored(_)));
            assert_eq!(state, State::default());
        }
    }

    #[test]
    fn joint_change_is_only_ever_completed() {
        let mut state = State::default();
        let nodes = (1..=3)
            .map(|n| (NodeId(n), NodeName::new(&format!("n{n}")).unwrap(), Kind::Member))
            .collect();
        state.apply(&Command::Init {
            cluster: ClusterId(9),
            nodes,
        });
        let next: BTreeSet<NodeId> = [NodeId(2), NodeId(3), NodeId(4)].into();
        assert_eq!(
            state.apply(&Command::Joint {
                from: ElectorateId(1),
                next: next.clone()
            }),
            Outcome::Applied
        );
        let again = Command::Joint {
            from: ElectorateId(2),
            next: next.clone(),
        };
        assert!(matches!(state.apply(&again), Outcome::Ignored(_)));
        assert!(matches!(
            state.apply(&Command::Forget { id: NodeId(1) }),
            Outcome::Ignored(_)
        ));
        let settle = Command::Settle {
            from: ElectorateId(2),
            floors: BTreeMap::new(),
        };
        assert_eq!(state.apply(&settle), Outcome::Applied);
        assert_eq!(
            state.electorate,
            Electorate {
                id: ElectorateId(3),
                voters: next,
                next: None
            }
        );
        assert!(matches!(state.apply(&settle), Outcome::Ignored(_)));
    }

    fn commands() -> impl Strategy<Value = Command> {
        let role = || proptest::sample::select(vec!["main", "batch"]).prop_map(|r| RoleName::new(r).unwrap());
        let name = || (0u64..5).prop_map(|n| NodeName::new(&format!("n{n}")).unwrap());
        let id = || (0u64..6).prop_map(NodeId);
        let kind = || proptest::sample::select(vec![Kind::Member, Kind::Observer, Kind::Witness]);
        // Mostly small, so that they meet; sometimes where numbers end.
        let number = || prop_oneof![8 => 0u64..60, 1 => any::<u64>(), 1 => (u64::MAX - 200)..=u64::MAX];
        let place = move || {
            (number(), 0u64..6).prop_map(|(e, n)| Place {
                epoch: Epoch(e),
                owner: owner(n),
            })
        };
        let nodes = proptest::collection::vec((id(), name(), kind()), 0..6);
        let set_line = (
            role(),
            0u64..5,
            prop_oneof![9 => 0usize..8, 1 => 90usize..100],
            number(),
            proptest::option::of(number().prop_map(Epoch)),
        );
        let floors = proptest::collection::btree_map(role(), floors(), 0..3);
        let record = (proptest::option::of(role()), proptest::option::of(place()));
        prop_oneof![
            1 => (0u64..3, nodes).prop_map(|(n, nodes)| Command::Init { cluster: ClusterId(n), nodes }),
            4 => set_line.prop_map(|(role, replaces, places, wall_ms, handover)| Command::SetLine {
                role,
                replaces,
                order: (0..places as u64).map(|n| owner(n % 6)).collect(),
                wall_ms,
                handover,
                cause: "test".into(),
            }),
            2 => (0u64..6, proptest::collection::btree_set(id(), 0..5))
                .prop_map(|(n, next)| Command::Joint { from: ElectorateId(n), next }),
            2 => (0u64..6, floors).prop_map(|(n, floors)| Command::Settle { from: ElectorateId(n), floors }),
            1 => (id(), name(), kind()).prop_map(|(id, name, kind)| Command::Node { id, name, kind }),
            1 => id().prop_map(|id| Command::Forget { id }),
            1 => (name(), any::<bool>()).prop_map(|(node, drained)| Command::Drain { node, drained }),
            1 => any::<bool>().prop_map(Command::Pause),
            1 => (proptest::option::of(0u64..3), 0u64..3)
                .prop_map(|(replaces, digest)| Command::Copy { replaces, digest }),
            2 => record.prop_map(|(role, place)| Command::Record {
                event: Event {
                    number: 0,
                    wall_ms: 1,
                    what: "takeover".into(),
                    role,
                    node: None,
                    from: None,
                    epoch: place.map(|p| p.epoch),
                    cause: String::new(),
                    stages: Vec::new(),
                },
                place,
            }),
        ]
    }

    fn floors() -> impl Strategy<Value = Floor> {
        (
            0u64..5,
            proptest::option::of((0u64..3).prop_map(owner)),
            any::<bool>(),
        )
            .prop_map(|(epoch, owner, open)| Floor {
                epoch: Epoch(epoch),
                owner,
                open,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn any_commands_in_one_order_give_one_state_and_nothing_ever_goes_back(
            commands in proptest::collection::vec(commands(), 0..40),
        ) {
            let (mut state, mut other) = (State::default(), State::default());
            for command in &commands {
                let before = state.clone();
                let outcome = state.apply(command);
                prop_assert_eq!(&other.apply(command), &outcome);
                prop_assert_eq!(&state, &other);
                if let Outcome::Ignored(why) = &outcome {
                    prop_assert!(!why.is_empty());
                }
                never_goes_back(&before, &state)?;
                // Late or repeated, it does no harm: versions that depend on what was seen are named.
                if !matches!(command, Command::Record { .. }) {
                    let once = state.clone();
                    state.apply(command);
                    prop_assert_eq!(&state, &once, "twice: {:?}", command);
                }
            }
        }
    }

    fn never_goes_back(before: &State, after: &State) -> Result<(), TestCaseError> {
        prop_assert!(after.electorate.id >= before.electorate.id);
        prop_assert!(after.greatest() >= before.greatest());
        prop_assert!(before.cluster == ClusterId(0) || before.cluster == after.cluster);
        if before.electorate.next.is_some() {
            let done = before.electorate.next.as_ref() == Some(&after.electorate.voters);
            prop_assert!(
                after.electorate == before.electorate || done,
                "only ever completed"
            );
        }
        prop_assert!(after.event_number >= before.event_number && after.events.len() <= MAX_EVENTS);
        for (role, was) in &before.roles {
            let is = &after.roles[role];
            prop_assert!(is.last >= was.last && is.line.version >= was.line.version);
            prop_assert!(is.active.map(|p| p.epoch) >= was.active.map(|p| p.epoch));
            prop_assert!(after.floor(role).epoch >= before.floor(role).epoch);
            if is.line.version > was.line.version {
                prop_assert!(
                    is.line.places.iter().all(|p| p.epoch > was.last),
                    "each place is above all before"
                );
            } else {
                prop_assert_eq!(&is.line, &was.line);
            }
        }
        for is in after.roles.values() {
            prop_assert!(is.line.places.len() <= MAX_PLACES);
            prop_assert!(is.line.places.windows(2).all(|w| w[0].epoch < w[1].epoch));
            prop_assert!(
                is.line
                    .places
                    .iter()
                    .all(|p| p.epoch <= is.last && p.epoch > Epoch(0))
            );
        }
        Ok(())
    }
}
