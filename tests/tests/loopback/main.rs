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

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Short enough for a quick test, long enough for a machine that runs many of them at once.
const WINDOW: Duration = Duration::from_millis(500);

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What a name server said: a response code, and addresses.
type Said = (ResponseCode, Vec<Ipv4Addr>);

fn said(message: &[u8]) -> Said {
    let message = Message::from_vec(message).expect("it can be read");
    let addresses = message.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    });
    (message.response_code, addresses.collect())
}
