//! How long a connection may keep us waiting: a stream that fails by itself when its peer is too slow.
//!
//! hyper's own header timer also ends connections that merely rest between two requests, and allocates per request. This
//! one tells the two apart. On HTTP/2, where answers overlap, the peer has a rest's time for everything while none is made,
//! and what the protocol itself says, such as answers to PING, is no sign of life. It costs one coarse clock reading per
//! request, and no timer is touched until one has run out.

use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
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

/// Of what comes while an answer goes on by itself, so much is read at most, to see whether its reader is there.
const MAX_AHEAD: usize = 512;

/// What a connection is doing and since when, shared by its stream, its handler, and who must find room for others.
#[derive(Clone)]
pub(super) struct Phase(Arc<Doing>);

struct Doing {
    what: AtomicU32,
    /// When the present phase began, or the peer last took something: nanoseconds after `origin`.
    since: AtomicU64,
    origin: Origin,
}

/// An instant that others are counted from, by either of two clocks.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    exact: Instant,
    coarse: u64,
}

impl Origin {
    /// Now.
    pub(super) fn now() -> Origin {
        Origin {
            exact: Instant::now(),
            coarse: coarse(),
        }
    }
}

/// The time of the last timer interrupt, one to ten milliseconds ago at most: none of what is endured here is so short, and it
/// costs a fraction of an exact reading. In nanoseconds.
fn coarse() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A request is awaited, or on its way in.
const HEADER: u32 = 0;
/// A request is being answered.
const ANSWERING: u32 = 1;
/// Between two requests.
const IDLE: u32 = 2;
/// TLS is being agreed on.
const HANDSHAKE: u32 = 3;
/// An answer goes on by itself: a stream of events.
const STREAMING: u32 = 4;
/// HTTP/2, with nothing to answer; plus one for each answer that is being made.
const MULTIPLEXED: u32 = 1 << 16;

impl Phase {
    /// Waits for the first request from now on. `origin` is one instant for all who are compared.
    pub(super) fn new(origin: Origin) -> Phase {
        let phase = Phase(Arc::new(Doing {
            what: AtomicU32::new(HEADER),
            since: AtomicU64::new(0),
            origin,
        }));
        phase.anew();
        phase
    }

    fn anew(&self) {
        let nanos = u64::try_from(self.0.origin.exact.elapsed().as_nanos());
        self.0.since.store(nanos.unwrap_or(u64::MAX), Relaxed);
    }

    /// The same, for what comes with each request.
    fn about_anew(&self) {
        let nanos = coarse().saturating_sub(self.0.origin.coarse);
        self.0.since.store(nanos, Relaxed);
    }

    /// When that began, or the peer last took something.
    pub(super) fn since(&self) -> Instant {
        self.0.origin.exact + Duration::from_nanos(self.0.since.load(Relaxed))
    }

    /// No answer is being made.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(
            self.0.what.load(Relaxed),
            HEADER | IDLE | HANDSHAKE | STREAMING | MULTIPLEXED
        )
    }

    /// It speaks HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.0.what.load(Relaxed) >= MULTIPLEXED
    }

    /// It is agreeing on TLS.
    pub(super) fn is_handshaking(&self) -> bool {
        self.0.what.load(Relaxed) == HANDSHAKE
    }

    /// TLS comes first.
    pub(super) fn handshaking(&self) {
        self.0.what.store(HANDSHAKE, Relaxed);
    }

    /// TLS is agreed on; the time for it and for the first request is one.
    pub(super) fn shaken(&self) {
        self.0.what.store(HEADER, Relaxed);
    }

    /// The request is complete.
    pub(super) fn answering(&self) {
        self.0.what.store(ANSWERING, Relaxed);
    }

    /// The answer is made.
    pub(super) fn answered(&self) {
        self.0.what.store(IDLE, Relaxed);
    }

    /// The answer is made, and goes on by itself.
    pub(super) fn streaming(&self) {
        self.0.what.store(STREAMING, Relaxed);
    }

    /// The connection speaks HTTP/2: requests overlap, and what comes in need not be one.
    pub(super) fn multiplexed(&self) {
        self.0.what.store(MULTIPLEXED, Relaxed);
    }

    /// One more answer is being made, until the value is dropped. Only after [`Phase::multiplexed`].
    pub(super) fn busy(&self) -> Busy {
        self.anew();
        self.0.what.fetch_add(1, Relaxed);
        Busy(self.clone())
    }
}

/// An answer that is being made on an HTTP/2 connection.
pub(super) struct Busy(Phase);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.anew();
        self.0.0.what.fetch_sub(1, Relaxed);
    }
}

/// The task that a future will wake, since that was the last to poll it.
#[derive(Default)]
pub(super) struct Rung(Option<Waker>);

