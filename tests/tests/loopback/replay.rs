//! Datagrams that were sealed with the key, and come again, late, or to the wrong one: nothing happens (S5, V7).

use crate::strangers::counter;
use crate::{NAMES, WINDOW};
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeId};
use baton_shared::key::ClusterKey;
use baton_shared::seal::{Header, MAX_DATAGRAM, Seal};
use baton_shared::wire::Heartbeat;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use std::net::{Ipv4Addr, UdpSocket};

const PORT: u16 = 7400;
/// Datagrams kept of each network.
const KEPT: usize = 40;
/// Greater than any real one.
const FORGED: Epoch = Epoch(u64::MAX >> 1);
pub const DROPPED: &str = "baton_datagrams_dropped_total";

/// What was heard in a stopped node's place, and opened.
pub struct Heard {
    pub network: usize,
    pub bytes: Vec<u8>,
    pub header: Header,
    pub text: Heartbeat,
}

/// The seal on datagrams to a node: everybody's who has the key, and another one for each recipient.
fn seal_to(cluster: &Cluster, name: &str) -> Seal {
    let key = std::fs::read_to_string(cluster.dir().join("cluster.key")).expect("the key can be read");
    let key = ClusterKey::parse(&key).expect("it is a key");
    Seal::new(&key, &format!("{}/{name}", cluster.plan().cluster))
}

fn addresses(cluster: &Cluster, name: &str) -> [Ipv4Addr; 2] {
    let seat = &cluster.node(name).seat;
    [seat.front, seat.back]
}

/// Listens in the place of `name`, which does not run.
pub fn overhear(cluster: &Cluster, name: &str) -> Vec<Heard> {
    let seal = seal_to(cluster, name);
    let mut heard = Vec::new();
    for (network, address) in addresses(cluster, name).into_iter().enumerate() {
        let socket = UdpSocket::bind((address, PORT)).expect("its node does not run");
        socket
            .set_read_timeout(Some(GENEROUS))
            .expect("a limit can be set");
        for _ in 0..KEPT {
            let mut buffer = [0; MAX_DATAGRAM];
            let length = socket.recv(&mut buffer).expect("the others call for it");
            let bytes = buffer[..length].to_vec();
            let (header, text) = seal.open(&bytes).expect("they have the key");
            let text = Heartbeat::decode(&text).expect("a heartbeat of this version");
            heard.push(Heard {
                network,
                bytes,
                header,
                text,
            });
        }
    }
    heard
}

/// Sends a datagram to a node, from the address of another as far as the recipient can tell.
pub fn send(cluster: &Cluster, network: usize, from: &str, to: &str, bytes: &[u8]) {
    let socket = UdpSocket::bind((addresses(cluster, from)[network], 0)).expect("loopback has ports");
    let to = addresses(cluster, to)[network];
    socket.send_to(bytes, (to, PORT)).expect("loopback takes it");
}

/// Waits until a node has counted that many more, `before` being what it had counted.
#[track_caller]
pub fn wait_counted(cluster: &Cluster, node: &str, what: &str, before: f64, more: usize) {
    until(GENEROUS, "they are counted", || {
        let now = counter(cluster, node, what)?;
        if now >= before + more as f64 {
            Ok(())
        } else {
            Err(format!("{what} of {node}: {now}"))
        }
    });
}

#[track_caller]
pub fn assert_unmoved(cluster: &Cluster, since: Mono, holder: &str) {
    hold(cluster.window() * 2);
    assert_eq!(cluster.settled(), holder);
    for name in NAMES {
        let status = cluster.status(name).expect("it answers");
        assert!(status.alarms.is_empty(), "{name}: {:?}", status.alarms);
    }
    cluster.assert_steady(since, holder);
}

#[test]
fn replayed_datagrams_change_nothing_for_their_recipient_their_sender_and_others() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    cluster.stop("c");
    let heard = overhear(&cluster, "c");
    cluster.start("c");
    assert_eq!(cluster.settled(), "a");

    let since = now();
    let before = counter(&cluster, "c", DROPPED).expect("it answers");
    for round in 1..=5 {
        for one in &heard {
            for to in NAMES {
                send(&cluster, one.network, one.text.from.as_str(), to, &one.bytes);
            }
        }
        // One round at a time: all of them would not find room in the socket of an agent that waits for a core.
        // The first copy may be new to "c", and says nothing that it believes; the others cannot even open them.
        wait_counted(&cluster, "c", DROPPED, before, (round - 1) * heard.len());
        wait_counted(&cluster, "a", DROPPED, 0.0, round * heard.len());
        wait_counted(&cluster, "b", DROPPED, 0.0, round * heard.len());
    }
    assert_unmoved(&cluster, since, "a");
}

#[test]
fn datagram_to_another_run_of_the_recipient_changes_nothing() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    cluster.stop("c");
    let heard = overhear(&cluster, "c");
    cluster.start("c");
    assert_eq!(cluster.settled(), "a");

    // As if "c" had been replaced and these were late: well sealed, to its name and to an id that is not its own. Were
    // one taken in, its sequence would make the recipient deaf to its peer, and what it says of the role would be told.
    let since = now();
    let seal = seal_to(&cluster, "c");
    let before = counter(&cluster, "c", DROPPED).expect("it answers");
    for (number, one) in heard.iter().enumerate() {
        let mut text = one.text.clone();
        text.to_id = NodeId(text.to_id.0 ^ 1);
        text.roles.iter_mut().for_each(|role| {
            role.holding = Some(FORGED);
            role.serving = Some(FORGED);
        });
        let header = Header {
            seq: one.header.seq + 1_000_000 + number as u64,
            ..one.header
        };
        let from = text.from.to_string();
        send(
            &cluster,
            one.network,
            &from,
            "c",
            &seal.seal(header, &text.encode()),
        );
    }
    wait_counted(&cluster, "c", DROPPED, before, heard.len());
    assert_unmoved(&cluster, since, "a");
    let status = cluster.status("c").expect("it answers");
    assert!(status.roles[0].epoch.is_some_and(|epoch| epoch < FORGED));
}
