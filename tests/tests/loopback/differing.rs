//! A node that was given another window: named with both values, out of line, and quiet.

use crate::{NAMES, WINDOW};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;

#[test]
fn node_with_another_window_is_named_with_both_values_and_out_of_line() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let since = now();
    cluster.stop("c");
    let claims = cluster.logged("c", "claim");
    cluster.start_with("c", &["--set", "cluster.window=7s"]);
    let own = format!("\"{}\"", baton_shared::config::show_duration(WINDOW));
    let others = [("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")];
    for (name, other) in others {
        until(GENEROUS, "the alarm names the key and both values", || {
            let alarms = cluster.status(name)?.alarms.join("\n");
            let about = format!("node \"{other}\" has another window: [cluster] window is");
            match [&about, "\"7s\"", &own].iter().all(|part| alarms.contains(*part)) {
                true => Ok(()),
                false => Err(format!("{name}: {alarms}")),
            }
        });
    }
    until(GENEROUS, "it is out of line and says why", || {
        let (a, c) = (cluster.status("a")?, cluster.status("c")?);
        let in_line = a.roles[0].line.iter().any(|place| place.node.as_str() == "c");
        match !in_line
            && c.roles[0]
                .reason
                .contains("[cluster] window is \"7s\", and \"500ms\" at other")
        {
            true => Ok(()),
            false => Err(format!("{:?}; {}", a.roles[0].line, c.roles[0].reason)),
        }
    });
    until(GENEROUS, "the doctor says so", || {
        let says = ["node \"c\" has another window", "restart the agents"];
        cluster.diagnose("b", &[]).tells("alarm", &says)
    });
    hold(WINDOW * 4);
    for (name, other) in others {
        let words = format!("node \"{other}\" has another window");
        assert!(cluster.logged(name, &words) <= 2, "{name} goes on about it");
    }
    assert_eq!(cluster.logged("c", "claim"), claims, "it claims nothing");
    let apart = Apart {
        unasked: &["c"],
        ..Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), "a");
    cluster.assert_steady(since, "a");

    cluster.stop("c");
    cluster.start("c");
    cluster.settled();
    until(GENEROUS, "it is over", || {
        match cluster.status("a")?.alarms.as_slice() {
            [] => Ok(()),
            alarms => Err(format!("{alarms:?}")),
        }
    });
    cluster.place("c");
    cluster.verify();
}
