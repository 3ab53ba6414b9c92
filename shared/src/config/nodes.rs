//! `[networks]` and `[nodes]`, and what must hold between them.

use super::error::{Place, Problems, nearest};
use super::placeholder::{For, Local};
use super::section::Section;
use super::tree::{Entry, Value};
use super::{Host, Network, Node, value};
use crate::id::{Kind, NetworkName, NodeName};
use std::net::IpAddr;
use std::path::Path;

/// Most networks: a heartbeat has a bit for each.
const MAX_NETWORKS: usize = 16;
/// Most nodes: their links must fit into one datagram.
const MAX_NODES: usize = 32;
/// Keys of a node that are no network. A network of that name could not be told from them.
const NODE_KEYS: [&str; 3] = ["kind", "serves", "priority"];
/// The placeholder that is no network.
const NODE: &str = "node";
/// Priorities lie between this and its negative.
const MAX_PRIORITY: i128 = 1_000_000;
/// UDP and TCP port of the sidecars.
const DEFAULT_PORT: u16 = 7400;

/// `[networks]`, in the order of the file. By which of them clients come is known once the nodes are: see [`clients`].
pub(super) fn networks(root: &mut Section) -> Option<Vec<Network>> {
    let problems = root.problems;
    let example = "add a table [networks] with a line like: front = { port = 7400 }";
    let table = if root.has("networks") {
        root.table("networks")?.all()
    } else {
        problems.add(Place::File, format!("no networks; {example}"));
        return None;
    };
    let mut networks: Vec<Network> = Vec::new();
    for entry in table {
        let Some(network) = network(entry, problems) else {
            continue;
        };
        if networks.iter().any(|other| other.name == network.name) {
            let text = format!(
                "network \"{}\" is there twice (case does not count); rename one",
                network.name
            );
            problems.add(entry.item.at, text);
            continue;
        }
        networks.push(network);
    }
    if table.is_empty() {
        root.problem("networks", &format!("no networks; {example}"));
    } else if networks.len() > MAX_NETWORKS {
        root.problem(
            "networks",
            &format!("{} networks; at most {MAX_NETWORKS} are possible", networks.len()),
        );
    }
    (!networks.is_empty() && networks.len() == table.len()).then_some(networks)
}

fn network(entry: &Entry, problems: &Problems) -> Option<Network> {
    let path = format!("networks.{}", entry.key);
    let name = NetworkName::new(&entry.key).map_err(|e| format!("network {e}"));
    let name = problems.note(entry.item.at, name);
    if let Some(name) = name
        .as_ref()
        .filter(|name| name.as_str() == NODE || NODE_KEYS.contains(&name.as_str()))
    {
        let text =
            format!("a network cannot be called \"{name}\", which has a meaning of its own; rename it");
        problems.add(entry.item.at, text);
        return None;
    }
    let mut section = Section::of(path, &entry.item, problems)?;
    let port = section.take("port", |item| value::integer(item, 1, 65_535));
    let interface = section.take("interface", value::interface);
    let clients = section.take("clients", value::boolean);
    let gateway = section.take("gateway", value::gateway);
    section.finish();
    Some(Network {
        name: name?,
        port: port.unwrap_or(DEFAULT_PORT),
        interface,
        clients: clients.unwrap_or(false),
        gateway,
    })
}

/// Settles by which networks clients come, and what must hold for those.
pub(super) fn clients(root: &mut Section, networks: &mut [Network], nodes: &[(NodeName, Node)]) {
    let Some(mut section) = root.table("networks") else {
        return;
    };
    let said = section.all().iter().any(|network| match &network.item.value {
        Value::Table(keys) => keys.iter().any(|key| key.key == "clients"),
        _ => false,
    });
    if !said {
        let usual = clients_by_serves(networks.len(), nodes.iter().map(|(_, node)| node));
        for (network, usual) in networks.iter_mut().zip(usual) {
            network.clients = usual;
        }
    }
    for (index, network) in networks.iter().enumerate() {
        let problem = |text: &str| section.problem(network.name.as_str(), text);
        let mut members = nodes.iter().filter(|(_, node)| node.kind.may_act());
        if network.clients && !members.any(|(_, node)| node.addresses[index].is_some()) {
            problem(
                "clients = true, and no member has an address on it; give the members one, or take the key out",
            );
        }
        let Some(gateway) = network.gateway else { continue };
        if !network.clients {
            problem(
                "gateway is looked at on a network of clients alone; add clients = true, or take gateway out",
            );
        }
        let host = Host::Ip(gateway);
        for (name, node) in nodes {
            let Some(address) = &node.addresses[index] else {
                continue;
            };
            if *address == host {
                problem(&format!(
                    "gateway {gateway} is the address of node {name}; give the address of the network's router"
                ));
            } else if ip_version(address).is_some_and(|version| Some(version) != ip_version(&host)) {
                problem(&format!(
                    "gateway {gateway} and {address} (nodes.{name}) are IPv4 and IPv6; give the router's address of the nodes' version"
                ));
                break;
            }
        }
    }
}

