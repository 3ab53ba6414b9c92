//! Responses: their body type, and the few shapes they come in. Every one says `Cache-Control: no-store`.

use super::budget::Held;
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

pub(super) use hyper::StatusCode;

/// A response.
pub(super) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Of a body so much is handed on at once. On HTTP/1 it is copied behind the header before both are written, into a buffer
/// that each connection keeps: of 8 KiB to begin with, which header and piece do not exceed.
const PIECE: usize = 4096;

/// The body of a response.
pub(super) enum Body {
    /// All of it, until its first piece is taken.
    Whole(Option<Bytes>),
    /// What is left of it. Pieces are taken one by one, and each is written before the next.
    Rest {
        /// Not empty.
        rest: Bytes,
        /// Whether the piece before is being written.
        paused: bool,
        /// What it costs, if it is this reader's alone.
        held: Option<Held>,
    },
    /// What is told, until the sender is dropped.
    Stream {
        /// What is to be told next.
        told: mpsc::Receiver<Bytes>,
        /// What is left of what was told last, taken in pieces, too.
        rest: Bytes,
        /// Whether the piece before is being written.
        paused: bool,
    },
    /// Frames, each made when there is something to say; `None` after the last.
    Told(Option<Telling>),
}

/// A frame to come.
pub(super) type Telling = Pin<Box<dyn Future<Output = Told> + Send>>;

/// A frame that has come, and what comes after it.
pub(super) struct Told {
    /// Data, or trailers.
    pub frame: Frame<Bytes>,
    /// `None` if that was the last.
    pub next: Option<Telling>,
}

