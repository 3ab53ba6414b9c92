//! The control listener: what operators may ask. A Unix socket guarded by its file mode, or TCP guarded by a token.

use super::answer::{Answer, StatusCode, json, last, wrong_method};
use super::checks::Board;
use super::connection::{Answering, Face, Http};
use super::crowd::Peer;
use super::lasting::Lasting;
use super::listen::{self, SocketFile};
use super::patience::Patience;
use super::port::Port;
use super::serve::{Limits, Listener, serve};
use crate::handle::Handle;
use baton_core::Request as Ask;
use baton_shared::config::{Config, ControlListen, parse_duration, show_duration};
use baton_shared::id::{NodeName, RoleName};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod fuzz;

/// Operators and their scripts at once.
const MAX_CONNECTIONS: usize = 128;
/// Of a request's body: a list of a thousand nodes is shorter.
const MAX_BODY: usize = 64 * 1024;
/// For a request's body to come in.
const BODY_LIMIT: Duration = Duration::from_secs(5);
/// For the core to answer: a switchover waits for the application to stop and start.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// For others to be active in place of a node that is drained, if nothing else is asked for; and at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);
/// For an answer that comes at the end of its time.
const SPARE: Duration = Duration::from_secs(5);

/// The bound control listener.
#[derive(Debug)]
pub struct Control(Door);

#[derive(Debug)]
enum Door {
    Unix(UnixListener, SocketFile),
    Tcp(Port, String),
}

impl Control {
    /// Binds `[control]`. A Unix socket is made with mode 0660; one that a dead process left is taken over, a live one is
    /// an error. The error is one line, and says what to do.
    pub fn bind(config: &baton_shared::config::Control) -> Result<Control, String> {
        Control::bind_on(config, &[])
    }

    /// As [`bind`](Control::bind), for a node of these addresses, some of which may come only later.
    pub fn bind_on(config: &baton_shared::config::Control, own: &[IpAddr]) -> Result<Control, String> {
        match &config.listen {
            ControlListen::Unix(path) => {
                let (listener, file) = listen::unix(path)?;
                Ok(Control(Door::Unix(listener, file)))
            }
            ControlListen::Tcp { token, .. } if token.is_empty() => {
                Err("control.listen is a TCP address and control.token is empty; set a token, or use a Unix socket".into())
            }
            ControlListen::Tcp { addr, token } => listen::tcp(&[*addr], "control.listen", own)?
                .pop()
                .map(|port| Control(Door::Tcp(port, token.clone())))
                .ok_or_else(|| "control.listen names no address".into()),
        }
    }

    /// Where it listens, as `baton --socket` takes it: `unix:PATH` or `http://ADDRESS`.
    pub fn address(&self) -> String {
        match &self.0 {
            Door::Unix(_, file) => format!("unix:{}", file.path.display()),
            Door::Tcp(port, _) => format!("http://{}", port.addr()),
        }
    }

    /// Answers until `shutdown`, then for a moment more those who are already there. An error is the end of the face, and
    /// for the caller a reason to stop.
    pub async fn run(
        self,
        handle: Handle,
        _config: Arc<Config>,
        shutdown: impl Future + Send + 'static,
    ) -> Result<(), String> {
        let unusable = |error| format!("cannot use the control listener: {error}");
        match self.0 {
            Door::Unix(listener, file) => {
                let listener = Lasting::new(listener, file).map_err(unusable)?;
                run(vec![listener], handle, None, shutdown).await
            }
            Door::Tcp(port, token) => {
                let listeners = port.open().map_err(unusable)?;
                run(listeners, handle, Some(token), shutdown).await
            }
        }
    }
}

async fn run(
    listeners: Vec<impl Listener>,
    handle: Handle,
    token: Option<String>,
    shutdown: impl Future + Send + 'static,
) -> Result<(), String> {
    let limits = Limits {
        connections: MAX_CONNECTIONS,
        counters: None,
    };
    let face = Arc::new(Operators {
        board: Board::for_operators(handle),
        token,
    });
    let server = Arc::new(Http::new(face.clone(), Patience::USUAL));
    let board = &face.board;
    let shutdown = async move {
        shutdown.await;
        board.feed.close();
    };
    tokio::select! {
        ended = serve(listeners, server, limits, shutdown) => ended,
        () = board.feed.run() => Ok(()),
    }
}

