//! The watch over a cluster: pollers beside every node, which see the truth even when the node is cut off, and pollers
//! at a client on the network `front`, which see what the world sees. All run from the first start to the last stop.

use crate::namespace::Namespace;
use baton_agent::demo::poller::{Health, Patience, Poller, Record};
use baton_agent::demo::verdict::{Breach, Span, breaches, outage, spans};
use baton_shared::clock::Mono;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// From where a gap is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Viewpoint {
    /// From the client on `front`; without one, from beside the nodes.
    Client,
    /// From beside the nodes: whether anybody was active, reachable or not.
    Nodes,
}

/// The pollers.
#[derive(Debug, Default)]
pub struct Watch {
    beside: BTreeMap<String, Poller<Health>>,
    afar: BTreeMap<String, Poller<Health>>,
}

impl Watch {
    /// Watches a node from its own host.
    pub fn beside(&mut self, node: &str, namespace: Namespace, address: SocketAddr) {
        let poller = Poller::health(address, Patience::Endless, move || namespace.enter());
        self.beside.insert(node.to_owned(), poller);
    }

    /// Watches a node from the client's host.
    pub fn afar(&mut self, node: &str, client: Namespace, address: SocketAddr) {
        let poller = Poller::health(address, Patience::Client, move || client.enter());
        self.afar.insert(node.to_owned(), poller);
    }

    fn pollers(&self, viewpoint: Viewpoint) -> &BTreeMap<String, Poller<Health>> {
        match viewpoint {
            Viewpoint::Client if !self.afar.is_empty() => &self.afar,
            _ => &self.beside,
        }
    }

    /// The node other than `from` that was first seen active since then, and when.
    pub fn successor(&self, viewpoint: Viewpoint, from: &str, since: Mono) -> Option<(String, Mono)> {
        self.pollers(viewpoint)
            .iter()
            .filter(|(node, _)| *node != from)
            .filter_map(|(node, poller)| Some((poller.first_since(since, is_active)?.received, node)))
            .min()
            .map(|(at, node)| (node.clone(), at))
    }

    /// The longest time without a 200 from anybody, from the last one before `since` on.
    pub fn outage(&self, viewpoint: Viewpoint, since: Mono) -> Option<Duration> {
        let logs: Vec<_> = self.pollers(viewpoint).values().map(Poller::records).collect();
        outage(&logs, since)
    }

    /// Whether the poller beside this node heard a 200 that it asked for since then.
    pub fn was_active_since(&self, node: &str, since: Mono) -> bool {
        self.beside
            .get(node)
            .is_some_and(|poller| poller.first_since(since, is_active).is_some())
    }

    /// When this node, which became active since then, was last asked beside it and said that it was not yet.
    pub fn passive_until(&self, node: &str, since: Mono) -> Option<Mono> {
        let poller = self.beside.get(node)?;
        let active = poller.first_since(since, is_active)?;
        let passive = |record: &&Record<Health>| record.heard.is_some() && !is_active(record);
        let records = poller.records();
        let before = records.partition_point(|record| record.sent < active.sent);
        records[..before].iter().rfind(passive).map(|record| record.sent)
    }

    /// The first answer, asked for beside this node since then, that was not 200; and how many it gave.
    pub fn lapse(&self, node: &str, since: Mono) -> (Option<Record<Health>>, usize) {
        let records = self.beside.get(node).map(Poller::records).unwrap_or_default();
        let recent = records.iter().filter(|record| record.sent >= since);
        let lapse = recent.clone().find(|record| !is_active(record)).cloned();
        (lapse, recent.count())
    }

    /// What each node said at each epoch, in the order in which it began.
    pub fn spans(&self) -> Vec<Span> {
        let mut all: Vec<Span> = self
            .beside
            .iter()
            .chain(&self.afar)
            .flat_map(|(node, poller)| spans(node, &poller.records()))
            .collect();
        all.sort_by_key(|span| span.first_received);
        all
    }

    /// Every breach of S1 or S2 so far.
    pub fn breaches(&self) -> Vec<Breach> {
        breaches(&self.spans())
    }

    /// The changes in what each node said, for a test that failed.
    pub fn timeline(&self) -> String {
        let mut changes: Vec<(Mono, String)> = Vec::new();
        for (place, pollers) in [("beside", &self.beside), ("from afar", &self.afar)] {
            for (node, poller) in pollers {
                let mut before = None;
                for record in poller.records() {
                    if before != Some(record.heard) {
                        let said = match record.heard {
                            Some(Health {
                                status,
                                epoch: Some(epoch),
                            }) => format!("{status} epoch {epoch}"),
                            Some(Health { status, .. }) => status.to_string(),
                            None => "nothing".into(),
                        };
                        let took = record.received.since(record.sent);
                        changes.push((record.received, format!("{node} {place}: {said} (took {took:?})")));
                        before = Some(record.heard);
                    }
                }
            }
        }
        changes.sort();
        const LAST: usize = 120;
        changes[changes.len().saturating_sub(LAST)..]
            .iter()
            .map(|(at, what)| format!("{at:?} {what}\n"))
            .collect()
    }
}

fn is_active(record: &Record<Health>) -> bool {
    record.heard.is_some_and(|health| health.status == 200)
}
