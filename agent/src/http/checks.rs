//! The checks listener: unauthenticated and read-only.

use super::active::{active, no_such_role};
use super::answer::{Answer, StatusCode, bare, events, json, last, prometheus, refusal, text, wrong_method};
use super::feed::Feed;
use super::health::{Confirmation, Statuses, health, live, ready};
use super::patience::Patience;
use super::query::pairs;
use super::serve::{Face, Limits, serve};
use super::{VERSION, listen, metrics};
use crate::handle::{Counters, Handle, MAX_WAITING};
use baton_shared::clock::Mono;
use baton_shared::config::{Config, Http, parse_duration};
use baton_shared::id::{Epoch, RoleName};
use baton_shared::status::{Status, floor_ms};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, Request};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What `/` says.
const INDEX: &str = "\
baton: failover sidecar

/health             200 if this node is active at this moment, else 503
/health/ROLE        the same for one role
                    ?standby=200 and the like change the status of a state:
                    active, standby, claiming, promoting, demoting, starting, unknown
/ready              200 if in touch with the cluster and caught up, active or not
/live               200 if the agent is alive
/active             307 to the active instance; ?role=, ?port=, ?path=, ?scheme=
/status             everything this node knows, as JSON
                    ?after=GIST&wait=250ms holds the answer back until its gist is another
/events             what happened, and what happens, as server-sent events; ?format=json for the history
/metrics            for Prometheus
";

/// A request for news is held back no longer.
const MAX_WAIT: Duration = Duration::from_secs(10);

const READ: &str = "GET, HEAD, OPTIONS";

/// Confirmations under way at once: they share the control loop's queue with operators, who must find room in it.
const MAX_CONFIRMING: usize = MAX_WAITING / 4;

/// Bound sockets of the checks listener.
#[derive(Debug)]
pub struct Checks {
    listeners: Vec<TcpListener>,
    max_connections: usize,
}

impl Checks {
    /// Binds every address of `[http]`; port 0 takes a free one. The error is one line, and says what to do.
    pub fn bind(config: &Http) -> Result<Checks, String> {
        Ok(Checks {
            listeners: listen::tcp(&config.listen, "http.listen")?,
            max_connections: config.max_connections,
        })
    }

    /// Where it listens, in the configuration's order.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Answers until `shutdown`, then for a moment more those who are already there. An error is the end of the face, and
    /// for the caller a reason to stop.
    pub async fn run(
        self,
        handle: Handle,
        config: Arc<Config>,
        shutdown: impl Future + Send + 'static,
    ) -> Result<(), String> {
        self.run_patiently(handle, config, Patience::USUAL, shutdown)
            .await
    }

    pub(super) async fn run_patiently(
        self,
        handle: Handle,
        config: Arc<Config>,
        patience: Patience,
        shutdown: impl Future + Send + 'static,
    ) -> Result<(), String> {
        let listeners = self
            .listeners
            .into_iter()
            .map(tokio::net::TcpListener::from_std)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("cannot use the HTTP listener: {error}"))?;
        let limits = Limits {
            connections: self.max_connections,
            patience,
            counters: Some(handle.counters.clone()),
        };
        let confirm = config.http.as_ref().is_some_and(|http| http.confirm);
        let face = Arc::new(Reader {
            board: Board::new(handle),
            confirm,
            confirming: Semaphore::new(MAX_CONFIRMING),
        });
        let board = &face.board;
        let shutdown = async move {
            shutdown.await;
            board.feed.close();
        };
        tokio::select! {
            ended = serve(listeners, face.clone(), limits, shutdown) => ended,
            () = board.feed.run() => Ok(()),
        }
    }
}

/// What `/status` is held back for.
#[derive(Debug, PartialEq, Eq)]
struct Hold {
    /// The gist that the asker has seen.
    seen: u64,
    wait: Duration,
}

impl Hold {
    fn parse(query: Option<&str>) -> Result<Option<Hold>, String> {
        let (mut seen, mut wait) = (None, None);
        for (key, value) in pairs(query) {
            let wrong = |form: &str| format!("{key}={value}: expected {form}");
            match &*key {
                "after" => {
                    let gist = u64::from_str_radix(&value, 16);
                    seen = Some(gist.map_err(|_| wrong("the gist of an earlier answer"))?);
                }
                "wait" => {
                    let time = parse_duration(&value).ok().filter(|wait| *wait <= MAX_WAIT);
                    wait = Some(time.ok_or_else(|| wrong("a time of at most 10s, such as 250ms"))?);
                }
                _ => {
                    return Err(format!(
                        "unknown parameter {key:?}; the parameters are after and wait, together: after=GIST&wait=250ms"
                    ));
                }
            }
        }
        match (seen, wait) {
            (Some(seen), Some(wait)) => Ok(Some(Hold { seen, wait })),
            (None, None) => Ok(None),
            _ => Err("after and wait belong together: after=GIST&wait=250ms".into()),
        }
    }
}

/// What both listeners can read out.
pub(super) struct Board {
    /// The control loop.
    pub handle: Handle,
    /// Its events.
    pub feed: Feed,
    /// The role that is meant when none is named: `main`, or the first.
    pub default_role: Option<RoleName>,
}

