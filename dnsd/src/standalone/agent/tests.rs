use super::*;
use baton_shared::config::Host;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Nothing in these tests takes nearly as long.
const LIMIT: Duration = Duration::from_secs(20);

/// A status of a cluster with nothing in it, with this gist.
fn status(gist: &str) -> String {
    serde_json::json!({
        "cluster": "orders", "cluster_id": "c1", "node": "a", "version": "0", "window_ms": 100.0, "in_touch": true,
        "in_touch_ms": 90.0, "held_ms": 0.0, "gist": gist, "ready": true, "waiting_for": [], "coordinator": null,
        "applied": 1, "paused": false, "electorate": 1, "electorate_joint": false, "voters": [], "roles": [],
        "nodes": [], "alarms": [], "last_event": null,
    })
    .to_string()
}

fn answer(code: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {code}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// An agent of a test, under the name `localhost`.
struct Fake {
    listener: TcpListener,
    news: mpsc::Receiver<(usize, News)>,
    _asking: JoinSet<()>,
}

impl Fake {
    async fn start() -> Fake {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (tell, news) = mpsc::channel(8);
        let asker = Asker {
            place: 3,
            agent: AgentAddress {
                host: Host::Name("localhost".into()),
                port: listener.local_addr().unwrap().port(),
            },
            tell,
        };
        let mut asking = JoinSet::new();
        asking.spawn(asker.run());
        Fake {
            listener,
            news,
            _asking: asking,
        }
    }

    async fn accept(&self) -> TcpStream {
        let accepted = timeout(LIMIT, self.listener.accept());
        accepted.await.expect("it connects").unwrap().0
    }

    async fn news(&mut self) -> News {
        let news = timeout(LIMIT, self.news.recv());
        let (place, news) = news.await.expect("something is told").unwrap();
        assert_eq!(place, 3);
        news
    }

    async fn lost(&mut self) -> String {
        match self.news().await {
            News::Lost(reason) => reason,
            News::Answer { status, .. } => panic!("{status:?}"),
        }
    }

    async fn gist(&mut self) -> String {
        match self.news().await {
            News::Answer {
                status,
                sent,
                received,
            } => {
                assert!(Mono::ZERO < sent && sent <= received && received <= Mono::now());
                status.gist
            }
            News::Lost(reason) => panic!("{reason}"),
        }
    }
}

/// Reads a question, and gives its first line.
async fn question(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(timeout(LIMIT, stream.read_u8()).await.expect("it asks").unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert!(text.to_lowercase().contains("\r\nhost: localhost:"), "{text}");
    text.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn asks_at_once_and_then_for_news_over_one_connection() {
    let mut fake = Fake::start().await;
    let mut stream = fake.accept().await;
    assert_eq!(question(&mut stream).await, "GET /status HTTP/1.1");
    for (gist, next) in [
        (
            "00000000000000aa",
            "GET /status?after=00000000000000aa&wait=25ms HTTP/1.1",
        ),
        (
            "00000000000000bb",
            "GET /status?after=00000000000000bb&wait=25ms HTTP/1.1",
        ),
        ("not a number", "GET /status HTTP/1.1"),
        (
            "00000000000000aa",
            "GET /status?after=00000000000000aa&wait=25ms HTTP/1.1",
        ),
    ] {
        let text = answer("200 OK", &status(gist));
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(fake.gist().await, gist);
        assert_eq!(question(&mut stream).await, next);
    }
}

#[tokio::test]
async fn an_agent_that_holds_nothing_back_is_not_asked_all_the_time() {
    let mut fake = Fake::start().await;
    let mut stream = fake.accept().await;
    let text = answer("200 OK", &status("00000000000000aa"));
    question(&mut stream).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    fake.gist().await;
    let begun = Instant::now();
    for _ in 0..3 {
        question(&mut stream).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        fake.gist().await;
    }
    question(&mut stream).await;
    let quickest = Duration::from_millis(3 * 25);
    assert!(begun.elapsed() >= quickest, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whatever_an_agent_does_it_is_left_and_asked_anew() {
    let mut fake = Fake::start().await;
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_ANSWER + 1));
    for (said, reason) in [
        (String::new(), "it broke off"),
        ("nonsense\r\n\r\n".into(), "it broke off"),
        (answer("404 Not Found", ""), "it answers 404 Not Found"),
        (
            answer("200 OK", "{}"),
            "it does not answer like an agent of this version",
        ),
        (
            answer("200 OK", &status("")[1..]),
            "it does not answer like an agent of this version",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".into(),
            "its answer cannot be read",
        ),
        (endless, "its answer cannot be read"),
    ] {
        let mut stream = fake.accept().await;
        question(&mut stream).await;
        // It may be gone before it has read all of this.
        let _ = stream.write_all(said.as_bytes()).await;
        drop(stream);
        let lost = fake.lost().await;
        assert!(lost.contains(reason), "{lost}, not {reason}");
    }
    let mut stream = fake.accept().await;
    question(&mut stream).await;
    stream
        .write_all(answer("200 OK", &status("00000000000000aa")).as_bytes())
        .await
        .unwrap();
    assert_eq!(fake.gist().await, "00000000000000aa");
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_left_in_time() {
    let mut fake = Fake::start().await;
    let mut stream = fake.accept().await;
    question(&mut stream).await;
    let lost = fake.lost().await;
    assert!(lost.contains("it does not answer within 2s"), "{lost}");
    fake.accept().await;
}

#[tokio::test]
async fn nobody_there_is_said_with_the_place() {
    let mut fake = Fake::start().await;
    let port = fake.listener.local_addr().unwrap().port();
    let stream = fake.accept().await;
    fake.listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap(); // the former one is closed
    drop(stream);
    fake.lost().await;
    let lost = fake.lost().await;
    // `localhost` has two addresses, and the reason is that of the last.
    assert!(
        lost.contains("port") || lost.contains("cannot be reached"),
        "{lost}"
    );
    assert!(
        !lost.contains("port") || lost.contains(&port.to_string()),
        "{lost}"
    );
}
