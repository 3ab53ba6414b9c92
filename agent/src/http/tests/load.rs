//! The checks listener under all that a network can send at once: `/health` still answers in time, and memory is bounded.

use super::super::patience::Patience;
use super::checks::{checks_with, http};
use super::fixture::published;
use super::talk;
use crate::checks::grpc;
use baton_shared::config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that rest, as many as there is room for by default; fewer only where the hard limit on descriptors does not allow as many.
const IDLE: usize = 10_000;
/// Clients of each hostile kind.
const HOSTILE: usize = 20;
/// Checks that are measured, and how many of them are under way at once.
const CHECKS: usize = 4000;
const AT_ONCE: usize = 1000;
/// All of it, on a machine that does other things as well.
const LIMIT: Duration = Duration::from_secs(120);
/// Nearly every check is answered by then; balancers wait for a second or two.
const IN_TIME: Duration = Duration::from_secs(2);
/// And every single one by then, of a thousand at once and on a machine with two cores.
const AT_LAST: Duration = Duration::from_secs(15);
/// What a resting connection may cost in memory, its client's side included: both live in this process.
const PER_CONNECTION: usize = 32 * 1024;

const REQUEST: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
const LAST: &str = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// As many descriptors as are needed, or else as are allowed.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (2 * (IDLE + AT_ONCE) + 2000) as u64;
    let enough = Rlimit {
        current: Some(needed),
        maximum: Some(needed.max(limit.maximum.unwrap_or(needed))),
    };
    if setrlimit(Resource::Nofile, enough).is_err() {
        let all = Rlimit {
            current: limit.maximum,
            ..limit
        };
        setrlimit(Resource::Nofile, all).unwrap();
    }
    let got = getrlimit(Resource::Nofile).current;
    got.map_or(usize::MAX, |n| usize::try_from(n).unwrap())
}

/// Memory in use, in bytes (proc(5), status).
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: usize = line.trim_end_matches("kB").trim().parse().unwrap();
    kilobytes * 1024
}

/// One that rests: having said nothing, or after an answer.
async fn rest(addr: SocketAddr, asks: bool) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    if asks {
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
    }
    stream
}

/// A hostile client, again and again.
async fn annoy(addr: SocketAddr, kind: usize) {
    loop {
        let Ok(mut stream) = TcpStream::connect(addr).await else {
            continue;
        };
        let _ = match kind {
            // Slow writers.
            0 => loop {
                if stream.write_all(b"G").await.is_err() {
                    break Ok(());
                }
                sleep(Duration::from_millis(10)).await;
            },
            // Readers of nothing.
            1 => loop {
                if let Err(error) = stream.write_all(&REQUEST.repeat(100).into_bytes()).await {
                    break Err(error);
                }
            },
            // Giant headers.
            2 => stream.write_all(&[b'x'; 256 * 1024]).await,
            // Nonsense in HTTP/2: frames of the greatest length, of every type.
            3 => {
                let mut text = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                text.extend((0..=255).flat_map(|n| [0xff, 0xff, 0xff, n, n, 0, 0, 0, n]));
                stream.write_all(&text).await
            }
            // A header of the PROXY protocol that never ends.
            4 => {
                stream
                    .write_all(&[b"PROXY TCP4 ", &[b'1'; 4096][..]].concat())
                    .await
            }
            // A thousand requests at once, all read.
            _ => {
                let _ = stream.write_all((REQUEST.repeat(1000) + LAST).as_bytes()).await;
                tokio::io::copy(&mut stream, &mut tokio::io::sink())
                    .await
                    .map(drop)
            }
        };
        let _ = timeout(Duration::from_secs(1), stream.read(&mut [0; 1024])).await;
    }
}

async fn check(addr: SocketAddr, room: Arc<Semaphore>) -> Duration {
    let _room = room.acquire().await.unwrap();
    let start = Instant::now();
    let stream = TcpStream::connect(addr).await.unwrap();
    assert_eq!(talk(stream, LAST).await.status, 503);
    start.elapsed()
}

/// Median, 99th percentile and worst.
async fn checks(addr: SocketAddr, at_once: usize) -> (Duration, Duration, Duration) {
    let room = Arc::new(Semaphore::new(at_once));
    let mut all: JoinSet<Duration> = (0..CHECKS).map(|_| check(addr, room.clone())).collect();
    let mut took = Vec::new();
    while let Some(one) = all.join_next().await {
        took.push(one.unwrap());
    }
    took.sort();
    (took[CHECKS / 2], took[CHECKS * 99 / 100], took[CHECKS - 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_resting_and_a_hundred_hostile_clients_do_not_delay_health() {
    let room = descriptors().saturating_sub(2 * AT_ONCE + 1000) / 2;
    let idle = IDLE.min(room);
    let patience = Patience {
        idle: 2 * LIMIT,
        ..Patience::USUAL
    };
    assert_eq!(config::Http::default().max_connections, IDLE);
    let run = checks_with(published(), http(false, idle), patience);
    let addr = run.addr;
    let scene = async {
        let before = resident();
        let mut resting = Vec::new();
        // One in ten says nothing. These come last: they are let go after a while, and all places are to be taken first.
        for n in 0..idle {
            resting.push(rest(addr, n < idle / 10 * 9).await);
        }
        let each = resident().saturating_sub(before) / idle.max(1);
        let quiet = checks(addr, 32).await;

        let mut hostile = JoinSet::new();
        for n in 0..6 * HOSTILE {
            hostile.spawn(annoy(addr, n % 6));
        }
        let (median, p99, worst) = checks(addr, 32).await;
        let crowd = checks(addr, AT_ONCE).await;
        let grown = resident().saturating_sub(before);
        let start = Instant::now();
        assert!(
            grpc::ask("127.0.0.1", addr.port(), "")
                .await
                .is_err_and(|said| said.reason.contains("NOT_SERVING"))
        );
        let by_grpc = start.elapsed();
        println!(
            "{idle} at rest: {each} bytes each, /health in {quiet:?} (median, p99, worst); with {} hostile clients in \
             {median:?}, {p99:?}, {worst:?}; {AT_ONCE} checks at once: {crowd:?}; gRPC: {by_grpc:?}; grown by {} MiB",
            6 * HOSTILE,
            grown >> 20
        );
        // Those that said nothing at all are let go after a while, and some have made room, not many more than needed; the
        // rest are still there.
        let counters = &run.handle.counters;
        let (open, evicted) = (counters.http_connections.load(Relaxed), &counters.http_evicted);
        assert!(open >= idle as u64 / 2, "{open} of {idle}");
        assert!(evicted.load(Relaxed) > 0, "there was room for all");
        assert_eq!(counters.http_refused.load(Relaxed), 0);
        for (what, worst) in [("quiet", quiet.2), ("hostile", worst), ("crowd", crowd.2)] {
            assert!(worst < AT_LAST, "{what}: {worst:?}");
        }
        assert!(p99 < IN_TIME && by_grpc < IN_TIME, "{p99:?}, {by_grpc:?}");
        assert!(each < PER_CONNECTION, "{each} bytes for a connection at rest");
        assert!(grown < idle * PER_CONNECTION + (256 << 20), "{grown} bytes");
    };
    timeout(LIMIT, scene).await.expect("too slow altogether");
}
