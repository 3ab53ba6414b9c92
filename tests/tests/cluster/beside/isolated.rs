//! The holder hears nobody. Its application has stopped, of whatever sort it is, before another node's starts: that is what the lead of
//! the lease is for.

use super::{DAEMON, FENCE_ALONE, FENCED, HANG, PROCESS, end, taken_over, three_at};
use crate::NAMES;
use baton_shared::view::RoleState;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::matrix::some;
use std::time::Duration;

/// At the default window, and at one of which the lead is a greater part.
const WINDOWS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(300)];

/// Cuts off a holder, at a window of these.
fn isolated(windows: &[Duration], more: &str) {
    for window in some(windows, 1) {
        let mut cluster = three_at(window, more);
        for holder in some(&NAMES, 1) {
            cluster.place(holder);
            let before = now();
            cluster.applications().acting(holder, before);
            std::fs::write(cluster.dir().join(HANG), "").expect("the directory can be written");
            let since = now();
            cluster.silence(holder);
            let cut_off = [holder];
            let apart = Apart::cut_off(&cut_off);
            taken_over(&cluster, since, holder, apart, cluster.silent_bound());
            std::fs::remove_file(cluster.dir().join(HANG)).expect("it was written");
            cluster.await_state(holder, RoleState::Standby);
            cluster.heal(holder);
        }
        cluster.settled();
        end(cluster);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_stopped_its_process() {
    isolated(&WINDOWS, PROCESS);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_killed_a_process_that_does_not_stop() {
    let stubborn = PROCESS.replace("}]", "}, \"--ignore-term\", \"--fork\"]");
    isolated(&WINDOWS, &stubborn);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_demoted_by_command() {
    isolated(&WINDOWS, DAEMON);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_whose_demote_hangs_has_fenced() {
    isolated(&WINDOWS, FENCED);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_with_a_fence_alone_has_run_it() {
    isolated(&WINDOWS[..1], FENCE_ALONE);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_whose_demote_fails_for_ever_is_a_standby_once_it_is_fenced() {
    let fails = "test ! -e {dir}/hang && exec";
    let more = FENCED.replace("test ! -e {dir}/hang || exec sleep 1000; exec", fails);
    assert!(more.contains(fails));
    let mut cluster = three_at(Duration::from_secs(1), &more);
    for holder in some(&NAMES, 1) {
        cluster.place(holder);
        cluster.applications().acting(holder, now());
        std::fs::write(cluster.dir().join(HANG), "").expect("the directory can be written");
        let since = now();
        cluster.silence(holder);
        let cut_off = [holder];
        let apart = Apart::cut_off(&cut_off);
        taken_over(&cluster, since, holder, apart, cluster.silent_bound());
        cluster.await_logged(
            holder,
            "demote failed, but the fence has stopped the application before",
        );
        cluster.await_state(holder, RoleState::Standby);
        std::fs::remove_file(cluster.dir().join(HANG)).expect("it was written");
        cluster.heal(holder);
    }
    cluster.settled();
    end(cluster);
}
