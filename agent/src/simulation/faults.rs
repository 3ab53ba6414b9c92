//! One life of a cluster: random faults while clients and operators go on asking, then peace, in which everything must
//! come right.

use super::settings::{NETWORKS, W, name, role};
use super::world::{Broken, World};
use baton_core::{Input, Request};
use baton_shared::id::NodeId;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Faults in one life.
const FAULTS: usize = 30;
/// Changes that are asked for at once, once in a life: more than the log keeps, so that who missed them needs a snapshot.
const CROWD: usize = 600;
/// A cluster that was left alone starts, or comes right again, within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// ... and then stays as it is for this.
const QUIET: Duration = Duration::from_secs(5);

/// An order that a network held back, and that went over the other meanwhile, arrives when another was given since.
pub(super) fn late_order(w: &mut World) -> Result<(), Broken> {
    started(w)?;
    let leads = |w: &World, n: usize| {
        w.node(n)
            .is_some_and(|run| run.coordinator.borrow().leader == Some(run.identity.node))
    };
    let leader = (0..w.sites.len()).find(|n| leads(w, *n)).ok_or("nobody leads")?;
    let asked = (leader + 1) % w.sites.len();
    let order = |w: &mut World, drained| {
        let node = name(asked);
        w.ask(asked, Request::Drain { node, drained });
        match w.until(W * 4, World::idle)? {
            true => Ok(()),
            false => Err("an order is not answered".to_owned()),
        }
    };
    order(w, false)?;
    let (from, to) = (w.sites[asked].ip, w.sites[leader].ip);
    w.weather.cut(from, to, 0);
    w.weather.cut(to, from, 0);
    order(w, true)?;
    order(w, false)?;
    w.mend_all();
    w.run(W)?;
    let sites = w.sites.clone();
    w.invariants.last_words(&sites)
}

fn started(w: &mut World) -> Result<(), Broken> {
    match w.until(PATIENCE, |w| w.invariants.active.is_some())? {
        true => Ok(()),
        false => Err("the cluster does not start".into()),
    }
}

/// Faults, then peace.
pub(super) fn life(w: &mut World) -> Result<(), Broken> {
    started(w)?;
    for _ in 0..FAULTS {
        fault(w)?;
        let pause = if w.dice.one_in(3) { 3000 } else { 600 };
        clients(w);
        let pause = w.dice.up_to(Duration::from_millis(pause));
        w.run(pause)?;
    }
    peace(w)
}

/// Clients ask for a few changes, wherever, and whether somebody is active.
fn clients(w: &mut World) {
    for _ in 0..w.dice.roll(4) {
        let at = w.dice.roll(w.sites.len() as u64) as usize;
        w.change(at);
    }
    for n in 0..w.sites.len() {
        w.confirm(n);
    }
}

fn fault(w: &mut World) -> Result<(), Broken> {
    let nodes = w.sites.len() as u64;
    let any = w.dice.roll(nodes) as usize;
    // Half of all faults hit the holder: there it hurts.
    let n = match w.invariants.active {
        Some(holder) if w.dice.one_in(2) => holder,
        _ => any,
    };
    let m = (n + 1 + w.dice.roll(nodes - 1) as usize) % w.sites.len();
    let kind = w.dice.roll(32);
    tracing::debug!(target: "world", "fault {kind} at {} ({})", name(n), name(m));
    match kind {
        0 => isolate(w, n, true, true),
        1 => {
            w.deafen(n, m);
            w.deafen(m, n);
        }
        2 => isolate(w, n, true, false),
        3 => isolate(w, n, false, true),
        4..=6 => w.mend_all(),
        7 => (0..w.sites.len()).for_each(|m| w.hold(n, m)),
        8 => w.hold(n, m),
        9 if w.up[n] => w.kill(n),
        10 if w.up[n] => w.power_off(n),
        11 if w.up[n] => {
            let writes = w.dice.roll(30);
            w.sites[n].disk.fail_at(writes);
        }
        12..=14 => start_all(w),
        15 => w.weather.loss.store(w.dice.roll(300), Relaxed),
        16 => w.weather.twice.store(w.dice.roll(300), Relaxed),
        17 => w.latency(Duration::from_millis(10 + w.dice.roll(150))),
        18 => cut_network(w, n),
        19 => w.freeze(n, Duration::from_millis(w.dice.roll(3000))),
        20 if w.dice.one_in(3) => {
            let long = Duration::from_millis(w.dice.roll(9_000));
            w.sites[n].disk.hang(long);
        }
        20 => {
            let most = if w.dice.one_in(4) { 400 } else { 30 };
            w.sites[n].disk.slow(Duration::from_millis(w.dice.roll(most)));
        }
        21 | 22 => operate(w, n, m),
        23 => set_health(w, n, w.dice.one_in(2)),
        24 => w.stop(n),
        25 if w.up[n] => {
            restart(w, n, World::kill)?;
        }
        26 if w.up[n] => {
            restart(w, n, World::power_off)?;
        }
        27 => everybody_loses_power(w)?,
        28 if w.up[n] && may_wipe(w) => {
            restart(w, n, |w, n| {
                w.power_off(n);
                w.wipe(n);
            })?;
        }
        29 if w.up[n] => {
            restart(w, n, World::power_off)?;
            let writes = w.dice.roll(80);
            w.sites[n].disk.fail_at(writes);
        }
        30 => w.weather.replayed.store(w.dice.roll(300), Relaxed),
        31 if !w.crowded && w.dice.one_in(4) => {
            w.crowded = true;
            for _ in 0..CROWD {
                w.change(n);
            }
        }
        _ => {}
    }
    Ok(())
}

