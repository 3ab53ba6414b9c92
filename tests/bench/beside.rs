//! What stands beside the application: its agent is killed, it ends by itself, it is stopped in order. The application is a managed process,
//! or started by an action, and its own start (2 to 3 ms; by an action some more) is part of each gap.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use baton_tests::process::signal_one;
use rustix::process::Signal;
use std::time::Duration;

const PROCESS: &str = "\n[process]\ncommand = [{application}]\n";
/// The same, asked over HTTP.
const HTTP_CHECK: &str = "\n[process]\ncommand = [{application}, \"--http\", \"127.0.0.1:8080\"]\n\
                          [check]\nhttp = \"http://127.0.0.1:8080/\"\ninterval = \"100ms\"\nfall = 2\n";
/// Started by an action, and watched by its process id.
const WATCHED: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\"] }\n\
                       demote = { command = [{application}, \"--stop\"] }\n\
                       [check]\nprocess = \"{dir}/acts/pid\"\nwhen = \"active\"\ninterval = \"10s\"\n";
/// Windows in milliseconds at which agents are killed.
const WINDOWS: [u64; 3] = [100, 1000, 5000];
const TIMES: usize = 12;
const KILLED: Duration = Duration::from_millis(30);
const ENDED: Duration = Duration::from_millis(50);
/// `interval` times `fall`, and 50 ms.
const UNHEALTHY: Duration = Duration::from_millis(250);
const STOPPED: Duration = Duration::from_millis(15);
/// A gap this long is a failure, not a figure.
const HOPELESS: Duration = Duration::from_secs(20);

pub fn measure() -> Vec<Figure> {
    let mut figures: Vec<Figure> = WINDOWS
        .into_iter()
        .map(Duration::from_millis)
        .map(|window| killed(window, Signal::KILL, "killed"))
        .collect();
    // As a panic ends it.
    figures.push(killed(Duration::from_secs(1), Signal::ABORT, "aborts"));
    figures.push(ended(PROCESS, "application"));
    figures.push(ended(WATCHED, "application watched by its process id"));
    figures.push(unhealthy());
    figures.push(stopped());
    figures
}

fn cluster(window: Duration, more: &str) -> Cluster {
    Cluster::in_lab(Plan::members(&NAMES).window(window).more(more).on_disk())
}

fn killed(window: Duration, signal: Signal, how: &str) -> Figure {
    let cluster = cluster(window, PROCESS);
    let mut gaps = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        let since = now();
        cluster.process(&from).signal_agent(signal);
        gaps.push(cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS).1);
    }
    cluster.applications().assert_apart();
    Figure::durations(format!("agent {how}, window {window:?}"), &gaps, Some(KILLED))
}

fn ended(beside: &str, what: &str) -> Figure {
    let cluster = cluster(Duration::from_secs(1), beside);
    let mut gaps = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        let acts = cluster.applications().acting(&from, now());
        let since = now();
        signal_one(acts.name.id, Signal::KILL);
        let (to, gap) = cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS);
        gaps.push(gap);
        cluster.await_forgiven(&to, &from);
    }
    cluster.applications().assert_apart();
    Figure::durations(format!("{what} killed, window 1s"), &gaps, Some(ENDED))
}

/// From the first bad answer that the check could get: the check notices, and another node is active.
fn unhealthy() -> Figure {
    let cluster = cluster(Duration::from_secs(1), HTTP_CHECK);
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        cluster.applications().acting(&from, now());
        let since = now();
        cluster.applications().answer(&from, 503);
        let (to, _) = cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS);
        times.push(cluster.active_elsewhere(since, &from));
        cluster.applications().answer(&from, 200);
        cluster.await_forgiven(&to, &from);
    }
    cluster.applications().assert_apart();
    let what = "HTTP check fails (100 ms, fall 2), window 1s";
    Figure::durations(what, &times, Some(UNHEALTHY))
}

fn stopped() -> Figure {
    let mut cluster = cluster(Duration::from_secs(1), PROCESS);
    let mut gaps = Vec::new();
    for _ in 0..TIMES {
        let from = cluster.settled();
        let since = now();
        cluster.stop(&from);
        gaps.push(cluster.assert_takeover(since, &from, Apart::NOBODY, HOPELESS).1);
        cluster.start(&from);
    }
    cluster.applications().assert_apart();
    Figure::durations("stopped with its application, window 1s", &gaps, Some(STOPPED))
}
