//! How long a connection may keep us waiting: a stream that fails by itself when its peer is too slow.
//!
//! hyper's own header timer also ends connections that merely rest between two requests, and allocates per request. This
//! one tells the two apart. On HTTP/2, where answers overlap, the peer has a rest's time for everything while none is made. It costs one clock reading per request, and no timer is touched until one has run out.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long each thing may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a request, or from accepting, to the end of its header.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the peer to take anything of an answer.
    pub write: Duration,
}

impl Patience {
    /// Against slow senders 5 s; between requests 75 s, so that checks once a minute may keep their connection; against
    /// readers who have gone away 10 s.
    pub(super) const USUAL: Patience = Patience {
        header: Duration::from_secs(5),
        idle: Duration::from_secs(75),
        write: Duration::from_secs(10),
    };
}

/// What a connection is doing, shared by its stream and its handler.
#[derive(Clone, Default)]
pub(super) struct Phase(Arc<AtomicU32>);

/// A request is awaited, or on its way in.
const HEADER: u32 = 0;
/// A request is being answered.
const ANSWERING: u32 = 1;
/// Between two requests.
const IDLE: u32 = 2;
/// HTTP/2, with nothing to answer; plus one for each answer that is being made.
const MULTIPLEXED: u32 = 1 << 16;

impl Phase {
    /// The request is complete.
    pub(super) fn answering(&self) {
        self.0.store(ANSWERING, Relaxed);
    }

    /// The answer is made.
    pub(super) fn answered(&self) {
        self.0.store(IDLE, Relaxed);
    }

    /// The connection speaks HTTP/2: requests overlap, and what comes in need not be one.
    pub(super) fn multiplexed(&self) {
        self.0.store(MULTIPLEXED, Relaxed);
    }

    /// One more answer is being made, until the value is dropped. Only after [`Phase::multiplexed`].
    pub(super) fn busy(&self) -> Busy {
        self.0.fetch_add(1, Relaxed);
        Busy(self.clone())
    }
}

/// An answer that is being made on an HTTP/2 connection.
pub(super) struct Busy(Phase);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// A stream with limited patience.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    phase: Phase,
    /// When the present phase began, or the peer last took something.
    since: Instant,
    /// Since when the peer takes nothing.
    stuck: Option<Instant>,
    /// Rings no later than the deadline; earlier does no harm.
    alarm: Pin<Box<Sleep>>,
}

impl<S> Patient<S> {
    /// Starts waiting for the first request.
    pub(super) fn new(stream: S, patience: Patience, phase: Phase) -> Patient<S> {
        let since = Instant::now();
        Patient {
            stream,
            patience,
            phase,
            since,
            stuck: None,
            alarm: Box::pin(sleep_until(since + patience.header)),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let reading = match self.phase.0.load(Relaxed) {
            HEADER => Some(self.since + self.patience.header),
            IDLE | MULTIPLEXED => Some(self.since + self.patience.idle),
            _ => None,
        };
        let writing = self.stuck.map(|since| since + self.patience.write);
        match (reading, writing) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Fails once the deadline has passed; else sees to it that the task is woken by then.
    fn endure(&mut self, cx: &mut Context<'_>) -> Result<(), io::Error> {
        let Some(deadline) = self.deadline() else {
            return Ok(());
        };
        if self.alarm.deadline() > deadline {
            self.alarm.as_mut().reset(deadline);
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.alarm.as_mut().reset(deadline);
        }
        Ok(())
    }

    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(_) => {
                self.since = Instant::now();
                self.stuck = None;
            }
            Poll::Pending => {
                self.stuck.get_or_insert_with(Instant::now);
                self.endure(cx)?;
            }
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &result {
            Poll::Ready(_) => {
                let phase = &self.phase.0;
                if phase.compare_exchange(IDLE, HEADER, Relaxed, Relaxed).is_ok() {
                    self.since = Instant::now();
                }
            }
            Poll::Pending => self.endure(cx)?,
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper may have found nothing to read while the answer was being made, and then reads no more before it is
        // woken; but it always flushes.
        self.endure(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
