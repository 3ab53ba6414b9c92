//! The holder is lost, in one way after another.

use crate::{NAMES, three};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::matrix::{each, some};
use baton_tests::plan::{NETWORKS, Plan};

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_silent_on_all_networks_standby_takes_over() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES));
    for holder in some(&NAMES, 2) {
        cluster.place(holder);
        let since = now();
        cluster.silence(holder);
        cluster.assert_takeover(since, holder, Apart::cut_off(&[holder]), cluster.silent_bound());
        cluster.heal(holder);
    }
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_killed_standby_takes_over() {
    let mut cluster = three();
    for holder in some(&NAMES, 2) {
        cluster.place(holder);
        let since = now();
        cluster.kill(holder);
        cluster.assert_takeover(since, holder, Apart::NOBODY, cluster.silent_bound());
        cluster.start(holder);
    }
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_frozen_standby_takes_over_and_the_thawed_one_says_503_at_once() {
    let mut cluster = three();
    for holder in some(&NAMES, 2) {
        cluster.place(holder);
        let since = now();
        cluster.freeze(holder);
        let apart = Apart {
            unasked: &[holder],
            ..Apart::NOBODY
        };
        cluster.assert_takeover(since, holder, apart, cluster.silent_bound());
        cluster.thaw_and_ask(holder);
    }
    cluster.settled();
    cluster.verify();
    assert_eq!(cluster.running(), NAMES, "none of them ended");
    cluster.stop("a");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_links_down_on_all_networks_standby_takes_over() {
    let mut cluster = three();
    for (unplugged, holder) in each(&[false, true], &NAMES) {
        cluster.place(holder);
        let since = now();
        for network in NETWORKS {
            match unplugged {
                false => cluster.lab().link_down(holder, network),
                true => cluster.lab().unplug(holder, network),
            }
        }
        cluster.assert_takeover(since, holder, Apart::cut_off(&[holder]), cluster.silent_bound());
        cluster.heal(holder);
    }
    cluster.settled();
    cluster.verify();
}
