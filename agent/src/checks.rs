//! Checks of the local application: one task per role asks, counts, and reports when the verdict changes.
//!
//! A check that hangs has failed. Until the first result the application counts as unhealthy; the first result decides
//! alone, after that `rise` and `fall` count. A proven death decides at once.

mod command;
pub(crate) mod grpc;
mod http;
pub mod probe;
mod process;

use crate::control::{Notice, RoleStates};
use baton_core::Input;
use baton_core::input::Health;
use baton_shared::clock::Mono;
use baton_shared::config::{Check, Config, Probe};
use baton_shared::history::duration;
use baton_shared::id::RoleName;
use baton_shared::view::{Checked, Published, RoleState};
use probe::{Asker, Failure};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Between two checks of an application that is being promoted: its first good one ends the gap. They begin close to each
/// other, for many are ready in no time, and thin out for those that are not.
const PROMOTING_FIRST: Duration = Duration::from_millis(5);
const PROMOTING_LAST: Duration = Duration::from_millis(100);
/// Until the first result.
const NOT_CHECKED: &str = "not checked yet";
/// A sick application whose sickness is another now is told of no more often: failing checks must not keep the control loop
/// busy.
const REWORDED: Duration = Duration::from_secs(5);
/// A check that failed for so long before it was called sick: until then nobody else could take over.
const WORTH_A_WORD: Duration = Duration::from_millis(200);
/// Failures are logged no more often.
const LOGGED: Duration = Duration::from_secs(10);

/// Runs the checks of every role, anew where another configuration changes them, until the control loop is gone.
pub async fn run(
    mut configs: watch::Receiver<Arc<Config>>,
    states: watch::Receiver<RoleStates>,
    published: Arc<Published>,
    notices: mpsc::Sender<Notice>,
) -> Result<(), String> {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<RoleName, (Option<Check>, Option<AbortHandle>)> = BTreeMap::new();
    let mut said: BTreeMap<RoleName, Said> = BTreeMap::new();
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
            let said = said.entry(role.clone()).or_default().clone();
            let reporter = Reporter::new(role.clone(), said, published.clone(), notices.clone());
            let task = match check.clone() {
                Some(check) => {
                    let asker = Asker::new(&check).beside(vec![
                        ("BATON_NODE", config.me.to_string()),
                        ("BATON_CLUSTER", config.cluster.name.to_string()),
                        ("BATON_ROLE", role.to_string()),
                    ]);
                    Some(tasks.spawn(watch_role(check, asker, states.clone(), reporter)))
                }
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
    reporter
        .without_result(Health::Healthy, "no check is configured")
        .await;
}

/// The verdict that the core was last told. It outlives the task: a check that is changed does not begin by calling a
/// healthy application sick.
type Said = Arc<Mutex<Option<Told>>>;

/// What the core was told, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    health: Health,
    reason: String,
    at: Instant,
}

/// One look at the application.
struct Seen {
    result: Result<String, Failure>,
    /// How long it took; `None` for a death that was told of itself.
    took: Option<Duration>,
}

/// Tells the core about one role when the verdict changes, and the faces every result.
struct Reporter {
    role: RoleName,
    said: Said,
    /// How long it took is part of the verdict's words: a command's duration says much.
    timed: bool,
    /// When a failure was last logged, and which; none after a good result.
    logged: Option<(Instant, String)>,
    /// When the first of the failures in a row began that are under way.
    failing: Option<Instant>,
    published: Arc<Published>,
    notices: mpsc::Sender<Notice>,
}

