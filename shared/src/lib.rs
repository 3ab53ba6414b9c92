//! Baton's vocabulary: what every part of the program means by a node, an epoch, a lease or a view.
//!
//! This crate opens no socket, starts no task and decides nothing. The one clock it can read is named in
//! [`clock`]; everything else takes the instant as an argument.

pub mod clock;
pub mod config;
pub mod copy;
pub mod crowd;
pub mod death;
#[cfg(test)]
mod fuzz;
pub mod guard;
pub mod history;
pub mod id;
pub mod key;
pub mod prefix;
pub mod seal;
pub mod status;
pub mod succession;
pub mod timing;
pub mod view;
pub mod wire;
