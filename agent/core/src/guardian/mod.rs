//! The guardian: the process above the agent. What it decides is here, without IO and without a clock; its shell is
//! `agent/src/guardian/`. The simulator drives these very types.
//!
//! - [`machine`]: the agent dies, stands still, asks; a lease is about to end: who is killed, what is fenced, who is told.
//! - [`page`]: the memory that guardian, keepers and agent share: until when which application may act.
//! - [`keeper`]: the tiny process between guardian and application, which kills everything below it when nobody else does.
//! - [`watch`]: the agent's eye on its guardian.
//! - [`request`]: what agent and guardian say to each other.

mod applications;
mod burial;
pub mod fate;
mod fences;
pub mod keeper;
pub mod machine;
pub mod page;
pub mod request;
pub mod watch;

pub use fate::Fate;
pub use keeper::{Keeper, Rest, Seen};
pub use machine::{Guardian, Input, Output};
pub use page::{LeasePage, RoleSlot};
pub use request::{Answer, Fence, FencePlan, Instructions, Recipient, Request};
pub use watch::Watch;
