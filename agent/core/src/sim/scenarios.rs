//! Named scenarios in virtual time: topology and outcome. The random, hostile ones are lives (`life.rs`).

use super::MS;
use super::world::{World, config_of, name, role};
use crate::input::Health;
use crate::{Input, Output, Request};
use baton_shared::config::{Check, Config, Probe};
use baton_shared::id::Kind;
use baton_shared::succession::Floor;
use baton_shared::view::RoleState;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// A world in which no invariant may fail.
pub(super) struct Scene(pub(super) World);

impl Deref for Scene {
    type Target = World;
    fn deref(&self) -> &World {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.0
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(violation) = &self.0.violation
            && !std::thread::panicking()
        {
            panic!("{violation:?}; {}", self.0.story());
        }
    }
}

pub(super) fn nodes(kinds: &[Kind]) -> Config {
    config_of(kinds, Duration::from_secs(1))
}

pub(super) fn scene(kinds: &[Kind], seed: u64) -> Scene {
    Scene(World::new(nodes(kinds), seed))
}

/// Three members, started and settled: `a` is active and leads the log.
pub(super) fn three(seed: u64) -> Scene {
    let mut w = scene(&[Kind::Member; 3], seed);
    w.settle();
    w
}

impl Scene {
    /// Runs until somebody is active and the log is quiet.
    pub(super) fn settle(&mut self) -> usize {
        let deadline = self.now + 30_000 * MS;
        while self.active_now().is_empty() {
            assert!(self.now < deadline, "nobody became active; {}", self.story());
            self.run(Duration::from_millis(1));
        }
        self.run(Duration::from_millis(2500));
        let active = self.active_now();
        assert_eq!(active.len(), 1, "{}", self.story());
        active[0].0
    }

    /// Asks node `at` for a switchover to node `to`.
    pub(super) fn switch_over(&mut self, at: usize, to: usize) {
        let (role, to) = (role(), Some(name(to)));
        self.ask(at, Request::Switchover { role, to });
    }

    /// Runs until somebody else than `not` is active; returns who, and when.
    fn until_active_but(&mut self, not: usize, limit: Duration) -> (usize, u64) {
        let deadline = self.now + limit.as_nanos() as u64;
        loop {
            if let Some((n, _)) = self.active_now().iter().find(|(n, _)| *n != not) {
                return (*n, self.now);
            }
            assert!(
                self.now < deadline,
                "no takeover within {limit:?}; {}",
                self.story()
            );
            self.run(Duration::from_micros(500));
        }
    }
}

/// DESIGN §2: 1.03 W, a flush, two round trips and the promotion (1 ms here), at W = 1 s.
const BOUND: u64 = 1030 * MS + 10 * MS;
pub(super) const BOTH: &[usize] = &[0, 1];

#[test]
fn three_members_start_and_the_first_is_active() {
    let mut w = three(1);
    assert_eq!(w.active_now()[0].0, 0);
    let spans = w.spans().len();
    w.run(Duration::from_secs(20));
    assert_eq!(
        w.spans().len(),
        spans,
        "a quiet cluster stays as it is: {:?}",
        w.spans()
    );
    let what: Vec<String> = w.log.state().events.iter().map(|e| e.what.clone()).collect();
    assert_eq!(what, ["start", "takeover"], "{:?}", w.log.state().events);
}

#[test]
fn holder_falls_silent_next_in_line_takes_over_within_the_bound() {
    for seed in 0..20 {
        let mut w = three(seed);
        w.run(Duration::from_millis(seed * 7));
        let at = w.now;
        w.silence(0, BOTH);
        let (next, then) = w.until_active_but(0, Duration::from_secs(3));
        assert_eq!(next, 1);
        assert!(
            then - at <= BOUND,
            "seed {seed}: {} ms; logs:\n{}",
            (then - at) / MS,
            w.story()
        );
        w.run(Duration::from_secs(5));
        w.heal();
        w.run(Duration::from_secs(10));
        assert_eq!(w.active_now()[0].0, 1, "no failback; logs:\n{}", w.story());
    }
}

#[test]
fn holder_and_coordinator_lost_together_still_one_window() {
    let mut w = three(3);
    w.log.leader = Some(0);
    let at = w.now;
    w.kill(0, false);
    let (_, then) = w.until_active_but(0, Duration::from_secs(3));
    assert!(then - at <= BOUND, "{} ms", (then - at) / MS);
}

