//! What everybody can see, put into the history by the coordinator: nodes that go down and come up, networks on which some do not
//! hear others, roles that nobody is active for, alarms. And each node's own side: that it lost touch with the majority.
//!
//! What is recorded is read off the history itself, so that a new coordinator goes on where the last one was, and says nothing
//! twice. Every fact must have settled before it is told, and each subject is rationed: what flaps must not fill the history.

use crate::chronicle::event;
use crate::cluster::{Cluster, Queue};
use crate::hearing;
use crate::outbox::Ration;
use crate::output::Level;
use crate::peer::Peer;
use crate::role::RoleCore;
use crate::state::Command;
use crate::why;
use baton_shared::clock::Mono;
use baton_shared::history::{duration, list, what};
use baton_shared::id::{Boot, ClusterId, NodeName, Owner, RoleName};
use baton_shared::view::{Event, PeerState};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A proposal is made again after this, until the history has the event.
const AGAIN: Duration = Duration::from_secs(3);
/// A change is settled after this at the least; a network's after three times as long.
const SETTLED: Duration = Duration::from_secs(1);
/// Others who saw a node go and come have told so after this; and after three windows.
const OTHERS: Duration = Duration::from_secs(5);
/// A node that was gone for a moment while there was no coordinator is told of by a later one for so long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Another cause for nobody being active is told again after this.
const ANOTHER: Duration = Duration::from_secs(10);
/// An alarm that comes again is told again after so many milliseconds.
const ALARM_AGAIN_MS: u64 = 3_600_000;

/// A fact, and since when it has been so.
struct Seen<T> {
    what: T,
    since: Mono,
    wall_ms: u64,
}

impl<T: PartialEq> Seen<T> {
    fn new(what: T, c: &Cluster, now: Mono) -> Seen<T> {
        Seen {
            what,
            since: now,
            wall_ms: c.wall_ms,
        }
    }

    fn look(&mut self, what: T, c: &Cluster, now: Mono) {
        if self.what != what {
            *self = Seen::new(what, c, now);
        }
    }
}

/// How a node is: up, or why it is not; and whether that is certain, or may be a moment's silence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Up,
    Silent(String),
    Gone(String),
}

/// A node, as it was last seen.
struct Sight {
    owner: Owner,
    /// How it was stopped, by its own word.
    stopped: Option<String>,
    how: Seen<How>,
}

/// A role that nobody is active for.
struct Vacancy {
    first: Mono,
    wall_ms: u64,
    words: Seen<String>,
    /// When somebody was last active, as far as that is known.
    last: Option<Mono>,
    /// The log was told that it is not known who is active.
    unknown: bool,
    /// What the log was told, and when.
    logged: Option<(String, Mono)>,
}

/// What the history says is so.
#[derive(Default)]
struct Recorded {
    /// Number of the newest event read.
    number: u64,
    /// Nodes that are down, and the number of the event that says so.
    down: BTreeMap<NodeName, u64>,
    /// What is wrong on each network; empty: nothing is any more.
    links: BTreeMap<String, String>,
    nobody: BTreeMap<RoleName, String>,
    /// Alarms that are not over: who told them, in which words; and when.
    alarms: BTreeMap<(NodeName, String), u64>,
}

impl Recorded {
    fn read(c: &Cluster) -> Recorded {
        let mut recorded = Recorded {
            number: c.state.event_number,
            ..Recorded::default()
        };
        for event in &c.state.events {
            match (event.what.as_str(), &event.node, &event.role) {
                (what::DOWN, Some(node), _) => {
                    recorded.down.insert(node.clone(), event.number);
                }
                (what::UP, Some(node), _) => {
                    recorded.down.remove(node);
                }
                (what::LINK_DOWN | what::LINK_UP, ..) => {
                    let network = event.cause.split(',').next().unwrap_or_default();
                    let down = event.what == what::LINK_DOWN;
                    let cause = if down { event.cause.clone() } else { String::new() };
                    recorded.links.insert(network.to_owned(), cause);
                }
                (what::NOBODY, _, Some(role)) => {
                    recorded.nobody.insert(role.clone(), event.cause.clone());
                }
                (what::TAKEOVER, _, Some(role)) => {
                    recorded.nobody.remove(role);
                }
                (what::ALARM, Some(node), _) => {
                    recorded
                        .alarms
                        .insert((node.clone(), event.cause.clone()), event.wall_ms);
                }
                (what::ALARM_OVER, Some(node), _) => {
                    recorded.alarms.remove(&(node.clone(), event.cause.clone()));
                }
                _ => {}
            }
        }
        recorded
    }
}