impl Rung {
    /// Polls a future by `poll`, unless it will wake this task anyway, and has not come about, as far as `come` tells.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        come: bool,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if !come && self.0.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let polled = poll(cx);
        // Without a budget tokio's futures take no waker.
        let rings = polled.is_pending() && coop::has_budget_remaining();
        self.0 = rings.then(|| cx.waker().clone());
        polled
    }
}

/// A stream with limited patience.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    phase: Phase,
    /// The phase began, or the peer took something, since the clock was last read for it: in this turn of the task, for each
    /// ends in [`Patient::endure`].
    fresh: bool,
    /// Since when the peer takes nothing.
    stuck: Option<Instant>,
    /// Rings no later than the deadline; earlier does no harm.
    alarm: Pin<Box<Sleep>>,
    /// Of the alarm.
    rung: Rung,
    /// What came while an answer went on by itself.
    ahead: Vec<u8>,
}

impl<S> Patient<S> {
    /// A stream that has just begun `phase`.
    pub(super) fn new(stream: S, patience: Patience, phase: Phase) -> Patient<S> {
        Patient {
            stream,
            patience,
            fresh: false,
            stuck: None,
            alarm: Box::pin(sleep_until(phase.since() + patience.header)),
            rung: Rung::default(),
            ahead: Vec::new(),
            phase,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let reading = match self.phase.0.what.load(Relaxed) {
            HEADER | HANDSHAKE => Some(self.phase.since() + self.patience.header),
            IDLE | STREAMING | MULTIPLEXED => Some(self.phase.since() + self.patience.idle),
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
        if mem::take(&mut self.fresh) {
            self.phase.about_anew();
        }
        let Some(deadline) = self.deadline() else {
            return Ok(());
        };
        if self.alarm.deadline() > deadline {
            self.alarm.as_mut().reset(deadline);
        }
        let Patient { alarm, rung, .. } = self;
        while rung
            .poll(cx, alarm.is_elapsed(), |cx| alarm.as_mut().poll(cx))
            .is_ready()
        {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            alarm.as_mut().reset(deadline);
        }
        Ok(())
    }

    fn wrote(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(_) => {
                self.fresh |= !self.phase.is_multiplexed();
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
        let result = match self.ahead.is_empty() {
            true => Pin::new(&mut self.stream).poll_read(cx, buf),
            false => {
                let length = self.ahead.len().min(buf.remaining());
                buf.put_slice(&self.ahead[..length]);
                self.ahead.drain(..length);
                Poll::Ready(Ok(()))
            }
        };
        match &result {
            Poll::Ready(_) => {
                let what = &self.phase.0.what;
                if matches!(what.load(Relaxed), IDLE | STREAMING) {
                    what.store(HEADER, Relaxed);
                    self.fresh = true;
                }
            }
            Poll::Pending => self.endure(cx)?,
        }
        result
    }
}

impl<S: AsyncRead + Unpin> Patient<S> {
    /// Fails once the reader of an answer that goes on by itself has closed its side. Other answers are given all the same, for
    /// many who ask once close their side behind the question; hyper therefore looks for no end while it answers.
    fn heed_the_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.phase.0.what.load(Relaxed) == STREAMING && self.ahead.len() < MAX_AHEAD {
            let mut piece = [0; MAX_AHEAD];
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(read) => read?,
            }
            if buf.filled().is_empty() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.ahead.extend_from_slice(buf.filled());
            cx.waker().wake_by_ref(); // whoever waits for this has not seen it
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<S> {
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
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.heed_the_end(cx)?;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Wake;
    use tokio::time::{sleep, timeout};

    struct Nobody;

    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn what_rings_for_a_task_is_not_asked_again_until_it_came_or_another_task_waits() {
        let wakers = [(); 2].map(|()| Waker::from(Arc::new(Nobody)));
        let mut rung = Rung::default();
        let mut asked = |of: &Waker, come| {
            let mut asked = false;
            let mut cx = Context::from_waker(of);
            let _ = rung.poll(&mut cx, come, |_| {
                asked = true;
                Poll::<()>::Pending
            });
            asked
        };
        assert!(asked(&wakers[0], false));
        assert!(!asked(&wakers[0], false));
        assert!(asked(&wakers[0], true));
        assert!(asked(&wakers[1], false));
        assert!(asked(&wakers[0], false));
        assert!(!asked(&wakers[0], false));
    }

    /// Then tokio has not set the timer, and would never wake this task again for it.
    #[tokio::test]
    async fn a_timer_that_was_asked_without_a_budget_is_asked_again() {
        let mut alarm = pin!(sleep(Duration::from_millis(1)));
        let mut rung = Rung::default();
        let mut spent = false;
        let rings = poll_fn(|cx| {
            while !spent {
                spent = pin!(coop::consume_budget()).poll(cx).is_pending();
            }
            rung.poll(cx, alarm.is_elapsed(), |cx| alarm.as_mut().poll(cx))
        });
        timeout(Duration::from_secs(20), rings).await.expect("it rings");
    }
}
