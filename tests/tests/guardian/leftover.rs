//! Guardian and agent die together: what they have left acts no more once another node is active, and the next start leaves nothing.

use crate::WINDOW;
use baton_shared::clock::Mono;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::plan::Plan;
use baton_tests::process::{children, lives, name};
use baton_tests::real::judge::{assert_none, judge};
use baton_tests::real::kin;
use baton_tests::real::mode::{Ground, Mode};
use baton_tests::watch::Viewpoint;
use rustix::process::{Pid, Signal, kill_process};

fn process(switch: &str) -> String {
    format!("\n[process]\ncommand = [{{application}}, \"{switch}\"]\nstop_timeout = \"300ms\"\n")
}

fn set(nodes: Plan, mode: Mode, switch: &str) -> (Ground, Cluster, kin::Broom) {
    let mut cluster = Cluster::unstarted_in_lab(nodes.window(WINDOW).more(&process(switch)));
    let ground = Ground::prepare(mode, &cluster);
    for name in cluster.names() {
        ground.start(&mut cluster, &name);
    }
    let homes = cluster.names().iter().map(|name| cluster.home(name)).collect();
    (ground, cluster, kin::Broom(homes))
}

/// Kills all these at once.
fn kill_all(ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        if let Some(id) = Pid::from_raw(id.cast_signed()) {
            let _ = kill_process(id, Signal::KILL); // it may have died with another
        }
    }
}

fn both_killed(mode: Mode, switch: &str) {
    let (ground, mut cluster, _broom) = set(Plan::members(&["a", "b"]).witness("w"), mode, switch);
    cluster.place("a");
    cluster.applications().acting("a", now());
    let since = now();
    let process = cluster.process("a");
    kill_all([process.guardian(), process.agent().expect("it runs")]);
    cluster.wait_ended("a");
    let (to, _) = until(GENEROUS, "another node is active", || {
        let successor = cluster.watch.successor(Viewpoint::Nodes, "a", since);
        successor.ok_or_else(|| "none is".to_owned())
    });
    cluster.applications().acting(&to, since);
    hold(WINDOW);
    let before = kin::left(&cluster.home("a"));
    ground.start(&mut cluster, "a");
    assert_eq!(cluster.settled(), to);
    let after = kin::left(&cluster.home("a"));
    for name in cluster.running() {
        cluster.stop(&name);
    }
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert!(
        after.is_empty(),
        "left by the next start, {} of {}: {after:?}",
        after.len(),
        before.len()
    );
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_and_agent_killed_nothing_forked_acts_beside_the_new_holder_and_nothing_is_left() {
    both_killed(Mode::Cgroup, "--fork");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_and_agent_killed_without_cgroups_nothing_scattered_acts_beside_the_new_holder() {
    both_killed(Mode::Tree, "--scatter");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_and_agent_of_a_user_killed_nothing_scattered_acts_beside_the_new_holder() {
    both_killed(Mode::User, "--scatter");
}

/// The keeper alone is killed, again and again, and those below it are the guardian's to find: they may be in any session.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn keeper_killed_without_cgroups_nothing_scattered_outlives_it() {
    let (_ground, mut cluster, _broom) = set(Plan::members(&["a"]), Mode::Tree, "--scatter");
    let mut acting = cluster.applications().acting("a", Mono::ZERO);
    for _ in 0..5 {
        let left = kin::left(&cluster.home("a"));
        let guardian = cluster.process("a").guardian();
        let keepers = children(guardian)
            .into_iter()
            .filter(|id| name(*id).as_deref() == Some("baton-keeper"))
            .collect::<Vec<_>>();
        // The guardian is held up, so that what is below is its child before it looks.
        let stops = |signal| {
            let id = Pid::from_raw(guardian.cast_signed()).expect("it is a process");
            kill_process(id, signal).expect("it runs");
        };
        stops(Signal::STOP);
        kill_all(keepers.iter().copied());
        until(GENEROUS, "the keepers are dead", || {
            match keepers.iter().find(|id| lives(**id)) {
                Some(id) => Err(format!("process {id} lives")),
                None => Ok(()),
            }
        });
        stops(Signal::CONT);
        acting = cluster.applications().acting_anew(&acting);
        let now: Vec<_> = kin::left(&cluster.home("a"))
            .into_iter()
            .filter(|kin| left.iter().any(|old| old.id == kin.id))
            .collect();
        assert!(now.is_empty(), "beside the new one there lived {now:?}");
    }
    cluster.stop("a");
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert!(kin::left(&cluster.home("a")).is_empty());
}

/// Whatever Baton has running is killed at once, its keepers too, so that the application lives on; the next start has nobody else to
/// take over from.
fn all_killed(mode: Mode, switch: &str) {
    let (ground, mut cluster, _broom) = set(Plan::members(&["a"]), mode, switch);
    let old = cluster.applications().acting("a", Mono::ZERO);
    kill_all(kin::own(&cluster.home("a")).iter().map(|kin| kin.id));
    cluster.wait_ended("a");
    let left = kin::left(&cluster.home("a"));
    ground.start(&mut cluster, "a");
    let new = cluster.applications().acting_anew(&old);
    eprintln!("{} were left, and a new one acts: {new}", left.len());
    let others: Vec<_> = kin::left(&cluster.home("a"))
        .into_iter()
        .filter(|kin| left.iter().any(|old| old.id == kin.id))
        .collect();
    cluster.stop("a");
    let acts = cluster.applications().acts();
    assert_none(&judge(&acts, &cluster.watch.spans()), &acts);
    assert!(others.is_empty(), "of the old one there lived still: {others:?}");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn all_of_baton_killed_the_next_start_kills_what_is_left_before_its_own_acts() {
    all_killed(Mode::Cgroup, "--scatter");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn all_of_baton_killed_in_a_delegated_group_the_next_start_kills_what_is_left_before_its_own_acts() {
    all_killed(Mode::Delegated, "--scatter");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn all_of_baton_killed_without_cgroups_the_next_start_kills_the_group_that_it_has_a_record_of() {
    all_killed(Mode::Tree, "--fork");
}
