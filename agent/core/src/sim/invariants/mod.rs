//! What must hold, one file each; looked at after every event. None of them asks the code that it watches: each keeps its own
//! account of what was sent, granted, released and written.

mod clients;
mod confirm;
mod durable;
mod epochs_grow;
mod floor;
mod guarded;
mod lease;
mod line;
mod one_active;
mod one_application;
mod promise;
mod released;
mod sequence;
mod still;
mod told;
mod vote_kept;
mod word;

use super::world::{Machine, World};
use crate::input::Action;
use crate::output::GuardChange;
use crate::state::Command;
use baton_shared::id::{Epoch, NodeName, Owner, RoleName};
use baton_shared::seal::Header;
use baton_shared::wire::Heartbeat;

/// An invariant that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sim) struct Violation {
    /// Its file's name; or `live`, `bounded`, `panic` for what is no matter of safety.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// Result of looking.
type Held = Result<(), Violation>;

/// All of them.
#[derive(Default)]
pub(in crate::sim) struct Invariants {
    /// Only this one counts, if any: so that each can be shown to find what it is for.
    pub only: Option<&'static str>,
    one_active: one_active::OneActive,
    one_application: one_application::OneApplication,
    epochs_grow: epochs_grow::EpochsGrow,
    lease: lease::Leases,
    promise: promise::Promises,
    floor: floor::Floors,
    released: released::Released,
    sequence: sequence::Sequences,
    votes: vote_kept::Votes,
    still: still::Still,
    clients: clients::Clients,
}

/// The name under which each of them fails.
pub(in crate::sim) mod names {
    use super::{
        clients, confirm, durable, epochs_grow, floor, guarded, lease, line, one_active, one_application,
        promise, released, sequence, still, told, vote_kept, word,
    };

    pub(in crate::sim) const S1: &str = one_active::NAME;
    pub(in crate::sim) const APPLICATION: &str = one_application::NAME;
    pub(in crate::sim) const GUARDED: &str = guarded::NAME;
    pub(in crate::sim) const S2: &str = epochs_grow::NAME;
    pub(in crate::sim) const S4: &str = lease::NAME;
    pub(in crate::sim) const WORD: &str = word::NAME;
    pub(in crate::sim) const PROMISE: &str = promise::NAME;
    pub(in crate::sim) const FLOOR: &str = floor::NAME;
    pub(in crate::sim) const RELEASED: &str = released::NAME;
    pub(in crate::sim) const LINE: &str = line::NAME;
    pub(in crate::sim) const DISK: &str = durable::NAME;
    pub(in crate::sim) const SEQUENCE: &str = sequence::NAME;
    pub(in crate::sim) const CONFIRM: &str = confirm::NAME;
    pub(in crate::sim) const VOTE: &str = vote_kept::NAME;
    pub(in crate::sim) const CLIENTS: &str = clients::NAME;
    pub(in crate::sim) const STILL: &str = still::NAME;
    pub(in crate::sim) const TOLD: &str = told::NAME;
}

/// Their names, for the test that every one of them can fail.
pub(in crate::sim) const ALL: [&str; 17] = [
    one_active::NAME,
    one_application::NAME,
    guarded::NAME,
    epochs_grow::NAME,
    lease::NAME,
    promise::NAME,
    floor::NAME,
    released::NAME,
    word::NAME,
    line::NAME,
    durable::NAME,
    sequence::NAME,
    confirm::NAME,
    vote_kept::NAME,
    clients::NAME,
    still::NAME,
    told::NAME,
];

impl Invariants {
    /// After every event.
    pub fn event(&mut self, world: &World) -> Held {
        for role in world.config.roles.keys() {
            let held = self.one_active.look(world, role);
            self.counts(held)?;
            let held = one_application::look(world, role);
            self.counts(held)?;
            let held = guarded::look(world, role);
            self.counts(held)?;
            if let Some(span) = self.one_active.current(role) {
                let held = self.epochs_grow.active(role, span);
                self.counts(held)?;
            }
        }
        self.lease.learn(world);
        Ok(())
    }

    /// A heartbeat is about to be handled by this machine.
    pub fn heard(&mut self, machine: &Machine, header: &Header, heartbeat: &Heartbeat, now: u64) {
        self.lease.heard(machine, header, heartbeat);
        self.votes.heard(machine, header, heartbeat, now);
    }

