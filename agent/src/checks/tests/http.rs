use super::*;
use baton_shared::config::Pattern;

/// A server that reads one request a connection and writes what `answer` says, byte by byte as it is; then it closes.
struct Server {
    port: u16,
    heard: mpsc::UnboundedReceiver<String>,
    _task: JoinSet<()>,
}

impl Server {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut chunk = [0; 1024];
                    match stream.read(&mut chunk).await {
                        Ok(0) | Err(_) => break,
                        Ok(length) => request.extend_from_slice(&chunk[..length]),
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let answer = answer(&request);
                let _ = tell.send(request);
                let _ = stream.write_all(&answer).await;
            }
        });
        Server {
            port,
            heard,
            _task: task,
        }
    }

    async fn saying(answer: &str) -> Server {
        let answer = answer.as_bytes().to_vec();
        Server::start(move |_| answer.clone()).await
    }

    fn check(&self, change: impl FnOnce(&mut HttpProbe)) -> Check {
        let mut probe = get(self.port);
        probe.url.host = "127.0.0.1".into();
        change(&mut probe);
        let mut check = check(Probe::Http(probe));
        check.timeout = LIMIT / 2;
        check
    }

    async fn next(&mut self) -> String {
        timeout(LIMIT, self.heard.recv()).await.unwrap().unwrap()
    }
}

fn pattern(text: &str) -> Option<Pattern> {
    Some(Pattern::new(text).unwrap())
}

