//! `/health` per second: the agent on one core, `wrk` with keep-alive connections on another.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use baton_tests::watch::Watch;

const TARGET: f64 = 50_000.0;
const TIMES: usize = 3;

pub fn measure() -> Vec<Figure> {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).on_disk());
    let holder = cluster.settled();
    cluster.watch = Watch::default(); // the pollers end here
    let id = cluster.process(&holder).id().to_string();
    let node = cluster.node(&holder);
    let url = format!("http://{}/health", node.http);
    node.namespace
        .run("taskset", &["--all-tasks", "--cpu-list", "--pid", "0", &id]);
    let load = [
        "--cpu-list",
        "1",
        "wrk",
        "--threads",
        "1",
        "--connections",
        "64",
        "--duration",
        "5s",
        &url,
    ];
    let rates = (0..TIMES)
        .filter_map(|_| {
            let printed = node.namespace.run("taskset", &load);
            let rate = printed
                .lines()
                .find_map(|line| line.strip_prefix("Requests/sec:"));
            rate.and_then(|rate| rate.trim().parse().ok())
        })
        .collect();
    vec![Figure::at_least(
        "/health of the active node, one core",
        rates,
        "requests/s",
        TARGET,
    )]
}