/// The run of this node before this one.
struct RunBefore {
    /// How long before this run it last wrote to its disk.
    last_write: Duration,
    /// When this one began, Unix milliseconds, and the number of the newest event then.
    began: Option<(u64, u64)>,
    /// Since when this one is in touch with a majority.
    in_touch: Option<Mono>,
}

/// What this node saw, and what it proposed.
#[derive(Default)]
pub(crate) struct Observer {
    recorded: Option<Recorded>,
    /// Until something is told of it.
    run_before: Option<RunBefore>,
    nodes: BTreeMap<NodeName, Sight>,
    /// Nodes that were gone for a moment: how, when, and the newest event then.
    missed: BTreeMap<NodeName, (Seen<String>, u64)>,
    last_dead: Option<Owner>,
    /// What the coordinator sees on each network.
    links: BTreeMap<usize, Seen<String>>,
    vacant: BTreeMap<RoleName, Vacancy>,
    alarms: BTreeSet<String>,
    /// Recorded alarms of this node that are not on any more, since when, and when that was in Unix milliseconds.
    over: BTreeMap<String, (Mono, u64)>,
    /// It was in touch with a majority; and since when it is not, and whether that was told.
    was_in_touch: bool,
    out_of_touch: Option<(Mono, bool)>,
    proposed: BTreeMap<String, Mono>,
    rations: BTreeMap<String, Ration>,
}

impl Observer {
    /// `last_write`: how long before this run one before it last wrote to its disk.
    pub fn new(last_write: Option<Duration>) -> Observer {
        Observer {
            run_before: last_write.map(|last_write| RunBefore {
                last_write,
                began: None,
                in_touch: None,
            }),
            ..Observer::default()
        }
    }

    /// Once a beat.
    pub fn turn(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        waiting_for: &[NodeName],
        now: Mono,
    ) {
        let number = c.state.event_number;
        if self.recorded.as_ref().is_none_or(|known| known.number != number) {
            self.recorded = Some(Recorded::read(c));
        }
        self.proposed.retain(|_, at| now < *at + AGAIN);
        self.touch(c, q, now);
        self.look_back(c, q, now);
        self.look_at_nodes(c, now);
        self.look_at_roles(roles, c, q, waiting_for, now);
        let founded = c.state.cluster != ClusterId(0);
        let coordinates = c.is_coordinator() && founded && now < c.in_touch_until(now);
        self.tell_alarms(coordinates, c, q, now);
        if coordinates {
            self.tell_nodes(c, q, now);
            self.look_at_links(c, now);
            self.tell_links(c, q, now);
            self.tell_roles(roles, c, q, now);
        } else {
            self.links.clear();
        }
    }

    /// A guardian told that its agent is dead: the next agent may be up before anybody looks again.
    pub fn look_at_the_dead(&mut self, c: &Cluster, now: Mono) {
        let Some((owner, why)) = &c.last_death else { return };
        if self.last_dead != Some(*owner) {
            self.last_dead = Some(*owner);
            if let Some(peer) = c.peer(owner.node).filter(|peer| peer.owner() == *owner) {
                let how = Seen::new(died(why), c, now);
                self.missed.insert(peer.name.clone(), (how, c.state.event_number));
            }
        }
    }

    fn touch(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let in_touch = c.state.cluster != ClusterId(0) && now < c.in_touch_until(now);
        if in_touch {
            self.was_in_touch = true;
            if let Some((since, true)) = self.out_of_touch.take() {
                let cause = format!(
                    "is in touch with a majority of the voters again, after {}",
                    duration(now.since(since))
                );
                q.tell(event(what::IN_TOUCH, Some(c.me()), cause, c));
            }
            return;
        }
        if !self.was_in_touch || c.leaving {
            return;
        }
        let (since, told) = self.out_of_touch.get_or_insert((now, false));
        if !*told && now >= *since + c.timing.interval * 2 {
            *told = true;
            let cause = match c.silent_voters(now).as_slice() {
                [] => "lost touch with a majority of the voters: they do not answer it".to_owned(),
                silent => format!(
                    "lost touch with a majority of the voters: it does not hear {}",
                    list(silent)
                ),
            };
            q.tell(event(what::CUT_OFF, Some(c.me()), cause, c));
        }
    }

