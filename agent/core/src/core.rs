//! Composition: the modules, and who is told what.

use crate::{Durable, Input, Output};
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::id::{Boot, ClusterId, NodeId};
use std::sync::Arc;

/// What a core starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// This node's consensus id.
    pub id: NodeId,
    /// This run.
    pub boot: Boot,
    /// The cluster this node belongs to; 0 if fresh.
    pub cluster: ClusterId,
    /// What the voter's disk remembers.
    pub durable: Durable,
    /// Seed of the core's only randomness (jitter of retries).
    pub seed: u64,
}

/// The state machine.
pub struct Core {}

impl Core {
    /// Starts at `now`, when the process started: no grant leaves for 1.01 W from here (V4).
    pub fn new(start: Start, now: Mono) -> Core {
        let _ = (start, now);
        Core {}
    }

    /// Takes in one input that the driver learned of before it read the clock at `now`. `wall_ms` is the wall clock,
    /// for people and skew warnings.
    pub fn handle(&mut self, input: Input, now: Mono, wall_ms: u64) {
        let _ = (input, now, wall_ms);
    }

    /// The next thing to do, in order; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn next_wake(&self) -> Mono {
        Mono::MAX
    }
}
