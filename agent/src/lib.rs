//! The agent: sockets, consensus, checks, actions, HTTP and the command line around `baton-core`.

pub mod accepting;
pub mod actions;
pub mod addresses;
pub mod agent;
pub mod checks;
pub mod cli;
pub mod consensus;
pub mod control;
pub mod data_dir;
pub mod demo;
pub mod descriptors;
pub mod grpc;
pub mod guardian;
pub mod handle;
pub mod http;
pub mod keeper;
pub mod memory;
pub mod mount;
mod netlink;
pub mod process;
pub mod programs;
mod sides;
#[cfg(test)]
mod simulation;
pub mod spawner;
