//! One node of five (four voters), and everything that one peer and any number of strangers with the cluster's key can say to it.
//!
//! The others are silent, so no majority ever grants: whatever is said, the guard must stay shut. Nothing panics, and
//! what comes of one input is bounded. Two things are taken as true, for a peer that has the key may say them: lines
//! and electorates are those that the log has. Lines may still be any; electorates are the log's.

use super::MS;
use super::world::{config_of, idle_beat, name, role};
use crate::output::{Durable, GuardChange};
use crate::peer::Arrival;
use crate::{Command, Core, Input, Output, Request, Start, State};
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::id::{Boot, ClusterId, ElectorateId, Epoch, Kind, NodeId, Owner};
use baton_shared::seal::{Header, MAX_DATAGRAM};
use baton_shared::succession::{Grant, Refusal};
use baton_shared::wire::{Echo, Heartbeat, RoleBeat};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Outputs of one input at most: heartbeats to four peers on two networks, and a few things of each other kind.
const MOST_OUTPUTS: usize = 32;
/// Ticks in a row that a core may ask for at once.
const MOST_SPINS: u32 = 20;
/// Steps of one input at most: it stays quick.
const MOST_STEPS: usize = 200;
const CLUSTER: ClusterId = ClusterId(77);
const ME: NodeId = NodeId(100);
const KINDS: [Kind; 5] = [
    Kind::Member,
    Kind::Member,
    Kind::Member,
    Kind::Observer,
    Kind::Witness,
];

/// What happens next.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Step {
    /// So many milliseconds pass.
    Wait(u16),
    /// What was to go to the disk is there.
    Flushed,
    /// The peer's heartbeat, or with `stranger` that of an id that does not vote.
    Heard {
        /// Added to the sender's boot.
        boot: u8,
        /// 0: the peer.
        stranger: u8,
        network: u8,
        /// Bits: made to pass as fresh, from the peer, for this node, of this cluster.
        made_good: u8,
        heartbeat: Box<Heartbeat>,
    },
    /// Commands reach the log, and the log this node.
    Learned(Vec<Command>),
    /// Who leads the log: this node, or the peer.
    Leader(bool),
    Health(bool),
    /// The last action has ended, well or not.
    Acted(bool),
    Switchover,
    Stop,
}

struct Trial {
    core: Core,
    /// The guard was opened at this epoch.
    opened: Option<Epoch>,
    /// How many of the others say what is said: one, but for the counter-check.
    peers: usize,
    config: Config,
    state: State,
    applied: u64,
    now: Mono,
    /// Of the peer's heartbeats, and the greatest of this node's.
    seq: u64,
    mine: u64,
    token: Option<u64>,
    action: Option<Input>,
}

#[test]
fn fuzz_core() {
    let heard = Arc::new(AtomicU64::new(0));
    let count = heard.clone();
    baton_fuzz::fuzz("core", 1_000, move |input| {
        let mut trial = Trial::new();
        let mut rest = input;
        for _ in 0..MOST_STEPS {
            let Ok((step, left)) = postcard::take_from_bytes::<Step>(rest) else {
                break;
            };
            rest = left;
            trial.step(step);
        }
        trial.wait(Duration::from_secs(3));
        assert_eq!(trial.opened, None, "no majority granted");
        count.fetch_add(trial.seq - trial.core.stale().min(trial.seq), Relaxed);
    });
    let heard = heard.load(Relaxed);
    assert!(
        heard > 1_000,
        "only {heard} heartbeats were taken in: the corpus is of another format"
    );
}

/// A heartbeat of the peer that grants the first place of the line.
fn grant() -> Box<Heartbeat> {
    let me = Owner {
        node: ME,
        boot: Boot(1),
    };
    Box::new(Heartbeat {
        cluster: CLUSTER,
        from: name(1),
        kind: Kind::Member,
        to: name(0),
        to_id: ME,
        count: 1,
        echo: None,
        hears: Vec::new(),
        electorate: ElectorateId(1),
        digest: 0,
        wall_ms: 1_000_000,
        applied: 2,
        coordinator: None,
        leaving: false,
        roles: vec![RoleBeat {
            line: 1,
            grant: Some(Grant {
                owner: me,
                epoch: Epoch(1_000),
                electorate: ElectorateId(1),
                seq: 1,
            }),
            ..idle_beat()
        }],
        lines: Vec::new(),
        writes: true,
        reach: Default::default(),
        window: Duration::from_secs(1),
    })
}

