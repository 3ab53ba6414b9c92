//! The checks listener: unauthenticated and read-only.

use super::active::{active, no_such_role};
use super::agent_check::AgentCheck;
use super::answer::{Answer, StatusCode, bare, events, json, last, prometheus, refusal, text, wrong_method};
use super::connection::{Answering, Face, Http};
use super::crowd::Peer;
use super::feed::{Feed, MakeStatus};
use super::health::{Confirmation, Form, Last, Standing, Wanted, form, health, live, ready};
use super::patience::Patience;
use super::port::Port;
use super::query::pairs;
use super::serve::{Limits, serve};
use super::tls::Certificates;
use super::{grpc, listen, metrics};
use crate::handle::{Counters, Handle, MAX_WAITING};
use baton_shared::clock::Mono;
use baton_shared::config::{self, Config, HealthCodes, Root, parse_duration};
use baton_shared::id::{Epoch, RoleName};
use baton_shared::status::{Status, floor_ms};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, HeaderMap};
use hyper::{Method, Request};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// What `/help` says.
const INDEX: &str = "\
baton: failover sidecar

/health             200 if this node is active at this moment, else 503
/health/ROLE        the same for one role
                    ?standby=200 and the like change the status of a state:
                    active, standby, claiming, promoting, demoting, starting, unknown
                    ?format=text, or Accept: text/plain, answers in one line
/ready              200 if in touch with the cluster, caught up, voting and able to write, active or not
/live               200 if the agent is alive
/active             307 to the active instance; ?role=, ?port=, ?path=, ?scheme=
/status             everything this node knows, as JSON
                    ?after=GIST&wait=250ms holds the answer back until its gist is another
/events             what happened, and what happens, as server-sent events; ?format=json for the history
/metrics            for Prometheus
/                   to browsers this page, to others what /health says; [http] root makes it one of the two
/help               this page

grpc.health.v1.Health with Check and Watch is answered by HTTP/2: service \"\" or ROLE.
";

/// A request for news is held back no longer.
const MAX_WAIT: Duration = Duration::from_secs(10);

const READ: &str = "GET, HEAD, OPTIONS";

/// Confirmations under way at once: they share the control loop's queue with operators, who must find room in it.
const MAX_CONFIRMING: usize = MAX_WAITING / 4;

/// Agent-checks at once, where nobody says otherwise.
const MAX_AGENT_CHECKS: usize = 1024;

/// Bound sockets of the checks listener.
#[derive(Debug)]
pub struct Checks {
    ports: Vec<Port>,
    agent_check: Vec<Port>,
    certificates: Option<Arc<Certificates>>,
    config: config::Http,
    agent_checks: usize,
}

impl Checks {
    /// Binds every address of `[http]`, and reads the certificate; port 0 takes a free one. The error is one line, and says what to do.
    pub fn bind(config: &config::Http) -> Result<Checks, String> {
        Checks::bind_on(config, &[])
    }

    /// As [`bind`](Checks::bind), for a node of these addresses, some of which may come only later.
    pub fn bind_on(config: &config::Http, own: &[IpAddr]) -> Result<Checks, String> {
        Ok(Checks {
            ports: listen::tcp(&config.listen, "http.listen", own)?,
            agent_check: listen::tcp(&config.agent_check, "http.agent_check", own)?,
            certificates: match &config.tls {
                Some(files) => {
                    let loaded = Certificates::load(files).map_err(|error| format!("http.tls: {error}"))?;
                    Some(Arc::new(loaded))
                }
                None => None,
            },
            config: config.clone(),
            agent_checks: MAX_AGENT_CHECKS,
        })
    }

    /// Takes no more connections at once than these, whatever is configured.
    pub fn at_most(mut self, connections: usize, agent_checks: usize) -> Checks {
        self.config.max_connections = self.config.max_connections.min(connections);
        self.agent_checks = agent_checks;
        self
    }

    /// What TLS is spoken with, if it is.
    pub fn certificates(&self) -> Option<Arc<Certificates>> {
        self.certificates.clone()
    }