fn isolate(w: &mut World, n: usize, out: bool, back: bool) {
    for m in 0..w.sites.len() {
        if out {
            w.deafen(n, m);
        }
        if back {
            w.deafen(m, n);
        }
    }
}

/// One of a node's networks goes, the other stays.
fn cut_network(w: &mut World, n: usize) {
    let network = w.dice.roll(NETWORKS as u64) as usize;
    let mine = w.sites[n].ip;
    for site in w.sites.iter().filter(|site| site.ip != mine) {
        w.weather.cut(mine, site.ip, network);
        w.weather.cut(site.ip, mine, network);
    }
}

fn start_all(w: &mut World) {
    for n in 0..w.sites.len() {
        w.start(n);
    }
}

fn restart(w: &mut World, n: usize, end: impl FnOnce(&mut World, usize)) -> Result<(), Broken> {
    end(w, n);
    let rest = w.dice.up_to(Duration::from_millis(600));
    w.run(rest)?;
    w.start(n);
    Ok(())
}

fn everybody_loses_power(w: &mut World) -> Result<(), Broken> {
    for n in 0..w.sites.len() {
        if w.up[n] {
            w.power_off(n);
        }
    }
    w.run(Duration::from_millis(100))?;
    start_all(w);
    Ok(())
}

fn operate(w: &mut World, n: usize, m: usize) {
    let request = match w.dice.roll(5) {
        0 | 1 => Request::Switchover {
            role: role(),
            to: None,
        },
        2 | 3 => Request::Drain {
            node: name(m),
            drained: w.dice.one_in(2),
        },
        _ => Request::Pause(w.dice.one_in(3)),
    };
    w.ask(n, request);
}

fn set_health(w: &World, n: usize, healthy: bool) {
    if let Some(run) = w.node(n) {
        let input = Input::Health {
            role: role(),
            health: healthy.into(),
            reason: "as drawn".into(),
        };
        let _ = run.notices.try_send(input.into()); // a full queue: it goes unnoticed
    }
}

/// Whether the others outlive the loss of one disk: everybody votes, and everybody has everything.
fn may_wipe(w: &World) -> bool {
    let runs: Vec<_> = (0..w.sites.len()).filter_map(|n| w.node(n)).collect();
    if runs.len() < w.sites.len() {
        return false;
    }
    let votes = |n: &usize| w.sites[*n].config.my_node().kind.votes();
    let ids: BTreeSet<NodeId> = (0..runs.len())
        .filter(votes)
        .map(|n| runs[n].identity.node)
        .collect();
    let settled = runs.iter().any(|run| {
        let says = run.coordinator.borrow();
        let state = &run.learned.borrow().0;
        says.leader == Some(run.identity.node)
            && says.settled
            && says.voters == ids
            && state.electorate.next.is_none()
            && state.electorate.voters == ids
            && ids.iter().all(|id| says.matched.get(id) == Some(&says.last_log))
    });
    let furthest = runs.iter().map(|run| run.learned.borrow().1).max();
    settled && runs.iter().all(|run| Some(run.learned.borrow().1) == furthest)
}

/// The faults stop. The log takes a change and everybody learns of it; one node becomes active and stays so.
fn peace(w: &mut World) -> Result<(), Broken> {
    tracing::info!(target: "world", "peace");
    w.mend_all();
    for n in 0..w.sites.len() {
        w.freeze(n, Duration::ZERO);
        w.sites[n].disk.slow(Duration::from_millis(2));
        w.sites[n].disk.hang(Duration::ZERO);
        w.sites[n].disk.hold();
    }
    for _ in 0..5 {
        start_all(w); // again: some were about to stop
        w.run(W)?;
    }
    everybody_learns(w)?;
    w.invariants.last_words(&w.sites)?;
    let last = w.sites.len() - 1;
    for n in 0..w.sites.len() {
        set_health(w, n, true);
        let node = name(n);
        w.ask(last, Request::Drain { node, drained: false });
    }
    w.ask(last, Request::Pause(false));
    if !w.until(PATIENCE, |w| w.invariants.active.is_some() && w.idle())? {
        return Err("nobody becomes active when the faults have stopped".into());
    }
    if !w.until(PATIENCE, whole)? {
        return Err("not every configured node votes in the end".into());
    }
    w.run(QUIET)?;
    let before = w.invariants.figures.takeovers;
    w.run(QUIET)?;
    if w.invariants.active.is_none() || w.invariants.figures.takeovers != before {
        return Err("the role finds no rest when the faults have stopped".into());
    }
    everybody_learns(w)
}

/// A change is made, and applied everywhere.
fn everybody_learns(w: &mut World) -> Result<(), Broken> {
    let until = w.now() + PATIENCE;
    let mut made = false;
    while !made {
        if w.now() > until {
            return Err("the log takes no change when the faults have stopped".into());
        }
        let at = w.dice.roll(w.sites.len() as u64) as usize;
        let Some(number) = w.change(at) else {
            w.run(W / 4)?;
            continue;
        };
        made = w.until(W * 4, |w| w.invariants.acknowledged.contains(&number))?;
    }
    let learned =
        |w: &World| (0..w.sites.len()).all(|n| w.node(n).is_some_and(|run| w.invariants.has_all(&run)));
    if !w.until(PATIENCE, learned)? {
        return Err("S3: not everybody has what was acknowledged, long after the faults have stopped".into());
    }
    Ok(())
}

/// Every configured voter votes, and no change of voters is under way.
fn whole(w: &World) -> bool {
    (0..w.sites.len()).all(|n| {
        w.node(n).is_some_and(|run| {
            let electorate = &run.learned.borrow().0.electorate;
            electorate.next.is_none()
                && electorate.voters.len() == w.sites[n].config.voters().count()
                && electorate.voters.contains(&run.identity.node) == w.sites[n].config.my_node().kind.votes()
        })
    })
}
