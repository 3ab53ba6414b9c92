//! What the history tells of takeovers, with real cores in virtual time: the evidence, and every stage, in order.

use super::life::process;
use super::scenarios::{BOTH, Scene, nodes, scene, three};
use super::world::{World, name, role};
use crate::Request;
use baton_shared::history::{stage, tell, what};
use baton_shared::id::{Kind, NodeName};
use baton_shared::view::{Event, RoleState};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// The newest takeover, once it is recorded.
pub(super) fn takeover_by(w: &mut Scene, to: usize) -> Event {
    for _ in 0..100 {
        let events = &w.log.state().events;
        let newest = events.iter().rfind(|e| e.what == what::TAKEOVER).cloned();
        if let Some(event) = newest.filter(|e| e.node == Some(name(to))) {
            assert!(
                event.stages.windows(2).all(|two| two[0].1 <= two[1].1) && event.stages[0].1 == 0,
                "in order, from the first: {:?}",
                event.stages
            );
            return event;
        }
        w.run(Duration::from_millis(50));
    }
    panic!("{} did not take over; {}", name(to), w.story());
}

fn stages(event: &Event) -> Vec<&str> {
    event.stages.iter().map(|(stage, _)| stage.as_str()).collect()
}

/// Milliseconds from one stage to another.
fn between(event: &Event, from: &str, to: &str) -> u64 {
    let at = |stage: &str| event.stages.iter().find(|(name, _)| name == stage).unwrap().1;
    (at(to) - at(from)) / 1000
}

/// Orders, the founding and changes of nodes.
fn others(w: &Scene) -> Vec<(String, Option<NodeName>, String)> {
    let events = w.log.state().events.clone();
    use what::*;
    let kinds = [START, NODE, ELECTORATE, DRAIN, UNDRAIN, PAUSE, RESUME];
    let others = events
        .into_iter()
        .filter(|event| kinds.contains(&event.what.as_str()));
    others
        .map(|event| (event.what, event.node, event.cause))
        .collect()
}

#[test]
fn silent_holder_is_told_with_who_misses_it_and_each_stage_of_the_wait() {
    let mut w = three(1);
    // An earlier silence, which came to an end, is no part of it.
    w.part(0, 1);
    w.run(2 * SECOND);
    w.heal();
    w.run(3 * SECOND);
    assert_eq!(w.active_now()[0].0, 0);
    w.silence(0, BOTH);
    let event = takeover_by(&mut w, 1);
    assert_eq!(event.from, Some(name(0)));
    let told = tell(&event).headline();
    assert!(
        told.starts_with(
            "main: b took over from a, which fell silent on front and back (c does not hear it either); last heard "
        ),
        "{told}"
    );
    use stage::*;
    let all = [
        LAST_HEARD, MISSED, VACANT, CLAIMED, FREE, GRANTED, PROMOTING, PROMOTED, SERVING,
    ];
    assert_eq!(stages(&event), all);
    assert!(
        (400..=500).contains(&between(&event, LAST_HEARD, MISSED)),
        "{event:?}"
    );
    assert!(
        (900..=1030).contains(&between(&event, LAST_HEARD, FREE)),
        "{event:?}"
    );
    assert!(between(&event, FREE, SERVING) <= 10, "{event:?}");
}

#[test]
fn holder_heard_by_some_is_told_with_who_still_hears_it() {
    let mut w = three(2);
    w.one_way(0, BOTH, true, false);
    let event = takeover_by(&mut w, 1);
    let silent = "a fell silent on front and back (c does not hear it either)";
    assert!(event.cause.starts_with(silent), "{event:?}");

    let mut w = three(2);
    w.one_way(0, BOTH, false, true);
    let event = takeover_by(&mut w, 1);
    assert!(
        event.cause.starts_with("a stepped down: "),
        "it is heard, and says so: {event:?}"
    );

    let mut w = scene(&[Kind::Member; 5], 2);
    w.settle();
    for other in [1, 2, 3] {
        w.part(0, other);
    }
    w.run(3 * SECOND);
    let (active, _) = w.active_now()[0];
    let event = takeover_by(&mut w, active);
    let told = tell(&event).headline();
    let heard = "b took over from a, which fell silent on front and back (c and d do not hear it either, e still hears it)";
    assert!(told.contains(heard), "{told}");
}

