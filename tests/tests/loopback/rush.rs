//! Thousands of connections from one address, again and again: whoever checks from another finds room in the kernel, and does not wait
//! until it is asked for that once more.

use crate::NAMES;
use crate::crowds::{AT_LAST, descriptors, epoch};
use baton_tests::cluster::Cluster;
use baton_tests::plan::Plan;
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use std::io::{Read, Write};
use std::mem::{self, size_of};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Everybody shares a machine of two cores: what is looked for here takes seconds.
const WINDOW: Duration = Duration::from_secs(2);
/// Connections that come at once, again and again for so long.
const RUSH: usize = 19_000;
const LONG: Duration = Duration::from_secs(6);
/// Where they come from, and a checker who comes from elsewhere.
const MANY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Their ports. To have the kernel look for a free one would take it a hundred times longer.
const FIRST: u16 = 10_000;
/// Between two checks of one checker.
const PACE: Duration = Duration::from_millis(10);

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Connections as fast as the kernel takes them; none is waited for, and all are gone without a trace when they are dropped.
fn rush(to: SocketAddr, count: usize) -> Vec<OwnedFd> {
    let make = |port| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).ok()?;
        set_socket_reuseaddr(&socket, true).ok()?;
        set_socket_linger(&socket, Some(Duration::ZERO)).ok()?;
        bind(&socket, &SocketAddr::from((MANY, port))).ok()?;
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => Some(socket),
            Err(_) => None,
        }
    };
    (FIRST..).take(count).filter_map(make).collect()
}

/// What was sent again of a connection so far, its first word included (tcp(7)).
fn sent_again(stream: &TcpStream) -> u32 {
    // SAFETY: it is made of numbers, all of which may be zero.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: there is room for so much.
    let got = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    assert_eq!(got, 0, "the kernel tells");
    info.tcpi_total_retrans
}

/// A check over a connection of its own; says whether the kernel had room for that at once.
fn check(to: SocketAddr) -> std::io::Result<bool> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    bind(&socket, &SocketAddr::from((ELSEWHERE, 0)))?;
    connect(&socket, &to)?;
    let mut stream = TcpStream::from(socket);
    let at_once = sent_again(&stream) == 0;
    stream.set_read_timeout(Some(AT_LAST))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    assert!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(at_once)
}

/// What a checker saw.
struct Seen {
    /// How long each check took, in order.
    took: Vec<Duration>,
    /// For how many the kernel had no room at first.
    late: usize,
}

fn checker(to: SocketAddr, over: &AtomicBool) -> Seen {
    let (mut took, mut late) = (Vec::new(), 0);
    while !over.load(Relaxed) {
        let asked = Instant::now();
        late += usize::from(!check(to).expect("it is answered"));
        took.push(asked.elapsed());
        thread::sleep(PACE);
    }
    took.sort();
    let share = |of: usize| took[took.len() * of / 1000];
    println!(
        "{} checks: half within {:?}, 99 of 100 within {:?}, all within {:?}; no room for {late} at first",
        took.len(),
        share(500),
        share(990),
        took[took.len() - 1]
    );
    Seen { took, late }
}

#[test]
fn checker_beside_thousands_of_connections_from_one_address_finds_room() {
    let _alone = crate::flooding();
    let count = RUSH.min(descriptors().saturating_sub(1_000));
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let (at, before) = (cluster.node("a").http, epoch(&cluster, "a"));
    let (over, mut made) = (AtomicBool::new(false), 0);
    let seen = thread::scope(|scope| {
        let checker = scope.spawn(|| checker(at, &over));
        let end = Instant::now() + LONG;
        while Instant::now() < end && !checker.is_finished() {
            made += rush(at, count).len();
        }
        over.store(true, Relaxed);
        checker.join().expect("every check is answered")
    });
    println!("{made} connections from {MANY}");
    assert!(made > count / 2, "only {made} were made");
    // One is a second without an answer.
    assert_eq!(seen.late, 0, "of {} checks found no room", seen.took.len());
    assert_eq!(epoch(&cluster, "a"), before);
}
