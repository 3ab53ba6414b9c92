//! The application ends by itself.

use super::{HTTP_CHECK, NOTICED, PROCESS, WATCHED, end, taken_over, three_with};
use crate::NAMES;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::matrix::some;
use baton_tests::process::signal_one;
use rustix::process::Signal;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn application_killed_another_nodes_starts_at_once() {
    let cluster = three_with(&PROCESS.replace("}]", "}, \"--fork\"]"));
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        let acts = cluster.applications().acting(holder, now());
        let since = now();
        signal_one(acts.name.id, Signal::KILL);
        let bound = cluster.window() / 2;
        let to = taken_over(&cluster, since, holder, Apart::NOBODY, bound);
        cluster.await_forgiven(since, &to, holder);
    }
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn application_watched_by_its_process_id_killed_another_nodes_starts_at_once() {
    let cluster = three_with(WATCHED);
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        let acts = cluster.applications().acting(holder, now());
        let since = now();
        signal_one(acts.name.id, Signal::KILL);
        // Long before the next check is due.
        let bound = cluster.window() / 2;
        taken_over(&cluster, since, holder, Apart::NOBODY, bound);
        cluster.place(holder); // once it is forgiven; a node that is not could not take over next
    }
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn http_check_fails_another_node_is_active_as_soon_as_it_counts() {
    let cluster = three_with(HTTP_CHECK);
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        cluster.applications().acting(holder, now());
        let since = now();
        cluster.applications().answer(holder, 503);
        let bound = cluster.window() / 2;
        let to = taken_over(&cluster, since, holder, Apart::NOBODY, bound);
        let moved = cluster.active_elsewhere(since, holder);
        eprintln!("{to} was active {moved:?} after {holder} began to answer 503");
        assert!(moved <= NOTICED + bound, "{moved:?}");
        cluster.await_logged(holder, "HTTP status 503");
        cluster.applications().answer(holder, 200);
        cluster.await_forgiven(since, &to, holder);
    }
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn application_with_restarts_comes_back_here_first() {
    let cluster = three_with(&format!("{PROCESS}restarts = 2\nrestart_delay = \"50ms\"\n"));
    cluster.place("a");
    let mut acts = cluster.applications().acting("a", now());
    for _ in 0..2 {
        let since = now();
        cluster.applications().end("a");
        let again = cluster.applications().acting_anew(&acts);
        assert_eq!((&*again.name.node, &again.name.epoch), ("a", &acts.name.epoch));
        assert_eq!(cluster.settled(), "a");
        eprintln!(
            "the application did not act for {:?}",
            cluster.applications().gap(since)
        );
        acts = again;
    }
    let since = now();
    cluster.applications().end("a");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.window() / 2);
    cluster.applications().acting(&to, since);
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn application_killed_with_nobody_else_fit_comes_back_here() {
    let cluster = three_with(PROCESS);
    cluster.place("a");
    for other in ["b", "c"] {
        cluster.operate("a", &["drain", other]);
    }
    let mut acts = cluster.applications().acting("a", now());
    for _ in 0..3 {
        signal_one(acts.name.id, Signal::KILL);
        acts = cluster.applications().acting_anew(&acts);
        assert_eq!(acts.name.node, "a");
        assert_eq!(cluster.settled(), "a");
    }
    end(cluster);
}
