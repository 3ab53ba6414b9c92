//! A TCP connection as tokio has it, but for two system calls.
//!
//! In a program with threads, glibc's `recv` and `send` switch a thread's cancellation on and off again, by locked instructions.
//! Nobody cancels threads here, and two calls per answer are most of what an answer is.

use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// An accepted connection.
pub(super) struct Socket(TcpStream);

impl Socket {
    /// Accepts one, and says who it is from.
    pub(super) fn poll_accept(
        listener: &TcpListener,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Socket, SocketAddr)>> {
        listener
            .poll_accept(cx)
            .map_ok(|(stream, from)| (Socket(stream), from))
    }

    /// Makes a call that moves up to `most` bytes; `WouldBlock` before it can.
    fn call(
        &self,
        interest: Interest,
        most: usize,
        call: impl FnOnce() -> rustix::io::Result<usize>,
    ) -> io::Result<usize> {
        let mut moved = 0;
        let tried = self.0.try_io(interest, || {
            moved = call()?;
            match moved {
                // That was all for now, and the kernel will tell of more: nobody need ask again before (epoll(7), question 9).
                1.. if moved < most => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match tried {
            Err(error) if moved == 0 || error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(moved),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            // SAFETY: nothing that is initialised there is made uninitialised: `recv` only writes.
            let room = unsafe { buf.unfilled_mut() };
            let most = room.len();
            let read = self.call(Interest::READABLE, most, || {
                recv(&self.0, room, RecvFlags::empty()).map(|((read, _), _)| read.len())
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    // SAFETY: `recv` has written so many bytes.
                    unsafe { buf.assume_init(read) };
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let sent = self.call(Interest::WRITABLE, bytes.len(), || {
                send(&self.0, bytes, SendFlags::NOSIGNAL)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
