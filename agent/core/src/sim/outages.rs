//! What the history, and every node, tell of outages that go on: with real cores in virtual time.

use super::life::action;
use super::scenarios::{BOTH, Scene, nodes, three};
use super::told::takeover_by;
use super::world::{Way, World, name, role};
use crate::Request;
use baton_shared::config::OnFailure;
use baton_shared::history::{downtime, stage, what};
use baton_shared::id::Kind;
use baton_shared::view::Event;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Three members whose application commands start and stop, settled: `a` is active.
pub(super) fn commanded(seed: u64) -> Scene {
    let mut config = nodes(&[Kind::Member; 3]);
    config.roles.get_mut(&role()).unwrap().demote = action(50, OnFailure::Retry);
    let mut w = Scene(World::new(config, seed));
    assert_eq!(w.settle(), 0);
    w
}

/// The events of these kinds, in words.
fn told(w: &Scene, kinds: &[&str]) -> Vec<String> {
    let state = w.log.state();
    let events = state
        .events
        .iter()
        .filter(|event| kinds.contains(&event.what.as_str()));
    let words = |event: &Event| {
        let node = event.node.as_ref().map_or("-", |node| node.as_str());
        format!("{} {node}: {}", event.what, event.cause)
    };
    events.map(words).collect()
}

/// Why nobody is active, as node `n` says it.
fn nobody(w: &Scene, n: usize) -> Option<String> {
    let view = w.nodes[n].view.as_ref()?;
    view.why.nobody.get(&role()).map(|(why, _)| why.clone())
}

/// Runs until somebody is active.
fn until_active(w: &mut Scene) {
    for _ in 0..60_000 {
        if !w.active_now().is_empty() {
            return;
        }
        w.run(Duration::from_millis(1));
    }
    panic!("nobody became active; {}", w.story());
}

fn close(told: Duration, truth: Duration) {
    let off = told.abs_diff(truth);
    assert!(off <= truth / 20, "told {told:?}, in truth {truth:?}");
}

#[test]
fn promotions_that_fail_everywhere_are_one_outage_with_its_cause_everywhere() {
    let mut w = commanded(20);
    for n in 0..3 {
        w.nodes[n].promotes = Way::Badly;
    }
    let lost = w.now;
    w.kill(0, false);
    w.run(5 * SECOND);
    for n in [1, 2] {
        let why = nobody(&w, n).expect("nobody is active");
        assert!(why.contains("b and c: promotion failed: it failed"), "{why}");
    }
    let (_, last) = &w.nodes[1].view.as_ref().unwrap().why.nobody[&role()];
    close(
        w.nodes[1].view.as_ref().unwrap().at.since(last.unwrap()),
        5 * SECOND,
    );
    let outage = told(&w, &[what::NOBODY, what::FAILED]);
    assert!(
        outage
            .iter()
            .any(|told| told == "failed b: promotion failed: it failed"),
        "{outage:?}"
    );
    assert!(
        outage
            .iter()
            .any(|told| told == "failed c: promotion failed: it failed"),
        "{outage:?}"
    );
    let nobody_is = |told: &&String| told.starts_with("nobody a: ") && told.contains("promotion failed");
    assert!(outage.iter().any(|told| nobody_is(&told)), "{outage:?}");
    w.run(5 * SECOND);
    for n in 0..3 {
        w.nodes[n].promotes = Way::Well;
    }
    until_active(&mut w);
    let truth = Duration::from_nanos(w.now - lost);
    let (active, _) = w.active_now()[0];
    let event = takeover_by(&mut w, active);
    close(downtime(&event).expect("it is known"), truth);
    assert_eq!(event.from, Some(name(0)), "{event:?}");
    assert!(event.cause.starts_with("a fell silent"), "{event:?}");
    assert!(event.cause.contains("; promotion failed on "), "{event:?}");
    assert!(
        event.stages.iter().any(|(name, _)| name == stage::ATTEMPTS),
        "{event:?}"
    );
    w.run(SECOND);
    let view = w.nodes[active].view.as_ref().unwrap();
    let other = 3 - active;
    assert_eq!(view.why.nobody.len(), 0);
    assert_eq!(view.why.troubles.get(&name(active)), None, "it has succeeded");
    assert_eq!(
        view.why.troubles[&name(other)][&role()],
        "promotion failed: it failed",
        "there it has not"
    );
}

#[test]
fn node_that_was_started_meanwhile_knows_since_when_nobody_was_active() {
    let mut w = commanded(21);
    for n in [1, 2] {
        w.nodes[n].promotes = Way::Badly;
    }
    let lost = w.now;
    w.kill(0, false);
    w.run(6 * SECOND);
    w.start(0);
    until_active(&mut w);
    let truth = Duration::from_nanos(w.now - lost);
    let event = takeover_by(&mut w, 0);
    close(downtime(&event).expect("the others know"), truth);
    assert!(event.cause.contains("; promotion failed on "), "{event:?}");
}

