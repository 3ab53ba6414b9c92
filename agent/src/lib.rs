//! The agent: sockets, consensus, checks, actions, HTTP and the command line around `baton-core`.

pub mod actions;
pub mod addresses;
pub mod agent;
pub mod checks;
pub mod cli;
pub mod consensus;
pub mod control;
pub mod demo;
pub mod descriptors;
pub mod grpc;
pub mod guardian;
pub mod handle;
pub mod http;
pub mod keeper;
pub mod process;
#[cfg(test)]
mod simulation;
pub mod spawner;