impl Board {
    /// Reads from what `handle` publishes.
    pub(super) fn new(handle: Handle) -> Board {
        let roles = &handle.published.guards;
        let default_role = roles
            .keys()
            .find(|role| role.as_str() == "main")
            .or_else(|| roles.keys().next())
            .cloned();
        Board {
            feed: Feed::new(handle.published.clone()),
            default_role,
            handle,
        }
    }

    /// Answers `/status`: at once, or with `after` and `wait` as soon as the gist is another than `after`.
    ///
    /// What it says may be repeated for so long from when it was *made*; when that was, the asker knows no better than "so
    /// long after the request came, and that was after I sent it". So the answer says how long it was held back.
    pub(super) async fn status(&self, query: Option<&str>) -> Answer {
        let came = Mono::now();
        match Hold::parse(query) {
            Ok(Some(hold)) => self.feed.news(hold.seen, hold.wait).await,
            Ok(None) => {}
            Err(error) => return refusal(StatusCode::BAD_REQUEST, &error),
        }
        let now = Mono::now();
        let mut status = Status::new(&self.handle.published, VERSION, now);
        status.held_ms = floor_ms(now.since(came));
        json(StatusCode::OK, &status)
    }

    /// Answers `/events`: a stream, or the history as JSON to those who ask for it.
    pub(super) fn events(&self, query: Option<&str>, headers: &HeaderMap) -> Answer {
        let accepts = |what: &str| {
            headers
                .get(ACCEPT)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.contains(what))
        };
        let mut as_json = accepts("application/json") && !accepts("text/event-stream");
        for (key, value) in pairs(query) {
            as_json = match (&*key, &*value) {
                ("format", "json") => true,
                ("format", "sse") => false,
                _ => {
                    let error = format!("{key}={value}: the one parameter is format, json or sse");
                    return refusal(StatusCode::BAD_REQUEST, &error);
                }
            };
        }
        if as_json {
            return json(StatusCode::OK, self.handle.published.events.load().as_ref());
        }
        let seen = headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .unwrap_or(0);
        match self.feed.subscribe(seen, Mono::now()) {
            Some(pieces) => events(pieces),
            None => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many event streams are open; close some, or use /events?format=json",
            ),
        }
    }
}

/// The checks face.
struct Reader {
    board: Board,
    confirm: bool,
    confirming: Semaphore,
}

impl Face for Reader {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        Counters::add(&self.board.handle.counters.http_requests);
        let method = request.method();
        if !(method == Method::GET || method == Method::HEAD || method == Method::OPTIONS) {
            return last(wrong_method(READ));
        }
        if !request.body().is_end_stream() {
            return last(refusal(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken here"));
        }
        if method == Method::OPTIONS {
            return bare(self.options(&request).await, READ);
        }
        self.read(request.uri().path(), &request).await
    }
}

impl Reader {
    /// OPTIONS of a check is the check without a body: HAProxy's `option httpchk` asks so, without a path at `/`, and
    /// must not take a standby for active.
    async fn options(&self, request: &Request<Incoming>) -> Answer {
        match request.uri().path() {
            "/" | "*" => self.read("/health", request).await,
            "/live" | "/ready" => self.read(request.uri().path(), request).await,
            path if path.starts_with("/health") => self.read(path, request).await,
            _ => text(StatusCode::NO_CONTENT, ""),
        }
    }

    async fn read(&self, path: &str, request: &Request<Incoming>) -> Answer {
        let Handle {
            published, counters, ..
        } = &self.board.handle;
        let query = request.uri().query();
        let path = match path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter,
            _ => path,
        };
        let Some(default) = &self.board.default_role else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "no role is configured");
        };
        match path {
            "/health" => self.health(default, query).await,
            "/live" => {
                let window = published.view.load().window;
                live(counters.loop_silent(Mono::now()), window)
            }
            "/ready" => ready(published, Mono::now()),
            "/active" => active(published, default, query, Mono::now()),
            "/status" => self.board.status(query).await,
            "/events" => self.board.events(query, request.headers()),
            "/metrics" => prometheus(metrics::page(published, counters, Mono::now())),
            "/" => text(StatusCode::OK, INDEX),
            _ => match path.strip_prefix("/health/") {
                Some(asked) => match published.guards.keys().find(|r| r.as_str() == asked) {
                    Some(role) => self.health(role, query).await,
                    None => no_such_role(published, asked),
                },
                None => refusal(StatusCode::NOT_FOUND, "nothing here; see / for what there is"),
            },
        }
    }

    async fn health(&self, role: &RoleName, query: Option<&str>) -> Answer {
        let statuses = match Statuses::parse(query) {
            Ok(statuses) => statuses,
            Err(error) => return refusal(StatusCode::BAD_REQUEST, &error),
        };
        let confirmation = match self.confirm {
            true => Confirmation::Asked(self.confirmed(role).await),
            false => Confirmation::NotAsked,
        };
        health(
            &self.board.handle.published,
            role,
            &statuses,
            confirmation,
            Mono::now(),
        )
    }

    /// The epoch that a majority confirms within a window; a node that is not active anyway asks nobody.
    async fn confirmed(&self, role: &RoleName) -> Option<Epoch> {
        let handle = &self.board.handle;
        handle.published.guards.get(role)?.active(Mono::now())?;
        let window = handle.published.view.load().window;
        let asked = async {
            let _permit = self.confirming.acquire().await.ok()?;
            handle.confirm(role, window).await
        };
        tokio::time::timeout(window, asked).await.ok()?
    }
}
