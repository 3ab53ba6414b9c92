//! Listening sockets: bound before anything runs, UDP and TCP on the same address and port.

use crate::mmsg;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Bytes of kernel buffer asked for each way; the kernel gives at most `net.core.rmem_max` and `wmem_max`.
const SOCKET_BUFFER: usize = 1 << 20;
/// TCP connections waiting to be accepted.
const BACKLOG: i32 = 256;
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
    /// Binds both, with as many UDP sockets as there are `threads`. The error says what to do about it.
    pub fn bind(addr: SocketAddr, threads: usize) -> Result<Listener, String> {
        let mut tries = if addr.port() == 0 { PORT_TRIES } else { 1 };
        loop {
            tries -= 1;
            let shared = threads > 1;
            let first = udp(addr, shared).map_err(|error| advice(addr, "UDP", &error))?;
            let bound = first.local_addr().map_err(|error| advice(addr, "UDP", &error))?;
            // Before the other UDP sockets: that another program shares the port as well is seen here alone.
            match tcp(bound) {
                Ok(tcp) => {
                    let more = (1..threads).map(|_| udp(bound, shared));
                    let udp = std::iter::once(Ok(first)).chain(more);
                    return Ok(Listener {
                        addr: bound,
                        udp: udp
                            .collect::<io::Result<_>>()
                            .map_err(|error| advice(bound, "UDP", &error))?,
                        tcp,
                    });
                }
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(advice(bound, "TCP", &error)),
            }
        }
    }
}

fn udp(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = socket(addr, Type::DGRAM, Protocol::UDP)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    if addr.ip().is_unspecified() {
        mmsg::receive_destination(&socket, addr.is_ipv6())?;
    }
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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

    #[test]
    fn port_zero_gives_one_port_for_both() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        assert_ne!(listener.addr.port(), 0);
        assert_eq!(listener.udp[0].local_addr().unwrap(), listener.addr);
        assert_eq!(listener.tcp.local_addr().unwrap(), listener.addr);
    }

    #[test]
    fn threads_share_one_port_which_is_still_taken_for_others() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        assert_eq!(listener.udp.len(), 3);
        for udp in &listener.udp {
            assert_eq!(udp.local_addr().unwrap(), listener.addr);
        }
        assert!(Listener::bind(listener.addr, 1).is_err());
        assert!(Listener::bind(listener.addr, 3).is_err());
    }

    #[test]
    fn errors_say_what_to_do() {
        let taken = Listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let error = Listener::bind(taken.addr, 1).err().unwrap();
        assert!(
            error.contains("ss -lnp") && error.contains("systemd-resolved"),
            "{error}"
        );
        let error = Listener::bind("192.0.2.1:0".parse().unwrap(), 1).err().unwrap();
        assert!(error.contains("no such address"), "{error}");
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(advice(taken.addr, "UDP", &denied).contains("CAP_NET_BIND_SERVICE"));
    }
}
