//! What this node knows that is not about one role: itself, its peers, the electorate, the log. Facts and questions;
//! decisions are in the other modules.

use crate::alarm::Alarms;
use crate::fitness::Fitness;
use crate::input::Coordinator;
use crate::output::{Durable, Level, Output};
use crate::pace::Pace;
use crate::peer::Peer;
use crate::state::State;
use crate::stream::Streams;
use baton_shared::clock::Mono;
use baton_shared::config::{Config, show_duration};
use baton_shared::id::{Boot, ClusterId, ElectorateId, NodeId, NodeName, Owner, RoleName};
use baton_shared::succession::{Electorate, Floor, Line};
use baton_shared::timing::{MAX_WINDOW, Timing};
use baton_shared::view::{Event, PeerState};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Dead boots remembered at most.
const MAX_DEAD: usize = 64;

/// What follows from the window.
fn timing(window: Duration) -> Timing {
    let timing = Timing::new(window);
    if broken!(NoMargins) {
        let (lease, promise, change) = (window, window, window);
        return Timing {
            lease,
            promise,
            change,
            ..timing
        };
    }
    timing
}

/// Everything that all roles share.
pub(crate) struct Cluster {
    pub config: Arc<Config>,
    /// The configuration's digest; it is in every heartbeat.
    pub digest: u64,
    pub timing: Timing,
    pub id: NodeId,
    pub boot: Boot,
    /// The cluster this node belongs to; 0 while fresh.
    pub cluster: ClusterId,
    /// When promises of an earlier run have run out (V4).
    pub awake: Mono,
    /// The window that the disk remembers for V4; nothing is granted before it is the present one.
    pub kept_window: Duration,
    pub wall_ms: u64,
    pub peers: BTreeMap<NodeName, Peer>,
    pub state: Arc<State>,
    pub applied: u64,
    /// The newest electorate learned, and the newest that is on disk (V5).
    pub electorate: Electorate,
    pub adopted: ElectorateId,
    /// The newest line of each role: from the log, or from the coordinator's heartbeats.
    pub lines: BTreeMap<RoleName, Line>,
    pub coordinator: Coordinator,
    pub leaving: bool,
    /// What broke, if it leaves for that.
    pub broken: Option<String>,
    /// The guardian above this process does not beat.
    pub guardian_stands_still: bool,
    /// A later boot of this consensus id was heard of: this run votes no more, lets go and ends (V7).
    pub superseded: bool,
    pub dead: BTreeSet<Owner>,
    /// The last of them, and how it ended.
    pub last_death: Option<(Owner, String)>,
    /// The last sequence used, and when each of the last ones left (H2: the clock was read before).
    pub seq: u64,
    sent: VecDeque<(u64, Mono)>,
    pub alarms: Alarms,
    /// Whether consensus streams pass: for people, nothing is decided by it.
    pub streams: Streams,
    /// This node's own side of its networks.
    pub own: crate::clients::Own,
    /// Heartbeats with a good seal that changed nothing: replayed, late, or not for this run of this node.
    pub stale: u64,
    /// Whether the disk answers, and the log keeps up.
    pub fitness: Fitness,
    pub pace: Pace,
}

/// What is to be done, in order; and to whom a heartbeat is due at once.
#[derive(Default)]
pub(crate) struct Queue {
    pub outputs: VecDeque<Output>,
    pub urgent: BTreeSet<NodeName>,
    pub urgent_all: bool,
    /// The published view is out of date.
    pub dirty: bool,
    /// What this node has to tell the history of itself.
    pub told: Vec<Event>,
    durable: Durable,
    token: u64,
    /// What each flush under way carries.
    flushes: VecDeque<(u64, Flush)>,
    proposal: u64,
}

/// What waits for a flush.
#[derive(Clone, Debug)]
pub(crate) enum Flush {
    Floor(RoleName, Floor),
    Electorate(ElectorateId),
    Window(Duration),
}

impl Queue {
    pub fn new(durable: Durable) -> Queue {
        Queue {
            durable,
            ..Queue::default()
        }
    }

