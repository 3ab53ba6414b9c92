//! What a node currently knows of the cluster, published to its faces.
//!
//! The core makes a [`View`]; the control loop stores it in [`Published`]; HTTP, DNS and the rest read it from there.
//! No field says "is so": whatever can go stale carries the instant until which it may be repeated (S4).

use crate::clock::Mono;
use crate::copy::CopyView;
use crate::guard::Guard;
use crate::id::{
    Boot, ClusterId, ClusterName, ElectorateId, Epoch, Kind, NetworkName, NodeId, NodeName, RoleName,
};
use crate::succession::Place;
use arc_swap::{ArcSwap, ArcSwapOption};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// One node's knowledge of the cluster at one instant.
#[derive(Clone, Debug)]
pub struct View {
    /// Grows with every view of this boot.
    pub serial: u64,
    /// When it was made.
    pub at: Mono,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// 0 until the cluster is initialised.
    pub cluster_id: ClusterId,
    /// This node.
    pub me: NodeName,
    /// W.
    pub window: Duration,
    /// Until when this node may say that it is in touch with a majority of voters; `Mono::ZERO` if it never was.
    pub in_touch_until: Mono,
    /// Voters that must be heard before the cluster can start. Empty once it has.
    pub waiting_for: Vec<NodeName>,
    /// The consensus leader.
    pub coordinator: Option<NodeName>,
    /// Index of the last log entry applied here.
    pub applied: u64,
    /// What this node lacks to be ready, besides touch with the others, in a few words each.
    pub lacks: Vec<String>,
    /// Writes to this node's disk are not completed: it is out of line.
    pub disk_hangs: bool,
    /// No automatic takeovers.
    pub paused: bool,
    /// This node is stopping.
    pub leaving: bool,
    /// The electorate, by name.
    pub electorate: ElectorateId,
    /// An electorate change is under way.
    pub joint: bool,
    /// Names of the voters.
    pub voters: Vec<NodeName>,
    /// Every role.
    pub roles: Vec<RoleView>,
    /// Every configured node, this one too, by name.
    pub nodes: Vec<NodeView>,
    /// What the log says of copies of the DNS zone.
    pub copy: CopyView,
    /// Conditions that need a person, in sentences.
    pub alarms: Vec<String>,
    /// Why nobody is active, and what stands in each node's way.
    pub why: Why,
}

/// So the words begin of a node that cannot run a program which it needs to take a role.
pub const CANNOT_RUN: &str = "cannot run what it needs: ";

/// So the words end of what failed where more is known: what a program said may be secret.
pub const IN_ITS_LOG: &str = " (what it said is in its node's log)";

/// So the words begin of a node that ends because something broke, such as its disk.
pub const BROKE: &str = "something broke: ";

/// What keeps a cluster from having an active node, in words that may be public: one answer for all faces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// Why nobody is active, for each role that nobody is active for as far as this node knows; and when somebody last was.
    pub nobody: BTreeMap<RoleName, (String, Option<Mono>)>,
    /// What failed last on a node and has not succeeded since, or why it could not take a role now.
    pub troubles: BTreeMap<NodeName, BTreeMap<RoleName, String>>,
    /// What this node has to tell and the history does not have yet: its own side, while it is cut off. Their number is 0.
    pub untold: Vec<Event>,
}

impl View {
    /// Whether it is known what operators have ordered: not before this node has word of the log.
    pub fn orders_known(&self) -> bool {
        self.cluster_id != ClusterId(0)
    }
}

/// One role.
#[derive(Clone, Debug)]
pub struct RoleView {
    /// Its name.
    pub role: RoleName,
    /// What this node does in it.
    pub state: RoleState,
    /// Why this node is in that state, in a few words.
    pub reason: String,
    /// The holder, if this node has word of one.
    pub holder: Option<HolderView>,
    /// At which epoch this node was promoted, while it holds the role; one that stays may be at a greater one by now.
    pub promoted: Option<Epoch>,
    /// The node whose takeover the log has last, if it is still known.
    pub last: Option<NodeName>,
    /// Who comes next, in order, places of the past left out.
    pub line: Vec<(NodeName, Place)>,
    /// End of this node's own lease; `Mono::ZERO` without one.
    pub lease_until: Mono,
}

/// The holder of a role as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderView {
    /// Who.
    pub node: NodeName,
    /// Its consensus id.
    pub id: NodeId,
    /// At which epoch.
    pub epoch: Epoch,
    /// It said that it is active (not merely promoting).
    pub serving: bool,
    /// This may be repeated until then: W after the holder was last heard. For the local node use the guard.
    pub fresh_until: Mono,
}

/// What a node does in a role (transition table in `baton-core`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleState {
    /// Not the holder, and not claiming.
    Standby,
    /// Claims, and has no lease yet.
    Claiming,
    /// Holds the lease; the promote action runs, or the application is not healthy yet.
    Promoting,
    /// Holds the lease, promoted and healthy.
    Active,
    /// Stops the application; the lease is not given up before that.
    Demoting,
}

