//! The checks listener.

use super::super::Checks;
use super::super::patience::Patience;
use super::fixture::{self, handle, node, published, role};
use super::{LIMIT, Reply, talk};
use crate::handle::{Handle, Message};
use baton_shared::clock::Mono;
use baton_shared::config::{self, Root};
use baton_shared::id::Epoch;
use baton_shared::status::Status;
use baton_shared::view::{Checked, Published, RoleState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(super) fn http(confirm: bool, max_connections: usize) -> config::Http {
    config::Http {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        confirm,
        max_connections,
        ..Default::default()
    }
}

/// A running face; it stops when this is dropped.
pub(super) struct Running {
    pub addr: SocketAddr,
    /// Of agent-check, or the same once more.
    pub agent: SocketAddr,
    pub published: Arc<Published>,
    pub handle: Handle,
    pub core: fixture::Loop,
    pub stop: oneshot::Sender<()>,
    pub task: JoinHandle<Result<(), String>>,
}

pub(super) fn checks_with(published: Arc<Published>, http: config::Http, patience: Patience) -> Running {
    let (handle, core) = handle(published.clone());
    let checks = Checks::bind(&http).unwrap();
    let addr = checks.local_addrs()[0];
    assert_ne!(addr.port(), 0);
    let agent = checks.agent_check_addrs().first().copied().unwrap_or(addr);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(checks.run_patiently(handle.clone(), patience, stopped));
    Running {
        addr,
        agent,
        published,
        handle,
        core,
        stop,
        task,
    }
}

fn checks(published: Arc<Published>) -> Running {
    checks_with(published, http(false, 100), Patience::USUAL)
}

impl Running {
    async fn send(&self, request: &str) -> Reply {
        talk(TcpStream::connect(self.addr).await.unwrap(), request).await
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &str) -> Reply {
        self.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }
}

#[tokio::test]
async fn health_is_200_exactly_while_the_guard_is_open() {
    let run = checks(published());
    let standby = run.get("/health").await;
    assert_eq!(standby.status, 503);
    assert_eq!(standby.json()["state"], "standby");
    assert_eq!(standby.json()["reason"], "second in line");
    assert_eq!(standby.json()["active"], serde_json::Value::Null);
    assert_eq!(standby.header("cache-control"), Some("no-store"));
    assert_eq!(standby.header("baton-active"), None);

    // The view goes on saying "active", as on a node whose control loop is frozen.
    let mut view = fixture::view();
    view.roles[0].state = RoleState::Active;
    run.published.view.store(Arc::new(view));
    let until = Mono::now() + Duration::from_millis(300);
    run.published.guards[&role("main")].open(Epoch(9), until);
    loop {
        let before = Mono::now();
        let reply = run.get("/health").await;
        let after = Mono::now();
        if reply.status == 200 {
            assert!(before < until, "200 after the lease");
            assert_eq!(reply.header("baton-epoch"), Some("9"));
            assert_eq!(reply.header("baton-active"), Some("a"));
            assert_eq!(reply.json()["active"], "a");
        } else {
            assert!(after >= until, "503 within the lease");
            assert_eq!(reply.json()["reason"], "the lease has ended");
            assert_eq!(reply.header("baton-epoch"), None);
            break;
        }
    }
}

#[tokio::test]
async fn health_names_the_other_and_says_unknown_out_of_touch() {
    let run = checks(published());
    run.published
        .view
        .store(Arc::new(fixture::view_with_b_active(Mono::MAX)));
    let reply = run.get("/health/main/").await;
    assert_eq!((reply.status, reply.header("baton-active")), (503, Some("b")));
    assert_eq!(reply.header("baton-epoch"), Some("7"));

    let mut view = fixture::view_with_b_active(Mono(1));
    view.in_touch_until = Mono(1);
    run.published.view.store(Arc::new(view));
    let reply = run.get("/health?unknown=429").await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.json()["state"], "unknown");
    assert_eq!(reply.json()["active"], serde_json::Value::Null);
    assert_eq!(run.get("/ready").await.status, 503);

    let mut view = fixture::view();
    view.waiting_for = vec![node("b"), node("w")];
    run.published.view.store(Arc::new(view));
    let reply = run.get("/health").await;
    assert_eq!(reply.json()["state"], "starting");
    assert_eq!(reply.json()["reason"], "waiting for b, w");
}