    /// Where nobody was left who saw this node go, it tells itself that it was gone.
    fn look_back(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let Some(before) = &mut self.run_before else {
            return;
        };
        if c.state.cluster == ClusterId(0) {
            return;
        }
        let (wall_ms, number) = *before.began.get_or_insert((c.wall_ms, c.state.event_number));
        let events = c.state.events.iter().rev();
        let newer = events.take_while(|event| event.number > number);
        let mut told = newer.filter(|event| matches!(event.what.as_str(), what::DOWN | what::UP));
        if told.any(|event| event.node.as_ref() == Some(c.me())) {
            self.run_before = None;
        } else if now >= c.in_touch_until(now) {
            before.in_touch = None;
        } else if now >= *before.in_touch.get_or_insert(now) + OTHERS.max(c.timing.window * 3) {
            let ago = duration(before.last_write);
            let cause = format!("was started anew, {ago} after it last wrote to its disk");
            q.tell(Event {
                wall_ms,
                ..event(what::NODE, Some(c.me()), cause, c)
            });
            self.run_before = None;
        }
    }

    fn look_at_nodes(&mut self, c: &Cluster, now: Mono) {
        for (name, peer) in c.peers.iter().filter(|(_, peer)| peer.boot != Boot(0)) {
            let stopped = peer.stopped();
            let how = how(peer, stopped.as_deref(), c, now);
            let sight = self.nodes.entry(name.clone()).or_insert_with(|| Sight {
                owner: peer.owner(),
                stopped: None,
                how: Seen::new(how.clone(), c, now),
            });
            if sight.owner != peer.owner() && sight.how.what == How::Up && !self.missed.contains_key(name) {
                let cause = match &sight.stopped {
                    Some(stopped) => format!("was {stopped}, and started again"),
                    None => "was started anew".to_owned(),
                };
                let cause = Seen::new(cause, c, now);
                self.missed.insert(name.clone(), (cause, c.state.event_number));
                // It is up since then.
                sight.how = Seen::new(how.clone(), c, now);
            }
            (sight.owner, sight.stopped) = (peer.owner(), stopped);
            sight.how.look(how, c, now);
        }
        self.nodes.retain(|name, _| c.peers.contains_key(name));
        let recorded = self.recorded.as_ref();
        let told = |name: &NodeName, number: u64| {
            let down = recorded.and_then(|recorded| recorded.down.get(name));
            down.is_some_and(|recorded| *recorded > number)
        };
        self.missed
            .retain(|name, (how, number)| now < how.since + REMEMBERED && !told(name, *number));
    }

    fn tell_nodes(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let settled = SETTLED.max(c.timing.window);
        let mut news: Vec<Event> = Vec::new();
        for (name, sight) in &self.nodes {
            let known = self
                .recorded
                .iter()
                .any(|recorded| recorded.down.contains_key(name));
            let is_settled = now >= sight.how.since + settled;
            let missed = self.missed.get(name);
            let (what, cause, wall_ms) = match (&sight.how.what, missed) {
                (How::Gone(cause), _) if !known => (what::DOWN, cause.as_str(), sight.how.wall_ms),
                (How::Silent(cause), _) if !known && is_settled => {
                    (what::DOWN, cause.as_str(), sight.how.wall_ms)
                }
                (How::Up, Some((how, _))) if !known => (what::DOWN, how.what.as_str(), how.wall_ms),
                (How::Up, _) if known && is_settled => (what::UP, "is up again", sight.how.wall_ms),
                _ => continue,
            };
            let mut event = event(what, Some(name), cause.to_owned(), c);
            event.wall_ms = wall_ms;
            news.push(event);
        }
        for event in news {
            let subject = format!("{} {:?}", event.what, event.node);
            self.propose(subject, event, q, now);
        }
    }

    fn look_at_links(&mut self, c: &Cluster, now: Mono) {
        for (number, network) in c.config.networks.iter().enumerate() {
            let (deaf, nodes) = hearing::deaf(number, c, now);
            let words = match hearing::words(&deaf, nodes).as_str() {
                "" => String::new(),
                words => format!("on {}, {words}", network.name),
            };
            match self.links.get_mut(&number) {
                Some(seen) => seen.look(words, c, now),
                None => {
                    self.links.insert(number, Seen::new(words, c, now));
                }
            }
        }
    }

