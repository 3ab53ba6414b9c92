//! Random faults in virtual time: S1 and S2 after every event, and liveness when the faults stop.
//!
//! Every clock has its own rate, disks lose what they had not finished writing, datagrams come late, twice and out of
//! order, logs lag, and nodes are killed, frozen, wiped, added and taken away.

mod world;

use baton_core::Request;
use baton_shared::id::Kind;
use std::time::Duration;
use world::{MS, World, config, name, role};

const W: Duration = Duration::from_secs(1);
/// Clocks differ by less than 1 % in rate (S1): each is at most half of that from true time.
const MAX_DRIFT_PPM: u64 = 4_900;

/// A random stream of its own, so that the world's draws do not change which faults come.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn up_to(&mut self, ms: u64) -> Duration {
        Duration::from_nanos(self.roll(ms * MS))
    }
}

/// How a life is lived.
#[derive(Clone, Copy)]
struct Life {
    kinds: &'static [Kind],
    /// Two members more come and go.
    grows: bool,
}

/// One life of a cluster: sixty faults, then peace.
fn life(seed: u64, how: Life) {
    let mut w = World::new(how.kinds, seed + 1);
    let mut dice = Dice(seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1);
    for _ in 0..8 {
        dice.roll(2); // the first draws of neighbouring seeds are alike
    }
    let extremes = dice.roll(2) == 0;
    for node in &mut w.nodes {
        let drift = if extremes {
            dice.roll(2) * 2 * MAX_DRIFT_PPM
        } else {
            dice.roll(2 * MAX_DRIFT_PPM)
        };
        node.drift_ppm = drift as i64 - MAX_DRIFT_PPM as i64;
    }
    for _ in 0..60 {
        fault(&mut w, &mut dice, how);
        let pause = if dice.roll(3) == 0 { 3000 } else { 600 };
        w.run(dice.up_to(pause));
    }
    peace(&mut w, seed);
}

fn fault(w: &mut World, dice: &mut Dice, how: Life) {
    let present = w.config.nodes.len();
    let any = dice.roll(present as u64) as usize;
    // Half of all faults hit the holder: there it hurts.
    let n = match w.active_now().first() {
        Some((holder, _)) if dice.roll(2) == 0 && *holder < present => *holder,
        _ => any,
    };
    match dice.roll(28) {
        0 => w.silence(n, &[0, 1]),
        1 => w.silence(n, &[dice.roll(2) as usize]),
        2 => w.one_way(n, &[0, 1], true, false),
        3 => w.one_way(n, &[0, 1], false, true),
        4 | 5 => w.heal(),
        6 if w.nodes[n].up => w.kill(n),
        7 if w.nodes[n].up => w.freeze(n),
        8 | 9 => wake(w),
        10 => w.loss = dice.roll(40),
        11 => w.ask(
            n,
            Request::Switchover {
                role: role(),
                to: None,
            },
        ),
        12 => w.ask(
            n,
            Request::Drain {
                node: name(n),
                drained: dice.roll(2) == 0,
            },
        ),
        13 => w.set_health(n, dice.roll(2) == 0),
        14 => w.twice = dice.roll(50),
        15 => w.late = dice.up_to(300),
        16 => w.slow = dice.up_to(4),
        17 => {
            let slow_disk = dice.roll(4) == 0;
            w.flush_late = dice.up_to(if slow_disk { 800 } else { 30 });
        }
        18 => w.lag = dice.roll(60),
        19 | 20 if w.nodes[n].up => {
            w.kill(n);
            w.run(dice.up_to(600));
            w.start(n);
        }
        21 if w.nodes[n].up && w.may_wipe(n) => {
            w.wipe(n);
            w.run(dice.up_to(600));
            w.start(n);
        }
        22 if how.grows => resize(w, how.kinds.len()),
        23 => w.ask(n, Request::Pause(dice.roll(3) == 0)),
        24 => promises_forgotten(w, dice),
        25 => floors_forgotten(w, dice),
        26 if how.grows => electorate_left_behind(w, dice, how.kinds.len()),
        27 => there_and_back(w, dice),
        _ => {}
    }
}

/// Two nodes beside the holder, if all are well.
fn beside(w: &World, dice: &mut Dice) -> Option<(usize, usize, usize)> {
    let (holder, _) = *w.active_now().first()?;
    let mut others: Vec<usize> = (0..w.config.nodes.len())
        .filter(|n| *n != holder && w.nodes[*n].up)
        .collect();
    if others.len() < 2 || holder >= w.config.nodes.len() {
        return None;
    }
    let first = others.swap_remove(dice.roll(others.len() as u64) as usize);
    let second = others[dice.roll(others.len() as u64) as usize];
    Some((holder, first, second))
}

/// One voter is bound no more, the other forgets that it is: only V4 is left between the two leases.
fn promises_forgotten(w: &mut World, dice: &mut Dice) {
    w.heal();
    let Some((holder, free, forgets)) = beside(w, dice) else {
        return;
    };
    w.cut.extend([(holder, free, 0), (holder, free, 1)]);
    w.run(Duration::from_millis(1300));
    w.silence(holder, &[0, 1]);
    w.kill(forgets);
    w.run(dice.up_to(100));
    w.start(forgets);
}