    /// Where it listens, in the configuration's order.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        addrs(&self.ports)
    }

    /// Where it answers agent-checks, in the configuration's order.
    pub fn agent_check_addrs(&self) -> Vec<SocketAddr> {
        addrs(&self.agent_check)
    }

    /// Answers until `shutdown`, then for a moment more those who are already there. An error is the end of the face, and
    /// for the caller a reason to stop.
    pub async fn run(
        self,
        handle: Handle,
        _config: Arc<Config>,
        shutdown: impl Future + Send + 'static,
    ) -> Result<(), String> {
        self.run_patiently(handle, Patience::USUAL, shutdown).await
    }

    pub(super) async fn run_patiently(
        self,
        handle: Handle,
        patience: Patience,
        shutdown: impl Future + Send + 'static,
    ) -> Result<(), String> {
        let counters = Some(handle.counters.clone());
        let limits = |connections| Limits {
            connections,
            counters: counters.clone(),
        };
        let reader = Arc::new(Reader::new(handle, &self.config));
        let http = Http::new(reader.clone(), patience)
            .proxy_protocol(self.config.proxy_protocol)
            .tls(self.certificates.clone());
        let agent_check = Arc::new(AgentCheck {
            reader: reader.clone(),
            weight: self.config.agent_weight,
        });
        let (listeners, agents) = (open(self.ports)?, open(self.agent_check)?);
        let (stop, stopped) = watch::channel(());
        let board = &reader.board;
        let shutdown = async move {
            shutdown.await;
            board.feed.close();
            drop(stop);
        };
        let agents_end = async move {
            let mut stopped = stopped;
            let _ = stopped.changed().await; // the other end is gone
        };
        let serving = async {
            tokio::try_join!(
                serve(
                    listeners,
                    Arc::new(http),
                    limits(self.config.max_connections),
                    shutdown
                ),
                serve(agents, agent_check, limits(self.agent_checks), agents_end),
            )
        };
        tokio::select! {
            ended = serving => ended.map(|_| ()),
            () = board.feed.run() => Ok(()),
            () = follow(self.certificates) => Ok(()),
        }
    }
}

/// What OPTIONS is answered for as GET is, but for the body.
fn is_check(path: &str) -> bool {
    path == "/live" || path == "/ready" || path.starts_with("/health")
}

/// Never ends.
async fn follow(certificates: Option<Arc<Certificates>>) {
    match certificates {
        Some(certificates) => certificates.follow().await,
        None => std::future::pending().await,
    }
}

fn addrs(ports: &[Port]) -> Vec<SocketAddr> {
    ports.iter().map(Port::addr).collect()
}

fn open(ports: Vec<Port>) -> Result<Vec<TcpListener>, String> {
    let opened: io::Result<Vec<_>> = ports.into_iter().map(Port::open).collect();
    let opened = opened.map_err(|error| format!("cannot use the HTTP listener: {error}"))?;
    Ok(opened.into_iter().flatten().collect())
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
    /// Long answers are made one at a time, so that those who ask for many hold up nobody's check for longer than one takes.
    turn: Semaphore,
}

impl Board {
    /// Reads from what `handle` publishes, and shows what everybody may see.
    pub(super) fn new(handle: Handle) -> Board {
        Board::showing(handle, Status::new)
    }

    /// The same, with what only operators may see.
    pub(super) fn for_operators(handle: Handle) -> Board {
        Board::showing(handle, Status::for_operators)
    }

    fn showing(handle: Handle, make: MakeStatus) -> Board {
        let roles = &handle.published.guards;
        let default_role = roles
            .keys()
            .find(|role| role.as_str() == "main")
            .or_else(|| roles.keys().next())
            .cloned();
        Board {
            feed: Feed::new(handle.published.clone(), handle.counters.clone(), make),
            default_role,
            turn: Semaphore::new(1),
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
        let _turn = self.turn.acquire().await;
        let now = Mono::now();
        let mut status = self.feed.status(now);
        status.held_ms = floor_ms(now.since(came));
        json(StatusCode::OK, &status)
    }

    /// Answers `/metrics`.
    async fn metrics(&self) -> Answer {
        let _turn = self.turn.acquire().await;
        let Handle {
            published, counters, ..
        } = &self.handle;
        prometheus(metrics::page(published, counters, Mono::now()))
    }

    /// Answers `/events`: a stream, or the history as JSON to those who ask for it.
    pub(super) fn events(&self, query: Option<&str>, headers: &HeaderMap, from: Peer) -> Answer {
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
            return self.feed.history.of(&self.handle.published).json();
        }
        let seen = headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .unwrap_or(0);
        match self.feed.subscribe(seen, Mono::now(), from) {
            Some(pieces) => events(pieces),
            None => refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many event streams are open; close some, or use /events?format=json",
            ),
        }
    }
}

