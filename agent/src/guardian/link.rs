//! The agent's side of the channel to its guardian: requests go out, answers come in, the guardian is kept told of what it must know if
//! this process dies or stands still; and it is watched in turn. A guardian that stands still keeps no lease's end, so this node then
//! steps down by its own means, and ends with it.

use crate::addresses::Addresses;
use crate::agent::stop_limit;
use crate::control::driver::notice_key_for;
use crate::control::{Notice, RoleStates};
use crate::guardian::{Above, GuardianChannel, SharedPage, framed, unframe};
use crate::handle::Counters;
use baton_core::Input;
use baton_core::guardian::{
    Answer, Fence, FencePlan, Instructions, Recipient, Request, Watch, watch as beat,
};
use baton_shared::clock::Mono;
use baton_shared::config::{Config, OnFailure, Role, secret_variables, show_duration};
use baton_shared::id::{Owner, RoleName};
use baton_shared::view::{Published, RoleState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// Requests that may wait, and answers for one role.
const MAX_WAITING: usize = 64;
/// The guardian is told of new addresses, and of the cluster's founding, within this.
const LOOK: Duration = Duration::from_millis(200);
/// After a stop in order, consensus and faces have so long to end.
const AFTER_STOP: Duration = Duration::from_secs(8);

/// Looks at the guardian's beat in the time in which it must beat once.
const LOOKS: u32 = 4;
/// With a guardian that stands still a node steps down within this, beyond the time that stopping takes, or ends all the same.
const STEPPING_DOWN: Duration = Duration::from_secs(5);

/// A hold on the guardian. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GuardianLink {
    /// What is shared.
    pub page: SharedPage,
    requests: mpsc::Sender<Request>,
    /// It stands still.
    still: watch::Receiver<bool>,
}

impl GuardianLink {
    /// One whose guardian is a test.
    #[cfg(test)]
    pub fn of(
        page: SharedPage,
        requests: mpsc::Sender<Request>,
        still: watch::Receiver<bool>,
    ) -> GuardianLink {
        GuardianLink {
            page,
            requests,
            still,
        }
    }

    /// Asks for something. An error: the guardian is gone, and this process is about to end.
    pub async fn ask(&self, request: Request) -> Result<(), String> {
        self.requests
            .send(request)
            .await
            .map_err(|_| "the guardian process is gone".to_owned())
    }

    /// Waits until the guardian stands still.
    pub async fn stands_still(&mut self) {
        if self.still.wait_for(|still| *still).await.is_err() {
            std::future::pending::<()>().await; // nobody watches it any more: this process is ending
        }
    }

    /// Waits until it goes on; for ever, if it is gone.
    pub async fn goes_on(&mut self) {
        if self.still.wait_for(|still| !*still).await.is_err() || self.requests.is_closed() {
            std::future::pending::<()>().await;
        }
    }
}

/// What goes back and forth, to be given to [`Conversation::run`].
pub struct Conversation {
    channel: GuardianChannel,
    requests: mpsc::Receiver<Request>,
    answers: Vec<mpsc::Sender<Answer>>,
}

/// Answers for one role.
pub type Answers = mpsc::Receiver<Answer>;

/// A hold on the guardian, the conversation with it, what it answers for each of so many roles, and where it is said that it stands
/// still.
pub fn connect(
    channel: GuardianChannel,
    roles: usize,
) -> (GuardianLink, Conversation, Vec<Answers>, watch::Sender<bool>) {
    let (sender, requests) = mpsc::channel(MAX_WAITING);
    let (stands_still, still) = watch::channel(false);
    let link = GuardianLink {
        page: channel.page,
        requests: sender,
        still,
    };
    let (answers, receivers) = (0..roles).map(|_| mpsc::channel(MAX_WAITING)).unzip();
    let conversation = Conversation {
        channel,
        requests,
        answers,
    };
    (link, conversation, receivers, stands_still)
}

