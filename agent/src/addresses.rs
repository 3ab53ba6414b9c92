//! Where peers are: the socket address of each node on each network, as last resolved. Identity is never an address.

pub mod kept;
pub mod own;
pub mod resolver;

use arc_swap::ArcSwap;
use baton_shared::id::NodeName;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The newest tables. Read by links and streams without a lock; written by the resolver task.
#[derive(Debug, Default)]
pub struct Addresses {
    places: ArcSwap<BTreeMap<NodeName, Vec<Option<SocketAddr>>>>,
    serves: ArcSwap<BTreeMap<NodeName, Vec<IpAddr>>>,
}

impl Addresses {
    /// Where `node` is on the network of this place in the configuration, if that is known.
    pub fn get(&self, node: &NodeName, network: usize) -> Option<SocketAddr> {
        self.places.load().get(node)?.get(network).copied()?
    }

    /// Whether some node is at `ip`.
    pub fn has(&self, ip: IpAddr) -> bool {
        let places = self.places.load();
        let mut known = places.values().flatten().flatten();
        known.any(|place| place.ip() == ip)
    }

    /// Replaces the table.
    pub fn set(&self, table: BTreeMap<NodeName, Vec<Option<SocketAddr>>>) {
        self.places.store(table.into());
    }

    /// What DNS answers for `node`.
    pub fn serves(&self, node: &NodeName) -> Vec<IpAddr> {
        self.serves.load().get(node).cloned().unwrap_or_default()
    }

    /// Replaces what DNS answers.
    pub fn set_serves(&self, table: BTreeMap<NodeName, Vec<IpAddr>>) {
        self.serves.store(table.into());
    }
}
