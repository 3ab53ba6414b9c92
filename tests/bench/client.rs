//! A client on the network `front` that asks what a load balancer asks and no more: `/health` of each node, every
//! millisecond, over a connection that it keeps. What a cluster's own watch asks besides takes the same two cores, and adds
//! milliseconds to gaps of a few.

use baton_agent::demo::poller::{Health, Patience, Poller, Record};
use baton_agent::demo::verdict::{breaches, spans};
use baton_shared::clock::Mono;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::HTTP_PORT;
use baton_tests::watch::Watch;
use std::collections::BTreeMap;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(1);

/// How a fault looked to a client.
pub struct Seen {
    /// From the last 200 of anybody to the first of another node.
    pub gap: Duration,
    /// From the fault to the first 200 of another node.
    pub since: Duration,
}

/// One poller per node.
pub struct Client(BTreeMap<String, Poller<Health>>);

impl Client {
    /// Asks every node of a cluster, in place of the cluster's own watch.
    pub fn alone(cluster: &mut Cluster) -> Client {
        cluster.watch = Watch::default(); // its pollers end here
        let host = cluster.lab().host(CLIENT).namespace.clone();
        let pollers = cluster.names().into_iter().map(|name| {
            let host = host.clone();
            let address = (cluster.node(&name).seat.front, HTTP_PORT).into();
            let prepare = move || host.enter();
            let poller = Poller::health_every(PERIOD, address, Patience::Client, prepare);
            (name, poller)
        });
        Client(pollers.collect())
    }

    /// Waits until it has just heard a 200 of this node.
    pub fn hears(&self, name: &str) {
        until(GENEROUS, "the client hears the active node", || {
            match self.0[name].newest() {
                Some(record) if is_active(&record) => Ok(()),
                other => Err(format!("{name} says {other:?}")),
            }
        });
    }

    /// Waits until another node than `from` has said 200 since the fault at `since`.
    pub fn sees_takeover(&self, from: &str, since: Mono) -> Seen {
        let first = until(GENEROUS, "another node is active", || {
            let others = self.0.iter().filter(|(name, _)| *name != from);
            let first = others.filter_map(|(_, poller)| poller.first_since(since, is_active));
            first
                .map(|record| record.received)
                .min()
                .ok_or_else(|| format!("only {from} was active so far"))
        });
        let old = self.0[from].records();
        let last = old.iter().rfind(|record| is_active(record));
        let last = last.expect("it was active before the fault").received;
        Seen {
            gap: first.since(last),
            since: first.since(since),
        }
    }

    /// Sees that nobody was active beside somebody else, nor after a later one.
    pub fn verify(&self) {
        let spans: Vec<_> = self
            .0
            .iter()
            .flat_map(|(name, poller)| spans(name, &poller.records()))
            .collect();
        let found = breaches(&spans);
        assert!(found.is_empty(), "{found:?}");
    }
}

fn is_active(record: &Record<Health>) -> bool {
    record.heard.is_some_and(|health| health.status == 200)
}
