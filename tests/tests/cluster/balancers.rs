//! Behind HAProxy, nginx and Envoy, started with the configurations of `examples/`: what a client sees through them when the holder is silent,
//! frozen, killed, switched over, and healed. The application answers everywhere and always: what keeps clients from the wrong node is
//! the balancer alone, which believes the sidecars.

use crate::{NAMES, WINDOW};
use baton_shared::clock::Mono;
use baton_shared::id::Kind;
use baton_tests::SCHEDULING_SLACK;
use baton_tests::agreement::Apart;
use baton_tests::balancer::{Balancer, EXAMPLE_NODES};
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::matrix::some;
use baton_tests::plan::{NETWORKS, Plan};
use baton_tests::through::Client;
use std::collections::BTreeMap;
use std::time::Duration;

/// The observer on the balancers' host, whose name server nginx asks.
const BALANCER: &str = "lb";
const HAPROXY_PORT: u16 = 8000;
const NGINX_PORT: u16 = 8001;
const ENVOY_PORT: u16 = 8002;
/// The client asks anew after so long.
const PATIENCE: Duration = Duration::from_millis(100);
/// So often it may have to for no other reason than a busy machine; a balancer that goes on asking the former node fails more often.
const EXCUSED: usize = 3;

/// A balancer, a client through it, and by how much it may be late: what the comments in its configuration say.
struct Path {
    client: Client,
    balancer: Balancer,
    lag: Duration,
}

struct Stage {
    cluster: Cluster,
    applications: BTreeMap<&'static str, Balancer>,
    paths: [Path; 3],
}

impl Stage {
    /// Two nodes and a witness, as the examples name them, and an observer with all balancers on its host.
    #[track_caller]
    fn set() -> Stage {
        let nodes = EXAMPLE_NODES.map(|(name, _)| name);
        let mut plan = Plan::members(&nodes).witness("w").window(WINDOW).name_servers("");
        plan.nodes.push((BALANCER.to_owned(), Kind::Observer));
        let mut cluster = Cluster::in_lab(plan);
        cluster.settled();
        let mut applications = BTreeMap::new();
        for name in nodes {
            applications.insert(name, application(&cluster, name));
        }
        let seat = |name: &str| cluster.node(name).seat.front;
        let (host, at) = (cluster.node(BALANCER).namespace.clone(), seat(BALANCER));
        let haproxy = Balancer::haproxy(&host, at, HAPROXY_PORT, nodes.map(seat));
        let nginx = Balancer::nginx(&host, at, NGINX_PORT);
        let envoy = Balancer::envoy(&host, at, ENVOY_PORT, nodes.map(seat));
        let from = cluster.lab().host(CLIENT).namespace.clone();
        let path = |name, balancer: Balancer, lag| Path {
            client: Client::start(name, &from, balancer.address, PATIENCE),
            balancer,
            lag,
        };
        let paths = [
            path("HAProxy", haproxy, Duration::from_millis(100)), // inter
            path("nginx", nginx, Duration::from_secs(2)),         // twice `valid`
            path("Envoy", envoy, Duration::from_millis(100)),     // interval
        ];
        Stage {
            cluster,
            applications,
            paths,
        }
    }

    /// Brings everything to rest with this holder, which answers through all balancers and has for longer than they lag.
    #[track_caller]
    fn place(&self, holder: &str) {
        self.cluster.place(holder);
        self.at_rest(holder);
    }

    #[track_caller]
    fn at_rest(&self, holder: &str) {
        let since = now();
        let longest = self.paths.iter().map(|path| path.lag).max().unwrap_or_default();
        until(GENEROUS, "the balancers know the holder", || {
            match now() > since + longest {
                true => Ok(()),
                false => Err("they may lag".into()),
            }
        });
        let known = now();
        for path in &self.paths {
            path.client.await_steady(holder, known);
        }
    }

    /// Another node than `from` takes over, within `bound` and the lag of each balancer, for its client. The new node answers no client
    /// before it is active, and the former node none after the first answer of the new one, but for `overlap` of the lag. Gives the new
    /// holder.
    #[track_caller]
    fn taken_over(&self, since: Mono, from: &str, apart: Apart, bound: Duration, overlap: bool) -> String {
        let (to, _) = self.cluster.assert_takeover(since, from, apart, bound);
        self.at_rest(&to);
        let passive = self.cluster.passive_until(since, &to);
        for path in &self.paths {
            let through = path.client.through;
            let (gap, both) = (path.client.gap(since), path.client.overlap(since, &to));
            let allowed = bound + path.lag + PATIENCE;
            eprintln!("{from} -> {to} through {through}: gap {gap:?}, bound {allowed:?}; overlap {both:?}");
            let log = || path.balancer.log();
            assert!(
                gap <= allowed,
                "through {through} a gap of {gap:?}, not {allowed:?}\n{}",
                log()
            );
            let first = path.client.await_answer(&to, since).received;
            assert!(
                first >= passive,
                "{to} answered through {through} {:?} before it was active\n{}",
                passive.since(first),
                log()
            );
            let late = first.since(since);
            assert!(
                late <= allowed + SCHEDULING_SLACK,
                "{to} answered through {through} after {late:?}\n{}",
                log()
            );
            let known = first + path.lag + SCHEDULING_SLACK;
            let failures = path.client.failures(known);
            assert!(
                failures <= EXCUSED,
                "through {through} {failures} failures since {to} answered\n{}",
                log()
            );
            let allowed = match overlap {
                true => path.lag + SCHEDULING_SLACK,
                false => Duration::ZERO,
            };
            assert!(
                both <= allowed,
                "through {through} {from} answered for {both:?} more\n{}",
                log()
            );
        }
        to
    }

