//! The ways to the peers: by which interface the kernel would send, and whether a connection comes about.

use super::super::facts::{Call, Facts, Network, Outcome, Route, Settings};
use crate::netlink::Kernel;
use baton_shared::config::{Config, Host};
use baton_shared::id::NodeName;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// For a connection to a peer: a lost first packet is sent again after a second.
const CALL: Duration = Duration::from_millis(1_500);
/// Addresses of peers that are looked at, and how many are called at once.
const MAX_CALLS: usize = 512;
const CALLS_AT_ONCE: usize = 64;

/// Interfaces, and the ways to peers.
pub(super) fn ways(settings: &Settings, facts: &mut Facts) {
    let asked = Kernel::open().and_then(|kernel| Ok((kernel.interfaces()?, kernel)));
    let kernel = match asked {
        Ok((interfaces, kernel)) => {
            facts.interfaces = interfaces;
            kernel
        }
        Err(error) => {
            return facts.miss(
                "interfaces and routes",
                format!("the kernel does not tell: {error}"),
            );
        }
    };
    for (network, peer, from, to) in pairs(settings).take(MAX_CALLS) {
        if facts.interface_of(from).is_none() {
            continue;
        }
        let bound = network.interface.as_ref();
        let bound = bound.and_then(|name| facts.interfaces.iter().find(|i| i.name == *name));
        let Ok(way) = kernel.way(from, to, bound.map(|i| i.index)) else {
            continue; // what the kernel does not tell is no fault
        };
        let way = way.unwrap_or_default();
        facts.routes.push(Route {
            network: network.name.clone(),
            peer: peer.clone(),
            interface: way.interface,
            gateway: way.gateway,
            mtu: way.mtu,
        });
    }
    let left = pairs(settings).count().saturating_sub(MAX_CALLS);
    if left > 0 {
        let why = format!("only the first {MAX_CALLS} are looked at");
        facts.miss(&format!("the ways to {left} addresses of peers"), why);
    }
    let named = settings
        .nodes
        .iter()
        .filter(|(_, addresses)| addresses.iter().all(Option::is_none));
    let named: Vec<String> = named.map(|(name, _)| name.to_string()).collect();
    if !named.is_empty() {
        facts.miss(
            "the ways to some nodes",
            format!(
                "{} are given by host names, which are not looked up here",
                named.join(", ")
            ),
        );
    }
}

/// Own and other address of every link: network, peer, from, to.
fn pairs(settings: &Settings) -> impl Iterator<Item = (&Network, &NodeName, IpAddr, IpAddr)> {
    let peers = settings.nodes.keys().filter(|name| **name != settings.me);
    peers.flat_map(move |peer| {
        settings.networks.iter().filter_map(move |network| {
            let from = settings.own_address(&network.name)?;
            Some((network, peer, from, settings.address(peer, &network.name)?))
        })
    })
}

/// Connects to the port of every peer on every network, and hangs up. Without what the agent sees of the
/// links it would tell little.
pub(super) async fn calls(settings: &Settings, end: Instant) -> Vec<Call> {
    let places = Arc::new(Semaphore::new(CALLS_AT_ONCE));
    let mut under_way = JoinSet::new();
    for (network, peer, from, to) in pairs(settings).take(MAX_CALLS) {
        let (network_name, peer, places) = (network.name.clone(), peer.clone(), places.clone());
        let to = SocketAddr::new(to, network.port);
        under_way.spawn(async move {
            let _place = places.acquire().await;
            let outcome = call(from, to).await;
            Call {
                network: network_name,
                peer,
                outcome,
            }
        });
    }
    let mut done = Vec::new();
    while let Ok(Some(call)) = timeout_at(end, under_way.join_next()).await {
        done.extend(call);
    }
    done.sort_by(|a, b| (&a.network, &a.peer).cmp(&(&b.network, &b.peer)));
    done
}

async fn call(from: IpAddr, to: SocketAddr) -> Outcome {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let connected = async {
        let socket = socket?;
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(to).await
    };
    match timeout(CALL, connected).await {
        Err(_) => Outcome::Silence,
        Ok(Ok(_)) => Outcome::Connected,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused,
            ErrorKind::TimedOut | ErrorKind::HostUnreachable => Outcome::Silence,
            _ => Outcome::Failed(error.to_string()),
        },
    }
}

/// The node whose addresses this machine has; `None` if it is none, or several.
pub(in super::super) fn whose(config: &Config) -> Option<NodeName> {
    let interfaces = Kernel::open().and_then(|kernel| kernel.interfaces()).ok()?;
    let facts = Facts {
        interfaces,
        ..Facts::default()
    };
    let here = |host: &Option<Host>| matches!(host, Some(Host::Ip(ip)) if facts.is_own(*ip));
    let mut here = config
        .nodes
        .iter()
        .filter(|(_, node)| node.here().iter().any(here));
    match (here.next(), here.next()) {
        (Some((name, _)), None) => Some(name.clone()),
        _ => None,
    }
}
