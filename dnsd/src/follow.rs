//! Following a cluster from outside: what several agents say, merged into one [`View`] for the server.
//!
//! Nothing here reads a clock or a socket. Whoever asks agents for their `/status` gives each answer to
//! [`Follower::hear`], with the instants at which the question left and the answer was there, and publishes
//! [`Follower::view`].
//!
//! **Why questions and answers, and no stream.** An agent says for how long its word may be repeated. From when on? On a
//! stream nobody knows how long a message was under way: a connection that stalls delivers old promises as if they were
//! new. Of an answer it is known that it was made after its question was sent. So each word counts from the sending of
//! the question, plus the time for which the agent held the answer back to wait for news, by its own measure: however
//! late the answer comes, or is read by a process that was frozen, no word lives longer here than where it was said (S4).
//! Both spans are shortened by the hundredth that two clocks may differ by (S1).
//!
//! **How words are merged.** All agents are asked at all times.
//!
//! - The greatest epoch wins; once it was heard of, no lower one is repeated, fresh or not: it is over.
//! - What a node says of itself is better than what others heard from it before.
//! - "Nobody is active" is said only when an agent said so that is in touch with a majority, and said it after the last
//!   word of an active node. That word has run out is not enough.
//! - Nodes, addresses and what the zone's serial is made of are those of the agent with the newest log.
//! - Agents of another cluster are not listened to as long as there is fresh word of this one.

use baton_shared::clock::Mono;
use baton_shared::copy::CopyView;
use baton_shared::id::{Boot, ClusterId, ClusterName, ElectorateId, Epoch, NodeId, NodeName, RoleName};
use baton_shared::status::{NodeStatus, RoleStatus, Status};
use baton_shared::timing::MAX_WINDOW;
use baton_shared::view::{HolderView, NodeView, RoleState, RoleView, View};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Nodes, roles, and addresses of a node that are taken from an answer; clusters have a few of each.
const MAX_NODES: usize = 1_000;
const MAX_ROLES: usize = 1_000;
const MAX_ADDRESSES: usize = 64;

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It counts.
    Taken,
    /// The agent's cluster has not begun yet.
    NotBegun,
    /// It is of another cluster than the one followed, of that name.
    Stranger(ClusterName),
    /// It is no answer of an agent, for this reason.
    Nonsense(String),
}

/// What all agents said last.
pub struct Follower {
    me: NodeName,
    serial: u64,
    /// The cluster followed.
    cluster: Option<(ClusterName, ClusterId)>,
    /// By the agent's place in the configuration.
    reports: BTreeMap<usize, Report>,
    /// Of each role the last word of an active node: no older one counts any more.
    last: BTreeMap<RoleName, Last>,
}

/// An answer.
struct Report {
    status: Status,
    cluster: (ClusterName, ClusterId),
    /// It was made at this instant or later.
    made: Mono,
    received: Mono,
    in_touch_until: Mono,
}

/// The greatest epoch heard of, and the last time that somebody said that it is active.
struct Last {
    epoch: Epoch,
    made: Mono,
}

/// A word that a node is active.
struct Claim<'r> {
    node: &'r NodeName,
    epoch: Epoch,
    until: Mono,
}

impl Follower {
    /// Has heard nothing yet. `me` is this server's own name; no node may have it.
    pub fn new(me: NodeName) -> Follower {
        Follower {
            me,
            serial: 0,
            cluster: None,
            reports: BTreeMap::new(),
            last: BTreeMap::new(),
        }
    }

    /// Takes the answer of an agent, by its place in the configuration, to a question that was sent at `sent`; it was all
    /// there at `received`.
    pub fn hear(&mut self, agent: usize, status: Status, sent: Mono, received: Mono) -> Heard {
        let report = match Report::new(status, sent, received) {
            Ok(report) => report,
            Err(reason) => return Heard::Nonsense(reason),
        };
        if report.cluster.1 == ClusterId(0) {
            self.reports.remove(&agent);
            return Heard::NotBegun;
        }
        if self.cluster.as_ref() != Some(&report.cluster) {
            let fresh = |report: &Report| received < report.in_touch_until;
            let followed = self.of_cluster().any(|(_, report)| fresh(report));
            if followed || (self.cluster.is_some() && !fresh(&report)) {
                let (name, _) = report.cluster;
                self.reports.remove(&agent);
                return Heard::Stranger(name);
            }
            self.cluster = Some(report.cluster.clone());
            self.last.clear();
        }
        for role in &report.status.roles {
            let Some((_, epoch)) = active(role) else { continue };
            let made = report.made;
            let last = self.last.entry(role.role.clone()).or_insert(Last { epoch, made });
            if (epoch, made) > (last.epoch, last.made) {
                *last = Last { epoch, made };
            }
        }
        self.reports.insert(agent, report);
        Heard::Taken
    }

