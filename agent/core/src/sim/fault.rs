//! What can go wrong, as data: so that a schedule can be printed, kept, replayed and shortened.
//!
//! Most faults are simple. The last ones are aimed: short plots around the holder that leave one rule alone between the cluster and
//! two active nodes, or an epoch that falls. Random faults would need ages to line up like that.

use super::MS;
use super::dice::Dice;
use super::life::Shape;
use super::world::{Double, Way, World, config, name};
use crate::Request;
use baton_shared::id::Kind;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Who {
    /// Whoever is active for a role now, by the role's place; if nobody is, the first node.
    Holder(usize),
    /// The leader of the log.
    Leader,
    /// This configured node, counted round and round.
    Node(usize),
}

/// One thing that goes wrong, or right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    Silence(Who),
    NetworkLost(Who, usize),
    Deaf(Who),
    Mute(Who),
    Part(Who, Who),
    Heal,
    /// Everybody is started and thawed.
    Wake,
    Kill(Who),
    /// Killed, and its guardian says so.
    Dies(Who),
    /// Killed, and started again after so many milliseconds.
    Restart(Who, u64),
    /// Told to stop, and started again after so many milliseconds.
    Stop(Who, u64),
    /// Killed, its disk lost, and started again after so many milliseconds.
    Wipe(Who, u64),
    Freeze(Who),
    /// Percent of datagrams lost, or doubled.
    Loss(u64),
    Twice(u64),
    /// Milliseconds that datagrams are late, that a node takes over one input, that a flush takes longer, at most.
    Late(u64),
    Slow(Who, u64),
    Flush(u64),
    /// Percent of the log's news that come late or in part.
    Lag(u64),
    /// The log does not reach the node, nor it the log.
    LogCut(Who),
    Depose,
    Health(Who, usize, bool),
    Drift(Who, i64),
    Switchover(Who, usize),
    Drain(Who, Who, bool),
    Pause(Who, bool),
    Confirm(Who, usize),
    /// The configuration gets these nodes: a bit each.
    Resize(u64),
    /// Any distinct epochs to anybody.
    Anarchy(usize),
    /// One voter is bound no more, another forgets that it is: only V4 is left between two leases.
    PromisesForgotten(u64),
    /// Without the log's news one takes the role out of turn, and a voter restarts: only its floor is left (V3).
    FloorsForgotten(u64),
    /// The voters change while an old lease runs that some are not bound by: only the wait is left (V5).
    ElectorateLeft(u64),
    /// The role passes, unheard by the log, while a joint electorate is on its way: only its floors are left (V5).
    FloorsEarly(u64),
    /// The holder and one voter do not hear of the new electorate, and go on under the old one (V5).
    ElectorateStale(u64),
    /// The role goes away and comes back, so that the holder has released before; then it hears nobody (V6).
    ThereAndBack(u64),
    /// A voter is slow to write a claim down, and promises to another meanwhile (V1).
    FlushOvertaken(u64),
    /// The voter that the lease hangs on stalls with a claim in its socket (V2).
    VoterStalled(u64),
    /// The machine is paused with its clock for so many milliseconds; then its face is asked for a confirmation.
    MachinePaused(Who, u64),
    /// A third of all datagrams are lost for so many seconds, and nobody outside may notice.
    Drizzle(u64),
    /// Killed, its guardian fences and says so; it is started again so many milliseconds later, or when the guardian is through.
    DiesAndReturns(Who, u64),
    /// So go its promotions, demotions and fences from now on.
    Promotes(Who, Way),
    Demotes(Who, Way),
    Fences(Who, Way),
    /// The guardian stands still, and goes on after so many milliseconds.
    GuardianStopped(Who, u64),
    /// The guardian is killed; its agent sees it, and ends.
    GuardianDies(Who),
    /// Guardian and agent are killed together; what is started again then finds what they left.
    BothDie(Who),
    /// Guardian and agent stand still together, and go on after so many milliseconds.
    BothStopped(Who, u64),
    /// Killed, and its own guardian starts it again as soon as it may.
    DiesAndIsStarted(Who),
    /// Nobody reads what the guardian says for so many milliseconds.
    LogStuck(Who, u64),
    /// A process of the next application that is killed there stays so much longer, in milliseconds.
    Lingers(Who, u64),
    /// Its managed process ends: too often if that is set. It runs again after so many milliseconds, or (0) a long while; its
    /// agent hears of its end so many milliseconds late.
    ProcessEnds(Who, usize, bool, u64, u64),
    /// Another process runs as this node, and is reached in its place: a bit for each sender and network.
    Doubled(Who, Double, u64),
    /// The doubles that there are are reached so from now on.
    DoublesReached(u64),
    DoublesLeave,
    /// In the peace that follows doubles go on, and nobody reaches them.
    DoublesStay,
    /// Killed, its disk lost, and started again after so many milliseconds, with a clock that is behind.
    ReplacedBehind(Who, u64),
    /// The disk completes nothing; it answers again.
    DiskHangs(Who),
    DiskAnswers(Who),
    /// Some disks hang and answer again, and nobody outside may notice more than an orderly handover.
    DisksTried(u64),
    /// Nobody can run what it needs; and all the same somebody takes over.
    ProgramsTried,
    /// The first network is lost one way: what the node sends there (if that is set), or what is sent to it.
    OneWay(Who, bool),
    /// The node's cable on the first network is pulled.
    Unplugged(Who),
    /// It is pulled and plugged in again so many times, each for half a second.
    Flaps(Who, u64),
    /// The first network is lost for everybody; if that is set with all carriers, not all at once.
    SwitchGone(bool),
    /// A clone is heard in a node's place and votes, unknown to a third; then it is gone, and the node is back (V7).
    CloneOutlived(u64),
}

