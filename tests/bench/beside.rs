//! What stands beside the application: its agent is killed, it ends by itself, it is stopped in order. The application is a managed process,
//! or started by an action, and its own start (2 to 3 ms; by an action some more) is part of each gap.

use crate::NAMES;
use crate::client::Client;
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
/// More than of the others: a kill is quick, and the median of few moves by as much as is looked for.
const KILLS: usize = 31;
/// Of issue 13, by a client that asks every millisecond.
const KILLED: Duration = Duration::from_micros(3500);
const ENDED: Duration = Duration::from_millis(50);
/// `interval` times `fall`, and 50 ms.
const UNHEALTHY: Duration = Duration::from_millis(250);
const STOPPED: Duration = Duration::from_millis(15);
/// A gap this long is a failure, not a figure.
const HOPELESS: Duration = Duration::from_secs(20);

/// The agent is killed.
pub fn measure_kills() -> Vec<Figure> {
    let mut figures: Vec<Figure> = WINDOWS
        .into_iter()
        .map(Duration::from_millis)
        .flat_map(|window| killed(window, Signal::KILL, "killed"))
        .collect();
    // As a panic ends it.
    figures.extend(killed(Duration::from_secs(1), Signal::ABORT, "aborts"));
    figures
}

/// The application ends, or is stopped.
pub fn measure() -> Vec<Figure> {
    vec![
        ended(PROCESS, "application"),
        ended(WATCHED, "application watched by its process id"),
        unhealthy(),
        stopped(),
    ]
}

fn cluster(window: Duration, more: &str) -> Cluster {
    Cluster::in_lab(Plan::members(&NAMES).window(window).more(more).on_disk())
}

/// Two figures: the gap as a client sees it, and from the kill on.
fn killed(window: Duration, signal: Signal, how: &str) -> [Figure; 2] {
    let mut cluster = cluster(window, PROCESS);
    cluster.settled();
    let client = Client::alone(&mut cluster);
    let (mut gaps, mut sinces) = (Vec::new(), Vec::new());
    for _ in 0..KILLS {
        let from = cluster.settled();
        client.hears(&from);
        let since = now();
        cluster.process(&from).signal_agent(signal);
        let seen = client.sees_takeover(&from, since);
        assert!(seen.gap <= HOPELESS, "a gap of {:?}", seen.gap);
        eprintln!(
            "{from} {how}: gap {:?}, {:?} from the signal",
            seen.gap, seen.since
        );
        gaps.push(seen.gap);
        sinces.push(seen.since);
    }
    client.verify();
    cluster.applications().assert_apart();
    [
        Figure::durations(format!("agent {how}, window {window:?}"), &gaps, Some(KILLED)),
        Figure::durations("  from the signal to a 200", &sinces, None),
    ]
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
        cluster.await_forgiven(since, &to, &from);
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
        cluster.await_forgiven(since, &to, &from);
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
