//! When to step forward (DESIGN §5 "Stepping forward").
//!
//! Like heirs at a death bed: nobody moves while a majority still sees the holder alive or is bound to it; then the first
//! in line does, and each later one waits a little longer to see whether somebody better came.

use crate::cluster::{Cluster, Queue};
use crate::role::RoleCore;
use crate::why::PAUSED;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeId, Owner};
use baton_shared::succession::{Line, Place, PromiseReport};
use baton_shared::view::{BROKE, CANNOT_RUN, RoleState};
use std::time::Duration;

impl RoleCore {
    /// Steps forward if it is this node's turn. Returns when to look again.
    pub(crate) fn consider(&mut self, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        if self.state != RoleState::Standby {
            return Mono::MAX;
        }
        self.look_on(c, now);
        let unfit = self.unfit(c, now);
        self.watch.fitness(unfit.as_deref(), now);
        if let Some(why) = unfit {
            self.ready_since = None;
            if self.reason != why {
                self.reason = why;
                q.dirty = true;
            }
            return self.unwilling_until_after(now);
        }
        let grounds = c.grounds(now);
        let cut = |owner: Owner| grounds.is_cut(owner);
        let Some((place, ahead)) = self.next_place(cut, c, now) else {
            self.ready_since = None;
            self.stand_by("standing by; not in line yet", q);
            return Mono::MAX;
        };
        // Whoever cannot write lets the others go first, wherever they are in line.
        let last = !c.fitness.is_fit() && !broken!(HungInLine) && self.others_write(c, now);
        let (why, before) = match last {
            true => (
                "standing by; others go first, for the disk does not answer",
                Epoch(u64::MAX),
            ),
            false => ("standing by", place.epoch),
        };
        self.stand_by(why, q);
        if self.futile.is_some() && c.peers.values().all(|peer| c.window_of(peer) == c.timing.window) {
            // What made claims futile is mended.
            self.futile = None;
            why.clone_into(&mut self.reason);
            q.dirty = true;
        }
        if let Some(until) = self.futile_until(c, now) {
            self.ready_since = None;
            return until;
        }
        if self.better_claims(before, cut, c, now) || self.line_is_old(c, now) {
            self.ready_since = None;
            return now + c.timing.interval;
        }
        if let Err(look_again) = self.vacant(c, now) {
            self.ready_since = None;
            return look_again;
        }
        let since = *self.ready_since.get_or_insert(now);
        let patience = if last { c.timing.window } else { Duration::ZERO };
        let turn = since + patience + stagger(c) * u32::try_from(ahead).unwrap_or(u32::MAX);
        if now < turn {
            return turn;
        }
        let story = self.story(place, c, now);
        self.put_down_end(c, now);
        self.step_forward(place, story, c, q, now);
        Mono::MAX
    }

    fn stand_by(&mut self, why: &str, q: &mut Queue) {
        if self.reason != why
            && !self.reason.starts_with("stepped down")
            && !self.reason.starts_with("claim given up")
        {
            self.reason = why.to_owned();
            q.dirty = true;
        }
    }

    /// Why this node may not step forward at all.
    pub(crate) fn unfit(&self, c: &Cluster, now: Mono) -> Option<String> {
        // Where nobody can run what it needs, it is as if everybody could.
        let lack = self.lack().filter(|_| self.others_able(c, now));
        if let Some(why) = self.hindered(lack, c, now) {
            return Some(why);
        }
        // A handover that an operator asked for is no automatic takeover; once it has come about, the next one is.
        let handing_over = |line: &Line| line.handover.is_some_and(|at| self.passed(c, now) <= at);
        let steps_forward = self.state == RoleState::Standby;
        let paused = steps_forward && c.state.paused && !c.line(&self.name).is_some_and(handing_over);
        paused.then(|| PAUSED.into())
    }

    /// What is wrong with this node itself.
    pub(crate) fn unable(&self, c: &Cluster, now: Mono) -> Option<String> {
        self.hindered(self.lack(), c, now)
    }