/// Why something was not done: a status for programs, a sentence for people.
type Refused = (StatusCode, String);

struct Operators {
    board: Board,
    token: Option<String>,
}

impl Face for Operators {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, from: Peer) -> Answering {
        let operators = self.clone();
        Answering::later(async move { operators.reply(request, from).await })
    }
}

impl Operators {
    async fn reply(&self, request: Request<Incoming>, from: Peer) -> Answer {
        if !self.admits(request.headers()) {
            let error = "this control listener needs the token: `Authorization: Bearer ...`, or BATON_TOKEN for `baton`";
            let mut answer = last(done(Err((StatusCode::UNAUTHORIZED, error.into()))));
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return answer;
        }
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/v1/status" | "/status" | "/v1/events" | "/events" => self.read(&path, &request, from).await,
            "/v1/switchover" | "/v1/drain" | "/v1/undrain" | "/v1/pause" | "/v1/resume" | "/v1/reload"
            | "/v1/bootstrap" => {
                if request.method() != Method::POST {
                    return last(wrong_method("POST"));
                }
                match body(request).await {
                    Ok(text) => done(self.order(&path, &text).await),
                    Err(refused) => last(done(Err(refused))),
                }
            }
            _ => last(done(Err((
                StatusCode::NOT_FOUND,
                "nothing here; POST /v1/switchover, drain, undrain, pause, resume, reload or bootstrap, \
                 GET /v1/status or events"
                    .into(),
            )))),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        headers
            .get(AUTHORIZATION)
            .and_then(|value| value.as_bytes().split_at_checked(7))
            .is_some_and(|(scheme, given)| {
                scheme.eq_ignore_ascii_case(b"Bearer ") && same(given, token.as_bytes())
            })
    }

    async fn read(&self, path: &str, request: &Request<Incoming>, from: Peer) -> Answer {
        if !(request.method() == Method::GET || request.method() == Method::HEAD) {
            return last(wrong_method("GET, HEAD"));
        }
        if path.ends_with("status") {
            self.board.status(request.uri().query()).await
        } else {
            self.board.events(request.uri().query(), request.headers(), from)
        }
    }

    async fn order(&self, path: &str, text: &[u8]) -> Result<String, Refused> {
        let ask = match path {
            "/v1/switchover" => {
                let Switchover { role, to } = parse(text)?;
                let role = self.role(role)?;
                if let Some(to) = &to {
                    self.known(to)?;
                }
                Ask::Switchover { role, to }
            }
            "/v1/undrain" => {
                let One { node } = parse(text)?;
                self.known(&node)?;
                Ask::Drain { node, drained: false }
            }
            "/v1/drain" => {
                let drain: Drain = parse(text)?;
                self.known(&drain.node)?;
                drain.ask()?
            }
            "/v1/pause" | "/v1/resume" => {
                let Nothing {} = parse(text)?;
                Ask::Pause(path == "/v1/pause")
            }
            "/v1/bootstrap" => {
                let Bootstrap { without } = parse(text)?;
                for node in &without {
                    self.known(node)?;
                }
                Ask::Bootstrap { without }
            }
            _ => {
                let Reload { everywhere } = parse(text)?;
                let answered = tokio::time::timeout(ASK_LIMIT, self.board.handle.reload(everywhere));
                return match answered.await {
                    Ok(answer) => answer.map_err(conflict),
                    Err(_) => Err(conflict("no answer in time; see the agent's log".into())),
                };
            }
        };
        tracing::debug!(request = ?ask, "asked by an operator");
        // The core gives up first, and says why.
        let limit = match &ask {
            Ask::Vacate { limit, .. } => *limit + SPARE,
            _ => ASK_LIMIT,
        };
        self.board.handle.ask(ask, limit).await.map_err(conflict)
    }