#[tokio::test]
async fn the_request_is_as_configured() {
    let mut server = Server::saying("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(ask(&server.check(|_| ())).await.unwrap(), "HTTP status 204");
    let plain = server.next().await;
    assert!(plain.starts_with("GET /ready HTTP/1.1\r\n"), "{plain}");
    let host = format!("host: 127.0.0.1:{}\r\n", server.port);
    for part in [
        host.as_str(),
        "connection: close\r\n",
        "user-agent: baton-check\r\n",
    ] {
        assert!(plain.contains(part), "{part} {plain}");
    }
    for method in ["HEAD", "OPTIONS", "POST"] {
        let check = server.check(|probe| {
            probe.method = method.into();
            probe.headers = vec![
                ("Host".into(), "orders.example.org".into()),
                ("X-Token".into(), "s3cret".into()),
            ];
        });
        assert!(ask(&check).await.is_ok());
        let request = server.next().await;
        assert!(request.starts_with(&format!("{method} /ready ")), "{request}");
        assert!(request.contains("host: orders.example.org\r\n"), "{request}");
        assert!(!request.contains(&host), "{request}");
        assert!(request.contains("x-token: s3cret\r\n"), "{request}");
        assert_eq!(
            request.contains("content-length: 0"),
            method == "POST",
            "{request}"
        );
    }
}

#[tokio::test]
async fn the_status_must_be_in_its_range() {
    let server = Server::saying("HTTP/1.0 503 Whatever\r\n\r\n").await;
    assert_eq!(reason(&server.check(|_| ())).await, "HTTP status 503");
    let check = server.check(|probe| probe.status = (503, 503));
    assert_eq!(ask(&check).await.unwrap(), "HTTP status 503");
}

#[tokio::test]
async fn the_body_must_match_however_it_is_framed() {
    for framing in [
        "Content-Length: 13\r\n\r\n{\"up\": true}\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"up\"\r\n7\r\n: true}\r\n0\r\n\r\n",
        "\r\n{\"up\": true}",
    ] {
        let server = Server::saying(&format!("HTTP/1.1 200 OK\r\n{framing}")).await;
        let good = server.check(|probe| probe.body = pattern("\"up\": *true"));
        let text = ask(&good).await.unwrap();
        assert!(text.contains("as it should be"), "{framing}: {text}");
        let bad = server.check(|probe| probe.body = pattern("\"up\": *false"));
        let bad = ask(&bad).await.unwrap_err();
        assert!(
            bad.reason.ends_with("no \"\"up\": *false\" in the body"),
            "{bad:?}"
        );
        assert!(
            bad.output.starts_with("the body begins \"{\"up\": true}"),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_body_is_read_to_its_limit_and_no_further() {
    let long = |before: usize| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
        [&head[..], &vec![b'x'; before], b"ready", &vec![b'x'; 200_000]].concat()
    };
    let early = Server::start(move |_| long(64 * 1024 - 5)).await;
    assert!(
        ask(&early.check(|probe| probe.body = pattern("ready")))
            .await
            .is_ok()
    );
    let late = Server::start(move |_| long(64 * 1024 - 4)).await;
    let text = reason(&late.check(|probe| probe.body = pattern("ready"))).await;
    assert!(text.ends_with("no \"ready\" in the body"), "{text}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nready").await;
    let text = reason(&server.check(|probe| probe.body = pattern("ready"))).await;
    assert!(text.contains("broke"), "{text}");
    assert!(ask(&server.check(|_| ())).await.is_ok(), "the status is enough");
}

#[tokio::test]
async fn a_server_that_trickles_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut probe = get(listener.local_addr().unwrap().port());
    probe.body = pattern("ready");
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = b"HTTP/1.1 200 OK\r\n\r\n".iter().chain(std::iter::repeat(&b'.'));
            while stream.write_all(&[*text.next().unwrap()]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let text = reason(&check(Probe::Http(probe))).await;
    assert_eq!(text, "no result in 300ms");
}

#[tokio::test]
async fn what_is_not_http_is_said_so() {
    for (answer, expected) in [
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 +20 OK\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "not HTTP"),
        ("", "broke"),
        ("HTTP/1.1 200 OK\r\nX: 1\r\n", "broke"),
    ] {
        let text = reason(&Server::saying(answer).await.check(|_| ())).await;
        assert!(text.contains(expected), "{answer:?}: {text}");
    }
    let endless = |_: &str| [&b"HTTP/1.1 200 OK\r\nX: "[..], &vec![b'x'; 300_000]].concat();
    let text = reason(&Server::start(endless).await.check(|_| ())).await;
    assert!(text.contains("too long a header"), "{text}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_unless_it_may_be_followed() {
    let mut server = Server::start(|request| {
        let location = match request.split(' ').nth(1).unwrap() {
            "/ready" => "/second?x=1",
            "/second?x=1" => "third",
            _ => return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup".to_vec(),
        };
        format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
    .await;
    assert_eq!(ask(&server.check(|_| ())).await.unwrap(), "HTTP status 302");
    let check = server.check(|probe| probe.redirects = 1);
    assert_eq!(reason(&check).await, "redirected more than 1 times");
    assert_eq!(output(&check).await, "at last to third");
    while server.heard.try_recv().is_ok() {}
    let check = server.check(|probe| {
        (probe.redirects, probe.body, probe.method) = (2, pattern("up"), "POST".into());
    });
    assert!(ask(&check).await.is_ok());
    let mut lines = Vec::new();
    for _ in 0..3 {
        lines.push(server.next().await.lines().next().unwrap().to_owned());
    }
    let expected = [
        "POST /ready HTTP/1.1",
        "GET /second?x=1 HTTP/1.1",
        "GET /third HTTP/1.1",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_redirect_to_elsewhere_is_a_failure_that_says_where_to() {
    let other = Server::saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let port = other.port;
    let server = Server::start(move |_| {
        format!("HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:{port}/ready\r\n\r\n").into_bytes()
    })
    .await;
    let check = server.check(|probe| probe.redirects = 5);
    let text = reason(&check).await;
    assert!(text.starts_with("redirected to what is not on "), "{text}");
    assert_eq!(output(&check).await, format!("to http://127.0.0.1:{port}/ready"));
    assert!(other.heard.is_empty(), "it was asked all the same");
    let nowhere = Server::saying("HTTP/1.1 301 Moved\r\n\r\n").await;
    let text = reason(&nowhere.check(|probe| probe.redirects = 5)).await;
    assert!(text.contains("does not say where to"), "{text}");
}
