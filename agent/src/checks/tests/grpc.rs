use super::*;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;

type Answer = Response<BoxBody<Bytes, Infallible>>;
/// What a server makes of a question.
type Answers = fn(&[u8]) -> Answer;

/// A gRPC health server over HTTP/2 without encryption.
async fn server(answers: Answers) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<Incoming>| async move {
                assert_eq!(request.method(), "POST");
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                assert_eq!(request.headers()["te"], "trailers");
                let question = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(answers(&question))
            });
            connections.spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, tasks)
}

fn answer(message: &'static [u8], trailers: &[(&'static str, &'static str)]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in trailers {
        map.insert(*name, value.parse().unwrap());
    }
    let map = (!map.is_empty()).then_some(Ok(map));
    let body = Full::new(Bytes::from_static(message)).with_trailers(async { map });
    let head = Response::builder().header("content-type", "application/grpc+proto");
    head.body(body.boxed()).unwrap()
}

/// A server's health, as it goes over the wire.
fn status(number: u8) -> &'static [u8] {
    match number {
        0 => &[0, 0, 0, 0, 0],
        1 => &[0, 0, 0, 0, 2, 8, 1],
        _ => &[0, 0, 0, 0, 2, 8, 2],
    }
}

const FINE: &[(&str, &str)] = &[("grpc-status", "0")];

fn asked(port: u16, service: &str) -> Check {
    let mut check = check(Probe::Grpc {
        host: "127.0.0.1".into(),
        port,
        service: service.into(),
    });
    check.timeout = LIMIT / 2;
    check
}

#[tokio::test]
async fn serving_is_good_and_everything_else_is_not() {
    let (port, _server) = server(|question| match question {
        [0, 0, 0, 0, 0] => answer(status(1), FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'a'] => answer(status(1), FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'b'] => answer(status(2), FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'c'] => answer(status(0), FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'd'] => answer(b"", &[("grpc-status", "12")]),
        [0, 0, 0, 0, 3, 0x0a, 1, b'e'] => {
            answer(b"", &[("grpc-status", "14"), ("grpc-message", "still loading")])
        }
        [0, 0, 0, 0, 3, 0x0a, 1, b'f'] => answer(status(1), &[]),
        [0, 0, 0, 0, 3, 0x0a, 1, b'g'] => answer(&[0, 0, 0, 0, 2, 8], FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'h'] => answer(&[0; 5000], FINE),
        [0, 0, 0, 0, 3, 0x0a, 1, b'i'] => Response::new(Full::default().boxed()),
        _ => answer(b"", &[("grpc-status", "5")]),
    })
    .await;
    assert_eq!(
        ask(&asked(port, "")).await.unwrap(),
        "the whole server is SERVING"
    );
    assert_eq!(ask(&asked(port, "a")).await.unwrap(), "service \"a\" is SERVING");
    for (service, expected) in [
        ("b", "service \"b\" is NOT_SERVING"),
        ("c", "service \"c\" is UNKNOWN"),
        ("d", "the server has no grpc.health.v1.Health"),
        ("e", "gRPC status 14"),
        ("f", "the answer broke off: it has no grpc-status"),
        ("g", "the answer is no HealthCheckResponse"),
        ("h", "the answer is too long for a health check"),
        ("i", "the answer is not gRPC: HTTP status 200"),
        ("z", "the server does not know service \"z\""),
    ] {
        assert_eq!(reason(&asked(port, service)).await, expected);
    }
    assert_eq!(output(&asked(port, "e")).await, "still loading");
}

#[tokio::test]
async fn an_answer_may_be_all_in_the_header() {
    let (port, _server) = server(|_| {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5");
        head.body(Full::default().boxed()).unwrap()
    })
    .await;
    let text = reason(&asked(port, "")).await;
    assert_eq!(text, "the server does not know the whole server");
}

#[tokio::test]
async fn a_server_without_http_2_and_one_that_hangs_are_failures() {
    let (http1, _status, _server) = super::server(200).await;
    let Probe::Http(probe) = http1.probe else {
        panic!();
    };
    let text = reason(&asked(probe.url.port, "")).await;
    assert!(text.contains("broke"), "{text}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hanging = asked(silent.local_addr().unwrap().port(), "");
    hanging.timeout = Duration::from_millis(200);
    assert_eq!(reason(&hanging).await, "no result in 200ms");
    drop(silent);
    assert!(reason(&hanging).await.contains("cannot connect"));
}
