//! The running agent: its threads and tasks, each watched, and the order in which it stops.

use super::first_view::first_view;
use super::reload::Reloader;
use super::sockets::Sockets;
use super::{DONE, ENVIRONMENT, Options};
use crate::actions::{self, Actions, Whose};
use crate::addresses::Addresses;
use crate::addresses::resolver::{self, Resolve};
use crate::checks;
use crate::consensus::{self, Consensus, Store};
use crate::control::{self, MAX_NOTICES, Notice, RoleStates, calls, feed, flush::Flush, port::Port};
use crate::handle::{Counters, Handle, MAX_WAITING, Message, Reload};
use crate::http;
use baton_core::{Durable, Input};
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::id::{ClusterId, NodeName};
use baton_shared::view::Published;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

/// Reloads that may wait.
const MAX_RELOADS: usize = 8;
/// Beyond demotion and two windows, a stop in order may take so long.
const STOP_SLACK: Duration = Duration::from_secs(2);
/// A stop in order never takes longer.
const STOP_MAX: Duration = Duration::from_secs(300);
/// Without a cluster it is said no more often than this.
const MIN_JOIN_WARNING: Duration = Duration::from_secs(1);
/// Consensus, and then the faces, may each take so long to end.
const END_LIMIT: Duration = Duration::from_secs(3);

/// What an agent is made of before it runs.
pub struct Parts {
    /// How it was started.
    pub options: Options,
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its storage.
    pub store: Arc<Store>,
    /// Its address on each network.
    pub mine: Vec<Option<IpAddr>>,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
}

