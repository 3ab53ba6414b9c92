//! Consensus: openraft behind one module. Nothing outside knows the engine.
//!
//! `store` keeps (`record` for identity and promises, `disk` for the engine); `log` and `machine` are what the engine
//! needs of it; `channel`, `streams` and `listener` carry questions (`rpc`) between nodes past the `door`, `dial` asks and
//! `service` answers them, and `probe` tries whether they pass; `pledge` and `founding` start a cluster; `engine` holds openraft's types, settings and membership.

mod channel;
mod dial;
mod disk;
mod door;
mod engine;
pub mod entrance;
pub mod folder;
mod founding;
mod listener;
mod log;
mod machine;
pub mod net;
mod pledge;
mod probe;
pub mod progress;
mod record;
mod rpc;
mod service;
mod store;
mod streams;
mod tasks;
#[cfg(test)]
mod tests;

pub use door::STRANGERS;
pub use store::Store;

use crate::addresses::Addresses;
use crate::handle::Counters;
use baton_core::input::{Coordinator, Tries};
use baton_core::output::EngineChange;
use baton_core::{Command, Outcome, State};
use baton_shared::config::Config;
use baton_shared::id::{Boot, ClusterId, Kind, NodeId, NodeName};
use dial::Dial;
use engine::{Engine, Metrics, Network, Peer};
use log::LogStore;
use machine::Machine;
use net::{Listener, Net};
use rpc::{Answer, Body};
use service::{Proposal, Service, propose_here};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streams::Streams;
use tasks::Tasks;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// A proposal is answered within this, or it is not known what came of it.
const PROPOSE: Duration = Duration::from_secs(3);
/// Between two looks for a leader that takes proposals.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The addresses of a node that is new in the file are waited for so long.
const LOOK_UP: Duration = Duration::from_secs(1);
/// A command's length at most; 64 of them are split over several messages.
const MAX_COMMAND: usize = 1 << 20;
/// A change of the engine's membership: two entries and a slow disk.
const CHANGE: Duration = Duration::from_secs(10);
/// A peer reads its configuration within this; its own limit is shorter.
const RELOAD: Duration = Duration::from_secs(6);
/// Stages of a shutdown; together below a second.
const STOP: Duration = Duration::from_millis(300);

/// Who this node is, as its storage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its consensus id.
    pub node: NodeId,
    /// This run.
    pub boot: Boot,
    /// Its cluster; 0 while it is fresh.
    pub cluster: ClusterId,
    /// How long before it was opened somebody last wrote in the data directory; `None` if that is not known.
    pub last_write: Option<Duration>,
}

/// The running engine. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    raft: Engine,
    store: Arc<Store>,
    dial: Dial,
    tasks: Arc<Tasks>,
    cluster: watch::Sender<ClusterId>,
    learned: watch::Receiver<(Arc<State>, u64)>,
    coordinator: watch::Receiver<Coordinator>,
    tries: watch::Sender<Tries>,
    /// One start of a cluster, and one change of membership, at a time.
    founding: Arc<tokio::sync::Mutex<()>>,
    changing: Arc<tokio::sync::Mutex<()>>,
}

/// What consensus is started with.
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// Storage.
    pub store: Arc<Store>,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
    /// Connects streams.
    pub net: Arc<dyn Net>,
    /// One bound listener per network on which this node has an address.
    pub listeners: Vec<Box<dyn Listener>>,
    /// Counted: streams refused.
    pub counters: Arc<Counters>,
    /// A peer asks this node to read its configuration again.
    pub reload: mpsc::Sender<oneshot::Sender<Result<String, String>>>,
}

