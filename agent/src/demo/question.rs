//! A DNS question for probes: one A record over UDP (RFC 1035 §4.1), with no retry, so that every answer is a sample.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Answer code "no error" (RFC 1035 §4.1.1).
pub const NOERROR: u8 = 0;
/// Answer code "server failure": the server does not know.
pub const SERVFAIL: u8 = 2;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Answer code.
    pub code: u8,
    /// The A records, in the order they came.
    pub addresses: Vec<Ipv4Addr>,
}

/// A socket that asks one server for the addresses of one name.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
    question: Vec<u8>,
    id: u16,
}

impl Asker {
    /// Prepares questions for `name` to `server`; an answer is awaited for at most `limit`.
    pub fn new(server: SocketAddr, name: &str, limit: Duration) -> io::Result<Asker> {
        let any: SocketAddr = if server.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(limit))?;
        let mut question = Vec::new();
        for label in name.trim_end_matches('.').split('.') {
            let length = u8::try_from(label.len())
                .ok()
                .filter(|n| (1..=63).contains(n))
                .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, format!("not a DNS name: {name}")))?;
            question.push(length);
            question.extend_from_slice(label.as_bytes());
        }
        question.extend_from_slice(&[0, 0, 1, 0, 1]); // root, type A, class IN
        Ok(Asker {
            socket,
            question,
            id: 0,
        })
    }

    /// Asks, and waits for the answer to this very question.
    pub fn ask(&mut self) -> io::Result<Reply> {
        self.id = self.id.wrapping_add(1);
        let mut message = self.id.to_be_bytes().to_vec();
        message.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]); // no flags, one question
        message.extend_from_slice(&self.question);
        self.socket.send(&message)?;
        let mut buffer = [0u8; 1500];
        loop {
            let length = self.socket.recv(&mut buffer)?;
            let reply = &buffer[..length];
            if reply.get(..2) == Some(&self.id.to_be_bytes()) {
                return parse(reply).ok_or_else(|| ErrorKind::InvalidData.into());
            }
        }
    }
}

/// Reads an answer; `None` if it is cut short.
fn parse(message: &[u8]) -> Option<Reply> {
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let code = message.get(3)? & 0x0f;
    let mut at = 12;
    for _ in 0..number(4)? {
        at = skip_name(message, at)? + 4;
    }
    let mut addresses = Vec::new();
    for _ in 0..number(6)? {
        at = skip_name(message, at)?;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        let data = message.get(at + 10..at + 10 + length)?;
        if let (1, Ok(octets)) = (kind, <[u8; 4]>::try_from(data)) {
            addresses.push(octets.into());
        }
        at += 10 + length;
    }
    Some(Reply { code, addresses })
}

/// The place after the name at `at`; a pointer ends a name (RFC 1035 §4.1.4).
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_and_survives_every_cut() {
        let mut message = vec![0, 1, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend_from_slice(b"\x06orders\x08internal\x00\x00\x01\x00\x01");
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 1, 11]);
        let reply = parse(&message).unwrap();
        assert_eq!(reply.code, NOERROR);
        assert_eq!(reply.addresses, [Ipv4Addr::new(10, 0, 1, 11)]);
        for cut in 0..message.len() {
            assert_eq!(parse(&message[..cut]), None, "{cut}");
        }
    }
}