/// See [`Config::clients_by_serves`](super::Config::clients_by_serves).
pub(super) fn clients_by_serves<'a>(networks: usize, nodes: impl Iterator<Item = &'a Node>) -> Vec<bool> {
    let none = vec![false; networks];
    let mut common: Option<Vec<bool>> = None;
    for node in nodes.filter(|node| node.kind.may_act()) {
        let mut here = none.clone();
        for host in &node.serves {
            let mut on = (0..networks).filter(|n| node.addresses[*n].as_ref() == Some(host));
            match (on.next(), on.next()) {
                (Some(only), None) => here[only] = true,
                _ => return none,
            }
        }
        match &common {
            Some(common) if *common != here => return none,
            _ => common = Some(here),
        }
    }
    common.unwrap_or(none)
}

/// `[nodes]`, in the order of the file. Without known networks only the form is checked.
pub(super) fn nodes(root: &mut Section, networks: Option<&[Network]>) -> Option<Vec<(NodeName, Node)>> {
    let problems = root.problems;
    let example = "add a table for each node, like: [nodes.a] front = \"10.0.1.11\"";
    if !root.has("nodes") {
        problems.add(Place::File, format!("no nodes; {example}"));
        return None;
    }
    let table = root.table("nodes")?.all();
    let mut nodes: Vec<(NodeName, Node)> = Vec::new();
    let mut seen = Vec::new();
    for entry in table {
        let name = NodeName::new(&entry.key).map_err(|e| format!("node {e}"));
        let name = problems.note(entry.item.at, name);
        let node = node(entry, networks, problems, &mut seen);
        let (Some(name), Some(node)) = (name, node) else {
            continue;
        };
        if nodes.iter().any(|(other, _)| *other == name) {
            let text = format!("node \"{name}\" is there twice (case does not count); rename one");
            problems.add(entry.item.at, text);
            continue;
        }
        nodes.push((name, node));
    }
    if table.is_empty() {
        root.problem("nodes", &format!("no nodes; {example}"));
    } else if table.len() > MAX_NODES {
        root.problem(
            "nodes",
            &format!("{} nodes; at most {MAX_NODES} are possible", table.len()),
        );
    } else if nodes.len() == table.len() && !nodes.iter().any(|(_, node)| node.kind.may_act()) {
        let text = "no member, so nothing could ever be active; give at least one node kind = \"member\"";
        root.problem("nodes", text);
    }
    (nodes.len() == table.len()).then_some(nodes)
}

/// An address that some node has already: for which key, on which network.
struct Taken {
    key: String,
    network: usize,
    host: Host,
}

fn node(
    entry: &Entry,
    networks: Option<&[Network]>,
    problems: &Problems,
    seen: &mut Vec<Taken>,
) -> Option<Node> {
    let mut section = Section::of(format!("nodes.{}", entry.key), &entry.item, problems)?;
    let kinds = [Kind::Member, Kind::Observer, Kind::Witness].map(|kind| (kind.to_string(), kind));
    let kinds = kinds.each_ref().map(|(word, kind)| (word.as_str(), *kind));
    let kind = section.take("kind", |item| value::choice(item, &kinds));
    let priority = section.take("priority", |item| {
        value::integer(item, -MAX_PRIORITY, MAX_PRIORITY)
    });
    let networks = networks?;
    let mut addresses = vec![None; networks.len()];
    let mut binds = addresses.clone();
    let mut flawed = unknown_networks(&section, networks);
    for given in section.entries() {
        let Some(index) = networks
            .iter()
            .position(|n| given.key.eq_ignore_ascii_case(n.name.as_str()))
        else {
            continue;
        };
        let (host, bind) = address(&mut section, &given.key);
        let Some(host) = host else {
            flawed = true;
            continue;
        };
        if addresses[index].is_some() {
            section.problem(&given.key, "is there twice (case does not count); remove one");
        }
        if let Err(text) = check_address(&host, index, networks, seen) {
            section.problem(&given.key, &text);
        }
        seen.push(Taken {
            key: section.path_of(&given.key),
            network: index,
            host: host.clone(),
        });
        (addresses[index], binds[index]) = (Some(host), bind);
    }
    let name = NodeName::new(&entry.key).ok();
    let local = name.as_ref().map(|me| Local {
        me,
        addresses: &addresses,
        networks,
        base: Path::new(""),
    });
    let serves = section.take("serves", |item| {
        let filled = |text: &str| {
            local
                .as_ref()
                .map_or(Ok(text.to_owned()), |local| local.expand(text, For::Host))
        };
        one_answer(value::one_or_more(item, |text| value::host(&filled(text)?))?)
    });
    let Some(first) = addresses.iter().flatten().next().cloned() else {
        if flawed {
            return None;
        }
        let network = &networks.first()?.name;
        let text = format!(
            "[nodes.{}] has no address; add a line like: {network} = \"10.0.1.11\"",
            entry.key
        );
        problems.add(entry.item.at, text);
        return None;
    };
    Some(Node {
        kind: kind.unwrap_or_default(),
        addresses,
        binds,
        serves: serves.unwrap_or_else(|| vec![first]),
        priority: priority.unwrap_or(0),
    })
}

