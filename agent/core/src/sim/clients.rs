//! The network by which clients come is lost while the nodes hear each other elsewhere, in virtual time: topology and outcome.

use super::MS;
use super::fault::switch_gone;
use super::invariants::names::S1;
use super::scenarios::{BOTH, Scene, nodes};
use super::world::{World, name, role};
use crate::Request;
use crate::input::Side;
use baton_shared::history::{downtime, tell, what};
use baton_shared::id::Kind;
use baton_shared::view::Event;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const FRONT: &[usize] = &[0];
/// W/2 and 30 ms, at a window of 1 s.
const BOUND: u64 = 530 * MS;

/// Members, settled, with `a` active; clients come by the first network.
fn members(count: usize, seed: u64) -> Scene {
    of(&vec![Kind::Member; count], seed)
}

fn of(kinds: &[Kind], seed: u64) -> Scene {
    let mut config = nodes(kinds);
    config.networks[0].clients = true;
    let mut w = Scene(World::new(config, seed));
    assert_eq!(w.settle(), 0);
    w
}

fn holder(w: &Scene) -> usize {
    let active = w.active_now();
    assert_eq!(active.len(), 1, "{}", w.story());
    active[0].0
}

/// Nothing changes hands for so long.
#[track_caller]
fn stays(w: &mut Scene, long: Duration) {
    let (before, at) = (w.spans().len(), holder(w));
    w.run(long);
    assert_eq!((w.spans().len(), holder(w)), (before, at), "{}", w.story());
}

/// Node `to` is active within the bound from now on.
#[track_caller]
fn moves(w: &mut Scene, to: usize) {
    let since = w.now;
    w.run(2 * SECOND);
    assert_eq!(holder(w), to, "{}", w.story());
    let (from, ..) = *w.spans().last().unwrap();
    assert!(from - since <= BOUND, "{} ms; {}", (from - since) / MS, w.story());
}

fn newest(w: &mut Scene) -> Event {
    w.run(SECOND);
    let events = &w.log.state().events;
    let event = events.iter().rfind(|event| event.what == what::TAKEOVER);
    event.unwrap().clone()
}

fn last_takeover(w: &mut Scene) -> String {
    tell(&newest(w)).headline()
}

fn cut_off(w: &Scene, at: usize, of: usize) -> String {
    let view = w.nodes[at].view.as_ref().unwrap();
    let cuts = &view.node(&name(of)).unwrap().cut_off;
    let cuts = cuts.iter().map(|(network, why)| format!("{network}: {why}"));
    cuts.collect::<Vec<_>>().join("; ")
}

#[test]
fn holder_silent_on_the_network_of_clients_hands_over_within_half_a_window_and_the_event_says_why() {
    for seed in 0..20 {
        let mut w = members(3, seed);
        w.run(Duration::from_millis(seed * 7));
        w.silence(0, FRONT);
        moves(&mut w, 1);
        // Whoever looks first sees that it hears nobody, or that nobody hears it.
        let told = last_takeover(&mut w);
        let begins = "main: b took over from a, which stepped down: cut off from clients on front: ";
        assert!(
            told.starts_with(begins) && told.contains("b and c hear each other"),
            "{told}"
        );
        // Clients lost it half a window before, and its last word there is not much older.
        let out = downtime(&newest(&mut w)).unwrap();
        assert!((430..=600).contains(&out.as_millis()), "{out:?}: {told}");
        let why = "front: b and c hear each other there, and nothing of it";
        assert_eq!([cut_off(&w, 0, 0), cut_off(&w, 1, 0)], [why, why]);
        let alarms = &w.nodes[0].view.as_ref().unwrap().alarms;
        assert!(
            alarms[0].starts_with("this node is cut off from clients on front"),
            "{alarms:?}"
        );
        stays(&mut w, 5 * SECOND);
        w.heal();
        stays(&mut w, 5 * SECOND);
        assert_eq!(cut_off(&w, 0, 0), "");
        assert!(w.nodes[0].view.as_ref().unwrap().alarms.is_empty());
    }
}

