//! Every socket of the agent, bound before anything starts: a node that cannot listen never half-starts. But a network that is missing
//! is one less for now: it is joined when it comes, unless none is there.

use super::faces::Faces;
use crate::addresses::resolver::on_network;
use crate::consensus::entrance::{Entrance, Site};
use crate::control::port::Port;
use crate::descriptors::Shares;
use baton_dnsd::Passed;
use baton_shared::config::{Config, Network};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

/// The bound sockets.
pub struct Sockets {
    /// Heartbeats, one per configured network.
    pub ports: Vec<Option<Port>>,
    /// Consensus, one per network on which this node has an address.
    pub listeners: Vec<Entrance>,
    /// What shows the view to the world.
    pub faces: Faces,
}

impl Sockets {
    /// Binds them all, but those that the service manager has passed; `mine` is this node's address on each network, if that is known.
    /// The error is one line that says what to do.
    pub fn bind(
        config: &Config,
        mine: &[Option<IpAddr>],
        passed: Passed,
        shares: Shares,
    ) -> Result<Sockets, String> {
        let (mut ports, mut listeners) = (Vec::new(), Vec::new());
        let (mut whole, mut trouble) = (0, Vec::new());
        for (n, network) in config.networks.iter().enumerate() {
            let named = config.my_node().addresses.get(n).is_some_and(Option::is_some);
            if !named {
                ports.push(None);
                continue;
            }
            let addr = mine.get(n).copied().flatten().map(|ip| on_network(ip, network));
            let (port, udp) = heartbeats(network, addr);
            let (listener, tcp) = streams(network, n, addr);
            ports.push(Some(port));
            listeners.push(listener);
            whole += usize::from(addr.is_some() && udp.is_none() && tcp.is_none());
            trouble.extend([udp, tcp].into_iter().flatten());
        }
        if whole == 0 {
            let first = trouble.into_iter().next();
            return Err(first.unwrap_or_else(|| "this node has no address on any network".into()));
        }
        for trouble in trouble {
            tracing::warn!("{trouble}. This node goes on without, and tries again every second");
        }
        Ok(Sockets {
            ports,
            listeners,
            faces: Faces::bind(config, passed, shares)?,
        })
    }
}

/// A network's socket for heartbeats, and why it could not be bound yet.
fn heartbeats(network: &Network, addr: Option<SocketAddr>) -> (Port, Option<String>) {
    let (name, interface) = (network.name.as_str(), network.interface.as_deref());
    match addr.map(|addr| (addr, Port::open(name, addr, interface))) {
        Some((_, Ok(port))) => (port, None),
        Some((addr, Err(error))) => {
            let why = advice("UDP", addr, network, &error);
            (Port::missing(name, Some(addr), interface), Some(why))
        }
        None => (Port::missing(name, None, interface), None), // that its name does not resolve was said
    }
}

/// A network's listener for consensus, and why it could not be bound yet.
fn streams(network: &Network, n: usize, addr: Option<SocketAddr>) -> (Entrance, Option<String>) {
    let site = Site {
        name: network.name.to_string(),
        network: n,
        interface: network.interface.clone(),
    };
    match addr.map(|addr| (addr, Entrance::bind(site.clone(), addr))) {
        Some((_, Ok(entrance))) => (entrance, None),
        Some((addr, Err(error))) => (
            Entrance::missing(site),
            Some(advice("TCP", addr, network, &error)),
        ),
        None => (Entrance::missing(site), None),
    }
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
            clients: false,
            gateway: None,
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
