//! The control runtime: one thread that owns the only clock and the heartbeat sockets, feeds the core and carries out
//! what it says, in order. Nothing here decides, and nothing here waits for a disk, a peer, a check or a client.
//!
//! The thread runs a plain loop: sleep in `ppoll`, receive, hear what the faces have to say, tick (see [`bell`] for why it
//! is not a tokio runtime). [`flush`] is the other thread: promises go to disk on it. [`calls`] and [`feed`] are the
//! tasks on the faces runtime through which the core asks consensus and learns from it.

pub mod bell;
pub mod calls;
pub mod driver;
pub mod feed;
pub mod flush;
pub mod ground;
pub mod port;
pub(crate) mod priority;
pub mod probe;
pub mod pulse;
pub mod watchdog;

use crate::actions::Actions;
use crate::addresses::Addresses;
use crate::consensus::Identity;
use crate::consensus::progress::Progress;
use crate::guardian::SharedPage;
use crate::handle::{Counters, Message};
use baton_core::{Durable, Input};
use baton_shared::config::Config;
use baton_shared::id::RoleName;
use baton_shared::view::{Published, RoleState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Notices that may wait for the control loop: it takes them far faster than faces make them.
pub const MAX_NOTICES: usize = 256;

/// What the rest of the agent tells the control loop.
#[derive(Debug)]
pub enum Notice {
    /// For the core.
    Input(Box<Input>),
    /// Host names were resolved: the view is published again with them.
    Resolved,
}

impl From<Input> for Notice {
    fn from(input: Input) -> Notice {
        Notice::Input(Box::new(input))
    }
}

/// What this node does in each role, for those who need not know more.
pub type RoleStates = BTreeMap<RoleName, RoleState>;

/// What the control loop is started with. The ports and the clock are the system's, or those of a simulated world.
pub struct Start<P = port::Port, C = ground::System> {
    /// The only clock.
    pub clock: C,
    /// The configuration.
    pub config: Arc<Config>,
    /// Who this node is.
    pub identity: Identity,
    /// What the voter's disk remembers.
    pub durable: Durable,
    /// The data directory and the disk it is on, in words; `None`: nothing is kept on disk.
    pub disk: Option<String>,
    /// How far writes to it are.
    pub progress: Arc<Progress>,
    /// What is shared with the guardian, if there is one.
    pub page: Option<SharedPage>,
    /// Roles whose application may still act since the run before.
    pub unfinished: BTreeSet<RoleName>,
    /// One socket per configured network; `None` where this node has no address.
    pub ports: Vec<Option<P>>,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
    /// Where faces read.
    pub published: Arc<Published>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// To the flush thread.
    pub flush: flush::Flush,
    /// To consensus.
    pub calls: mpsc::Sender<calls::Call>,
    /// To the action runners.
    pub actions: Actions,
    /// Told when this node's state in a role changes.
    pub states: watch::Sender<RoleStates>,
    /// Fed while the loop turns.
    pub pulse: pulse::Pulse,
    /// From the rest of the agent.
    pub notices: mpsc::Receiver<Notice>,
    /// From the faces.
    pub messages: mpsc::Receiver<Message>,
}

/// Starts the control thread. The receiver hears `()` after a stop in order, and an error if the thread ends otherwise.
pub fn start(start: Start) -> std::io::Result<oneshot::Receiver<()>> {
    let bell = bell::Bell::new()?;
    let (stopped, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            priority::raise();
            driver::Driver::new(start, bell.waker()).run(&bell);
            let _ = stopped.send(()); // nobody listens any more only if the agent is exiting
        })?;
    Ok(ended)
}
