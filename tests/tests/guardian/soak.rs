//! Random faults, one after another, on a machine that is busy: agents, guardians and applications are stopped, killed and thawed at a
//! window of 100 ms. No two applications ever act at once.
//!
//! `BATON_SOAK=1000 BATON_SEED=7 cargo test --workspace --test guardian -- --ignored --nocapture soak` plays so many of that seed; the
//! gate plays few.

use baton_shared::clock::Mono;
use baton_shared::clock::wall_ms;
use baton_tests::application::Acts;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::process::lives;
use baton_tests::real::app::App;
use baton_tests::real::burden::Burden;
use baton_tests::real::judge::{Finding, judge};
use baton_tests::real::kin;
use baton_tests::real::mode::{Ground, Mode};
use baton_tests::real::trouble::revive;
use baton_tests::watch::Viewpoint;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::Duration;

const WINDOW: Duration = Duration::from_millis(100);
/// What the gate plays.
const FEW: u32 = 24;
/// As many by one cluster: what is written down of it stays small.
const ROUND: u32 = 50;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// What keepers have for killing what they keep, on a machine that is busy.
const KEEPERS: Duration = Duration::from_secs(5);
/// The longest and the shortest time that something stands still, and that passes between two faults.
const PAUSES: (u64, u64) = (5, 500);

/// The applications and modes that rounds take in turn.
const ROUNDS: [(App, Mode); 6] = [
    (App::Scattered, Mode::Cgroup),
    (App::Stubborn, Mode::Tree),
    (App::Scattered, Mode::User),
    (App::Scattered, Mode::Tree),
    (App::Stubborn, Mode::Delegated),
    (App::Scattered, Mode::Container),
];

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    AgentKilled,
    AgentStopped,
    GuardianKilled,
    GuardianStopped,
    BothKilled,
    BothStopped,
    /// Any of the application's processes.
    ProcessKilled,
    ProcessStopped,
    Switchover,
    Stop,
}

const FAULTS: [Fault; 10] = [
    Fault::AgentKilled,
    Fault::AgentStopped,
    Fault::GuardianKilled,
    Fault::GuardianStopped,
    Fault::BothKilled,
    Fault::BothStopped,
    Fault::ProcessKilled,
    Fault::ProcessStopped,
    Fault::Switchover,
    Fault::Stop,
];

/// Numbers that a seed gives (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pause(&mut self) -> Duration {
        let (shortest, longest) = PAUSES;
        Duration::from_millis(shortest + self.next() % (longest - shortest))
    }
}

/// What came of it.
#[derive(Default)]
struct Figures {
    faults: BTreeMap<Fault, u32>,
    takeovers: usize,
    gap: Duration,
    found: Vec<Finding>,
    left: Vec<String>,
}

/// One cluster and its round.
struct Round {
    ground: Ground,
    cluster: Cluster,
}

impl Round {
    fn set((app, mode): (App, Mode)) -> Round {
        let plan = Plan::members(&NAMES).window(WINDOW).more(&app.tables(mode));
        let mut cluster = Cluster::unstarted_in_lab(plan);
        drop(baton_tests::real::app::Stage::prepare(app, &cluster));
        let ground = Ground::prepare(mode, &cluster);
        for name in NAMES {
            ground.start(&mut cluster, name);
        }
        Round { ground, cluster }
    }

    /// Starts what has ended, as whatever supervises nodes would.
    fn revive(&mut self) {
        for name in NAMES {
            let ground = &self.ground;
            revive(&mut self.cluster, name, |cluster| ground.start(cluster, name));
        }
    }

    /// The node that is active, asked beside each. A node whose guardian was stuck in the kernel ends some ten seconds later.
    fn holder(&mut self) -> String {
        until(2 * GENEROUS, "a node is active", || {
            self.revive();
            let active = |name: &&&str| {
                let status = self.cluster.status(name).ok();
                let role = status.as_ref().and_then(|status| status.roles.first());
                let node = role.and_then(|role| role.active.as_ref());
                node.is_some_and(|node| node.as_str() == **name)
            };
            let found = NAMES.iter().find(active);
            found.map(ToString::to_string).ok_or_else(|| "none is".to_owned())
        })
    }