/// Doubles of one life, at most.
const MAX_DOUBLES: usize = 3;

const BOTH: &[usize] = &[0, 1];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Fault {
    /// Draws one.
    pub fn draw(dice: &mut Dice, shape: Shape) -> Fault {
        let roles = shape.roles() as u64;
        let who = |dice: &mut Dice| match dice.roll(8) {
            // Half of all faults hit a holder: there it hurts.
            0..=3 => Who::Holder(dice.roll(roles) as usize),
            4 => Who::Leader,
            _ => Who::Node(dice.roll(5) as usize),
        };
        let w = who(dice);
        let more = if shape.stops() { 16 } else { 0 };
        match dice.roll(42 + more) {
            0 => Fault::Silence(w),
            1 => Fault::NetworkLost(w, dice.roll(2) as usize),
            2 => Fault::Deaf(w),
            3 => Fault::Mute(w),
            4 => Fault::Part(w, who(dice)),
            5..=7 => Fault::Heal,
            8 | 9 => Fault::Wake,
            10 => Fault::Kill(w),
            11 => Fault::Dies(w),
            12 | 13 => Fault::Restart(w, dice.roll(600)),
            14 => Fault::Stop(w, 200 + dice.roll(2000)),
            15 => Fault::Wipe(w, dice.roll(600)),
            16 | 17 => Fault::Freeze(w),
            18 => Fault::Loss(dice.roll(40)),
            19 => Fault::Twice(dice.roll(50)),
            20 => Fault::Late(dice.roll(300)),
            21 => Fault::Slow(w, if dice.roll(4) == 0 { 300 } else { 4 }),
            22 => Fault::Flush(if dice.roll(4) == 0 { 800 } else { 30 }),
            23 => Fault::Lag(dice.roll(60)),
            24 => Fault::LogCut(w),
            25 => Fault::Depose,
            26 | 27 => Fault::Health(w, dice.roll(roles) as usize, dice.roll(2) == 0),
            28 => Fault::Drift(w, dice.roll(9_801) as i64 - 4_900),
            29 => Fault::Switchover(w, dice.roll(roles) as usize),
            30 => Fault::Drain(w, who(dice), dice.roll(2) == 0),
            31 => Fault::Pause(w, dice.roll(3) == 0),
            32 => Fault::Confirm(w, dice.roll(roles) as usize),
            33 => Fault::Anarchy(dice.roll(roles) as usize),
            34 if shape.spare() > 0 => Fault::Resize(dice.roll(32)),
            35..=41 => Fault::aimed(dice.roll(8), dice, shape),
            42..=57 => Fault::of_application(dice, shape, w),
            _ => Fault::Heal,
        }
    }

    /// One that has to do with how an application is started and stopped.
    pub fn of_application(dice: &mut Dice, shape: Shape, who: Who) -> Fault {
        let way = match dice.roll(3) {
            0 => Way::Well,
            1 => Way::Slowly,
            _ => Way::Badly,
        };
        match dice.roll(12) {
            8..=11 => Fault::of_guardian(dice, who),
            0 | 1 => Fault::DiesAndReturns(who, dice.roll(600)),
            2 => Fault::Promotes(who, way),
            3 => Fault::Demotes(who, way),
            4 => Fault::Fences(who, way),
            5 => Fault::Freeze(who),
            _ => {
                let failed = dice.roll(2) == 0;
                // One of which it is said that it is started again is, soon; the other may take long.
                let up = match dice.roll(2) {
                    0 if failed => 0,
                    _ => 1 + dice.roll(1000),
                };
                let late = if dice.roll(3) == 0 { dice.roll(2500) } else { 1 };
                Fault::ProcessEnds(who, dice.roll(shape.roles() as u64) as usize, failed, up, late)
            }
        }
    }

    /// One that has to do with the process above the agent, and with those below both.
    pub fn of_guardian(dice: &mut Dice, who: Who) -> Fault {
        let long = |dice: &mut Dice| {
            if dice.roll(2) == 0 {
                dice.roll(400)
            } else {
                dice.roll(4000)
            }
        };
        match dice.roll(8) {
            0 | 1 => Fault::GuardianStopped(who, long(dice)),
            2 => Fault::GuardianDies(who),
            3 => Fault::BothDie(who),
            4 => Fault::BothStopped(who, long(dice)),
            5 => Fault::DiesAndIsStarted(who),
            6 => Fault::LogStuck(who, long(dice)),
            _ => Fault::Lingers(who, long(dice)),
        }
    }

    /// One that has to do with several runs under one name. No clones: whose disk is lost to one, and when, is beyond the account that
    /// random faults keep.
    pub fn of_doubles(dice: &mut Dice, who: Who) -> Fault {
        let what = match dice.roll(3) {
            0 => Double::TwinBehind,
            _ => Double::Twin,
        };
        let bits = match dice.roll(3) {
            0 => 0,
            1 => u64::MAX,
            _ => dice.roll(1 << 20),
        };
        match dice.roll(6) {
            0 | 1 => Fault::Doubled(who, what, bits),
            2 => Fault::DoublesReached(bits),
            3 => Fault::DoublesLeave,
            _ => Fault::ReplacedBehind(who, dice.roll(600)),
        }
    }

    /// One that has to do with disks.
    pub fn of_disks(dice: &mut Dice, who: Who) -> Fault {
        match dice.roll(8) {
            0..=3 => Fault::DiskHangs(who),
            4 | 5 => Fault::DiskAnswers(who),
            6 => Fault::Flush(dice.roll(5000)),
            _ => Fault::Depose,
        }
    }

    /// One that has to do with the network by which clients come. Nobody is killed: of a node that was, nobody can say why it hands over.
    pub fn of_clients(dice: &mut Dice) -> Fault {
        let who = match dice.roll(3) {
            0 | 1 => Who::Holder(0),
            _ => Who::Node(dice.roll(5) as usize),
        };
        match dice.roll(18) {
            0..=3 => Fault::NetworkLost(who, 0),
            4 => Fault::NetworkLost(who, 1),
            5 => Fault::OneWay(who, dice.roll(2) == 0),
            6 | 7 => Fault::Unplugged(who),
            8 => Fault::Flaps(who, 1 + dice.roll(4)),
            9 | 10 => Fault::SwitchGone(dice.roll(2) == 0),
            11 => Fault::Loss(dice.roll(40)),
            12 => Fault::Late(dice.roll(100)),
            13 => Fault::Switchover(who, 0),
            14 => Fault::Freeze(who),
            15 => Fault::Wake,
            _ => Fault::Heal,
        }
    }

    /// One of the aimed ones.
    pub fn aimed(kind: u64, dice: &mut Dice, shape: Shape) -> Fault {
        let seed = dice.roll(1 << 32);
        match kind {
            0 => Fault::PromisesForgotten(seed),
            1 => Fault::FloorsForgotten(seed),
            2 => Fault::ThereAndBack(seed),
            3 => Fault::FlushOvertaken(seed),
            4 if shape.spare() > 0 => Fault::ElectorateLeft(seed),
            5 if shape.spare() > 0 => Fault::FloorsEarly(seed),
            6 if shape.spare() > 0 => Fault::ElectorateStale(seed),
            7 => Fault::VoterStalled(seed),
            _ => Fault::Heal,
        }
    }

    /// Does it.
    pub fn strike(&self, w: &mut World, shape: Shape) {
        w.announce(format!("{self:?}"));
        let role = |w: &World, n: usize| w.roles()[n % w.roles().len()].clone();
        match *self {
            Fault::Silence(who) => w.silence(find(w, who), BOTH),
            Fault::NetworkLost(who, network) => w.silence(find(w, who), &[network]),
            Fault::Deaf(who) => w.one_way(find(w, who), BOTH, false, true),
            Fault::Mute(who) => w.one_way(find(w, who), BOTH, true, false),
            Fault::Part(one, other) => w.part(find(w, one), find(w, other)),
            Fault::Heal => w.heal(),
            Fault::Wake => wake(w),
            Fault::Kill(who) => w.kill(find(w, who), false),
            Fault::Dies(who) => w.kill(find(w, who), true),
            Fault::Restart(who, pause) => {
                let n = find(w, who);
                w.kill(n, false);
                w.run(ms(pause));
                w.start(n);
            }
            Fault::Stop(who, pause) => {
                let n = find(w, who);
                w.stop(n);
                w.run(ms(pause));
                w.kill(n, false);
                w.start(n);
            }
            Fault::Wipe(who, pause) => {
                let n = find(w, who);
                // No rule survives the loss of a majority's disks.
                if w.nodes[n].up && w.majority_without(|m| m == n) {
                    w.wipe(n);
                    w.run(ms(pause));
                    w.start(n);
                }
            }
            Fault::Freeze(who) => {
                let n = find(w, who);
                if w.nodes[n].up {
                    w.freeze(n);
                }
            }
            Fault::Loss(share) => w.loss = share,
            Fault::Twice(share) => w.twice = share,
            Fault::Late(at_most) => w.late = ms(at_most),
            Fault::Slow(who, at_most) => {
                let n = find(w, who);
                w.nodes[n].slow = ms(at_most);
            }
            Fault::Flush(at_most) => w.flush_late = ms(at_most),
            Fault::Lag(share) => w.lag = share,
            Fault::LogCut(who) => {
                let n = find(w, who);
                w.nodes[n].log_cut = true;
            }
            Fault::Depose => w.depose(),
            Fault::Health(who, r, healthy) => {
                let (n, role) = (find(w, who), role(w, r));
                w.set_health(n, &role, healthy);
            }
            Fault::Drift(who, ppm) => w.set_drift(find(w, who), ppm),
            Fault::Switchover(who, r) => {
                let role = role(w, r);
                w.ask(find(w, who), Request::Switchover { role, to: None });
            }
            Fault::Drain(at, who, drained) => {
                let node = name(find(w, who));
                w.ask(find(w, at), Request::Drain { node, drained });
            }
            Fault::Pause(at, pause) => w.ask(find(w, at), Request::Pause(pause)),
            Fault::Confirm(at, r) => {
                let (n, role) = (find(w, at), role(w, r));
                w.ask_confirmation(n, role);
            }
            Fault::Resize(bits) => resize(w, shape, bits),
            Fault::Anarchy(r) => {
                let role = role(w, r);
                w.anarchy(&role);
            }
            Fault::PromisesForgotten(seed) => plot(w, seed, promises_forgotten),
            Fault::FloorsForgotten(seed) => plot(w, seed, floors_forgotten),
            Fault::ElectorateLeft(seed) => plot(w, seed, |w, p| electorate_left(w, p, shape)),
            Fault::FloorsEarly(seed) => plot(w, seed, |w, p| floors_early(w, p, shape)),
            Fault::ElectorateStale(seed) => plot(w, seed, |w, p| electorate_stale(w, p, shape)),
            Fault::ThereAndBack(seed) => plot(w, seed, there_and_back),
            Fault::FlushOvertaken(seed) => plot(w, seed, flush_overtaken),
            Fault::VoterStalled(seed) => plot(w, seed, voter_stalled),
            Fault::MachinePaused(who, pause) => {
                let (n, role) = (find(w, who), role(w, 0));
                w.pause_machine(n, ms(pause));
                for _ in 0..3 {
                    w.ask_confirmation(n, role.clone());
                    w.run(ms(2));
                }
            }
            Fault::DiesAndReturns(who, pause) => {
                let n = find(w, who);
                w.kill(n, true);
                w.run(ms(pause));
                if !w.nodes[n].up {
                    w.start(n);
                }
            }
            Fault::Promotes(who, way) => {
                let n = find(w, who);
                w.nodes[n].promotes = way;
            }
            Fault::Demotes(who, way) => {
                let n = find(w, who);
                w.nodes[n].demotes = way;
            }
            Fault::Fences(who, way) => {
                let n = find(w, who);
                w.nodes[n].fences = way;
            }
            Fault::ProcessEnds(who, r, failed, up, late) => {
                let (n, role) = (find(w, who), role(w, r));
                w.process_ends(n, &role, failed, up * MS, late * MS);
            }
            Fault::GuardianStopped(who, pause) => {
                let n = find(w, who);
                w.stop_guardian(n, ms(pause));
            }
            Fault::GuardianDies(who) => w.guardian_dies(find(w, who)),
            Fault::BothDie(who) => {
                let n = find(w, who);
                w.both_die(n);
            }
            Fault::BothStopped(who, pause) => {
                let n = find(w, who);
                if w.nodes[n].up {
                    w.freeze(n);
                    w.stop_guardian(n, ms(pause));
                }
            }
            Fault::DiesAndIsStarted(who) => {
                let n = find(w, who);
                w.kill(n, true);
                if !w.nodes[n].up {
                    w.start(n);
                }
            }
            Fault::LogStuck(who, pause) => {
                let n = find(w, who);
                w.nodes[n].log_stuck_until = w.now + pause * MS;
            }
            Fault::Lingers(who, pause) => {
                let n = find(w, who);
                w.nodes[n].lingers = ms(pause);
            }
            Fault::Doubled(who, what, bits) => {
                if w.doubles() < MAX_DOUBLES {
                    w.double(find(w, who), what);
                    w.reach_doubles(bits);
                }
            }
            Fault::DoublesReached(bits) => w.reach_doubles(bits),
            Fault::DoublesLeave => w.doubles_leave(),
            Fault::DoublesStay => w.doubles_stay = true,
            Fault::ReplacedBehind(who, pause) => {
                let n = find(w, who);
                if w.nodes[n].up && w.majority_without(|m| m == n) {
                    w.replace_behind(n);
                    w.run(ms(pause));
                    w.start(n);
                }
            }
            Fault::DiskHangs(who) => w.hang(find(w, who)),
            Fault::DiskAnswers(who) => w.answer(find(w, who)),
            Fault::DisksTried(seed) => super::disks::trial(w, seed),
            Fault::ProgramsTried => super::lacking::trial(w),
            Fault::OneWay(who, outgoing) => w.one_way(find(w, who), &[0], outgoing, !outgoing),
            Fault::Unplugged(who) => w.plug(find(w, who), 0, false),
            Fault::Flaps(who, times) => {
                let n = find(w, who);
                for _ in 0..times {
                    for plugged in [false, true] {
                        w.plug(n, 0, plugged);
                        w.run(ms(500));
                    }
                }
            }
            Fault::SwitchGone(carriers) => switch_gone(w, carriers),
            Fault::CloneOutlived(seed) => plot(w, seed, clone_outlived),
            Fault::Drizzle(seconds) => super::peace::drizzle(w, ms(1000 * seconds)),
        }
    }
}

