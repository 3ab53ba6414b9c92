//! A role's managed process: the application, kept by the guardian ([`crate::guardian`]), started, watched, started again and stopped
//! from here. A cold one runs while its node is active; a warm one always, and is told by a signal.

use crate::control::Notice;
use crate::guardian::link::{Answers, GuardianLink};
use crate::keeper::{Foreign, program};
use baton_core::Input;
use baton_core::guardian::{Answer, Request};
use baton_core::input;
use baton_shared::config::{Config, Mode, OnFailure, Process, show_duration};
use baton_shared::id::{Epoch, RoleName};
use rustix::process::Pid;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Longest pause before it is started again.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// One that ran for so long has not failed again, but anew.
const LIVED: Duration = Duration::from_secs(60);
/// Beyond its own time to stop, its end is waited for so long (stuck in the kernel).
const VANISH: Duration = Duration::from_secs(5);
/// Between two looks at a process that waits for its signal, or at what was killed.
const LOOK: Duration = Duration::from_millis(1);
/// A process that was started less than this ago gets its promote signal once it can take it: most programs are ready by then, on a
/// busy machine too.
const READY: Duration = Duration::from_secs(2);
/// A program that blocks the signal for so long waits for it by sigwait(3) or signalfd(2). For a moment every shell blocks all
/// signals, for each program that it runs.
const STEADY: Duration = Duration::from_millis(100);
/// A start is answered within this, unless the program's file lies on a disk that hangs.
const START: Duration = Duration::from_secs(10);

/// A manager takes an order within this, or what follows is not held up for it.
const HOLD: Duration = Duration::from_millis(50);

const GONE: &str = "the guardian process is gone, or stands still";

type Done = oneshot::Sender<Result<(), String>>;

/// What the action runner wants of the application.
pub enum Order {
    /// It shall act.
    Promote {
        /// At this epoch.
        epoch: Epoch,
        /// Added to its environment.
        env: Vec<(String, String)>,
        /// Told when it runs.
        done: Done,
    },
    /// It stays active at this epoch: from its next start on, its environment says so.
    Tell(Epoch),
    /// Whatever comes before its demotion, a cold one that ended is not started again meanwhile.
    Hold,
    /// It shall act no more.
    Demote {
        /// Told when it does not (a cold one: when nothing of it is left).
        done: Done,
    },
}

/// The action runner's hold on one role's application.
#[derive(Clone, Debug)]
pub struct Application(mpsc::Sender<Order>);

impl Application {
    /// Has it act: a cold one is started.
    pub async fn promote(&self, epoch: Epoch, env: Vec<(String, String)>) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        self.ask(Order::Promote { epoch, env, done }, answer, START).await
    }

    /// Has it know of a greater epoch, once it is started again.
    pub async fn tell(&self, epoch: Epoch) {
        let _ = timeout(START, self.0.send(Order::Tell(epoch))).await; // the agent is stopping
    }

    /// A cold one that ended is started no more, until it is promoted again.
    pub async fn hold(&self) {
        let _ = timeout(HOLD, self.0.send(Order::Hold)).await; // the demotion that follows does not depend on it
    }

    /// Has it act no more: a cold one is stopped, within `limit` and a little more.
    pub async fn demote(&self, limit: Duration) -> Result<(), String> {
        let (done, answer) = oneshot::channel();
        self.ask(Order::Demote { done }, answer, limit + VANISH).await
    }

    async fn ask(
        &self,
        order: Order,
        answer: oneshot::Receiver<Result<(), String>>,
        limit: Duration,
    ) -> Result<(), String> {
        let gone = || "the agent is stopping".to_owned();
        self.0.send(order).await.map_err(|_| gone())?;
        match timeout(limit, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(format!(
                "the process did not do so within {}",
                show_duration(limit)
            )),
        }
    }
}

/// What the process does.
enum Run {
    Off,
    Starting(Option<Done>),
    On(Instant),
    /// Started again then.
    Waiting(Instant),
    Stopping(Done),
}