    /// Gives the fault to the holder, or now and then to another.
    fn play(&mut self, dice: &mut Dice, figures: &mut Figures) {
        let mut name = self.holder();
        if dice.below(5) == 0 {
            name = NAMES[dice.below(NAMES.len())].to_owned();
        }
        let fault = FAULTS[dice.below(FAULTS.len())];
        *figures.faults.entry(fault).or_default() += 1;
        let process = self.cluster.process(&name);
        let (guardian, agent) = (process.guardian(), process.agent());
        let home = self.cluster.home(&name);
        let own: Vec<u32> = [Some(guardian), agent].into_iter().flatten().collect();
        let app: Vec<u32> = kin::left(&home).iter().map(|kin| kin.id).collect();
        let one: Vec<u32> = app.get(dice.below(app.len())).copied().into_iter().collect();
        let agent: Vec<u32> = agent.into_iter().collect();
        match fault {
            Fault::AgentKilled => signal(&agent, Signal::KILL),
            Fault::GuardianKilled => signal(&[guardian], Signal::KILL),
            Fault::BothKilled => signal(&own, Signal::KILL),
            Fault::ProcessKilled => signal(&one, Signal::KILL),
            Fault::AgentStopped => still(&agent, dice.pause()),
            Fault::GuardianStopped => still(&[guardian], dice.pause()),
            Fault::BothStopped => still(&own, dice.pause()),
            Fault::ProcessStopped => still(&one, dice.pause()),
            // It may be refused, so soon after another fault.
            Fault::Switchover => drop(self.cluster.cli(&name, &["switchover"])),
            Fault::Stop => {
                signal(&[guardian], Signal::TERM);
                let _ = self.cluster.ended_within(&name, GENEROUS);
            }
        }
        hold(dice.pause());
        self.revive();
    }

    /// Stops all nodes, and adds up.
    fn end(mut self, figures: &mut Figures) {
        for name in self.cluster.running() {
            // It may have ended of the last fault.
            until(2 * GENEROUS, "every node has started or ended", || {
                match self.cluster.ended_within(&name, Duration::ZERO) {
                    Some(_) => Ok(()),
                    None if self.cluster.running().contains(&name) => self.cluster.status(&name).map(drop),
                    None => Ok(()),
                }
            });
            if self.cluster.running().contains(&name) {
                signal(&[self.cluster.process(&name).guardian()], Signal::TERM);
                let ended = self.cluster.ended_within(&name, GENEROUS);
                assert!(ended.is_some(), "{name} does not end");
            }
        }
        for name in NAMES {
            let home = self.cluster.home(name);
            // Where guardian and agent were killed, keepers are still at it.
            let end = now() + KEEPERS;
            let mut left = kin::left(&home);
            while !left.is_empty() && now() < end {
                hold(Duration::from_millis(20));
                left = kin::left(&home);
            }
            figures
                .left
                .extend(left.iter().map(|kin| format!("left on {name}: {kin}")));
            kin::kill_left(&home);
        }
        self.cluster.verify();
        let acts: Vec<Acts> = self.cluster.applications().acts();
        let spans = self.cluster.watch.spans();
        figures.found.extend(judge(&acts, &spans));
        figures.takeovers += spans.windows(2).filter(|two| two[0].node != two[1].node).count();
        let first = spans.first().map_or(Mono::ZERO, |span| span.last_received);
        let gap = self.cluster.watch.outage(Viewpoint::Nodes, first);
        figures.gap = figures.gap.max(gap.unwrap_or_default());
    }
}

/// Signals all that still live.
fn signal(ids: &[u32], signal: Signal) {
    for id in ids.iter().filter(|id| lives(**id)) {
        if let Some(id) = Pid::from_raw(id.cast_signed()) {
            let _ = kill_process(id, signal); // it may have ended just now
        }
    }
}

/// They stand still for so long.
fn still(ids: &[u32], so_long: Duration) {
    signal(ids, Signal::STOP);
    hold(so_long);
    signal(ids, Signal::CONT);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn soak_of_random_faults_no_two_applications_act_at_once() {
    let count = number("BATON_SOAK").map_or(FEW, |count| count as u32);
    let seed = number("BATON_SEED").unwrap_or_else(wall_ms);
    eprintln!("{count} faults, BATON_SEED={seed}");
    let mut dice = Dice(seed);
    let mut figures = Figures::default();
    let _burden = Burden::begin();
    let per_round = ROUND.min(count.div_ceil(2)).max(1);
    let mut played = 0;
    for what in ROUNDS.into_iter().cycle() {
        let mut round = Round::set(what);
        for _ in 0..per_round.min(count - played) {
            round.play(&mut dice, &mut figures);
            played += 1;
        }
        round.end(&mut figures);
        eprintln!(
            "{played} faults, {what:?}: {} findings so far",
            figures.found.len()
        );
        if played >= count {
            break;
        }
    }
    figures.found.sort_by_key(|finding| std::cmp::Reverse(finding.by));
    let worst = figures.found.first().map_or(Duration::ZERO, |finding| finding.by);
    eprintln!(
        "{played} faults {:?}, {} takeovers, worst overlap {worst:?}, worst gap {:?}",
        figures.faults, figures.takeovers, figures.gap
    );
    let said: Vec<String> = figures
        .found
        .iter()
        .take(20)
        .map(ToString::to_string)
        .chain(figures.left)
        .collect();
    assert!(
        said.is_empty(),
        "BATON_SEED={seed}: {} findings\n{}",
        figures.found.len(),
        said.join("\n")
    );
    assert!(figures.takeovers > 0);
}
