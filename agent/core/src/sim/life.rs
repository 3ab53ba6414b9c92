//! One life of a cluster: a shape, a seed, a schedule of faults, and then peace. All of it is data.

use super::dice::Dice;
use super::fault::{Fault, Who};
use super::invariants::Violation;
use super::peace;
use super::world::{Double, Way, World, config};
use baton_shared::config::{Action, Call, Mode, OnFailure, Process, Role};
use baton_shared::id::Kind;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The window of every life.
pub(super) const W: Duration = Duration::from_secs(1);
/// Clocks differ by less than 1 % in rate (S1): each is at most half of that from true time.
const MAX_DRIFT_PPM: u64 = 4_900;
/// Faults in one life.
const FAULTS: usize = 14;
/// In one of so many lives guardians have a hard time, whatever the shape.
const GUARDED: u64 = 16;
/// In one of so many, clients come by one network, which is lost in many ways.
const CLIENTS: u64 = 16;
/// In one of so many, several processes run under one node's name, and replaced machines have clocks that are behind.
const DOUBLED: u64 = 16;
/// In one of so many, disks hang and answer again.
const HUNG: u64 = 16;

/// The shape of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Shape {
    Three,
    TwoAndWitness,
    /// Three members; two more come and go, and so may the three.
    Changing,
    Five,
    /// Three members and an observer, two roles; the second is a managed process.
    TwoRoles,
    /// One network only.
    OneNetwork,
    /// Two members, one network: each loss shows.
    Two,
    /// Two members and a witness; another witness and an observer come and go. A managed process with a fence.
    Mixed,
    /// Three members, two roles; a demote command stops the one, a fence alone the other.
    Stopping,
    /// Five members; a command stops the application, a harder one the guardian has.
    Fenced,
    /// Three members; clients come by the first of two networks.
    Clients,
}

const SHAPES: [Shape; 9] = [
    Shape::Three,
    Shape::TwoAndWitness,
    Shape::Changing,
    Shape::Five,
    Shape::TwoRoles,
    Shape::OneNetwork,
    Shape::Mixed,
    Shape::Stopping,
    Shape::Fenced,
];

impl Shape {
    /// Every node that may ever be there, the first ones from the beginning.
    pub fn nodes(self) -> Vec<(usize, Kind)> {
        use Kind::{Member, Observer, Witness};
        let kinds: &[Kind] = match self {
            Shape::Three | Shape::OneNetwork | Shape::Stopping | Shape::Clients => &[Member; 3],
            Shape::TwoAndWitness => &[Member, Member, Witness],
            Shape::Two => &[Member; 2],
            Shape::Changing | Shape::Five | Shape::Fenced => &[Member; 5],
            Shape::TwoRoles => &[Member, Member, Member, Observer],
            Shape::Mixed => &[Member, Member, Witness, Witness, Observer],
        };
        kinds.iter().copied().enumerate().collect()
    }

    /// How many are not there at the beginning.
    pub fn spare(self) -> usize {
        match self {
            Shape::Changing | Shape::Mixed => 2,
            _ => 0,
        }
    }

    pub fn roles(self) -> usize {
        if matches!(self, Shape::TwoRoles | Shape::Stopping) {
            2
        } else {
            1
        }
    }

    fn networks(self) -> usize {
        if matches!(self, Shape::OneNetwork | Shape::Two) {
            1
        } else {
            2
        }
    }

    /// A cluster of it, just started.
    pub fn world(self, seed: u64) -> World {
        let mut nodes = self.nodes();
        nodes.truncate(nodes.len() - self.spare());
        let mut config = config(&nodes, self.networks(), self.roles(), W);
        config.networks[0].clients = self == Shape::Clients;
        for (place, role) in config.roles.values_mut().enumerate() {
            *role = Role {
                notify: action(3000, OnFailure::Stay),
                ..self.settings(place)
            };
            if !broken!(FenceAloneIsNoDemote) {
                *role = std::mem::take(role).with_demote();
            }
        }
        World::new(config, seed)
    }