/// V3, V6: on that word alone, before anybody claims.
#[test]
fn holder_proven_dead_a_voter_writes_the_heirs_floor_ahead_at_once() {
    let mut w = three(5);
    let (dead, heir) = (w.nodes[0].owner(), w.nodes[1].owner());
    w.kill(0, false);
    let now = w.clock(2);
    let core = w.nodes[2].core.as_mut().unwrap();
    let before = core.voter(&role()).floor();
    assert_eq!((before.owner, before.open), (Some(dead), true));
    let why = "it was killed".into();
    core.handle(Input::Dead { owner: dead, why }, now, 0);
    let written = std::iter::from_fn(|| core.poll_output()).find_map(|output| match output {
        Output::Persist { durable, .. } => durable.floors.get(&role()).copied(),
        _ => None,
    });
    let written = written.expect("it asks for a flush");
    assert_eq!((written.owner, written.open), (Some(heir), true));
    assert!(written.epoch > before.epoch);
    let floor = core.voter(&role()).floor();
    let closed = Floor {
        open: false,
        ..before
    };
    assert_eq!(floor, closed, "what is written ahead counts after a restart");
}

#[test]
fn one_network_lost_changes_nothing() {
    for network in [0, 1] {
        let mut w = three(4);
        let spans = w.spans().len();
        w.silence(0, &[network]);
        w.run(Duration::from_secs(20));
        assert_eq!(w.spans().len(), spans, "{:?}", w.spans());
    }
}

#[test]
fn one_way_cuts_on_both_networks_the_role_moves_within_the_bound() {
    for (outgoing, incoming) in [(true, false), (false, true)] {
        let mut w = three(5);
        w.one_way(0, BOTH, outgoing, incoming);
        let (next, then) = w.until_active_but(0, Duration::from_secs(4));
        let gone = w.spans().iter().rev().find(|(_, _, n, _)| *n == 0).unwrap().1;
        assert!(then - gone <= BOUND, "{} ms", (then - gone) / MS);
        assert_ne!(next, 0);
    }
}

#[test]
fn holder_frozen_and_thawed_does_not_come_back() {
    let mut w = three(6);
    w.freeze(0);
    let (next, _) = w.until_active_but(0, Duration::from_secs(3));
    w.run(Duration::from_secs(4));
    w.thaw(0);
    w.run(Duration::from_secs(5));
    assert_eq!(w.active_now()[0].0, next, "logs:\n{}", w.story());
}

#[test]
fn a_third_of_all_datagrams_lost_changes_no_holder() {
    for seed in 0..10 {
        let mut w = three(seed);
        let spans = w.spans().len();
        w.loss = 30;
        w.run(Duration::from_secs(60));
        assert_eq!(w.spans().len(), spans, "{:?}; logs:\n{}", w.spans(), w.story());
    }
}

#[test]
fn coordinator_lost_while_another_is_active_leaves_no_gap() {
    let mut w = three(7);
    w.switch_over(0, 2);
    w.run(Duration::from_secs(3));
    assert_eq!(w.active_now()[0].0, 2, "{:?}; logs:\n{}", w.answers, w.story());
    let spans = w.spans().len();
    w.kill(0, false);
    w.run(Duration::from_secs(20));
    assert_eq!(w.spans().len(), spans, "{:?}", w.spans());
}

#[test]
fn switchover_takes_a_few_round_trips() {
    let mut w = three(8);
    w.switch_over(1, 2);
    let (next, then) = w.until_active_but(0, Duration::from_secs(3));
    assert_eq!(next, 2);
    let gone = w.spans().iter().rev().find(|(_, _, n, _)| *n == 0).unwrap().1;
    assert!(
        then - gone <= 10 * MS,
        "{} us; logs:\n{}",
        (then - gone) / 1000,
        w.story()
    );
    w.run(Duration::from_secs(1));
    assert!(w.answers.iter().any(|(_, a)| a.is_ok()), "{:?}", w.answers);
}

#[test]
fn graceful_stop_hands_over_at_once() {
    let mut w = three(9);
    w.ask(0, Request::Pause(false));
    w.run(Duration::from_secs(1));
    w.stop(0);
    let (_, then) = w.until_active_but(0, Duration::from_secs(3));
    let gone = w.spans().iter().rev().find(|(_, _, n, _)| *n == 0).unwrap().1;
    assert!(
        then - gone <= 10 * MS,
        "{} us; logs:\n{}",
        (then - gone) / 1000,
        w.story()
    );
    w.run(Duration::from_secs(1));
    assert!(w.nodes[0].stopped);
}

