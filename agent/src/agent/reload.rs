//! Reading the configuration again: what may change while the agent runs is taken over, all or nothing.

use super::Options;
use super::systemd::Manager;
use crate::consensus::Consensus;
use crate::control::Notice;
use crate::handle::Reload;
use crate::http::Certificates;
use baton_core::Input;
use baton_shared::config::{Config, Role};
use baton_shared::id::NodeName;
use baton_shared::view::{PeerState, Published, View};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a peer may take to answer that it has read its file.
const TELL_LIMIT: Duration = Duration::from_secs(4);

/// What a reload says.
type Said = Result<String, String>;

/// The task that reads the configuration again.
pub struct Reloader {
    /// How the agent was started: the file and what overrides it.
    pub options: Options,
    /// The current configuration, for those who follow it.
    pub configs: watch::Sender<Arc<Config>>,
    /// Told of a new configuration, and the way to peers.
    pub consensus: Consensus,
    /// Who is heard at the moment.
    pub published: Arc<Published>,
    /// To the control loop.
    pub notices: mpsc::Sender<Notice>,
    /// From faces and signals.
    pub reloads: mpsc::Receiver<Reload>,
    /// From peers.
    pub told: mpsc::Receiver<oneshot::Sender<Said>>,
    /// Read anew as well.
    pub certificates: Option<Arc<Certificates>>,
    /// Told while it reads.
    pub manager: Manager,
}

impl Reloader {
    /// Serves requests, one at a time.
    pub async fn run(mut self) -> Result<(), String> {
        loop {
            let (everywhere, answer) = tokio::select! {
                Some(reload) = self.reloads.recv() => (reload.everywhere, reload.answer),
                Some(answer) = self.told.recv() => (false, answer),
                else => return Ok(()), // the agent is exiting
            };
            self.manager.reloading().await;
            let here = match self.here().await {
                Ok(text) => self.certificates(text).await,
                refused => refused,
            };
            self.manager.ready().await;
            let said = match here {
                Ok(text) if everywhere => self.elsewhere(text).await,
                said => said,
            };
            match &said {
                Ok(text) => tracing::info!("reload: {text}"),
                Err(text) => tracing::error!("reload: {text}"),
            }
            let _ = answer.send(said); // who no longer waits reads it in the log
        }
    }

    async fn here(&self) -> Said {
        let options = self.options.clone();
        let loaded = tokio::task::spawn_blocking(move || options.load())
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("nothing was changed: {error}"))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let (old, new) = (self.configs.borrow().clone(), Arc::new(loaded.config));
        if *old == *new {
            return Ok("nothing has changed".into());
        }
        let fixed = needs_restart(&old, &new);
        if !fixed.is_empty() {
            let fixed = fixed.join(", ");
            return Err(format!(
                "nothing was changed: {fixed} cannot change while the agent runs; restart this node to change it"
            ));
        }
        if let Some(why) = removes_too_much(&self.published.view.load(), &new) {
            return Err(format!("nothing was changed: {why}"));
        }
        let text = summary(&old, &new);
        self.configs.send_replace(new.clone());
        self.consensus.configure(new.clone());
        self.notices
            .send(Input::Configured(new).into())
            .await
            .map_err(|_| "the agent is stopping")?;
        Ok(text)
    }

    /// Reads the certificate anew, where there is one.
    async fn certificates(&self, text: String) -> Said {
        let Some(certificates) = &self.certificates else {
            return Ok(text);
        };
        match certificates.reload().await {
            Ok(()) => Ok(format!("{text}; the TLS certificate was read anew")),
            Err(error) => Err(format!(
                "{text}; but the TLS certificate stays the old one: {error}"
            )),
        }
    }

    /// Tells every other node; all are told, whatever one says.
    async fn elsewhere(&self, here: String) -> Said {
        let config = self.configs.borrow().clone();
        let mut telling = JoinSet::new();
        for node in config.nodes.keys().filter(|node| **node != config.me) {
            telling.spawn(tell(self.consensus.clone(), node.clone()));
        }
        let mut answers = telling.join_all().await;
        answers.sort_by(|a, b| a.0.cmp(&b.0));
        let view = self.published.view.load();
        let heard = |node: &NodeName| {
            view.node(node)
                .is_some_and(|n| matches!(n.state, PeerState::Up | PeerState::Suspect))
        };
        let mut failed = false;
        let mut text = format!("{}: {here}", config.me);
        for (node, said) in answers {
            let said = match said {
                Ok(said) => said,
                // A node that does not run reads the file when it starts.
                Err(_) if !heard(&node) => "not heard; it reads its file when it starts".into(),
                Err(error) => {
                    failed = true;
                    format!("FAILED, {error}")
                }
            };
            text.push_str(&format!("; {node}: {said}"));
        }
        if failed { Err(text) } else { Ok(text) }
    }
}