impl Body {
    /// Whether it goes on by itself, for nobody knows how long.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Body::Stream { .. } | Body::Told(Some(_)))
    }

    /// What it says next is not known yet, if it was asked for and is pending.
    pub(super) fn awaits_news(&self) -> bool {
        match self {
            Body::Stream { rest, .. } => rest.is_empty(),
            Body::Told(telling) => telling.is_some(),
            Body::Whole(_) | Body::Rest { .. } => false,
        }
    }

    /// Its length, if that is of account, and nobody shares it.
    pub(super) fn long(&self) -> Option<usize> {
        match self {
            Body::Whole(Some(bytes)) => Some(bytes.len()).filter(|length| *length > PIECE),
            _ => None,
        }
    }

    /// The same, and gives `held` back with its last piece.
    pub(super) fn holding(self, held: Held) -> Body {
        match self {
            Body::Whole(Some(rest)) => Body::Rest {
                rest,
                paused: true,
                held: Some(held),
            },
            body => body,
        }
    }

    /// Takes the first piece of `bytes`, and keeps the rest.
    fn piece_of(&mut self, mut bytes: Bytes, held: Option<Held>) -> Bytes {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        *self = match bytes.is_empty() {
            true => Body::Whole(None),
            false => Body::Rest {
                rest: bytes,
                paused: false,
                held,
            },
        };
        piece
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Body::Whole(whole) => {
                let piece = whole.take().map(|bytes| self.piece_of(bytes, None));
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            Body::Rest { paused, .. } if !*paused => {
                *paused = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Body::Rest { rest, held, .. } => {
                let (rest, held) = (mem::take(rest), held.take());
                Poll::Ready(Some(Ok(Frame::data(self.piece_of(rest, held)))))
            }
            Body::Stream { told, rest, paused } => {
                if rest.is_empty() {
                    match ready!(told.poll_recv(cx)) {
                        Some(news) => *rest = news,
                        None => return Poll::Ready(None),
                    }
                } else if !*paused {
                    *paused = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *paused = false;
                let piece = rest.split_to(rest.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Body::Told(telling) => {
                let Some(future) = telling else {
                    return Poll::Ready(None);
                };
                let told = ready!(future.as_mut().poll(cx));
                *telling = told.next;
                Poll::Ready(Some(Ok(told.frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None) | Body::Told(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::Rest { rest, .. } => SizeHint::with_exact(rest.len() as u64),
            Body::Told(None) => SizeHint::with_exact(0),
            Body::Stream { .. } | Body::Told(_) => SizeHint::default(),
        }
    }
}

/// A gRPC answer: its header says OK, and how it went is told at its end.
pub(super) fn grpc(body: Body) -> Answer {
    respond(StatusCode::OK, GRPC, body)
}

fn respond<B>(status: StatusCode, content: HeaderValue, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content);
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}

/// An answer that can be given more than once.
pub(super) type Written = Response<Bytes>;

/// Gives it.
pub(super) fn given(written: Written) -> Answer {
    written.map(|body| Body::Whole(Some(body)))
}

/// JSON text that is already made.
pub(super) fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Written {
    respond(status, JSON, text.into())
}

/// JSON text, not empty, that many share.
pub(super) fn shared_json(text: Bytes) -> Answer {
    let body = Body::Rest {
        rest: text,
        paused: true,
        held: None,
    };
    respond(StatusCode::OK, JSON, body)
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => given(json_text(status, text)),
        Err(error) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("cannot write JSON: {error}\n"),
        ),
    }
}

/// What went wrong on a read-only route, in a sentence.
pub(super) fn refusal(status: StatusCode, error: &str) -> Answer {
    json(status, &serde_json::json!({ "error": error }))
}

/// Plain text.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    given(plain(status, text))
}

/// Plain text.
pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Written {
    respond(status, TEXT, text.into())
}

/// The metrics page.
pub(super) fn prometheus(page: String) -> Answer {
    respond(StatusCode::OK, PROMETHEUS, Body::Whole(Some(page.into())))
}

/// Server-sent events.
pub(super) fn events(told: mpsc::Receiver<Bytes>) -> Answer {
    let body = Body::Stream {
        told,
        rest: Bytes::new(),
        paused: false,
    };
    respond(StatusCode::OK, EVENTS, body)
}

/// "Not with this method."
pub(super) fn wrong_method(allow: &'static str) -> Answer {
    let mut answer = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("this address takes {allow} only"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Takes the body away, for an answer to OPTIONS.
pub(super) fn bare(mut answer: Answer, allow: &'static str) -> Answer {
    *answer.body_mut() = Body::Whole(None);
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

/// Ends the connection after this answer.
pub(super) fn last(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn what_a_stream_is_told_comes_in_pieces_too_and_is_awaited_only_at_its_end() {
        let (tell, told) = mpsc::channel(2);
        let mut body = events(told).into_body();
        let mut cx = Context::from_waker(Waker::noop());
        tell.try_send(Bytes::from(vec![7; PIECE + 10])).unwrap();
        tell.try_send(Bytes::from_static(b"short")).unwrap();
        let (mut lengths, mut pauses) = (Vec::new(), 0);
        while lengths.len() < 3 {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(frame) => lengths.push(frame.unwrap().unwrap().into_data().unwrap().len()),
                Poll::Pending => {
                    assert!(!body.awaits_news());
                    pauses += 1;
                }
            }
        }
        assert_eq!((lengths, pauses), (vec![PIECE, 10, 5], 1));
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        assert!(body.awaits_news());
        drop(tell);
        assert!(matches!(
            Pin::new(&mut body).poll_frame(&mut cx),
            Poll::Ready(None)
        ));
    }

    #[test]
    fn large_body_comes_in_pieces_each_written_before_the_next() {
        let whole: Vec<u8> = (0..PIECE * 2 + 10).map(|n| n as u8).collect();
        for length in [0, 10, PIECE, PIECE + 1, PIECE * 2, whole.len()] {
            let mut body = Body::Whole(Some(whole[..length].to_vec().into()));
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            let (mut taken, mut pauses) = (Vec::new(), 0);
            let mut cx = Context::from_waker(Waker::noop());
            loop {
                match Pin::new(&mut body).poll_frame(&mut cx) {
                    Poll::Pending => pauses += 1,
                    Poll::Ready(None) => break,
                    Poll::Ready(Some(frame)) => {
                        let piece = frame.unwrap().into_data().unwrap();
                        assert!(piece.len() <= PIECE, "{}", piece.len());
                        taken.extend_from_slice(&piece);
                        assert_eq!(body.is_end_stream(), taken.len() == length);
                        assert_eq!(body.size_hint().exact(), Some((length - taken.len()) as u64));
                    }
                }
            }
            assert_eq!(taken, whole[..length]);
            assert_eq!(pauses, length.saturating_sub(1) / PIECE);
        }
    }
}