impl Conversation {
    /// Carries requests and answers until the guardian is gone: then this process must end too.
    pub async fn run(mut self) -> Result<(), String> {
        let mut stream = UnixStream::from_std(self.channel.stream)
            .map_err(|error| format!("cannot talk to the guardian process: {error}"))?;
        let (mut heard, mut chunk) = (Vec::new(), [0; 4096]);
        // Nothing is started before the guardian knows how it is stopped, and which secrets it must not have.
        let (mut instructed, mut early) = (false, Vec::new());
        loop {
            tokio::select! {
                Some(request) = self.requests.recv() => {
                    let instructs = matches!(request, Request::Instructions(_));
                    if !instructed && !instructs {
                        early.push(request); // one for each role, at most
                        continue;
                    }
                    instructed = true;
                    for request in [request].into_iter().chain(early.drain(..)) {
                        stream.write_all(&framed(&request)).await.map_err(|error| gone(&error))?;
                    }
                }
                read = stream.read(&mut chunk) => match read {
                    Ok(0) => return Err("the guardian process has ended".into()),
                    Ok(length) => heard.extend_from_slice(&chunk[..length]),
                    Err(error) => return Err(gone(&error)),
                }
            }
            while let Some(answer) = unframe::<Answer>(&mut heard)? {
                if let Some(role) = self.answers.get(answer.slot()) {
                    let _ = role.send(answer).await; // a role without a task is exiting
                }
            }
        }
    }
}

fn gone(error: &std::io::Error) -> String {
    format!("the guardian process has ended ({error})")
}

/// Watches the guardian's beat.
pub struct Watcher {
    /// The configuration, as it changes.
    pub configs: watch::Receiver<Arc<Config>>,
    /// The process, and where it beats.
    pub guardian: Option<Above>,
    /// See `guardian`.
    pub page: SharedPage,
    /// Who is told.
    pub stands_still: watch::Sender<bool>,
    /// What the core is told.
    pub notices: mpsc::Sender<Notice>,
    /// What this node does.
    pub states: watch::Receiver<RoleStates>,
    /// Where `/live` looks.
    pub counters: Arc<Counters>,
}

impl Watcher {
    /// Until the guardian stands still. Then, in this order: the core shuts the guard and has the application stopped without it, and
    /// gives the role up (H3, H4); the guardian is killed; and the error, which ends this process, says so. Process 1 of a container
    /// cannot be killed from inside: there this node stays out of line until it goes on.
    pub async fn run(mut self) -> Result<(), String> {
        loop {
            let Some(limit) = self.until_still().await else {
                return Err("the guardian process has ended".into());
            };
            let text = format!(
                "the guardian process has stood still for {}: it is stopped or stuck, and would not stop the application at the \
                 end of the lease",
                show_duration(limit)
            );
            tracing::error!("{text}; this node steps down");
            self.tell(true).await;
            self.until_passive().await;
            match &self.guardian {
                Some(guardian) if guardian.is_init() => tracing::error!(
                    "the guardian is process 1 and cannot be killed from inside: restart the container; this node stays out of line \
                     until then"
                ),
                guardian => {
                    guardian.iter().for_each(Above::kill);
                    return Err(format!("{text}; it was killed"));
                }
            }
            self.until_it_goes_on().await;
            tracing::warn!("the guardian process goes on");
            self.tell(false).await;
        }
    }

    async fn tell(&self, stands_still: bool) {
        self.counters.guardian_stands_still.store(stands_still, Relaxed);
        self.stands_still.send_replace(stands_still);
        let _ = self.notices.send(Input::Guardian { stands_still }.into()).await; // else the loop has stopped
    }

    /// How long it has stood still; `None`: it has ended, which is no standing still.
    async fn until_still(&self) -> Option<Duration> {
        let limit = beat::limit(self.configs.borrow().cluster.window);
        let pace = limit / LOOKS;
        let mut watch = Watch::new(limit, pace);
        while !watch.look(self.page.beat(), Mono::now()) {
            sleep(pace).await;
        }
        let ended = self.guardian.as_ref().is_some_and(Above::has_ended);
        (!ended).then_some(limit)
    }

    async fn until_it_goes_on(&self) {
        let beat = self.page.beat();
        while self.page.beat() == beat {
            sleep(LOOK).await;
        }
    }

    async fn until_passive(&mut self) {
        let limit = stop_limit(&self.configs.borrow()) + STEPPING_DOWN;
        let passive = self
            .states
            .wait_for(|states| states.values().all(|state| *state == RoleState::Standby));
        let _ = timeout(limit, passive).await; // longer than that nothing helps but the end of this process
    }
}

/// What the guardian's instructions are made from.
pub struct Instructor {
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
    /// Where they go.
    pub link: GuardianLink,
}

