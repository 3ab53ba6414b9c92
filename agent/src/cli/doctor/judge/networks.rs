//! Networks that are not there, or that are not independent of each other.

use super::listed;
use crate::cli::doctor::facts::{Facts, Network, Settings};
use crate::cli::doctor::finding::Finding;
use crate::netlink::Interface;
use baton_shared::prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What every Ethernet carries. Less is a tunnel or a mistake.
const USUAL_MTU: u32 = 1500;
/// Carriers of these kinds are shared with whatever else runs on them.
const STACKED: [&str; 4] = ["vlan", "macvlan", "ipvlan", "macvtap"];

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let Some(settings) = &facts.settings else { return };
    if facts.interfaces.is_empty() {
        return;
    }
    let mut faulty = false;
    for network in &settings.networks {
        if let Some((what, remedy)) = fault_at_home(facts, &network.name) {
            out.push(Finding::broken("interface", what, remedy));
            faulty = true;
        }
        if let Some(interface) = interface_of(facts, settings, network) {
            made_of(facts, network, interface, out);
        }
    }
    routes(facts, settings, out);
    if !faulty {
        shared(facts, settings, out);
    }
}

/// The interface of a network: the one that is named, or else the one with this node's address.
fn interface_of<'a>(facts: &'a Facts, settings: &Settings, network: &Network) -> Option<&'a Interface> {
    match &network.interface {
        Some(name) => facts.interfaces.iter().find(|i| i.name == *name),
        None => facts.interface_of(settings.own_address(&network.name)?),
    }
}

/// Why a network cannot work on this machine, and what to do; `None` if it is well or not known.
pub(super) fn fault_at_home(facts: &Facts, network: &str) -> Option<(String, String)> {
    let settings = facts.settings.as_ref().filter(|_| !facts.interfaces.is_empty())?;
    let network = settings.networks.iter().find(|n| n.name == network)?;
    let name = &network.name;
    if let Some(wanted) = &network.interface
        && interface_of(facts, settings, network).is_none()
    {
        let there = listed(facts.interfaces.iter().map(|i| &i.name));
        return Some((
            format!("{name}: there is no interface {wanted}"),
            format!("correct networks.{name}.interface, or bring it into being; there are {there}"),
        ));
    }
    let ip = settings.own_address(name)?;
    let Some(has) = facts.interface_of(ip) else {
        return Some((
            format!("{name}: this machine does not have the address {ip}"),
            format!(
                "give it to an interface, or correct nodes.{}.{name}; see `ip address`",
                settings.me
            ),
        ));
    };
    let used = interface_of(facts, settings, network)?;
    if !used.up {
        let used = &used.name;
        return Some((
            format!("{name}: its interface {used} is down"),
            format!(
                "`ip link set {used} up`; if it is up, look for the cable, switch port or virtual network behind it"
            ),
        ));
    }
    (used.index != has.index).then(|| {
        (
            format!(
                "{name}: {ip} belongs to interface {}, not to {}",
                has.name, used.name
            ),
            format!(
                "correct networks.{name}.interface or the address of nodes.{}",
                settings.me
            ),
        )
    })
}

fn made_of(facts: &Facts, network: &Network, interface: &Interface, out: &mut Vec<Finding>) {
    let (name, used) = (&network.name, &interface.name);
    let routes = facts.routes.iter().filter(|route| route.network == *name);
    let narrowest = routes.filter_map(|route| route.mtu).min();
    let mtu = narrowest.unwrap_or(interface.mtu).min(interface.mtu);
    if (1..USUAL_MTU).contains(&mtu) {
        out.push(Finding::note(
            "mtu",
            format!("{name}: packets of {used} have at most {mtu} bytes"),
            "usual for tunnels; if it is not meant so, correct it on all machines of the network, for packets that are too \
             long for one of them vanish without a word",
        ));
    }
    let kind = match (
        interface.kind.as_str(),
        interface.master.and_then(|m| facts.interface(m)),
    ) {
        (kind @ ("bridge" | "bond" | "team"), _) => format!("{used} is a {kind}"),
        (_, Some(master)) => format!("{used} is a port of {} ({})", master.name, master.kind),
        _ => return,
    };
    out.push(Finding::note(
        "interface",
        format!("{name}: {kind}"),
        "its failover takes time too: keep the window above it (bond: miimon and updelay), and give ports of a bridge no \
         forward delay (spanning tree off, or edge ports)",
    ));
}

