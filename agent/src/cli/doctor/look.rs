//! Looking: fills [`Facts`]. Changes nothing, and ends in time whatever hangs.

mod ground;
mod machine;
mod paths;
mod settings;
mod sockets;

pub(super) use paths::whose;
pub(super) use settings::{named, settings};

use super::facts::{Agent, AppPort, Facts, Holder, Rights, Settings, Spread, Storage, Traffic, Unseen};
use crate::cli::client::{Client, Place};
use baton_dnsd::names;
use baton_shared::config::Host;
use baton_shared::id::NodeName;
use baton_shared::status::Status;
use baton_shared::view::PeerState;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
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

/// Looks at everything.
pub(super) async fn look(subject: Subject) -> Facts {
    let begun = Instant::now();
    let (watched, end) = (begun + WATCHED, begun + WHOLE);
    let start = machine::Reading::now();
    let wakeups = apart(machine::wakeups);

    let mut facts = Facts {
        agent: agent(&subject.client).await,
        settings: subject.settings,
        ..Facts::default()
    };
    let answers = facts.status().is_some();
    let hangs = facts.status().is_some_and(|status| status.disk_hangs);
    let disk = subject.storage.clone().map(|dir| Disk::look(&dir, hangs));
    if let Some(settings) = &mut facts.settings {
        let missed = resolve(subject.named, settings).await;
        facts.unseen.extend(missed);
    }
    facts.rights = rights(subject.client.as_ref().ok().filter(|_| answers), &mut facts).await;
    let networks = facts.settings.iter().flat_map(|settings| &settings.networks);
    let gateway = networks.filter_map(|network| network.gateway).next();
    facts.rights.echo = gateway.map(|ip| crate::sides::permitted(ip.is_ipv6()));
    let node = facts
        .status()
        .map(|status| (status.cluster.clone(), status.node.clone()));
    facts.ground = ground::look(facts.rights.agent_pid.zip(node));
    match facts.settings.clone() {
        Some(settings) => {
            paths::ways(&settings, &mut facts);
            if answers {
                let peers = outside(&subject.peers, &settings);
                let (calls, versions) = (paths::calls(&settings, end), versions(&peers));
                (facts.calls, facts.versions) = tokio::join!(calls, versions);
                not_asked(&settings, &mut facts);
            } else {
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
    if let Some(disk) = disk {
        disk.seen(end, &mut facts).await;
    }
    facts.wakeups = timeout_at(end, wakeups).await.ok().and_then(Result::ok).flatten();
    let loop_late_ms = match &subject.checks {
        Some(place) if answers => loop_late_ms(place).await,
        _ => None,
    };
    sleep_until(watched).await;
    facts.clock = machine::clock(start);
    facts.clock.loop_late_ms = loop_late_ms;
    facts
}

/// Finds the addresses of all names at once, within [`ASK`]. Says which of them have none.
async fn resolve(named: Vec<(NodeName, usize, Host)>, settings: &mut Settings) -> Option<Unseen> {
    let mut under_way = JoinSet::new();
    for (node, n, host) in named.into_iter().take(MAX_NAMES) {
        under_way.spawn(async move {
            let asked = timeout(ASK, names::look_up(&host)).await;
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

/// The storage directory, looked at on a thread of its own.
struct Disk {
    dir: PathBuf,
    storage: oneshot::Receiver<std::io::Result<Storage>>,
    /// Not timed if the agent says that it hangs: whoever writes there does not come back, and no program ends while a thread of it waits.
    flush: Option<oneshot::Receiver<std::io::Result<Option<Spread>>>>,
}

impl Disk {
    fn look(dir: &Path, hangs: bool) -> Disk {
        let (one, other) = (dir.to_owned(), dir.to_owned());
        Disk {
            dir: dir.to_owned(),
            storage: apart(move || machine::storage(&one)),
            flush: (!hangs).then(|| apart(move || machine::flushes(&other))),
        }
    }

    async fn seen(self, end: Instant, facts: &mut Facts) {
        let dir = self.dir.display();
        let hangs = || format!("{dir} did not answer within seconds: the disk hangs, or is overloaded");
        match timeout_at(end, self.storage).await {
            Ok(Ok(Ok(storage))) => facts.storage = Some(storage),
            Ok(Ok(Err(error))) => facts.miss("the storage directory", format!("{dir}: {error}")),
            _ => facts.miss("the storage directory", hangs()),
        }
        let Some(flush) = self.flush else {
            return; // the agent's alarm says it
        };
        let why = match timeout_at(end, flush).await {
            Ok(Ok(Ok(spread))) => {
                facts.flush = spread;
                return;
            }
            Ok(Ok(Err(error))) => match error.kind() {
                ErrorKind::PermissionDenied => {
                    format!(
                        "this user may not write to {dir}; run the doctor as the agent's user, or with sudo"
                    )
                }
                ErrorKind::NotFound => format!("{dir} is not there yet"),
                _ => format!("{dir}: {error}"),
            },
            _ => hangs(),
        };
        facts.miss("how long the disk takes", why);
    }
}

impl Facts {
    fn miss(&mut self, what: &str, why: String) {
        let what = what.into();
        self.unseen.push(Unseen { what, why });
    }
}

/// Runs `work` on a thread of its own, which the end of the program ends: a disk that hangs must not hold it
/// up.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (send, receive) = oneshot::channel();
    // Without a thread there is no answer, which the receiver tells; and who no longer waits wants none.
    let _ = std::thread::Builder::new().spawn(move || send.send(work()).is_ok());
    receive
}

/// What the agent may, or what this process may while there is no agent.
async fn rights(client: Option<&Client>, facts: &mut Facts) -> Rights {
    let Some(client) = client else {
        return machine::rights(None);
    };
    match timeout(ASK, client.pid()).await.ok().flatten() {
        Some(pid) => machine::rights(Some(pid)),
        None => {
            let why = "its process is told by its Unix socket alone, and seen on its own machine";
            facts.miss("the agent's limits, priority and memory", why.into());
            let own = machine::rights(None);
            Rights {
                open_files: None,
                prompt: None,
                ..own
            }
        }
    }
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