    /// What keeps this node from the role; a program that cannot be run where that is one.
    fn hindered(&self, lack: Option<String>, c: &Cluster, now: Mono) -> Option<String> {
        let node = c.config.my_node();
        if !node.kind.may_act() {
            return Some(format!("a {} is never active", node.kind));
        }
        if c.electorate.voters.is_empty() {
            return Some("the cluster has not started yet".into());
        }
        if c.leaving {
            return Some(match &c.broken {
                Some(why) => format!("{BROKE}{why}"),
                None => "this node is stopping".into(),
            });
        }
        if c.guardian_stands_still {
            return Some("the guardian of this node stands still".into());
        }
        if c.drained(c.me()) {
            return Some("drained by an operator".into());
        }
        if let Some(why) = c.other_window(c.timing.window) {
            return Some(why);
        }
        if !self.health.is_fit() {
            return Some(format!("the application is not healthy: {}", self.health_reason));
        }
        if lack.is_some() {
            return lack;
        }
        (!self.willing(now)).then(|| match &self.failed {
            Some(failure) => failure.words.clone(),
            None => "waits after a promotion or an application that failed".into(),
        })
    }

    /// Which program cannot be run here, if one cannot.
    fn lack(&self) -> Option<String> {
        let lack = self.lacks.as_ref()?;
        Some(format!("{CANNOT_RUN}{lack}"))
    }

    /// Whether somebody else could take the role, and run what it needs.
    fn others_able(&self, c: &Cluster, now: Mono) -> bool {
        let mut peers = c.peers.values();
        peers.any(|peer| c.fit(peer.owner(), &self.name, now)) || broken!(LackingShutOut)
    }

    fn unwilling_until_after(&self, now: Mono) -> Mono {
        self.willing_at().filter(|at| *at > now).unwrap_or(Mono::MAX)
    }

    /// This node's next place, and how many fit nodes come before it: whoever is `cut` off from clients lets everybody in line go first
    /// who is not.
    fn next_place(&self, cut: impl Fn(Owner) -> bool, c: &Cluster, now: Mono) -> Option<(Place, usize)> {
        let line = c.line(&self.name)?;
        let bound = if broken!(LowerEpochClaimed) {
            Epoch(0)
        } else {
            self.passed(c, now)
        };
        let mine = line
            .places
            .iter()
            .find(|p| p.owner == c.owner() && p.epoch > bound)?;
        let cut_here = cut(c.owner());
        let first = |place: &&Place| match (cut_here, cut(place.owner)) {
            (true, false) => true,
            (false, true) => false,
            _ => place.epoch < mine.epoch,
        };
        let others = line.places.iter();
        let others = others.filter(|p| p.epoch > bound && p.owner != c.owner());
        let mut before: Vec<_> = others.filter(first).map(|p| p.owner).collect();
        before.sort();
        before.dedup();
        // Who goes although it lacks a program does so because all the others lack one, too.
        let could = |owner: Owner| match self.lacks {
            Some(_) => c.sound(owner, &self.name, now),
            None => c.fit(owner, &self.name, now),
        };
        let ahead = before
            .iter()
            .filter(|owner| could(**owner) && (c.writes(**owner) || broken!(HungInLine)))
            .count();
        Some((*mine, ahead))
    }

    /// Whether somebody else in line could take the role, and write.
    fn others_write(&self, c: &Cluster, now: Mono) -> bool {
        let passed = self.passed(c, now);
        let could = |p: &Place| {
            p.epoch > passed && p.owner != c.owner() && c.writes(p.owner) && c.fit(p.owner, &self.name, now)
        };
        c.line(&self.name)
            .is_some_and(|line| line.places.iter().any(could))
    }

    /// The greatest epoch that is spoken for: granted by somebody, claimed by this node before, or recorded.
    pub(crate) fn passed(&self, c: &Cluster, now: Mono) -> Epoch {
        // Of voters alone: the coordinator, which replaces a line that is passed, looks at no others either.
        let floors = c
            .peers
            .values()
            .filter(|p| c.electorate.contains(p.id))
            .filter_map(|p| p.fresh_beat(&self.name, &c.timing, now))
            .map(|beat| beat.floor.epoch);
        let own = [
            self.voter.floor().epoch,
            self.lease.highest(),
            c.state.floor(&self.name).epoch,
        ];
        floors.chain(own).max().unwrap_or_default()
    }