    pub fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub fn log(&mut self, level: Level, text: String) {
        self.push(Output::Log { level, text });
    }

    /// Something happened here that the history should tell: kept until it does.
    pub fn tell(&mut self, event: Event) {
        self.told.push(event);
    }

    /// Persist before grant (V3): the floor goes to the disk, and [`Flush`] comes back when it is there.
    pub fn flush_floor(&mut self, role: &RoleName, floor: Floor) {
        let on_disk = self.durable.floors.entry(role.clone()).or_default();
        if floor.epoch >= on_disk.epoch {
            *on_disk = floor;
        }
        self.flush(Flush::Floor(role.clone(), floor));
    }

    /// Persist before report (V5).
    pub fn flush_electorate(&mut self, electorate: &Electorate) {
        self.durable.electorate = electorate.clone();
        self.flush(Flush::Electorate(electorate.id));
    }

    /// Persist before any promise of this window (V4).
    pub fn flush_window(&mut self, window: Duration) {
        if self.durable.window != window {
            self.durable.window = window;
            self.flush(Flush::Window(window));
        }
    }

    fn flush(&mut self, what: Flush) {
        self.token += 1;
        self.flushes.push_back((self.token, what));
        let durable = self.durable.clone();
        self.push(Output::Persist {
            token: self.token,
            durable,
        });
    }

    /// The next thing that is on disk now that `token` is answered.
    pub fn flushed(&mut self, token: u64) -> Option<Flush> {
        let (first, _) = self.flushes.front()?;
        if *first > token {
            None
        } else {
            self.flushes.pop_front().map(|(_, what)| what)
        }
    }

    /// Whether a flush of this floor is under way.
    pub fn flushing(&self, role: &RoleName, floor: Floor) -> bool {
        self.flushes
            .iter()
            .any(|(_, f)| matches!(f, Flush::Floor(r, fl) if r == role && fl.epoch >= floor.epoch))
    }

    /// The oldest flush that is not answered.
    pub fn oldest_flush(&self) -> Option<u64> {
        self.flushes.front().map(|(token, _)| *token)
    }

    /// A token for a proposal.
    pub fn propose(&mut self, command: crate::Command) -> u64 {
        self.proposal += 1;
        let token = self.proposal;
        self.push(Output::Propose { token, command });
        token
    }
}

impl Cluster {
    pub fn new(start: &crate::Start, now: Mono) -> Cluster {
        let mut cluster = Cluster {
            config: start.config.clone(),
            digest: 0,
            timing: timing(start.config.cluster.window),
            id: start.id,
            boot: start.boot,
            cluster: start.cluster,
            awake: now + Timing::new(start.config.cluster.window.max(start.durable.window)).promise,
            kept_window: start.durable.window,
            wall_ms: 0,
            peers: BTreeMap::new(),
            state: Arc::default(),
            applied: 0,
            electorate: start.durable.electorate.clone(),
            adopted: start.durable.electorate.id,
            lines: BTreeMap::new(),
            coordinator: Coordinator::default(),
            leaving: false,
            broken: None,
            guardian_stands_still: false,
            superseded: false,
            dead: BTreeSet::new(),
            last_death: None,
            seq: 0,
            sent: VecDeque::new(),
            alarms: Alarms::default(),
            streams: Streams::default(),
            own: crate::clients::Own::default(),
            stale: 0,
            fitness: Fitness::new(start.disk.clone()),
            pace: Pace::default(),
        };
        cluster.configure(start.config.clone());
        cluster
    }

