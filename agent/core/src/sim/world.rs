//! The machine room: nodes with real cores, each with a clock, a disk, an application and an inbox; networks between them.
//!
//! Time is a number. Events happen in the order of their instants, those of one instant in the order in which they were
//! made, and every draw comes from one stream: the same life gives the same events, to the last byte.

mod above;
mod application;
mod consensus;
mod disks;
mod doubles;
mod keepers;
mod machine;
mod nodes;
mod orders;
mod wire;

pub(super) use doubles::Double;
pub(super) use machine::{App, Machine, Way};

use above::Above;
use application::Doing;
use keepers::Run;

use super::MS;
use super::dice::Dice;
use super::invariants::{Invariants, Violation};
use super::log::Log;
use crate::broken::{Rule, is};
use crate::fitness::Writes;
use crate::guardian;
use crate::input::{Action, Health, Side};
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
use baton_shared::succession::Floor;
use baton_shared::view::View;
use baton_shared::wire::{Heartbeat, RoleBeat};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Boots are counted from here, so that there is room below for clocks that are behind.
const FIRST_BOOT: u64 = 10_000;
/// When the world begins, in its own time.
pub(super) const BEGINNING: u64 = 1_000_000 * MS;
/// Datagrams that one node sends in a tenth of a second at most: usual are eight to thirty-two.
const MOST_SENT: u64 = 4_000;
/// Hours, in nanoseconds: what is further away is no matter of this world.
const FAR: i128 = 9_000_000_000_000;
/// Lines of the log kept.
const LINES_KEPT: usize = 4_000;

