//! Listening sockets: bound before anything runs, UDP and TCP on the same address and port.

use crate::activation::Passed;
use crate::mmsg;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Bytes of kernel buffer asked for each way; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER: usize = 1 << 20;
/// The same for a TCP connection, which else may have megabytes for answers that its client asks for and does not read.
const STREAM_BUFFER: usize = 32 * 1024;
/// TCP connections waiting to be accepted.
const BACKLOG: i32 = 1024;
/// Ports tried when any will do, and TCP's of the same number is taken.
const PORT_TRIES: usize = 32;

/// UDP and TCP sockets of one address.
pub(crate) struct Listener {
    pub addr: SocketAddr,
    /// One for each thread that answers; more than one share the port (SO_REUSEPORT).
    pub udp: Vec<UdpSocket>,
    pub tcp: TcpListener,
}

impl Listener {
    /// Binds both, with as many UDP sockets as there are `threads`; or takes those of `passed` that are bound already. `early`: though
    /// the address is not there yet. The error says what to do about it.
    pub fn bind(
        addr: SocketAddr,
        threads: usize,
        passed: &mut Passed,
        early: bool,
    ) -> Result<Listener, String> {
        let udp = passed.bound_to(addr, Type::DGRAM);
        let tcp = passed.bound_to(addr, Type::STREAM).pop();
        let udp = match udp.first() {
            Some(_) => Some(passed_udp(&udp, addr, threads).map_err(|error| advice(addr, "UDP", &error))?),
            None => None,
        };
        let tcp = match tcp {
            Some(tcp) => Some(passed_tcp(tcp).map_err(|error| advice(addr, "TCP", &error))?),
            None => None,
        };
        match (udp, tcp) {
            (None, None) => Listener::bind_both(addr, threads, early),
            (udp, tcp) => Ok(Listener {
                addr,
                udp: match udp {
                    Some(udp) => udp,
                    None => self::udp(addr, threads, early).map_err(|error| advice(addr, "UDP", &error))?,
                },
                tcp: match tcp {
                    Some(tcp) => tcp,
                    None => self::tcp(addr, early).map_err(|error| advice(addr, "TCP", &error))?,
                },
            }),
        }
    }

    fn bind_both(addr: SocketAddr, threads: usize, early: bool) -> Result<Listener, String> {
        let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let udp = self::udp(addr, threads, early).map_err(|error| advice(addr, "UDP", &error))?;
            let bound = udp.first().map_or(Ok(addr), UdpSocket::local_addr);
            let bound = bound.map_err(|error| advice(addr, "UDP", &error))?;
            // That another program shares the UDP port as well is seen here alone.
            match self::tcp(bound, early) {
                Ok(tcp) => {
                    return Ok(Listener {
                        addr: bound,
                        udp,
                        tcp,
                    });
                }
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(advice(bound, "TCP", &error)),
            }
        }
    }
}

/// As many sockets as there are `threads`, which share the port (SO_REUSEPORT).
fn udp(addr: SocketAddr, threads: usize, early: bool) -> io::Result<Vec<UdpSocket>> {
    let first = udp_socket(addr, threads > 1, early)?;
    let bound = first.local_addr()?;
    let more = (1..threads).map(|_| udp_socket(bound, true, early));
    std::iter::once(Ok(first)).chain(more).collect()
}

/// The sockets passed, for each of `threads`: of fewer, some threads share one.
fn passed_udp(passed: &[Socket], addr: SocketAddr, threads: usize) -> io::Result<Vec<UdpSocket>> {
    for socket in passed {
        socket.set_nonblocking(true)?;
        if addr.ip().is_unspecified() {
            mmsg::receive_destination(socket, addr.is_ipv6())?;
        }
    }
    let sockets = passed.iter().cycle().take(threads.max(passed.len()));
    sockets.map(|socket| Ok(socket.try_clone()?.into())).collect()
}

fn passed_tcp(passed: Socket) -> io::Result<TcpListener> {
    passed.set_nonblocking(true)?;
    bound_streams(&passed)?;
    passed.listen(BACKLOG)?; // in case that nobody has; else it only says how many may wait
    Ok(passed.into())
}

fn udp_socket(addr: SocketAddr, shared: bool, early: bool) -> io::Result<UdpSocket> {
    let socket = socket(addr, Type::DGRAM, Protocol::UDP)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    if addr.ip().is_unspecified() {
        mmsg::receive_destination(&socket, addr.is_ipv6())?;
    }
    bind_to(&socket, addr, early)?;
    Ok(socket.into())
}

fn tcp(addr: SocketAddr, early: bool) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    bound_streams(&socket)?;
    bind_to(&socket, addr, early)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds it; `early`: though the address is not there yet. Questions are answered there when it comes.
