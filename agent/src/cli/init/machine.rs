//! This machine, as far as it tells who it is among the nodes.

use super::plan::Seat;
use crate::netlink::{Interface, Kernel};
use baton_shared::config::Host;
use baton_shared::id::NodeName;
use std::net::IpAddr;

/// What this machine is called, and where it is.
pub(super) struct Machine {
    pub name: String,
    pub interfaces: Vec<Interface>,
}

impl Machine {
    pub(super) fn look() -> Machine {
        // What cannot be known is not proposed.
        let interfaces = Kernel::open().and_then(|kernel| kernel.interfaces());
        Machine {
            name: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default(),
            interfaces: interfaces.unwrap_or_default(),
        }
    }

    /// Its name up to the first dot.
    fn label(name: &str) -> String {
        name.trim()
            .split('.')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    }

    /// This machine as a node, for others to reach: an address of each interface that has one, of IPv4 if there is any. Bridges are
    /// left out: most are for containers.
    pub(super) fn seat(&self) -> Option<Seat> {
        let plain = |i: &&Interface| i.up && !i.loopback && i.kind != "bridge";
        let reached = |ip: &&IpAddr| match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        let all: Vec<Vec<IpAddr>> = self
            .interfaces
            .iter()
            .filter(plain)
            .map(|i| {
                i.addresses
                    .iter()
                    .map(|(ip, _)| ip)
                    .filter(reached)
                    .copied()
                    .collect()
            })
            .collect();
        let of = |fits: fn(&IpAddr) -> bool| -> Vec<Option<Host>> {
            let first = all.iter().filter_map(|ips| ips.iter().copied().find(fits));
            first.map(|ip| Some(Host::Ip(ip))).collect()
        };
        let addresses = match of(IpAddr::is_ipv4) {
            none if none.is_empty() => of(IpAddr::is_ipv6),
            some => some,
        };
        let name = NodeName::new(&Machine::label(&self.name)).ok()?;
        (!addresses.is_empty()).then_some(Seat { name, addresses })
    }

    /// Whether that is this machine. No name server is asked.
    pub(super) fn is(&self, host: &Host) -> bool {
        match host {
            Host::Ip(wanted) => {
                let mut own = self.interfaces.iter().flat_map(|i| &i.addresses);
                own.any(|(ip, _)| ip == wanted)
            }
            Host::Name(name) => Machine::label(name) == Machine::label(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Subnet;
    use baton_shared::config::Prefix;

    fn interface(name: &str, kind: &str, addresses: &[&str]) -> Interface {
        let address = |text: &&str| {
            let ip: IpAddr = text.parse().unwrap();
            (ip, Subnet(Prefix::new(ip, 24).unwrap()))
        };
        Interface {
            name: name.to_owned(),
            up: true,
            loopback: name == "lo",
            kind: kind.to_owned(),
            addresses: addresses.iter().map(address).collect(),
            ..Interface::default()
        }
    }

    fn machine(interfaces: Vec<Interface>) -> Machine {
        let name = "DB1.example.org\n".to_owned();
        Machine { name, interfaces }
    }

    #[test]
    fn it_is_proposed_by_an_address_of_each_network() {
        let mut down = interface("eth9", "", &["10.0.9.1"]);
        down.up = false;
        let all = vec![
            interface("lo", "", &["127.0.0.1"]),
            interface("eth0", "", &["fe80::1", "10.0.1.11", "10.0.1.99"]),
            interface("docker0", "bridge", &["172.17.0.1"]),
            interface("bond0", "bond", &["fd00::1", "10.0.2.11"]),
            down,
        ];
        let machine = machine(all);
        assert_eq!(machine.seat(), Some("db1=10.0.1.11,10.0.2.11".parse().unwrap()));
        for (host, here) in [
            ("10.0.1.99", true),
            ("10.0.1.12", false),
            ("db1.example.org", true),
            ("db2.example.org", false),
        ] {
            assert_eq!(machine.is(&host.parse().unwrap()), here, "{host}");
        }
    }

    #[test]
    fn without_ipv4_it_is_proposed_by_ipv6_and_without_addresses_not_at_all() {
        let six = machine(vec![interface("eth0", "", &["fe80::1", "fd00::1"])]);
        assert_eq!(six.seat(), Some("db1=fd00::1".parse().unwrap()));
        assert_eq!(machine(vec![interface("lo", "", &["127.0.0.1"])]).seat(), None);
    }
}
