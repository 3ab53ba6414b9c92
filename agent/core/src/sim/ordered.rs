//! Orders mean what they say: a node is taken out of line when another is active, or is said to stay; a pause freezes what is.

use super::MS;
use super::config_of;
use super::scenarios::{Scene, three};
use super::world::{World, name, role};
use crate::Request;
use baton_shared::id::Kind;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn vacate(n: usize, patient: bool, limit: Duration) -> Request {
    Request::Vacate {
        node: name(n),
        patient,
        limit,
    }
}

/// The answers that came since there were so many.
fn answers(w: &Scene, before: usize) -> Vec<Result<String, String>> {
    w.answers[before..]
        .iter()
        .map(|(_, answer)| answer.clone())
        .collect()
}

#[test]
fn drained_holder_is_answered_for_when_another_is_active() {
    let mut w = three(41);
    let before = w.answers.len();
    w.ask(1, vacate(0, false, 30 * SECOND));
    let deadline = w.now + 60_000 * MS;
    while answers(&w, before).is_empty() {
        w.run(Duration::from_millis(1));
        assert!(w.now < deadline, "no answer: {}", w.story());
    }
    let active = w.active_now();
    assert!(active.iter().any(|(n, _)| *n != 0), "{}", w.story());
    let said = answers(&w, before).remove(0).unwrap();
    assert!(
        said.contains("done: drain a; ") && said.contains("is active for role main"),
        "{said}"
    );
    // One that holds nothing is out at once.
    let (holder, before) = (active[0].0, w.answers.len());
    let standby = (1..3).find(|n| *n != holder).unwrap();
    w.ask(holder, vacate(standby, false, 30 * SECOND));
    w.run(SECOND);
    assert_eq!(
        answers(&w, before),
        [Ok(format!("done: drain {}", name(standby)))]
    );
    // The last one stays, and that is no success.
    let before = w.answers.len();
    w.ask(holder, vacate(holder, false, 30 * SECOND));
    w.run(3 * SECOND);
    let said = answers(&w, before).remove(0).unwrap_err();
    let expected = format!(
        "{} is out of line but stays active: nobody else is fit",
        name(holder)
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains("drained by an operator"), "{said}");
    assert_eq!(w.active_now()[0].0, holder, "{}", w.story());
    // Whoever has patience hears of it when another is fit, or when the time is over.
    let before = w.answers.len();
    w.ask(holder, vacate(holder, true, 5 * SECOND));
    w.run(6 * SECOND);
    let said = answers(&w, before).remove(0).unwrap_err();
    assert!(
        said.contains("no other node became active for main in time"),
        "{said}"
    );
    let before = w.answers.len();
    w.ask(holder, vacate(holder, true, 30 * SECOND));
    w.run(3 * SECOND);
    assert!(answers(&w, before).is_empty());
    let back = Request::Drain {
        node: name(0),
        drained: false,
    };
    w.ask(holder, back);
    w.run(4 * SECOND);
    assert_eq!(w.active_now()[0].0, 0, "{}", w.story());
    let said = answers(&w, before);
    assert!(
        said.len() == 2 && said.iter().all(Result::is_ok),
        "the undrain, and the order that waited: {said:?}"
    );
}

/// Who asks need not hear the holder itself.
#[test]
fn drained_holder_that_is_heard_by_others_alone_is_no_success_while_it_stays() {
    let config = config_of(&[Kind::Member, Kind::Member, Kind::Witness], SECOND);
    let mut w = Scene(World::new(config, 46));
    (0..3).for_each(|n| w.start(n));
    w.run(6 * SECOND);
    let holder = w.active_now()[0].0;
    let other = 1 - holder;
    w.part(holder, other);
    w.lead(2);
    w.run(5 * SECOND);
    assert_eq!(w.active_now()[0].0, holder, "{}", w.story());
    let before = w.answers.len();
    w.ask(other, vacate(holder, false, 10 * SECOND));
    w.run(15 * SECOND);
    let said = answers(&w, before).remove(0);
    let active = w.active_now()[0].0;
    assert_eq!(said.is_ok(), active != holder, "{said:?}: {}", w.story());
}

/// Streams pass to the coordinator, and datagrams do not: it sees nobody fit, and may neither say so in the line nor stay in office.
#[test]
fn coordinator_that_hears_nobody_leaves_the_line_alone_and_gives_up_its_office() {
    let config = config_of(&[Kind::Member; 3], SECOND);
    let mut w = Scene(World::new(config, 47));
    (0..3).for_each(|n| w.start(n));
    w.run(6 * SECOND);
    let holder = w.active_now()[0].0;
    let coordinator = (holder + 1) % 3;
    w.lead(coordinator);
    w.run(2 * SECOND);
    w.deaf.insert(coordinator);
    w.run(Duration::from_millis(2500));
    w.set_health(holder, &role(), false);
    w.run(2 * SECOND);
    let active = w.active_now();
    assert!(
        active.len() == 1 && active[0].0 != holder && active[0].0 != coordinator,
        "{}",
        w.story()
    );
    w.run(8 * SECOND);
    let leader = w.nodes[active[0].0].view.as_ref().unwrap().coordinator.clone();
    assert!(
        leader.is_some_and(|leader| leader != name(coordinator)),
        "{}",
        w.story()
    );
}

#[test]
fn paused_cluster_keeps_its_holder_whatever_becomes_of_the_application() {
    let mut w = three(42);
    w.ask(1, Request::Pause(true));
    w.run(SECOND);
    let epoch = w.active_now()[0].1;
    w.set_health(0, &role(), false);
    w.run(60 * SECOND);
    assert!(w.active_now().is_empty());
    let view = w.nodes[0].view.as_ref().unwrap();
    let here = &view.roles[0];
    assert_eq!(
        here.holder.as_ref().map(|h| &h.node),
        Some(&name(0)),
        "{}",
        w.story()
    );
    assert!(here.reason.contains("takeovers are paused"), "{}", here.reason);
    // An order to drain it leaves it where it is, and says so.
    let before = w.answers.len();
    w.ask(1, vacate(0, false, 30 * SECOND));
    w.run(3 * SECOND);
    let said = answers(&w, before).remove(0).unwrap_err();
    assert!(
        said.starts_with("a is out of line but keeps what it holds: takeovers are paused"),
        "{said}"
    );
    w.set_health(0, &role(), true);
    w.run(SECOND);
    assert_eq!(w.active_now(), [(0, epoch)], "it goes on at its epoch");
    let view = w.nodes[0].view.as_ref().unwrap();
    assert!(
        view.roles[0].reason.contains("paused"),
        "{}",
        view.roles[0].reason
    );
    // Once that is over, all that was kept back comes about.
    w.ask(1, Request::Pause(false));
    w.run(3 * SECOND);
    assert_ne!(w.active_now()[0].0, 0, "{}", w.story());
}
