//! `/health` per second: the agent on one core, and nginx returning a fixed 200 on one worker on the same core, one round after the
//! other, with `wrk` on another core. With keep-alive connections, and with one connection for each request.
//!
//! Where `wrk` is what ends the climb, the processor time of a request tells more than the rate.
//!
//! Ratios are made within a round, so that what the machine does besides strikes both.

use crate::NAMES;
use crate::figure::Figure;
use baton_tests::balancer::Balancer;
use baton_tests::cluster::Cluster;
use baton_tests::cores::{keep_to, used};
use baton_tests::namespace::Namespace;
use baton_tests::plan::Plan;
use baton_tests::process::children;
use baton_tests::watch::Watch;
use std::net::{Ipv4Addr, SocketAddr};

const TARGET: f64 = 50_000.0;
/// Of issue 6: requests per second, in parts of nginx's, with keep-alive and without.
const KEPT: f64 = 1.0;
const CLOSED: f64 = 0.8;
/// Many and short ones: a machine changes its pace from second to second.
const ROUNDS: usize = 21;
/// Cores of the server and of the load.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const PORT: u16 = 8080;

/// What one run of `wrk` measured.
#[derive(Clone, Copy, Debug)]
struct Load {
    per_second: f64,
    p99_ms: f64,
    /// Of the server.
    cost_us: f64,
}

pub fn measure() -> Vec<Figure> {
    // On a machine that does other things too, both cores belong to this session while it measures (sched(7), autogroups).
    let _ = std::fs::write("/proc/self/autogroup", "-20"); // without the right to it, or autogroups, the figures are noisier
    // Agents find one core when they start, as nginx is told of one.
    keep_to(std::process::id(), &[SERVER_CORE]);
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).on_disk());
    keep_to(std::process::id(), &[SERVER_CORE, LOAD_CORE]);
    let holder = cluster.settled();
    cluster.watch = Watch::default(); // the pollers end here
    let node = cluster.node(&holder);
    let host = &node.namespace;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    // As an operator has it who wants nothing else: the same body as ours has, about.
    let server = format!(
        "server {{ listen {at}; keepalive_requests 1000000000; \
         location / {{ return 200 '{{\"active\":true,\"node\":\"a\",\"role\":\"main\",\"epoch\":1780000000000}}'; }} }}"
    );
    let nginx = Balancer::nginx_by(host, at, 1, &server);
    let agent = cluster.process(&holder).agent().expect("the agent runs");
    keep_to(agent, &[SERVER_CORE]);
    let worker = children(nginx.process.id());
    assert_eq!(worker.len(), 1, "nginx has one worker");
    keep_to(worker[0], &[SERVER_CORE]);
    let mut figures = Vec::new();
    for (how, headers, target) in [
        ("keep-alive", &[][..], KEPT),
        ("a connection each", &["--header", "Connection: close"], CLOSED),
    ] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(load(host, node.http, agent, headers));
            theirs.push(load(host, at, worker[0], headers));
        }
        figures.extend(compare(how, &ours, &theirs, target));
    }
    figures
}

fn compare(how: &str, ours: &[Load], theirs: &[Load], target: f64) -> Vec<Figure> {
    let rates = |all: &[Load]| all.iter().map(|load| load.per_second).collect::<Vec<_>>();
    let costs = |all: &[Load]| all.iter().map(|load| load.cost_us).collect::<Vec<_>>();
    let tails = |all: &[Load]| all.iter().map(|load| load.p99_ms).collect::<Vec<_>>();
    let ratios = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a / b).collect();
    let own = format!("/health of the active node, {how}");
    vec![
        match how {
            "keep-alive" => Figure::at_least(own, rates(ours), "requests/s", TARGET),
            _ => Figure::amounts(own, rates(ours), "requests/s"),
        },
        Figure::amounts(format!("  nginx, {how}"), rates(theirs), "requests/s"),
        Figure::at_least(
            format!("  rate, of nginx's, {how}"),
            ratios(&rates(ours), &rates(theirs)),
            "x",
            target,
        ),
        Figure::amounts(format!("  p99, {how}"), tails(ours), "ms"),
        Figure::amounts(format!("  p99 of nginx, {how}"), tails(theirs), "ms"),
        Figure::amounts(
            format!("  p99, of nginx's, {how}"),
            ratios(&tails(ours), &tails(theirs)),
            "x",
        ),
        Figure::amounts(format!("  processor time, {how}"), costs(ours), "us/request"),
        Figure::amounts(
            format!("  processor time, of nginx's, {how}"),
            ratios(&costs(ours), &costs(theirs)),
            "x",
        ),
    ]
}

/// Asks as fast as answers come.
fn load(host: &Namespace, server: SocketAddr, id: u32, headers: &[&str]) -> Load {
    let url = format!("http://{server}/health");
    let core = LOAD_CORE.to_string();
    let line = [
        &[
            "--cpu-list",
            &core,
            "wrk",
            "--threads",
            "1",
            "--connections",
            "64",
            "--duration",
            "2s",
            "--latency",
        ][..],
        headers,
        &[&url],
    ]
    .concat();
    let before = used(id);
    let printed = host.run("taskset", &line);
    let spent = used(id) - before;
    let after = |name: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("wrk says no {name}:\n{printed}"))
            .trim()
    };
    assert!(!printed.contains("Non-2xx"), "not all were 200:\n{printed}");
    let answered = printed
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "));
    let answered: f64 = answered
        .and_then(|(count, _)| count.parse().ok())
        .expect("wrk counts");
    let load = Load {
        per_second: after("Requests/sec:").parse().expect("a rate is a number"),
        p99_ms: milliseconds(after("99%")),
        cost_us: spent * 1e6 / answered,
    };
    eprintln!("{server} {headers:?}: {load:?}");
    load
}

/// Reads what wrk prints of a time, such as `1.23ms`.
fn milliseconds(text: &str) -> f64 {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let read = units
        .iter()
        .find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor));
    read.unwrap_or_else(|| panic!("`{text}` is no time"))
}
