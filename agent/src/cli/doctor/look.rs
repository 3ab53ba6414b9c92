//! Looking: fills [`Facts`]. Changes nothing, and ends in time whatever hangs.

mod machine;
mod netlink;
mod sockets;

use super::facts::{
    Agent, AppPort, Call, Facts, Holder, Listener, Network, Outcome, Route, Settings, Spread, Traffic, Unseen,
};
use crate::cli::client::{Client, Place};
use baton_shared::config::{Config, Host, Probe};
use baton_shared::id::NodeName;
use baton_shared::status::Status;
use netlink::Kernel;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, timeout_at};

/// All of it ends by then; the rest of five seconds is for starting and printing.
const WHOLE: Duration = Duration::from_millis(4_500);
/// For the clocks to be watched.
const WATCHED: Duration = Duration::from_secs(1);
/// For this node's agent, and for a peer's, to answer.
const ASK: Duration = Duration::from_millis(1_500);
/// For a connection to a peer: a lost first packet is sent again after a second.
const CALL: Duration = Duration::from_millis(1_500);
/// Addresses of peers that are called, and how many at once.
const MAX_CALLS: usize = 512;
const CALLS_AT_ONCE: usize = 64;
/// Peers that are asked for their version.
const MAX_ASKED: usize = 32;

/// What to look at.
pub(super) struct Subject {
    /// The configuration, if there is one.
    pub settings: Option<Settings>,
    /// Its storage directory.
    pub storage: Option<std::path::PathBuf>,
    /// The way to the agent, or why there is none.
    pub client: Result<Client, String>,
    /// Where each peer's checks listener is.
    pub peers: BTreeMap<NodeName, SocketAddr>,
    /// Ports of the application that the command line names.
    pub app_ports: Vec<u16>,
}

/// Looks at everything.
pub(super) async fn look(subject: Subject) -> Facts {
    let end = tokio::time::Instant::now() + WHOLE;
    let watched = tokio::time::Instant::now() + WATCHED;
    let start = machine::Reading::now();
    let wakeups = apart(machine::wakeups);
    let flush = subject.storage.clone().map(|dir| apart(move || flushes(&dir)));

    let mut facts = Facts::default();
    facts.agent = agent(&subject.client).await;
    let pid = subject.client.as_ref().ok().and_then(Client::pid);
    facts.rights = machine::rights(pid.filter(|_| facts.status().is_some()));
    facts.settings = subject.settings;
    if let Some(settings) = facts.settings.clone() {
        ways(&settings, &mut facts);
        if facts.status().is_some() {
            let (calls, versions) = (calls(&settings), versions(&subject.peers));
            (facts.calls, facts.versions) = tokio::join!(calls, versions);
        }
        not_asked(&settings, &mut facts);
        holders(&settings, &mut facts);
    } else {
        facts.unseen.push(Unseen {
            what: "networks, ports, storage and the application".into(),
            why: "no configuration file was named or found; name it with --config FILE".into(),
        });
    }
    traffic(&subject.app_ports, &mut facts);
    if let Some(dir) = &subject.storage {
        match machine::storage(dir) {
            Ok(storage) => facts.storage = Some(storage),
            Err(error) => facts.miss("the storage directory", format!("{}: {error}", dir.display())),
        }
    }
    facts.wakeups = timeout_at(end, wakeups).await.ok().and_then(Result::ok).flatten();
    if let Some(flush) = flush {
        match timeout_at(end, flush).await {
            Ok(Ok(Ok(spread))) => facts.flush = spread,
            Ok(Ok(Err(why))) => facts.miss("how long the disk takes", why),
            _ => facts.miss(
                "how long the disk takes",
                "it did not write a few pages within seconds: it hangs, or is overloaded".into(),
            ),
        }
    }
    sleep_until(watched).await;
    facts.clock = machine::clock(start);
    facts
}

impl Facts {
    fn miss(&mut self, what: &str, why: String) {
        let what = what.into();
        self.unseen.push(Unseen { what, why });
    }
}

/// Runs `work` on a thread of its own, which the end of the program ends: a disk that hangs must not hold it up.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        // Who no longer waits wants no answer.
        let _ = send.send(work());
    });
    receive
}

fn flushes(dir: &Path) -> Result<Option<Spread>, String> {
    machine::flushes(dir).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => format!(
            "this user may not write to {}; run the doctor as the agent's user, such as with sudo",
            dir.display()
        ),
        ErrorKind::NotFound => format!("{} is not there yet", dir.display()),
        _ => format!("{}: {error}", dir.display()),
    })
}

async fn agent(client: &Result<Client, String>) -> Agent {
    let asked = match client {
        Ok(client) => timeout(ASK, client.get::<Status>("/status")).await,
        Err(why) => return Agent::Silent(why.clone()),
    };
    match asked {
        Ok(Ok(status)) => Agent::Answers(Box::new(status)),
        Ok(Err(failure)) => Agent::Silent(failure.text),
        Err(_) => Agent::Silent(format!(
            "no answer within {:.1} s; is it frozen or overloaded?",
            ASK.as_secs_f64()
        )),
    }
}

