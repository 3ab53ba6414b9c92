//! Accepting connections and seeing them through: one task each, all in one set, under limits, drained at the end. When the
//! room is taken, those who have rested longest make way: whoever comes with a question is heard (`crowd`).

use super::crowd::{Crowd, Peer, Visitor};
use super::socket::Socket;
use crate::accepting::{is_exhausted, is_passing};
use crate::handle::Counters;
use crate::memory::give_back;
use baton_shared::crowd::client;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

/// What connections get to finish in when the agent stops.
const DRAIN: Duration = Duration::from_secs(1);
/// After an error that will not go away by itself at once, such as a want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// So many connections leave memory behind that is worth giving back, when half of them are gone for so long.
const FLOOD: usize = 512;
const EBB: Duration = Duration::from_secs(2);
/// A peer that was told the last word gets so long to close, and may send so many bytes until then.
const PARTING: Duration = Duration::from_secs(1);
const MAX_PARTING: u64 = 64 * 1024;

/// Sees one connection through.
pub(super) trait Serve<S>: Send + Sync + 'static {
    /// Ends with the connection; soon, once `stopped` changes.
    fn serve(
        self: Arc<Self>,
        stream: S,
        visitor: Visitor,
        stopped: watch::Receiver<()>,
    ) -> impl Future<Output = ()> + Send;
}

/// Accepts connections.
pub(super) trait Listener: Send + 'static {
    /// What is accepted.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Accepts one, and says who it is from.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Peer)>>;
}

impl Listener for TcpListener {
    type Stream = Socket;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Peer)>> {
        Socket::poll_accept(self, cx).map_ok(|(stream, from)| (stream, Some(client(from.ip()))))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        UnixListener::poll_accept(self, cx).map_ok(|(stream, _)| (stream, None))
    }
}

/// How much is served at once.
pub(super) struct Limits {
    /// Connections at once; for one more, those who have rested longest are closed.
    pub connections: usize,
    /// Where connections are counted.
    pub counters: Option<Arc<Counters>>,
}

/// A flood of connections that comes and goes.
#[derive(Default)]
struct Tide {
    highest: usize,
    /// When half of them had gone.
    fell: Option<Instant>,
}

impl Tide {
    fn rises(&mut self, now: usize) {
        self.highest = self.highest.max(now);
    }

    fn falls(&mut self, now: usize) {
        if self.highest >= FLOOD && now <= self.highest / 2 {
            self.fell.get_or_insert_with(Instant::now);
        }
    }

    /// Ready some time after most have gone.
    async fn is_out(&self) {
        match self.fell {
            Some(at) => sleep_until(at + EBB).await,
            None => std::future::pending().await,
        }
    }
}

