//! Host names to addresses, for nodes that are given by name. A literal address needs none of this.
//!
//! Names are looked up again while a link of their node is not up: containers come back under other addresses. Each answer counts as it
//! comes, so no name waits for another. A name that does not resolve keeps the addresses that it had, even those of the run before
//! ([`kept`](super::kept)); of several addresses another one is tried while the link is not up.

use super::own;
use super::{Addresses, kept};
use crate::control::Notice;
use baton_dnsd::names::{self, FAMILIES, Family, Found};
use baton_shared::config::{Config, Host, Network, Node};
use baton_shared::id::NodeName;
use baton_shared::view::{LinkState, PeerState, Published, View};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

/// Between two rounds of looking up names of nodes that are not up.
const ROUND: Duration = Duration::from_secs(2);
/// Names of nodes that are up are looked up again after so many rounds: what DNS answers may move too.
const ALL_ROUNDS: u32 = 30;
/// Look-ups at once; one takes no longer than a few seconds.
const AT_ONCE: usize = 128;

/// The socket address of `ip` on a network; link-local ones need the interface's number.
pub fn on_network(ip: IpAddr, network: &Network) -> SocketAddr {
    match (ip, &network.interface) {
        (IpAddr::V6(six), Some(interface)) if six.is_unicast_link_local() => {
            let scope = interface_index(interface).unwrap_or(0);
            SocketAddrV6::new(six, network.port, 0, scope).into()
        }
        _ => SocketAddr::new(ip, network.port),
    }
}

/// The kernel's number of an interface, which another one of the same name does not have; `None` if it is not there.
pub fn interface_index(interface: &str) -> Option<u32> {
    // Not from /sys, which may show another network namespace's.
    let name = std::ffi::CString::new(interface).ok()?;
    // SAFETY: a text that ends with a zero, and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index > 0).then_some(index)
}

/// What names have resolved to so far.
#[derive(Default)]
pub struct Known {
    names: BTreeMap<String, [Vec<IpAddr>; FAMILIES.len()]>,
    /// Which of several addresses is tried for a node on a network, and since when.
    tried: BTreeMap<(NodeName, usize), (IpAddr, Instant)>,
}

impl Known {
    /// What was kept of the last run.
    pub fn kept(config: &Config) -> Known {
        let mut known = Known::default();
        let Some(dir) = config.storage.as_deref().filter(|_| has_names(config)) else {
            return known;
        };
        for (name, found) in kept::load(dir) {
            known
                .names
                .insert(name, FAMILIES.map(|family| of(family, &found)));
        }
        known
    }

