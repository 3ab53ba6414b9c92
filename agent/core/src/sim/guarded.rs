//! Guardians that stand still or die, and applications that do not go away: topology and outcome.

use super::MS;
use super::life::process;
use super::scenarios::{Scene, nodes};
use super::world::{App, World, name, role};
use baton_shared::id::Kind;
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three members with a managed process, settled: `a` is active.
fn managed(seed: u64) -> Scene {
    let mut config = nodes(&[Kind::Member; 3]);
    config.roles.get_mut(&role()).unwrap().process = process(200);
    let mut w = Scene(World::new(config, seed));
    assert_eq!(w.settle(), 0);
    assert!(
        w.nodes[0].living(&role()) >= 4,
        "some of them have left the group"
    );
    w
}

fn reason(w: &Scene, n: usize) -> String {
    w.nodes[n].view.as_ref().unwrap().roles[0].reason.clone()
}

fn alarms(w: &Scene, n: usize) -> String {
    w.nodes[n].view.as_ref().unwrap().alarms.join("; ")
}

/// Runs until this holds.
fn until(w: &mut Scene, limit: Duration, what: &str, holds: impl Fn(&Scene) -> bool) -> Duration {
    let since = w.now;
    while !holds(w) {
        assert!(
            w.now - since < limit.as_nanos() as u64,
            "{what}: not within {limit:?}; {}",
            w.story()
        );
        w.run(Duration::from_micros(500));
    }
    Duration::from_nanos(w.now - since)
}

#[test]
fn guardian_of_the_holder_stands_still_the_role_moves_and_both_end() {
    let mut w = managed(1);
    w.stop_guardian(0, ms(60_000));
    let took = until(&mut w, ms(1000), "another is active", |w| {
        w.active_now().iter().any(|(n, _)| *n != 0)
    });
    assert!(
        took > ms(249),
        "it was noticed before it could be: {took:?}; {}",
        w.story()
    );
    assert_eq!(w.nodes[0].living(&role()), 0);
    assert!(
        alarms(&w, 0).contains("guardian of this node stands still"),
        "{}",
        alarms(&w, 0)
    );
    until(&mut w, ms(1000), "its agent ends", |w| !w.nodes[0].up);
    w.start(0);
    w.run(ms(3000));
    assert!(w.nodes[0].up && alarms(&w, 0).is_empty(), "a new guardian beats");
}

#[test]
fn guardian_that_cannot_be_killed_stands_still_its_node_is_out_of_line_until_it_goes_on() {
    let mut w = managed(2);
    w.switch_over(0, 1);
    until(&mut w, ms(1000), "b is active", |w| {
        w.active_now().iter().any(|(n, _)| *n == 1)
    });
    w.run(ms(1000));
    w.stop_guardian(1, ms(60_000));
    until(&mut w, ms(1000), "another is active", |w| {
        w.active_now().iter().any(|(n, _)| *n != 1)
    });
    w.run(ms(3000));
    assert!(
        w.nodes[1].up && reason(&w, 1).contains("guardian"),
        "{}",
        reason(&w, 1)
    );
    let line = |w: &Scene| w.log.state().roles[&role()].line.places.clone();
    let b = w.nodes[1].owner();
    assert!(line(&w).iter().all(|place| place.owner != b), "{:?}", line(&w));
    w.continue_guardian(1);
    until(&mut w, ms(3000), "b is in line again", |w| {
        line(w).iter().any(|place| place.owner == b)
    });
    assert!(alarms(&w, 1).is_empty());
}

#[test]
fn guardian_dies_its_application_is_gone_at_once_and_the_agent_hands_over() {
    let mut w = managed(3);
    w.guardian_dies(0);
    let gone = until(&mut w, ms(100), "nothing is left", |w| {
        w.nodes[0].living(&role()) == 0
    });
    assert!(gone < ms(50), "{gone:?}");
    until(&mut w, ms(500), "another is active", |w| {
        w.active_now().iter().any(|(n, _)| *n != 0)
    });
    until(&mut w, ms(3000), "its agent ends", |w| !w.nodes[0].up);
}

#[test]
fn guardian_and_agent_die_together_nothing_of_the_application_is_left_when_they_are_started_again() {
    let mut w = managed(4);
    w.both_die(0);
    w.start(0);
    assert!(!w.nodes[0].up, "what is left is killed first");
    until(&mut w, ms(50), "it is started", |w| w.nodes[0].up);
    assert_eq!(w.nodes[0].living(&role()), 0);
    w.run(ms(3000));
    assert_eq!(w.active_now().len(), 1);
}

#[test]
fn guardian_and_agent_stand_still_together_the_keeper_kills_before_the_lease_ends() {
    let mut w = managed(5);
    w.freeze(0);
    w.stop_guardian(0, ms(10_000));
    let gone = until(&mut w, ms(1000), "nothing is left", |w| {
        w.nodes[0].living(&role()) == 0
    });
    assert!(gone > ms(700) && gone < ms(990), "{gone:?}");
    until(&mut w, ms(200), "another is active", |w| {
        !w.active_now().is_empty()
    });
    w.run(ms(15_000));
    assert_eq!(w.active_now().len(), 1);
}

#[test]
fn process_that_does_not_go_away_keeps_the_role_and_is_named() {
    let mut w = managed(6);
    w.nodes[0].lingers = ms(2000);
    w.switch_over(1, 1);
    w.run(ms(1700));
    assert!(w.active_now().is_empty(), "{}", w.story());
    assert!(matches!(w.nodes[0].app(&role()), App::Stopping(_)));
    assert!(reason(&w, 0).contains("state D"), "{}", reason(&w, 0));
    until(&mut w, ms(1000), "b is active", |w| {
        w.active_now().iter().any(|(n, _)| *n == 1)
    });
    assert!(!reason(&w, 0).contains("state D"), "{}", reason(&w, 0));
    let said = alarms(&w, 0);
    assert!(
        said.contains("process.kill_time = ") && said.contains("50ms"),
        "{said}"
    );
}

#[test]
fn agent_dies_while_a_process_does_not_go_away_nobody_is_told_before_it_has() {
    let mut w = managed(7);
    w.nodes[0].lingers = ms(700);
    let since = w.now;
    w.kill(0, true);
    w.run(ms(690));
    assert!(w.active_now().is_empty(), "{}", w.story());
    assert_eq!(w.nodes[0].living(&role()), 1);
    until(&mut w, ms(100), "another is active", |w| {
        !w.active_now().is_empty()
    });
    assert!(
        w.now - since < 800 * MS,
        "the death was told: nobody waited for the lease"
    );
    let told = format!("{} took over", name(1));
    assert!(w.story().contains(&told));
}
