//! The simulated network under a node: turmoil's TCP and UDP, and the weather on it.
//!
//! turmoil knows hosts, not networks: each of a node's networks is a port of its host. Hosts are partitioned by turmoil; a
//! single network between two of them is cut here, and datagrams are lost and doubled here.

use super::dice::Dice;
use crate::consensus::net::{Later, Listener, Net, Stream};
use crate::control::ground::Datagrams;
use baton_shared::clock::Mono;
use baton_shared::seal::MAX_DATAGRAM;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;
use turmoil::net::tcp::OwnedWriteHalf;
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// The port of a node's first network; that of the next is one higher.
pub(super) const PORT: u16 = 7400;

/// Datagrams that a stranger keeps, to send them again.
const OVERHEARD: u64 = 200;

/// What becomes of what is sent.
#[derive(Debug)]
pub(super) struct Weather {
    /// From, to, and on which network nothing passes.
    cut: Mutex<BTreeSet<(IpAddr, IpAddr, u16)>>,
    /// Datagrams lost, of a thousand.
    pub(super) loss: AtomicU64,
    /// Datagrams that come twice, of a thousand.
    pub(super) twice: AtomicU64,
    /// Datagrams sent again by a stranger long after, of a thousand.
    pub(super) replayed: AtomicU64,
    /// What the stranger has overheard.
    overheard: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
    dice: Dice,
}

impl Weather {
    pub(super) fn new(dice: Dice) -> Arc<Weather> {
        Arc::new(Weather {
            cut: Mutex::default(),
            loss: AtomicU64::new(0),
            twice: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            overheard: Mutex::default(),
            dice,
        })
    }

    /// Cuts one network from one node to another.
    pub(super) fn cut(&self, from: IpAddr, to: IpAddr, network: usize) {
        self.cut.lock().unwrap().insert((from, to, PORT + network as u16));
    }

    /// Mends every cut, and the rest.
    pub(super) fn clear(&self) {
        self.cut.lock().unwrap().clear();
        self.loss.store(0, Relaxed);
        self.twice.store(0, Relaxed);
        self.replayed.store(0, Relaxed);
    }

    /// A stranger overhears a datagram, and may send an older one again.
    fn overhear(&self, to: SocketAddr, datagram: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let mut overheard = self.overheard.lock().unwrap();
        let at = self.dice.roll(OVERHEARD) as usize;
        match overheard.get_mut(at) {
            Some(old) if self.dice.one_in(16) => *old = (to, datagram.to_vec()),
            Some(_) => {}
            None => overheard.push((to, datagram.to_vec())),
        }
        let again = self.dice.per_mille(self.replayed.load(Relaxed));
        overheard.get(at).filter(|_| again).cloned()
    }

    fn is_cut(&self, from: IpAddr, to: IpAddr, port: u16) -> bool {
        self.cut.lock().unwrap().contains(&(from, to, port))
    }
}

/// Binds the sockets of one network on the host that runs this.
pub(super) async fn bind(
    mine: IpAddr,
    network: usize,
    weather: &Arc<Weather>,
) -> io::Result<(Port, Box<dyn Listener>)> {
    let port = PORT + network as u16;
    let here = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let bound = Port {
        socket: Arc::new(UdpSocket::bind(here).await?),
        mine,
        port,
        weather: weather.clone(),
    };
    let listener = Ear {
        listener: TcpListener::bind(here).await?,
        mine,
        port,
        weather: weather.clone(),
    };
    Ok((bound, Box::new(listener)))
}

/// One network's socket for heartbeats.
pub(super) struct Port {
    pub(super) socket: Arc<UdpSocket>,
    mine: IpAddr,
    port: u16,
    weather: Arc<Weather>,
}

impl Datagrams for Port {
    fn wake(&self, _now: Mono) -> Option<Mono> {
        None
    }

    fn send(&mut self, datagram: &[u8], to: SocketAddr, _now: Mono) -> bool {
        let weather = &self.weather;
        if weather.is_cut(self.mine, to.ip(), self.port) || weather.dice.per_mille(weather.loss.load(Relaxed))
        {
            return true;
        }
        if let Some((to, old)) = weather.overhear(to, datagram)
            && to.ip() != self.mine
        {
            let _ = self.socket.try_send_to(&old, to); // whether it arrives is nobody's concern
        }
        if weather.dice.per_mille(weather.twice.load(Relaxed)) {
            let _ = self.socket.try_send_to(datagram, to); // one of two
        }
        self.socket.try_send_to(datagram, to).is_ok()
    }

    fn receive(&mut self, buffer: &mut [u8; MAX_DATAGRAM + 1], _now: Mono) -> Option<(usize, IpAddr)> {
        let (length, from) = self.socket.try_recv_from(buffer).ok()?;
        Some((length, from.ip()))
    }

    fn repair(&mut self, _addr: Option<SocketAddr>, _now: Mono) {}
}

/// Connects streams.
pub(super) struct Dialer {
    pub(super) mine: IpAddr,
    pub(super) weather: Arc<Weather>,
}

impl Net for Dialer {
    fn connect<'a>(
        &'a self,
        to: SocketAddr,
        _from: Option<IpAddr>,
        _interface: Option<&'a str>,
    ) -> Later<'a, io::Result<Stream>> {
        Box::pin(async move {
            if self.weather.is_cut(self.mine, to.ip(), to.port()) {
                return std::future::pending().await;
            }
            let stream = TcpStream::connect(to).await?;
            Ok(join(stream, self.mine, to.ip(), to.port(), &self.weather))
        })
    }
}

struct Ear {
    listener: TcpListener,
    mine: IpAddr,
    port: u16,
    weather: Arc<Weather>,
}

impl Listener for Ear {
    fn accept(&self) -> Later<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            let stream = join(stream, self.mine, from.ip(), self.port, &self.weather);
            Ok((stream, from))
        })
    }
}

fn join(stream: TcpStream, mine: IpAddr, peer: IpAddr, port: u16, weather: &Arc<Weather>) -> Stream {
    let (read, write) = stream.into_split();
    let (queue, queued) = mpsc::unbounded_channel();
    tokio::spawn(carry(queued, write, mine, peer, port, weather.clone()));
    Stream {
        read: Box::new(read),
        write: Box::new(Mouth(queue)),
    }
}

/// What a kernel does with what it was given to send: while the network is cut it keeps it, and sends it when the network
/// is whole again; even if whoever gave it has closed the stream since.
async fn carry(
    mut queued: mpsc::UnboundedReceiver<Vec<u8>>,
    mut write: OwnedWriteHalf,
    mine: IpAddr,
    peer: IpAddr,
    port: u16,
    weather: Arc<Weather>,
) {
    while let Some(text) = queued.recv().await {
        while weather.is_cut(mine, peer, port) {
            sleep(Duration::from_millis(10)).await;
        }
        if write.write_all(&text).await.is_err() {
            return;
        }
    }
}

/// The writing half of a stream, as an application has it.
struct Mouth(mpsc::UnboundedSender<Vec<u8>>);

impl AsyncWrite for Mouth {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        Poll::Ready(self.0.send(text.to_vec()).map(|()| text.len()).map_err(gone))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
