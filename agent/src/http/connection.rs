//! One HTTP connection, from its first bytes to its end: HTTP/1 or, for clients that know it beforehand, HTTP/2 on the same
//! port; by configuration inside TLS, or behind a header of the PROXY protocol.

use super::answer::{Answer, Body};
use super::budget::Budget;
use super::crowd::{Peer, Visitor};
use super::opening::{self, Opening, Rewound};
use super::patience::{Busy, Patience, Patient, Phase, Rung};
use super::progress::{Impatient, Progress};
use super::serve::{Serve, part};
use super::tls::Certificates;
use crate::spawner::Tasks;
use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, watch};

/// A request's header, and what is read ahead of it. Checks need 300 bytes; proxies add some.
const MAX_HEADER: u16 = 16 * 1024;
/// HTTP/2 connections at once. Each costs more than one of HTTP/1, and a checker needs one. For one more the longest at rest is
/// closed.
pub(super) const MAX_MULTIPLEXED: usize = 1024;
/// Requests at once on one of them: a watch and a check for each of a few roles.
const MAX_STREAMS: u32 = 32;
/// What a peer may send ahead on a stream, and on a connection: questions are of a few bytes.
const MAX_AHEAD: u32 = 64 * 1024 - 1;
/// Of an answer, so much is kept ready for the peer to take.
const MAX_READY: usize = 64 * 1024;

/// Answers requests.
pub(super) trait Face: Send + Sync + 'static {
    /// Answers one request.
    fn answer(self: &Arc<Self>, request: Request<Incoming>, from: Peer) -> Answering;
}

/// An answer that is made, as most are, or on its way. Small, since hyper moves it for each request.
pub(super) enum Answering {
    /// It took no waiting.
    Done(Ready<Answer>),
    /// It takes some.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Answering {
    /// One that is made.
    pub(super) fn done(answer: Answer) -> Answering {
        Answering::Done(ready(answer))
    }

    /// One on its way.
    pub(super) fn later(answer: impl Future<Output = Answer> + Send + 'static) -> Answering {
        Answering::Later(Box::pin(answer))
    }
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut *self {
            Answering::Done(answer) => Pin::new(answer).poll(cx),
            Answering::Later(answer) => answer.as_mut().poll(cx),
        };
        answer.map(Ok)
    }
}

/// Serves a face.
pub(super) struct Http<F> {
    face: Arc<F>,
    patience: Patience,
    /// Connections may begin with a header of the PROXY protocol.
    proxy_protocol: bool,
    tls: Option<Arc<Certificates>>,
    /// The log has said that they do, although they may not.
    warned: AtomicBool,
    multiplexed: Semaphore,
    budget: Arc<Budget>,
}

impl<F: Face> Http<F> {
    /// Without the PROXY protocol or TLS.
    pub(super) fn new(face: Arc<F>, patience: Patience) -> Http<F> {
        Http {
            face,
            patience,
            proxy_protocol: false,
            tls: None,
            warned: AtomicBool::new(false),
            multiplexed: Semaphore::new(MAX_MULTIPLEXED),
            budget: Arc::default(),
        }
    }

    /// With the PROXY protocol tolerated, or not.
    pub(super) fn proxy_protocol(self, tolerated: bool) -> Http<F> {
        Http {
            proxy_protocol: tolerated,
            ..self
        }
    }

    /// With TLS, or not.
    pub(super) fn tls(self, certificates: Option<Arc<Certificates>>) -> Http<F> {
        Http {
            tls: certificates,
            ..self
        }
    }

    async fn talk<S>(
        &self,
        mut stream: S,
        visitor: &Visitor,
        stopped: &mut watch::Receiver<()>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut early = Vec::new();
        let opening = tokio::select! {
            opening = self.begin(&mut stream, &mut early) => opening?,
            _ = stopped.changed() => return Ok(()),
        };
        match (opening, &self.tls) {
            (Ok(Opening::Tls), Some(tls)) => {
                let handshake = tls.accept(Rewound::new(early, stream), self.patience, visitor);
                let mut stream = tokio::select! {
                    stream = handshake => stream?,
                    _ = stopped.changed() => return Ok(()),
                };
                let mut early = Vec::new();
                let opening = tokio::select! {
                    opening = opening::read(&mut stream, &mut early) => opening?,
                    _ = stopped.changed() => return Ok(()),
                };
                Box::pin(self.speak(stream, early, opening, visitor, stopped)).await
            }
            (Ok(_), Some(_)) => refuse(&mut stream, "this address speaks TLS; ask with https://").await,
            (Ok(opening), None) => self.speak(stream, early, opening, visitor, stopped).await,
            (Err(why), _) => refuse(&mut stream, &why).await,
        }
    }

    async fn speak<S>(
        &self,
        stream: S,
        early: Vec<u8>,
        opening: Opening,
        visitor: &Visitor,
        stopped: &mut watch::Receiver<()>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Rewound::new(early, stream);
        if opening != Opening::Http2 {
            return one_by_one(stream, self, visitor, stopped).await;
        }
        let (room, limit) = (&self.multiplexed, self.patience.header);
        let _room = visitor.room(room, Phase::is_multiplexed, limit).await?;
        Box::pin(multiplexed(stream, self, visitor, stopped)).await
    }

