//! What stands beside the application: the parent process, the managed process, and the actions. The test application writes down from
//! when to when it acted, on every node by one clock; no two ever act at once, and none is left behind.

mod agent;
mod isolated;

use crate::NAMES;
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use std::time::Duration;

/// The application as a managed process.
const PROCESS: &str = "\n[process]\ncommand = [{application}]\n";

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
