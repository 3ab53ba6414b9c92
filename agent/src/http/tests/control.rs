//! The control listener.

use super::super::Control;
use super::fixture::{self, handle, node, published, role};
use super::{heard, talk};
use crate::handle::Message;
use baton_core::Request as Ask;
use baton_shared::config::{self, ControlListen};
use baton_shared::view::Published;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

const TOKEN: &str = "s3cret";

struct Door {
    path: PathBuf,
    _dir: tempfile::TempDir,
    core: fixture::Loop,
    _stop: oneshot::Sender<()>,
}

fn unix_door() -> Door {
    unix_door_to(published())
}

fn unix_door_to(published: Arc<Published>) -> Door {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sock");
    let control = Control::bind(&config::Control {
        listen: ControlListen::Unix(path.clone()),
    })
    .unwrap();
    assert_eq!(control.address(), format!("unix:{}", path.display()));
    let (handle, core) = handle(published);
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(control.run(handle, fixture::config(), stopped));
    Door {
        path,
        _dir: dir,
        core,
        _stop: stop,
    }
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn operators_requests_reach_the_core_and_its_answer_them() {
    let mut door = unix_door();
    for (path, body, expected) in [
        (
            "/v1/switchover",
            r#"{"to":"b"}"#,
            Ask::Switchover {
                role: role("main"),
                to: Some(node("b")),
            },
        ),
        (
            "/v1/switchover",
            "",
            Ask::Switchover {
                role: role("main"),
                to: None,
            },
        ),
        (
            "/v1/drain",
            r#"{"node":"b"}"#,
            Ask::Vacate {
                node: node("b"),
                patient: false,
                limit: Duration::from_secs(60),
            },
        ),
        (
            "/v1/drain",
            r#"{"node":"b","wait":true,"timeout":"90s"}"#,
            Ask::Vacate {
                node: node("b"),
                patient: true,
                limit: Duration::from_secs(90),
            },
        ),
        (
            "/v1/drain",
            r#"{"node":"b","now":true}"#,
            Ask::Drain {
                node: node("b"),
                drained: true,
            },
        ),
        (
            "/v1/undrain",
            r#"{"node":"b"}"#,
            Ask::Drain {
                node: node("b"),
                drained: false,
            },
        ),
        ("/v1/pause", "{}", Ask::Pause(true)),
        ("/v1/resume", "", Ask::Pause(false)),
        (
            "/v1/bootstrap",
            r#"{"without":["w"]}"#,
            Ask::Bootstrap {
                without: [node("w")].into(),
            },
        ),
    ] {
        for result in [Ok("done".to_owned()), Err("not now".to_owned())] {
            let core = async {
                let Some(Message::Ask { request, answer }) = door.core.asked.recv().await else {
                    panic!("nothing was asked");
                };
                assert_eq!(request, expected);
                answer.send(result.clone()).unwrap();
            };
            let stream = UnixStream::connect(&door.path).await.unwrap();
            let request = post(path, body);
            let (reply, ()) = tokio::join!(talk(stream, &request), core);
            match &result {
                Ok(message) => {
                    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
                    assert_eq!(reply.json(), serde_json::json!({"ok": true, "message": message}));
                }
                Err(error) => {
                    assert_eq!(reply.status, 409);
                    assert_eq!(reply.json(), serde_json::json!({"ok": false, "error": error}));
                }
            }
        }
    }
    for (body, everywhere) in [("", true), (r#"{"everywhere":false}"#, false)] {
        let core = async {
            let reload = door.core.reloads.recv().await.unwrap();
            assert_eq!(reload.everywhere, everywhere);
            reload.answer.send(Ok("read".into())).unwrap();
        };
        let stream = UnixStream::connect(&door.path).await.unwrap();
        let request = post("/v1/reload", body);
        let (reply, ()) = tokio::join!(talk(stream, &request), core);
        assert_eq!(reply.status, 200);
    }
}

/// Everybody may read the checks listener; it leaves this out, see its own tests.
#[tokio::test]
async fn what_the_application_printed_is_told_to_operators() {
    let published = published();
    published.checks[&role("main")].store(Some(Arc::new(fixture::secretive())));
    let door = unix_door_to(published);
    let get = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = talk(UnixStream::connect(&door.path).await.unwrap(), get).await;
    let check = &reply.json()["roles"][0]["check"];
    assert_eq!(check["output"], fixture::SECRET);
    assert_eq!(check["took_ms"], 35.0);
    let mut stream = UnixStream::connect(&door.path).await.unwrap();
    let get = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut text = String::new();
    while !text.contains(fixture::SECRET) {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(super::LIMIT, stream.read(&mut chunk));
        let length = read.await.expect("the stream says nothing of it").unwrap();
        assert!(length > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
}

/// As those do who clean up /tmp.
#[tokio::test]
async fn a_socket_that_is_removed_comes_back() {
    let door = unix_door();
    let get = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let kept = UnixStream::connect(&door.path).await.unwrap();
    let dir = door.path.parent().unwrap();
    for whole in [false, true] {
        if whole {
            std::fs::remove_dir_all(dir).unwrap();
        } else {
            std::fs::remove_file(&door.path).unwrap();
        }
        let back = async {
            loop {
                match UnixStream::connect(&door.path).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let stream = tokio::time::timeout(super::LIMIT, back)
            .await
            .expect("it does not come back");
        assert_eq!(talk(stream, get).await.status, 200);
    }
    assert_eq!(talk(kept, get).await.status, 200, "who was there was let go");
    // Another one's name stays theirs.
    std::fs::remove_file(&door.path).unwrap();
    let _theirs = std::os::unix::net::UnixListener::bind(&door.path).unwrap();
    let theirs = std::fs::symlink_metadata(&door.path).unwrap().ino();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(std::fs::symlink_metadata(&door.path).unwrap().ino(), theirs);
}

#[tokio::test]
async fn requests_that_are_not_understood_are_refused_with_a_reason() {
    let door = unix_door();
    for (path, body, status, says) in [
        ("/v1/switchover", r#"{"too":"b"}"#, 400, "unknown field `too`"),
        ("/v1/switchover", r#"{"to":"z"}"#, 404, "the nodes are a, b, w"),
        ("/v1/switchover", r#"{"role":"z"}"#, 404, "the roles are main"),
        ("/v1/switchover", r#"{"to":"a_b"}"#, 400, "not a DNS label"),
        ("/v1/drain", "", 400, "missing field `node`"),
        ("/v1/drain", "nonsense", 400, "not understood"),
        ("/v1/pause", r#"{"x":1}"#, 400, "unknown field"),
        ("/v1/explode", "", 404, "nothing here"),
        ("/v1/status", "", 405, "GET, HEAD only"),
    ] {
        let stream = UnixStream::connect(&door.path).await.unwrap();
        let reply = talk(stream, &post(path, body)).await;
        assert_eq!(reply.status, status, "{path} {}", reply.body);
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(says), "{path}: {error}");
    }
    let long = "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n";
    let reply = talk(UnixStream::connect(&door.path).await.unwrap(), long).await;
    assert_eq!(reply.status, 413);
    let get = "GET /v1/pause HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let reply = talk(UnixStream::connect(&door.path).await.unwrap(), get).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
}

#[tokio::test]
async fn tcp_needs_the_token() {
    let open = ControlListen::Tcp {
        addr: "127.0.0.1:0".parse().unwrap(),
        token: String::new(),
    };
    assert!(Control::bind(&config::Control { listen: open }).is_err());
    let listen = ControlListen::Tcp {
        addr: "127.0.0.1:0".parse().unwrap(),
        token: TOKEN.into(),
    };
    let control = Control::bind(&config::Control { listen }).unwrap();
    let addr = control.address().strip_prefix("http://").unwrap().to_owned();
    let (handle, _core) = handle(published());
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(control.run(handle, fixture::config(), stopped));
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer \r\n", 401),
        ("Authorization: Bearer s3cre\r\n", 401),
        ("Authorization: Bearer s3cret2\r\n", 401),
        ("Authorization: Basic s3cret\r\n", 401),
        ("Authorization: Bearer s3cret\r\n", 200),
        ("Authorization: bearer s3cret\r\n", 200),
    ] {
        let request = format!("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n");
        let reply = talk(TcpStream::connect(&addr).await.unwrap(), &request).await;
        assert_eq!(reply.status, status, "{header}");
    }
}

/// As `socat` and scripts do: an order that is carried out must be answered.
#[tokio::test]
async fn who_closes_its_side_behind_an_order_is_answered() {
    let mut door = unix_door();
    let mut stream = std::os::unix::net::UnixStream::connect(&door.path).unwrap();
    stream.write_all(post("/v1/pause", "").as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.set_nonblocking(true).unwrap();
    let core = async {
        let Some(Message::Ask { answer, .. }) = door.core.asked.recv().await else {
            panic!("nothing was asked");
        };
        // It takes longer than it takes to see the end of what the operator sends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer.send(Ok("done".into())).unwrap();
    };
    let stream = UnixStream::from_std(stream).unwrap();
    let (reply, ()) = tokio::join!(heard(stream), core);
    assert_eq!(reply.status, 200, "{}", reply.body);
}
