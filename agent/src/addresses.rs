//! Where peers are: the socket address of each node on each network, as last resolved. Identity is never an address.

use arc_swap::ArcSwap;
use baton_shared::id::NodeName;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The newest table. Read by links and streams without a lock; written by the resolver task.
#[derive(Debug, Default)]
pub struct Addresses(ArcSwap<BTreeMap<NodeName, Vec<Option<SocketAddr>>>>);

impl Addresses {
    /// Where `node` is on the network of this place in the configuration, if that is known.
    pub fn get(&self, node: &NodeName, network: usize) -> Option<SocketAddr> {
        self.0.load().get(node)?.get(network).copied()?
    }

    /// Replaces the table.
    pub fn set(&self, table: BTreeMap<NodeName, Vec<Option<SocketAddr>>>) {
        self.0.store(table.into());
    }
}
