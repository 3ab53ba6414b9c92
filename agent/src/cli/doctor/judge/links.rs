//! Links that are broken while others to the same peer are not: firewalls, mostly. Says which way is lost,
//! and what to open.

use super::agent::is_deaf;
use super::listed;
use super::networks::fault_at_home;
use crate::cli::doctor::facts::{Facts, Network, Outcome, Settings};
use crate::cli::doctor::finding::Finding;
use baton_shared::id::NodeName;
use baton_shared::status::{LinkStatus, NodeStatus, Status};
use baton_shared::view::{LinkState, PeerState, StreamState};
use std::collections::BTreeMap;

/// What is lost between this node and a peer on one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lost {
    /// What the peer sends.
    In,
    /// What this node sends.
    Out,
    /// Nothing comes, and the peer does not say that it hears this node: both ways.
    Both,
}

pub(super) fn find(facts: &Facts, out: &mut Vec<Finding>) {
    let Some(status) = facts.status() else { return };
    let mut lost: BTreeMap<(&str, Lost), Vec<&NodeName>> = BTreeMap::new();
    for (node, network, way) in broken(status, facts.settings.as_ref()) {
        lost.entry((network, way)).or_default().push(&node.name);
    }
    for ((network, way), peers) in lost {
        // A cause on this machine is told by itself.
        if fault_at_home(facts, network).is_none() {
            out.push(explain(facts, status, network, way, &peers));
        }
    }
    silent_hosts(facts, status, out);
    streams(facts, status, out);
}

/// Links that are lost although the peer is heard on another network.
fn broken<'a>(
    status: &'a Status,
    settings: Option<&'a Settings>,
) -> impl Iterator<Item = (&'a NodeStatus, &'a str, Lost)> {
    let heard = |node: &&NodeStatus| matches!(node.state, PeerState::Up | PeerState::Suspect);
    let nodes = status.nodes.iter().filter(heard);
    nodes.flat_map(move |node| {
        node.links.iter().filter_map(move |link| {
            let way = match link.state {
                LinkState::OneWay => Lost::Out,
                LinkState::Down if hears_us(node, status, settings, &link.network) => Lost::In,
                LinkState::Down => Lost::Both,
                LinkState::Up | LinkState::Late => return None,
            };
            Some((node, link.network.as_str(), way))
        })
    })
}

/// Whether the peer says that it hears this node on that network. The bits are in the configuration's order.
fn hears_us(node: &NodeStatus, status: &Status, settings: Option<&Settings>, network: &str) -> bool {
    let index = settings.and_then(|s| s.networks.iter().position(|n| n.name == network));
    let heard = node.hears.iter().find(|(name, _)| *name == status.node);
    match (index, heard) {
        (Some(index), Some((_, bits))) => index < 16 && bits & (1 << index) != 0,
        _ => false,
    }
}

/// Whether no node that is heard by any way hears another on that network, by its own word.
fn nobody_heard(facts: &Facts, status: &Status, network: &str) -> bool {
    let networks = facts.settings.iter().flat_map(|settings| &settings.networks);
    let Some(index) = networks.into_iter().position(|n| n.name == network) else {
        return false;
    };
    let others = status.nodes.iter().filter(|node| node.name != status.node);
    let mut heard = others.flat_map(|node| &node.hears);
    heard.all(|(_, bits)| index >= 16 || bits & (1 << index) == 0)
}

fn explain(facts: &Facts, status: &Status, network: &str, way: Lost, peers: &[&NodeName]) -> Finding {
    let settings = facts.settings.as_ref();
    let at = |peer: &&NodeName| match settings.and_then(|s| s.address(peer, network)) {
        Some(ip) => format!("{peer} ({ip})"),
        None => peer.to_string(),
    };
    let whom = listed(peers.iter().map(at));
    let me = &status.node;
    let port = settings.and_then(|s| s.networks.iter().find(|n| n.name == network));
    let port = port.map_or("the network's port".into(), |n: &Network| {
        format!("port {}", n.port)
    });
    let what = match way {
        Lost::In => format!(
            "{network}: nothing arrives here from {whom}, while they hear {me} there: only the way in is blocked"
        ),
        Lost::Out => format!(
            "{network}: what {me} sends does not arrive at {whom}, while this node hears them: only the way out is blocked"
        ),
        Lost::Both => {
            format!("{network}: nothing arrives here from {whom}, while another network to them works")
        }
    };
    let others = status.nodes.iter().filter(|node| {
        let on_it = node.links.iter().any(|link| link.network == network);
        on_it && !peers.contains(&&node.name)
    });
    let side = match (others.count(), peers.len()) {
        (0, 1) => "on either machine",
        (0, _) if nobody_heard(facts, status, network) => {
            "probably in the network itself (a switch, a VLAN), for nobody hears anybody there"
        }
        (0, _) => "probably on this machine, for it is so with every peer",
        (_, 1) => "probably on the peer's machine, for other links of this network work",
        _ => "on these machines or between them",
    };
    let interface = settings.and_then(|s| s.own_address(network));
    let interface = interface.and_then(|ip| facts.interface_of(ip));
    let interface = interface.map_or(String::new(), |i| format!(" on interface {}", i.name));
    let open = match way {
        Lost::In => format!("let UDP and TCP {port} in from {whom} here{interface}, and out there"),
        Lost::Out => format!("let UDP and TCP {port} out to {whom} here{interface}, and in there"),
        Lost::Both => {
            format!("let UDP and TCP {port} through, in and out, between {me}{interface} and {whom}")
        }
    };
    let tcp = match peers
        .iter()
        .all(|peer| outcome(facts, network, peer) == Some(&Outcome::Connected))
    {
        true => ". TCP passes, so the machines and cables are well and a firewall's rule for UDP is missing",
        false => "; or mend the cable, switch or VLAN",
    };
    Finding::broken(
        "firewall",
        what,
        format!("{open} ({side}; see `nft list ruleset`, `iptables -S`, or the cloud's security group){tcp}"),
    )
}

