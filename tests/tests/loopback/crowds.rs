//! Many clients at once in front of real agents: each check is heard, and heartbeats do not suffer.

use crate::NAMES;
use baton_agent::demo::connection::get;
use baton_tests::cluster::{ASK_LIMIT, Cluster};
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::plan::Plan;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Clients and nodes share a machine that may have two cores: what is looked for here takes seconds, and no less.
const WINDOW: Duration = Duration::from_secs(2);
/// For so long each check must be answered; a check of the application that fails is known in a tenth of that.
const LONG: Duration = Duration::from_secs(5);
/// Descriptors of the agent in want of them.
const FEW: usize = 256;
/// Clients at rest, more than it has descriptors.
const IDLE: usize = 600;

/// What an ordinary shell allows.
const USUAL: usize = 512;
/// Checkers at once, each with a connection of its own, and the threads that play them.
const CHECKERS: usize = 3_000;
const THREADS: usize = 6;
/// Rounds of all of them asking together.
const ROUNDS: usize = 3;
/// Readers of nothing.
const DEAF: usize = 100;
/// An answer to one of thousands that ask together, on a machine with two cores that plays them, too.
pub const AT_LAST: Duration = Duration::from_secs(30);

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a check that comes over a connection of its own gets.
fn health(addr: SocketAddr) -> std::io::Result<u16> {
    get(addr, "/health", ASK_LIMIT).map(|answer| answer.status)
}

/// Clients that ask once and then rest. Those who have made room for others are of no concern.
fn resting(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = TcpStream::connect(addr).ok()?;
        stream.set_read_timeout(Some(ASK_LIMIT)).ok()?;
        stream.write_all(REQUEST).ok()?;
        let read = stream.read(&mut [0; 1024]).ok()?;
        (read > 0).then_some(stream)
    };
    (0..count).filter_map(ask).collect()
}

/// The epoch at which a node is active, by its own word.
pub fn epoch(cluster: &Cluster, name: &str) -> u64 {
    until(GENEROUS, "it is active at an epoch", || {
        let status = cluster.status(name)?;
        let epoch = status.roles[0].epoch.map(|epoch| epoch.0);
        epoch.ok_or_else(|| format!("{:?}", status.roles[0]))
    })
}

/// A cluster whose nodes are started by a shell with that `ulimit`, and which is at rest with a for holder.
fn started(plan: Plan, ulimit: &str) -> Cluster {
    let mut cluster = Cluster::unstarted(plan.window(WINDOW));
    let script = format!("ulimit {ulimit}; exec \"$@\"");
    for name in NAMES {
        cluster.start_through(name, &["/bin/sh", "-c", &script, "sh"], &[]);
    }
    cluster.place("a");
    cluster
}

#[test]
fn holder_with_few_descriptors_and_many_idle_clients_is_heard_and_stays() {
    let application = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = application.local_addr().unwrap();
    thread::spawn(move || application.incoming().for_each(drop));
    // Refused at once where no descriptor is left; slow on a busy machine, which is not what is looked for.
    let check = format!(
        "[check]\ntcp = \"{at}\"\ninterval = \"50ms\"\ntimeout = \"{}s\"\nfall = 2\n",
        AT_LAST.as_secs()
    );
    let cluster = started(Plan::members(&NAMES).more(&check), &format!("-n {FEW}"));
    let (addr, before) = (cluster.node("a").http, epoch(&cluster, "a"));
    cluster.await_logged("a", "at most 256 files may be open, so [http] takes");

    let clients = resting(addr, IDLE);
    assert!(clients.len() > IDLE * 9 / 10, "only {} were heard", clients.len());
    let end = Instant::now() + LONG;
    while Instant::now() < end {
        assert_eq!(health(addr).expect("a check is heard"), 200);
    }
    assert_eq!(epoch(&cluster, "a"), before);
    drop(clients);
}

