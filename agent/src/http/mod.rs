//! The HTTP faces: `/health` and its kin for balancers and people, and the control listener for operators.
//!
//! Invariant (H3, S4): every answer about who is active compares the guard with the clock while the response is made;
//! nothing here remembers that this node "is" active. Nothing else in the agent knows hyper, but for the command line's
//! client. Sockets are bound first ([`Checks::bind`], [`Control::bind`]) and served later.

mod active;
mod agent_check;
mod answer;
mod budget;
mod checks;
mod connection;
mod control;
mod crowd;
mod feed;
mod grpc;
mod health;
mod history;
mod lasting;
mod listen;
mod metrics;
mod opening;
mod patience;
mod port;
mod progress;
mod proxy;
mod query;
mod serve;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

pub use checks::Checks;
pub use control::Control;
pub(crate) use port::QUEUES;
#[cfg(test)]
pub(crate) use tests::fixture;
pub use tls::Certificates;

/// The program's version, as `/status` and `/metrics` say it.
const VERSION: &str = env!("CARGO_PKG_VERSION");