enum What {
    To(usize, u64, Input),
    Flushed(usize, u64),
    Ready(usize, u64),
    /// An action of this number ends.
    Done(usize, RoleName, u64),
    /// This run's application was told of an epoch, or was not.
    Told(usize, u64, RoleName, Epoch),
    /// A fence of this number ends.
    Fenced(usize, usize, u64),
    /// A process that ended is due to run again.
    Again(usize, RoleName, u64),
    /// Something reaches this guardian.
    Guardian(usize, u64, guardian::Input),
    /// It looks at its clock.
    Look(usize, u64),
    /// It goes on by itself.
    GoesOn(usize, u64),
    /// What it says reaches this run of its agent.
    Answer(usize, u64, guardian::Answer),
    /// The time of a fence comes.
    Mind(usize, RoleName),
    /// The agent looks at its guardian; learns that it is gone; ends with it.
    Eye(usize, u64),
    LineEnds(usize, u64),
    GivesUp(usize, u64),
    /// The keeper of this run of an application wakes.
    Keeper(usize, usize, u64),
    /// Its first process ends; one of them dies; one more appears.
    LeaderEnds(usize, usize, u64),
    Dies(usize, usize, u64, usize),
    Forks(usize, usize, u64),
    /// A small write is due.
    Probe(usize),
    Elect,
    Leads,
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
    /// Nodes to which no datagrams come, although streams pass.
    pub deaf: BTreeSet<usize>,
    /// Whose interface on which network has no carrier.
    pub unplugged: BTreeSet<(usize, usize)>,
    /// Doubles, and the nodes as which they run.
    originals: BTreeMap<usize, usize>,
    /// The double that is at the address which (a sender, of a node, on a network) has.
    reached: BTreeMap<(usize, usize, usize), usize>,
    /// In peace doubles go on, and nobody reaches them.
    pub doubles_stay: bool,
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

/// What a node says of the role `main` that is well and has nothing to do with it.
pub(crate) fn idle_beat() -> RoleBeat {
    RoleBeat {
        role: role(),
        line: 0,
        claim: None,
        grant: None,
        refused: None,
        promise: None,
        floor: Floor::default(),
        released: Vec::new(),
        farewell: None,
        holding: None,
        serving: None,
        word: None,
        healthy: true,
        willing: true,
        able: true,
        load: 0,
        ahead: Epoch(0),
        handed: None,
        condition: Default::default(),
    }
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
            clients: false,
            gateway: None,
        })
        .collect();
    let host = |net: usize, n: usize| Some(Host::Ip([10, 0, net as u8, n as u8 + 1].into()));
    let nodes = nodes.iter().map(|(n, kind)| {
        let addresses: Vec<_> = (0..networks.len()).map(|net| host(net, *n)).collect();
        let serves = vec![addresses[0].clone().unwrap()];
        let node = Node {
            kind: *kind,
            binds: Vec::new(),
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
        agent: Default::default(),
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
            deaf: BTreeSet::new(),
            unplugged: BTreeSet::new(),
            originals: BTreeMap::new(),
            reached: BTreeMap::new(),
            doubles_stay: false,
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
        world.beat();
        world
    }

    /// A new machine, not started.
    pub fn add(&mut self, n: usize) {
        let roles: Vec<RoleName> = self.config.roles.keys().cloned().collect();
        let shown = self.now + (n as u64 + 1) * 777_777 * MS;
        self.nodes.push(Machine {
            name: name(n),
            id: NodeId(100 + n as u64),
            boot: FIRST_BOOT,
            lowest: FIRST_BOOT,
            superseded: false,
            cloned: false,
            up: false,
            core: None,
            frozen: false,
            config: Arc::new(self.config.clone()),
            guards: BTreeMap::new(),
            apps: BTreeMap::new(),
            told: BTreeMap::new(),
            stopped_acting: BTreeMap::new(),
            disk: Durable::default(),
            hung: false,
            writes: Writes::default(),
            probing: false,
            view: None,
            cluster: ClusterId(0),
            healthy: roles.iter().map(|role| (role.clone(), true)).collect(),
            first_check: true,
            unfit_since: roles.iter().map(|role| (role.clone(), self.now)).collect(),
            stopped: false,
            leaving: false,
            log_cut: false,
            may_lead: true,
            slow: Duration::ZERO,
            promotes: Way::Well,
            demotes: Way::Well,
            fences: Way::Well,
            paused: false,
            doing: BTreeMap::new(),
            above: Above::default(),
            runs: BTreeMap::new(),
            unheard: BTreeSet::new(),
            minded: BTreeSet::new(),
            at_wits_end: BTreeSet::new(),
            start_after: false,
            answers: Vec::new(),
            eye: guardian::Watch::new(Duration::MAX, Duration::ZERO),
            under_standstill: false,
            quits: false,
            announces: None,
            lingers: Duration::ZERO,
            log_stuck_until: 0,
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
                Some(What::Done(n, role, number)) => self.action_ends(n, &role, number),
                Some(What::Told(n, boot, role, epoch)) if self.nodes[n].boot == boot => {
                    self.told(n, role, epoch);
                }
                Some(What::Fenced(n, place, number)) => self.fence_ends(n, place, number),
                Some(What::Again(n, role, number)) => self.process_again(n, &role, number),
                Some(What::Guardian(n, which, input)) if self.nodes[n].above.which == which => {
                    self.tell_guardian(n, input);
                }
                Some(What::Look(n, which)) => self.guardian_looks(n, which),
                Some(What::GoesOn(n, which)) if self.nodes[n].above.which == which => {
                    self.continue_guardian(n);
                    if self.nodes[n].frozen {
                        self.thaw(n);
                    }
                }
                Some(What::Answer(n, boot, answer)) if self.nodes[n].boot == boot => self.answered(n, answer),
                Some(What::Mind(n, role)) => self.mind(n, &role),
                Some(What::Eye(n, boot)) if self.nodes[n].boot == boot => self.eye(n),
                Some(What::LineEnds(n, boot)) if self.nodes[n].boot == boot => self.line_ends(n),
                Some(What::GivesUp(n, boot)) if self.nodes[n].boot == boot => self.gives_up(n),
                Some(What::Keeper(n, place, number)) => self.keeper_wakes(n, place, number),
                Some(What::LeaderEnds(n, place, number)) => self.leader_ends(n, place, Some(number)),
                Some(What::Dies(n, place, number, at)) => self.process_dies(n, place, number, at),
                Some(What::Forks(n, place, number)) => self.process_forks(n, place, number),
                Some(What::Probe(n)) => self.probe(n),
                Some(What::Elect) => self.elect(),
                Some(What::Leads) => self.beat(),
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