    /// A host's addresses, IPv4 first.
    pub fn find(&self, host: &Host) -> Vec<IpAddr> {
        match host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self
                .names
                .get(name)
                .map(|found| found.concat())
                .unwrap_or_default(),
        }
    }

    /// Takes in what was found of a name; true if that changes anything. What is not known, or not there, leaves what was known: but
    /// for one family that is gone while the other is there.
    fn learn(&mut self, name: &str, family: Family, found: &Found) -> bool {
        let Ok(found) = found else { return false };
        let [four, six] = self.names.entry(name.to_owned()).or_default();
        let (mine, other) = match family {
            Family::Four => (four, six),
            Family::Six => (six, four),
        };
        if mine == found || (found.is_empty() && other.is_empty()) {
            return false;
        }
        mine.clone_from(found);
        true
    }

    /// A peer's addresses on a network, of the same family as this node's there.
    fn candidates(&self, host: &Host, own: IpAddr) -> Vec<IpAddr> {
        let mut found = of(Family::of(&own), &self.find(host));
        // A name that is this machine's own in its hosts file may be a peer's elsewhere.
        if !own.is_loopback() && found.iter().any(|ip| !ip.is_loopback()) {
            found.retain(|ip| !ip.is_loopback());
        }
        found
    }

    /// Fills the tables.
    pub fn fill(&self, config: &Config, mine: &[Option<IpAddr>], addresses: &Addresses) {
        let place = |node: &NodeName, n: usize, host: &Option<Host>| {
            let network = config.networks.get(n)?;
            let own = (*mine.get(n)?)?;
            if *node == config.me {
                return Some(on_network(own, network));
            }
            let candidates = self.candidates(host.as_ref()?, own);
            let tried = self.tried.get(&(node.clone(), n)).map(|(ip, _)| *ip);
            let ip = tried
                .filter(|ip| candidates.contains(ip))
                .or(candidates.first().copied())?;
            Some(on_network(ip, network))
        };
        let (mut places, mut serves) = (BTreeMap::new(), BTreeMap::new());
        for (name, node) in &config.nodes {
            let hosts = node.addresses.iter().enumerate();
            places.insert(
                name.clone(),
                hosts.map(|(n, host)| place(name, n, host)).collect(),
            );
            let answers = node.serves.iter().flat_map(|host| match host {
                Host::Name(_) if *name == config.me => self.serves_here(host, config, mine),
                host => self.find(host),
            });
            serves.insert(name.clone(), answers.collect());
        }
        addresses.set(places);
        addresses.set_serves(serves);
    }

    /// What clients are told of this node's own name: not the loopback that its hosts file may have for it.
    fn serves_here(&self, host: &Host, config: &Config, mine: &[Option<IpAddr>]) -> Vec<IpAddr> {
        let mut found = self.find(host);
        let here = config.my_node().here();
        let own = here.iter().zip(mine);
        let own = own.filter_map(|(own, ip)| ip.filter(|_| own.as_ref() == Some(host)));
        let outside: Vec<IpAddr> = own.filter(|ip| !ip.is_loopback()).collect();
        if found.iter().any(IpAddr::is_loopback) && !outside.is_empty() {
            found.retain(|ip| !ip.is_loopback());
            found.extend(outside);
            found.sort_unstable();
            found.dedup();
        }
        found
    }

    /// Where the link is not up, and has had its time, the next one of a peer's several addresses is tried. True if that changes
    /// anything.
    fn try_others(&mut self, config: &Config, mine: &[Option<IpAddr>], view: &View, now: Instant) -> bool {
        let patience = (config.cluster.window * 2).max(ROUND * 2);
        let mut changed = false;
        for (name, node) in config.nodes.iter().filter(|(name, _)| **name != config.me) {
            for (n, (host, own)) in node.addresses.iter().zip(mine).enumerate() {
                let (Some(host), Some(own)) = (host, own) else {
                    continue;
                };
                let candidates = self.candidates(host, *own);
                let key = (name.clone(), n);
                if candidates.len() < 2 {
                    continue;
                }
                if is_up(view, config, name, n) {
                    // The one that works; it is not given up as soon as the link is lost.
                    self.tried.entry(key).and_modify(|(_, since)| *since = now);
                    continue;
                }
                let (tried, since) = *self.tried.entry(key.clone()).or_insert((candidates[0], now));
                if now < since + patience {
                    continue;
                }
                let at = candidates
                    .iter()
                    .position(|ip| *ip == tried)
                    .map_or(0, |at| at + 1);
                let next = candidates[at % candidates.len()];
                tracing::debug!(node = %name, "no link to {tried}: its name has other addresses, {next} is tried");
                self.tried.insert(key, (next, now));
                changed = true;
            }
        }
        changed
    }
}

fn of(family: Family, found: &[IpAddr]) -> Vec<IpAddr> {
    found
        .iter()
        .copied()
        .filter(|ip| Family::of(ip) == family)
        .collect()
}

fn is_up(view: &View, config: &Config, node: &NodeName, network: usize) -> bool {
    let network = config.networks.get(network).map(|network| &network.name);
    view.node(node).is_some_and(|node| {
        node.links
            .iter()
            .any(|link| Some(&link.network) == network && link.state == LinkState::Up)
    })
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
    /// What is known at start.
    pub known: Known,
    /// Told when the tables have changed.
    pub notices: mpsc::Sender<Notice>,
}

impl Resolve {
    /// Fills the tables, and says so. False if the control loop has stopped.
    async fn fill(&self, config: &Config) -> bool {
        self.known.fill(config, &self.mine, &self.addresses);
        self.notices.send(Notice::Resolved).await.is_ok()
    }
}