impl Consensus {
    /// Starts the engine and its streams on the current tokio runtime.
    pub async fn start(start: Start) -> Result<Consensus, String> {
        let tasks = Tasks::new();
        let store = start.store;
        let identity = store.identity();
        let streams = Streams::new(start.config.clone(), start.addresses, start.net, tasks.clone());
        let dial = Dial {
            store: store.clone(),
            streams: streams.clone(),
            last: Arc::default(),
            superseded: watch::channel(false).0,
        };
        let (machine, learned) = Machine::open(store.disk())?;
        let raft = Engine::new(
            identity.node.0,
            engine::settings(start.config.cluster.name.as_str())?,
            Network(dial.clone()),
            LogStore::new(store.disk()),
            machine,
        )
        .await
        .map_err(|error| format!("the consensus engine could not start: {error}"))?;

        let (cluster, _) = watch::channel(identity.cluster);
        let service = Arc::new(Service {
            raft: raft.clone(),
            store: store.clone(),
            streams,
            counters: start.counters,
            cluster: cluster.clone(),
            reload: start.reload,
            senders: Mutex::default(),
            warned: Mutex::default(),
        });
        for listener in start.listeners {
            tasks.keep("stream listener", listener::listen(listener, service.clone()));
        }
        let (says, coordinator) = watch::channel(engine::coordinator(&raft.metrics().borrow()));
        tasks.keep("engine", follow(raft.metrics(), says, tasks.clone()));
        let tries = watch::Sender::new(Tries::new());
        tasks.keep("tries of streams", probe::run(dial.clone(), tries.clone()));
        tasks.pass(
            "founding",
            founding::complete(raft.clone(), store.clone(), learned.clone()),
        );
        Ok(Consensus {
            raft,
            store,
            dial,
            tasks,
            cluster,
            learned,
            coordinator,
            tries,
            founding: Arc::default(),
            changing: Arc::default(),
        })
    }

    /// The applied state and the index of its last entry.
    pub fn learned(&self) -> watch::Receiver<(Arc<State>, u64)> {
        self.learned.clone()
    }

    /// The engine's view of itself.
    pub fn coordinator(&self) -> watch::Receiver<Coordinator> {
        self.coordinator.clone()
    }

    /// This node's cluster, once it (durably) has one.
    pub fn cluster(&self) -> watch::Receiver<ClusterId> {
        self.cluster.subscribe()
    }

    /// What tries of streams find.
    pub fn streams(&self) -> watch::Receiver<Tries> {
        self.tries.subscribe()
    }

    /// Whether a peer has said that it heard a later run of this node's consensus id.
    pub fn superseded_by(&self) -> watch::Receiver<bool> {
        self.dial.superseded.subscribe()
    }

