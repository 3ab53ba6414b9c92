//! The agent's end of the line to its parent process ([`crate::parent`]): requests go out, answers come in, and the parent is kept told
//! of what it must know if this process dies or stands still.

use crate::addresses::Addresses;
use crate::agent::stop_limit;
use crate::control::driver::notice_key_for;
use crate::parent::{Answer, Board, Heir, Last, Line, Request, Will, framed, unframe};
use baton_shared::config::{Config, OnFailure};
use baton_shared::id::Owner;
use baton_shared::view::Published;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Requests that may wait, and answers for one role.
const MAX_WAITING: usize = 64;
/// The parent is told of new addresses, and of the cluster's founding, within this.
const LOOK: Duration = Duration::from_millis(200);
/// After a stop in order, consensus and faces have so long to end.
const AFTER_STOP: Duration = Duration::from_secs(8);

/// A hold on the parent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Child {
    /// What is shared.
    pub board: &'static Board,
    requests: mpsc::Sender<Request>,
}

impl Child {
    /// One whose parent is a test.
    #[cfg(test)]
    pub fn of(board: &'static Board, requests: mpsc::Sender<Request>) -> Child {
        Child { board, requests }
    }

    /// Asks for something. An error: the parent is gone, and this process is about to end.
    pub async fn ask(&self, request: Request) -> Result<(), String> {
        self.requests
            .send(request)
            .await
            .map_err(|_| "the parent process is gone".to_owned())
    }
}

/// What goes back and forth, to be given to [`Talk::run`].
pub struct Talk {
    line: Line,
    requests: mpsc::Receiver<Request>,
    answers: Vec<mpsc::Sender<Answer>>,
}

/// Answers for one role.
pub type Answers = mpsc::Receiver<Answer>;

/// A hold on the parent, the conversation with it, and what it answers for each of so many roles.
pub fn connect(line: Line, roles: usize) -> (Child, Talk, Vec<Answers>) {
    let (sender, requests) = mpsc::channel(MAX_WAITING);
    let child = Child {
        board: line.board,
        requests: sender,
    };
    let (answers, receivers) = (0..roles).map(|_| mpsc::channel(MAX_WAITING)).unzip();
    let talk = Talk {
        line,
        requests,
        answers,
    };
    (child, talk, receivers)
}

impl Talk {
    /// Carries requests and answers until the parent is gone: then this process must end too.
    pub async fn run(mut self) -> Result<(), String> {
        let mut stream = UnixStream::from_std(self.line.stream)
            .map_err(|error| format!("cannot talk to the parent process: {error}"))?;
        let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            tokio::select! {
                Some(request) = self.requests.recv() => {
                    stream.write_all(&framed(&request)).await.map_err(|error| gone(&error))?;
                }
                read = stream.read(&mut chunk) => match read {
                    Ok(0) => return Err("the parent process has ended".into()),
                    Ok(length) => heard.extend_from_slice(&chunk[..length]),
                    Err(error) => return Err(gone(&error)),
                }
            }
            while let Some(answer) = unframe(&mut heard)? {
                let (Answer::Started { slot, .. } | Answer::Ended { slot, .. } | Answer::Fenced { slot }) =
                    &answer;
                if let Some(role) = self.answers.get(*slot) {
                    let _ = role.send(answer).await; // a role without a task is exiting
                }
            }
        }
    }
}

fn gone(error: &std::io::Error) -> String {
    format!("the parent process has ended ({error})")
}

/// What the parent's will is made from.
pub struct Testator {
    /// The configuration, as it changes.
    pub configs: watch::Receiver<Arc<Config>>,
    /// Where peers are.
    pub addresses: Arc<Addresses>,
    /// For the cluster's id.
    pub published: Arc<Published>,
    /// This node's address on each network.
    pub mine: Vec<Option<IpAddr>>,
    /// This run.
    pub owner: Owner,
    /// Where it is deposited.
    pub child: Child,
}

impl Testator {
    /// Tells the parent whenever the will changes, until the agent exits.
    pub async fn run(mut self) -> Result<(), String> {
        let mut last = None;
        loop {
            let will = self.will();
            if last.as_ref() != Some(&will) {
                self.child.ask(Request::Will(Box::new(will.clone()))).await?;
                last = Some(will);
            }
            let _ = timeout(LOOK, self.configs.changed()).await;
        }
    }

    fn will(&mut self) -> Will {
        let config = self.configs.borrow_and_update().clone();
        let cluster = &config.cluster;
        let place = |name, network| {
            let (from, to) = (
                self.mine.get(network).copied().flatten()?,
                self.addresses.get(name, network)?,
            );
            (from.is_ipv4() == to.is_ipv4()).then_some((u8::try_from(network).ok()?, from, to))
        };
        let heirs = config
            .nodes
            .keys()
            .filter(|name| **name != config.me)
            .map(|name| Heir {
                name: name.clone(),
                key: notice_key_for(&cluster.key, cluster.name.as_str(), name),
                places: (0..config.networks.len())
                    .filter_map(|network| place(name, network))
                    .collect(),
            });
        let roles = config.roles.iter().map(|(role, settings)| {
            let lead = settings.lead(cluster.window);
            let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let fence = settings.fence.as_ref().or(settings.demote.as_ref());
            Last {
                role: role.clone(),
                fence: lead.fence,
                kill: lead.kill,
                command: settings
                    .last_resort()
                    .map(|(command, limit)| (command.to_vec(), limit)),
                harder: settings.fence.is_some(),
                env: vec![
                    text("BATON_ROLE", role.as_str()),
                    text("BATON_NODE", config.me.as_str()),
                    text("BATON_CLUSTER", cluster.name.as_str()),
                    text("BATON_FROM", config.me.as_str()),
                ],
                // A process that was killed acts no more, whatever its demote command says of that.
                release: fence.is_some_and(|action| action.on_failure == OnFailure::Release)
                    || (settings.process.is_some() && settings.fence.is_none()),
                unproven: settings.stops() && settings.process.is_none() && settings.last_resort().is_none(),
                stop: settings
                    .process
                    .as_ref()
                    .map_or((libc::SIGTERM, Duration::ZERO), |process| {
                        (process.stop_signal, process.stop_timeout)
                    }),
            }
        });
        Will {
            cluster: self.published.view.load().cluster_id,
            owner: self.owner,
            window: cluster.window,
            heirs: heirs.collect(),
            roles: roles.collect(),
            restart: config.agent.restart,
            stop: stop_limit(&config) + AFTER_STOP,
        }
    }
}
