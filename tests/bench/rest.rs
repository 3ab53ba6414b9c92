//! The agent at rest: memory and processor time, with nobody asking it anything.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::cluster::Cluster;
use baton_tests::cores::used;
use baton_tests::deadline::hold;
use baton_tests::plan::Plan;
use baton_tests::watch::Watch;
use std::time::{Duration, Instant};

const SETTLE: Duration = Duration::from_secs(3);
const LONG_ENOUGH: Duration = Duration::from_secs(20);
const RESIDENT_TARGET: f64 = 20.0;
const PROCESSOR_TARGET: f64 = 0.5;

pub fn measure() -> Vec<Figure> {
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).on_disk());
    cluster.settled();
    cluster.watch = Watch::default(); // the pollers end here
    hold(SETTLE);
    // Each with its guardian, which shares some of its memory: counted twice here.
    let pairs = NAMES.map(|name| {
        let process = cluster.process(name);
        [process.id(), process.agent().expect("the agent runs")]
    });
    let both = |of: fn(u32) -> f64| pairs.map(|pair| pair.map(of).iter().sum::<f64>());
    let (start, before) = (Instant::now(), both(used));
    hold(LONG_ENOUGH);
    let elapsed = start.elapsed().as_secs_f64();
    let shares = both(used)
        .into_iter()
        .zip(before)
        .map(|(now, before)| (now - before) / elapsed * 100.0);
    let shares = shares.collect();
    let resident = both(resident).to_vec();
    vec![
        Figure::at_most("resident at rest, per agent", resident, "MB", RESIDENT_TARGET),
        Figure::at_most(
            "processor at rest, per agent",
            shares,
            "% of a core",
            PROCESSOR_TARGET,
        ),
    ]
}

/// Megabytes a process has in memory.
pub fn resident(id: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the agent runs");
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<f64>().ok());
    kilobytes.expect("the kernel says how much it is") * 1024.0 / 1e6
}
