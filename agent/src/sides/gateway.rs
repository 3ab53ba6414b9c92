//! Whether a gateway answers: ICMP echo (RFC 792, RFC 4443 §4), which every router knows. An ordinary user may send it from a socket made for
//! that, where net.ipv4.ping_group_range allows it (icmp(7)); root and CAP_NET_RAW may always.

use crate::addresses::resolver::on_network;
use baton_core::clients::Answers;
use baton_shared::clock::Mono;
use baton_shared::config::Network;
use baton_shared::timing::Timing;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// A socket that cannot be opened, because the network is not there, is tried again after this.
const REOPEN: Duration = Duration::from_secs(1);
/// So many questions may be under way: an answer to an earlier one says nothing.
const UNDER_WAY: u16 = 32;
/// Answers taken at once.
const BATCH: usize = 16;
/// Of an echo: type, code, checksum, identifier, sequence; and what is in it.
const HEADER: usize = 8;
const CONTENT: &[u8; 8] = b"baton gw";

/// One gateway.
pub(super) struct Gateway {
    name: String,
    to: SocketAddr,
    interface: Option<String>,
    answers: Answers,
    socket: Option<Echo>,
    /// Not opened again before this; never, if it is not permitted.
    reopen: Mono,
    denied: bool,
}

impl Gateway {
    pub(super) fn new(network: &Network, ip: IpAddr) -> Gateway {
        let mut to = on_network(ip, network);
        to.set_port(0);
        Gateway {
            name: network.name.to_string(),
            to,
            interface: network.interface.clone(),
            answers: Answers::default(),
            socket: None,
            reopen: Mono::ZERO,
            denied: false,
        }
    }

    /// Whether it is reached, as far as known.
    pub(super) fn reached(&self, timing: &Timing, now: Mono) -> Option<bool> {
        self.answers.reached(timing, now).filter(|_| !self.denied)
    }

    /// Asks it, if that is due. Returns when to look at it again.
    pub(super) fn ask(&mut self, from: Option<IpAddr>, timing: &Timing, now: Mono) -> Mono {
        if self.denied {
            return Mono::MAX;
        }
        if now >= self.answers.next(timing) {
            self.answers.asked(now);
            self.open(from, now);
            if let Some(socket) = &mut self.socket
                && let Err(error) = socket.ask()
                && error.kind() != ErrorKind::WouldBlock
            {
                // The network is down, or the address has gone; a socket that is opened later is as good as new.
                self.socket = None;
            }
        }
        // When the word changes without anything coming in.
        let words = [timing.lately, timing.missed].map(|silent| self.answers.since(silent));
        let words = words.into_iter().flatten().filter(|at| *at > now);
        words.fold(self.answers.next(timing), Mono::min)
    }

    fn open(&mut self, from: Option<IpAddr>, now: Mono) {
        let Some(from) = from.filter(|_| self.socket.is_none() && now >= self.reopen) else {
            return;
        };
        self.reopen = now + REOPEN;
        match Echo::open(from, self.to, self.interface.as_deref()) {
            Ok(echo) => self.socket = Some(echo),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.denied = true;
                tracing::warn!(
                    "networks.{}.gateway: {} cannot be asked, for this process may send no ICMP echo: let it by `sysctl -w \
                     net.ipv4.ping_group_range=\"0 2147483647\"`, or give it CAP_NET_RAW; until then the gateway counts for nothing here",
                    self.name,
                    self.to.ip()
                );
            }
            Err(error) => tracing::debug!(network = self.name, "the gateway cannot be asked: {error}"),
        }
    }

    /// Takes in answers; whether there were any. The task is woken when there are more.
    pub(super) fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(socket) = &self.socket else { return false };
        let (mut answered, mut left) = (false, BATCH);
        while left > 0
            && let Poll::Ready(received) = socket.poll_answer(cx)
        {
            // What is no answer is somebody else's packet, or a router's word that there is no way.
            answered |= matches!(received, Ok(true));
            left -= 1;
        }
        if left == 0 {
            cx.waker().wake_by_ref(); // more than a batch: the rest is taken at the next turn, which is at once
        }
        if answered {
            self.answers.answered(Mono::now());
        }
        answered
    }
}

/// A socket for echoes, connected to the gateway.
struct Echo {
    socket: UdpSocket,
    /// It is a raw one: of IPv4 the packet's own header comes in front, and nobody picks our answers out.
    raw: bool,
    v6: bool,
    id: u16,
    seq: u16,
}

fn echo_socket(domain: Domain) -> io::Result<(Socket, bool)> {
    let protocol = if domain == Domain::IPV6 {
        Protocol::ICMPV6
    } else {
        Protocol::ICMPV4
    };
    match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => Ok((socket, false)),
        Err(first) => match Socket::new(domain, Type::RAW, Some(protocol)) {
            Ok(socket) => Ok((socket, true)),
            // EPERM, EACCES: neither way is permitted.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
            Err(_) => Err(first),
        },
    }
}

