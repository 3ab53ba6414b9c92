//! Consensus: openraft behind one module. Nothing outside knows the engine.

use crate::addresses::Addresses;
use crate::handle::Counters;
use baton_core::input::Coordinator;
use baton_core::output::EngineChange;
use baton_core::{Command, Durable, Outcome, State};
use baton_shared::config::Config;
use baton_shared::id::{Boot, ClusterId, Kind, NodeId, NodeName};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Who this node is, as its storage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its consensus id.
    pub node: NodeId,
    /// This run.
    pub boot: Boot,
    /// Its cluster; 0 while it is fresh.
    pub cluster: ClusterId,
}

/// The node's storage: identity, promises, log, votes, applied state. On disk, or in memory.
pub struct Store {}

impl Store {
    /// Opens (and locks) the directory, or starts in memory. The error is one line that says what to do.
    pub fn open(dir: Option<&Path>) -> Result<Arc<Store>, String> {
        let _ = dir;
        todo!()
    }
    /// Who this node is.
    pub fn identity(&self) -> Identity {
        todo!()
    }
    /// What the voter's disk remembers.
    pub fn durable(&self) -> Durable {
        todo!()
    }
    /// Puts it on disk; returns when it is there. Blocks: called on the flush thread.
    pub fn save_durable(&self, durable: &Durable) -> Result<(), String> {
        let _ = durable;
        todo!()
    }
}

/// The running engine. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {}

/// What consensus is started with.
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// Storage.
    pub store: Arc<Store>,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
    /// One bound TCP listener per network on which this node has an address.
    pub listeners: Vec<std::net::TcpListener>,
    /// Counted: streams refused.
    pub counters: Arc<Counters>,
    /// A peer asks this node to read its configuration again.
    pub reload: mpsc::Sender<oneshot::Sender<Result<String, String>>>,
}

impl Consensus {
    /// Starts the engine and its streams on the current tokio runtime.
    pub async fn start(start: Start) -> Result<Consensus, String> {
        let _ = start;
        todo!()
    }
    /// The applied state and the index of its last entry.
    pub fn learned(&self) -> watch::Receiver<(Arc<State>, u64)> {
        todo!()
    }
    /// The engine's view of itself.
    pub fn coordinator(&self) -> watch::Receiver<Coordinator> {
        todo!()
    }
    /// This node's cluster, once it (durably) has one.
    pub fn cluster(&self) -> watch::Receiver<ClusterId> {
        todo!()
    }
    /// Proposes through the leader, wherever it is. Bounded in time; an error may mean "not known".
    pub async fn propose(&self, command: Command) -> Result<Outcome, String> {
        let _ = command;
        todo!()
    }
    /// Changes the engine's membership; on the leader only. Idempotent.
    pub async fn engine(&self, change: EngineChange) -> Result<(), String> {
        let _ = change;
        todo!()
    }
    /// Asks every voter to be initialised by this node, and initialises. Idempotent.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, (NodeName, Kind)>) -> Result<(), String> {
        let _ = members;
        todo!()
    }
    /// Tells a peer to read its configuration again.
    pub async fn tell_reload(&self, node: &NodeName) -> Result<String, String> {
        let _ = node;
        todo!()
    }
    /// Takes a new configuration.
    pub fn configure(&self, config: Arc<Config>) {
        let _ = config;
        todo!()
    }
    /// A task of the engine has ended unasked, with its reason; pending while all is well.
    pub async fn failed(&self) -> String {
        std::future::pending().await
    }
    /// Stops, and closes the store.
    pub async fn shutdown(&self) {
        todo!()
    }
}
