//! Sidecars in one process, and networks between them that can be cut.

use super::super::entrance::{Entrance, Site};
use super::super::*;
use baton_shared::config::{Cluster, Host, Network as ConfigNetwork, Node};
use baton_shared::id::{ClusterName, NetworkName};
use baton_shared::key::ClusterKey;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpStream};

/// Generous: the machine may be slow and busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(super) fn key() -> ClusterKey {
    ClusterKey::from_bytes([9; 32])
}

/// Node `me` of a cluster of `names` on `networks` networks; network n is on 127.0.0.(n+1).
pub(super) fn config(me: &str, names: &[&str], networks: usize) -> Arc<Config> {
    let hosts: Vec<Host> = (0..networks).map(|n| Host::Ip(ip(n).into())).collect();
    let node = |text: &&str| {
        let node = Node {
            kind: Kind::Member,
            binds: Vec::new(),
            addresses: hosts.iter().cloned().map(Some).collect(),
            serves: vec![hosts[0].clone()],
            priority: 0,
        };
        (name(text), node)
    };
    let network = |n| ConfigNetwork {
        name: NetworkName::new(&format!("net{n}")).unwrap(),
        port: 0,
        interface: None,
        clients: false,
        gateway: None,
    };
    Arc::new(Config {
        me: name(me),
        cluster: Cluster {
            name: ClusterName::new("test").unwrap(),
            window: Duration::from_secs(1),
            key: key(),
            join_wait: Duration::from_secs(30),
            join_exit: false,
            preempt_after: None,
        },
        networks: (0..networks).map(network).collect(),
        nodes: names.iter().map(node).collect(),
        storage: None,
        roles: BTreeMap::new(),
        http: None,
        control: None,
        dns: None,
        agent: Default::default(),
    })
}

pub(super) fn ip(network: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 1 + network as u8)
}

/// A cluster's nodes, and what they need to be started again.
pub(super) struct Town {
    pub(super) names: Vec<&'static str>,
    pub(super) networks: usize,
    pub(super) addresses: Arc<Addresses>,
    pub(super) dir: tempfile::TempDir,
    pub(super) table: BTreeMap<NodeName, Vec<Option<SocketAddr>>>,
    pub(super) nodes: BTreeMap<&'static str, Sidecar>,
}

pub(super) struct Sidecar {
    pub(super) consensus: Consensus,
    pub(super) store: Arc<Store>,
    pub(super) counters: Arc<Counters>,
    pub(super) reloads: mpsc::Receiver<oneshot::Sender<Result<String, String>>>,
}

