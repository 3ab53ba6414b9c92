//! The SOA's serial on a real cluster, through takeovers and restarts: it never falls on any node, is another and greater one with each
//! change of what is served, and the same everywhere at rest.

use crate::NAMES;
use crate::wire::{ANSWER_LIMIT, Copied, Question, ask, copy, read};
use baton_agent::demo::poller::Poller;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::{Plan, ZONE};
use hickory_proto::rr::{RData, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WINDOW: Duration = Duration::from_millis(500);
const COPIES: &str = "[dns.transfer]\nallow = [\"127.0.0.0/8\"]\n";

/// What a node says of its zone's serial; `None`: nothing, or that it does not know.
fn serial(address: SocketAddr) -> Option<u32> {
    let reply = ask(address, &Question::new(ZONE, RecordType::SOA).bytes()).ok()?;
    match read(&reply).answers.first().map(|record| record.data.clone()) {
        Some(RData::SOA(soa)) => Some(soa.serial),
        _ => None,
    }
}

/// Whether one serial is greater than another (RFC 1982 §3.2).
fn rises(from: u32, to: u32) -> bool {
    to != from && to.wrapping_sub(from) < 1 << 31
}

/// Pollers of a node, from beside it, through its restarts.
struct Watched {
    serials: Poller<u32>,
    /// Copies of the zone, where they are given.
    copies: Poller<Copied>,
}

impl Watched {
    fn start(cluster: &Cluster, name: &str) -> Watched {
        let node = cluster.node(name);
        let (address, host) = (node.dns, node.namespace.clone());
        let serials = Poller::start(move || host.enter(), move |_| serial(address));
        let (mut connection, host) = (None, node.namespace.clone());
        let copies = Poller::start(
            move || host.enter(),
            move |_| {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => {
                        let open = TcpStream::connect(address).ok()?;
                        open.set_read_timeout(Some(ANSWER_LIMIT)).ok()?;
                        open
                    }
                };
                let copied = copy(&mut open, ZONE).ok()?;
                connection = Some(open);
                copied
            },
        );
        Watched { serials, copies }
    }
}

/// The serial that all nodes say, once they say the same.
#[track_caller]
fn agreed(cluster: &Cluster) -> u32 {
    until(GENEROUS, "all nodes say one serial", || {
        let of = |name: &&str| {
            let node = cluster.node(name);
            node.namespace.inside(|| serial(node.dns))
        };
        let said: Vec<Option<u32>> = NAMES.iter().map(of).collect();
        match said[..] {
            [Some(a), Some(b), Some(c)] if a == b && b == c => Ok(a),
            _ => Err(format!("{said:?}")),
        }
    })
}

/// Takes the cluster through takeovers, in order and otherwise, and restarts. Gives what was seen, and how many takeovers there were.
fn through_takeovers(dns: &str) -> (BTreeMap<&'static str, Watched>, usize) {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).window(WINDOW).name_servers(dns));
    let watched: BTreeMap<&str, Watched> = NAMES.map(|name| (name, Watched::start(&cluster, name))).into();
    cluster.place("a");
    let mut before = agreed(&cluster);
    let mut takeovers = 0;
    let mut risen = |cluster: &Cluster, what: &str| {
        cluster.settled();
        let after = agreed(cluster);
        assert!(rises(before, after), "{what}: {before} and then {after}");
        before = after;
        takeovers += 1;
    };

    cluster.place("b");
    risen(&cluster, "switchover");

    let mut holder = "b".to_owned();
    for _ in 0..2 {
        let since = now();
        cluster.kill(&holder);
        let (next, _) = cluster.assert_takeover(since, &holder, Apart::NOBODY, cluster.silent_bound());
        cluster.start(&holder);
        risen(&cluster, "killed and restarted");
        holder = next;
    }

    let since = now();
    cluster.stop(&holder);
    cluster.assert_takeover(since, &holder, Apart::NOBODY, cluster.orderly_bound());
    cluster.start(&holder);
    risen(&cluster, "stopped in order and restarted");
    let silences: usize = watched
        .iter()
        .map(|(name, watched)| assert_never_falls(name, watched))
        .sum();
    assert!(silences > 0, "nodes were restarted, and nobody noticed");
    cluster.verify();
    (watched, takeovers)
}

/// Gives how often there was no answer, or none with a serial.
#[track_caller]
fn assert_never_falls(name: &str, watched: &Watched) -> usize {
    let serials = watched.serials.records();
    let said: Vec<u32> = serials.iter().filter_map(|record| record.heard).collect();
    let silences = serials.iter().filter(|record| record.heard.is_none()).count();
    let distinct: BTreeSet<&u32> = said.iter().collect();
    eprintln!(
        "{name}: {} answers, {silences} without a serial, {} serials, {distinct:?}",
        said.len(),
        distinct.len()
    );
    for pair in said.windows(2) {
        assert!(
            pair[0] == pair[1] || rises(pair[0], pair[1]),
            "{name} said {} and then {}",
            pair[0],
            pair[1]
        );
    }
    silences
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run names"]
fn serial_rises_with_each_takeover_and_never_falls_on_any_node() {
    through_takeovers("");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run names"]
fn serial_of_a_zone_that_is_copied_stands_for_one_content_on_all_nodes() {
    let (watched, takeovers) = through_takeovers(COPIES);
    let mut contents: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    let mut changes = 0;
    for (name, watched) in &watched {
        let records = watched.copies.records();
        let copies: Vec<&Copied> = records
            .iter()
            .filter_map(|record| record.heard.as_ref())
            .collect();
        assert!(!copies.is_empty(), "{name} gave no copy");
        for (serial, content) in &copies {
            let known = contents.entry(*serial).or_insert_with(|| content.clone());
            assert_eq!(known, content, "{name} serves two zones at serial {serial}");
        }
        for pair in copies.windows(2) {
            let ((before, old), (after, new)) = (pair[0], pair[1]);
            assert!(
                before == after || rises(*before, *after),
                "{name}: {before}, {after}"
            );
            changes += usize::from(old != new);
        }
    }
    eprintln!(
        "{changes} changes of content were seen at {} serials",
        contents.len()
    );
    assert!(changes >= takeovers, "only {changes} changes were seen");
}
