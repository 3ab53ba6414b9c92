//! The running agent: its threads and tasks, each watched, and the order in which it stops.

use super::looping::{Loop, whose};
use super::reload::Reloader;
use super::sockets::Sockets;
use super::systemd::Manager;
use super::tasks::Tasks;
use super::{DONE, ENVIRONMENT, Options};
use crate::actions::notify;
use crate::addresses::Addresses;
use crate::addresses::resolver::{self, Known, Resolve};
use crate::checks;
use crate::consensus::{self, Consensus, Store, net};
use crate::guardian::GuardianChannel;
use crate::handle::{Counters, Handle, Reload};
use crate::programs;
use crate::sides;
use baton_shared::config::Config;
use baton_shared::id::{ClusterId, NodeName};
use baton_shared::view::Published;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// Reloads that may wait.
const MAX_RELOADS: usize = 8;
/// Interrupts that come so soon after the first are the same one.
const SAME_INTERRUPT: Duration = Duration::from_millis(300);
/// Beyond demotion and two windows, a stop in order may take so long.
const STOP_SLACK: Duration = Duration::from_secs(4);
/// A stop in order never takes longer.
const STOP_MAX: Duration = Duration::from_secs(300);
/// Without a cluster it is said no more often than this.
const MIN_JOIN_WARNING: Duration = Duration::from_secs(1);
/// What the kernel says of a full disk: ENOSPC in words; and of one that is broken: EIO.
const NO_SPACE: &str = "No space left on device";
const BAD_DISK: &str = "Input/output error";
/// The cause of a failure is waited for so long, when its consequence is seen first.
const CAUSE_LIMIT: Duration = Duration::from_millis(100);
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
    /// What names led to when it last ran.
    pub known: Known,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
    /// Where faces read.
    pub published: Arc<Published>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Who is told of it.
    pub manager: Manager,
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
    manager: Manager,
    signals: Signals,
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

impl Running {
    /// Starts everything; the sockets are bound.
    pub async fn start(
        mut parts: Parts,
        sockets: Sockets,
        channel: GuardianChannel,
    ) -> Result<Running, String> {
        let signals = Signals::new()?;
        let config = parts.config.clone();
        let (tell, told) = mpsc::channel(MAX_RELOADS);
        let (me, addresses) = (&config.me, &parts.addresses);
        let listeners = sockets.listeners.into_iter();
        let listeners = listeners.map(|entrance| entrance.open(me.clone(), addresses.clone()));
        let consensus = Consensus::start(consensus::Start {
            config: config.clone(),
            store: parts.store.clone(),
            addresses: parts.addresses.clone(),
            net: Arc::new(net::Kernel),
            listeners: listeners.collect::<Result<_, _>>()?,
            counters: parts.counters.clone(),
            reload: tell,
        })
        .await?;
        let mut tasks = Tasks::default();
        let (current, configs) = watch::channel(config.clone());
        let looping = Loop::start(&parts, sockets.ports, &consensus, &configs, channel, &mut tasks)?;
        let (reload, reloads) = mpsc::channel(MAX_RELOADS);
        let handle = Handle {
            published: parts.published.clone(),
            counters: parts.counters.clone(),
            control: looping.messages.clone(),
            reload: reload.clone(),
        };
        let published = parts.published.clone();
        start_followers(&mut parts, &looping, &configs, &mut tasks);
        let states = looping.states.clone();
        let notify = notify::run(whose(&config), configs.clone(), states, published.clone());
        let reloader = Reloader {
            options: parts.options,
            configs: current,
            consensus: consensus.clone(),
            published: parts.published.clone(),
            notices: looping.notices.clone(),
            reloads,
            told,
            certificates: sockets.faces.certificates(),
            manager: parts.manager.clone(),
        };
        tasks.start("reload", reloader.run());
        let (shutdown, ending) = watch::channel(false);
        let mut faces = sockets.faces.start(&handle, &config, &ending);
        // It ends by itself, once the control loop has stopped and it has told the last state.
        faces.start("notify actions", notify);
        let status = parts.manager.clone();
        tasks.start(
            "status for the service manager",
            status.follow(published.clone(), looping.states.clone()),
        );
        tracing::info!(node = %config.me, cluster = %config.cluster.name, "started");
        parts.manager.ready().await;
        Ok(Running {
            configs,
            published,
            consensus,
            looping,
            reload,
            tasks,
            faces,
            shutdown,
            manager: parts.manager,
            signals,
        })
    }