#[test]
fn holder_cut_off_one_way_hands_over_and_one_whose_carrier_is_lost_does() {
    let mut w = members(3, 1);
    w.one_way(0, FRONT, true, false);
    moves(&mut w, 1);
    let mut w = members(3, 2);
    w.one_way(0, FRONT, false, true);
    moves(&mut w, 1);
    assert!(last_takeover(&mut w).contains("it hears nobody there, and b and c hear each other"));
    let mut w = members(3, 3);
    w.plug(0, 0, false);
    moves(&mut w, 1);
    assert!(
        last_takeover(&mut w).contains("cut off from clients on front: its interface there has no carrier")
    );
}

#[test]
fn network_that_is_no_clients_network_is_lost_and_nothing_moves() {
    let mut w = members(3, 4);
    w.silence(0, &[1]);
    stays(&mut w, 5 * SECOND);
    w.heal();
    w.plug(0, 1, false);
    stays(&mut w, 5 * SECOND);
    let mut config = nodes(&[Kind::Member; 3]);
    config.networks[0].clients = false;
    let mut w = Scene(World::new(config, 4));
    w.settle();
    w.silence(0, FRONT);
    stays(&mut w, 5 * SECOND);
}

#[test]
fn everybody_loses_the_network_of_clients_and_the_holder_stays() {
    for (seed, carriers) in [(5, false), (6, true)] {
        let mut w = members(4, seed);
        let before = w.spans().len();
        switch_gone(&mut w, carriers);
        w.run(5 * SECOND);
        assert_eq!((w.spans().len(), holder(&w)), (before, 0), "{}", w.story());
    }
    // Each standby but not the holder; then all but one that nobody vouches for.
    let mut w = members(3, 7);
    for n in [1, 2] {
        w.plug(n, 0, false);
    }
    stays(&mut w, 5 * SECOND);
    w.heal();
    w.run(8 * SECOND);
    for n in [0, 1] {
        w.silence(n, FRONT);
    }
    stays(&mut w, 5 * SECOND);
}

#[test]
fn next_in_line_is_cut_off_too_and_the_one_after_it_takes_over() {
    let mut w = members(4, 8);
    w.plug(1, 0, false);
    stays(&mut w, 3 * SECOND);
    w.silence(0, FRONT);
    moves(&mut w, 2);
}

#[test]
fn standby_that_is_cut_off_takes_over_where_nobody_is_better() {
    let mut w = members(3, 16);
    for n in [1, 2] {
        w.plug(n, 0, false);
    }
    w.run(3 * SECOND);
    w.kill(0, false);
    w.run(2 * SECOND);
    assert_eq!(holder(&w), 1, "{}", w.story());
}

#[test]
fn witness_vouches_and_without_one_only_carrier_counts() {
    let mut w = of(&[Kind::Member, Kind::Member, Kind::Witness], 9);
    w.silence(0, FRONT);
    moves(&mut w, 1);
    // With nobody who vouches for b either, the holder stays whatever its carrier is.
    let mut w = of(&[Kind::Member, Kind::Member], 10);
    w.silence(0, FRONT);
    stays(&mut w, 5 * SECOND);
    w.plug(0, 0, false);
    stays(&mut w, 5 * SECOND);
}

/// The gateway's word is as good as a second peer's.
#[test]
fn gateway_that_answers_the_other_alone_moves_the_role() {
    let mut w = of(&[Kind::Member, Kind::Member], 11);
    w.invariants_mut().only = Some(S1); // the world has no gateways
    let tell = |w: &mut Scene, n: usize, gateway: bool| {
        let side = |gateway| Side {
            carrier: Some(true),
            gateway,
        };
        w.give_sides(n, vec![side(Some(gateway)), side(None)]);
    };
    tell(&mut w, 0, false);
    stays(&mut w, 3 * SECOND);
    tell(&mut w, 1, false);
    stays(&mut w, 3 * SECOND);
    tell(&mut w, 1, true);
    moves(&mut w, 1);
}

