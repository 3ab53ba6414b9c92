//! Every decision that Baton takes, as one pure state machine: no IO, no async, no clock.
//!
//! `Core::handle(input, now)` mutates, `Core::poll_output()` drains, `Core::next_wake()` says when time itself is the
//! next input. The rules V1–V7 and H1–H6 that the modules name are those of DESIGN §5 (see ARCHITECTURE.md).

#[macro_use]
mod broken;

mod alarm;
mod ask;
mod beat;
mod campaign;
mod chronicle;
mod claim;
pub mod clients;
mod cluster;
mod confirm;
mod coordinate;
mod copies;
pub mod core;
pub mod fitness;
pub mod guardian;
mod hearing;
pub mod input;
pub mod lease;
pub mod link;
mod membership;
mod notice;
mod observe;
mod office;
mod outage;
mod outbox;
pub mod output;
mod pace;
pub mod peer;
pub mod plan;
pub mod promise;
mod publish;
mod raise;
mod retire;
mod role;
#[cfg(test)]
mod sim;
mod skew;
pub mod state;
mod story;
mod stream;
mod unread;
mod vacate;
mod vote;
mod why;

pub use core::{Core, Start};
pub use input::{Input, Request, Unread};
pub use output::{Durable, Output};
pub use state::{Command, Outcome, State};
