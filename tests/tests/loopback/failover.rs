//! The baton moves, in order and otherwise.

use crate::{NAMES, WINDOW};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;

#[test]
fn three_nodes_pass_the_baton_in_order_and_without() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");

    let since = cluster.switch_over("c", "b");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    assert_eq!(to, "b");
    cluster.settled();

    let since = now();
    cluster.stop("b");
    let (second, _) = cluster.assert_takeover(since, "b", Apart::NOBODY, cluster.orderly_bound());
    cluster.start("b");
    assert_eq!(cluster.settled(), second);

    let since = now();
    cluster.kill(&second);
    let (third, _) = cluster.assert_takeover(since, &second, Apart::NOBODY, cluster.silent_bound());
    cluster.start(&second);
    assert_eq!(cluster.settled(), third);

    let since = now();
    cluster.freeze(&third);
    let frozen = [third.as_str()];
    let apart = Apart {
        unasked: &frozen,
        ..Apart::NOBODY
    };
    cluster.assert_takeover(since, &third, apart, cluster.silent_bound());
    cluster.thaw_and_ask(&third);
    cluster.settled();
    cluster.verify();
}

#[test]
fn nodes_without_storage_pass_the_baton_and_come_back_as_new() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW).in_memory());
    cluster.place("b");
    let since = now();
    cluster.kill("b");
    let (to, _) = cluster.assert_takeover(since, "b", Apart::NOBODY, cluster.silent_bound());
    cluster.start("b");
    assert_eq!(cluster.settled(), to);
    cluster.verify();
}

#[test]
fn all_nodes_killed_come_back_with_what_they_knew() {
    let mut cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    let holder = cluster.settled();
    let before = cluster.status(&holder).expect("the holder answers");
    for name in NAMES {
        cluster.kill(name);
    }
    for name in NAMES {
        cluster.start(name);
    }
    let holder = cluster.settled();
    let after = cluster.status(&holder).expect("the holder answers");
    assert_eq!(after.cluster_id, before.cluster_id);
    assert!(after.applied >= before.applied);
    cluster.verify();
}
