//! Every socket of the agent, bound before anything starts: a node that cannot listen never half-starts.

use super::faces::Faces;
use crate::addresses::resolver::on_network;
use crate::control::port::Port;
use crate::descriptors::Shares;
use baton_dnsd::Passed;
use baton_shared::config::{Config, Network};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener};

/// Streams that may wait to be accepted: one per peer and network, twice over while they are made anew.
const BACKLOG: i32 = 128;

/// The bound sockets.
pub struct Sockets {
    /// Heartbeats, one per configured network.
    pub ports: Vec<Option<Port>>,
    /// Consensus, one per network on which this node has an address.
    pub listeners: Vec<TcpListener>,
    /// What shows the view to the world.
    pub faces: Faces,
}

impl Sockets {
    /// Binds them all, but those that the service manager has passed; `mine` is this node's address on each network. The error is
    /// one line that says what to do.
    pub fn bind(
        config: &Config,
        mine: &[Option<IpAddr>],
        passed: Passed,
        shares: Shares,
    ) -> Result<Sockets, String> {
        let (mut ports, mut listeners) = (Vec::new(), Vec::new());
        for (network, ip) in config.networks.iter().zip(mine) {
            let Some(ip) = ip else {
                ports.push(None);
                continue;
            };
            let addr = on_network(*ip, network);
            let name = network.name.as_str();
            let port = Port::open(name, addr, network.interface.as_deref())
                .map_err(|error| advice("UDP", addr, network, &error))?;
            let listener = listen(addr, network.interface.as_deref())
                .map_err(|error| advice("TCP", addr, network, &error))?;
            ports.push(Some(port));
            listeners.push(listener);
        }
        Ok(Sockets {
            ports,
            listeners,
            faces: Faces::bind(config, passed, shares)?,
        })
    }
}

fn listen(addr: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_reuse_address(true)?; // connections of the last run may linger in TIME_WAIT
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Why a network's socket cannot be bound, and what to do.
fn advice(protocol: &str, addr: SocketAddr, network: &Network, error: &io::Error) -> String {
    let (name, port) = (&network.name, addr.port());
    let start = format!("network \"{name}\": cannot bind {protocol} {addr}: ");
    let interface = network.interface.as_deref().unwrap_or_default();
    let what = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::AddrInUse, _) => {
            let flag = if protocol == "UDP" { "u" } else { "t" };
            format!(
                "another program uses it; see `ss -ln{flag}p 'sport = :{port}'`, or set another networks.{name}.port \
                 on every node"
            )
        }
        (ErrorKind::AddrNotAvailable, _) => format!(
            "no interface of this machine has the address {}; correct this node's address, or check --node",
            addr.ip()
        ),
        (_, Some(libc::ENODEV)) => {
            format!(
                "there is no interface \"{interface}\"; correct networks.{name}.interface (see `ip link`)"
            )
        }
        (ErrorKind::PermissionDenied, _) if port < 1024 => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; grant it, or use a higher port".into()
        }
        (ErrorKind::PermissionDenied, _) => format!(
            "permission denied; binding to the interface \"{interface}\" may need CAP_NET_RAW, so grant it or remove \
             networks.{name}.interface"
        ),
        _ => error.to_string(),
    };
    start + &what
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::NetworkName;

    #[test]
    fn errors_say_what_to_do() {
        let network = Network {
            name: NetworkName::new("front").unwrap(),
            port: 7400,
            interface: Some("eth9".into()),
        };
        let addr = "10.0.0.1:7400".parse().unwrap();
        for (errno, protocol, expected) in [
            (libc::EADDRINUSE, "UDP", "ss -lnup 'sport = :7400'"),
            (libc::EADDRINUSE, "TCP", "ss -lntp 'sport = :7400'"),
            (
                libc::EADDRNOTAVAIL,
                "UDP",
                "no interface of this machine has the address 10.0.0.1",
            ),
            (libc::ENODEV, "TCP", "no interface \"eth9\""),
            (libc::EPERM, "UDP", "CAP_NET_RAW"),
        ] {
            let text = advice(protocol, addr, &network, &io::Error::from_raw_os_error(errno));
            assert!(
                text.starts_with("network \"front\"") && text.contains(expected),
                "{text}"
            );
        }
    }
}