#[tokio::test]
async fn root_is_the_check_for_all_but_browsers_unless_it_is_to_be_one_of_the_two() {
    let browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let tool = "Accept: */*\r\n";
    for (root, [to_browser, to_tool]) in [
        (None, [200, 503]),
        (Some(Root::Health), [503, 503]),
        (Some(Root::Page), [200, 200]),
    ] {
        let config = config::Http {
            root,
            ..http(false, 100)
        };
        let run = checks_with(published(), config, Patience::USUAL);
        for (header, status) in [(browser, to_browser), (tool, to_tool), ("", to_tool)] {
            let reply = run.ask("GET", "/", header).await;
            assert_eq!(reply.status, status, "{root:?} {header}");
            assert_eq!(
                reply.body.contains("/health/ROLE"),
                status == 200,
                "{}",
                reply.body
            );
        }
        // Nobody who looks at pages asks so, and HAProxy does.
        assert_eq!(run.ask("OPTIONS", "/", browser).await.status, 503, "{root:?}");
        run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
        for header in [browser, tool] {
            assert_eq!(run.ask("GET", "/", header).await.status, 200, "{root:?} {header}");
        }
    }
}

#[tokio::test]
async fn methods_overrides_and_unknown_roles() {
    let run = checks(published());
    for (method, path, status) in [
        ("HEAD", "/health", 503),
        ("HEAD", "/health?standby=200", 200),
        ("OPTIONS", "/health", 503),
        ("OPTIONS", "/health?standby=204", 204),
        ("OPTIONS", "/", 503),
        ("OPTIONS", "*", 503),
        ("OPTIONS", "/status", 204),
        ("GET", "/", 503),
        ("GET", "/?standby=200", 200),
        ("GET", "/help", 200),
        ("GET", "/ready", 200),
        ("GET", "/live", 503),
        ("GET", "/health?standby=2000", 400),
        ("GET", "/health?nonsense=200", 400),
        ("GET", "/health/other", 404),
        ("GET", "/nothing", 404),
        ("POST", "/health", 405),
        ("DELETE", "/", 405),
    ] {
        let reply = run.ask(method, path, "").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.head);
        if method != "GET" && status != 405 {
            assert_eq!(reply.body, "", "{method} {path}");
        }
        if matches!(method, "OPTIONS" | "POST" | "DELETE") {
            assert_eq!(reply.header("allow"), Some("GET, HEAD, OPTIONS"));
        }
    }
    let missing = run.get("/health/other").await;
    assert_eq!(missing.json()["error"], "no role \"other\"; the roles are main");
    run.handle.counters.loop_turned.store(Mono::now().0, Relaxed);
    assert_eq!(run.get("/live").await.status, 200);
    let with_body = run.ask("GET", "/health", "Content-Length: 3\r\n").await;
    assert_eq!(with_body.status, 413);
}

#[tokio::test]
async fn confirm_mode_needs_the_word_of_a_majority_for_each_200() {
    let mut run = checks_with(published(), http(true, 100), Patience::USUAL);
    // A standby asks nobody.
    assert_eq!(run.get("/health").await.status, 503);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    for (confirmed, status) in [(Some(Epoch(9)), 200), (None, 503), (Some(Epoch(8)), 503)] {
        let core = async {
            let Some(Message::Confirm { role: asked, answer }) = run.core.asked.recv().await else {
                panic!("no confirmation was asked for");
            };
            assert_eq!(asked, role("main"));
            answer.send(confirmed).unwrap();
        };
        let stream = TcpStream::connect(run.addr).await.unwrap();
        let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let (reply, ()) = tokio::join!(talk(stream, request), core);
        assert_eq!(reply.status, status, "{confirmed:?}");
    }
    // No answer within the window is no confirmation either.
    let reply = run.get("/health").await;
    assert_eq!(
        (reply.status, reply.json()["state"].as_str()),
        (503, Some("unknown"))
    );
}

#[tokio::test]
async fn active_redirects_to_the_active_node_or_nowhere() {
    let run = checks(published());
    assert_eq!(run.get("/active").await.status, 503);
    run.published
        .view
        .store(Arc::new(fixture::view_with_b_active(Mono::MAX)));
    let reply = run.get("/active?port=8080&path=/orders%3Fid=1").await;
    assert_eq!(reply.status, 307);
    assert_eq!(
        reply.header("location"),
        Some("http://10.0.1.12:8080/orders?id=1")
    );
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    let reply = run.get("/active").await;
    assert_eq!(reply.header("location"), Some("http://10.0.1.11/"));
    assert_eq!(run.get("/active?role=other").await.status, 404);
    assert_eq!(run.get("/active?prot=1").await.status, 400);
}

/// Nobody needs a password for this listener, and an application's output may hold one.
#[tokio::test]
async fn what_the_application_printed_is_on_no_public_page() {
    let run = checks(published());
    run.published.checks[&role("main")].store(Some(Arc::new(fixture::secretive())));
    let words = Some(Arc::new(fixture::SECRET.to_owned()));
    run.published.last_words[&role("main")].store(words);
    let check = run.get("/status").await.json()["roles"][0]["check"].clone();
    assert_eq!(
        (&check["reason"], &check["took_ms"]),
        (&"exit status 2".into(), &35.0.into())
    );
    for page in [
        "/status",
        "/health",
        "/ready",
        "/metrics",
        "/events?format=json",
        "/help",
    ] {
        let reply = run.get(page).await;
        assert!(!reply.body.contains("hunter2"), "{page}: {}", reply.body);
    }
}