#[test]
fn dead_holder_is_told_by_its_guardians_word() {
    let mut w = three(3);
    w.kill(0, true);
    let event = takeover_by(&mut w, 1);
    use stage::*;
    assert_eq!(
        stages(&event),
        [
            LAST_HEARD, DIED, VACANT, CLAIMED, GRANTED, PROMOTING, PROMOTED, SERVING
        ]
    );
    assert!(
        between(&event, LAST_HEARD, SERVING) < 200,
        "nobody waited for promises: {event:?}"
    );
    assert_eq!(
        tell(&event).headline(),
        "main: b took over from a, which died: its agent was killed by signal 9 (SIGKILL), and its guardian has stopped the application."
    );
}

#[test]
fn switchover_is_told_with_the_node_that_took_the_order() {
    let mut w = three(4);
    w.action = Duration::from_millis(30);
    w.switch_over(1, 2);
    let event = takeover_by(&mut w, 2);
    use stage::*;
    let mut seen = stages(&event);
    assert!(between(&event, DECIDED, SERVING) < 200, "{event:?}");
    seen.retain(|stage| *stage != DECIDED); // the holder may be told first
    assert_eq!(
        seen,
        [
            STEPPED_DOWN,
            RELEASED,
            VACANT,
            CLAIMED,
            GRANTED,
            PROMOTING,
            PROMOTED,
            SERVING
        ]
    );
    assert!(
        (28..=40).contains(&between(&event, STEPPED_DOWN, RELEASED)),
        "{event:?}"
    );
    assert!(
        (30..=40).contains(&between(&event, PROMOTING, PROMOTED)),
        "{event:?}"
    );
    let told = tell(&event);
    assert_eq!(
        told.headline(),
        "main: c took over from a, which handed over: an operator asked b for a switchover to c."
    );
    assert!(told.times.starts_with("Back after 6"), "both actions: {told}");
}

#[test]
fn stop_in_order_and_a_sick_application_are_told_with_their_reason() {
    let mut w = three(5);
    w.stop(0);
    let event = takeover_by(&mut w, 1);
    assert_eq!(
        tell(&event).headline(),
        "main: b took over from a, which was stopped in order."
    );
    assert_eq!(stages(&event)[..2], [stage::STEPPED_DOWN, stage::RELEASED]);

    let mut w = three(5);
    w.set_health(1, &role(), false);
    w.run(SECOND);
    w.set_health(0, &role(), false);
    let event = takeover_by(&mut w, 2);
    assert_eq!(
        tell(&event).headline(),
        "main: c took over from a, which stepped down: the application is not healthy: as the simulator says; b was \
         passed over: the application is not healthy: as the simulator says."
    );
}

#[test]
fn application_that_turns_healthy_late_is_a_stage_of_its_own() {
    let mut w = three(6);
    w.action = Duration::from_millis(100);
    w.kill(0, true);
    w.run(Duration::from_millis(80));
    w.set_health(1, &role(), false);
    w.run(Duration::from_millis(300));
    w.set_health(1, &role(), true);
    let event = takeover_by(&mut w, 1);
    let last = stages(&event);
    assert_eq!(
        last[last.len() - 3..],
        [stage::PROMOTED, stage::HEALTHY, stage::SERVING],
        "{event:?}"
    );
}

#[test]
fn node_that_had_to_wait_says_for_what_and_orders_are_in_the_history() {
    let mut w = three(7);
    w.ask(2, Request::Pause(true));
    w.run(SECOND);
    w.ask(2, Request::Pause(true));
    w.run(SECOND);
    w.kill(0, false);
    w.run(5 * SECOND);
    w.ask(2, Request::Pause(false));
    let event = takeover_by(&mut w, 1);
    assert!(
        event
            .cause
            .ends_with("; b had to wait: automatic takeovers are paused"),
        "{event:?}"
    );
    assert!(between(&event, stage::MISSED, stage::FIT) > 4000, "{event:?}");
    let by = "an operator asked c".to_owned();
    let told = others(&w);
    let said_once = [
        (what::PAUSE.to_owned(), None, by.clone()),
        (what::RESUME.to_owned(), None, by),
    ];
    assert_eq!(told[1..], said_once, "{told:?}");
    let drained = true;
    w.ask(
        1,
        Request::Drain {
            node: name(2),
            drained,
        },
    );
    w.run(SECOND);
    let by = "an operator asked b".to_owned();
    assert_eq!(others(&w).last(), Some(&(what::DRAIN.into(), Some(name(2)), by)));
}

