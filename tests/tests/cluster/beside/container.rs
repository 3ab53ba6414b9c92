//! The guardian as process 1 of a container: it reaps what others leave to it, and hears what the container's runtime says. What becomes of
//! applications when it, or its agent, is killed or stands still there, is in `tests/guardian/apart.rs`.

use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use baton_tests::process::{children, lives, signal_one};
use rustix::process::Signal;

/// A promotion that leaves processes behind which soon end.
const ORPHANS: &str = "\n[process]\ncommand = [{application}]\n\n[actions]\n\
    promote = { command = [\"sh\", \"-c\", \"for i in 1 2 3 4 5; do (setsid sleep 0.2 >/dev/null 2>&1 &) ; done\"] }\n";

/// What `docker run` does, as far as processes go.
const CONTAINER: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn process_1_of_a_container_reaps_orphans_and_stops_in_order() {
    let mut cluster = Cluster::unstarted_in_lab(Plan::members(&NAMES).more(ORPHANS));
    cluster.start_through("a", &CONTAINER, &[]);
    cluster.start("b");
    cluster.start("c");
    cluster.place("a");
    let init = *children(cluster.process("a").id())
        .first()
        .expect("unshare has forked");
    let own = std::fs::read_to_string(format!("/proc/{init}/status")).expect("it lives");
    let numbers = own
        .lines()
        .find(|line| line.starts_with("NSpid:"))
        .expect("the kernel tells");
    assert!(numbers.ends_with("\t1"), "it is not process 1: {numbers}");
    until(GENEROUS, "orphans are reaped", || {
        let left = children(init);
        let zombies: Vec<_> = left.iter().filter(|id| !lives(**id)).collect();
        // The agent, the application's keeper and the process that speaks are all it has.
        match left.len() == 3 && zombies.is_empty() {
            true => Ok(()),
            false => Err(format!("children {left:?}, zombies {zombies:?}")),
        }
    });
    let since = now();
    signal_one(init, Signal::TERM);
    let status = cluster.wait_ended("a");
    assert!(status.success(), "{status}");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    cluster.applications().acting(&to, since);
    cluster.start_through("a", &CONTAINER, &[]);
    assert_eq!(cluster.settled(), to);
    cluster.applications().assert_apart();
    cluster.verify();
}
