//! Host names to addresses, for peers that are given by name. A literal address needs none of this.
//!
//! Names are looked up again while a link of their node is not up: containers come back under other addresses. The
//! system's files are read each time (`/etc/hosts`, `/etc/resolv.conf`); a statically linked libc cannot be asked.

use super::Addresses;
use crate::control::Notice;
use baton_shared::config::{Config, Host, Network};
use baton_shared::id::NodeName;
use baton_shared::view::{LinkState, PeerState, Published};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Between two rounds of looking up names of nodes that are not up.
const ROUND: Duration = Duration::from_secs(2);
/// Names of nodes that are up are looked up again after so many rounds: what DNS answers may move too.
const ALL_ROUNDS: u32 = 30;
/// One name may take so long.
const LIMIT: Duration = Duration::from_secs(3);
/// One name server may take so long.
const SERVER_LIMIT: Duration = Duration::from_secs(1);
/// Names looked up at once.
const AT_ONCE: usize = 16;
/// How long this node's own name may take to appear, at start.
const OWN_LIMIT: Duration = Duration::from_secs(10);

/// The addresses of a host, IPv4 first.
pub async fn look_up(host: &Host) -> Result<Vec<IpAddr>, String> {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![*ip]),
        Host::Name(name) => name,
    };
    // RFC 6761 §6.3: always the loopback.
    if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    match timeout(LIMIT, ask(name)).await {
        Ok(result) => result.map_err(|error| format!("cannot resolve \"{name}\": {error}")),
        Err(_) => Err(format!("cannot resolve \"{name}\": no answer in {LIMIT:?}")),
    }
}

async fn ask(name: &str) -> Result<Vec<IpAddr>, String> {
    let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = SERVER_LIMIT;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    let found = resolver
        .lookup_ip(name)
        .await
        .map_err(|error| error.to_string())?;
    let found: BTreeSet<IpAddr> = found.iter().collect(); // IPv4 sorts first
    Ok(found.into_iter().collect())
}

/// This node's own address on each network: of several the first that this machine has.
pub async fn mine(config: &Config) -> Result<Vec<Option<IpAddr>>, String> {
    let mut mine = Vec::new();
    for host in &config.my_node().addresses {
        let ip = match host {
            Some(host) => Some(my_address(host).await?),
            None => None,
        };
        mine.push(ip);
    }
    Ok(mine)
}