    /// Reads the first bytes, and past a header of the PROXY protocol. The inner error is for whoever wrote the balancer's
    /// configuration.
    async fn begin(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        early: &mut Vec<u8>,
    ) -> io::Result<Result<Opening, String>> {
        let mut skipped = false;
        loop {
            let opening = opening::read(stream, early).await?;
            match opening {
                Opening::Proxy(length) if self.proxy_protocol && !skipped => {
                    early.drain(..length);
                    skipped = true;
                }
                Opening::Proxy(_) if skipped => return Ok(Err("a second PROXY protocol header".into())),
                Opening::WrongProxy(why) if self.proxy_protocol => {
                    return Ok(Err(format!("the PROXY protocol header is wrong: {why}")));
                }
                Opening::Proxy(_) | Opening::WrongProxy(_) => {
                    let advice =
                        "set proxy_protocol = true in [http], or take send-proxy from the balancer's checks";
                    if !self.warned.swap(true, Relaxed) {
                        tracing::warn!("checks begin with a PROXY protocol header and get 400: {advice}");
                    }
                    return Ok(Err(format!(
                        "a PROXY protocol header is not expected here; {advice}"
                    )));
                }
                clear => return Ok(Ok(clear)),
            }
        }
    }
}

impl<S, F> Serve<S> for Http<F>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Face,
{
    async fn serve(self: Arc<Self>, stream: S, visitor: Visitor, mut stopped: watch::Receiver<()>) {
        let patient = Patient::new(stream, self.patience, visitor.phase.clone());
        if let Err(error) = self.talk(patient, &visitor, &mut stopped).await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    }
}

/// HTTP/1.
async fn one_by_one<S, F>(
    stream: S,
    http: &Http<F>,
    visitor: &Visitor,
    stopped: &mut watch::Receiver<()>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Face,
{
    let (phase, from, budget) = (&visitor.phase, visitor.from, &http.budget);
    let service = service_fn(|request| {
        phase.answering();
        match http.face.answer(request, from) {
            Answering::Done(answer) => {
                let answer = budget.weigh(answer.into_inner(), from);
                Answering::done(made(phase, answer))
            }
            Answering::Later(answer) => {
                let (phase, budget) = (phase.clone(), budget.clone());
                Answering::later(async move { made(&phase, budget.weigh(answer.await, from)) })
            }
        }
    });
    // No timer: see `patience`.
    let serving = http1::Builder::new()
        .max_buf_size(MAX_HEADER.into())
        // Who closes its side behind a question wants an answer. Streams end then all the same: see `patience`.
        .half_close(true)
        // One plain write costs less than a gathering one; bodies come in small pieces for it.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        biased; // and so without a random number for each request
        ended = serving.as_mut() => ended,
        () = stop(stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    ended.map_err(io::Error::other)
}

/// Notes that an answer is made.
fn made(phase: &Phase, answer: Answer) -> Answer {
    match answer.body().goes_on() {
        true => phase.streaming(),
        false => phase.answered(),
    }
    answer
}

/// Ready once the agent stops. What else wakes the task costs it no lock.
async fn stop(stopped: &mut watch::Receiver<()>) {
    let seen = stopped.clone();
    let mut stopping = pin!(stopped.changed());
    let mut rung = Rung::default();
    poll_fn(|cx| {
        let come = seen.has_changed().unwrap_or(true); // an error: who would say so is gone
        rung.poll(cx, come, |cx| stopping.as_mut().poll(cx)).map(drop)
    })
    .await;
}

/// HTTP/2.
async fn multiplexed<S, F>(
    stream: S,
    http: &Http<F>,
    visitor: &Visitor,
    stopped: &mut watch::Receiver<()>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Face,
{
    let (phase, from) = (visitor.phase.clone(), visitor.from);
    phase.multiplexed();
    let (face, budget) = (http.face.clone(), http.budget.clone());
    let tasks = Tasks::default(); // they end with the connection
    let executor = Impatient::new(tasks.executor(), http.patience.write);
    let progresses = executor.clone();
    let service = service_fn(move |request| {
        let (busy, progress) = (phase.busy(), progresses.next());
        let (face, budget) = (face.clone(), budget.clone());
        async move {
            let Ok(answer) = face.answer(request, from).await;
            let answer = budget.weigh(answer, from);
            progress.offered();
            Ok::<_, Infallible>(answer.map(|body| Multiplexed {
                _busy: body.goes_on().then_some(busy),
                body,
                progress,
            }))
        }
    });
    let serving = http2::Builder::new(executor)
        .max_header_list_size(MAX_HEADER.into())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(MAX_AHEAD)
        .initial_connection_window_size(MAX_AHEAD)
        .max_send_buf_size(MAX_READY)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop(stopped) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    ended.map_err(io::Error::other)
}

/// A body on HTTP/2. While one goes on by itself, its connection is not at rest, however long nothing is said.
struct Multiplexed {
    body: Body,
    _busy: Option<Busy>,
    progress: Arc<Progress>,
}

impl HttpBody for Multiplexed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match &frame {
            // It is asked for more once the reader has room for that; what waits for news waits for nobody.
            Poll::Pending if self.body.awaits_news() => self.progress.quiet(),
            _ => self.progress.offered(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn refuse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), why: &str) -> io::Result<()> {
    stream.write_all(&bad_request(why)).await?;
    part(stream).await;
    Ok(())
}

/// A whole answer to what is no HTTP.
fn bad_request(why: &str) -> Vec<u8> {
    let body = serde_json::json!({ "error": why }).to_string();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