impl Instructor {
    /// Tells the guardian whenever the instructions change, until the agent exits.
    pub async fn run(mut self) -> Result<(), String> {
        let mut last = None;
        loop {
            let now = self.instructions();
            if last.as_ref() != Some(&now) {
                self.link
                    .ask(Request::Instructions(Box::new(now.clone())))
                    .await?;
                last = Some(now);
            }
            let _ = timeout(LOOK, self.configs.changed()).await;
        }
    }

    fn instructions(&mut self) -> Instructions {
        let config = self.configs.borrow_and_update().clone();
        let cluster = &config.cluster;
        let place = |name, network| {
            let (from, to) = (
                self.mine.get(network).copied().flatten()?,
                self.addresses.get(name, network)?,
            );
            (from.is_ipv4() == to.is_ipv4()).then_some((u8::try_from(network).ok()?, from, to))
        };
        let others = config.nodes.keys().filter(|name| **name != config.me);
        let recipients = others.map(|name| Recipient {
            name: name.clone(),
            key: notice_key_for(&cluster.key, cluster.name.as_str(), name),
            places: (0..config.networks.len())
                .filter_map(|network| place(name, network))
                .collect(),
        });
        Instructions {
            cluster: self.published.view.load().cluster_id,
            owner: self.owner,
            window: cluster.window,
            recipients: recipients.collect(),
            roles: config
                .roles
                .iter()
                .map(|(role, settings)| fence_plan(&config, role, settings))
                .collect(),
            restart: config.agent.restart,
            stop: stop_limit(&config) + AFTER_STOP,
            secrets: secret_variables().into_iter().collect(),
        }
    }
}

fn fence_plan(config: &Config, role: &RoleName, settings: &Role) -> FencePlan {
    let lead = settings.lead(config.cluster.window);
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let fence = settings.fence.as_ref().or(settings.demote.as_ref());
    FencePlan {
        role: role.clone(),
        fence_lead: lead.fence,
        kill_lead: lead.kill,
        fence: settings.last_resort().map(|(command, limit)| Fence::Command {
            command: command.to_vec(),
            limit,
        }),
        harder: settings.fence.is_some(),
        env: vec![
            text("BATON_ROLE", role.as_str()),
            text("BATON_NODE", config.me.as_str()),
            text("BATON_CLUSTER", config.cluster.name.as_str()),
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_shared::id::{Boot, ClusterId, Epoch, NodeId};

    /// How it is stopped, and which secrets it must not have, is known before anything is started.
    #[tokio::test]
    async fn what_is_asked_for_early_waits_for_the_instructions() {
        let (mine, its) = std::os::unix::net::UnixStream::pair().unwrap();
        its.set_nonblocking(true).unwrap();
        mine.set_nonblocking(true).unwrap();
        let channel = GuardianChannel {
            guardian: None,
            page: SharedPage::of_test(),
            stream: its,
        };
        let (link, conversation, _answers, _still) = connect(channel, 1);
        let start = Request::Start {
            slot: 0,
            epoch: Epoch(0),
            command: vec!["app".into()],
            env: Vec::new(),
            warm: true,
        };
        let owner = Owner {
            node: NodeId(1),
            boot: Boot(1),
        };
        let instructions = Request::Instructions(Box::new(Instructions {
            cluster: ClusterId(1),
            owner,
            window: LOOK,
            recipients: Vec::new(),
            roles: Vec::new(),
            restart: true,
            stop: LOOK,
            secrets: vec!["KEY".into()],
        }));
        link.ask(start.clone()).await.unwrap();
        link.ask(instructions.clone()).await.unwrap();
        let running = tokio::spawn(conversation.run());
        let mut stream = UnixStream::from_std(mine).unwrap();
        let (mut heard, mut chunk, mut all) = (Vec::new(), [0; 4096], Vec::new());
        while all.len() < 2 {
            let length = timeout(STEPPING_DOWN, stream.read(&mut chunk))
                .await
                .unwrap()
                .unwrap();
            heard.extend_from_slice(&chunk[..length]);
            while let Some(request) = unframe::<Request>(&mut heard).unwrap() {
                all.push(request);
            }
        }
        assert_eq!(all, [instructions, start]);
        drop(stream);
        assert!(running.await.unwrap().is_err());
    }
}