fn find(w: &World, who: Who) -> usize {
    let members = w.members();
    match who {
        Who::Holder(r) => {
            let role = &w.roles()[r % w.roles().len()];
            let holder = w.active(role).first().map(|(n, _)| *n);
            holder.filter(|n| w.configured(*n)).unwrap_or(members[0])
        }
        Who::Leader => w.log.leader.filter(|n| w.configured(*n)).unwrap_or(members[0]),
        Who::Node(n) => members[n % members.len()],
    }
}

/// The first network is lost for everybody, and with it perhaps their carriers, within a tenth of a second.
pub(super) fn switch_gone(w: &mut World, carriers: bool) {
    for n in w.members() {
        w.silence(n, &[0]);
    }
    if carriers {
        for n in w.members() {
            w.plug(n, 0, false);
            w.run(ms(30));
        }
    }
}

/// Everybody is started and thawed.
pub(super) fn wake(w: &mut World) {
    for n in w.members() {
        w.continue_guardian(n);
        if w.nodes[n].frozen {
            w.thaw(n);
        }
        if !w.nodes[n].up {
            w.start(n);
        }
    }
}

/// Other nodes are in the configuration. Those taken away run on, with the old one, until they are needed.
fn resize(w: &mut World, shape: Shape, bits: u64) {
    let all = shape.nodes();
    let chosen = |n: usize| bits >> n & 1 == 1;
    let nodes: Vec<(usize, Kind)> = all.into_iter().filter(|(n, _)| chosen(*n)).collect();
    let acting = nodes.iter().filter(|(_, kind)| kind.may_act()).count();
    let voting = nodes.iter().filter(|(_, kind)| kind.votes()).count();
    // Baton refuses what leaves no majority of the present voters, or takes the holder away (`reload`).
    let holder_stays = w
        .roles()
        .iter()
        .all(|r| w.active(r).iter().all(|(n, _)| chosen(*n)));
    let joint = w.log.state().electorate.next.is_some();
    if acting == 0 || voting < 2 || joint || !holder_stays || !w.majority_without(|n| !chosen(n)) {
        return;
    }
    for (n, _) in &nodes {
        while *n >= w.nodes.len() {
            w.add(w.nodes.len());
        }
    }
    let mut next = config(
        &nodes,
        w.config.networks.len(),
        w.config.roles.len(),
        w.config.cluster.window,
    );
    next.roles = w.config.roles.clone();
    w.reconfigure(next);
    for (n, _) in nodes {
        if !w.nodes[n].up {
            w.start(n);
        }
    }
}

