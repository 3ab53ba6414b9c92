//! The holder hears nobody. Its application has stopped, of whatever sort it is, before another node's starts: that is what the lead of
//! the lease is for.

use super::{DAEMON, FENCE_ALONE, FENCED, HANG, PROCESS, end, taken_over, three_at};
use crate::NAMES;
use baton_shared::view::RoleState;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use std::time::Duration;

/// Cuts off each holder in turn.
fn isolated(window: u64, more: &str) {
    let mut cluster = three_at(Duration::from_millis(window), more);
    for holder in NAMES {
        cluster.place(holder);
        let before = now();
        cluster.applications().acting(holder, before);
        std::fs::write(cluster.dir().join(HANG), "").expect("the directory can be written");
        let since = now();
        cluster.silence(holder);
        taken_over(
            &cluster,
            since,
            holder,
            Apart::cut_off(&[holder]),
            cluster.silent_bound(),
        );
        std::fs::remove_file(cluster.dir().join(HANG)).expect("it was written");
        cluster.await_state(holder, RoleState::Standby);
        cluster.heal(holder);
    }
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_stopped_its_process() {
    isolated(1000, PROCESS);
    isolated(300, PROCESS);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_killed_a_process_that_does_not_stop() {
    let stubborn = PROCESS.replace("}]", "}, \"--ignore-term\", \"--fork\"]");
    isolated(1000, &stubborn);
    isolated(300, &stubborn);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_has_demoted_by_command() {
    isolated(1000, DAEMON);
    isolated(300, DAEMON);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_whose_demote_hangs_has_fenced() {
    isolated(1000, FENCED);
    isolated(300, FENCED);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_with_a_fence_alone_has_run_it() {
    isolated(1000, FENCE_ALONE);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn isolated_holder_whose_demote_fails_for_ever_is_a_standby_once_it_is_fenced() {
    let fails = "test ! -e {dir}/hang && exec";
    let more = FENCED.replace("test ! -e {dir}/hang || exec sleep 1000; exec", fails);
    assert!(more.contains(fails));
    let mut cluster = three_at(Duration::from_secs(1), &more);
    for holder in NAMES {
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
