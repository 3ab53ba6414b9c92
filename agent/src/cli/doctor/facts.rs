//! What was seen on this node and through its agent: plain values, without a secret among them, from which
//! [`judge`] finds what is wrong and which `--json` prints.
//!
//! Nothing here is decided. What could not be seen is `None` or empty, and [`Unseen`] says why.
//!
//! [`judge`]: super::judge

use crate::cli::stopped::Proof;
use crate::netlink::{Interface, Subnet};
use baton_shared::id::{NodeName, RoleName};
use baton_shared::status::Status;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Everything that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Facts {
    /// What the configuration file says, if one was read.
    pub settings: Option<Settings>,
    /// This node's agent.
    pub agent: Agent,
    /// Program version of each peer's agent that could be asked.
    pub versions: BTreeMap<NodeName, String>,
    /// The clocks.
    pub clock: Clock,
    /// How late the processor came after the end of a short sleep.
    pub wakeups: Option<Spread>,
    /// How long a small write to the storage directory takes to be on the disk.
    pub flush: Option<Spread>,
    /// Network interfaces; none if they could not be listed.
    pub interfaces: Vec<Interface>,
    /// The way to each address of a peer.
    pub routes: Vec<Route>,
    /// Whether each address of a peer can be connected to (TCP).
    pub calls: Vec<Call>,
    /// Sockets in the way of the agent's listeners; looked for only while the agent does not answer.
    pub holders: Vec<Holder>,
    /// Connections from elsewhere to the application.
    pub traffic: Vec<Traffic>,
    /// The storage directory.
    pub storage: Option<Storage>,
    /// Why nothing can be written there, if that is no matter of rights.
    pub unwritable: Option<String>,
    /// Programs that a role needs and that cannot be run here, as the file has them, while the agent does not answer.
    pub lacks: BTreeMap<RoleName, String>,
    /// What the system grants.
    pub rights: Rights,
    /// What the guardian stands on.
    pub ground: Ground,
    /// What the agent said of logs a while after its first answer.
    pub later: Option<Later>,
    /// Looks that have not ended.
    pub hung: Vec<Hung>,
    /// What could not be looked at.
    pub unseen: Vec<Unseen>,
}

/// What could not be looked at, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Unseen {
    /// What.
    pub what: String,
    /// Why, and what would help.
    pub why: String,
}

/// The agent, as it answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Agent {
    /// With its status.
    Answers(Box<Status>),
    /// Not, for this reason.
    Silent(String),
}

impl Default for Agent {
    fn default() -> Agent {
        Agent::Silent("it was not asked".into())
    }
}

/// The part of a configuration that matters here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Settings {
    /// The file.
    pub file: PathBuf,
    /// This node.
    pub me: NodeName,
    /// W in milliseconds.
    pub window_ms: f64,
    /// What is allowed and yet risky, with advice.
    pub risks: Vec<String>,
    /// Why the file is refused with its secrets as they are.
    pub refused: Vec<String>,
    /// Networks, in their order.
    pub networks: Vec<Network>,
    /// The addresses of all nodes on each network, in the networks' order; none where there is no address, or
    /// a name that has none.
    pub nodes: BTreeMap<NodeName, Vec<Option<IpAddr>>>,
    /// What this node is to listen on.
    pub listeners: Vec<Listener>,
    /// Where the application is.
    pub app_ports: Vec<AppPort>,
    /// Connections that the checks listener takes at once; 0 without one.
    pub max_connections: usize,
    /// How each role's application is known to have stopped.
    pub proofs: Vec<(RoleName, Proof)>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Network {
    /// Its name.
    pub name: String,
    /// Port of the sidecars, UDP and TCP.
    pub port: u16,
    /// The interface that sockets are bound to.
    pub interface: Option<String>,
    /// The router that nodes look at there.
    pub gateway: Option<IpAddr>,
}

/// Something to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Listener {
    /// The key that says so.
    pub key: String,
    /// Where.
    pub address: SocketAddr,
    /// UDP as well as TCP.
    pub udp: bool,
}

/// A port of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct AppPort {
    /// The port.
    pub port: u16,
    /// The role whose active node is to be talked to at it; none: the active node of any.
    pub role: Option<RoleName>,
    /// What told it.
    pub source: String,
}

/// The clocks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Clock {
    /// By how much the wall clock left CLOCK_BOOTTIME behind while the doctor looked, in milliseconds.
    pub stepped_ms: f64,
    /// For how long that was looked at, in milliseconds.
    pub watched_ms: f64,
    /// The kernel counts it as synchronised (adjtimex(2)).
    pub synchronised: Option<bool>,
    /// By how much the kernel lets its clocks run fast, in millionths: tick and frequency of adjtimex(2).
    pub rate_ppm: Option<f64>,
    /// The longest that the agent's loop was ever late, in milliseconds, by its own account.
    pub loop_late_ms: Option<f64>,
    /// How fast a running chronyd may slew, in millionths, if its configuration can be read.
    pub chrony_slew_ppm: Option<f64>,
}

/// Some measurements, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub median_ms: f64,
    /// The greatest.
    pub worst_ms: f64,
}

impl Spread {
    /// Of some measurements; `None` of none.
    pub(super) fn of(mut all: Vec<f64>) -> Option<Spread> {
        all.sort_by(f64::total_cmp);
        Some(Spread {
            count: all.len(),
            median_ms: *all.get(all.len() / 2)?,
            worst_ms: *all.last()?,
        })
    }
}

/// The way that the kernel would send to a peer's address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Route {
    /// On which network.
    pub network: String,
    /// To whom.
    pub peer: NodeName,
    /// By which interface; `None`: there is no way.
    pub interface: Option<u32>,
    /// Through which router.
    pub gateway: Option<IpAddr>,
    /// Bytes of the longest packet, if the route limits it.
    pub mtu: Option<u32>,
}