    /// How the application of the role at this place is started and stopped. Most shapes have none that takes any time: there the
    /// lease is used to its very end, and what is at the very end is found.
    fn settings(self, role: usize) -> Role {
        let plain = Role::default();
        match (self, role) {
            (Shape::Stopping, 1) => Role {
                fence: action(200, OnFailure::Retry),
                ..plain
            },
            (Shape::Stopping, _) => Role {
                promote: action(3000, OnFailure::Release),
                demote: action(300, OnFailure::Retry),
                ..plain
            },
            (Shape::Fenced, _) => Role {
                promote: action(3000, OnFailure::Retry),
                demote: action(2000, OnFailure::Retry),
                fence: action(200, OnFailure::Retry),
                ..plain
            },
            // Two stops, one that fits in the end of a lease and one that does not.
            (Shape::TwoRoles, 1) => Role {
                promote: action(3000, OnFailure::Release),
                process: process(200),
                ..plain
            },
            (Shape::Mixed, _) => Role {
                promote: action(3000, OnFailure::Release),
                fence: action(200, OnFailure::Retry),
                process: process(1500),
                ..plain
            },
            _ => plain,
        }
    }

    /// Whether stopping the application of some role takes time; and whether that is a managed process.
    pub fn stops(self) -> bool {
        (0..self.roles()).any(|role| self.settings(role).stops())
    }
}

/// A life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    pub shape: Shape,
    /// Of the world's own draws: delays, losses, torn writes.
    pub seed: u64,
    /// How fast each node's clock runs, in millionths.
    pub drift: Vec<i64>,
    /// What happens, and for how many milliseconds nothing does after it.
    pub faults: Vec<(Fault, u64)>,
}

/// How a life ended well.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lived {
    /// True time, simulated.
    pub time: Duration,
    /// Events handled.
    pub events: u64,
    /// Times that a node became active.
    pub takeovers: u64,
}

/// How a life went wrong.
#[derive(Clone, Debug)]
pub(super) struct Died {
    pub violation: Violation,
    /// Everything that happened, a line each.
    pub story: String,
}

impl Life {
    /// Draws a life.
    pub fn draw(seed: u64) -> Life {
        let shape = SHAPES[(seed % SHAPES.len() as u64) as usize];
        if seed % GUARDED == GUARDED - 1 {
            return Life::guarded(shape, seed);
        }
        if seed % DOUBLED == DOUBLED / 2 && shape.spare() == 0 {
            return Life::doubled(shape, seed);
        }
        if seed % HUNG == HUNG / 4 {
            return Life::hung(shape, seed);
        }
        if seed % CLIENTS == CLIENTS / 4 {
            return Life::with_clients(seed);
        }
        Life::of(shape, seed)
    }

    /// Draws a life in which much happens to the network by which clients come, and nobody dies.
    pub fn with_clients(seed: u64) -> Life {
        let mut life = Life::of(Shape::Clients, seed);
        let mut dice = Dice::new(!seed);
        for fault in &mut life.faults {
            *fault = (Fault::of_clients(&mut dice), pause(&mut dice));
        }
        life
    }

    /// Draws a life of a shape.
    pub fn of(shape: Shape, seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let extremes = dice.roll(2) == 0;
        let drift = shape.nodes().into_iter().map(|_| {
            let drift = if extremes {
                dice.roll(2) * 2 * MAX_DRIFT_PPM
            } else {
                dice.roll(2 * MAX_DRIFT_PPM)
            };
            drift as i64 - MAX_DRIFT_PPM as i64
        });
        let drift = drift.collect();
        let faults = (0..FAULTS).map(|_| (Fault::draw(&mut dice, shape), pause(&mut dice)));
        let faults = faults.collect();
        Life {
            shape,
            seed,
            drift,
            faults,
        }
    }

    /// Draws a life in which every other fault is this kind of aimed one.
    pub fn aimed(shape: Shape, kind: u64, seed: u64) -> Life {
        let mut life = Life::of(shape, seed);
        let mut dice = Dice::new(!seed);
        for at in (0..life.faults.len()).step_by(2) {
            life.faults[at] = (Fault::aimed(kind, &mut dice, shape), 200 + dice.roll(2500));
        }
        life
    }

    /// A life in which the holder's machine is paused now and then, clock and all, and asked for confirmations.
    pub fn with_pauses(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let faults = (0..10).map(|_| (Fault::MachinePaused(Who::Holder(0), 900 + dice.roll(3000)), 3500));
        Life {
            shape: Shape::Three,
            seed,
            drift: vec![0; 3],
            faults: faults.collect(),
        }
    }

