//! The coordinator is lost: it is not in the path of a failover, and being coordinator makes nobody active.

use crate::three;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};

/// How a node is lost.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Killed,
    Frozen,
    CutOff,
}

const FATES: [Fate; 3] = [Fate::Killed, Fate::Frozen, Fate::CutOff];

impl Fate {
    #[track_caller]
    fn strike(self, cluster: &mut Cluster, node: &str) {
        match self {
            Fate::Killed => cluster.kill(node),
            Fate::Frozen => cluster.freeze(node),
            Fate::CutOff => cluster.silence(node),
        }
    }

    #[track_caller]
    fn mend(self, cluster: &mut Cluster, node: &str) {
        match self {
            Fate::Killed => cluster.start(node),
            Fate::Frozen => cluster.thaw_and_ask(node),
            Fate::CutOff => cluster.heal(node),
        }
    }

    fn apart<'a>(self, node: &'a [&'a str]) -> Apart<'a> {
        match self {
            Fate::Killed => Apart::NOBODY,
            Fate::CutOff => Apart::cut_off(node),
            Fate::Frozen => Apart {
                unasked: node,
                ..Apart::NOBODY
            },
        }
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn coordinator_lost_another_holds_no_gap_at_all() {
    let mut cluster = three();
    for fate in FATES {
        let (holder, coordinator) = cluster.arrange(false);
        let since = now();
        fate.strike(&mut cluster, &coordinator);
        hold(cluster.window() * 5 / 2);
        let survivor = cluster.others(&[&holder, &coordinator]).remove(0);
        until(GENEROUS, "there is a new coordinator", || {
            match cluster.status(&survivor)?.coordinator {
                Some(new) if new.as_str() != coordinator => Ok(()),
                old => Err(format!("{old:?} is named, after {fate:?}")),
            }
        });
        let settled = cluster.settled_without(fate.apart(&[&coordinator]));
        assert_eq!(settled, holder, "{fate:?}");
        cluster.assert_steady(since, &holder);
        fate.mend(&mut cluster, &coordinator);
        assert_eq!(cluster.settled(), holder, "{fate:?}");
        cluster.assert_steady(since, &holder);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn holder_and_coordinator_lost_together_standby_takes_over_in_one_window() {
    let mut cluster = three();
    for fate in FATES {
        let (holder, _) = cluster.arrange(true);
        let since = now();
        fate.strike(&mut cluster, &holder);
        cluster.assert_takeover(since, &holder, fate.apart(&[&holder]), cluster.silent_bound());
        fate.mend(&mut cluster, &holder);
    }
    cluster.settled();
    cluster.verify();
}
