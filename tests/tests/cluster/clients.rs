//! Clients come by `front`, and the nodes hear each other over `back` too. The oracle is a client on `front`: what it is answered, and when.
//!
//! A role is handed over for this reason once a minute at most, so each case has a cluster of its own.

use crate::NAMES;
use baton_tests::SCHEDULING_SLACK;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::fault::{Loss, Way};
use baton_tests::matrix::some;
use baton_tests::plan::Plan;
use std::time::Duration;

/// W/2, 30 ms, and what a busy machine adds. There is no application that takes time.
fn bound(cluster: &Cluster) -> Duration {
    cluster.window() / 2 + Duration::from_millis(30) + SCHEDULING_SLACK
}

/// Three members at the default window, at rest.
#[track_caller]
fn cluster() -> (Cluster, String) {
    let cluster = Cluster::in_lab(Plan::members(&NAMES));
    let holder = cluster.settled();
    (cluster, holder)
}

/// How often any node stepped down because it was cut off.
fn handed_over(cluster: &Cluster) -> usize {
    let all = NAMES.iter().flat_map(|name| {
        let log = std::fs::read_to_string(cluster.log(name)).unwrap_or_default();
        let lines: Vec<String> = log.lines().map(str::to_owned).collect();
        lines
    });
    all.filter(|line| line.contains("stepping down from epoch") && line.contains("cut off from clients"))
        .count()
}

/// Who is active, as the nodes say.
#[track_caller]
fn active(cluster: &Cluster) -> String {
    until(GENEROUS, "somebody is active", || {
        let status = cluster.status(NAMES[0])?;
        let role = status.roles.first().ok_or("a status without roles")?;
        let active = role.active.as_ref().map(ToString::to_string);
        active.ok_or_else(|| format!("{} knows of nobody", NAMES[0]))
    })
}

/// Waits until a new event at `at` says this.
#[track_caller]
fn told(cluster: &Cluster, at: &str, why: &str) {
    until(GENEROUS, &format!("the event says \"{why}\""), || {
        let said = cluster.operate(at, &["events", "--last", "8"]);
        match said.contains(why) {
            true => Ok(()),
            false => Err(said),
        }
    });
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_loses_the_network_of_clients_and_a_node_that_has_it_takes_over() {
    type Fault = fn(&mut Cluster, &str);
    let mut cases: Vec<(&str, Fault)> = vec![
        ("hear each other", |c, holder| {
            c.lab().lose(holder, Loss::all().on(&["front"]));
        }),
        ("hear each other there, and nothing of it", |c, holder| {
            c.lab().lose(holder, Loss::all().way(Way::Out).on(&["front"]));
        }),
        ("it hears nobody there", |c, holder| {
            c.lab().lose(holder, Loss::all().way(Way::In).on(&["front"]));
        }),
    ];
    for unplugged in some(&[false, true], 1) {
        let fault: Fault = match unplugged {
            false => |c, holder| c.lab().link_down(holder, "front"),
            true => |c, holder| c.lab().unplug(holder, "front"),
        };
        cases.push(("its interface there has no carrier", fault));
    }
    for (why, fault) in cases {
        let (mut cluster, holder) = cluster();
        let since = now();
        fault(&mut cluster, &holder);
        let bound = bound(&cluster);
        let (to, _) = cluster.assert_takeover(since, &holder, Apart::NOBODY, bound);
        told(&cluster, &to, "cut off from clients on front: ");
        told(&cluster, &to, why);
        until(GENEROUS, "the table says so", || {
            let table = cluster.operate(&to, &["status"]);
            match table.contains("cut off from clients on front") {
                true => Ok(()),
                false => Err(table),
            }
        });
        // It does not go back by itself.
        let since = now();
        cluster.heal(&holder);
        assert_eq!(cluster.settled(), to);
        cluster.assert_steady(since, &to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn gateway_does_not_answer_the_holder_and_answers_others() {
    let mut cluster = Cluster::unstarted_in_lab(Plan::members(&NAMES));
    let gateway = cluster.lab().host(CLIENT).addresses["front"];
    for name in NAMES {
        cluster.start_with(name, &["--set", &format!("networks.front.gateway={gateway}")]);
    }
    let holder = cluster.settled();
    let since = now();
    // Everybody hears everybody, and only the client, which is the gateway, does not reach the holder.
    cluster.lab().lose(&holder, Loss::all().with([gateway]));
    let bound = bound(&cluster);
    let (to, _) = cluster.assert_takeover(since, &holder, Apart::NOBODY, bound);
    told(
        &cluster,
        &to,
        &format!("the gateway {gateway} does not answer it, and answers"),
    );
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn nobody_else_has_the_network_of_clients_and_the_holder_stays() {
    let (mut cluster, holder) = cluster();
    let since = now();
    let long = cluster.window() * 3;
    let standbys = cluster.others(&[&holder]);
    // All are cut off, silently; then the switch is gone; then the standbys' cables are pulled; then all are.
    for name in NAMES {
        cluster.lab().lose(name, Loss::all().on(&["front"]));
    }
    hold(long);
    cluster.lab().heal_all();
    assert_eq!(cluster.settled(), holder);
    cluster.lab().switch_down("front");
    hold(long);
    cluster.lab().switch_up("front");
    assert_eq!(cluster.settled(), holder);
    for name in &standbys {
        cluster.lab().unplug(name, "front");
    }
    hold(long);
    cluster.lab().unplug(&holder, "front");
    hold(long);
    cluster.lab().heal_all();
    assert_eq!(cluster.settled(), holder);
    cluster.assert_steady(since, &holder);
    assert_eq!(handed_over(&cluster), 0);
}

/// For 20 s; with `BATON_LONG` in the environment for a minute.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn a_third_of_all_packets_is_lost_on_the_network_of_clients_and_the_holder_stays() {
    let (mut cluster, holder) = cluster();
    let since = now();
    for name in NAMES {
        cluster
            .lab()
            .lose(name, Loss::all().way(Way::In).percent(30).on(&["front"]));
    }
    let long = std::env::var_os("BATON_LONG").map_or(20, |_| 60);
    hold(Duration::from_secs(long));
    cluster.lab().heal_all();
    cluster.assert_steady(since, &holder);
    assert_eq!(handed_over(&cluster), 0);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn carrier_that_flaps_every_second_moves_the_role_once() {
    let (mut cluster, first) = cluster();
    let mut holder = first.clone();
    for _ in 0..12 {
        // Whoever holds the role has the bad cable.
        cluster.lab().unplug(&holder, "front");
        hold(Duration::from_millis(500));
        cluster.lab().heal_all();
        hold(Duration::from_millis(500));
        holder = active(&cluster);
    }
    // What is handed over at the end counts, too, and is in the log a moment later.
    assert_ne!(cluster.settled(), first);
    until(GENEROUS, "the log tells of one handover", || {
        match handed_over(&cluster) {
            0 => Err("of none".into()),
            1 => Ok(()),
            more => panic!("{more} handovers"),
        }
    });
    cluster.verify();
}