impl Reporter {
    fn new(role: RoleName, said: Said, published: Arc<Published>, notices: mpsc::Sender<Notice>) -> Reporter {
        Reporter {
            role,
            said,
            timed: false,
            logged: None,
            failing: None,
            published,
            notices,
        }
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Option<Told>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A result, and the verdict after it. False once nobody listens.
    /// `anew`: it is told although it is the verdict of before.
    async fn result(&mut self, healthy: bool, seen: Seen, anew: bool) -> bool {
        let good = seen.result.is_ok();
        let now = Instant::now();
        let begun = now.checked_sub(seen.took.unwrap_or_default()).unwrap_or(now);
        self.failing = (!good).then(|| self.failing.unwrap_or(begun));
        let (reason, output) = match seen.result {
            Ok(reason) => (reason, String::new()),
            Err(failure) => (failure.reason, failure.output),
        };
        self.log(good, &reason, &output);
        self.show(Some(Checked {
            good,
            healthy,
            reason: reason.clone(),
            output,
            took: seen.took,
            at: Mono::now(),
        }));
        if anew {
            *self.said() = None;
        }
        self.say(healthy.into(), &reason, seen.took).await
    }

    /// A verdict that rests on no check. False once nobody listens.
    async fn without_result(&mut self, health: Health, reason: &str) -> bool {
        self.show(None);
        self.say(health, reason, None).await
    }

    /// A new failure is logged, with what the application said of it; but failures must not fill the log.
    fn log(&mut self, good: bool, reason: &str, output: &str) {
        let now = Instant::now();
        let colon = if output.is_empty() { "" } else { ": " };
        let text = format!("{reason}{colon}{output}");
        match &mut self.logged {
            Some((_, last)) if good => last.clear(),
            _ if good => {}
            Some((at, last)) if now - *at < LOGGED || *last == text => {}
            logged => {
                tracing::warn!(role = %self.role, "the check failed: {text}");
                *logged = Some((now, text));
            }
        }
    }

    fn show(&self, checked: Option<Checked>) {
        if let Some(place) = self.published.checks.get(&self.role) {
            place.store(checked.map(Arc::new));
        }
    }

    /// Tells the core, unless it knows: another verdict at once, other words for an application that is still sick now
    /// and then, for they say what is to be mended.
    async fn say(&mut self, health: Health, reason: &str, took: Option<Duration>) -> bool {
        let now = Instant::now();
        let known = self.said().as_ref().is_some_and(|told| {
            let sick = health == Health::Unhealthy && told.reason != reason;
            let due = told.reason == NOT_CHECKED || now - told.at >= REWORDED;
            told.health == health && !(sick && due)
        });
        if known {
            return !self.notices.is_closed();
        }
        let was_healthy = self
            .said()
            .as_ref()
            .is_some_and(|told| told.health == Health::Healthy);
        let mut words = match took.filter(|_| self.timed) {
            Some(took) => format!("{reason} after {} ms", took.as_millis()),
            None => reason.into(),
        };
        // Clients were without service for so long before the role was given up, from when the history counts.
        let failing = self.failing.map(|since| now - since).unwrap_or_default();
        if health == Health::Unhealthy && was_healthy && failing >= WORTH_A_WORD {
            words.push_str(&format!(" (failing for {} by then)", duration(failing)));
        }
        let input = Input::Health {
            role: self.role.clone(),
            health,
            reason: words,
        };
        let heard = self.notices.send(input.into()).await.is_ok();
        *self.said() = Some(Told {
            health,
            reason: reason.into(),
            at: now,
        });
        heard
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
    fn after(&mut self, result: &Result<String, Failure>) -> bool {
        let good = result.is_ok();
        if result.as_ref().is_err_and(|failure| failure.proven) {
            self.healthy = None;
        }
        let Some(healthy) = self.healthy else {
            self.against = 0;
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
        self.is_healthy()
    }

    fn is_healthy(&self) -> bool {
        self.healthy == Some(true)
    }
}

fn promoted(state: RoleState) -> bool {
    matches!(state, RoleState::Promoting | RoleState::Active)
}

fn state_of(states: &RoleStates, role: &RoleName) -> RoleState {
    states.get(role).copied().unwrap_or(RoleState::Standby)
}

/// When the next check is due.
struct Pace {
    interval: Duration,
    due: Instant,
    /// While the application is being promoted.
    hurry: Duration,
}

impl Pace {
    /// The first one.
    fn new(check: &Check) -> Pace {
        Pace {
            interval: check.interval,
            due: Instant::now() + check.delay,
            hurry: PROMOTING_FIRST,
        }
    }

    /// From now on a good check is all that is missing.
    fn hurry(&mut self) {
        self.hurry = PROMOTING_FIRST;
        self.due = self.due.min(Instant::now());
    }

    /// A check has ended. `wanted`: a good one is all that is missing.
    fn checked(&mut self, good: bool, wanted: bool) {
        let pause = if wanted {
            let pause = if good { PROMOTING_FIRST } else { self.hurry };
            self.hurry = (pause * 2).min(PROMOTING_LAST);
            self.interval.min(pause)
        } else {
            self.interval
        };
        self.due = (self.due + pause).max(Instant::now());
    }
}

/// Checks one role until nobody listens.
async fn watch_role(
    check: Check,
    mut asker: Asker,
    mut states: watch::Receiver<RoleStates>,
    mut reporter: Reporter,
) {
    reporter.timed = matches!(check.probe, Probe::Command(_));
    let known = reporter.said().as_ref().map(|told| told.health);
    if check.standby && known.is_none() && !reporter.without_result(Health::Unhealthy, NOT_CHECKED).await {
        return;
    }
    let known = known.filter(|known| *known != Health::Untried);
    let mut verdict = Verdict::new(&check, known.map(Health::is_fit));
    let mut pace = Pace::new(&check);
    let mut state = state_of(&states.borrow_and_update(), &reporter.role);
    loop {
        if !check.standby && !promoted(state) {
            let Some(fresh) = stand_by(&check, &mut states, &mut reporter).await else {
                return;
            };
            (verdict, pace) = (fresh, Pace::new(&check));
            state = state_of(&states.borrow_and_update(), &reporter.role);
            continue;
        }
        let woken = wait(&pace, &mut states, &mut asker).await;
        let before = state;
        state = state_of(&states.borrow_and_update(), &reporter.role);
        let fresh = promoted(state) && !promoted(before);
        if fresh && !check.delay.is_zero() {
            pace.due = Instant::now() + check.delay;
        } else if state == RoleState::Promoting && state != before && !verdict.is_healthy() {
            pace.hurry();
        }
        let died = matches!(woken, Woken::Died(_));
        let seen = match woken {
            Woken::Gone => return,
            Woken::Changed => continue,
            Woken::Due if Instant::now() < pace.due => continue, // it was promoted this moment
            Woken::Due => {
                let begun = Instant::now();
                let asked = tokio::select! {
                    result = asker.ask() => Some(result),
                    () = tenure_ends(&check, states.clone(), &reporter.role) => None,
                };
                let Some(result) = asked else {
                    asker.give_up();
                    state = RoleState::Standby; // whatever it is by now: this tenure is over
                    continue;
                };
                Seen {
                    result,
                    took: Some(begun.elapsed()),
                }
            }
            Woken::Died(reason) => Seen {
                result: Err(Failure {
                    proven: true,
                    ..reason.into()
                }),
                took: None,
            },
        };
        // A result of before a demotion says nothing; the change itself is seen to at the next wait.
        let now = state_of(&states.borrow(), &reporter.role);
        if !check.standby && !promoted(now) {
            continue;
        }
        let good = seen.result.is_ok();
        let healthy = verdict.after(&seen.result);
        // The core forgot at the promotion what it knew; that may have come and gone unseen here.
        let anew = healthy && now == RoleState::Promoting;
        if !reporter.result(healthy, seen, anew).await {
            return;
        }
        let wanted = now == RoleState::Promoting && !healthy;
        match (died, wanted) {
            (true, true) => pace.hurry(),
            (true, false) => {} // the next one is due as before
            (false, _) => pace.checked(good, wanted),
        }
    }
}

/// Where only the active node is checked: once it is that no more. A check that is under way must not outlast it.
async fn tenure_ends(check: &Check, mut states: watch::Receiver<RoleStates>, role: &RoleName) {
    let over = states.wait_for(|states| !promoted(state_of(states, role)));
    if check.standby || over.await.is_err() {
        std::future::pending::<()>().await;
    }
}

enum Woken {
    /// It is time to check.
    Due,
    /// The state in some role has changed.
    Changed,
    /// The application is dead, and why.
    Died(String),
    /// Nobody tells states any more.
    Gone,
}

async fn wait(pace: &Pace, states: &mut watch::Receiver<RoleStates>, asker: &mut Asker) -> Woken {
    tokio::select! {
        biased;
        changed = states.changed() => if changed.is_ok() { Woken::Changed } else { Woken::Gone },
        reason = asker.death() => Woken::Died(reason),
        () = sleep_until(pace.due) => Woken::Due,
    }
}

/// Counts as untried until it is promoted, and then until it was checked (`/health` must not say 200 before that); then `None` if
/// nobody listens, or a fresh verdict.
async fn stand_by(
    check: &Check,
    states: &mut watch::Receiver<RoleStates>,
    reporter: &mut Reporter,
) -> Option<Verdict> {
    let idle = "not checked while it is not active";
    if !reporter.without_result(Health::Untried, idle).await {
        return None;
    }
    let role = reporter.role.clone();
    let promotion = states.wait_for(|states| promoted(state_of(states, &role))).await;
    promotion.is_ok().then(|| Verdict::new(check, None))
}

#[cfg(test)]
mod tests;
