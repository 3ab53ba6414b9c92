//! One node: the production agent's parts, on a simulated host, put together as [`crate::agent`] puts them together.
//!
//! What is left out: HTTP and DNS (what they would answer is read from [`Published`]), actions with a command, checks with
//! a probe, name resolution, reload. The control loop is a task here, not a thread: its turns are the production ones.

use super::disk::Platter;
use super::network::{self, Dialer, Port, Weather};
use super::time::{self, SimClock};
use crate::actions::Actions;
use crate::addresses::Addresses;
use crate::agent::first_view::first_view;
use crate::checks;
use crate::consensus::{self, Consensus, Identity, Store};
use crate::control::driver::Driver;
use crate::control::flush::Flush;
use crate::control::ground::Clock;
use crate::control::probe;
use crate::control::{self, MAX_NOTICES, Notice, RoleStates, calls, feed};
use crate::handle::{Counters, MAX_WAITING, Message};
use baton_core::input::Coordinator;
use baton_core::{Command, Durable, Input, Outcome, State};
use baton_shared::config::Config;
use baton_shared::view::{Event, Published};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Wake;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Where a node runs, again and again. Shared by the world and the host.
pub(super) struct Site {
    pub(super) config: Arc<Config>,
    pub(super) ip: IpAddr,
    pub(super) addresses: Arc<Addresses>,
    pub(super) disk: Arc<Platter>,
    pub(super) clock: SimClock,
    pub(super) weather: Arc<Weather>,
    /// The control loop does nothing before this true time, in nanoseconds.
    pub(super) frozen: AtomicU64,
    /// The present run, once it has begun.
    pub(super) run: Mutex<Option<Run>>,
    /// Changes that clients were told are made, or not.
    pub(super) answers: Mutex<Vec<(u64, Result<Outcome, String>)>>,
}

/// What the world sees of a run, and by what it reaches it.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) identity: Identity,
    pub(super) published: Arc<Published>,
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) changes: mpsc::UnboundedSender<u64>,
    pub(super) learned: watch::Receiver<(Arc<State>, u64)>,
    pub(super) coordinator: watch::Receiver<Coordinator>,
}

/// How a client's change is found again in the history.
pub(super) mod mark {
    const WORD: &str = "change ";

    /// The mark of a change.
    pub(crate) fn of(number: u64) -> String {
        format!("{WORD}{number}")
    }

    /// The change of this mark.
    pub(crate) fn number(mark: &str) -> Option<u64> {
        mark.strip_prefix(WORD)?.parse().ok()
    }
}

/// Runs the node until it has stopped in order; the host's software.
pub(super) async fn run(site: Arc<Site>) -> turmoil::Result {
    match start(&site).await {
        Ok(node) => node.turn(&site).await?,
        // Without power nothing can start; the world is about to notice.
        Err(_) if !site.disk.powered() => std::future::pending().await,
        Err(why) => return Err(why.into()),
    }
    tracing::info!(target: "world", "stopped in order");
    Ok(())
}

/// A node that is about to turn.
struct Node {
    driver: Driver<Port, SimClock>,
    sockets: Vec<Arc<turmoil::net::UdpSocket>>,
    bell: Arc<Rope>,
    /// Tells the flush task to look at its desk.
    desk: Arc<Notify>,
    consensus: Consensus,
    tasks: JoinSet<Result<(), String>>,
}

/// Ends the sleep of the control loop.
#[derive(Default)]
struct Rope(Notify);

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

