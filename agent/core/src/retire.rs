//! Stepping down: stop the application first, then give the epoch up for good (DESIGN §5, H3, H4, H6).

use crate::alarm::About;
use crate::chronicle;
use crate::cluster::{Cluster, Queue};
use crate::input::{Action, Health, Process};
use crate::output::{GuardChange, Level, Output};
use crate::raise::Told;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::config::{OnFailure, show_duration};
use baton_shared::history::{stage, what};
use baton_shared::id::Epoch;
use baton_shared::view::RoleState;
use std::time::Duration;

/// How the words of a demotion that failed begin.
const DEMOTION_FAILED: &str = "demotion failed";
/// Released epochs that heartbeats repeat.
const RELEASED_KEPT: usize = 4;
/// Characters of a farewell that heartbeats carry.
const FAREWELL_LENGTH: usize = 160;
/// A demote that failed is tried again after this.
const DEMOTE_RETRY: Duration = Duration::from_secs(1);
/// A promote that failed, where the configuration says so; and twice as long each further time, up to the other.
const PROMOTE_RETRY: Duration = Duration::from_millis(500);
const MAX_PROMOTE_RETRY: Duration = Duration::from_secs(30);
/// A node whose promotion failed stays out of line for this long at first, and twice as long each further time, up to the other: who has
/// mended what failed everywhere waits for it.
const BACK_OFF: Duration = Duration::from_secs(2);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

impl RoleCore {
    /// Begins to stop the application. The lease is kept, where it can be, until that is done (H4).
    pub(crate) fn demote(&mut self, why: String, c: &Cluster, q: &mut Queue) {
        let epoch = self.told.epoch;
        self.told = Told::promoted(epoch);
        q.log(
            Level::Info,
            format!("role {}: stepping down from epoch {epoch}: {why}", self.name),
        );
        let asked = c.leaving
            || c.drained(c.me())
            || c.line(&self.name)
                .is_some_and(|line| line.handover.is_some_and(|at| at >= epoch));
        if self.state == RoleState::Active && !asked {
            q.tell(self.own_event(what::LOST, why.clone(), c));
        }
        self.enter(RoleState::Demoting, why, q);
        self.urgent = false;
        q.push(Output::Guard {
            role: self.name.clone(),
            change: GuardChange::Shut,
        });
        self.guard = None;
        self.to_record = None;
        q.urgent_all = true;
        self.run_demote(c, q);
        broken!(ReleasedBeforeStopped => {
            self.release(c, q);
            self.enter(RoleState::Standby, String::new(), q);
        });
    }

    /// The run before this one may have left the application acting: it is stopped before anything else (H4).
    pub(crate) fn demote_first(&mut self, now: Mono) {
        self.state = RoleState::Demoting;
        self.reason = "the application may still act since the run before".into();
        self.again = Some(now);
        // The guardian is told when that is done.
        self.lent = Some(Mono::ZERO);
    }

    /// The agent stood still until the lease was about to end, and its guardian stopped the application.
    pub(crate) fn fenced(&mut self, c: &Cluster, q: &mut Queue) {
        if matches!(self.state, RoleState::Promoting | RoleState::Active) {
            let why = "the agent stood still until its lease was about to end, and its guardian stopped the application";
            self.demote(why.into(), c, q);
        }
    }

    pub(crate) fn run_promote(&mut self, q: &mut Queue) {
        self.again = None;
        q.push(Output::Run {
            role: self.name.clone(),
            epoch: self.promoting,
            action: Action::Promote,
            from: self.story.from.clone(),
            cause: self.story.cause.clone(),
        });
    }

    fn run_demote(&mut self, c: &Cluster, q: &mut Queue) {
        self.demoting = true;
        self.again = None;
        let (role, epoch, cause) = (self.name.clone(), self.told.epoch, self.reason.clone());
        q.push(Output::Run {
            role,
            epoch,
            action: Action::Demote,
            from: Some(c.me().clone()),
            cause,
        });
    }

