//! Questions made by hand, so that nothing corrects them, and answers read by another implementation than ours.

use baton_tests::load::framed;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long an answer may take on loopback before it counts as none. A server answers within a millisecond; the rest is
/// for a machine that runs other things.
pub const ANSWER_LIMIT: Duration = Duration::from_millis(700);

/// One question, and what goes around it.
#[derive(Clone, Debug)]
pub struct Question {
    pub id: u16,
    /// The two octets behind the id.
    pub flags: u16,
    pub name: String,
    pub qtype: u16,
    pub qclass: u16,
    /// Size, the TTL field (extended code, version, flags), and options of an OPT record.
    pub edns: Option<(u16, u32, Vec<u8>)>,
}

impl Question {
    /// A plain question of class IN with RD set, as stub resolvers ask.
    pub fn new(name: &str, qtype: RecordType) -> Question {
        Question {
            id: 0x1234,
            flags: 0x0100,
            name: name.to_owned(),
            qtype: qtype.into(),
            qclass: 1,
            edns: None,
        }
    }

    /// In wire form.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let additional = u16::from(self.edns.is_some());
        for word in [self.id, self.flags, 1, 0, 0, additional] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&name(&self.name));
        bytes.extend_from_slice(&self.qtype.to_be_bytes());
        bytes.extend_from_slice(&self.qclass.to_be_bytes());
        if let Some((size, ttl, options)) = &self.edns {
            bytes.extend_from_slice(&opt(*size, *ttl, options));
        }
        bytes
    }
}

/// A name in wire form; labels between dots, empty for the root.
pub fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

/// An OPT record (RFC 6891 §6.1.2).
pub fn opt(size: u16, ttl: u32, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 41];
    bytes.extend_from_slice(&size.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&(options.len() as u16).to_be_bytes());
    bytes.extend_from_slice(options);
    bytes
}

/// Sends one datagram, and gives what comes back from there.
pub fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.send(question)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Reads an answer to its last byte.
#[track_caller]
pub fn read(reply: &[u8]) -> Message {
    Message::from_vec(reply).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"))
}

/// A zone as it was copied: its serial, and all records but the SOA.
pub type Copied = (u32, BTreeSet<String>);

/// Copies a zone over an open connection (RFC 5936); `None` if it is not given.
pub fn copy(stream: &mut TcpStream, zone: &str) -> io::Result<Option<Copied>> {
    stream.write_all(&framed(&Question::new(zone, RecordType::AXFR).bytes()))?;
    let (mut serials, mut records) = (Vec::new(), BTreeSet::new());
    // The SOA is the first record and the last one.
    while serials.len() < 2 {
        let mut prefix = [0; 2];
        stream.read_exact(&mut prefix)?;
        let mut bytes = vec![0; u16::from_be_bytes(prefix).into()];
        stream.read_exact(&mut bytes)?;
        let message = read(&bytes);
        if message.response_code != ResponseCode::NoError {
            return Ok(None);
        }
        for record in message.answers {
            match &record.data {
                RData::SOA(soa) => serials.push(soa.serial),
                _ => {
                    records.insert(record.to_string());
                }
            }
        }
    }
    assert_eq!(serials[0], serials[1], "a copy of one zone");
    Ok(Some((serials[0], records)))
}