    /// Proposes through the leader, wherever it is. Bounded in time; an error may mean "not known".
    ///
    /// A command may be applied twice, when a network dies before the answer came; but not after it was answered here.
    pub async fn propose(&self, command: Command) -> Result<Outcome, String> {
        if disk::encode(&command)?.len() > MAX_COMMAND {
            return Err("the change is too large".into());
        }
        let until = Instant::now() + PROPOSE;
        let change = self.dial.number();
        let mut why = "no coordinator is known; are enough voters up and in touch?".to_owned();
        loop {
            let leader = self.leader();
            let left = until.saturating_duration_since(Instant::now());
            match timeout_at(until, self.propose_at(leader, change, &command, left)).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(Some(reason))) => why = reason,
                Ok(Err(None)) => {}
                Err(_) => {
                    let why = "no answer in time; the change may still be made".to_owned();
                    return Err(probe::explain(why, &self.tries.borrow()));
                }
            }
            if Instant::now() + LOOK_AGAIN >= until {
                return Err(probe::explain(why, &self.tries.borrow()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// One try. An error is a reason to look for a leader again.
    async fn propose_at(
        &self,
        leader: Option<(NodeId, Peer, u64)>,
        change: u64,
        command: &Command,
        limit: Duration,
    ) -> Result<Outcome, Option<String>> {
        let Some((id, peer, term)) = leader else {
            return Err(None);
        };
        if id == self.store.identity().node {
            return match propose_here(&self.raft, command.clone()).await {
                Proposal::Done(outcome) => Ok(outcome),
                Proposal::Leader(_) => Err(None),
                Proposal::Failed(why) => Err(Some(why)),
            };
        }
        let name = peer.name.ok_or(None)?;
        let answer = self.dial.propose((&name, id), term, change, command, limit);
        match answer.await {
            Ok(Answer::Proposed(outcome)) => Ok(outcome),
            Ok(Answer::NotLeader(_)) => Err(None),
            Ok(other) => Err(Some(format!("the coordinator {name} refused: {}", other.why()))),
            Err(why) => Err(Some(why)),
        }
    }

    /// The leader, and its term.
    fn leader(&self) -> Option<(NodeId, Peer, u64)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let peer = metrics.membership_config.membership().get_node(&leader)?;
        Some((NodeId(leader), peer.clone(), metrics.current_term))
    }

    /// Changes the engine's membership; on the leader only. Idempotent.
    pub async fn engine(&self, change: EngineChange) -> Result<(), String> {
        let Ok(_one) = self.changing.try_lock() else {
            return Err("another change of the engine's membership is under way".into());
        };
        let state = self.learned.borrow().0.clone();
        timeout(CHANGE, engine::change(&self.raft, change, &state))
            .await
            .unwrap_or_else(
                |_| Err("the engine's membership was not changed in time; it may still be".into()),
            )
    }

    /// Whether the engine may lead, and stand for election. A leader that may not keeps its office until the others, who no longer hear
    /// from it, have elected another.
    pub fn may_lead(&self, may: bool) {
        let engine = self.raft.runtime_config();
        engine.heartbeat(may);
        engine.elect(may);
    }

    /// Asks every voter to be initialised by this node, and initialises. Idempotent.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, (NodeName, Kind)>) -> Result<(), String> {
        let Ok(_one) = self.founding.try_lock() else {
            return Err("a start of the cluster is under way".into());
        };
        founding::found(self, members).await
    }

    /// Tells a peer to read its configuration again.
    pub async fn tell_reload(&self, node: &NodeName) -> Result<String, String> {
        // Where a node is that the file names only now is being looked up.
        let known = async {
            while !self.dial.streams.knows(node) {
                sleep(LOOK_AGAIN).await;
            }
        };
        let _ = timeout(LOOK_UP, known).await;
        let id = match self.dial.ask(node, NodeId(0), Body::Hello, PROPOSE).await? {
            Answer::Hello(name, id) if name == *node => id,
            Answer::Hello(name, _) => return Err(format!("at {node}'s address is {name}")),
            other => return Err(format!("{node} refused: {}", other.why())),
        };
        match self.dial.ask(node, id, Body::Reload, RELOAD).await? {
            Answer::Reloaded(text) => Ok(text),
            other => Err(format!("{node} refused: {}", other.why())),
        }
    }

    /// Takes a new configuration.
    pub fn configure(&self, config: Arc<Config>) {
        self.dial.streams.configure(config);
    }

    /// A later run has this node's consensus id: whatever is started here next is a new node (V7).
    pub async fn superseded(&self) -> Result<(), String> {
        let store = self.store.clone();
        self.store.disk().aside(move || store.superseded()).await
    }

    /// Whether that was told.
    pub fn is_superseded(&self) -> bool {
        self.store.is_superseded()
    }

    /// A task of the engine has ended unasked, with its reason; pending while all is well.
    pub async fn failed(&self) -> String {
        self.tasks.failed().await
    }

    /// Stops, and closes the store.
    pub async fn shutdown(&self) {
        self.tasks.expect_end();
        let _ = timeout(STOP, self.raft.shutdown()).await;
        let _ = timeout(STOP, self.tasks.close()).await;
        let store = self.store.clone();
        let close = move || {
            store.close();
            Ok(())
        };
        let _ = timeout(STOP, self.store.disk().aside(close)).await;
    }
}

/// Translates the engine's metrics, and notices its end.
async fn follow(mut metrics: watch::Receiver<Metrics>, says: watch::Sender<Coordinator>, tasks: Arc<Tasks>) {
    loop {
        let (now, running) = {
            let metrics = metrics.borrow_and_update();
            (engine::coordinator(&metrics), metrics.running_state.clone())
        };
        if let Err(fatal) = running {
            tasks.fail(format!("the consensus engine stopped: {fatal}"));
        }
        says.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        if metrics.changed().await.is_err() {
            return tasks.fail("the consensus engine stopped".into());
        }
    }
}
