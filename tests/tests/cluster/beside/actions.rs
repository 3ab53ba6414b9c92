//! Commands that misbehave. The cluster keeps its promise, no heartbeat is late for them, and memory stays small.

use super::{DAEMON, end, three_with};
use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use std::time::Duration;

/// Most that an agent may ever have had in memory.
const MEMORY: u64 = 96 << 20;

/// The greatest amount of memory that a process ever had, in bytes.
fn peak(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or_else(|| panic!("process {id} does not tell its memory")) << 10
}

/// Nobody ever counted anybody as down, and no agent grew.
#[track_caller]
fn assert_calm(cluster: &Cluster) {
    for name in NAMES {
        assert_eq!(cluster.logged(name, "is down"), 0, "{name} missed heartbeats");
        let agent = cluster.process(name).agent().expect("it runs");
        assert!(
            peak(agent) < MEMORY,
            "the agent of {name} had {} bytes",
            peak(agent)
        );
    }
}

/// A node whose promotion does not succeed passes the role on, and nothing of it is left.
fn promotion_fails_on_a(promote: &str) {
    let more = format!(
        "\n[actions]\npromote = {{ command = [\"sh\", \"-c\", \"{promote}\", \"sh\", {{application}}], timeout = \"1s\" }}\n\
         demote = {{ command = [{{application}}, \"--stop\"] }}\n"
    );
    let cluster = three_with(&more);
    // a is the first in line.
    until(GENEROUS, "another node is active", || match cluster.settled() {
        holder if holder == "a" => Err("a is".into()),
        _ => Ok(()),
    });
    assert!(
        !cluster
            .watch
            .was_active_since("a", baton_shared::clock::Mono::ZERO)
    );
    cluster.await_logged("a", "promote action failed");
    let holder = cluster.settled();
    cluster.applications().assert_no_orphans(&[&holder]);
    assert_calm(&cluster);
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn promotion_that_fails_is_given_up_and_the_next_in_line_is_active() {
    promotion_fails_on_a("test $BATON_NODE != a && exec \\\"$@\\\" --daemon");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn promotion_that_hangs_is_given_up_and_the_next_in_line_is_active() {
    promotion_fails_on_a("test $BATON_NODE != a || exec sleep 1000; exec \\\"$@\\\" --daemon");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn promotion_that_starts_a_daemon_and_hangs_is_undone() {
    promotion_fails_on_a("\\\"$@\\\" --daemon; test $BATON_NODE != a || exec sleep 1000");
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn demote_that_ignores_sigterm_is_killed_and_tried_again() {
    // It hangs once on each node.
    let demote =
        "trap '' TERM; mkdir {dir}/hung-$BATON_NODE 2>/dev/null && sleep 1000; exec \\\"$@\\\" --stop";
    let demote =
        format!("demote = {{ command = [\"sh\", \"-c\", \"{demote}\", \"sh\", {{application}}] }}\n");
    let more: String = DAEMON
        .lines()
        .filter(|line| !line.starts_with("demote"))
        .map(|line| format!("{line}\n"))
        .collect();
    let mut cluster = three_with(&(more + &demote));
    cluster.place("a");
    let since = now();
    cluster.silence("a");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::cut_off(&["a"]), cluster.silent_bound());
    // A demote without a fence that hangs cannot keep the promise for the application (check-config says so), only for the role.
    cluster.applications().acting(&to, since);
    cluster.applications().assert_no_orphans(&[&to]);
    cluster.await_logged("a", "demote action done");
    cluster.heal("a");
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_prints_without_end_delays_nothing() {
    // 0.3 s of as much output as it can make, twice a second, on every node; and it succeeds.
    let check = "\n[check]\ncommand = [\"sh\", \"-c\", \"timeout 0.3 yes; timeout 0.1 yes >&2; exit 0\"]\n\
                 interval = \"500ms\"\ntimeout = \"5s\"\n";
    let cluster = three_with(&(DAEMON.to_owned() + check));
    let holder = cluster.settled();
    let since = now();
    hold(Duration::from_secs(6));
    cluster.assert_steady(since, &holder);
    assert_calm(&cluster);
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_prints_without_end_and_never_ends_has_failed_by_its_timeout() {
    let check = "\n[check]\ncommand = [\"sh\", \"-c\", \"test $BATON_NODE != a || test ! -e {dir}/endless || exec yes; exit 0\"]\n\
                 interval = \"300ms\"\ntimeout = \"300ms\"\nfall = 2\n";
    let cluster = three_with(&(DAEMON.to_owned() + check));
    cluster.place("a");
    let since = now();
    std::fs::write(cluster.dir().join("endless"), "").expect("the directory can be written");
    let apart = Apart::NOBODY;
    let (to, _) = cluster.assert_takeover(since, "a", apart, cluster.window() * 3);
    cluster.applications().acting(&to, since);
    assert_calm(&cluster);
    end(cluster);
}
