//! Questions to peers: one long-lived stream per peer and network, made when first needed.
//!
//! Each stream has a task that connects, writes questions and matches answers, so that a caller that gives up (the
//! engine does so after 250 ms) costs no connection. A call goes over the network that last worked; when that one is
//! refused, silent or gone, over the next in order of preference. A peer that is merely slow still answers pings: only
//! their absence says that the network is dead.

use super::channel::{self, Kind, MAX_FRAME, Reader, Writer};
use super::net::{Net, Stream};
use super::tasks::Tasks;
use crate::addresses::Addresses;
use arc_swap::ArcSwap;
use baton_shared::config::{Config, Host};
use baton_shared::id::NodeName;
use baton_shared::view::StreamState;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

/// A network that answers at all connects within this.
const CONNECT: Duration = Duration::from_millis(500);
/// ... and is greeted within this; the other side has some arithmetic to do.
const GREET: Duration = Duration::from_secs(1);
/// A stream with an unanswered question that is silent for so long is asked whether it lives.
const PING_AFTER: Duration = Duration::from_millis(250);
/// ... and is dead when it says nothing for so long after that.
const DEAD_AFTER: Duration = Duration::from_millis(600);
/// More patience per byte under way: 1 MB/s is a slow network.
const NANOS_PER_BYTE: u64 = 1000;
/// A network that failed is tried last for so long.
const SHUNNED: Duration = Duration::from_secs(5);
/// A stream that nobody uses is closed. The listener's limit is longer.
const IDLE: Duration = Duration::from_secs(45);
/// Questions that may wait for one stream, and be unanswered on it.
const MAX_CALLS: usize = 256;

/// Every stream to every peer.
pub(super) struct Streams {
    config: ArcSwap<Config>,
    addresses: Arc<Addresses>,
    net: Arc<dyn Net>,
    tasks: Arc<Tasks>,
    peers: Mutex<BTreeMap<NodeName, Arc<Roads>>>,
}

/// The ways to one peer.
struct Roads {
    roads: Vec<Road>,
    /// The network that worked last.
    working: AtomicUsize,
}

/// One peer on one network.
struct Road {
    calls: mpsc::Sender<Call>,
    seen: Arc<Mutex<Seen>>,
}

/// What was last seen of a road.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) connected: Option<Instant>,
    pub(super) failed: Option<Instant>,
}

/// A question that waits for its answer.
struct Call {
    text: Vec<u8>,
    answer: oneshot::Sender<Result<Vec<u8>, String>>,
}

/// What is needed to connect to a peer on a network.
pub(super) struct Route {
    peer: NodeName,
    network: usize,
    config: Arc<Config>,
    addresses: Arc<Addresses>,
    net: Arc<dyn Net>,
}

/// Why a stream did not come about, or does not serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) state: StreamState,
    /// In words, with the address.
    pub(super) why: String,
}