/// One role's managed process.
pub struct Manager {
    role: RoleName,
    slot: usize,
    configs: watch::Receiver<Arc<Config>>,
    guardian: GuardianLink,
    answers: Answers,
    orders: mpsc::Receiver<Order>,
    notices: mpsc::Sender<Notice>,
    run: Run,
    /// The application's first process, while it runs; and all of it, for when the guardian cannot stop it.
    leader: Option<Pid>,
    kept: Option<Foreign>,
    /// It was asked for when the guardian fell silent: what came of it is not known.
    unheard: bool,
    promoted: Option<Epoch>,
    env: Vec<(String, String)>,
    /// Ends in a row.
    ends: u32,
    /// A promote signal that waits until the process can take it, and who is told then.
    signal: Option<Waiting>,
}

/// A manager for the role at this place, and the hold on it. [`Manager::run`] must be run.
pub fn manage(
    role: RoleName,
    slot: usize,
    configs: watch::Receiver<Arc<Config>>,
    guardian: GuardianLink,
    answers: Answers,
    notices: mpsc::Sender<Notice>,
) -> (Application, Manager) {
    let (sender, orders) = mpsc::channel(1);
    let manager = Manager {
        role,
        slot,
        configs,
        guardian,
        answers,
        orders,
        notices,
        run: Run::Off,
        leader: None,
        kept: None,
        unheard: false,
        promoted: None,
        env: Vec::new(),
        ends: 0,
        signal: None,
    };
    (Application(sender), manager)
}

impl Manager {
    /// Manages until the agent exits.
    pub async fn run(mut self) -> Result<(), String> {
        while self.manage().await.is_err() {
            if !self.abandoned().await {
                break;
            }
            tracing::info!(role = %self.role, "the guardian goes on, and what it keeps is managed again");
        }
        Ok(()) // the agent is exiting
    }