#[tokio::test]
async fn status_metrics_and_history_are_readable() {
    let run = checks(published());
    run.published.events.store(Arc::new(vec![fixture::event(1)]));
    let status: baton_shared::status::Status = serde_json::from_str(&run.get("/status").await.body).unwrap();
    assert_eq!(
        (status.cluster.as_str(), &status.roles[0].check),
        ("orders", &None)
    );
    run.published.checks[&role("main")].store(Some(Arc::new(Checked {
        good: false,
        healthy: true,
        reason: "HTTP status 503".into(),
        output: String::new(),
        took: None,
        at: Mono::now(),
    })));
    let check = run.get("/status").await.json()["roles"][0]["check"].clone();
    assert_eq!((&check["good"], &check["healthy"]), (&false.into(), &true.into()));
    assert_eq!(check["reason"], "HTTP status 503");
    assert!(check["ago_ms"].as_f64().unwrap() >= 0.0);
    let metrics = run.get("/metrics").await;
    assert!(
        metrics.body.contains("baton_http_connections 1\n"),
        "{}",
        metrics.body
    );
    assert!(!metrics.body.contains("baton_dns"), "{}", metrics.body);
    let dns = Arc::new(baton_dnsd::Counters::default());
    dns.refused.store(3, std::sync::atomic::Ordering::Relaxed);
    assert!(run.handle.counters.dns.set(dns).is_ok());
    let metrics = run.get("/metrics").await;
    for line in [
        "baton_dns_responses_total{code=\"REFUSED\"} 3\n",
        "baton_dns_queries_total{protocol=\"udp\"} 0\n",
        "# TYPE baton_dns_denied_total counter\n",
    ] {
        assert!(metrics.body.contains(line), "{line}: {}", metrics.body);
    }
    for reply in [
        run.get("/events?format=json").await,
        run.ask("GET", "/events", "Accept: application/json\r\n").await,
    ] {
        assert_eq!(reply.json()[0]["number"], 1);
    }
    assert_eq!(run.get("/events?format=xml").await.status, 400);
    // A full history is far longer than any buffer.
    let history = (1..=1000).map(fixture::event).collect();
    run.published.events.store(Arc::new(history));
    let reply = run.get("/events?format=json").await;
    assert_eq!(reply.json().as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn events_stream_history_then_news_and_end_with_the_agent() {
    let run = checks(published());
    run.published
        .events
        .store(Arc::new(vec![fixture::event(1), fixture::event(2)]));
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 1\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    let mut until = async |what: &str| {
        let mut buf = [0; 4096];
        while !text.contains(what) {
            let n = tokio::time::timeout(LIMIT, stream.read(&mut buf))
                .await
                .expect(what)
                .unwrap();
            assert_ne!(n, 0, "ended before {what}: {text}");
            text.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
    };
    until("event: status").await;
    run.published
        .events
        .store(Arc::new(vec![fixture::event(2), fixture::event(3)]));
    until("id: 3\n").await;
    assert!(!text.contains("id: 1\n") && text.contains("content-type: text/event-stream"));
    run.stop.send(()).unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest))
        .await
        .expect("the stream outlives the agent")
        .unwrap();
    assert_eq!(run.task.await.unwrap(), Ok(()));
}

/// A timer interrupt comes at least as often (CONFIG_HZ is 100 to 1000).
const TICK: Duration = Duration::from_millis(10);

/// Whether it is still there, and answers.
async fn answers(stream: &mut TcpStream) -> bool {
    let asked = async {
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        stream.read(&mut [0; 1024]).await
    };
    let read = tokio::time::timeout(LIMIT, asked).await;
    read.expect("neither answered nor closed").is_ok_and(|n| n > 0)
}

#[tokio::test]
async fn when_all_places_are_taken_the_longest_at_rest_makes_way_for_a_new_check() {
    let run = checks_with(published(), http(false, 2), Patience::USUAL);
    let mut early = TcpStream::connect(run.addr).await.unwrap();
    let mut late = TcpStream::connect(run.addr).await.unwrap();
    assert!(answers(&mut early).await && answers(&mut late).await);
    tokio::time::sleep(2 * TICK).await; // nearer to each other they are equally old
    assert!(answers(&mut early).await);
    // Each is heard.
    let mut fresh = TcpStream::connect(run.addr).await.unwrap();
    assert!(answers(&mut fresh).await);
    assert!(!answers(&mut late).await, "nobody made way");
    assert!(answers(&mut early).await, "the wrong one made way");
    let counters = &run.handle.counters;
    assert_eq!(counters.http_evicted.load(Relaxed), 1);
    assert_eq!(counters.http_refused.load(Relaxed), 0);
    assert_eq!(counters.http_connections.load(Relaxed), 2);
    // One that has not even asked can go, too.
    let _silent = TcpStream::connect(run.addr).await.unwrap();
    for _ in 0..5 {
        assert_eq!(run.get("/health").await.status, 503);
    }
}

#[tokio::test]
async fn giant_headers_and_slow_ones_end_the_connection_resting_ones_do_not() {
    let ms = Duration::from_millis;
    let patience = Patience {
        header: ms(200),
        idle: ms(1500),
        write: ms(200),
    };
    let run = checks_with(published(), http(false, 100), patience);
    let giant = format!("X-Giant: {}\r\n", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    let _ = stream
        .write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{giant}\r\n").as_bytes())
        .await;
    let mut reply = vec![0; 1024];
    if let Ok(n) = stream.read(&mut reply).await {
        let text = String::from_utf8_lossy(&reply[..n]);
        assert!(n == 0 || text.starts_with("HTTP/1.1 431"), "{text}");
    }

    let mut slow = TcpStream::connect(run.addr).await.unwrap();
    let begun = std::time::Instant::now();
    let trickle = async {
        loop {
            if slow.write_all(b"G").await.is_err() {
                break;
            }
            tokio::time::sleep(ms(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, trickle)
        .await
        .expect("a slow header is endured");
    assert!(begun.elapsed() >= ms(150));

    let mut resting = TcpStream::connect(run.addr).await.unwrap();
    for _ in 0..2 {
        resting
            .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        assert_ne!(resting.read(&mut [0; 1024]).await.unwrap(), 0);
        tokio::time::sleep(ms(400)).await;
    }
    let ended = tokio::time::timeout(LIMIT, resting.read(&mut [0; 16]))
        .await
        .unwrap();
    assert!(
        matches!(ended, Ok(0) | Err(_)),
        "an idle connection is kept for ever"
    );
}

#[tokio::test]
async fn a_client_who_never_reads_is_let_go() {
    let patience = Patience {
        write: Duration::from_millis(200),
        ..Patience::USUAL
    };
    let run = checks_with(published(), http(false, 100), patience);
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let flood = async { while stream.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(LIMIT, flood)
        .await
        .expect("still being served");
}

/// A load test on one core: run it, and `wrk -t1 -c32 -d5 http://127.0.0.1:7489/health` beside it.
#[tokio::test]
#[ignore = "serves for twenty seconds"]
async fn health_under_load() {
    let mut http = http(false, 10_000);
    http.listen = vec!["127.0.0.1:7489".parse().unwrap()];
    let run = checks_with(published(), http, Patience::USUAL);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    tokio::time::sleep(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_status_for_followers_says_for_how_long_it_holds_and_waits_for_news() {
    let until = Mono::now() + Duration::from_secs(60);
    let published = Published::new(fixture::view_with_b_active(until), [role("main")]);
    let run = checks(published);
    let first: Status = serde_json::from_str(&run.get("/status").await.body).unwrap();
    let known = &first.roles[0];
    assert!((1.0..=60_000.0).contains(&known.known_ms), "{}", known.known_ms);
    assert_eq!(
        (known.epoch, known.holder_epoch),
        (Some(Epoch(7)), Some(Epoch(7)))
    );

    // Nothing new: held back for as long as asked for, and says so.
    let path = format!("/status?after={}&wait=50ms", first.gist);
    let same: Status = serde_json::from_str(&run.get(&path).await.body).unwrap();
    assert_eq!(same.gist, first.gist);
    assert!(same.held_ms >= 50.0, "{}", same.held_ms);

    // News: long before the wait is over.
    let path = format!("/status?after={}&wait=10s", first.gist);
    let (news, ()) = tokio::join!(run.get(&path), async {
        run.published.guards[&role("main")].open(Epoch(9), until);
    });
    let news: Status = serde_json::from_str(&news.body).unwrap();
    assert_eq!(news.roles[0].active, Some(node("a")));
    assert_eq!(news.roles[0].epoch, Some(Epoch(9)));
    assert!((1.0..=60_000.0).contains(&news.roles[0].known_ms));
    assert!(news.held_ms < 10_000.0, "{}", news.held_ms);

    for (bad, says) in [
        ("after=xyz&wait=1s", "the gist of an earlier answer"),
        ("after=1&wait=11s", "at most 10s"),
        ("after=1&wait=1", "at most 10s"),
        ("after=1", "belong together"),
        ("wait=1s", "belong together"),
        ("until=1s", "unknown parameter"),
    ] {
        let reply = run.get(&format!("/status?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.body.contains(says), "{bad}: {}", reply.body);
    }
}