impl Streams {
    pub(super) fn new(
        config: Arc<Config>,
        addresses: Arc<Addresses>,
        net: Arc<dyn Net>,
        tasks: Arc<Tasks>,
    ) -> Arc<Streams> {
        Arc::new(Streams {
            config: ArcSwap::new(config),
            addresses,
            net,
            tasks,
            peers: Mutex::default(),
        })
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Whether some node is at this address.
    pub(super) fn is_configured(&self, ip: IpAddr) -> bool {
        self.addresses.has(ip)
    }

    /// The way to a peer on a network of `config`.
    pub(super) fn route(&self, config: &Arc<Config>, peer: &NodeName, network: usize) -> Route {
        Route {
            peer: peer.clone(),
            network,
            config: config.clone(),
            addresses: self.addresses.clone(),
            net: self.net.clone(),
        }
    }

    /// Whether any address of a peer is known.
    pub(super) fn knows(&self, peer: &NodeName) -> bool {
        let mut networks = 0..self.config().networks.len();
        networks.any(|network| self.addresses.get(peer, network).is_some())
    }

    /// What was last seen of the stream that carries questions to a peer on a network.
    pub(super) fn seen(&self, peer: &NodeName, network: usize) -> Seen {
        let peers = self.peers.lock().unwrap_or_else(|e| e.into_inner());
        let road = peers.get(peer).and_then(|roads| roads.roads.get(network));
        road.map(Road::seen).unwrap_or_default()
    }

    /// Takes a new configuration; streams are made anew under it.
    pub(super) fn configure(&self, config: Arc<Config>) {
        self.config.store(config);
        self.peers.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }

    /// Asks `peer`, at most for `limit`. What is asked may be asked twice, when a network dies before it answered: `letter`
    /// is called for each try.
    pub(super) async fn call(
        &self,
        peer: &NodeName,
        letter: impl FnMut() -> Result<Vec<u8>, String> + Send,
        limit: Duration,
    ) -> Result<Vec<u8>, String> {
        let roads = self.roads(peer);
        match timeout(limit, self.try_each(peer, &roads, letter)).await {
            Ok(result) => result.map_err(|why| format!("{peer} cannot be reached: {why}")),
            Err(_) => Err(format!("{peer} did not answer in time")),
        }
    }

    async fn try_each(
        &self,
        peer: &NodeName,
        roads: &Roads,
        mut letter: impl FnMut() -> Result<Vec<u8>, String> + Send,
    ) -> Result<Vec<u8>, String> {
        let mut why = "no address of it is known".to_owned();
        for network in roads.order() {
            if self.addresses.get(peer, network).is_none() {
                continue;
            }
            let (answer, answered) = oneshot::channel();
            let text = letter()?;
            if text.len() > MAX_FRAME {
                return Err("the message is too long".into());
            }
            if roads.roads[network]
                .calls
                .try_send(Call { text, answer })
                .is_err()
            {
                why = "too many questions wait for it".into();
                continue;
            }
            match answered.await {
                Ok(Ok(text)) => {
                    roads.working.store(network, Relaxed);
                    return Ok(text);
                }
                Ok(Err(reason)) => why = reason,
                Err(_) => why = "the stream broke before the answer came".into(),
            }
        }
        Err(why)
    }

    fn roads(&self, peer: &NodeName) -> Arc<Roads> {
        let mut peers = self.peers.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(roads) = peers.get(peer) {
            return roads.clone();
        }
        let config = self.config();
        let road = |network| {
            let (calls, waiting) = mpsc::channel(MAX_CALLS);
            let seen = Arc::<Mutex<Seen>>::default();
            let route = self.route(&config, peer, network);
            self.tasks
                .pass(&format!("stream to {peer}"), route.run(waiting, seen.clone()));
            Road { calls, seen }
        };
        let roads = Arc::new(Roads {
            roads: (0..config.networks.len()).map(road).collect(),
            working: AtomicUsize::new(0),
        });
        peers.insert(peer.clone(), roads.clone());
        roads
    }
}

impl Roads {
    /// Networks in the order in which they are tried.
    fn order(&self) -> Vec<usize> {
        let working = self.working.load(Relaxed);
        let mut order: Vec<usize> = (0..self.roads.len()).collect();
        order.sort_by_key(|network| (self.roads[*network].shunned(), *network != working, *network));
        order
    }
}

impl Road {
    fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn shunned(&self) -> bool {
        self.seen().failed.is_some_and(|at| at.elapsed() < SHUNNED)
    }
}

impl Route {
    /// Serves questions until nobody can ask any more.
    async fn run(self, mut calls: mpsc::Receiver<Call>, seen: Arc<Mutex<Seen>>) {
        let see = || seen.lock().unwrap_or_else(|e| e.into_inner());
        while let Some(first) = calls.recv().await {
            let why = match self.connect().await {
                Ok(stream) => {
                    see().connected = Some(Instant::now());
                    match carry(stream, first, &mut calls).await {
                        Ok(()) => continue,
                        Err(error) => error.to_string(),
                    }
                }
                Err(fault) => {
                    let _ = first.answer.send(Err(fault.why.clone()));
                    fault.why
                }
            };
            see().failed = Some(Instant::now());
            tracing::debug!(peer = %self.peer, network = self.network, why, "stream failed");
            // Whoever waited meanwhile takes the next network at once.
            while let Ok(call) = calls.try_recv() {
                let _ = call.answer.send(Err(why.clone()));
            }
        }
    }

    /// Where it leads.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(&self.peer, self.network)
    }

    /// Connects and greets.
    pub(super) async fn connect(&self) -> Result<(Reader, Writer), Fault> {
        let Some(address) = self.address() else {
            return Err(Fault::new(StreamState::Failed, "its address is not known"));
        };
        let stream = match timeout(CONNECT, self.dial(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Fault::unconnected(address, &error)),
            Err(_) => return Err(Fault::unconnected(address, &io::ErrorKind::TimedOut.into())),
        };
        let cluster = &self.config.cluster;
        let key = cluster.key.derive("stream", cluster.name.as_str());
        let why = match timeout(GREET, channel::initiate(stream, &key)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => {
                format!("{address} closed the stream; is its cluster key the same? ({error})")
            }
            Err(_) => format!("{address} takes connections and does not answer the greeting"),
        };
        Err(Fault::new(StreamState::NoHandshake, why))
    }

