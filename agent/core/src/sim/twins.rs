//! Several runs under one node's name, in virtual time: twins, clones, and machines that were replaced (V7).

use super::MS;
use super::scenarios::{Scene, three};
use super::world::{Double, World, name};
use crate::{Input, Output};
use baton_shared::id::NodeId;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Everybody reaches doubles on the second network, and the nodes themselves on the first.
const ON_BACK: u64 = 0xAAAA_AAAA_AAAA_AAAA;
const EVERYWHERE: u64 = u64::MAX;

fn alarms(w: &World, n: usize) -> String {
    w.nodes[n].view.as_ref().unwrap().alarms.join("; ")
}

fn voters(w: &World) -> Vec<NodeId> {
    w.log.state().electorate.voters.iter().copied().collect()
}

fn said(w: &World, what: &str) -> usize {
    w.story().lines().filter(|line| line.contains(what)).count()
}

#[track_caller]
fn assert_steady(w: &Scene, before: usize, holder: usize) {
    assert_eq!(
        (w.spans().len(), w.active_now()[0].0),
        (before, holder),
        "{}",
        w.story()
    );
}

#[test]
fn twin_that_hears_nobody_changes_nothing_and_is_told_with_both_addresses() {
    let mut w = three(1);
    let before = w.spans().len();
    for of in [1, 0] {
        let twin = w.double(of, Double::Twin);
        w.run(5 * SECOND);
        assert_steady(&w, before, 0);
        let told = alarms(&w, 2);
        let addresses = [of, twin].map(|n| format!(".0.{}", n + 1));
        let whose = format!("node \"{}\" runs twice", name(of));
        assert!(
            told.contains(&whose) && addresses.iter().all(|a| told.contains(a)),
            "{told}"
        );
        assert_eq!(w.nodes[2].view.as_ref().unwrap().alarms.len(), 1, "{told}");
        w.doubles_leave();
        w.run(5 * SECOND);
        assert_steady(&w, before, 0);
        assert_eq!(alarms(&w, 2), "");
    }
    assert_eq!(
        said(&w, "c node \"b\" runs twice"),
        1,
        "once, and once that it is over"
    );
    // The node is as good as it was: with it, any other can be missed.
    w.kill(2, false);
    w.run(5 * SECOND);
    assert_steady(&w, before, 0);
}

#[test]
fn twin_on_one_network_leaves_the_node_that_the_log_knows_in_its_place_and_that_alarms_too() {
    let mut w = three(2);
    let before = w.spans().len();
    w.double(0, Double::Twin);
    w.reach_doubles(ON_BACK);
    w.run(6 * SECOND);
    assert_steady(&w, before, 0);
    assert!(
        alarms(&w, 0).contains("another process runs as node \"a\""),
        "{}",
        alarms(&w, 0)
    );
    assert!(
        alarms(&w, 1).contains("node \"a\" runs twice"),
        "{}",
        alarms(&w, 1)
    );
    w.doubles_leave();
    w.run(14 * SECOND);
    assert_steady(&w, before, 0);
    assert_eq!((alarms(&w, 0), alarms(&w, 1)), Default::default());
}

#[test]
fn twin_reached_in_place_of_a_node_gets_no_vote_and_the_node_comes_back() {
    for what in [Double::Twin, Double::TwinBehind] {
        let mut w = three(3);
        let before = voters(&w);
        w.double(1, what);
        w.reach_doubles(EVERYWHERE);
        w.run(20 * SECOND);
        assert_eq!(voters(&w), before, "the node is still heard");
        w.reach_doubles(0);
        w.run(SECOND);
        let spans = w.spans().len();
        w.kill(2, false);
        w.run(5 * SECOND);
        assert_steady(&w, spans, 0);
    }
}

