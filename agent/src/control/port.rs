//! One network's UDP socket: opened at start, opened again when its interface or address went away and came back.
//!
//! No error on one network touches another, ends the loop, or makes it spin.

use super::ground::Datagrams;
use baton_shared::clock::Mono;
use baton_shared::seal::MAX_DATAGRAM;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// DSCP CS6, "network control" (RFC 2474), as the byte that carries it.
const CS6: u32 = 0xC0;
/// Room for a second of heartbeats from 32 nodes at the shortest interval.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Errors of peers that are skipped before a socket is left alone for a while.
const MAX_ICMP: usize = 8;
/// How long a socket that fails to receive is left alone.
const REST: Duration = Duration::from_millis(20);
/// How long a socket may fail without one success before it is opened again, and between two attempts.
const REOPEN: Duration = Duration::from_secs(1);

/// One network's socket.
pub struct Port {
    /// For messages: the network's name.
    name: String,
    /// Bound to this interface.
    interface: Option<String>,
    /// Where it is bound, or was, or is to be; `None` while this node's name there does not resolve.
    addr: Option<SocketAddr>,
    socket: Option<UdpSocket>,
    /// Since when every attempt failed.
    failing: Option<Mono>,
    /// Not read from before this.
    resting: Mono,
    /// Not opened again before this.
    reopen: Mono,
}

/// Opens a nonblocking socket for heartbeats.
fn open(addr: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    // Preferences: without them heartbeats still work.
    let marked = if addr.is_ipv6() {
        socket.set_tclass_v6(CS6)
    } else {
        socket.set_tos_v4(CS6)
    };
    if let Err(error) = marked {
        tracing::debug!("heartbeats from {addr} carry no DSCP mark: {error}");
    }
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!("{addr} keeps the default receive buffer: {error}");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

impl Port {
    /// Opens the socket of a network.
    pub fn open(name: &str, addr: SocketAddr, interface: Option<&str>) -> io::Result<Port> {
        let socket = open(addr, interface)?;
        Ok(Port {
            name: name.into(),
            interface: interface.map(Into::into),
            addr: Some(socket.local_addr()?),
            socket: Some(socket),
            failing: None,
            resting: Mono::ZERO,
            reopen: Mono::ZERO,
        })
    }

    /// One whose network is not there yet: it is opened when it comes.
    pub fn missing(name: &str, addr: Option<SocketAddr>, interface: Option<&str>) -> Port {
        Port {
            name: name.into(),
            interface: interface.map(Into::into),
            addr,
            socket: None,
            failing: None,
            resting: Mono::ZERO,
            reopen: Mono::ZERO,
        }
    }

    /// Where it is bound, or is to be.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.addr
    }

    /// What to wait for, unless the socket rests or is closed.
    pub fn readable(&self, now: Mono) -> Option<BorrowedFd<'_>> {
        (now >= self.resting).then_some(self.socket.as_ref()?.as_fd())
    }

    fn fail(&mut self, error: &io::Error, now: Mono) {
        if self.failing.is_none() {
            tracing::debug!(network = self.name, "the socket fails: {error}");
            self.failing = Some(now);
        }
    }
}

impl Datagrams for Port {
    fn wake(&self, now: Mono) -> Option<Mono> {
        let rest = (now < self.resting && self.socket.is_some()).then_some(self.resting);
        let repair = match self.failing {
            _ if self.socket.is_none() => Some(self.reopen),
            Some(since) => Some((since + REOPEN).max(self.reopen)),
            None => None,
        };
        rest.into_iter().chain(repair).min()
    }

