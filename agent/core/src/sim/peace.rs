//! The faults stop. Every role is active again, and stays where it is; then one small trial, of which nobody outside must notice
//! anything, or a failover that must keep the bound of DESIGN §2.

use super::MS;
use super::fault::{switch_gone, wake};
use super::life::W;
use super::world::{App, Double, World, name};
use crate::Request;
use baton_shared::id::{Epoch, Kind, RoleName};
use std::time::Duration;

/// From the loss of a holder to the next that is active: 1.03 W, a flush of 2 ms, two round trips of 0.6 ms, the promotion of
/// 1 ms; and as much again for what the steps of virtual time round up.
pub(super) const BOUND: u64 = 1030 * MS + 10 * MS;
const BOTH: &[usize] = &[0, 1];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Peace after a life, and a trial that the seed chooses.
pub(super) fn peace(w: &mut World, seed: u64) {
    w.announce("the faults stop".into());
    w.heal();
    if w.doubles_stay {
        w.reach_doubles(0);
    } else {
        w.doubles_leave();
    }
    wake(w);
    w.flush = ms(2);
    let (members, roles) = (w.members(), w.roles());
    for n in &members {
        for role in &roles {
            w.set_health(*n, role, true);
        }
    }
    w.run(ms(2500));
    until_calm(w);
    let before = reigns(w);
    w.run(ms(2000));
    quiet(w, &before, "after the faults");
    if !voters_are_right(w) {
        let electorate = w.log.state().electorate.clone();
        w.picture();
        w.fail(
            "live",
            format!("the voters are not those configured: {electorate:?}"),
        );
    }
    if w.violation.is_none() && w.config.networks[0].clients {
        clients(w, seed / 7 % 9);
    } else if w.violation.is_none() {
        trial(w, seed / 7 % 12);
    }
}

/// The holder loses the network by which clients come, and hands over in time; or everybody does, or a part of what is sent, and nothing
/// changes.
fn clients(w: &mut World, which: u64) {
    if which <= 4 {
        // Whatever was handed over in those days, it may be once more.
        w.run(ms(62_000));
    }
    let before = reigns(w);
    let holder = w.active_now()[0].0;
    w.announce(format!("trial {which} of clients"));
    let since = w.now;
    let half = W.as_nanos() as u64 / 2 + 30 * MS;
    match which {
        0 | 1 => w.silence(holder, &[0]),
        2 => w.one_way(holder, &[0], true, false),
        3 => w.one_way(holder, &[0], false, true),
        4 => w.plug(holder, 0, false),
        5 | 6 => switch_gone(w, which == 6),
        7 => {
            for n in w.members() {
                if n != holder {
                    w.silence(n, &[0]);
                }
            }
        }
        _ => w.loss = 30,
    }
    if which <= 4 {
        succeeded(w, holder, since, half, "the holder was cut off from clients");
        w.run(ms(5_000));
        w.heal();
        w.run(ms(5_000));
        if w.active_now().iter().any(|(n, _)| *n == holder) {
            w.picture();
            w.fail("live", "the role went back by itself".into());
        }
    } else {
        w.run(ms(if which == 8 { 30_000 } else { 5_000 }));
        quiet(
            w,
            &before,
            "while nobody had the network of clients, or all had some of it",
        );
    }
    w.heal();
}

/// Runs until all has been as it should for two seconds; for so long that a node that was replaced
/// has its vote (10 s), or one whose disk hung is fit again (15 s), and more.
pub(super) fn until_calm(w: &mut World) {
    let mut calm_for = 0;
    for step in 0..260 {
        if step % 20 == 0 {
            take_back(w);
        }
        w.run(ms(100));
        calm_for = if calm(w) { calm_for + 1 } else { 0 };
        if calm_for >= 20 || w.violation.is_some() {
            break;
        }
    }
}

/// Another process runs as a node for a while, hears nobody, and leaves. Everybody notices, nobody outside does.
pub(super) fn visit(w: &mut World, seed: u64) {
    wake(w);
    w.heal();
    w.run(ms(2500));
    until_calm(w);
    let before = reigns(w);
    quiet(w, &before, "before another process ran under a node's name");
    if w.violation.is_some() {
        return;
    }
    let members = w.members();
    let of = match seed % 2 {
        0 => w.active_now()[0].0,
        _ => members[(seed / 2) as usize % members.len()],
    };
    let double = match seed % 3 {
        0 => w.double(of, Double::TwinBehind),
        _ => w.double(of, Double::Twin),
    };
    w.run(ms(3500));
    let when = "while another process ran under a node's name";
    quiet(w, &before, when);
    let told = |n: &usize| {
        let alarms = w.nodes[*n].view.iter().flat_map(|view| &view.alarms);
        let twice = format!("node \"{}\" runs twice", name(of));
        alarms.filter(|alarm| alarm.contains(&twice)).count() > 0
    };
    // Witnesses and members speak to everybody; observers leave each other alone.
    let votes = |n: &usize| w.config.nodes[&name(*n)].kind.votes();
    if let Some(deaf) = members.iter().find(|n| **n != of && votes(n) && !told(n)) {
        let text = format!("{} does not say that {} runs twice", name(*deaf), name(of));
        w.fail("live", text);
    }
    w.kill(double, false);
    w.run(ms(3000));
    quiet(w, &before, when);
}

