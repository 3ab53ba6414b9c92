//! Looking: fills [`Facts`]. Changes nothing, and ends in time whatever hangs.

mod disk;
mod ground;
mod machine;
mod paths;
mod settings;
mod sockets;

pub(super) use disk::report;
pub(super) use paths::whose;
pub(super) use settings::{named, settings};

use super::facts::{Agent, AppPort, Facts, Holder, Hung, Later, Rights, Settings, Traffic, Unseen};
use crate::cli::client::{Client, Place};
use crate::programs;
use baton_dnsd::names;
use baton_shared::config::{Config, Host};
use baton_shared::id::NodeName;
use baton_shared::status::Status;
use baton_shared::view::PeerState;
use disk::Disk;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// All of it ends by then; the rest of five seconds is for starting and printing.
const WHOLE: Duration = Duration::from_millis(4_500);
/// For the clocks to be watched.
const WATCHED: Duration = Duration::from_secs(1);
/// For this node's agent, and for a peer's, to answer.
const ASK: Duration = Duration::from_millis(1_500);
/// For the kernel to tell something that it knows.
const LOOK: Duration = Duration::from_secs(1);
/// For the processes to be found that hold some sockets.
const SEARCH: Duration = Duration::from_millis(500);
/// Names whose addresses are asked for.
const MAX_NAMES: usize = 256;
/// Peers that are asked for their version.
const MAX_ASKED: usize = 32;

/// What to look at.
pub(super) struct Subject {
    /// The configuration, if there is one.
    pub settings: Option<Settings>,
    /// Why there is none, although there is a file.
    pub unreadable: Option<String>,
    /// Its storage directory.
    pub storage: Option<PathBuf>,
    /// The configuration as it was read: it names the programs that a role needs.
    pub programs: Option<Config>,
    /// The way to the agent, or why there is none.
    pub client: Result<Client, String>,
    /// Names in the configuration that stand for addresses: of which node, and on which network.
    pub named: Vec<(NodeName, usize, Host)>,
    /// Where each peer's checks listener is; at no address: at the first that the node has.
    pub peers: BTreeMap<NodeName, SocketAddr>,
    /// Where this node's agent shows its measurements.
    pub checks: Option<Place>,
    /// Ports of the application that the command line names.
    pub app_ports: Vec<u16>,
}

const PROGRAMS: &str = "looking at the programs that [actions], [check] and [process] name";

/// Looks at everything; ends in time after `begun`.
pub(super) async fn look(subject: Subject, begun: Instant) -> Facts {
    let (watched, end) = (Instant::now() + WATCHED, begun + WHOLE);
    let start = machine::Reading::now();
    let wakeups = apart(machine::wakeups);
    let disk = subject.storage.clone().map(|dir| Disk::look(&dir));

    let mut facts = Facts {
        agent: agent(&subject.client).await,
        settings: subject.settings,
        ..Facts::default()
    };
    let (answers, answered) = (facts.status().is_some(), Instant::now());
    if let Some(settings) = &mut facts.settings {
        let missed = resolve(subject.named, settings, end).await;
        facts.unseen.extend(missed);
    }
    facts.rights = rights(subject.client.as_ref().ok().filter(|_| answers), &mut facts, end).await;
    let networks = facts.settings.iter().flat_map(|settings| &settings.networks);
    let gateway = networks.filter_map(|network| network.gateway).next();
    facts.rights.echo = gateway.map(|ip| crate::sides::permitted(ip.is_ipv6()));
    let node = facts
        .status()
        .map(|status| (status.cluster.clone(), status.node.clone()));
    let seen = facts.rights.agent_pid.zip(node);
    let found = within(
        end,
        "finding the guardian and its cgroups",
        move || ground::look(seen),
        &mut facts,
    )
    .await;
    facts.ground = found.unwrap_or_default();
    match facts.settings.clone() {
        Some(settings) => {
            paths::ways(&settings, &mut facts);
            if answers {
                let peers = outside(&subject.peers, &settings);
                let (calls, versions) = (paths::calls(&settings, end), versions(&peers, end));
                (facts.calls, facts.versions) = tokio::join!(calls, versions);
                not_asked(&settings, &mut facts);
            } else {
                let lacks = match subject.programs {
                    Some(config) => within(end, PROGRAMS, move || programs::lacks(&config), &mut facts).await,
                    None => None,
                };
                let lacks = lacks.into_iter().flatten();
                facts.lacks = lacks.filter_map(|(role, lack)| Some((role, lack?))).collect();
                holders(&settings, &mut facts);
            }
        }
        None => {
            let none = || "no configuration file was named or found; name it with --config FILE".into();
            let why = subject.unreadable.unwrap_or_else(none);
            facts.miss("networks, ports, storage and the application", why);
        }
    }
    traffic(&subject.app_ports, &mut facts);
    facts.wakeups = timeout_at(end, wakeups).await.ok().and_then(Result::ok).flatten();
    let loop_late_ms = match &subject.checks {
        Some(place) if answers => timeout_at(end, loop_late_ms(place)).await.ok().flatten(),
        _ => None,
    };
    sleep_until(watched).await;
    if let Ok(client) = &subject.client
        && answers
    {
        facts.later = timeout_at(end, later(client, answered)).await.ok().flatten();
    }
    facts.clock = machine::clock(start);
    facts.clock.loop_late_ms = loop_late_ms;
    // Last of all, for it may take until the end.
    if let Some(disk) = disk {
        disk.seen(end, &mut facts).await;
    }
    facts
}

