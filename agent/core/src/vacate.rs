//! A node that was taken out of line: whether the roles that it held are with others by now, or stay with it.

use crate::ask::serving;
use crate::cluster::Cluster;
use crate::coordinate::picture;
use crate::publish;
use crate::role::RoleCore;
use crate::why;
use baton_shared::clock::Mono;
use baton_shared::history::list;
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::view::HolderView;
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
    /// The order was seen in the log.
    drained: bool,
    /// Roles that no other node is active for, by the last look.
    left: Vec<RoleName>,
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
            drained: false,
            left: Vec::new(),
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
            // Until it was seen there, the log here is not so far yet.
            return self
                .drained
                .then(|| Err(format!("{} was put back in line meanwhile", self.node)));
        }
        self.drained = true;
        // What it was about to take when the order came it may have won since.
        for (name, role) in roles {
            let is_new = self.held.iter().all(|(held, _)| held != name);
            if let Some(epoch) = holding(role, &self.node, c, now).filter(|_| is_new) {
                self.held.push((name.clone(), epoch));
            }
        }
        let (mut active, mut left) = (Vec::new(), Vec::new());
        for (name, before) in &self.held {
            let Some(role) = roles.get(name) else { continue };
            let elsewhere = |holder: &HolderView| holder.node != self.node && holder.epoch > *before;
            match publish::holder(role, c, now).filter(|holder| holder.serving && elsewhere(holder)) {
                Some(HolderView { node, epoch, .. }) => {
                    active.push(format!("{node} is active for role {name} at epoch {epoch}"));
                }
                None => left.push(role),
            }
        }
        self.left = left.iter().map(|role| role.name.clone()).collect();
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
        let why: String = match fit
            .iter()
            .any(|other| other.fit && other.able && other.name != self.node)
        {
            true if !c.state.paused => return None,
            true => "takeovers are paused; `baton resume`, or move the role with `baton switchover`".into(),
            false => match why::others_unfit(&self.node, role, c, now).as_str() {
                "" => "nobody else is fit".into(),
                others => format!("nobody else is fit ({others})"),
            },
        };
        let does = match serving(role, &self.node, c, now) {
            Some(_) => "stays active",
            None => "keeps what it holds",
        };
        let of = match c.config.roles.len() {
            1 => String::new(),
            _ => format!(" for role {}", role.name),
        };
        let node = &self.node;
        Some(format!(
            "{node} is out of line but {does}{of}: {why}. `baton undrain {node}` puts it back"
        ))
    }

    /// What is said when the time is over.
    pub fn late(&self) -> String {
        let node = &self.node;
        format!(
            "no other node became active for {} in time; see `baton status`. {node} stays out of line until `baton undrain {node}`",
            list(&self.left)
        )
    }
}

/// The epoch at which a node holds a role, by its own word, or else by that of others who hear it.
fn holding(role: &RoleCore, node: &NodeName, c: &Cluster, now: Mono) -> Option<Epoch> {
    if node == c.me() {
        return role.holding(now);
    }
    let peer = c.peers.get(node)?;
    if let Some(beat) = peer.fresh_beat(&role.name, &c.timing, now) {
        return beat.holding;
    }
    let holder = publish::holder(role, c, now).filter(|holder| holder.node == *node);
    holder.map(|holder| holder.epoch)
}