/// What operators did in those days is taken back, and taken back again if no leader heard it.
fn take_back(w: &mut World) {
    let state = w.log.state();
    for n in w.members() {
        let node = name(n);
        if w.nodes[n].leaving {
            // One who was told to stop has stopped, and is started again.
            w.kill(n, false);
            w.start(n);
        } else if !w.nodes[n].up {
            // One that ended because its guardian did.
            w.start(n);
        }
        if state.drained.contains(&node) {
            let drained = false;
            w.ask(n, Request::Drain { node, drained });
        }
        if state.paused {
            w.ask(n, Request::Pause(false));
        }
    }
}

/// Every role is active, the voters are those configured, and nothing is asked of anybody.
fn calm(w: &World) -> bool {
    let state = w.log.state();
    let active = w.roles().iter().all(|role| {
        let handover = state.roles.get(role).and_then(|record| record.line.handover);
        let holder = w.active(role);
        holder.len() == 1 && handover.is_none_or(|at| at < holder[0].1) && acts(w, role)
    });
    let writes = |n: usize| w.nodes[n].core.as_ref().is_none_or(|core| core.disk_answers());
    active
        && w.members().into_iter().all(writes)
        && voters_are_right(w)
        && !state.paused
        && state.drained.is_empty()
}

/// The application of whoever is active acts, and no other one does, nor does a guardian think so. Nodes that were taken away may be
/// dead or frozen for ever.
fn acts(w: &World, role: &RoleName) -> bool {
    let holder = w.active(role).first().map(|(n, _)| *n);
    let right = |n: usize| match w.nodes[n].app(role) {
        App::Acting(_) => Some(n) == holder,
        App::Passive => Some(n) != holder && !w.left_over(n).contains(role),
        App::Stopping(_) | App::Loose(_) => false,
    };
    w.members().into_iter().all(right)
}

fn voters_are_right(w: &World) -> bool {
    let electorate = &w.log.state().electorate;
    let votes = |n: &usize| w.config.nodes[&name(*n)].kind.votes();
    let wanted = w.members().into_iter().filter(votes).map(|n| w.nodes[n].id);
    electorate.next.is_none() && electorate.voters == wanted.collect()
}

/// How often each role changed hands. A holder that moves up to a greater epoch stays the holder; a gap ends its reign.
pub(super) fn reigns(w: &World) -> Vec<usize> {
    let of = |role: &RoleName| {
        let spans = w.invariants().spans(role);
        let goes_on =
            |pair: &&[(u64, u64, usize, Epoch)]| pair[0].2 == pair[1].2 && pair[1].0 <= pair[0].1 + MS;
        spans.len() - spans.windows(2).filter(goes_on).count()
    };
    w.roles().iter().map(of).collect()
}

/// One is active for every role, and nothing has changed since.
pub(super) fn quiet(w: &mut World, before: &[usize], when: &str) {
    let after = reigns(w);
    for (n, role) in w.roles().iter().enumerate() {
        if w.active(role).len() != 1 {
            w.picture();
            w.fail("live", format!("nobody is active for {role} {when}"));
        } else if !acts(w, role) {
            w.picture();
            w.fail("live", format!("who acts for {role} is not who is active {when}"));
        } else if after[n] != before[n] {
            w.picture();
            let spans = w.invariants().spans(role);
            let last = spans[spans.len().saturating_sub(4)..].to_vec();
            w.fail("live", format!("{role} changed hands {when}: {last:?}"));
        }
    }
}

/// A node that holds no role.
fn idle(w: &World, kind: impl Fn(Kind) -> bool) -> Option<usize> {
    let holds = |n: usize| w.roles().iter().any(|r| w.active(r).iter().any(|(m, _)| *m == n));
    let kinds = |n: &usize| kind(w.config.nodes[&name(*n)].kind);
    w.members().into_iter().find(|n| !holds(*n) && kinds(n))
}

fn trial(w: &mut World, which: u64) {
    let voters = w.config.nodes.values().filter(|node| node.kind.votes()).count();
    if voters < 3 {
        return; // of two voters none can be missed
    }
    let before = reigns(w);
    let holder = w.active_now()[0].0;
    w.announce(format!("trial {which}"));
    match which {
        0 | 1 => {
            let when = "while voters restarted one by one";
            for n in w.members() {
                if w.roles().iter().all(|r| w.active(r).iter().all(|(m, _)| *m != n)) {
                    w.kill(n, false);
                    w.run(ms(300));
                    w.start(n);
                    w.run(ms(2500));
                    quiet(w, &before, when);
                }
            }
        }
        2 => {
            if w.config.networks.len() == 2 {
                w.silence(holder, &[0]);
                w.run(ms(4000));
                quiet(w, &before, "while one network was lost");
            }
        }
        3 => {
            w.depose();
            w.run(ms(4000));
            quiet(w, &before, "when the coordinator changed");
        }
        4 => {
            w.loss = 30;
            w.run(ms(if w.config.networks.len() == 2 { 8000 } else { 2000 }));
            quiet(w, &before, "while a third of all datagrams were lost");
        }
        5 | 6 => lone_standby(w, &before),
        7 => deaf_holder(w, holder),
        8 => dead_holder(w, holder),
        9 => stopped_holder(w, holder),
        _ => silent_holder(w, holder),
    }
    w.heal();
}

