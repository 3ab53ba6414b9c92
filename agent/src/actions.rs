//! What applications are told to do: one queue per role, one at a time, in order, each carrying its epoch.
//!
//! A demote is never skipped, and never waits for a promote: that is cancelled, killed with all that it started. A promote that
//! a demote overtook before it began is not begun. A demote has ended by its limit, counted from when it was asked for; what may be
//! acting is remembered in [`acting`], so that one that was cut off by the agent's own end is made up for.

pub mod acting;
pub mod call;
pub mod notify;
pub mod post;
pub mod process;

use crate::control::Notice;
use crate::guardian::SharedSlot;
use crate::process::Application;
use acting::Acting;
use baton_core::Input;
use baton_core::input::Action;
use baton_shared::config::{self, Mode};
use baton_shared::id::{ClusterName, Epoch, NodeName, RoleName};
use baton_shared::view::{Published, RoleState};
use call::Facts;
use process::{GRACE, Keeping, Left, Stop, Stopped};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Why a promotion that a demote overtook has ended.
const CANCELLED: &str = "cancelled by a demote";

/// One action to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// For which role.
    pub role: RoleName,
    /// At which epoch.
    pub epoch: Epoch,
    /// Which.
    pub action: Action,
    /// An application is told of an epoch by its promote action, not by the notify action.
    pub again: bool,
    /// What to run; `None`: nothing is configured.
    pub configured: Option<config::Action>,
    /// How long the role's demote may take; `None` if it has none.
    pub demote: Option<Duration>,
    /// When the role's managed process runs, and how long it may take to stop; `None` if it has none.
    pub process: Option<(config::Mode, Duration)>,
    /// How long before the end of the lease what the promotion started is killed; `None` if nothing stops it.
    pub kill_lead: Option<Duration>,
    /// Who was active before.
    pub from: Option<NodeName>,
    /// Why, in a sentence.
    pub cause: String,
}

/// A job, and when it was asked for.
#[derive(Debug)]
pub struct Queued {
    job: Job,
    at: Instant,
}

/// The queues, as the control loop holds them.
///
/// They have no bound of their own: the core has at most one promote and one demote of a role outstanding, and a demote
/// must not be dropped for want of room.
#[derive(Default)]
pub struct Actions {
    queues: BTreeMap<RoleName, mpsc::UnboundedSender<Queued>>,
    /// Roles whose last queued job was none to demote: it may still run.
    promoting: BTreeSet<RoleName>,
}

/// The other end of one role's queue, to be given to [`run`].
pub type Jobs = mpsc::UnboundedReceiver<Queued>;

impl Actions {
    /// A queue for each role.
    pub fn new(roles: impl IntoIterator<Item = RoleName>) -> (Actions, Vec<Jobs>) {
        let mut actions = Actions::default();
        let mut receivers = Vec::new();
        for role in roles {
            let (sender, receiver) = mpsc::unbounded_channel();
            actions.queues.insert(role, sender);
            receivers.push(receiver);
        }
        (actions, receivers)
    }

    /// Queues a job; its end comes as a notice. Where there is nothing to do it is done at once, and so says the result; but a
    /// demote goes through the queue while a promote may be running, which it cancels, and a promote if the role is to be
    /// remembered as acting.
    pub fn start(&mut self, job: Job) -> Option<Input> {
        let cancels = job.action == Action::Demote && self.promoting.remove(&job.role);
        let remembered = job.action == Action::Promote && job.demote.is_some();
        if job.configured.is_none() && job.process.is_none() && !cancels && !remembered {
            return Some(done(&job, Ok(())));
        }
        if job.action != Action::Demote {
            self.promoting.insert(job.role.clone());
        }
        let Some(queue) = self.queues.get(&job.role) else {
            return Some(done(&job, Err("this role is not configured".into())));
        };
        let at = Instant::now();
        match queue.send(Queued { job, at }) {
            Ok(()) => None,
            Err(mpsc::error::SendError(late)) => Some(done(&late.job, Err("the agent is stopping".into()))),
        }
    }
}

fn done(job: &Job, result: Result<(), String>) -> Input {
    Input::ActionDone {
        role: job.role.clone(),
        epoch: job.epoch,
        action: job.action,
        result,
    }
}

/// Who runs actions, as their environment says.
#[derive(Clone, Debug)]
pub struct Whose {
    /// This node.
    pub node: NodeName,
    /// Its cluster.
    pub cluster: ClusterName,
}

/// What one role's runner has at hand.
#[derive(Clone)]
pub struct Means {
    /// For whom it runs.
    pub whose: Whose,
    /// Where it is kept that the role may be acting.
    pub acting: Acting,
    /// The managed process.
    pub application: Option<Application>,
    /// What is shared with the guardian.
    pub slot: Option<SharedSlot>,
    /// Where the last words of an action that failed are shown to operators.
    pub published: Option<Arc<Published>>,
}