#[test]
fn carrier_that_flaps_every_second_takes_the_role_along_once_a_minute_then_in_two_and_four() {
    let mut w = members(3, 12);
    let mut handed = Vec::new();
    let (begun, mut at) = (w.now, 0);
    while w.now < begun + 420_000 * MS {
        // Whoever holds the role has the bad cable.
        let n = holder(&w);
        if n != at {
            handed.push((w.now - begun) / (1000 * MS));
            at = n;
        }
        w.plug(n, 0, false);
        w.run(SECOND / 2);
        w.heal();
        w.run(SECOND / 2);
    }
    assert!(matches!(handed[..], [0..=2, 60..=63, 180..=186]), "{handed:?}");
}

#[test]
fn limit_outlives_the_restart_of_the_holder_that_handed_over() {
    let mut w = members(3, 13);
    w.silence(0, FRONT);
    moves(&mut w, 1);
    w.heal();
    w.kill(0, false);
    w.run(SECOND);
    w.start(0);
    w.run(8 * SECOND);
    w.kill(1, false);
    w.run(3 * SECOND);
    w.start(1);
    w.run(8 * SECOND);
    let at = holder(&w);
    w.silence(at, FRONT);
    stays(&mut w, 5 * SECOND);
    w.run(60 * SECOND);
    assert_ne!(holder(&w), at, "once the minute is over");
}

#[test]
fn preferred_node_comes_back_only_after_preempt_after_without_a_cut() {
    let mut config = nodes(&[Kind::Member; 3]);
    config.networks[0].clients = true;
    config.cluster.preempt_after = Some(4 * SECOND);
    config.nodes.get_mut(&name(0)).unwrap().priority = 10;
    let mut w = Scene(World::new(config, 14));
    assert_eq!(w.settle(), 0);
    w.silence(0, FRONT);
    moves(&mut w, 1);
    stays(&mut w, 20 * SECOND);
    w.heal();
    stays(&mut w, 3 * SECOND);
    w.run(4 * SECOND);
    assert_eq!(holder(&w), 0, "{}", w.story());
}

#[test]
fn operator_pauses_and_names_targets_and_nobody_is_moved_to_where_clients_are_not() {
    let mut w = members(3, 15);
    w.ask(0, Request::Pause(true));
    w.run(SECOND);
    w.silence(0, FRONT);
    stays(&mut w, 5 * SECOND);
    w.heal();
    w.run(SECOND);
    w.ask(0, Request::Pause(false));
    w.plug(1, 0, false);
    w.run(SECOND);
    w.switch_over(0, 1);
    stays(&mut w, 3 * SECOND);
    let refused = w.answers.last().unwrap().1.clone().unwrap_err();
    assert!(
        refused.starts_with("b is cut off from clients on front: "),
        "{refused}"
    );
    let (role, to) = (role(), None);
    w.ask(0, Request::Switchover { role, to });
    w.run(3 * SECOND);
    assert_eq!(holder(&w), 2, "the best that is not cut off; {}", w.story());
}

#[test]
fn a_third_of_all_datagrams_are_lost_for_a_minute_and_nothing_moves() {
    for seed in 20..24 {
        let mut w = members(3, seed);
        w.loss = 30;
        stays(&mut w, 60 * SECOND);
    }
}

#[test]
fn holder_that_is_silent_everywhere_is_replaced_as_ever() {
    let mut w = members(3, 25);
    let since = w.now;
    w.silence(0, BOTH);
    w.run(2 * SECOND);
    assert_eq!(holder(&w), 1);
    let (from, ..) = *w.spans().last().unwrap();
    assert!(from - since <= 1040 * MS);
}
