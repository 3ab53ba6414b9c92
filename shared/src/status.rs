//! The cluster's state for machines: what `/status` and `baton status --json` print. Made from a [`View`] at an instant.
//!
//! Whatever may go stale says for how long it may be repeated, from the instant at which the status was made (S4).
//! [`gist`] is what somebody who follows the cluster from outside waits for to change.

use crate::clock::Mono;
use crate::guard::Guard;
use crate::id::{Epoch, Kind, NodeName, RoleName};
use crate::view::{
    CANNOT_RUN, Event, LinkState, PeerState, Published, PushView, RoleState, RoleView, StreamState,
    StreamView, View, Word,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

/// Everything a node knows, with durations in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's name.
    pub cluster: String,
    /// Its id in hexadecimal; empty until it is initialised.
    pub cluster_id: String,
    /// The node that answers.
    pub node: NodeName,
    /// Program version.
    pub version: String,
    /// W.
    pub window_ms: f64,
    /// In touch with a majority of voters.
    pub in_touch: bool,
    /// Milliseconds for which that may be repeated; 0 if it is not in touch.
    #[serde(default)]
    pub in_touch_ms: f64,
    /// Milliseconds from the arrival of the request to the making of this answer, if it was held back for news.
    #[serde(default)]
    pub held_ms: f64,
    /// [`gist`] in hexadecimal: changes with whatever a follower has to know at once.
    #[serde(default)]
    pub gist: String,
    /// In touch, the log caught up, the vote counts, and the disk answers.
    pub ready: bool,
    /// What is missing for that, in a few words each.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Writes to its disk are not completed.
    #[serde(default)]
    pub disk_hangs: bool,
    /// Voters that must be heard before the cluster can start.
    pub waiting_for: Vec<NodeName>,
    /// The consensus leader.
    pub coordinator: Option<NodeName>,
    /// Last log entry applied.
    pub applied: u64,
    /// The digest that the log has of what copies of the DNS zone show, in hexadecimal; empty before the first.
    #[serde(default)]
    pub copy: String,
    /// The greatest epoch ever given to any role.
    #[serde(default)]
    pub greatest_epoch: Epoch,
    /// No automatic takeovers; none while the answering node does not know, because it has no word of the log yet.
    pub paused: Option<bool>,
    /// The electorate's version.
    pub electorate: u64,
    /// It is changing, or the engine has not followed it yet.
    pub electorate_joint: bool,
    /// The voters.
    pub voters: Vec<NodeName>,
    /// Every role.
    pub roles: Vec<RoleStatus>,
    /// Every node.
    pub nodes: Vec<NodeStatus>,
    /// What needs a person.
    pub alarms: Vec<String>,
    /// Name servers outside the cluster that are told of the active node.
    #[serde(default)]
    pub pushes: Vec<PushView>,
    /// The newest event.
    pub last_event: Option<Event>,
    /// What the answering node has to tell and the history does not have yet; their number is 0.
    #[serde(default)]
    pub untold: Vec<Event>,
}

/// One role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// Its name.
    pub role: RoleName,
    /// The active node, as far as the answering one may say.
    pub active: Option<NodeName>,
    /// The answering node knows: `active`, `nobody` or `unknown`.
    pub known: String,
    /// Milliseconds for which what is known may be repeated; 0 if nothing is.
    #[serde(default)]
    pub known_ms: f64,
    /// The active node's epoch.
    pub epoch: Option<Epoch>,
    /// The node with the greatest granted epoch, active or not.
    pub holder: Option<NodeName>,
    /// The epoch that it says.
    #[serde(default)]
    pub holder_epoch: Option<Epoch>,
    /// The node whose takeover the log has last.
    #[serde(default)]
    pub last_takeover: Option<NodeName>,
    /// Milliseconds left of the answering node's own lease; 0 without one.
    pub lease_ms: f64,
    /// The answering node's state.
    pub state: RoleState,
    /// Why.
    pub reason: String,
    /// Who comes next.
    pub line: Vec<PlaceStatus>,
    /// What the answering node's check of its own application last saw; none without a check, or while none is made.
    #[serde(default)]
    pub check: Option<CheckStatus>,
    /// Why nobody is active, as far as the answering node knows; none while somebody is.
    #[serde(default)]
    pub nobody: Option<String>,
    /// Milliseconds since anybody was last active, if that is known; none while somebody is.
    #[serde(default)]
    pub nobody_ms: Option<f64>,
    /// The last line of the answering node's last promote or demote action, if that failed. Only operators are told: see
    /// [`Status::for_operators`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_words: String,
}

