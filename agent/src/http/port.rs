//! A port that is listened on, and who waits there to be accepted.
//!
//! The kernel keeps one queue for a listener, and whoever comes when that is full is tried again by its client a second later, which for
//! a balancer is an outage. So a port has several listeners, and the kernel tells by a connection's source at which of them it waits: a
//! rush from one address fills the queue of that address. Who accepts asks each of them in turn.

use socket2::Socket;
use std::io;
use std::mem::size_of_val;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

/// Listeners of a port. A prime number: so neighbours in a network wait apart, and so do those with the same number in networks beside
/// each other.
pub(crate) const QUEUES: usize = 13;
/// Connections that the kernel keeps for each until they are accepted, as many as it does at most by default; a few kilobytes each.
const BACKLOG: i32 = 4096;

/// All listeners of a port.
#[derive(Debug)]
pub(super) struct Port {
    addr: SocketAddr,
    listeners: Vec<TcpListener>,
}

impl Port {
    /// Listens at what `bind` binds: an address, or if it is told one, that.
    pub(super) fn listen(bind: impl Fn(Option<SocketAddr>) -> io::Result<Socket>) -> io::Result<Port> {
        // Refused where another process listens already, for it shares its port with nobody yet.
        let first = bind(None)?;
        first.listen(BACKLOG)?;
        first.set_reuse_port(true)?;
        let addr = first.local_addr()?.as_socket();
        let addr = addr.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let more = (1..QUEUES).map(|_| {
            let socket = bind(Some(addr))?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        });
        let more = more.collect::<io::Result<Vec<Socket>>>()?;
        // Without it a connection waits at any of them, which is no worse than one queue.
        if let Err(error) = part_by_source(&first) {
            tracing::debug!(%error, "the kernel does not part waiting connections by their source");
        }
        let all = std::iter::once(first).chain(more);
        Ok(Port {
            addr,
            listeners: all.map(TcpListener::from).collect(),
        })
    }

    /// Where it is.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its listeners, on a tokio runtime.
    pub(super) fn open(self) -> io::Result<Vec<tokio::net::TcpListener>> {
        let all = self.listeners.into_iter();
        all.map(tokio::net::TcpListener::from_std).collect()
    }
}

#[cfg(test)]
impl Port {
    /// Somebody who waits there.
    pub(super) fn accept(&self) -> std::net::TcpStream {
        let mut accepted = self
            .listeners
            .iter()
            .filter_map(|listener| listener.accept().ok());
        accepted.next().expect("somebody waits").0
    }
}

/// Has connections wait at the listener that their source names: one IPv4 address, or one IPv6 /64, as in `baton_shared::crowd`.
fn part_by_source(one: &Socket) -> io::Result<()> {
    let step = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    // Behind twelve bytes are an IPv4 packet's source, and the lower half of the network in an IPv6 packet's.
    let source = (libc::SKF_NET_OFF + 12) as u32;
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, source),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, QUEUES as u32),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the value is of this option's type and size, and it points to so many steps, which live; the kernel copies them.
    let set = unsafe {
        libc::setsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::collections::BTreeSet;
    use std::net::{IpAddr, Ipv4Addr};

    fn stream(addr: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket
    }

    fn port(addr: &str) -> io::Result<Port> {
        let addr: SocketAddr = addr.parse().unwrap();
        Port::listen(|shared| {
            let socket = stream(addr);
            socket.set_reuse_port(shared.is_some())?;
            socket.set_nonblocking(true)?;
            socket.bind(&shared.unwrap_or(addr).into())?;
            Ok(socket)
        })
    }

    /// Who waits at each listener.
    fn waiting(port: &Port) -> Vec<Vec<IpAddr>> {
        let at = |listener: &TcpListener| {
            let all = std::iter::from_fn(|| listener.accept().ok());
            all.map(|(_, from)| from.ip().to_canonical()).collect()
        };
        port.listeners.iter().map(at).collect()
    }

    #[test]
    fn each_client_waits_at_one_listener_and_neighbours_wait_apart() {
        for addr in ["0.0.0.0:0", "[::]:0"] {
            let port = port(addr).unwrap();
            let clients = (1..=QUEUES).map(|n| Ipv4Addr::new(127, 0, 0, n as u8));
            let clients: Vec<IpAddr> = clients.map(IpAddr::from).collect();
            let connect = |from: &IpAddr| {
                let stream = stream((*from, 0).into());
                stream.bind(&SocketAddr::from((*from, 0)).into()).unwrap();
                let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port.addr().port()));
                stream.connect(&to.into()).unwrap();
                stream
            };
            let _all: Vec<Socket> = clients.iter().chain(&clients).map(connect).collect();
            let waiting = waiting(&port);
            assert!(
                waiting.iter().all(|at| at.len() == 2 && at[0] == at[1]),
                "{waiting:?}"
            );
            let all: BTreeSet<IpAddr> = waiting.iter().map(|at| at[0]).collect();
            assert_eq!(all, clients.into_iter().collect(), "{addr}");
        }
    }

    #[test]
    fn second_port_at_the_same_address_is_refused_though_the_first_is_shared() {
        let first = port("127.0.0.1:0").unwrap();
        let again = port(&first.addr().to_string()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
