//! Disks that hang, one, several or all: an active node stays active, one that cannot write is not next, and a holder gives way only to
//! somebody whose floor is on disk at a majority.

use super::MS;
use super::dice::Dice;
use super::fault::wake;
use super::life::Shape;
use super::peace::{BOUND, has_heir, quiet, reigns, stopping, succeeded, until_calm};
use super::world::{World, name, role};
use baton_shared::id::RoleName;
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A hang that everybody notices: until the next probe, the limit of 3 s, and what the log takes.
const NOTICED: u64 = 5000 + 3000 + 1500;
/// From the holder's release to its successor: the old holder grants nothing, so every vote of the others may be needed, and one that hears of
/// the release after the claim says so with its next heartbeat.
const HANDOVER: u64 = 130;
/// A hang of the holder's for which it gives way, if somebody can take over.
const YIELDED: u64 = NOTICED + 7000 + 1000;

/// Some disks hang in a cluster that is well, and answer again.
pub(super) fn trial(w: &mut World, seed: u64) {
    w.heal();
    wake(w);
    w.run(ms(2500));
    until_calm(w);
    let before = reigns(w);
    quiet(w, &before, "before any disk hung");
    if w.violation.is_some() || !has_heir(w) {
        return;
    }
    let mut dice = Dice::new(seed);
    let holder = w.active_now()[0].0;
    let mut others = w.members();
    others.retain(|n| *n != holder);
    for at in (1..others.len()).rev() {
        others.swap(at, dice.roll(at as u64 + 1) as usize);
    }
    match dice.roll(5) {
        0 => standby(w, holder, &others, &before),
        1 => holder_alone(w, holder),
        2 => so_many(w, &others, &before, "while the disks of all others hung"),
        3 => {
            others.push(holder);
            so_many(w, &others, &before, "while all disks hung");
        }
        _ => {
            // The holder's, and so many that those left are no majority.
            let majority = |w: &World, hung: &[usize]| w.majority_without(|n| hung.contains(&n));
            let mut hung = vec![holder];
            while majority(w, &hung) {
                hung.extend(others.pop());
            }
            let since = w.now;
            hung.iter().for_each(|n| w.hang(*n));
            w.run(ms(YIELDED));
            stays_active(
                w,
                since,
                holder,
                "the disks of the holder and of half the voters hung",
            );
        }
    }
    w.heal();
}

/// Nothing may change for anybody outside: nobody could have the holder's place.
fn so_many(w: &mut World, hung: &[usize], before: &[usize], when: &str) {
    for n in hung {
        w.hang(*n);
    }
    for _ in 0..9 {
        w.run(ms(2000));
        quiet(w, before, when);
    }
}

/// A standby is out of line, says so, and does not take over.
fn standby(w: &mut World, holder: usize, others: &[usize], before: &[usize]) {
    let Some(hung) = others
        .iter()
        .copied()
        .find(|n| w.config.nodes[&name(*n)].kind.may_act())
    else {
        return;
    };
    w.hang(hung);
    w.run(ms(NOTICED));
    quiet(w, before, "while the disk of a standby hung");
    let owner = w.nodes[hung].owner();
    let heirs = w.log.state().roles[&role()].line.places.clone();
    if heirs.iter().any(|place| place.owner == owner) {
        w.fail(
            "live",
            format!("{} is in line, and cannot write: {heirs:?}", name(hung)),
        );
    }
    let told = w.nodes[hung].view.iter().flat_map(|view| &view.alarms);
    if told
        .filter(|alarm| alarm.contains("the disk does not answer"))
        .count()
        != 1
    {
        w.fail(
            "live",
            format!("{} does not say that its disk does not answer", name(hung)),
        );
    }
    // One more may be missed only if the rest are a majority that can write.
    if w.majority_without(|n| n == hung || n == holder) {
        let since = w.now;
        w.kill(holder, false);
        succeeded(
            w,
            holder,
            since,
            BOUND,
            "the holder was killed while the disk of a standby hung",
        );
        if w.active_now().iter().any(|(n, _)| *n == hung) {
            w.fail("live", format!("{} took over, and cannot write", name(hung)));
        }
    }
}

/// It gives way, in order.
fn holder_alone(w: &mut World, holder: usize) {
    w.hang(holder);
    let since = w.now;
    w.run(ms(YIELDED));
    stays_active(w, since, holder, "the disk of the holder hung");
    if w.roles()
        .iter()
        .any(|role| w.active(role).iter().any(|(n, _)| *n == holder))
    {
        w.picture();
        w.fail("live", format!("{} is active, and cannot write", name(holder)));
    }
}