/// The last result of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// It was good.
    pub good: bool,
    /// The application counts as healthy: `rise` and `fall` count.
    pub healthy: bool,
    /// What was seen, or why it failed.
    pub reason: String,
    /// What the application itself said. Only operators are told: see [`Status::for_operators`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Milliseconds that it took, where that was measured.
    #[serde(default)]
    pub took_ms: Option<f64>,
    /// Milliseconds since it ended.
    pub ago_ms: f64,
}

/// A place in line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlaceStatus {
    /// Whose.
    pub node: NodeName,
    /// At which epoch.
    pub epoch: Epoch,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its kind.
    pub kind: Kind,
    /// Consensus id in hexadecimal; empty if not known.
    pub id: String,
    /// Whether it is heard.
    pub state: PeerState,
    /// Why.
    pub reason: String,
    /// What DNS answers for it.
    pub serves: Vec<IpAddr>,
    /// Configured preference.
    pub priority: i64,
    /// Out of line by an operator's word; none as for [`Status::paused`].
    pub drained: Option<bool>,
    /// Health of its application, per role.
    pub healthy: BTreeMap<RoleName, bool>,
    /// Roles it is active for.
    pub active_for: Vec<RoleName>,
    /// Its wall clock less the answering node's.
    pub clock_skew_ms: i64,
    /// Its configuration differs.
    pub other_config: bool,
    /// Links to it.
    pub links: Vec<LinkStatus>,
    /// Whom it hears, by name, with a bit per network in the configuration's order.
    pub hears: Vec<(NodeName, u16)>,
    /// Networks by which clients come and from which it is cut off, each with the reason.
    #[serde(default)]
    pub cut_off: Vec<(String, String)>,
    /// What comes from its address cannot be read: the alarm about it.
    #[serde(default)]
    pub unread: Option<String>,
    /// Last log entry that it said it has applied; none while it is not heard.
    #[serde(default)]
    pub applied: Option<u64>,
    /// What failed last there and has not succeeded since, or why it could not take a role now; per role.
    #[serde(default)]
    pub troubles: BTreeMap<RoleName, String>,
}

impl NodeStatus {
    /// The roles that it could not take for want of a program, and of which.
    pub fn lacking(&self) -> impl Iterator<Item = (&RoleName, &str)> {
        let troubles = self.troubles.iter();
        troubles.filter_map(|(role, words)| Some((role, words.strip_prefix(CANNOT_RUN)?)))
    }
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// On which network.
    pub network: String,
    /// Its state.
    pub state: LinkState,
    /// Smoothed round trip in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its deviation in milliseconds.
    pub jitter_ms: f64,
    /// Share lost, 0 to 1.
    pub loss: f64,
    /// Milliseconds since last heard.
    pub silent_ms: Option<f64>,
    /// Whether consensus streams (TCP) pass there.
    #[serde(default)]
    pub stream: StreamStatus,
}

/// Whether consensus streams to a peer pass on a network, as the answering node's last tries found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamStatus {
    /// What they found.
    pub state: StreamState,
    /// The same in words; empty while streams pass.
    pub why: String,
    /// Milliseconds since when they pass, or do not, as far as is known.
    pub for_ms: Option<f64>,
}

impl StreamStatus {
    fn new(stream: &StreamView, now: Mono) -> StreamStatus {
        StreamStatus {
            state: stream.state,
            why: stream.why.clone(),
            for_ms: (stream.since != Mono::ZERO).then(|| ms(now.since(stream.since))),
        }
    }
}

/// A node that does not hear enough of the others.
pub const OUT_OF_TOUCH: &str = "out of touch with a majority of voters";

impl Status {
    /// The state as `published` has it at `now`, with what the application's checks and actions printed. That may be secret (a
    /// database's URL with its password), so it is for the control listener alone.
    pub fn for_operators(published: &Published, version: &str, now: Mono) -> Status {
        let mut status = Status::new(published, version, now);
        for role in &mut status.roles {
            let checked = published.checks.get(&role.role).and_then(|last| last.load_full());
            if let (Some(check), Some(checked)) = (&mut role.check, checked) {
                check.output.clone_from(&checked.output);
            }
            let words = published
                .last_words
                .get(&role.role)
                .and_then(|last| last.load_full());
            role.last_words = words.map_or_else(String::new, |words| String::clone(&words));
        }
        status
    }

