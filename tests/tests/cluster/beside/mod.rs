//! What stands beside the application: the guardian, the managed process, and the actions. The test application writes down from
//! when to when it acted, on every node by one clock; no two ever act at once, and none is left behind.

mod actions;
mod agent;
mod application;
mod container;
mod isolated;
mod orderly;
mod resources;
mod roles;

use crate::NAMES;
use baton_shared::clock::Mono;
use baton_tests::agreement::Apart;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::time::Duration;

/// The application as a managed process.
const PROCESS: &str = "\n[process]\ncommand = [{application}]\n";

/// The same, asked over HTTP.
const HTTP_CHECK: &str = "\n[process]\ncommand = [{application}, \"--http\", \"127.0.0.1:8080\"]\n\
                          [check]\nhttp = \"http://127.0.0.1:8080/\"\ninterval = \"100ms\"\nfall = 2\n";

/// How long the application may answer badly before that counts as [`HTTP_CHECK`] has it: `interval` times `fall`.
const NOTICED: Duration = Duration::from_millis(200);

/// An application that a command starts as a daemon, and another one kills.
const DAEMON: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\"] }\n\
                      demote = { command = [{application}, \"--stop\"] }\n";

/// While this file is in the cluster's directory the demote of [`FENCED`] hangs.
const HANG: &str = "hang";

/// One whose demote may hang, so that the fence has to do it.
const FENCED: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\"] }\n\
                      demote = { command = [\"sh\", \"-c\", \
                      \"test ! -e {dir}/hang || exec sleep 1000; exec \\\"$@\\\" --stop\", \"sh\", {application}] }\n\
                      fence = { command = [{application}, \"--stop\"] }\n";

/// One that writes down its process id, and is watched by that.
const WATCHED: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\"] }\n\
                       demote = { command = [{application}, \"--stop\"] }\n\
                       [check]\nprocess = \"{dir}/acts/pid\"\nwhen = \"active\"\ninterval = \"10s\"\n";

/// One that is stopped by a fence alone.
const FENCE_ALONE: &str = "\n[actions]\npromote = { command = [{application}, \"--daemon\"] }\n\
                           fence = { command = [{application}, \"--stop\"] }\n";

/// Three members at the default window, and these tables.
#[track_caller]
fn three_with(more: &str) -> Cluster {
    three_at(Duration::from_secs(1), more)
}

/// The same at another window.
#[track_caller]
fn three_at(window: Duration, more: &str) -> Cluster {
    Cluster::in_lab(Plan::members(&NAMES).window(window).more(more))
}

/// Another node takes over, and its application acts: never two at once, and none is left behind elsewhere. Gives the new holder.
#[track_caller]
fn taken_over(cluster: &Cluster, since: Mono, from: &str, apart: Apart, bound: Duration) -> String {
    let (to, _) = cluster.assert_takeover(since, from, apart, bound);
    let applications = cluster.applications();
    applications.acting(&to, since);
    eprintln!("the application did not act for {:?}", applications.gap(since));
    applications.assert_apart();
    applications.assert_no_orphans(&[&to]);
    to
}

/// Stops all nodes that run, and sees that no two applications ever acted at once and none is left.
#[track_caller]
fn end(mut cluster: Cluster) {
    cluster.verify();
    for name in cluster.running() {
        cluster.stop(&name);
    }
    cluster.applications().assert_apart();
    cluster.applications().assert_no_orphans(&[]);
}