    /// Takes a new configuration; peers that are still in it, at the same place in the networks, keep their links.
    pub fn configure(&mut self, config: Arc<Config>) {
        let mine: Vec<bool> = config.my_node().addresses.iter().map(Option::is_some).collect();
        let mut peers = BTreeMap::new();
        for (name, node) in config.nodes.iter().filter(|(name, _)| **name != config.me) {
            let there: Vec<bool> = node
                .addresses
                .iter()
                .zip(&mine)
                .map(|(a, m)| a.is_some() && *m)
                .collect();
            let fresh = || Peer::new(name.clone(), node.kind, node.priority, &there);
            let mut peer = self.peers.remove(name).unwrap_or_else(fresh);
            (peer.kind, peer.priority) = (node.kind, node.priority);
            if peer.links.iter().map(Option::is_some).ne(there.iter().copied()) {
                peer = peer.relinked(&there);
            }
            peers.insert(name.clone(), peer);
        }
        self.peers = peers;
        self.digest = config.digest();
        self.config = config;
    }

    pub fn me(&self) -> &NodeName {
        &self.config.me
    }

    pub fn owner(&self) -> Owner {
        Owner {
            node: self.id,
            boot: self.boot,
        }
    }

    pub fn is_coordinator(&self) -> bool {
        self.coordinator.leader == Some(self.id)
    }

    /// Whether claims may be granted under the electorate known here: it is on disk, and its entry is applied here,
    /// for that names floors which a refusal, from which it may have been learned, does not (V3, V5).
    pub fn adopted_here(&self) -> bool {
        self.adopted == self.electorate.id && self.state.electorate.id >= self.electorate.id
    }

    /// The electorate that this node may say it has adopted. Not while promises of an earlier run may still be
    /// running: those may be of a longer window than the one that V5 waits for.
    pub fn adoption(&self, now: Mono) -> ElectorateId {
        if now < self.awake {
            ElectorateId(0)
        } else {
            self.adopted
        }
    }

    /// V4: a longer window is remembered at once; a shorter one once the longer promises have run out. Returns when to
    /// look again.
    pub fn keep_window(&self, q: &mut Queue, now: Mono) -> Mono {
        let window = self.timing.window;
        if self.kept_window == window {
            return Mono::MAX;
        }
        if self.kept_window < window || now >= self.awake {
            q.flush_window(window);
            return Mono::MAX;
        }
        self.awake
    }

    /// A sequence never used before, for a datagram that leaves after `now`.
    pub fn next_seq(&mut self, now: Mono) -> u64 {
        broken!(SequenceReused => {
            let slot = now.0 / 150_000_000;
            if slot % 2 == 1 && let Some((_, at)) = self.sent.back_mut() {
                *at = now;
                return self.seq;
            }
        });
        self.seq += 1;
        self.sent.push_back((self.seq, now));
        while self
            .sent
            .front()
            .is_some_and(|(_, at)| now.since(*at) > self.timing.window * 2)
        {
            self.sent.pop_front();
        }
        self.seq
    }

    /// When the datagram of this sequence left; `None` if that was long ago.
    pub fn sent_at(&self, seq: u64) -> Option<Mono> {
        let (first, _) = self.sent.front()?;
        let index = usize::try_from(seq.checked_sub(*first)?).ok()?;
        self.sent.get(index).map(|(_, at)| *at)
    }

    /// The peer with this consensus id.
    pub fn peer(&self, id: NodeId) -> Option<&Peer> {
        self.peers.values().find(|peer| peer.id == id && id != NodeId(0))
    }

    /// The name of a consensus id: from peers, or from the log.
    pub fn name_of(&self, id: NodeId) -> Option<NodeName> {
        if id == self.id {
            return Some(self.me().clone());
        }
        self.peer(id)
            .map(|peer| peer.name.clone())
            .or_else(|| self.state.name_of(id).cloned())
    }

    /// A consensus id for people.
    pub fn call(&self, id: NodeId) -> String {
        self.name_of(id)
            .map_or_else(|| format!("node {id}"), |name| name.to_string())
    }

