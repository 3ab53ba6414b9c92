//! Listeners that cannot be bound. An agent that answers has bound all of them.

use super::listed;
use crate::cli::doctor::facts::{Agent, Facts, Holder};
use crate::cli::doctor::finding::Finding;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where systemd-resolved has its stub listeners.
const STUBS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54)),
];
/// The name of its process, which the kernel cuts to 15 characters.
const RESOLVED: &str = "systemd-resolve";

/// Our own.
const AGENT: &str = "baton";

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let (Some(settings), Agent::Silent(_)) = (&facts.settings, &facts.agent) else {
        return;
    };
    let mut own: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for listener in &settings.listeners {
        let (key, address) = (&listener.key, listener.address);
        let holders = facts.holders.iter().filter(|holder| holder.wanted == address);
        match holders.min_by_key(|holder| holder.process.is_none()) {
            Some(Holder {
                process: Some((name, pid)),
                ..
            }) if name == AGENT => own.entry(*pid).or_default().push(key),
            Some(holder) if kept(holder) && key == "dns.listen" => out.push(Finding::note(
                "port",
                format!(
                    "{key}: systemd holds port {} for the agent, which does not run: questions wait for it",
                    address.port()
                ),
                "start the agent. If `systemctl list-sockets` shows another unit than baton-dns.socket there, stop and disable that \
                 one",
            )),
            Some(holder) => out.push(taken(holder, key, address.port())),
            None => unbindable(facts, key, address, out),
        }
    }
    for (pid, mut keys) in own {
        keys.dedup();
        out.push(Finding::broken(
            "port",
            format!("an agent runs here (process {pid}) and has the ports of {}, but it does not answer", listed(keys)),
            format!(
                "if it is this node's, it is frozen or has another control.listen: see its log, or `kill {pid}` and start it \
                 again; if it is another cluster's, give the two different ports"
            ),
        ));
    }
}

/// A listener whose port is free, and cannot be had all the same.
fn unbindable(facts: &Facts, key: &str, address: SocketAddr, out: &mut Vec<Finding>) {
    // That a network's own address is missing is said of the network.
    let told = key.starts_with("networks.") || facts.interfaces.is_empty();
    if !told && !address.ip().is_unspecified() && !facts.is_own(address.ip()) {
        out.push(Finding::broken(
            "port",
            format!("{key}: this machine does not have the address {}", address.ip()),
            format!("give it to an interface, or correct {key}; see `ip address`"),
        ));
    }
    if address.port() != 0 && address.port() < facts.rights.first_free_port && !facts.rights.low_ports {
        out.push(Finding::broken(
                "port",
                format!("{key}: this user may not bind port {}", address.port()),
                "give the agent the capability CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; \
                 Docker: --cap-add NET_BIND_SERVICE), start it as root, or choose a port from 1024 on",
            ));
    }
}

/// Held by the service manager for a service that it starts on demand, or hands the socket to (systemd.socket(5)).
fn kept(holder: &Holder) -> bool {
    matches!(&holder.process, Some((name, 1)) if name == "systemd")
}

fn taken(holder: &Holder, key: &str, port: u16) -> Finding {
    let process = holder.process.as_ref();
    let stub = port == 53 && STUBS.contains(&holder.address.ip());
    if stub || process.is_some_and(|(name, _)| name == RESOLVED) {
        return Finding::broken(
            "port",
            format!(
                "{key}: port {port} is taken by systemd-resolved's stub listener ({})",
                holder.address
            ),
            "write \"[Resolve]\" and \"DNSStubListener=no\" to /etc/systemd/resolved.conf.d/baton.conf, then `systemctl \
             restart systemd-resolved` and `ln -sf /run/systemd/resolve/resolv.conf /etc/resolv.conf`; or listen on this \
             node's own address instead of all: dns.listen = \"{NETWORK}:53\"",
        );
    }
    let (who, remedy) = match process {
        Some((name, _)) if kept(holder) => (
            format!("a socket unit of {name}"),
            format!(
                "see which with `systemctl list-sockets`; `systemctl disable --now` it, or choose another port in {key}"
            ),
        ),
        Some((name, pid)) => (
            format!("{name} (process {pid})"),
            format!("stop {name} if it should not run, or choose another port in {key}"),
        ),
        None => (
            "another process".into(),
            format!(
                "see who has it with `sudo ss -tulpn 'sport = :{port}'`; stop it, or choose another port in {key}"
            ),
        ),
    };
    Finding::broken(
        "port",
        format!(
            "{key}: {} port {port} is taken by {who} at {}",
            holder.protocol, holder.address
        ),
        remedy,
    )
}
