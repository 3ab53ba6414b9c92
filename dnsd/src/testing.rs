//! What the tests share: a cluster of one view, questions by hand, and responses read by hickory-proto.

use crate::answer::{Client, Via};
use crate::policy::Policy;
use crate::question::{Header, Name, Question};
use crate::zone::{Settings, Zone};
use baton_shared::clock::Mono;
use baton_shared::config::Dns;
use baton_shared::copy::CopyView;
use baton_shared::id::{Boot, ClusterId, ClusterName, ElectorateId, Epoch, Kind, NodeId, NodeName, RoleName};
use baton_shared::view::{HolderView, NodeView, PeerState, Published, RoleState, RoleView, View};
use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod allocations;
pub use allocations::allocations;

/// The zone of every test.
pub const ZONE: &str = "orders.internal";
/// Instants before this are in touch, and word of holders is fresh.
pub const IN_TOUCH_UNTIL: Mono = Mono(1_000_000_000_000_000_000);

/// Types asked for.
pub mod qtype {
    pub use crate::question::code::*;
    pub const HINFO: u16 = 13;
    pub const HTTPS: u16 = 65;
}

pub fn dns(listen: &[SocketAddr]) -> Dns {
    Dns {
        ttl: Duration::from_secs(2),
        ..Dns::new(listen.to_vec(), ZONE.into())
    }
}

pub fn settings() -> Settings {
    Settings::new(&dns(&[])).unwrap()
}

pub fn role(name: &str) -> RoleName {
    RoleName::new(name).unwrap()
}

pub fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// Nodes a (both families), b (IPv4 twice), c (IPv6), w (name not resolved); roles `main` and `batch`; the view is a's.
pub fn view() -> View {
    View {
        serial: 1,
        at: Mono(1),
        cluster: ClusterName::new("orders").unwrap(),
        cluster_id: ClusterId(1),
        me: node("a"),
        window: Duration::from_secs(1),
        in_touch_until: IN_TOUCH_UNTIL,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 7,
        lacks: Vec::new(),
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(1),
        joint: false,
        voters: vec![node("a"), node("b"), node("c"), node("w")],
        roles: vec![role_view("batch"), role_view("main")],
        nodes: vec![
            node_view("a", &["10.0.0.1", "2001:db8::1"]),
            node_view("b", &["10.0.0.2", "10.0.1.2"]),
            node_view("c", &["2001:db8::3"]),
            node_view("w", &[]),
        ],
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    }
}

fn role_view(name: &str) -> RoleView {
    RoleView {
        role: role(name),
        state: RoleState::Standby,
        reason: String::new(),
        holder: None,
        last: None,
        line: Vec::new(),
        promoted: None,
        lease_until: Mono::ZERO,
    }
}

pub fn node_view(name: &str, serves: &[&str]) -> NodeView {
    NodeView {
        name: node(name),
        kind: Kind::Member,
        id: NodeId(1),
        boot: Boot(1),
        state: PeerState::Up,
        reason: String::new(),
        serves: serves.iter().map(|ip| ip.parse().unwrap()).collect(),
        priority: 0,
        drained: false,
        healthy: BTreeMap::new(),
        links: Vec::new(),
        skew_ms: 0,
        other_config: false,
        hears: Vec::new(),
        cut_off: Vec::new(),
        unread: None,
        applied: None,
    }
}

/// Word of `name`, active for `of` at an epoch of 2026.
pub fn holder(view: &mut View, of: &str, name: &str) {
    let role = view.roles.iter_mut().find(|r| r.role.as_str() == of).unwrap();
    role.holder = Some(HolderView {
        node: node(name),
        id: NodeId(1),
        epoch: Epoch(1_780_000_000_000),
        serving: true,
        fresh_until: IN_TOUCH_UNTIL,
    });
    view.copy.greatest = Epoch(1_780_000_000_000);
}

pub fn published(view: View) -> Arc<Published> {
    let roles: Vec<RoleName> = view.roles.iter().map(|r| r.role.clone()).collect();
    Published::new(view, roles)
}

pub fn zone(published: &Published) -> Zone {
    Zone::new(&settings(), &published.view.load(), published.guards.keys())
}

/// The policy of `[dns]` as it is when nothing is said of it.
pub fn policy() -> Policy {
    policy_of(&dns(&[]))
}

/// Node a's policy.
pub fn policy_of(dns: &Dns) -> Policy {
    Policy::new(dns, &node("a"), &SECRET)
}

/// Makes the cookies of tests.
pub const SECRET: [u8; 16] = *b"a secret of ours";

/// Whoever asks, in 2027.
pub fn client(via: Via) -> Client {
    Client {
        ip: CLIENT.into(),
        via,
        now: 1_800_000_000,
    }
}

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

/// A query with id 0x1234 and RD, as `dig` sends it without EDNS.
pub fn question(name: &str, qtype: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&qtype.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

/// A name as a question has it. It is never freed.
pub fn name(text: &str) -> Name<'static> {
    let query = question(text, qtype::A).leak();
    let header = Header::parse(query).unwrap();
    Question::parse(query, &header).unwrap().unwrap().name
}

/// Adds an OPT record.
pub fn with_edns(mut query: Vec<u8>, size: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    query[11] += 1;
    let [s0, s1] = size.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    query.extend_from_slice(&[0, 0, 41, s0, s1, 0, version, flags, 0, 0, 0]);
    query
}

/// Adds an option to a query whose last record is an OPT.
pub fn with_option(mut query: Vec<u8>, code: u16, data: &[u8]) -> Vec<u8> {
    let opt = options_at(&query);
    query.extend_from_slice(&code.to_be_bytes());
    query.extend_from_slice(&(data.len() as u16).to_be_bytes());
    query.extend_from_slice(data);
    let len = (query.len() - opt) as u16;
    query[opt - 2..opt].copy_from_slice(&len.to_be_bytes());
    query
}

/// Where the options of a query by [`question`] and [`with_edns`] begin.
fn options_at(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += 1 + usize::from(query[at]);
    }
    at + 1 + 4 + 11
}

/// Reads a response, to its last byte.
pub fn read(response: &[u8]) -> Message {
    Message::from_vec(response).unwrap_or_else(|error| panic!("{error}: {response:02x?}"))
}

/// Addresses among `records`, as text.
pub fn addresses(records: &[Record]) -> Vec<String> {
    records
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .map(|ip| ip.to_string())
        .collect()
}
