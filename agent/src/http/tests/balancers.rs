//! The checks listener as balancers talk to it: agent-check, gRPC, plain text, the PROXY protocol.

use super::super::connection::MAX_MULTIPLEXED;
use super::super::patience::Patience;
use super::checks::{Running, checks_with, http};
use super::fixture::{published, role, view};
use super::{LIMIT, talk};
use crate::checks::grpc;
use crate::grpc::{WATCH, question, status};
use crate::handle::Message;
use crate::spawner::Tasks;
use baton_shared::clock::Mono;
use baton_shared::config;
use baton_shared::id::Epoch;
use baton_shared::view::{Published, RoleState};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::CONTENT_TYPE;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn run(published: Arc<Published>, change: impl FnOnce(&mut config::Http)) -> Running {
    let mut http = http(false, 100);
    http.agent_check = vec!["127.0.0.1:0".parse().unwrap()];
    change(&mut http);
    checks_with(published, http, Patience::USUAL)
}

pub(super) fn two_roles() -> Arc<Published> {
    let mut view = view();
    let mut other = view.roles[0].clone();
    other.role = role("reports");
    view.roles.push(other);
    Published::new(view, [role("main"), role("reports")])
}

async fn agent(addr: SocketAddr, asks: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(asks.as_bytes()).await.unwrap();
    let mut line = String::new();
    timeout(LIMIT, stream.read_to_string(&mut line))
        .await
        .expect("the connection does not end")
        .unwrap();
    line
}

#[tokio::test]
async fn agent_check_says_up_drain_or_down_and_closes() {
    let run = run(published(), |http| http.agent_weight = Some(50));
    assert_eq!(agent(run.agent, "").await, "down #standby: second in line\n");
    // With one role, what HAProxy sends is of no interest, and does not disturb the answer.
    assert_eq!(
        agent(run.agent, "main\n").await,
        "down #standby: second in line\n"
    );

    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    assert_eq!(agent(run.agent, "").await, "up ready 50%\n");

    run.published.guards[&role("main")].shut();
    let mut demoting = view();
    demoting.roles[0].state = RoleState::Demoting;
    demoting.roles[0].lease_until = Mono::MAX;
    run.published.view.store(Arc::new(demoting.clone()));
    assert_eq!(agent(run.agent, "").await, "drain\n");
    demoting.roles[0].lease_until = Mono(1);
    demoting.roles[0].reason = "the lease has ended".into();
    run.published.view.store(Arc::new(demoting));
    assert_eq!(
        agent(run.agent, "").await,
        "down #demoting: the lease has ended\n"
    );
}

#[tokio::test]
async fn agent_check_answers_for_the_role_that_is_asked_for() {
    let run = run(two_roles(), |_| {});
    run.published.guards[&role("reports")].open(Epoch(9), Mono::MAX);
    assert_eq!(agent(run.agent, "reports\n").await, "up ready\n");
    assert_eq!(
        agent(run.agent, "main\r\nrest").await,
        "down #standby: second in line\n"
    );
    assert_eq!(agent(run.agent, "\n").await, "down #standby: second in line\n");
    assert_eq!(agent(run.agent, "").await, "down #standby: second in line\n");
    assert_eq!(
        agent(run.agent, "x\x1by\n").await,
        "down #no role \"x\\u{1b}y\", the roles are main, reports\n"
    );
    let flood = "x".repeat(300);
    let line = agent(run.agent, &flood).await;
    assert!(
        line.starts_with("down #no role \"xxx") && line.len() < 120,
        "{line}"
    );
}

#[tokio::test]
async fn agent_check_in_confirm_mode_needs_the_word_of_a_majority() {
    let mut run = run(published(), |http| http.confirm = true);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    for (confirmed, expected) in [
        (Some(Epoch(9)), "up ready\n"),
        (None, "down #unknown: no majority confirmed it in time\n"),
    ] {
        let core = async {
            let Some(Message::Confirm { answer, .. }) = run.core.asked.recv().await else {
                panic!("no confirmation was asked for");
            };
            answer.send(confirmed).unwrap();
        };
        let (line, ()) = tokio::join!(agent(run.agent, ""), core);
        assert_eq!(line, expected);
    }
}

