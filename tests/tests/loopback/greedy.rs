//! Strangers who would fill a holder's memory: it lives, is heard, keeps its role, and has its memory back when they are gone.

use crate::NAMES;
use crate::crowds::{AT_LAST, descriptors, epoch};
use baton_agent::demo::connection::get;
use baton_tests::cgroup::Cgroup;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Everybody shares a machine of two cores: what is looked for here takes seconds.
const WINDOW: Duration = Duration::from_secs(2);
/// What the holder has: less than such a flood took of it once.
const MEMORY: usize = 256 << 20;
/// Headers that never end, at once, and the threads that send them.
const HALVES: usize = 10_000;
const THREADS: usize = 4;
/// Of each header there is so much.
const HALF: usize = 15 * 1024;
/// The flood lasts so long.
const LONG: Duration = Duration::from_secs(8);
/// What may be left of it, beside what was needed before.
const LEFT: usize = 48 << 20;

/// Memory in use by a process, in bytes (proc(5), status).
fn resident(process: u32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kilobytes.expect("it has memory") * 1024
}

/// Half a header on each of so many connections, and on new ones for those that are closed.
fn halves(addr: SocketAddr, count: usize, over: &AtomicBool, made: &AtomicUsize) {
    let half = [&b"GET /health HTTP/1.1\r\nX: "[..], &vec![b'x'; HALF]].concat();
    let mut held: Vec<Option<TcpStream>> = Vec::new();
    held.resize_with(count, || None);
    while !over.load(Relaxed) {
        for held in &mut held {
            if over.load(Relaxed) {
                break;
            }
            let is_open = |stream: &TcpStream| {
                let peeked = stream.peek(&mut [0]);
                peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            };
            if held.as_ref().is_some_and(is_open) {
                continue;
            }
            *held = TcpStream::connect_timeout(&addr, Duration::from_secs(1)).ok();
            if let Some(stream) = held {
                let sent = stream.set_nonblocking(true).and_then(|()| stream.write(&half));
                made.fetch_add(usize::from(sent.is_ok()), Relaxed);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Floods the holder, and sees that it is none the worse for it.
fn flood(mut cluster: Cluster, through: &[&str]) {
    let _alone = crate::flooding();
    cluster.start_through("a", through, &[]);
    for name in ["b", "c"] {
        cluster.start(name);
    }
    cluster.place("a");
    let (addr, before) = (cluster.node("a").http, epoch(&cluster, "a"));
    let agent = cluster.process("a").agent().expect("it has an agent");
    let quiet = resident(agent);
    let each = HALVES.min(descriptors() / 2) / THREADS;
    let (over, made, mut most) = (AtomicBool::new(false), AtomicUsize::new(0), 0);
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| halves(addr, each, &over, &made));
        }
        // A slow machine takes longer than that to make all of them.
        let (end, latest) = (Instant::now() + LONG, Instant::now() + LONG + GENEROUS * 2);
        let is_over = |now: Instant| now >= latest || (now >= end && made.load(Relaxed) >= THREADS * each);
        let mut heard = Ok(200);
        while !is_over(Instant::now()) && matches!(heard, Ok(200)) {
            let asked = Instant::now();
            heard = get(addr, "/health", AT_LAST).map(|answer| answer.status);
            slowest = slowest.max(asked.elapsed());
            most = most.max(resident(agent));
            thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Relaxed);
        assert!(matches!(heard, Ok(200)), "a check got {heard:?}");
    });
    println!(
        "{} halves: from {} to {} MiB; the slowest check took {slowest:?}",
        made.load(Relaxed),
        quiet >> 20,
        most >> 20
    );
    assert!(made.load(Relaxed) >= THREADS * each, "{made:?}");
    assert_eq!(cluster.process("a").agent(), Some(agent), "the agent died");
    assert_eq!(epoch(&cluster, "a"), before);
    until(GENEROUS, "the memory is given back", || match resident(agent) {
        now if now < quiet + LEFT => Ok(()),
        now => Err(format!("it has {} MiB, before it was {}", now >> 20, quiet >> 20)),
    });
    cluster.settled();
}

#[test]
fn holder_flooded_with_half_headers_has_its_memory_back_when_they_are_gone() {
    flood(Cluster::unstarted(Plan::members(&NAMES).window(WINDOW)), &[]);
}

#[test]
fn holder_in_little_memory_flooded_with_half_headers_lives_and_keeps_its_role() {
    let Some(cgroup) = Cgroup::create("memory") else {
        return;
    };
    cgroup.set("memory.limit_in_bytes", &MEMORY.to_string());
    let script = format!("{}; exec \"$@\"", cgroup.entering());
    let through = ["/bin/sh", "-c", &script, "sh"];
    flood(Cluster::unstarted(Plan::members(&NAMES).window(WINDOW)), &through);
}
