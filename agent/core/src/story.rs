//! Why a takeover happens, on what evidence, and where the time goes: for people. Nothing is decided by it.
//!
//! A [`Watch`] is kept by whoever stands by: it notes when it happened what can no longer be told once the role has moved. A
//! [`Story`] is made of it when this node steps forward, and goes on until the node is active; then it is an event.

use crate::cluster::Cluster;
use crate::outage::{self, Attempt};
use crate::peer::Peer;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::history::{list, stage};
use baton_shared::id::{NodeId, NodeName, Owner};
use baton_shared::succession::Place;
use baton_shared::view::RoleState;
use std::cmp::Reverse;
use std::time::Duration;

/// Characters of a cause at most: it goes through the log, and into the environment of the promote action.
const CAUSE_LENGTH: usize = 600;
/// Nodes that were passed over are named, so many at most.
const PASSED_OVER: usize = 3;

/// Why and when a takeover happened, stage by stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub cause: String,
    pub from: Option<NodeName>,
    pub stages: Vec<(&'static str, Mono)>,
}

impl Story {
    /// A stage is reached; of several times the last counts.
    pub fn reach(&mut self, stage: &'static str, now: Mono) {
        self.stages.retain(|(name, _)| *name != stage);
        self.stages.push((stage, now));
    }

    /// Why it happened, with what was tried before.
    pub fn with_attempts(&self, attempts: &[Attempt]) -> String {
        let text = format!("{}{}", self.cause, outage::told(attempts));
        text.chars().take(CAUSE_LENGTH).collect()
    }
}

/// What a node that stands by has seen of the holder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// Whom it watches.
    place: Option<Place>,
    /// When this run of it was last heard.
    heard: Option<Mono>,
    /// It said that it serves; and when it first said that it no longer does.
    serves: bool,
    stepped_down: Option<Mono>,
    /// Since when it stops its application.
    demoting: Option<Mono>,
    /// When it was last heard on a network on which it is cut off from clients.
    cut_off: Option<Mono>,
    /// Since when the line asks it to hand over.
    decided: Option<Mono>,
    /// How it was found to be gone, and when: a stage each.
    gone: Vec<(&'static str, Mono)>,
    /// What kept this node from stepping forward, and until when.
    unfit: Option<(String, Option<Mono>)>,
}

impl Watch {
    /// Looks at the holder `place`.
    fn look(&mut self, place: Option<Place>, role: &RoleCore, c: &Cluster, now: Mono) {
        if place != self.place {
            let same = |p: Place| self.place.is_some_and(|before| before.owner == p.owner);
            // One that moves up to a greater epoch is the same run.
            *self = match place {
                Some(p) if same(p) => Watch {
                    gone: Vec::new(),
                    ..std::mem::take(self)
                },
                _ => Watch::default(),
            };
            self.place = place;
        }
        let Some(place) = place else { return };
        let peer = c.peer(place.owner.node);
        let this_run = peer.filter(|p| p.owner() == place.owner);
        if let Some(heard) = this_run.and_then(Peer::last_heard) {
            self.heard = Some(heard);
        }
        let beat = this_run.and_then(|p| p.beat(&role.name));
        if let Some(beat) = beat {
            let stops = beat.condition.state == RoleState::Demoting;
            // Of its last word, that it has given the role up, this is not called off.
            if stops {
                self.demoting = self.demoting.or(Some(now));
            } else if beat.holding.is_some() {
                self.demoting = None;
            }
        }
        match beat.map(|b| b.serving.is_some()) {
            Some(true) => (self.serves, self.stepped_down) = (true, None),
            Some(false) if self.serves => (self.serves, self.stepped_down) = (false, Some(now)),
            _ => {}
        }
        if let Some(peer) = this_run {
            let cut = c.grounds(now).lost(place.owner, |_| true).into_iter();
            let links = cut.filter_map(|network| peer.links.get(network)?.as_ref()?.last_heard());
            let since = links.min();
            self.cut_off = since.map(|since| self.cut_off.unwrap_or(since));
        }
        let asked = handover(role, c, place).is_some();
        self.decided = asked.then(|| self.decided.unwrap_or(now));
        let gone = if c.dead.contains(&place.owner) {
            Some(stage::DIED)
        } else if this_run.is_some_and(|p| p.gave_up(&role.name, place)) {
            Some(stage::RELEASED)
        } else if peer.is_some_and(|p| p.boot > place.owner.boot) {
            Some(stage::RESTARTED)
        } else {
            let heard = this_run.is_some_and(|p| p.heard(&c.timing, now));
            (!heard).then_some(stage::MISSED)
        };
        match gone {
            None => self.gone.clear(),
            Some(gone) if self.gone.iter().any(|(stage, _)| *stage == gone) => {}
            Some(gone) => self.gone.push((gone, now)),
        }
    }

