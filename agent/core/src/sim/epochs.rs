//! A holder's epoch while it stays, with real cores in virtual time: it stands still whatever becomes of the others; and where it must grow the
//! application is told first.

use super::life::action;
use super::scenarios::{BOTH, Scene, nodes};
use super::world::{Way, World, name, role};
use crate::Request;
use baton_shared::config::OnFailure;
use baton_shared::id::{Epoch, Kind};
use baton_shared::view::RoleState;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Two members and a witness, settled: `a` is active.
fn pair(seed: u64, notify: bool) -> Scene {
    let mut config = nodes(&[Kind::Member, Kind::Member, Kind::Witness]);
    if notify {
        config.roles.get_mut(&role()).unwrap().notify = action(3000, OnFailure::Stay);
    }
    let mut w = Scene(World::new(config, seed));
    assert_eq!(w.settle(), 0);
    w
}

/// What `n` claims now: what voters know.
fn claimed(w: &Scene, n: usize) -> Epoch {
    let node = &w.nodes[n];
    let now = w.clock(n);
    let running = node.core.as_ref().unwrap().voter(&role()).running(now);
    running.expect("it promised itself").epoch
}

fn drain(w: &mut Scene, drained: bool) {
    let node = name(1);
    w.ask(0, Request::Drain { node, drained });
    w.run(SECOND * 2);
}

#[test]
fn standby_comes_and_goes_the_holders_epoch_stands_still() {
    for seed in 0..5 {
        for leader in [0, 1, 2] {
            let mut w = pair(seed, true);
            w.log.leader = Some(leader);
            w.run(SECOND);
            let (active, spans) = (w.active_now(), w.spans().len());
            drain(&mut w, true);
            drain(&mut w, false);
            w.stop(1);
            w.run(SECOND * 3);
            w.kill(1, false);
            w.start(1);
            w.run(SECOND * 5);
            for n in [1, 2] {
                w.kill(n, false);
                w.run(SECOND * 5);
                w.start(n);
                w.run(SECOND * 5);
            }
            w.hang(1);
            w.run(SECOND * 20);
            assert_eq!(w.active_now(), active, "logs:\n{}", w.story());
            assert_eq!(w.spans().len(), spans, "without a gap: {:?}", w.spans());
            assert_eq!(claimed(&w, 0), active[0].1, "and voters know of no other");
        }
    }
}

/// The holder is not heard for so long that the standby claims, and voters write that down; then one of them is started again, and is bound by it.
fn promise_more(w: &mut Scene) {
    w.silence(0, BOTH);
    while w.nodes[1].view.as_ref().unwrap().roles[0].state != RoleState::Claiming {
        w.run(Duration::from_millis(1));
    }
    w.run(Duration::from_millis(5));
    w.heal();
    w.run(SECOND * 5); // the claim is given up
    w.kill(2, false);
    w.start(2);
}

#[test]
fn voter_was_promised_more_the_holder_moves_up_and_its_application_is_told_first() {
    let mut w = pair(1, true);
    let before = w.active_now()[0].1;
    promise_more(&mut w);
    // What tells it fails for a while: the old epoch is shown, and nothing is given up.
    w.nodes[0].promotes = Way::Badly;
    w.run(SECOND * 3);
    let moved = claimed(&w, 0);
    assert!(moved > before, "logs:\n{}", w.story());
    assert_eq!(w.active_now(), [(0, before)]);
    w.nodes[0].promotes = Way::Well;
    w.run(SECOND * 10);
    assert_eq!(w.active_now(), [(0, moved)], "logs:\n{}", w.story());
    assert_eq!(w.nodes[0].told[&role()], moved);
    // Whoever comes next has a greater one.
    w.switch_over(1, 1);
    w.run(SECOND * 3);
    let (next, epoch) = w.active_now()[0];
    assert!(next == 1 && epoch > moved, "logs:\n{}", w.story());
}

#[test]
fn nothing_tells_the_application_the_epoch_of_its_promotion_is_shown_for_as_long_as_it_stays() {
    let mut w = pair(1, false);
    let (before, spans) = (w.active_now(), w.spans().len());
    promise_more(&mut w);
    w.run(SECOND * 10);
    assert!(claimed(&w, 0) > before[0].1, "logs:\n{}", w.story());
    assert_eq!(w.active_now(), before);
    assert_eq!(w.spans().len(), spans, "without a gap: {:?}", w.spans());
    // Nor does anything else that is asked know of another: it hands over, and its successor has a greater one than it held.
    let held = claimed(&w, 0);
    w.switch_over(0, 1);
    w.run(SECOND * 3);
    let (next, epoch) = w.active_now()[0];
    assert!(next == 1 && epoch > held, "logs:\n{}", w.story());
}

#[test]
fn holder_moves_up_and_confirmations_go_on() {
    let mut w = pair(3, true);
    promise_more(&mut w);
    for _ in 0..300 {
        w.ask_confirmation(0, role());
        w.run(Duration::from_millis(10));
    }
    assert_eq!(w.active_now()[0].0, 0);
    assert!(
        claimed(&w, 0) == w.active_now()[0].1 && w.spans().len() > 1,
        "it moved up: {:?}",
        w.spans()
    );
}
