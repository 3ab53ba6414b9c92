//! The log: one list of commands, applied in one order, and told to whoever the leader reaches, late and unevenly.
//!
//! What is committed here is committed: there is no second opinion that could be wrong. What consensus leaves open is played:
//! who leads and when, how long a commit takes, which nodes hear of it when, and how many entries at a time.

use crate::input::Coordinator;
use crate::state::{Command, Outcome, State};
use baton_shared::id::NodeId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Older states are told to nobody.
const KEPT: usize = 32;

/// The log.
#[derive(Default)]
pub(super) struct Log {
    /// After each of the last entries, with its index.
    states: VecDeque<(u64, Arc<State>)>,
    /// Index of the last entry.
    pub index: u64,
    /// The leader's place among the machines.
    pub leader: Option<usize>,
    pub term: u64,
    /// The engine's own members.
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// How many electorates there have been, none at the beginning included.
    pub electorates: u64,
}

impl Log {
    /// The newest state.
    pub fn state(&self) -> Arc<State> {
        self.states
            .back()
            .map_or_else(Arc::default, |(_, state)| state.clone())
    }

    /// Commits a command.
    pub fn commit(&mut self, command: &Command) -> Outcome {
        let mut state = State::clone(&self.state());
        let outcome = state.apply(command);
        self.push(state);
        outcome
    }

    /// Commits a state that no command made.
    pub fn push(&mut self, state: State) {
        if self.electorates == 0 || state.electorate.id != self.state().electorate.id {
            self.electorates += 1;
        }
        self.index += 1;
        self.states.push_back((self.index, Arc::new(state)));
        if self.states.len() > KEPT {
            self.states.pop_front();
        }
    }

    /// An entry that changes nothing: of the engine's own.
    pub fn blank(&mut self) {
        self.push(State::clone(&self.state()));
    }

    /// The state after entry `index`, or after the oldest that is still told.
    pub fn at(&self, index: u64) -> Option<(u64, Arc<State>)> {
        let (first, _) = self.states.front()?;
        let place = usize::try_from(index.saturating_sub(*first)).ok()?;
        self.states.get(place).or(self.states.back()).cloned()
    }

    /// What the engine says of itself; `matched` is how far each node has applied.
    pub fn coordinator(&self, leader: Option<NodeId>, matched: BTreeMap<NodeId, u64>) -> Coordinator {
        Coordinator {
            term: self.term,
            leader,
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            settled: true,
            matched,
            last_log: self.index,
        }
    }
}
