//! The network under consensus streams: the kernel's in production, a simulated one in the tests of
//! [`crate::simulation`]. Only its making and its bytes differ; what is said over it does not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};

/// A result that takes a while.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connected stream of bytes, both ways.
pub struct Stream {
    /// From the peer.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// To the peer.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// Connects.
pub trait Net: Send + Sync {
    /// Connects to `to`; from the address `from`, and through `interface`, if they are given.
    fn connect<'a>(
        &'a self,
        to: SocketAddr,
        from: Option<IpAddr>,
        interface: Option<&'a str>,
    ) -> Later<'a, io::Result<Stream>>;
}

/// Accepts.
pub trait Listener: Send + Sync {
    /// The next stream, and from where. Can be given up and called again.
    fn accept(&self) -> Later<'_, io::Result<(Stream, SocketAddr)>>;
}

/// The kernel's network.
pub struct Kernel;

impl Net for Kernel {
    fn connect<'a>(
        &'a self,
        to: SocketAddr,
        from: Option<IpAddr>,
        interface: Option<&'a str>,
    ) -> Later<'a, io::Result<Stream>> {
        Box::pin(async move {
            let socket = match to {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.set_nodelay(true)?;
            if let Some(interface) = interface {
                socket.bind_device(Some(interface.as_bytes()))?;
            }
            if let Some(from) = from {
                socket.bind(SocketAddr::new(from, 0))?;
            }
            Ok(socket.connect(to).await?.into())
        })
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        let (read, write) = stream.into_split();
        Stream {
            read: Box::new(read),
            write: Box::new(write),
        }
    }
}
