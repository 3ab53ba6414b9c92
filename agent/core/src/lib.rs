//! Every decision that Baton takes, as one pure state machine: no IO, no async, no clock.
//!
//! `Core::handle(input, now)` mutates, `Core::poll_output()` drains, `Core::next_wake()` says when time itself is the
//! next input. The rules V1–V7 and H1–H6 that the modules name are those of DESIGN §5 (see ARCHITECTURE.md).

pub mod core;
pub mod input;
pub mod output;
pub mod state;

pub use core::{Core, Start};
pub use input::{Input, Request};
pub use output::{Durable, Output};
pub use state::{Command, Outcome, State};