    /// The cluster as all answers together have it at `now`; `None` before the first. Each view has a greater serial.
    ///
    /// What it says about who is active runs out by itself, without another view.
    pub fn view(&mut self, now: Mono) -> Option<View> {
        let ranked = self.ranked(now);
        let newest = *ranked.first()?;
        let status = &newest.status;
        let (roles, bounds): (Vec<RoleView>, Vec<Mono>) =
            status.roles.iter().map(|role| self.role(role, now)).unzip();
        let view = View {
            serial: self.serial + 1,
            at: now,
            cluster: newest.cluster.0.clone(),
            cluster_id: newest.cluster.1,
            me: self.name(status),
            window: window(status),
            // One instant for all roles. With word of an active node it is that word's end: nobody has said what comes then.
            in_touch_until: bounds.into_iter().min().unwrap_or(Mono::ZERO),
            waiting_for: Vec::new(),
            coordinator: status.coordinator.clone(),
            applied: status.applied,
            lacks: Vec::new(),
            disk_hangs: false,
            paused: status.paused.unwrap_or_default(),
            leaving: false,
            electorate: ElectorateId(status.electorate),
            joint: status.electorate_joint,
            voters: status.voters.clone(),
            roles,
            nodes: status.nodes.iter().map(|node| self.node(node, &ranked)).collect(),
            copy: CopyView {
                digest: u64::from_str_radix(&status.copy, 16).ok(),
                greatest: status.greatest_epoch,
            },
            alarms: Vec::new(),
            why: Default::default(),
        };
        self.serial = view.serial;
        Some(view)
    }

    /// The answers that count, those of agents in touch first, and of those the newest log.
    fn ranked(&self, now: Mono) -> Vec<&Report> {
        let mut ranked: Vec<(&usize, &Report)> = self.of_cluster().collect();
        ranked.sort_by_key(|(agent, report)| {
            let fresh = now < report.in_touch_until;
            (Reverse((fresh, report.status.applied)), **agent)
        });
        ranked.into_iter().map(|(_, report)| report).collect()
    }

    fn of_cluster(&self) -> impl Iterator<Item = (&usize, &Report)> {
        let ours = |report: &Report| self.cluster.as_ref() == Some(&report.cluster);
        self.reports.iter().filter(move |(_, report)| ours(report))
    }

    /// This server's name, made different if a node has it: a view never speaks of its own node as of another.
    fn name(&self, status: &Status) -> NodeName {
        let mut me = self.me.clone();
        for n in 0.. {
            if status.nodes.iter().all(|node| node.name != me) {
                break;
            }
            let stem: String = self.me.as_str().chars().take(40).collect();
            me = NodeName::new(&format!("{stem}-{n}")).unwrap_or(me);
        }
        me
    }

    /// One role as `newest` describes it, with the word that counts; and until when "nobody" may be said of it.
    fn role(&self, newest: &RoleStatus, now: Mono) -> (RoleView, Mono) {
        let role = &newest.role;
        let claim = self.claim(role, now);
        let bound = match &claim {
            Some(claim) => claim.until,
            None => self.nobody_until(role),
        };
        let view = RoleView {
            role: role.clone(),
            state: RoleState::Standby,
            reason: String::new(),
            holder: claim.map(|claim| HolderView {
                node: claim.node.clone(),
                id: NodeId(0),
                epoch: claim.epoch,
                serving: true,
                fresh_until: claim.until,
            }),
            last: newest.last_takeover.clone(),
            line: Vec::new(),
            promoted: None,
            lease_until: Mono::ZERO,
        };
        (view, bound)
    }

