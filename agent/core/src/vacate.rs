//! A node that was taken out of line: whether the roles that it held are with others by now, or stay with it.

use crate::ask::serving;
use crate::cluster::Cluster;
use crate::coordinate::picture;
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeName, RoleName};
use std::collections::BTreeMap;

/// What is waited for.
pub(crate) struct Vacating {
    node: NodeName,
    /// Roles that it held when the order came, and at which epoch.
    held: Vec<(RoleName, Epoch)>,
    /// Wait even while nobody else is fit.
    patient: bool,
    /// When it is said that it stays, unless it looks different by then: a check may just fail once.
    stays_at: Option<Mono>,
}

impl Vacating {
    /// Begins to wait for `node` to give up what it holds.
    pub fn new(
        node: &NodeName,
        patient: bool,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        now: Mono,
    ) -> Vacating {
        let held = roles.values();
        let held = held.filter_map(|role| Some((role.name.clone(), holding(role, node, c, now)?)));
        Vacating {
            node: node.clone(),
            held: held.collect(),
            patient,
            stays_at: None,
        }
    }

    /// When to look again, if nothing happens before.
    pub fn looks_again(&self) -> Mono {
        self.stays_at.unwrap_or(Mono::MAX)
    }

    /// Looks, once the order is in the log: who is active instead, or why it stays; `None` while neither is certain.
    pub fn look(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        now: Mono,
    ) -> Option<Result<Vec<String>, String>> {
        if !c.drained(&self.node) {
            return None; // the log here is not so far yet
        }
        let (mut active, mut left) = (Vec::new(), Vec::new());
        for (name, before) in &self.held {
            let Some(role) = roles.get(name) else { continue };
            let others = c.config.nodes.keys().filter(|other| **other != self.node);
            let mut serving = others.filter_map(|other| Some((other, serving(role, other, c, now)?)));
            match serving.find(|(_, epoch)| epoch > before) {
                Some((other, epoch)) => {
                    active.push(format!("{other} is active for role {name} at epoch {epoch}"));
                }
                None => left.push(role),
            }
        }
        if left.is_empty() {
            return Some(Ok(active));
        }
        let why = left.into_iter().find_map(|role| self.keeps(role, c, now));
        let Some(why) = why.filter(|_| !self.patient) else {
            self.stays_at = None;
            return None;
        };
        let at = *self.stays_at.get_or_insert(now + c.timing.window);
        (now >= at).then_some(Err(why))
    }

    /// Why this node keeps a role, if it does.
    fn keeps(&self, role: &RoleCore, c: &Cluster, now: Mono) -> Option<String> {
        holding(role, &self.node, c, now)?;
        let fit = picture(role, c, now).candidates;
        let why = match fit
            .iter()
            .any(|other| other.fit && other.able && other.name != self.node)
        {
            true if !c.state.paused => return None,
            true => "takeovers are paused; `baton resume`, or move the role with `baton switchover`",
            false => "nobody else is fit",
        };
        let does = match serving(role, &self.node, c, now) {
            Some(_) => "stays active",
            None => "keeps what it holds",
        };
        let of = match c.config.roles.len() {
            1 => String::new(),
            _ => format!(" for role {}", role.name),
        };
        Some(format!("{} is out of line but {does}{of}: {why}", self.node))
    }

    /// What is said when the time is over.
    pub fn late(&self) -> String {
        let roles: Vec<&str> = self.held.iter().map(|(role, _)| role.as_str()).collect();
        format!(
            "{} is out of line, but no other node became active for {} in time; see `baton status`",
            self.node,
            roles.join(", ")
        )
    }
}

/// The epoch at which a node holds a role, by its own last word.
fn holding(role: &RoleCore, node: &NodeName, c: &Cluster, now: Mono) -> Option<Epoch> {
    if node == c.me() {
        return role.holding(now);
    }
    c.peers.get(node)?.fresh_beat(&role.name, &c.timing, now)?.holding
}
