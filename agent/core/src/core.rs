//! Composition: the modules, and who is told what. Decides nothing itself.

use crate::alarm::About;
use crate::ask::Asked;
use crate::beat;
use crate::chronicle::Chronicle;
use crate::cluster::{Cluster, Flush, Queue};
use crate::coordinate::Coordination;
use crate::copies::Copies;
use crate::input::{Health, Request};
use crate::membership::Membership;
use crate::notice::Said;
use crate::observe::Observer;
use crate::office::Office;
use crate::outbox::Outbox;
use crate::output::Level;
use crate::peer::Peer;
use crate::publish;
use crate::role::RoleCore;
use crate::state::Command;
use crate::unread;
use crate::{Durable, Input, Output, State};
use baton_shared::clock::Mono;
use baton_shared::config::Config;
use baton_shared::history::stage;
use baton_shared::id::{Boot, ClusterId, NodeId, NodeName, Owner, RoleName};
use baton_shared::view::{RoleState, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A takeover is proposed for the history again after this, until the log has it.
const RECORD_RETRY: Duration = Duration::from_secs(1);

/// A stop in order waits so long, at least, for its successor to be active.
const SERVED_LIMIT: Duration = Duration::from_secs(3);

/// What a core starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// This node's consensus id.
    pub id: NodeId,
    /// This run.
    pub boot: Boot,
    /// The cluster this node belongs to; 0 if fresh.
    pub cluster: ClusterId,
    /// What the voter's disk remembers.
    pub durable: Durable,
    /// Roles whose application may still act since the run before: they are demoted first.
    pub unfinished: BTreeSet<RoleName>,
    /// The data directory and the disk that it is on, in words; `None`: state is in memory.
    pub disk: Option<String>,
    /// How long ago a run before this one last wrote to it: for people.
    pub last_write: Option<Duration>,
}

/// The state machine.
pub struct Core {
    c: Cluster,
    q: Queue,
    roles: BTreeMap<RoleName, RoleCore>,
    coordination: BTreeMap<RoleName, Coordination>,
    membership: Membership,
    asked: Asked,
    chronicle: Chronicle,
    copies: Copies,
    observer: Observer,
    outbox: Outbox,
    said: Said,
    office: Office,
    /// When the last input was handled: a gap shows that this node slept.
    last: Mono,
    next_beat: Mono,
    /// When the lines and the members are due to be looked at.
    plan_at: Mono,
    wake: Mono,
    serial: u64,
    /// While stopping: since when everything is released, and whether the end was said.
    released_at: Option<Mono>,
    stopped: bool,
}

impl Core {
    /// Starts at `now`, when the process started: no grant leaves for 1.01 W from here, W the longer of the present window and
    /// that of the run before (V4).
    pub fn new(start: Start, now: Mono) -> Core {
        let c = Cluster::new(&start, now);
        let roles = start.config.roles.iter().map(|(name, role)| {
            let floor = start.durable.floors.get(name).copied().unwrap_or_default();
            let mut fresh = RoleCore::new(name.clone(), floor, role.check.is_none());
            if start.unfinished.contains(name) {
                fresh.demote_first(now);
            }
            (name.clone(), fresh)
        });
        Core {
            roles: roles.collect(),
            coordination: start
                .config
                .roles
                .keys()
                .map(|name| (name.clone(), Coordination::default()))
                .collect(),
            membership: Membership::default(),
            asked: Asked::default(),
            chronicle: Chronicle::default(),
            copies: Copies::default(),
            // One that is new to its cluster has not been gone.
            observer: Observer::new(start.last_write.filter(|_| start.cluster != ClusterId(0))),
            outbox: Outbox::default(),
            said: Said::default(),
            office: Office::default(),
            q: Queue::new(start.durable),
            c,
            last: now,
            next_beat: now,
            plan_at: now,
            wake: now,
            serial: 0,
            released_at: None,
            stopped: false,
        }
    }

    /// Takes in one input that the driver learned of before it read the clock at `now`. `wall_ms` is the wall clock,
    /// for people and skew warnings.
    pub fn handle(&mut self, input: Input, now: Mono, wall_ms: u64) {
        // A clock that went back would shorten promises (V2).
        let now = now.max(self.last);
        self.c.wall_ms = wall_ms;
        self.notice_sleep(now);
        // What a mere heartbeat means for lines and members can wait for the next beat: it is in no failover's path.
        let plans = !matches!(input, Input::Heartbeat { .. }) || now >= self.next_beat.min(self.plan_at);
        self.take(input, now);
        self.turn(plans, now);
    }