#[tokio::test]
async fn agent_checks_end_with_the_agent() {
    let run = run(published(), |_| {});
    run.stop.send(()).unwrap();
    assert_eq!(timeout(LIMIT, run.task).await.unwrap().unwrap(), Ok(()));
    assert!(TcpStream::connect(run.agent).await.is_err());
}

#[tokio::test]
async fn grpc_check_is_serving_exactly_while_active() {
    let run = run(two_roles(), |_| {});
    let ask = async |service| grpc::ask("127.0.0.1", run.addr.port(), service).await;
    assert_eq!(ask("").await, Err("the whole server is NOT_SERVING".into()));
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    assert_eq!(ask("").await, Ok("the whole server is SERVING".into()));
    assert_eq!(ask("main").await, Ok("service \"main\" is SERVING".into()));
    assert_eq!(
        ask("reports").await,
        Err("service \"reports\" is NOT_SERVING".into())
    );
    assert_eq!(
        ask("x").await,
        Err("the server does not know service \"x\"".into())
    );
    let long = "x".repeat(2000);
    let refused = ask(&long).await.unwrap_err();
    assert_eq!(refused.reason, "gRPC status 3");
    run.published.guards[&role("main")].shut();
    assert_eq!(ask("").await, Err("the whole server is NOT_SERVING".into()));
}

#[tokio::test]
async fn grpc_check_in_confirm_mode_needs_the_word_of_a_majority() {
    let mut run = run(published(), |http| http.confirm = true);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    for (confirmed, serving) in [(Some(Epoch(9)), true), (Some(Epoch(8)), false)] {
        let core = async {
            let Some(Message::Confirm { answer, .. }) = run.core.asked.recv().await else {
                panic!("no confirmation was asked for");
            };
            answer.send(confirmed).unwrap();
        };
        let (answer, ()) = tokio::join!(grpc::ask("127.0.0.1", run.addr.port(), ""), core);
        assert_eq!(answer.is_ok(), serving, "{answer:?}");
    }
}