    fn send(&mut self, datagram: &[u8], to: SocketAddr, now: Mono) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        match socket.send_to(datagram, to) {
            Ok(_) => {
                self.failing = None;
                true
            }
            Err(error) => {
                if is_local(&error) {
                    self.fail(&error, now);
                }
                false
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8; MAX_DATAGRAM + 1], now: Mono) -> Option<(usize, IpAddr)> {
        let socket = self.socket.as_ref()?;
        for _ in 0..MAX_ICMP {
            match socket.recv_from(buffer) {
                Ok((length, from)) => return Some((length, from.ip())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                // One peer's trouble (an ICMP answer), or a signal: taken off the socket by reading it.
                Err(error) if !is_local(&error) => {}
                Err(error) => {
                    self.fail(&error, now);
                    break;
                }
            }
        }
        self.resting = now + REST;
        None
    }

    fn repair(&mut self, addr: Option<SocketAddr>, now: Mono) {
        if self.wake(now).is_none_or(|at| now < at) || now < self.reopen {
            return;
        }
        let long_enough = self.failing.is_some_and(|since| now >= since + REOPEN);
        if self.socket.is_some() && !long_enough {
            return;
        }
        let was_open = self.socket.take().is_some(); // closed first: the new one needs the port
        self.reopen = now + REOPEN;
        self.addr = addr.or(self.addr);
        let Some(addr) = self.addr else { return };
        match open(addr, self.interface.as_deref()) {
            Ok(socket) => {
                if !was_open {
                    tracing::info!(network = self.name, "heartbeats are sent from {addr} now");
                }
                self.socket = Some(socket);
                self.failing = None;
            }
            Err(error) if was_open => {
                tracing::warn!(
                    network = self.name,
                    "no heartbeats on this network: cannot bind {addr}: {error} (tried again every second)"
                );
            }
            Err(_) => {}
        }
    }
}

/// Whether an error tells of this node's own interface or address, rather than of one peer or of a full buffer.
fn is_local(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EINTR
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EPERM
                | libc::EMSGSIZE
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::EAFNOSUPPORT
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(name: &str) -> Port {
        Port::open(name, "127.0.0.1:0".parse().unwrap(), None).unwrap()
    }

    #[test]
    fn sends_marked_datagrams_and_receives_them() {
        let (mut a, mut b) = (loopback("a"), loopback("b"));
        let sock = socket2::SockRef::from(a.socket.as_ref().unwrap());
        assert_eq!(sock.tos_v4().unwrap(), CS6);
        let mut buffer = [0; MAX_DATAGRAM + 1];
        assert_eq!(b.receive(&mut buffer, Mono(1)), None);
        assert!(a.send(b"hello", b.addr().unwrap(), Mono(1)));
        let bell = super::super::bell::Bell::new().unwrap();
        bell.sleep(&[b.readable(Mono(1))], Mono::now() + Duration::from_secs(10));
        let from = "127.0.0.1".parse().unwrap();
        assert_eq!(b.receive(&mut buffer, Mono(1)), Some((5, from)));
        assert_eq!(&buffer[..5], b"hello");
    }

    #[test]
    fn ipv6_works_where_there_is_ipv6() {
        let Ok(mut port) = Port::open("six", "[::1]:0".parse().unwrap(), None) else {
            return;
        };
        let to = port.addr().unwrap();
        assert!(port.send(b"x", to, Mono(1)));
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_are_errors() {
        let taken = loopback("a");
        let error = Port::open("b", taken.addr().unwrap(), None).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        let error = Port::open("b", "192.0.2.1:0".parse().unwrap(), None)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn a_socket_that_fails_is_closed_and_opened_again() {
        let second = Duration::from_secs(1);
        let mut port = loopback("a");
        let addr = port.addr().unwrap();
        let start = Mono(1_000);
        port.fail(&io::Error::from_raw_os_error(libc::ENODEV), start);
        assert_eq!(port.wake(start), Some(start + REOPEN));
        port.repair(None, start);
        assert!(port.socket.is_some() && port.failing.is_some(), "too early");
        // The address is gone: it stays closed, and is tried once a second.
        let gone = SocketAddr::new("192.0.2.1".parse().unwrap(), addr.port());
        port.repair(Some(gone), start + second);
        assert!(port.socket.is_none());
        assert!(!port.send(b"x", addr, start + second));
        assert_eq!(port.wake(start + second), Some(start + second * 2));
        port.repair(Some(addr), start + second * 2);
        assert!(port.send(b"x", addr, start + second * 2));
        assert_eq!(port.wake(start + second * 2), None);
    }

    #[test]
    fn a_network_that_is_missing_at_the_start_is_joined_when_it_comes() {
        let second = Duration::from_secs(1);
        let addr = loopback("a").addr().unwrap(); // free again at once
        let start = Mono(1_000);
        // Its address is not known, then not here.
        let mut port = Port::missing("back", None, None);
        port.repair(None, start);
        assert!(!port.send(b"x", addr, start) && port.readable(start).is_none());
        assert_eq!(port.wake(start), Some(start + REOPEN));
        let gone = SocketAddr::new("192.0.2.1".parse().unwrap(), addr.port());
        port.repair(Some(gone), start + second);
        assert!(!port.send(b"x", addr, start + second));
        port.repair(Some(addr), start + second * 2);
        assert!(port.send(b"x", addr, start + second * 2));
        assert_eq!(port.wake(start + second * 2), None);
        // And so is one whose port another program has, until that lets go.
        let taken = loopback("b");
        let addr = taken.addr().unwrap();
        let mut port = Port::missing("front", Some(addr), None);
        port.repair(None, start);
        assert!(port.readable(start).is_none());
        drop(taken);
        port.repair(None, start + second);
        assert!(port.readable(start + second).is_some());
    }

    #[test]
    fn one_peers_trouble_is_not_the_sockets() {
        let mut port = loopback("a");
        let dead = loopback("b").addr().unwrap(); // closed at once
        for _ in 0..3 {
            port.send(b"x", dead, Mono(1));
        }
        let six = "[2001:db8::1]:7400".parse().unwrap();
        assert!(!port.send(b"x", six, Mono(1)));
        assert_eq!(port.wake(Mono(1)), None);
    }
}
