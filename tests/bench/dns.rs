//! Our name server in the real agent beside BIND, Knot, NSD and gdnsd, each alone on one core while the load generator
//! has the other; one round after another within the same minute, so that what the machine does besides strikes all.
//!
//! Rounds of floods find each server's greatest rate and its processor time per answer. Rounds at half of that rate find
//! its latency: more of them and shorter, since one disturbance of some milliseconds makes a second's 99th percentile. Ours is asked at
//! half of Knot's rate, too, next to Knot. Ratios are made within a round, and each round begins with another server.

use crate::NAMES;
use crate::figure::Figure;
use crate::rest::resident;
use baton_tests::cluster::Cluster;
use baton_tests::cores::{keep_to, on_core, used};
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::load::{Paced, flood, pace, question};
use baton_tests::nameserver::{Nameserver, Program, ZoneFile, place};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{Plan, ZONE};
use baton_tests::process::children;
use baton_tests::watch::Watch;
use std::net::SocketAddr;
use std::time::Duration;

/// Cores of the server and of the load.
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const ROUNDS: usize = 7;
const FLOOD: Duration = Duration::from_millis(1_000);
const PACED_ROUNDS: usize = 31;
const PACED: Duration = Duration::from_millis(400);
const SETTLE: Duration = Duration::from_secs(3);

/// Of issue 5: answers per second, in parts of another's.
const RATE_OF_BIND: f64 = 1.8;
const RATE_OF_GDNSD: f64 = 0.9;
/// Processor time per answer, in parts of gdnsd's.
const COST_OF_GDNSD: f64 = 1.1;
/// What the name server may add to an agent.
const RESIDENT_TARGET: f64 = 2.0;

/// A server under load.
struct Contender {
    what: String,
    address: SocketAddr,
    /// Its processes.
    ids: Vec<u32>,
    rates: Vec<f64>,
    /// Microseconds.
    costs: Vec<f64>,
    /// Share of its core that the flood used, of 1.
    shares: Vec<f64>,
    medians: Vec<Duration>,
    tails: Vec<Duration>,
}

impl Contender {
    fn new(what: &str, address: SocketAddr, ids: Vec<u32>) -> Contender {
        Contender {
            what: what.to_owned(),
            address,
            ids,
            rates: Vec::new(),
            costs: Vec::new(),
            shares: Vec::new(),
            medians: Vec::new(),
            tails: Vec::new(),
        }
    }

    fn used(&self) -> f64 {
        self.ids.iter().map(|id| used(*id)).sum()
    }

    fn flood(&mut self, host: &Namespace, questions: &[Vec<u8>]) {
        let before = self.used();
        let flooded = loaded(host, || flood(self.address, questions, FLOOD));
        let spent = self.used() - before;
        self.rates.push(flooded.rate());
        self.costs.push(spent * 1e6 / flooded.answered as f64);
        self.shares.push(spent / flooded.elapsed.as_secs_f64());
        eprintln!(
            "{:<8} {:>7.0}/s  {:>5.2} us each, {:>3.0} % of a core, {} lost",
            self.what,
            flooded.rate(),
            spent * 1e6 / flooded.answered as f64,
            spent / flooded.elapsed.as_secs_f64() * 100.0,
            flooded.lost
        );
    }

    /// Half of what it can.
    fn half(&self) -> f64 {
        median(self.rates.clone()) / 2.0
    }

    fn pace(&self, host: &Namespace, questions: &[Vec<u8>], rate: f64) -> Paced {
        let paced = loaded(host, || pace(self.address, questions, rate, PACED));
        eprintln!(
            "{:<8} {rate:>7.0}/s p50 {:?} p99 {:?}, {} lost",
            self.what,
            paced.quantile(0.5),
            paced.quantile(0.99),
            paced.lost
        );
        paced
    }
}

/// Latencies of the first and the second at one load, round by round.
#[derive(Default)]
struct Beside {
    ours: Vec<Duration>,
    theirs: Vec<Duration>,
}

pub fn measure() -> Vec<Figure> {
    // On a machine that does other things too, both cores belong to this session while it measures (sched(7), autogroups).
    let _ = std::fs::write("/proc/self/autogroup", "-20"); // without the right to it, or autogroups, the figures are noisier
    let mut cluster = Cluster::in_lab(Plan::members(&NAMES).name_servers(""));
    cluster.place("a");
    cluster.watch = Watch::default(); // the pollers end here
    let host = cluster.node("a").namespace.clone();
    let zone = zone_file(&cluster);
    let agents = NAMES.map(|name| cluster.process(name).agent().expect("the agent runs"));
    // The others stand for other machines.
    for (agent, core) in agents.iter().zip([SERVER_CORE, LOAD_CORE, LOAD_CORE]) {
        keep_to(*agent, &[core]);
    }
    let agent = agents[0];
    let others: Vec<Nameserver> = (11..)
        .zip(Program::AUTHORITATIVE)
        .map(|(number, program)| {
            let pinned = ["taskset", "--cpu-list", &SERVER_CORE.to_string()];
            Nameserver::authoritative_through(&pinned, program, &host, place(&host, number), &zone)
        })
        .collect();
    let mut contenders = vec![Contender::new("Baton", cluster.node("a").dns, vec![agent])];
    contenders.extend(others.iter().map(|other| {
        let name = other.program.to_string();
        Contender::new(&name, other.address, family(other.id()))
    }));
    let questions = [
        question(ZONE, 1),
        question(&format!("main.{ZONE}"), 1),
        question(&format!("a.node.{ZONE}"), 1),
        question(ZONE, 28),
    ];
    let count = contenders.len();
    for first in 0..ROUNDS {
        for n in 0..count {
            contenders[(first + n) % count].flood(&host, &questions);
        }
    }
    let knot = place_of(&contenders, Program::Knot);
    let halves: Vec<f64> = contenders.iter().map(Contender::half).collect();
    let mut beside = Beside::default();
    for first in 0..PACED_ROUNDS {
        for n in 0..count {
            let at = (first + n) % count;
            let contender = &mut contenders[at];
            let paced = contender.pace(&host, &questions, halves[at]);
            contender.medians.push(paced.quantile(0.5));
            contender.tails.push(paced.quantile(0.99));
            if at == knot {
                let ours = contenders[0].pace(&host, &questions, halves[knot]);
                beside.ours.push(ours.quantile(0.99));
                beside.theirs.push(paced.quantile(0.99));
            }
        }
    }
    let mut figures = figures(&contenders, &beside);
    figures.push(growth(&cluster));
    figures
}