    /// A life of two on one lossy network, short enough that all may be well: with every third datagram lost a lease runs out by chance some
    /// day.
    pub fn in_the_rain(seed: u64) -> Life {
        Life {
            shape: Shape::Two,
            seed,
            drift: vec![0; 2],
            faults: vec![(Fault::Drizzle(20), 0)],
        }
    }

    /// A life in which agents die whose guardians cannot stop what they leave, and are started again.
    pub fn with_leftovers(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let holder = Who::Holder(0);
        let faults = (0..3).flat_map(|_| {
            let back = 100 + dice.roll(3000);
            [
                (Fault::Fences(holder, Way::Badly), dice.roll(100)),
                (Fault::DiesAndReturns(holder, back), 2500 + dice.roll(1500)),
                (Fault::Heal, 2500),
            ]
        });
        Life {
            shape: Shape::Stopping,
            seed,
            drift: vec![0; 3],
            faults: faults.collect(),
        }
    }

    /// A life of a shape in which every other fault, and how long it is left alone, is drawn by `draw`.
    fn every_other(shape: Shape, seed: u64, mut draw: impl FnMut(&mut Dice) -> (Fault, u64)) -> Life {
        let mut life = Life::of(shape, seed);
        let mut dice = Dice::new(!seed);
        for fault in life.faults.iter_mut().step_by(2) {
            *fault = draw(&mut dice);
        }
        life
    }

    /// A life in which much happens to guardians, alone and with their agents, and to what is below them.
    pub fn guarded(shape: Shape, seed: u64) -> Life {
        Life::every_other(shape, seed, |dice| {
            let who = Who::Holder(dice.roll(shape.roles() as u64) as usize);
            (Fault::of_guardian(dice, who), pause(dice))
        })
    }

    /// A life in which every other fault has to do with several runs under one name. In peace none of them is left.
    pub fn doubled(shape: Shape, seed: u64) -> Life {
        Life::every_other(shape, seed, |dice| {
            let who = holder_or_any(dice);
            (Fault::of_doubles(dice, who), pause(dice))
        })
    }

    /// A life in which every other fault has to do with disks that hang, some of them for long enough that it is noticed.
    pub fn hung(shape: Shape, seed: u64) -> Life {
        Life::every_other(shape, seed, |dice| {
            let who = holder_or_any(dice);
            (Fault::of_disks(dice, who), dice.roll(6000))
        })
    }

    /// A life in which disks hang and nothing else is wrong, twice.
    pub fn with_hung_disks(seed: u64) -> Life {
        let shapes = [Shape::Three, Shape::Five, Shape::TwoAndWitness, Shape::Stopping];
        let shape = shapes[(seed % 4) as usize];
        let mut dice = Dice::new(seed);
        let faults = (0..2).map(|_| (Fault::DisksTried(dice.roll(1 << 32)), 1000));
        Life {
            shape,
            seed,
            drift: vec![0; shape.nodes().len()],
            faults: faults.collect(),
        }
    }

    /// A life in which nobody can run what it needs, and nothing else is wrong.
    pub fn without_programs(seed: u64) -> Life {
        let shapes = [Shape::Three, Shape::Five, Shape::TwoAndWitness, Shape::TwoRoles];
        let shape = shapes[(seed % 4) as usize];
        Life {
            shape,
            seed,
            drift: vec![0; shape.nodes().len()],
            faults: vec![(Fault::ProgramsTried, 1000)],
        }
    }

    /// A life of a node with a twin that is heard in its place for a while, and then leaves, or is heard on without hearing anybody.
    pub fn with_twins(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let who = [Who::Holder(0), Who::Node(1), Who::Node(2)][dice.roll(3) as usize];
        let what = [Double::Twin, Double::TwinBehind][dice.roll(2) as usize];
        let mut faults = vec![(Fault::Doubled(who, what, u64::MAX), 1500 + dice.roll(3000))];
        if dice.roll(2) == 0 {
            faults.push((Fault::DoublesStay, 0));
        }
        Life {
            shape: [Shape::Three, Shape::OneNetwork][dice.roll(2) as usize],
            seed,
            drift: vec![0; 3],
            faults,
        }
    }

    /// A life of a node whose disk was copied.
    pub fn with_clones(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let shape = [Shape::Three, Shape::OneNetwork][dice.roll(2) as usize];
        Life {
            shape,
            seed,
            drift: vec![0; 3],
            faults: vec![(Fault::CloneOutlived(dice.roll(1 << 32)), dice.roll(1000))],
        }
    }