    fn tell_links(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        let settled = (SETTLED * 3).max(c.timing.window * 3);
        let mut news: Vec<(String, Event)> = Vec::new();
        for (number, seen) in self.links.iter().filter(|(_, seen)| now >= seen.since + settled) {
            let Some(network) = c.config.networks.get(*number) else {
                continue;
            };
            let network = format!("on {}", network.name);
            let recorded = self.recorded.as_ref().and_then(|known| known.links.get(&network));
            if recorded.map_or("", String::as_str) == seen.what {
                continue;
            }
            let (what, cause) = match seen.what.as_str() {
                "" => (
                    what::LINK_UP,
                    format!("{network}, all nodes that are up hear each other again"),
                ),
                words => (what::LINK_DOWN, words.to_owned()),
            };
            let mut event = event(what, None, cause, c);
            event.wall_ms = seen.wall_ms;
            news.push((network, event));
        }
        for (subject, event) in news {
            self.propose(subject, event, q, now);
        }
    }

    /// Every node says in its own log why nobody is active.
    fn look_at_roles(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        waiting_for: &[NodeName],
        now: Mono,
    ) {
        for (name, role) in roles {
            let Some(words) = why::nobody(role, c, waiting_for, now) else {
                if let Some(vacancy) = self.vacant.remove(name)
                    && vacancy.logged.is_some()
                {
                    let lasted = duration(now.since(vacancy.last.unwrap_or(vacancy.first)));
                    let text = match vacancy.unknown {
                        true => format!(
                            "role {name}: it is known here again which node is active, after {lasted}"
                        ),
                        false => format!("role {name}: a node is active again, after {lasted} without one"),
                    };
                    q.log(Level::Info, text);
                }
                continue;
            };
            // Without a majority another node may be active, and this one would not hear of it.
            let unknown = c.state.cluster != ClusterId(0) && now >= c.in_touch_until(now);
            let vacancy = self.vacant.entry(name.clone()).or_insert_with(|| Vacancy {
                first: now,
                wall_ms: c.wall_ms,
                unknown: false,
                last: role.outage.last(),
                words: Seen::new(words.clone(), c, now),
                logged: None,
            });
            vacancy.words.look(words, c, now);
            let due = vacancy
                .logged
                .as_ref()
                .is_none_or(|(said, at)| *said != vacancy.words.what && now >= *at + ANOTHER);
            if due && vacancy.settled(c, now) {
                let what = match unknown {
                    true => "it is unknown which node is active",
                    false => "nobody is active",
                };
                let text = format!("role {name}: {what}: {}", vacancy.words.what);
                q.log(Level::Warn, text);
                vacancy.unknown |= unknown;
                vacancy.logged = Some((vacancy.words.what.clone(), now));
            }
        }
    }

    fn tell_roles(&mut self, roles: &BTreeMap<RoleName, RoleCore>, c: &Cluster, q: &mut Queue, now: Mono) {
        let mut news: Vec<(String, Event)> = Vec::new();
        for (name, vacancy) in &self.vacant {
            let recorded = self.recorded.as_ref().and_then(|known| known.nobody.get(name));
            let words = &vacancy.words;
            let due = match recorded {
                None => vacancy.settled(c, now),
                Some(cause) => *cause != words.what && now >= words.since + ANOTHER,
            };
            if !due {
                continue;
            }
            let last = roles.get(name).and_then(|role| role.last_active(c));
            let mut event = event(what::NOBODY, last.as_ref(), words.what.clone(), c);
            event.role = Some(name.clone());
            event.wall_ms = match recorded {
                None => vacancy.wall_ms,
                Some(_) => words.wall_ms,
            };
            news.push((format!("role {name}"), event));
        }
        for (subject, event) in news {
            self.propose(subject, event, q, now);
        }
    }

