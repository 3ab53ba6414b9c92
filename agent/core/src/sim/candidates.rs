//! Who is put in line by a coordinator: what its peers say of themselves, what operators say of them, what they are.

use super::MS;
use super::world::{config_of, idle_beat, name};
use crate::input::Coordinator;
use crate::output::Durable;
use crate::peer::Arrival;
use crate::{Command, Core, Input, Output, Start, State};
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, ClusterId, Kind, NodeId, NodeName};
use baton_shared::seal::Header;
use baton_shared::wire::{Echo, Heartbeat, RoleBeat};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

const CLUSTER: ClusterId = ClusterId(77);

/// One node as it is and as it says it is.
#[derive(Clone, Debug)]
struct Somebody {
    kind: Kind,
    priority: i64,
    heard: bool,
    /// It repeats what this node sent.
    hears: bool,
    healthy: bool,
    willing: bool,
    able: bool,
    leaving: bool,
    drained: bool,
    /// It runs with this cluster's id.
    ours: bool,
}

impl Somebody {
    fn fit(&self) -> bool {
        let could = self.kind == Kind::Member && self.healthy && self.willing && self.able;
        could && self.heard && self.hears && self.ours && !self.leaving && !self.drained
    }
}

/// Mostly fit, so that more than one of them is.
fn somebody() -> impl Strategy<Value = Somebody> {
    let kind = prop_oneof![4 => Just(Kind::Member), 1 => Just(Kind::Observer), 1 => Just(Kind::Witness)];
    let flags = proptest::collection::vec(proptest::bool::weighted(0.9), 8);
    (kind, -2i64..3, flags).prop_map(|(kind, priority, yes)| Somebody {
        kind,
        priority,
        heard: yes[0],
        hears: yes[1],
        healthy: yes[2],
        willing: yes[3],
        leaving: !yes[4],
        drained: !yes[5],
        ours: yes[6],
        able: yes[7],
    })
}

fn id(n: usize) -> NodeId {
    NodeId(100 + n as u64)
}

/// The orders that node 0 proposes as coordinator, in the order in which it does.
fn proposed(nodes: &[Somebody]) -> Vec<Vec<NodeId>> {
    let kinds: Vec<Kind> = nodes.iter().map(|node| node.kind).collect();
    let mut config = config_of(&kinds, Duration::from_secs(1));
    for (node, somebody) in config.nodes.values_mut().zip(nodes) {
        node.priority = somebody.priority;
    }
    let mut state = State::default();
    state.apply(&Command::Init {
        cluster: CLUSTER,
        nodes: (0..nodes.len()).map(|n| (id(n), name(n), kinds[n])).collect(),
    });
    for (n, _) in nodes.iter().enumerate().filter(|(_, node)| node.drained) {
        state.apply(&Command::Drain {
            node: name(n),
            drained: true,
        });
    }
    let digest = config.digest();
    let start = Start {
        config: Arc::new(config),
        id: id(0),
        boot: Boot(1),
        cluster: CLUSTER,
        durable: Durable::default(),
        unfinished: Default::default(),
        disk: None,
        last_write: None,
    };
    let mut now = Mono(1_000 * MS);
    let mut core = Core::new(start, now);
    let mut orders = Vec::new();
    let mut give = |core: &mut Core, input: Input, now: Mono| {
        core.handle(input, now, 1_000_000);
        let mut newest = None;
        while let Some(output) = core.poll_output() {
            match output {
                Output::Send { seq, .. } => newest = Some(seq),
                Output::Propose {
                    command: Command::SetLine { order, .. },
                    ..
                } => orders.push(order.iter().map(|owner| owner.node).collect()),
                _ => {}
            }
        }
        newest
    };
    let voters = state.electorate.voters.clone();
    let state = Arc::new(state);
    give(&mut core, Input::Learned { state, applied: 1 }, now);
    let mut mine = 0;
    for beat in 1..12 {
        now = now + Duration::from_millis(100);
        mine = give(&mut core, Input::Tick, now).unwrap_or(mine);
        for (n, node) in nodes.iter().enumerate().skip(1).filter(|(_, node)| node.heard) {
            let header = Header {
                sender: id(n),
                boot: Boot(1),
                network: 0,
                seq: beat,
            };
            let heartbeat = Box::new(heartbeat(name(n), node, digest, beat, mine));
            let input = Input::Heartbeat {
                arrival: Arrival {
                    network: 0,
                    from: [10, 0, 0, 1 + n as u8].into(),
                },
                header,
                heartbeat,
            };
            give(&mut core, input, now);
        }
        // Once everybody has been heard.
        if beat == 5 {
            let coordinator = Coordinator {
                term: 1,
                leader: Some(id(0)),
                voters: voters.clone(),
                settled: true,
                ..Coordinator::default()
            };
            give(&mut core, Input::Coordinator(coordinator), now);
        }
    }
    orders
}

fn heartbeat(from: NodeName, node: &Somebody, digest: u64, count: u64, mine: u64) -> Heartbeat {
    Heartbeat {
        cluster: if node.ours { CLUSTER } else { ClusterId(0) },
        from,
        kind: node.kind,
        to: name(0),
        to_id: id(0),
        count,
        echo: node.hears.then_some(Echo {
            boot: Boot(1),
            seq: mine,
            held: Duration::ZERO,
            any: mine,
        }),
        hears: Vec::new(),
        electorate: baton_shared::id::ElectorateId(1),
        digest,
        wall_ms: 1_000_000,
        applied: 1,
        coordinator: Some((1, id(0))),
        leaving: node.leaving,
        roles: vec![RoleBeat {
            healthy: node.healthy,
            willing: node.willing,
            able: node.able,
            ..idle_beat()
        }],
        lines: Vec::new(),
        writes: true,
        reach: Default::default(),
        window: Duration::from_secs(1),
    }
}

proptest! {
    #[test]
    fn only_fit_members_are_in_line_by_priority_and_name(peers in proptest::collection::vec(somebody(), 1..6)) {
        let me = Somebody {
            kind: Kind::Member,
            priority: 0,
            heard: true,
            hears: true,
            healthy: true,
            willing: true,
            able: true,
            leaving: false,
            drained: false,
            ours: true,
        };
        let nodes: Vec<Somebody> = std::iter::once(me).chain(peers).collect();
        let mut expected: Vec<usize> = (0..nodes.len()).filter(|n| nodes[*n].fit()).collect();
        expected.sort_by_key(|n| (-nodes[*n].priority, *n));
        let orders = proposed(&nodes);
        let voters = nodes.iter().filter(|node| node.kind.votes());
        let (up, down): (Vec<&Somebody>, Vec<&Somebody>) = voters.partition(|node| node.heard && node.hears);
        if up.len() <= down.len() {
            prop_assert!(orders.is_empty(), "who hears no majority leaves the line alone");
            return Ok(());
        }
        prop_assert_eq!(orders.len(), 1, "one proposal, until it is answered");
        let round: Vec<NodeId> = expected.into_iter().map(id).collect();
        prop_assert_eq!(&orders[0], &round.repeat(crate::plan::ROUNDS));
    }
}