fn place_of(contenders: &[Contender], program: Program) -> usize {
    let found = contenders.iter().position(|c| c.what == program.to_string());
    found.expect("all of them are measured")
}

fn figures(contenders: &[Contender], beside: &Beside) -> Vec<Figure> {
    let mut figures = Vec::new();
    for contender in contenders {
        let what = &contender.what;
        figures.push(Figure::amounts(
            format!("DNS {what}, one core, full load"),
            contender.rates.clone(),
            "answers/s",
        ));
        let used = contender.shares.iter().map(|share| share * 100.0).collect();
        figures.push(Figure::amounts(format!("  {what}, of its core"), used, "%"));
        figures.push(Figure::amounts(
            format!("  {what}, processor time"),
            contender.costs.clone(),
            "us/answer",
        ));
        figures.push(Figure::durations(
            format!("  {what}, half load, p50"),
            &contender.medians,
            None,
        ));
        figures.push(Figure::durations(
            format!("  {what}, half load, p99"),
            &contender.tails,
            None,
        ));
    }
    let of = |program| &contenders[place_of(contenders, program)];
    let (ours, bind, gdnsd, knot) = (
        &contenders[0],
        of(Program::Bind),
        of(Program::Gdnsd),
        of(Program::Knot),
    );
    let ratios = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(a, b)| a / b).collect();
    let seconds = |all: &[Duration]| all.iter().map(Duration::as_secs_f64).collect::<Vec<_>>();
    figures.extend([
        Figure::at_least(
            "DNS rate, of BIND's",
            ratios(&ours.rates, &bind.rates),
            "x",
            RATE_OF_BIND,
        ),
        Figure::at_least(
            "DNS rate, of gdnsd's",
            ratios(&ours.rates, &gdnsd.rates),
            "x",
            RATE_OF_GDNSD,
        ),
        Figure::at_most(
            "DNS processor time, of gdnsd's",
            ratios(&ours.costs, &gdnsd.costs),
            "x",
            COST_OF_GDNSD,
        ),
        Figure::at_most(
            "DNS p99, of Knot's, both at half of what Knot can",
            ratios(&seconds(&beside.ours), &seconds(&beside.theirs)),
            "x",
            1.0,
        ),
        Figure::at_most(
            "DNS p99, of Knot's, each at half of what it can",
            ratios(&seconds(&ours.tails), &seconds(&knot.tails)),
            "x",
            1.0,
        ),
    ]);
    figures
}

/// What the name server adds to an agent, after the floods, over agents that have none.
fn growth(flooded: &Cluster) -> Figure {
    let mut nameless = Cluster::in_lab(Plan::members(&NAMES).nameless());
    until(GENEROUS, "somebody is active", || {
        let status = nameless.status(NAMES[0])?;
        let role = status.roles.first().ok_or("a status without roles")?;
        role.active
            .as_ref()
            .map(|_| ())
            .ok_or_else(|| role.reason.clone())
    });
    nameless.watch = Watch::default();
    hold(SETTLE);
    let size = |cluster: &Cluster, name: &str| {
        let agent = cluster.process(name).agent().expect("the agent runs");
        resident(agent)
    };
    // One by one: the active node was asked most.
    let growths = NAMES.map(|name| size(flooded, name) - size(&nameless, name));
    Figure::at_most(
        "resident size, for [dns]",
        growths.to_vec(),
        "MB",
        RESIDENT_TARGET,
    )
}

/// The cluster's records that are asked for, as other servers read them.
fn zone_file(cluster: &Cluster) -> ZoneFile {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL 1\n@ IN SOA a.node hostmaster 1 5 2 30 1\n\
         @ IN NS a.node\n@ IN NS b.node\n@ IN NS c.node\n"
    );
    let active = cluster.node("a").seat.front;
    text += &format!("@ IN A {active}\nmain IN A {active}\n");
    for name in NAMES {
        text += &format!("{name}.node IN A {}\n", cluster.node(name).seat.front);
    }
    ZoneFile {
        name: ZONE.to_owned(),
        text,
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A process and all below it.
fn family(id: u32) -> Vec<u32> {
    let mut all = vec![id];
    all.extend(children(id).into_iter().flat_map(family));
    all
}

/// Runs the load on its core, on the server's host.
fn loaded<T: Send>(host: &Namespace, load: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    on_core(LOAD_CORE, host, load).expect("loopback takes the load")
}
