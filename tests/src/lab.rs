//! The lab: hosts that are network namespaces, joined by one bridge per network, and what can go wrong between them.

use crate::fault::{Loss, script};
use crate::namespace::Namespace;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The last part of the first host's addresses.
const FIRST_HOST: u8 = 11;

/// Networks and hosts. They are gone when it is dropped, and when the process ends.
#[derive(Debug)]
pub struct Lab {
    bridges: Namespace,
    networks: Vec<String>,
    hosts: BTreeMap<String, Host>,
}

/// A host: a namespace with one interface per network, named like the network.
#[derive(Debug)]
pub struct Host {
    /// Where its processes run.
    pub namespace: Namespace,
    /// Its address on each network.
    pub addresses: BTreeMap<String, Ipv4Addr>,
    faults: Vec<Loss>,
}

impl Lab {
    /// A lab with these networks, 10.77.1.0/24, 10.77.2.0/24 and so on, and no hosts. Panics, saying what to do, if
    /// the machine or the user does not allow it.
    pub fn new(networks: &[&str]) -> Lab {
        let bridges = Namespace::create();
        for network in networks {
            bridges.run("ip", &["link", "add", network, "type", "bridge"]);
            bridges.run("ip", &["link", "set", network, "up"]);
        }
        Lab {
            bridges,
            networks: networks.iter().map(|n| (*n).to_owned()).collect(),
            hosts: BTreeMap::new(),
        }
    }

    /// Adds a host on every network.
    pub fn add_host(&mut self, name: &str) -> &Host {
        let networks = self.networks.clone();
        let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
        self.add_host_on(name, &networks)
    }

    /// Adds a host on these networks.
    pub fn add_host_on(&mut self, name: &str, networks: &[&str]) -> &Host {
        let place = FIRST_HOST + u8::try_from(self.hosts.len()).expect("a lab has few hosts");
        let namespace = Namespace::create();
        let mut addresses = BTreeMap::new();
        for (number, network) in (1..).zip(&self.networks) {
            if !networks.contains(&network.as_str()) {
                continue;
            }
            let address = Ipv4Addr::new(10, 77, number, place);
            self.wire(&namespace, name, network, address);
            addresses.insert(network.clone(), address);
        }
        let host = Host {
            namespace,
            addresses,
            faults: Vec::new(),
        };
        self.hosts.entry(name.to_owned()).or_insert(host)
    }

    fn wire(&self, namespace: &Namespace, host: &str, network: &str, address: Ipv4Addr) {
        let port = port(network, host);
        let inside = namespace.path();
        self.bridges.run(
            "ip",
            &[
                "link", "add", &port, "type", "veth", "peer", "name", network, "netns", &inside,
            ],
        );
        self.bridges
            .run("ip", &["link", "set", &port, "master", network, "up"]);
        namespace.run("ip", &["addr", "add", &format!("{address}/24"), "dev", network]);
        namespace.run("ip", &["link", "set", network, "up"]);
    }

    /// Takes a host's interface out of the machine, with its address.
    #[track_caller]
    pub fn take_out(&self, host: &str, network: &str) {
        self.host(host).namespace.run("ip", &["link", "del", network]);
    }

    /// Puts another interface of that name, with the same address, in the place of one that was taken out.
    #[track_caller]
    pub fn put_in(&self, host: &str, network: &str) {
        let place = self.host(host);
        self.wire(&place.namespace, host, network, place.addresses[network]);
    }

    /// The host of that name.
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .get(name)
            .unwrap_or_else(|| panic!("the lab has no host {name}"))
    }

    #[track_caller]
    fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts
            .get_mut(name)
            .unwrap_or_else(|| panic!("the lab has no host {name}"))
    }

    /// All addresses of these hosts.
    #[track_caller]
    pub fn addresses(&self, hosts: &[&str]) -> Vec<Ipv4Addr> {
        hosts
            .iter()
            .flat_map(|name| self.host(name).addresses.values().copied())
            .collect()
    }

    /// Adds a fault at a host to those it has.
    #[track_caller]
    pub fn lose(&mut self, host: &str, loss: Loss) {
        let host = self.host_mut(host);
        host.faults.push(loss);
        host.apply();
    }

    /// No packet passes between a host of one side and a host of the other.
    #[track_caller]
    pub fn part(&mut self, one: &[&str], other: &[&str]) {
        let others = self.addresses(other);
        for host in one {
            self.lose(host, Loss::all().with(others.clone()));
        }
    }

    /// Takes a host's interface down: its own kernel refuses to send.
    #[track_caller]
    pub fn link_down(&self, host: &str, network: &str) {
        let host = self.host(host);
        host.namespace.run("ip", &["link", "set", network, "down"]);
    }

    /// The switch of a network dies, and passes nothing on; hosts keep their carriers.
    #[track_caller]
    pub fn switch_down(&self, network: &str) {
        self.bridges.run("ip", &["link", "set", network, "down"]);
    }

    /// It is back.
    #[track_caller]
    pub fn switch_up(&self, network: &str) {
        self.bridges.run("ip", &["link", "set", network, "up"]);
    }

    /// Pulls a host's cable at the far end: the host loses its carrier.
    #[track_caller]
    pub fn unplug(&self, host: &str, network: &str) {
        self.bridges
            .run("ip", &["link", "set", &port(network, host), "down"]);
    }

    /// The switches pass nothing on from or to a host, not even ARP, and it keeps its carriers. Unlike with a [`Loss`], nobody there learns
    /// who has which address now.
    #[track_caller]
    pub fn cut(&self, host: &str) {
        self.forward(host, "0");
    }

    /// They do again.
    #[track_caller]
    pub fn join(&self, host: &str) {
        self.forward(host, "3");
    }

    /// Sets the state of a host's ports, by number: bridge(8).
    #[track_caller]
    fn forward(&self, host: &str, state: &str) {
        for network in self.host(host).addresses.keys() {
            let port = port(network, host);
            self.bridges
                .run("bridge", &["link", "set", "dev", &port, "state", state]);
        }
    }

    /// Takes all faults from a host: nothing is lost, all its links are up and plugged in.
    #[track_caller]
    pub fn heal(&mut self, host: &str) {
        let name = host.to_owned();
        let host = self.host_mut(host);
        host.faults.clear();
        host.apply();
        let networks: Vec<String> = host.addresses.keys().cloned().collect();
        for network in &networks {
            self.host(&name)
                .namespace
                .run("ip", &["link", "set", network, "up"]);
            self.bridges
                .run("ip", &["link", "set", &port(network, &name), "up"]);
        }
    }

    /// Takes all faults from all hosts.
    pub fn heal_all(&mut self) {
        let names: Vec<String> = self.hosts.keys().cloned().collect();
        for name in names {
            self.heal(&name);
        }
    }
}

impl Host {
    #[track_caller]
    fn apply(&self) {
        self.namespace.feed("nft", &["-f", "-"], &script(&self.faults));
    }
}

/// The bridge's end of a host's cable.
fn port(network: &str, host: &str) -> String {
    format!("{network}-{host}")
}
