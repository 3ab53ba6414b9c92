//! The world: the simulated network and its hosts, what the operator and clients ask of them, and true time.

use super::dice::Dice;
use super::disk::Platter;
use super::invariants::Invariants;
use super::lives::Sabotage;
use super::network::{PORT, Weather};
use super::node::{self, Run, Site};
use super::settings::{NAMES, NETWORKS, config, name, role};
use super::time::SimClock;
use super::trace::Trace;
use crate::addresses::Addresses;
use crate::handle::Message;
use baton_core::{Input, Request};
use baton_shared::id::{Epoch, Kind};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

/// Clocks differ by less than 1 % in rate (S1): each is at most half of that from true time, in millionths.
const MAX_DRIFT: u64 = 4_900;
/// Drift of clocks that are wrong on purpose, in millionths.
const WRONG_DRIFT: i64 = 300_000;
/// How late a packet is at most, in peace.
const LATENCY: Duration = Duration::from_millis(10);

/// What went wrong.
pub(super) type Broken = String;

/// An operator's request under way.
struct Asked {
    at: usize,
    request: Request,
    answer: oneshot::Receiver<Result<String, String>>,
}

/// A client's request to be told who is active, and be sure, under way.
struct Confirmed {
    /// The greatest epoch that was active when it asked.
    greatest: Epoch,
    answer: oneshot::Receiver<Option<Epoch>>,
}

/// The world of one life.
pub(super) struct World {
    sim: turmoil::Sim<'static>,
    pub(super) sites: Vec<Arc<Site>>,
    pub(super) weather: Arc<Weather>,
    pub(super) dice: Dice,
    pub(super) invariants: Invariants,
    /// Which nodes run.
    pub(super) up: Vec<bool>,
    /// From whom no packet arrives at whom: partitions and holds of turmoil's.
    pub(super) deaf: BTreeSet<(usize, usize)>,
    asked: Vec<Asked>,
    confirming: Vec<Confirmed>,
    /// Clients' changes so far.
    changes: u64,
    /// Whether there was a crowd of changes already.
    pub(super) crowded: bool,
    /// Clients are told "done" when they ask: sabotage.
    too_early: bool,
    trace: Trace,
}

impl World {
    /// A cluster whose nodes have just been started.
    pub(super) fn new(kinds: &[Kind], seed: u64, sabotage: Option<Sabotage>, trace: Trace) -> World {
        let dice = Dice::new(seed, "faults");
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .enable_random_order()
            .tick_duration(Duration::from_millis(1))
            .max_message_latency(LATENCY)
            .build();
        let weather = Weather::new(Dice::new(seed, "weather"));
        let ips: Vec<IpAddr> = (0..kinds.len()).map(|n| sim.lookup(NAMES[n])).collect();
        let addresses = Arc::new(Addresses::default());
        let places = |ip: &IpAddr| -> Vec<Option<SocketAddr>> {
            (0..NETWORKS)
                .map(|n| Some(SocketAddr::new(*ip, PORT + n as u16)))
                .collect()
        };
        let table = ips.iter().enumerate().map(|(n, ip)| (name(n), places(ip)));
        addresses.set(table.collect());
        let extremes = dice.one_in(2);
        let mut sites = Vec::new();
        for n in 0..kinds.len() {
            let drift = match extremes {
                true => dice.roll(2) * 2 * MAX_DRIFT,
                false => dice.roll(2 * MAX_DRIFT),
            };
            let drift = match sabotage {
                // The first holder is slow, the voters are fast.
                Some(Sabotage::Clocks) if n == 0 => -WRONG_DRIFT,
                Some(Sabotage::Clocks) => WRONG_DRIFT,
                _ => drift.cast_signed() - MAX_DRIFT.cast_signed(),
            };
            let site = Arc::new(Site {
                config: config(n, kinds, &ips),
                ip: ips[n],
                addresses: addresses.clone(),
                disk: Platter::new(Dice::new(seed, NAMES[n])),
                clock: SimClock::new(drift, dice.up_to(Duration::from_secs(1000))),
                weather: weather.clone(),
                frozen: AtomicU64::new(0),
                run: Mutex::default(),
                answers: Mutex::default(),
            });
            let host = site.clone();
            sim.host(NAMES[n], move || node::run(host.clone()));
            if sabotage == Some(Sabotage::Disks) {
                site.disk.lie();
            }
            sites.push(site);
        }
        let mut invariants = Invariants::new(kinds.len());
        invariants.latency(LATENCY);
        World {
            sim,
            invariants,
            up: vec![true; sites.len()],
            deaf: BTreeSet::new(),
            sites,
            weather,
            dice,
            asked: Vec::new(),
            confirming: Vec::new(),
            changes: 0,
            crowded: false,
            too_early: sabotage == Some(Sabotage::Answers),
            trace,
        }
    }