fn outcome<'a>(facts: &'a Facts, network: &str, peer: &NodeName) -> Option<&'a Outcome> {
    let call = facts
        .calls
        .iter()
        .find(|call| call.network == network && call.peer == *peer);
    call.map(|call| &call.outcome)
}

/// A peer that is not heard at all, although its agent takes connections: no word of it comes by UDP.
fn silent_hosts(facts: &Facts, status: &Status, out: &mut Vec<Finding>) {
    // What comes from it and cannot be read is told by itself, and no firewall's doing.
    let unheard = |node: &&NodeStatus| {
        let silent = matches!(node.state, PeerState::Down | PeerState::Unknown);
        node.unread.is_none() && silent && !is_deaf(node)
    };
    for node in status.nodes.iter().filter(unheard) {
        let calls = facts.calls.iter().filter(|call| call.peer == node.name);
        let connected: Vec<&str> = calls
            .filter(|call| call.outcome == Outcome::Connected)
            .map(|call| call.network.as_str())
            .collect();
        if !connected.is_empty() {
            out.push(Finding::broken(
                "firewall",
                format!(
                    "{} is not heard, although it takes connections on {}: heartbeats (UDP) are blocked, or its agent is \
                     frozen",
                    node.name,
                    listed(connected)
                ),
                "let UDP through as well as TCP, in and out, on the port of the networks; see the log of the agent there",
            ));
        }
    }
}

/// What the agent's own tries found counts when it has lasted so long, in milliseconds: after a change they may not have been
/// made again.
const LASTS_MS: f64 = 10_000.0;

/// Heartbeats pass and streams do not, or not whole: the log is not replicated there.
fn streams(facts: &Facts, status: &Status, out: &mut Vec<Finding>) {
    for node in &status.nodes {
        for link in node.links.iter().filter(|link| link.state == LinkState::Up) {
            let called = match outcome(facts, &link.network, &node.name) {
                Some(Outcome::Refused) => Some(("is refused", "a firewall rejects it")),
                Some(Outcome::Silence) => Some(("gets no answer", "a firewall drops it")),
                _ => None,
            };
            let lasts = link.stream.for_ms.is_some_and(|ms| ms >= LASTS_MS);
            match called {
                Some((how, cause)) => out.push(blocked(
                    facts,
                    &link.network,
                    format!(
                        "{}: a connection to {} (TCP) {how}, although heartbeats (UDP) pass: {cause}",
                        link.network, node.name
                    ),
                )),
                None if lasts && link.stream.state.fails() => out.push(tried(facts, node, link)),
                None => {}
            }
        }
    }
}

fn blocked(facts: &Facts, network: &str, what: String) -> Finding {
    let port = port(facts, network).map_or(String::new(), |port| format!(" {port}"));
    Finding::broken(
        "firewall",
        what,
        format!(
            "let TCP port{port} through as well as UDP, in both directions; without it decisions travel by other networks only"
        ),
    )
}

/// What the agent's tries of streams found.
fn tried(facts: &Facts, node: &NodeStatus, link: &LinkStatus) -> Finding {
    let (network, peer, stream) = (&link.network, &node.name, &link.stream);
    let cure = stream.state.cure(port(facts, network).unwrap_or_default());
    match stream.state {
        StreamState::LargeLost => {
            let settings = facts.settings.as_ref();
            let own = settings.and_then(|settings| settings.own_address(network));
            let own = own.and_then(|ip| facts.interface_of(ip)).map(|interface| {
                format!(
                    " (this node is there by {}, whose MTU is {})",
                    interface.name, interface.mtu
                )
            });
            Finding::broken(
                "mtu",
                format!(
                    "{network}: heartbeats (UDP) and small messages to {peer} pass, large ones (TCP) do not: {}: some hop takes \
                     shorter packets only{}",
                    stream.why,
                    own.unwrap_or_default()
                ),
                cure,
            )
        }
        StreamState::NoHandshake => Finding::broken(
            "streams",
            format!(
                "{network}: heartbeats (UDP) to {peer} pass, and streams (TCP) do not: {}",
                stream.why
            ),
            cure,
        ),
        _ => blocked(
            facts,
            network,
            format!(
                "{network}: heartbeats (UDP) to {peer} pass, and the agent's streams (TCP) do not: {}",
                stream.why
            ),
        ),
    }
}

fn port(facts: &Facts, network: &str) -> Option<u16> {
    let settings = facts.settings.as_ref()?;
    let network = settings.networks.iter().find(|n| n.name == network);
    network.map(|network| network.port)
}
