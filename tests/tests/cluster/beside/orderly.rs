//! Stops that are asked for.

use super::{FENCE_ALONE, PROCESS, end, taken_over, three_at, three_with};
use crate::NAMES;
use baton_shared::clock::Mono;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::deadline::hold;
use baton_tests::matrix::some;
use rustix::process::Signal;
use std::time::Duration;

/// What `docker stop` grants.
const PATIENCE: Duration = Duration::from_secs(10);
/// Interrupts closer together are one (`SAME_INTERRUPT` of the agent).
const APART: Duration = Duration::from_millis(500);

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_told_to_stop_hands_over_in_order() {
    let mut cluster = three_with(&PROCESS.replace("}]", "}, \"--slow-stop\", \"100\"]"));
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        cluster.applications().acting(holder, now());
        let since = now();
        cluster.process(holder).signal_guardian(Signal::TERM);
        let status = cluster.wait_ended(holder);
        assert!(status.success(), "{holder} did not stop in order: {status}");
        assert!(Mono::now().since(since) < PATIENCE);
        // The application takes 100 ms to stop.
        let bound = cluster.orderly_bound() + Duration::from_millis(100);
        let to = taken_over(&cluster, since, holder, Apart::NOBODY, bound);
        cluster.start(holder);
        assert_eq!(cluster.settled(), to);
    }
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn switched_over_with_a_fence_alone_the_application_has_stopped_first() {
    let cluster = three_with(FENCE_ALONE);
    for holder in NAMES {
        cluster.place(holder);
        let since = now();
        cluster.applications().acting(holder, since);
        cluster.applications().assert_apart();
        cluster.applications().assert_no_orphans(&[holder]);
    }
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn guardian_interrupted_twice_ends_at_once_and_the_others_are_told() {
    let stubborn = PROCESS.replace("}]", "}, \"--ignore-term\"]") + "stop_timeout = \"60s\"\n";
    let mut cluster = three_at(Duration::from_secs(5), &stubborn);
    cluster.place("a");
    cluster.applications().acting("a", now());
    cluster.process("a").signal_guardian(Signal::INT);
    cluster.await_logged("a", "stepping down");
    hold(APART); // an interrupt that came sooner would be the same one
    let since = now();
    cluster.applications().acting("a", since);
    cluster.process("a").signal_guardian(Signal::INT);
    let status = cluster.wait_ended("a");
    assert!(!status.success());
    let acts = cluster.applications();
    let to = ["b", "c"].map(|name| cluster.watch.was_active_since(name, since));
    eprintln!("b, c active: {to:?}");
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.window() / 2);
    acts.acting(&to, since);
    acts.assert_apart();
    acts.assert_no_orphans(&[&to]);
    assert!(acts.gap(since) < cluster.window() / 4, "{:?}", acts.gap(since));
    for name in ["b", "c"] {
        cluster.process(name).signal_guardian(Signal::KILL); // nobody waits for a minute
    }
}