/// Whom a plot is about: the holder of `main`, and others, all well.
struct Plot {
    holder: usize,
    others: Vec<usize>,
    dice: Dice,
}

impl Plot {
    fn pause(&mut self, w: &mut World, at_most: u64) {
        let pause = Duration::from_nanos(self.dice.up_to_ms(at_most));
        w.run(pause);
    }
}

/// Runs a plot if there is somebody for it.
fn plot(w: &mut World, seed: u64, act: impl Fn(&mut World, &mut Plot)) {
    w.heal();
    let mut dice = Dice::new(seed);
    let Some((holder, _)) = w.active_now().first().copied().filter(|(n, _)| w.configured(*n)) else {
        return;
    };
    let mut others: Vec<usize> = w.members();
    others.retain(|n| *n != holder && w.nodes[*n].up && !w.nodes[*n].frozen);
    for at in (1..others.len()).rev() {
        others.swap(at, dice.roll(at as u64 + 1) as usize);
    }
    if others.len() >= 2 {
        act(w, &mut Plot { holder, others, dice });
    }
}

/// The next two in line among the others.
fn heirs(w: &World, p: &Plot) -> Option<(usize, usize)> {
    let state = w.log.state();
    let places = &state.roles.get(&super::world::role())?.line.places;
    let at = |n: usize| places.iter().position(|place| place.owner == w.nodes[n].owner());
    let mut others: Vec<(usize, usize)> = p.others.iter().filter_map(|n| Some((at(*n)?, *n))).collect();
    others.sort_unstable();
    Some((others.first()?.1, others.get(1)?.1))
}

