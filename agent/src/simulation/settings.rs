//! The cluster of every life: its configuration, and its nodes by number.

use super::network::PORT;
use baton_shared::config::{Cluster, Config, Host, Network, Node, Role};
use baton_shared::id::{ClusterName, Kind, NetworkName, NodeName, RoleName};
use baton_shared::key::ClusterKey;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The window of every life.
pub(super) const W: Duration = Duration::from_secs(1);
/// Networks that every node shares.
pub(super) const NETWORKS: usize = 2;

/// The name of node `n`.
pub(super) fn name(n: usize) -> NodeName {
    NodeName::new(NAMES[n]).unwrap()
}

/// Names of nodes and of their hosts.
pub(super) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The one role.
pub(super) fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

/// What node `me` reads, in a cluster of nodes of these kinds at these addresses.
pub(super) fn config(me: usize, kinds: &[Kind], ips: &[IpAddr]) -> Arc<Config> {
    let node = |(n, kind): (usize, &Kind)| {
        let host = Host::Ip(ips[n]);
        let node = Node {
            kind: *kind,
            binds: Vec::new(),
            addresses: vec![Some(host.clone()); NETWORKS],
            serves: vec![host],
            priority: 0,
        };
        (name(n), node)
    };
    let network = |n| Network {
        name: NetworkName::new(&format!("net{n}")).unwrap(),
        port: PORT + n as u16,
        interface: None,
        clients: false,
        gateway: None,
    };
    Arc::new(Config {
        me: name(me),
        cluster: Cluster {
            name: ClusterName::new("simulated").unwrap(),
            window: W,
            key: ClusterKey::from_bytes([7; 32]),
            join_wait: Duration::from_secs(30),
            join_exit: false,
            preempt_after: None,
        },
        networks: (0..NETWORKS).map(network).collect(),
        nodes: kinds.iter().enumerate().map(node).collect(),
        storage: None,
        roles: BTreeMap::from([(role(), Role::default())]),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
    })
}
