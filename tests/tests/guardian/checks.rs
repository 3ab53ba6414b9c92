//! Checks that leave processes behind: they are gone with the check.

use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use baton_tests::real::kin;

/// A node whose check is this shell's line, which must count its runs first.
fn checked(line: &str) -> Cluster {
    let more = format!(
        "\n[process]\ncommand = [{{application}}]\n\n[check]\ncommand = [\"sh\", \"-c\", \"echo >>{{dir}}/runs; {line}\"]\n\
         interval = \"100ms\"\ntimeout = \"300ms\"\n"
    );
    Cluster::in_lab(Plan::members(&["a"]).more(&more))
}

/// After so many runs no process of theirs is left but the present one's.
#[track_caller]
fn assert_none_left(cluster: Cluster, runs: usize, marks: &[&str]) {
    until(2 * GENEROUS, "the check has run often", || {
        let count = std::fs::read_to_string(cluster.dir().join("runs"))
            .unwrap_or_default()
            .len();
        (count >= runs)
            .then_some(())
            .ok_or_else(|| format!("{count} runs"))
    });
    // One of the last run may still be dying: of those that are left for good there are more with each run.
    until(GENEROUS, "none but the present one's is left", || {
        let left = kin::left(&cluster.home("a"));
        for mark in marks {
            let of_it: Vec<_> = left.iter().filter(|kin| kin.line == *mark).collect();
            if of_it.len() > 1 {
                return Err(format!("{} x `{mark}` after {runs} runs: {of_it:?}", of_it.len()));
            }
        }
        Ok(())
    });
    let mut cluster = cluster;
    cluster.stop("a");
    until(GENEROUS, "no process of the check is left", || {
        match kin::left(&cluster.home("a")).first() {
            None => Ok(()),
            Some(kin) => Err(kin.to_string()),
        }
    });
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_leaves_a_process_behind_leaves_none_after_20_runs() {
    let cluster = checked("sleep 6661 & exit 0");
    let _broom = kin::Broom(vec![cluster.home("a")]);
    assert_none_left(cluster, 20, &["sleep 6661"]);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_leaves_a_daemon_behind_leaves_none_after_20_runs() {
    let cluster = checked("setsid sleep 6663 >/dev/null 2>&1 & exit 0");
    let _broom = kin::Broom(vec![cluster.home("a")]);
    assert_none_left(cluster, 20, &["sleep 6663"]);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn check_that_hangs_with_a_child_in_another_session_leaves_none() {
    let cluster = checked("setsid sleep 6662 & sleep 6664");
    let _broom = kin::Broom(vec![cluster.home("a")]);
    assert_none_left(cluster, 12, &["sleep 6662", "sleep 6664"]);
}
