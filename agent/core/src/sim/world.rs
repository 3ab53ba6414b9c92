//! The machine room: nodes with real cores, each with a clock, a disk, an application and an inbox; networks between them.
//!
//! Time is a number. Events happen in the order of their instants, those of one instant in the order in which they were
//! made, and every draw comes from one stream: the same life gives the same events, to the last byte.

use super::MS;
use super::dice::Dice;
use super::invariants::{Invariants, Violation};
use super::log::Log;
use crate::broken::{Rule, is};
use crate::input::Action;
use crate::output::{Durable, EngineChange, GuardChange};
use crate::state::State;
use crate::{Command, Core, Input, Output, Request};
use baton_shared::clock::Mono;
use baton_shared::config::{Cluster, Config, Host, Network, Node, Role};
use baton_shared::guard::Guard;
use baton_shared::id::{
    Boot, ClusterId, ClusterName, Epoch, Kind, NetworkName, NodeId, NodeName, Owner, RoleName,
};
use baton_shared::key::ClusterKey;
use baton_shared::seal::Header;
use baton_shared::view::View;
use baton_shared::wire::Heartbeat;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// When the world begins, in its own time.
pub(super) const BEGINNING: u64 = 1_000_000 * MS;
/// Datagrams that one node sends in a tenth of a second at most: usual are eight to thirty-two.
const MOST_SENT: u64 = 4_000;
/// Hours, in nanoseconds: what is further away is no matter of this world.
const FAR: i128 = 9_000_000_000_000;
/// Lines of the log kept.
const LINES_KEPT: usize = 4_000;

/// What an application does for one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    /// Nothing.
    Passive,
    /// It acts, or is about to, at this epoch.
    Acting(Epoch),
    /// It is being stopped, and may still act.
    Stopping(Epoch),
}

/// One machine.
pub(super) struct Machine {
    pub name: NodeName,
    pub id: NodeId,
    pub boot: u64,
    pub up: bool,
    pub core: Option<Box<Core>>,
    pub frozen: bool,
    pub config: Arc<Config>,
    pub guards: BTreeMap<RoleName, Guard>,
    pub apps: BTreeMap<RoleName, App>,
    pub disk: Durable,
    pub view: Option<View>,
    pub cluster: ClusterId,
    pub healthy: BTreeMap<RoleName, bool>,
    /// Since when, in true time, it must not be put in line for a role; `None` while it may be.
    pub unfit_since: BTreeMap<RoleName, u64>,
    pub stopped: bool,
    pub leaving: bool,
    /// The log's news does not reach it, nor do its proposals reach the leader.
    pub log_cut: bool,
    /// A node takes up to so long over one input.
    pub slow: Duration,
    buffered: Vec<Input>,
    /// Its clock showed the second at the instant of true time in the first, and runs so many millionths faster.
    clock: (u64, u64),
    pub drift_ppm: i64,
    /// What the flush thread writes now, and what it writes next: as in the agent, the newest replaces what waits.
    writing: Option<(u64, Durable)>,
    to_write: Option<(u64, Durable)>,
    /// The log's state as applied here: on disk, so that a restarted node begins with it.
    pub applied: Option<(Arc<State>, u64)>,
    /// What it has not handled yet, and the instant of true time before which it handles nothing.
    inbox: VecDeque<Input>,
    busy_until: u64,
    /// Until then, in true time, it may be behind with its news: it was frozen, or is slow.
    pub behind_until: u64,
    /// The clock as its loop last read it before it received.
    read: Mono,
    /// How often in a row it asked to be woken at once.
    spins: u64,
    /// In which tenth of a second it sent how many datagrams.
    sent: (u64, u64),
    tick: Option<u64>,
}

impl Machine {
    /// This run of it.
    pub fn owner(&self) -> Owner {
        Owner {
            node: self.id,
            boot: Boot(self.boot),
        }
    }

    /// Its clock at an instant of true time.
    pub fn clock(&self, now: u64) -> Mono {
        let (at, shown) = self.clock;
        let passed = now as i64 - at as i64;
        Mono((shown as i64 + passed + passed * self.drift_ppm / 1_000_000) as u64)
    }

    /// The first instant of true time at which its clock shows `at`; far away for what is more than hours ahead.
    pub fn true_time(&self, at: Mono) -> u64 {
        let (then, shown) = self.clock;
        let passed = (i128::from(at.0) - i128::from(shown)).clamp(-FAR, FAR) as i64;
        let rate = 1_000_000 + self.drift_ppm;
        let true_passed = (passed * 1_000_000 + rate - 1).div_euclid(rate);
        (then as i64 + true_passed).max(0) as u64
    }

