//! `baton reload` of a file that cannot be taken over: it is refused as a whole, with what to do about it.

use crate::{NAMES, WINDOW};
use baton_shared::id::Kind;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;

fn members(names: &[&str]) -> Vec<(String, Kind)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), Kind::Member))
        .collect()
}

/// Reloads at `node`, which must refuse it.
#[track_caller]
fn assert_refused(cluster: &Cluster, node: &str, says: &[&str]) {
    let output = cluster.cli(node, &["reload"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line is enough: {said}");
    for word in says.iter().chain(&["nothing was changed"]) {
        assert!(said.contains(word), "\"{word}\" is not in: {said}");
    }
}

#[test]
fn file_with_an_error_changes_nothing_and_is_named_with_its_line() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("b");
    let since = now();
    let good = std::fs::read_to_string(cluster.config()).expect("the configuration can be read");
    // What comes before the error is no less valid than what comes after it, and none of it is taken over.
    let bad = good.replace("kind = \"member\"", "kind = \"member\"\npriority = 7")
        + "\n[check]\nintervall = \"1s\"\n";
    let line = bad.lines().count();
    std::fs::write(cluster.config(), &bad).expect("the configuration can be written");
    for node in ["a", "b"] {
        let place = format!("cluster.toml:{line}");
        assert_refused(&cluster, node, &[&place, "intervall", "\"interval\""]);
    }
    std::fs::write(cluster.config(), &good).expect("the configuration can be written");
    assert!(
        cluster
            .operate("a", &["reload"])
            .contains("a: nothing has changed")
    );
    assert_eq!(cluster.settled(), "b");
    for name in NAMES {
        let status = until(GENEROUS, "it answers, and has no alarm", || {
            let status = cluster.status(name)?;
            match status.alarms.as_slice() {
                [] => Ok(status),
                alarms if alarms.concat().contains("configuration") => panic!("{name}: {alarms:?}"),
                alarms => Err(format!("{name}: {alarms:?}")), // of this machine
            }
        });
        assert!(status.nodes.iter().all(|node| node.priority == 0), "{name}");
    }
    cluster.assert_steady(since, "b");
}

#[test]
fn removal_of_a_majority_or_of_the_holder_is_refused() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("b");
    let since = now();
    for (staying, at, says) in [
        (vec!["b"], "b", ["only 1 of the 3", "remove fewer nodes"]),
        (vec!["a", "c"], "a", ["b holds role main", "switchover"]),
    ] {
        cluster.replan(&members(&staying));
        assert_refused(&cluster, at, &says);
    }
    cluster.replan(&members(&NAMES));
    assert_eq!(cluster.settled(), "b");
    cluster.assert_steady(since, "b");

    // As the message says: once another node holds the role, the former holder may go.
    cluster.place("a");
    cluster.replan(&members(&["a", "c"]));
    cluster.operate("a", &["reload"]);
    let apart = baton_tests::agreement::Apart {
        unasked: &["b"],
        ..baton_tests::agreement::Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), "a");
    cluster.stop("b");
    assert_eq!(cluster.settled(), "a");
    cluster.verify();
}