    /// A life in which agents are killed, or stand still, while nobody reads what their guardians say.
    pub fn with_stuck_logs(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let faults = (0..4).flat_map(|_| {
            let holder = Who::Holder(0);
            let hit = match dice.roll(2) {
                0 => Fault::Freeze(holder),
                _ => Fault::Dies(holder),
            };
            [
                (Fault::LogStuck(holder, 3000 + dice.roll(3000)), dice.roll(100)),
                (hit, 2500 + dice.roll(1500)),
                (Fault::Heal, 0),
                (Fault::Wake, 2500),
            ]
        });
        Life {
            shape: Shape::Stopping,
            seed,
            drift: vec![0; 3],
            faults: faults.collect(),
        }
    }

    /// A life of two in which the role goes away and comes back, before the holder hears that its process had ended.
    pub fn with_old_news(seed: u64) -> Life {
        let mut dice = Dice::new(seed);
        let (away, back) = (400 + dice.roll(500), 400 + dice.roll(500));
        let holder = Who::Holder(1);
        let late = away + back + dice.roll(500);
        Life {
            shape: Shape::TwoRoles,
            seed,
            drift: vec![0; 4],
            faults: vec![
                (Fault::Kill(Who::Node(2)), 1500),
                (
                    Fault::ProcessEnds(holder, 1, dice.roll(2) == 0, 1, late),
                    dice.roll(20),
                ),
                (Fault::Switchover(holder, 1), away),
                (Fault::Switchover(holder, 1), back),
                (Fault::Heal, 1000),
            ],
        }
    }

    /// Lives it. `only`: one invariant counts alone.
    pub fn live(&self, only: Option<&'static str>) -> Result<Lived, Died> {
        let mut w = self.shape.world(self.seed);
        w.invariants_mut().only = only;
        let lived = catch_unwind(AssertUnwindSafe(|| self.run(&mut w)));
        if let Err(panic) = lived {
            w.fail("panic", words(&panic));
        }
        match w.violation.take() {
            Some(violation) => Err(Died {
                violation,
                story: w.story(),
            }),
            None => Ok(Lived {
                time: Duration::from_nanos(w.now - super::world::BEGINNING),
                events: w.handled,
                takeovers: w
                    .roles()
                    .iter()
                    .map(|r| w.invariants().spans(r).len() as u64)
                    .sum(),
            }),
        }
    }

    fn run(&self, w: &mut World) {
        for (n, ppm) in self.drift.iter().enumerate().take(w.nodes.len()) {
            w.set_drift(n, *ppm);
        }
        w.run(Duration::from_millis(2500));
        for (fault, pause) in &self.faults {
            fault.strike(w, self.shape);
            w.run(Duration::from_millis(*pause));
            if w.violation.is_some() {
                return;
            }
        }
        peace::peace(w, self.seed);
        let doubled = |(fault, _): &(Fault, u64)| {
            matches!(
                fault,
                Fault::Doubled(..) | Fault::ReplacedBehind(..) | Fault::CloneOutlived(_)
            )
        };
        if w.violation.is_none() && self.faults.iter().any(doubled) {
            peace::visit(w, self.seed);
        }
    }
}

pub(super) fn action(timeout_ms: u64, on_failure: OnFailure) -> Option<Action> {
    Some(Action {
        call: Call::Command(vec!["true".into()]),
        timeout: Duration::from_millis(timeout_ms),
        on_failure,
    })
}

pub(super) fn process(stop_timeout_ms: u64) -> Option<Process> {
    Some(Process {
        command: vec!["true".into()],
        mode: Mode::Cold,
        stop_timeout: Duration::from_millis(stop_timeout_ms),
        kill_time: None,
        stop_signal: 15,
        promote_signal: None,
        demote_signal: None,
        restarts: 0,
        restart_delay: Duration::from_millis(1),
    })
}

fn holder_or_any(dice: &mut Dice) -> Who {
    match dice.roll(2) {
        0 => Who::Holder(0),
        _ => Who::Node(dice.roll(5) as usize),
    }
}

fn pause(dice: &mut Dice) -> u64 {
    let long = dice.roll(3) == 0;
    dice.roll(if long { 3000 } else { 600 })
}

/// What a panic said.
fn words(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
