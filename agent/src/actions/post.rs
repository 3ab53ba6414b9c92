//! One POST to the application: done on a status from 200 to 299. One connection each, closed at the end, the limit, or when it
//! is cancelled; the application may by then have begun what it was asked to do, and tells a later call by its epoch.

use super::process::{Failed, Stopped};
use baton_dnsd::names::look_up;
use baton_shared::config::{Host, Url};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::IpAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Most that an answer's head may take.
const MAX_HEAD: usize = 64 * 1024;
/// Most that is read of an answer's body.
const MAX_BODY: usize = 8 * 1024;
/// How long the body of a bad answer is waited for, which says why, and that of a good one, which says nothing.
const BAD_LIMIT: Duration = Duration::from_millis(200);
const GOOD_LIMIT: Duration = Duration::from_millis(50);
/// Longest line of an answer that is repeated, in bytes.
const MAX_LINE: usize = 200;

/// What is sent.
pub struct Post<'a> {
    /// To whom.
    pub url: &'a Url,
    /// JSON.
    pub body: String,
    /// After this it has failed.
    pub limit: Duration,
}

/// Sends it and waits for the answer's status, until the limit or until `cancel` is ready.
pub async fn run(post: Post<'_>, cancel: impl Future<Output = ()>) -> Result<(), Stopped> {
    let (url, limit) = (post.url, post.limit);
    let failed = |Failed { reason, output }| {
        let reason = format!("POST {}: {reason}", shown(url));
        Stopped::Failed(Failed { reason, output })
    };
    tokio::select! {
        biased;
        result = timeout(limit, send(post)) => match result {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {limit:?}").into())),
        },
        () = cancel => Err(Stopped::Cancelled),
    }
}

/// The URL as everybody may see it: a query may hold a token.
fn shown(url: &Url) -> String {
    let url = url.to_string();
    url.split('?').next().unwrap_or_default().to_owned()
}

async fn send(post: Post<'_>) -> Result<(), Failed> {
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let stream = connect(post.url, Instant::now() + post.limit).await?;
    let request = request(post.url, post.body)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        // The body is read in any case: an application that is cut off while it answers logs that as an error.
        let limit = if status.is_success() {
            GOOD_LIMIT
        } else {
            BAD_LIMIT
        };
        let mut text = Vec::new();
        let _ = timeout(limit, read(answer, &mut text)).await; // what came by then will do
        match (status.is_success(), first_line(&text).as_str()) {
            (true, _) => Ok(()),
            (false, said) => Err(Failed {
                reason: format!("status {status}"),
                output: said.into(),
            }),
        }
    };
    tokio::pin!(answer, connection);
    // The connection only moves while it is polled; whatever ends it is said by the answer.
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            result = &mut answer => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// Connects to the first address that accepts; each gets its share of the time that is left.
async fn connect(url: &Url, end: Instant) -> Result<TcpStream, String> {
    let (host, port) = (&url.host, url.port);
    let found: Vec<IpAddr> = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => look_up(&Host::Name(host.clone())).await?,
    };
    let mut last = format!("\"{host}\" has no address");
    for (tried, ip) in found.iter().enumerate() {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        let share = left / u32::try_from(found.len() - tried).unwrap_or(u32::MAX);
        last = match timeout_at(now + share, TcpStream::connect((*ip, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => format!("cannot connect to {ip} port {port}: {error}"),
            Err(_) => format!("cannot connect to {ip} port {port} within {share:?}"),
        };
    }
    Err(last)
}

fn request(url: &Url, body: String) -> Result<Request<Full<Bytes>>, String> {
    let host = if url.host.contains(':') {
        format!("[{}]:{}", url.host, url.port)
    } else {
        format!("{}:{}", url.host, url.port)
    };
    Request::post(&url.path)
        .header(HOST, host)
        .header(USER_AGENT, "baton")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(body.into()))
        .map_err(|error| format!("the URL cannot be sent: {error}"))
}

/// Reads the answer's body, up to a bound.
async fn read(answer: Response<Incoming>, text: &mut Vec<u8>) {
    let mut body = answer.into_body();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            text.extend_from_slice(&data[..data.len().min(MAX_BODY - text.len())]);
        }
        if text.len() >= MAX_BODY {
            break;
        }
    }
}

/// The first line that is not empty, cut, and fit for a log.
fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    line[..line.floor_char_boundary(MAX_LINE)]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