fn promises_forgotten(w: &mut World, p: &mut Plot) {
    let (free, forgets) = (p.others[0], p.others[1]);
    w.cut.extend([(p.holder, free, 0), (p.holder, free, 1)]);
    w.run(ms(1300));
    w.silence(p.holder, BOTH);
    w.kill(forgets, false);
    p.pause(w, 100);
    w.start(forgets);
}

fn floors_forgotten(w: &mut World, p: &mut Plot) {
    let Some((early, late)) = heirs(w, p) else { return };
    for node in &mut w.nodes {
        node.log_cut = true;
    }
    w.silence(early, BOTH);
    let role = super::world::role();
    w.set_health(p.holder, &role, false);
    w.run(ms(100));
    p.pause(w, 2500);
    w.kill(late, false);
    let holder = p.holder;
    if p.dice.roll(2) == 0 && w.majority_without(|n| n == holder) {
        // What the log knows, without who took over last, is all that it will know again.
        w.wipe(holder);
        (w.nodes[holder].log_cut, w.nodes[early].log_cut, w.no_lines) = (false, false, true);
    } else {
        w.kill(holder, false);
    }
    p.pause(w, 100);
    w.start(holder);
    w.cut.clear();
    w.run(ms(2500));
    w.heal();
    w.start(late);
}