impl Town {
    pub(super) async fn start(names: &[&'static str], networks: usize) -> Town {
        let mut town = Town {
            names: names.to_vec(),
            networks,
            addresses: Arc::default(),
            dir: tempfile::tempdir().unwrap(),
            table: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        for name in names {
            town.start_node(name).await;
        }
        town
    }

    pub(super) async fn start_node(&mut self, text: &'static str) {
        let store = Store::open(Some(&self.dir.path().join(text))).unwrap();
        let site = |network| Site {
            name: format!("network {network}"),
            network,
            interface: None,
        };
        let listeners: Vec<Entrance> = (0..self.networks)
            .map(|n| Entrance::bind(site(n), SocketAddr::new(ip(n).into(), 0)).unwrap())
            .collect();
        let places = listeners.iter().map(Entrance::addr).collect();
        self.table.insert(name(text), places);
        self.addresses.set(self.table.clone());
        let counters = Arc::<Counters>::default();
        let (reload, reloads) = mpsc::channel(1);
        let consensus = Consensus::start(Start {
            config: config(text, &self.names, self.networks),
            store: store.clone(),
            addresses: self.addresses.clone(),
            net: Arc::new(net::Kernel),
            listeners: listeners
                .into_iter()
                .map(|entrance| entrance.open(name(text), self.addresses.clone()).unwrap())
                .collect(),
            counters: counters.clone(),
            reload,
        })
        .await
        .unwrap();
        let node = Sidecar {
            consensus,
            store,
            counters,
            reloads,
        };
        self.nodes.insert(text, node);
    }

    pub(super) async fn stop_node(&mut self, text: &str) {
        let node = self.nodes.remove(text).unwrap();
        let began = Instant::now();
        node.consensus.shutdown().await;
        assert!(began.elapsed() < PATIENCE / 10, "a stop is quick");
    }

    pub(super) fn members(&self) -> BTreeMap<NodeId, (NodeName, Kind)> {
        let member = |(text, node): (&&str, &Sidecar)| (node.id(), (name(text), Kind::Member));
        self.nodes.iter().map(member).collect()
    }

    pub(super) async fn bootstrap(&self) {
        let first = self.nodes.values().next().unwrap();
        let members = self.members();
        eventually("the cluster starts", async || {
            first.consensus.bootstrap(members.clone()).await.is_ok()
        })
        .await;
    }

    /// The node that leads, as itself says.
    pub(super) async fn leader(&self) -> &'static str {
        let mut leader = None;
        eventually("somebody leads", async || {
            let leads = |node: &&Sidecar| node.consensus.coordinator().borrow().leader == Some(node.id());
            leader = self
                .nodes
                .iter()
                .find(|(_, node)| leads(node))
                .map(|(text, _)| *text);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub(super) fn follower_of(&self, leader: &str) -> &'static str {
        self.nodes.keys().copied().find(|text| *text != leader).unwrap()
    }

    pub(super) async fn all_know(&self, drained: &str) {
        for (text, node) in &self.nodes {
            let mut learned = node.consensus.learned();
            let knows = learned.wait_for(|(state, _)| state.drained.contains(&name(drained)));
            timeout(PATIENCE, knows)
                .await
                .unwrap_or_else(|_| panic!("{text} does not know {drained}"))
                .unwrap();
        }
    }

    pub(super) async fn stop(mut self) {
        for text in self.names.clone() {
            if self.nodes.contains_key(text) {
                self.stop_node(text).await;
            }
        }
    }
}

impl Sidecar {
    pub(super) fn id(&self) -> NodeId {
        self.store.identity().node
    }

    pub(super) async fn drain(&self, text: &str) {
        let command = Command::Drain {
            node: name(text),
            drained: true,
        };
        eventually("a change is made", async || {
            self.consensus.propose(command.clone()).await == Ok(Outcome::Applied)
        })
        .await;
    }
}

pub(super) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < until, "in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(super) fn coordinator(node: &Sidecar) -> Coordinator {
    node.consensus.coordinator().borrow().clone()
}

/// A network between the nodes that can be cut: from then on nothing passes, and nothing is refused.
pub(super) struct Wire {
    pub(super) cut: watch::Sender<bool>,
    relays: tokio::task::JoinSet<()>,
}

impl Wire {
    /// Puts itself in front of every address of `table` on `network`.
    pub(super) async fn between(
        table: &mut BTreeMap<NodeName, Vec<Option<SocketAddr>>>,
        network: usize,
    ) -> Wire {
        let mut wire = Wire {
            cut: watch::Sender::new(false),
            relays: tokio::task::JoinSet::new(),
        };
        for places in table.values_mut() {
            let relay = TcpListener::bind((ip(network), 0)).await.unwrap();
            let to = places[network].replace(relay.local_addr().unwrap()).unwrap();
            wire.relays
                .spawn(Wire::relay(relay, to, ip(network), wire.cut.subscribe()));
        }
        wire
    }

    pub(super) async fn relay(
        relay: TcpListener,
        to: SocketAddr,
        from: Ipv4Addr,
        cut: watch::Receiver<bool>,
    ) {
        let mut streams = tokio::task::JoinSet::new();
        loop {
            let (mut near, peer) = relay.accept().await.unwrap();
            assert_eq!(peer.ip(), from, "bound to its own address on that network");
            let mut cut = cut.clone();
            streams.spawn(async move {
                let Ok(mut far) = TcpStream::connect(to).await else {
                    return;
                };
                let silenced = async {
                    let _ = cut.wait_for(|cut| *cut).await.is_ok();
                };
                tokio::select! {
                    () = silenced => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                }
                // Both ends stay open, and nothing passes.
                std::future::pending::<()>().await;
            });
        }
    }
}
