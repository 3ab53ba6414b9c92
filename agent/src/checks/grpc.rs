//! A gRPC check: `grpc.health.v1.Health/Check` over HTTP/2 without encryption, on a connection of its own.

use super::probe::{Failure, authority, broken, connect};
use crate::grpc::{CHECK, question, status};
use crate::spawner::Tasks;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::rt::Executor;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;

/// An answer is one message of a few bytes.
const MAX_ANSWER: usize = 1024;
const MAX_HEAD: u32 = 16 * 1024;

/// Asks once for the health of a service; of the whole server if it has no name.
pub async fn ask(host: &str, port: u16, service: &str) -> Result<String, Failure> {
    let broken = |error: hyper::Error| broken(host, port, &error);
    let stream = connect(host, port).await?;
    let tasks = Tasks::default(); // the connection ends with them
    let (mut sender, connection) = http2::Builder::new(tasks.executor())
        .max_header_list_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tasks.executor().execute(async { drop(connection.await) }); // its errors come out at the answer
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}{CHECK}", authority(host, port)))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "baton-check")
        .body(Full::new(Bytes::from(question(service))))
        .map_err(|error| format!("cannot ask for the health of \"{service}\": {error}"))?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (message, trailers) = read(answer).await.map_err(|wrong| match wrong {
        Wrong::Broken(error) => broken(error),
        Wrong::Said(text) => text,
    })?;
    verdict(service, &message, &trailers)
}

enum Wrong {
    Broken(hyper::Error),
    Said(String),
}

impl From<hyper::Error> for Wrong {
    fn from(error: hyper::Error) -> Wrong {
        Wrong::Broken(error)
    }
}

/// The answer's message, and what came after it; the header, where that said all.
async fn read(answer: Response<Incoming>) -> Result<(Vec<u8>, HeaderMap), Wrong> {
    let kind = answer.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if answer.status() != 200 || !kind.starts_with("application/grpc") {
        let status = answer.status().as_u16();
        return Err(Wrong::Said(format!(
            "the answer is not gRPC: HTTP status {status}"
        )));
    }
    let (head, mut body) = answer.into_parts();
    let (mut message, mut trailers) = (Vec::new(), head.headers);
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(piece) if message.len() + piece.len() <= MAX_ANSWER => message.extend_from_slice(&piece),
            Ok(_) => return Err(Wrong::Said("the answer is too long for a health check".into())),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Ok((message, trailers))
}

fn verdict(service: &str, message: &[u8], trailers: &HeaderMap) -> Result<String, Failure> {
    let trailer = |name: &str| Some(trailers.get(name)?.to_str().ok()?.trim());
    let named = match service {
        "" => "the whole server".to_owned(),
        service => format!("service \"{service}\""),
    };
    match trailer("grpc-status") {
        Some("0") => {}
        Some("5") => return Err(format!("the server does not know {named}").into()),
        Some("12") => return Err("the server has no grpc.health.v1.Health".into()),
        Some(code) => {
            let code: u8 = code.parse().map_err(|_| "the grpc-status is not a number")?;
            let said = trailer("grpc-message").unwrap_or_default();
            return Err(Failure::saying(format!("gRPC status {code}"), said.into()));
        }
        None => return Err("the answer broke off: it has no grpc-status".into()),
    }
    match status(message) {
        Some(1) => Ok(format!("{named} is SERVING")),
        Some(0) => Err(format!("{named} is UNKNOWN").into()),
        Some(2) => Err(format!("{named} is NOT_SERVING").into()),
        Some(3) => Err(format!("{named} is SERVICE_UNKNOWN").into()),
        Some(other) => Err(format!("{named} has the unheard-of status {other}").into()),
        None => Err("the answer is no HealthCheckResponse".into()),
    }
}