/// Runs one role's jobs until the control loop is gone.
pub async fn run(means: Means, jobs: Jobs, notices: mpsc::Sender<Notice>) -> Result<(), String> {
    let mut runner = Runner {
        means,
        jobs,
        waiting: VecDeque::new(),
        left: Left::default(),
        failed: None,
    };
    while let Some(next) = runner.next().await {
        let result = runner.serve(&next).await;
        if notices.send(done(&next.job, result).into()).await.is_err() {
            break; // the control loop has stopped
        }
    }
    Ok(())
}

/// One role's jobs, and what is known between them.
struct Runner {
    means: Means,
    jobs: Jobs,
    /// Jobs that came while another one ran.
    waiting: VecDeque<Queued>,
    /// What the commands left.
    left: Left,
    /// The action whose last words are shown.
    failed: Option<Action>,
}

impl Runner {
    async fn next(&mut self) -> Option<Queued> {
        match self.waiting.pop_front() {
            Some(next) => Some(next),
            None => self.jobs.recv().await,
        }
    }

    /// Runs one job to its end.
    async fn serve(&mut self, next: &Queued) -> Result<(), String> {
        let (job, name) = (&next.job, name(&next.job));
        self.left.tidy();
        if job.configured.is_some() {
            tracing::info!(role = %job.role, epoch = job.epoch.0, "{name} action begins: {}", job.cause);
        }
        let result = match job.action {
            Action::Promote => {
                let result = self.promote(job).await;
                if let Some(slot) = self.means.slot {
                    slot.promotion_over();
                }
                result
            }
            Action::Demote => self.demote(job, next.at).await,
            Action::Tell => self.tell(job).await,
        };
        match &result {
            Ok(()) if job.configured.is_none() => {}
            Ok(()) => tracing::info!(role = %job.role, epoch = job.epoch.0, "{name} action done"),
            Err(reason) => {
                tracing::warn!(role = %job.role, epoch = job.epoch.0, "{name} action failed: {reason}")
            }
        }
        result
    }

    async fn promote(&mut self, job: &Job) -> Result<(), String> {
        self.not_overtaken()?;
        if job.demote.is_some() {
            self.means.acting.begin(&job.role, job.epoch).await;
            self.not_overtaken()?;
        }
        if let Some(application) = self.application(job) {
            let env = facts(job).environment(&self.means.whose);
            let env = env.into_iter().map(|(name, value)| (name.to_owned(), value));
            self.start_application(&application, job.epoch, env.collect())
                .await?;
        }
        self.act(job, |limit| (limit, Stop::After(grace(job)))).await
    }

    /// A process that is started again from here on is told the greater epoch, too.
    async fn tell(&mut self, job: &Job) -> Result<(), String> {
        self.not_overtaken()?;
        if let Some(application) = self.application(job) {
            application.tell(job.epoch).await;
        }
        self.act(job, |limit| (limit, Stop::After(grace(job)))).await
    }

    /// Starts the managed process, unless a demote comes first: that will stop it.
    async fn start_application(
        &mut self,
        application: &Application,
        epoch: Epoch,
        env: Vec<(String, String)>,
    ) -> Result<(), String> {
        let cancel = Notify::new();
        let starting = async {
            tokio::select! {
                end = application.promote(epoch, env) => end,
                () = cancel.notified() => Err(CANCELLED.into()),
            }
        };
        meanwhile(starting, Some(&cancel), &mut self.jobs, &mut self.waiting).await
    }

    /// A warm application is told first; a cold one is stopped in any case, whatever the demote action says.
    async fn demote(&mut self, job: &Job, asked: Instant) -> Result<(), String> {
        if let Some(slot) = self.means.slot {
            slot.stopping(true);
        }
        let mut result = self.stop(job, asked).await;
        if let (Err(reason), Some(true)) = (&result, self.means.slot.map(|slot| slot.is_fenced())) {
            tracing::warn!(role = %job.role, "demote failed, but the fence has stopped the application before: {reason}");
            self.means.acting.end(&job.role);
            result = Ok(());
        }
        if result.is_err() {
            // Before the lease ends the guardian does what it can.
            if let Some(slot) = self.means.slot {
                slot.stopping(false);
            }
        }
        result
    }

