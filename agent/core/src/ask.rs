//! What operators ask for: checked here, proposed through consensus, answered when it has come about.

use crate::chronicle;
use crate::cluster::{Cluster, Queue};
use crate::coordinate::{picture, set_line};
use crate::input::Request;
use crate::output::{Level, Output};
use crate::plan::{ROUNDS, round};
use crate::publish;
use crate::role::RoleCore;
use crate::state::{Command, Outcome};
use crate::vacate::Vacating;
use crate::why;
use baton_shared::clock::Mono;
use baton_shared::history::list;
use baton_shared::id::{ClusterId, Epoch, NodeName, Owner, RoleName};
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
    aim: Aim,
    applied: bool,
    /// The log overtook it; and how far the log here was when it was prepared.
    overtaken: bool,
    applied_at: u64,
}

/// What is to come about before an order is answered.
enum Aim {
    /// It is agreed on.
    Agreed,
    /// This node is active for this role, at an epoch above that one.
    Switch(RoleName, NodeName, Epoch),
    /// A node has given up what it held.
    Vacate(Vacating),
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
        // Who waits may wait for an hour, and may be gone meanwhile: there is room for other orders all the same.
        let patient = self.waiting.iter().filter(|w| matches!(w.aim, Aim::Vacate(_)));
        let crowded = matches!(request, Request::Vacate { .. }) && patient.count() >= MAX_ASKED / 2;
        let prepared = if crowded || self.waiting.len() >= MAX_ASKED {
            Err("too many requests are under way; try again".to_owned())
        } else if let Some(why) = parted(c, now) {
            Err(why)
        } else {
            prepare(&request, roles, c, now)
        };
        match prepared {
            Err(why) => q.push(Output::Answer { id, result: Err(why) }),
            Ok((command, said, aim)) => {
                q.log(Level::Info, format!("operator: {said}"));
                let event = chronicle::order(&request, c);
                let token = q.propose(command);
                let limit = match request {
                    Request::Vacate { limit, .. } => limit,
                    _ => SWITCHOVER_LIMIT,
                };
                self.waiting.push(Waiting {
                    id,
                    token,
                    event,
                    request,
                    said,
                    until: now + limit,
                    aim,
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
            Ok(Outcome::Applied) => {
                if let Some(event) = waiting.event.take() {
                    q.tell(event);
                }
                waiting.applied = true;
                if !matches!(waiting.aim, Aim::Agreed) {
                    return;
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
                Ok((command, said, aim)) => {
                    (waiting.said, waiting.aim) = (said, aim);
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

    /// Answers orders that have come about, or have not in time. Returns when to look again.
    pub fn turn(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        q: &mut Queue,
        now: Mono,
    ) -> Mono {
        self.again(roles, c, q, now);
        let mut wake = Mono::MAX;
        self.waiting.retain_mut(|w| {
            let result = match w.result(roles, c, now) {
                Some(result) => result,
                None if now < w.until => {
                    wake = wake.min(w.until).min(w.looks_again());
                    return true;
                }
                None => w.late(),
            };
            q.push(Output::Answer { id: w.id, result });
            false
        });
        wake
    }
}

impl Waiting {
    /// What came of it, once that is known.
    fn result(
        &mut self,
        roles: &BTreeMap<RoleName, RoleCore>,
        c: &Cluster,
        now: Mono,
    ) -> Option<Result<String, String>> {
        match &mut self.aim {
            Aim::Switch(role, to, before) => {
                let epoch = serving(roles.get(role)?, to, c, now).filter(|epoch| *epoch > *before)?;
                Some(Ok(format!("{to} is active for role {role} at epoch {epoch}")))
            }
            Aim::Vacate(vacating) if self.applied => {
                let result = vacating.look(roles, c, now)?;
                Some(result.map(|active| [vec![format!("done: {}", self.said)], active].concat().join("; ")))
            }
            Aim::Vacate(_) | Aim::Agreed => None,
        }
    }

    fn looks_again(&self) -> Mono {
        match &self.aim {
            Aim::Vacate(vacating) => vacating.looks_again(),
            _ => Mono::MAX,
        }
    }

    /// It did not come about in time.
    fn late(&self) -> Result<String, String> {
        Err(match &self.aim {
            Aim::Switch(_, to, _) if self.applied => {
                format!("{to} did not become active in time; see `baton status` and the log of {to}")
            }
            Aim::Vacate(vacating) if self.applied => vacating.late(),
            _ => "no answer from consensus in time; see `baton status`".into(),
        })
    }
}

/// The epoch at which `node` is active, by its own word or by that of others who hear it.
pub(crate) fn serving(role: &RoleCore, node: &NodeName, c: &Cluster, now: Mono) -> Option<Epoch> {
    let holder = publish::holder(role, c, now).filter(|holder| holder.serving && holder.node == *node);
    holder.map(|holder| holder.epoch)
}

/// Why nothing can be decided, if no majority has been heard for a while: what is asked now would be done when one is back, if at all.
fn parted(c: &Cluster, now: Mono) -> Option<String> {
    if c.state.cluster == ClusterId(0) || now < c.in_touch_until(now) + c.timing.window * 2 {
        return None;
    }
    let why = why::no_majority(c.me(), &c.silent_voters(now));
    Some(format!(
        "{why}. Nothing was changed; ask a node that is in touch, or try again when it is"
    ))
}

type Prepared = (Command, String, Aim);

fn prepare(
    request: &Request,
    roles: &BTreeMap<RoleName, RoleCore>,
    c: &Cluster,
    now: Mono,
) -> Result<Prepared, String> {
    match request {
        Request::Switchover { role, to } => switchover(role, to.as_ref(), roles, c, now),
        Request::Drain { node, drained } => {
            let (command, mut said, aim) = drain(node, *drained, Aim::Agreed, c)?;
            if *drained && roles.values().any(|role| serving(role, node, c, now).is_some()) {
                said.push_str(", which is still active: it gives way as soon as another node is fit");
            }
            Ok((command, said, aim))
        }
        Request::Vacate { node, patient, .. } => {
            let vacating = Vacating::new(node, *patient, roles, c, now);
            drain(node, true, Aim::Vacate(vacating), c)
        }
        Request::Pause(paused) => {
            let said = if *paused {
                "pause: no automatic takeovers"
            } else {
                "resume automatic takeovers"
            };
            Ok((Command::Pause(*paused), said.into(), Aim::Agreed))
        }
        // Handled by the membership: it is no proposal.
        Request::Bootstrap { .. } => Err(already_founded(c)),
    }
}

fn already_founded(c: &Cluster) -> String {
    let voters = c.state.electorate.voters.iter().map(|id| c.call(*id));
    format!(
        "the cluster was founded before, and its voters are {}; it needs a majority of them, with their data directories, not \
         another founding",
        list(&voters.collect::<Vec<_>>())
    )
}

fn drain(node: &NodeName, drained: bool, aim: Aim, c: &Cluster) -> Result<Prepared, String> {
    if !c.config.nodes.contains_key(node) {
        return Err(unknown_node(node, c));
    }
    let said = format!("{} {node}", if drained { "drain" } else { "undrain" });
    let node = node.clone();
    Ok((Command::Drain { node, drained }, said, aim))
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
            // Where nobody is able it is as if all were; but then the holder keeps what it has.
            let able = |owner: &Owner| {
                picture
                    .candidates
                    .iter()
                    .any(|one| one.owner == *owner && one.able)
            };
            let others = order.iter().copied();
            let mut others = others.filter(|owner| *owner != holder.owner && able(owner));
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
            if !(candidate.fit && candidate.able) {
                let why = match c.peers.get(name) {
                    Some(peer) => core.unfit_peer(peer, c, now),
                    None => core.unable(c, now),
                };
                let why = why.unwrap_or_else(|| "it is not fit".into());
                return Err(format!("{name} cannot take over now: {why}"));
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
        Aim::Switch(role.clone(), name, holder.epoch),
    ))
}
