//! The command line: what people and scripts say to an agent, and what they read from it.
//!
//! Commands other than `agent`, `demo`, `follow` and `doctor` hold no state and decide nothing: they find an agent
//! ([`target`]), ask it over its control listener ([`client`]) and print its answer. Exit status: 0 done, 1 refused or no
//! agent there, 2 wrong usage or configuration.

pub mod check_config;
mod client;
mod completions;
mod configured;
mod doctor;
mod events;
mod follow;
mod health;
mod init;
pub mod keygen;
mod man;
mod options;
mod orders;
pub(crate) mod out;
mod status;
mod stopped;
mod stream;
pub(crate) mod table;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod wall;

use baton_shared::config::Config;
use clap::Parser;
use options::{Command, Options};
use out::Failure;
use std::future::Future;

/// Runs the program as its command line says. Gives the exit status.
pub fn run() -> u8 {
    completions::answer();
    let done = match Options::parse().command {
        Command::Agent(agent) => return start(agent),
        Command::CheckConfig { file, node, set } => return check_config::run(&file, node.as_ref(), &set),
        Command::Keygen { out } => return keygen::run(out.as_deref()),
        Command::Demo(demo) => return crate::demo::run(demo.into()),
        Command::Init(options) => init::run(options),
        Command::Completions { shell } => completions::run(shell),
        Command::Man { out } => man::run(out.as_deref()),
        Command::Status(options) => wait(status::run(options)),
        Command::Events(options) => wait(events::run(options)),
        Command::Follow(options) => wait(follow::run(options)),
        Command::Health(options) => wait(health::run(options)),
        Command::Doctor(options) => return doctor::run(options),
        Command::Order(order) => wait(orders::run(order)),
    };
    match done {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

fn start(agent: options::Agent) -> u8 {
    let options = crate::agent::Options {
        sets: agent.sets(),
        config: Config::lasting(&agent.config), // an agent that is started anew reads it again
        node: agent.node,
        log: agent.log,
    };
    crate::guardian::run(|channel| crate::agent::run(options.clone(), channel))
}

/// Runs one command to its end.
fn wait<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?
        .block_on(command)
}
