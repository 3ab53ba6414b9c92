//! The kernel's listener of one network, which follows that network: bound when its interface or address comes, and anew when they come
//! back as others. Streams that were accepted before go on as long as they can.

use super::net::{Later, Listener, Stream};
use crate::accepting::is_passing;
use crate::addresses::Addresses;
use crate::addresses::resolver::interface_index;
use baton_shared::id::NodeName;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Streams that may wait to be accepted: those of peers, twice over while they are made anew, beside what strangers send meanwhile.
const BACKLOG: i32 = 1024;
/// Between two looks at the network, and between two tries to bind.
const LOOK: Duration = Duration::from_secs(1);

/// Where an entrance is.
#[derive(Clone, Debug)]
pub struct Site {
    /// The network's name, for messages.
    pub name: String,
    /// Its place in the configuration.
    pub network: usize,
    /// Bound to this interface.
    pub interface: Option<String>,
}

/// A listener that is bound, or will be.
#[derive(Debug)]
pub struct Entrance {
    site: Site,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    listener: std::net::TcpListener,
    seat: Seat,
}

/// What a listener is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    addr: SocketAddr,
    /// The interface, which may be another one by the same name later.
    index: Option<u32>,
}

impl Entrance {
    /// Binds it.
    pub fn bind(site: Site, addr: SocketAddr) -> io::Result<Entrance> {
        let bound = Some(bind(&site, addr)?);
        Ok(Entrance { site, bound })
    }

    /// Where it is bound.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.bound.as_ref().map(|bound| bound.seat.addr)
    }

    /// One whose network is not there yet.
    pub fn missing(site: Site) -> Entrance {
        Entrance { site, bound: None }
    }

    /// Accepts streams from now on, at this node's address in `addresses`; on a tokio runtime.
    pub fn open(self, me: NodeName, addresses: Arc<Addresses>) -> Result<Box<dyn Listener>, String> {
        let open = self.bound.map(Open::new).transpose();
        let open = open.map_err(|error| format!("the stream listener cannot be used: {error}"))?;
        Ok(Box::new(Following {
            me,
            addresses,
            state: Mutex::new(State {
                failing: open.is_none(),
                open,
                look: Instant::now() + LOOK,
            }),
            site: self.site,
        }))
    }
}

fn bind(site: &Site, addr: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let index = site.interface.as_deref().and_then(interface_index);
    if let Some(interface) = &site.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.set_reuse_address(true)?; // connections of the last run may linger in TIME_WAIT
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    let addr = listener.local_addr()?;
    Ok(Bound {
        listener,
        seat: Seat { addr, index },
    })
}

/// An entrance in use.
struct Following {
    site: Site,
    me: NodeName,
    addresses: Arc<Addresses>,
    state: Mutex<State>,
}

struct State {
    open: Option<Open>,
    /// When the network is looked at again.
    look: Instant,
    /// It could not be bound, and that was said.
    failing: bool,
}

struct Open {
    listener: TcpListener,
    seat: Seat,
}

impl Open {
    fn new(bound: Bound) -> io::Result<Open> {
        Ok(Open {
            listener: TcpListener::from_std(bound.listener)?,
            seat: bound.seat,
        })
    }
}

impl Listener for Following {
    fn accept(&self) -> Later<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let mut state = self.state.lock().await; // nobody else accepts here
            loop {
                let accepted = async {
                    match &state.open {
                        Some(open) => open.listener.accept().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    accepted = accepted => {
                        let (stream, from) = match accepted {
                            Err(error) if is_passing(&error) => continue,
                            accepted => accepted?,
                        };
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!("a stream from {from} may wait to fill its packets: {error}");
                        }
                        return Ok((stream.into(), from));
                    }
                    () = sleep_until(state.look) => {}
                }
                state.look = Instant::now() + LOOK;
                self.look(&mut state);
            }
        })
    }
}

impl Following {
    /// Binds where this node is now, unless that is where it is bound.
    fn look(&self, state: &mut State) {
        let Some(addr) = self.addresses.get(&self.me, self.site.network) else {
            return; // not known: what is bound stays
        };
        let index = self.site.interface.as_deref().and_then(interface_index);
        let seat = state.open.as_ref().map(|open| open.seat);
        if seat == Some(Seat { addr, index }) {
            return;
        }
        if seat.is_some_and(|seat| seat.addr == addr) {
            state.open = None; // closed first: the new one needs the port
        }
        match bind(&self.site, addr).and_then(Open::new) {
            Ok(open) => {
                tracing::info!(network = self.site.name, "streams are accepted at {addr} now");
                (state.open, state.failing) = (Some(open), false);
            }
            Err(error) => {
                if !state.failing {
                    tracing::warn!(
                        network = self.site.name,
                        "no streams are accepted at {addr}: cannot bind: {error} (tried again every second)"
                    );
                }
                state.failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(20);

    fn site() -> Site {
        Site {
            name: "front".into(),
            network: 0,
            interface: None,
        }
    }

    fn me() -> NodeName {
        NodeName::new("a").unwrap()
    }

    fn at(addresses: &Addresses, addr: SocketAddr) {
        addresses.set([(me(), vec![Some(addr)])].into());
    }

    /// Connects until somebody is there, and is accepted.
    async fn passes(listener: &dyn Listener, addr: SocketAddr) {
        let connect = async {
            loop {
                match TcpStream::connect(addr).await {
                    Ok(mut stream) => {
                        stream.write_all(b"x").await.unwrap();
                        return stream;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let both = async { tokio::join!(connect, listener.accept()) };
        let (_client, accepted) = timeout(LIMIT, both).await.expect("nobody accepts");
        let (mut stream, _) = accepted.unwrap();
        let mut byte = [0];
        stream.read.read_exact(&mut byte).await.unwrap();
    }

    #[tokio::test]
    async fn it_is_bound_when_its_address_comes_and_follows_it() {
        let addresses = Arc::new(Addresses::default());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let first = taken.local_addr().unwrap();
        assert_eq!(
            Entrance::bind(site(), first).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let listener = Entrance::missing(site()).open(me(), addresses.clone()).unwrap();
        // It has no address; then one that another program has.
        assert!(timeout(LOOK * 3 / 2, listener.accept()).await.is_err());
        at(&addresses, first);
        assert!(timeout(LOOK * 3 / 2, listener.accept()).await.is_err());
        drop(taken);
        passes(&*listener, first).await;
        // An address that cannot be had is no reason to leave the one that it has.
        let elsewhere = SocketAddr::new([192, 0, 2, 1].into(), first.port());
        at(&addresses, elsewhere);
        assert!(timeout(LOOK * 3 / 2, listener.accept()).await.is_err());
        passes(&*listener, first).await;
        let second = SocketAddr::new([127, 0, 0, 3].into(), first.port());
        at(&addresses, second);
        passes(&*listener, second).await;
        assert!(TcpStream::connect(first).await.is_err(), "it left there");
    }

    #[tokio::test]
    async fn one_that_is_bound_at_the_start_is_used_at_once() {
        let addresses = Arc::new(Addresses::default());
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        at(&addresses, free);
        let listener = Entrance::bind(site(), free)
            .unwrap()
            .open(me(), addresses)
            .unwrap();
        passes(&*listener, free).await;
        // Given up and called again, it goes on.
        assert!(
            timeout(Duration::from_millis(20), listener.accept())
                .await
                .is_err()
        );
        passes(&*listener, free).await;
    }
}
