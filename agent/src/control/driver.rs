//! The loop: everything that happens is read, given the time, handed to the core, and answered before the next.
//!
//! The clock is read *after* a datagram was received and before the core judges it (V2); the core stamps what it sends
//! with that same, earlier time (H2). Every batch has a bound, so that a flood on one socket delays no tick.

use super::bell::Bell;
use super::calls::Call;
use super::ground::{Clock, Datagrams, System};
use super::port::Port;
use super::{Notice, Start};
use crate::actions::Job;
use crate::guardian::SharedSlot;
use crate::handle::{Counters, MAX_WAITING, Message};
use baton_core::fitness::Writes;
use baton_core::input::Action;
use baton_core::output::{GuardChange, Level};
use baton_core::peer::Arrival;
use baton_core::{Core, Input, Output, Unread};
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::copy;
use baton_shared::death::DeathNotice;
use baton_shared::id::{ClusterId, Epoch, NodeName, RoleName};
use baton_shared::key::ClusterKey;
use baton_shared::seal::{BadSeal, Header, MAX_DATAGRAM, Seal, is_notice, is_of_another_version, notice_key};
use baton_shared::view::View;
use baton_shared::wire::Heartbeat;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

/// Datagrams taken from one socket, and notices and messages taken from the faces, in one turn.
const BATCH: usize = 64;
/// Datagrams from addresses of no peer that are opened in one turn.
const STRANGERS: usize = 16;
/// The core is told so often at most of datagrams of one kind from one node that cannot be read.
const UNREAD: Duration = Duration::from_millis(500);
/// The loop turns at least so often, to show `/live` that it does.
const IDLE: Duration = Duration::from_millis(500);
/// Shortest pause after a turn that left a flood behind; else half of what the turn took. Real-time priority must not
/// take a whole processor: the kernel would stop a thread that does for 50 ms in each second (sched(7)).
const BREATH: Duration = Duration::from_micros(100);
/// Longest such pause: well under the shortest interval between heartbeats.
const LONG_BREATH: Duration = Duration::from_millis(1);

/// The control loop's state.
pub struct Driver<P = Port, C = System> {
    core: Core,
    io: Start<P, C>,
    /// Rung by whoever sends a notice or a message.
    waker: Waker,
    /// Opens what is for this node.
    opener: Seal,
    /// Opens death notices for this node.
    mourner: Seal,
    /// Seals what is for each other node.
    seals: BTreeMap<NodeName, Seal>,
    buffer: Box<[u8; MAX_DATAGRAM + 1]>,
    /// What the driver itself answers at once.
    answers: VecDeque<Input>,
    next_id: u64,
    asked: BTreeMap<u64, oneshot::Sender<Result<String, String>>>,
    confirming: BTreeMap<u64, oneshot::Sender<Option<Epoch>>>,
    serial: u64,
    /// What the core was last told that a copy of the zone would show.
    copy: Option<u64>,
    /// What the core was last told of writes.
    writes: Writes,
    /// Datagrams from unknown addresses that this turn still opens.
    strangers: usize,
    /// When the core was last told of datagrams that cannot be read: of one kind, from the address of one node or of none.
    unread: BTreeMap<(Option<NodeName>, Unread), Mono>,
    /// The disk is still to be told that this run is superseded.
    superseded: bool,
    stopped: bool,
}

/// The seal for one recipient. Sequence numbers are counted per recipient, so each recipient's key is its own: the
/// header is the cipher's nonce, and must never repeat under one key.
pub fn seal_for(key: &ClusterKey, cluster: &str, to: &NodeName) -> Seal {
    Seal::new(key, &format!("{cluster}/{to}"))
}

/// The key of the death notices for one recipient.
pub fn notice_key_for(key: &ClusterKey, cluster: &str, to: &NodeName) -> [u8; 32] {
    notice_key(key, &format!("{cluster}/{to}"))
}

fn seals(config: &Config) -> BTreeMap<NodeName, Seal> {
    let cluster = &config.cluster;
    let seal = |name: &NodeName| (name.clone(), seal_for(&cluster.key, cluster.name.as_str(), name));
    config.nodes.keys().map(seal).collect()
}

