//! Two members and a witness: the set-up of those who have two machines for their application.

use crate::WINDOW;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::hold;
use baton_tests::matrix::some;
use baton_tests::plan::Plan;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn two_nodes_and_a_witness_survive_the_loss_of_each() {
    let mut cluster = Cluster::in_lab(Plan::members(&["a", "b"]).witness("w").window(WINDOW));
    let start = now();
    for (holder, standby) in some(&[("a", "b"), ("b", "a")], 1) {
        for lost in ["w", standby] {
            cluster.place(holder);
            let since = now();
            cluster.silence(lost);
            hold(cluster.window() * 5 / 2);
            assert_eq!(cluster.settled_without(Apart::cut_off(&[lost])), holder);
            cluster.assert_steady(since, holder);
            cluster.heal(lost);
        }
        cluster.place(holder);
        let since = now();
        cluster.silence(holder);
        cluster.assert_takeover(since, holder, Apart::cut_off(&[holder]), cluster.silent_bound());
        cluster.heal(holder);

        cluster.place(holder);
        let since = now();
        cluster.kill(holder);
        cluster.assert_takeover(since, holder, Apart::NOBODY, cluster.silent_bound());
        cluster.start(holder);
    }
    // The witness killed and its storage lost.
    let holder = cluster.settled();
    let since = now();
    cluster.kill("w");
    cluster.wipe("w");
    cluster.start("w");
    assert_eq!(cluster.settled(), holder);
    cluster.assert_steady(since, &holder);
    assert!(
        !cluster.watch.was_active_since("w", start),
        "a witness is never active"
    );
}
