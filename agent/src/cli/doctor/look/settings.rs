//! The configuration, as far as it matters here.

use super::super::facts::{AppPort, Listener, Network, Settings};
use baton_shared::config::{Config, ControlListen, Host, Node, Probe};
use baton_shared::id::NodeName;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What matters here of a configuration that was read from `file`.
pub(in super::super) fn settings(
    file: &Path,
    config: &Config,
    risks: Vec<String>,
    refused: Vec<String>,
) -> Settings {
    let network = |network: &baton_shared::config::Network| Network {
        name: network.name.to_string(),
        port: network.port,
        interface: network.interface.clone(),
        gateway: network.gateway,
    };
    let nodes = config.nodes.iter();
    Settings {
        file: file.to_owned(),
        me: config.me.clone(),
        window_ms: config.cluster.window.as_secs_f64() * 1e3,
        risks,
        refused,
        networks: config.networks.iter().map(network).collect(),
        nodes: nodes
            .map(|(name, node)| {
                (
                    name.clone(),
                    seen(config, name, node).iter().map(literal).collect(),
                )
            })
            .collect(),
        listeners: listeners(config),
        app_ports: app_ports(config),
        max_connections: config.http.as_ref().map_or(0, |http| http.max_connections),
        proofs: crate::cli::stopped::proofs(config),
    }
}

/// A node's addresses, as this node sees them: of others, where they are reached; its own, where it is itself.
fn seen(config: &Config, name: &NodeName, node: &Node) -> Vec<Option<Host>> {
    match *name == config.me {
        true => node.here(),
        false => node.addresses.clone(),
    }
}

fn literal(host: &Option<Host>) -> Option<IpAddr> {
    match host {
        Some(Host::Ip(ip)) => Some(*ip),
        _ => None,
    }
}

/// Names of the configuration that stand for addresses: of which node, and on which network.
pub(in super::super) fn named(config: &Config) -> Vec<(NodeName, usize, Host)> {
    let all = config.nodes.iter().flat_map(|(name, node)| {
        let hosts = seen(config, name, node).into_iter().enumerate();
        let of_node = hosts.filter_map(|(n, host)| Some((name.clone(), n, host?)));
        of_node.collect::<Vec<_>>()
    });
    all.filter(|(_, _, host)| matches!(host, Host::Name(_))).collect()
}

/// Puts the addresses that names have in their places. Of several that is the first, for this node the first that is here: as
/// the agent does it. A peer's is of the family of this node's on that network.
pub(super) fn place(
    found: Vec<(NodeName, usize, Vec<IpAddr>)>,
    is_here: impl Fn(IpAddr) -> bool,
    to: &mut Settings,
) {
    let me = to.me.clone();
    let (own, peers): (Vec<_>, Vec<_>) = found.into_iter().partition(|(node, ..)| *node == me);
    for (node, n, ips) in own.into_iter().chain(peers) {
        let family = to.nodes.get(&me).and_then(|own| own.get(n).copied().flatten());
        let fits = |ip: &&IpAddr| match node == me {
            true => is_here(**ip),
            false => family.is_none_or(|own| own.is_ipv4() == ip.is_ipv4()),
        };
        let own = ips.first().filter(|_| node == me);
        let Some(ip) = ips.iter().find(fits).or(own).copied() else {
            continue;
        };
        if node == me
            && let Some(network) = to.networks.get(n)
        {
            to.listeners.push(Listener {
                key: format!("networks.{}", network.name),
                address: SocketAddr::new(ip, network.port),
                udp: true,
            });
        }
        if let Some(place) = to.nodes.get_mut(&node).and_then(|all| all.get_mut(n)) {
            *place = Some(ip);
        }
    }
}

fn listeners(config: &Config) -> Vec<Listener> {
    let mut all = Vec::new();
    let mut add = |key: &str, address, udp| {
        let key = key.to_owned();
        all.push(Listener { key, address, udp });
    };
    for (network, host) in config.networks.iter().zip(&config.my_node().here()) {
        if let Some(Host::Ip(ip)) = host {
            add(
                &format!("networks.{}", network.name),
                SocketAddr::new(*ip, network.port),
                true,
            );
        }
    }
    for address in config.http.iter().flat_map(|http| &http.listen) {
        add("http.listen", *address, false);
    }
    for address in config.http.iter().flat_map(|http| &http.agent_check) {
        add("http.agent_check", *address, false);
    }
    if let Some(ControlListen::Tcp { addr, .. }) = config.control.as_ref().map(|control| &control.listen) {
        add("control.listen", *addr, false);
    }
    for address in config.dns.iter().flat_map(|dns| &dns.listen) {
        add("dns.listen", *address, true);
    }
    all
}

/// Where the configuration lets on that the application is.
fn app_ports(config: &Config) -> Vec<AppPort> {
    let mut all: Vec<AppPort> = Vec::new();
    let services = config.dns.iter().flat_map(|dns| &dns.services);
    for service in services {
        all.push(AppPort {
            port: service.port,
            role: None,
            source: format!("dns.services.{}", service.name),
        });
    }
    for (name, role) in &config.roles {
        let port = match role.check.as_ref().map(|check| &check.probe) {
            Some(Probe::Http(probe)) => probe.url.port,
            Some(Probe::Tcp { port, .. } | Probe::Grpc { port, .. }) => *port,
            _ => continue,
        };
        if all.iter().all(|known| known.port != port) {
            all.push(AppPort {
                port,
                role: Some(name.clone()),
                source: format!("the check of {name}"),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_addresses_as_the_agent_would_choose_them() {
        let text = "cluster = { name = \"x\", key = \"env:HOME\" }\nnetworks = { front = {}, back = {} }\n\
                    nodes.a = { front = \"a.front\", back = \"10.0.2.1\" }\n\
                    nodes.b = { front = \"b.front\", back = \"b.back\" }\nnodes.c = { front = \"c.front\" }\n";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let me = NodeName::new("a").unwrap();
        let readable = crate::cli::configured::load(&file, Some(&me), &[]);
        let config = readable.unwrap_or_else(|error| panic!("{error}")).loaded.config;
        let all = named(&config);
        let of = |node: &str, n: usize| (node.to_owned(), n);
        let got: Vec<_> = all.iter().map(|(name, n, _)| of(name.as_str(), *n)).collect();
        assert_eq!(got, [of("a", 0), of("b", 0), of("b", 1), of("c", 0)]);

        let mut settings = settings(&file, &config, vec![], vec![]);
        let found = [
            ("b", 0, vec!["10.0.1.2", "fd00::2"]),
            ("b", 1, vec!["fd00::2"]),
            ("c", 0, vec![]),
            ("a", 0, vec!["10.0.1.1", "fd00::1"]),
        ]
        .map(|(node, n, ips)| {
            let ips = ips.into_iter().map(|ip| ip.parse().unwrap()).collect();
            (NodeName::new(node).unwrap(), n, ips)
        });
        place(found.into(), |ip| ip.is_ipv6(), &mut settings);
        let addresses = |node: &str| {
            let all = settings.nodes[&NodeName::new(node).unwrap()].iter();
            all.map(|ip| ip.map_or("none".into(), |ip| ip.to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(addresses("a"), ["fd00::1", "10.0.2.1"]);
        assert_eq!(addresses("b"), ["fd00::2", "none"], "of this node's family");
        assert_eq!(addresses("c"), ["none", "none"]);
        let listens = |listener: &Listener| listener.address == "[fd00::1]:7400".parse().unwrap();
        assert!(settings.listeners.iter().any(listens), "{:?}", settings.listeners);
    }
}