/// Tasks that never end while all is well, with their names.
type Tasks = JoinSet<(&'static str, Result<(), String>)>;

/// Has a task watched.
fn watch_task(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = Result<(), String>> + Send + 'static,
) {
    tasks.spawn(async move { (name, task.await) });
}

/// What a task that has ended had to say.
fn last_word(ended: Result<(&'static str, Result<(), String>), JoinError>) -> String {
    match ended {
        Ok((name, Ok(()))) => format!("{name}: ended unasked"),
        Ok((name, Err(error))) => format!("{name}: {error}"),
        Err(error) => format!("a task has failed: {error}"),
    }
}

/// A running agent.
pub struct Running {
    configs: watch::Receiver<Arc<Config>>,
    published: Arc<Published>,
    consensus: Consensus,
    looping: Loop,
    reload: mpsc::Sender<Reload>,
    /// What serves the control loop.
    tasks: Tasks,
    /// What serves the world; these end when told to.
    faces: Tasks,
    shutdown: watch::Sender<bool>,
    signals: Signals,
}

/// The control loop, from outside.
struct Loop {
    notices: mpsc::Sender<Notice>,
    messages: mpsc::Sender<Message>,
    states: watch::Receiver<RoleStates>,
    /// Hears `()` when the loop has stopped in order.
    stopped: oneshot::Receiver<()>,
    /// Closed when the flush thread has ended.
    flush: mpsc::Receiver<()>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Signals, String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot handle signals: {error}"));
        Ok(Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }
}

/// Starts the control loop and what carries out its wishes.
fn start_loop(
    parts: &Parts,
    ports: Vec<Option<Port>>,
    consensus: &Consensus,
    published: &Arc<Published>,
    counters: &Arc<Counters>,
    tasks: &mut Tasks,
) -> Result<Loop, String> {
    let config = &parts.config;
    let (notices, noticed) = mpsc::channel(MAX_NOTICES);
    let (messages, heard) = mpsc::channel(MAX_WAITING);
    let (states, state_changes) = watch::channel(RoleStates::new());
    let (flush, flush_ended) = start_flush(parts.store.clone(), notices.clone(), counters.clone())?;
    let (queues, jobs) = Actions::new(config.roles.keys().cloned());
    let whose = Whose {
        node: config.me.clone(),
        cluster: config.cluster.name.clone(),
    };
    for jobs in jobs {
        let runner = actions::run(whose.clone(), jobs, notices.clone());
        watch_task(tasks, "actions", runner);
    }
    let (call, called) = mpsc::channel(calls::MAX_CALLS);
    let calls = calls::run(consensus.clone(), called, notices.clone());
    watch_task(tasks, "calls to consensus", calls);
    let stopped = control::start(control::Start {
        config: config.clone(),
        identity: parts.store.identity(),
        durable: parts.store.durable(),
        ports,
        addresses: parts.addresses.clone(),
        published: published.clone(),
        counters: counters.clone(),
        flush,
        calls: call,
        actions: queues,
        states,
        notices: noticed,
        messages: heard,
    })
    .map_err(|error| format!("cannot start the control thread: {error}"))?;
    Ok(Loop {
        notices,
        messages,
        states: state_changes,
        stopped,
        flush: flush_ended,
    })
}

/// Starts the flush thread; the receiver is closed when it ends.
fn start_flush(
    store: Arc<Store>,
    notices: mpsc::Sender<Notice>,
    counters: Arc<Counters>,
) -> Result<(Flush, mpsc::Receiver<()>), String> {
    let (alive, ended) = mpsc::channel(1);
    let save = move |durable: &Durable| {
        let _lives_as_long_as_the_thread = &alive;
        store.save_durable(durable)
    };
    // A closed channel means that the control loop has stopped.
    let done = move |token| drop(notices.blocking_send(Input::Persisted { token }.into()));
    Flush::start(save, done, counters)
        .map(|(flush, _)| (flush, ended))
        .map_err(|error| format!("cannot start the flush thread: {error}"))
}

/// The faces' sockets.
struct Faces {
    checks: Option<http::Checks>,
    control: Option<http::Control>,
    dns: Option<baton_dnsd::Server>,
}

impl Faces {
    /// Starts them; they end when `ending` says so.
    fn start(self, handle: &Handle, config: &Arc<Config>, ending: &watch::Receiver<bool>, tasks: &mut Tasks) {
        if let Some(face) = self.checks {
            let end = ended(ending.clone());
            watch_task(tasks, "HTTP", face.run(handle.clone(), config.clone(), end));
        }
        if let Some(face) = self.control {
            let end = ended(ending.clone());
            watch_task(
                tasks,
                "control listener",
                face.run(handle.clone(), config.clone(), end),
            );
        }
        if let Some(face) = self.dns {
            let end = ended(ending.clone());
            watch_task(tasks, "DNS", face.run(handle.published.clone(), end));
        }
    }
}

/// Ready when the faces shall end.
async fn ended(mut ending: watch::Receiver<bool>) {
    let _ = ending.wait_for(|end| *end).await; // an error: the agent is gone already
}

impl Running {
    /// Starts everything; the sockets are bound.
    pub async fn start(mut parts: Parts, sockets: Sockets) -> Result<Running, String> {
        let signals = Signals::new()?;
        let config = parts.config.clone();
        let counters = Arc::new(Counters::default());
        let view = first_view(&config, &parts.addresses, Mono::now());
        let published = Published::new(view, config.roles.keys().cloned());
        let (reload, reloads) = mpsc::channel(MAX_RELOADS);
        let (tell, told) = mpsc::channel(MAX_RELOADS);
        let (configs, config_changes) = watch::channel(config.clone());
        let (shutdown, ending) = watch::channel(false);
        let consensus = Consensus::start(consensus::Start {
            config: config.clone(),
            store: parts.store.clone(),
            addresses: parts.addresses.clone(),
            listeners: sockets.listeners,
            counters: counters.clone(),
            reload: tell,
        })
        .await?;
        let (mut tasks, mut faces) = (Tasks::new(), Tasks::new());
        let looping = start_loop(
            &parts,
            sockets.ports,
            &consensus,
            &published,
            &counters,
            &mut tasks,
        )?;
        let notices = &looping.notices;
        let news = feed::run(consensus.clone(), published.clone(), notices.clone());
        watch_task(&mut tasks, "news of consensus", news);
        let checks = checks::run(config_changes.clone(), looping.states.clone(), notices.clone());
        watch_task(&mut tasks, "checks", checks);
        let resolve = Resolve {
            configs: config_changes.clone(),
            published: published.clone(),
            addresses: parts.addresses.clone(),
            mine: std::mem::take(&mut parts.mine),
            notices: notices.clone(),
        };
        watch_task(&mut tasks, "resolver", resolver::run(resolve));
        let reloader = Reloader {
            options: parts.options,
            configs,
            consensus: consensus.clone(),
            notices: notices.clone(),
            reloads,
            told,
        };
        watch_task(&mut tasks, "reload", reloader.run());
        let handle = Handle {
            published: published.clone(),
            counters,
            control: looping.messages.clone(),
            reload: reload.clone(),
        };
        let open = Faces {
            checks: sockets.checks,
            control: sockets.control,
            dns: sockets.dns,
        };
        open.start(&handle, &config, &ending, &mut faces);
        tracing::info!(node = %config.me, cluster = %config.cluster.name, "started");
        Ok(Running {
            configs: config_changes,
            published,
            consensus,
            looping,
            reload,
            tasks,
            faces,
            shutdown,
            signals,
        })
    }

    /// Runs until it is told to stop or something fails, then stops in order; gives the exit status.
    pub async fn until_stopped(mut self) -> u8 {
        let failure = self.until_asked().await;
        if let Some(failure) = &failure {
            tracing::error!("{failure}; this node stops");
        }
        let in_order = self.stop().await;
        if failure.is_none() && in_order {
            tracing::info!("stopped");
            DONE
        } else {
            ENVIRONMENT
        }
    }

    /// Waits for a signal to stop, or for what must not happen, and says what that was.
    async fn until_asked(&mut self) -> Option<String> {
        let config = self.configs.borrow().clone();
        let alone = until_given_up(&config, &self.published);
        tokio::pin!(alone);
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => return None,
                _ = self.signals.interrupt.recv() => return None,
                _ = self.signals.hangup.recv() => {
                    let (answer, _) = oneshot::channel(); // the log has the answer
                    // A full queue holds reloads that will read the same file.
                    let _ = self.reload.try_send(Reload { everywhere: false, answer });
                }
                reason = &mut alone => return Some(reason),
                reason = self.consensus.failed() => return Some(format!("consensus has failed: {reason}")),
                _ = &mut self.looping.stopped => return Some("the control thread has ended".into()),
                _ = self.looping.flush.recv() => return Some("the flush thread has ended".into()),
                Some(ended) = self.tasks.join_next() => return Some(last_word(ended)),
                Some(ended) = self.faces.join_next() => return Some(last_word(ended)),
            }
        }
    }

    /// Demotes and releases; then ends consensus; then the faces, which answer "not active" until the last. False if
    /// this node could not let go in time: its lease then ends by itself.
    async fn stop(&mut self) -> bool {
        let limit = stop_limit(&self.configs.borrow());
        let released = tokio::select! {
            released = timeout(limit, release(&mut self.looping)) => released.unwrap_or_else(|_| {
                tracing::error!("not stopped in order within {limit:?}; the lease ends by itself");
                false
            }),
            _ = self.signals.interrupt.recv() => {
                tracing::warn!("interrupted again: stopping at once; the lease ends by itself");
                return false;
            }
        };
        if timeout(END_LIMIT, self.consensus.shutdown()).await.is_err() {
            tracing::warn!("consensus did not end within {END_LIMIT:?}");
        }
        self.shutdown.send_replace(true);
        let faces = async { while self.faces.join_next().await.is_some() {} };
        let _ = timeout(END_LIMIT, faces).await; // longer than that no answer takes
        released
    }
}