/// Every role is active, but for the time of one handover from `holder`.
fn stays_active(w: &mut World, since: u64, holder: usize, after: &str) {
    let bound = HANDOVER * MS + stopping(w, holder, false);
    for role in &w.roles() {
        let (active, out) = (w.active(role), outage(w, role, since));
        if active.len() != 1 || out > bound {
            w.picture();
            let text = format!(
                "{active:?} is active for {role}, and nobody was for {} ms, after {after}",
                out / MS
            );
            w.fail("live", text);
        }
    }
}

/// How long nobody was active since then.
fn outage(w: &World, role: &RoleName, since: u64) -> u64 {
    let spans = w.invariants().spans(role);
    let gap =
        |pair: &[(u64, u64, usize, baton_shared::id::Epoch)]| pair[1].0.saturating_sub(pair[0].1.max(since));
    spans.windows(2).map(gap).sum()
}

/// A cluster of this shape, calm, with its holder and the first in line behind it.
fn calm(shape: Shape) -> (World, usize, usize) {
    let mut w = shape.world(7);
    w.run(ms(2500));
    until_calm(&mut w);
    let (holder, epoch) = w.active_now()[0];
    let line = w.log.state().roles[&role()].line.places.clone();
    let first = line.iter().find(|place| place.epoch > epoch).unwrap().owner;
    let first = w.nodes.iter().position(|m| m.owner() == first).unwrap();
    (w, holder, first)
}

/// The line cannot be changed here: the coordinator's own disk may be what hangs.
#[test]
fn first_in_line_cannot_write_a_later_one_goes_before_it() {
    let (mut w, holder, first) = calm(Shape::Five);
    w.no_lines = true;
    w.hang(first);
    w.run(ms(NOTICED));
    let since = w.now;
    w.silence(holder, &[0, 1]);
    succeeded(&mut w, holder, since, BOUND, "the holder fell silent");
    assert!(w.violation.is_none(), "{}", w.story());
    assert_ne!(w.active_now()[0].0, first);
}

#[test]
fn first_in_line_cannot_write_and_nobody_else_is_fit_it_goes_all_the_same() {
    let (mut w, holder, first) = calm(Shape::Five);
    w.no_lines = true;
    for n in w.members() {
        w.set_health(n, &role(), n == first || n == holder);
    }
    w.hang(first);
    w.run(ms(NOTICED));
    w.silence(holder, &[0, 1]);
    w.run(ms(1500));
    assert_eq!(
        w.active_now().iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        [first],
        "{}",
        w.story()
    );
}

/// Its own floor is not written any more, but the others' votes are enough.
#[test]
fn holder_cannot_write_and_its_successors_floor_is_on_disk_before_it_lets_go() {
    let (mut w, holder, first) = calm(Shape::Three);
    w.hang(holder);
    let limit = w.now + YIELDED * MS;
    while w.now < limit && w.active_now().iter().any(|(n, _)| *n == holder) {
        w.run(ms(1));
    }
    let successor = w.nodes[first].owner();
    let written = |n: &usize| {
        let floor = w.nodes[*n].disk.floors.get(&role());
        floor.is_some_and(|floor| floor.owner == Some(successor))
    };
    let written = w.members().iter().filter(|n| written(n)).count();
    assert_eq!(written, 2, "{}", w.story());
    w.run(ms(HANDOVER));
    assert_eq!(w.active_now()[0].0, first, "{}", w.story());
}

#[test]
fn ready_is_who_votes_keeps_up_and_writes() {
    let (mut w, holder, first) = calm(Shape::Three);
    let node = w
        .members()
        .into_iter()
        .find(|n| *n != holder && *n != first)
        .unwrap();
    let lacks = |w: &World| w.nodes[node].view.as_ref().unwrap().lacks.join("; ");
    w.kill(node, false);
    w.run(ms(300));
    w.start(node);
    w.write_a_little(node);
    w.run(ms(900));
    assert!(
        lacks(&w).contains("its vote does not count yet"),
        "V4: {}",
        lacks(&w)
    );
    w.run(ms(400));
    assert_eq!(lacks(&w), "");
    w.nodes[node].log_cut = true;
    w.log.blank();
    w.replicate();
    w.run(ms(900));
    assert_eq!(lacks(&w), "");
    w.run(ms(400));
    assert!(
        lacks(&w).contains("more than a second behind"),
        "one entry: {}",
        lacks(&w)
    );
    w.heal();
    w.run(ms(200));
    assert_eq!(lacks(&w), "");
    w.hang(node);
    w.run(ms(NOTICED));
    assert!(
        lacks(&w).contains("the disk does not answer: the disk of"),
        "{}",
        lacks(&w)
    );
}
