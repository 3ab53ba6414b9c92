//! Guardian and agent watch each other: whichever stands still is noticed by the other.

use crate::WINDOW;
use baton_tests::SCHEDULING_SLACK;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::disk::Disk;
use baton_tests::plan::Plan;
use baton_tests::process::lives;
use baton_tests::real::judge::{assert_none, judge};
use baton_tests::real::kin;
use baton_tests::watch::Viewpoint;
use rustix::process::Signal;
use std::time::Duration;

const SCATTERED: &str = "\n[process]\ncommand = [{application}, \"--scatter\"]\nstop_timeout = \"300ms\"\n";

fn cluster() -> (Cluster, kin::Broom) {
    let plan = Plan::members(&["a", "b"]).witness("w").window(WINDOW);
    let cluster = Cluster::in_lab(plan.more(SCATTERED));
    let homes = cluster.names().iter().map(|name| cluster.home(name)).collect();
    (cluster, kin::Broom(homes))
}

/// No beat for so long is standing still.
fn noticed() -> Duration {
    (WINDOW / 4).max(Duration::from_millis(100))
}

/// Nothing of the application is left, nothing acted beside the other node, and the rest stops in order.
#[track_caller]
fn end(mut cluster: Cluster) {
    let left = kin::left(&cluster.home("a"));
    for name in cluster.running() {
        cluster.stop(&name);
    }
    for name in cluster.names() {
        kin::kill_left(&cluster.home(&name));
    }
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert!(left.is_empty(), "left on a: {left:?}");
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_stopped_the_agent_stops_the_application_releases_and_ends_it() {
    let (mut cluster, _broom) = cluster();
    cluster.place("a");
    cluster.applications().acting("a", now());
    let agent = cluster.process("a").agent().expect("it runs");
    let since = now();
    cluster.process("a").signal_guardian(Signal::STOP);
    let status = cluster.ended_within("a", GENEROUS);
    let took = now().since(since);
    if status.is_none() {
        cluster.process("a").signal_guardian(Signal::CONT); // for the rest of this test to end
    }
    let status = status.expect("the guardian that stands still is ended by its agent");
    assert!(!status.success(), "{status}");
    until(GENEROUS, "the agent has ended too", || match lives(agent) {
        true => Err(format!("process {agent} lives")),
        false => Ok(()),
    });
    // It was released: nobody had to wait for promises to run out, which would take a window from the last renewal on.
    let bound = noticed() + WINDOW / 5 + Duration::from_millis(300) + SCHEDULING_SLACK;
    let (to, at) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    eprintln!(
        "{to} was active {:?} after the guardian was stopped, a had ended after {took:?}",
        at.since(since)
    );
    assert!(
        at.since(since) < bound,
        "{to} was active {:?} after the guardian was stopped",
        at.since(since)
    );
    cluster.applications().acting(&to, since);
    cluster.start("a");
    assert_eq!(cluster.settled(), to);
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_stopped_and_node_cut_off_nothing_acts_beside_the_new_holder() {
    let (mut cluster, _broom) = cluster();
    cluster.place("a");
    cluster.applications().acting("a", now());
    let since = now();
    cluster.process("a").signal_guardian(Signal::STOP);
    cluster.silence("a");
    let to = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    cluster.applications().acting(&to.0, since);
    baton_tests::deadline::hold(2 * WINDOW);
    if cluster.ended_within("a", GENEROUS).is_none() {
        cluster.process("a").signal_guardian(Signal::CONT);
        end(cluster);
        panic!("nobody has ended the guardian that stood still");
    }
    cluster.heal("a");
    cluster.start("a");
    assert_eq!(cluster.settled(), to.0);
    end(cluster);
}

/// Daemons that a fence stops, since their demote command needs the agent.
const FENCED: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\", \"--ignore-term\"] }\n\
    demote = { command = [{application}, \"--stop\"] }\nfence = { command = [{application}, \"--stop\"] }\n";

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn log_frozen_and_agent_stopped_the_fence_is_run_in_time() {
    log_frozen(FENCED);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn log_frozen_and_agent_stopped_the_application_is_killed_in_time() {
    log_frozen(SCATTERED);
}

/// What the guardian logs to stands still before it has anything to say, and then its agent does.
fn log_frozen(more: &str) {
    let plan = Plan::members(&["a", "b"]).witness("w").window(WINDOW);
    let mut cluster = Cluster::unstarted_in_lab(plan.more(more));
    let logs = cluster.dir().join("logs");
    let disk = Disk::mount(&logs);
    std::os::unix::fs::symlink(logs.join("log"), cluster.log("a")).expect("the directory can be written");
    let _broom = kin::Broom(cluster.names().iter().map(|name| cluster.home(name)).collect());
    for name in cluster.names() {
        cluster.start(&name);
    }
    cluster.place("a");
    cluster.applications().acting("a", now());
    let since = now();
    disk.freeze();
    let agent = cluster.process("a").signal_agent(Signal::STOP);
    let (to, _) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    cluster.applications().acting(&to, since);
    baton_tests::deadline::hold(2 * WINDOW);
    disk.thaw();
    if lives(agent) {
        cluster.process("a").signal_agent(Signal::CONT);
    }
    assert_eq!(cluster.settled(), to);
    end(cluster);
    drop(disk);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_that_stands_still_for_a_moment_is_let_live() {
    // On a busy machine who lets it go on may be late: then it stood still for longer than that, and nothing is proved.
    until(
        GENEROUS * 4,
        "it stands still for moments alone",
        still_for_moments,
    );
}

/// Plays it in a cluster of its own; fails where a moment was too long.
fn still_for_moments() -> Result<(), String> {
    let (mut cluster, _broom) = cluster();
    cluster.place("a");
    let before = cluster.applications().acting("a", now());
    let since = now();
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        let stopped = now();
        cluster.process("a").signal_guardian(Signal::STOP);
        baton_tests::deadline::hold(noticed() / 4);
        cluster.process("a").signal_guardian(Signal::CONT);
        longest = longest.max(now().since(stopped));
        baton_tests::deadline::hold(noticed() / 4);
    }
    if longest > noticed() / 2 {
        return Err(format!("it stood still for {longest:?}"));
    }
    cluster.assert_steady(since, "a");
    assert_eq!(cluster.applications().acting("a", now()).name, before.name);
    assert!(cluster.ended_within("a", Duration::ZERO).is_none());
    for name in cluster.running() {
        cluster.stop(&name);
    }
    Ok(())
}
