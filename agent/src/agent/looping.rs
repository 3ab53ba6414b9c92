//! The control loop from outside: its start, with all that carries out its wishes, and its stop.

use super::running::Parts;
use super::tasks::Tasks;
use crate::actions::acting::Acting;
use crate::actions::{self, Actions, Means, Whose};
use crate::consensus::{Consensus, Store};
use crate::control::ground::System;
use crate::control::port::Port;
use crate::control::pulse::Pulse;
use crate::control::watchdog::Watchdog;
use crate::control::{self, MAX_NOTICES, Notice, RoleStates, calls, feed, flush::Flush, probe};
use crate::guardian::link::{self, Instructor, Watcher};
use crate::guardian::{GuardianChannel, SharedPage};
use crate::handle::{Counters, MAX_WAITING, Message};
use crate::mount;
use crate::process::{self, Application};
use baton_core::{Durable, Input};
use baton_shared::config::Config;
use baton_shared::id::{Owner, RoleName};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// The control loop, from outside.
pub struct Loop {
    /// What the core is told.
    pub notices: mpsc::Sender<Notice>,
    /// What faces ask.
    pub messages: mpsc::Sender<Message>,
    /// This node's states.
    pub states: watch::Receiver<RoleStates>,
    /// Hears `()` when the loop has stopped in order.
    pub stopped: oneshot::Receiver<()>,
    /// Closed when the flush thread has ended.
    pub flush: mpsc::Receiver<()>,
}