/// Finds the addresses of all names at once, within [`ASK`]. Says which of them have none.
async fn resolve(
    named: Vec<(NodeName, usize, Host)>,
    settings: &mut Settings,
    end: Instant,
) -> Option<Unseen> {
    let end = end.min(Instant::now() + ASK);
    let mut under_way = JoinSet::new();
    for (node, n, host) in named.into_iter().take(MAX_NAMES) {
        under_way.spawn(async move {
            let asked = timeout_at(end, names::look_up(&host)).await;
            let ips = asked.ok().and_then(Result::ok).unwrap_or_default();
            (node, n, host, ips)
        });
    }
    let (mut found, mut missing) = (Vec::new(), BTreeSet::new());
    while let Some(one) = under_way.join_next().await {
        let Ok((node, n, host, ips)) = one else { continue };
        if ips.is_empty() {
            missing.insert(host.to_string());
        }
        found.push((node, n, ips));
    }
    found.sort();
    settings::place(found, |ip| std::net::UdpSocket::bind((ip, 0)).is_ok(), settings);
    (!missing.is_empty()).then(|| Unseen {
        what: "some networks".into(),
        why: format!(
            "no address was found within {:.1} s for {}",
            ASK.as_secs_f64(),
            missing.into_iter().collect::<Vec<_>>().join(", ")
        ),
    })
}

/// Where the peers' checks listeners are, as far as that is known.
fn outside(peers: &BTreeMap<NodeName, SocketAddr>, settings: &Settings) -> BTreeMap<NodeName, SocketAddr> {
    let at = |(name, addr): (&NodeName, &SocketAddr)| {
        let ip = match addr.ip().is_unspecified() {
            true => settings.nodes.get(name)?.iter().copied().flatten().next()?,
            false => addr.ip(),
        };
        Some((name.clone(), SocketAddr::new(ip, addr.port())))
    };
    peers.iter().filter_map(at).collect()
}

/// The longest that the agent's loop was ever late, as its metrics say.
async fn loop_late_ms(place: &Place) -> Option<f64> {
    let client = Client::new(place.clone(), None);
    let (_, text) = client.probe("/metrics", ASK).await.ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("baton_loop_late_max_seconds "))?;
    let seconds: f64 = value.trim().parse().ok()?;
    Some(seconds * 1e3)
}

impl Facts {
    fn miss(&mut self, what: &str, why: String) {
        let what = what.into();
        self.unseen.push(Unseen { what, why });
    }
}

/// Runs `work` on a thread of its own, which the end of the program ends: a disk that hangs must not hold it
/// up.
pub(super) fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (send, receive) = oneshot::channel();
    // Without a thread there is no answer, which the receiver tells; and who no longer waits wants none.
    let _ = std::thread::Builder::new().spawn(move || send.send(work()).is_ok());
    receive
}

