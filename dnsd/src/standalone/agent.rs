//! Asking one agent, for ever: one connection, one question at a time, each held back there until there is news.

use crate::names::look_up;
use baton_shared::clock::Mono;
use baton_shared::config::AgentAddress;
use baton_shared::status::Status;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// To connect to one address.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// For an answer, beyond what the question may be held back.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Before a lost agent is tried again; twice as long each time, up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// Of an answer: a status of a large cluster is far below.
const MAX_ANSWER: usize = 4 << 20;
/// A question may be held back so long, whatever the window: it is a part of it, so that a lost answer or two lose no word.
const MAX_WAIT: Duration = Duration::from_secs(5);
const WINDOW_PART: f64 = 0.25;
/// Two questions are never closer together than this.
const MIN_INTERVAL: Duration = Duration::from_millis(2);

/// What came of asking an agent.
pub enum News {
    /// An answer, when the question left, and when all of it was there.
    Answer {
        status: Box<Status>,
        sent: Mono,
        received: Mono,
    },
    /// It does not answer, for this reason.
    Lost(String),
}

/// Asks one agent.
pub struct Asker {
    /// Its place in the configuration.
    pub place: usize,
    /// Where it is.
    pub agent: AgentAddress,
    /// Where what comes of it is told.
    pub tell: mpsc::Sender<(usize, News)>,
}

impl Asker {
    /// Asks, and tells what comes of it. Ends when nobody listens.
    pub async fn run(self) {
        let [first, longest] = PAUSES;
        let mut pause = first;
        loop {
            let mut answered = false;
            let Err(reason) = self.talk(&mut answered).await else {
                return;
            };
            if !self.tell(News::Lost(reason)).await {
                return;
            }
            if answered {
                pause = first;
            }
            sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    }

    async fn tell(&self, news: News) -> bool {
        self.tell.send((self.place, news)).await.is_ok()
    }

    /// Connects and asks until something fails; the error says what. Ends when nobody listens.
    async fn talk(&self, answered: &mut bool) -> Result<(), String> {
        let stream = connect(&self.agent).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("it does not speak HTTP: {error}"))?;
        let mut driver = JoinSet::new(); // ended when dropped
        driver.spawn(async move {
            // What breaks the connection is reported by the question that waits for its answer.
            let _ = connection.await;
        });
        let host = self.agent.to_string();
        let mut question = Question::default();
        loop {
            let begun = Instant::now();
            let sent = Mono::now();
            let status = ask(&mut sender, &host, &question).await?;
            let received = Mono::now();
            *answered = true;
            let next = Question::after(&status);
            let news = next.seen != question.seen;
            question = next;
            let status = Box::new(status);
            let answer = News::Answer {
                status,
                sent,
                received,
            };
            if !self.tell(answer).await {
                return Ok(());
            }
            // An agent that has too many followers holds no question back; then the waiting is ours.
            let pause = if news { MIN_INTERVAL } else { question.wait };
            sleep_until(begun + pause).await;
        }
    }
}

/// What is asked: the status, as soon as its gist is another than the one seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Question {
    seen: Option<u64>,
    wait: Duration,
}

impl Question {
    fn after(status: &Status) -> Question {
        let window = Duration::try_from_secs_f64(status.window_ms / 1e3).unwrap_or_default();
        Question {
            seen: u64::from_str_radix(&status.gist, 16).ok(),
            wait: window.mul_f64(WINDOW_PART).clamp(MIN_INTERVAL, MAX_WAIT),
        }
    }

    fn path(&self) -> String {
        match self.seen {
            Some(seen) => format!("/status?after={seen:016x}&wait={}ms", self.wait.as_millis()),
            None => "/status".to_owned(),
        }
    }
}

async fn connect(agent: &AgentAddress) -> Result<TcpStream, String> {
    let mut reason = format!("\"{}\" has no address", agent.host);
    for ip in look_up(&agent.host).await? {
        match within(CONNECT_LIMIT, TcpStream::connect((ip, agent.port))).await {
            Ok(stream) => {
                // Fails only on a connection that is already gone, which the first question will tell.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => {
                reason = match error.kind() {
                    ErrorKind::ConnectionRefused => format!("nobody listens at {ip} port {}", agent.port),
                    ErrorKind::TimedOut => format!("{ip} cannot be reached within {CONNECT_LIMIT:?}"),
                    _ => format!("{ip} cannot be reached: {error}"),
                };
            }
        }
    }
    Err(reason)
}

async fn within<T>(limit: Duration, action: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, action)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    host: &str,
    question: &Question,
) -> Result<Status, String> {
    let limit = question.wait + ANSWER_LIMIT;
    match timeout(limit, exchange(sender, host, &question.path())).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "it does not answer within {limit:?}; is it frozen or overloaded?"
        )),
    }
}

async fn exchange(sender: &mut SendRequest<Empty<Bytes>>, host: &str, path: &str) -> Result<Status, String> {
    let broken = |error: hyper::Error| format!("it broke off: {error}");
    let request = Request::get(path)
        .header(HOST, host)
        .body(Empty::new())
        .map_err(|error| format!("it cannot be asked: {error}"))?;
    sender.ready().await.map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body
        .map_err(|error| format!("its answer cannot be read: {error}"))?
        .to_bytes();
    if code != StatusCode::OK {
        return Err(format!(
            "it answers {code}; is this the http.listen of a baton agent of this version?"
        ));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let version = env!("CARGO_PKG_VERSION");
        format!("it does not answer like an agent of this version ({version}): {error}")
    })
}

#[cfg(test)]
mod tests;
