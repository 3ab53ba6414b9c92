//! What operators order: takeovers stop and go on again, and a node leaves the line.

use crate::{NAMES, WINDOW};
use baton_agent::demo::connection::get;
use baton_shared::view::Event;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::watch::Viewpoint;

/// The newest takeover in a node's history, once it has one by `node`.
#[track_caller]
fn takeover_by(cluster: &Cluster, at: &str, node: &str) -> Event {
    until(GENEROUS, "the takeover is in the history", || {
        let history = cluster.operate(at, &["events", "--json"]);
        let mut events = history
            .lines()
            .filter_map(|line| serde_json::from_str::<Event>(line).ok());
        let last = events.rfind(|event| event.what == "takeover");
        last.filter(|event| event.node.as_ref().is_some_and(|n| n.as_str() == node))
            .ok_or_else(|| history.clone())
    })
}

#[test]
fn paused_nobody_takes_over_from_a_killed_holder_until_resumed() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    cluster.operate("b", &["pause"]);
    until(GENEROUS, "all nodes know of the pause", || {
        for name in NAMES {
            if cluster.status(name)?.paused != Some(true) {
                return Err(format!("{name} does not"));
            }
        }
        Ok(())
    });
    // A pause is no outage: the holder goes on.
    let since = now();
    hold(cluster.window() * 2);
    cluster.assert_steady(since, "a");

    let killed = now();
    cluster.kill("a");
    hold(cluster.window() * 4);
    for name in ["b", "c"] {
        let answer = get(cluster.node(name).http, "/health", ASK_LIMIT).expect("it answers");
        assert_eq!(answer.status, 503, "{name}: {}", answer.text());
        assert!(!cluster.watch.was_active_since(name, killed), "{name} was active");
        let status = cluster.status(name).expect("it answers");
        assert_eq!(status.roles[0].known, "nobody", "{name}");
    }

    let resumed = now();
    cluster.operate("c", &["resume"]);
    let (to, _) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", resumed);
        successor.ok_or_else(|| "nobody was active so far".into())
    });
    assert_eq!(cluster.settled_without(Apart::NOBODY), to);
    cluster.start("a");
    assert_eq!(cluster.settled(), to);
    cluster.verify();
}

#[test]
fn drained_holder_hands_over_and_the_history_says_by_whose_order() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let since = now();
    cluster.operate("c", &["drain", "a"]);
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    for name in NAMES {
        let takeover = takeover_by(&cluster, name, &to);
        assert_eq!(takeover.from.map(|node| node.to_string()), Some("a".into()));
        assert!(
            takeover.cause.contains("operator drained"),
            "{name} says: {}",
            takeover.cause
        );
    }
    let printed = cluster.operate("a", &["events"]);
    let said = format!("{to} took over from a");
    assert!(
        printed
            .lines()
            .any(|line| line.contains(&said) && line.contains("operator drained")),
        "{printed}"
    );
    // Back in line, it is not made active again by that alone.
    cluster.operate("b", &["undrain", "a"]);
    assert_eq!(cluster.settled(), to);
    cluster.verify();
}
