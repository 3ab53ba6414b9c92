//! Learning who is active, from one of several agents: its stream of changes for speed, and a look at its status now and
//! then, so that an agent that is frozen, or a stream that is held up, is noticed.
//!
//! One that cannot be reached or is itself out of touch is left for the next. This never ends but for wrong usage.

use super::super::client::{Client, Place};
use super::super::out::Failure;
use super::super::stream::Stream;
use super::super::target::Target;
use super::decide::{Active, Word};
use baton_shared::id::RoleName;
use baton_shared::status::{RoleStatus, Status};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// An agent answers within this, or is left.
const LIMIT: Duration = Duration::from_secs(2);
/// Between two looks beside a stream.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks without one.
const POLL: Duration = Duration::from_millis(250);
/// Before all agents are tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Who is asked.
pub(super) enum Sources {
    /// The agent that a command would talk to; it may not have started yet.
    Agent(Box<Target>),
    /// These, in turn.
    Places(Vec<Place>),
}

/// Why an agent was left.
enum Left {
    /// Nothing was learned from it.
    Useless(String),
    /// It was of use, and then was lost.
    Lost(String),
}

/// Follows what agents say of one role.
pub(super) struct Watch {
    /// Which; without it main, or the only one.
    pub role: Option<RoleName>,
    /// Where it is told.
    pub tell: mpsc::Sender<Word>,
    /// Whether an agent has ever answered: until then a wrong role is wrong usage, after that some agent's trouble.
    pub answered: bool,
}

impl Watch {
    /// Goes on for ever; an error is wrong usage.
    pub(super) async fn run(mut self, sources: Sources) -> Failure {
        let mut clients = match &sources {
            Sources::Places(places) => {
                let client = |place: &Place| Client::new(place.clone(), None);
                places.iter().map(client).collect()
            }
            Sources::Agent(_) => Vec::new(),
        };
        loop {
            let mut why = None;
            if let (Sources::Agent(target), true) = (&sources, clients.is_empty()) {
                match target.client() {
                    Ok(client) => clients.push(client),
                    Err(failure) if failure.status == 2 => return failure,
                    Err(failure) => why = Some(failure.text),
                }
            }
            for client in &clients {
                match self.stay(client, clients.len() == 1).await {
                    Err(failure) => return failure,
                    Ok(Left::Useless(reason)) => why = Some(reason),
                    Ok(Left::Lost(reason)) => {
                        why = None;
                        self.say(Word::Missing(reason)).await;
                    }
                }
            }
            if let Some(why) = why {
                self.say(Word::Missing(why)).await;
            }
            sleep(AGAIN).await;
        }
    }

    async fn say(&self, word: Word) {
        let _ = self.tell.send(word).await; // nobody listens only at the end
    }

    /// Follows one agent as long as it is of use.
    async fn stay(&mut self, client: &Client, alone: bool) -> Result<Left, Failure> {
        let (mut left, mut stream): (fn(String) -> Left, _) = (Left::Useless, None);
        loop {
            let status = match timeout(LIMIT, client.get::<Status>("/status")).await {
                Ok(Ok(status)) => status,
                Ok(Err(failure)) if failure.status == 2 && !self.answered => return Err(failure),
                Ok(Err(failure)) => return Ok(left(failure.text)),
                Err(_) => return Ok(left(client.silent(LIMIT))),
            };
            if let Some(why) = self.hear(&status, alone).await? {
                return Ok(left(why));
            }
            left = Left::Lost;
            if stream.is_none() {
                stream = timeout(LIMIT, client.events(u64::MAX))
                    .await
                    .ok()
                    .and_then(Result::ok);
            }
            let pause = if stream.is_some() { LOOK } else { POLL };
            let pause = sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    news = change(&mut stream) => match news {
                        Some(status) => {
                            if let Some(why) = self.hear(&status, alone).await? {
                                return Ok(left(why));
                            }
                        }
                        None => stream = None,
                    },
                }
            }
        }
    }

    /// Tells what an agent says. If it is out of touch and there are others to ask, says so instead.
    async fn hear(&mut self, status: &Status, alone: bool) -> Result<Option<String>, Failure> {
        let word = match self.word(status) {
            Ok(word) => word,
            Err(failure) if !self.answered => return Err(failure),
            Err(failure) => Word::Missing(failure.text),
        };
        self.answered = true;
        match word {
            Word::Missing(why) if !status.in_touch && !alone => return Ok(Some(why)),
            word => self.say(word).await,
        }
        Ok(None)
    }

    fn word(&self, status: &Status) -> Result<Word, Failure> {
        let role = role(status, self.role.as_ref())?;
        let (Some(node), Some(epoch)) = (&role.active, role.epoch) else {
            return Ok(Word::Missing(match &*role.known {
                "unknown" => format!("{} is out of touch with the cluster", status.node),
                _ => format!("nobody is active for {}", role.role),
            }));
        };
        let found = status.nodes.iter().find(|n| n.name == *node);
        let addresses = found.map(|node| node.serves.clone()).unwrap_or_default();
        if addresses.is_empty() {
            return Ok(Word::Missing(format!(
                "{node} is active, but {} does not know its address",
                status.node
            )));
        }
        Ok(Word::Active(Active {
            cluster: status.cluster.clone(),
            cluster_id: status.cluster_id.clone(),
            role: role.role.clone(),
            node: node.clone(),
            epoch,
            addresses,
        }))
    }
}

/// The role that is meant.
fn role<'a>(status: &'a Status, named: Option<&RoleName>) -> Result<&'a RoleStatus, Failure> {
    let main = |role: &&RoleStatus| match named {
        Some(named) => role.role == *named,
        None => role.role.as_str() == "main" || status.roles.len() == 1,
    };
    let names = || -> Vec<&str> { status.roles.iter().map(|role| role.role.as_str()).collect() };
    status.roles.iter().find(main).ok_or_else(|| {
        Failure::usage(match named {
            Some(named) => format!(
                "no role \"{named}\" in cluster {}; its roles are {}",
                status.cluster,
                names().join(", ")
            ),
            None => format!(
                "cluster {} has no role \"main\"; name one with --role: {}",
                status.cluster,
                names().join(", ")
            ),
        })
    })
}

/// The next status of a stream; `None` at its end. Without a stream it waits for ever.
async fn change(stream: &mut Option<Stream>) -> Option<Status> {
    let Some(stream) = stream else {
        return std::future::pending().await;
    };
    loop {
        let frame = stream.next().await?;
        if frame.event == "status" {
            return serde_json::from_str(&frame.data).ok();
        }
    }
}
