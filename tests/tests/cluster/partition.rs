//! The networks fail in part: one of two, one way, between some.

use crate::{NAMES, WINDOW, three};
use baton_agent::demo::connection::get;
use baton_agent::demo::question::{Asker, SERVFAIL};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{ASK_LIMIT, CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::fault::{Loss, Way};
use baton_tests::matrix::each;
use baton_tests::plan::{DNS_PORT, HTTP_PORT, NETWORKS, PORT, Plan, ZONE};
use baton_tests::watch::Viewpoint;

/// Three members with storage, and no network by which clients come: such a one is not to be lost (`clients.rs`).
#[track_caller]
fn no_clients() -> Cluster {
    Cluster::in_lab(Plan::members(&NAMES).window(WINDOW).without_clients())
}

/// Long enough for every lease that a fault touches to run out twice over.
fn outlast(cluster: &Cluster) {
    hold(cluster.window() * 5 / 2);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn one_network_lost_holder_keeps_the_baton() {
    let mut cluster = no_clients();
    for (network, holder) in each(&NETWORKS, &NAMES) {
        cluster.place(holder);
        let since = now();
        cluster.lab().lose(holder, Loss::all().on(&[network]));
        outlast(&cluster);
        assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
        cluster.assert_steady(since, holder);
        cluster.heal(holder);
    }
    // The whole network fails, for everybody.
    for network in NETWORKS {
        let holder = cluster.settled();
        let since = now();
        for name in NAMES {
            cluster.lab().lose(name, Loss::all().on(&[network]));
        }
        outlast(&cluster);
        assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
        cluster.assert_steady(since, &holder);
        cluster.lab().heal_all();
    }
    cluster.settled();
}

/// A firewall lets streams to the coordinator and no datagrams: by what it hears nobody is fit, and that must not decide.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn no_datagrams_to_the_coordinator_an_order_is_carried_out_and_another_takes_the_office() {
    let mut cluster = no_clients();
    let (holder, deaf) = cluster.arrange(false);
    let third = cluster.others(&[&holder, &deaf]).remove(0);
    cluster.lab().lose(&deaf, Loss::all().way(Way::In).udp(PORT));
    outlast(&cluster);
    let said = cluster.operate(&holder, &["drain", &holder]);
    assert!(
        said.contains(&format!("{third} is active for role main")),
        "{said}"
    );
    until(GENEROUS, "another is the coordinator", || {
        match cluster.status(&third)?.coordinator {
            Some(coordinator) if coordinator.as_str() != deaf => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.heal(&deaf);
    cluster.operate(&third, &["undrain", &holder]);
    assert_eq!(cluster.settled(), third);
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn one_link_down_holder_keeps_the_baton() {
    let mut cluster = no_clients();
    for (network, holder) in each(&NETWORKS, &NAMES) {
        cluster.place(holder);
        let since = now();
        cluster.lab().link_down(holder, network);
        outlast(&cluster);
        assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
        cluster.heal(holder);
        cluster.settled();
        cluster.lab().unplug(holder, network);
        outlast(&cluster);
        assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
        cluster.assert_steady(since, holder);
        cluster.heal(holder);
    }
    cluster.settled();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn one_way_cut_on_one_network_holder_keeps_the_baton() {
    let mut cluster = no_clients();
    for (network, holder) in each(&NETWORKS, &NAMES) {
        cluster.place(holder);
        for way in [Way::In, Way::Out] {
            let since = now();
            cluster.lab().lose(holder, Loss::all().way(way).on(&[network]));
            outlast(&cluster);
            assert_eq!(cluster.settled_without(Apart::NOBODY), holder);
            cluster.assert_steady(since, holder);
            cluster.heal(holder);
            cluster.settled();
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_cut_off_one_way_on_both_networks_standby_takes_over() {
    let mut cluster = three();
    for (way, holder) in each(&[Way::In, Way::Out], &NAMES) {
        cluster.place(holder);
        let others = cluster.others(&[holder]);
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let peers = cluster.lab().addresses(&others);
        let since = now();
        // The client still reaches it: the gap is what the protocol makes it, not what the cut hides.
        cluster.lab().lose(holder, Loss::all().way(way).with(peers));
        let names = [holder];
        let apart = match way {
            Way::Out => Apart {
                mute: &names,
                ..Apart::NOBODY
            },
            _ => Apart::cut_off(&names),
        };
        cluster.assert_takeover(since, holder, apart, cluster.silent_bound());
        cluster.heal(holder);
    }
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_and_one_standby_parted_the_third_hears_both_holder_keeps_the_baton() {
    let mut cluster = three();
    let pairs = [("a", "b"), ("b", "c"), ("c", "a")];
    for (way, (holder, standby)) in each(&[Way::In, Way::Out, Way::Both], &pairs) {
        cluster.place(holder);
        let peers = cluster.lab().addresses(&[standby]);
        let since = now();
        cluster.lab().lose(holder, Loss::all().way(way).with(peers));
        outlast(&cluster);
        let apart = Apart {
            mute: &[standby],
            ..Apart::NOBODY
        };
        assert_eq!(cluster.settled_without(apart), holder);
        cluster.assert_steady(since, holder);
        cluster.heal(holder);
        cluster.settled();
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn minority_cut_off_with_its_client_knows_nothing_and_majority_goes_on() {
    let mut cluster = three();
    for (holds, holder) in each(&[true, false], &NAMES) {
        cluster.place(holder);
        let others = cluster.others(&[holder]);
        let lone = if holds { holder } else { others[0].as_str() };
        let majority = cluster.others(&[lone]);
        let majority: Vec<&str> = majority.iter().map(String::as_str).collect();
        let since = now();
        cluster.lab().part(&[lone, CLIENT], &majority);
        let cut_off = [lone];
        let apart = Apart::cut_off(&cut_off);
        if holds {
            let bound = cluster.silent_bound();
            cluster.assert_takeover_seen(Viewpoint::Nodes, since, holder, apart, bound);
        } else {
            assert_eq!(cluster.settled_without(apart), holder);
            cluster.assert_steady(since, holder);
        }
        assert_client_is_told_nothing(&mut cluster, lone);
        cluster.lab().heal_all();
    }
    cluster.settled();
    cluster.verify();
}

/// A client that reaches only `node` hears 503 over HTTP and SERVFAIL over DNS.
#[track_caller]
fn assert_client_is_told_nothing(cluster: &mut Cluster, node: &str) {
    let front = cluster.node(node).seat.front;
    let client = cluster.lab().host(CLIENT).namespace.clone();
    let (health, dns) = client.inside(|| {
        let health = get((front, HTTP_PORT).into(), "/health", ASK_LIMIT);
        let dns = Asker::new((front, DNS_PORT).into(), ZONE, ASK_LIMIT).and_then(|mut asker| asker.ask());
        (health, dns)
    });
    assert_eq!(health.expect("the client reaches this node").status, 503);
    assert_eq!(dns.expect("the client reaches this node").code, SERVFAIL);
}