#[test]
fn unhealthy_holder_steps_down_if_another_is_fit_and_stays_if_none_is() {
    let mut w = three(10);
    w.set_health(0, &role(), false);
    let (next, _) = w.until_active_but(0, Duration::from_secs(1));
    assert_eq!(next, 1);
    w.set_health(2, &role(), false);
    w.run(Duration::from_secs(2));
    w.set_health(1, &role(), false);
    w.run(Duration::from_secs(3));
    assert!(w.active_now().is_empty());
    let view = w.nodes[1].view.as_ref().unwrap();
    assert_eq!(
        view.roles[0].state,
        RoleState::Promoting,
        "holds on, for want of another"
    );
    w.set_health(1, &role(), true);
    w.run(Duration::from_millis(100));
    assert_eq!(w.active_now()[0].0, 1);
}

#[test]
fn untried_application_is_active_only_once_its_check_was_good() {
    let mut w = three(10);
    for n in [1, 2] {
        w.give_health(n, &role(), Health::Untried);
    }
    w.kill(0, false);
    w.run(Duration::from_secs(3));
    assert!(w.active_now().is_empty(), "promoted at once, and not checked yet");
    let view = w.nodes[1].view.as_ref().unwrap();
    assert_eq!(view.roles[0].state, RoleState::Promoting);
    w.set_health(1, &role(), true);
    w.run(Duration::from_millis(100));
    assert_eq!(w.active_now()[0].0, 1);
}

/// Three members, whose applications are checked only where they are active.
fn checked_only_while_active() -> Scene {
    let mut config = nodes(&[Kind::Member; 3]);
    let second = Duration::from_secs(1);
    config.roles.get_mut(&role()).unwrap().check = Some(Check {
        probe: Probe::Command(vec!["true".into()]),
        interval: second,
        timeout: second,
        rise: 1,
        fall: 1,
        delay: Duration::ZERO,
        standby: false,
    });
    Scene(World::new(config, 10))
}

#[test]
fn holder_that_comes_back_is_active_only_once_it_was_checked_in_this_tenure() {
    let mut w = checked_only_while_active();
    w.settle();
    w.nodes[1].first_check = false;
    w.give_health(1, &role(), Health::Healthy); // of a tenure before: its check hangs, and says nothing more
    w.kill(0, false);
    w.run(Duration::from_secs(3));
    assert!(w.active_now().is_empty(), "not checked in this tenure");
    let view = w.nodes[1].view.as_ref().unwrap();
    assert_eq!(view.roles[0].state, RoleState::Promoting);
    w.set_health(1, &role(), true);
    w.run(Duration::from_millis(100));
    assert_eq!(w.active_now()[0].0, 1);
}

#[test]
fn node_whose_application_failed_a_check_only_made_there_is_not_next_again() {
    let mut w = checked_only_while_active();
    let second = Duration::from_secs(1);
    w.settle();
    w.set_health(0, &role(), false);
    assert_eq!(w.until_active_but(0, second).0, 1);
    w.give_health(0, &role(), Health::Untried);
    w.run(Duration::from_millis(300)); // a new line is made
    w.set_health(1, &role(), false);
    assert_eq!(w.until_active_but(1, second).0, 2);
}

#[test]
fn two_nodes_and_a_witness_survive_each_loss() {
    for lost in 0..3 {
        let mut w = scene(&[Kind::Member, Kind::Member, Kind::Witness], 11);
        w.settle();
        w.kill(lost, false);
        w.run(Duration::from_secs(3));
        let expected = if lost == 0 { 1 } else { 0 };
        assert_eq!(w.active_now()[0].0, expected, "lost {lost}; logs:\n{}", w.story());
        w.start(lost);
        w.run(Duration::from_secs(5));
        assert_eq!(w.active_now()[0].0, expected);
    }
}

#[test]
fn wiped_node_comes_back_as_a_new_voter() {
    for wiped in 0..3 {
        let mut w = three(12);
        w.wipe(wiped);
        w.run(Duration::from_secs(3));
        w.start(wiped);
        w.run(Duration::from_secs(10));
        let id = w.nodes[wiped].id;
        let voters = w.log.state().electorate.clone();
        assert!(
            voters.next.is_none() && voters.voters.contains(&id) && voters.voters.len() == 3,
            "{voters:?}"
        );
        assert_eq!(w.active_now().len(), 1);
        // And its vote counts: another may now be lost.
        let other = (0..3).find(|n| *n != wiped && *n != w.active_now()[0].0).unwrap();
        w.kill(other, false);
        w.run(Duration::from_secs(10));
        assert_eq!(w.active_now().len(), 1);
    }
}