    /// What its face answers when asked whether it is active.
    pub fn active(&self, role: &RoleName, now: u64) -> Option<Epoch> {
        let guard = self.guards.get(role).filter(|_| self.up)?;
        if is(Rule::CachedFlag) {
            let (epoch, until) = guard.read();
            return (until > Mono::ZERO).then_some(epoch);
        }
        guard.active(self.clock(now))
    }
}

enum What {
    To(usize, u64, Input),
    Flushed(usize, u64),
    Ready(usize, u64),
    Elect,
}

/// A whole cluster.
pub(super) struct World {
    /// True time, nanoseconds.
    pub now: u64,
    pub nodes: Vec<Machine>,
    /// The configuration that nodes are started with.
    pub config: Config,
    pub log: Log,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    what: BTreeMap<u64, What>,
    count: u64,
    /// (from, to, network) that loses everything.
    pub cut: BTreeSet<(usize, usize, usize)>,
    /// Share of datagrams lost, in percent.
    pub loss: u64,
    /// Share of datagrams that come twice, in percent; the copy is late.
    pub twice: u64,
    /// Datagrams take up to so much longer, and overtake each other.
    pub late: Duration,
    /// Share of the log's news that does not reach a node until there is more, in percent.
    pub lag: u64,
    /// Lines and records that are proposed get no answer: the log takes its time.
    pub no_lines: bool,
    /// A flush takes at least so long; and up to so much longer.
    pub flush: Duration,
    pub flush_late: Duration,
    /// An application takes so long to start or to stop.
    pub action: Duration,
    pub dice: Dice,
    pub answers: Vec<(u64, Result<String, String>)>,
    /// Confirmations asked for: the id, which node, which role, and the greatest epoch active until then.
    pub confirms: Vec<(u64, usize, RoleName, Epoch)>,
    lines: VecDeque<String>,
    invariants: Option<Box<Invariants>>,
    /// The first invariant that failed. Nothing happens after it.
    pub violation: Option<Violation>,
    /// Events handled.
    pub handled: u64,
}

/// The role that every cluster has.
pub(super) fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

/// Node `n` is called by its letter.
pub(super) fn name(n: usize) -> NodeName {
    NodeName::new(&((b'a' + n as u8) as char).to_string()).unwrap()
}

/// A configuration of these nodes, seen from the first.
pub(super) fn config(nodes: &[(usize, Kind)], networks: usize, roles: usize, window: Duration) -> Config {
    let networks: Vec<Network> = ["front", "back"][..networks]
        .iter()
        .map(|n| Network {
            name: NetworkName::new(n).unwrap(),
            port: 7400,
            interface: None,
        })
        .collect();
    let host = |net: usize, n: usize| Some(Host::Ip([10, 0, net as u8, n as u8 + 1].into()));
    let nodes = nodes.iter().map(|(n, kind)| {
        let addresses: Vec<_> = (0..networks.len()).map(|net| host(net, *n)).collect();
        let serves = vec![addresses[0].clone().unwrap()];
        let node = Node {
            kind: *kind,
            addresses,
            serves,
            priority: 0,
        };
        (name(*n), node)
    });
    let roles = ["main", "other"][..roles]
        .iter()
        .map(|role| (RoleName::new(role).unwrap(), Role::default()));
    Config {
        me: name(0),
        cluster: Cluster {
            name: ClusterName::new("test").unwrap(),
            window,
            key: ClusterKey::from_bytes([1; 32]),
            join_wait: Duration::from_secs(30),
            join_exit: false,
            preempt_after: None,
        },
        nodes: nodes.collect(),
        networks,
        storage: None,
        roles: roles.collect(),
        http: None,
        control: None,
        dns: None,
    }
}

/// A configuration of nodes of these kinds on two networks, with the role `main`.
pub(crate) fn config_of(kinds: &[Kind], window: Duration) -> Config {
    let nodes: Vec<_> = kinds.iter().copied().enumerate().collect();
    config(&nodes, 2, 1, window)
}