    /// Connects from this node's own address on that network, and through its interface, so that the traffic really goes there.
    async fn dial(&self, to: SocketAddr) -> io::Result<Stream> {
        let interface = self.config.networks[self.network].interface.as_deref();
        let from = match self.config.my_node().here().get(self.network) {
            Some(Some(Host::Ip(ip))) if ip.is_ipv4() == to.is_ipv4() => Some(*ip),
            _ => None,
        };
        self.net.connect(to, from, interface).await
    }
}

impl Fault {
    pub(super) fn new(state: StreamState, why: impl Into<String>) -> Fault {
        let why = why.into();
        Fault { state, why }
    }

    fn unconnected(address: SocketAddr, error: &io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                Fault::new(StreamState::Refused, format!("{address} refuses connections"))
            }
            io::ErrorKind::TimedOut => Fault::new(StreamState::Silent, format!("{address} does not answer")),
            _ => Fault::new(
                StreamState::Failed,
                format!("{address} cannot be connected to: {error}"),
            ),
        }
    }
}

/// The questions under way on one stream, and what its silence means.
struct Waiting {
    unanswered: BTreeMap<u64, oneshot::Sender<Result<Vec<u8>, String>>>,
    next: u64,
    /// When the stream last moved, or was first asked something after a rest.
    moved: Instant,
    pinged: bool,
    /// Grows with what was asked since the peer was last heard.
    patience: Duration,
}

impl Waiting {
    fn add(&mut self, call: Call, writer: &mut Writer) -> io::Result<()> {
        if call.answer.is_closed() {
            return Ok(()); // its caller has given up
        }
        if self.unanswered.is_empty() && !self.pinged {
            self.moved = Instant::now();
            self.patience = DEAD_AFTER;
        }
        if self.unanswered.len() >= MAX_CALLS / 2 {
            self.unanswered.retain(|_, answer| !answer.is_closed());
        }
        self.patience += Duration::from_nanos(NANOS_PER_BYTE * call.text.len() as u64);
        self.next += 1;
        self.unanswered.insert(self.next, call.answer);
        writer.queue(Kind::Request, self.next, &call.text)
    }

    /// When something is to be done if the stream stays silent.
    fn deadline(&self) -> Instant {
        self.moved
            + match (self.unanswered.is_empty(), self.pinged) {
                (_, true) => self.patience,
                (false, false) => PING_AFTER,
                (true, false) => IDLE,
            }
    }
}

/// Carries questions and answers over one stream. `Ok`: nobody needs it any more.
async fn carry(
    (mut reader, mut writer): (Reader, Writer),
    first: Call,
    calls: &mut mpsc::Receiver<Call>,
) -> io::Result<()> {
    let mut waiting = Waiting {
        unanswered: BTreeMap::new(),
        next: 0,
        moved: Instant::now(),
        pinged: false,
        patience: DEAD_AFTER,
    };
    waiting.add(first, &mut writer)?;
    loop {
        let room = waiting.unanswered.len() < MAX_CALLS && writer.waiting() < MAX_FRAME;
        tokio::select! {
            frame = reader.next() => {
                let Some(frame) = frame? else {
                    return Err(io::Error::other("the peer closed the stream"));
                };
                (waiting.moved, waiting.pinged) = (Instant::now(), false);
                waiting.patience = DEAD_AFTER;
                if let Some(answer) = waiting.unanswered.remove(&frame.number)
                    && frame.kind == Kind::Answer
                {
                    let _ = answer.send(Ok(frame.text));
                }
            }
            sent = writer.flush(), if writer.waiting() > 0 => {
                sent?;
                if !waiting.pinged {
                    waiting.moved = Instant::now();
                }
            }
            call = calls.recv(), if room => match call {
                Some(call) => waiting.add(call, &mut writer)?,
                None => return Ok(()),
            },
            () = sleep_until(waiting.deadline()) => {
                if waiting.pinged {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer fell silent"));
                }
                if waiting.unanswered.is_empty() {
                    return Ok(());
                }
                waiting.pinged = true;
                waiting.moved = Instant::now();
                writer.queue(Kind::Ping, 0, &[])?;
            }
        }
    }
}
