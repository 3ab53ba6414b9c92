//! A small deterministic world for the core: nodes with real cores in virtual time, networks that can be cut, a disk, an
//! application, and a log that is obviously right (one list, delivered to whoever the coordinator reaches).

#![allow(dead_code)] // each test crate uses a part of it

use baton_core::input::Coordinator;
use baton_core::output::{Durable, EngineChange, GuardChange};
use baton_core::{Command, Core, Input, Output, Request, State};
use baton_shared::clock::Mono;
use baton_shared::config::{Cluster, Config, Host, Network, Node, Role};
use baton_shared::guard::Guard;
use baton_shared::id::{Boot, ClusterId, ClusterName, Epoch, Kind, NetworkName, NodeId, NodeName, RoleName};
use baton_shared::key::ClusterKey;
use baton_shared::seal::Header;
use baton_shared::view::View;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub const MS: u64 = 1_000_000;
/// Datagrams that one node sends in a tenth of a second at most: usual are eight or sixteen.
const MOST_SENT: u64 = 2_000;

/// One simulated machine.
pub struct Machine {
    pub name: NodeName,
    pub id: NodeId,
    pub boot: u64,
    pub up: bool,
    pub core: Option<Core>,
    pub frozen: bool,
    pub guard: Guard,
    pub disk: Durable,
    pub view: Option<View>,
    pub cluster: ClusterId,
    pub healthy: bool,
    pub stopped: bool,
    buffered: Vec<Input>,
    /// Its clock is so far ahead of true time, and runs so many millionths faster (S1 allows less than 1 % in all).
    offset: u64,
    pub drift_ppm: i64,
    /// What the flush thread writes now, and what it writes next: as in the agent, the newest replaces what waits.
    writing: Option<(u64, Durable)>,
    to_write: Option<(u64, Durable)>,
    /// The log's state as applied here: on disk, so that a restarted node begins with it.
    applied: Option<(Arc<State>, u64)>,
    /// What it has not handled yet, and the instant of true time before which it handles nothing.
    inbox: VecDeque<Input>,
    /// How often in a row it asked to be woken at once.
    spins: u64,
    /// In which tenth of a second it sent how many datagrams.
    sent: (u64, u64),
    busy_until: u64,
}

enum What {
    To(usize, u64, Input),
    Flushed(usize, u64),
    Ready(usize, u64),
    Leader,
}

pub struct World {
    pub now: u64,
    pub nodes: Vec<Machine>,
    pub config: Config,
    pub state: State,
    pub index: u64,
    pub leader: Option<usize>,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
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
    /// A node takes up to so long over one input.
    pub slow: Duration,
    /// Share of the log's news that does not reach a node until there is more, in percent.
    pub lag: u64,
    random: u64,
    /// A flush takes at least so long; and up to so much longer.
    pub flush: Duration,
    pub flush_late: Duration,
    pub answers: Vec<(u64, Result<String, String>)>,
    pub logs: Vec<String>,
    /// Every span in which a node was active: (from, to, node, epoch).
    pub active: Vec<(u64, u64, usize, Epoch)>,
    greatest: Epoch,
    /// End of the guard that the last check saw open, in true time.
    open_until: u64,
    tick: BTreeMap<usize, u64>,
}

pub fn role() -> RoleName {
    RoleName::new("main").unwrap()
}

pub fn config(kinds: &[Kind], window: Duration) -> Config {
    let networks = ["front", "back"].map(|n| Network {
        name: NetworkName::new(n).unwrap(),
        port: 7400,
        interface: None,
    });
    let host = |net: u8, n: usize| Some(Host::Ip([10, 0, net, n as u8 + 1].into()));
    let nodes = kinds.iter().enumerate().map(|(n, kind)| {
        let addresses = vec![host(1, n), host(2, n)];
        let serves = vec![addresses[0].clone().unwrap()];
        (
            name(n),
            Node {
                kind: *kind,
                addresses,
                serves,
                priority: 0,
            },
        )
    });
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
        networks: networks.to_vec(),
        nodes: nodes.collect(),
        storage: None,
        roles: [(role(), Role::default())].into(),
        http: None,
        control: None,
        dns: None,
    }
}