/// A DNS name has addresses, or is another name for one host; never both (RFC 1034 §3.6.2).
fn one_answer(hosts: Vec<Host>) -> Result<Vec<Host>, String> {
    let names = hosts.iter().filter(|host| matches!(host, Host::Name(_))).count();
    if names > 0 && hosts.len() > 1 {
        return Err("give either addresses or a single host name, not both".to_owned());
    }
    Ok(hosts)
}

/// Notes keys that mean nothing, and says whether there were any.
fn unknown_networks(section: &Section, networks: &[Network]) -> bool {
    let mut any = false;
    let names: Vec<&str> = networks.iter().map(|n| n.name.as_str()).collect();
    for entry in section.entries() {
        let known = |valid: &&str| entry.key.eq_ignore_ascii_case(valid);
        if names.iter().any(known) || NODE_KEYS.contains(&entry.key.as_str()) {
            continue;
        }
        let valid = names.iter().chain(&NODE_KEYS).copied();
        let advice = match nearest(&entry.key, valid) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!(
                "networks are {}; keys are {}",
                names.join(", "),
                NODE_KEYS.join(", ")
            ),
        };
        section.problem(
            &entry.key,
            &format!("neither a network nor a key of nodes; {advice}"),
        );
        any = true;
    }
    any
}

/// Whether `host` can stand beside the addresses that were seen before.
/// `"10.0.1.11"`, or `{ address = "203.0.113.5", bind = "10.0.0.5" }`: where others reach it, and where it listens if that is elsewhere.
fn address(section: &mut Section, key: &str) -> (Option<Host>, Option<Host>) {
    let read = |item| value::host(value::text(item)?);
    if !matches!(section.item(key), Some(item) if matches!(item.value, Value::Table(_))) {
        return (section.take(key, read), None);
    }
    let Some(mut both) = section.table(key) else {
        return (None, None);
    };
    let host = both.need("address", "address = \"203.0.113.5\"", read);
    let bind = both.take("bind", read);
    if let (Some(host), Some(bind)) = (&host, &bind)
        && let Some((a, b)) = ip_version(host).zip(ip_version(bind))
        && a != b
    {
        both.problem(
            "bind",
            &format!("{bind} and {host} are IPv4 and IPv6; what is sent to one does not arrive at the other"),
        );
    }
    both.finish();
    (host, bind)
}

fn check_address(host: &Host, network: usize, networks: &[Network], seen: &[Taken]) -> Result<(), String> {
    let here = &networks[network];
    for other in seen {
        let there = &networks[other.network];
        // Two interfaces may lead to two separate networks with the same addresses.
        let apart =
            here.interface.is_some() && there.interface.is_some() && here.interface != there.interface;
        if other.host == *host && here.port == there.port && (network == other.network || !apart) {
            let advice = "every node needs an address of its own on each network";
            return Err(format!(
                "{host} port {} is already {}; {advice}",
                here.port, other.key
            ));
        }
        if network == other.network
            && ip_version(&other.host)
                .zip(ip_version(host))
                .is_some_and(|(a, b)| a != b)
        {
            let advice = "they cannot talk to each other; make them two networks";
            return Err(format!(
                "{host} and {} ({}) are IPv4 and IPv6; {advice}",
                other.host, other.key
            ));
        }
    }
    Ok(())
}

fn ip_version(host: &Host) -> Option<bool> {
    match host {
        Host::Ip(ip) => Some(matches!(ip, IpAddr::V6(_))),
        Host::Name(_) => None,
    }
}

/// Which node this is. With no name given, the first of the file.
pub(super) fn own(me: Option<&NodeName>, nodes: &[(NodeName, Node)], root: &Section) -> Option<NodeName> {
    let Some(me) = me else {
        return nodes.first().map(|(name, _)| name.clone());
    };
    if nodes.iter().any(|(name, _)| name == me) {
        return Some(me.clone());
    }
    let names: Vec<&str> = nodes.iter().map(|(name, _)| name.as_str()).collect();
    let advice = "start with --node NAME (or BATON_NODE) and one of";
    root.problem(
        "nodes",
        &format!("no node is called \"{me}\"; {advice} {}", names.join(", ")),
    );
    None
}
