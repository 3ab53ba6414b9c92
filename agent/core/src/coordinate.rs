//! On the coordinator: keeps every role's line of succession (DESIGN §6). It is never in the path of a failover.

use crate::cluster::{Cluster, Queue};
use crate::plan::{Candidate, Picture, leave_out, plan, round};
use crate::role::RoleCore;
use crate::state::Command;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeId, Owner, RoleName};
use baton_shared::succession::Place;
use std::collections::BTreeMap;
use std::time::Duration;

/// A proposal that was not answered is made again after this.
const PROPOSAL_LIMIT: Duration = Duration::from_secs(3);
/// A handover that did not come about is taken back after this.
const HANDOVER_LIMIT: Duration = Duration::from_secs(30);
/// A wall clock further ahead of all others is not used for epochs.
const MAX_AHEAD_MS: u64 = 24 * 3600 * 1000;

/// What the coordinator remembers of one role.
#[derive(Default)]
pub(crate) struct Coordination {
    /// The order wanted, and since when it has been.
    wanted: Option<(Vec<Owner>, Mono)>,
    /// A proposal under way: its token, and when it was made.
    proposed: Option<(u64, Mono)>,
    /// The line's version that asks for a handover, and since when it has been seen.
    handover: Option<(u64, Mono)>,
    /// Since when each node has been fit, for `preempt_after`.
    fit_since: BTreeMap<Owner, Mono>,
}

impl Coordination {
    /// A proposal was answered.
    pub fn answered(&mut self, token: u64) {
        self.proposed.take_if(|(t, _)| *t == token);
    }

    /// Makes a new line if the present one will not do. Returns when to look again.
    pub fn turn(&mut self, role: &RoleCore, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        if !c.is_coordinator() || c.state.cluster.0 == 0 {
            *self = Coordination::default();
            return Mono::MAX;
        }
        if let Some((_, at)) = self.proposed {
            if now.since(at) < PROPOSAL_LIMIT {
                return at + PROPOSAL_LIMIT;
            }
            self.proposed = None;
        }
        if !c.hears_majority(now) {
            // Whoever hears no majority sees nobody fit: the line stays as those made it who did.
            self.wanted = None;
            return now + c.timing.interval;
        }
        let picture = picture(role, c, now);
        if let Some(look_again) = self.handing_over(&picture, now) {
            return look_again;
        }
        let preempt_at = self.preempt(role, &picture, c, q, now);
        if self.proposed.is_some() {
            return now + PROPOSAL_LIMIT;
        }
        let Some(order) = plan(&picture) else {
            self.wanted = None;
            return preempt_at;
        };
        // Settled for a moment, so that a flapping check does not fill the log; not while nobody could step forward.
        let bound = picture.holder.map_or(Epoch(0), |h| h.epoch).max(picture.floor);
        let alive = |p: &Place| p.epoch > bound && (p.owner == c.owner() || c.alive(p.owner, now).is_some());
        let settle = if picture.line.places.iter().any(alive) {
            c.timing.interval * 2
        } else {
            Duration::ZERO
        };
        let since = match &self.wanted {
            Some((wanted, since)) if *wanted == order => *since,
            _ => now,
        };
        self.wanted = Some((order.clone(), since));
        if now < since + settle {
            return since + settle;
        }
        self.propose(
            role,
            &picture,
            order,
            None,
            "the line of succession changed".into(),
            c,
            q,
            now,
        );
        now + PROPOSAL_LIMIT
    }

    /// While the holder is asked to hand over, the line stays as it is; at most for a while.
    fn handing_over(&mut self, picture: &Picture, now: Mono) -> Option<Mono> {
        let at = picture.line.handover?;
        picture.holder.filter(|holder| holder.epoch <= at)?;
        let since = match self.handover {
            Some((version, since)) if version == picture.line.version => since,
            _ => {
                self.handover = Some((picture.line.version, now));
                now
            }
        };
        (now < since + HANDOVER_LIMIT).then_some(since + HANDOVER_LIMIT)
    }

    /// `preempt_after`: a better node that has been fit for long enough is handed the role.
    fn preempt(&mut self, role: &RoleCore, picture: &Picture, c: &Cluster, q: &mut Queue, now: Mono) -> Mono {
        let Some(after) = c.config.cluster.preempt_after else {
            return Mono::MAX;
        };
        // Nobody is better whom clients do not reach, or who lacks a program: a holder gives way to no such node.
        let grounds = c.grounds(now);
        let good =
            |candidate: &&Candidate| candidate.fit && candidate.able && !grounds.is_cut(candidate.owner);
        let all = || picture.candidates.iter().filter(good);
        self.fit_since.retain(|owner, _| all().any(|c| c.owner == *owner));
        for candidate in all() {
            self.fit_since.entry(candidate.owner).or_insert(now);
        }
        let Some(holder) = picture.holder else {
            return Mono::MAX;
        };
        let priority = |owner: Owner| {
            picture
                .candidates
                .iter()
                .find(|c| c.owner == owner)
                .map(|c| c.priority)
        };
        let (mut order, cut): (Vec<Owner>, Vec<Owner>) = round(picture)
            .into_iter()
            .partition(|owner| all().any(|c| c.owner == *owner));
        let (Some(best), Some(present)) = (order.first().copied(), priority(holder.owner)) else {
            return Mono::MAX;
        };
        order.extend(cut);
        if best == holder.owner || priority(best) <= Some(present) || c.state.paused {
            return Mono::MAX;
        }
        let due = self.fit_since.get(&best).copied().unwrap_or(now) + after;
        if now >= due {
            let order = std::iter::repeat_n(order, crate::plan::ROUNDS)
                .flatten()
                .collect();
            let cause = format!(
                "{} is preferred (priority {} over {}) and has been fit for {}",
                c.call(best.node),
                priority(best).unwrap_or_default(),
                present,
                baton_shared::config::show_duration(after)
            );
            self.propose(role, picture, order, Some(holder.epoch), cause, c, q, now);
        }
        due
    }