/// Has the core stop, and what it promised written.
async fn release(looping: &mut Loop) -> bool {
    if looping.stopped.is_terminated() || looping.notices.send(Input::Stop.into()).await.is_err() {
        return false;
    }
    let stopped = (&mut looping.stopped).await.is_ok();
    looping.flush.recv().await; // ends with the control loop, after its last write
    stopped
}

/// How long a stop in order may take.
fn stop_limit(config: &Config) -> Duration {
    let demotes = config.roles.values().filter_map(|role| role.demote.as_ref());
    let demote = demotes.map(|action| action.timeout).max().unwrap_or_default();
    (demote + config.cluster.window * 2 + STOP_SLACK).min(STOP_MAX)
}

/// Warns while there is no cluster after `join_wait`; ready, with the reason, if that is to end the agent.
async fn until_given_up(config: &Config, published: &Published) -> String {
    let wait = config.cluster.join_wait.max(MIN_JOIN_WARNING);
    loop {
        sleep(wait).await;
        let view = published.view.load();
        if view.cluster_id != ClusterId(0) {
            return std::future::pending().await;
        }
        let names: Vec<&str> = view.waiting_for.iter().map(NodeName::as_str).collect();
        let missing = if names.is_empty() {
            "all voters are heard, but it is not initialised yet".into()
        } else {
            format!(
                "waiting for {}; start them, or begin without them: `baton bootstrap --without {}`",
                names.join(", "),
                names.join(",")
            )
        };
        let text = format!("not in a cluster after {:?}: {missing}", config.cluster.join_wait);
        if config.cluster.join_exit {
            return text;
        }
        tracing::warn!("{text}");
    }
}