#[test]
fn claimant_that_failed_at_first_follows_the_holder_and_not_itself() {
    let mut w = three(10);
    w.kill(0, false);
    let state = |w: &Scene| w.nodes[1].view.as_ref().unwrap().roles[0].state;
    while state(&w) != RoleState::Claiming {
        w.run(Duration::from_millis(1));
    }
    // Just before the promises to a run out: b's own vote is the only one that it gets.
    w.run(Duration::from_millis(505));
    w.freeze(2);
    w.run(4 * SECOND);
    assert!(w.active_now().is_empty());
    w.set_health(2, &role(), false);
    w.thaw(2);
    w.heal();
    let event = takeover_by(&mut w, 1);
    assert_eq!(event.from, Some(name(0)), "{event:?}");
    assert!(event.cause.starts_with("a fell silent"), "{event:?}");
}

#[test]
fn role_that_comes_back_to_the_same_node_says_so() {
    let mut w = three(8);
    for n in [1, 2] {
        w.set_health(n, &role(), false);
    }
    w.run(SECOND);
    w.kill(0, false);
    w.run(Duration::from_millis(1500));
    w.start(0);
    let mut again = None;
    for _ in 0..200 {
        w.run(Duration::from_millis(50));
        again = w
            .log
            .state()
            .events
            .iter()
            .filter(|e| e.what == what::TAKEOVER && e.node == Some(name(0)))
            .nth(1)
            .cloned();
        if again.is_some() {
            break;
        }
    }
    let told = tell(&again.expect("it takes the role again")).headline();
    assert_eq!(
        told,
        "main: a is active again: it held the role last, and nobody else took over."
    );
}

#[test]
fn founding_and_changes_of_nodes_are_told_once() {
    let mut w = three(9);
    let founded = (
        what::START.into(),
        None,
        "the cluster was founded by the voters a, b and c".into(),
    );
    w.depose();
    w.run(3 * SECOND);
    assert_eq!(others(&w), [founded], "a new coordinator does not tell it again");
    let mut config = nodes(&[
        Kind::Member,
        Kind::Member,
        Kind::Member,
        Kind::Member,
        Kind::Observer,
    ]);
    config.cluster.window = SECOND;
    w.reconfigure(config);
    for n in [3, 4] {
        w.add(n);
        w.start(n);
    }
    w.run(10 * SECOND);
    let mut told = others(&w).split_off(1);
    told.sort_by_key(|(what, node, _)| (what == what::ELECTORATE, node.clone()));
    let joined = |n, cause: &str| (what::NODE.to_owned(), Some(name(n)), cause.to_owned());
    let voters = "the voters are now a, b, c and d; before, a, b and c";
    assert_eq!(
        told,
        [
            joined(3, "joined the cluster as a member"),
            joined(4, "joined the cluster as an observer"),
            (what::ELECTORATE.into(), None, voters.into()),
        ]
    );
    w.depose();
    w.run(3 * SECOND);
    assert_eq!(others(&w).len(), 4, "{:?}", others(&w));
    w.wipe(2);
    w.run(3 * SECOND);
    w.start(2);
    w.run(10 * SECOND);
    let again = joined(
        2,
        "came with an empty data directory and was taken in as a new node",
    );
    assert_eq!(others(&w)[4..], [again], "the voters are the same to people");
}

#[test]
fn process_that_is_started_again_where_it_ended_is_told_with_how_long_nobody_was_active() {
    let mut config = nodes(&[Kind::Member; 3]);
    config.roles.get_mut(&role()).unwrap().process = process(200);
    let mut w = Scene(World::new(config, 3));
    w.settle();
    let epoch = takeover_by(&mut w, 0).epoch;
    let ms = 1_000_000;
    w.process_ends(0, &role(), false, 300 * ms, ms);
    w.run(2 * SECOND);
    let event = takeover_by(&mut w, 0);
    assert_eq!((&event.from, event.epoch), (&Some(name(0)), epoch));
    let told = tell(&event);
    assert_eq!(
        told.headline(),
        "main: a is active again: the application ended and was started again there: exited with status 1."
    );
    let gap = between(&event, stage::STEPPED_DOWN, stage::SERVING);
    assert!((300..400).contains(&gap), "{}", told.times);
}