/// Waits for a joint electorate, for up to three seconds.
fn until_joint(w: &mut World) -> bool {
    for _ in 0..1500 {
        if w.log.state().electorate.next.is_some() {
            return true;
        }
        w.run(ms(2));
    }
    false
}

fn until_settled(w: &mut World) -> bool {
    for _ in 0..600 {
        if w.log.state().electorate.next.is_none() {
            return true;
        }
        w.run(ms(10));
    }
    false
}

fn electorate_left(w: &mut World, p: &mut Plot, shape: Shape) {
    let free = p.others[0];
    w.cut.extend([(p.holder, free, 0), (p.holder, free, 1)]);
    w.run(ms(1300));
    resize(w, shape, p.dice.roll(32));
    until_joint(w);
    w.silence(p.holder, BOTH);
}

fn floors_early(w: &mut World, p: &mut Plot, shape: Shape) {
    let Some((early, late)) = heirs(w, p) else { return };
    let role = super::world::role();
    w.lead(early);
    w.run(ms(300));
    // Whoever has the last word in the old set does not hear of the change; the coordinator does, and is cut off with it.
    (w.nodes[p.holder].log_cut, w.nodes[late].log_cut) = (true, true);
    let old = w.members();
    resize(w, shape, 31);
    let news: Vec<usize> = w.members().into_iter().filter(|n| !old.contains(n)).collect();
    for n in &news {
        w.set_health(*n, &role, false);
    }
    if !until_joint(w) {
        return w.heal();
    }
    w.run(ms(3));
    // A refusal of somebody who knows would tell them.
    for n in news.into_iter().chain([early]) {
        w.silence(n, BOTH);
    }
    w.no_lines = true;
    w.set_health(p.holder, &role, false);
    w.run(ms(700));
    p.pause(w, 1500);
    // The late one is gone before anybody noted that it had taken over; only those who granted it know.
    w.kill(late, false);
    w.set_health(early, &role, false);
    w.heal();
    w.no_lines = true;
    w.lead(early);
    until_settled(w);
    w.run(ms(300));
    w.kill(p.holder, false);
    w.run(ms(600));
    w.set_health(early, &role, true);
    w.run(ms(1500));
    p.pause(w, 1000);
}