/// A standby that is cut off claims nothing, and when it is back nothing has changed.
fn lone_standby(w: &mut World, before: &[usize]) {
    let Some(lone) = idle(w, Kind::may_act) else {
        return;
    };
    let claims = |w: &World| -> Vec<Epoch> {
        let of = |role: &RoleName| w.invariants().claims(lone, w.nodes[lone].boot, role);
        w.roles().iter().map(of).collect()
    };
    let claimed = claims(w);
    w.silence(lone, BOTH);
    w.run(ms(3000));
    if claims(w) != claimed {
        w.fail("live", format!("{} claims, and hears nobody", name(lone)));
    }
    w.heal();
    w.run(ms(2000));
    quiet(w, before, "when a standby was cut off and came back");
}

/// A third of all datagrams are lost for so long, and nothing changes.
pub(super) fn drizzle(w: &mut World, long: Duration) {
    w.heal();
    w.run(ms(3000));
    let before = reigns(w);
    w.loss = 30;
    w.run(long);
    w.loss = 0;
    quiet(w, &before, "while a third of all datagrams were lost");
}

/// Whether somebody else could take over.
pub(super) fn has_heir(w: &World) -> bool {
    let members = w.config.nodes.values().filter(|node| node.kind.may_act()).count();
    members >= 2
}

/// Runs until another than `holder` is active for `main`, and checks how long that took from `since`.
pub(super) fn succeeded(w: &mut World, holder: usize, since: u64, bound: u64, what: &str) {
    let deadline = since + bound + 5000 * MS;
    while w.violation.is_none() && w.now < deadline {
        if let Some((_, _, next, _)) = w.spans().last().copied()
            && next != holder
            && w.active_now().iter().any(|(n, _)| *n == next)
        {
            let from = w.spans().last().expect("there is one").0;
            let took = from.saturating_sub(since);
            if took > bound {
                let text = format!("{} was active {} ms after {what}", name(next), took / MS);
                w.picture();
                w.fail("live", text);
            }
            return;
        }
        w.run(ms(1));
    }
    w.picture();
    w.fail("live", format!("nobody took over after {what}"));
}

fn silent_holder(w: &mut World, holder: usize) {
    if has_heir(w) {
        let since = w.now;
        w.silence(holder, BOTH);
        succeeded(w, holder, since, BOUND, "the holder fell silent");
    }
}

/// It is heard, but hears nobody: after W/2 no voter grants its claims any more. When it would give up, it is not heard either.
fn deaf_holder(w: &mut World, holder: usize) {
    if has_heir(w) {
        let since = w.now;
        w.one_way(holder, BOTH, false, true);
        w.run(ms(930));
        w.silence(holder, BOTH);
        let bound = BOUND + W.as_nanos() as u64 / 2;
        succeeded(w, holder, since, bound, "the holder heard nobody any more");
    }
}

/// How long this node may take to stop its applications: its guardian, one after the other, before it says that the agent is dead; or
/// its agent before it releases.
pub(super) fn stopping(w: &World, n: usize, fenced: bool) -> u64 {
    let roles = w.roles();
    let settings = roles.iter().filter_map(|role| w.nodes[n].settings(role));
    let long = settings.map(|role| {
        let demote = role
            .demote
            .as_ref()
            .map_or(Duration::ZERO, |demote| demote.timeout);
        let process = role
            .process
            .as_ref()
            .map_or(Duration::ZERO, |process| process.stop_timeout);
        // What was killed takes its time to vanish.
        let kill = role.lead(W).kill;
        match role.last_resort() {
            Some((_, limit)) if fenced => kill + limit,
            None if fenced => kill,
            _ => demote + process + kill,
        }
    });
    long.sum::<Duration>().as_nanos() as u64
}

fn dead_holder(w: &mut World, holder: usize) {
    if has_heir(w) {
        let since = w.now;
        w.kill(holder, true);
        let bound = 25 * MS + stopping(w, holder, true);
        succeeded(w, holder, since, bound, "the holder was proven dead");
    }
}

fn stopped_holder(w: &mut World, holder: usize) {
    if has_heir(w) {
        let since = w.now;
        w.stop(holder);
        let bound = 25 * MS + stopping(w, holder, false);
        succeeded(w, holder, since, bound, "the holder was told to stop");
    }
}