/// An HTTP/2 client.
pub(super) struct Client {
    sender: http2::SendRequest<Full<Bytes>>,
    _tasks: Tasks,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Client {
        Client::over(TcpStream::connect(addr).await.unwrap()).await
    }

    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let tasks = Tasks::default();
        let (sender, connection) = http2::handshake(tasks.executor(), TokioIo::new(stream))
            .await
            .unwrap();
        tasks.executor().execute(async { drop(connection.await) });
        Client {
            sender,
            _tasks: tasks,
        }
    }

    async fn get(&mut self, path: &str) -> hyper::Response<Incoming> {
        let request = Request::get(format!("http://x{path}"))
            .body(Full::default())
            .unwrap();
        timeout(LIMIT, self.sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    async fn watch(&mut self, service: &str) -> Watch {
        Watch(self.call(WATCH, service).await)
    }

    pub(super) async fn call(&mut self, method: &str, service: &str) -> Incoming {
        let request = Request::post(format!("http://x{method}"))
            .header(CONTENT_TYPE, "application/grpc+proto")
            .body(Full::new(Bytes::from(question(service))))
            .unwrap();
        let answer = timeout(LIMIT, self.sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }
}

struct Watch(Incoming);

impl Watch {
    /// The next status; the code at the end.
    async fn next(&mut self) -> Result<u64, String> {
        let frame = timeout(LIMIT, self.0.frame()).await.expect("nothing is told");
        let frame = frame.expect("no trailers").unwrap();
        match frame.into_data() {
            Ok(data) => Ok(status(&data).unwrap()),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                Err(trailers["grpc-status"].to_str().unwrap().into())
            }
        }
    }
}

#[tokio::test]
async fn grpc_watch_tells_each_change_and_a_lease_that_runs_out() {
    let run = run(two_roles(), |_| {});
    let mut client = Client::connect(run.addr).await;
    let (mut main, mut unknown) = (client.watch("").await, client.watch("x").await);
    assert_eq!((main.next().await, unknown.next().await), (Ok(2), Ok(3)));
    let until = Mono::now() + Duration::from_millis(300);
    run.published.guards[&role("main")].open(Epoch(9), until);
    assert_eq!(main.next().await, Ok(1));
    assert!(Mono::now() < until, "SERVING after the lease");
    // Nobody publishes a view.
    assert_eq!(main.next().await, Ok(2));
    assert!(Mono::now() >= until, "NOT_SERVING within the lease");
    run.stop.send(()).unwrap();
    assert_eq!(
        (main.next().await, unknown.next().await),
        (Err("14".into()), Err("14".into()))
    );
    assert_eq!(timeout(LIMIT, run.task).await.unwrap().unwrap(), Ok(()));
}

#[tokio::test]
async fn grpc_watch_in_confirm_mode_asks_a_majority_anew_for_as_long_as_it_lasts() {
    let mut run = run(published(), |http| http.confirm = true);
    let mut client = Client::connect(run.addr).await;
    let mut watch = client.watch("").await;
    assert_eq!(watch.next().await, Ok(2), "a standby asks nobody");
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    for (confirmed, told) in [(Some(Epoch(9)), 1), (None, 2), (Some(Epoch(9)), 1)] {
        let core = async {
            let Some(Message::Confirm { answer, .. }) = run.core.asked.recv().await else {
                panic!("no confirmation was asked for");
            };
            answer.send(confirmed).unwrap();
        };
        // Nothing else changes between them.
        let (status, ()) = tokio::join!(watch.next(), core);
        assert_eq!(status, Ok(told), "{confirmed:?}");
    }
}

#[tokio::test]
async fn http2_has_the_same_answers_and_rests_without_being_cut_off_while_a_watch_is_open() {
    let patience = Patience {
        header: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        ..Patience::USUAL
    };
    let run = checks_with(published(), http(false, 100), patience);
    let (mut resting, mut watching) = (Client::connect(run.addr).await, Client::connect(run.addr).await);
    for client in [&mut resting, &mut watching] {
        assert_eq!(client.get("/health").await.status(), 503);
        assert_eq!(client.get("/health?standby=200").await.status(), 200);
        assert_eq!(client.get("/nothing").await.status(), 404);
    }
    let mut watch = watching.watch("").await;
    assert_eq!(watch.next().await, Ok(2));
    // The one that rests is let go; by then the other has been silent as long.
    let gone = async {
        while run.handle.counters.http_connections.load(Relaxed) > 1 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, gone)
        .await
        .expect("an idle connection is kept for ever");
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    assert_eq!(watch.next().await, Ok(1));
}

#[tokio::test]
async fn http2_at_rest_is_let_go_although_it_pings() {
    let patience = Patience {
        idle: Duration::from_millis(300),
        ..Patience::USUAL
    };
    let run = checks_with(published(), http(false, 100), patience);
    let mut stream = TcpStream::connect(run.addr).await.unwrap();
    // RFC 9113, sections 3.4, 6.5 and 6.7.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let ping = async {
        let mut answer = [0; 256];
        while stream.write_all(b"\0\0\x08\x06\0\0\0\0\0baton...").await.is_ok()
            && stream.read(&mut answer).await.is_ok_and(|n| n > 0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, ping)
        .await
        .expect("an idle connection is kept for ever");
}

#[tokio::test]
async fn one_http2_connection_more_than_there_is_room_for_is_heard_and_the_longest_at_rest_goes() {
    let run = checks_with(published(), http(false, 2 * MAX_MULTIPLEXED), Patience::USUAL);
    let mut all = Vec::new();
    for _ in 0..MAX_MULTIPLEXED {
        let mut client = Client::connect(run.addr).await;
        assert_eq!(client.get("/health").await.status(), 503);
        all.push(client);
    }
    let counters = &run.handle.counters;
    assert_eq!(counters.http_evicted.load(Relaxed), 0);
    let mut watch = all[0].watch("").await;
    assert_eq!(watch.next().await, Ok(2));

    let mut more = Client::connect(run.addr).await;
    assert_eq!(more.get("/health").await.status(), 503);
    assert!(counters.http_evicted.load(Relaxed) > 0);
    assert_eq!(counters.http_refused.load(Relaxed), 0);
    // The second had rested longest, for the first watches; the last had hardly begun to.
    assert!(timeout(LIMIT, all[1].sender.ready()).await.unwrap().is_err());
    assert_eq!(all[MAX_MULTIPLEXED - 1].get("/health").await.status(), 503);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    assert_eq!(watch.next().await, Ok(1));
}

#[tokio::test]
async fn plain_text_is_one_line() {
    let run = run(published(), |_| {});
    for (path, headers, body) in [
        ("/health?format=text", "", "standby: second in line\n"),
        ("/health", "Accept: text/plain\r\n", "standby: second in line\n"),
        (
            "/health/main?format=text&standby=200",
            "",
            "standby: second in line\n",
        ),
        ("/ready?format=text", "", "ready: in touch and caught up\n"),
        (
            "/live",
            "Accept: text/plain;q=0.9\r\n",
            "not live: the control loop has stopped turning\n",
        ),
    ] {
        let reply = run.ask("GET", path, headers).await;
        assert_eq!(reply.body, body, "{path}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    for (path, headers) in [
        ("/health?format=json", "Accept: text/plain\r\n"),
        ("/health", "Accept: text/html, */*\r\n"),
        ("/health", "Accept: application/json, text/plain, */*\r\n"),
    ] {
        assert_eq!(run.ask("GET", path, headers).await.json()["state"], "standby");
    }
    assert_eq!(run.get("/health?format=xml").await.status, 400);
    assert_eq!(run.get("/ready?format=xml").await.status, 400);
}

#[tokio::test]
async fn configured_codes_stand_for_states_unless_the_request_says_otherwise() {
    let run = run(published(), |http| http.codes.0[1] = 429);
    assert_eq!(run.get("/health").await.status, 429);
    assert_eq!(run.ask("HEAD", "/health", "").await.status, 429);
    assert_eq!(run.get("/health?standby=200").await.status, 200);
    run.published.guards[&role("main")].open(Epoch(9), Mono::MAX);
    assert_eq!(run.get("/health").await.status, 200);
}

const REQUEST: &str = "GET /health?standby=200 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

async fn send(addr: SocketAddr, header: &[u8]) -> super::Reply {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(header).await.unwrap();
    talk(stream, REQUEST).await
}

#[tokio::test]
async fn proxy_headers_are_skipped_where_configured_and_named_where_not() {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let headers: [&[u8]; 2] = [b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\n", v2];
    let behind = run(published(), |http| http.proxy_protocol = true);
    let plain = run(published(), |_| {});
    for header in headers {
        assert_eq!(send(behind.addr, header).await.status, 200);
        let refused = send(plain.addr, header).await;
        assert_eq!(refused.status, 400);
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("proxy_protocol = true"), "{error}");
    }
    assert_eq!(
        send(behind.addr, b"").await.status,
        200,
        "people and probes come without"
    );
    for bad in [&b"PROXY TCP4 a b 1 2\r\n"[..], &[headers[0], headers[0]].concat()] {
        let refused = send(behind.addr, bad).await;
        assert_eq!(refused.status, 400);
        assert!(refused.body.contains("PROXY protocol header"), "{}", refused.body);
    }
    // A header in pieces is awaited; one that never ends is not.
    let mut stream = TcpStream::connect(behind.addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in headers[0] {
        stream.write_all(&[*byte]).await.unwrap();
    }
    assert_eq!(talk(stream, REQUEST).await.status, 200);
    let endless = [b"PROXY ", &[b'x'; 4096][..]].concat();
    assert_eq!(send(behind.addr, &endless).await.status, 400);
}
