//! The configuration, as far as it matters here.

use super::super::facts::{AppPort, Listener, Network, Settings};
use baton_shared::config::{Config, ControlListen, Host, Probe};
use std::net::SocketAddr;
use std::path::Path;

/// What matters here of a configuration that was read from `file`.
pub(in super::super) fn settings(
    file: &Path,
    config: &Config,
    risks: Vec<String>,
    refused: Vec<String>,
) -> Settings {
    let ip = |host: &Option<Host>| match host {
        Some(Host::Ip(ip)) => Some(*ip),
        _ => None,
    };
    let network = |network: &baton_shared::config::Network| Network {
        name: network.name.to_string(),
        port: network.port,
        interface: network.interface.clone(),
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
            .map(|(name, node)| (name.clone(), node.addresses.iter().map(ip).collect()))
            .collect(),
        listeners: listeners(config),
        app_ports: app_ports(config),
        max_connections: config.http.as_ref().map_or(0, |http| http.max_connections),
    }
}

fn listeners(config: &Config) -> Vec<Listener> {
    let mut all = Vec::new();
    let mut add = |key: &str, address, udp| {
        let key = key.to_owned();
        all.push(Listener { key, address, udp });
    };
    for (network, host) in config.networks.iter().zip(&config.my_node().addresses) {
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
