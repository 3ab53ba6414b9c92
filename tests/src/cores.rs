//! Processor cores: who is kept to which, and how much of it is used.

use crate::namespace::Namespace;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::time::Duration;

/// What the kernel counts for each core is in hundredths of a second (USER_HZ), on every machine of these days.
const TICK_MS: u64 = 10;

/// Keeps every thread that a process has, and whatever these start from now on, to these cores.
#[track_caller]
pub fn keep_to(id: u32, cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    for task in tasks(id) {
        let task = i32::try_from(task).ok().and_then(Pid::from_raw);
        match sched_setaffinity(task, &set) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {} // it has ended
            Err(error) => panic!("cannot keep process {id} to the cores {cores:?}: {error}"),
        }
    }
}

/// This process, off one core for as long as this lives, and with its children before all else that the machine does: what is measured
/// is to be the load's doing.
#[derive(Debug)]
pub struct Aside(());

impl Aside {
    /// Keeps this process to the other cores. Panics on a machine that has one core only.
    #[track_caller]
    pub fn from(core: usize) -> Aside {
        let others: Vec<usize> = (0..count()).filter(|other| *other != core).collect();
        assert!(!others.is_empty(), "this machine has no other core than {core}");
        keep_to(std::process::id(), &others);
        put_session(-20);
        Aside(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        keep_to(std::process::id(), &(0..count()).collect::<Vec<_>>());
        put_session(0);
    }
}

/// The niceness of this session beside others (sched(7), autogroups): best effort, without it there is more noise.
fn put_session(nice: i32) {
    let _ = std::fs::write("/proc/self/autogroup", nice.to_string());
}

/// Runs `work` in a thread of its own, on this core, inside that host.
pub fn on_core<T: Send>(core: usize, host: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    host.inside(|| {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut set = CpuSet::new();
                set.set(core);
                sched_setaffinity(None, &set).expect("the machine has such a core");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

/// Processor seconds a process has used: the sum over its threads of their run time, which has nanoseconds
/// (schedstat, kernel Documentation/scheduler/sched-stats.rst).
#[track_caller]
pub fn used(id: u32) -> f64 {
    let nanos: u64 = tasks(id)
        .filter_map(|task| std::fs::read_to_string(format!("/proc/{id}/task/{task}/schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    nanos as f64 / 1e9
}

/// For how long nobody has wanted a core since the machine was started: idle and iowait of proc_stat(5).
#[track_caller]
pub fn idle(core: usize) -> Duration {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel counts");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cpu{core} ")));
    let fields = line.unwrap_or_else(|| panic!("this machine has no core {core}"));
    let ticks: u64 = fields
        .split_whitespace()
        .skip(3)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * TICK_MS)
}

/// Cores of this machine.
fn count() -> usize {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel counts");
    text.lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count()
}

#[track_caller]
fn tasks(id: u32) -> impl Iterator<Item = u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"));
    let tasks = tasks.unwrap_or_else(|e| panic!("process {id} does not run: {e}"));
    tasks
        .flatten()
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_is_done_on_the_core_named_and_counted() {
        let (id, core) = (std::process::id(), count() - 1);
        let before = used(id);
        let begun = Instant::now();
        let (of_it, so_long) = on_core(core, &Namespace::here(), || {
            while used(id) - before < 0.05 {
                assert!(begun.elapsed() < crate::deadline::GENEROUS, "nothing is counted");
            }
            (rustix::thread::sched_getcpu(), begun.elapsed())
        });
        assert_eq!(of_it, core);
        assert!(so_long >= Duration::from_millis(10), "{so_long:?}");
        assert!(idle(core) > Duration::ZERO);
    }
}