/// An attempt to connect to a peer's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Call {
    /// On which network.
    pub network: String,
    /// To whom.
    pub peer: NodeName,
    /// How it went.
    pub outcome: Outcome,
}

/// How an attempt to connect went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Connected.
    Connected,
    /// Refused: the host is there, and nobody listens, or a firewall rejects it.
    Refused,
    /// No answer: lost, or the host is down.
    Silence,
    /// Another error, in words.
    Failed(String),
}

/// A socket that is in the way of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Holder {
    /// The listener that it is in the way of.
    pub wanted: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Name and number of the process, if it can be seen.
    pub process: Option<(String, u32)>,
}

/// Connections from elsewhere to a port of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Traffic {
    /// The port.
    pub port: AppPort,
    /// How many, by client that is no node.
    pub clients: BTreeMap<IpAddr, usize>,
    /// How many, by node: the application's own, such as replication, or those of a balancer beside it.
    pub peers: BTreeMap<NodeName, usize>,
}

/// The storage directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Storage {
    /// Where.
    pub dir: PathBuf,
    /// It is there.
    pub exists: bool,
    /// Its owner, if that is neither this user nor root.
    pub foreign: Option<u32>,
    /// This user may write to it, or make it.
    pub writable: bool,
    /// Permission bits.
    pub mode: u32,
    /// Bytes that the files in it take up.
    pub used: u64,
    /// Bytes that an ordinary user may still write, and those of the whole volume.
    pub free: u64,
    pub size: u64,
    /// Files that may still be made, and those that the volume has room for; 0 if it does not count them.
    pub free_inodes: u64,
    pub inodes: u64,
    /// What is special about the file system: `tmpfs`, `overlay` or `nfs`.
    pub medium: Option<String>,
}

/// A look that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Hung {
    /// What it concerns, in a word.
    pub about: &'static str,
    /// What was done.
    pub what: String,
    /// For how long the answer was waited for, in milliseconds.
    pub waited_ms: f64,
}

/// What the agent said of logs when it was asked again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Later {
    /// How long after the first answer, in milliseconds.
    pub after_ms: f64,
    /// In touch, and the log caught up.
    pub ready: bool,
    /// How far each node's log was applied, of those that are heard.
    pub applied: BTreeMap<NodeName, u64>,
}

/// What the system grants to the agent; to the doctor itself while there is no agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Rights {
    /// The agent's process, if it could be found.
    pub agent_pid: Option<u32>,
    /// The doctor runs as root.
    pub root: bool,
    /// Open files, at most (hard limit: the agent raises the soft one).
    pub open_files: Option<u64>,
    /// A thread runs with real-time priority or a negative niceness, or may.
    pub prompt: Option<bool>,
    /// KiB of the agent that are swapped out.
    pub swapped_kib: Option<u64>,
    /// The machine has swap space in use or ready, and nothing keeps the agent out of it.
    pub swappable: Option<bool>,
    /// The doctor may bind ports that others may not.
    pub low_ports: bool,
    /// The first port that anybody may bind.
    pub first_free_port: u16,
    /// The doctor may send ICMP echoes; none if nothing asks a gateway.
    pub echo: Option<bool>,
}

/// What the guardian stands on: where what it keeps lives, and who would start it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Ground {
    /// The agent's process; `None`: there is none to be seen, and this was judged from the doctor's own place.
    pub agent_pid: Option<u32>,
    /// The directory below which there are its cgroups (without an agent: could be).
    pub cgroups: Option<PathBuf>,
    /// Why there are none.
    pub no_cgroups: Option<String>,
    /// The guardian, if it can be seen.
    pub guardian: Option<Guardian>,
}

/// A guardian, and who is above it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Guardian {
    /// Its process.
    pub pid: u32,
    /// The unit of the service manager that it belongs to, by the names of its cgroups.
    pub service: Option<String>,
    /// The name of the process that started it, if it can be seen.
    pub parent: Option<String>,
}

impl Facts {
    /// The agent's status, if it answers.
    pub(super) fn status(&self) -> Option<&Status> {
        match &self.agent {
            Agent::Answers(status) => Some(status),
            Agent::Silent(_) => None,
        }
    }

    /// W in milliseconds: what runs counts more than what is written.
    pub(super) fn window_ms(&self) -> Option<f64> {
        let written = || self.settings.as_ref().map(|settings| settings.window_ms);
        self.status().map(|status| status.window_ms).or_else(written)
    }

    /// This node.
    pub(super) fn me(&self) -> Option<&NodeName> {
        let written = || self.settings.as_ref().map(|settings| &settings.me);
        self.status().map(|status| &status.node).or_else(written)
    }

    /// The interface of that number.
    pub(super) fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interface that has this address. All of 127.0.0.0/8 is the loopback's.
    pub(super) fn interface_of(&self, ip: IpAddr) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| {
            let is = |(own, subnet): &(IpAddr, Subnet)| {
                *own == ip || (interface.loopback && ip.is_loopback() && subnet.0.contains(ip))
            };
            interface.addresses.iter().any(is)
        })
    }

    /// Whether the address is this machine's.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.interface_of(ip.to_canonical()).is_some()
    }
}

impl Settings {
    /// A node's address on a network.
    pub(super) fn address(&self, node: &NodeName, network: &str) -> Option<IpAddr> {
        let index = self.networks.iter().position(|n| n.name == network)?;
        *self.nodes.get(node)?.get(index)?
    }

    /// This node's own address on a network.
    pub(super) fn own_address(&self, network: &str) -> Option<IpAddr> {
        self.address(&self.me, network)
    }
}
