//! Datagrams in batches, with the address that each was sent to: all `unsafe` of this crate is here, but for sockets that
//! are passed (`activation.rs`) and the turns of threads (`priority.rs`).
//!
//! A batch owns its memory; the kernel is given pointers into it for the length of one call only.

use socket2::Socket;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams taken by one call: enough to spread its cost, few enough that the last is answered within 0.1 ms.
pub(crate) const BATCH: usize = 32;
/// Longest query taken. Names and options of a query are far below one Ethernet frame.
const QUERY_MAX: usize = 1500;
/// Longest response.
const REPLY_MAX: usize = crate::answer::EDNS_SIZE as usize;
/// Room for control messages, in words: the header's 16 octets and at most 20 of IPV6_PKTINFO, aligned; and as much
/// again and more for others, such as timestamps, that whoever passed the socket has asked for.
const CONTROL_WORDS: usize = 16;

/// Asks the kernel to say to which address each datagram was sent (IP_PKTINFO, RFC 3542 §6 for IPv6).
pub(crate) fn receive_destination(socket: &Socket, v6: bool) -> io::Result<()> {
    let (level, name) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a c_int that lives through the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One datagram and its response.
struct Slot {
    query: [u8; QUERY_MAX],
    query_len: usize,
    peer: Peer,
    peer_len: libc::socklen_t,
    /// The address asked; on sockets bound to one address the kernel knows it without.
    source: Source,
    reply: [u8; REPLY_MAX],
    reply_len: usize,
}

/// A client's socket address: the kernel writes the one of the socket's family, and both begin with it.
#[derive(Clone, Copy)]
union Peer {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Peer {
    /// An IPv4 address that IPv6 carries is given as what it is: a passed socket may take both.
    fn ip(&self) -> IpAddr {
        // SAFETY: both variants are plain data, for which all bytes are values; the family says which one it is.
        unsafe {
            if i32::from(self.v4.sin_family) == libc::AF_INET {
                Ipv4Addr::from_bits(u32::from_be(self.v4.sin_addr.s_addr)).into()
            } else {
                Ipv6Addr::from(self.v6.sin6_addr.s6_addr).to_canonical()
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Source {
    Bound,
    V4(libc::in_pktinfo),
    V6(libc::in6_pktinfo),
}

/// Control messages; words, for their alignment.
type Control = [MaybeUninit<u64>; CONTROL_WORDS];
const NO_CONTROL: Control = [MaybeUninit::uninit(); CONTROL_WORDS];

/// Up to [`BATCH`] datagrams and their responses.
pub(crate) struct Batch {
    slots: Box<[Slot]>,
    filled: usize,
}

impl Batch {
    pub fn new() -> Batch {
        let slot = || Slot {
            query: [0; QUERY_MAX],
            query_len: 0,
            // SAFETY: the union is plain data for which all zeroes is a value (AF_UNSPEC).
            peer: unsafe { mem::zeroed() },
            peer_len: 0,
            source: Source::Bound,
            reply: [0; REPLY_MAX],
            reply_len: 0,
        };
        Batch {
            slots: (0..BATCH).map(|_| slot()).collect(),
            filled: 0,
        }
    }

    /// Takes what has arrived, and gives the number of datagrams; never waits.
    pub fn receive(&mut self, socket: BorrowedFd) -> io::Result<usize> {
        self.filled = 0;
        let mut controls = [NO_CONTROL; BATCH];
        let mut vectors = [const { MaybeUninit::uninit() }; BATCH];
        let mut messages = [const { MaybeUninit::uninit() }; BATCH];
        let slots = self.slots.iter_mut().zip(&mut controls);
        for ((slot, control), (vector, message)) in slots.zip(vectors.iter_mut().zip(&mut messages)) {
            let vector = vector.write(libc::iovec {
                iov_base: slot.query.as_mut_ptr().cast(),
                iov_len: QUERY_MAX,
            });
            let header = message.write(message_of(vector, &mut slot.peer, PEER_SIZE));
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = mem::size_of_val(control) as _;
        }
        // SAFETY: every header is written, and points to buffers of the lengths given, which are borrowed mutably, or
        // are locals, until this function returns. MSG_DONTWAIT and no timeout: the call does not wait.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (slot, message) in self.slots.iter_mut().zip(&messages).take(filled) {
            // SAFETY: every message was written above.
            let message = unsafe { message.assume_init_ref() };
            let cut = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            slot.query_len = if cut { 0 } else { message.msg_len as usize };
            slot.peer_len = message.msg_hdr.msg_namelen.min(PEER_SIZE);
            slot.source = source(&message.msg_hdr);
            slot.reply_len = 0;
        }
        self.filled = filled;
        Ok(filled)
    }

    /// Datagrams received.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Has `respond` answer each query and its client into its reply buffer; it gives the reply's length, 0 for none. A
    /// query that was too long is given as an empty one.
    pub fn answer(&mut self, mut respond: impl FnMut(&[u8], IpAddr, &mut [u8]) -> usize) {
        for slot in self.slots.iter_mut().take(self.filled) {
            let query = slot.query.get(..slot.query_len).unwrap_or_default();
            slot.reply_len = respond(query, slot.peer.ip(), &mut slot.reply).min(REPLY_MAX);
        }
    }

    /// Sends the replies, and gives the number of those that the kernel did not take; never waits, for an answer that
    /// waits may have become a lie (S4).
    pub fn send(&mut self, socket: BorrowedFd) -> usize {
        let mut controls = [NO_CONTROL; BATCH];
        let mut vectors = [const { MaybeUninit::uninit() }; BATCH];
        let mut messages = [const { MaybeUninit::uninit() }; BATCH];
        let answered = self.slots.iter_mut().take(self.filled);
        let answered = answered.filter(|slot| slot.reply_len > 0);
        let mut count = 0;
        for ((slot, control), (vector, message)) in answered
            .zip(&mut controls)
            .zip(vectors.iter_mut().zip(&mut messages))
        {
            let vector = vector.write(libc::iovec {
                iov_base: slot.reply.as_mut_ptr().cast(),
                iov_len: slot.reply_len,
            });
            let message = message.write(message_of(vector, &mut slot.peer, slot.peer_len));
            put_source(&mut message.msg_hdr, control, slot.source);
            count += 1;
        }
        let mut failed = 0;
        let mut rest = &mut messages[..count];
        while !rest.is_empty() {
            // SAFETY: as in `receive`; `rest` holds headers that were written above.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    rest.as_mut_ptr().cast(),
                    rest.len() as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            let done = match usize::try_from(sent) {
                Ok(sent) => sent,
                Err(_) => match io::Error::last_os_error().kind() {
                    io::ErrorKind::Interrupted => 0,
                    io::ErrorKind::WouldBlock => return failed + rest.len(),
                    // This one's peer cannot be reached; the others' may be.
                    _ => {
                        failed += 1;
                        1
                    }
                },
            };
            rest = rest.get_mut(done..).unwrap_or_default();
        }
        failed
    }
}

const PEER_SIZE: libc::socklen_t = mem::size_of::<Peer>() as libc::socklen_t;

/// A message of one buffer, without control messages.
fn message_of(vector: &mut libc::iovec, peer: &mut Peer, peer_len: libc::socklen_t) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data for which all zeroes is a value: no name, no buffers, no control.
    let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
    message.msg_hdr.msg_iov = vector;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_name = (&raw mut *peer).cast();
    message.msg_hdr.msg_namelen = peer_len;
    message
}

/// The address that a received datagram was sent to, as the source of its reply. The interface is left to the routing
/// table, save for link-local addresses, which mean nothing without one.
fn source(header: &libc::msghdr) -> Source {
    // SAFETY: the kernel has filled `header`: its control pointer and length describe whole control messages.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: it is null, or a control message of `header`.
    while let Some(message) = unsafe { next.as_ref() } {
        if let Some(source) = packet_info(message) {
            return source;
        }
        // A passed socket may have asked for others, too. SAFETY: `message` is one of `header`.
        next = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    Source::Bound
}

/// The address in a control message that has one.
fn packet_info(message: &libc::cmsghdr) -> Option<Source> {
    // SAFETY: `message` is a whole control message, so that its data begins where CMSG_DATA says.
    let data = unsafe { libc::CMSG_DATA(message) };
    match (message.cmsg_level, message.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: the data of an IP_PKTINFO message is an in_pktinfo; it may be unaligned.
            let mut info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
            info.ipi_ifindex = 0;
            Some(Source::V4(info))
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: the data of an IPV6_PKTINFO message is an in6_pktinfo; it may be unaligned.
            let mut info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
            let [b0, b1, ..] = info.ipi6_addr.s6_addr;
            let link_local = b0 == 0xfe && b1 & 0xc0 == 0x80;
            if !link_local {
                info.ipi6_ifindex = 0;
            }
            Some(Source::V6(info))
        }
        _ => None,
    }
}

/// Writes the control message that has the reply leave from `source`.
fn put_source(header: &mut libc::msghdr, control: &mut Control, source: Source) {
    match source {
        Source::Bound => {}
        Source::V4(info) => put_control(header, control, libc::IPPROTO_IP, libc::IP_PKTINFO, info),
        Source::V6(info) => put_control(header, control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info),
    }
}

fn put_control<T: Copy>(header: &mut libc::msghdr, control: &mut Control, level: i32, kind: i32, data: T) {
    let size = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: pure arithmetic on a length.
    let space = unsafe { libc::CMSG_SPACE(size) } as usize;
    assert!(
        space <= mem::size_of_val(control),
        "CONTROL_WORDS has room for it"
    );
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = space as _;
    // SAFETY: `header` now describes `control`, which has room for a header and a `T`, as asserted, and is aligned for
    // cmsghdr, being made of u64. CMSG_FIRSTHDR is therefore not null, and CMSG_DATA lies within.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    /// A passed socket may be told to date its datagrams, and dates come first.
    #[test]
    fn address_asked_is_found_behind_other_control_messages() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        let socket = Socket::from(server.try_clone().unwrap());
        receive_destination(&socket, false).unwrap();
        let on: libc::c_int = 1;
        // SAFETY: the option's value is a c_int that lives through the call, and its size is given.
        let dated = unsafe {
            libc::setsockopt(
                server.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPNS,
                (&raw const on).cast(),
                mem::size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(dated, 0);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Connected, it hears this address alone.
        client
            .connect(("127.0.0.9", server.local_addr().unwrap().port()))
            .unwrap();
        client.send(b"?").unwrap();
        let mut batch = Batch::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while batch.receive(server.as_fd()).is_err() {
            assert!(Instant::now() < deadline, "it never came");
        }
        batch.answer(|_, _, reply| {
            reply[0] = b'!';
            1
        });
        assert_eq!(batch.send(server.as_fd()), 0);
        let mut reply = [0; 8];
        assert_eq!(client.recv(&mut reply).unwrap(), 1);
        assert_eq!(reply[0], b'!');
    }
}
