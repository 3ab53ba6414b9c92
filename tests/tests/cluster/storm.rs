//! Losses that come and go, and questions without end.

use crate::NAMES;
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::hold;
use baton_tests::fault::{Loss, Way};
use baton_tests::load::{flood, question};
use baton_tests::plan::{DNS_PORT, Plan, ZONE};
use std::time::Duration;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn thirty_percent_lost_everywhere_for_20_s_holder_keeps_the_baton() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES));
    let holder = cluster.settled();
    let since = now();
    for name in NAMES {
        cluster.lab().lose(name, Loss::all().way(Way::In).percent(30));
    }
    hold(Duration::from_secs(20));
    cluster.assert_steady(since, &holder);
    cluster.lab().heal_all();
    assert_eq!(cluster.settled(), holder);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn active_node_flooded_with_dns_questions_for_20_s_holder_keeps_the_baton() {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES));
    let holder = cluster.settled();
    let server = (cluster.node(&holder).seat.front, DNS_PORT).into();
    let questions = [question(ZONE, 1), question(ZONE, 28)];
    let client = cluster.lab().host(CLIENT).namespace.clone();
    let since = now();
    let flooded = client.inside(|| flood(server, &questions, Duration::from_secs(20)));
    cluster.assert_steady(since, &holder);
    let flooded = flooded.expect("the network takes it");
    eprintln!("{:.0} answers/s, {} lost", flooded.rate(), flooded.lost);
    assert!(flooded.answered > 100_000, "that was no flood: {flooded:?}");
    assert_eq!(cluster.settled(), holder);
}