    /// The next thing to do, in order; `None` when all is said.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.q.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest.
    pub fn next_wake(&self) -> Mono {
        self.wake
    }

    /// How many heartbeats with a good seal changed nothing: replayed, late, or not for this run of this node.
    pub fn stale(&self) -> u64 {
        self.c.stale
    }

    /// The view at `now`, as it would be published.
    pub fn view(&self, now: Mono) -> View {
        let untold = self.outbox.untold();
        publish::view(
            self.serial,
            &self.roles,
            &self.c,
            self.waiting_for(now),
            untold,
            now,
        )
    }

    /// The voters that the first start waits for.
    fn waiting_for(&self, now: Mono) -> Vec<NodeName> {
        match self.c.state.cluster {
            ClusterId(0) => self.membership.starters(&self.c, now).err().unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// A node that finds that it slept does not hold the silence against its peers (DESIGN §4).
    fn notice_sleep(&mut self, now: Mono) {
        let slept = now.since(self.last);
        if slept > self.c.timing.interval * 3 {
            for peer in self.c.peers.values_mut() {
                peer.forgive(slept, now);
            }
            self.c.fitness.forgive(slept);
        }
        self.last = now;
    }

    /// The voter of a role, for the simulator's invariants.
    #[cfg(test)]
    pub(crate) fn voter(&self, role: &RoleName) -> &crate::promise::Voter {
        &self.roles[role].voter
    }

    /// Whether the disk is known to hang, for the simulator.
    #[cfg(test)]
    pub(crate) fn disk_answers(&self) -> bool {
        self.c.fitness.is_fit()
    }

    fn take(&mut self, input: Input, now: Mono) {
        let (c, q) = (&mut self.c, &mut self.q);
        match input {
            Input::Heartbeat {
                arrival,
                header,
                heartbeat,
            } => {
                beat::receive(&mut self.roles, c, q, arrival, &header, &heartbeat, now);
            }
            Input::Unread { from, arrival, why } => unread::note(c, q, from.as_ref(), arrival, why, now),
            Input::Learned { state, applied } => self.learned(state, applied),
            Input::Cluster(cluster) => {
                if c.cluster != cluster {
                    c.cluster = cluster;
                    q.dirty = true;
                }
            }
            Input::Coordinator(coordinator) => {
                q.dirty |= c.coordinator.leader != coordinator.leader
                    || c.coordinator.settled != coordinator.settled
                    || c.coordinator.voters != coordinator.voters;
                c.coordinator = coordinator;
            }
            Input::Health { role, health, reason } => self.health(&role, health, reason, now),
            Input::Programs { role, lack } => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.programs(lack, q);
                }
            }
            Input::ActionDone {
                role,
                epoch,
                action,
                result,
            } => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.action_done(epoch, action, result, c, q, now);
                }
            }
            Input::Process { role, epoch, process } => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.process(epoch, process, q);
                }
            }
            Input::Fenced(role) => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.fenced(c, q);
                }
            }
            Input::Guardian { stands_still } => self.guardian(stands_still, now),
            Input::Sides(sides) => c.learn_sides(sides, q, now),
            Input::Stuck { role, processes } => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.stuck(processes, c, q);
                }
            }
            Input::SlowKill { role, took, allowed } => {
                if let Some(role) = self.roles.get_mut(&role) {
                    role.slow_kill(took, allowed, c, q);
                }
            }
            Input::Persisted { token } => self.persisted(token, now),
            Input::Writes(writes) => c.fitness.told(writes, now),
            Input::Proposed { token, result } => {
                self.asked.answered(token, &result, &self.roles, c, q, now);
                for coordination in self.coordination.values_mut() {
                    coordination.answered(token);
                }
                self.copies.answered(token, now);
                self.outbox.answered(token, result.is_ok());
            }
            Input::Ask { id, request } => self.ask(id, request, now),
            Input::Copy(digest) => self.copies.saw(digest, now),
            Input::Confirm { id, role } => self.confirm(id, &role, now),
            Input::Dead { owner, why } => self.died(owner, &why, now),
            Input::Superseded => beat::superseded(c, q),
            Input::Streams(tries) => {
                c.streams.tried(tries, now);
                q.dirty = true;
            }
            Input::Configured(config) => {
                c.configure(config);
                q.dirty = true;
            }
            Input::Stop { broken } => {
                if !c.leaving {
                    (c.leaving, c.broken) = (true, broken);
                    q.dirty = true;
                    q.urgent_all = true;
                }
            }
            Input::Tick => {}
        }
    }

    /// A node whose guardian stands still gives up what it holds, and stays out of line: it would not be stopped if it stood still, too.
    fn guardian(&mut self, stands_still: bool, now: Mono) {
        let (c, q) = (&mut self.c, &mut self.q);
        if std::mem::replace(&mut c.guardian_stands_still, stands_still) == stands_still {
            return;
        }
        if stands_still {
            let text = "the guardian of this node stands still (stopped, or stuck in the kernel): the node gives up its roles and stays \
                 out of line; end that process, or continue it";
            c.alarms.lasts(About::Guardian, q, text.into());
        } else {
            c.alarms.call_off(&About::Guardian, q);
            for role in self.roles.values_mut() {
                role.demote_at_once(now);
            }
        }
        // Others must not wait for it, and hear at once.
        q.urgent_all = true;
        q.dirty = true;
    }

    /// V6: proof of death ends promises, and closes the floor, for exactly this boot.
    fn died(&mut self, owner: Owner, why: &str, now: Mono) {
        let (c, q) = (&mut self.c, &mut self.q);
        // To a node that has forgotten it, a notice that is replayed tells of a run that is long gone: true, and no news.
        let runs = || c.peers.values().map(Peer::owner);
        let present = runs().any(|run| run == owner);
        let replaced = runs().any(|run| run.node == owner.node && run != owner);
        if !c.died(owner, why) {
            return;
        }
        let mut bound = false;
        for role in self.roles.values_mut() {
            if role.voter.died(owner) {
                bound = true;
                role.write_ahead_next(c, q, now);
            }
            role.unblocked(c.id, c, now);
        }
        if present || (bound && !replaced) {
            let name = c.call(owner.node);
            q.log(
                Level::Warn,
                format!(
                    "node {name} died: its guardian says that {why}, and that the application has stopped"
                ),
            );
        }
        // Whoever is next hears at once that this voter is free.
        q.urgent_all |= present || bound;
        q.dirty |= present || bound;
    }

    fn learned(&mut self, state: Arc<State>, applied: u64) {
        let (c, q) = (&mut self.c, &mut self.q);
        if state.electorate.id > c.state.electorate.id {
            let name = |id: &NodeId| {
                state
                    .name_of(*id)
                    .map_or_else(|| id.to_string(), NodeName::to_string)
            };
            let names = |ids: &BTreeSet<NodeId>| ids.iter().map(name).collect::<Vec<_>>().join(", ");
            let voters = names(&state.electorate.voters);
            let text = match &state.electorate.next {
                Some(next) => format!("the voters are changing from [{voters}] to [{}]", names(next)),
                None => format!("the voters are [{voters}]"),
            };
            q.log(crate::output::Level::Info, text);
        }
        c.learn_electorate(&state.electorate, q);
        let mut news =
            c.state.paused != state.paused || c.state.drained != state.drained || c.state.copy != state.copy;
        for (role, record) in &state.roles {
            if c.learn_line(role, &record.line, true) {
                news = true;
                let mut names: Vec<String> = Vec::new();
                for place in &record.line.places {
                    let id = place.owner.node;
                    let name = state.name_of(id).map_or_else(|| c.call(id), NodeName::to_string);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                let names = match names.is_empty() {
                    true => "nobody".to_owned(),
                    false => names.join(", "),
                };
                let text = format!("role {role}: line of succession {}: {names}", record.line.version);
                q.log(crate::output::Level::Info, text);
                // Peers whose logs lag hear of the new line at once, and a holder of the handover it may ask for.
                q.urgent_all |= c.is_coordinator();
            }
        }
        q.dirty |= news || c.state.event_number != state.event_number || c.state.cluster != state.cluster;
        c.state = state;
        c.applied = applied;
    }

    fn health(&mut self, role: &RoleName, health: Health, reason: String, now: Mono) {
        let Some(role) = self.roles.get_mut(role) else {
            return;
        };
        let promoting = role.state == RoleState::Promoting && !role.was_active;
        if role.health != health {
            let said = match health {
                Health::Healthy => Some((Level::Info, "healthy")),
                Health::Unhealthy if promoting => Some((Level::Info, "not healthy yet")),
                Health::Unhealthy => Some((Level::Warn, "NOT healthy")),
                Health::Untried => None, // whoever is not active need not explain
            };
            if let Some((level, verdict)) = said {
                let text = format!("role {}: the application is {verdict}: {reason}", role.name);
                self.q.log(level, text);
            }
            self.q.urgent_all = true;
            if health == Health::Healthy && promoting {
                role.story.reach(stage::HEALTHY, now);
            }
        }
        role.health = health;
        role.health_reason = reason;
        self.q.dirty = true;
    }

    fn persisted(&mut self, token: u64, now: Mono) {
        while let Some(flush) = self.q.flushed(token) {
            match flush {
                Flush::Window(window) => self.c.kept_window = window,
                Flush::Electorate(id) => {
                    self.c.adopted = self.c.adopted.max(id);
                    self.q.urgent_all = true;
                }
                Flush::Floor(role, floor) => {
                    if let Some(role) = self.roles.get_mut(&role) {
                        role.flushed(floor, &self.c, &mut self.q, now);
                    }
                }
            }
        }
    }

    fn ask(&mut self, id: u64, request: Request, now: Mono) {
        if let Request::Bootstrap { without } = &request
            && self.c.state.cluster == ClusterId(0)
        {
            self.membership.without = without.clone();
            let result = match self.membership.starters(&self.c, now) {
                Ok(_) => Ok("starting the cluster without the named nodes".to_owned()),
                Err(missing) => {
                    let names: Vec<&str> = missing.iter().map(NodeName::as_str).collect();
                    Err(format!(
                        "cannot start yet: no majority, or still waiting for {}",
                        names.join(", ")
                    ))
                }
            };
            return self.q.push(Output::Answer { id, result });
        }
        self.asked
            .ask(id, request, &self.roles, &self.c, &mut self.q, now);
    }

    fn confirm(&mut self, id: u64, role: &RoleName, now: Mono) {
        match self.roles.get_mut(role) {
            Some(role) => role.confirm(vec![id], &self.c, &mut self.q, now),
            None => self.q.push(Output::Confirmed { id, epoch: None }),
        }
    }

    /// Everything that follows without new input; then heartbeats, then the view.
    fn turn(&mut self, plans: bool, now: Mono) {
        let mut wake = now + Duration::from_secs(1);
        wake = wake.min(self.c.keep_window(&mut self.q, now));
        self.disk(now);
        wake = wake.min(self.c.look_at_links(&mut self.q, now));
        for (name, role) in &mut self.roles {
            role.turn(&self.c, &mut self.q, now);
            wake = wake.min(role.consider(&self.c, &mut self.q, now));
            // A holder that was asked to hand over: its successor finds the floor on the disk (V3).
            if let Some(line) = self.c.line(name)
                && let Some(at) = line.handover
                && let Some(next) = line.places.first()
                && role.voter.running(now).is_some_and(|p| p.epoch <= at)
            {
                role.write_ahead(next.epoch, next.owner, &mut self.q);
            }
            record(role, &self.c, &mut self.q, now);
        }
        if plans {
            self.plan(now);
        }
        wake = wake.min(self.plan_at);
        wake = wake.min(self.asked.turn(&self.roles, &self.c, &mut self.q, now));
        wake = wake.min(self.stop(now));
        wake = wake.min(self.observe(now));
        self.beat(now);
        for role in self.roles.values_mut() {
            // This node's own vote may have completed a lease.
            role.turn(&self.c, &mut self.q, now);
            wake = wake.min(role.next_wake(&self.c, now));
        }
        if std::mem::take(&mut self.q.dirty) {
            self.publish(now);
        }
        self.wake = wake.min(self.next_beat);
    }

    /// A node whose disk does not answer says so, and the coordinator leaves it out of line.
    fn disk(&mut self, now: Mono) {
        let (c, q) = (&mut self.c, &mut self.q);
        if !c.fitness.turn(q.oldest_flush(), c.timing.window, now) {
            return;
        }
        if c.fitness.is_fit() {
            c.alarms.call_off(&About::Disk, q);
        } else {
            let text = c.fitness.alarm();
            c.alarms.lasts(About::Disk, q, text);
        }
        q.urgent_all = true;
        q.dirty = true;
    }

    /// The coordinator's part: lines and members.
    fn plan(&mut self, now: Mono) {
        self.plan_at = self.membership.turn(&self.roles, &self.c, &mut self.q, now);
        self.chronicle.turn(&self.c, &mut self.q);
        self.plan_at = self.plan_at.min(self.copies.turn(&self.c, &mut self.q, now));
        for (name, role) in &self.roles {
            if let Some(coordination) = self.coordination.get_mut(name) {
                self.plan_at = self
                    .plan_at
                    .min(coordination.turn(role, &self.c, &mut self.q, now));
            }
        }
    }

    /// What people should know of: seen here, kept until the log has it.
    fn observe(&mut self, now: Mono) -> Mono {
        let due = now >= self.next_beat;
        let waiting = if due { self.waiting_for(now) } else { Vec::new() };
        let (c, q) = (&self.c, &mut self.q);
        if due {
            self.observer.turn(&self.roles, c, q, &waiting, now);
        }
        self.observer.look_at_the_dead(c, now);
        for event in std::mem::take(&mut q.told) {
            self.outbox.put(event, now);
            q.dirty = true;
        }
        self.outbox.turn(c, q, now)
    }

    /// The schedule does not drift; what is urgent goes out between its beats.
    fn beat(&mut self, now: Mono) {
        let all = std::mem::take(&mut self.q.urgent_all);
        let some = std::mem::take(&mut self.q.urgent);
        let due = now >= self.next_beat;
        if due {
            let interval = self.c.timing.interval;
            self.next_beat = self.next_beat + interval;
            if self.next_beat <= now {
                self.next_beat = now + interval;
            }
            self.said.turn(&self.c, &mut self.q, now);
            self.office.turn(&self.c, &mut self.q, now);
            let c = &mut self.c;
            c.streams.turn(&c.peers, &c.config, &c.timing, &mut self.q, now);
            self.c.note_cut_off(&mut self.q, now);
            self.c.note_clocks(&mut self.q, now);
            self.c.alarms.turn(&self.c.timing, &mut self.q, now);
            self.c.keep_pace(now);
            // Loss, round trips and silence change the view all the time.
            self.q.dirty = true;
        }
        let everybody = beat::recipients(&self.c);
        if due || all {
            beat::send(&mut self.roles, &mut self.c, &mut self.q, &everybody, true, now);
        } else if !some.is_empty() {
            let to: Vec<NodeName> = everybody.into_iter().filter(|name| some.contains(name)).collect();
            beat::send(&mut self.roles, &mut self.c, &mut self.q, &to, false, now);
        }
    }

    fn publish(&mut self, now: Mono) {
        self.serial += 1;
        let view = self.view(now);
        self.q.push(Output::Publish(Box::new(view)));
    }

    /// Stopping in order: all roles released; then a successor is given the time to appear.
    fn stop(&mut self, now: Mono) -> Mono {
        if !self.c.leaving || self.stopped {
            return Mono::MAX;
        }
        if self.roles.values().any(|role| role.state != RoleState::Standby) {
            self.released_at = None;
            return Mono::MAX;
        }
        let interval = self.c.timing.interval;
        let since = *self.released_at.get_or_insert(now);
        let released = self.roles.values().filter(|role| !role.released.is_empty());
        let succeeded = |role: &RoleCore| {
            let successor = role
                .incumbent(&self.c)
                .filter(|place| place.owner != self.c.owner());
            let fit = self
                .c
                .line(&role.name)
                .is_some_and(|l| l.places.iter().any(|p| self.c.fit(p.owner, &role.name, now)));
            !fit || successor.is_some_and(|place| role.released.iter().all(|epoch| *epoch < place.epoch))
        };
        // Who has the role may still be promoting its application: whoever stops this machine next should find it served.
        let served = |role: &RoleCore| {
            let greatest = role.released.last().copied().unwrap_or_default();
            let mut peers = self.c.peers.values();
            let served = peers.any(|peer| {
                let beat = peer.fresh_beat(&role.name, &self.c.timing, now);
                beat.and_then(|beat| beat.serving)
                    .is_some_and(|epoch| epoch > greatest)
            });
            let held = role
                .incumbent(&self.c)
                .is_some_and(|place| place.epoch > greatest);
            served || !held
        };
        let handed_over = released.clone().all(succeeded);
        // The release is repeated over a few heartbeats, for those that missed it.
        let due = since
            + match (handed_over, released.into_iter().all(served)) {
                (true, true) => interval * 2,
                (true, false) => self.c.timing.window.max(SERVED_LIMIT),
                (false, _) => self.c.timing.window,
            };
        if now >= due {
            self.stopped = true;
            self.q.push(Output::Stopped);
            return Mono::MAX;
        }
        due
    }
}

/// Proposes a takeover for the history until the log has it.
fn record(role: &mut RoleCore, c: &Cluster, q: &mut Queue, now: Mono) {
    let Some((event, place)) = &role.to_record else {
        return;
    };
    let recorded = c.state.roles.get(&role.name).and_then(|r| r.active);
    if recorded.is_some_and(|active| active.epoch >= place.epoch) {
        role.to_record = None;
        return;
    }
    if role.record_proposed.is_none_or(|at| now.since(at) > RECORD_RETRY) {
        role.record_proposed = Some(now);
        q.propose(Command::Record {
            event: event.clone(),
            place: Some(*place),
        });
    }
}
