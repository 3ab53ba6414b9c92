//! The machine under the agent: clocks, processor, and what the kernel grants to a process.

use super::super::facts::{Clock, Rights, Spread};
use super::sockets::{name, processes};
use crate::process::in_mask;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Sleeps that are timed.
const SLEEPS: usize = 200;
const SLEEP: Duration = Duration::from_millis(1);
const SLEEP_LIMIT: Duration = Duration::from_secs(2);
/// chronyd's default for maxslewrate, in millionths (chrony.conf(5)).
const CHRONY_DEFAULT_PPM: f64 = 83_333.333;
const CHRONY_FILES: [&str; 2] = ["/etc/chrony/chrony.conf", "/etc/chrony.conf"];
/// capabilities(7)
const CAP_NET_BIND_SERVICE: u32 = 10;
const CAP_SYS_NICE: u32 = 23;

/// Both clocks at one instant, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    wall: f64,
    boot: f64,
}

impl Reading {
    pub(super) fn now() -> Reading {
        use rustix::time::{ClockId, clock_gettime};
        let ms = |id| {
            let t = clock_gettime(id);
            t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
        };
        Reading {
            wall: ms(ClockId::Realtime),
            boot: ms(ClockId::Boottime),
        }
    }
}

/// The clocks, watched since `start`.
pub(super) fn clock(start: Reading) -> Clock {
    let end = Reading::now();
    let watched_ms = end.boot - start.boot;
    let kernel = adjtimex();
    Clock {
        stepped_ms: end.wall - start.wall - watched_ms,
        watched_ms,
        loop_late_ms: None,
        synchronised: kernel.map(|(synchronised, _)| synchronised),
        rate_ppm: kernel.map(|(_, rate)| rate),
        chrony_slew_ppm: chrony(),
    }
}

/// Whether the kernel's clock is synchronised, and by how many millionths it is made to run fast.
fn adjtimex() -> Option<(bool, f64)> {
    // SAFETY: all zeros is a value of this plain structure; with no mode set the call only reads.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` outlives the call.
    let result = unsafe { libc::adjtimex(&raw mut state) };
    // Ticks are of 10,000 µs at USER_HZ = 100, so one of tick is 100 ppm; freq counts 2^-16 ppm (adjtimex(2)).
    let rate = (state.tick as f64 - 10_000.0) * 100.0 + state.freq as f64 / 65_536.0;
    let synchronised = result != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    (result >= 0).then_some((synchronised, rate))
}

/// How fast a running chronyd may slew.
fn chrony() -> Option<f64> {
    if !processes().any(|pid| name(pid) == "chronyd") {
        return None;
    }
    let text = CHRONY_FILES
        .iter()
        .find_map(|file| fs::read_to_string(file).ok())?;
    Some(max_slew(&text))
}

fn max_slew(text: &str) -> f64 {
    let mut words = text.lines().map(str::split_ascii_whitespace);
    let set = words.find_map(|mut line| match line.next()?.to_ascii_lowercase().as_str() {
        "maxslewrate" => line.next()?.parse().ok(),
        _ => None,
    });
    set.unwrap_or(CHRONY_DEFAULT_PPM)
}

/// How much too late a short sleep ends.
pub(super) fn wakeups() -> Option<Spread> {
    let begun = Instant::now();
    let mut late = Vec::new();
    while late.len() < SLEEPS && begun.elapsed() < SLEEP_LIMIT {
        let start = Instant::now();
        sleep(SLEEP);
        late.push(start.elapsed().saturating_sub(SLEEP).as_secs_f64() * 1e3);
    }
    Spread::of(late)
}

/// Columns of /proc/PID/limits: the limit in force, and that to which a process may raise it, as the agent does for its files.
const SOFT: usize = 0;
const HARD: usize = 1;

/// What the kernel grants to the agent's process, or to this one.
pub(super) fn rights(agent: Option<u32>) -> Rights {
    let process = agent.map_or("self".to_owned(), |pid| pid.to_string());
    let file = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default();
    let (status, limits) = (file("status"), file("limits"));
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let swap = fs::read_to_string("/proc/swaps").map(|text| text.lines().count() > 1);
    let locked = number(&status, "VmLck:").is_some_and(|kib| kib > 0);
    Rights {
        agent_pid: agent,
        root: rustix::process::geteuid().is_root(),
        open_files: limit(&limits, "Max open files", HARD),
        prompt: match agent {
            Some(pid) => prompt(pid),
            None => Some(
                capable(&own, CAP_SYS_NICE)
                    || limit(&limits, "Max realtime priority", SOFT).is_some_and(|limit| limit > 0),
            ),
        },
        swapped_kib: agent.and_then(|_| number(&status, "VmSwap:")),
        swappable: agent.and(swap.ok().map(|swap| swap && !locked && !never_swapped(&process))),
        low_ports: capable(&own, CAP_NET_BIND_SERVICE),
        first_free_port: first
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1024),
        echo: None,
    }
}

/// Whether a thread of the process has real-time priority or a negative niceness.
fn prompt(pid: u32) -> Option<bool> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let stats = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    let mut seen = false;
    for stat in stats {
        seen = true;
        if hurried(&stat) == Some(true) {
            return Some(true);
        }
    }
    seen.then_some(false)
}

/// From /proc/PID/stat (proc_pid_stat(5)): niceness is field 19, the real-time priority field 40. The name,
/// field 2, may hold anything, and ends at the last parenthesis.
fn hurried(stat: &str) -> Option<bool> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    Some(field(19)? < 0 || field(40)? > 0)
}

/// Whether its control group (version 2) keeps it out of swap.
fn never_swapped(process: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let max = own.and_then(|group| fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.swap.max")).ok());
    max.is_some_and(|max| max.trim() == "0")
}

/// A number of a line like `VmSwap:  12 kB`.
fn number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Of a line like `Max open files   1024   4096   files` a number, the soft limit or the hard one. Without limit it is the greatest
/// number.
fn limit(text: &str, key: &str, column: usize) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    match line.split_ascii_whitespace().nth(column)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn capable(status: &str, capability: u32) -> bool {
    in_mask(status, "CapEff:", capability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let status = "Name:\tx\nCapEff:\t0000000000800400\nVmSwap:\t      12 kB\n";
        assert_eq!(number(status, "VmSwap:"), Some(12));
        assert!(
            capable(status, CAP_SYS_NICE) && capable(status, CAP_NET_BIND_SERVICE) && !capable(status, 0)
        );
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n\
                      Max realtime priority     unlimited            0                                \n";
        assert_eq!(limit(limits, "Max open files", SOFT), Some(1024));
        assert_eq!(limit(limits, "Max open files", HARD), Some(524_288));
        assert_eq!(limit(limits, "Max realtime priority", SOFT), Some(u64::MAX));
        let stat = |nice: i32, priority: i32| {
            let [from_4, from_23] = [14, 17].map(|count| "0 ".repeat(count));
            format!("7 (a) b) S {from_4}20 {nice} 1 0 5 {from_23}{priority} 0")
        };
        for (nice, priority, hurries) in [(0, 0, false), (-10, 0, true), (0, 1, true), (10, 0, false)] {
            assert_eq!(hurried(&stat(nice, priority)), Some(hurries), "{nice} {priority}");
        }
        assert_eq!(hurried("7 (x) S 1"), None);
    }

    #[test]
    fn chrony_slews_as_its_file_says_or_fast() {
        assert_eq!(max_slew("pool x iburst\nMaxSlewRate 500\n"), 500.0);
        assert_eq!(max_slew("# maxslewrate 500\n"), CHRONY_DEFAULT_PPM);
    }
}
