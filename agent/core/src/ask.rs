//! What operators ask for: checked here, proposed through consensus, answered when it has come about.

use crate::chronicle;
use crate::cluster::{Cluster, Queue};
use crate::coordinate::{picture, set_line};
use crate::input::Request;
use crate::output::{Level, Output};
use crate::plan::{ROUNDS, round};
use crate::role::RoleCore;
use crate::state::{Command, Outcome};
use baton_shared::clock::Mono;
use baton_shared::id::{Epoch, NodeName, RoleName};
use baton_shared::view::Event;
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests under way at once.
const MAX_ASKED: usize = 64;
/// A switchover that has not come about after this is answered so.
const SWITCHOVER_LIMIT: Duration = Duration::from_secs(20);

/// Requests that wait for their proposal, or for what it is to bring about.
#[derive(Default)]
pub(crate) struct Asked {
    waiting: Vec<Waiting>,
}

struct Waiting {
    id: u64,
    token: u64,
    /// Kept to be prepared again when the log overtook it.
    request: Request,
    said: String,
    /// What the history will say once it is done.
    event: Option<Event>,
    until: Mono,
    /// For a switchover: the role, the target, and the epoch before.
    switch: Option<(RoleName, NodeName, Epoch)>,
    applied: bool,
    /// The log overtook it; and how far the log here was when it was prepared.
    overtaken: bool,
    applied_at: u64,
}

impl Asked {
    /// Takes a request in.
    pub fn ask(
        &mut self,
        id: u64,
        request: Request,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) {
        let prepared = if self.waiting.len() >= MAX_ASKED {
            Err("too many requests are under way; try again".to_owned())
        } else {
            prepare(&request, roles, c, now)
        };
        match prepared {
            Err(why) => q.push(Output::Answer { id, result: Err(why) }),
            Ok((command, said, switch)) => {
                q.log(Level::Info, format!("operator: {said}"));
                let event = chronicle::order(&request, c);
                let token = q.propose(command);
                self.waiting.push(Waiting {
                    id,
                    token,
                    event,
                    request,
                    said,
                    until: now + SWITCHOVER_LIMIT,
                    switch,
                    applied: false,
                    overtaken: false,
                    applied_at: c.applied,
                });
            }
        }
    }

    /// A proposal was answered. One that the log overtook (another line was made meanwhile) is prepared again from what is
    /// known by now.
    pub fn answered(
        &mut self,
        token: u64,
        result: &Result<Outcome, String>,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) {
        let Some(at) = self.waiting.iter().position(|w| w.token == token) else {
            return;
        };
        let waiting = &mut self.waiting[at];
        let answer = match result {
            Ok(Outcome::Applied) if waiting.switch.is_some() => {
                waiting.applied = true;
                return;
            }
            Ok(Outcome::Applied) => {
                if let Some(event) = waiting.event.take() {
                    chronicle::write(event, q);
                }
                Ok(format!("done: {}", waiting.said))
            }
            Ok(Outcome::Ignored(_)) if now < waiting.until => {
                // The line that overtook it may not have been learned here yet: prepared when it is (`turn`).
                waiting.overtaken = true;
                return self.again(roles, c, q, now);
            }
            Ok(Outcome::Ignored(why)) => Err(format!("not done: {why}; try again")),
            Err(why) => Err(format!("not done, as far as known: {why}")),
        };
        let id = self.waiting.swap_remove(at).id;
        q.push(Output::Answer { id, result: answer });
    }

    /// Prepares overtaken requests again once a newer line than theirs is known.
    fn again(&mut self, roles: &BTreeMap<RoleName, RoleCore>, c: &Cluster, q: &mut Queue, now: Mono) {
        let mut refused = Vec::new();
        for waiting in self
            .waiting
            .iter_mut()
            .filter(|w| w.overtaken && c.applied > w.applied_at)
        {
            match prepare(&waiting.request, roles, c, now) {
                Ok((command, said, switch)) => {
                    (waiting.said, waiting.switch) = (said, switch);
                    (waiting.overtaken, waiting.applied_at) = (false, c.applied);
                    waiting.token = q.propose(command);
                }
                Err(why) => {
                    refused.push(waiting.id);
                    q.push(Output::Answer {
                        id: waiting.id,
                        result: Err(why),
                    });
                }
            }
        }
        self.waiting.retain(|w| !refused.contains(&w.id));
    }

