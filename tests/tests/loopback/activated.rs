//! `baton-dnsd` on sockets that the service manager has bound: whoever asks before an agent has answered is told that nothing is known, and
//! nobody waits in vain, not even while the sockets go from one server to the next.

use crate::{NAMES, Said, WINDOW, said};
use baton_tests::binary::dnsd;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::load::{framed, question};
use baton_tests::namespace::Namespace;
use baton_tests::plan::{DNS_PORT, HTTP_PORT, Plan, ZONE};
use baton_tests::process::Process;
use hickory_proto::op::ResponseCode;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;

/// Above the descriptors that are passed, and below those that anybody has.
const ASIDE: RawFd = 900;

/// Starts it as the service manager does: with these as descriptors 3 and 4, and variables that say so.
#[track_caller]
fn start(cluster: &Cluster, udp: &UdpSocket, tcp: &TcpListener) -> Process {
    let address = udp.local_addr().expect("it is bound");
    let agents: Vec<String> = NAMES
        .iter()
        .map(|name| format!("\"{}:{HTTP_PORT}\"", cluster.node(name).http.ip()))
        .collect();
    let agents = agents.join(", ");
    let text = format!("agents = [{agents}]\n[dns]\nlisten = \"{address}\"\nzone = \"{ZONE}\"\n");
    let file = cluster.dir().join("baton-dnsd.toml");
    std::fs::write(&file, text).expect("the directory can be written");
    let mut command = Namespace::here().command(dnsd());
    command
        .arg("--config")
        .arg(&file)
        .env("LISTEN_PID", std::process::id().to_string()) // its parent: its own is not known yet
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", "dns:dns");
    let passed = [udp.as_raw_fd(), tcp.as_raw_fd()];
    // SAFETY: between fork and exec nothing is called but fcntl and dup2, without pointers, which are safe there.
    unsafe {
        command.pre_exec(move || {
            let mut aside = [0; 2];
            for (aside, fd) in aside.iter_mut().zip(passed) {
                *aside = checked(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, ASIDE))?;
            }
            for (fd, aside) in (3..).zip(aside) {
                checked(libc::dup2(aside, fd))?;
            }
            Ok(())
        });
    }
    Process::run(command, &cluster.dir().join("baton-dnsd.log"))
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks once, and waits for as long as it takes: what was asked is never lost.
#[track_caller]
fn ask(server: SocketAddr) -> Said {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    socket.set_read_timeout(Some(GENEROUS)).expect("it is not zero");
    socket.connect(server).expect("a socket can be told");
    socket.send(&question(ZONE, 1)).expect("loopback takes it");
    let mut reply = [0; 1500];
    let length = socket.recv(&mut reply).expect("what was asked is answered");
    said(&reply[..length])
}

#[test]
fn question_before_the_first_agent_answers_is_servfail_and_none_is_lost_until_the_active_node_is_named() {
    let mut cluster = Cluster::unstarted(Plan::members(&NAMES).window(WINDOW));
    let address = SocketAddr::from((cluster.node(NAMES[0]).seat.front, DNS_PORT + 1));
    let udp = UdpSocket::bind(address).expect("nobody else has the address");
    let tcp = TcpListener::bind(address).expect("nobody else has the address");

    // Asked before it is started, by both ways.
    let early = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
    early.set_read_timeout(Some(GENEROUS)).expect("it is not zero");
    early.connect(address).expect("a socket can be told");
    early.send(&question(ZONE, 1)).expect("loopback takes it");
    let mut stream = TcpStream::connect(address).expect("the socket listens");
    stream.set_read_timeout(Some(GENEROUS)).expect("it is not zero");
    stream
        .write_all(&framed(&question(ZONE, 1)))
        .expect("loopback takes it");

    let standalone = start(&cluster, &udp, &tcp);
    drop((udp, tcp));
    let unknown = (ResponseCode::ServFail, Vec::new());
    let mut reply = [0; 1500];
    let length = early.recv(&mut reply).expect("what was asked early is answered");
    assert_eq!(said(&reply[..length]), unknown, "no agent runs");
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).expect("over TCP, too");
    let mut message = vec![0; u16::from_be_bytes(prefix).into()];
    stream.read_exact(&mut message).expect("over TCP, too");
    assert_eq!(said(&message), unknown, "no agent runs");

    // Asked at all times from now on, one question after the other, without a single one being asked again.
    for name in NAMES {
        cluster.start(name);
    }
    let since = now();
    let (mut asked, mut before) = (0, unknown.clone());
    let named = until(GENEROUS, "an address is named", || {
        let now_said = ask(address);
        asked += 1;
        if now_said != before {
            eprintln!("{:?} after the start: {now_said:?}", now().since(since));
            before = now_said.clone();
        }
        match &now_said {
            (ResponseCode::NoError, addresses) if addresses.len() == 1 => Ok(addresses[0]),
            // Nobody is active yet.
            (ResponseCode::NoError, addresses) if addresses.is_empty() => Err("nobody".into()),
            said if *said == unknown => Err("it does not know".into()),
            wrong => panic!("a wrong answer: {wrong:?}"),
        }
    });
    eprintln!("{asked} questions, none without an answer");
    let holder = cluster.settled();
    // On a busy machine the role may have moved since; whom it named was active, and now it names the holder.
    let front = |name: &str| cluster.node(name).seat.front;
    let first = NAMES.into_iter().find(|name| front(name) == named);
    let first = first.unwrap_or_else(|| panic!("{named} is nobody's address"));
    until(GENEROUS, "whom it named was active", || {
        let was = cluster.watch.was_active_since(first, since);
        was.then_some(()).ok_or_else(|| format!("{first} was not"))
    });
    until(GENEROUS, "it names the holder", || match ask(address) {
        (ResponseCode::NoError, addresses) if addresses == [front(&holder)] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(standalone.stop().success());
    cluster.verify();
}
