//! Disks that hang, as real ones do when a controller or a storage network goes away: whoever writes stands still in the kernel. An active
//! node stays active; one that cannot write is not next.

use crate::WINDOW;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, hold, until};
use baton_tests::disk::Disk;
use baton_tests::matrix::some;
use baton_tests::plan::Plan;
use baton_tests::watch::Viewpoint;
use std::collections::BTreeMap;
use std::time::Duration;

/// A holder that says that its disk hangs would have given way, if it does at all: after 7 s, and with what a handover takes.
const GIVES_WAY: Duration = Duration::from_secs(9);
/// Until a disk that answers again has been good for long enough.
const FIT_AGAIN: Duration = Duration::from_secs(40);

/// A cluster with a disk under each node's data directory. The disks are thawed before the nodes are ended: nothing ends while it waits for
/// a disk.
struct OnDisks {
    disks: BTreeMap<String, Disk>,
    cluster: Cluster,
}

impl OnDisks {
    #[track_caller]
    fn start(plan: Plan) -> OnDisks {
        let mut cluster = Cluster::unstarted_in_lab(plan.window(WINDOW));
        let mut disks = BTreeMap::new();
        for name in cluster.names() {
            let disk = Disk::for_data(&cluster.dir().join(&name));
            disks.insert(name, disk);
        }
        for name in cluster.names() {
            cluster.start(&name);
        }
        OnDisks { disks, cluster }
    }

    /// Waits until a node says that its disk hangs, and `at` leaves it out of line.
    #[track_caller]
    fn await_out_of_line(&self, name: &str, at: &str) {
        until(GENEROUS, &format!("{name} is out of line"), || {
            let (code, said) = self.cluster.ready(name)?;
            let dir = self.cluster.dir().join(name).display().to_string();
            if code != 503 || !said.contains("the disk does not answer") || !said.contains(&dir) {
                return Err(format!("{name} says {code} {said} at /ready"));
            }
            let own = self.cluster.status(name)?.alarms;
            let own_words =
                |alarm: &String| alarm.contains("the disk does not answer") && alarm.contains(&dir);
            let status = self.cluster.status(at)?;
            let its = format!("the disk of node \"{name}\" does not answer");
            if !own.iter().any(own_words) || !status.alarms.iter().any(|alarm| alarm.contains(&its)) {
                return Err(format!("alarms: {own:?}, and at {at}: {:?}", status.alarms));
            }
            let line = &status.roles.first().ok_or("a status without roles")?.line;
            match line.iter().any(|place| place.node.as_str() == name) {
                true => Err(format!("it is in line: {line:?}")),
                false => Ok(()),
            }
        });
    }

    /// Waits until everybody is as before.
    #[track_caller]
    fn await_whole(&self) -> String {
        for name in self.cluster.names() {
            self.cluster.await_ready(&name, FIT_AGAIN);
        }
        self.cluster.settled()
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn standby_whose_disk_hangs_is_not_next_and_another_takes_over_from_a_holder_that_is_killed() {
    // Five voters: one that cannot write grants nothing new, so with the holder two of them are missing.
    let plan = Plan::members(&["a", "b", "c"]).witness("d").witness("e");
    let mut on = OnDisks::start(plan);
    on.cluster.place("a");
    let next = {
        let status = on.cluster.status("a").expect("the holder answers");
        status.roles[0].line[0].node.to_string()
    };
    let since = now();
    on.disks[&next].freeze();
    on.await_out_of_line(&next, "a");
    on.cluster.assert_steady(since, "a");
    // The doctor does not wait for that disk, or it would not end.
    let dir = on.cluster.dir().join(&next).display().to_string();
    until(GENEROUS, "the doctor says so", || {
        let says = ["the disk does not answer", &dir, "ext4"];
        on.cluster.diagnose(&next, &[]).tells("alarm", &says)
    });
    let since = now();
    on.cluster.kill("a");
    let apart = [next.as_str()];
    let apart = Apart {
        unasked: &apart,
        ..Apart::NOBODY
    };
    let bound = on.cluster.silent_bound();
    let (to, _) = on.cluster.assert_takeover(since, "a", apart, bound);
    assert_ne!(to, next);
    on.disks[&next].thaw();
    on.cluster.start("a");
    on.await_whole();
    // Once for each change. What has changed is in the log a moment later.
    let over = "over: the disk does not answer";
    on.cluster.await_logged_times(&next, over, 1);
    let said = "the disk does not answer: writes to";
    on.cluster.await_logged_times(&next, said, 2);
    on.cluster.verify();
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn disk_of_the_holder_hangs_and_it_gives_way_in_order() {
    let on = OnDisks::start(Plan::members(&["a", "b", "c"]));
    for coordinates in some(&[false, true], 1) {
        let (holder, _) = on.cluster.arrange(coordinates);
        let since = now();
        on.disks[&holder].freeze();
        let apart = [holder.as_str()];
        let apart = Apart {
            unasked: &apart,
            ..Apart::NOBODY
        };
        let bound = on.cluster.orderly_bound();
        let (to, _) = on.cluster.assert_takeover(since, &holder, apart, bound);
        let since = now();
        hold(WINDOW * 4);
        on.cluster.assert_steady(since, &to);
        on.await_out_of_line(&holder, &to);
        on.disks[&holder].thaw();
        on.await_whole();
        on.cluster.assert_steady(since, &to);
    }
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn disks_of_so_many_hang_that_nobody_could_take_over_and_the_holder_stays_active() {
    let on = OnDisks::start(Plan::members(&["a", "b", "c"]));
    on.cluster.place("a");
    let since = now();
    // All standbys; then everybody.
    for (hang, long) in [(&["b", "c"][..], WINDOW * 4), (&["a"][..], GIVES_WAY)] {
        for name in hang {
            on.disks[*name].freeze();
        }
        for name in hang {
            until(GENEROUS, "it says that its disk hangs", || {
                match on.cluster.ready(name)? {
                    (503, said) if said.contains("does not answer") => Ok(()),
                    other => Err(format!("{name}: {other:?}")),
                }
            });
        }
        hold(long);
        on.cluster.assert_steady(since, "a");
    }
    // The holder and one other. The third may be granted the role or not, as floors were written before: then it has it without a gap.
    let since = now();
    on.disks["c"].thaw();
    until(FIT_AGAIN, "c can write again", || {
        match on.cluster.ready("c")? {
            (_, said) if said.contains("does not answer") => Err(said),
            _ => Ok(()),
        }
    });
    hold(WINDOW * 4);
    for name in ["a", "b"] {
        on.disks[name].thaw();
    }
    on.await_whole();
    let gap = on.cluster.watch.outage(Viewpoint::Client, since);
    let gap = gap.expect("somebody was active before");
    assert!(gap <= on.cluster.orderly_bound(), "a gap of {gap:?}");
    on.cluster.verify();
}
