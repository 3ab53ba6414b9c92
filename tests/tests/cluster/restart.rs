//! Nodes come back: with their state, without it, all together, in every order.

use crate::{NAMES, three};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::matrix::{each, some};
use baton_tests::watch::Viewpoint;

/// A node's consensus id, as its own status has it.
pub fn identity(cluster: &Cluster, node: &str) -> String {
    let status = cluster.status(node).expect("the node answers");
    let entry = status.nodes.into_iter().find(|n| n.name.as_str() == node);
    entry.expect("a node knows itself").id
}

/// How often the history says that a node was gone: others saw it, or it says so itself.
fn told_gone(cluster: &Cluster, at: &str, name: &str) -> usize {
    let history = cluster.operate(at, &["events", "--last", "1000"]);
    let said = ["was stopped", "died", "fell silent", "was started anew"];
    let said = said.map(|how| format!("Z  {name} {how}"));
    let lines = history.lines();
    lines
        .filter(|line| said.iter().any(|said| line.contains(said)))
        .count()
}

/// Starts a node with empty storage and waits until the cluster has replaced its vote: its old identity was a voter, and
/// the electorate has to change for the new one to be. Returns the holder.
#[track_caller]
fn replace(cluster: &mut Cluster, victim: &str, holder: &str) -> String {
    let before = cluster.status(holder).expect("the holder answers").electorate;
    cluster.wipe(victim);
    cluster.start(victim);
    until(GENEROUS, "the electorate has changed", || {
        for name in NAMES {
            let status = cluster.status(name)?;
            if status.electorate <= before || status.electorate_joint {
                return Err(format!("{name} is at electorate {}", status.electorate));
            }
        }
        Ok(())
    });
    cluster.settled()
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn node_with_wiped_storage_is_replaced_and_votes_again() {
    let mut cluster = three();
    for victim in some(&NAMES, 1) {
        // As the holder.
        cluster.place(victim);
        let before = identity(&cluster, victim);
        let since = now();
        cluster.kill(victim);
        let (holder, _) = cluster.assert_takeover(since, victim, Apart::NOBODY, cluster.silent_bound());
        assert_eq!(replace(&mut cluster, victim, &holder), holder);
        assert_ne!(
            identity(&cluster, victim),
            before,
            "lost storage is another identity (V7)"
        );
        // Its vote counts: with it alone, the next holder gets a majority.
        let other = cluster.others(&[victim, &holder]).remove(0);
        let since = now();
        cluster.kill(&other);
        hold(cluster.window() * 5 / 2);
        assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
        cluster.assert_steady(since, &holder);
        cluster.start(&other);
        cluster.settled();
    }
    // As a standby.
    let holder = cluster.settled();
    let victim = cluster.others(&[&holder]).remove(0);
    let since = now();
    cluster.kill(&victim);
    assert_eq!(replace(&mut cluster, &victim, &holder), holder);
    cluster.assert_steady(since, &holder);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn all_stopped_and_started_in_every_order_nothing_is_lost() {
    let mut cluster = three();
    let orders = [
        ["a", "b", "c"],
        ["a", "c", "b"],
        ["b", "a", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["c", "b", "a"],
    ];
    for (killed, order) in each(&[false, true], &orders) {
        let holder = cluster.settled();
        let before = cluster.status(&holder).expect("the holder answers");
        let told = order.map(|name| told_gone(&cluster, &holder, name));
        for name in order {
            match killed {
                false => cluster.stop(name),
                true => cluster.kill(name),
            }
        }
        let since = now();
        cluster.start(order[0]);
        // One of three is no majority.
        until(GENEROUS, "the first node answers", || cluster.status(order[0]));
        cluster.start(order[1]);
        cluster.settled_without(Apart::NOBODY);
        cluster.start(order[2]);
        let holder = cluster.settled();
        let after = cluster.status(&holder).expect("the holder answers");
        assert!(after.applied >= before.applied, "the log went back: {order:?}");
        assert_eq!(after.cluster_id, before.cluster_id, "{order:?}");
        let number = |event: Option<baton_shared::view::Event>| event.map_or(0, |event| event.number);
        assert!(number(after.last_event) >= number(before.last_event), "{order:?}");
        until(GENEROUS, "a client has seen it active", || {
            let seen = cluster.watch.was_active_since(&holder, since);
            seen.then_some(()).ok_or_else(|| format!("{holder} was not"))
        });
        until(GENEROUS, "the history says of each that it was gone", || {
            let untold = order.iter().zip(told);
            let mut untold = untold.filter(|(name, before)| told_gone(&cluster, &holder, name) <= *before);
            untold.next().map_or(Ok(()), |(name, _)| {
                Err(format!(
                    "not of {name}: {}",
                    cluster.operate(&holder, &["events", "--last", "20"])
                ))
            })
        });
        cluster.verify();
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn one_after_the_other_restarted_as_ready_says_costs_one_switchover_for_each_that_held_the_role() {
    let mut cluster = three();
    for first in some(&NAMES, 2) {
        cluster.place(first);
        let since = now();
        let mut held = 0;
        for name in NAMES {
            held += usize::from(cluster.status(name).is_ok_and(|status| {
                let role = status.roles.first();
                role.is_some_and(|role| role.active.as_ref() == Some(&status.node))
            }));
            cluster.stop(name);
            cluster.start(name);
            cluster.await_ready(name, GENEROUS);
        }
        cluster.settled();
        // Who answered 200, one after the other: a holder that only moved up to a greater epoch is the same one.
        let mut actives: Vec<String> = Vec::new();
        for span in cluster
            .watch
            .spans()
            .into_iter()
            .filter(|span| span.last_received >= since)
        {
            if actives.last() != Some(&span.node) {
                actives.push(span.node);
            }
        }
        let moves = actives.len() - 1;
        let gap = cluster.watch.outage(Viewpoint::Client, since);
        let gap = gap.expect("somebody was active before");
        eprintln!("{actives:?}: {held} held the role, and the longest gap was {gap:?}");
        assert!(
            moves <= held,
            "{moves} moves, for {held} that held the role: {}",
            cluster.watch.timeline()
        );
        assert!(gap <= cluster.orderly_bound(), "a gap of {gap:?}");
        cluster.verify();
    }
}