/// One node, as this one sees it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its kind.
    pub kind: Kind,
    /// Its consensus id; 0 if not known.
    pub id: NodeId,
    /// Its boot; 0 if not known.
    pub boot: Boot,
    /// Whether it is heard.
    pub state: PeerState,
    /// Why it is in that state, in a few words.
    pub reason: String,
    /// What DNS answers for it. Filled in by the control loop, which resolves host names.
    pub serves: Vec<IpAddr>,
    /// Configured preference.
    pub priority: i64,
    /// An operator took it out of line.
    pub drained: bool,
    /// Whether its application is healthy, per role.
    pub healthy: BTreeMap<RoleName, bool>,
    /// Links to it; none for the local node.
    pub links: Vec<LinkView>,
    /// Its wall clock less ours, in milliseconds.
    pub skew_ms: i64,
    /// Its configuration differs from ours.
    pub other_config: bool,
    /// Whom it hears, by name, with a bit per network.
    pub hears: Vec<(NodeName, u16)>,
    /// Where it is cut off from clients, as seen from here, and why.
    pub cut_off: Vec<(NetworkName, String)>,
    /// What comes from its address cannot be read: the alarm about it.
    pub unread: Option<String>,
    /// Index of the last log entry that it said it has applied; `None` while it is not heard.
    pub applied: Option<u64>,
}

/// Whether a peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// This is the node itself.
    Myself,
    /// Never heard in this boot.
    Unknown,
    /// Some link is up.
    Up,
    /// Every link is late.
    Suspect,
    /// Every link is down.
    Down,
}

/// One link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    /// On which network.
    pub network: NetworkName,
    /// Its state.
    pub state: LinkState,
    /// Smoothed round trip; `None` until measured.
    pub rtt: Option<Duration>,
    /// Smoothed deviation of it (RFC 6298 §2).
    pub jitter: Duration,
    /// Share of the peer's last heartbeats that did not arrive, 0 to 1.
    pub loss: f64,
    /// When last heard; `Mono::ZERO` if never.
    pub heard: Mono,
    /// Whether consensus streams pass there.
    pub stream: StreamView,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// Both directions proven.
    Up,
    /// A few heartbeats are missing.
    Late,
    /// Nothing comes in.
    Down,
    /// They come in, but the peer does not hear us: what we send is lost.
    OneWay,
}

/// Whether consensus streams (TCP) to a peer pass on a network, as this node's last tries found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamView {
    /// What they found.
    pub state: StreamState,
    /// The same in words, with the address; empty while streams pass.
    pub why: String,
    /// Since when they pass, or do not, as far as is known; `Mono::ZERO` if it was not tried.
    pub since: Mono,
}

/// What tries of consensus streams found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StreamState {
    /// Nothing yet.
    #[default]
    Untried,
    /// Large messages pass, both ways.
    Up,
    /// The connection is refused.
    Refused,
    /// It is not answered.
    Silent,
    /// It cannot be made, for another reason.
    Failed,
    /// It is made, and the greeting fails.
    NoHandshake,
    /// Small messages pass, and large ones do not.
    LargeLost,
}

impl StreamState {
    /// Whether streams do not pass, or not whole.
    pub fn fails(self) -> bool {
        !matches!(self, StreamState::Untried | StreamState::Up)
    }

    /// For tables; empty while there is nothing to say.
    pub fn word(self) -> &'static str {
        match self {
            StreamState::Untried | StreamState::Up => "",
            StreamState::Refused => "TCP refused",
            StreamState::Silent => "TCP unanswered",
            StreamState::Failed => "TCP fails",
            StreamState::NoHandshake => "TCP without handshake",
            StreamState::LargeLost => "TCP loses large messages",
        }
    }

    /// What to do, where heartbeats pass and streams do not; `port` is the network's.
    pub fn cure(self, port: u16) -> String {
        match self {
            StreamState::Untried | StreamState::Up => String::new(),
            StreamState::Refused | StreamState::Silent | StreamState::Failed => {
                format!("let TCP port {port} through the firewalls as well as UDP, in both directions")
            }
            StreamState::NoHandshake => {
                "give both nodes the same cluster key, and read the log of the agent there".into()
            }
            StreamState::LargeLost => {
                "give the interfaces on both ends an MTU that the whole way carries (`ip link set DEVICE mtu \
                 1400`), or let ICMP \"fragmentation needed\" through"
                    .into()
            }
        }
    }
}

/// A change in the cluster, numbered and kept for `baton events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Place in the history, from 1.
    pub number: u64,
    /// When, by the proposer's wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// What happened: see [`what`](crate::history::what).
    pub what: String,
    /// The role concerned.
    pub role: Option<RoleName>,
    /// The node concerned.
    pub node: Option<NodeName>,
    /// The holder before, for a takeover.
    pub from: Option<NodeName>,
    /// The epoch, for a takeover.
    pub epoch: Option<Epoch>,
    /// Why, on what evidence, in a sentence (a takeover's begins with the name of the holder before).
    pub cause: String,
    /// Microseconds from the first stage to each, in order: see [`stage`](crate::history::stage).
    pub stages: Vec<(String, u64)>,
}