    /// Whether this node may step forward; `why` it may not.
    pub fn fitness(&mut self, why: Option<&str>, now: Mono) {
        match (why, &mut self.unfit) {
            (Some(why), Some((before, None))) if before == why => {}
            (Some(why), unfit) => *unfit = Some((why.to_owned(), None)),
            (None, Some((_, until @ None))) => *until = Some(now),
            (None, _) => {}
        }
    }

    /// What kept this node from stepping forward after the holder was gone, and until when.
    fn held_up(&self) -> Option<(&str, Mono)> {
        let (why, until) = self.unfit.as_ref()?;
        let since = self.gone.iter().map(|(_, at)| *at).min()?;
        until
            .filter(|until| *until > since)
            .map(|until| (why.as_str(), until))
    }
}

/// Why the line asks the holder of `place` to hand over, if it does.
fn handover<'a>(role: &RoleCore, c: &'a Cluster, place: Place) -> Option<&'a str> {
    let line = c.line(&role.name)?;
    line.handover
        .is_some_and(|at| at >= place.epoch)
        .then_some(line.cause.as_str())
}

impl RoleCore {
    /// Looks at the holder, while this node stands by.
    pub(crate) fn look_on(&mut self, c: &Cluster, now: Mono) {
        let owner = |place: Option<Place>| place.map(|place| place.owner);
        if owner(self.predecessor(c)) != owner(self.watch.place) {
            self.put_down_end(c, now);
        }
        let mut watch = std::mem::take(&mut self.watch);
        watch.look(self.predecessor(c), self, c, now);
        self.watch = watch;
    }

    /// Puts down how whoever was active last came to its end, while this node has that before its eyes.
    pub(crate) fn put_down_end(&mut self, c: &Cluster, now: Mono) {
        let Some(place) = self.watch.place.filter(|_| !self.watch.gone.is_empty()) else {
            return;
        };
        if self.is_last_active(place, c) {
            self.note_end(|role| role.ending(place, c, now), now);
        }
    }

    fn is_last_active(&self, place: Place, c: &Cluster) -> bool {
        let last = self.last_active(c);
        last.is_some() && last == c.name_of(place.owner.node)
    }

    /// Whom this node would follow: the last holder known, as far as that is not this run by a claim that it did not win.
    fn predecessor(&self, c: &Cluster) -> Option<Place> {
        let recorded = c.state.roles.get(&self.name).and_then(|r| r.active);
        self.floors(c)
            .filter(|place| place.owner != c.owner())
            .chain(recorded)
            .max_by_key(|place| place.epoch)
    }