    /// Runs until it is told to stop or something fails, then stops in order; gives the exit status.
    pub async fn until_stopped(mut self) -> u8 {
        let failure = self
            .until_asked()
            .await
            .map(|failure| match &self.configs.borrow().storage {
                Some(dir) if failure.contains(NO_SPACE) => {
                    format!(
                        "the disk of {} is full: make room there, and start it again ({failure})",
                        dir.display()
                    )
                }
                Some(dir) if failure.contains(BAD_DISK) => {
                    format!(
                        "the disk of {} fails: see the kernel's log (`dmesg`), mend or replace it, and start this node again ({failure})",
                        dir.display()
                    )
                }
                _ => failure,
            });
        if let Some(failure) = &failure {
            tracing::error!("{failure}; this node stops");
        }
        let in_order = self.stop(failure.clone()).await;
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
                _ = &mut self.looping.stopped => return Some(match self.consensus.is_superseded() {
                    true => "a later process has this node's consensus id, and this node can only come back as a new one".into(),
                    false => "the control thread has ended".into(),
                }),
                _ = self.looping.flush.recv() => return Some("the flush thread has ended".into()),
                Some(last_word) = self.tasks.ended() => {
                    // What ends with consensus does not know why that failed.
                    let failed = timeout(CAUSE_LIMIT, self.consensus.failed()).await;
                    return Some(failed.map_or(last_word, |reason| format!("consensus has failed: {reason}")));
                }
                Some(last_word) = self.faces.ended() => return Some(last_word),
            }
        }
    }

    /// Demotes and releases; then ends consensus; then the faces, which answer "not active" until the last. False if
    /// this node could not let go in time: its lease then ends by itself.
    async fn stop(&mut self, broken: Option<String>) -> bool {
        self.manager.stopping().await;
        let limit = stop_limit(&self.configs.borrow());
        let asked = Instant::now();
        let signals = &mut self.signals;
        let again = async {
            // A Ctrl-C reaches this process from the terminal and, a moment later, from its guardian.
            loop {
                signals.interrupt.recv().await;
                if asked.elapsed() >= SAME_INTERRUPT {
                    break;
                }
            }
        };
        let released = tokio::select! {
            released = timeout(limit, self.looping.release(broken)) => released.unwrap_or_else(|_| {
                tracing::error!("not stopped in order within {limit:?}; the lease ends by itself");
                false
            }),
            () = again => {
                tracing::warn!("interrupted again: stopping at once, without demoting");
                return false;
            }
        };
        if !released {
            return false; // the sooner this process ends, the sooner its guardian fences, and tells the others
        }
        if timeout(END_LIMIT, self.consensus.shutdown()).await.is_err() {
            tracing::warn!("consensus did not end within {END_LIMIT:?}");
        }
        self.shutdown.send_replace(true);
        let faces = async { while self.faces.ended().await.is_some() {} };
        let _ = timeout(END_LIMIT, faces).await; // longer than that no answer takes
        released
    }
}

/// Starts what follows the configuration: checks and the resolver.
fn start_followers(
    parts: &mut Parts,
    looping: &Loop,
    configs: &watch::Receiver<Arc<Config>>,
    tasks: &mut Tasks,
) {
    let notices = &looping.notices;
    let checks = checks::run(
        configs.clone(),
        looping.states.clone(),
        parts.published.clone(),
        notices.clone(),
    );
    tasks.start("checks", checks);
    let sides = sides::run(configs.clone(), parts.addresses.clone(), notices.clone());
    tasks.start("the eye on clients' networks", sides);
    let programs = programs::run(configs.clone(), notices.clone());
    tasks.start("a look at programs", programs);
    let resolve = Resolve {
        configs: configs.clone(),
        published: parts.published.clone(),
        addresses: parts.addresses.clone(),
        mine: parts.mine.clone(),
        known: std::mem::take(&mut parts.known),
        notices: notices.clone(),
    };
    tasks.start("resolver", resolver::run(resolve));
}

/// How long a stop in order may take.
pub fn stop_limit(config: &Config) -> Duration {
    let stops = config.roles.values().map(|role| {
        let demote = role
            .demote
            .as_ref()
            .map(|action| action.timeout)
            .unwrap_or_default();
        let process = role
            .process
            .as_ref()
            .map(|process| process.stop_timeout)
            .unwrap_or_default();
        demote + process
    });
    let stop = stops.max().unwrap_or_default();
    (stop + config.cluster.window * 2 + STOP_SLACK).min(STOP_MAX)
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
