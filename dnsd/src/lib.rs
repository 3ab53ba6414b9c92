//! Baton's DNS server: the cluster's name answers with the active node's address.
//!
//! The agent embeds this library. On a machine without an agent the binary `baton-dnsd` does (feature `standalone`), from
//! what agents say over HTTP; [`follow`] makes one view of it.
//!
//! One question takes this way: a datagram or a framed message arrives ([`Server`]); the responder reads the clock, once
//! for all datagrams that were received together, and hands question, [`Client`], [`Policy`], [`Zone`] and clock's verdict
//! to [`answer()`], which decides alone and writes the response into the caller's buffer; a limiter may hold back what
//! leaves over UDP; the response leaves from the address that was asked.
//!
//! Four rules hold here:
//!
//! - **No cached right.** A [`Zone`] holds what every node's address *is*, pre-rendered; who is active is asked of
//!   [`Published::word`](baton_shared::view::Published::word) at each answer (S4 of DESIGN.md). A process that was
//!   frozen says SERVFAIL, or the successor's name, on its first answer after waking.
//! - **Three different silences.** "Nobody is active" is NODATA with the SOA, "I do not know" is SERVFAIL (resolvers
//!   then ask the next server), "not my zone" is REFUSED. A name that has any data is never NXDOMAIN: musl gives up
//!   the whole lookup on an AAAA that is.
//! - **[`answer()`] is pure**: no clock, no socket, no allocation, no panic on any input. Only the renderer knows
//!   `hickory-proto`, and it runs when the zone's content changes.
//! - **Who asks is an argument.** Access lists, cookies (RFC 7873, RFC 9018) and limits see the client's address; the
//!   secret that makes cookies is the cluster's, so that a client keeps its cookie when it asks another node.
//!
//! Names, under the zone `orders.internal` with nodes `a`, `b` and role `main`:
//!
//! | name | records |
//! |---|---|
//! | `orders.internal` | A, AAAA of the node active for `main` (without such a role: the first by name); SOA; NS |
//! | `main.orders.internal` | A, AAAA of the node active for `main` |
//! | `a.node.orders.internal` | A, AAAA of node `a`, active or not |
//! | `ns1.ns.orders.internal` | A, AAAA of a name server of the configuration |

mod activation;
mod answer;
mod cookie;
mod counters;
pub mod follow;
mod limit;
mod listen;
mod message;
mod mmsg;
#[cfg(feature = "names")]
pub mod names;
mod notify;
mod policy;
mod priority;
mod push;
mod question;
mod render;
mod responder;
mod server;
#[cfg(feature = "standalone")]
pub mod standalone;
mod tcp;
mod threads;
mod transfer;
mod tsig;
mod udp;
mod zone;

#[cfg(test)]
#[path = "../tests/servers/mod.rs"]
mod servers;
#[cfg(test)]
mod testing;

pub use activation::Passed;
pub use answer::{Client, EDNS_SIZE, Rcode, Reply, Via, answer};
pub use counters::Counters;
pub use policy::Policy;
pub use push::Pushes;
pub use server::Server;
pub use zone::{Origin, Settings, Source, Zone};
