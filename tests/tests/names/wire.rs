//! Questions made by hand, so that nothing corrects them, and answers read by another implementation than ours.

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
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
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
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
