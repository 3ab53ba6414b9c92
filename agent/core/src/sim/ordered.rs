//! Orders mean what they say: a node is taken out of line when another is active, or is said to stay; a pause freezes what is.

use super::MS;
use super::scenarios::{Scene, three};
use super::world::{name, role};
use crate::Request;
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
    assert_eq!(said, expected);
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
    assert!(
        answers(&w, before).iter().all(Result::is_ok),
        "{:?}",
        answers(&w, before)
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
