//! A network is not there when a node starts, and comes later.

use crate::{NAMES, WINDOW};
use baton_shared::view::LinkState;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::fault::Loss;
use baton_tests::plan::Plan;

/// Waits until the two nodes hear each other on a network.
#[track_caller]
fn linked(cluster: &Cluster, [one, other]: [&str; 2], network: &str) {
    until(GENEROUS, "they hear each other there", || {
        for (at, to) in [(one, other), (other, one)] {
            let status = cluster.status(at)?;
            let node = status.nodes.iter().find(|node| node.name.as_str() == to);
            let links = node.map(|node| node.links.as_slice()).unwrap_or_default();
            let link = links.iter().find(|link| link.network == network);
            if link.is_none_or(|link| link.state != LinkState::Up) {
                return Err(format!("{at} has {link:?} to {to}"));
            }
        }
        Ok(())
    });
}

/// Everything between `node` and the others goes over `network` for a while, heartbeats and the log: orders are carried out.
#[track_caller]
fn works_over(cluster: &mut Cluster, network: &str, node: &str) {
    let gone = if network == "back" { "front" } else { "back" };
    cluster.settled();
    let since = now();
    cluster.lab().lose(node, Loss::all().on(&[gone]));
    let other = cluster.others(&[node]).remove(0);
    for to in [&other, node, &other] {
        cluster.place_over_what_is_left(to);
    }
    assert!(cluster.watch.was_active_since(node, since));
    cluster.heal(node);
    cluster.settled();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn node_whose_network_is_missing_at_its_start_joins_it_when_it_comes() {
    for missing in ["back", "front"] {
        // Over either alone the role is moved to it in the end, whether clients come by that or not.
        let plan = Plan::members(&NAMES).window(WINDOW).without_clients();
        let mut cluster = Cluster::unstarted_in_lab(plan);
        cluster.lab().take_out("a", missing);
        for name in NAMES {
            cluster.start(name);
        }
        cluster.await_logged("a", &format!("network \"{missing}\": cannot bind UDP"));
        cluster.await_logged("a", &format!("network \"{missing}\": cannot bind TCP"));
        let present = if missing == "back" { "front" } else { "back" };
        linked(&cluster, ["a", "b"], present);
        linked(&cluster, ["a", "c"], present);
        cluster.lab().put_in("a", missing);
        linked(&cluster, ["a", "b"], missing);
        linked(&cluster, ["a", "c"], missing);
        cluster.await_logged("a", "streams are accepted at");
        works_over(&mut cluster, missing, "a");
        assert_eq!(cluster.running(), NAMES, "none of them ended");
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn interface_that_is_replaced_while_the_node_runs_is_followed_by_heartbeats_and_streams() {
    let plan = Plan::members(&NAMES).window(WINDOW).without_clients();
    let mut cluster = Cluster::unstarted_in_lab(plan);
    for name in NAMES {
        // Bound to it, a socket stays with the one that is gone.
        cluster.start_with(name, &["--set", "networks.back.interface=back"]);
    }
    let holder = cluster.settled();
    let since = now();
    let standby = cluster.others(&[&holder]).remove(0);
    cluster.lab().take_out(&standby, "back");
    until(GENEROUS, "the link is lost", || {
        let status = cluster.status(&holder)?;
        let node = status.nodes.iter().find(|node| node.name.as_str() == standby);
        let down = node.is_some_and(|node| {
            node.links
                .iter()
                .any(|link| link.network == "back" && link.state != LinkState::Up)
        });
        if down { Ok(()) } else { Err("it is up".to_owned()) }
    });
    cluster.lab().put_in(&standby, "back");
    linked(&cluster, [&holder, &standby], "back");
    cluster.assert_steady(since, &holder);
    works_over(&mut cluster, "back", &standby);
    cluster.settled_without(Apart::NOBODY);
}