    /// The state as `published` has it at `now`, for everybody.
    pub fn new(published: &Published, version: &str, now: Mono) -> Status {
        let view = published.view.load();
        let words: Vec<(RoleName, Word)> = view
            .roles
            .iter()
            .map(|r| (r.role.clone(), published.word(&r.role, now)))
            .collect();
        let active = |word: &Word| match word {
            Word::Me(epoch) => Some((view.me.clone(), *epoch)),
            Word::Other(node, epoch) => Some((node.clone(), *epoch)),
            Word::Nobody | Word::Unknown => None,
        };
        let roles = view
            .roles
            .iter()
            .zip(&words)
            .map(|(r, (_, word))| {
                let acting = active(word);
                let nobody = view.why.nobody.get(&r.role).filter(|_| acting.is_none());
                RoleStatus {
                    role: r.role.clone(),
                    active: acting.as_ref().map(|(node, _)| node.clone()),
                    known: match word {
                        Word::Me(_) | Word::Other(..) => "active",
                        Word::Nobody => "nobody",
                        Word::Unknown => "unknown",
                    }
                    .into(),
                    known_ms: floor_ms(known_until(published, &view, r, word).since(now)),
                    epoch: acting.map(|(_, epoch)| epoch),
                    holder: r.holder.as_ref().map(|h| h.node.clone()),
                    holder_epoch: r.holder.as_ref().map(|h| h.epoch),
                    last_takeover: r.last.clone(),
                    lease_ms: ms(r.lease_until.since(now)),
                    state: r.state,
                    reason: r.reason.clone(),
                    line: r
                        .line
                        .iter()
                        .map(|(node, place)| PlaceStatus {
                            node: node.clone(),
                            epoch: place.epoch,
                        })
                        .collect(),
                    check: CheckStatus::last(published, &r.role, now),
                    nobody: nobody.map(|(why, _)| why.clone()),
                    nobody_ms: nobody.and_then(|(_, last)| Some(ms(now.since((*last)?)))),
                    last_words: String::new(),
                }
            })
            .collect();
        let nodes = view
            .nodes
            .iter()
            .map(|n| NodeStatus {
                name: n.name.clone(),
                kind: n.kind,
                id: hex(n.id.0),
                state: n.state,
                reason: n.reason.clone(),
                serves: n.serves.clone(),
                priority: n.priority,
                drained: view.orders_known().then_some(n.drained),
                healthy: n.healthy.clone(),
                active_for: words
                    .iter()
                    .filter(|(_, word)| active(word).is_some_and(|(node, _)| node == n.name))
                    .map(|(role, _)| role.clone())
                    .collect(),
                clock_skew_ms: n.skew_ms,
                other_config: n.other_config,
                links: n
                    .links
                    .iter()
                    .map(|l| LinkStatus {
                        network: l.network.to_string(),
                        state: l.state,
                        rtt_ms: l.rtt.map(ms),
                        jitter_ms: ms(l.jitter),
                        loss: l.loss,
                        silent_ms: (l.heard != Mono::ZERO).then(|| ms(now.since(l.heard))),
                        stream: StreamStatus::new(&l.stream, now),
                    })
                    .collect(),
                hears: n.hears.clone(),
                cut_off: n
                    .cut_off
                    .iter()
                    .map(|(network, why)| (network.to_string(), why.clone()))
                    .collect(),
                unread: n.unread.clone(),
                applied: n.applied,
                troubles: view.why.troubles.get(&n.name).cloned().unwrap_or_default(),
            })
            .collect();
        let lacks = Status::lacks_at(&view, now);
        Status {
            cluster: view.cluster.to_string(),
            cluster_id: hex(view.cluster_id.0),
            node: view.me.clone(),
            version: version.into(),
            window_ms: ms(view.window),
            in_touch: now < view.in_touch_until,
            in_touch_ms: floor_ms(view.in_touch_until.since(now)),
            held_ms: 0.0,
            gist: format!("{:016x}", gist(published, now)),
            ready: lacks.is_empty(),
            lacks,
            disk_hangs: view.disk_hangs,
            waiting_for: view.waiting_for.clone(),
            coordinator: view.coordinator.clone(),
            applied: view.applied,
            copy: view
                .copy
                .digest
                .map(|digest| format!("{digest:016x}"))
                .unwrap_or_default(),
            greatest_epoch: view.copy.greatest,
            paused: view.orders_known().then_some(view.paused),
            electorate: view.electorate.0,
            electorate_joint: view.joint,
            voters: view.voters.clone(),
            roles,
            nodes,
            alarms: view.alarms.clone(),
            pushes: published.pushes.load_full().to_vec(),
            last_event: published.events.load().last().cloned(),
            untold: view.why.untold.clone(),
        }
    }

