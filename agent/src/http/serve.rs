//! Accepting connections and seeing them through: one task each, all in one set, under limits, drained at the end.

use super::answer::{Answer, Body};
use super::patience::{Patience, Patient, Phase};
use crate::handle::Counters;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A request's header, and what is read ahead of it. Checks need 300 bytes; proxies add some.
const MAX_HEADER: usize = 16 * 1024;
/// What connections get to finish in when the agent stops.
const DRAIN: Duration = Duration::from_secs(1);
/// After an error that will not go away by itself at once, such as a want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers requests.
pub(super) trait Face: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Answer> + Send;
}

/// Accepts connections.
pub(super) trait Listener: Send + 'static {
    /// What is accepted.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Accepts one.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        TcpListener::poll_accept(self, cx).map_ok(|(stream, _)| {
            // Fails only on a connection that is already gone, which the first read will tell.
            let _ = stream.set_nodelay(true);
            stream
        })
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        UnixListener::poll_accept(self, cx).map_ok(|(stream, _)| stream)
    }
}

/// How much is served at once, and how patiently.
pub(super) struct Limits {
    /// Connections at once; more are closed unheard.
    pub connections: usize,
    /// With each of them.
    pub patience: Patience,
    /// Where connections are counted.
    pub counters: Option<Arc<Counters>>,
}

/// Serves `face` on all `listeners` until `shutdown`, then lets connections finish for a moment.
pub(super) async fn serve<L: Listener, F: Face>(
    listeners: Vec<L>,
    face: Arc<F>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    let (stop, stopped) = watch::channel(());
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut turn: usize = 0;
    let mut failing = false;
    loop {
        turn = turn.wrapping_add(1);
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                ended.map_err(|error| format!("a connection's task failed: {error}"))?;
                continue;
            }
            accepted = accept(&listeners, turn) => accepted,
        };
        let failed_before = failing;
        failing = false;
        match accepted {
            Ok(stream) if tasks.len() < limits.connections => {
                let open = Open::new(limits.counters.clone());
                tasks.spawn(connection(
                    stream,
                    face.clone(),
                    limits.patience,
                    stopped.clone(),
                    open,
                ));
            }
            Ok(stream) => {
                drop(stream);
                if let Some(counters) = &limits.counters {
                    Counters::add(&counters.http_refused);
                }
            }
            Err(error) if passing(&error) => {}
            Err(error) => {
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

/// The next connection of any listener; each in turn is asked first.
async fn accept<L: Listener>(listeners: &[L], turn: usize) -> io::Result<L::Stream> {
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

/// Errors of one connection that died while it waited, and not of the listener (accept(2)).
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

async fn connection<S, F>(
    stream: S,
    face: Arc<F>,
    patience: Patience,
    mut stopped: watch::Receiver<()>,
    _open: Open,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Face,
{
    let phase = Phase::default();
    let patient = Patient::new(stream, patience, phase.clone());
    let service = service_fn(|request| {
        phase.answering();
        let phase = phase.clone();
        let face = face.clone();
        async move {
            let answer = face.answer(request).await;
            phase.answered();
            Ok::<hyper::Response<Body>, Infallible>(answer)
        }
    });
    // No timer: see `patience`.
    let serving = http1::Builder::new()
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(patient), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
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
    use super::super::answer::{StatusCode, text};
    use super::*;
    use std::sync::atomic::AtomicUsize;

    struct Hello;

    impl Face for Hello {
        async fn answer(&self, _request: Request<Incoming>) -> Answer {
            text(StatusCode::OK, "hello")
        }
    }

    /// A listener without descriptors.
    struct Exhausted(Arc<AtomicUsize>);

    impl Listener for Exhausted {
        type Stream = TcpStream;
        fn poll_accept(&self, _cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
            self.0.fetch_add(1, Relaxed);
            Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)))
        }
    }

    #[tokio::test]
    async fn a_want_of_descriptors_is_waited_out_without_spinning() {
        let asked = Arc::new(AtomicUsize::new(0));
        let limits = Limits {
            connections: 1,
            patience: Patience::USUAL,
            counters: None,
        };
        let stop = tokio::time::sleep(PAUSE * 10);
        let listener = Exhausted(asked.clone());
        serve(vec![listener], Arc::new(Hello), limits, stop)
            .await
            .unwrap();
        assert!((1..=12).contains(&asked.load(Relaxed)), "{asked:?}");
    }
}