#[test]
fn cluster_grows_to_five_and_shrinks_back_without_a_gap() {
    let mut w = three(13);
    let spans = w.spans().len();
    w.reconfigure(nodes(&[Kind::Member; 5]));
    for n in [3, 4] {
        w.add(n);
        w.start(n);
    }
    w.run(Duration::from_secs(10));
    assert_eq!(
        w.log.state().electorate.voters.len(),
        5,
        "{:?}; logs:\n{}",
        w.log.state().electorate,
        w.story()
    );
    assert!(w.log.state().electorate.next.is_none());
    assert_eq!(w.spans().len(), spans, "{:?}", w.spans());
    for n in [3, 4] {
        w.stop(n);
        w.run(Duration::from_secs(1));
        w.kill(n, false);
    }
    w.reconfigure(nodes(&[Kind::Member; 3]));
    w.run(Duration::from_secs(10));
    assert_eq!(
        w.log.state().electorate.voters.len(),
        3,
        "{:?}; logs:\n{}",
        w.log.state().electorate,
        w.story()
    );
    assert_eq!(w.log.state().nodes.len(), 3);
    assert_eq!(w.spans().len(), spans, "{:?}", w.spans());
}

#[test]
fn all_stopped_and_started_again_one_is_active_with_a_greater_epoch() {
    let mut w = three(14);
    let before = w.active_now()[0].1;
    for n in 0..3 {
        w.kill(n, false);
    }
    w.run(Duration::from_secs(5));
    for n in [2, 1, 0] {
        w.start(n);
        w.run(Duration::from_millis(300));
    }
    w.settle();
    assert!(w.active_now()[0].1 > before);
}

#[test]
fn paused_cluster_makes_no_takeover_until_resumed() {
    let mut w = three(15);
    w.ask(1, Request::Pause(true));
    w.run(Duration::from_secs(1));
    w.kill(0, false);
    w.run(Duration::from_secs(5));
    assert!(w.active_now().is_empty());
    w.ask(1, Request::Pause(false));
    w.run(Duration::from_secs(2));
    assert_eq!(w.active_now().len(), 1, "logs:\n{}", w.story());
}

#[test]
fn drained_holder_hands_over_and_is_not_in_line() {
    let mut w = three(16);
    w.ask(
        1,
        Request::Drain {
            node: name(0),
            drained: true,
        },
    );
    let (next, _) = w.until_active_but(0, Duration::from_secs(2));
    assert_eq!(next, 1);
    w.run(Duration::from_secs(2));
    let line = w.log.state().roles[&role()].line.clone();
    assert!(
        line.places.iter().all(|p| p.owner.node != w.nodes[0].id),
        "{line:?}"
    );
}

#[test]
fn nodes_restarted_one_by_one_with_a_shorter_window_never_two_active() {
    for pause in [10, 300, 900, 3000] {
        let mut w = three(17);
        w.config.cluster.window = Duration::from_millis(300);
        w.kill(1, false);
        w.start(1);
        w.run(Duration::from_millis(pause));
        w.kill(2, false);
        w.start(2);
        w.freeze(0);
        w.run(Duration::from_secs(5));
        assert_eq!(w.active_now().len(), 1, "logs:\n{}", w.story());
        w.kill(0, false);
        w.start(0);
        w.run(Duration::from_secs(5));
        assert_eq!(w.active_now().len(), 1, "logs:\n{}", w.story());
    }
}

#[test]
fn cluster_paused_after_a_switchover_makes_no_takeover() {
    let mut w = three(18);
    w.switch_over(1, 2);
    w.run(Duration::from_secs(3));
    assert_eq!(w.active_now()[0].0, 2);
    w.ask(1, Request::Pause(true));
    w.run(Duration::from_secs(1));
    w.kill(2, false);
    w.run(Duration::from_secs(5));
    assert!(w.active_now().is_empty(), "logs:\n{}", w.story());
}

#[test]
fn claimant_that_is_stopped_gives_its_claim_up() {
    let mut w = three(19);
    w.freeze(0);
    let state = |w: &World| w.nodes[1].view.as_ref().unwrap().roles[0].state;
    while state(&w) != RoleState::Claiming {
        w.run(Duration::from_micros(100));
    }
    w.freeze(2);
    w.stop(1);
    w.run(Duration::from_millis(10));
    assert_eq!(state(&w), RoleState::Standby);
}

#[test]
fn only_member_gets_a_new_line_when_slow_disks_let_all_its_claims_fail() {
    let mut w = scene(&[Kind::Member, Kind::Witness, Kind::Witness], 20);
    w.settle();
    for n in 0..3 {
        w.kill(n, false);
    }
    w.flush = Duration::from_secs(7);
    for n in 0..3 {
        w.start(n);
    }
    w.run(Duration::from_secs(10));
    w.flush = Duration::from_millis(2);
    w.run(Duration::from_secs(15));
    assert_eq!(w.active_now().len(), 1, "logs:\n{}", w.story());
}