/// What leads to a takeover, if a majority says it.
fn takeover() -> Vec<Step> {
    let heard = || Step::Heard {
        boot: 0,
        stranger: 0,
        network: 0,
        made_good: 0,
        heartbeat: grant(),
    };
    let round = || [heard(), Step::Flushed, Step::Wait(60), Step::Acted(true)];
    (0..10).flat_map(|_| round()).collect()
}

/// That the guard stays shut below is for want of a majority, and of nothing else.
#[test]
fn a_majority_opens_what_one_voter_alone_does_not() {
    for (peers, opened) in [(1, None), (2, Some(Epoch(1_000)))] {
        let mut trial = Trial::new();
        trial.peers = peers;
        for step in takeover() {
            trial.step(step);
        }
        assert_eq!(trial.opened, opened, "{peers} of the others granted");
    }
}

impl Trial {
    /// A node that has been up for long enough to vote, in a cluster whose line it leads.
    fn new() -> Trial {
        let config = config_of(&KINDS, Duration::from_secs(1));
        let mut state = State::default();
        let nodes = (0..KINDS.len()).map(|n| (NodeId(100 + n as u64), name(n), KINDS[n]));
        state.apply(&Command::Init {
            cluster: CLUSTER,
            nodes: nodes.collect(),
        });
        let owner = |n: u64| Owner {
            node: NodeId(100 + n),
            boot: Boot(1),
        };
        state.apply(&Command::SetLine {
            role: role(),
            replaces: 0,
            order: vec![owner(0), owner(1), owner(2), owner(0)],
            wall_ms: 1_000,
            handover: None,
            cause: String::new(),
        });
        let start = Start {
            config: Arc::new(config.clone()),
            id: ME,
            boot: Boot(1),
            cluster: CLUSTER,
            durable: Durable::default(),
            unfinished: Default::default(),
            disk: None,
            last_write: None,
        };
        let now = Mono(1_000 * MS);
        let mut trial = Trial {
            core: Core::new(start, now),
            opened: None,
            peers: 1,
            config,
            state,
            applied: 2,
            now,
            seq: 0,
            mine: 0,
            token: None,
            action: None,
        };
        trial.learned();
        trial.flushed();
        trial.wait(Duration::from_millis(1_100));
        trial
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.wait(Duration::from_millis(u64::from(ms) % 3_000)),
            Step::Flushed => self.flushed(),
            Step::Heard {
                boot,
                stranger,
                network,
                made_good,
                heartbeat,
            } => {
                self.seq += 1;
                for peer in 1..=self.peers {
                    let header = Header {
                        sender: NodeId(100 + peer as u64 + 1_000 * u64::from(stranger)),
                        boot: Boot(1 + u64::from(boot)),
                        network: network % 3,
                        seq: self.seq,
                    };
                    self.give(Input::Heartbeat {
                        arrival: Arrival {
                            network: usize::from(network % 3),
                            from: [10, 0, 0, 1 + peer as u8].into(),
                        },
                        header,
                        heartbeat: Box::new(self.make_good(&heartbeat, peer, made_good)),
                    });
                }
            }
            Step::Learned(commands) => {
                for command in commands.iter().take(8) {
                    // Whoever is the only voter is a majority.
                    if !matches!(command, Command::Joint { .. } | Command::Settle { .. }) {
                        self.state.apply(command);
                        self.applied += 1;
                    }
                }
                self.learned();
            }
            Step::Leader(me) => {
                let leader = Some(if me { ME } else { NodeId(101) });
                let voters = self.state.electorate.voters.clone();
                self.give(Input::Coordinator(crate::input::Coordinator {
                    term: 2,
                    leader,
                    matched: voters.iter().map(|id| (*id, self.applied)).collect(),
                    voters,
                    settled: true,
                    last_log: self.applied,
                    ..Default::default()
                }));
            }
            Step::Health(healthy) => self.give(Input::Health {
                role: role(),
                health: healthy.into(),
                reason: "fuzz".into(),
            }),
            Step::Acted(good) => {
                if let Some(Input::ActionDone {
                    role, epoch, action, ..
                }) = self.action.take()
                {
                    let result = if good { Ok(()) } else { Err("fuzz".into()) };
                    self.give(Input::ActionDone {
                        role,
                        epoch,
                        action,
                        result,
                    });
                }
            }
            Step::Switchover => self.give(Input::Ask {
                id: 1,
                request: Request::Switchover {
                    role: role(),
                    to: None,
                },
            }),
            Step::Stop => self.give(Input::Stop { broken: None }),
        }
    }

    /// Far more random heartbeats would be turned away at the door than behind it.
    fn make_good(&self, heartbeat: &Heartbeat, peer: usize, bits: u8) -> Heartbeat {
        let mut heartbeat = heartbeat.clone();
        if bits & 1 == 0 {
            (heartbeat.from, heartbeat.to, heartbeat.to_id) = (name(peer), name(0), ME);
        }
        if bits & 2 == 0 {
            (heartbeat.cluster, heartbeat.digest) = (CLUSTER, self.config.digest());
            heartbeat.window = self.config.cluster.window;
        }
        if bits & 4 == 0 {
            heartbeat.echo = Some(Echo {
                boot: Boot(1),
                seq: self.mine,
                held: Duration::ZERO,
                any: self.mine,
            });
        }
        for beat in &mut heartbeat.roles {
            if bits & 8 == 0 {
                beat.role = role();
            }
            if bits & 16 == 0
                && let Some(grant) = &mut beat.grant
            {
                (grant.owner, grant.seq) = (
                    Owner {
                        node: ME,
                        boot: Boot(1),
                    },
                    self.mine,
                );
            }
            if let Some(refused) = &mut beat.refused
                && let Refusal::Electorate(theirs) = &mut refused.why
            {
                *theirs = self.state.electorate.clone();
            }
        }
        heartbeat
    }

    fn learned(&mut self) {
        let state = Arc::new(self.state.clone());
        self.give(Input::Learned {
            state,
            applied: self.applied,
        });
    }

    fn flushed(&mut self) {
        if let Some(token) = self.token.take() {
            self.give(Input::Persisted { token });
        }
    }

    /// Ticks as they are asked for.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut spins = 0;
        while self.core.next_wake() <= end {
            let wake = self.core.next_wake();
            spins = if wake <= self.now { spins + 1 } else { 0 };
            assert!(spins < MOST_SPINS, "it asks for ticks that it does not use");
            self.now = wake.max(self.now);
            self.give(Input::Tick);
        }
        self.now = end;
    }

    fn give(&mut self, input: Input) {
        self.core.handle(input, self.now, 1_000_000 + self.now.0 / MS);
        let mut outputs = 0;
        while let Some(output) = self.core.poll_output() {
            outputs += 1;
            assert!(
                outputs <= MOST_OUTPUTS,
                "one input, more than {MOST_OUTPUTS} outputs: {output:?}"
            );
            self.act(output);
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send { seq, heartbeat, .. } => {
                let len = heartbeat.encode().len() + 42;
                assert!(len <= MAX_DATAGRAM, "a heartbeat of {len} bytes");
                self.mine = seq;
            }
            Output::Guard {
                change: GuardChange::Open { epoch, .. },
                ..
            } => self.opened = Some(epoch),
            Output::Persist { token, .. } => self.token = Some(token),
            Output::Run {
                role, epoch, action, ..
            } => {
                self.action = Some(Input::ActionDone {
                    role,
                    epoch,
                    action,
                    result: Ok(()),
                });
            }
            _ => {}
        }
    }
}
