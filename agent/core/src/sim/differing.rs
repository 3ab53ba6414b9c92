//! Nodes whose windows differ: named, out of line where few have theirs, and quiet about it.

use super::scenarios::{Scene, scene, three};
use super::world::name;
use baton_shared::id::Kind;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn said(w: &Scene, what: &str) -> usize {
    w.story().lines().filter(|line| line.contains(what)).count()
}

fn alarms(w: &Scene, n: usize) -> String {
    w.nodes[n].view.as_ref().unwrap().alarms.join("; ")
}

fn reason(w: &Scene, n: usize) -> String {
    w.nodes[n].view.as_ref().unwrap().roles[0].reason.clone()
}

#[test]
fn node_with_another_window_is_named_out_of_line_and_quiet() {
    for (millis, shown) in [(300, "300ms"), (2_000, "2s"), (20_000, "20s")] {
        let mut w = three(31);
        w.config.cluster.window = Duration::from_millis(millis);
        w.kill(2, false);
        w.start(2);
        w.run(60 * SECOND);
        assert_eq!(w.active_now()[0].0, 0, "{}", w.story());
        for (n, theirs) in [(0, "c"), (1, "c"), (2, "a"), (2, "b")] {
            let told = alarms(&w, n);
            let named = format!("node \"{theirs}\" has another window");
            for part in [named.as_str(), "\"1s\"", &format!("\"{shown}\""), "restart"] {
                assert!(told.contains(part), "node {n}: no {part} in {told}");
            }
            assert!(!told.contains("another configuration"), "{told}");
        }
        assert!(reason(&w, 2).contains("[cluster] window is"), "{}", reason(&w, 2));
        let odd = w.nodes[2].id;
        let line = w.nodes[1].view.as_ref().unwrap().roles[0].line.clone();
        assert!(line.iter().all(|(_, place)| place.owner.node != odd), "{line:?}");
        assert_eq!(
            (said(&w, "c role main: claim"), said(&w, "another window: ")),
            (0, 4)
        );
        let flaps = said(&w, &format!("node {} is down", name(2)));
        assert!(flaps <= 2, "{flaps}: {}", w.story());
        // Two of three voters are of one mind, and enough for each other.
        w.switch_over(0, 1);
        w.run(4 * SECOND);
        assert_eq!(w.active_now()[0].0, 1, "{}", w.story());
    }
}

#[test]
fn two_nodes_of_two_windows_say_why_nobody_is_active() {
    let mut w = scene(&[Kind::Member; 2], 32);
    w.settle();
    w.config.cluster.window = 2 * SECOND;
    w.kill(1, false);
    w.start(1);
    w.run(60 * SECOND);
    assert!(w.active_now().is_empty());
    for n in [0, 1] {
        let reason = reason(&w, n);
        assert!(reason.contains("[cluster] window is"), "{reason}");
        assert!(reason.contains("\"1s\"") && reason.contains("\"2s\""), "{reason}");
    }
    let claims = said(&w, "claim");
    assert!(claims < 20, "{claims}: {}", w.story());
    // And when they are the same again, it goes on.
    w.kill(0, false);
    w.start(0);
    w.run(15 * SECOND);
    assert_eq!(w.active_now().len(), 1, "{}", w.story());
}

#[test]
fn claims_that_cannot_be_won_while_a_third_voter_is_unknown_are_few_and_tell_the_reason() {
    let mut w = three(33);
    for n in 0..3 {
        w.kill(n, false);
    }
    w.start(0);
    w.config.cluster.window = 2 * SECOND;
    w.start(2);
    w.run(30 * SECOND);
    assert!(w.active_now().is_empty());
    let lines = said(&w, "role main: claim");
    assert!(lines <= 12, "{lines} lines in 30 s: {}", w.story());
    let told = w.story();
    assert!(
        told.contains("voters refused because [cluster] window is"),
        "{told}"
    );
}
