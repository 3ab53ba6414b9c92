//! What balancers of any age are used to: HTTP/1.0, connections that are kept or closed, and answers in one piece.

use super::super::checks::Reader;
use super::super::connection::Http;
use super::super::crowd::Visitor;
use super::super::patience::Patience;
use super::super::serve::Serve;
use super::super::tls::Certificates;
use super::balancers::{Client, two_roles};
use super::checks::{checks_with, http};
use super::fixture::{handle, published, role};
use super::{LIMIT, heard, talk, tls};
use crate::grpc::CHECK;
use crate::handle::Counters;
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use baton_shared::status::Status;
use http_body_util::BodyExt;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// HAProxy's `option httpchk` without a word more asks `OPTIONS / HTTP/1.0`.
#[tokio::test]
async fn http_1_0_is_answered_and_kept_only_when_asked_for() {
    let run = checks_with(published(), http(false, 100), Patience::USUAL);
    for status in [503, 200] {
        for request in [
            "OPTIONS / HTTP/1.0\r\n\r\n",
            "OPTIONS /health HTTP/1.0\r\nHost: x\r\n\r\n",
            "HEAD /health HTTP/1.0\r\n\r\n",
            "GET /health HTTP/1.0\r\n\r\n",
            "GET /health HTTP/1.0\r\nConnection: close\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        ] {
            // That the connection ends, `talk` sees to.
            let reply = talk(TcpStream::connect(run.addr).await.unwrap(), request).await;
            assert_eq!(reply.status, status, "{request}");
            assert_eq!(reply.body.is_empty(), !request.starts_with("GET"), "{request}");
            let version = if request.contains("1.0") {
                "HTTP/1.0 "
            } else {
                "HTTP/1.1 "
            };
            assert!(reply.head.starts_with(version), "{request}: {}", reply.head);
        }
        let mut kept = TcpStream::connect(run.addr).await.unwrap();
        for _ in 0..3 {
            let request = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
            kept.write_all(request).await.unwrap();
            let answer = answer(&mut kept).await.to_ascii_lowercase();
            assert!(answer.starts_with(&format!("http/1.0 {status} ")), "{answer}");
            assert!(answer.contains("\r\nconnection: keep-alive\r\n"), "{answer}");
        }
        let last = "GET /health HTTP/1.0\r\n\r\n";
        assert_eq!(talk(kept, last).await.status, status);
        run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    }
}

