//! A connection's first bytes: which protocol they begin, and the stream that has them in front again.

use super::proxy::{self, Header};
use bytes::{Buf, Bytes};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What an HTTP/2 client that knows its peer begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of a TLS handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 0x16;
/// Read at once: most requests of checks are shorter.
const PIECE: usize = 512;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Too little to tell.
    Unclear,
    /// A header of the PROXY protocol, of so many bytes.
    Proxy(usize),
    /// The same, which cannot be right.
    WrongProxy(&'static str),
    /// A TLS handshake.
    Tls,
    /// HTTP/2.
    Http2,
    /// Anything else.
    Http1,
}

/// Decides by the bytes that came first.
pub(super) fn opening(bytes: &[u8]) -> Opening {
    match bytes.first() {
        None => return Opening::Unclear,
        Some(&HANDSHAKE) => return Opening::Tls,
        Some(_) => {}
    }
    match proxy::header(bytes) {
        Header::Partial => Opening::Unclear,
        Header::Whole(length) => Opening::Proxy(length),
        Header::Wrong(why) => Opening::WrongProxy(why),
        Header::Absent if bytes.starts_with(PREFACE) => Opening::Http2,
        Header::Absent if PREFACE.starts_with(bytes) => Opening::Unclear,
        Header::Absent => Opening::Http1,
    }
}

/// Reads until it is clear what the connection begins with. What was read goes to the end of `early`.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), early: &mut Vec<u8>) -> io::Result<Opening> {
    loop {
        match opening(early) {
            Opening::Unclear => {}
            clear => return Ok(clear),
        }
        let more = poll_fn(|cx| {
            // Not kept while nothing comes: thousands may be connected and say nothing.
            let mut piece = [0; PIECE];
            let mut buf = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
            early.extend_from_slice(buf.filled());
            Poll::Ready(Ok::<_, io::Error>(buf.filled().len()))
        });
        if more.await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A stream with bytes in front that were read from it before.
pub(super) struct Rewound<S> {
    early: Bytes,
    stream: S,
}

impl<S> Rewound<S> {
    /// `early` is read first.
    pub(super) fn new(early: impl Into<Bytes>, stream: S) -> Rewound<S> {
        let early = early.into();
        Rewound { early, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..length]);
        self.early.advance(length);
        if self.early.is_empty() {
            self.early = Bytes::new(); // lets its memory go
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[test]
    fn the_first_bytes_name_the_protocol() {
        let whole = [PREFACE, b"\0\0\0"].concat();
        for (bytes, expected) in [
            (&b""[..], Opening::Unclear),
            (b"P", Opening::Unclear),
            (b"PR", Opening::Unclear),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Opening::Unclear),
            (&whole, Opening::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nXM", Opening::Http1),
            (b"PO", Opening::Http1),
            (b"GET /", Opening::Http1),
            (b"\r\n\r\n", Opening::Unclear),
            (b"\r\n\r\nG", Opening::Http1),
            (b"PROXY UNKNOWN\r\nGET", Opening::Proxy(15)),
            (b"\x16\x03\x01", Opening::Tls),
            (b"\xff", Opening::Http1),
        ] {
            assert_eq!(opening(bytes), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_was_read_early_is_read_again() {
        let mut early = b"GE".to_vec();
        let mut stream: &[u8] = b"T / HTTP/1.1";
        assert_eq!(read(&mut stream, &mut early).await.unwrap(), Opening::Http1);
        let mut text = String::new();
        let mut rewound = Rewound::new(early, stream);
        rewound.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "GET / HTTP/1.1");
        let mut short: &[u8] = b"PRI *";
        assert!(read(&mut short, &mut Vec::new()).await.is_err());
    }
}