fn routes(facts: &Facts, settings: &Settings, out: &mut Vec<Finding>) {
    let mut astray: BTreeMap<(&str, &str, &str), BTreeSet<String>> = BTreeMap::new();
    for route in &facts.routes {
        let Some(network) = settings.networks.iter().find(|n| n.name == route.network) else {
            continue;
        };
        let Some(own) = interface_of(facts, settings, network).filter(|i| i.up) else {
            continue;
        };
        match route.interface.and_then(|index| facts.interface(index)) {
            None => out.push(Finding::broken(
                "route",
                format!("{}: there is no route to {}", route.network, route.peer),
                format!(
                    "add one (`ip route add`), or correct nodes.{}.{}",
                    route.peer, route.network
                ),
            )),
            Some(by) if by.index != own.index && !own.loopback && !by.loopback => {
                let way = (route.network.as_str(), own.name.as_str(), by.name.as_str());
                astray.entry(way).or_default().insert(route.peer.to_string());
            }
            Some(_) => {}
        }
    }
    for ((network, own, by), peers) in astray {
        out.push(Finding::risk(
            "route",
            format!("{network}: packets to {} leave by {by}, not by {own}", listed(peers)),
            format!(
                "give the network a subnet or a route of its own by {own}, or set networks.{network}.interface = \"{own}\"; \
                 else it fails together with {by}"
            ),
        ));
    }
}

/// Networks that fail together.
fn shared(facts: &Facts, settings: &Settings, out: &mut Vec<Finding>) {
    let used: Vec<(&Network, &Interface)> = settings
        .networks
        .iter()
        .filter_map(|network| Some((network, interface_of(facts, settings, network)?)))
        .collect();
    if used.len() > 1 && used.iter().all(|(_, interface)| interface.loopback) {
        out.push(Finding::note(
            "network",
            "all networks are this machine's loopback: a trial",
            "for real use, put each node on a machine of its own, with two networks that do not fail together",
        ));
        return;
    }
    let remedy = "let one of them take another interface, cable and switch; else they fail together, and two networks are no \
                  better than one";
    for (names, what) in [
        group(&used, |_, interface| {
            Some(format!("the interface {}", interface.name))
        }),
        group(&used, |_, interface| beneath(facts, interface)),
        group(&used, |network, interface| {
            let subnet = subnet(settings, network, interface)?;
            Some(format!(
                "the subnet {subnet}, so that packets of one may leave by the other's interface"
            ))
        }),
        group(&used, |network, _| {
            Some(format!("the router {}", gateway(facts, network)?))
        }),
    ]
    .into_iter()
    .flatten()
    {
        let what = format!("{} share {what}", listed(names));
        // Of several reasons for the same thing the first says it all.
        let said = |finding: &Finding| finding.about == "network";
        if !out.iter().any(said) {
            out.push(Finding::risk("network", what, remedy));
        }
    }
}

/// Networks for which `key` says the same, with what it says.
fn group<'a>(
    used: &[(&'a Network, &Interface)],
    key: impl Fn(&Network, &Interface) -> Option<String>,
) -> Vec<(Vec<&'a str>, String)> {
    let mut by: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (network, interface) in used {
        if let Some(key) = key(network, interface) {
            by.entry(key).or_default().push(&network.name);
        }
    }
    let several = |(key, names): (String, Vec<&'a str>)| (names.len() > 1).then_some((names, key));
    by.into_iter().filter_map(several).collect()
}

/// The interface beneath VLANs and the like.
fn beneath(facts: &Facts, interface: &Interface) -> Option<String> {
    let carrier = match STACKED.contains(&interface.kind.as_str()) {
        true => facts.interface(interface.carrier?)?,
        false => interface,
    };
    Some(format!("the interface {}, which carries both", carrier.name))
}

fn subnet(settings: &Settings, network: &Network, interface: &Interface) -> Option<Prefix> {
    let ip = settings.own_address(&network.name)?;
    let own = |(address, _): &&(IpAddr, _)| *address == ip;
    let (_, subnet) = interface.addresses.iter().find(own)?;
    Some(subnet.0)
}

/// The router that all of a network's peers are behind.
fn gateway(facts: &Facts, network: &Network) -> Option<IpAddr> {
    let routes = facts.routes.iter().filter(|route| route.network == network.name);
    let gateways: Option<BTreeSet<IpAddr>> = routes.map(|route| route.gateway).collect();
    gateways.filter(|all| all.len() == 1)?.into_iter().next()
}