impl Driver {
    /// Turns until the core has stopped; `bell` must be the one whose waker this was made with.
    pub fn run(mut self, bell: &Bell) {
        self.drain();
        let (mut more, mut busy) = (true, Duration::ZERO);
        while !self.stopped() {
            let ready = if more {
                std::thread::sleep((busy / 2).clamp(BREATH, LONG_BREATH));
                vec![true; self.io.ports.len()]
            } else {
                self.sleep(bell)
            };
            let woke = Mono::now();
            more = self.turn(&ready);
            busy = Mono::now().since(woke);
        }
    }

    /// Sleeps until something can be done; says which sockets can be read.
    fn sleep(&self, bell: &Bell) -> Vec<bool> {
        let now = Mono::now();
        let ports = self.io.ports.iter();
        let fds: Vec<_> = ports.map(|port| port.as_ref()?.readable(now)).collect();
        bell.sleep(&fds, self.wake(now))
    }
}

impl<P: Datagrams, C: Clock> Driver<P, C> {
    /// Starts the core now; it counts V4's wait from here.
    pub fn new(start: Start<P, C>, waker: Waker) -> Driver<P, C> {
        let core = Core::new(
            baton_core::Start {
                config: start.config.clone(),
                id: start.identity.node,
                boot: start.identity.boot,
                cluster: start.identity.cluster,
                durable: start.durable.clone(),
                unfinished: start.unfinished.clone(),
                disk: start.disk.clone(),
                last_write: start.identity.last_write,
            },
            start.clock.now(),
        );
        let cluster = &start.config.cluster;
        Driver {
            core,
            waker,
            opener: seal_for(&cluster.key, cluster.name.as_str(), &start.config.me),
            mourner: Seal::of_notices(&notice_key_for(
                &cluster.key,
                cluster.name.as_str(),
                &start.config.me,
            )),
            seals: seals(&start.config),
            io: start,
            buffer: Box::new([0; MAX_DATAGRAM + 1]),
            answers: VecDeque::new(),
            next_id: 0,
            asked: BTreeMap::new(),
            confirming: BTreeMap::new(),
            serial: 0,
            copy: None,
            writes: Writes::default(),
            strangers: STRANGERS,
            unread: BTreeMap::new(),
            superseded: false,
            stopped: false,
        }
    }