    /// The word of an active node that counts at `now`; of several the one that lives longest.
    fn claim(&self, role: &RoleName, now: Mono) -> Option<Claim<'_>> {
        let least = self.last.get(role)?.epoch;
        self.of_cluster()
            .filter_map(|(_, report)| {
                let said = report.role(role)?;
                let (node, epoch) = active(said)?;
                let until = report.until(said.known_ms);
                let counts = epoch >= least && now < until && !self.denied(role, node, epoch, report);
                counts.then_some(Claim { node, epoch, until })
            })
            .max_by_key(|claim| (claim.epoch, claim.until))
    }

    /// Whether `node` itself has said that it is not active at `epoch`, after `hearsay` was here already.
    fn denied(&self, role: &RoleName, node: &NodeName, epoch: Epoch, hearsay: &Report) -> bool {
        self.of_cluster().any(|(_, own)| {
            let says_so = || own.role(role).and_then(active) == Some((node, epoch));
            own.status.node == *node && own.made > hearsay.received && !says_so()
        })
    }

    /// Until when "nobody" may be said of `role`.
    fn nobody_until(&self, role: &RoleName) -> Mono {
        let since = self.last.get(role).map_or(Mono::ZERO, |last| last.made);
        self.of_cluster()
            .filter(|(_, report)| report.made >= since)
            .filter_map(|(_, report)| {
                let said = report.role(role).filter(|role| role.known == "nobody")?;
                Some(report.until(said.known_ms).min(report.in_touch_until))
            })
            .max()
            .unwrap_or(Mono::ZERO)
    }

    /// A node as the newest agent has it. An agent that has not resolved its name yet may be behind one that has.
    fn node(&self, newest: &NodeStatus, ranked: &[&Report]) -> NodeView {
        let mut all = ranked.iter().flat_map(|report| &report.status.nodes);
        let resolved = all.find(|node| node.name == newest.name && !node.serves.is_empty());
        NodeView {
            name: newest.name.clone(),
            kind: newest.kind,
            id: NodeId(0),
            boot: Boot(0),
            state: newest.state,
            reason: String::new(),
            serves: resolved.unwrap_or(newest).serves.clone(),
            priority: newest.priority,
            drained: newest.drained.unwrap_or_default(),
            healthy: newest.healthy.clone(),
            links: Vec::new(),
            skew_ms: 0,
            other_config: newest.other_config,
            hears: Vec::new(),
            cut_off: Vec::new(),
            unread: None,
            applied: None,
        }
    }
}

impl Report {
    fn new(status: Status, sent: Mono, received: Mono) -> Result<Report, String> {
        let wrong = |what: &str, number: usize| Err(format!("it names {number} {what}"));
        if status.in_touch && status.gist.is_empty() {
            let version = status.version.chars().take(40).collect::<String>();
            return Err(format!(
                "version {version} does not say for how long its word holds; update it"
            ));
        }
        if status.nodes.len() > MAX_NODES {
            return wrong("nodes", status.nodes.len());
        }
        if status.roles.len() > MAX_ROLES {
            return wrong("roles", status.roles.len());
        }
        if let Some(node) = status.nodes.iter().find(|n| n.serves.len() > MAX_ADDRESSES) {
            return wrong("addresses of one node", node.serves.len());
        }
        let name = ClusterName::new(&status.cluster).map_err(|error| error.to_string())?;
        let id = match status.cluster_id.as_str() {
            "" => 0,
            text => u64::from_str_radix(text, 16).map_err(|_| "its cluster's id is no number")?,
        };
        let made = (sent + span(status.held_ms)).min(received);
        let mut report = Report {
            status,
            cluster: (name, ClusterId(id)),
            made,
            received,
            in_touch_until: Mono::ZERO,
        };
        report.in_touch_until = report.until(report.status.in_touch_ms);
        Ok(report)
    }

    fn role(&self, role: &RoleName) -> Option<&RoleStatus> {
        self.status.roles.iter().find(|said| said.role == *role)
    }

    /// The end of what may be repeated for so many milliseconds; never more than a window after it was said.
    fn until(&self, ms: f64) -> Mono {
        let left = span(ms).min(window(&self.status));
        if left.is_zero() {
            Mono::ZERO
        } else {
            self.made + left
        }
    }
}

/// The active node and its epoch, if the agent says so.
fn active(role: &RoleStatus) -> Option<(&NodeName, Epoch)> {
    role.active.as_ref().zip(role.epoch)
}

fn window(status: &Status) -> Duration {
    millis(status.window_ms).min(MAX_WINDOW)
}

/// A span of the agent's clock, in milliseconds, that has surely passed, or is surely left, by ours: the rates of two
/// clocks differ by less than a hundredth (S1).
fn span(ms: f64) -> Duration {
    millis(ms).mul_f64(0.99)
}

/// Whatever the number: none is negative, and none longer than an hour.
fn millis(ms: f64) -> Duration {
    const LONGEST_MS: f64 = 3_600_000.0;
    match ms > 0.0 {
        true => Duration::from_secs_f64(ms.min(LONGEST_MS) / 1e3),
        false => Duration::ZERO, // NaN too
    }
}
