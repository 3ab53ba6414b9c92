//! A gRPC check: `grpc.health.v1.Health/Check` over HTTP/2 without encryption, on a connection of its own.
//!
//! The two messages are so small that they are written and read by hand
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use super::probe::{authority, broken, connect};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::rt::Executor;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::task::JoinSet;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// An answer is one message of a few bytes.
const MAX_ANSWER: usize = 1024;
const MAX_HEAD: u32 = 16 * 1024;

/// Asks once for the health of a service; of the whole server if it has no name.
pub async fn ask(host: &str, port: u16, service: &str) -> Result<String, String> {
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
        .uri(format!("http://{}{PATH}", authority(host, port)))
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

/// Tasks of a connection, which end when this is dropped.
#[derive(Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn executor(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }
}

/// Where hyper spawns them. Weak, for the tasks themselves hold one.
#[derive(Clone)]
struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
        }
    }
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

/// The length-prefixed `HealthCheckRequest { string service = 1; }`.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a); // field 1, of bytes
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX); // a configured name is short
    let mut question = vec![0]; // not compressed
    question.extend_from_slice(&length.to_be_bytes());
    question.extend_from_slice(&message);
    question
}

fn varint(mut n: usize, into: &mut Vec<u8>) {
    while n >= 0x80 {
        into.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    into.push(n as u8);
}

fn verdict(service: &str, message: &[u8], trailers: &HeaderMap) -> Result<String, String> {
    let trailer = |name: &str| Some(trailers.get(name)?.to_str().ok()?.trim());
    let named = match service {
        "" => "the whole server".to_owned(),
        service => format!("service \"{service}\""),
    };
    match trailer("grpc-status") {
        Some("0") => {}
        Some("5") => return Err(format!("the server does not know {named}")),
        Some("12") => return Err("the server has no grpc.health.v1.Health".into()),
        Some(code) => {
            let said = trailer("grpc-message").unwrap_or("no reason given");
            return Err(format!("gRPC status {code}: {said}"));
        }
        None => return Err("the answer broke off: it has no grpc-status".into()),
    }
    match status(message) {
        Some(1) => Ok(format!("{named} is SERVING")),
        Some(0) => Err(format!("{named} is UNKNOWN")),
        Some(2) => Err(format!("{named} is NOT_SERVING")),
        Some(3) => Err(format!("{named} is SERVICE_UNKNOWN")),
        Some(other) => Err(format!("{named} has the unheard-of status {other}")),
        None => Err("the answer is no HealthCheckResponse".into()),
    }
}

/// `status` of one length-prefixed `HealthCheckResponse { ServingStatus status = 1; }`; other fields are passed over.
fn status(answer: &[u8]) -> Option<u64> {
    let (prefix, message) = answer.split_at_checked(5)?;
    let [0, length @ ..] = prefix else {
        return None; // compressed, though nobody said that we understand that
    };
    let length = length
        .iter()
        .fold(0, |n: usize, byte| n << 8 | usize::from(*byte));
    let mut fields = Fields(message);
    if length != message.len() {
        return None;
    }
    let mut status = 0; // what is not there is zero
    while !fields.0.is_empty() {
        let key = fields.varint()?;
        match (key >> 3, key & 7) {
            (1, 0) => status = fields.varint()?,
            (_, 0) => drop(fields.varint()?),
            (_, 1) => fields.skip(8)?,
            (_, 2) => {
                let length = fields.varint()?;
                fields.skip(length)?;
            }
            (_, 5) => fields.skip(4)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Fields of a protobuf message that are still to be read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut n = 0;
        for place in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn skip(&mut self, length: u64) -> Option<()> {
        self.0 = self.0.get(usize::try_from(length).ok()?..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_names_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = question(&"x".repeat(256));
        assert_eq!(long[..8], [0, 0, 0, 1, 3, 0x0a, 0x80, 2]);
        assert_eq!(long.len(), 5 + 3 + 256);
    }

    #[test]
    fn only_a_whole_message_has_a_status() {
        for (answer, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 3, 8, 0x81, 0], Some(1)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 2, 8], None),
            (&[0, 0, 0, 0, 2, 8, 0x80], None),
            (&[0, 0, 0, 0, 2, 0x12, 0x7f], None),
            (&[0, 0, 0, 0, 2, 0x0b, 1], None),
            (&[0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(status(answer), expected, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn the_tasks_of_a_connection_end_with_it() {
        let tasks = Tasks::default();
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let spawner = tasks.executor();
        spawner.clone().execute(async move {
            let _held = (alive, spawner);
            std::future::pending().await
        });
        drop(tasks);
        let limit = std::time::Duration::from_secs(20);
        assert_eq!(tokio::time::timeout(limit, ended.recv()).await, Ok(None));
    }
}
