//! Heartbeats (UDP) pass and consensus streams (TCP) do not, or only small messages: status, metrics, doctor and log name it, and
//! no longer once it is mended.

use crate::three;
use baton_shared::view::{LinkState, StreamState};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::fault::Loss;
use baton_tests::matrix::some;
use baton_tests::plan::{NETWORKS, PORT};
use std::time::Duration;

/// From a fault to the log's word of it: until the next try, and while it may be over soon.
const NOTICED: Duration = Duration::from_secs(60);

/// The pair between which TCP is at fault; the third has no part in it.
const PAIR: [(&str, &str); 2] = [("a", "b"), ("b", "a")];

/// What `at` found of its streams to `to` on a network where heartbeats pass, as a scraper reads it too.
fn found(cluster: &Cluster, at: &str, to: &str, network: &str) -> Result<StreamState, String> {
    let status = cluster.status(at)?;
    let node = status.nodes.iter().find(|node| node.name.as_str() == to);
    let link = node.and_then(|node| node.links.iter().find(|link| link.network == network));
    let link = link.ok_or("a status without links")?;
    if link.state != LinkState::Up || link.stream.state == StreamState::Untried {
        return Err(format!("{at} has {link:?} to {to}"));
    }
    let metric = format!("baton_stream_up{{node=\"{to}\",network=\"{network}\"}}");
    match (cluster.metric(at, &metric) == 1.0) == (link.stream.state == StreamState::Up) {
        true => Ok(link.stream.state),
        false => Err(format!("{at} counts another state than {link:?}")),
    }
}

/// Waits until every node finds that its streams pass, and the doctor has nothing to say of it.
#[track_caller]
fn all_pass(cluster: &Cluster) {
    until(NOTICED, "all streams pass", || {
        for at in cluster.running() {
            for to in cluster.others(&[&at]) {
                for network in NETWORKS {
                    let state = found(cluster, &at, &to, network)?;
                    if state != StreamState::Up {
                        return Err(format!("{at} to {to} on {network}: {state:?}"));
                    }
                }
            }
            let alarms = cluster.status(&at)?.alarms;
            if !alarms.is_empty() {
                return Err(format!("{at}: {alarms:?}"));
            }
        }
        let diagnosis = cluster.diagnose("a", &[]);
        let about_streams = |about: &str| matches!(about, "firewall" | "mtu" | "streams");
        match diagnosis.found.iter().all(|found| !about_streams(&found.about)) {
            true => Ok(()),
            false => Err(format!("{diagnosis:#?}")),
        }
    });
}

/// Waits until `at` finds that its streams to `to` pass on a network where they are not at fault.
#[track_caller]
fn passes(cluster: &Cluster, at: &str, to: &str, network: &str) {
    until(
        NOTICED,
        "the streams pass that nothing was done to",
        || match found(cluster, at, to, network)? {
            StreamState::Up => Ok(()),
            other => Err(format!("{at} to {to} on {network}: {other:?}")),
        },
    );
}

/// Waits until both of the pair say in status, table, doctor and log that streams between them fail on a network.
#[track_caller]
fn both_say(cluster: &Cluster, network: &str, state: StreamState, about: &str, logged: &str) {
    for (at, to) in PAIR {
        until(NOTICED, "it is found, and named", || {
            let seen = found(cluster, at, to, network)?;
            if seen != state {
                return Err(format!("{at} to {to}: {seen:?}"));
            }
            let table = cluster.operate(at, &["status"]);
            if !table.contains(state.word()) {
                return Err(table);
            }
            if cluster.logged(at, logged) == 0 {
                return Err(format!("{at} does not log \"{logged}\""));
            }
            cluster
                .diagnose(at, &[])
                .tells(about, &[network, to, "UDP", "TCP"])
        });
    }
    passes(cluster, "c", "a", network);
    assert_eq!(cluster.logged("c", "(TCP) do not"), 0);
}

/// TCP between the pair on these networks, lost at b.
fn loss(cluster: &mut Cluster, networks: &[&str]) -> Loss {
    let a = cluster.lab().addresses(&["a"]);
    Loss::all().on(networks).with(a).tcp(PORT)
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn streams_blocked_on_one_network_are_named_and_the_other_serves() {
    let mut cluster = three();
    let holder = cluster.settled();
    all_pass(&cluster);
    let since = now();
    for (network, other) in some(&[("front", "back"), ("back", "front")], 1) {
        let blocked = loss(&mut cluster, &[network]);
        cluster.lab().lose("b", blocked);
        let words = format!("on {network} pass, and consensus streams (TCP) do not");
        both_say(&cluster, network, StreamState::Silent, "firewall", &words);
        cluster.await_logged("a", "let TCP port 7400 through");
        for (at, to) in PAIR {
            passes(&cluster, at, to, other);
            assert_eq!(cluster.logged(at, &words), 1, "{at} says it once");
        }
        for at in ["a", "b", "c"] {
            cluster.operate(at, &["resume"]);
        }
        cluster.heal("b");
        all_pass(&cluster);
        cluster.await_logged(
            "a",
            &format!("consensus streams (TCP) to b on {network} pass again"),
        );
    }
    cluster.assert_steady(since, &holder);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn node_that_no_stream_reaches_says_so_to_whoever_orders_something_there() {
    let mut cluster = three();
    let holder = cluster.settled();
    all_pass(&cluster);
    let since = now();
    let others = cluster.lab().addresses(&["a", "c"]);
    cluster.lab().lose("b", Loss::all().with(others).tcp(PORT));
    until(NOTICED, "an order at b fails with its reason", || {
        let output = cluster.cli("b", &["resume"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let named = [
            "consensus streams (TCP) do not pass to a (",
            "c (",
            "does not answer",
        ];
        match !output.status.success() && named.iter().all(|part| said.contains(part)) {
            true => Ok(()),
            false => Err(said),
        }
    });
    until(NOTICED, "the alarm is on", || {
        let alarms = cluster.status("b")?.alarms;
        let named = |peer: &str| {
            let words = format!("{peer} is heard, and consensus streams (TCP) to it pass on no network");
            alarms.iter().any(|alarm| alarm.contains(&words))
        };
        if named("a") && named("c") {
            Ok(())
        } else {
            Err(format!("{alarms:?}"))
        }
    });
    // Leases are heartbeats' business.
    cluster.assert_steady(since, &holder);
    cluster.heal("b");
    all_pass(&cluster);
    until(GENEROUS, "orders are carried out again", || {
        let output = cluster.cli("b", &["resume"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(said)
        }
    });
    cluster.settled_without(Apart::NOBODY);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn large_messages_that_get_lost_are_named_and_small_ones_go_on() {
    let mut cluster = three();
    let holder = cluster.settled();
    all_pass(&cluster);
    let since = now();
    let lost = loss(&mut cluster, &NETWORKS).longer_than(1000);
    cluster.lab().lose("b", lost);
    for network in NETWORKS {
        let words = format!("on {network} pass, and consensus streams (TCP) do not: messages of 20000 bytes");
        both_say(&cluster, network, StreamState::LargeLost, "mtu", &words);
    }
    for at in ["a", "b", "c"] {
        cluster.operate(at, &["resume"]);
    }
    cluster.heal("b");
    all_pass(&cluster);
    cluster.assert_steady(since, &holder);
}