async fn my_address(host: &Host) -> Result<IpAddr, String> {
    let deadline = Instant::now() + OWN_LIMIT;
    loop {
        let error = match look_up(host).await {
            Ok(found) => match found.iter().find(|ip| is_here(**ip)).or(found.first()) {
                Some(ip) => return Ok(*ip), // if it is not here, binding to it says so
                None => format!("\"{host}\" has no address"),
            },
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(format!(
                "{error}; give this node's address, or a name that resolves here"
            ));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

fn is_here(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// The socket address of `ip` on a network; link-local ones need the interface's number.
pub fn on_network(ip: IpAddr, network: &Network) -> SocketAddr {
    match (ip, &network.interface) {
        (IpAddr::V6(six), Some(interface)) if six.is_unicast_link_local() => {
            let index = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"));
            let scope = index.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            SocketAddrV6::new(six, network.port, 0, scope).into()
        }
        _ => SocketAddr::new(ip, network.port),
    }
}

/// What names have resolved to so far.
#[derive(Default)]
pub struct Known(BTreeMap<String, Vec<IpAddr>>);

impl Known {
    fn find(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.0.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Fills the tables. A peer's address is of the same family as this node's on that network.
    pub fn fill(&self, config: &Config, mine: &[Option<IpAddr>], addresses: &Addresses) {
        let place = |node: &NodeName, n: usize, host: &Option<Host>| {
            let network = config.networks.get(n)?;
            let own = (*mine.get(n)?)?;
            if *node == config.me {
                return Some(on_network(own, network));
            }
            let found = self.find(host.as_ref()?);
            let ip = found.iter().find(|ip| ip.is_ipv4() == own.is_ipv4())?;
            Some(on_network(*ip, network))
        };
        let (mut places, mut serves) = (BTreeMap::new(), BTreeMap::new());
        for (name, node) in &config.nodes {
            let hosts = node.addresses.iter().enumerate();
            places.insert(
                name.clone(),
                hosts.map(|(n, host)| place(name, n, host)).collect(),
            );
            let answers: Vec<IpAddr> = node.serves.iter().flat_map(|host| self.find(host)).collect();
            serves.insert(name.clone(), answers);
        }
        addresses.set(places);
        addresses.set_serves(serves);
    }
}

/// What the resolver task is started with.
pub struct Resolve {
    /// The configuration, as it changes.
    pub configs: watch::Receiver<Arc<Config>>,
    /// Says which nodes are up.
    pub published: Arc<Published>,
    /// The tables to fill.
    pub addresses: Arc<Addresses>,
    /// This node's addresses at start.
    pub mine: Vec<Option<IpAddr>>,
    /// Told when the tables have changed.
    pub notices: mpsc::Sender<Notice>,
}

impl Resolve {
    /// Fills the tables, and says so. False if the control loop has stopped.
    async fn fill(&self, config: &Config, known: &Known) -> bool {
        known.fill(config, &self.mine, &self.addresses);
        self.notices.send(Notice::Resolved).await.is_ok()
    }
}

/// Keeps the tables up to date. Without host names it only waits for another configuration.
pub async fn run(mut task: Resolve) -> Result<(), String> {
    let mut known = Known::default();
    let mut failing = BTreeSet::new();
    let mut round = 0u32;
    loop {
        let config = task.configs.borrow_and_update().clone();
        if round == 0 && !task.fill(&config, &known).await {
            return Ok(());
        }
        let all = round.is_multiple_of(ALL_ROUNDS);
        let names = wanted(&config, &task.published, all);
        if look_up_all(&mut known, &mut failing, names).await {
            task.mine = moved(&config, &known, task.mine);
            if !task.fill(&config, &known).await {
                return Ok(());
            }
        }
        round = round.wrapping_add(1);
        let again = async {
            match has_names(&config) {
                true => sleep(ROUND).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = again => {}
            changed = task.configs.changed() => {
                changed.map_err(|_| "nobody reads the configuration any more")?;
                round = 0;
            }
        }
    }
}

fn has_names(config: &Config) -> bool {
    config.nodes.values().any(|node| {
        let hosts = node.addresses.iter().flatten().chain(&node.serves);
        hosts.into_iter().any(|host| matches!(host, Host::Name(_)))
    })
}

/// The names to look up now: of nodes that are not wholly up, and then this node's own; or all.
fn wanted(config: &Config, published: &Published, all: bool) -> BTreeSet<String> {
    let view = published.view.load();
    let whole = |name: &NodeName| {
        view.node(name).is_some_and(|node| {
            node.state == PeerState::Up && node.links.iter().all(|link| link.state == LinkState::Up)
        })
    };
    let mut broken: BTreeSet<&NodeName> = config
        .nodes
        .keys()
        .filter(|name| **name != config.me && (all || !whole(name)))
        .collect();
    if all || !broken.is_empty() {
        broken.insert(&config.me);
    }
    let nodes = broken.into_iter().filter_map(|name| config.nodes.get(name));
    let hosts = nodes.flat_map(|node| node.addresses.iter().flatten().chain(&node.serves));
    hosts
        .filter_map(|host| match host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        })
        .collect()
}

/// Looks names up; true if any has other addresses now. One that fails keeps those it had.
async fn look_up_all(known: &mut Known, failing: &mut BTreeSet<String>, names: BTreeSet<String>) -> bool {
    let mut changed = false;
    let mut names = names.into_iter();
    let mut asking = JoinSet::new();
    loop {
        while asking.len() < AT_ONCE
            && let Some(name) = names.next()
        {
            asking.spawn(async move {
                let result = look_up(&Host::Name(name.clone())).await;
                (name, result)
            });
        }
        let Some(answer) = asking.join_next().await else {
            return changed;
        };
        match answer {
            Ok((name, Ok(found))) => {
                if failing.remove(&name) {
                    tracing::info!("\"{name}\" resolves again");
                }
                changed |= known.0.get(&name) != Some(&found);
                known.0.insert(name, found);
            }
            Ok((name, Err(error))) => {
                if failing.insert(name) {
                    tracing::warn!("{error} (tried again every {ROUND:?})");
                }
            }
            Err(error) => tracing::warn!("a look-up was abandoned: {error}"),
        }
    }
}

/// This node's addresses, where its own names lead elsewhere now.
fn moved(config: &Config, known: &Known, mine: Vec<Option<IpAddr>>) -> Vec<Option<IpAddr>> {
    let hosts = &config.my_node().addresses;
    mine.into_iter()
        .enumerate()
        .map(|(n, old)| {
            let found = known.find(hosts.get(n)?.as_ref()?);
            let stays = old.is_none_or(|old| found.contains(&old));
            let here = || found.iter().copied().find(|ip| is_here(*ip));
            if stays { old } else { here().or(old) }
        })
        .collect()
}

#[cfg(test)]
mod tests;