pub fn name(n: usize) -> NodeName {
    NodeName::new(&((b'a' + n as u8) as char).to_string()).unwrap()
}

impl World {
    pub fn new(kinds: &[Kind], seed: u64) -> World {
        let mut world = World {
            now: 1_000_000 * MS,
            nodes: Vec::new(),
            config: config(kinds, Duration::from_secs(1)),
            state: State::default(),
            index: 0,
            leader: None,
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            events: BinaryHeap::new(),
            what: BTreeMap::new(),
            count: 0,
            cut: BTreeSet::new(),
            loss: 0,
            twice: 0,
            late: Duration::ZERO,
            slow: Duration::ZERO,
            lag: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            flush: Duration::from_millis(2),
            flush_late: Duration::ZERO,
            answers: Vec::new(),
            logs: Vec::new(),
            active: Vec::new(),
            greatest: Epoch(0),
            open_until: 0,
            tick: BTreeMap::new(),
        };
        for n in 0..kinds.len() {
            world.add(n);
            world.start(n);
        }
        world
    }

    /// Three members, started and settled: `a` is active.
    pub fn three(seed: u64) -> World {
        let mut world = World::new(&[Kind::Member; 3], seed);
        world.settle();
        world
    }

    pub fn add(&mut self, n: usize) {
        let offset = (n as u64 + 1) * 777_777 * MS;
        self.nodes.push(Machine {
            name: name(n),
            id: NodeId(100 + n as u64),
            boot: 0,
            up: false,
            core: None,
            frozen: false,
            guard: Guard::default(),
            disk: Durable::default(),
            view: None,
            cluster: ClusterId(0),
            healthy: true,
            stopped: false,
            buffered: Vec::new(),
            offset,
            drift_ppm: 0,
            writing: None,
            to_write: None,
            applied: None,
            inbox: VecDeque::new(),
            spins: 0,
            sent: (0, 0),
            busy_until: 0,
        });
    }

    pub fn start(&mut self, n: usize) {
        let mut config = self.config.clone();
        config.me = name(n);
        let now = self.clock(n);
        let machine = &mut self.nodes[n];
        machine.boot += 1;
        machine.stopped = false;
        machine.guard = Guard::default();
        let start = baton_core::Start {
            config: Arc::new(config),
            id: machine.id,
            boot: Boot(machine.boot),
            cluster: machine.cluster,
            durable: machine.disk.clone(),
        };
        machine.core = Some(Core::new(start, now));
        machine.up = true;
        machine.busy_until = 0;
        machine.inbox.clear();
        let applied = machine.applied.clone();
        self.give(n, Input::Tick);
        if let Some((state, applied)) = applied {
            self.to(n, MS, Input::Learned { state, applied });
        }
        self.elect_later();
        self.replicate();
    }

    pub fn kill(&mut self, n: usize) {
        // What was being written may be on the disk or not; what waited is not.
        let torn = self.roll(2) == 0;
        let machine = &mut self.nodes[n];
        if let Some((_, durable)) = machine.writing.take().filter(|_| torn) {
            machine.disk = durable;
        }
        machine.to_write = None;
        machine.core = None;
        machine.up = false;
        machine.frozen = false;
        machine.guard.shut();
        machine.buffered.clear();
        self.elect_later();
    }

    /// The data directory is lost.
    pub fn wipe(&mut self, n: usize) {
        self.kill(n);
        let machine = &mut self.nodes[n];
        machine.id = NodeId(machine.id.0 + 1000);
        machine.boot += 10;
        machine.disk = Durable::default();
        machine.applied = None;
        machine.cluster = ClusterId(0);
    }