/// Keeps the tables up to date. Without host names it only waits for another configuration.
pub async fn run(mut task: Resolve) -> Result<(), String> {
    let mut asked = Asked::default();
    let mut keeper = Keeper::default();
    let mut round = 0u32;
    let mut due = Instant::now();
    loop {
        let config = task.configs.borrow_and_update().clone();
        let again = async {
            match has_names(&config) {
                true => sleep_until(due).await,
                false => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            Some(answer) = asked.answer() => {
                let (name, family, found) = answer;
                asked.judge(&name, family, &found);
                task.known.learn(&name, family, &found)
            }
            () = again => {
                let all = round.is_multiple_of(ALL_ROUNDS);
                asked.ask(wanted(&config, &task.published, all));
                due = Instant::now() + ROUND;
                round = round.wrapping_add(1);
                keeper.keep(&config, &task.known).await;
                let view = task.published.view.load();
                task.known.try_others(&config, &task.mine, &view, Instant::now())
            }
            changed = task.configs.changed() => {
                changed.map_err(|_| "nobody reads the configuration any more")?;
                (round, due) = (0, Instant::now());
                true
            }
        };
        if changed {
            let config = task.configs.borrow().clone();
            task.mine = own::moved(&config, &task.known, &task.mine);
            if !task.fill(&config).await {
                return Ok(());
            }
        }
    }
}

fn has_names(config: &Config) -> bool {
    let mut hosts = config.nodes.values().flat_map(Node::hosts);
    hosts.any(|host| matches!(host, Host::Name(_)))
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
    let hosts = nodes.flat_map(Node::hosts);
    hosts
        .filter_map(|host| match host {
            Host::Name(name) => Some(name.clone()),
            Host::Ip(_) => None,
        })
        .collect()
}

/// Look-ups under way, and how they went.
#[derive(Default)]
struct Asked {
    tasks: JoinSet<(String, Family, Found)>,
    under_way: BTreeSet<(String, Family)>,
    /// Why a name has no addresses of a family, until it has.
    failed: BTreeMap<(String, Family), String>,
    /// Names that do not resolve, and that this was said of.
    failing: BTreeSet<String>,
}

impl Asked {
    /// Asks for both families of these names, unless that is under way.
    fn ask(&mut self, names: BTreeSet<String>) {
        for name in names {
            for family in FAMILIES {
                let new = self.tasks.len() < AT_ONCE && self.under_way.insert((name.clone(), family));
                if new {
                    let name = name.clone();
                    self.tasks.spawn(async move {
                        let found = names::family(&name, family).await;
                        (name, family, found)
                    });
                }
            }
        }
    }

    /// The next answer; `None` while nothing is asked.
    async fn answer(&mut self) -> Option<(String, Family, Found)> {
        loop {
            match self.tasks.join_next().await? {
                Ok(answer) => {
                    self.under_way.remove(&(answer.0.clone(), answer.1));
                    return Some(answer);
                }
                // It is asked again all the same: what was under way is not known any more.
                Err(error) => {
                    tracing::warn!("a look-up was abandoned: {error}");
                    self.under_way.clear();
                }
            }
        }
    }

    /// Says when a name does not resolve in either family, and when it does again.
    fn judge(&mut self, name: &str, family: Family, found: &Found) {
        let why = match found {
            Ok(found) if !found.is_empty() => {
                self.failed.remove(&(name.to_owned(), family));
                if self.failing.remove(name) {
                    tracing::info!("\"{name}\" resolves again");
                }
                return;
            }
            Ok(_) => format!("\"{name}\" has no address"),
            Err(error) => error.clone(),
        };
        self.failed.insert((name.to_owned(), family), why.clone());
        let both = FAMILIES
            .iter()
            .all(|family| self.failed.contains_key(&(name.to_owned(), *family)));
        if both && self.failing.insert(name.to_owned()) {
            tracing::warn!("{why} (what was known of it is used; tried again every {ROUND:?})");
        }
    }
}

/// Keeps the last good addresses, when they have changed; one write at a time, away from the tasks.
#[derive(Default)]
struct Keeper {
    writing: Option<JoinHandle<std::io::Result<()>>>,
    written: kept::Book,
    failing: bool,
}

impl Keeper {
    async fn keep(&mut self, config: &Config, known: &Known) {
        let Some(dir) = config.storage.clone() else { return };
        if let Some(writing) = &mut self.writing {
            if !writing.is_finished() {
                return; // a disk that hangs
            }
            let ended = writing
                .await
                .unwrap_or_else(|error| Err(std::io::Error::other(error)));
            self.writing = None;
            self.judge(ended);
        }
        let book: kept::Book = known
            .names
            .iter()
            .map(|(name, found)| (name.clone(), found.concat()))
            .filter(|(name, found)| !found.is_empty() && is_named(config, name))
            .collect();
        if book != self.written && !book.is_empty() {
            self.written.clone_from(&book);
            self.writing = Some(spawn_blocking(move || kept::save(&dir, &book)));
        }
    }

    fn judge(&mut self, ended: std::io::Result<()>) {
        match ended {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.written.clear(); // once more
                if !self.failing {
                    tracing::warn!("the last addresses of names could not be written: {error}");
                }
                self.failing = true;
            }
        }
    }
}

fn is_named(config: &Config, name: &str) -> bool {
    let mut hosts = config.nodes.values().flat_map(Node::hosts);
    hosts.any(|host| matches!(host, Host::Name(own) if own == name))
}

#[cfg(test)]
mod tests;
