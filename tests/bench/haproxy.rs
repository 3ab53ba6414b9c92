//! The gap that a client sees through HAProxy, with the checks of `examples/haproxy/haproxy.cfg` (`inter 100ms fall 1 rise 1`): the holder
//! silent, and a planned switchover. Beside it HAProxy's own floor: two hosts without Baton, the second of which says 200 at the very
//! instant at which the first is lost, or says 503; one event of the one, one of the other.
//!
//! HAProxy asks the two servers one some time after the other, which makes most of a planned gap, and lasts as long as HAProxy. So both
//! start anew for each event. Where in its interval a check is when it happens is chance, on both sides. So the excess is taken between the samples of one rank:
//! the shortest gap over the shortest floor, and so on.

use crate::figure::Figure;
use baton_tests::agreement::Apart;
use baton_tests::balancer::{Balancer, EXAMPLE_NODES};
use baton_tests::case::now;
use baton_tests::cluster::{CLIENT, Cluster};
use baton_tests::fault::Loss;
use baton_tests::namespace::Namespace;
use baton_tests::plan::{HTTP_PORT, Plan};
use baton_tests::through::Client;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(1);
const SILENT_TIMES: usize = 15;
const PLANNED_TIMES: usize = 41;
/// What issue 6 allows over the floor, besides the window if the holder is silent.
const SILENT: Duration = Duration::from_millis(100);
const PLANNED: Duration = Duration::from_millis(30);
/// A question without an answer is given up: HAProxy takes turns with a silent host until its check times out. The floor can be
/// too great by this, and the excess too small.
const PATIENCE: Duration = Duration::from_millis(10);
/// A gap this long is a failure, not a figure.
const HOPELESS: Duration = Duration::from_secs(20);
const PORT: u16 = 8000;
const FLOOR_PORT: u16 = 8001;
/// Hosts without Baton.
const PLAIN: [&str; 2] = ["x", "y"];

/// A host without Baton: its application, and a health check that says 200 while a file is there.
struct Plain {
    application: Balancer,
}

impl Plain {
    fn up(&self) -> PathBuf {
        self.application.file("up")
    }

    fn set(&self, healthy: bool) {
        match healthy {
            true => drop(File::create(self.up()).expect("the temporary directory can be written")),
            false => std::fs::remove_file(self.up()).expect("it was healthy"),
        }
    }
}

struct Stage {
    cluster: Cluster,
    plain: [Plain; 2],
    client: Client,
    floor: Client,
    host: Namespace,
    at: Ipv4Addr,
    /// What stands behind each HAProxy, which listens at that port.
    behind: [(u16, [Ipv4Addr; 2]); 2],
    balancers: Vec<Balancer>,
    /// Kept running.
    _applications: [Balancer; 2],
}

impl Stage {
    fn set() -> Stage {
        let nodes = EXAMPLE_NODES.map(|(name, _)| name);
        let mut cluster = Cluster::in_lab(Plan::members(&nodes).witness("w").window(WINDOW).on_disk());
        let applications = nodes.map(|name| {
            let node = cluster.node(name);
            Balancer::application(&node.namespace, name, node.seat.front)
        });
        let plain = PLAIN.map(|name| {
            let host = cluster.lab().add_host(name);
            let (at, host) = (host.addresses["front"], host.namespace.clone());
            let application = Balancer::plain(&host, name, at, HTTP_PORT);
            Plain { application }
        });
        let (host, at) = {
            let host = cluster.lab().host(CLIENT);
            (host.namespace.clone(), host.addresses["front"])
        };
        let seats = nodes.map(|name| cluster.node(name).seat.front);
        let plain_at: [Ipv4Addr; 2] = PLAIN.map(|name| cluster.lab().host(name).addresses["front"]);
        let behind = [(PORT, seats), (FLOOR_PORT, plain_at)];
        let client = Client::start("HAProxy", &host, (at, PORT).into(), PATIENCE);
        let floor = Client::start("HAProxy without Baton", &host, (at, FLOOR_PORT).into(), PATIENCE);
        plain[0].set(true);
        Stage {
            cluster,
            plain,
            client,
            floor,
            host,
            at,
            behind,
            balancers: Vec::new(),
            _applications: applications,
        }
    }

    /// Both HAProxys anew.
    fn restart(&mut self) {
        self.balancers.clear();
        for (port, nodes) in self.behind {
            let balancer = Balancer::haproxy(&self.host, self.at, port, nodes);
            self.balancers.push(balancer);
        }
    }

    /// One change of the pair without Baton, from the healthy one to the other.
    fn floor(&mut self, silent: bool) -> Duration {
        let from = usize::from(!self.plain[0].up().exists());
        let (from, to) = (from, 1 - from);
        self.floor.await_steady(PLAIN[from], now());
        let since = now();
        // The second is healthy first: cutting off takes some milliseconds, which must not count as HAProxy's.
        self.plain[to].set(true);
        match silent {
            true => self.cluster.lab().lose(PLAIN[from], Loss::all()),
            false => self.plain[from].set(false),
        }
        self.floor.await_steady(PLAIN[to], since);
        let gap = self.floor.gap(since);
        if silent {
            self.plain[from].set(false);
            self.cluster.lab().heal(PLAIN[from]);
        }
        gap
    }

    /// One failover of the cluster.
    fn failover(&mut self, silent: bool) -> Duration {
        let from = self.cluster.settled();
        self.client.await_steady(&from, now());
        let nodes = EXAMPLE_NODES.map(|(name, _)| name);
        let to = if from == nodes[0] { nodes[1] } else { nodes[0] };
        let since = now();
        let apart = [from.as_str()];
        let apart = match silent {
            true => {
                self.cluster.silence(&from);
                Apart::cut_off(&apart)
            }
            false => {
                self.cluster.operate(&from, &["switchover", "--to", to]);
                Apart::NOBODY
            }
        };
        self.cluster.assert_takeover(since, &from, apart, HOPELESS);
        self.client.await_steady(to, since);
        let gap = self.client.gap(since);
        self.cluster.heal(&from);
        gap
    }
}

pub fn measure() -> Vec<Figure> {
    let mut stage = Stage::set();
    let mut figures = Vec::new();
    for (what, silent, times, allowed) in [
        ("silent holder", true, SILENT_TIMES, WINDOW + SILENT),
        ("planned switchover", false, PLANNED_TIMES, PLANNED),
    ] {
        let (mut floors, mut gaps) = (Vec::new(), Vec::new());
        for _ in 0..times {
            stage.restart();
            floors.push(stage.floor(silent));
            gaps.push(stage.failover(silent));
            eprintln!("{what}: floor {:?}, gap {:?}", floors.last(), gaps.last());
        }
        figures.extend([
            Figure::durations(format!("{what} through HAProxy, window {WINDOW:?}"), &gaps, None),
            Figure::durations("  HAProxy's own floor", &floors, None),
            Figure::at_most(
                "  over the floor",
                excess(gaps, floors),
                "ms",
                allowed.as_secs_f64() * 1e3,
            ),
        ]);
    }
    figures
}

/// Milliseconds between the samples of one rank.
fn excess(mut gaps: Vec<Duration>, mut floors: Vec<Duration>) -> Vec<f64> {
    gaps.sort_unstable();
    floors.sort_unstable();
    let pairs = gaps.iter().zip(&floors);
    pairs
        .map(|(gap, floor)| (gap.as_secs_f64() - floor.as_secs_f64()) * 1e3)
        .collect()
}