/// As many descriptors as this process may have.
pub fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, all).unwrap();
    limit.maximum.map_or(usize::MAX, |n| usize::try_from(n).unwrap())
}

/// Checkers that ask together, and each must be answered with 200.
fn checkers(addr: SocketAddr, count: usize) {
    // Each asks as soon as it is there: one that says nothing for 5 s is let go, and a busy machine takes long to play thousands.
    let ask = |stream: &mut TcpStream| stream.write_all(REQUEST).unwrap();
    let comes = |_| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(AT_LAST)).unwrap();
        ask(&mut stream);
        stream
    };
    let mut all: Vec<TcpStream> = (0..count).map(comes).collect();
    for round in 1..=ROUNDS {
        if round > 1 {
            all.iter_mut().for_each(ask);
        }
        for stream in &mut all {
            let mut answer = [0; 1024];
            let length = stream.read(&mut answer).expect("each is answered");
            assert!(
                answer[..length].starts_with(b"HTTP/1.1 200 "),
                "in round {round}: {:?}",
                String::from_utf8_lossy(&answer[..length])
            );
        }
    }
}

/// Those who send more than is good, or read nothing, until `over`.
fn nuisances(addr: SocketAddr, over: &AtomicBool) {
    let many = REQUEST.repeat(10);
    let deaf = (0..DEAF).map(|_| TcpStream::connect(addr).unwrap());
    let mut deaf: Vec<TcpStream> = deaf.collect();
    for stream in &deaf {
        stream.set_nonblocking(true).unwrap();
    }
    while !over.load(Relaxed) {
        for stream in &mut deaf {
            let _ = stream.write(&many); // until their buffers are full, and they are let go
        }
        if let Ok(mut giant) = TcpStream::connect(addr) {
            let _ = giant.write_all(&[b'x'; 256 * 1024]);
        }
    }
}

#[test]
fn holder_with_thousands_of_checkers_and_nuisances_answers_each_and_keeps_its_epoch() {
    let _alone = crate::flooding();
    let room = descriptors().saturating_sub(1000) / 2;
    let each = CHECKERS.min(room) / THREADS;
    // What the agent starts has the limit that the agent was given; else this check fails, and nobody is active. A shell takes
    // long to start beside thousands of clients, which is no failure.
    let script = format!("test $(ulimit -Sn) = {USUAL}");
    let check = format!(
        "[check]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\ninterval = \"100ms\"\ntimeout = \"{}s\"\n",
        AT_LAST.as_secs()
    );
    let cluster = started(Plan::members(&NAMES).more(&check), &format!("-S -n {USUAL}"));
    let (addr, before) = (cluster.node("a").http, epoch(&cluster, "a"));
    let (over, mut asked) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || nuisances(addr, over));
        let all: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(move || checkers(addr, each)))
            .collect();
        let mut heard = || {
            asked += 1;
            get(addr, "/health", AT_LAST).map(|answer| answer.status)
        };
        let mut wrong = None;
        let end = Instant::now() + LONG;
        while wrong.is_none() && (Instant::now() < end || all.iter().any(|thread| !thread.is_finished())) {
            wrong = Some(heard()).filter(|heard| !matches!(heard, Ok(200)));
        }
        over.store(true, Relaxed);
        assert!(
            wrong.is_none(),
            "a check beside {} others got {wrong:?}",
            THREADS * each
        );
    });
    println!(
        "{} checkers at once, and {asked} checks beside them",
        THREADS * each
    );
    assert_eq!(epoch(&cluster, "a"), before);
    for name in ["b", "c"] {
        // After such a flood a heartbeat may be late, and that nobody else was active the epoch says.
        until(GENEROUS, "the others know of it", || {
            let status = cluster.status(name)?;
            match status.roles[0].active.as_ref().is_some_and(|a| a.as_str() == "a") {
                true => Ok(()),
                false => Err(format!("{name}: {:?}", status.roles[0])),
            }
        });
    }
}