#[test]
fn death_stop_and_silence_of_a_standby_are_told_apart_and_so_is_its_return() {
    let mut w = three(22);
    let nodes = [what::DOWN, what::UP];
    w.kill(2, true);
    w.run(2 * SECOND);
    w.start(2);
    w.run(4 * SECOND);
    w.stop(2);
    w.run(SECOND);
    w.kill(2, false); // it has ended
    w.run(2 * SECOND);
    w.start(2);
    w.run(4 * SECOND);
    w.silence(2, BOTH);
    w.run(4 * SECOND);
    w.depose();
    w.run(4 * SECOND);
    w.heal();
    w.run(4 * SECOND);
    let expected = [
        "down c: died: its agent was killed by signal 9 (SIGKILL)",
        "up c: is up again",
        "down c: was stopped in order",
        "up c: is up again",
        "down c: fell silent on front and back",
        "up c: is up again",
    ];
    assert_eq!(told(&w, &nodes), expected, "{}", w.story());
    assert_eq!(told(&w, &[what::LOST, what::NOBODY, what::LINK_DOWN]), [""; 0]);
}

#[test]
fn one_network_that_is_cut_is_told_by_direction_once_it_has_settled() {
    let mut w = three(23);
    let links = [what::LINK_DOWN, what::LINK_UP];
    w.silence(1, &[0]);
    w.run(2 * SECOND);
    w.heal();
    w.run(5 * SECOND);
    assert_eq!(told(&w, &links), [""; 0], "a moment is no news");
    w.one_way(1, &[0], true, false);
    w.run(5 * SECOND);
    w.heal();
    w.run(5 * SECOND);
    w.silence(1, &[0]);
    w.run(5 * SECOND);
    let told = told(&w, &links);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("link-down -: on front, "), "{told:?}");
    assert!(told[0].contains("does not hear"), "{told:?}");
    assert_eq!(
        told[1],
        "link-up -: on front, all nodes that are up hear each other again"
    );
    assert_eq!(told[2], "link-down -: on front, b is cut off");
}

#[test]
fn holder_that_was_cut_off_tells_its_own_side_at_once_and_the_others_when_it_can() {
    let mut w = three(24);
    w.silence(0, BOTH);
    w.run(5 * SECOND);
    let own = |w: &Scene| -> Vec<(String, u64)> {
        let view = w.nodes[0].view.as_ref().unwrap();
        let untold = view.why.untold.iter();
        untold.map(|event| (event.what.clone(), event.number)).collect()
    };
    let sides = own(&w);
    for kind in [what::LOST, what::CUT_OFF] {
        assert!(sides.contains(&(kind.to_owned(), 0)), "{sides:?}");
    }
    let why = nobody(&w, 0).expect("it knows of nobody");
    assert!(why.starts_with("no majority: a is not in touch"), "{why}");
    assert!(why.ends_with("does not hear b and c"), "{why}");
    w.heal();
    w.run(10 * SECOND);
    assert!(own(&w).is_empty(), "the history has it");
    let told = told(&w, &[what::LOST, what::CUT_OFF, what::IN_TOUCH]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[1].ends_with("it does not hear b and c"), "{told:?}");
}

#[test]
fn check_that_fails_while_nobody_else_is_fit_is_an_outage_with_the_newest_reason() {
    let mut w = three(25);
    for n in [1, 2] {
        w.set_health(n, &role(), false);
    }
    w.run(SECOND);
    let lost = w.now;
    w.set_health(0, &role(), false);
    w.run(7 * SECOND);
    let why = nobody(&w, 1).expect("nobody is active");
    let holds = "a holds the role and is not active: the application is not healthy: as the simulator says";
    assert_eq!(why, holds);
    w.set_health(0, &role(), true);
    until_active(&mut w);
    let truth = Duration::from_nanos(w.now - lost);
    w.run(SECOND);
    let event = takeover_by(&mut w, 0);
    close(downtime(&event).expect("it is known"), truth);
    let cause = "the application was not healthy, and no other node was fit: as the simulator says";
    assert_eq!(event.cause, cause);
}

#[test]
fn paused_cluster_without_its_holder_says_that_it_is_paused() {
    let mut w = three(26);
    w.ask(2, Request::Pause(true));
    w.run(SECOND);
    w.kill(0, false);
    w.run(5 * SECOND);
    let why = nobody(&w, 1).expect("nobody is active");
    assert!(why.starts_with("automatic takeovers are paused"), "{why}");
    let told = told(&w, &[what::NOBODY]);
    assert!(
        told[0].starts_with("nobody a: automatic takeovers are paused"),
        "{told:?}"
    );
}

#[test]
fn what_flaps_for_ten_minutes_does_not_fill_the_history() {
    let mut w = three(27);
    for n in [1, 2] {
        w.set_health(n, &role(), false);
    }
    w.run(SECOND);
    let before = w.log.state().event_number;
    for second in 0..600 {
        w.set_health(0, &role(), second % 2 == 0);
        if second % 6 == 0 {
            w.silence(2, &[0]);
        } else if second % 6 == 4 {
            w.heal();
        }
        w.run(SECOND);
    }
    let told = w.log.state().event_number - before;
    assert!((10..40).contains(&told), "{told} events");
}