    /// When there is something to do, if nothing comes before.
    pub(crate) fn wake(&self, now: Mono) -> Mono {
        let repair = self
            .io
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.wake(now))
            .min();
        self.core
            .next_wake()
            .min(repair.unwrap_or(Mono::MAX))
            .min(now + IDLE)
    }

    /// Whether the core has stopped.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Does what can be done now. True if a bound left something undone.
    pub(crate) fn turn(&mut self, ready: &[bool]) -> bool {
        let (now, due) = (self.io.clock.now(), self.core.next_wake());
        self.io.counters.loop_turned.store(now.0, Relaxed);
        self.io.pulse.beat(now, &self.io.states.borrow());
        if due != Mono::ZERO {
            let late = u64::try_from(now.since(due).as_nanos()).unwrap_or(u64::MAX);
            self.io.counters.loop_late_max.fetch_max(late, Relaxed);
        }
        self.strangers = STRANGERS;
        let mut more = false;
        for network in (0..self.io.ports.len()).filter(|n| ready.get(*n) == Some(&true)) {
            more |= self.receive(network);
            self.tick();
        }
        more |= self.hear();
        self.look_at_writes();
        self.tick();
        self.repair();
        self.remember_superseded();
        more
    }

    fn tick(&mut self) {
        let now = self.io.clock.now();
        if now >= self.core.next_wake() {
            self.core.handle(Input::Tick, now, self.io.clock.wall_ms());
            self.drain();
        }
    }

    fn look_at_writes(&mut self) {
        let writes = self.io.progress.read();
        if writes != self.writes {
            self.writes = writes;
            self.handle(Input::Writes(writes));
        }
    }

    fn repair(&mut self) {
        let now = self.io.clock.now();
        let config = &self.io.config;
        for (network, port) in self.io.ports.iter_mut().enumerate() {
            if let Some(port) = port {
                port.repair(self.io.addresses.get(&config.me, network), now);
            }
        }
    }

    /// Takes a batch of datagrams from one network. True if there may be more.
    fn receive(&mut self, network: usize) -> bool {
        for _ in 0..BATCH {
            let Some(Some(port)) = self.io.ports.get_mut(network) else {
                return false;
            };
            let Some((length, from)) = port.receive(&mut self.buffer, self.io.clock.now()) else {
                return false;
            };
            if self.worth_opening(from) {
                self.datagram(Arrival { network, from }, length);
            } else {
                Counters::add(&self.io.counters.bad_form);
            }
            if self.stopped {
                return false;
            }
        }
        true
    }

    /// Opening a seal costs more than receiving. A peer may come from a new address, so strangers get a hearing; but only
    /// a few in a turn, so that their flood does not fill the queue in which heartbeats wait.
    fn worth_opening(&mut self, from: IpAddr) -> bool {
        if self.io.addresses.has(from) {
            return true;
        }
        self.strangers = self.strangers.saturating_sub(1);
        self.strangers > 0
    }

    fn datagram(&mut self, arrival: Arrival, length: usize) {
        if is_notice(&self.buffer[..length]) {
            return self.death_notice(arrival, length);
        }
        let (header, text) = match self.opened(&self.opener, length) {
            Ok(opened) => opened,
            Err(why) => return self.unread(arrival, why),
        };
        Counters::add(&self.io.counters.received);
        let Ok(heartbeat) = Heartbeat::decode(&text) else {
            Counters::add(&self.io.counters.bad_text);
            return self.unread(arrival, Unread::Version);
        };
        self.handle(Input::Heartbeat {
            arrival,
            header,
            heartbeat: Box::new(heartbeat),
        });
        self.io.counters.stale.store(self.core.stale(), Relaxed);
    }

    /// What is behind the seal of the datagram in the buffer; a bad seal is counted (S5).
    fn opened(&self, seal: &Seal, length: usize) -> Result<(Header, Vec<u8>), Unread> {
        let (counters, datagram) = (&self.io.counters, &self.buffer[..length]);
        let (bad, why) = match seal.open(datagram) {
            Ok(opened) => return Ok(opened),
            Err(BadSeal::Key) => (&counters.bad_key, Unread::Key),
            Err(BadSeal::Form) if is_of_another_version(datagram) => (&counters.bad_form, Unread::Version),
            Err(BadSeal::Form) => (&counters.bad_form, Unread::Noise),
        };
        Counters::add(bad);
        Err(why)
    }

    /// The core hears of datagrams that cannot be read, at a rate that their sender does not choose.
    fn unread(&mut self, arrival: Arrival, why: Unread) {
        let now = self.io.clock.now();
        let me = &self.io.config.me;
        let from = self.io.addresses.who(arrival.from, arrival.network, me);
        let key = (from.clone(), why);
        if self.unread.get(&key).is_some_and(|at| now.since(*at) < UNREAD) {
            return;
        }
        self.unread.retain(|_, at| now.since(*at) < UNREAD); // so it never holds more than there are nodes
        self.unread.insert(key, now);
        self.handle(Input::Unread { from, arrival, why });
    }

    /// A guardian says that the boot of its agent is gone (V6). For this node and cluster, or not at all (V7).
    fn death_notice(&mut self, arrival: Arrival, length: usize) {
        let (header, text) = match self.opened(&self.mourner, length) {
            Ok(opened) => opened,
            Err(why) => return self.unread(arrival, why),
        };
        let counters = &self.io.counters;
        let Some(notice) = DeathNotice::decode(&text) else {
            return Counters::add(&counters.bad_text);
        };
        let cluster = self.io.published.view.load().cluster_id;
        if notice.to != self.io.config.me || notice.cluster != cluster || cluster == ClusterId(0) {
            return Counters::add(&counters.bad_text);
        }
        Counters::add(&counters.received);
        self.handle(Input::Dead {
            owner: header.owner(),
            why: notice.why,
        });
    }

    /// Takes a batch of what the faces say. True if there may be more. What comes later rings the bell.
    fn hear(&mut self) -> bool {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        for _ in 0..BATCH {
            let notice = self.io.notices.poll_recv(&mut context);
            let message = self.io.messages.poll_recv(&mut context);
            let idle = !matches!(notice, Poll::Ready(Some(_))) && !matches!(message, Poll::Ready(Some(_)));
            if let Poll::Ready(Some(notice)) = notice {
                self.notice(notice);
            }
            if let Poll::Ready(Some(message)) = message {
                self.message(message);
            }
            if idle || self.stopped {
                return false;
            }
        }
        true
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Input(input) => {
                if let Input::Configured(config) = &*input {
                    self.seals = seals(config);
                    self.io.config = config.clone();
                }
                self.handle(*input);
            }
            Notice::Resolved => {
                let view = View::clone(&self.io.published.view.load());
                self.publish(view);
                self.drain();
            }
        }
    }

    fn message(&mut self, message: Message) {
        self.next_id += 1;
        let id = self.next_id;
        match message {
            Message::Ask { request, answer } => {
                self.asked.retain(|_, answer| !answer.is_closed());
                if self.asked.len() >= MAX_WAITING {
                    let _ = answer.send(Err("too many requests are waiting; try again".into()));
                    return;
                }
                self.asked.insert(id, answer);
                self.handle(Input::Ask { id, request });
            }
            Message::Confirm { role, answer } => {
                if self.confirming.len() >= MAX_WAITING {
                    self.confirming.retain(|_, answer| !answer.is_closed());
                }
                if self.confirming.len() >= MAX_WAITING {
                    return; // a dropped sender is "not confirmed"
                }
                self.confirming.insert(id, answer);
                self.handle(Input::Confirm { id, role });
            }
        }
    }

    /// Hands one input to the core at this instant, and does what it says.
    fn handle(&mut self, input: Input) {
        self.core
            .handle(input, self.io.clock.now(), self.io.clock.wall_ms());
        self.drain();
    }

    /// Does what the core has to say by now.
    pub(crate) fn drain(&mut self) {
        loop {
            while let Some(output) = self.core.poll_output() {
                self.act(output);
            }
            match self.answers.pop_front() {
                Some(input) => self
                    .core
                    .handle(input, self.io.clock.now(), self.io.clock.wall_ms()),
                None => return self.remember_superseded(),
            }
        }
    }

    /// V7: that a later run has this node's consensus id must not be forgotten: a full queue is tried again at the next turn.
    fn remember_superseded(&mut self) {
        if self.superseded && self.io.calls.try_send(Call::Superseded).is_ok() {
            self.superseded = false;
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send {
                network,
                to,
                seq,
                heartbeat,
            } => self.send(network, &to, seq, &heartbeat),
            Output::Persist { token, durable } => self.io.flush.put(token, durable),
            Output::Guard { role, change } => self.guard(&role, change),
            Output::Run {
                role,
                epoch,
                action,
                from,
                cause,
            } => self.start_action(role, epoch, action, from, cause),
            Output::Lent { role, until } => {
                if let Some(slot) = self.slot(&role) {
                    slot.lend(until);
                }
            }
            Output::Propose { token, command } => self.propose(token, command),
            // These are repeated by the core: a full queue needs no answer.
            Output::Engine(change) => drop(self.io.calls.try_send(Call::Engine(change))),
            Output::Bootstrap { members } => drop(self.io.calls.try_send(Call::Bootstrap(members))),
            Output::Publish(view) => self.publish(*view),
            Output::Log { level, text } => match level {
                Level::Info => tracing::info!("{text}"),
                Level::Warn => tracing::warn!("{text}"),
                Level::Error => tracing::error!("{text}"),
            },
            Output::Answer { id, result } => {
                if let Some(answer) = self.asked.remove(&id) {
                    let _ = answer.send(result); // who no longer waits needs no answer
                }
            }
            Output::Confirmed { id, epoch } => {
                if let Some(answer) = self.confirming.remove(&id) {
                    let _ = answer.send(epoch);
                }
            }
            Output::Lead(may) => drop(self.io.calls.try_send(Call::Lead(may))),
            Output::Superseded => self.superseded = true,
            Output::Stopped => self.stopped = true,
        }
    }

    fn send(&mut self, network: usize, to: &NodeName, seq: u64, heartbeat: &Heartbeat) {
        let place = self.io.addresses.get(to, network);
        let seal = self.seals.get(to);
        let port = self.io.ports.get_mut(network).and_then(Option::as_mut);
        let (Some(place), Some(seal), Some(port)) = (place, seal, port) else {
            return; // no such network there or here, or a name that is not resolved yet
        };
        let header = Header {
            sender: self.io.identity.node,
            boot: self.io.identity.boot,
            network: u8::try_from(network).unwrap_or(u8::MAX),
            seq,
        };
        let sent = send(seal, port, header, heartbeat, place, self.io.clock.now());
        let counters = &self.io.counters;
        Counters::add(if sent {
            &counters.sent
        } else {
            &counters.send_errors
        });
    }

    fn guard(&self, role: &RoleName, change: GuardChange) {
        let Some(guard) = self.io.published.guards.get(role) else {
            return;
        };
        match change {
            GuardChange::Open { epoch, until } => guard.open(epoch, until),
            GuardChange::Shut => guard.shut(),
            GuardChange::Close(epoch) => guard.close(epoch),
        }
    }

    /// What this process and its guardian share for a role.
    fn slot(&self, role: &RoleName) -> Option<SharedSlot> {
        let place = self.io.config.roles.keys().position(|name| name == role)?;
        self.io.page?.slot(place)
    }

    fn start_action(
        &mut self,
        role: RoleName,
        epoch: Epoch,
        action: Action,
        from: Option<NodeName>,
        cause: String,
    ) {
        let settings = self.io.config.roles.get(&role);
        let demote = settings.and_then(|role| role.demote.as_ref().map(|demote| demote.timeout));
        let process = settings.and_then(|role| role.process.as_ref());
        let process = process.map(|process| (process.mode, process.stop_timeout));
        let window = self.io.config.cluster.window;
        let kill_lead = settings
            .filter(|role| role.stops())
            .map(|role| role.lead(window).kill);
        let configured = settings.and_then(|role| match action {
            Action::Promote => role.promote.clone(),
            Action::Demote => role.demote.clone(),
            Action::Tell if role.promote_again => role.promote.clone(),
            Action::Tell => role.notify.clone(),
        });
        let again = settings.is_some_and(|role| role.promote_again);
        let promotes = self.slot(&role).filter(|_| action == Action::Promote);
        if let Some(slot) = promotes {
            slot.promoted(epoch);
        }
        let job = Job {
            role,
            epoch,
            action,
            again,
            configured,
            demote,
            process,
            kill_lead,
            from,
            cause,
        };
        if let Some(done) = self.io.actions.start(job) {
            self.answers.push_back(done);
            if let Some(slot) = promotes {
                slot.promotion_over();
            }
        }
    }

    fn propose(&mut self, token: u64, command: baton_core::Command) {
        if self.io.calls.try_send(Call::Propose { token, command }).is_err() {
            self.answers.push_back(Input::Proposed {
                token,
                result: Err("too many proposals are under way".into()),
            });
        }
    }

    fn publish(&mut self, mut view: View) {
        self.serial = view.serial.max(self.serial + 1);
        view.serial = self.serial;
        for node in &mut view.nodes {
            node.serves = self.io.addresses.serves(&node.name);
        }
        let states = view.roles.iter().map(|r| (r.role.clone(), r.state)).collect();
        let words = self.io.published.words(&view, self.io.clock.now());
        let copy = copy::digest(&view, &words);
        if self.copy != copy {
            self.copy = copy;
            self.answers.push_back(Input::Copy(copy));
        }
        self.io.published.view.store(view.into());
        self.io.states.send_if_modified(|old| {
            let changed = *old != states;
            *old = states;
            changed
        });
    }
}

impl<P, C> Drop for Driver<P, C> {
    /// However the loop ends, nobody says "active" after it.
    fn drop(&mut self) {
        for guard in self.io.published.guards.values() {
            guard.close(Epoch(u64::MAX));
        }
    }
}

/// Seals and sends one heartbeat.
fn send(
    seal: &Seal,
    port: &mut impl Datagrams,
    header: Header,
    heartbeat: &Heartbeat,
    to: SocketAddr,
    now: Mono,
) -> bool {
    let datagram = seal.seal(header, &heartbeat.encode());
    if datagram.len() > MAX_DATAGRAM {
        tracing::debug!("a heartbeat of {} bytes is too long to send", datagram.len());
        return false;
    }
    port.send(&datagram, to, now)
}

#[cfg(test)]
pub(crate) mod tests;