#[test]
fn replaced_node_whose_clock_is_behind_is_let_in_and_gets_the_vote_after_a_while() {
    let mut w = three(4);
    let before = voters(&w);
    w.replace_behind(1);
    w.run(SECOND / 2);
    w.start(1);
    w.run(7 * SECOND);
    assert_eq!(voters(&w), before, "its last run was heard a moment ago");
    w.run(8 * SECOND);
    assert!(voters(&w).contains(&w.nodes[1].id), "{}", w.story());
    w.kill(2, false);
    w.run(5 * SECOND);
    assert_eq!(w.active_now().len(), 1);
}

#[test]
fn node_that_stopped_in_order_is_replaced_at_once() {
    let mut w = three(5);
    w.stop(1);
    w.run(4 * SECOND);
    w.wipe(1);
    w.start(1);
    w.run(5 * SECOND);
    assert!(voters(&w).contains(&w.nodes[1].id), "{}", w.story());
}

/// V7, S1, S2.
#[test]
fn clone_that_is_heard_ends_its_original_which_comes_back_as_a_new_node() {
    for of in [1, 0] {
        let mut w = three(6);
        let id = w.nodes[of].id;
        w.double(of, Double::Clone);
        w.run(3 * SECOND);
        assert_eq!(w.nodes[of].id, id, "a clone that hears nobody is harmless");
        w.reach_doubles(ON_BACK);
        w.run(6 * SECOND);
        assert_ne!(w.nodes[of].id, id, "{}", w.story());
        assert_eq!(
            said(
                &w,
                "another process, started later, runs with this node's consensus id"
            ),
            1
        );
        assert!(alarms(&w, 2).contains("runs twice"), "{}", alarms(&w, 2));
        assert_eq!(w.active_now().len(), 1);
        w.doubles_leave();
        w.run(15 * SECOND);
        assert!(voters(&w).contains(&w.nodes[of].id), "{}", w.story());
        let holder = w.active_now()[0].0;
        w.kill((holder + 1) % 3, false);
        w.run(3 * SECOND);
        assert_eq!(w.active_now()[0].0, holder);
    }
}

#[test]
fn twin_with_another_configuration_does_not_fill_the_log() {
    let mut w = three(7);
    let good = w.config.clone();
    w.config.nodes.get_mut(&name(1)).unwrap().priority = 7;
    w.double(1, Double::Twin);
    w.config = good;
    w.reach_doubles(ON_BACK);
    w.run(20 * SECOND);
    w.reach_doubles(EVERYWHERE);
    w.run(20 * SECOND);
    w.reach_doubles(ON_BACK);
    w.run(20 * SECOND);
    let lines = said(&w, "configuration");
    assert!(lines <= 3 * 4, "{lines} lines in a minute");
    let lines = said(&w, "runs twice");
    assert!(lines <= 3 * 4, "{lines} lines in a minute");
}

/// V6, S5: true, and no news.
#[test]
fn death_notice_replayed_to_a_restarted_node_is_not_news() {
    let mut w = three(8);
    let dead = w.nodes[1].owner();
    w.kill(1, true);
    w.run(SECOND);
    w.start(1);
    w.run(3 * SECOND);
    w.kill(2, false);
    w.start(2);
    w.run(2 * SECOND);
    let now = w.clock(2) + Duration::from_nanos(MS / 100);
    let core = w.nodes[2].core.as_mut().unwrap();
    let why = "killed".to_owned();
    core.handle(Input::Dead { owner: dead, why }, now, 0);
    let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::Log { .. } | Output::Send { .. })),
        "{outputs:?}"
    );
    // And one that tells of the present run is.
    let owner = w.nodes[1].owner();
    let core = w.nodes[2].core.as_mut().unwrap();
    let why = "killed".to_owned();
    core.handle(Input::Dead { owner, why }, now, 0);
    let outputs: Vec<Output> = std::iter::from_fn(|| core.poll_output()).collect();
    assert!(outputs.iter().any(|o| matches!(o, Output::Log { .. })));
    assert!(outputs.iter().any(|o| matches!(o, Output::Send { .. })));
}