    /// Until the agent exits. An error: the guardian is gone, or stands still.
    async fn manage(&mut self) -> Result<(), String> {
        if self.settings().is_some_and(|process| process.mode == Mode::Warm) {
            self.start(None).await?;
        }
        loop {
            let due = match self.run {
                Run::Waiting(at) => Some(at),
                _ => None,
            };
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.order(order).await?,
                    None => return Ok(()), // the agent is exiting
                },
                answer = self.answers.recv() => match answer {
                    Some(answer) => self.hear(answer).await?,
                    None => return Err(GONE.to_owned()),
                },
                () = self.guardian.stands_still() => return Err(GONE.to_owned()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.start(None).await?,
                () = sleep(LOOK), if self.signal.is_some() => self.promote_by_signal().await?,
            }
        }
    }

    /// The guardian is gone, or stands still. Its keeper kills the application in the first case, and nobody else does in the second:
    /// it is killed from here, by the same code, so that the role can be released before this process ends too.
    /// True: it goes on.
    async fn abandoned(&mut self) -> bool {
        match std::mem::replace(&mut self.run, Run::Off) {
            Run::Stopping(done) => self.vanish(done).await,
            Run::Starting(done) => {
                self.unheard = true;
                if let Some(done) = done {
                    answer(done, Err(GONE.to_owned()));
                }
            }
            _ => {}
        }
        self.signal = None;
        loop {
            // Killed at once, also while no demote asks for it: what it still does it does without a guard.
            let gone = self.kill_once();
            let order = tokio::select! {
                order = self.orders.recv() => order,
                () = sleep(LOOK), if !gone => continue,
                () = self.guardian.goes_on(), if gone => {
                    self.unheard = false;
                    return true;
                }
            };
            match order {
                Some(Order::Promote { done, .. }) => answer(done, Err(GONE.to_owned())),
                Some(Order::Tell(epoch)) => self.tell_epoch(epoch),
                Some(Order::Hold) => self.promoted = None,
                Some(Order::Demote { done }) => {
                    self.promoted = None;
                    self.vanish(done).await;
                }
                None => return false, // the agent is exiting
            }
        }
    }

    /// Whether nothing of the application is left; else one walk over what is.
    fn kill_once(&mut self) -> bool {
        // One that was asked for and has not been heard of may come; its keeper sees the lease.
        let gone = self.kept.as_ref().is_none_or(Foreign::is_gone);
        if let Some(kept) = self.kept.as_ref().filter(|_| !gone) {
            kept.kill();
        }
        gone
    }

    /// Waits for the end of all of it.
    async fn vanish(&mut self, done: Done) {
        if self.unheard {
            // H4: it may run; its keeper ends it with the guardian or the lease.
            let why = "the guardian was asked to start it, and has not said what came of that";
            return answer(done, Err(why.to_owned()));
        }
        let since = Instant::now();
        while !self.kill_once() {
            if since.elapsed() > VANISH {
                let left = self.kept.as_ref().map(Foreign::left).unwrap_or_default();
                return answer(done, Err(format!("the process cannot be killed: {left}")));
            }
            sleep(LOOK).await;
        }
        answer(done, Ok(()));
    }

    /// As the configuration has it now; a change counts from the next start.
    fn settings(&self) -> Option<Process> {
        let config = self.configs.borrow();
        let acts = config.my_node().kind.may_act();
        config
            .roles
            .get(&self.role)
            .and_then(|role| role.process.clone())
            .filter(|_| acts)
    }

    /// Whether a promotion that fails counts as done.
    fn stays(&self) -> bool {
        let config = self.configs.borrow();
        let promote = config
            .roles
            .get(&self.role)
            .and_then(|role| role.promote.as_ref());
        promote.is_some_and(|promote| promote.on_failure == OnFailure::Stay)
    }

    async fn order(&mut self, order: Order) -> Result<(), String> {
        let settings = self.settings();
        match (order, settings) {
            (Order::Promote { done, .. }, None) => answer(done, Ok(())),
            (Order::Promote { epoch, env, done }, Some(process)) => {
                (self.promoted, self.env, self.ends) = (Some(epoch), env, 0);
                if let Run::On(since) = self.run {
                    self.promote_running(process.promote_signal, since, Some(done))
                        .await?;
                } else {
                    self.start(Some(done)).await?;
                }
            }
            (Order::Tell(epoch), _) => self.tell_epoch(epoch),
            (Order::Hold, _) => {
                self.promoted = None;
                if matches!(self.run, Run::Waiting(_)) {
                    self.run = Run::Off;
                }
            }
            (Order::Demote { done }, settings) => {
                self.promoted = None;
                self.signal = None;
                let warm = settings
                    .as_ref()
                    .is_some_and(|process| process.mode == Mode::Warm);
                if warm {
                    self.signal(settings.and_then(|process| process.demote_signal))
                        .await?;
                    answer(done, Ok(()));
                    return Ok(());
                }
                if settings.is_none() && matches!(self.run, Run::Off) {
                    answer(done, Ok(()));
                    return Ok(()); // there is none, and never was
                }
                let (signal, grace) = settings.map_or((libc::SIGTERM, Duration::ZERO), |process| {
                    (process.stop_signal, process.stop_timeout)
                });
                // Asked in any case: that it does not run is the guardian's word, not a memory.
                self.run = Run::Stopping(done);
                self.guardian
                    .ask(Request::Stop {
                        slot: self.slot,
                        signal,
                        grace,
                    })
                    .await?;
            }
        }
        Ok(())
    }

    fn tell_epoch(&mut self, epoch: Epoch) {
        for (_, value) in self.env.iter_mut().filter(|(name, _)| name == "BATON_EPOCH") {
            *value = epoch.to_string();
        }
    }

    async fn start(&mut self, done: Option<Done>) -> Result<(), String> {
        let Some(process) = self.settings() else {
            self.run = Run::Off;
            if let Some(done) = done {
                answer(done, Ok(()));
            }
            return Ok(());
        };
        self.run = Run::Starting(done);
        let env = self.environment();
        self.guardian
            .ask(Request::Start {
                slot: self.slot,
                epoch: self.promoted.unwrap_or_default(),
                command: process.command,
                env,
                warm: process.mode == Mode::Warm,
            })
            .await
    }

    /// Whose application it is; then what the promotion says, if there was one.
    fn environment(&self) -> Vec<(String, String)> {
        let config = self.configs.borrow();
        let whose = [
            ("BATON_NODE", config.me.to_string()),
            ("BATON_CLUSTER", config.cluster.name.to_string()),
            ("BATON_ROLE", self.role.to_string()),
        ];
        let whose = whose.into_iter().map(|(name, value)| (name.to_owned(), value));
        whose.chain(self.env.iter().cloned()).collect()
    }

    /// It runs since then: it is told by a signal, if by one, that it shall act.
    async fn promote_running(
        &mut self,
        signal: Option<i32>,
        since: Instant,
        done: Option<Done>,
    ) -> Result<(), String> {
        match signal {
            Some(signal) => {
                self.signal = Some(Waiting {
                    signal,
                    until: since + READY,
                    blocked: None,
                    done,
                });
                self.promote_by_signal().await
            }
            None => {
                self.runs(done).await;
                Ok(())
            }
        }
    }

    /// A program that has just begun has no handler yet: most signals would kill it.
    async fn promote_by_signal(&mut self) -> Result<(), String> {
        let leader = self.leader;
        let ready =
            |waiting: &mut Waiting| leader.is_none_or(|leader| waiting.is_over(leader, Instant::now()));
        if let Some(Waiting { signal, done, .. }) = self.signal.take_if(ready) {
            self.signal(Some(signal)).await?;
            self.runs(done).await;
        }
        Ok(())
    }

    async fn runs(&mut self, done: Option<Done>) {
        // Also when it was asked for: it may have ended before that.
        self.tell(input::Process::Up).await;
        if let Some(done) = done {
            answer(done, Ok(()));
        }
    }

    async fn signal(&self, signal: Option<i32>) -> Result<(), String> {
        match signal {
            Some(signal) => {
                let slot = self.slot;
                self.guardian.ask(Request::Signal { slot, signal }).await
            }
            None => Ok(()),
        }
    }

    /// Why it could not be run, and what to do.
    fn explained(&self, why: String) -> String {
        let program = self
            .settings()
            .and_then(|process| process.command.first().cloned());
        match program.and_then(|program| program::trouble(&program)) {
            Some(trouble) => format!("{why}: {trouble}"),
            None => why,
        }
    }

    async fn not_started(&mut self, why: String) {
        match std::mem::replace(&mut self.run, Run::Off) {
            // The promotion counts as done; but nobody is active with an application that does not run.
            Run::Starting(Some(done)) if self.stays() => {
                self.ended(why, Duration::ZERO).await;
                answer(done, Ok(()));
            }
            Run::Starting(Some(done)) => answer(done, Err(why)),
            Run::Starting(None) => self.ended(why, Duration::ZERO).await,
            other => self.run = other,
        }
    }

    async fn hear(&mut self, heard: Answer) -> Result<(), String> {
        match heard {
            Answer::Started { result: Ok(id), .. } => {
                self.leader = Pid::from_raw(id.cast_signed());
                self.kept = self
                    .leader
                    .and_then(|leader| Foreign::of(leader, self.role.as_str()));
                // Else it was to be stopped meanwhile, and its end comes next.
                if matches!(self.run, Run::Starting(_))
                    && let Run::Starting(done) = std::mem::replace(&mut self.run, Run::On(Instant::now()))
                {
                    tracing::info!(role = %self.role, "the application runs as process {id}");
                    let process = self.settings().filter(|_| self.promoted.is_some());
                    let signal = process.and_then(|process| process.promote_signal);
                    self.promote_running(signal, Instant::now(), done).await?;
                }
            }
            Answer::Started { result: Err(why), .. } => self.not_started(self.explained(why)).await,
            Answer::Ended { how, took, .. } => {
                (self.leader, self.kept) = (None, None);
                if let Some(took) = took {
                    self.killed(took).await;
                }
                if let Some(Waiting { done: Some(done), .. }) = self.signal.take() {
                    answer(done, Err(format!("it {how}")));
                }
                match std::mem::replace(&mut self.run, Run::Off) {
                    Run::Stopping(done) => answer(done, Ok(())),
                    Run::On(since) => self.ended(format!("it {how}"), since.elapsed()).await,
                    // Of a run before: of this one the guardian says first that it has started.
                    other => self.run = other,
                }
            }
            Answer::Fenced { .. } => self.note(Input::Fenced(self.role.clone())).await,
            Answer::Stuck { processes, .. } => {
                let role = self.role.clone();
                self.note(Input::Stuck { role, processes }).await;
            }
        }
        Ok(())
    }

    /// It ended by itself: it is started again after a pause, if it is wanted still.
    async fn ended(&mut self, how: String, lived: Duration) {
        let Some(process) = self.settings() else { return };
        if self.promoted.is_none() && process.mode == Mode::Cold {
            return;
        }
        if lived > LIVED {
            self.ends = 0;
        }
        let pause = process
            .restart_delay
            .saturating_mul(1 << self.ends.min(16))
            .min(LONGEST_PAUSE);
        self.ends += 1;
        self.run = Run::Waiting(Instant::now() + pause);
        tracing::warn!(role = %self.role, "the application ended: {how}; it is started again in {}", show_duration(pause));
        let news = if self.ends > process.restarts {
            input::Process::Failed(how)
        } else {
            input::Process::Restarting(how)
        };
        self.tell(news).await;
    }

    async fn tell(&self, process: input::Process) {
        if let Some(epoch) = self.promoted {
            let role = self.role.clone();
            self.note(Input::Process { role, epoch, process }).await;
        }
    }

    /// Whether it vanished within its part of the lease's end.
    async fn killed(&self, took: Duration) {
        let config = self.configs.borrow().clone();
        let role = config.roles.get(&self.role);
        let allowed = role.map_or(Duration::MAX, |role| role.kill_time(config.cluster.window));
        let role = self.role.clone();
        tracing::debug!(role = %role, "killed, and gone after {took:?} of {allowed:?}");
        self.note(Input::SlowKill { role, took, allowed }).await;
    }

    async fn note(&self, news: Input) {
        let _ = self.notices.send(news.into()).await; // else the loop has stopped
    }
}

