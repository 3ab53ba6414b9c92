//! An application that takes the kernel long to tear down: 200 processes that have touched 4 GiB together. It is gone before another
//! node's begins all the same.

use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::real::judge::{assert_none, judge};
use baton_tests::real::kin;
use baton_tests::watch::Viewpoint;
use rustix::process::Signal;
use std::time::Duration;

const PROCESSES: usize = 200;

const LARGE: &str =
    "\n[process]\ncommand = [{application}, \"--large\", \"4096,200\"]\nstop_timeout = \"300ms\"\n";

/// The application is that large where it runs first, and is what the others run as well.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn large_application_killed_with_its_agent_is_gone_before_another_acts() {
    large(Signal::KILL);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn large_application_of_an_agent_that_stands_still_is_gone_before_another_acts() {
    large(Signal::STOP);
}

fn large(signal: Signal) {
    let plan = Plan::members(&["a", "b"])
        .witness("w")
        .window(Duration::from_secs(1));
    let mut cluster = Cluster::in_lab(plan.more(LARGE));
    let _broom = kin::Broom(cluster.names().iter().map(|name| cluster.home(name)).collect());
    cluster.place("a");
    until(GENEROUS, "all its processes act", || {
        let here = |acts: &baton_tests::application::Acts| acts.name.node == "a";
        let count = cluster
            .applications()
            .acts()
            .iter()
            .filter(|acts| here(acts))
            .count();
        (count > PROCESSES)
            .then_some(())
            .ok_or_else(|| format!("{count} do"))
    });
    let since = now();
    cluster.process("a").signal_agent(signal);
    let (to, at) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    eprintln!(
        "{to} was active {:?} after the agent was signalled",
        at.since(since)
    );
    hold(Duration::from_millis(300)); // whoever is left acts
    let all = cluster.applications().acts();
    let last = all
        .iter()
        .filter(|acts| acts.name.node == "a")
        .map(|acts| acts.last)
        .max();
    eprintln!(
        "the last of {PROCESSES} acted {:?} after the agent was signalled",
        last.map(|at| at.since(since))
    );
    if signal == Signal::STOP {
        cluster.process("a").signal_agent(Signal::CONT);
    }
    assert_eq!(cluster.settled(), to);
    for name in cluster.running() {
        cluster.stop(&name);
    }
    let left: Vec<_> = cluster
        .names()
        .iter()
        .flat_map(|name| kin::left(&cluster.home(name)))
        .collect();
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert!(left.is_empty(), "{} are left: {:?}", left.len(), left.first());
}
