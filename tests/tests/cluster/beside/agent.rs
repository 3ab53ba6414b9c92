//! The agent, or its guardian, dies or stands still. The application never outlives the right to act.

use super::{DAEMON, PROCESS, end, taken_over, three_with};
use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::matrix::{each, some};
use baton_tests::process::{Process, lives};
use rustix::process::Signal;
use std::process::ExitStatus;

/// The code of a node whose agent was killed.
const KILLED: i32 = 128 + Signal::KILL.as_raw();

/// The holder's agent ends by each of these signals: another takes over long before the promises run out.
fn agent_dies(more: &str, signals: &[(Signal, &str)]) {
    let cluster = three_with(more);
    for ((signal, word), holder) in each(signals, &NAMES) {
        cluster.place(holder);
        let before = now();
        cluster.applications().acting(holder, before);
        let since = now();
        let agent = cluster.process(holder).signal_agent(signal);
        let bound = cluster.window() / 2;
        let to = taken_over(&cluster, since, holder, Apart::NOBODY, bound);
        assert!(
            cluster.process(holder).agent().is_some_and(|id| id != agent),
            "it was started again"
        );
        assert_cause(&cluster, &to, word);
    }
    cluster.settled();
    end(cluster);
}

/// The last events name the cause; they are written down a moment after all faces know the new holder.
#[track_caller]
fn assert_cause(cluster: &Cluster, at: &str, word: &str) {
    until(GENEROUS, "the history names the cause", || {
        let said = cluster.operate(at, &["events", "--last", "9"]);
        match said.contains(word) {
            true => Ok(()),
            false => Err(format!("no {word:?} in:\n{said}")),
        }
    });
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_killed_or_aborting_application_is_dead_and_standby_takes_over_at_once() {
    agent_dies(PROCESS, &[(Signal::KILL, "SIGKILL"), (Signal::ABORT, "SIGABRT")]);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_killed_the_daemon_of_its_promotion_is_dead_and_standby_takes_over_at_once() {
    agent_dies(DAEMON, &[(Signal::KILL, "SIGKILL")]);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_killed_and_the_fence_fails_nobody_is_told_and_the_window_passes() {
    let cluster = three_with(&(DAEMON.to_owned() + "fence = { command = [\"false\"] }\n"));
    cluster.place("a");
    cluster.applications().acting("a", now());
    let since = now();
    cluster.process("a").signal_agent(Signal::KILL);
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.silent_bound());
    // The last promise before it died was made a heartbeat earlier at most; half a window more than covers a busy machine.
    let moved = cluster.active_elsewhere(since, "a");
    assert!(
        moved >= cluster.window() / 2,
        "told of a death all the same: {moved:?}"
    );
    cluster.await_logged("a", "the application could not be fenced, so nobody is told");
    cluster.await_logged_times("a", "the fence command exited with status 1", 3);
    for name in NAMES {
        cluster.await_logged_times(name, "SIGKILL", usize::from(name == "a"));
    }
    assert_eq!(cluster.settled(), to);
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_killed_that_is_not_to_be_restarted_the_node_ends_and_standby_takes_over_at_once() {
    let mut cluster = three_with(&format!("{PROCESS}\n[agent]\nrestart = false\n"));
    for holder in some(&NAMES, 1) {
        let ended = node_ends(&mut cluster, holder, |node| {
            node.signal_agent(Signal::KILL);
        });
        assert_eq!(ended.code(), Some(KILLED), "{ended}");
    }
    end(cluster);
}

/// The holder ends as a whole; another node is active at once, and stays so. How it ended.
fn node_ends(cluster: &mut Cluster, holder: &str, signal: impl Fn(&Process)) -> ExitStatus {
    cluster.place(holder);
    let since = now();
    let agent = cluster.process(holder).agent();
    signal(cluster.process(holder));
    let ended = cluster.wait_ended(holder);
    let bound = cluster.window() / 2;
    let to = taken_over(cluster, since, holder, Apart::NOBODY, bound);
    until(
        GENEROUS,
        "the agent has ended too, and let go of ports and data",
        || match agent.is_some_and(lives) {
            true => Err(format!("process {agent:?} lives")),
            false => Ok(()),
        },
    );
    cluster.start(holder);
    assert_eq!(cluster.settled(), to);
    ended
}

/// With a fence it is the same, and more, in `tests/guardian/watched.rs`.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_frozen_parent_runs_the_demote_command_in_time() {
    let cluster = three_with(DAEMON);
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        let since = now();
        cluster.process(holder).freeze_agent();
        let apart = Apart {
            unasked: &[holder],
            ..Apart::NOBODY
        };
        let to = taken_over(&cluster, since, holder, apart, cluster.silent_bound());
        cluster.thaw_and_ask(holder);
        assert_eq!(cluster.settled(), to);
    }
    end(cluster);
}

/// A watchdog tells it to abort, or it is killed. That nothing is left of any application is proven in `tests/guardian/apart.rs`; here, that
/// others need not wait for its promises to run out.
#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_dies_application_and_agent_end_too_and_standby_takes_over_at_once() {
    // What the application forked is not told of the guardian's death: the agent has to end it.
    let mut cluster = three_with(&PROCESS.replace("}]", "}, \"--fork\"]"));
    for (signal, holder) in each(&[Signal::ABORT, Signal::KILL], &NAMES) {
        let ended = node_ends(&mut cluster, holder, |node| node.signal_guardian(signal));
        match signal == Signal::ABORT {
            true => assert_eq!(ended.code(), Some(KILLED), "{ended}"),
            false => assert!(!ended.success(), "{ended}"),
        }
    }
    end(cluster);
}