    pub(crate) fn turn_demoting(&mut self, c: &Cluster, q: &mut Queue, now: Mono) {
        if self.lease.held(now).is_none() {
            self.lease.unclaim();
        }
        if self.again.is_some_and(|at| now >= at) {
            self.run_demote(c, q);
        }
    }

    /// H4: what kept the demotion from succeeding may be gone, so it is not waited for the next try.
    pub(crate) fn demote_at_once(&mut self, now: Mono) {
        if self.state == RoleState::Demoting {
            self.again = self.again.map(|again| again.min(now));
        }
    }

    /// An action has ended.
    pub(crate) fn action_done(
        &mut self,
        epoch: Epoch,
        action: Action,
        result: Result<(), String>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) {
        if action == Action::Tell {
            return self.has_told(epoch, result, q, now);
        }
        let current = epoch <= self.lease.highest();
        let settings = c.config.roles.get(&self.name);
        let policy = settings.and_then(|role| match action {
            Action::Promote => role.promote.as_ref(),
            Action::Demote => role.demote.as_ref(),
            Action::Tell => None,
        });
        let policy = policy.map(|action| action.on_failure);
        let result = match (action, policy, result) {
            (Action::Promote, Some(OnFailure::Stay), Err(why)) => {
                q.log(
                    Level::Error,
                    format!(
                        "role {}: promotion failed, and counts as done (on_failure = \"stay\"): {why}",
                        self.name
                    ),
                );
                Ok(())
            }
            (Action::Demote, Some(OnFailure::Release), Err(why)) => {
                q.log(Level::Error, format!("role {}: the demote action failed, and the role is released all the same (on_failure = \"release\"): {why}", self.name));
                Ok(())
            }
            (_, _, result) => result,
        };
        match (action, self.state, result) {
            (Action::Promote, RoleState::Promoting, Err(why))
                if current && policy == Some(OnFailure::Retry) =>
            {
                let pause = PROMOTE_RETRY
                    .saturating_mul(1 << self.tries.min(16))
                    .min(MAX_PROMOTE_RETRY);
                self.tries += 1;
                self.again = Some(now + pause);
                self.reason = format!(
                    "promotion failed, and is tried again in {}: {why}",
                    show_duration(pause)
                );
                q.log(Level::Error, format!("role {}: {}", self.name, self.reason));
                self.fails(format!("promotion failed: {why}"), c, q, now);
            }
            (Action::Promote, RoleState::Promoting, Ok(())) if current => {
                self.tries = 0;
                self.promoted = Some(now);
                self.story.reach(stage::PROMOTED, now);
                match self.health {
                    Health::Healthy => {}
                    Health::Untried => self.reason = "promoted, and waiting for the first check".into(),
                    Health::Unhealthy => {
                        self.reason = format!(
                            "promoted, and waiting for the application: {}",
                            self.health_reason
                        );
                    }
                }
                q.dirty = true;
            }
            (Action::Promote, RoleState::Promoting, Err(why)) if current => {
                q.log(
                    Level::Error,
                    format!("role {}: promotion failed: {why}", self.name),
                );
                self.back_off(now);
                self.fails(format!("promotion failed: {why}"), c, q, now);
                self.demote(format!("promotion failed: {why}"), c, q);
            }
            (Action::Demote, RoleState::Demoting, Ok(())) if self.demoting => {
                (self.demoting, self.stuck) = (false, None);
                self.failed
                    .take_if(|failure| failure.words.starts_with(DEMOTION_FAILED));
                let why = self.reason.clone();
                self.farewell = Some((why.chars().take(FAREWELL_LENGTH).collect(), now));
                self.release(c, q);
                self.enter(RoleState::Standby, format!("stepped down: {why}"), q);
            }
            (Action::Demote, RoleState::Demoting, Err(why)) if self.demoting => {
                let stays = policy == Some(OnFailure::Stay);
                let then = if stays {
                    "the role is kept until it succeeds, and nobody takes over"
                } else {
                    "the role is not released before it succeeds, others take over when the lease has ended"
                };
                q.log(
                    Level::Error,
                    format!(
                        "role {}: the demote action failed and is tried again; {then}: {why}",
                        self.name
                    ),
                );
                self.fails(format!("{DEMOTION_FAILED}: {why}"), c, q, now);
                self.demoting = false;
                self.again = Some(now + DEMOTE_RETRY);
                if !stays {
                    // H4, H6: not released, and not renewed either.
                    self.lease.unclaim();
                }
            }
            _ => {}
        }
    }