/// What `work` gives, on a thread of its own; `None` if it has not ended by then, which is a finding.
async fn within<T: Send + 'static>(
    end: Instant,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
    facts: &mut Facts,
) -> Option<T> {
    let begun = Instant::now();
    if let Ok(done) = timeout_at(end.min(begun + LOOK), apart(work)).await {
        return done.ok();
    }
    let waited = begun.elapsed();
    if waited >= LOOK {
        facts.hung.push(Hung {
            about: "machine",
            what: what.into(),
            waited_ms: waited.as_secs_f64() * 1e3,
        });
    } else {
        facts.miss(what, "no time was left for it".into());
    }
    None
}

/// What the agent may, or what this process may while there is no agent.
async fn rights(client: Option<&Client>, facts: &mut Facts, end: Instant) -> Rights {
    let pid = match client {
        Some(client) => timeout_at(end, client.pid()).await.ok().flatten(),
        None => None,
    };
    let what = "reading what the kernel grants to the agent";
    let rights = within(end, what, move || machine::rights(pid), facts).await;
    let rights = rights.unwrap_or_default();
    if client.is_none() || pid.is_some() {
        return rights;
    }
    let why = "its process is told by its Unix socket alone, and seen on its own machine";
    facts.miss("the agent's limits, priority and memory", why.into());
    Rights {
        open_files: None,
        prompt: None,
        ..rights
    }
}

/// How far logs have come since the agent first answered.
async fn later(client: &Client, since: Instant) -> Option<Later> {
    let status = timeout(ASK, client.get::<Status>("/status")).await.ok()?.ok()?;
    let applied = status.nodes.iter();
    let applied = applied.filter_map(|node| Some((node.name.clone(), node.applied?)));
    Some(Later {
        after_ms: since.elapsed().as_secs_f64() * 1e3,
        ready: status.ready,
        applied: applied.collect(),
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

/// What the peers' agents say they are.
async fn versions(peers: &BTreeMap<NodeName, SocketAddr>, end: Instant) -> BTreeMap<NodeName, String> {
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
    while let Ok(Some(answer)) = timeout_at(end, under_way.join_next()).await {
        all.extend(answer.ok().flatten());
    }
    all
}

/// Says whose version is not known, of the peers that are up.
fn not_asked(settings: &Settings, facts: &mut Facts) {
    let nodes = facts.status().into_iter().flat_map(|status| &status.nodes);
    let unknown: Vec<&str> = nodes
        .filter(|node| node.state == PeerState::Up && node.name != settings.me)
        .filter(|node| !facts.versions.contains_key(&node.name))
        .map(|node| node.name.as_str())
        .collect();
    if !unknown.is_empty() {
        let what = format!("the version of {}", unknown.join(", "));
        facts.miss(
            &what,
            "no checks listener ([http] listen) of theirs answers from here".into(),
        );
    }
}

/// Sockets in the way of listeners that an agent would bind.
fn holders(settings: &Settings, facts: &mut Facts) {
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
    let deadline = std::time::Instant::now() + SEARCH;
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
    facts.holders.dedup(); // one process may have several sockets there
}

/// Connections from elsewhere to the application. Those of the nodes are counted apart, for the application may replicate; this node's
/// own are the check's.
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
    let nodes = facts.settings.iter().flat_map(|settings| &settings.nodes);
    let nodes: BTreeMap<IpAddr, NodeName> = nodes
        .flat_map(|(name, ips)| ips.iter().flatten().map(|ip| (*ip, name.clone())))
        .collect();
    let elsewhere = |ip: IpAddr| !ip.is_loopback() && !facts.is_own(ip);
    let all = ports.into_iter().map(|port| {
        let (mut clients, mut peers) = (BTreeMap::new(), BTreeMap::new());
        for row in rows
            .iter()
            .filter(|row| row.connected() && row.local.port() == port.port)
        {
            let ip = row.remote.ip();
            match nodes.get(&ip) {
                _ if !elsewhere(ip) => {}
                Some(node) => *peers.entry(node.clone()).or_default() += 1,
                None => *clients.entry(ip).or_default() += 1,
            }
        }
        Traffic { port, clients, peers }
    });
    facts.traffic = all.collect();
}