    /// Everything that may explain why nobody is active, into the log.
    pub fn picture(&mut self) {
        let mut lines = vec![format!(
            "leader {:?}, log's voters {:?}, learners {:?}, {:?}, paused {}",
            self.leader, self.voters, self.learners, self.state.electorate, self.state.paused
        )];
        for m in &self.nodes {
            let reason = m.view.as_ref().map(|view| view.roles[0].reason.clone());
            let known = m.applied.as_ref().map(|(_, index)| *index);
            lines.push(format!(
                "{} id {} boot {} up {} frozen {} applied {known:?}: {reason:?}",
                m.name, m.id, m.boot, m.up, m.frozen
            ));
        }
        self.logs.extend(lines);
    }

    /// Whether the log's voters, and every set of the electorate, keep a majority of nodes with their disks if `n` loses its own.
    pub fn may_wipe(&self, n: usize) -> bool {
        self.majority_without(|m| m == n)
    }

    /// The same for nodes that are taken away: those that stay no longer hear them.
    pub fn majority_without(&self, gone: impl Fn(usize) -> bool) -> bool {
        let configured = |m: usize| self.config.nodes.contains_key(&name(m));
        let kept =
            |id: NodeId| (0..self.nodes.len()).any(|m| self.nodes[m].id == id && configured(m) && !gone(m));
        let engine = self.voters.iter().filter(|id| kept(**id)).count();
        engine > self.voters.len() / 2 && self.state.electorate.majority(kept)
    }

    pub fn freeze(&mut self, n: usize) {
        self.nodes[n].frozen = true;
        self.elect_later();
    }

    pub fn thaw(&mut self, n: usize) {
        self.nodes[n].frozen = false;
        for input in std::mem::take(&mut self.nodes[n].buffered) {
            self.give(n, input);
        }
        self.give(n, Input::Tick);
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

    pub fn heal(&mut self) {
        self.cut.clear();
        (self.loss, self.twice, self.lag) = (0, 0, 0);
        (self.late, self.slow, self.flush_late) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        self.elect_later();
        self.replicate();
    }

    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        for n in 0..self.nodes.len() {
            if self.config.nodes.contains_key(&name(n)) && self.nodes[n].core.is_some() {
                let mut config = self.config.clone();
                config.me = name(n);
                self.give(n, Input::Configured(Arc::new(config)));
            }
        }
    }

    pub fn stop(&mut self, n: usize) {
        self.give(n, Input::Stop);
    }

    pub fn ask(&mut self, n: usize, request: Request) {
        self.give(
            n,
            Input::Ask {
                id: self.count,
                request,
            },
        );
    }

    pub fn set_health(&mut self, n: usize, healthy: bool) {
        self.nodes[n].healthy = healthy;
        self.give(
            n,
            Input::Health {
                role: role(),
                healthy,
                reason: "test".into(),
            },
        );
    }

    pub fn clock(&self, n: usize) -> Mono {
        let drift = i128::from(self.now) * i128::from(self.nodes[n].drift_ppm) / 1_000_000;
        Mono((i128::from(self.now + self.nodes[n].offset) + drift) as u64)
    }

