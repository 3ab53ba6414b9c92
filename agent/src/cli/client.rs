//! The client of an agent's listeners: one request per connection.

use super::out::{Failure, clean};
use super::stream::Stream;
use super::tls;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

/// To connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For an answer to a question.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Of an answer: a thousand events or nodes are far below.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A Unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
    /// Host and port of this machine, behind TLS.
    Tls(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(address) => write!(f, "http://{address}"),
            Place::Tls(address) => write!(f, "https://{address}"),
        }
    }
}

/// A client of one agent.
pub(super) struct Client {
    place: Place,
    token: Option<String>,
}

/// A connection as long as its driving task lives.
pub(super) struct Answer {
    /// The answer's header, with its body to come.
    pub response: Response<Incoming>,
    /// Drives the connection; ended when dropped.
    pub _driver: JoinSet<()>,
}

impl Client {
    /// Talks to the agent at `place`.
    pub(super) fn new(place: Place, token: Option<String>) -> Client {
        Client { place, token }
    }

    /// The process that listens, where the kernel tells: on a Unix socket, and among the processes that are seen from here.
    pub(super) async fn pid(&self) -> Option<u32> {
        let Place::Unix(path) = &self.place else {
            return None;
        };
        let stream = tokio::time::timeout(CONNECT_LIMIT, UnixStream::connect(path)).await;
        let pid = stream.ok()?.ok()?.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok().filter(|pid| *pid != 0)
    }

    /// Reads what an agent shows at `path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let asked = async {
            let answer = self.send(Method::GET, path, &[], Bytes::new()).await?;
            self.whole(answer).await
        };
        let (status, text) = self.within(READ_LIMIT, asked).await?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &text));
        }
        serde_json::from_slice(&text).map_err(|error| {
            Failure::new(format!(
                "{} does not answer like an agent of this version ({}): {error}",
                self.place,
                env!("CARGO_PKG_VERSION")
            ))
        })
    }

    /// The status and the text that `path` is answered with, whatever they are.
    pub(super) async fn probe(&self, path: &str, limit: Duration) -> Result<(StatusCode, Bytes), Failure> {
        let asked = async {
            let answer = self.send(Method::GET, path, &[], Bytes::new()).await?;
            self.whole(answer).await
        };
        self.within(limit, asked).await
    }

    /// Gives an order, and brings back what came of it within `limit`.
    pub(super) async fn order(
        &self,
        path: &str,
        order: &serde_json::Value,
        limit: Duration,
    ) -> Result<String, Failure> {
        let asked = async {
            let body = Bytes::from(order.to_string());
            let answer = self.send(Method::POST, path, &[], body).await?;
            self.whole(answer).await
        };
        let (status, text) = self.within(limit, asked).await?;
        if status != StatusCode::OK {
            return Err(self.refused(status, &text));
        }
        let answer: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        Ok(clean(answer["message"].as_str().unwrap_or("done")))
    }

    /// The stream of events after number `seen`.
    pub(super) async fn events(&self, seen: u64) -> Result<Stream, Failure> {
        let seen = seen.to_string();
        let headers = [("accept", "text/event-stream"), ("last-event-id", &seen)];
        let asked = self.send(Method::GET, "/events", &headers, Bytes::new());
        let answer = self.within(READ_LIMIT, asked).await?;
        if answer.response.status() == StatusCode::OK {
            return Ok(Stream::new(answer));
        }
        let (status, text) = self.within(READ_LIMIT, self.whole(answer)).await?;
        Err(self.refused(status, &text))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        asked: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(limit, asked)
            .await
            .unwrap_or_else(|_| Err(Failure::new(self.silent(limit))))
    }

    /// Says that no answer came within `limit`.
    pub(super) fn silent(&self, limit: Duration) -> String {
        format!(
            "the agent at {} does not answer within {} s; is it frozen or overloaded?",
            self.place,
            limit.as_secs()
        )
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(
            HOST,
            match &self.place {
                Place::Unix(_) => "localhost",
                Place::Tcp(address) | Place::Tls(address) => address,
            },
        );
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::usage(format!("the address or the token cannot be sent: {error}")))?;
        match &self.place {
            Place::Unix(path) => self.exchange(UnixStream::connect(path), request).await,
            Place::Tcp(address) => self.exchange(TcpStream::connect(address), request).await,
            Place::Tls(address) => {
                let connect = async { tls::connect(TcpStream::connect(address).await?, address).await };
                self.exchange(connect, request).await
            }
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        connect: impl Future<Output = io::Result<S>>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Failure> {
        let stream = tokio::time::timeout(CONNECT_LIMIT, connect)
            .await
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            .map_err(|error| self.unreachable(&error))?;
        let broken =
            |error: hyper::Error| Failure::new(format!("the agent at {} broke off: {error}", self.place));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // What breaks the connection is reported by the request or the body that waits for it.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(Answer {
            response,
            _driver: driver,
        })
    }

    async fn whole(&self, answer: Answer) -> Result<(StatusCode, Bytes), Failure> {
        let status = answer.response.status();
        let body = Limited::new(answer.response.into_body(), MAX_ANSWER);
        match body.collect().await {
            Ok(body) => Ok((status, body.to_bytes())),
            Err(error) => Err(Failure::new(format!(
                "the answer of {} cannot be read: {error}",
                self.place
            ))),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let place = &self.place;
        let unix = matches!(place, Place::Unix(_));
        Failure::new(match error.kind() {
            ErrorKind::NotFound if unix => {
                format!(
                    "no agent at {place}: there is no such socket; is the agent running, and is this its control.listen?"
                )
            }
            ErrorKind::ConnectionRefused => {
                format!("no agent at {place}: nobody listens there; the agent has stopped, see its log")
            }
            ErrorKind::PermissionDenied => format!(
                "not permitted to talk to {place}: run this as the agent's user or a member of its group, such as with sudo"
            ),
            ErrorKind::TimedOut => format!("no agent at {place}: it cannot be reached within 5 s"),
            _ => format!("cannot reach an agent at {place}: {error}"),
        })
    }

    fn refused(&self, status: StatusCode, text: &[u8]) -> Failure {
        let answer: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            return Failure::usage(format!(
                "{} is a checks listener, and read-only; orders go to control.listen",
                self.place
            ));
        }
        match answer["error"].as_str() {
            Some(error) => Failure::new(clean(error)),
            None => Failure::new(format!("{} answers {status}; is that a baton agent?", self.place)),
        }
    }
}
