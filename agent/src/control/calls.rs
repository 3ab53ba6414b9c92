//! What the core asks of consensus, done on the faces runtime: a log entry waits for disks and peers, the loop does not.

use crate::consensus::Consensus;
use crate::control::Notice;
use baton_core::output::EngineChange;
use baton_core::{Command, Input};
use baton_shared::id::{Kind, NodeId, NodeName};
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Calls that may wait to be begun.
pub const MAX_CALLS: usize = 64;
/// Proposals under way at once: a few per role, and operators' requests.
const MAX_PROPOSALS: usize = 64;

/// One thing asked of consensus.
#[derive(Debug)]
pub enum Call {
    /// Propose a command; answered by [`Input::Proposed`].
    Propose {
        /// For the answer.
        token: u64,
        /// The command.
        command: Command,
    },
    /// Change the engine's membership. Repeated by the core, so dropped while one is under way.
    Engine(EngineChange),
    /// Initialise the cluster. Repeated by the core, so dropped while one is under way.
    Bootstrap(BTreeMap<NodeId, (NodeName, Kind)>),
    /// Whether the engine may lead. Repeated by the core.
    Lead(bool),
    /// A later run has this node's consensus id: remember it (V7).
    Superseded,
}

enum Done {
    Proposal,
    Superseded,
    Engine,
    Bootstrap,
}

/// Serves calls until their sender is gone.
pub async fn run(
    consensus: Consensus,
    mut calls: mpsc::Receiver<Call>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    let mut under_way = JoinSet::new();
    let (mut proposals, mut engine, mut bootstrap) = (0, false, false);
    loop {
        tokio::select! {
            call = calls.recv(), if proposals < MAX_PROPOSALS => match call {
                None => return Ok(()),
                Some(Call::Propose { token, command }) => {
                    proposals += 1;
                    under_way.spawn(propose(consensus.clone(), token, command, notices.clone()));
                }
                Some(Call::Engine(change)) if !engine => {
                    engine = true;
                    under_way.spawn(change_engine(consensus.clone(), change));
                }
                Some(Call::Bootstrap(members)) if !bootstrap => {
                    bootstrap = true;
                    under_way.spawn(initialise(consensus.clone(), members));
                }
                Some(Call::Engine(_) | Call::Bootstrap(_)) => {}
                Some(Call::Lead(may)) => consensus.may_lead(may),
                Some(Call::Superseded) => drop(under_way.spawn(remember_superseded(consensus.clone()))),
            },
            Some(done) = under_way.join_next() => match done {
                Ok(Done::Proposal) => proposals -= 1,
                Ok(Done::Engine) => engine = false,
                Ok(Done::Bootstrap) => bootstrap = false,
                Ok(Done::Superseded) => {}
                Err(error) => return Err(error.to_string()),
            },
        }
    }
}

async fn propose(consensus: Consensus, token: u64, command: Command, notices: mpsc::Sender<Notice>) -> Done {
    let result = consensus.propose(command).await;
    // A closed channel means that the control loop has stopped: nobody waits for the answer.
    let _ = notices.send(Input::Proposed { token, result }.into()).await;
    Done::Proposal
}

async fn change_engine(consensus: Consensus, change: EngineChange) -> Done {
    if let Err(error) = consensus.engine(change.clone()).await {
        tracing::debug!("{change:?} did not succeed, and is repeated if still wanted: {error}");
    }
    Done::Engine
}

async fn remember_superseded(consensus: Consensus) -> Done {
    if let Err(error) = consensus.superseded().await {
        tracing::error!(
            "it could not be noted that this node's consensus id is another process's by now: {error}; move the data directory away \
             before this node is started again"
        );
    }
    Done::Superseded
}

async fn initialise(consensus: Consensus, members: BTreeMap<NodeId, (NodeName, Kind)>) -> Done {
    if let Err(error) = consensus.bootstrap(members).await {
        tracing::debug!("the cluster is not initialised yet: {error}");
    }
    Done::Bootstrap
}
