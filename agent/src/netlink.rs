//! Interfaces, their addresses, and the way to a peer: asked of the kernel by rtnetlink(7), which needs no
//! right and, unlike /sys, always speaks of the network namespace that one is in.

use baton_shared::prefix::Prefix;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use serde::Serialize;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The kernel answers at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// Of one datagram: the kernel fills at most 32 KiB.
const BUFFER: usize = 64 * 1024;
/// Datagrams of one answer: far more interfaces than a node has.
const MAX_DATAGRAMS: usize = 256;
/// Bytes of `struct nlmsghdr`, and of the fixed parts behind it.
const HEADER: usize = 16;
const LINK_PART: usize = 16;
const ADDRESS_PART: usize = 8;
const ROUTE_PART: usize = 12;
/// `IF_OPER_UNKNOWN` and `IF_OPER_UP` of RFC 2863, as linux/if.h numbers them.
const OPER_UNKNOWN: u8 = 0;
const OPER_UP: u8 = 6;
/// linux/rtnetlink.h
const RTAX_MTU: u16 = 2;
/// linux/if_link.h
const IFLA_INFO_KIND: u16 = 1;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Switched on, and with a carrier.
    pub up: bool,
    /// The loopback.
    pub loopback: bool,
    /// Bytes of the longest packet.
    pub mtu: u32,
    /// `bridge`, `bond`, `vlan` and the like; empty for a plain one.
    pub kind: String,
    /// The interface that carries it, for a VLAN and the like.
    pub carrier: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Its addresses, with their networks.
    pub addresses: Vec<(IpAddr, Subnet)>,
}

/// A network of addresses, printed as `10.0.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subnet(pub Prefix);

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// The way to an address, as the kernel would send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// By which interface.
    pub interface: Option<u32>,
    /// Through which router.
    pub gateway: Option<IpAddr>,
    /// Longest packet, if the route limits it.
    pub mtu: Option<u32>,
}

/// A way to ask the kernel.
pub(crate) struct Kernel {
    socket: OwnedFd,
}

impl Kernel {
    pub(crate) fn open() -> io::Result<Kernel> {
        let kind = SocketType::RAW;
        // NETLINK_ROUTE is 0, the protocol of those who name none.
        let socket = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Kernel { socket })
    }

    /// All interfaces with their addresses.
    pub(crate) fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let links = self.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK_PART], &[])?;
        let mut all: Vec<Interface> = links.iter().filter_map(|m| interface(m)).collect();
        let addresses = self.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS_PART], &[])?;
        for (index, ip, subnet) in addresses.iter().filter_map(|m| address(m)) {
            if let Some(interface) = all.iter_mut().find(|interface| interface.index == index) {
                interface.addresses.push((ip, subnet));
            }
        }
        Ok(all)
    }

    /// The way from an own address to another, by that interface if it must be; `None` if there is none.
    pub(crate) fn way(&self, from: IpAddr, to: IpAddr, by: Option<u32>) -> io::Result<Option<Way>> {
        let mut part = [0; ROUTE_PART];
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let family = if to.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        // family, bits of the destination, bits of the source
        part[..3].copy_from_slice(&[family as u8, bits, bits]);
        let (to, from) = (octets(to), octets(from));
        let mut attributes = vec![(libc::RTA_DST, to), (libc::RTA_SRC, from)];
        if let Some(by) = by {
            attributes.push((libc::RTA_OIF, by.to_ne_bytes().to_vec()));
        }
        match self.ask(libc::RTM_GETROUTE, 0, &part, &attributes) {
            Ok(answer) => Ok(answer.first().map(|message| way(message))),
            Err(error) => match error.kind() {
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Sends a request, and gives the messages of the answer without their headers.
    fn ask(
        &self,
        kind: u16,
        flags: i32,
        part: &[u8],
        attributes: &[(u16, Vec<u8>)],
    ) -> io::Result<Vec<Vec<u8>>> {
        send(
            &self.socket,
            &request(kind, flags, part, attributes),
            SendFlags::empty(),
        )?;
        let mut all = Vec::new();
        let mut buffer = vec![0; BUFFER];
        for _ in 0..MAX_DATAGRAMS {
            let (length, _) = recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            let ended = messages(&buffer[..length], &mut all)?;
            if ended || flags & libc::NLM_F_DUMP == 0 {
                return Ok(all);
            }
        }
        Ok(all)
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn request(kind: u16, flags: i32, part: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend(part);
    for (name, value) in attributes {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(name.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = bytes.len() as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
    bytes
}

/// Takes a datagram apart; true if it ends the answer. The error is the kernel's.
fn messages(mut bytes: &[u8], all: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else {
            return Ok(true);
        };
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let code = u32_at(body, 0).map_or(0, |code| (code as i32).wrapping_neg());
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code)),
                };
            }
            _ => all.push(body.to_vec()),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The attributes (name and value) behind a message's fixed part.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let name = u16_at(bytes, 2)? & !(libc::NLA_F_NESTED as u16);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((name, value))
    })
}