/// The checks face.
pub(super) struct Reader {
    /// What it reads out.
    pub board: Board,
    /// Whether "active" needs the word of a majority each time.
    pub confirm: bool,
    codes: HealthCodes,
    root: Option<Root>,
    /// Of `/health`, by role.
    last: BTreeMap<RoleName, Last>,
    confirming: Semaphore,
}

/// What it takes to answer.
enum Reading<'r> {
    /// Nothing more.
    Done(Answer),
    /// A majority's word on this role.
    Confirmation(&'r RoleName, Wanted),
    /// News, perhaps, and a turn.
    Status,
    /// A turn.
    Metrics,
}

impl Face for Reader {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, from: Peer) -> Answering {
        Counters::add(&self.board.handle.counters.http_requests);
        if grpc::is_call(&request) {
            let reader = self.clone();
            return Answering::later(async move { grpc::call(&reader, request, from).await });
        }
        match self.read(&request, from) {
            Reading::Done(answer) => Answering::done(dressed(answer, &request)),
            Reading::Confirmation(role, wanted) => {
                let (reader, role) = (self.clone(), role.clone());
                Answering::later(async move {
                    let confirmation = reader.confirmation(&role).await;
                    dressed(reader.health(&role, &wanted, confirmation), &request)
                })
            }
            Reading::Status => {
                let reader = self.clone();
                Answering::later(async move {
                    let answer = reader.board.status(request.uri().query()).await;
                    dressed(answer, &request)
                })
            }
            Reading::Metrics => {
                let reader = self.clone();
                Answering::later(async move { dressed(reader.board.metrics().await, &request) })
            }
        }
    }
}

/// As the method wants it. An answer to OPTIONS has no body.
fn dressed(answer: Answer, request: &Request<Incoming>) -> Answer {
    match *request.method() {
        Method::OPTIONS => bare(answer, READ),
        _ => answer,
    }
}

impl Reader {
    /// Reads from what `handle` publishes.
    pub(super) fn new(handle: Handle, config: &config::Http) -> Reader {
        let roles = handle.published.guards.keys();
        Reader {
            last: roles.map(|role| (role.clone(), Last::default())).collect(),
            board: Board::new(handle),
            confirm: config.confirm,
            codes: config.codes,
            root: config.root,
            confirming: Semaphore::new(MAX_CONFIRMING),
        }
    }

