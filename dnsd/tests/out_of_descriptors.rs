//! A process out of file descriptors: the server waits instead of spinning, and answers once there are some again.
//!
//! The limit is the whole process's, so that this test has one for itself.

mod cluster;

use baton_dnsd::Server;
use baton_shared::clock::Mono;
use baton_shared::config::Dns;
use baton_shared::id::RoleName;
use baton_shared::view::{Published, View};
use std::fs::File;
use std::future::pending;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, sleep, timeout};

const LIMIT: Duration = Duration::from_secs(10);
/// How long the server is watched while it cannot accept.
const WATCHED: Duration = Duration::from_millis(600);

#[tokio::test]
async fn tcp_client_waits_and_is_answered_and_the_server_does_not_spin() {
    let server = Server::bind(&dns()).unwrap();
    let addr = server.local_addrs()[0];
    let published = Published::new(view(), [RoleName::new("main").unwrap()]);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server.run(published, pending()));

    // Its threads have what they need once it has answered.
    let mut early = TcpSocket::new_v4().unwrap().connect(addr).await.unwrap();
    early.write_all(&QUERY).await.unwrap();
    timeout(LIMIT, early.read_exact(&mut [0; 6]))
        .await
        .unwrap()
        .unwrap();
    drop(early);

    let client = TcpSocket::new_v4().unwrap();
    limit_descriptors(256);
    let hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let mut stream = client.connect(addr).await.unwrap();
    stream.write_all(&QUERY).await.unwrap();
    let (since, used) = (Instant::now(), cpu_time());
    sleep(WATCHED).await;
    let (watched, used) = (since.elapsed(), cpu_time() - used);
    assert!(used < watched / 4, "{used:?} of CPU time in {watched:?}");

    drop(hoard);
    let mut reply = [0; 6];
    let read = timeout(LIMIT, stream.read_exact(&mut reply)).await;
    read.expect("a reply in time").unwrap();
    assert_eq!(reply[5] & 0x0f, 2, "SERVFAIL, this node being out of touch");
}

/// `orders.internal IN A`, framed.
const QUERY: [u8; 35] = *b"\0\x21\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06orders\x08internal\0\0\x01\0\x01";

fn dns() -> Dns {
    Dns::new(vec!["127.0.0.1:0".parse().unwrap()], "orders.internal".into())
}

/// Out of touch: every answer is SERVFAIL.
fn view() -> View {
    View {
        in_touch_until: Mono::ZERO,
        ..cluster::view("a", &[])
    }
}

fn limit_descriptors(n: libc::rlim_t) {
    let limit = libc::rlimit {
        rlim_cur: n,
        rlim_max: n,
    };
    // SAFETY: the pointer is to a value that lives through the call.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(result, 0);
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a value that lives through the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