impl Loop {
    /// Starts the control loop and what carries out its wishes.
    pub fn start(
        parts: &Parts,
        ports: Vec<Option<Port>>,
        consensus: &Consensus,
        configs: &watch::Receiver<Arc<Config>>,
        channel: GuardianChannel,
        tasks: &mut Tasks,
    ) -> Result<Loop, String> {
        let (notices, noticed) = mpsc::channel(MAX_NOTICES);
        let (messages, heard) = mpsc::channel(MAX_WAITING);
        let (states, state_changes) = watch::channel(RoleStates::new());
        let (flush, flush_ended) = start_flush(parts.store.clone(), notices.clone(), parts.counters.clone())?;
        let page = channel.page;
        let applications =
            start_applications(parts, configs, (channel, state_changes.clone()), &notices, tasks);
        let (actions, unfinished) = start_actions(parts, page, applications, &notices, tasks);
        let pulse = pulse(parts, unfinished.is_empty())?;
        let (call, called) = mpsc::channel(calls::MAX_CALLS);
        let calls = calls::run(consensus.clone(), called, notices.clone());
        tasks.start("calls to consensus", calls);
        let news = feed::run(consensus.clone(), parts.published.clone(), notices.clone());
        tasks.start("news of consensus", news);
        let stopped = control::start(control::Start {
            clock: System,
            config: parts.config.clone(),
            identity: parts.store.identity(),
            durable: parts.store.durable(),
            disk: start_probes(parts)?,
            progress: parts.store.progress(),
            page: Some(page),
            unfinished,
            ports,
            addresses: parts.addresses.clone(),
            published: parts.published.clone(),
            counters: parts.counters.clone(),
            flush,
            calls: call,
            actions,
            states,
            pulse,
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

    /// Has the core stop, because of what is broken, if anything is; and what it promised written.
    pub async fn release(&mut self, broken: Option<String>) -> bool {
        let stop = Input::Stop { broken };
        if self.stopped.is_terminated() || self.notices.send(stop.into()).await.is_err() {
            return false;
        }
        let stopped = (&mut self.stopped).await.is_ok();
        self.flush.recv().await; // ends with the control loop, after its last write
        stopped
    }
}

/// What the loop feeds: the service manager's watchdog, and the machine's.
/// `settled`: nothing is left over of a run before.
fn pulse(parts: &Parts, settled: bool) -> Result<Pulse, String> {
    let mut pulse = Pulse::default();
    if let Some(interval) = parts.manager.watchdog() {
        let manager = parts.manager.clone();
        pulse = pulse.beat_manager(interval, move || manager.send("WATCHDOG=1").is_ok());
    }
    if let Some(device) = &parts.config.agent.watchdog {
        let watchdog = Watchdog::start(device.clone(), parts.config.cluster.window, settled)
            .map_err(|error| format!("cannot start the watchdog thread: {error}"))?;
        pulse = pulse.feed(watchdog);
    }
    Ok(pulse)
}

/// Starts the conversation with the guardian, the watch over it, and a manager for each role's application.
fn start_applications(
    parts: &Parts,
    configs: &watch::Receiver<Arc<Config>>,
    (channel, states): (GuardianChannel, watch::Receiver<RoleStates>),
    notices: &mpsc::Sender<Notice>,
    tasks: &mut Tasks,
) -> Vec<Application> {
    let mut channel = channel;
    let guardian = channel.guardian.take();
    let (link, conversation, answers, stands_still) = link::connect(channel, parts.config.roles.len());
    tasks.start("the channel to the guardian process", conversation.run());
    let identity = parts.store.identity();
    let instructor = Instructor {
        configs: configs.clone(),
        addresses: parts.addresses.clone(),
        published: parts.published.clone(),
        mine: parts.mine.clone(),
        owner: Owner {
            node: identity.node,
            boot: identity.boot,
        },
        link: link.clone(),
    };
    tasks.start("the guardian's instructions", instructor.run());
    let watcher = Watcher {
        configs: configs.clone(),
        guardian,
        page: link.page,
        stands_still,
        notices: notices.clone(),
        states,
        counters: parts.counters.clone(),
    };
    tasks.start("the watch over the guardian process", watcher.run());
    let mut applications = Vec::new();
    for (slot, (role, answers)) in parts.config.roles.keys().zip(answers).enumerate() {
        let (application, manager) = process::manage(
            role.clone(),
            slot,
            configs.clone(),
            link.clone(),
            answers,
            notices.clone(),
        );
        tasks.start("application", manager.run());
        applications.push(application);
    }
    applications
}

/// Starts the action runners; the queues to them.
///
/// What the run before left acting is known from the data directory, or from the guardian, if that is the same one.
fn start_actions(
    parts: &Parts,
    page: SharedPage,
    applications: Vec<Application>,
    notices: &mpsc::Sender<Notice>,
    tasks: &mut Tasks,
) -> (Actions, BTreeSet<RoleName>) {
    let config = &parts.config;
    let (actions, jobs) = Actions::new(config.roles.keys().cloned());
    let (acting, mut unfinished) = Acting::open(config.storage.clone(), &config.roles);
    let roles = config.roles.keys().enumerate();
    unfinished.extend(
        roles
            .filter(|(place, _)| page.left_over(*place))
            .map(|(_, role)| role.clone()),
    );
    let places = jobs.into_iter().zip(applications).zip(config.roles.keys());
    for (place, ((jobs, application), role)) in places.enumerate() {
        if let Some(slot) = page.slot(place) {
            slot.slot().begin(unfinished.contains(role));
        }
        let means = Means {
            whose: whose(config),
            acting: acting.clone(),
            application: Some(application),
            slot: page.slot(place),
            published: Some(parts.published.clone()),
        };
        tasks.start("actions", actions::run(means, jobs, notices.clone()));
    }
    (actions, unfinished)
}

/// Who runs actions.
pub fn whose(config: &Config) -> Whose {
    Whose {
        node: config.me.clone(),
        cluster: config.cluster.name.clone(),
    }
}

/// Starts the probes of the disk, if anything is kept there; what it is called.
fn start_probes(parts: &Parts) -> Result<Option<String>, String> {
    let Some(dir) = &parts.config.storage else {
        return Ok(None);
    };
    probe::start(&parts.store).map_err(|error| format!("cannot start the probe thread: {error}"))?;
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    Ok(Some(mount::disk_under(&dir, &mounts)))
}

/// Starts the flush thread; the receiver is closed when it ends.
fn start_flush(
    store: Arc<Store>,
    notices: mpsc::Sender<Notice>,
    counters: Arc<Counters>,
) -> Result<(Flush, mpsc::Receiver<()>), String> {
    let (alive, ended) = mpsc::channel(1);
    let settled = store.clone();
    let save = move |durable: &Durable| {
        let _lives_as_long_as_the_thread = &alive;
        store.save_durable(durable)
    };
    let settle = move || settled.settle_durable();
    // A closed channel means that the control loop has stopped.
    let done = move |token| drop(notices.blocking_send(Input::Persisted { token }.into()));
    Flush::start(save, settle, done, counters)
        .map(|(flush, _)| (flush, ended))
        .map_err(|error| format!("cannot start the flush thread: {error}"))
}