/// An answer with its body, which is JSON.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    while !answer.trim_ascii_end().ends_with(b"}") {
        let read = timeout(LIMIT, stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// A stream that counts what is written at once.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.writes.fetch_add(1, Relaxed);
        let whole: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        Pin::new(&mut self.stream).poll_write(cx, &whole)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection to a checks listener with or without TLS; how often that has written; and the end of it.
fn connection(tls: Option<Arc<Certificates>>) -> (DuplexStream, Arc<AtomicUsize>, JoinHandle<()>) {
    let (client, stream) = tokio::io::duplex(64 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let counted = Counted {
        stream,
        writes: writes.clone(),
    };
    let serving = tokio::spawn(async {
        let (_stop, stopped) = watch::channel(());
        let (handle, _core) = handle(published());
        let reader = Arc::new(Reader::new(handle, &http(false, 1)));
        let http = Arc::new(Http::new(reader, Patience::USUAL).tls(tls));
        http.serve(counted, Visitor::alone(), stopped).await;
    });
    (client, writes, serving)
}

/// Each answer to a GET in one write.
async fn one_each(mut client: impl AsyncRead + AsyncWrite + Unpin, writes: &AtomicUsize) {
    for asked in 0..4 {
        let before = writes.load(Relaxed);
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        client.flush().await.unwrap();
        assert!(answer(&mut client).await.starts_with("HTTP/1.1 503 "));
        // With the first, TLS sends its tickets (RFC 8446 §4.6.1).
        assert!(asked == 0 || writes.load(Relaxed) - before == 1);
    }
}

#[tokio::test]
async fn head_and_body_leave_in_one_write_with_tls_and_without() {
    let (client, writes, serving) = connection(None);
    one_each(client, &writes).await;
    timeout(LIMIT, serving).await.unwrap().unwrap();

    let dir = TempDir::new().unwrap();
    let files = tls::write(dir.path(), tls::FIRST);
    let certificates = Arc::new(Certificates::load(&files).unwrap());
    let (client, writes, serving) = connection(Some(certificates));
    let client = tls::shake(client, tls::FIRST[0], "http/1.1").await.unwrap();
    one_each(client, &writes).await;
    timeout(LIMIT, serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_grpc_answer_leaves_in_one_write() {
    let (client, writes, serving) = connection(None);
    let mut client = Client::over(client).await;
    let mut before = None;
    // The first is answered together with HTTP/2's settings.
    for _ in 0..4 {
        let counted = before.replace(writes.load(Relaxed));
        let answer = client.call(CHECK, "").await.collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        if counted.is_some() {
            assert_eq!(Some(writes.load(Relaxed) - 1), before);
        }
    }
    drop(client);
    timeout(LIMIT, serving).await.unwrap().unwrap();
}

/// A connection on which this is said, and whose sending side is closed, before anybody can look at it.
fn closed_behind(addr: SocketAddr, request: &str) -> TcpStream {
    let mut stream = std::net::TcpStream::connect(addr).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}

/// `nc -N`, and monitoring plugins of old.
#[tokio::test]
async fn who_closes_its_side_behind_the_question_is_answered() {
    let mut config = http(false, 100);
    config.agent_check = vec!["127.0.0.1:0".parse().unwrap()];
    let run = checks_with(two_roles(), config, Patience::USUAL);
    let gist = Status::new(&run.published, "", Mono::now()).gist;
    for (request, status, answers) in [
        ("GET /health HTTP/1.0\r\n\r\n".to_owned(), 503, 1),
        ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 503, 1),
        ("GET /help HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3), 200, 3),
        ("GET /metrics HTTP/1.0\r\n\r\n".to_owned(), 200, 1),
        (
            format!("GET /status?after={gist}&wait=100ms HTTP/1.0\r\n\r\n"),
            200,
            1,
        ),
    ] {
        for _ in 0..20 {
            let reply = heard(closed_behind(run.addr, &request)).await;
            assert_eq!(reply.status, status, "{request}");
            let others = reply.body.matches("HTTP/1.1 ").count();
            assert_eq!(1 + others, answers, "{request}");
        }
    }
    let line = heard(closed_behind(run.agent, "reports\n")).await;
    assert!(line.head.starts_with("down "), "{}", line.head);
}

#[tokio::test]
async fn a_stream_of_events_ends_when_its_reader_has_closed_its_side() {
    let run = checks_with(published(), http(false, 100), Patience::USUAL);
    let request = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";
    // It gets what there is. That it ends, and before it would be told anything again, `heard` sees to.
    let reply = heard(closed_behind(run.addr, request)).await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains("event: status"), "{}", reply.body);
    let counters = &run.handle.counters;
    timeout(LIMIT, all_gone(counters))
        .await
        .expect("its place is free");

    // What comes meanwhile is not the end.
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let mut until = async |stream: &mut TcpStream, words: &str| {
        while !String::from_utf8_lossy(&seen).contains(words) {
            let read = timeout(LIMIT, stream.read_buf(&mut seen)).await.unwrap();
            assert_ne!(read.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
    };
    until(&mut stream, "event: status").await;
    stream.write_all(b"GET /health HTTP/1.1\r\n").await.unwrap();
    until(&mut stream, "\n:\n").await;
    drop(stream);
    timeout(LIMIT, all_gone(counters))
        .await
        .expect("its place is free");
}

async fn all_gone(counters: &Counters) {
    while counters.http_connections.load(Relaxed) > 0 {
        sleep(Duration::from_millis(5)).await;
    }
}
