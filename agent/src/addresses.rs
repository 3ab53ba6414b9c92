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

    /// The node that is at `ip` on the network of this place, or else on any; not `me`.
    pub fn who(&self, ip: IpAddr, network: usize, me: &NodeName) -> Option<NodeName> {
        let places = self.places.load();
        let others = || places.iter().filter(|(name, _)| *name != me);
        let is = |place: &Option<SocketAddr>| place.is_some_and(|place| place.ip() == ip);
        let there = others().find(|(_, on)| on.get(network).is_some_and(is));
        let anywhere = || others().find(|(_, on)| on.iter().any(is));
        there.or_else(anywhere).map(|(name, _)| name.clone())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_an_address_is_depends_on_the_network_first() {
        let name = |text| NodeName::new(text).unwrap();
        let at = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 7400));
        let addresses = Addresses::default();
        addresses.set(BTreeMap::from([
            (name("a"), vec![at("10.0.1.1"), at("10.0.2.1")]),
            (name("b"), vec![at("10.0.1.2"), None]),
            (name("c"), vec![None, at("10.0.1.2")]),
        ]));
        let who = |ip: &str, network| addresses.who(ip.parse().unwrap(), network, &name("a"));
        assert_eq!(who("10.0.1.2", 0), Some(name("b")));
        assert_eq!(who("10.0.1.2", 1), Some(name("c")));
        assert_eq!(who("10.0.1.2", 9), Some(name("b")));
        assert_eq!((who("10.0.1.1", 0), who("10.0.9.9", 0)), (None, None));
    }
}