    /// How a peer is, in a few words.
    pub fn reason(&self, peer: &Peer, now: Mono) -> String {
        if self.dead.contains(&peer.owner()) {
            return match &self.last_death {
                Some((owner, why)) if *owner == peer.owner() => format!("died: {why}"),
                _ => "died".into(),
            };
        }
        let names: Vec<&str> = self.config.networks.iter().map(|n| n.name.as_str()).collect();
        let reason = peer.reason(&names, &self.timing_of(peer), now);
        match self.alarms.unread(&peer.name) {
            Some(_) if !peer.heard(&self.timing_of(peer), now) => {
                format!("{reason}, but something comes from its address that cannot be read")
            }
            _ => reason,
        }
    }

    /// Whether a node that is not active says nothing of its application's health, good or bad.
    pub fn checked_only_while_active(&self, role: &RoleName) -> bool {
        let check = self.config.roles.get(role).and_then(|role| role.check.as_ref());
        check.is_some_and(|check| !check.standby)
    }

    pub fn drained(&self, node: &NodeName) -> bool {
        self.state.drained.contains(node)
    }

    /// The line of a role.
    pub fn line(&self, role: &RoleName) -> Option<&Line> {
        self.lines.get(role)
    }

    /// A newer line was learned. True if it is news.
    pub fn learn_line(&mut self, role: &RoleName, line: &Line, from_log: bool) -> bool {
        let known = self.lines.entry(role.clone()).or_default();
        let newer = line.version > known.version;
        if newer || (from_log && line.version == known.version && line != known) {
            *known = line.clone();
        }
        newer
    }

    /// A newer electorate was learned: from the log here, or from the refusal of a voter that has applied it (V1, V5).
    /// Both are committed. It is used at once; it is reported, and anything is granted under it, only from the disk.
    pub fn learn_electorate(&mut self, electorate: &Electorate, q: &mut Queue) {
        if electorate.id > self.electorate.id {
            self.electorate = electorate.clone();
            broken!(NewSetOnly => {
                if let Some(next) = self.electorate.next.take() {
                    self.electorate.voters = next;
                }
            });
            broken!(AdoptionNotDurable => { self.adopted = electorate.id; });
            q.flush_electorate(electorate);
            q.urgent_all = true;
            q.dirty = true;
        }
    }

    /// A boot is proven dead. Remembered, so that a claim of it that comes late is not granted (V6). True if it is news.
    pub fn died(&mut self, owner: Owner, why: &str) -> bool {
        let news = owner != self.owner() && self.dead.insert(owner);
        if news {
            self.last_death = Some((owner, why.to_owned()));
        }
        for peer in self.peers.values_mut() {
            peer.died(owner);
        }
        if self.dead.len() > MAX_DEAD {
            // Of one node the older boots come first, and those are long silent.
            self.dead.pop_first();
        }
        news
    }

    /// The peer of this owner, if it is heard now, by this very boot, both ways, and not proven dead.
    pub fn alive(&self, owner: Owner, now: Mono) -> Option<&Peer> {
        let peer = self.peer(owner.node)?;
        let up = matches!(peer.state(&self.timing, now), PeerState::Up | PeerState::Suspect);
        (peer.owner() == owner && up && !self.dead.contains(&owner)).then_some(peer)
    }

    /// The window of a peer, by its last word; this node's own while it has said none.
    pub fn window_of(&self, peer: &Peer) -> Duration {
        let said = peer.report.as_ref().map(|report| report.heartbeat.window);
        said.unwrap_or(self.timing.window)
    }

    /// By what a peer's silence is judged for people: one that has a longer window speaks more seldom.
    pub fn timing_of(&self, peer: &Peer) -> Timing {
        match self.window_of(peer) {
            window if window > self.timing.window => Timing::new(window.min(MAX_WINDOW)),
            _ => self.timing,
        }
    }

    /// Whether a claim with this window can be won: a voter grants its own alone (V2). Who has not said what its is may have any.
    pub fn window_wins(&self, window: Duration) -> bool {
        let own = self.timing.window;
        // As ever: this is asked for each place of each line.
        if window == own && self.peers.values().all(|peer| self.window_of(peer) == own) {
            return true;
        }
        let same = |voter: NodeId| {
            let said = match self.peer(voter) {
                _ if voter == self.id => Some(own),
                Some(peer) => peer.report.as_ref().map(|report| report.heartbeat.window),
                None => None,
            };
            said.is_none_or(|said| said == window)
        };
        self.electorate.voters.is_empty() || self.electorate.majority(same)
    }