async fn tell(consensus: Consensus, node: NodeName) -> (NodeName, Said) {
    let said = timeout(TELL_LIMIT, consensus.tell_reload(&node)).await;
    let said = said.unwrap_or_else(|_| Err(format!("no answer in {TELL_LIMIT:?}")));
    (node, said)
}

/// What differs that cannot change while the agent runs, by its name in the file.
pub fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (a, b) = (old.my_node(), new.my_node());
    // What stops an application must be there for as long as what was started with it.
    let stops = |role: &Role| {
        let mode = role.process.as_ref().map(|process| process.mode);
        (mode, role.demote.is_some(), role.fence.is_some())
    };
    let mut both = old
        .roles
        .iter()
        .filter_map(|(name, role)| Some((role, new.roles.get(name)?)));
    let stop_alike = both.all(|(before, after)| stops(before) == stops(after));
    let fixed = [
        (
            "whether a role has a [process] (and its mode), a demote or a fence",
            stop_alike,
        ),
        ("cluster.name", old.cluster.name == new.cluster.name),
        ("cluster.key", old.cluster.key == new.cluster.key),
        ("cluster.window", old.cluster.window == new.cluster.window),
        ("networks", old.networks == new.networks),
        ("storage.dir", old.storage == new.storage),
        ("the names of roles", old.roles.keys().eq(new.roles.keys())),
        ("http", old.http == new.http),
        ("control", old.control == new.control),
        ("dns", old.dns == new.dns),
        ("agent.watchdog", old.agent.watchdog == new.agent.watchdog),
    ];
    let mut names: Vec<String> = fixed
        .into_iter()
        .filter(|(_, same)| !same)
        .map(|(name, _)| name.to_owned())
        .collect();
    let me = &new.me;
    if old.me != new.me {
        names.push("this node's name".into());
    }
    if a.kind != b.kind {
        names.push(format!("nodes.{me}.kind"));
    }
    if (&a.addresses, &a.binds) != (&b.addresses, &b.binds) {
        names.push(format!("the addresses of nodes.{me}"));
    }
    names
}

/// Why the nodes that `new` leaves out cannot all go now: those that stay must be able to agree on it (V5), and the role
/// is handed over by those who hold it, not taken from them.
pub fn removes_too_much(view: &View, new: &Config) -> Option<String> {
    let stays = |name: &NodeName| new.nodes.get(name).is_some_and(|node| node.kind.votes());
    let leaves = view.voters.iter().any(|name| !stays(name));
    if leaves && view.joint {
        return Some(
            "the voters are changing already; wait until `baton status` no longer says so, then reload"
                .into(),
        );
    }
    let staying = view.voters.iter().filter(|name| stays(name)).count();
    if !view.voters.is_empty() && staying * 2 <= view.voters.len() {
        return Some(format!(
            "only {staying} of the {} present voters would stay, and a majority of them must agree; remove fewer nodes, \
             reload, wait until `baton status` shows the new voters, then remove the next",
            view.voters.len()
        ));
    }
    view.roles.iter().find_map(|role| {
        let holder = &role.holder.as_ref()?.node;
        let may_act = new.nodes.get(holder).is_some_and(|node| node.kind.may_act());
        (!may_act).then(|| {
            format!(
                "{holder} holds role {}: `baton switchover` it to a node that stays, then reload",
                role.role
            )
        })
    })
}

/// What a reload changed, in a sentence.
fn summary(old: &Config, new: &Config) -> String {
    let list = |from: &Config, other: &Config, word: &str| {
        let names: Vec<&str> = from
            .nodes
            .keys()
            .filter(|name| !other.nodes.contains_key(*name))
            .map(NodeName::as_str)
            .collect();
        (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
    };
    let changed: Vec<&str> = new
        .nodes
        .iter()
        .filter(|(name, node)| old.nodes.get(name).is_some_and(|old| old != *node))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut parts: Vec<String> = [list(new, old, "added"), list(old, new, "removed")]
        .into_iter()
        .flatten()
        .collect();
    if !changed.is_empty() {
        parts.push(format!("changed {}", changed.join(", ")));
    }
    if old.roles != new.roles {
        parts.push("other checks or actions".into());
    }
    if parts.is_empty() {
        return "taken over".into();
    }
    format!("taken over ({})", parts.join("; "))
}

#[cfg(test)]
mod tests;
