//! `grpc.health.v1.Health` on the checks listener: SERVING while this node is active, and at no other time. The service ""
//! is the main role; any other is a role's name.

use super::answer::{Answer, Body, Telling, Told, grpc};
use super::checks::Reader;
use super::crowd::Peer;
use super::feed::Follower;
use super::health::State;
use crate::grpc::{CHECK, Serving, WATCH, answer, service};
use baton_shared::id::RoleName;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Version};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Longest question: the name of a role is of 63 bytes at most.
const MAX_QUESTION: usize = 1024;
/// For the question to come in.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How a call ended (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    NotFound = 5,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
}

/// Whether a request is a gRPC call: those are POSTs over HTTP/2 with a content type of their own.
pub(super) fn is_call(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call.
pub(super) async fn call(reader: &Arc<Reader>, request: Request<Incoming>, from: Peer) -> Answer {
    let watch = match request.uri().path() {
        CHECK => false,
        WATCH => true,
        _ => {
            return ended(
                Code::Unimplemented,
                "only grpc.health.v1.Health with Check and Watch is served here",
            );
        }
    };
    let question = Limited::new(request.into_body(), MAX_QUESTION).collect();
    let Ok(Ok(question)) = timeout(QUESTION_LIMIT, question).await else {
        return ended(
            Code::InvalidArgument,
            "no HealthCheckRequest of at most 1024 bytes came in 5 seconds",
        );
    };
    let question = question.to_bytes();
    let Some(asked) = service(&question) else {
        return ended(
            Code::InvalidArgument,
            "not a HealthCheckRequest without compression",
        );
    };
    let role = reader.role(asked).cloned();
    match (watch, role) {
        (true, role) => match reader.board.feed.follow(from) {
            Some(follower) => grpc(Body::Told(Some(tell(Watching {
                reader: reader.clone(),
                role,
                told: None,
                follower,
            })))),
            None => ended(
                Code::ResourceExhausted,
                "too many watches are open; close some, or use Check",
            ),
        },
        (false, Some(role)) => {
            let serving = serving(reader, &role).await;
            let (frame, next) = (message(serving), Some(finish(Code::Ok, "")));
            grpc(Body::Told(Some(ready(Told { frame, next }))))
        }
        (false, None) => ended(
            Code::NotFound,
            "no such role; the service is \"\" or a role's name",
        ),
    }
}

/// Whether this node is active; in `confirm` mode by the word of a majority.
async fn serving(reader: &Reader, role: &RoleName) -> Serving {
    match reader.standing(role).await.state {
        State::Active => Serving::Serving,
        _ => Serving::NotServing,
    }
}

/// A client that is told of each change.
struct Watching {
    reader: Arc<Reader>,
    /// `None` if there is none of that name. Roles do not come and go while an agent runs.
    role: Option<RoleName>,
    told: Option<Serving>,
    follower: Follower,
}

impl Watching {
    /// What to say next, when it is to be said; `None` at the end of the face.
    async fn news(&mut self) -> Option<Serving> {
        loop {
            let serving = match &self.role {
                Some(role) => serving(&self.reader, role).await,
                None => Serving::ServiceUnknown,
            };
            if self.told.replace(serving) != Some(serving) {
                return Some(serving);
            }
            // A majority's word is good for a moment: it is asked anew each window for as long as somebody watches.
            let changed = match self.reader.confirm {
                true => timeout(self.reader.window(), self.follower.changed())
                    .await
                    .unwrap_or(true),
                false => self.follower.changed().await,
            };
            if !changed {
                return None;
            }
        }
    }
}

fn tell(mut watching: Watching) -> Telling {
    Box::pin(async move {
        match watching.news().await {
            Some(serving) => Told {
                frame: message(serving),
                next: Some(tell(watching)),
            },
            None => Told {
                frame: trailers(Code::Unavailable, "the watch is over; watch again"),
                next: None,
            },
        }
    })
}

fn ready(told: Told) -> Telling {
    Box::pin(std::future::ready(told))
}

fn message(serving: Serving) -> Frame<Bytes> {
    Frame::data(Bytes::copy_from_slice(&answer(serving)))
}

/// The end of a call that has said something.
fn finish(code: Code, why: &'static str) -> Telling {
    let frame = trailers(code, why);
    ready(Told { frame, next: None })
}

fn trailers(code: Code, why: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::with_capacity(2);
    insert(&mut trailers, code, why);
    Frame::trailers(trailers)
}

/// A call that ends without having said anything: its header is all there is.
fn ended(code: Code, why: &'static str) -> Answer {
    let mut answer = grpc(Body::Told(None));
    insert(answer.headers_mut(), code, why);
    answer
}

fn insert(headers: &mut HeaderMap, code: Code, why: &'static str) {
    headers.insert(STATUS, HeaderValue::from(code as u16));
    if !why.is_empty() {
        headers.insert(MESSAGE, HeaderValue::from_static(why));
    }
}
