//! Several roles, and applications that run everywhere.

use super::{end, three_with};
use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::matrix::some;
use rustix::process::Signal;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_killed_with_two_roles_both_move_at_once() {
    let more = "\n[roles.main.process]\ncommand = [{application}]\n\
                \n[roles.other.process]\ncommand = [{application}, \"--ignore-term\"]\n";
    let cluster = three_with(more);
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        until(GENEROUS, "the other role is moved too", || {
            let output = cluster.cli(holder, &["switchover", "--role", "other", "--to", holder]);
            let status = cluster.status(holder)?;
            let other = status.roles.iter().find(|role| role.role.as_str() == "other");
            let active = other.and_then(|role| role.active.as_ref());
            match active.is_some_and(|node| node.as_str() == holder) {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            }
        });
        let before = now();
        for role in ["main", "other"] {
            cluster.applications().acting_for(role, holder, before);
        }
        let since = now();
        cluster.process(holder).signal_agent(Signal::KILL);
        let bound = cluster.window() / 2;
        let (to, _) = cluster.assert_takeover(since, holder, Apart::NOBODY, bound);
        cluster.applications().acting_for("main", &to, since);
        let heirs = cluster.others(&[holder]);
        until(GENEROUS, "the other role's application acts elsewhere", || {
            let acts = cluster.applications().acts();
            let moved = |name: &str| {
                let mut all = acts.iter();
                all.any(|a| {
                    a.name.role == "other"
                        && a.name.node == name
                        && a.last >= since
                        && a.name.started >= since
                })
            };
            match heirs.iter().any(|heir| moved(heir)) {
                true => Ok(()),
                false => Err("it does not".into()),
            }
        });
        cluster.applications().assert_apart();
    }
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn warm_application_runs_everywhere_and_acts_where_it_is_told() {
    let more = "\n[process]\ncommand = [{application}, \"--warm\"]\nmode = \"warm\"\n\
                promote_signal = \"SIGUSR1\"\ndemote_signal = \"SIGUSR2\"\n";
    let cluster = three_with(more);
    cluster.place("a");
    cluster.applications().acting("a", now());
    until(GENEROUS, "it runs everywhere", || {
        match cluster.applications().running() {
            3 => Ok(()),
            other => Err(format!("{other} run")),
        }
    });
    // In order: it is told, and goes on running.
    let since = now();
    let before = cluster.applications().ids();
    cluster.place("b");
    cluster.applications().acting("b", since);
    cluster.applications().assert_apart();
    assert_eq!(cluster.applications().ids(), before, "nobody was started anew");
    // Not in order: the one that acted is killed and started again, and does not act.
    let since = now();
    cluster.process("b").signal_agent(Signal::KILL);
    let (to, _) = cluster.assert_takeover(since, "b", Apart::NOBODY, cluster.window() / 2);
    cluster.applications().acting(&to, since);
    until(GENEROUS, "it runs everywhere again", || {
        match cluster.applications().running() {
            3 => Ok(()),
            other => Err(format!("{other} run")),
        }
    });
    cluster.settled();
    cluster.applications().assert_apart();
    // Frozen: the one that acts is killed.
    let since = now();
    cluster.process(&to).freeze_agent();
    let apart = Apart {
        unasked: &[&to],
        ..Apart::NOBODY
    };
    let (next, _) = cluster.assert_takeover(since, &to, apart, cluster.silent_bound());
    cluster.applications().acting(&next, since);
    cluster.applications().assert_apart();
    cluster.thaw_and_ask(&to);
    cluster.settled();
    end(cluster);
}
