//! What a guardian that was killed together with its agent and its keepers has left: it is killed before this node grants or claims
//! anything. In cgroups it is found by their place, which depends on cluster, node and role alone; everywhere by the mark that every
//! kept program was started with, unless a keeper with a living guardian is above it.

use crate::keeper::cgroup::Base;
use crate::keeper::sweep::{Stat, describe, is_called, sweep};
use crate::keeper::{self, mark};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::time::{Duration, Instant};

/// How long killed processes may take to vanish.
const VANISH: Duration = Duration::from_secs(5);
/// Generations between a process and its keeper that are looked at.
const DEPTH: usize = 64;

/// Kills it. Gives how many processes that were; an error names those that cannot be killed.
pub fn clear(cluster: &str, node: &str, base: Option<&Base>) -> Result<usize, String> {
    let whose = mark::of(cluster, node);
    let since = Instant::now();
    let mut killed = 0;
    if let Some(base) = base {
        base.clear(VANISH)?;
    }
    loop {
        let found: Vec<Pid> = processes().filter(|id| is_left(*id, whose)).collect();
        if found.is_empty() {
            return Ok(killed);
        }
        if since.elapsed() > VANISH {
            let words: Vec<String> = found.into_iter().take(8).map(describe).collect();
            return Err(words.join("; "));
        }
        for id in found {
            killed += usize::from(kill(id, whose));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// A process that was kept for this node, is not dead, and has no guardian any more.
fn is_left(id: Pid, whose: u64) -> bool {
    mark::has(id, whose) && Stat::of(id).is_some_and(|stat| stat.alive()) && !is_kept(id)
}

/// Whether a guardian cares for it: one that was started by mistake must not kill the first one's application. A keeper whose guardian
/// is gone may be at what it cannot kill: that is left, too.
fn is_kept(id: Pid) -> bool {
    let parent = |id: Pid| Stat::of(id).and_then(|stat| Pid::from_raw(stat.parent));
    let mut above = id;
    for _ in 0..DEPTH {
        if is_called(above, keeper::NAME) {
            let owner = parent(above);
            // The agent's keepers are one generation further down.
            let guardians = [
                owner,
                owner
                    .filter(|owner| is_called(*owner, super::AGENT))
                    .and_then(parent),
            ];
            return guardians
                .into_iter()
                .flatten()
                .any(|id| is_called(id, super::NAME));
        }
        match parent(above) {
            Some(next) if next != Pid::INIT => above = next,
            _ => return false,
        }
    }
    true // nothing that is certain
}

/// Its descriptor is opened before it is looked at again: what is killed is what was looked at.
fn kill(id: Pid, whose: u64) -> bool {
    let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else {
        return false;
    };
    if !is_left(id, whose) {
        return false;
    }
    sweep(id, Signal::KILL, &[]);
    pidfd_send_signal(&handle, Signal::KILL).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_was_kept_for_this_node_is_killed_and_nothing_else() {
        let cluster = format!("c{}", std::process::id());
        let start = |node: &str| {
            let limit = mark::of(&cluster, node).to_string();
            let child = Command::new("prlimit")
                .args([&format!("--locks={limit}:"), "sleep", "600"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let since = Instant::now();
            while !is_left(Pid::from_child(&child), mark::of(&cluster, node)) {
                assert!(since.elapsed() < Duration::from_secs(20));
                std::thread::sleep(Duration::from_millis(1));
            }
            child
        };
        let (mut mine, mut others) = (start("a"), start("b"));
        let name = cluster.clone();
        let killed = std::thread::spawn(move || clear(&name, "a", None));
        assert!(!mine.wait().unwrap().success());
        assert!(killed.join().unwrap().unwrap() >= 1);
        assert_eq!(others.try_wait().unwrap(), None);
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