    /// Node `n` has handled an input.
    pub fn handled(&mut self, world: &World, n: usize) -> Held {
        self.lease.voted(world, n);
        self.still.look(world, n);
        let ended = match self.promise.look(world, n, &self.released) {
            Ok(ended) => ended,
            Err(violation) => return self.counts(Err(violation)),
        };
        let held = self.floor.look(world, n, &ended);
        self.counts(held)
    }

    /// Node `n` has done what its core said.
    pub fn acted(&mut self, world: &World, n: usize) -> Held {
        let held = self.one_application.acted(world, n);
        self.counts(held)?;
        let held = self.lease.acting(world, n);
        self.counts(held)?;
        let held = word::look(world, n, &self.one_active);
        self.counts(held)
    }

    /// Node `n` changed a guard.
    pub fn guard(&mut self, world: &World, n: usize, role: &RoleName, change: GuardChange) -> Held {
        match change {
            GuardChange::Open { epoch, until } => {
                let held = self.lease.opened(world, n, role, epoch, until);
                self.counts(held)?;
                let held = self.released.opened(world, n, role, epoch);
                self.counts(held)?;
                self.counts(told::opened(world, n, role, epoch))
            }
            GuardChange::Shut => Ok(()),
            GuardChange::Close(epoch) => {
                self.released.closed(world, n, role, epoch);
                Ok(())
            }
        }
    }

    /// Node `n` sends a heartbeat.
    pub fn sent(
        &mut self,
        world: &World,
        n: usize,
        network: usize,
        to: &NodeName,
        seq: u64,
        heartbeat: &Heartbeat,
    ) -> Held {
        self.lease.sent(world, n, seq);
        let held = self.sequence.look(world, n, network, to, seq);
        self.counts(held)?;
        let held = durable::look(world, n, heartbeat);
        self.counts(held)?;
        let held = self.clients.sent(world, n, heartbeat);
        self.counts(held)?;
        let held = self.released.said(world, n, heartbeat);
        self.counts(held)?;
        self.counts(told::sent(world, n, heartbeat))?;
        let held = self.still.sent(world, n, heartbeat);
        self.counts(held)?;
        let held = self.epochs_grow.claimed(world, n, heartbeat);
        self.counts(held)
    }

    /// Node `n` begins to start or to stop an application that takes time to stop.
    pub fn ran(&mut self, world: &World, n: usize, role: &RoleName, action: Action) -> Held {
        let held = self.one_application.ran(world, n, role, action);
        self.counts(held)
    }

    /// The guardian of node `n` is about to stop an application, because nobody else does.
    pub fn fenced(&mut self, world: &World, n: usize, role: &RoleName) -> Held {
        self.counts(one_application::fenced(world, n, role))
    }

    /// An application of node `n` that takes time to stop stops now; it has acted since this epoch.
    pub fn stopped(&mut self, world: &World, n: usize, role: &RoleName, since: Epoch) -> Held {
        self.counts(self.lease.stopped(world, n, role, since))
    }

    /// Node `n` proposes.
    pub fn proposed(&mut self, world: &World, n: usize, command: &Command) -> Held {
        let held = line::look(world, n, command);
        self.counts(held)?;
        let held = self.votes.look(world, n, command, &self.released);
        self.counts(held)
    }

    /// A confirmation was answered; when it was asked for, `before` was the greatest epoch that had been active.
    pub fn confirmed(&mut self, n: usize, role: &RoleName, before: Epoch, answer: Option<Epoch>) -> Held {
        let held = confirm::look(n, role, before, answer);
        self.counts(held)
    }

    /// The guardian of node `n` says that this boot is dead, and that its application has stopped.
    pub fn died(&mut self, world: &World, n: usize, owner: Owner) -> Held {
        let held = self.released.died(world, n, owner);
        self.counts(held)
    }

    /// The greatest epoch that was ever active.
    pub fn greatest(&self, role: &RoleName) -> Epoch {
        self.epochs_grow.greatest(role)
    }

    /// The greatest epoch that node `n` claimed in this boot.
    pub fn claims(&self, n: usize, boot: u64, role: &RoleName) -> Epoch {
        self.epochs_grow.claims(n, boot, role)
    }

    /// Every span in which a node was active: (from, to, node, epoch).
    pub fn spans(&self, role: &RoleName) -> &[(u64, u64, usize, Epoch)] {
        self.one_active.spans(role)
    }

    fn counts(&self, held: Held) -> Held {
        match held {
            Err(violation) if self.only.is_some_and(|only| only != violation.invariant) => Ok(()),
            held => held,
        }
    }
}

/// Fails with a sentence.
fn violated<T>(invariant: &'static str, text: String) -> Result<T, Violation> {
    Err(Violation { invariant, text })
}