    /// Why nobody would grant a node with this window anything, if so: it is another than most voters'.
    pub fn other_window(&self, window: Duration) -> Option<String> {
        if self.window_wins(window) {
            return None;
        }
        let voters = self.peers.values();
        let voters = voters.filter(|peer| self.electorate.contains(peer.id));
        let own = self.electorate.contains(self.id).then_some(self.timing.window);
        let mut windows = voters.map(|peer| self.window_of(peer)).chain(own);
        let other = windows.find(|other| *other != window)?;
        Some(format!(
            "its [cluster] window is \"{}\", and \"{}\" at other voters, too many of them for a majority",
            show_duration(window),
            show_duration(other)
        ))
    }

    /// Whether the owner could take the role now, as far as known: alive, healthy, willing, in line by operators' word.
    pub fn fit(&self, owner: Owner, role: &RoleName, now: Mono) -> bool {
        self.alive(owner, now)
            .is_some_and(|peer| self.peer_fit(peer, role, now))
    }

    /// The same for a peer known to be alive.
    pub fn peer_fit(&self, peer: &Peer, role: &RoleName, now: Mono) -> bool {
        self.peer_sound(peer, role, now) && peer.beat(role).is_some_and(|beat| beat.able)
    }

    /// Whether the owner could take the role now, but for a program that it may lack.
    pub fn sound(&self, owner: Owner, role: &RoleName, now: Mono) -> bool {
        self.alive(owner, now)
            .is_some_and(|peer| self.peer_sound(peer, role, now))
    }

    fn peer_sound(&self, peer: &Peer, role: &RoleName, now: Mono) -> bool {
        let leaving = peer.report.as_ref().is_some_and(|r| r.heartbeat.leaving);
        peer.kind.may_act()
            && !leaving
            && !peer.lives_twice(now)
            && !self.drained(&peer.name)
            && self.window_wins(self.window_of(peer))
            && peer
                .report
                .as_ref()
                .is_some_and(|r| r.heartbeat.cluster == self.cluster)
            && peer.beat(role).is_some_and(|beat| beat.healthy && beat.willing)
    }

    /// Whether this node's disk answers, by its own newest word.
    pub fn writes(&self, owner: Owner) -> bool {
        match owner == self.owner() {
            true => self.fitness.is_fit(),
            false => self
                .peer(owner.node)
                .and_then(|peer| peer.report.as_ref())
                .is_none_or(|report| report.heartbeat.writes),
        }
    }

    /// Notes how far the others are, and this node.
    pub fn keep_pace(&mut self, now: Mono) {
        let reports = self.peers.values().filter_map(|peer| peer.report.as_ref());
        let newest = reports.map(|report| report.heartbeat.applied).max().unwrap_or(0);
        let knows = now < self.in_touch_until(now) && self.state.cluster != ClusterId(0);
        self.pace.turn(newest, self.applied, knows, now);
    }

    /// What this node lacks to be ready, besides touch with the others: the log of a second ago, a vote that counts (V4), a disk.
    pub fn lacks(&self, now: Mono) -> Vec<String> {
        let mut lacks: Vec<String> = self.pace.lacks(now).map(str::to_owned).into_iter().collect();
        let votes = self.config.my_node().kind.votes();
        if votes && !self.electorate.contains(self.id) {
            lacks.push("not a voter yet".into());
        } else if votes && now < self.awake {
            lacks.push("its vote does not count yet: promises of the run before may still run".into());
        } else if votes && !(self.adopted_here() && self.kept_window == self.timing.window) {
            lacks.push("what its vote rests on is not written yet".into());
        }
        lacks.extend(self.fitness.lacks(self.timing.window, now));
        lacks
    }