    /// H3, H4: the guard is closed for good, then the epoch is given up; the heartbeats that say so leave after this.
    /// Every epoch that is held or claimed goes at once: a claim to move up has taken over the promises that the lower epoch's
    /// lease rests on.
    pub(crate) fn release(&mut self, c: &Cluster, q: &mut Queue) {
        let epochs = [
            self.lease.held(Mono::ZERO).map(|(epoch, _)| epoch),
            self.lease.claimed(),
            Some(self.lease.highest()),
        ];
        for epoch in epochs.into_iter().flatten().filter(|e| *e > Epoch(0)) {
            q.push(Output::Guard {
                role: self.name.clone(),
                change: GuardChange::Close(epoch),
            });
            if !self.released.contains(&epoch) {
                self.released.push(epoch);
            }
            self.voter.released(epoch, c.owner());
        }
        if self.released.len() > RELEASED_KEPT {
            self.released.drain(..self.released.len() - RELEASED_KEPT);
        }
        self.guard = None;
        self.lease.drop_lease();
        (self.promoted, self.was_active, self.urgent, self.paused_until) = (None, false, false, None);
        (self.down, self.gap, self.again, self.tries) = (None, None, None, 0);
        self.to_record = None;
        q.urgent_all = true;
    }

    /// The managed process of this promotion ended, or runs again.
    pub(crate) fn process(&mut self, epoch: Epoch, process: Process, q: &mut Queue) {
        if !self.holds() || (epoch != self.promoting && !broken!(AnyEpochsProcess)) {
            return;
        }
        self.down = match process {
            Process::Up => {
                self.stuck = None;
                None
            }
            Process::Restarting(why) => Some((why, false)),
            Process::Failed(why) => Some((why, true)),
        };
        if let Some((why, _)) = &self.down {
            q.log(
                Level::Warn,
                format!("role {}: the application ended: {why}", self.name),
            );
        }
        q.dirty = true;
    }

    /// Some of the application was killed and does not go away: until it does, nothing is released (H4).
    pub(crate) fn stuck(&mut self, processes: String, c: &Cluster, q: &mut Queue) {
        if self.stuck.as_ref() != Some(&processes) {
            let text = format!("role {}: killed, and still there: {processes}", self.name);
            q.log(Level::Error, text);
            q.tell(chronicle::stuck(&self.name, &processes, c));
            self.stuck = Some(processes);
            q.dirty = true;
        }
    }

    /// The application took so long to vanish, and the lease allows for less: the next time it may act past its end.
    pub(crate) fn slow_kill(&mut self, took: Duration, allowed: Duration, c: &mut Cluster, q: &mut Queue) {
        let slow = (took > allowed).then(|| {
            let enough = Duration::from_millis((took * 3 / 2).as_millis() as u64 + 1);
            let [took, allowed, enough] = [took, allowed, enough].map(show_duration);
            format!(
                "role {}: the application took {took} to vanish after it was killed, and the lease keeps {allowed} for that; set \
                 process.kill_time = \"{enough}\"",
                self.name
            )
        });
        if slow == self.slow_kill {
            return;
        }
        let about = About::SlowKill(self.name.clone());
        match slow.clone() {
            Some(text) => c.alarms.lasts(about, q, text),
            None => c.alarms.call_off(&about, q),
        }
        self.slow_kill = slow;
    }

    pub(crate) fn back_off(&mut self, now: Mono) {
        let pause = BACK_OFF
            .saturating_mul(1 << self.failures.min(16))
            .min(MAX_BACK_OFF);
        self.unwilling_until = now + pause;
        self.failures += 1;
    }
}