/// The configuration, as far as it matters here.
pub(super) fn settings(file: &Path, config: &Config, risks: Vec<String>, refused: Vec<String>) -> Settings {
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
    if let Some(baton_shared::config::ControlListen::Tcp { addr, .. }) =
        config.control.as_ref().map(|control| &control.listen)
    {
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

/// Interfaces, and the ways to peers.
fn ways(settings: &Settings, facts: &mut Facts) {
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
        let way = kernel.way(from, to, bound.map(|i| i.index)).unwrap_or_default();
        facts.routes.push(Route {
            network: network.name.clone(),
            peer: peer.clone(),
            interface: way.interface,
            gateway: way.gateway,
            mtu: way.mtu,
        });
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

/// Connects to the port of every peer on every network, and hangs up. Without what the agent sees of the links it would tell
/// little.
async fn calls(settings: &Settings) -> Vec<Call> {
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
    let all = async {
        let mut done = Vec::new();
        while let Some(call) = under_way.join_next().await {
            done.extend(call);
        }
        done
    };
    let mut done = timeout(2 * CALL, all).await.unwrap_or_default();
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

/// What the peers' agents say they are.
async fn versions(peers: &BTreeMap<NodeName, SocketAddr>) -> BTreeMap<NodeName, String> {
    let mut under_way = JoinSet::new();
    for (name, address) in peers.iter().take(MAX_ASKED) {
        let (name, client) = (name.clone(), Client::new(Place::Tcp(address.to_string()), None));
        under_way.spawn(async move {
            let asked = timeout(ASK, client.get::<Status>("/status")).await;
            let status = asked.ok()?.ok()?;
            (status.node == name).then_some((name, status.version))
        });
    }
    let mut all = BTreeMap::new();
    while let Some(answer) = under_way.join_next().await {
        all.extend(answer.ok().flatten());
    }
    all
}

/// Says which peers were left out, and whose version is not known of those that are up.
fn not_asked(settings: &Settings, facts: &mut Facts) {
    use baton_shared::view::PeerState;
    let Some(status) = facts.status() else { return };
    let left = pairs(settings).count().saturating_sub(MAX_CALLS);
    let up = status.nodes.iter().filter(|node| node.state == PeerState::Up);
    let unknown: BTreeSet<String> = up
        .filter(|node| node.name != settings.me && !facts.versions.contains_key(&node.name))
        .map(|node| node.name.to_string())
        .collect();
    if left > 0 {
        let why = format!("only the first {MAX_CALLS} are looked at");
        facts.miss(&format!("the ways to {left} addresses of peers"), why);
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.into_iter().collect();
        facts.miss(
            &format!("the version of {}", names.join(", ")),
            "no checks listener ([http] listen) of theirs answers from here".into(),
        );
    }
}

/// Sockets in the way of listeners that an agent would bind.
fn holders(settings: &Settings, facts: &mut Facts) {
    if facts.status().is_some() {
        return;
    }
    let mut blocking = Vec::new();
    for (protocol, name, udp) in [("tcp", "TCP", false), ("udp", "UDP", true)] {
        let rows = match sockets::table(protocol) {
            Ok(rows) => rows,
            Err(error) => {
                facts.miss("which ports are taken", format!("/proc/net/{protocol}: {error}"));
                continue;
            }
        };
        for listener in settings.listeners.iter().filter(|listener| listener.udp || !udp) {
            let in_the_way = rows
                .iter()
                .filter(|row| row.listens(udp) && row.blocks(listener.address));
            blocking.extend(in_the_way.map(|row| (listener.address, name, *row)));
        }
    }
    let inodes: Vec<u64> = blocking.iter().map(|(_, _, row)| row.inode).collect();
    let deadline = Instant::now() + Duration::from_millis(500);
    let owners = match inodes.is_empty() {
        true => BTreeMap::new(),
        false => sockets::owners(&inodes, deadline),
    };
    facts.holders = blocking
        .into_iter()
        .map(|(wanted, protocol, row)| Holder {
            wanted,
            protocol,
            address: row.local,
            process: owners.get(&row.inode).cloned(),
        })
        .collect();
}

/// Connections from elsewhere to the application. The nodes themselves are no clients: they replicate.
fn traffic(named: &[u16], facts: &mut Facts) {
    let mut ports = facts
        .settings
        .as_ref()
        .map_or(Vec::new(), |settings| settings.app_ports.clone());
    for port in named {
        ports.retain(|known| known.port != *port);
        ports.push(AppPort {
            port: *port,
            role: None,
            source: "--app-port".into(),
        });
    }
    if ports.is_empty() {
        let why = "no port of it is known; name it with --app-port PORT, [dns.services] or [check]";
        return facts.miss("traffic to the application", why.into());
    }
    let rows = match sockets::table("tcp") {
        Ok(rows) => rows,
        Err(error) => return facts.miss("traffic to the application", error.to_string()),
    };
    let nodes = facts.settings.as_ref().map(|settings| &settings.nodes);
    let nodes: BTreeSet<IpAddr> = nodes
        .into_iter()
        .flat_map(|nodes| nodes.values().flatten().flatten().copied())
        .collect();
    let elsewhere = |ip: IpAddr| !ip.is_loopback() && !facts.is_own(ip) && !nodes.contains(&ip);
    let all = ports.into_iter().map(|port| {
        let mut clients = BTreeMap::new();
        for row in rows
            .iter()
            .filter(|row| row.connected() && row.local.port() == port.port)
        {
            if elsewhere(row.remote.ip()) {
                *clients.entry(row.remote.ip()).or_default() += 1;
            }
        }
        Traffic { port, clients }
    });
    facts.traffic = all.collect();
}

/// The node whose addresses this machine has; `None` if it is none, or several.
pub(super) fn whose(config: &Config) -> Option<NodeName> {
    let interfaces = Kernel::open().and_then(|kernel| kernel.interfaces()).ok()?;
    let facts = Facts {
        interfaces,
        ..Facts::default()
    };
    let here = |host: &Option<Host>| matches!(host, Some(Host::Ip(ip)) if facts.is_own(*ip));
    let mut here = config
        .nodes
        .iter()
        .filter(|(_, node)| node.addresses.iter().any(here));
    match (here.next(), here.next()) {
        (Some((name, _)), None) => Some(name.clone()),
        _ => None,
    }
}
