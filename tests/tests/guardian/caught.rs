//! The judge itself: an application that is left alive on purpose is found, with its process, its node and for how long.

use crate::WINDOW;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use baton_tests::real::judge::judge;
use baton_tests::real::kin;
use std::time::Duration;

/// Beside the node, not below it: no guardian knows of it.
const LEFT: Duration = Duration::from_millis(300);

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn application_left_alive_on_purpose_is_found_by_the_judge() {
    let plan = Plan::members(&["a", "b"]).witness("w").window(WINDOW);
    let mut cluster = Cluster::in_lab(plan.more("\n[process]\ncommand = [{application}]\n"));
    let _broom = kin::Broom(cluster.names().iter().map(|name| cluster.home(name)).collect());
    cluster.place("a");
    cluster.applications().acting("a", now());
    // What says that it is of node a, and is started by nobody of Baton's.
    let mut left = cluster
        .node("a")
        .namespace
        .command(baton_tests::binary::application());
    left.arg(cluster.dir().join("acts"))
        .args(["--node", "a", "--scatter"]);
    left.env("BATON_ROLE", "main")
        .env(baton_tests::cluster::HOME, cluster.home("a"));
    let mut left = left.spawn().expect("the application can be run");
    let before = judge(&cluster.applications().acts(), &cluster.watch.spans());
    cluster.place("b");
    cluster.applications().acting("b", now());
    // The one that was started, and its four descendants: each beside the active node, and beside its application as well. On a busy
    // machine it may take a while until each has acted there, and for that long.
    let own = format!("process {} of a", left.id());
    until(GENEROUS, "all are found", || {
        let found = judge(&cluster.applications().acts(), &cluster.watch.spans());
        let beside = |words: &str| {
            found
                .iter()
                .filter(|finding| finding.text.contains(words))
                .count()
        };
        let all = beside("/health of b had said 200") == 5 && beside(&own) >= 2;
        match all && found[0].by >= LEFT {
            true => Ok(()),
            false => Err(format!("{found:#?}")),
        }
    });
    assert!(
        before.iter().all(|finding| !finding.text.contains("of b")),
        "{before:#?}"
    );
    assert_eq!(kin::left(&cluster.home("a")).len(), 5);
    left.kill().expect("it is this process's child");
    left.wait().expect("it is this process's child");
    kin::kill_left(&cluster.home("a"));
    for name in cluster.running() {
        cluster.stop(&name);
    }
}
