//! Promote and demote actions: one queue per role, one at a time, in order, each carrying its epoch.
//!
//! A demote is never skipped, and never waits for a promote: that is cancelled, its process group killed. A promote that
//! a demote overtook before it began is not begun.

pub mod process;

use crate::control::Notice;
use baton_core::Input;
use baton_core::input::Action;
use baton_shared::config;
use baton_shared::id::{ClusterName, Epoch, NodeName, RoleName};
use process::{Run, Stopped};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// One action to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// For which role.
    pub role: RoleName,
    /// At which epoch.
    pub epoch: Epoch,
    /// Which.
    pub action: Action,
    /// What to run; `None`: nothing is configured.
    pub configured: Option<config::Action>,
    /// Who was active before.
    pub from: Option<NodeName>,
    /// Why, in a sentence.
    pub cause: String,
}

/// The queues, as the control loop holds them.
///
/// They have no bound of their own: the core has at most one promote and one demote of a role outstanding, and a demote
/// must not be dropped for want of room.
#[derive(Default)]
pub struct Actions {
    queues: BTreeMap<RoleName, mpsc::UnboundedSender<Job>>,
    /// Roles whose last queued job was a promote: it may still run.
    promoting: BTreeSet<RoleName>,
}

/// The other end of one role's queue, to be given to [`run`].
pub type Jobs = mpsc::UnboundedReceiver<Job>;

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

    /// Queues a job; its end comes as a notice. Without a command it is done at once, and so says the result; but a
    /// demote goes through the queue while a promote may be running, which it cancels.
    pub fn start(&mut self, job: Job) -> Option<Input> {
        let cancels = job.action == Action::Demote && self.promoting.remove(&job.role);
        if job.configured.is_none() && !cancels {
            return Some(done(&job, Ok(())));
        }
        if job.action == Action::Promote {
            self.promoting.insert(job.role.clone());
        }
        let Some(queue) = self.queues.get(&job.role) else {
            return Some(done(&job, Err("this role is not configured".into())));
        };
        match queue.send(job) {
            Ok(()) => None,
            Err(mpsc::error::SendError(job)) => Some(done(&job, Err("the agent is stopping".into()))),
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

/// Runs one role's jobs until the control loop is gone.
pub async fn run(whose: Whose, mut jobs: Jobs, notices: mpsc::Sender<Notice>) -> Result<(), String> {
    let mut waiting = VecDeque::new();
    let mut output = JoinSet::new();
    loop {
        let job = match waiting.pop_front() {
            Some(job) => job,
            None => match jobs.recv().await {
                Some(job) => job,
                None => return Ok(()),
            },
        };
        let overtaken = job.action == Action::Promote && demote_waits(&waiting);
        let result = if overtaken {
            Err("overtaken by a demote before it began".into())
        } else {
            serve(&whose, &job, &mut jobs, &mut waiting, &mut output).await
        };
        if notices.send(done(&job, result).into()).await.is_err() {
            return Ok(()); // the control loop has stopped
        }
    }
}

fn demote_waits(waiting: &VecDeque<Job>) -> bool {
    waiting.iter().any(|job| job.action == Action::Demote)
}

/// Runs one job, and queues those that come meanwhile. A demote among them cancels a promote.
async fn serve(
    whose: &Whose,
    job: &Job,
    jobs: &mut Jobs,
    waiting: &mut VecDeque<Job>,
    output: &mut JoinSet<()>,
) -> Result<(), String> {
    let Some(action) = &job.configured else {
        return Ok(());
    };
    while output.try_join_next().is_some() {}
    let name = name(job.action);
    let config::Call::Command(command) = &action.call else {
        return Err("not built yet".into());
    };
    tracing::info!(role = %job.role, epoch = job.epoch.0, "{name} action begins: {}", job.cause);
    let cancel = Notify::new();
    let env = environment(whose, job);
    let running = process::run(
        Run {
            command,
            env: &env,
            limit: action.timeout,
            what: format!("{name} of {}", job.role),
            quiet: false,
        },
        cancel.notified(),
        output,
    );
    tokio::pin!(running);
    let end = loop {
        tokio::select! {
            end = &mut running => break end,
            Some(next) = jobs.recv() => {
                if next.action == Action::Demote && job.action == Action::Promote {
                    cancel.notify_one();
                }
                waiting.push_back(next);
            }
        }
    };
    let result = end.map_err(|stopped| match stopped {
        Stopped::Cancelled => "cancelled by a demote".into(),
        Stopped::Failed(reason) => reason,
    });
    match &result {
        Ok(()) => tracing::info!(role = %job.role, epoch = job.epoch.0, "{name} action done"),
        Err(reason) => {
            tracing::warn!(role = %job.role, epoch = job.epoch.0, "{name} action failed: {reason}")
        }
    }
    result
}

fn name(action: Action) -> &'static str {
    match action {
        Action::Promote => "promote",
        Action::Demote => "demote",
    }
}

fn environment(whose: &Whose, job: &Job) -> Vec<(&'static str, String)> {
    vec![
        ("BATON_ROLE", job.role.to_string()),
        ("BATON_EPOCH", job.epoch.to_string()),
        ("BATON_NODE", whose.node.to_string()),
        ("BATON_CLUSTER", whose.cluster.to_string()),
        (
            "BATON_FROM",
            job.from.as_ref().map(ToString::to_string).unwrap_or_default(),
        ),
        // A NUL cannot be in an environment.
        ("BATON_CAUSE", job.cause.replace('\0', " ")),
    ]
}

#[cfg(test)]
mod tests;