/// `struct ifinfomsg`: family, padding, type, index, flags, change.
fn interface(message: &[u8]) -> Option<Interface> {
    let flags = u32_at(message, 8)?;
    let mut state = OPER_UNKNOWN;
    let mut found = Interface {
        index: u32_at(message, 4)?,
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        ..Interface::default()
    };
    for (name, value) in attributes(message.get(LINK_PART..)?) {
        match name {
            libc::IFLA_IFNAME => found.name = text(value),
            libc::IFLA_MTU => found.mtu = u32_at(value, 0)?,
            libc::IFLA_LINK => found.carrier = u32_at(value, 0),
            libc::IFLA_MASTER => found.master = u32_at(value, 0),
            libc::IFLA_OPERSTATE => state = *value.first()?,
            libc::IFLA_LINKINFO => {
                let kind = attributes(value).find(|(name, _)| *name == IFLA_INFO_KIND);
                found.kind = kind.map_or(String::new(), |(_, value)| text(value));
            }
            _ => {}
        }
    }
    // Loopback and tunnels have no carrier to speak of.
    found.up = flags & libc::IFF_UP as u32 != 0 && [OPER_UNKNOWN, OPER_UP].contains(&state);
    Some(found)
}

/// `struct ifaddrmsg`: family, bits of the prefix, flags, scope, index. On a point-to-point link IFA_LOCAL is
/// the own address.
fn address(message: &[u8]) -> Option<(u32, IpAddr, Subnet)> {
    let bits = *message.get(1)?;
    let index = u32_at(message, 4)?;
    let mut own = None;
    for (name, value) in attributes(message.get(ADDRESS_PART..)?) {
        match name {
            libc::IFA_LOCAL => own = ip(value),
            libc::IFA_ADDRESS => own = own.or(ip(value)),
            _ => {}
        }
    }
    let own = own?;
    Some((index, own, Subnet(Prefix::new(own, bits)?)))
}

/// `struct rtmsg`, and what follows it.
fn way(message: &[u8]) -> Way {
    let mut found = Way::default();
    for (name, value) in attributes(message.get(ROUTE_PART..).unwrap_or_default()) {
        match name {
            libc::RTA_OIF => found.interface = u32_at(value, 0),
            libc::RTA_GATEWAY => found.gateway = ip(value),
            libc::RTA_METRICS => {
                let mtu = attributes(value).find(|(name, _)| *name == RTAX_MTU);
                found.mtu = mtu.and_then(|(_, value)| u32_at(value, 0)).filter(|mtu| *mtu > 0);
            }
            _ => {}
        }
    }
    found
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(value).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_loopback_and_the_way_to_it() {
        let kernel = Kernel::open().unwrap();
        let all = kernel.interfaces().unwrap();
        let lo = all.iter().find(|i| i.loopback).expect("every machine has one");
        assert!(lo.up && lo.mtu >= 1500, "{lo:?}");
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(
            lo.addresses
                .iter()
                .any(|(ip, subnet)| *ip == home && subnet.0.length() == 8),
            "{lo:?}"
        );
        let way = kernel
            .way(home, "127.1.2.3".parse().unwrap(), None)
            .unwrap()
            .unwrap();
        assert_eq!((way.interface, way.gateway), (Some(lo.index), None));
        // An address that is not this machine's own sends nothing from here.
        let from_elsewhere = kernel.way("192.0.2.1".parse().unwrap(), home, None);
        assert!(!matches!(from_elsewhere, Ok(Some(_))), "{from_elsewhere:?}");
    }

    #[test]
    fn an_answer_is_read_attribute_by_attribute_and_garbage_does_not_panic() {
        let message = request(
            libc::RTM_NEWROUTE,
            0,
            &[0; ROUTE_PART],
            &[
                (libc::RTA_OIF, 3u32.to_ne_bytes().to_vec()),
                (libc::RTA_GATEWAY, vec![10, 0, 0, 1]),
                (
                    libc::RTA_METRICS,
                    [
                        8u16.to_ne_bytes(),
                        RTAX_MTU.to_ne_bytes(),
                        1400u16.to_ne_bytes(),
                        [0; 2],
                    ]
                    .concat(),
                ),
            ],
        );
        let mut all = Vec::new();
        assert!(!messages(&message, &mut all).unwrap());
        if cfg!(target_endian = "little") {
            let expected = Way {
                interface: Some(3),
                gateway: Some(Ipv4Addr::new(10, 0, 0, 1).into()),
                mtu: Some(1400),
            };
            assert_eq!(way(&all[0]), expected);
        }
        for length in 0..message.len() {
            let mut all = Vec::new();
            let _ = messages(&message[..length], &mut all);
            let body = message[..length].get(HEADER..).unwrap_or_default();
            let _ = (way(body), interface(body), address(body));
        }
    }
}
