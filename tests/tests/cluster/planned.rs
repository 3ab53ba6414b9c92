//! The holder leaves in order.

use crate::{NAMES, three};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::matrix::some;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_stopped_in_order_standby_takes_over_at_once() {
    let mut cluster = three();
    for holder in some(&NAMES, 2) {
        cluster.place(holder);
        let since = now();
        cluster.stop(holder);
        cluster.assert_takeover(since, holder, Apart::NOBODY, cluster.orderly_bound());
        cluster.start(holder);
    }
    cluster.settled();
    cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn switchover_to_each_member_from_each_other_at_once() {
    let cluster = three();
    cluster.place("a");
    // Every pair, and asked at the holder, at the target and at the third.
    let steps = [
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("a", "c"),
        ("c", "b"),
        ("b", "a"),
    ];
    for (number, (from, to)) in steps.into_iter().enumerate() {
        assert_eq!(cluster.settled(), from);
        let since = cluster.switch_over(NAMES[number % 3], to);
        let (moved_to, _) = cluster.assert_takeover(since, from, Apart::NOBODY, cluster.orderly_bound());
        assert_eq!(moved_to, to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_drained_standby_takes_over_and_the_drained_one_stays_out() {
    let mut cluster = three();
    cluster.place("a");
    let since = now();
    cluster.operate("a", &["drain", "a"]);
    let (second, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.orderly_bound());
    let third = cluster.others(&["a", &second]).remove(0);
    // With one node drained and one gone, the last one takes over, never the drained one.
    let since = now();
    cluster.stop(&second);
    let (next, _) = cluster.assert_takeover(since, &second, Apart::NOBODY, cluster.orderly_bound());
    assert_eq!(next, third);
    cluster.start(&second);
    cluster.settled();
    cluster.operate("a", &["undrain", "a"]);
    cluster.place("a");
    cluster.verify();
}