fn electorate_stale(w: &mut World, p: &mut Plot, shape: Shape) {
    let between = p.others[0];
    w.nodes[p.holder].log_cut = true;
    resize(w, shape, p.dice.roll(32));
    until_joint(w);
    if p.dice.roll(2) == 0 {
        until_settled(w);
    }
    // The holder is heard by one alone, which knows better; everybody else takes it for lost.
    for n in w.members() {
        if n != p.holder && n != between {
            w.part(p.holder, n);
        }
    }
    w.nodes[p.holder].log_cut = true;
    w.run(ms(1500));
    p.pause(w, 2500);
}

fn there_and_back(w: &mut World, p: &mut Plot) {
    let role = super::world::role();
    for to in [None, Some(name(p.holder))] {
        let role = role.clone();
        w.ask(p.holder, Request::Switchover { role, to });
        w.run(ms(1500));
    }
    w.one_way(p.holder, BOTH, false, true);
}

fn flush_overtaken(w: &mut World, p: &mut Plot) {
    let (one, other) = (p.others[0], p.others[1]);
    w.flush_late = ms(400);
    // Nobody writes a floor ahead for whom it does not hear coming.
    w.part(one, other);
    if p.dice.roll(2) == 0 {
        w.kill(p.holder, p.dice.roll(2) == 0);
        p.pause(w, 1500);
        w.start(p.holder);
    } else {
        w.silence(p.holder, BOTH);
        p.pause(w, 1500);
        w.heal();
        w.flush_late = ms(400);
        w.part(one, other);
    }
    p.pause(w, 2000);
}

fn voter_stalled(w: &mut World, p: &mut Plot) {
    let (free, stalls) = (p.others[0], p.others[1]);
    w.part(p.holder, free);
    w.run(ms(1300));
    w.freeze(stalls);
    w.run(ms(500));
    p.pause(w, 470);
    w.thaw(stalls);
    w.run(ms(3));
    w.silence(p.holder, BOTH);
    w.run(ms(1500));
}

fn clone_outlived(w: &mut World, p: &mut Plot) {
    let Some((node, late)) = heirs(w, p) else { return };
    if !w.majority_without(|n| n == node) {
        return;
    }
    // The line stays as it is: it names the node's own run, before the late one.
    for node in &mut w.nodes {
        node.log_cut = true;
    }
    w.no_lines = true;
    w.double(node, Double::Clone);
    w.reach_doubles(u64::MAX);
    w.run(ms(2500));
    p.pause(w, 500);
    w.silence(p.holder, BOTH);
    w.run(ms(1500));
    p.pause(w, 500);
    // The late one has the role, by the clone's vote; and both are gone.
    w.kill(late, false);
    w.doubles_leave();
    w.cut.clear();
    w.run(ms(4500));
    p.pause(w, 500);
    w.heal();
    w.start(late);
}