fn bind_to(socket: &Socket, addr: SocketAddr, early: bool) -> io::Result<()> {
    match socket.bind(&addr.into()) {
        Err(error) if early && error.kind() == io::ErrorKind::AddrNotAvailable => {
            tracing::warn!(
                "this machine does not have {} yet; DNS is answered there when it comes",
                addr.ip()
            );
            match addr {
                SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
                SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
            }
            socket.bind(&addr.into())
        }
        bound => bound,
    }
}

/// What is accepted inherits this (tcp(7)).
fn bound_streams(socket: &Socket) -> io::Result<()> {
    socket.set_recv_buffer_size(STREAM_BUFFER)?;
    socket.set_send_buffer_size(STREAM_BUFFER)
}

fn socket(addr: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    if addr.is_ipv6() {
        // So that 0.0.0.0 and [::] can be listened on together.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn advice(addr: SocketAddr, protocol: &str, error: &io::Error) -> String {
    let port = addr.port();
    let what_to_do = match error.kind() {
        io::ErrorKind::PermissionDenied => "ports below 1024 need a capability: add \
            AmbientCapabilities=CAP_NET_BIND_SERVICE to the systemd unit, or run setcap \
            cap_net_bind_service=+ep on the program, or choose another port in [dns] listen"
            .to_string(),
        io::ErrorKind::AddrInUse => format!(
            "another program listens there, often systemd-resolved or dnsmasq: find it with \
             `ss -lnp 'sport = :{port}'` and stop it, or give one of this host's own addresses in [dns] listen \
             in place of a wildcard"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this host has no such address: correct [dns] listen, or bring the interface up first".to_string()
        }
        _ => "correct [dns] listen".to_string(),
    };
    format!("cannot answer DNS on {addr} ({protocol}): {error}: {what_to_do}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(addr: SocketAddr, threads: usize) -> Result<Listener, String> {
        Listener::bind(addr, threads, &mut Passed::default(), false)
    }

    #[test]
    fn sockets_passed_are_used_for_their_address_and_others_are_bound() {
        let of = |kind, protocol| {
            let socket = Socket::new(Domain::IPV4, kind, Some(protocol)).unwrap();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            socket.bind(&any.into()).unwrap();
            let addr = socket.local_addr().unwrap().as_socket().unwrap();
            (socket, addr)
        };
        // The other protocol's port of the same number may be somebody else's: another one is tried then.
        let tries = || 0..100;
        let (other, elsewhere) = of(Type::DGRAM, Protocol::UDP);
        let found = tries().find_map(|_| {
            let (udp, addr) = of(Type::DGRAM, Protocol::UDP);
            let mut passed = Passed::of(vec![udp]);
            Some((addr, Listener::bind(addr, 2, &mut passed, false).ok()?))
        });
        let (addr, listener) = found.unwrap();
        let mut passed = Passed::of(vec![other]);
        assert!(passed.bound_to(addr, Type::DGRAM).is_empty());
        assert_eq!((listener.addr, listener.udp.len()), (addr, 2));
        assert_eq!(listener.tcp.local_addr().unwrap(), addr, "bound beside it");
        assert_eq!(passed.rest(), [elsewhere.to_string()]);

        let found = tries().find_map(|_| {
            let (tcp, addr) = of(Type::STREAM, Protocol::TCP);
            Some((
                addr,
                Listener::bind(addr, 1, &mut Passed::of(vec![tcp]), false).ok()?,
            ))
        });
        let (addr, listener) = found.unwrap();
        assert_eq!(listener.udp[0].local_addr().unwrap(), addr);
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(client.peer_addr().unwrap(), addr, "it listens");
    }

    #[test]
    fn port_zero_gives_one_port_for_both() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        assert_ne!(listener.addr.port(), 0);
        assert_eq!(listener.udp[0].local_addr().unwrap(), listener.addr);
        assert_eq!(listener.tcp.local_addr().unwrap(), listener.addr);
    }

    #[test]
    fn threads_share_one_port_which_is_still_taken_for_others() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(listener.udp.len(), 3);
        for udp in &listener.udp {
            assert_eq!(udp.local_addr().unwrap(), listener.addr);
        }
        assert!(bind(listener.addr, 1).is_err());
        assert!(bind(listener.addr, 3).is_err());
    }

    #[test]
    fn errors_say_what_to_do() {
        let taken = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let error = bind(taken.addr, 1).err().unwrap();
        assert!(
            error.contains("ss -lnp") && error.contains("systemd-resolved"),
            "{error}"
        );
        let error = bind("192.0.2.1:0".parse().unwrap(), 1).err().unwrap();
        assert!(error.contains("no such address"), "{error}");
        let elsewhere = "192.0.2.1:0".parse().unwrap();
        let early = Listener::bind(elsewhere, 2, &mut Passed::default(), true).unwrap();
        assert_eq!((early.addr.ip(), early.udp.len()), (elsewhere.ip(), 2));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(advice(taken.addr, "UDP", &denied).contains("CAP_NET_BIND_SERVICE"));
    }
}