    #[allow(clippy::too_many_arguments)] // one call, made of what the two callers have at hand
    fn propose(
        &mut self,
        role: &RoleCore,
        picture: &Picture,
        order: Vec<Owner>,
        handover: Option<Epoch>,
        cause: String,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) {
        let command = set_line(&role.name, picture.line.version, order, handover, cause, c);
        self.proposed = Some((q.propose(command), now));
        self.wanted = None;
    }
}

/// The command that makes a line.
pub(crate) fn set_line(
    role: &RoleName,
    replaces: u64,
    order: Vec<Owner>,
    handover: Option<Epoch>,
    cause: String,
    c: &Cluster,
) -> Command {
    Command::SetLine {
        role: role.clone(),
        replaces,
        order,
        wall_ms: trusted_wall_ms(c),
        handover,
        cause,
    }
}

/// The wall clock, unless it is far ahead of everybody else's: epochs could never come back from there.
fn trusted_wall_ms(c: &Cluster) -> u64 {
    let others = c
        .peers
        .values()
        .filter_map(|p| p.report.as_ref())
        .map(|r| r.heartbeat.wall_ms);
    match others.max() {
        Some(latest) if c.wall_ms > latest.saturating_add(MAX_AHEAD_MS) => latest,
        _ => c.wall_ms,
    }
}

/// What the coordinator sees of a role.
pub(crate) fn picture(role: &RoleCore, c: &Cluster, now: Mono) -> Picture {
    let holders = c.peers.values().filter_map(|p| {
        let beat = p.fresh_beat(&role.name, &c.timing, now)?;
        let owner = p.owner();
        let claimed = beat.claim.as_ref().map(|claim| claim.epoch);
        beat.holding.map(|epoch| (Place { epoch, owner }, claimed))
    });
    let own = role.holding(now).map(|epoch| {
        let owner = c.owner();
        (Place { epoch, owner }, role.lease.claimed())
    });
    let found = holders.chain(own).max_by_key(|(place, _)| place.epoch);
    let holder = found.map(|(place, _)| place);
    // One that is moving up has a greater epoch already; voters write it down before it holds it.
    let reach = found.map(|(place, claimed)| claimed.unwrap_or_default().max(place.epoch));
    let floors = c
        .peers
        .values()
        .filter(|p| c.electorate.contains(p.id))
        .filter_map(|p| p.fresh_beat(&role.name, &c.timing, now));
    let mut floor = role.voter.floor().epoch.max(c.state.floor(&role.name).epoch);
    let mut outgrown = false;
    let bound_to_other = |owner: Option<Owner>| owner.is_some_and(|o| Some(o) != holder.map(|h| h.owner));
    for beat in floors {
        floor = floor.max(beat.floor.epoch);
        outgrown |= reach.is_some_and(|reach| beat.floor.epoch > reach)
            && !bound_to_other(beat.promise.map(|p| p.owner));
    }
    let mine = role.voter.running(now).map(|p| p.owner);
    outgrown |= reach.is_some_and(|reach| role.voter.floor().epoch > reach) && !bound_to_other(mine);
    let mut line = c
        .state
        .roles
        .get(&role.name)
        .map(|r| r.line.clone())
        .unwrap_or_default();
    line.places.retain(|place| !spent(place, role, c, now));
    Picture {
        holder,
        line,
        floor,
        outgrown,
        candidates: candidates(role, c, now),
    }
}

/// Whether its owner gave this place up, or a later one: it will not claim it (again), granted or not (H1, H4).
fn spent(place: &Place, role: &RoleCore, c: &Cluster, now: Mono) -> bool {
    if place.owner == c.owner() {
        return role.released.iter().any(|epoch| *epoch >= place.epoch);
    }
    c.alive(place.owner, now)
        .and_then(|peer| peer.beat(&role.name))
        .is_some_and(|beat| beat.released.iter().any(|epoch| *epoch >= place.epoch))
}

fn candidates(role: &RoleCore, c: &Cluster, now: Mono) -> Vec<Candidate> {
    let peers = c
        .peers
        .values()
        .filter(|p| (p.kind.may_act() || broken!(UnfitInLine)) && p.id != NodeId(0))
        .map(|peer| Candidate {
            name: peer.name.clone(),
            owner: peer.owner(),
            priority: peer.priority,
            fit: c.sound(peer.owner(), &role.name, now) || broken!(UnfitInLine),
            able: peer.beat(&role.name).is_some_and(|beat| beat.able) || broken!(UnfitInLine),
            writes: c.writes(peer.owner()) || broken!(HungInLine),
        });
    let node = c.config.my_node();
    let me = node.kind.may_act().then(|| Candidate {
        name: c.me().clone(),
        owner: c.owner(),
        priority: node.priority,
        fit: role.health.is_fit()
            && role.willing(now)
            && !c.guardian_stands_still
            && !c.leaving
            && !c.drained(c.me())
            && c.window_wins(c.timing.window),
        able: role.lacks.is_none(),
        writes: c.fitness.is_fit() || broken!(HungInLine),
    });
    let mut candidates: Vec<Candidate> = peers.chain(me).collect();
    leave_out(&mut candidates);
    candidates
}