    /// The node that was lost is back, and changes nothing: the same one answers, without a gap, and never the former.
    #[track_caller]
    fn healed(&self, since: Mono, former: &str, holder: &str) {
        assert_eq!(self.cluster.settled(), holder, "the role moved back");
        self.at_rest(holder);
        for path in &self.paths {
            let (through, client) = (path.client.through, &path.client);
            assert_eq!(
                client.answers(former, since),
                0,
                "{former} answered through {through}"
            );
            assert!(client.answers(holder, since) > 0, "{holder} did not answer");
            let gap = client.gap(since);
            assert!(
                gap <= SCHEDULING_SLACK,
                "through {through} a gap of {gap:?} at the healing"
            );
        }
        self.cluster.assert_steady(since, holder);
    }
}

#[track_caller]
fn application(cluster: &Cluster, name: &str) -> Balancer {
    let node = cluster.node(name);
    Balancer::application(&node.namespace, name, node.seat.front)
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_silent_behind_balancers_clients_reach_the_other_and_never_the_healed_one() {
    let mut stage = Stage::set();
    for (from, _) in some(&EXAMPLE_NODES, 1) {
        stage.place(from);
        let since = now();
        stage.cluster.silence(from);
        let bound = stage.cluster.silent_bound();
        let to = stage.taken_over(since, from, Apart::cut_off(&[from]), bound, false);
        let since = now();
        stage.cluster.heal(from);
        stage.healed(since, from, &to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_frozen_with_its_application_behind_balancers_clients_reach_the_other_and_never_the_thawed_one() {
    let stage = Stage::set();
    for (from, _) in some(&EXAMPLE_NODES, 1) {
        stage.place(from);
        let since = now();
        stage.cluster.freeze(from);
        stage.applications[from].process.freeze();
        let apart = Apart {
            unasked: &[from],
            ..Apart::NOBODY
        };
        let to = stage.taken_over(since, from, apart, stage.cluster.silent_bound(), false);
        let since = now();
        stage.applications[from].process.thaw();
        stage.cluster.thaw_and_ask(from);
        stage.healed(since, from, &to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_killed_with_its_application_behind_balancers_clients_reach_the_other_and_never_the_restarted_one() {
    let mut stage = Stage::set();
    for (from, _) in some(&EXAMPLE_NODES, 1) {
        stage.place(from);
        let since = now();
        stage.cluster.kill(from);
        stage.applications.remove(from);
        let to = stage.taken_over(since, from, Apart::NOBODY, stage.cluster.silent_bound(), false);
        let since = now();
        stage.applications.insert(from, application(&stage.cluster, from));
        stage.cluster.start(from);
        stage.healed(since, from, &to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_switched_over_or_stopped_behind_balancers_clients_notice_no_more_than_the_balancers_lag() {
    let mut stage = Stage::set();
    for (from, to) in some(&[("a", "b"), ("b", "a")], 1) {
        stage.place(from);
        let since = stage.cluster.switch_over("w", to);
        let moved_to = stage.taken_over(since, from, Apart::NOBODY, stage.cluster.orderly_bound(), true);
        assert_eq!(moved_to, to);
        // The agent alone: its application goes on answering whoever asks.
        let since = now();
        stage.cluster.stop(to);
        stage.taken_over(since, to, Apart::NOBODY, stage.cluster.orderly_bound(), true);
        let since = now();
        stage.cluster.start(to);
        stage.healed(since, to, from);
    }
}

/// Health checks are what a balancer should go by; where it goes by the name instead, it is late by what it keeps of the answers, and
/// the old node is gone with the first answer of the new one, although its application answers on.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn haproxy_that_resolves_the_name_follows_a_kill_and_a_switchover_and_leaves_the_old_node() {
    let plan = Plan::members(&NAMES).window(WINDOW).name_servers("");
    let mut cluster = Cluster::in_lab(plan);
    cluster.place("a");
    let _applications = NAMES.map(|name| application(&cluster, name));
    let agents = NAMES.map(|name| (cluster.node(name).seat.front, 53).into());
    let client = cluster.lab().host(CLIENT);
    let (host, at) = (client.namespace.clone(), client.addresses[NETWORKS[0]]);
    let haproxy = Balancer::haproxy_by_name(&host, at, HAPROXY_PORT, &agents);
    let clients = [
        Client::start("HAProxy, one connection", &host, haproxy.address, PATIENCE),
        Client::anew("HAProxy, many connections", &host, haproxy.address, PATIENCE),
    ];
    let steady = |node: &str| clients.iter().for_each(|client| client.await_steady(node, now()));
    steady("a");
    let followed = |cluster: &Cluster, since: Mono, from: &str, to: &str, fault: &str| {
        let seen = clients
            .each_ref()
            .map(|client| client.await_answer(to, since).received);
        steady(to);
        assert_eq!(cluster.settled(), to);
        for (client, seen) in clients.iter().zip(seen) {
            let (seen, overlap) = (seen.since(since), client.overlap(since, to));
            let through = client.through;
            eprintln!("{fault}: {from} -> {to} through {through} after {seen:?}; overlap {overlap:?}");
            assert_eq!(
                overlap,
                Duration::ZERO,
                "{from} answered on through {through}\n{}",
                haproxy.log()
            );
        }
    };

    let since = now();
    cluster.kill("a");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.silent_bound());
    cluster.start("a");
    followed(&cluster, since, "a", &to, "killed");

    let since = cluster.switch_over(&to, "a");
    followed(&cluster, since, &to, "a", "switched over");
    cluster.verify();
}
