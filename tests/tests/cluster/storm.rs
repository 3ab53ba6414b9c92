//! Losses that come and go.

use crate::NAMES;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::hold;
use baton_tests::fault::{Loss, Way};
use baton_tests::plan::Plan;
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