/// Without the log's news, one takes the role out of turn, and a voter restarts: only its floor is left against an earlier
/// place (V3).
fn floors_forgotten(w: &mut World, dice: &mut Dice) {
    w.heal();
    let Some((holder, early, late)) = beside(w, dice) else {
        return;
    };
    w.lag = 100;
    w.silence(early, &[0, 1]);
    w.set_health(holder, false);
    w.run(Duration::from_millis(100) + dice.up_to(2500));
    w.kill(late);
    w.kill(holder);
    w.run(dice.up_to(100));
    w.start(holder);
    w.cut.clear();
    w.run(Duration::from_millis(2500));
    w.lag = 0;
    w.start(late);
}

/// The voters change while an old lease runs that some of them are not bound by: only the wait is left (V5).
fn electorate_left_behind(w: &mut World, dice: &mut Dice, small: usize) {
    w.heal();
    let Some((holder, free, _)) = beside(w, dice) else {
        return;
    };
    w.cut.extend([(holder, free, 0), (holder, free, 1)]);
    w.run(Duration::from_millis(1300));
    resize(w, small);
    for _ in 0..300 {
        if w.state.electorate.next.is_some() {
            break;
        }
        w.run(Duration::from_millis(10));
    }
    w.silence(holder, &[0, 1]);
}

/// The role goes away and comes back, so that the holder has released before; then it hears nobody (V6).
fn there_and_back(w: &mut World, dice: &mut Dice) {
    w.heal();
    let Some((holder, ..)) = beside(w, dice) else {
        return;
    };
    for to in [None, Some(name(holder))] {
        w.ask(holder, Request::Switchover { role: role(), to });
        w.run(Duration::from_millis(1500));
    }
    w.one_way(holder, &[0, 1], false, true);
}

/// Two nodes more, or the two fewer again. Those taken away run on, with the old configuration, until they are needed.
fn resize(w: &mut World, small: usize) {
    let size = if w.config.nodes.len() == small {
        small + 2
    } else {
        small
    };
    if size == small && !w.majority_without(|n| n >= small) {
        return; // a mistake that no rule survives: those that stay are no majority
    }
    let mut kinds: Vec<Kind> = w.config.nodes.values().map(|node| node.kind).collect();
    kinds.resize(size, Kind::Member);
    w.reconfigure(config(&kinds, W));
    for n in small..size {
        if n == w.nodes.len() {
            w.add(n);
        }
        if !w.nodes[n].up {
            w.start(n);
        }
    }
}

fn wake(w: &mut World) {
    for n in 0..w.config.nodes.len() {
        if w.nodes[n].frozen {
            w.thaw(n);
        }
        if !w.nodes[n].up {
            w.start(n);
        }
    }
}

/// The faults stop: one is active, and stays so.
fn peace(w: &mut World, seed: u64) {
    w.heal();
    wake(w);
    for n in 0..w.config.nodes.len() {
        w.set_health(n, true);
    }
    w.run(Duration::from_secs(6));
    for n in 0..w.config.nodes.len() {
        w.ask(
            n,
            Request::Drain {
                node: name(n),
                drained: false,
            },
        );
        w.ask(n, Request::Pause(false));
    }
    w.run(Duration::from_secs(12));
    let spans = w.active.len();
    w.run(Duration::from_secs(10));
    if w.active_now().is_empty() {
        w.picture();
    }
    assert_eq!(
        w.active_now().len(),
        1,
        "seed {seed}: not live; logs:\n{}",
        w.logs.join("\n")
    );
    assert_eq!(
        w.active.len(),
        spans,
        "seed {seed}: not quiet; logs:\n{}",
        w.logs.join("\n")
    );
    let electorate = &w.state.electorate;
    assert!(
        electorate.next.is_none() && electorate.voters.len() == w.config.nodes.len(),
        "seed {seed}: the voters are not those configured: {electorate:?}; logs:\n{}",
        w.logs.join("\n")
    );
}

/// `BATON_SEEDS=20000 cargo test -p baton-core --release --test chaos` runs more of them; `BATON_SEED=17` that one alone.
fn seeds(share: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(one) = number("BATON_SEED") {
        return one..one + 1;
    }
    0..number("BATON_SEEDS").unwrap_or(30) / share
}

fn lives(share: u64, how: Life) {
    for seed in seeds(share) {
        let lived = std::panic::catch_unwind(|| life(seed, how));
        assert!(lived.is_ok(), "seed {seed}");
    }
}

#[test]
fn three_members_under_random_faults() {
    let kinds = &[Kind::Member; 3];
    lives(1, Life { kinds, grows: false });
}

#[test]
fn two_members_and_a_witness_under_random_faults() {
    let kinds = &[Kind::Member, Kind::Member, Kind::Witness];
    lives(1, Life { kinds, grows: false });
}

#[test]
fn three_members_grow_to_five_and_shrink_under_random_faults() {
    let kinds = &[Kind::Member; 3];
    lives(1, Life { kinds, grows: true });
}

#[test]
fn five_members_under_random_faults() {
    let kinds = &[Kind::Member; 5];
    lives(2, Life { kinds, grows: false });
}