impl Event {
    /// Whether it is the same as another, wherever each stands in the history.
    pub fn same(&self, other: &Event) -> bool {
        let number = self.number;
        self.wall_ms == other.wall_ms
            && *self
                == Event {
                    number,
                    ..other.clone()
                }
    }
}

/// The last result of a check of the local application, whatever the verdict that it led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// It was good.
    pub good: bool,
    /// The verdict after it: `rise` and `fall` count.
    pub healthy: bool,
    /// What was seen, or why it failed, in words that may be public.
    pub reason: String,
    /// What the application itself said, which may be secret: for operators alone; often empty.
    pub output: String,
    /// How long it took, where that was measured.
    pub took: Option<Duration>,
    /// When it ended.
    pub at: Mono,
}

/// A name server outside the cluster that is told of the active node, as this node last saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushView {
    /// The configuration's name for it: `site` of `[dns.push.site]`.
    pub label: String,
    /// The server.
    pub server: SocketAddr,
    /// The name that it gives the active node's addresses to.
    pub name: String,
    /// How it stands.
    pub state: PushState,
    /// The greatest epoch that the server confirmed to this node in this boot.
    pub confirmed: Option<Epoch>,
    /// What went wrong at the last try, and what to do.
    pub error: Option<String>,
    /// Since when `state` and `error` are so, Unix milliseconds.
    pub since_wall_ms: u64,
}

/// How a push stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PushState {
    /// This node is not active: another one pushes.
    Idle,
    /// On its way, tried until it is answered.
    Pushing,
    /// The server has this node's addresses.
    Confirmed,
    /// The server has a greater epoch; this node's is not pushed.
    Superseded,
}

/// Where the faces read: the newest view, the history, a guard per role, and what its check last saw. The checks write their
/// results themselves, so that a result which changes nothing costs the control loop nothing, and the actions their last words;
/// the rest it writes alone.
pub struct Published {
    /// The newest view.
    pub view: ArcSwap<View>,
    /// The history, oldest first.
    pub events: ArcSwap<Vec<Event>>,
    /// The guard of each role; the set of roles does not change while a process runs.
    pub guards: BTreeMap<RoleName, Guard>,
    /// The last result of each role's check; none where there is no check, or while none is made.
    pub checks: BTreeMap<RoleName, ArcSwapOption<Checked>>,
    /// Each push, in the configuration's order; the pusher writes it.
    pub pushes: ArcSwap<Vec<PushView>>,
    /// The last line that each role's last action wrote, if it failed: it may be secret, and is for operators alone.
    pub last_words: BTreeMap<RoleName, ArcSwapOption<String>>,
}

/// Who is active for a role, as far as this node may say at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// This node, at this epoch; its guard says so.
    Me(Epoch),
    /// Another node, of which there is fresh word.
    Other(NodeName, Epoch),
    /// In touch with a majority, and nobody is active.
    Nobody,
    /// Out of touch: this node does not know.
    Unknown,
}

impl Published {
    /// Starts with a first view and closed guards.
    pub fn new(view: View, roles: impl IntoIterator<Item = RoleName>) -> Arc<Published> {
        let roles: Vec<RoleName> = roles.into_iter().collect();
        Arc::new(Published {
            view: ArcSwap::from_pointee(view),
            events: ArcSwap::from_pointee(Vec::new()),
            checks: roles
                .iter()
                .map(|role| (role.clone(), ArcSwapOption::empty()))
                .collect(),
            last_words: roles
                .iter()
                .map(|role| (role.clone(), ArcSwapOption::empty()))
                .collect(),
            guards: roles.into_iter().map(|role| (role, Guard::default())).collect(),
            pushes: ArcSwap::from_pointee(Vec::new()),
        })
    }

    /// Who is active for `role` at `now`. Every face answers from this, at the moment it answers (S4).
    pub fn word(&self, role: &RoleName, now: Mono) -> Word {
        if let Some(epoch) = self.guards.get(role).and_then(|guard| guard.active(now)) {
            return Word::Me(epoch);
        }
        let view = self.view.load();
        view.word_of_others(role, now)
    }
}

impl View {
    /// Who else is active for `role` at `now`; never the node itself, for which only the guard speaks.
    pub fn word_of_others(&self, role: &RoleName, now: Mono) -> Word {
        let holder = self
            .roles
            .iter()
            .find(|r| r.role == *role)
            .and_then(|r| r.holder.as_ref());
        match holder {
            Some(h) if h.serving && h.node != self.me && now < h.fresh_until => {
                Word::Other(h.node.clone(), h.epoch)
            }
            _ if now < self.in_touch_until => Word::Nobody,
            _ => Word::Unknown,
        }
    }

    /// The view of one role.
    pub fn role(&self, role: &RoleName) -> Option<&RoleView> {
        self.roles.iter().find(|r| r.role == *role)
    }

    /// The view of one node.
    pub fn node(&self, name: &NodeName) -> Option<&NodeView> {
        self.nodes.iter().find(|n| n.name == *name)
    }
}
