//! Real processes on loopback addresses: no root, no namespaces, part of every plain `cargo test`.

mod activated;
mod bad_input;
mod beside;
mod confirm;
mod crowds;
mod damaged;
mod doctor;
mod failover;
mod follow;
mod operator;
mod permission;
mod reload;
mod replay;
mod standalone;
mod strangers;
mod systemd;
mod waking;

use std::time::Duration;

/// Short enough for a quick test, long enough for a machine that runs many of them at once.
const WINDOW: Duration = Duration::from_millis(500);

const NAMES: [&str; 3] = ["a", "b", "c"];