/// Whether this process may send ICMP echoes of that version.
pub(crate) fn permitted(v6: bool) -> bool {
    echo_socket(if v6 { Domain::IPV6 } else { Domain::IPV4 }).is_ok()
}

impl Echo {
    fn open(from: IpAddr, to: SocketAddr, interface: Option<&str>) -> io::Result<Echo> {
        let (socket, raw) = echo_socket(Domain::for_address(to))?;
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        let mut from = SocketAddr::new(from, 0);
        if let (SocketAddr::V6(from), SocketAddr::V6(to)) = (&mut from, &to)
            && from.ip().is_unicast_link_local()
        {
            from.set_scope_id(to.scope_id());
        }
        socket.bind(&from.into())?;
        socket.connect(&to.into())?;
        socket.set_nonblocking(true)?;
        Ok(Echo {
            socket: UdpSocket::from_std(socket.into())?,
            raw,
            v6: to.is_ipv6(),
            id: std::process::id() as u16,
            seq: 0,
        })
    }

    fn ask(&mut self) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        self.socket
            .try_send(&question(self.v6, self.id, self.seq))
            .map(drop)
    }

    fn poll_answer(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut buffer = [0; 256];
        let mut buffer = ReadBuf::new(&mut buffer);
        self.socket.poll_recv(cx, &mut buffer).map(|received| {
            received?;
            let id = self.raw.then_some(self.id);
            Ok(is_answer(
                buffer.filled(),
                self.raw && !self.v6,
                self.v6,
                id,
                self.seq,
            ))
        })
    }
}

fn question(v6: bool, id: u16, seq: u16) -> [u8; HEADER + CONTENT.len()] {
    let mut packet = [0; HEADER + CONTENT.len()];
    packet[0] = if v6 { 128 } else { 8 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&seq.to_be_bytes());
    packet[HEADER..].copy_from_slice(CONTENT);
    // Of ICMPv6 the kernel fills it in.
    let sum = if v6 { 0 } else { checksum(&packet) };
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 1071.
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|two| match two {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high, ..] => u32::from(*high) << 8,
        [] => 0,
    });
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}

/// Whether this is the answer to one of the last questions. `whole`: with the header of IPv4; `id`: where others' answers come in, too.
fn is_answer(packet: &[u8], whole: bool, v6: bool, id: Option<u16>, seq: u16) -> bool {
    let skip = match packet.first() {
        Some(first) if whole => usize::from(first & 0xF) * 4,
        _ => 0,
    };
    let Some(
        &[
            kind,
            _,
            _,
            _,
            id_high,
            id_low,
            seq_high,
            seq_low,
            ref content @ ..,
        ],
    ) = packet.get(skip..)
    else {
        return false;
    };
    let of = u16::from_be_bytes([seq_high, seq_low]);
    let ours = id.is_none_or(|id| id == u16::from_be_bytes([id_high, id_low]));
    let answer = if v6 { 129 } else { 0 };
    kind == answer && ours && seq.wrapping_sub(of) < UNDER_WAY && content == CONTENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_everything_else() {
        let mut packet = question(false, 7, 300).to_vec();
        assert_eq!(checksum(&packet), 0, "as every receiver checks it");
        assert!(
            !is_answer(&packet, false, false, Some(7), 300),
            "it is the question"
        );
        packet[0] = 0;
        assert!(is_answer(&packet, false, false, Some(7), 300));
        assert!(is_answer(&packet, false, false, None, 310));
        assert!(!is_answer(&packet, false, false, Some(8), 300));
        assert!(!is_answer(&packet, false, false, Some(7), 299), "not asked yet");
        assert!(!is_answer(&packet, false, false, Some(7), 400), "long ago");
        let whole: Vec<u8> = [&[0x45; 20][..], &packet].concat();
        assert!(is_answer(&whole, true, false, Some(7), 300));
        for length in 0..whole.len() {
            assert!(!is_answer(&whole[..length], true, false, Some(7), 300));
        }
        let mut six = question(true, 7, 1).to_vec();
        six[0] = 129;
        assert!(is_answer(&six, false, true, Some(7), 1));
    }

    #[tokio::test]
    async fn loopback_answers_where_echoes_are_permitted() {
        if !permitted(false) {
            return;
        }
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        let mut echo = Echo::open(home, (home, 0).into(), None).unwrap();
        echo.socket.writable().await.unwrap();
        echo.ask().unwrap();
        let limit = tokio::time::timeout(Duration::from_secs(10), async {
            // A raw socket on loopback sees the question, too.
            while !std::future::poll_fn(|cx| echo.poll_answer(cx)).await.unwrap() {}
        });
        limit.await.expect("it answers");
    }
}