    /// Whether a node with this view is ready at `now`: in touch with a majority, its log at most a second behind, its vote counted (V4), a
    /// write to its disk completed lately, and not stopping.
    pub fn ready_at(view: &View, now: Mono) -> bool {
        Status::lacks_at(view, now).is_empty()
    }

    /// What a node with this view lacks to be ready at `now`, in a few words each.
    pub fn lacks_at(view: &View, now: Mono) -> Vec<String> {
        if view.leaving {
            return vec!["stopping".into()];
        }
        if !view.waiting_for.is_empty() {
            let names: Vec<&str> = view.waiting_for.iter().map(NodeName::as_str).collect();
            return vec![format!("waiting for {}", names.join(", "))];
        }
        let touch = (now >= view.in_touch_until).then(|| OUT_OF_TOUCH.to_owned());
        touch.into_iter().chain(view.lacks.iter().cloned()).collect()
    }
}

impl CheckStatus {
    fn last(published: &Published, role: &RoleName, now: Mono) -> Option<CheckStatus> {
        let checked = published.checks.get(role)?.load_full()?;
        Some(CheckStatus {
            good: checked.good,
            healthy: checked.healthy,
            reason: checked.reason.clone(),
            output: String::new(),
            took_ms: checked.took.map(ms),
            ago_ms: ms(now.since(checked.at)),
        })
    }
}

/// Until when `word` of a role may be repeated. If the guard was written or another view came since the word was asked
/// for, it is over: the next status says better.
fn known_until(published: &Published, view: &View, role: &RoleView, word: &Word) -> Mono {
    let until = match word {
        Word::Me(epoch) => {
            let guard = published.guards.get(&role.role).map(Guard::read);
            guard.filter(|(held, _)| held == epoch).map(|(_, until)| until)
        }
        Word::Other(node, epoch) => {
            let holder = role.holder.as_ref();
            holder
                .filter(|h| h.node == *node && h.epoch == *epoch)
                .map(|h| h.fresh_until)
        }
        Word::Nobody => Some(view.in_touch_until),
        Word::Unknown => None,
    };
    until.unwrap_or(Mono::ZERO)
}

/// A digest of what a follower has to know at once: who is active, whether this node may say so, where nodes are, and what
/// the DNS zone's serial is made of. It means something to the node that made it alone.
pub fn gist(published: &Published, now: Mono) -> u64 {
    let view = published.view.load();
    let mut hash = DefaultHasher::new();
    (view.cluster_id, view.applied, now < view.in_touch_until).hash(&mut hash);
    (view.copy.digest, view.copy.greatest).hash(&mut hash);
    for role in &view.roles {
        role.role.hash(&mut hash);
        match published.word(&role.role, now) {
            Word::Me(epoch) => (1, &view.me, epoch).hash(&mut hash),
            Word::Other(node, epoch) => (1, &node, epoch).hash(&mut hash),
            Word::Nobody => 2.hash(&mut hash),
            Word::Unknown => 3.hash(&mut hash),
        }
        let holder = role.holder.as_ref();
        holder.map(|h| (&h.node, h.epoch)).hash(&mut hash);
        role.last.hash(&mut hash);
    }
    for node in &view.nodes {
        (&node.name, node.kind, &node.serves).hash(&mut hash);
    }
    hash.finish()
}

fn ms(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}

/// In milliseconds, to the microsecond below: what may be repeated must not become longer on the way.
pub fn floor_ms(d: Duration) -> f64 {
    d.as_micros() as f64 / 1e3
}

fn hex(id: u64) -> String {
    if id == 0 {
        String::new()
    } else {
        format!("{id:016x}")
    }
}
