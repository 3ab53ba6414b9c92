//! What goes into the history besides takeovers: orders, by the node that took them; the founding and changes of nodes, by the
//! coordinator. Written after the fact, once: a node that is lost in that moment takes the line with it, and nothing else.

use crate::cluster::{Cluster, Queue};
use crate::input::Request;
use crate::state::Command;
use baton_shared::history::{list, what};
use baton_shared::id::{ClusterId, Kind, NodeId, NodeName, RoleName};
use baton_shared::view::Event;
use std::collections::{BTreeMap, BTreeSet};

/// A history that is longer has had its beginning, or is of a cluster that did not write it.
const BEGINNING: u64 = 4;

/// What the coordinator last saw of the nodes.
#[derive(Default)]
pub(crate) struct Chronicle {
    seen: Option<Seen>,
    /// How far the log here was then.
    applied: u64,
}

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    voters: BTreeSet<NodeId>,
    nodes: BTreeMap<NodeId, (NodeName, Kind)>,
}

impl Seen {
    fn now(c: &Cluster, before: Option<&Seen>) -> Seen {
        let electorate = &c.state.electorate;
        // While the voters change they are still the old ones.
        let settled = before.filter(|_| electorate.next.is_some());
        Seen {
            voters: settled.map_or_else(|| electorate.voters.clone(), |before| before.voters.clone()),
            nodes: c
                .state
                .nodes
                .iter()
                .map(|(id, record)| (*id, (record.name.clone(), record.kind)))
                .collect(),
        }
    }

    fn knows(&self, name: &NodeName) -> bool {
        self.nodes.values().any(|(known, _)| known == name)
    }

    fn voters(&self) -> Vec<String> {
        let name = |id| match self.nodes.get(id) {
            Some((name, _)) => name.to_string(),
            None => format!("node {id}"),
        };
        let mut names: Vec<String> = self.voters.iter().map(name).collect();
        names.sort();
        names
    }
}

impl Chronicle {
    /// On the coordinator: proposes what has changed since it last looked.
    pub fn turn(&mut self, c: &Cluster, q: &mut Queue) {
        if !c.is_coordinator() || c.state.cluster == ClusterId(0) {
            self.seen = None;
            return;
        }
        if self.seen.is_some() && self.applied == c.applied {
            return;
        }
        self.applied = c.applied;
        let now = Seen::now(c, self.seen.as_ref());
        if self.seen.as_ref() == Some(&now) {
            return;
        }
        let events = match &self.seen {
            None => founding(&now, c).into_iter().collect(),
            Some(before) => changes(before, &now, c),
        };
        for event in events {
            write(event, q);
        }
        self.seen = Some(now);
    }
}

/// A new coordinator writes that the cluster was founded if nobody has yet.
fn founding(now: &Seen, c: &Cluster) -> Option<Event> {
    let state = &c.state;
    let written = state.events.iter().any(|event| event.what == what::START);
    if written || state.event_number > BEGINNING {
        return None;
    }
    let mut cause = format!("the cluster was founded by the voters {}", list(&now.voters()));
    let configured = c.config.nodes.iter();
    let absent: Vec<&NodeName> = configured
        .filter(|(name, node)| node.kind.votes() && !now.knows(name))
        .map(|(name, _)| name)
        .collect();
    if !absent.is_empty() {
        cause.push_str(&format!(", by an operator's word without {}", list(&absent)));
    }
    Some(event(what::START, None, cause, c))
}

fn changes(before: &Seen, now: &Seen, c: &Cluster) -> Vec<Event> {
    let mut events = Vec::new();
    for (id, (name, kind)) in &now.nodes {
        if before.nodes.contains_key(id) {
            continue;
        }
        let cause = if before.knows(name) {
            "came with an empty data directory and was taken in as a new node".into()
        } else {
            let article = if *kind == Kind::Observer { "an" } else { "a" };
            format!("joined the cluster as {article} {kind}")
        };
        events.push(event(what::NODE, Some(name), cause, c));
    }
    let gone: BTreeSet<&NodeName> = before.nodes.values().map(|(name, _)| name).collect();
    for name in gone.into_iter().filter(|name| !now.knows(name)) {
        events.push(event(
            what::NODE,
            Some(name),
            "left the cluster for good".into(),
            c,
        ));
    }
    let (old, new) = (before.voters(), now.voters());
    if before.voters != now.voters && old != new {
        let cause = format!("the voters are now {}; before, {}", list(&new), list(&old));
        events.push(event(what::ELECTORATE, None, cause, c));
    }
    events
}

/// The event that an operator's request is, if it changes anything that the history should tell. A switchover is told by the
/// takeover that it brings about.
pub(crate) fn order(request: &Request, c: &Cluster) -> Option<Event> {
    let (what, node) = match request {
        Request::Drain { node, drained } if c.drained(node) != *drained => {
            (if *drained { what::DRAIN } else { what::UNDRAIN }, Some(node))
        }
        Request::Vacate { node, .. } if !c.drained(node) => (what::DRAIN, Some(node)),
        Request::Pause(paused) if c.state.paused != *paused => {
            (if *paused { what::PAUSE } else { what::RESUME }, None)
        }
        _ => return None,
    };
    Some(event(what, node, format!("an operator asked {}", c.me()), c))
}

/// The event that processes of a role's application were killed and do not go away.
pub(crate) fn stuck(role: &RoleName, processes: &str, c: &Cluster) -> Event {
    let cause =
        format!("cannot stop its application, and keeps the role: killed, and still there: {processes}");
    Event {
        role: Some(role.clone()),
        ..event(what::STUCK, Some(c.me()), cause, c)
    }
}

/// An event that happens now.
pub(crate) fn event(what: &str, node: Option<&NodeName>, cause: String, c: &Cluster) -> Event {
    Event {
        number: 0,
        wall_ms: c.wall_ms,
        what: what.into(),
        role: None,
        node: node.cloned(),
        from: None,
        epoch: None,
        cause,
        stages: Vec::new(),
    }
}

/// Proposes an event for the history.
pub(crate) fn write(event: Event, q: &mut Queue) {
    q.propose(Command::Record { event, place: None });
}
