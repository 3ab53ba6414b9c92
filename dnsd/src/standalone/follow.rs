//! The thread that follows the cluster: agents' answers go through the [`Follower`] and are published; what changes is
//! logged.

use super::agent::{Asker, News};
use crate::follow::{Follower, Heard};
use baton_shared::clock::Mono;
use baton_shared::config::AgentAddress;
use baton_shared::copy::CopyView;
use baton_shared::id::{ClusterId, ClusterName, ElectorateId, NodeName, RoleName};
use baton_shared::view::{Published, View, Word};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Answers that may wait: each is dealt with at once.
const MAX_NEWS: usize = 64;
/// Word that runs out is noticed for the log after so long; answers notice by themselves.
const LOOK: Duration = Duration::from_millis(100);

/// Follows until nobody reads what is published. An error is a task that has ended unasked.
pub fn run(agents: Vec<AgentAddress>, publish: watch::Sender<Option<Arc<Published>>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?
        .block_on(follow(agents, publish))
}

async fn follow(
    agents: Vec<AgentAddress>,
    publish: watch::Sender<Option<Arc<Published>>>,
) -> Result<(), String> {
    let (tell, mut news) = mpsc::channel(MAX_NEWS);
    let mut asking = JoinSet::new();
    for (place, agent) in agents.iter().enumerate() {
        let (agent, tell) = (agent.clone(), tell.clone());
        asking.spawn(Asker { place, agent, tell }.run());
    }
    let mut desk = Desk {
        follower: Follower::new(my_name()),
        publish,
        words: BTreeMap::new(),
        troubles: vec![None; agents.len()],
        agents,
    };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some((place, news)) = news.recv() => desk.take(place, news),
            _ = look.tick() => {}
            Some(ended) = asking.join_next() => {
                return Err(match ended {
                    Ok(()) => "an agent is not asked any more; please report this".into(),
                    Err(error) => format!("asking an agent has failed: {error}"),
                });
            }
            () = desk.publish.closed() => return Ok(()),
        }
        desk.log_words(Mono::now());
    }
}

/// What is published, and what the log was told last.
struct Desk {
    follower: Follower,
    publish: watch::Sender<Option<Arc<Published>>>,
    words: BTreeMap<RoleName, Word>,
    agents: Vec<AgentAddress>,
    /// Of each agent, why it is of no use; none while it is.
    troubles: Vec<Option<String>>,
}

impl Desk {
    fn take(&mut self, place: usize, news: News) {
        let trouble = match news {
            News::Lost(reason) => Some(format!("does not answer: {reason} (tried again until it does)")),
            News::Answer {
                status,
                sent,
                received,
            } => {
                let node = status.node.clone();
                match self.follower.hear(place, *status, sent, received) {
                    Heard::Taken => {
                        let now = Mono::now();
                        if let Some(view) = self.follower.view(now) {
                            self.publish(view);
                        }
                        self.log_useful(place, &node);
                        return;
                    }
                    Heard::NotBegun => Some("answers, but its cluster has not begun yet".into()),
                    Heard::Stranger(name) => Some(format!(
                        "is of another cluster, of the name {name}: it is not listened to while there is word of ours; \
                         correct \"agents\""
                    )),
                    Heard::Nonsense(reason) => Some(format!("is not believed: {reason}")),
                }
            }
        };
        if self.troubles[place] != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!("agent {} {trouble}", self.agents[place]);
            }
            self.troubles[place] = trouble;
        }
    }

    fn log_useful(&mut self, place: usize, node: &NodeName) {
        let agent = &self.agents[place];
        if self.troubles[place].take().is_some() {
            tracing::info!("agent {agent} ({node}) answers again");
        } else {
            tracing::trace!("agent {agent} ({node}) has answered");
        }
    }

    /// Publishes in place; other roles, and the first view, in a new place.
    fn publish(&self, view: View) {
        let current = self.publish.borrow().clone();
        let mut roles: Vec<RoleName> = view.roles.iter().map(|role| role.role.clone()).collect();
        roles.sort();
        match current.filter(|published| published.guards.keys().eq(&roles)) {
            Some(published) => published.view.store(Arc::new(view)),
            None => {
                let names: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
                tracing::info!(
                    "follows cluster {} with roles {}, window {:?}",
                    view.cluster,
                    names.join(", "),
                    view.window
                );
                self.publish.send_replace(Some(Published::new(view, roles)));
            }
        }
    }

    /// Logs what is said of each role from now on.
    fn log_words(&mut self, now: Mono) {
        let Some(published) = self.publish.borrow().clone() else {
            return;
        };
        self.words.retain(|role, _| published.guards.contains_key(role));
        for role in published.guards.keys() {
            let word = published.word(role, now);
            if self.words.get(role) == Some(&word) {
                continue;
            }
            match &word {
                Word::Me(epoch) => tracing::info!("{role}: active here at epoch {epoch}"),
                Word::Other(node, epoch) => tracing::info!("{role}: {node} is active at epoch {epoch}"),
                Word::Nobody => tracing::info!("{role}: nobody is active"),
                Word::Unknown => tracing::warn!(
                    "{role}: no agent has said for a window who is active; the answer is SERVFAIL until one does"
                ),
            }
            self.words.insert(role.clone(), word);
        }
    }
}

/// What is published before an agent has answered: no role, no node, and no word of anybody.
pub fn nothing() -> Arc<Published> {
    let view = View {
        serial: 0,
        at: Mono::ZERO,
        cluster: ClusterName::new("unknown").expect("it is a label"),
        cluster_id: ClusterId(0),
        me: my_name(),
        window: Duration::ZERO,
        in_touch_until: Mono::ZERO,
        waiting_for: Vec::new(),
        coordinator: None,
        applied: 0,
        lacks: vec!["nothing is known yet".into()],
        disk_hangs: false,
        paused: false,
        leaving: false,
        electorate: ElectorateId(0),
        joint: false,
        voters: Vec::new(),
        roles: Vec::new(),
        nodes: Vec::new(),
        copy: CopyView::default(),
        alarms: Vec::new(),
        why: Default::default(),
    };
    Published::new(view, [])
}

/// This server's own name: the machine's, if that is a label.
fn my_name() -> NodeName {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default();
    NodeName::new(label).unwrap_or_else(|_| NodeName::new("dnsd").expect("it is a label"))
}
