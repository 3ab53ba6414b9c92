//! The holder leaves in order: switchover, and graceful stop.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::time::Duration;

const TIMES: usize = 15;
const TARGET: Duration = Duration::from_millis(15);
/// A gap this long is a failure, not a figure.
const HOPELESS: Duration = Duration::from_secs(20);

pub fn measure() -> Vec<Figure> {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).on_disk());
    let mut switched = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        let to = cluster.others(&[&from]).remove(0);
        let since = now();
        cluster.operate(&from, &["switchover", "--to", &to]);
        switched.push(cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS).1);
    }
    let mut stopped = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        let since = now();
        cluster.stop(&from);
        stopped.push(cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS).1);
        cluster.start(&from);
    }
    vec![
        Figure::durations("planned switchover, window 1s", &switched, Some(TARGET)),
        Figure::durations("graceful stop, window 1s", &stopped, Some(TARGET)),
    ]
}
