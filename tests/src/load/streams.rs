//! The same over TCP: many connections from several addresses, each with as many questions under way as a batch has.

use super::{BATCH, Flood};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// Between two looks at the clock where nothing comes.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};
/// Octets of the length in front of each message (RFC 1035 §4.2.2).
const PREFIX: usize = 2;
const BUFFER: usize = 16 << 10;

/// Asks `questions` in turn for `duration`, over `each` connections from every one of `sources`; each connection asks anew
/// as soon as all that it asked is answered. One that the server ends is opened again, and what it had asked is lost.
///
/// # Errors
///
/// When the server cannot be connected to.
pub fn flood_streams(
    server: SocketAddrV4,
    sources: &[Ipv4Addr],
    each: usize,
    questions: &[Vec<u8>],
    duration: Duration,
) -> io::Result<Flood> {
    let asked: Vec<u8> = questions
        .iter()
        .cycle()
        .take(BATCH)
        .flat_map(|q| framed(q))
        .collect();
    let sources = sources
        .iter()
        .flat_map(|source| std::iter::repeat_n(*source, each));
    let open = |source| Line::open(source, server);
    let mut lines = sources.map(open).collect::<io::Result<Vec<_>>>()?;
    let mut buffer = vec![0; BUFFER];
    let (mut answered, mut lost) = (0, 0);
    let start = Instant::now();
    while start.elapsed() < duration {
        for line in lines.iter_mut().filter(|line| line.waiting == 0) {
            match line.ask(&asked) {
                Ok(()) => {}
                Err(_) => *line = Line::open(line.source, server)?,
            }
        }
        for at in ready(&lines)? {
            let line = &mut lines[at];
            match line.hear(&mut buffer) {
                Ok(good) => answered += good,
                Err(_) => {
                    lost += line.waiting;
                    *line = Line::open(line.source, server)?;
                }
            }
        }
    }
    Ok(Flood {
        answered,
        lost,
        elapsed: start.elapsed(),
    })
}

/// A question, or any message, with its length in front.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// The connections on which something has come, or that have ended.
fn ready(lines: &[Line]) -> io::Result<Vec<usize>> {
    let mut waiting: Vec<PollFd> = lines
        .iter()
        .map(|line| PollFd::new(&line.stream, PollFlags::IN))
        .collect();
    match poll(&mut waiting, Some(&LOOK)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = waiting
        .iter()
        .enumerate()
        .filter(|(_, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(at, _)| at).collect())
}

/// One connection.
struct Line {
    source: Ipv4Addr,
    stream: TcpStream,
    /// Questions that are not answered yet.
    waiting: u64,
    /// The beginning of an answer that has not come as a whole.
    part: Vec<u8>,
}

impl Line {
    fn open(source: Ipv4Addr, server: SocketAddrV4) -> io::Result<Line> {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&fd, &SocketAddrV4::new(source, 0))?;
        connect(&fd, &SocketAddr::from(server))?;
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Line {
            source,
            stream,
            waiting: 0,
            part: Vec::new(),
        })
    }

    /// Asks a batch, for which an idle connection has room.
    fn ask(&mut self, asked: &[u8]) -> io::Result<()> {
        self.stream.write_all(asked)?;
        self.waiting = BATCH as u64;
        Ok(())
    }

    /// Takes what has come, and gives how many of the answers are without an error.
    fn hear(&mut self, buffer: &mut [u8]) -> io::Result<u64> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        self.part.extend_from_slice(&buffer[..length]);
        let (mut good, mut at) = (0, 0);
        while let Some(prefix) = self.part[at..].first_chunk::<PREFIX>() {
            let end = at + PREFIX + usize::from(u16::from_be_bytes(*prefix));
            let Some(answer) = self.part.get(at + PREFIX..end) else {
                break;
            };
            good += u64::from(super::is_good(answer));
            self.waiting = self.waiting.saturating_sub(1);
            at = end;
        }
        self.part.drain(..at);
        Ok(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::question;
    use std::net::TcpListener;

    /// Answers every question of a connection in pieces, one in two of them with an error, and ends it after some.
    fn answer(mut stream: TcpStream) -> io::Result<()> {
        for number in 0..5 * BATCH {
            let mut prefix = [0; PREFIX];
            stream.read_exact(&mut prefix)?;
            let mut message = vec![0; u16::from_be_bytes(prefix).into()];
            stream.read_exact(&mut message)?;
            message[2] |= 0x80;
            message[3] = if number % 2 == 0 { 0 } else { 2 };
            for piece in framed(&message).chunks(5) {
                stream.write_all(piece)?;
            }
        }
        Ok(())
    }

    #[test]
    fn counts_good_answers_and_goes_on_where_a_connection_ends() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has ports");
        let SocketAddr::V4(server) = listener.local_addr().expect("it is bound") else {
            panic!("it was bound to IPv4");
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer(stream));
            }
        });
        let questions = [question("orders.internal", 1)];
        let sources = [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)];
        let flooded = flood_streams(server, &sources, 2, &questions, Duration::from_millis(500));
        let flooded = flooded.expect("loopback works");
        assert!(
            flooded.answered > 2 * 2 * 5 * BATCH as u64 / 2,
            "no connection was opened again: {flooded:?}"
        );
    }
}