async fn start(site: &Arc<Site>) -> Result<Node, String> {
    let config = site.config.clone();
    let store = Store::on(site.disk.folder())?;
    let (mut ports, mut sockets, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
    for network in 0..config.networks.len() {
        let (port, listener) = network::bind(site.ip, network, &site.weather)
            .await
            .map_err(|error| error.to_string())?;
        sockets.push(port.socket.clone());
        ports.push(Some(port));
        listeners.push(listener);
    }
    let counters = Arc::<Counters>::default();
    let (reload, _no_reloads) = mpsc::channel(1);
    let consensus = Consensus::start(consensus::Start {
        config: config.clone(),
        store: store.clone(),
        addresses: site.addresses.clone(),
        net: Arc::new(Dialer {
            mine: site.ip,
            weather: site.weather.clone(),
        }),
        listeners,
        counters: counters.clone(),
        reload,
    })
    .await?;
    let view = first_view(&config, &site.addresses, site.clock.now());
    let published = Published::new(view, config.roles.keys().cloned());
    let (notices, noticed) = mpsc::channel(MAX_NOTICES);
    let (messages, heard) = mpsc::channel(MAX_WAITING);
    let (states, state_changes) = watch::channel(RoleStates::new());
    let (call, called) = mpsc::channel(calls::MAX_CALLS);
    let (changes, ordered) = mpsc::unbounded_channel();
    let (flush, take) = Flush::unmanned();
    let desk = Arc::<Notify>::default();
    let (_, configs) = watch::channel(config.clone());

    let mut tasks = JoinSet::new();
    tasks.spawn(calls::run(consensus.clone(), called, notices.clone()));
    tasks.spawn(feed::run(consensus.clone(), published.clone(), notices.clone()));
    tasks.spawn(write(
        site.clone(),
        store.clone(),
        desk.clone(),
        take,
        notices.clone(),
    ));
    tasks.spawn(probes(site.clone(), store.clone()));
    tasks.spawn(serve(site.clone(), consensus.clone(), ordered));
    let checks = checks::run(configs, state_changes, published.clone(), notices.clone());
    tokio::spawn(checks); // no checks: ends after its one word

    let bell = Arc::<Rope>::default();
    let identity = store.identity();
    let driver = Driver::new(
        control::Start {
            clock: site.clock.clone(),
            config: config.clone(),
            identity,
            durable: store.durable(),
            disk: Some("the simulated disk".into()),
            progress: store.progress(),
            page: None,
            unfinished: Default::default(),
            ports,
            addresses: site.addresses.clone(),
            published: published.clone(),
            counters,
            flush,
            calls: call,
            actions: Actions::new(config.roles.keys().cloned()).0,
            pulse: Default::default(),
            states,
            notices: noticed,
            messages: heard,
        },
        bell.clone().into(),
    );
    tracing::info!(target: "world", id = %identity.node, boot = identity.boot.0, "started");
    *site.run.lock().unwrap() = Some(Run {
        identity,
        published,
        messages,
        notices,
        changes,
        learned: consensus.learned(),
        coordinator: consensus.coordinator(),
    });
    Ok(Node {
        driver,
        sockets,
        bell,
        desk,
        consensus,
        tasks,
    })
}

impl Node {
    /// The control loop, as [`Driver::run`] has it, in virtual time.
    async fn turn(mut self, site: &Site) -> Result<(), String> {
        self.driver.drain();
        self.desk.notify_one();
        let mut more = false;
        while !self.driver.stopped() {
            if more {
                sleep(Duration::from_millis(1)).await;
            } else {
                self.sleep(site).await?;
            }
            let thaws = Duration::from_nanos(site.frozen.load(Relaxed));
            sleep(thaws.saturating_sub(time::now())).await;
            more = self.driver.turn(&vec![true; self.sockets.len()]);
            self.desk.notify_one();
        }
        self.consensus.shutdown().await;
        Ok(())
    }

    /// Sleeps until something can be done. An error: a task has ended.
    async fn sleep(&mut self, site: &Site) -> Result<(), String> {
        let now = site.clock.now();
        let wait = site.clock.truly(self.driver.wake(now).since(now));
        let readable = self.sockets.iter().map(|socket| Box::pin(socket.readable()));
        let why = tokio::select! {
            _ = any(readable) => return Ok(()),
            () = self.bell.0.notified() => return Ok(()),
            () = sleep(wait) => return Ok(()),
            why = self.consensus.failed() => format!("consensus has failed: {why}"),
            Some(ended) = self.tasks.join_next() => format!("a task has ended: {ended:?}"),
        };
        if !site.disk.powered() {
            return std::future::pending().await;
        }
        Err(why)
    }
}

/// The first of several.
async fn any<F: Future + Unpin>(waiting: impl Iterator<Item = F>) -> F::Output {
    let mut waiting: Vec<F> = waiting.collect();
    std::future::poll_fn(|context| {
        for one in &mut waiting {
            if let std::task::Poll::Ready(done) = std::pin::Pin::new(one).poll(context) {
                return std::task::Poll::Ready(done);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// The flush thread: what it writes is the newest on its desk, and an answer follows a write alone.
async fn write(
    site: Arc<Site>,
    store: Arc<Store>,
    desk: Arc<Notify>,
    take: impl Fn() -> Option<(u64, Durable)>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    loop {
        desk.notified().await;
        let mut pending = take();
        while let Some((token, durable)) = pending {
            on_disk(&site, &store, move |store| store.save_durable(&durable)).await?;
            drop(notices.send(Input::Persisted { token }.into()).await);
            pending = take();
            if pending.is_none() {
                on_disk(&site, &store, Store::settle_durable).await?;
                pending = take();
            }
        }
    }
}

/// The probes of the disk, as [`probe`] has them on a thread.
async fn probes(site: Arc<Site>, store: Arc<Store>) -> Result<(), String> {
    let progress = store.progress();
    loop {
        let under_way = progress.begin();
        on_disk(&site, &store, Store::probe).await?;
        under_way.completed();
        let mut idle = probe::Idle::default();
        while !idle.look(progress.read()) {
            sleep(probe::STEP).await;
        }
    }
}

/// Does what waits for the disk; never returns if the power fails.
async fn on_disk(
    site: &Site,
    store: &Arc<Store>,
    act: impl FnOnce(&Store) -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    let (tell, told) = oneshot::channel();
    let store = store.clone();
    let act = Box::new(move || drop(tell.send(act(&store))));
    site.disk.folder().aside(act).await;
    match told.await {
        Ok(Ok(())) => Ok(()),
        _ if !site.disk.powered() => std::future::pending().await,
        failed => Err(format!("a flush has failed: {failed:?}")),
    }
}

/// Makes clients' changes.
async fn serve(
    site: Arc<Site>,
    consensus: Consensus,
    mut ordered: mpsc::UnboundedReceiver<u64>,
) -> Result<(), String> {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            Some(number) = ordered.recv() => {
                let (consensus, site) = (consensus.clone(), site.clone());
                under_way.spawn(async move {
                    let answer = consensus.propose(change(number)).await;
                    site.answers.lock().unwrap().push((number, answer));
                });
            }
            Some(_) = under_way.join_next() => {}
            else => return std::future::pending().await,
        }
    }
}

/// A change that nothing undoes.
fn change(number: u64) -> Command {
    Command::Record {
        event: Event {
            number: 0,
            wall_ms: 0,
            what: "node".into(),
            role: None,
            node: None,
            from: None,
            epoch: None,
            cause: mark::of(number),
            stages: Vec::new(),
        },
        place: None,
    }
}