    async fn stop(&mut self, job: &Job, asked: Instant) -> Result<(), String> {
        let application = self.application(job);
        let warm = matches!(job.process, Some((Mode::Warm, _)));
        let limit = job.process.map_or(Duration::ZERO, |(_, limit)| limit);
        if let Some(application) = application.as_ref().filter(|_| warm) {
            application.demote(limit).await?;
        }
        if let Some(application) = application.as_ref().filter(|_| !warm) {
            application.hold().await;
        }
        let acted = self
            .act(job, |limit| (remaining(limit, asked.elapsed()), Stop::Within))
            .await;
        if let Some(application) = application.filter(|_| !warm) {
            application.demote(limit).await?;
        }
        // H4: what the promotion set up besides the process (an address, a mount) may be there still.
        acted?;
        // H4: what a cancelled promotion began, or a demote that was too late, may still act.
        if let Some(left) = self.left.unkilled().await {
            return Err(format!("it was killed, and does not end: {left}"));
        }
        self.means.acting.end(&job.role);
        Ok(())
    }

    fn application(&self, job: &Job) -> Option<Application> {
        self.means.application.clone().filter(|_| job.process.is_some())
    }

    /// Makes the call of a job, if one is configured, and queues the jobs that come meanwhile.
    async fn act(&mut self, job: &Job, how: impl Fn(Duration) -> (Duration, Stop)) -> Result<(), String> {
        let Some(action) = &job.configured else {
            return Ok(());
        };
        let cancel = Notify::new();
        let facts = facts(job);
        let what = name(job);
        let promotes = self
            .means
            .slot
            .zip(job.kill_lead)
            .filter(|_| facts.action == "promote");
        let keeping = Keeping {
            name: format!("{}-{}", job.role, name(job)),
            promotes,
        };
        let running = call::make(
            &action.call,
            &facts,
            &self.means.whose,
            how(action.timeout),
            cancel.notified(),
            (keeping, &mut self.left),
        );
        let overtaken = (job.action != Action::Demote).then_some(&cancel);
        let end = meanwhile(running, overtaken, &mut self.jobs, &mut self.waiting).await;
        match end {
            Ok(()) => {
                // A demotion after a promotion that failed is no news of that.
                if self.failed == Some(job.action) || job.action == Action::Promote {
                    self.show(job, None);
                }
                Ok(())
            }
            Err(Stopped::Cancelled) => Err(CANCELLED.into()),
            Err(Stopped::Failed(failed)) => {
                if !failed.output.is_empty() {
                    tracing::warn!(role = %job.role, epoch = job.epoch.0, "{what} action: {failed}");
                }
                let public = failed.public();
                self.show(job, Some(failed.output));
                Err(public)
            }
        }
    }

    /// Shows operators the last words of an action that failed; `None`: there is nothing to show any more.
    fn show(&mut self, job: &Job, words: Option<String>) {
        self.failed = words.as_ref().map(|_| job.action);
        let published = self.means.published.as_ref();
        if let Some(place) = published.and_then(|published| published.last_words.get(&job.role)) {
            place.store(words.map(Arc::new));
        }
    }

    /// An error if a demote waits.
    fn not_overtaken(&mut self) -> Result<(), String> {
        while let Ok(next) = self.jobs.try_recv() {
            self.waiting.push_back(next);
        }
        let demote_waits = self.waiting.iter().any(|next| next.job.action == Action::Demote);
        if demote_waits {
            return Err("overtaken by a demote before it began".into());
        }
        Ok(())
    }
}

/// Queues the jobs that come while something runs; a demote among them cancels it, if that can be.
async fn meanwhile<T>(
    running: impl Future<Output = T>,
    cancel: Option<&Notify>,
    jobs: &mut Jobs,
    waiting: &mut VecDeque<Queued>,
) -> T {
    tokio::pin!(running);
    loop {
        tokio::select! {
            end = &mut running => return end,
            Some(next) = jobs.recv() => {
                if let Some(cancel) = cancel.filter(|_| next.job.action == Action::Demote) {
                    cancel.notify_one();
                }
                waiting.push_back(next);
            }
        }
    }
}

/// What is left of a demote's time, of which a cancelled promote may have taken some: never less than a quarter.
fn remaining(limit: Duration, spent: Duration) -> Duration {
    limit.saturating_sub(spent).max(limit / 4)
}

/// A demote that overtakes an action pays for the end of that with its own time.
fn grace(job: &Job) -> Duration {
    job.demote.map_or(GRACE, |demote| GRACE.min(demote / 4))
}

fn name(job: &Job) -> &'static str {
    match job.action {
        Action::Promote => "promote",
        Action::Tell if job.again => "promote",
        Action::Demote => "demote",
        Action::Tell => "notify",
    }
}

fn facts(job: &Job) -> Facts {
    Facts {
        action: name(job),
        role: job.role.clone(),
        epoch: Some(job.epoch),
        from: job.from.clone(),
        cause: job.cause.clone(),
        state: (name(job) == "notify").then_some(RoleState::Active),
    }
}

#[cfg(test)]
mod tests;
