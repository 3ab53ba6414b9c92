//! Checks of the local application: one task per role asks, counts, and reports when the verdict changes.
//!
//! A check that hangs has failed. Until the first result the application counts as unhealthy; the first result decides
//! alone, after that `rise` and `fall` count.

pub mod probe;

use crate::control::{Notice, RoleStates};
use baton_core::Input;
use baton_shared::config::{Check, Config};
use baton_shared::id::RoleName;
use baton_shared::view::RoleState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Between two checks of an application that is being promoted: its first good one ends the gap.
const PROMOTING_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the checks of every role, anew where another configuration changes them, until the control loop is gone.
pub async fn run(
    mut configs: watch::Receiver<Arc<Config>>,
    states: watch::Receiver<RoleStates>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<RoleName, (Option<Check>, Option<AbortHandle>)> = BTreeMap::new();
    loop {
        let config = configs.borrow_and_update().clone();
        for (role, settings) in &config.roles {
            let check = settings.check.clone().filter(|_| config.my_node().kind.may_act());
            if running.get(role).is_some_and(|(old, _)| *old == check) {
                continue;
            }
            if let Some((_, Some(old))) = running.remove(role) {
                old.abort();
            }
            let reporter = Reporter::new(role.clone(), notices.clone());
            let task = match check.clone() {
                Some(check) => Some(tasks.spawn(watch_role(check, states.clone(), reporter))),
                None => {
                    unchecked(reporter).await;
                    None
                }
            };
            running.insert(role.clone(), (check, task));
        }
        tokio::select! {
            changed = configs.changed() => {
                if changed.is_err() {
                    return Ok(()); // the agent is exiting
                }
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(()) => return Ok(()), // the control loop has stopped
                Err(error) if error.is_cancelled() => {}
                Err(error) => return Err(error.to_string()),
            },
        }
    }
}

async fn unchecked(mut reporter: Reporter) {
    reporter.say(true, "no check is configured").await;
}

/// Tells the core about one role, when the verdict changes.
struct Reporter {
    role: RoleName,
    notices: mpsc::Sender<Notice>,
    said: Option<bool>,
}

impl Reporter {
    fn new(role: RoleName, notices: mpsc::Sender<Notice>) -> Reporter {
        Reporter {
            role,
            notices,
            said: None,
        }
    }

    /// False once nobody listens.
    async fn say(&mut self, healthy: bool, reason: &str) -> bool {
        if self.said == Some(healthy) {
            return !self.notices.is_closed();
        }
        self.said = Some(healthy);
        let input = Input::Health {
            role: self.role.clone(),
            healthy,
            reason: reason.into(),
        };
        self.notices.send(input.into()).await.is_ok()
    }
}

/// Counts results.
struct Verdict {
    rise: u32,
    fall: u32,
    /// `None` until the first result.
    healthy: Option<bool>,
    /// Results in a row that speak against it.
    against: u32,
}

impl Verdict {
    fn new(check: &Check, healthy: Option<bool>) -> Verdict {
        Verdict {
            rise: check.rise,
            fall: check.fall,
            healthy,
            against: 0,
        }
    }

    /// Takes in a result; the verdict after it.
    fn after(&mut self, good: bool) -> bool {
        let Some(healthy) = self.healthy else {
            self.healthy = Some(good);
            return good;
        };
        if good == healthy {
            self.against = 0;
            return healthy;
        }
        self.against += 1;
        if self.against >= if good { self.rise } else { self.fall } {
            self.against = 0;
            self.healthy = Some(good);
        }
        self.healthy == Some(true)
    }
}

fn promoted(state: RoleState) -> bool {
    matches!(state, RoleState::Promoting | RoleState::Active)
}

fn state_of(states: &RoleStates, role: &RoleName) -> RoleState {
    states.get(role).copied().unwrap_or(RoleState::Standby)
}

/// Checks one role until nobody listens.
async fn watch_role(check: Check, mut states: watch::Receiver<RoleStates>, mut reporter: Reporter) {
    let mut verdict = Verdict::new(&check, None);
    if check.standby && !reporter.say(false, "not checked yet").await {
        return;
    }
    let mut start = Instant::now();
    loop {
        if !check.standby && !promoted(state_of(&states.borrow_and_update(), &reporter.role)) {
            let Some(fresh) = stand_by(&check, &mut states, &mut reporter).await else {
                return;
            };
            verdict = fresh;
            start = Instant::now();
        }
        let result = match timeout(check.timeout, probe::run(&check)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no result in {:?}", check.timeout)),
        };
        let state = state_of(&states.borrow_and_update(), &reporter.role);
        if !check.standby && !promoted(state) {
            continue; // it was demoted meanwhile: the result says nothing
        }
        let healthy = verdict.after(result.is_ok());
        let reason = result.unwrap_or_else(|reason| reason);
        if !reporter.say(healthy, &reason).await {
            return;
        }
        let hurry = state == RoleState::Promoting && !healthy;
        let pause = if hurry {
            check.interval.min(PROMOTING_INTERVAL)
        } else {
            check.interval
        };
        start = (start + pause).max(Instant::now());
        let demoted = states.wait_for(|states| !check.standby && !promoted(state_of(states, &reporter.role)));
        tokio::select! {
            () = sleep_until(start) => {}
            gone = demoted => if gone.is_err() { return },
        }
    }
}

/// Counts as healthy until it is promoted; then `None` if nobody listens, or a fresh verdict.
///
/// While it is being promoted the application counts as unhealthy until it answers. Where it became active without
/// that (there is nothing to promote), it stays healthy until it has failed `fall` times.
async fn stand_by(
    check: &Check,
    states: &mut watch::Receiver<RoleStates>,
    reporter: &mut Reporter,
) -> Option<Verdict> {
    if !reporter.say(true, "not checked while it is not active").await {
        return None;
    }
    let role = reporter.role.clone();
    let state = match states.wait_for(|states| promoted(state_of(states, &role))).await {
        Ok(states) => state_of(&states, &role),
        Err(_) => return None,
    };
    if state == RoleState::Active {
        return Some(Verdict::new(check, Some(true)));
    }
    let heard = reporter.say(false, "not checked yet since it was promoted").await;
    heard.then(|| Verdict::new(check, None))
}

#[cfg(test)]
mod tests;
