//! What stands beside the application, without root: an agent that is killed, and notices of deaths that did not happen. The many other
//! ways are in `cluster/beside`.

use crate::replay::{DROPPED, Heard, assert_unmoved, overhear, send, wait_counted};
use crate::strangers::counter;
use crate::{NAMES, WINDOW};
use baton_shared::death::DeathNotice;
use baton_shared::id::{ClusterId, NodeName};
use baton_shared::key::ClusterKey;
use baton_shared::seal::{Header, Seal, notice_key};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn agent_killed_application_is_dead_and_standby_takes_over_before_the_window_ends() {
    let more = "\n[process]\ncommand = [{application}, \"--ignore-term\", \"--fork\"]\n";
    let plan = Plan::members(&NAMES).window(Duration::from_secs(3)).more(more);
    let mut cluster = Cluster::on_loopback(plan);
    cluster.place("a");
    cluster.applications().acting("a", now());
    let since = now();
    cluster.process("a").signal_agent(Signal::KILL);
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.window() / 2);
    cluster.applications().acting(&to, since);
    assert_eq!(cluster.settled(), to);
    cluster.verify();
    for name in NAMES {
        cluster.stop(name);
    }
    cluster.applications().assert_apart();
    cluster.applications().assert_no_orphans(&[]);
}

/// A notice of the death of the boot in this header, sealed for a node, which is named behind its cluster.
fn notice(key: &ClusterKey, header: Header, cluster: ClusterId, to: &str, sealed_for: &str) -> Vec<u8> {
    let text = DeathNotice {
        cluster,
        to: NodeName::new(to).expect("it is a label"),
        why: "forged".into(),
    };
    Seal::of_notices(&notice_key(key, sealed_for)).seal(header, &text.encode())
}

#[test]
fn notices_of_a_death_that_did_not_happen_change_nothing() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    cluster.stop("c");
    let heard = overhear(&cluster, "c");
    let of = |name: &str| {
        let mut all = heard.iter();
        all.find(|one| one.text.from.as_str() == name).expect("both call")
    };
    let (a, b): (&Heard, &Heard) = (of("a"), of("b"));
    let id = a.text.cluster;
    cluster.start("c");
    assert_eq!(cluster.settled(), "a");
    let key = std::fs::read_to_string(cluster.dir().join("cluster.key")).expect("the key can be read");
    let key = ClusterKey::parse(&key).expect("it is a key");

    let since = now();
    let sealed_for = |name: &str| format!("{}/{name}", cluster.plan().cluster);
    let (to_b, to_c) = (sealed_for("b"), sealed_for("c"));
    let last_words = ["a", "c"].map(|to| (to, notice(&key, b.header, id, to, &sealed_for(to))));
    let forged = [
        notice(&ClusterKey::from_bytes([9; 32]), a.header, id, "b", &to_b), // by a stranger
        notice(&key, a.header, ClusterId(id.0 ^ 1), "b", &to_b),            // of another cluster
        notice(&key, a.header, id, "c", &to_b),                             // for another node
        notice(&key, a.header, id, "b", &to_c),                             // sealed for another node
    ];
    let before = counter(&cluster, "b", DROPPED).expect("it answers");
    for datagram in &forged {
        for network in [0, 1] {
            send(&cluster, network, "a", "b", datagram);
        }
    }
    wait_counted(&cluster, "b", DROPPED, before, 2 * forged.len());
    assert_unmoved(&cluster, since, "a");
    assert_eq!(cluster.logged("b", "died"), 0);

    // One that is right in all of that is believed, of this boot of b and of no other: it says nothing of the one that comes back.
    send(&cluster, 0, "b", "a", &last_words[0].1);
    cluster.await_logged("a", "forged");
    cluster.process("b").signal_agent(Signal::KILL);
    assert_eq!(cluster.settled(), "a");
    let since = now();
    let (died, down) = (cluster.logged("a", "died"), cluster.logged("a", "node b is down"));
    for (to, datagram) in &last_words {
        for network in [0, 1] {
            send(&cluster, network, "b", to, datagram);
        }
    }
    assert_unmoved(&cluster, since, "a");
    assert_eq!(cluster.logged("a", "died"), died);
    assert_eq!(cluster.logged("a", "node b is down"), down);
}