impl World {
    /// Begins with the nodes of a configuration, all of them started.
    pub fn new(config: Config, seed: u64) -> World {
        let count = config.nodes.len();
        let mut world = World {
            now: BEGINNING,
            nodes: Vec::new(),
            config,
            log: Log::default(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            count: 0,
            cut: BTreeSet::new(),
            loss: 0,
            twice: 0,
            late: Duration::ZERO,
            lag: 0,
            no_lines: false,
            flush: Duration::from_millis(2),
            flush_late: Duration::ZERO,
            action: Duration::from_millis(1),
            dice: Dice::new(seed ^ 0x5EED),
            answers: Vec::new(),
            confirms: Vec::new(),
            lines: VecDeque::new(),
            invariants: Some(Box::default()),
            violation: None,
            handled: 0,
        };
        for n in 0..count {
            world.add(n);
            world.start(n);
        }
        world
    }

    /// A new machine, not started.
    pub fn add(&mut self, n: usize) {
        let roles: Vec<RoleName> = self.config.roles.keys().cloned().collect();
        let shown = self.now + (n as u64 + 1) * 777_777 * MS;
        self.nodes.push(Machine {
            name: name(n),
            id: NodeId(100 + n as u64),
            boot: 0,
            up: false,
            core: None,
            frozen: false,
            config: Arc::new(self.config.clone()),
            guards: BTreeMap::new(),
            apps: BTreeMap::new(),
            disk: Durable::default(),
            view: None,
            cluster: ClusterId(0),
            healthy: roles.iter().map(|role| (role.clone(), true)).collect(),
            unfit_since: roles.iter().map(|role| (role.clone(), self.now)).collect(),
            stopped: false,
            leaving: false,
            log_cut: false,
            slow: Duration::ZERO,
            buffered: Vec::new(),
            clock: (self.now, shown),
            drift_ppm: 0,
            writing: None,
            to_write: None,
            applied: None,
            inbox: VecDeque::new(),
            busy_until: 0,
            behind_until: 0,
            read: Mono::ZERO,
            spins: 0,
            sent: (0, 0),
            tick: None,
        });
    }

    pub fn roles(&self) -> Vec<RoleName> {
        self.config.roles.keys().cloned().collect()
    }

    /// Whether the node is in the configuration.
    pub fn configured(&self, n: usize) -> bool {
        self.config.nodes.contains_key(&name(n))
    }

    /// The places of the configured nodes.
    pub fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.configured(*n)).collect()
    }

    pub fn start(&mut self, n: usize) {
        let mut config = self.config.clone();
        config.me = name(n);
        let config = Arc::new(config);
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        machine.boot += 1;
        (machine.stopped, machine.leaving, machine.up, machine.frozen) = (false, false, true, false);
        machine.guards = config
            .roles
            .keys()
            .map(|r| (r.clone(), Guard::default()))
            .collect();
        machine.apps = config.roles.keys().map(|r| (r.clone(), App::Passive)).collect();
        machine.config = config.clone();
        let start = crate::Start {
            config,
            id: machine.id,
            boot: Boot(machine.boot),
            cluster: machine.cluster,
            durable: machine.disk.clone(),
        };
        machine.core = Some(Box::new(Core::new(start, now)));
        (machine.busy_until, machine.tick, machine.spins) = (0, None, 0);
        machine.inbox.clear();
        let applied = machine.applied.clone();
        self.fitness(n);
        self.say(n, || "started".into());
        self.give(n, Input::Tick);
        for role in self.roles() {
            let healthy = self.nodes[n].healthy[&role];
            self.give(n, health(role, healthy));
        }
        if let Some((state, applied)) = applied {
            self.to(n, MS, Input::Learned { state, applied });
        }
        self.elect_later();
        self.replicate();
    }

    /// The process ends without a word. `notice`: its parent fences the application, and says so to everybody.
    pub fn kill(&mut self, n: usize, notice: bool) {
        // What was being written may be on the disk or not; what waited is not.
        let torn = self.dice.roll(2) == 0;
        let was_up = self.nodes[n].up;
        let machine = &mut self.nodes[n];
        if let Some((_, durable)) = machine.writing.take().filter(|_| torn) {
            machine.disk = durable;
        }
        machine.to_write = None;
        machine.core = None;
        machine.up = false;
        machine.frozen = false;
        machine.apps.clear();
        machine.guards.values().for_each(Guard::shut);
        machine.buffered.clear();
        let owner = machine.owner();
        self.fitness(n);
        self.say(n, || "killed".into());
        if was_up && notice {
            self.notice(n, owner);
        }
        self.elect_later();
    }

    /// A death notice on every network: late, lost, and more than once.
    fn notice(&mut self, n: usize, owner: Owner) {
        self.invariants_mut().died(owner);
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            for network in 0..self.config.networks.len() {
                for copy in 0..3 {
                    if !self.lost(n, other, network) {
                        let delay = self.delay() + copy * 20 * MS;
                        self.to(other, delay, Input::Dead(owner));
                    }
                }
            }
        }
    }

    /// The data directory is lost.
    pub fn wipe(&mut self, n: usize) {
        self.kill(n, false);
        self.say(n, || "its disk is lost".into());
        let machine = &mut self.nodes[n];
        if !is(Rule::WipedKeepsId) {
            machine.id = NodeId(machine.id.0 + 1000);
        }
        machine.boot += 10;
        machine.disk = Durable::default();
        machine.applied = None;
        machine.cluster = ClusterId(0);
    }

    /// Whether the log's voters, and every set of the electorate, keep a majority of nodes with their disks without these.
    pub fn majority_without(&self, gone: impl Fn(usize) -> bool) -> bool {
        let kept = |id: NodeId| {
            (0..self.nodes.len()).any(|m| self.nodes[m].id == id && self.configured(m) && !gone(m))
        };
        let engine = self.log.voters.iter().filter(|id| kept(**id)).count();
        engine > self.log.voters.len() / 2 && self.log.state().electorate.majority(kept)
    }

    pub fn freeze(&mut self, n: usize) {
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        (machine.frozen, machine.read) = (true, now);
        self.say(n, || "frozen".into());
        self.elect_later();
    }

    pub fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        self.nodes[n].behind_until = self.now + 1000 * MS;
        self.say(n, || "thawed".into());
        for input in std::mem::take(&mut self.nodes[n].buffered) {
            self.give(n, input);
        }
        self.give(n, Input::Tick);
    }

    /// The hypervisor stops the machine, and its clock with it: outside of what S1 assumes.
    pub fn pause_machine(&mut self, n: usize, d: Duration) {
        let shown = self.clock(n);
        self.freeze(n);
        self.run(d);
        self.nodes[n].clock = (self.now, shown.0);
        if self.nodes[n].up {
            self.thaw(n);
        }
    }

    /// Loses everything between `n` and everybody, on these networks.
    pub fn silence(&mut self, n: usize, networks: &[usize]) {
        self.one_way(n, networks, true, true);
    }

    pub fn one_way(&mut self, n: usize, networks: &[usize], outgoing: bool, incoming: bool) {
        for other in 0..self.nodes.len() {
            for network in networks {
                if outgoing {
                    self.cut.insert((n, other, *network));
                }
                if incoming {
                    self.cut.insert((other, n, *network));
                }
            }
        }
        self.elect_later();
    }

    /// Cuts the two apart, on every network.
    pub fn part(&mut self, a: usize, b: usize) {
        for network in 0..self.config.networks.len() {
            self.cut.extend([(a, b, network), (b, a, network)]);
        }
        self.elect_later();
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        (self.loss, self.twice, self.lag) = (0, 0, 0);
        (self.late, self.flush_late) = (Duration::ZERO, Duration::ZERO);
        self.no_lines = false;
        for node in &mut self.nodes {
            (node.log_cut, node.slow) = (false, Duration::ZERO);
        }
        self.elect_later();
        self.replicate();
    }

    /// Every running node that is in the new configuration reads it.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        for n in self.members() {
            let mut config = self.config.clone();
            config.me = name(n);
            if self.nodes.get(n).is_some_and(|m| m.core.is_some()) {
                self.nodes[n].config = Arc::new(config.clone());
                self.give(n, Input::Configured(Arc::new(config)));
            }
        }
    }

    pub fn stop(&mut self, n: usize) {
        if self.nodes[n].up {
            self.nodes[n].leaving = true;
            self.fitness(n);
            self.give(n, Input::Stop);
        }
    }

    pub fn ask(&mut self, n: usize, request: Request) {
        let id = self.count;
        self.give(n, Input::Ask { id, request });
    }

    /// A face in `confirm` mode is asked.
    pub fn ask_confirmation(&mut self, n: usize, role: RoleName) {
        self.count += 1;
        let id = self.count;
        let before = self.invariants().greatest(&role);
        self.confirms.push((id, n, role.clone(), before));
        self.give(n, Input::Confirm { id, role });
    }

    pub fn set_health(&mut self, n: usize, role: &RoleName, healthy: bool) {
        self.nodes[n].healthy.insert(role.clone(), healthy);
        self.fitness(n);
        self.give(n, health(role.clone(), healthy));
    }

    pub fn set_drift(&mut self, n: usize, ppm: i64) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        machine.clock = (now, machine.clock(now).0);
        machine.drift_ppm = ppm;
    }

    /// Notes since when the node must not be put in line.
    fn fitness(&mut self, n: usize) {
        let now = self.now;
        let machine = &mut self.nodes[n];
        for (role, healthy) in &machine.healthy {
            if *healthy && machine.up && !machine.leaving {
                machine.unfit_since.remove(role);
            } else {
                machine.unfit_since.entry(role.clone()).or_insert(now);
            }
        }
    }

    pub fn clock(&self, n: usize) -> Mono {
        self.nodes[n].clock(self.now)
    }

    /// Who is active for a role in true time.
    pub fn active(&self, role: &RoleName) -> Vec<(usize, Epoch)> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter_map(|(n, m)| Some((n, m.active(role, self.now)?)))
            .collect()
    }

    /// Who is active for the role `main`.
    pub fn active_now(&self) -> Vec<(usize, Epoch)> {
        self.active(&role())
    }

    /// Every span in which a node was active for the role `main`: (from, to, node, epoch).
    pub fn spans(&self) -> &[(u64, u64, usize, Epoch)] {
        self.invariants().spans(&role())
    }

    /// Runs for so long, or until an invariant fails.
    pub fn run(&mut self, d: Duration) {
        let end = self.now + d.as_nanos() as u64;
        while self.violation.is_none()
            && let Some(Reverse((at, number))) = self.events.peek().copied()
        {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = self.now.max(at);
            self.handled += 1;
            match self.what.remove(&number) {
                Some(What::To(n, boot, input)) if self.nodes[n].boot == boot => self.arrive(n, input),
                Some(What::Ready(n, boot)) if self.nodes[n].boot == boot => self.ready(n),
                Some(What::Flushed(n, boot)) if self.nodes[n].boot == boot => self.flushed(n),
                Some(What::Elect) => self.elect(),
                _ => {}
            }
        }
        if self.violation.is_none() {
            self.now = end;
            self.check();
        }
    }

    fn at(&mut self, delay: u64, what: What) {
        self.count += 1;
        self.events.push(Reverse((self.now + delay, self.count)));
        self.what.insert(self.count, what);
    }

    fn to(&mut self, n: usize, delay: u64, input: Input) {
        let boot = self.nodes[n].boot;
        self.at(delay, What::To(n, boot, input));
    }

    /// Hands an input over when the node has time for it.
    fn arrive(&mut self, n: usize, input: Input) {
        if let Input::ActionDone { role, epoch, .. } = &input
            && self.nodes[n].apps.get(role) == Some(&App::Stopping(*epoch))
        {
            self.nodes[n].apps.insert(role.clone(), App::Passive);
        }
        if self.nodes[n].frozen {
            return self.give(n, input);
        }
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        machine.inbox.push_back(input);
        if machine.inbox.len() == 1 {
            machine.read = now;
            self.ready(n);
        }
    }

    /// Takes the next input that waits, and is busy with it.
    fn ready(&mut self, n: usize) {
        loop {
            let (busy, boot) = (self.nodes[n].busy_until, self.nodes[n].boot);
            if busy > self.now {
                return self.at(busy - self.now, What::Ready(n, boot));
            }
            let Some(input) = self.nodes[n].inbox.pop_front() else {
                return;
            };
            let slow = self.nodes[n].slow;
            if slow > Duration::ZERO {
                self.nodes[n].busy_until = self.now + self.dice.up_to(slow);
                self.nodes[n].behind_until = self.now + 1000 * MS;
            }
            self.give(n, input);
            if self.nodes[n].inbox.is_empty() {
                return;
            }
        }
    }

    fn give(&mut self, n: usize, input: Input) {
        if self.violation.is_some() {
            return;
        }
        if let Input::Learned { state, applied } = &input {
            let known = &mut self.nodes[n].applied;
            if known.as_ref().is_some_and(|(_, index)| index > applied) {
                return; // logs only grow
            }
            *known = Some((state.clone(), *applied));
        }
        let mut now = self.clock(n);
        let machine = &mut self.nodes[n];
        if machine.frozen {
            if !matches!(input, Input::Tick) {
                machine.buffered.push(input);
            }
            return;
        }
        let Some(mut core) = machine.core.take() else {
            return;
        };
        if is(Rule::ClockBeforeReceive) && matches!(input, Input::Heartbeat { .. }) {
            now = machine.read;
        }
        if let Input::Heartbeat {
            header, heartbeat, ..
        } = &input
            && let Some(invariants) = &mut self.invariants
        {
            invariants.heard(machine, header, heartbeat);
        }
        core.handle(input, now, self.now / MS);
        self.nodes[n].core = Some(core);
        self.with_invariants(|invariants, world| invariants.handled(world, n));
        while let Some(output) = self.nodes[n].core.as_mut().and_then(|core| core.poll_output()) {
            self.act(n, output);
        }
        self.with_invariants(|invariants, world| invariants.acted(world, n));
        self.check();
        self.wake(n);
    }

    /// Sees to it that the node is woken when its core wants to be.
    fn wake(&mut self, n: usize) {
        let machine = &mut self.nodes[n];
        let Some(core) = &machine.core else { return };
        let due = machine.true_time(core.next_wake());
        // A core that wants to be woken at once, again and again, would spin.
        machine.spins = if due <= self.now { machine.spins + 1 } else { 0 };
        if machine.spins >= 20 {
            let state = core.view(machine.clock(self.now)).roles[0].state;
            let text = format!(
                "{} asks for a tick that it does not use ({state:?})",
                machine.name
            );
            return self.fail("bounded", text);
        }
        let wake = due.max(self.now + MS / 20);
        if machine.tick.is_none_or(|at| at <= self.now || at > wake) {
            machine.tick = Some(wake);
            self.to(n, wake - self.now, Input::Tick);
        }
    }

    fn act(&mut self, n: usize, output: Output) {
        match output {
            Output::Send {
                network,
                to,
                seq,
                heartbeat,
            } => self.send(n, network, &to, seq, heartbeat),
            Output::Persist { token, durable } => {
                self.nodes[n].to_write = Some((token, durable));
                self.write(n);
            }
            Output::Guard { role, change } => {
                let Some(guard) = self.nodes[n].guards.get(&role) else {
                    return;
                };
                match change {
                    GuardChange::Open { epoch, until } => guard.open(epoch, until),
                    GuardChange::Shut => guard.shut(),
                    GuardChange::Close(epoch) => guard.close(epoch),
                }
                self.with_invariants(|invariants, world| invariants.guard(world, n, &role, change));
                self.check();
            }
            Output::Run {
                role, epoch, action, ..
            } => self.run_action(n, role, epoch, action),
            Output::Propose { token, command } => self.propose(n, token, &command),
            Output::Engine(change) => self.engine(n, change),
            Output::Bootstrap { members } => {
                let nodes = members
                    .iter()
                    .map(|(id, (name, kind))| (*id, name.clone(), *kind))
                    .collect();
                self.log.commit(&Command::Init {
                    cluster: ClusterId(77),
                    nodes,
                });
                if self.log.voters.is_empty() {
                    self.log.voters = members
                        .iter()
                        .filter(|(_, (_, kind))| kind.votes())
                        .map(|(id, _)| *id)
                        .collect();
                }
                self.replicate();
                self.elect_later();
            }
            Output::Publish(view) => self.nodes[n].view = Some(*view),
            Output::Log { text, .. } => self.say(n, || text),
            Output::Answer { id, result } => self.answers.push((id, result)),
            Output::Confirmed { id, epoch } => {
                let Some(at) = self.confirms.iter().position(|(asked, ..)| *asked == id) else {
                    return;
                };
                let (_, _, role, before) = self.confirms.swap_remove(at);
                self.with_invariants(|invariants, _| invariants.confirmed(n, &role, before, epoch));
            }
            Output::Stopped => self.nodes[n].stopped = true,
        }
    }

    fn run_action(&mut self, n: usize, role: RoleName, epoch: Epoch, action: Action) {
        let app = match action {
            Action::Promote => App::Acting(epoch),
            Action::Demote => App::Stopping(epoch),
        };
        self.nodes[n].apps.insert(role.clone(), app);
        let result = Ok(());
        let done = Input::ActionDone {
            role,
            epoch,
            action,
            result,
        };
        self.to(n, self.action.as_nanos() as u64, done);
    }

    /// The flush thread takes the newest that waits, one at a time.
    fn write(&mut self, n: usize) {
        if self.nodes[n].writing.is_none()
            && let Some(next) = self.nodes[n].to_write.take()
        {
            self.nodes[n].writing = Some(next);
            let delay = self.flush.as_nanos() as u64 + self.dice.up_to(self.flush_late);
            let boot = self.nodes[n].boot;
            self.at(delay, What::Flushed(n, boot));
        }
    }

    fn flushed(&mut self, n: usize) {
        if let Some((token, durable)) = self.nodes[n].writing.take() {
            self.nodes[n].disk = durable;
            self.write(n);
            self.arrive(n, Input::Persisted { token });
        }
    }

    fn lost(&mut self, from: usize, to: usize, network: usize) -> bool {
        self.cut.contains(&(from, to, network)) || self.dice.roll(100) < self.loss
    }

    fn delay(&mut self) -> u64 {
        MS / 10 + self.dice.roll(MS / 5) + self.dice.up_to(self.late)
    }

    fn send(&mut self, n: usize, network: usize, to: &NodeName, seq: u64, heartbeat: Box<Heartbeat>) {
        let span = self.now / (100 * MS);
        let (at, count) = self.nodes[n].sent;
        let count = if at == span { count + 1 } else { 1 };
        self.nodes[n].sent = (span, count);
        if count > MOST_SENT {
            let text = format!("{} sends a storm of heartbeats", name(n));
            return self.fail("bounded", text);
        }
        self.with_invariants(|invariants, world| invariants.sent(world, n, network, to, seq, &heartbeat));
        self.trace(n, network, to, seq, &heartbeat);
        let Some(target) = self.nodes.iter().position(|m| m.name == *to) else {
            return;
        };
        if self.lost(n, target, network) {
            return;
        }
        let header = Header {
            sender: self.nodes[n].id,
            boot: Boot(self.nodes[n].boot),
            network: network as u8,
            seq,
        };
        if self.dice.roll(100) < self.twice {
            let delay = self.delay() + self.dice.up_to_ms(300);
            let heartbeat = heartbeat.clone();
            let again = Input::Heartbeat {
                network,
                header,
                heartbeat,
            };
            self.to(target, delay, again);
        }
        let delay = self.delay();
        let input = Input::Heartbeat {
            network,
            header,
            heartbeat,
        };
        self.to(target, delay, input);
    }

    /// With `BATON_TRACE=ms`, what heartbeats say of claims is part of the story for two seconds from that millisecond on.
    fn trace(&mut self, n: usize, network: usize, to: &NodeName, seq: u64, heartbeat: &Heartbeat) {
        static FROM: OnceLock<Option<u64>> = OnceLock::new();
        let from = FROM.get_or_init(|| super::seeds::number("BATON_TRACE"));
        let Some(from) = from.map(|from| BEGINNING + from * MS) else {
            return;
        };
        if network > 0 || !(from..from + 2000 * MS).contains(&self.now) {
            return;
        }
        for beat in &heartbeat.roles {
            let (claim, grant, refused) = (beat.claim, beat.grant, &beat.refused);
            let (promise, released) = (beat.promise, &beat.released);
            self.say(n, || {
                format!("-> {to} {seq}: {claim:?} {grant:?} {refused:?} {promise:?} released {released:?}")
            });
        }
    }

    /// Whether the two reach each other on some network, both ways.
    fn linked(&self, a: usize, b: usize) -> bool {
        let both = |net| !self.cut.contains(&(a, b, net)) && !self.cut.contains(&(b, a, net));
        a == b || (0..self.config.networks.len()).any(both)
    }

    fn running(&self, n: usize) -> bool {
        self.nodes[n].up && !self.nodes[n].frozen
    }

    /// Whether the log's voters follow `n`: a node that was taken away is no longer spoken to.
    fn leads(&self, n: usize) -> bool {
        if !self.configured(n) {
            return false;
        }
        let votes = |m: &usize| {
            self.log.voters.contains(&self.nodes[*m].id) && self.running(*m) && self.linked(n, *m)
        };
        votes(&n) && (0..self.nodes.len()).filter(votes).count() > self.log.voters.len() / 2
    }

    fn propose(&mut self, n: usize, token: u64, command: &Command) {
        self.with_invariants(|invariants, world| invariants.proposed(world, n, command));
        if self.no_lines && matches!(command, Command::SetLine { .. } | Command::Record { .. }) {
            return;
        }
        let leader = self.log.leader.filter(|l| self.leads(*l) && self.linked(*l, n));
        let result = match leader.filter(|_| !self.nodes[n].log_cut) {
            Some(_) => {
                let outcome = self.log.commit(command);
                self.replicate();
                Ok(outcome)
            }
            None => Err("no leader".to_owned()),
        };
        let delay = MS + self.dice.up_to_ms(5);
        self.to(n, delay, Input::Proposed { token, result });
    }

    /// Everybody whom the leader reaches learns the log, each in its own time, some not all of it.
    pub fn replicate(&mut self) {
        let from = self.log.leader.unwrap_or(0);
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            let known = self.log.voters.contains(&node.id) || self.log.learners.contains(&node.id);
            if !known || node.log_cut || !self.linked(from, n) || !self.running(n) {
                continue;
            }
            let index = match self.dice.percent(self.lag) {
                true if self.dice.roll(2) == 0 => continue,
                true => self.log.index.saturating_sub(self.dice.roll(4)),
                false => self.log.index,
            };
            if let Some((applied, state)) = self.log.at(index) {
                let delay = MS + self.dice.up_to_ms(2);
                if state.cluster != ClusterId(0) {
                    self.nodes[n].cluster = state.cluster;
                    self.to(n, delay, Input::Cluster(state.cluster));
                }
                self.to(n, delay, Input::Learned { state, applied });
            }
        }
    }

    fn engine(&mut self, n: usize, change: EngineChange) {
        if self.log.leader != Some(n) || !self.leads(n) {
            return;
        }
        match change {
            EngineChange::AddLearner { id, .. } => {
                self.log.learners.insert(id);
            }
            EngineChange::SetMembers { voters, learners } => {
                self.log.voters = voters;
                self.log.learners = learners;
            }
        }
        self.log.blank();
        self.replicate();
        self.tell_coordinator();
    }

    fn elect_later(&mut self) {
        let delay = 1000 * MS + self.dice.up_to_ms(1000);
        self.at(delay, What::Elect);
    }

    /// Makes this one the leader.
    pub fn lead(&mut self, n: usize) {
        self.log.leader = Some(n);
        self.log.term += 1;
        self.replicate();
        self.tell_coordinator();
    }

    /// Another leader, if there can be one.
    pub fn depose(&mut self) {
        let able = |n: &usize| self.leads(*n) && self.log.leader != Some(*n);
        let others: Vec<usize> = (0..self.nodes.len()).filter(able).collect();
        if let Some(next) = self.dice.pick(&others) {
            self.lead(next);
        }
    }

    fn elect(&mut self) {
        if self.log.leader.is_none_or(|l| !self.leads(l)) {
            self.log.leader = None;
            self.depose();
        }
        self.replicate();
        self.tell_coordinator();
    }

    fn tell_coordinator(&mut self) {
        let matched = self
            .nodes
            .iter()
            .map(|m| (m.id, m.applied.as_ref().map_or(0, |(_, at)| *at)))
            .collect();
        let leader = self.log.leader;
        let coordinator = self.log.coordinator(leader.map(|l| self.nodes[l].id), matched);
        for n in 0..self.nodes.len() {
            if leader.is_some_and(|l| self.linked(l, n)) && self.running(n) {
                self.to(n, MS, Input::Coordinator(coordinator.clone()));
            }
        }
    }

    /// Distinct epochs in any order to anybody: each node is told a line of its own. S1 and S2 need nothing more of consensus.
    pub fn anarchy(&mut self, role: &RoleName) {
        let mut state = State::clone(&self.log.state());
        if state.cluster == ClusterId(0) {
            return;
        }
        let owners: Vec<Owner> = self.nodes.iter().map(Machine::owner).collect();
        let record = state.roles.entry(role.clone()).or_default();
        let first = (record.last.0 + 1).max(self.now / MS);
        let pool: Vec<_> = (first..first + 24)
            .filter_map(|epoch| {
                let mut owner = self.dice.pick(&owners)?;
                owner.boot.0 -= self.dice.roll(2).min(owner.boot.0);
                Some(baton_shared::succession::Place {
                    epoch: Epoch(epoch),
                    owner,
                })
            })
            .collect();
        record.last = Epoch(first + 24);
        record.line.version += 1;
        record.line.handover = None;
        record.line.cause = "anarchy".into();
        record.line.places.clone_from(&pool);
        let told: Vec<usize> = (0..self.nodes.len()).filter(|n| self.running(*n)).collect();
        let index = self.log.index;
        for n in told {
            let mut own = state.clone();
            let places = &mut own.roles.get_mut(role).expect("it was just made").line.places;
            places.retain(|_| self.dice.roll(3) == 0);
            let delay = MS + self.dice.up_to_ms(200);
            let learned = Input::Learned {
                state: Arc::new(own),
                applied: index,
            };
            self.to(n, delay, learned);
        }
        self.log.push(state);
    }

    /// Notes what happened, for whoever reads a failure.
    pub fn say(&mut self, n: usize, text: impl FnOnce() -> String) {
        let at = (self.now - BEGINNING) as f64 / MS as f64;
        if self.lines.len() >= LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{at:>12.3} {} {}", name(n), text()));
    }

    /// Notes what is done to the whole cluster.
    pub fn announce(&mut self, text: String) {
        let at = (self.now - BEGINNING) as f64 / MS as f64;
        self.lines.push_back(format!("{at:>12.3} -- {text}"));
    }

    /// What happened, a line each.
    pub fn story(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).collect();
        lines.join("\n")
    }

    /// Everything that may explain why nobody is active.
    pub fn picture(&mut self) {
        let state = self.log.state();
        self.announce(format!(
            "leader {:?}, log's voters {:?}, learners {:?}, {:?}, paused {}",
            self.log.leader, self.log.voters, self.log.learners, state.electorate, state.paused
        ));
        for n in 0..self.nodes.len() {
            let m = &self.nodes[n];
            let reasons: Vec<String> = m
                .view
                .iter()
                .flat_map(|view| &view.roles)
                .map(|role| role.reason.clone())
                .collect();
            let known = m.applied.as_ref().map(|(_, index)| *index);
            let (id, boot, up, frozen) = (m.id, m.boot, m.up, m.frozen);
            self.say(n, || {
                format!("id {id} boot {boot} up {up} frozen {frozen} applied {known:?}: {reasons:?}")
            });
        }
    }

    /// An invariant failed.
    pub fn fail(&mut self, invariant: &'static str, text: String) {
        let ignored = self.invariants().only.is_some() && invariant == "bounded";
        if self.violation.is_none() && !ignored {
            self.announce(format!("VIOLATED {invariant}: {text}"));
            self.violation = Some(Violation { invariant, text });
        }
    }

    /// The account that the invariants keep.
    pub fn invariants(&self) -> &Invariants {
        self.invariants.as_ref().expect("only lent while they look")
    }

    pub fn invariants_mut(&mut self) -> &mut Invariants {
        self.invariants.as_mut().expect("only lent while they look")
    }

    fn with_invariants(&mut self, f: impl FnOnce(&mut Invariants, &World) -> Result<(), Violation>) {
        let Some(mut invariants) = self.invariants.take() else {
            return;
        };
        let result = f(&mut invariants, self);
        self.invariants = Some(invariants);
        if let Err(violation) = result {
            self.fail(violation.invariant, violation.text);
        }
    }

    fn check(&mut self) {
        self.with_invariants(|invariants, world| invariants.event(world));
    }
}

fn health(role: RoleName, healthy: bool) -> Input {
    Input::Health {
        role,
        healthy,
        reason: "as the simulator says".into(),
    }
}