    /// True time.
    pub(super) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time pass, and checks the invariants at each step of it.
    pub(super) fn run(&mut self, span: Duration) -> Result<(), Broken> {
        let until = self.now() + span;
        while self.now() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time pass until `done`, at most `limit`. False if it was not.
    pub(super) fn until(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> Result<bool, Broken> {
        let until = self.now() + limit;
        while self.now() < until {
            self.step()?;
            if done(self) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.trace.at(self.now());
        self.sim
            .step()
            .map_err(|error| format!("a node failed: {error}"))?;
        self.trace.at(self.now());
        for n in 0..self.sites.len() {
            self.attend(n);
        }
        self.invariants
            .check(self.sim.elapsed(), &self.sites, &self.up, &self.deaf)?;
        self.take_answers()
    }

    /// Sees to a node that has stopped, or whose disk has.
    fn attend(&mut self, n: usize) {
        if self.up[n] && !self.sites[n].disk.powered() {
            tracing::info!(target: "world", "the power fails in the midst of a write");
            self.power_off(n);
        }
        if self.up[n] && !self.sim.is_host_running(NAMES[n]) {
            self.end(n);
            self.sites[n].disk.outlive();
        }
    }

    /// What came of it all.
    pub(super) fn figures(&self) -> String {
        let figures = &self.invariants.figures;
        format!(
            "{:?}, {} takeovers, {} changes acknowledged, {} states compared, {} last words kept, {} confirmed, named for {} \
             ms, silent for {} ms",
            self.now(),
            figures.takeovers,
            self.invariants.acknowledged.len(),
            figures.compared,
            figures.kept,
            figures.confirmed,
            figures.named,
            figures.silences
        )
    }

    /// The present run of a node, if it is up and has begun.
    pub(super) fn node(&self, n: usize) -> Option<Run> {
        self.sites[n].run.lock().unwrap().clone()
    }

    /// The process ends at once; the machine goes on, and says so to whoever has a stream with it.
    pub(super) fn kill(&mut self, n: usize) {
        tracing::info!(target: "world", "{} is killed", name(n));
        let disk = self.sites[n].disk.clone();
        disk.cut_power(); // a process that is gone writes nothing, not even its last words
        self.sim.crash(NAMES[n]);
        disk.outlive();
        self.end(n);
    }

    /// The machine loses power: nobody is told, and what was not synced may be lost or torn.
    pub(super) fn power_off(&mut self, n: usize) {
        tracing::info!(target: "world", "{} loses power", name(n));
        let disk = self.sites[n].disk.clone();
        disk.cut_power();
        for m in (0..self.sites.len()).filter(|m| *m != n) {
            self.sim.partition(NAMES[n], NAMES[m]);
        }
        self.sim.crash(NAMES[n]);
        disk.lose_power();
        self.sites[n]
            .clock
            .set(self.dice.up_to(Duration::from_secs(1000)));
        self.end(n);
        for m in (0..self.sites.len()).filter(|m| *m != n) {
            self.sim.release(NAMES[n], NAMES[m]);
            for (from, to) in [(n, m), (m, n)] {
                if self.deaf.contains(&(from, to)) {
                    self.sim.partition_oneway(NAMES[from], NAMES[to]);
                }
            }
        }
    }

    fn end(&mut self, n: usize) {
        self.up[n] = false;
        self.sites[n].frozen.store(0, Relaxed);
        self.invariants.ended(n);
        *self.sites[n].run.lock().unwrap() = None;
    }

    /// Starts a node again.
    pub(super) fn start(&mut self, n: usize) {
        if self.up[n] {
            return;
        }
        self.up[n] = true;
        self.sim.bounce(NAMES[n]);
    }

    /// An empty disk in place of that of a node that is down.
    pub(super) fn wipe(&mut self, n: usize) {
        tracing::info!(target: "world", "the disk of {} is lost", name(n));
        self.sites[n].disk.wipe();
        self.invariants.wiped(n);
    }

    /// Has a node stop in order.
    pub(super) fn stop(&self, n: usize) {
        if let Some(run) = self.node(n) {
            tracing::info!(target: "world", "{} is told to stop", name(n));
            let _ = run.notices.try_send(Input::Stop { broken: None }.into()); // a full queue: it is not told
        }
    }

    /// Nothing passes from `n` to `m` any more.
    pub(super) fn deafen(&mut self, n: usize, m: usize) {
        if n != m {
            self.sim.partition_oneway(NAMES[n], NAMES[m]);
            self.deaf.insert((n, m));
        }
    }

    /// Nothing passes between two nodes until they are mended, and then all of it.
    pub(super) fn hold(&mut self, n: usize, m: usize) {
        if n != m {
            self.sim.hold(NAMES[n], NAMES[m]);
            self.deaf.insert((n, m));
            self.deaf.insert((m, n));
        }
    }

    /// Everything passes again between two nodes; what was held comes now.
    pub(super) fn mend(&mut self, n: usize, m: usize) {
        if n != m {
            self.sim.release(NAMES[n], NAMES[m]);
            self.deaf.remove(&(n, m));
            self.deaf.remove(&(m, n));
        }
    }

    /// All that passes between nodes passes at once and whole.
    pub(super) fn mend_all(&mut self) {
        for n in 0..self.sites.len() {
            for m in 0..n {
                self.mend(n, m);
            }
        }
        self.weather.clear();
        self.latency(LATENCY);
    }

    /// How late a packet may be.
    pub(super) fn latency(&mut self, most: Duration) {
        self.sim.set_max_message_latency(most);
        self.invariants.latency(most);
    }

    /// The control loop of a node does nothing for so long.
    pub(super) fn freeze(&mut self, n: usize, span: Duration) {
        let until = self.now() + span;
        let nanos = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.sites[n].frozen.store(nanos, Relaxed);
    }

    /// An operator asks a node for something.
    pub(super) fn ask(&mut self, at: usize, request: Request) {
        let Some(run) = self.node(at) else {
            return;
        };
        tracing::info!(target: "world", "{} is asked: {request:?}", name(at));
        let (answer, answered) = oneshot::channel();
        let message = Message::Ask {
            request: request.clone(),
            answer,
        };
        if run.messages.try_send(message).is_ok() {
            self.invariants.asked(&request);
            self.asked.push(Asked {
                at,
                request,
                answer: answered,
            });
        }
    }

    /// A client asks a node for a change that nothing undoes. Its number.
    pub(super) fn change(&mut self, at: usize) -> Option<u64> {
        let run = self.node(at)?;
        self.changes += 1;
        run.changes.send(self.changes).ok()?;
        if self.too_early {
            self.invariants.acknowledged(self.changes);
        }
        Some(self.changes)
    }

    /// Whether every request was answered.
    pub(super) fn idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// A client asks a node whether it is active, and wants to be sure.
    pub(super) fn confirm(&mut self, at: usize) {
        let Some(run) = self.node(at) else {
            return;
        };
        let (answer, answered) = oneshot::channel();
        let message = Message::Confirm { role: role(), answer };
        if run.messages.try_send(message).is_ok() {
            self.confirming.push(Confirmed {
                greatest: self.invariants.greatest(),
                answer: answered,
            });
        }
    }

    fn take_answers(&mut self) -> Result<(), Broken> {
        for (n, site) in self.sites.iter().enumerate() {
            for (number, answer) in site.answers.lock().unwrap().drain(..) {
                tracing::debug!(target: "world", "{} answers change {number}: {answer:?}", name(n));
                if answer.is_ok() {
                    self.invariants.acknowledged(number);
                }
            }
        }
        let invariants = &mut self.invariants;
        let mut end = Ok(());
        self.confirming.retain_mut(|asked| match asked.answer.try_recv() {
            Ok(Some(epoch)) => {
                end = end.clone().and(invariants.confirmed(epoch, asked.greatest));
                false
            }
            Ok(None) | Err(oneshot::error::TryRecvError::Closed) => false,
            Err(oneshot::error::TryRecvError::Empty) => true,
        });
        self.asked.retain_mut(|asked| match asked.answer.try_recv() {
            Ok(answer) => {
                tracing::info!(target: "world", "{} answers {:?}: {answer:?}", name(asked.at), asked.request);
                invariants.answered(&asked.request, answer.is_ok());
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => {
                invariants.answered(&asked.request, false);
                false
            }
        });
        end
    }
}