/// A promote signal that waits until the process can take it.
struct Waiting {
    signal: i32,
    /// It waits no longer.
    until: Instant,
    /// At each look since then the process blocked it.
    blocked: Option<Instant>,
    /// Who is told that it was sent.
    done: Option<Done>,
}

impl Waiting {
    /// Whether it is to be sent at `now`, to `process`.
    fn is_over(&mut self, process: Pid, now: Instant) -> bool {
        let does = Does::with(process, self.signal);
        self.blocked = match does {
            Does::Block => self.blocked.or(Some(now)),
            _ => None,
        };
        now >= self.until || does == Does::Take || self.blocked.is_some_and(|since| now - since >= STEADY)
    }
}

/// What a process does with a signal, as far as can be seen now (proc_pid_status(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It catches or ignores it. One that cannot be looked at is taken to.
    Take,
    /// It lets it wait.
    Block,
    /// Neither: most signals end it.
    Nothing,
}

impl Does {
    fn with(process: Pid, signal: i32) -> Does {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())) else {
            return Does::Take;
        };
        let is_in = |mask| in_mask(&status, mask, signal.unsigned_abs().wrapping_sub(1));
        if is_in("SigCgt:") || is_in("SigIgn:") {
            Does::Take
        } else if is_in("SigBlk:") {
            Does::Block
        } else {
            Does::Nothing
        }
    }
}

/// Whether a mask in /proc/PID/status, such as `CapEff:`, has that bit.
pub fn in_mask(status: &str, mask: &str, bit: u32) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix(mask));
    let bits = line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok());
    let bit = 1u64.checked_shl(bit);
    bits.zip(bit).is_some_and(|(bits, bit)| bits & bit != 0)
}

fn answer(done: Done, result: Result<(), String>) {
    let _ = done.send(result); // who no longer waits needs no answer
}

#[cfg(test)]
mod tests;