    /// The first instant of true time at which the clock of `n` shows `at`.
    fn true_time(&self, n: usize, at: Mono) -> u64 {
        let without = i128::from(at.0) - i128::from(self.nodes[n].offset);
        let rate = 1_000_000 + i128::from(self.nodes[n].drift_ppm);
        u64::try_from((without.max(0) * 1_000_000 + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    /// Who is active in true time.
    pub fn active_now(&self) -> Vec<(usize, Epoch)> {
        let alive = self.nodes.iter().enumerate().filter(|(_, m)| m.up);
        alive
            .filter_map(|(n, m)| Some((n, m.guard.active(self.clock(n))?)))
            .collect()
    }

    /// Runs until somebody is active and the log is quiet.
    pub fn settle(&mut self) -> usize {
        let deadline = self.now + 30_000 * MS;
        while self.active_now().is_empty() {
            assert!(
                self.now < deadline,
                "nobody became active; logs:\n{}",
                self.logs.join("\n")
            );
            self.run(Duration::from_millis(1));
        }
        self.run(Duration::from_millis(2500));
        let active = self.active_now();
        assert_eq!(active.len(), 1, "logs:\n{}", self.logs.join("\n"));
        active[0].0
    }

    /// Runs until somebody else than `not` is active; returns who, and when.
    pub fn until_active_but(&mut self, not: usize, limit: Duration) -> (usize, u64) {
        let deadline = self.now + limit.as_nanos() as u64;
        loop {
            if let Some((n, _)) = self.active_now().iter().find(|(n, _)| *n != not) {
                return (*n, self.now);
            }
            assert!(
                self.now < deadline,
                "no takeover within {limit:?}; logs:\n{}",
                self.logs.join("\n")
            );
            self.run(Duration::from_micros(500));
        }
    }

    pub fn run(&mut self, d: Duration) {
        let end = self.now + d.as_nanos() as u64;
        while let Some(Reverse((at, number))) = self.events.peek().copied() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = self.now.max(at);
            match self.what.remove(&number) {
                Some(What::To(n, boot, input)) if self.nodes[n].boot == boot => self.arrive(n, input),
                Some(What::Ready(n, boot)) if self.nodes[n].boot == boot => self.ready(n),
                Some(What::Flushed(n, boot)) if self.nodes[n].boot == boot => self.flushed(n),
                Some(What::Leader) => self.elect(),
                _ => {}
            }
        }
        self.now = end;
        self.check();
    }

    fn at(&mut self, delay: u64, what: What) {
        self.count += 1;
        self.events.push(Reverse((self.now + delay, self.count)));
        self.what.insert(self.count, what);
    }

    fn roll(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn to(&mut self, n: usize, delay: u64, input: Input) {
        let boot = self.nodes[n].boot;
        self.at(delay, What::To(n, boot, input));
    }

    /// Hands an input over when the node has time for it.
    fn arrive(&mut self, n: usize, input: Input) {
        if self.nodes[n].frozen {
            return self.give(n, input);
        }
        let machine = &mut self.nodes[n];
        machine.inbox.push_back(input);
        if machine.inbox.len() == 1 {
            self.ready(n);
        }
    }

    /// Takes the next input that waits, and is busy with it.
    fn ready(&mut self, n: usize) {
        let (busy, boot) = (self.nodes[n].busy_until, self.nodes[n].boot);
        if busy > self.now {
            return self.at(busy - self.now, What::Ready(n, boot));
        }
        let Some(input) = self.nodes[n].inbox.pop_front() else {
            return;
        };
        if self.slow > Duration::ZERO {
            self.nodes[n].busy_until = self.now + self.roll(self.slow.as_nanos() as u64);
        }
        self.give(n, input);
        if !self.nodes[n].inbox.is_empty() {
            self.ready(n);
        }
    }

    fn give(&mut self, n: usize, input: Input) {
        if let Input::Learned { state, applied } = &input {
            let known = &mut self.nodes[n].applied;
            if known.as_ref().is_some_and(|(_, index)| index > applied) {
                return; // logs only grow
            }
            *known = Some((state.clone(), *applied));
        }
        let now = self.clock(n);
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
        core.handle(input, now, self.now / MS);
        self.check();
        while let Some(output) = core.poll_output() {
            self.act(n, output);
            self.check();
        }
        let due = self.true_time(n, core.next_wake());
        // A core that wants to be woken at once, again and again, would spin.
        let spins = if due <= self.now {
            self.nodes[n].spins + 1
        } else {
            0
        };
        self.nodes[n].spins = spins;
        assert!(
            spins < 20,
            "{} asks for a tick that it does not use ({:?}); logs:\n{}",
            self.nodes[n].name,
            core.view(now).roles[0].state,
            self.logs.join("\n")
        );
        let wake = due.max(self.now + MS / 20);
        self.nodes[n].core = Some(core);
        if self.tick.get(&n).is_none_or(|at| *at <= self.now || *at > wake) {
            self.tick.insert(n, wake);
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
            Output::Guard { change, .. } => match change {
                GuardChange::Open { epoch, until } => self.nodes[n].guard.open(epoch, until),
                GuardChange::Shut => self.nodes[n].guard.shut(),
                GuardChange::Close(epoch) => self.nodes[n].guard.close(epoch),
            },
            Output::Run {
                role, epoch, action, ..
            } => {
                self.to(
                    n,
                    MS,
                    Input::ActionDone {
                        role,
                        epoch,
                        action,
                        result: Ok(()),
                    },
                );
            }
            Output::Propose { token, command } => self.propose(n, token, &command),
            Output::Engine(change) => self.engine(n, change),
            Output::Bootstrap { members } => {
                let nodes = members
                    .iter()
                    .map(|(id, (name, kind))| (*id, name.clone(), *kind))
                    .collect();
                self.state.apply(&Command::Init {
                    cluster: ClusterId(77),
                    nodes,
                });
                self.voters = members.keys().copied().collect();
                self.index += 1;
                self.replicate();
                self.elect_later();
            }
            Output::Publish(view) => self.nodes[n].view = Some(*view),
            Output::Log { text, .. } => {
                let line = format!(
                    "{:>12.3} {} {text}",
                    (self.now - 1_000_000 * MS) as f64 / MS as f64,
                    name(n)
                );
                self.logs.push(line);
            }
            Output::Answer { id, result } => self.answers.push((id, result)),
            Output::Confirmed { .. } => {}
            Output::Stopped => self.nodes[n].stopped = true,
        }
    }

    /// The flush thread takes the newest that waits, one at a time.
    fn write(&mut self, n: usize) {
        if self.nodes[n].writing.is_none()
            && let Some(next) = self.nodes[n].to_write.take()
        {
            self.nodes[n].writing = Some(next);
            let late = self.flush_late.as_nanos() as u64;
            let delay = self.flush.as_nanos() as u64 + self.roll(late + 1);
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

    fn send(
        &mut self,
        n: usize,
        network: usize,
        to: &NodeName,
        seq: u64,
        heartbeat: Box<baton_shared::wire::Heartbeat>,
    ) {
        let span = self.now / (100 * MS);
        let sent = &mut self.nodes[n].sent;
        *sent = if sent.0 == span {
            (span, sent.1 + 1)
        } else {
            (span, 1)
        };
        assert!(
            sent.1 < MOST_SENT,
            "a storm of heartbeats; logs:\n{}",
            self.logs.join("\n")
        );
        let Some(target) = self.nodes.iter().position(|m| m.name == *to) else {
            return;
        };
        if self.cut.contains(&(n, target, network)) || self.roll(100) < self.loss {
            return;
        }
        let header = Header {
            sender: self.nodes[n].id,
            boot: Boot(self.nodes[n].boot),
            network: network as u8,
            seq,
        };
        let copies = 1 + u64::from(self.roll(100) < self.twice);
        for copy in 0..copies {
            let late = self.late.as_nanos() as u64 + copy * 300 * MS;
            let delay = MS / 10 + self.roll(MS / 5) + self.roll(late + 1);
            let heartbeat = heartbeat.clone();
            self.to(
                target,
                delay,
                Input::Heartbeat {
                    network,
                    header,
                    heartbeat,
                },
            );
        }
    }

    /// Whether the two reach each other on some network, both ways.
    fn linked(&self, a: usize, b: usize) -> bool {
        a == b || (0..2).any(|net| !self.cut.contains(&(a, b, net)) && !self.cut.contains(&(b, a, net)))
    }

    fn running(&self, n: usize) -> bool {
        self.nodes[n].up && !self.nodes[n].frozen
    }

    /// Whether the log's voters follow `n`: a node that was taken away is no longer spoken to.
    fn leads(&self, n: usize) -> bool {
        if !self.config.nodes.contains_key(&self.nodes[n].name) {
            return false;
        }
        let votes =
            |m: &usize| self.voters.contains(&self.nodes[*m].id) && self.running(*m) && self.linked(n, *m);
        votes(&n) && (0..self.nodes.len()).filter(votes).count() > self.voters.len() / 2
    }

    fn propose(&mut self, n: usize, token: u64, command: &Command) {
        let result = match self.leader.filter(|l| self.leads(*l) && self.linked(*l, n)) {
            Some(_) => {
                self.index += 1;
                let outcome = self.state.apply(command);
                self.replicate();
                Ok(outcome)
            }
            None => Err("no leader".to_owned()),
        };
        self.to(n, 3 * MS, Input::Proposed { token, result });
    }

    /// Everybody whom the leader reaches learns the log, a little later.
    fn replicate(&mut self) {
        let from = self.leader.unwrap_or(0);
        for n in 0..self.nodes.len() {
            let known = self.voters.contains(&self.nodes[n].id) || self.learners.contains(&self.nodes[n].id);
            if known && self.linked(from, n) && self.running(n) && self.roll(100) >= self.lag {
                self.nodes[n].cluster = self.state.cluster;
                self.to(n, 2 * MS, Input::Cluster(self.state.cluster));
                let learned = Input::Learned {
                    state: Arc::new(self.state.clone()),
                    applied: self.index,
                };
                self.to(n, 2 * MS, learned);
            }
        }
    }

    fn engine(&mut self, n: usize, change: EngineChange) {
        if self.leader != Some(n) {
            return;
        }
        match change {
            EngineChange::AddLearner { id, .. } => {
                self.learners.insert(id);
            }
            EngineChange::SetMembers { voters, learners } => {
                self.voters = voters;
                self.learners = learners;
            }
        }
        self.index += 1;
        self.replicate();
        self.tell_coordinator();
    }

    fn elect_later(&mut self) {
        self.at(1500 * MS, What::Leader);
    }

    fn elect(&mut self) {
        if self.leader.is_none_or(|l| !self.leads(l)) {
            self.leader =
                (0..self.nodes.len()).find(|n| self.voters.contains(&self.nodes[*n].id) && self.leads(*n));
        }
        self.replicate();
        self.tell_coordinator();
    }

    fn tell_coordinator(&mut self) {
        let all: BTreeSet<NodeId> = self.voters.union(&self.learners).copied().collect();
        let coordinator = Coordinator {
            term: 1,
            leader: self.leader.map(|l| self.nodes[l].id),
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            settled: true,
            matched: all.iter().map(|id| (*id, self.index)).collect(),
            last_log: self.index,
        };
        for n in 0..self.nodes.len() {
            if self.leader.is_some_and(|l| self.linked(l, n)) {
                self.to(n, MS, Input::Coordinator(coordinator.clone()));
            }
        }
    }

    /// S1 and S2, in true time, after every event.
    fn check(&mut self) {
        let active = self.active_now();
        assert!(
            active.len() <= 1,
            "S1: {active:?} at once; logs:\n{}",
            self.logs.join("\n")
        );
        if let Some((n, epoch)) = active.first().copied() {
            assert!(epoch >= self.greatest, "S2: {epoch} after {}", self.greatest);
            self.greatest = epoch;
            let continued = self.now <= self.open_until;
            match self.active.last_mut() {
                Some((_, to, node, e)) if continued && *node == n && *e == epoch => *to = self.now,
                _ => self.active.push((self.now, self.now, n, epoch)),
            }
            self.open_until = self.true_time(n, self.nodes[n].guard.read().1);
        } else if let Some((_, to, ..)) = self.active.last_mut() {
            // The span ended between two checks, when its guard did.
            *to = (*to).max(self.open_until.min(self.now));
            self.open_until = 0;
        }
    }
}
