//! Real processes on loopback addresses: no root, no namespaces, part of every plain `cargo test`.

mod activated;
mod bad_input;
mod beside;
mod completions;
mod confirm;
mod crowds;
mod damaged;
mod differing;
mod doctor;
mod epochs;
mod failover;
mod follow;
mod greedy;
mod init;
mod operator;
mod permission;
mod programs;
mod reload;
mod replay;
mod rush;
mod standalone;
mod strangers;
mod systemd;
mod waking;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Short enough for a quick test, long enough for a machine that runs many of them at once.
const WINDOW: Duration = Duration::from_millis(500);

const NAMES: [&str; 3] = ["a", "b", "c"];

/// One flood at a time: each opens as many connections as this process may, and keeps the machine busy.
fn flooding() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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
