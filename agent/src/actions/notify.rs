//! The notify action: run after each change of this node's state in a role, and for the first state after the start. Nothing
//! waits for it.
//!
//! One runs at a time for a role, and then the newest state is told: states that came and went meanwhile are left out, the last
//! one never. When the control loop has stopped, the last state is still told, and then this ends.

use super::Whose;
use super::call::{self, Facts};
use super::process::{GRACE, Keeping, Left, Stop, Stopped};
use crate::control::RoleStates;
use baton_shared::config::{Action, Config};
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::view::{Published, RoleState};
use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A role's failures are told no more often.
const WARNING: Duration = Duration::from_secs(60);

/// Runs the notify actions of every role until the control loop has stopped and the last states are told.
pub async fn run(
    whose: Whose,
    configs: watch::Receiver<Arc<Config>>,
    states: watch::Receiver<RoleStates>,
    published: Arc<Published>,
) -> Result<(), String> {
    // The set of roles does not change while a process runs.
    let roles: BTreeSet<RoleName> = configs.borrow().roles.keys().cloned().collect();
    let mut tasks = JoinSet::new();
    for role in roles {
        let teller = Teller {
            role,
            whose: whose.clone(),
            configs: configs.clone(),
            published: published.clone(),
            told: None,
            warned: None,
            left: Left::default(),
        };
        tasks.spawn(teller.run(states.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// This node in a role: its state, and the epoch of its promotion while it holds the role. So "active" once more, after a promotion that came
/// and went meanwhile, is news. A greater epoch at which it stays active is told before it is shown, and by a job of its own (`super`).
type Stand = (RoleState, Option<Epoch>);

fn same(one: Stand, other: Stand) -> bool {
    let moved = matches!((one.1, other.1), (Some(before), Some(now)) if before != now);
    one.0 == other.0 && !moved
}

/// Tells of one role.
struct Teller {
    role: RoleName,
    whose: Whose,
    configs: watch::Receiver<Arc<Config>>,
    published: Arc<Published>,
    told: Option<Stand>,
    /// When a failure was last warned of.
    warned: Option<Instant>,
    /// Who reads what the commands write, and what they left behind.
    left: Left,
}

impl Teller {
    async fn run(mut self, mut states: watch::Receiver<RoleStates>) {
        loop {
            let known = states.borrow_and_update().contains_key(&self.role);
            if known && let Some((stand, facts)) = self.news() {
                let action = self.action();
                let changed = if let Some(action) = action {
                    self.tell(&action, &facts, &mut states).await
                } else {
                    false
                };
                // What it was told is old if it changed meanwhile, even if it then changed back.
                self.told = (!changed).then_some(stand);
                continue;
            }
            if states.changed().await.is_err() {
                return; // the control loop has stopped, and its last word was told
            }
        }
    }

    /// The newest state, if it was not told yet, and what there is to say of it.
    fn news(&self) -> Option<(Stand, Facts)> {
        let view = self.published.view.load();
        let role = view.role(&self.role)?;
        let stand = (role.state, role.promoted);
        if self.told.is_some_and(|told| same(told, stand)) {
            return None;
        }
        let epoch = role.holder.as_ref().map(|holder| holder.epoch);
        let facts = Facts {
            action: "notify",
            role: self.role.clone(),
            epoch,
            from: epoch.and_then(|epoch| self.before(epoch)),
            cause: role.reason.clone(),
            state: Some(role.state),
        };
        Some((stand, facts))
    }

    /// Who was active before an epoch, by the history. The takeover to that epoch itself is recorded only after it.
    fn before(&self, epoch: Epoch) -> Option<NodeName> {
        let events = self.published.events.load();
        let takeovers = events
            .iter()
            .rev()
            .filter(|event| event.what == "takeover" && event.role.as_ref() == Some(&self.role));
        for event in takeovers {
            match event.epoch {
                Some(at) if at == epoch => return event.from.clone(),
                Some(at) if at < epoch => return event.node.clone(),
                _ => {}
            }
        }
        None
    }

    fn action(&self) -> Option<Action> {
        let config = self.configs.borrow();
        let acts = config.my_node().kind.may_act();
        config
            .roles
            .get(&self.role)
            .filter(|_| acts)
            .and_then(|role| role.notify.clone())
    }

    /// Runs the action to its end. Whether this node's state changed meanwhile.
    async fn tell(
        &mut self,
        action: &Action,
        facts: &Facts,
        states: &mut watch::Receiver<RoleStates>,
    ) -> bool {
        let how = (action.timeout, Stop::After(GRACE));
        self.left.tidy();
        let keeping = Keeping {
            name: format!("{}-notify", self.role),
            promotes: None,
        };
        let kept = (keeping, &mut self.left);
        let running = call::make(&action.call, facts, &self.whose, how, pending(), kept);
        let mut running = Box::pin(running);
        let (mut changed, mut open) = (false, true);
        let end = loop {
            tokio::select! {
                end = &mut running => break end,
                news = states.changed(), if open => match news {
                    Ok(()) => {
                        let state = states.borrow_and_update().get(&self.role).copied();
                        changed |= state != facts.state;
                    }
                    Err(_) => open = false,
                },
            }
        };
        drop(running);
        if let Err(Stopped::Failed(failed)) = end {
            self.warn(facts, &failed.to_string());
        }
        changed
    }

    fn warn(&mut self, facts: &Facts, reason: &str) {
        let state = facts.state.map(call::state_name).unwrap_or_default();
        let text = format!("notify action failed for state {state}: {reason}");
        let now = Instant::now();
        if self.warned.is_some_and(|at| now < at + WARNING) {
            tracing::debug!(role = %self.role, "{text}");
            return;
        }
        self.warned = Some(now);
        tracing::warn!(role = %self.role, "{text}");
    }
}

#[cfg(test)]
mod tests;