    /// What is seen of others the coordinator tells; what is wrong here, this node.
    fn tell_alarms(&mut self, coordinates: bool, c: &Cluster, q: &mut Queue, now: Mono) {
        let known = |text: &str| {
            let mut told = self.recorded.iter().flat_map(|known| &known.alarms);
            told.any(|((_, told), at)| told == text && c.wall_ms < at.saturating_add(ALARM_AGAIN_MS))
        };
        let on: Vec<(String, bool)> = c.alarms.on().map(|(text, own)| (text.to_owned(), own)).collect();
        let news: Vec<&(String, bool)> = on
            .iter()
            .filter(|(text, own)| (*own || coordinates) && !self.alarms.contains(text) && !known(text))
            .collect();
        self.alarms.retain(|told| on.iter().any(|(text, _)| text == told));
        for (text, own) in news {
            let event = event(what::ALARM, Some(c.me()), text.clone(), c);
            if *own {
                self.alarms.insert(text.clone());
                q.tell(event);
            } else {
                self.propose("alarm".into(), event, q, now);
            }
        }
        self.tell_what_is_over(&on, c, q, now);
    }

    /// Whoever told of an alarm says that it is over, also after a restart.
    fn tell_what_is_over(&mut self, on: &[(String, bool)], c: &Cluster, q: &mut Queue, now: Mono) {
        let recorded = self.recorded.iter().flat_map(|known| known.alarms.keys());
        let over =
            recorded.filter(|(node, text)| node == c.me() && on.iter().all(|(other, _)| other != text));
        let over: BTreeSet<String> = over.map(|(_, text)| text.clone()).collect();
        self.over.retain(|text, _| over.contains(text));
        for text in over {
            self.over.entry(text).or_insert((now, c.wall_ms));
        }
        let settled = |since: Mono| now >= since + SETTLED * 3;
        let mut over = self.over.iter();
        let Some((text, (_, wall_ms))) = over.find(|(_, (since, _))| settled(*since)) else {
            return;
        };
        if now < c.in_touch_until(now) {
            let event = Event {
                wall_ms: *wall_ms,
                ..event(what::ALARM_OVER, Some(c.me()), text.clone(), c)
            };
            self.propose("alarm-over".into(), event, q, now);
        }
    }

    fn propose(&mut self, subject: String, mut event: Event, q: &mut Queue, now: Mono) {
        if self.proposed.contains_key(&subject) {
            return;
        }
        let ration = self
            .rations
            .entry(subject.clone())
            .or_insert_with(|| Ration::new(now));
        self.proposed.insert(subject, now);
        if let Some(kept_back) = ration.take(now) {
            if kept_back > 0 && !matches!(event.what.as_str(), what::LINK_DOWN | what::NOBODY | what::ALARM) {
                event.cause.push_str("; it came and went more often than is told");
            }
            q.propose(Command::Record { event, place: None });
        }
    }
}

impl Vacancy {
    /// It has lasted for longer than a takeover does, and its cause has been the same for a moment.
    fn settled(&self, c: &Cluster, now: Mono) -> bool {
        let lasted = (c.timing.window * 2).max(SETTLED * 2);
        now >= self.first + lasted && now >= self.words.since + SETTLED
    }
}

fn died(why: &str) -> String {
    format!("died: {why}")
}

/// It says itself that nothing comes in.
fn hears_nobody(peer: &Peer, c: &Cluster, now: Mono) -> bool {
    let report = peer.fresh(&c.timing, now);
    report.is_some_and(|report| report.heartbeat.hears.iter().all(|(_, networks)| *networks == 0))
}

fn how(peer: &Peer, stopped: Option<&str>, c: &Cluster, now: Mono) -> How {
    if c.dead.contains(&peer.owner()) {
        return How::Gone(match &c.last_death {
            Some((owner, why)) if *owner == peer.owner() => died(why),
            _ => "died".into(),
        });
    }
    match peer.state(&c.timing_of(peer), now) {
        PeerState::Down if let Some(stopped) = stopped => How::Gone(format!("was {stopped}")),
        PeerState::Down if hears_nobody(peer, c, now) => {
            How::Silent("is heard, and hears nobody: what is sent to it does not arrive".into())
        }
        // Who is heard by others, or does not hear us, is up: that is a matter of links.
        PeerState::Down if !hearing::is_heard(peer, c, now) => {
            let networks = c.config.networks.iter().zip(&peer.links);
            let networks = networks.filter(|(_, link)| link.is_some());
            let networks: Vec<&str> = networks.map(|(network, _)| network.name.as_str()).collect();
            How::Silent(format!("fell silent on {}", list(&networks)))
        }
        _ => How::Up,
    }
}
