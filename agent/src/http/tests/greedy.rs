//! Clients that ask for much and take nothing: what is kept for them is bounded in size and in time, and checks are answered.

use super::super::patience::Patience;
use super::checks::{Running, checks_with, http};
use super::{LIMIT, fixture};
use crate::spawner::Tasks;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// For a reader to take something. Long enough for one that is slow, and for a machine that stands still now and then.
const WRITE: Duration = Duration::from_millis(1500);
/// Answers at once on a connection.
const STREAMS: usize = 32;

/// A client of HTTP/2 with windows of that size.
struct Client {
    sender: SendRequest<Empty<Bytes>>,
    tasks: Tasks,
}

impl Client {
    async fn new(run: &Running, window: u32) -> Client {
        let tasks = Tasks::default();
        let stream = TcpStream::connect(run.addr).await.unwrap();
        let connecting = Builder::new(tasks.executor())
            .initial_stream_window_size(window)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = connecting.await.unwrap();
        hyper::rt::Executor::execute(&tasks.executor(), async {
            let _ = connection.await; // how it ends is seen by what is asked on it
        });
        Client { sender, tasks }
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://x{path}"))
            .body(Empty::new())
            .unwrap();
        timeout(LIMIT, self.sender.send_request(request))
            .await
            .expect("it has a head")
            .unwrap()
    }
}

/// With a history that is as long as it may be.
fn run(write: Duration) -> Running {
    let published = fixture::published();
    let event = |number| {
        let mut event = fixture::event(number);
        event.cause = "x".repeat(200);
        event
    };
    published
        .events
        .store(std::sync::Arc::new((1..=1000).map(event).collect()));
    let patience = Patience {
        write,
        ..Patience::USUAL
    };
    checks_with(published, http(false, 1000), patience)
}

#[tokio::test]
async fn long_answers_that_nobody_takes_are_bounded_and_reset_after_a_while() {
    // Longer than it takes to ask for so many.
    let run = run(LIMIT / 3);
    let (mut clients, mut kept, mut refused) = (Vec::new(), Vec::new(), 0);
    // Until there is no room: each answer is of ten kilobytes or so.
    while refused == 0 {
        assert!(clients.len() < 100, "{} long answers are kept", kept.len());
        let mut client = Client::new(&run, 0).await;
        for _ in 0..STREAMS - 1 {
            let answer = client.get("/metrics").await;
            match answer.status() {
                StatusCode::OK => kept.push(answer),
                status => {
                    assert_eq!(status, 503);
                    assert_eq!(answer.headers()["retry-after"], "1");
                    refused += 1;
                }
            }
        }
        clients.push(client);
        // Checks, and what all share, are answered all the same.
        let client = clients.last_mut().unwrap();
        assert!(client.get("/health?standby=200").await.status() == 200);
        let history = client.get("/events?format=json").await;
        assert_eq!(history.status(), 200);
    }
    for answer in kept {
        let frame = timeout(LIMIT, answer.into_body().frame()).await;
        let end = frame.expect("an answer that nobody takes is kept for ever");
        assert!(end.is_none_or(|end| end.is_err()), "its window was shut");
    }
    let mut again = Client::new(&run, 1 << 20).await;
    let answer = again.get("/metrics").await;
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"\n"));
    drop((clients, again.tasks));
}

#[tokio::test]
async fn a_long_answer_whose_reader_is_slow_is_given_to_its_end() {
    let run = run(WRITE);
    let mut client = Client::new(&run, 16 * 1024).await;
    let mut body = client.get("/events?format=json").await.into_body();
    let mut taken = 0;
    let began = Instant::now();
    while let Some(frame) = timeout(LIMIT, body.frame()).await.unwrap() {
        taken += frame.expect("it is not reset").into_data().unwrap().len();
        tokio::time::sleep(WRITE / 20).await;
    }
    assert!(taken > 200_000, "{taken}");
    assert!(began.elapsed() > WRITE * 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_of_events_that_nobody_takes_is_reset_and_a_silent_watch_is_not() {
    let run = run(WRITE);
    let mut deaf = Client::new(&run, 0).await;
    let mut stream = deaf.get("/events").await.into_body();
    let mut reader = Client::new(&run, 1 << 20).await;
    let mut heard = reader.get("/events").await.into_body();
    let end = timeout(LIMIT, stream.frame()).await.expect("it is reset");
    assert!(end.is_none_or(|end| end.is_err()));
    // The other goes on: after what there was, the comment that comes when nothing happens.
    let mut last = Bytes::new();
    while &last[..] != b":\n\n" {
        let frame = timeout(LIMIT, heard.frame()).await.unwrap().unwrap();
        last = frame.unwrap().into_data().unwrap();
    }
    drop((deaf.tasks, reader.tasks));
}

#[tokio::test]
async fn questions_whose_answers_nobody_reads_are_soon_not_answered_any_more() {
    let run = run(WRITE);
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    let questions = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    // Until its buffers are full, and then until it is let go.
    let asking = async { while stream.write_all(questions.as_bytes()).await.is_ok() {} };
    timeout(2 * LIMIT, asking).await.expect("it is let go");
    let answered = run.handle.counters.http_requests.load(Relaxed);
    assert!(answered < 400, "{answered} long answers were made");
}
