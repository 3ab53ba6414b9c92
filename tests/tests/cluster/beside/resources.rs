//! A node runs out of something: memory, processes, room on its disk.

use super::{PROCESS, end, taken_over, three_with};
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cgroup::Cgroup;
use baton_tests::deadline::{GENEROUS, until};
use rustix::process::Signal;
use std::process::Command;

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn agent_out_of_memory_application_is_dead_and_standby_takes_over_at_once() {
    let Some(group) = Cgroup::create("memory") else {
        return;
    };
    let cluster = three_with(PROCESS);
    cluster.place("a");
    cluster.applications().acting("a", now());
    let agent = cluster.process("a").agent().expect("it runs");
    group.add(agent);
    let since = now();
    group.set("memory.limit_in_bytes", "4096"); // it is killed when it wants its next page
    until(GENEROUS, "the kernel kills the agent", || {
        let _ = cluster.status("a"); // an answer takes memory
        match cluster.process("a").agent() == Some(agent) {
            true => Err(format!(
                "it lives, with {} bytes",
                group.get("memory.usage_in_bytes")
            )),
            false => Ok(()),
        }
    });
    let (to, _) = cluster.assert_takeover(since, "a", Apart::NOBODY, cluster.silent_bound());
    cluster.applications().acting(&to, since);
    // When it was killed is not known; but how long nobody acted is. Its death was told: no window passed.
    let gap = cluster.applications().gap(since);
    assert!(gap < cluster.window() / 2, "nobody acted for {gap:?}");
    cluster.applications().assert_apart();
    cluster.await_logged("a", "SIGKILL");
    cluster.settled();
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn full_process_table_the_parent_still_kills_and_tells() {
    let Some(group) = Cgroup::create("pids") else {
        return;
    };
    let cluster = three_with(PROCESS);
    cluster.place("a");
    let acts = cluster.applications().acting("a", now());
    let agent = cluster.process("a").agent().expect("it runs");
    for id in [cluster.process("a").id(), agent, acts.name.id] {
        group.add(id);
    }
    group.set("pids.max", "1");
    let since = now();
    cluster.process("a").signal_agent(Signal::KILL);
    let apart = Apart {
        unasked: &["a"],
        ..Apart::NOBODY
    };
    let (to, _) = cluster.assert_takeover(since, "a", apart, cluster.window() / 2);
    cluster.applications().acting(&to, since);
    cluster.applications().assert_apart();
    cluster.await_logged("a", "cannot start the agent");
    group.set("pids.max", "max");
    assert_eq!(cluster.settled(), to);
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn full_process_table_promotion_fails_and_another_node_is_active() {
    let Some(group) = Cgroup::create("pids") else {
        return;
    };
    let cluster = three_with(PROCESS);
    cluster.place("b");
    for id in [Some(cluster.process("a").id()), cluster.process("a").agent()] {
        group.add(id.expect("it runs"));
    }
    group.set("pids.max", "1");
    cluster.operate("b", &["drain", "c"]);
    // Now a is the only one in line behind b.
    let said = cluster.cli("b", &["switchover", "--to", "a"]);
    eprintln!(
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    cluster.await_logged("a", "cannot run");
    let apart = Apart::NOBODY;
    let holder = cluster.settled_without(apart);
    assert_ne!(holder, "a");
    group.set("pids.max", "max");
    cluster.operate("b", &["undrain", "c"]);
    cluster.place("a");
    end(cluster);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn full_disk_of_the_holder_nobody_else_is_active_with_it() {
    let mut cluster = three_with(PROCESS);
    cluster.place("b");
    cluster.stop("a");
    let room = Room::over(&cluster.dir().join("a"));
    cluster.start("a");
    cluster.place("a");
    room.fill();
    // The history grows, and wants to be written.
    let since = now();
    until(GENEROUS * 2, "a gives up", || {
        for order in ["drain", "undrain"] {
            let _ = cluster.cli("b", &[order, "c"]); // it may be refused while the role moves
        }
        match cluster.logged("a", "this node stops") {
            0 => Err("it does not".into()),
            _ => Ok(()),
        }
    });
    let status = cluster.wait_ended("a");
    assert!(!status.success(), "{status}");
    taken_over(&cluster, since, "a", Apart::NOBODY, cluster.silent_bound());
    cluster.verify();
    drop(room);
}

#[test]
#[ignore = "needs root and network namespaces: run by .ci/run"]
fn read_only_disk_the_node_says_so_and_the_others_go_on() {
    let mut cluster = three_with(PROCESS);
    cluster.place("b");
    cluster.stop("a");
    let room = Room::over(&cluster.dir().join("a"));
    cluster.start("a");
    assert_eq!(cluster.settled(), "b");
    cluster.stop("a");
    room.writable(false);
    let since = now();
    cluster.start("a");
    cluster.await_logged("a", "Read-only file system");
    let status = cluster.wait_ended("a");
    assert!(!status.success(), "{status}");
    let apart = Apart {
        unasked: &["a"],
        ..Apart::NOBODY
    };
    assert_eq!(cluster.settled_without(apart), "b");
    cluster.assert_steady(since, "b");
    room.writable(true);
    cluster.start("a");
    assert_eq!(cluster.settled(), "b");
    cluster.place("a");
    end(cluster);
}

/// A small file system over a node's data directory.
struct Room(std::path::PathBuf);

impl Room {
    #[track_caller]
    fn over(dir: &std::path::Path) -> Room {
        std::fs::remove_dir_all(dir).expect("its node does not run");
        std::fs::create_dir(dir).expect("the directory can be written");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs"])
            .arg(dir)
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "a file system can be mounted"
        );
        Room(dir.to_owned())
    }

    /// Whether anything can be written. Nothing may be open for it.
    #[track_caller]
    fn writable(&self, may: bool) {
        let how = if may { "remount,rw" } else { "remount,ro" };
        let done = Command::new("mount").args(["-o", how]).arg(&self.0).status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "a file system can be mounted again"
        );
    }

    /// Nothing more can be written.
    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).expect("there is room at first");
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
