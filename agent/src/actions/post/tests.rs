use super::*;
use std::future::pending;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(20);

/// A server that answers one request with these bytes, and then lets the connection hang if it is told to; gives its URL and
/// what it was sent.
async fn server(answer: &[u8], hang: bool) -> (Url, oneshot::Receiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = oneshot::channel();
    let (answer, mut tasks) = (answer.to_vec(), JoinSet::new());
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            let mut chunk = [0; 1024];
            let length = stream.read(&mut chunk).await.unwrap();
            assert!(length > 0, "the request ended early");
            text.extend_from_slice(&chunk[..length]);
        }
        tell.send(String::from_utf8(text).unwrap()).unwrap();
        let _ = stream.write_all(&answer).await; // the client may have heard enough
        if hang {
            pending::<()>().await;
        }
    });
    let url = Url {
        host: "127.0.0.1".into(),
        port,
        path: "/promote?x=1".into(),
    };
    (url, told, tasks)
}

async fn post(url: &Url, limit: Duration) -> Result<(), Stopped> {
    let body = r#"{"role":"main"}"#.into();
    run(Post { url, body, limit }, pending()).await
}

async fn reason(answer: &[u8], hang: bool) -> String {
    let (url, _told, _tasks) = server(answer, hang).await;
    match post(&url, LIMIT).await {
        Err(Stopped::Failed(failed)) => {
            let start = format!("POST http://127.0.0.1:{}/promote: ", url.port);
            assert!(failed.reason.starts_with(&start), "{failed}");
            failed.to_string()[start.len()..].to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_status_from_200_to_299_is_done() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n",
        // A body that never ends says nothing.
        "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        let (url, told, _tasks) = server(answer.as_bytes(), true).await;
        assert_eq!(post(&url, LIMIT).await, Ok(()), "{answer}");
        let request = told.await.unwrap();
        let lower = request.to_lowercase();
        assert!(request.starts_with("POST /promote?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"role\":\"main\"}"), "{request}");
        for header in [
            "content-type: application/json",
            "content-length: 15",
            "connection: close",
        ] {
            assert!(lower.contains(&format!("\r\n{header}\r\n")), "{request}");
        }
        assert!(
            lower.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", url.port)),
            "{request}"
        );
    }
}

#[tokio::test]
async fn anything_else_fails_with_the_status_and_the_first_line() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 31\r\n\r\n\r\n  not ready:\tno disk \r\nsecond..";
    assert_eq!(
        reason(answer.as_bytes(), true).await,
        "status 503 Service Unavailable: not ready: no disk"
    );
    let (url, _told, _tasks) = server(answer.as_bytes(), true).await;
    let Err(Stopped::Failed(failed)) = post(&url, LIMIT).await else {
        panic!("it succeeded");
    };
    let public = failed.public();
    assert!(!public.contains("disk") && !public.contains("x=1"), "{public}");
    assert!(public.contains("status 503 Service Unavailable (what it said is in its node's log)"));
    let moved = "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(reason(moved.as_bytes(), true).await, "status 302 Found");
    // A line that is far too long, in a body that never ends.
    let long = format!("HTTP/1.1 500 X\r\n\r\n{}", "ä".repeat(100_000));
    let said = reason(long.as_bytes(), true).await;
    assert_eq!(
        said,
        format!("status 500 Internal Server Error: {}", "ä".repeat(100))
    );
}

#[tokio::test]
async fn what_is_not_http_or_breaks_off_fails() {
    for answer in [
        "",
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: ",
        &format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20)),
    ] {
        let said = reason(answer.as_bytes(), false).await;
        assert!(said.starts_with("the connection broke: "), "{said}");
    }
}

#[tokio::test]
async fn silence_fails_at_the_limit_and_a_cancelled_one_at_once() {
    let (url, told, _tasks) = server(b"", true).await;
    let Err(Stopped::Failed(Failed { reason, .. })) = post(&url, Duration::from_millis(100)).await else {
        panic!("answered");
    };
    assert!(reason.ends_with("no answer within 100ms"), "{reason}");
    drop(told);

    let (url, told, _tasks) = server(b"", true).await;
    let cancel = async { drop(told.await) };
    let body = "{}".into();
    let result = run(
        Post {
            url: &url,
            body,
            limit: LIMIT * 100,
        },
        cancel,
    )
    .await;
    assert_eq!(result, Err(Stopped::Cancelled));
}

#[tokio::test]
async fn a_name_is_tried_at_each_of_its_addresses() {
    // localhost is both 127.0.0.1 and ::1, and only one of them listens.
    let listener = match TcpListener::bind("[::1]:0").await {
        Ok(listener) => listener,
        Err(_) => return, // a machine without IPv6
    };
    let port = listener.local_addr().unwrap().port();
    let url = Url {
        host: "localhost".into(),
        port,
        path: "/".into(),
    };
    connect(&url, Instant::now() + LIMIT).await.unwrap();
    drop(listener);
    let Err(Stopped::Failed(Failed { reason, .. })) = post(&url, LIMIT).await else {
        panic!("answered");
    };
    assert!(reason.contains("cannot connect to ::1 port"), "{reason}");
}