    /// Whether a better place is making progress: somebody heard lately claims an earlier epoch; or any, and is not `cut` off from clients
    /// as this node is.
    fn better_claims(&self, epoch: Epoch, cut: impl Fn(Owner) -> bool, c: &Cluster, now: Mono) -> bool {
        let cut_here = cut(c.owner());
        c.peers.values().any(|peer| {
            let claim = peer
                .fresh_beat(&self.name, &c.timing, now)
                .and_then(|beat| beat.claim);
            claim.is_some_and(|claim| claim.epoch < epoch || (cut_here && !cut(peer.owner())))
        })
    }

    /// Whether somebody heard lately knows a newer line: it may name another successor, and comes with a heartbeat.
    fn line_is_old(&self, c: &Cluster, now: Mono) -> bool {
        let mine = c.line(&self.name).map_or(0, |line| line.version);
        c.peers
            .values()
            .filter_map(|p| p.fresh_beat(&self.name, &c.timing, now))
            .any(|beat| beat.line > mine)
    }

    /// Ok when a majority of all voters, by reports younger than W/2, miss the holder or have no running promise;
    /// otherwise when to look again.
    fn vacant(&self, c: &Cluster, now: Mono) -> Result<(), Mono> {
        let free_at = |voter: NodeId| -> Option<std::cmp::Reverse<Mono>> {
            let at = if voter == c.id {
                match self.voter.report(now) {
                    Some(promise) if self.binds(&promise, None, c, now) => now + promise.remaining,
                    _ => now,
                }
            } else {
                let Some((peer, report)) = c
                    .peer(voter)
                    .and_then(|peer| Some((peer, peer.fresh(&c.timing, now)?)))
                else {
                    return broken!(LoneStandbyClaims).then_some(std::cmp::Reverse(now));
                };
                match peer.beat(&self.name)?.promise {
                    Some(promise) if self.binds(&promise, Some(voter), c, now) => {
                        report.came + promise.remaining
                    }
                    _ => now,
                }
            };
            Some(std::cmp::Reverse(at))
        };
        match c.electorate.kth_greatest(free_at) {
            Some(at) if at.0 <= now => Ok(()),
            Some(at) => Err(at.0),
            None => Err(Mono::MAX),
        }
    }

    /// Whether this promise, reported by `voter` (`None`: our own), still stands in the way.
    fn binds(&self, promise: &PromiseReport, voter: Option<NodeId>, c: &Cluster, now: Mono) -> bool {
        let owner = promise.owner;
        if owner == c.owner() || c.dead.contains(&owner) {
            return false;
        }
        let place = Place {
            epoch: promise.epoch,
            owner,
        };
        if c.peer(owner.node)
            .is_some_and(|peer| peer.gave_up(&self.name, place))
        {
            return false;
        }
        // Does the voter still hear whom it promised?
        match voter {
            None => {
                c.alive(owner, now).is_some() || c.peer(owner.node).is_some_and(|p| p.heard(&c.timing, now))
            }
            Some(voter) if voter == owner.node => true,
            Some(voter) => {
                let report = c.peer(voter).and_then(|peer| peer.report.as_ref());
                report.is_some_and(|r| {
                    r.heartbeat
                        .hears
                        .iter()
                        .any(|(id, nets)| *id == owner.node && *nets != 0)
                })
            }
        }
    }

    /// The last holder known: the greatest epoch promised, claimed or recorded.
    pub(crate) fn incumbent(&self, c: &Cluster) -> Option<Place> {
        let recorded = c.state.roles.get(&self.name).and_then(|r| r.active);
        self.floors(c).chain(recorded).max_by_key(|place| place.epoch)
    }

    /// The places that voters have promised last, as far as known.
    pub(crate) fn floors(&self, c: &Cluster) -> impl Iterator<Item = Place> {
        let reported = c.peers.values().filter_map(|p| p.beat(&self.name));
        let floors = reported.map(|beat| beat.floor).chain([self.voter.floor()]);
        floors.filter_map(|floor| {
            floor.owner.map(|owner| Place {
                epoch: floor.epoch,
                owner,
            })
        })
    }
}

/// How much longer each later place in line waits: a few round trips.
pub(crate) fn stagger(c: &Cluster) -> Duration {
    let rtt = c.peers.values().filter_map(|p| p.rtt()).max().unwrap_or_default();
    (rtt * 4 + Duration::from_millis(5)).min(c.timing.window / 4)
}