    /// Until when this node may say that it is in touch with a majority of the voters (S4): W after the report that
    /// completes the majority was made.
    pub fn in_touch_until(&self, now: Mono) -> Mono {
        let made = |id: NodeId| {
            if id == self.id {
                return Some(now);
            }
            self.peer(id)?.report.as_ref().map(|report| report.born)
        };
        self.electorate
            .kth_greatest(made)
            .map_or(Mono::ZERO, |made| made + self.timing.window)
    }

    /// Whether a majority of the voters, this node among them, is up as far as this node hears.
    pub fn hears_majority(&self, now: Mono) -> bool {
        let up = |id: NodeId| {
            id == self.id
                || self
                    .peer(id)
                    .is_some_and(|p| self.alive(p.owner(), now).is_some())
        };
        self.electorate.majority(up)
    }

    /// Names of the other voters of which this holds.
    pub fn other_voters(&self, holds: impl Fn(Option<&Peer>) -> bool) -> Vec<String> {
        let others = self.electorate.all().into_iter().filter(|id| *id != self.id);
        let mut names: Vec<String> = others
            .filter(|id| holds(self.peer(*id)))
            .map(|id| self.call(id))
            .collect();
        names.sort();
        names
    }

    /// Names of the other voters that this node does not hear.
    pub fn silent_voters(&self, now: Mono) -> Vec<String> {
        self.other_voters(|peer| peer.is_none_or(|peer| !peer.heard(&self.timing_of(peer), now)))
    }

    /// Whether the log knows this consensus id under a name.
    pub fn knows(&self, id: NodeId, name: &NodeName) -> bool {
        self.state
            .nodes
            .get(&id)
            .is_some_and(|record| record.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{MS, config_of};
    use baton_shared::id::Kind;

    fn owner(node: u64, boot: u64) -> Owner {
        Owner {
            node: NodeId(node),
            boot: Boot(boot),
        }
    }

    fn started(at: Mono) -> Cluster {
        let start = crate::Start {
            config: Arc::new(config_of(&[Kind::Member; 3], Duration::from_secs(1))),
            id: NodeId(100),
            boot: Boot(1),
            cluster: ClusterId(1),
            durable: Durable::default(),
            unfinished: Default::default(),
            disk: None,
            last_write: None,
        };
        Cluster::new(&start, at)
    }

    /// V5: its entry names floors, and a refusal, from which it may have been learned, does not.
    #[test]
    fn v5_an_electorate_learned_from_a_refusal_is_granted_under_only_once_its_entry_is_applied() {
        let (mut c, mut q) = (started(Mono(0)), Queue::default());
        let electorate = Electorate {
            id: ElectorateId(3),
            voters: [NodeId(100), NodeId(101)].into(),
            next: None,
        };
        c.learn_electorate(&electorate, &mut q);
        c.adopted = electorate.id;
        assert!(!c.adopted_here(), "on disk, but its floors are not known");
        let state = State {
            electorate,
            ..State::default()
        };
        c.state = Arc::new(state);
        assert!(c.adopted_here());
    }

    /// V4, V5: until then promises of a longer window may run than the change of voters waits for.
    #[test]
    fn v5_nothing_is_adopted_while_promises_of_the_run_before_may_run() {
        let mut c = started(Mono(1000 * MS));
        c.adopted = ElectorateId(2);
        assert_eq!(c.adoption(Mono(2009 * MS)), ElectorateId(0));
        assert_eq!(c.adoption(Mono(2010 * MS)), ElectorateId(2));
    }

    #[test]
    fn v6_the_dead_are_remembered_within_bounds_and_one_is_never_dead_to_itself() {
        let mut c = started(Mono(0));
        assert!(!c.died(owner(100, 1), ""), "not this very boot");
        assert!(c.died(owner(7, 1), "") && !c.died(owner(7, 1), ""));
        for boot in 2..1000 {
            c.died(owner(7, boot), "");
        }
        assert_eq!(c.dead.len(), MAX_DEAD);
        assert!(c.dead.contains(&owner(7, 999)));
    }
}