/// Serves all `listeners` until `shutdown`, then lets connections finish for a moment.
pub(super) async fn serve<L: Listener>(
    listeners: Vec<L>,
    server: Arc<impl Serve<L::Stream>>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    let (stop, stopped) = watch::channel(());
    let crowd = Crowd::new(limits.counters.clone());
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut turn: usize = 0;
    let mut failing = false;
    let mut tide = Tide::default();
    loop {
        turn = turn.wrapping_add(1);
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                crowd.left(ended)?;
                tide.falls(tasks.len());
                continue;
            }
            () = tide.is_out() => {
                tide = Tide::default();
                crowd.shrink();
                spawn_blocking(give_back);
                continue;
            }
            accepted = accept(&listeners, turn) => accepted,
        };
        let failed_before = failing;
        failing = false;
        match accepted {
            Ok((stream, from)) => {
                if !room(&crowd, &mut tasks, limits.connections).await? {
                    crowd.refused();
                    continue;
                }
                let visitor = crowd.visitor(from);
                let phase = visitor.phase.clone();
                let open = Open::new(limits.counters.clone());
                let serving = server.clone().serve(stream, visitor, stopped.clone());
                let task = tasks.spawn(async move {
                    serving.await;
                    drop(open);
                });
                crowd.came(phase, from, task);
                tide.rises(tasks.len());
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                if is_exhausted(&error) && crowd.make_room(|_| true) > 0 {
                    // Theirs come back with them.
                    if let Some(ended) = tasks.join_next_with_id().await {
                        crowd.left(ended)?;
                    }
                    continue;
                }
                failing = true;
                if !failed_before {
                    tracing::warn!(%error, "cannot accept HTTP connections; trying again until it works");
                }
                tokio::select! {
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
    drop(listeners);
    drop(stop);
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::debug!(
            connections = tasks.len(),
            "closing connections that did not finish"
        );
        tasks.shutdown().await;
    }
    Ok(())
}

/// Sees to it that there is room for one more; false if nobody can be asked to leave for it.
async fn room(crowd: &Crowd, tasks: &mut JoinSet<()>, most: usize) -> Result<bool, String> {
    while let Some(ended) = tasks.try_join_next_with_id() {
        crowd.left(ended)?;
    }
    if tasks.len() < most {
        return Ok(true);
    }
    if crowd.make_room(|_| true) == 0 {
        return Ok(false);
    }
    while tasks.len() >= most
        && let Some(ended) = tasks.join_next_with_id().await
    {
        crowd.left(ended)?;
    }
    Ok(true)
}

/// The next connection of any listener; each in turn is asked first.
async fn accept<L: Listener>(listeners: &[L], turn: usize) -> io::Result<(L::Stream, Peer)> {
    poll_fn(|cx| {
        for n in 0..listeners.len() {
            if let Poll::Ready(result) =
                listeners[(turn % listeners.len() + n) % listeners.len()].poll_accept(cx)
            {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}

/// Ends a connection after the last word to it. Closed with bytes unread, it would be reset, and the word with it (RFC 9112
/// §9.6): so what the peer still sends is read, within bounds.
pub(super) async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if stream.shutdown().await.is_ok() {
        let mut rest = stream.take(MAX_PARTING);
        let _ = timeout(PARTING, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await; // it is over either way
    }
}

/// An open connection, counted as long as it lives.
struct Open(Option<Arc<Counters>>);

impl Open {
    fn new(counters: Option<Arc<Counters>>) -> Open {
        if let Some(counters) = &counters {
            counters.http_connections.fetch_add(1, Relaxed);
        }
        Open(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(counters) = &self.0 {
            counters.http_connections.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::net::TcpStream;

    struct Nothing;

    impl<S: Send + 'static> Serve<S> for Nothing {
        async fn serve(self: Arc<Self>, _stream: S, _visitor: Visitor, _stopped: watch::Receiver<()>) {}
    }

    /// A listener without descriptors.
    struct Exhausted(Arc<AtomicUsize>);

    impl Listener for Exhausted {
        type Stream = TcpStream;
        fn poll_accept(&self, _cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, Peer)>> {
            self.0.fetch_add(1, Relaxed);
            Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_after_each_flood_and_never_without_one() {
        let mut tide = Tide::default();
        let is_out = async |tide: &Tide| timeout(EBB * 2, tide.is_out()).await.is_ok();
        tide.rises(FLOOD - 1);
        tide.falls(0);
        assert!(!is_out(&tide).await);
        tide.rises(FLOOD);
        tide.falls(FLOOD / 2 + 1);
        assert!(!is_out(&tide).await);
        tide.falls(FLOOD / 2);
        let start = Instant::now();
        tide.falls(0);
        assert!(is_out(&tide).await);
        assert!(start.elapsed() >= EBB);
    }

    #[tokio::test]
    async fn a_want_of_descriptors_is_waited_out_without_spinning() {
        let asked = Arc::new(AtomicUsize::new(0));
        let limits = Limits {
            connections: 1,
            counters: None,
        };
        let stop = tokio::time::sleep(PAUSE * 10);
        let listener = Exhausted(asked.clone());
        serve(vec![listener], Arc::new(Nothing), limits, stop)
            .await
            .unwrap();
        assert!((1..=12).contains(&asked.load(Relaxed)), "{asked:?}");
    }
}
