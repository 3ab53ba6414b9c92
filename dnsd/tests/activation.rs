//! Socket activation, as the service manager does it: sockets are bound first, asked, and then the server is started
//! with them as descriptors 3 and 4. A process of its own is that server; it is this program once more.

mod cluster;

use baton_dnsd::{Passed, Server};
use baton_shared::clock::Mono;
use baton_shared::config::Dns;
use baton_shared::id::RoleName;
use baton_shared::view::{Published, View};
use std::future::pending;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
/// Says to this program that it is the server, and where it shall listen.
const LISTEN: &str = "BATON_TEST_LISTEN";
/// Above the descriptors that are passed, and below those that anybody has.
const ASIDE: RawFd = 100;
/// `orders.internal IN A`.
const QUERY: [u8; 33] = *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06orders\x08internal\0\0\x01\0\x01";

fn main() {
    if let Ok(listen) = std::env::var(LISTEN) {
        return serve(&listen);
    }
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    question_that_waits_on_passed_sockets_is_answered_by_the_server_started_with_them();
    println!("socket activation: ok");
}

fn question_that_waits_on_passed_sockets_is_answered_by_the_server_started_with_them() {
    let (udp, tcp) = sockets();
    let addr = udp.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(&QUERY, addr).unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&framed()).unwrap();

    let _server = Running(start(&addr.to_string(), [udp.as_raw_fd(), tcp.as_raw_fd()]));
    drop((udp, tcp));
    let mut reply = [0; 512];
    let (len, from) = client.recv_from(&mut reply).expect("a reply over UDP");
    assert_eq!((from, &reply[..2]), (addr, &QUERY[..2]));
    assert_eq!(
        reply[3] & 0x0f,
        2,
        "SERVFAIL, being out of touch: {:?}",
        &reply[..len]
    );
    let mut reply = [0; 6];
    stream.read_exact(&mut reply).expect("a reply over TCP");
    assert_eq!(reply[5] & 0x0f, 2);
}

fn framed() -> Vec<u8> {
    [&(QUERY.len() as u16).to_be_bytes(), &QUERY[..]].concat()
}

/// UDP and TCP on one port.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both");
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(listen: &str, fds: [RawFd; 2]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env(LISTEN, listen)
        .env("LISTEN_PID", std::process::id().to_string()) // the child's parent, as with the agent
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "dns:dns");
    // SAFETY: between fork and exec nothing is called but fcntl and dup2, without pointers, which are safe there.
    unsafe {
        command.pre_exec(move || {
            let mut aside = [0; 2];
            for (aside, fd) in aside.iter_mut().zip(fds) {
                *aside = checked(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, ASIDE))?;
            }
            for (fd, aside) in (3..).zip(aside) {
                // What was open there is the parent's, and would be closed at exec.
                checked(libc::dup2(aside, fd))?;
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The server: it can use nothing but what it was passed, for the port is taken.
fn serve(listen: &str) {
    // SAFETY: this process has one thread, and has opened nothing.
    let passed = unsafe { Passed::take() };
    assert!(std::env::var_os("LISTEN_FDS").is_none(), "nobody inherits it");
    let dns = Dns::new(vec![listen.parse().unwrap()], "orders.internal".into());
    let server = Server::bind_or_take(&dns, passed).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let published = Published::new(view(), [RoleName::new("main").unwrap()]);
    runtime
        .unwrap()
        .block_on(server.run(published, pending()))
        .unwrap();
}

/// Out of touch: every answer is SERVFAIL.
fn view() -> View {
    View {
        in_touch_until: Mono::ZERO,
        ..cluster::view("a", &[])
    }
}