    fn role(&self, asked: Option<RoleName>) -> Result<RoleName, Refused> {
        let roles = &self.board.handle.published.guards;
        match asked.or_else(|| self.board.default_role.clone()) {
            Some(role) if roles.contains_key(&role) => Ok(role),
            asked => {
                let asked = asked.map(|role| role.to_string()).unwrap_or_default();
                let all: Vec<&str> = roles.keys().map(RoleName::as_str).collect();
                let error = format!("no role {asked:?}; the roles are {}", all.join(", "));
                Err((StatusCode::NOT_FOUND, error))
            }
        }
    }

    fn known(&self, node: &NodeName) -> Result<(), Refused> {
        let view = self.board.handle.published.view.load();
        if view.node(node).is_some() {
            return Ok(());
        }
        let all: Vec<&str> = view.nodes.iter().map(|n| n.name.as_str()).collect();
        let node = node.as_str();
        let error = format!("no node {node:?}; the nodes are {}", all.join(", "));
        Err((StatusCode::NOT_FOUND, error))
    }
}

fn conflict(error: String) -> Refused {
    (StatusCode::CONFLICT, error)
}

/// Compares without telling by its duration where the two differ.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let differs = given
        .iter()
        .zip(secret)
        .fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == secret.len() && std::hint::black_box(differs) == 0
}

fn done(result: Result<String, Refused>) -> Answer {
    match result {
        Ok(message) => json(
            StatusCode::OK,
            &serde_json::json!({ "ok": true, "message": message }),
        ),
        Err((status, error)) => json(status, &serde_json::json!({ "ok": false, "error": error })),
    }
}

async fn body(request: Request<Incoming>) -> Result<Vec<u8>, Refused> {
    let too_long = || {
        let error = format!("the body is longer than {MAX_BODY} bytes");
        (StatusCode::PAYLOAD_TOO_LARGE, error)
    };
    let body = request.into_body();
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_long());
    }
    match tokio::time::timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes().to_vec()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Ok(Err(error)) => Err((
            StatusCode::BAD_REQUEST,
            format!("the body cannot be read: {error}"),
        )),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            "the body took too long to arrive".into(),
        )),
    }
}

/// Nothing at all stands for `{}`.
fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Refused> {
    let text = if text.trim_ascii().is_empty() { b"{}" } else { text };
    serde_json::from_slice(text).map_err(|error| {
        // It may repeat a part of the body: control characters of that stay out of terminals, and it stays one line.
        let error = error.to_string().replace(char::is_control, "?");
        (
            StatusCode::BAD_REQUEST,
            format!("the body is not understood: {error}"),
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switchover {
    role: Option<RoleName>,
    to: Option<NodeName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    node: NodeName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    node: NodeName,
    /// Answer as soon as the order is agreed on.
    #[serde(default)]
    now: bool,
    /// Wait even while no other node is fit.
    #[serde(default)]
    wait: bool,
    timeout: Option<String>,
}

impl Drain {
    fn ask(self) -> Result<Ask, Refused> {
        let limit = match self.timeout.as_deref().map(parse_duration) {
            None => DRAIN_LIMIT,
            Some(Ok(limit)) if limit <= LONGEST_DRAIN => limit,
            Some(Ok(_)) => {
                let error = format!("timeout: at most {}", show_duration(LONGEST_DRAIN));
                return Err((StatusCode::BAD_REQUEST, error));
            }
            Some(Err(error)) => {
                return Err((
                    StatusCode::BAD_REQUEST,
                    format!("timeout: {error}").replace(char::is_control, "?"),
                ));
            }
        };
        Ok(match self.now {
            true => Ask::Drain {
                node: self.node,
                drained: true,
            },
            false => Ask::Vacate {
                node: self.node,
                patient: self.wait,
                limit,
            },
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bootstrap {
    without: BTreeSet<NodeName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reload {
    #[serde(default = "yes")]
    everywhere: bool,
}

fn yes() -> bool {
    true
}