    /// Answers switchovers that have come about, or have not in time. Returns when to look again.
    pub fn turn(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) -> Mono {
        self.again(roles, c, q, now);
        self.waiting.retain(|w| {
            let Some((role, to, before)) = &w.switch else {
                return now < w.until;
            };
            let serving = roles.get(role).and_then(|role| serving(role, to, c, now));
            let result = match serving {
                Some(epoch) if epoch > *before => {
                    Ok(format!("{to} is active for role {role} at epoch {epoch}"))
                }
                _ if now < w.until => return true,
                _ if w.applied => Err(format!(
                    "{to} did not become active in time; see `baton status` and the log of {to}"
                )),
                _ => Err("no answer from consensus in time; see `baton status`".into()),
            };
            q.push(Output::Answer { id: w.id, result });
            false
        });
        self.waiting.iter().map(|w| w.until).min().unwrap_or(Mono::MAX)
    }
}

/// The epoch at which `node` says that it is active.
fn serving(role: &RoleCore, node: &NodeName, c: &Cluster, now: Mono) -> Option<Epoch> {
    if node == c.me() {
        return role.serving(now);
    }
    c.peers.get(node)?.fresh_beat(&role.name, &c.timing, now)?.serving
}

type Prepared = (Command, String, Option<(RoleName, NodeName, Epoch)>);

fn prepare(
    request: &Request,
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    now: Mono,
) -> Result<Prepared, String> {
    match request {
        Request::Switchover { role, to } => switchover(role, to.as_ref(), roles, c, now),
        Request::Drain { node, drained } => {
            if !c.config.nodes.contains_key(node) {
                return Err(unknown_node(node, c));
            }
            let said = format!("{} {node}", if *drained { "drain" } else { "undrain" });
            Ok((
                Command::Drain {
                    node: node.clone(),
                    drained: *drained,
                },
                said,
                None,
            ))
        }
        Request::Pause(paused) => {
            let said = if *paused {
                "pause: no automatic takeovers"
            } else {
                "resume automatic takeovers"
            };
            Ok((Command::Pause(*paused), said.into(), None))
        }
        // Handled by the membership: it is no proposal.
        Request::Bootstrap { .. } => Err("the cluster is already initialised".into()),
    }
}

fn unknown_node(node: &NodeName, c: &Cluster) -> String {
    let names: Vec<&str> = c.config.nodes.keys().map(NodeName::as_str).collect();
    format!("there is no node \"{node}\"; the nodes are {}", names.join(", "))
}

fn switchover(
    role: &RoleName,
    to: Option<&NodeName>,
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    now: Mono,
) -> Result<Prepared, String> {
    let Some(core) = roles.get(role) else {
        let names: Vec<&str> = roles.keys().map(RoleName::as_str).collect();
        return Err(format!(
            "there is no role \"{role}\"; the roles are {}",
            names.join(", ")
        ));
    };
    let picture = picture(core, c, now);
    let Some(holder) = picture.holder else {
        return Err(format!(
            "nobody holds role {role} at the moment; wait until it is active, see `baton status`"
        ));
    };
    let grounds = c.grounds(now);
    let order = round(&picture);
    let target = match to {
        None => {
            let mut others = order.iter().copied().filter(|owner| *owner != holder.owner);
            others
                .clone()
                .find(|owner| !grounds.is_cut(*owner))
                .or_else(|| others.next())
        }
        Some(name) if !c.config.nodes.contains_key(name) => return Err(unknown_node(name, c)),
        Some(name) => {
            let candidate = picture
                .candidates
                .iter()
                .find(|candidate| candidate.name == *name);
            let candidate = candidate
                .ok_or_else(|| format!("{name} is no member: it is never active, or was never heard"))?;
            if candidate.owner == holder.owner {
                return Err(format!("{name} holds role {role} already"));
            }
            if !candidate.fit && !candidate.writes {
                return Err(format!("{name} cannot take over now: its disk does not answer"));
            }
            if !candidate.fit {
                return Err(format!(
                    "{name} cannot take over now: it is not heard, not healthy, drained or stopping"
                ));
            }
            if grounds.is_cut(candidate.owner) && !grounds.is_cut(holder.owner) {
                let why = crate::clients::words(&grounds.cuts(candidate.owner, c));
                return Err(format!("{name} is {why}; mend that first, or name another node"));
            }
            Some(candidate.owner)
        }
    };
    let target =
        target.ok_or_else(|| format!("no other node is fit to take role {role} over; see `baton status`"))?;
    let name = c
        .name_of(target.node)
        .ok_or("the target has no name yet; try again")?;
    // The target first, then the rounds as the plan would have them with the target as the holder.
    let after = crate::plan::Picture {
        holder: Some(baton_shared::succession::Place {
            owner: target,
            ..holder
        }),
        ..picture
    };
    let order = std::iter::once(target)
        .chain(std::iter::repeat_n(round(&after), ROUNDS).flatten())
        .collect();
    let cause = format!("an operator asked {} for a switchover to {name}", c.me());
    let command = set_line(role, after.line.version, order, Some(holder.epoch), cause, c);
    Ok((
        command,
        format!("switchover of role {role} to {name}"),
        Some((role.clone(), name, holder.epoch)),
    ))
}
