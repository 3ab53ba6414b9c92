//! Which interface has an address, and whether it has a carrier: asked of the kernel, which tells when that may have changed. Both speak of this
//! process's network namespace (unlike /sys, which shows the one that it was mounted in), and neither needs a right.

use crate::netlink::Kernel;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Messages taken at once; their content does not matter.
const BATCH: usize = 64;

/// What was seen of interfaces.
#[derive(Default)]
pub(super) struct Carriers {
    /// Every address of this machine, and whether its interface is up with a carrier; `None` if that could not be seen.
    now: Option<BTreeMap<IpAddr, bool>>,
    /// The address on each network that has been seen on an interface.
    known: BTreeMap<usize, IpAddr>,
}

impl Carriers {
    /// Looks at all interfaces. The kernel may be busy with them for a while, which nobody here waits for.
    pub(super) async fn look(&mut self) {
        self.now = match tokio::task::spawn_blocking(all).await {
            Ok(Ok(all)) => Some(all),
            Ok(Err(error)) => {
                tracing::debug!("the interfaces cannot be seen: {error}");
                None
            }
            Err(_) => None,
        };
    }

    /// Whether the interface that has the node's address on a network has a carrier. An address that was there and is gone is as good as none;
    /// of one that no interface ever had (a whole subnet may be routed to this machine) nothing is known.
    pub(super) fn carrier(&mut self, network: usize, ip: IpAddr) -> Option<bool> {
        match self.now.as_ref()?.get(&ip) {
            Some(carrier) => {
                self.known.insert(network, ip);
                Some(*carrier)
            }
            None => (self.known.get(&network) == Some(&ip)).then_some(false),
        }
    }
}

/// Every address here, and whether its interface is up with a carrier.
fn all() -> io::Result<BTreeMap<IpAddr, bool>> {
    let mut all = BTreeMap::new();
    for interface in Kernel::open()?.interfaces()? {
        for (ip, _) in interface.addresses {
            // On two interfaces, the better one counts.
            *all.entry(ip).or_insert(false) |= interface.up;
        }
    }
    Ok(all)
}

/// The kernel's word that something about interfaces or addresses has changed.
pub(super) struct News(Option<AsyncFd<OwnedFd>>);

impl News {
    /// Without it interfaces are only looked at now and then.
    pub(super) fn open() -> News {
        let news = listen().and_then(|socket| {
            // SAFETY: an `OwnedFd` is open, and always the same, as long as the `AsyncFd` that owns it.
            unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(Into::into)
        });
        News(match news {
            Ok(news) => Some(news),
            Err(error) => {
                tracing::warn!(
                    "the kernel does not tell of carriers that are lost, which are noticed up to a second late: {error}"
                );
                None
            }
        })
    }

    /// Waits until something has changed.
    pub(super) async fn come(&mut self) {
        let Some(socket) = &self.0 else {
            return std::future::pending().await;
        };
        let Ok(mut ready) = socket.readable().await else {
            self.0 = None;
            return;
        };
        let mut buffer = [0; 4096];
        for _ in 0..BATCH {
            match recv(socket.get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    break;
                }
                Err(Errno::INTR | Errno::NOBUFS) | Ok(_) => {} // what was lost was news, too
                Err(_) => {
                    drop(ready);
                    self.0 = None;
                    return;
                }
            }
        }
    }
}

fn listen() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is the protocol of those who name none.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
    bind(&socket, &SocketAddrNetlink::new(0, groups as u32))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn loopback_has_a_carrier_and_an_address_that_was_never_here_is_not_known() {
        let mut carriers = Carriers::default();
        let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(carriers.carrier(0, home), None, "not looked yet");
        carriers.look().await;
        assert_eq!(carriers.carrier(0, home), Some(true));
        assert_eq!(carriers.carrier(0, "192.0.2.1".parse().unwrap()), None);
        // What was there and is gone is lost; another one in its place is not known.
        carriers.now = Some(BTreeMap::new());
        assert_eq!(carriers.carrier(0, home), Some(false));
        assert_eq!(carriers.carrier(1, home), None);
    }

    #[tokio::test]
    async fn the_kernel_can_be_listened_to() {
        assert!(News::open().0.is_some());
    }
}
