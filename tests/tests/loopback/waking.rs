//! DNS over TCP on waking: neither a question that lay in the socket while the agent was frozen beyond its lease, nor an answer that had
//! found no room before, brings out the address of the node that was active then (S4).

use crate::{NAMES, Said, WINDOW, said};
use baton_shared::clock::Mono;
use baton_tests::agreement::Apart;
use baton_tests::case::now;
use baton_tests::cluster::Cluster;
use baton_tests::deadline::{GENEROUS, until};
use baton_tests::load::{framed, question};
use baton_tests::plan::{Plan, ZONE};
use hickory_proto::op::ResponseCode;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType, connect, socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// So small that answers soon find no room.
const ROOM: usize = 4 << 10;
/// No question has found room for so long: answers have found none either.
const STUCK: Duration = Duration::from_millis(20);
/// Nothing has come for so long: all that left before the freeze is here.
const QUIET: Duration = Duration::from_millis(100);

/// A client of one server.
struct Asker {
    stream: TcpStream,
    /// The beginning of an answer that has not come as a whole.
    part: Vec<u8>,
    ended: bool,
}

impl Asker {
    #[track_caller]
    fn connect(server: SocketAddr) -> Asker {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None).expect("there are sockets");
        set_socket_recv_buffer_size(&fd, ROOM).expect("a socket can be told");
        connect(&fd, &server).expect("the kernel of a frozen server connects");
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true).expect("a socket can be told");
        stream.set_nonblocking(true).expect("a socket can be told");
        Asker {
            stream,
            part: Vec::new(),
            ended: false,
        }
    }

    /// Asks once.
    #[track_caller]
    fn ask(&mut self) {
        let asked = framed(&question(ZONE, 1));
        self.stream.write_all(&asked).expect("one question finds room");
    }

    /// Asks, and reads nothing, until there is no more room for questions; gives how many it asked.
    #[track_caller]
    fn ask_until_stuck(&mut self) -> Result<usize, String> {
        let asked = framed(&question(ZONE, 1)).repeat(100);
        let (mut written, mut last) = (0, now());
        let begun = last;
        while now().since(last) < STUCK {
            assert!(now().since(begun) < GENEROUS, "there is always room");
            match self.stream.write(&asked[written % asked.len()..]) {
                Ok(length) => (written, last) = (written + length, now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(format!("it was cut off: {error}")),
            }
        }
        Ok(written / (asked.len() / 100))
    }

    /// What has come since the last look: codes and addresses.
    fn heard(&mut self) -> Vec<Said> {
        let mut buffer = [0; 4096];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(length @ 1..) => self.part.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => self.ended = true,
            }
        }
        let mut heard = Vec::new();
        let mut rest = &self.part[..];
        while let Some((prefix, after)) = rest.split_first_chunk::<2>()
            && let Some(message) = after.get(..usize::from(u16::from_be_bytes(*prefix)))
        {
            heard.push(said(message));
            rest = &after[message.len()..];
        }
        self.part = rest.to_vec();
        heard
    }
}

/// Waits until another node has taken over from a frozen one, and gives it.
#[track_caller]
fn taken_over(cluster: &Cluster, since: Mono, frozen: &str) -> String {
    let apart = Apart {
        unasked: &[frozen],
        ..Apart::NOBODY
    };
    cluster
        .assert_takeover(since, frozen, apart, cluster.silent_bound())
        .0
}

#[test]
fn question_in_the_socket_of_a_frozen_holder_is_not_answered_with_its_address_on_waking() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let node = cluster.node("a");
    // One connection is taken before the freeze, and was answered; the other one is not even taken.
    let mut known = Asker::connect(node.dns);
    known.ask();
    let answer = until(GENEROUS, "the holder answers", || {
        known.heard().pop().ok_or("not yet".into())
    });
    assert_eq!(answer, (ResponseCode::NoError, vec![node.seat.front]));

    let since = now();
    cluster.freeze("a");
    let mut new = Asker::connect(node.dns);
    known.ask();
    new.ask();
    let to = taken_over(&cluster, since, "a");
    cluster.process("a").thaw();
    for asker in [&mut known, &mut new] {
        let answer = until(GENEROUS, "the thawed node answers", || {
            asker.heard().pop().ok_or("not yet".into())
        });
        let successor = (ResponseCode::NoError, vec![cluster.node(&to).seat.front]);
        assert!(
            answer == successor || answer == (ResponseCode::ServFail, Vec::new()),
            "on waking a said {answer:?}; {to} is active"
        );
    }
    cluster.settled();
    cluster.verify();
}

#[test]
fn answers_of_a_frozen_holder_that_had_found_no_room_do_not_leave_on_waking() {
    let cluster = Cluster::on_loopback(Plan::members(&NAMES).window(WINDOW));
    cluster.place("a");
    let node = cluster.node("a");
    // Where filling all that has room takes long, the server may lose its patience first.
    let (mut asker, asked) = until(GENEROUS, "there is no room", || {
        let mut asker = Asker::connect(node.dns);
        let asked = asker.ask_until_stuck()?;
        Ok((asker, asked))
    });
    let since = now();
    cluster.freeze("a");

    let to = taken_over(&cluster, since, "a");
    // What the kernel had taken leaves without the agent.
    let (mut before, mut last) = (0, now());
    until(GENEROUS, "nothing more comes of a frozen node", || {
        let heard = asker.heard().len();
        before += heard;
        if heard > 0 {
            last = now();
        }
        match now().since(last) > QUIET {
            true => Ok(()),
            false => Err(format!("{before} answers so far")),
        }
    });
    assert!(!asker.ended, "it was cut off too early: nothing is seen here");
    assert!(before < asked, "all {asked} were answered before");
    let frozen = now().since(since);
    cluster.process("a").thaw();

    // Later questions are answered, or the connection is ended.
    let mut woken = Vec::new();
    until(GENEROUS, "all is answered", || {
        woken.extend(asker.heard());
        match asker.ended || before + woken.len() >= asked {
            true => Ok(()),
            false => Err(format!("{before} answers, and {} of {asked}", woken.len())),
        }
    });
    eprintln!(
        "frozen for {frozen:?}: {before} of {asked} answers left before, {} on waking",
        woken.len()
    );
    let lie = woken
        .iter()
        .find(|(_, addresses)| addresses.contains(&node.seat.front));
    assert_eq!(lie, None, "on waking after {frozen:?}; {to} is active");
    cluster.settled();
    cluster.verify();
}