    fn read(&self, request: &Request<Incoming>, from: Peer) -> Reading<'_> {
        let (method, path) = (request.method(), request.uri().path());
        if !(method == Method::GET || method == Method::HEAD || method == Method::OPTIONS) {
            return Reading::Done(last(wrong_method(READ)));
        }
        if !request.body().is_end_stream() {
            let refused = refusal(StatusCode::PAYLOAD_TOO_LARGE, "no body is taken here");
            return Reading::Done(last(refused));
        }
        // OPTIONS of a check is the check without a body: HAProxy's `option httpchk` asks so, without a path at `/`, and must not
        // take a standby for active.
        match path {
            "/" | "*" if method == Method::OPTIONS => self.read_at("/health", request, from),
            "/" => self.read_at(self.at_root(request), request, from),
            path if method == Method::OPTIONS && !is_check(path) => {
                Reading::Done(text(StatusCode::NO_CONTENT, ""))
            }
            path => self.read_at(path, request, from),
        }
    }

    /// What `/` stands for: a balancer that was left at its default path must not find every node healthy.
    fn at_root(&self, request: &Request<Incoming>) -> &'static str {
        let accept = request.headers().get(ACCEPT);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_browser = accept.contains("text/html");
        match self.root {
            Some(Root::Page) => "/help",
            None if is_browser => "/help",
            _ => "/health",
        }
    }

    fn read_at(&self, path: &str, request: &Request<Incoming>, from: Peer) -> Reading<'_> {
        let Handle {
            published, counters, ..
        } = &self.board.handle;
        let query = request.uri().query();
        let path = match path.strip_suffix('/') {
            Some(shorter) if !shorter.is_empty() => shorter,
            _ => path,
        };
        let Some(default) = &self.board.default_role else {
            let refused = refusal(StatusCode::SERVICE_UNAVAILABLE, "no role is configured");
            return Reading::Done(refused);
        };
        let role = match path.strip_prefix("/health/") {
            Some(asked) => match self.roles().find(|role| role.as_str() == asked) {
                Some(role) => Some(role),
                None => return Reading::Done(no_such_role(published, asked)),
            },
            None => (path == "/health").then_some(default),
        };
        if let Some(role) = role {
            let form = Form::accepted(request.headers());
            return match (Wanted::parse(query, self.codes, form), self.confirm) {
                (Ok(wanted), true) => Reading::Confirmation(role, wanted),
                (Ok(wanted), false) => Reading::Done(self.health(role, &wanted, Confirmation::NotAsked)),
                (Err(error), _) => Reading::Done(refusal(StatusCode::BAD_REQUEST, &error)),
            };
        }
        Reading::Done(match path {
            "/live" | "/ready" => match form(query, Form::accepted(request.headers())) {
                Ok(form) if path == "/live" => {
                    let guarded = !counters.guardian_stands_still.load(Relaxed);
                    live(counters.loop_silent(Mono::now()), self.window(), guarded, form)
                }
                Ok(form) => ready(published, Mono::now(), form),
                Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
            },
            "/active" => active(published, default, query, Mono::now()),
            "/status" => return Reading::Status,
            "/events" => self.board.events(query, request.headers(), from),
            "/metrics" => return Reading::Metrics,
            "/help" => text(StatusCode::OK, INDEX),
            _ => refusal(StatusCode::NOT_FOUND, "nothing here; see /help for what there is"),
        })
    }

    /// Every role.
    pub(super) fn roles(&self) -> impl Iterator<Item = &RoleName> {
        self.board.handle.published.guards.keys()
    }

    /// The role of that name; the main one for an empty name.
    pub(super) fn role(&self, asked: &str) -> Option<&RoleName> {
        match asked {
            "" => self.board.default_role.as_ref(),
            asked => self.roles().find(|role| role.as_str() == asked),
        }
    }

    /// W.
    pub(super) fn window(&self) -> Duration {
        self.board.handle.published.view.load().window
    }

    /// Where this node stands in a role, asked and confirmed now.
    pub(super) async fn standing(&self, role: &RoleName) -> Standing<'static> {
        let confirmation = self.confirmation(role).await;
        let published = &self.board.handle.published;
        let view = published.view.load();
        Standing::at(published, &view, role, confirmation, Mono::now()).into_owned()
    }

    fn health(&self, role: &RoleName, wanted: &Wanted, confirmation: Confirmation) -> Answer {
        let published = &self.board.handle.published;
        match self.last.get(role) {
            Some(last) => health(published, role, wanted, confirmation, Mono::now(), last),
            None => no_such_role(published, role.as_str()),
        }
    }

    async fn confirmation(&self, role: &RoleName) -> Confirmation {
        match self.confirm {
            true => Confirmation::Asked(self.confirmed(role).await),
            false => Confirmation::NotAsked,
        }
    }

    /// The epoch that a majority confirms within a window; a node that is not active anyway asks nobody.
    async fn confirmed(&self, role: &RoleName) -> Option<Epoch> {
        let handle = &self.board.handle;
        handle.published.guards.get(role)?.active(Mono::now())?;
        let window = self.window();
        let asked = async {
            let _permit = self.confirming.acquire().await.ok()?;
            handle.confirm(role, window).await
        };
        tokio::time::timeout(window, asked).await.ok()?
    }
}