    /// Why this node steps forward to `mine` now, on what evidence, and after whom.
    pub(crate) fn story(&self, mine: Place, c: &Cluster, now: Mono) -> Story {
        let Some(place) = self.watch.place else {
            return Story {
                cause: "nobody held the role before".into(),
                ..Story::default()
            };
        };
        let attempts = self.attempts(c);
        // Of nodes that only tried, the attempts are told, and how whoever was active before them came to its end.
        let ended = self.end_before_attempts();
        let ended = ended.filter(|_| !self.is_last_active(place, c));
        let mut cause = ended.map_or_else(|| self.ending(place, c, now), str::to_owned);
        let tried = |name: &NodeName| attempts.iter().any(|attempt| attempt.node == *name);
        let passed_over = self.passed_over(mine, place.owner, c, now);
        for (name, why) in passed_over.into_iter().filter(|(name, _)| !tried(name)) {
            cause.push_str(&format!("; {name} was passed over: {why}"));
        }
        let held_up = self.watch.held_up();
        if let Some((why, _)) = held_up.filter(|_| !tried(c.me())) {
            cause.push_str(&format!("; {} had to wait: {why}", c.me()));
        }
        let watch = &self.watch;
        let released = watch.gone.iter().any(|(gone, _)| *gone == stage::RELEASED);
        // What one that only tried gave up was no application's end.
        let acted = ended.is_none() || !attempts.is_empty();
        let gone = watch
            .gone
            .iter()
            .filter(|(gone, _)| acted || *gone != stage::RELEASED);
        let mut stages: Vec<(&'static str, Mono)> = gone.copied().collect();
        // Of one that gave the role up, its last word is no news.
        stages.extend(
            watch
                .heard
                .filter(|_| !released)
                .map(|at| (stage::LAST_HEARD, at)),
        );
        stages.extend(watch.cut_off.map(|at| (stage::CLIENTS_LOST, at)));
        stages.extend(watch.stepped_down.map(|at| (stage::STEPPED_DOWN, at)));
        // If it kept the role for a while without being active, that was no stopping.
        let kept = watch
            .demoting
            .filter(|at| watch.stepped_down.is_some_and(|before| *at > before));
        stages.extend(kept.map(|at| (stage::DEMOTING, at)));
        stages.extend(watch.decided.map(|at| (stage::DECIDED, at)));
        stages.extend(held_up.map(|(_, at)| (stage::FIT, at)));
        stages.extend(self.ready_since.map(|at| (stage::VACANT, at)));
        stages.sort_by_key(|(_, at)| *at);
        Story {
            cause: cause.chars().take(CAUSE_LENGTH).collect(),
            from: match attempts.is_empty() && acted {
                true => c.name_of(place.owner.node),
                false => self.last_active(c),
            },
            stages,
        }
    }

    /// How the holder of `place` came to its end, as seen from here.
    fn ending(&self, place: Place, c: &Cluster, now: Mono) -> String {
        let owner = place.owner;
        let name = c.call(owner.node);
        if owner.node == c.id {
            return match &self.farewell {
                Some((why, _)) if owner == c.owner() => {
                    format!("{name} had stepped down ({why}), and nobody else took over")
                }
                _ => format!("{name} held the role last, and nobody else took over"),
            };
        }
        let peer = c.peer(owner.node).filter(|p| p.owner() == owner);
        let stopped = peer.and_then(Peer::stopped);
        let last = self.watch.gone.last().map(|(gone, _)| *gone);
        match last {
            Some(stage::DIED) => match &c.last_death {
                Some((dead, why)) if *dead == owner => {
                    format!("{name} died: {why}, and its guardian has stopped the application")
                }
                _ => format!("{name} died: its guardian has stopped the application and says so"),
            },
            Some(stage::RELEASED) => match (handover(self, c, place), stopped, self.farewell_of(peer)) {
                (Some(why), ..) => format!("{name} handed over: {why}"),
                (_, Some(stopped), _) => format!("{name} was {stopped}"),
                (_, _, Some(why)) => format!("{name} stepped down: {why}"),
                (..) => format!("{name} stepped down"),
            },
            Some(stage::RESTARTED) => format!("{name} was started anew, and no longer holds the role"),
            Some(_) => match self.watch.heard {
                Some(heard) => self.silence(owner, now.since(heard), c, now),
                None => format!(
                    "{name} held the role last, and is not heard{}",
                    word(self.others(owner.node, c, now), " either")
                ),
            },
            None => format!(
                "{name} is still heard here, but a majority of the voters no longer stands by it{}",
                word(self.others(owner.node, c, now), "")
            ),
        }
    }

    fn farewell_of<'a>(&self, peer: Option<&'a Peer>) -> Option<&'a str> {
        peer?.beat(&self.name)?.farewell.as_deref()
    }

    fn silence(&self, owner: Owner, silent: Duration, c: &Cluster, now: Mono) -> String {
        let networks = c.peer(owner.node).map_or_else(Vec::new, |peer| {
            let links = c.config.networks.iter().zip(&peer.links);
            links
                .filter(|(_, link)| link.is_some())
                .map(|(network, _)| network.name.as_str())
                .collect()
        });
        format!(
            "{} fell silent on {}{}; last heard {} before",
            c.call(owner.node),
            list(&networks),
            word(self.others(owner.node, c, now), " either"),
            baton_shared::history::duration(silent),
        )
    }

    /// Other voters, by fresh word: who does not hear this node, and who does.
    fn others(&self, node: NodeId, c: &Cluster, now: Mono) -> [Vec<NodeName>; 2] {
        let mut others = [Vec::new(), Vec::new()];
        let voters = c
            .peers
            .values()
            .filter(|p| c.electorate.contains(p.id) && p.id != node);
        for peer in voters {
            let Some(report) = peer.fresh(&c.timing, now) else {
                continue;
            };
            let mut hears = report.heartbeat.hears.iter();
            let hears = hears.any(|(id, networks)| *id == node && *networks != 0);
            others[usize::from(hears)].push(peer.name.clone());
        }
        others
    }

    /// Nodes that would have come first had they been fit, and why they were not.
    fn passed_over(&self, mine: Place, before: Owner, c: &Cluster, now: Mono) -> Vec<(NodeName, String)> {
        let rank = |name: &NodeName| {
            let node = c.config.nodes.get(name);
            (Reverse(node.map_or(0, |node| node.priority)), name.clone())
        };
        let line = c.line(&self.name);
        let ahead = |owner: Owner| {
            let mut places = line.into_iter().flat_map(|line| &line.places);
            places.any(|p| p.owner == owner && p.epoch < mine.epoch && p.epoch > self.lease.highest())
        };
        let better = |peer: &&Peer| {
            peer.kind.may_act()
                && peer.id != before.node
                && (ahead(peer.owner()) || rank(&peer.name) < rank(c.me()))
        };
        let unfit = c.peers.values().filter(better);
        unfit
            .filter_map(|peer| Some((peer.name.clone(), self.unfit_peer(peer, c, now)?)))
            .take(PASSED_OVER)
            .collect()
    }

    /// Why a peer could not take the role, as far as known, to stand behind its name and a colon; `None` if it could.
    pub(crate) fn unfit_peer(&self, peer: &Peer, c: &Cluster, now: Mono) -> Option<String> {
        if c.fit(peer.owner(), &self.name, now) {
            return None;
        }
        let alive = c.alive(peer.owner(), now).is_some();
        let other_window = c.other_window(c.window_of(peer));
        let stopped = peer.stopped();
        let condition = peer.beat(&self.name).map(|beat| &beat.condition);
        Some(match condition {
            _ if c.dead.contains(&peer.owner()) => "dead".into(),
            _ if stopped.is_some() && alive => "being stopped".into(),
            _ if stopped.is_some() => stopped?,
            None => "not heard".into(),
            // Who has a longer window speaks more seldom, and is not silent.
            _ if other_window.is_some() && peer.heard(&c.timing_of(peer), now) => other_window?,
            _ if !alive => "not heard".into(),
            _ if c.drained(&peer.name) => "drained by an operator".into(),
            _ if peer.lives_twice(now) => "runs twice".into(),
            Some(condition) => condition
                .unfit
                .clone()
                .or_else(|| Some(condition.failed.clone()?.0))
                .unwrap_or_else(|| "not fit".into()),
        })
    }
}

/// What other voters say of a node that is missed here.
fn word([deaf, hearing]: [Vec<NodeName>; 2], either: &str) -> String {
    let plural = |names: &[NodeName], one: &str, more: &str| {
        format!("{} {}", list(names), if names.len() == 1 { one } else { more })
    };
    let deaf = (!deaf.is_empty()).then(|| plural(&deaf, "does not hear it", "do not hear it") + either);
    let hearing = (!hearing.is_empty()).then(|| plural(&hearing, "still hears it", "still hear it"));
    let said: Vec<String> = deaf.into_iter().chain(hearing).collect();
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({})", said.join(", ")),
    }
}
