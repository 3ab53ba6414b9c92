//! The configuration, as values that cannot hold nonsense (DESIGN §9).
//!
//! One file, the same on every node; the node's own name comes from outside. Text becomes [`Config`] in [`parse`], and
//! after that nobody checks again.

mod check;
mod describe;
mod dns;
mod error;
mod faces;
mod nodes;
pub mod parse;
mod pattern;
mod placeholder;
mod risks;
mod roles;
mod secret;
mod section;
mod standalone;
mod stop;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use error::ConfigError;
pub use parse::{Loaded, Text};
pub use pattern::Pattern;
pub use secret::variables as secret_variables;
pub use standalone::{Agent as AgentAddress, Standalone};
pub use stop::Lead;
pub use value::{parse_duration, show_duration};

use crate::id::{ClusterName, Kind, NetworkName, NodeName, RoleName};
use crate::key::ClusterKey;
pub use crate::prefix::Prefix;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration, as seen from one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The node whose sidecar this is.
    pub me: NodeName,
    /// `[cluster]`.
    pub cluster: Cluster,
    /// `[networks]`, in order of preference. At least one, at most 16.
    pub networks: Vec<Network>,
    /// `[nodes]`.
    pub nodes: BTreeMap<NodeName, Node>,
    /// `[storage]`; without it all state is in memory.
    pub storage: Option<PathBuf>,
    /// Roles and what belongs to them. At least one; `main` if none is named.
    pub roles: BTreeMap<RoleName, Role>,
    /// `[http]`.
    pub http: Option<Http>,
    /// `[control]`. A loaded configuration always has one: `unix:/run/baton/{node}.sock` unless the file says otherwise.
    pub control: Option<Control>,
    /// `[dns]`.
    pub dns: Option<Dns>,
    /// `[agent]`.
    pub agent: Agent,
}

/// `[cluster]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// The cluster's name.
    pub name: ClusterName,
    /// W; between [`MIN_WINDOW`](crate::timing::MIN_WINDOW) and [`MAX_WINDOW`](crate::timing::MAX_WINDOW). Default 1 s.
    pub window: Duration,
    /// The secret, read from where the file says.
    pub key: ClusterKey,
    /// How long a start may wait for the other nodes before it warns. Default 30 s.
    pub join_wait: Duration,
    /// Exit with status 1 instead of warning.
    pub join_exit: bool,
    /// A better node takes over once it has been healthy for so long; `None` (the default): never.
    pub preempt_after: Option<Duration>,
}

/// One of `[networks]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: NetworkName,
    /// Port of the sidecars on it, UDP and TCP. Default 7400.
    pub port: u16,
    /// Sockets are bound to this interface.
    pub interface: Option<String>,
    /// Clients reach the active node by it, so a holder that loses it hands over. Default: the networks on which the members' `serves`
    /// are ([`Config::clients_by_serves`]), unless the file has the key anywhere.
    pub clients: bool,
    /// A router there that nodes look at, to know whether they reach anything; only on a network of clients.
    pub gateway: Option<IpAddr>,
}

/// One of `[nodes]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is for.
    pub kind: Kind,
    /// Its address on each network, at which the others reach it, in the networks' order; `None` where it has none. At least one is given.
    pub addresses: Vec<Option<Host>>,
    /// Where it listens and sends from itself, where that is another address than the one at which the others reach it (NAT,
    /// containers); as long as `addresses`, or empty.
    pub binds: Vec<Option<Host>>,
    /// What DNS answers for it. Never empty: the default is the first address.
    pub serves: Vec<Host>,
    /// Preferred nodes have greater ones. Default 0.
    pub priority: i64,
}

impl Node {
    /// Everything by which it is called.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let addresses = self.addresses.iter().chain(&self.binds).flatten();
        addresses.chain(&self.serves)
    }

    /// Its own address on each network, as it sees that itself: [`binds`](Node::binds), and else [`addresses`](Node::addresses).
    pub fn here(&self) -> Vec<Option<Host>> {
        let bind = |n: usize| self.binds.get(n).cloned().flatten();
        let all = self.addresses.iter().enumerate();
        all.map(|(n, address)| bind(n).or_else(|| address.clone()))
            .collect()
    }
}

/// An address, or a name that is resolved when needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A host name.
    Name(String),
}

impl std::str::FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Host, String> {
        value::host(text)
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Host::Ip(ip) => write!(f, "{ip}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// What belongs to one role: `[check]`, `[actions]` and `[process]`, or the same under `[roles.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Role {
    /// How to see whether the application is healthy; without it, it is while the agent runs.
    pub check: Option<Check>,
    /// Run when the node becomes active.
    pub promote: Option<Action>,
    /// Run when it stops being active.
    pub demote: Option<Action>,
    /// Run by the guardian when the agent died or is frozen while its application may act; a command. It must make sure that
    /// the application acts no more. Without it the demote command is run then; a fence that stands alone is the demote command.
    pub fence: Option<Action>,
    /// Promote is run again when the node stays active at a greater epoch.
    pub promote_again: bool,
    /// Run after each change of this node's state in the role; nothing waits for it, unless the node stays active at a greater epoch and
    /// promote is not run again: then faces show that epoch once it has succeeded.
    pub notify: Option<Action>,
    /// The application itself, as a child of the sidecar.
    pub process: Option<Process>,
}

/// `[check]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks. Default 1 s.
    pub interval: Duration,
    /// A check that takes longer has failed. Default: the interval.
    pub timeout: Duration,
    /// So many good ones in a row make it healthy. Default 1.
    pub rise: u32,
    /// So many bad ones in a row make it unhealthy. Default 2.
    pub fall: u32,
    /// After a promotion (and at the start) the first check waits so long. Default 0; at most 20 s.
    pub delay: Duration,
    /// Whether standbys are checked too (`when = "always"`, the default), or only the node that has been promoted
    /// (`when = "active"`: an application that runs on the active node alone; the default beside a cold `[process]`).
    pub standby: bool,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `http = "http://127.0.0.1:8080/ready"`.
    Http(HttpProbe),
    /// `tcp = "127.0.0.1:5432"`: healthy when it can be connected to.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// `command = ["pg_isready"]`: healthy on exit status 0.
    Command(Vec<String>),
    /// `grpc = "127.0.0.1:9000"`: healthy when `grpc.health.v1.Health/Check` answers SERVING.
    Grpc {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// Which service; empty: the whole server.
        service: String,
    },
    /// `process = "/run/orders.pid"`: healthy while the process named in this file lives. Its death is known at once.
    Process(PathBuf),
}

/// What an HTTP check asks, and what is a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Whom and what.
    pub url: Url,
    /// `GET` (the default), `HEAD`, `POST` or `OPTIONS`.
    pub method: String,
    /// Sent with it: tokens, and values without control characters.
    pub headers: Vec<(String, String)>,
    /// Inclusive range of good statuses. Default 200 to 399.
    pub status: (u16, u16),
    /// Must be found in the first 64 KiB of the body.
    pub body: Option<Pattern>,
    /// So many redirects are followed, to the same host and port alone. Default 0: a redirect is an answer. At most 5.
    pub redirects: u32,
}

/// `http://HOST[:PORT][/PATH][?QUERY]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Host to connect to.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query; begins with `/`.
    pub path: String,
}

/// One of `[actions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// What is done.
    pub call: Call,
    /// After this it is stopped, and has failed. Defaults: 5 s; `demote` two fifths of the window and `fence` a fifth of it, at
    /// most 5 s.
    pub timeout: Duration,
    /// What follows if it fails; nothing does after a notify.
    pub on_failure: OnFailure,
}

/// What an action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `command = ["/usr/local/bin/start-serving"]`: done on exit status 0.
    Command(Vec<String>),
    /// `post = "http://127.0.0.1:8080/promote"`: done on a status from 200 to 299.
    Post(Url),
}

/// What follows a failed action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// promote (default): the node gives the role up. demote, fence: it does so as if the application had stopped.
    Release,
    /// demote and fence (default), promote: again after a pause; the lease is not renewed while a demote fails.
    Retry,
    /// promote: the node becomes active all the same. demote: again after a pause, and the node keeps the role meanwhile.
    Stay,
}

/// `[process]`: the application as a child of the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub command: Vec<String>,
    /// When it runs.
    pub mode: Mode,
    /// After SIGTERM; then everything that it started is killed. Never beyond the lease. Default 5 s.
    pub stop_timeout: Duration,
    /// How long the system may take to make it vanish once it is killed: the last part of the lease ([`Role::kill_time`]). `None`: a
    /// twentieth of the window, 1 to 50 ms.
    pub kill_time: Option<Duration>,
    /// The signal that asks it to stop. Default SIGTERM.
    pub stop_signal: i32,
    /// Sent when its node was promoted (warm).
    pub promote_signal: Option<i32>,
    /// Sent when its node is demoted (warm).
    pub demote_signal: Option<i32>,
    /// If it ends by itself while active, it is started again here so many times before another node takes over. Default 0.
    pub restarts: u32,
    /// Before it is started again; twice as long each further time, at most 30 s. Default 200 ms.
    pub restart_delay: Duration,
}

/// When a managed process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While its node is active, and never else.
    Cold,
    /// Always; it is told by a signal, or by an action.
    Warm,
}

/// `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// An agent that was killed is started again by its guardian; else the guardian exits with it. Default true.
    pub restart: bool,
    /// A hardware watchdog, fed by the control loop while this node is active: a machine that hangs is reset.
    pub watchdog: Option<PathBuf>,
}

impl Default for Agent {
    fn default() -> Agent {
        Agent {
            restart: true,
            watchdog: None,
        }
    }
}

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where checks are answered. `{node}` and `{NETWORK}` stand for this node's name and its address on a network.
    pub listen: Vec<SocketAddr>,
    /// Where HAProxy's agent-check is answered, with a line and no HTTP. Default nowhere.
    pub agent_check: Vec<SocketAddr>,
    /// Weight that agent-check gives the active node, in percent of the one that HAProxy has configured. Default none: the
    /// weight is left alone.
    pub agent_weight: Option<u8>,
    /// Each 200 waits for a majority of grants to a claim sent after the request came (`confirm` mode of S1).
    pub confirm: bool,
    /// Connections at once. Default 10,000.
    pub max_connections: usize,
    /// The status of `/health` in each state, unless the request asks for another.
    pub codes: HealthCodes,
    /// What `/` answers. Default: browsers the page, everybody else as `/health`.
    pub root: Option<Root>,
    /// Connections begin with a header of the PROXY protocol. Default false.
    pub proxy_protocol: bool,
    /// TLS on every address of `listen`. Default none.
    pub tls: Option<Tls>,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: Vec::new(),
            agent_check: Vec::new(),
            agent_weight: None,
            confirm: false,
            max_connections: 10_000,
            codes: HealthCodes::default(),
            root: None,
            proxy_protocol: false,
            tls: None,
        }
    }
}

/// What `/` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// What `/health` does: a balancer that was left at its default path finds the active node alone healthy.
    Health,
    /// The page that lists what there is, with 200 on every node.
    Page,
}

/// What `/health` can say of a node: the words of its body, and the keys of `[http] codes`.
pub const HEALTH_STATES: [&str; 7] = [
    "active",
    "standby",
    "claiming",
    "promoting",
    "demoting",
    "starting",
    "unknown",
];

/// HTTP statuses that may stand for a state.
pub const HEALTH_CODES: std::ops::RangeInclusive<u16> = 200..=599;

/// The HTTP status of each of [`HEALTH_STATES`], in their order. Default 200 for the first alone, and 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCodes(pub [u16; HEALTH_STATES.len()]);

impl Default for HealthCodes {
    fn default() -> HealthCodes {
        let mut codes = [503; HEALTH_STATES.len()];
        codes[0] = 200;
        HealthCodes(codes)
    }
}

/// `tls` of `[http]`: PEM files, which are read anew when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those that lead to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Where operators' requests are taken.
    pub listen: ControlListen,
}

/// Where the control listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlListen {
    /// `unix:/run/baton/{node}.sock`.
    Unix(PathBuf),
    /// `127.0.0.1:7481`, with a bearer token.
    Tcp {
        /// Where.
        addr: SocketAddr,
        /// The token that requests must carry.
        token: String,
    },
}

/// `[dns]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Where questions are answered, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The zone, without the final dot, in lower case.
    pub zone: String,
    /// TTL of addresses. Default 1 s; 0 is allowed.
    pub ttl: Duration,
    /// SOA minimum: TTL of "no such data". Default 1 s; 0 is allowed.
    pub negative_ttl: Duration,
    /// What is said while nobody is active.
    pub nobody_active: NobodyActive,
    /// Threads that answer over UDP, each with a socket of its own. Default 1.
    pub threads: usize,
    /// Services with SRV records, for every role.
    pub services: Vec<Service>,
    /// The zone's name servers, where those are not the nodes at their `serves`.
    pub ns: Vec<NameServer>,
    /// Networks whose addresses have names (PTR): whole octets of IPv4, whole hexadecimal digits of IPv6.
    pub reverse: Vec<Prefix>,
    /// Who may ask; empty: anybody.
    pub allow: Vec<Prefix>,
    /// Whether the node's name is told to whoever asks for it (RFC 5001). Default true.
    pub nsid: bool,
    /// DNS cookies (RFC 7873). Default true.
    pub cookies: bool,
    /// `version.bind` and the like. Default false.
    pub chaos: bool,
    /// Limit of responses per client network.
    pub rate_limit: Option<RateLimit>,
    /// Keys of TSIG (RFC 8945), by name: in lower case, without the final dot.
    pub keys: BTreeMap<String, TsigKey>,
    /// Who may copy the zone.
    pub transfer: Option<Transfer>,
    /// Name servers that are told of the active node.
    pub push: Vec<Push>,
}

impl Dns {
    /// TTL where none is given.
    pub const DEFAULT_TTL: Duration = Duration::from_secs(1);

    /// A zone with defaults for all else.
    pub fn new(listen: Vec<SocketAddr>, zone: String) -> Dns {
        Dns {
            listen,
            zone,
            ttl: Dns::DEFAULT_TTL,
            negative_ttl: Dns::DEFAULT_TTL,
            nobody_active: NobodyActive::NoData,
            threads: 1,
            services: Vec::new(),
            ns: Vec::new(),
            reverse: Vec::new(),
            allow: Vec::new(),
            nsid: true,
            cookies: true,
            chaos: false,
            rate_limit: None,
            keys: BTreeMap::new(),
            transfer: None,
            push: Vec::new(),
        }
    }
}

/// What DNS says of a role while nobody is active for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NobodyActive {
    /// There is no such data: clients fail at once.
    #[default]
    NoData,
    /// SERVFAIL: clients ask the next name server.
    ServFail,
    /// The addresses of the node that was active last, as far as known; NODATA before the first.
    Last,
    /// The addresses of all members.
    All,
}

/// A service whose SRV records name the active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `https` of `_https._tcp`.
    pub name: String,
    /// Its port on every node.
    pub port: u16,
}

/// A name server of the zone: `NAME.ns.ZONE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer {
    /// Its name: a label, in lower case.
    pub name: String,
    /// Where it answers; at least one.
    pub addresses: Vec<IpAddr>,
}

/// Limit of responses, so that forged questions do not flood whom they name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Responses per second to one network of clients (/24 or /56).
    pub per_second: u32,
    /// Of the responses above the limit every so many is sent, cut short (TC), so that a real client comes by TCP; 0: none.
    pub slip: u32,
    /// Who is not limited.
    pub exempt: Vec<Prefix>,
}

/// A key of TSIG.
#[derive(Clone, PartialEq, Eq)]
pub struct TsigKey {
    /// Its algorithm.
    pub algorithm: TsigAlgorithm,
    /// Its secret.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TsigKey({:?})", self.algorithm) // the secret stays out of logs
    }
}

/// Algorithms of TSIG that are not to be given up (RFC 8945 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`.
    #[default]
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

/// `[dns.transfer]`: zone transfer (AXFR) and NOTIFY. A client needs the right address where `allow` is given, and the right key
/// where `key` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Who may copy the zone; empty: whoever has the key.
    pub allow: Vec<Prefix>,
    /// The key that requests must be signed with.
    pub key: Option<String>,
    /// Who is told that it has changed.
    pub notify: Vec<SocketAddr>,
}

/// `[dns.push.LABEL]`: a name server that is told of the active node (RFC 2136).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The table's name.
    pub label: String,
    /// The zone's primary server.
    pub server: SocketAddr,
    /// Its zone.
    pub zone: String,
    /// The name that gets the active node's addresses.
    pub name: String,
    /// Of which role; the first or `main` if not given.
    pub role: Option<RoleName>,
    /// TTL of the records.
    pub ttl: Duration,
    /// The key that updates are signed with.
    pub key: Option<String>,
}

impl Config {
    /// This node's own entry.
    pub fn my_node(&self) -> &Node {
        &self.nodes[&self.me]
    }

    /// Every command that a role may run, with its key in the file.
    pub fn commands(&self) -> Vec<(String, &[String])> {
        let mut all: Vec<(String, &[String])> = Vec::new();
        for (name, role) in &self.roles {
            all.extend(self.commands_of(name));
            let check = role.check.as_ref().filter(|check| !check.standby);
            if let Some(Probe::Command(command)) = check.map(|check| &check.probe) {
                all.push((self.key_of(name, "check.command"), command));
            }
            if let Some(Call::Command(command)) = role.notify.as_ref().map(|notify| &notify.call) {
                all.push((self.key_of(name, "actions.notify.command"), command));
            }
        }
        all
    }

    /// Every command without which a role cannot be taken or given up, with its key in the file. A notify only tells of it, and what
    /// checks the promoted node alone may come with what the promotion mounts.
    pub fn commands_of(&self, name: &RoleName) -> Vec<(String, &[String])> {
        let Some(role) = self.roles.get(name) else {
            return Vec::new();
        };
        let mut all: Vec<(String, &[String])> = Vec::new();
        let key = |key: &str| self.key_of(name, key);
        let check = role.check.as_ref().filter(|check| check.standby);
        if let Some(Probe::Command(command)) = check.map(|check| &check.probe) {
            all.push((key("check.command"), command));
        }
        // A fence that stands alone is the demote command, too.
        let demote = role.demote.as_ref();
        let demote =
            demote.filter(|demote| role.fence.as_ref().map(|fence| &fence.call) != Some(&demote.call));
        for (action, what) in [
            (role.promote.as_ref(), "actions.promote.command"),
            (demote, "actions.demote.command"),
            (role.fence.as_ref(), "actions.fence.command"),
        ] {
            if let Some(Call::Command(command)) = action.map(|action| &action.call) {
                all.push((key(what), command));
            }
        }
        if let Some(process) = &role.process {
            all.push((key("process.command"), &process.command));
        }
        all
    }

    /// How the file names a key of a role: a single `main` needs no `[roles]`.
    fn key_of(&self, role: &RoleName, key: &str) -> String {
        match self.roles.len() {
            1 if role.as_str() == "main" => key.to_owned(),
            _ => format!("roles.{role}.{key}"),
        }
    }

    /// For each network whether all members serve clients on it, as far as `serves` tells: where each of a member's `serves` is its address
    /// on exactly one network, and those networks are the same for every member. Otherwise none.
    pub fn clients_by_serves(&self) -> Vec<bool> {
        nodes::clients_by_serves(self.networks.len(), self.nodes.values())
    }

    /// Names of the voters.
    pub fn voters(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes
            .iter()
            .filter(|(_, node)| node.kind.votes())
            .map(|(name, _)| name)
    }
}

impl Config {
    /// Digest of what must be the same on every node: cluster name, window, preemption, networks (in their order, for
    /// heartbeats name them by place) and by which of them clients come, nodes and roles' names. Key, interfaces, listeners, checks and
    /// actions may differ.
    ///
    /// The first 8 bytes of SHA-256 over length-prefixed parts; stable across versions of the program.
    pub fn digest(&self) -> u64 {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        part("baton config v1");
        part(self.cluster.name.as_str());
        part(&self.cluster.window.as_nanos().to_string());
        part(&format!(
            "{:?}",
            self.cluster.preempt_after.map(|after| after.as_nanos())
        ));
        part(&self.networks.len().to_string());
        let by_serves = self.clients_by_serves();
        for (network, usual) in self.networks.iter().zip(by_serves) {
            part(network.name.as_str());
            part(&network.port.to_string());
            // What follows from the rest is not said twice.
            if network.clients != usual {
                part(&format!("clients {}", network.clients));
            }
            if let Some(gateway) = network.gateway {
                part(&format!("gateway {gateway}"));
            }
        }
        part(&self.nodes.len().to_string());
        for (name, node) in &self.nodes {
            part(name.as_str());
            part(&node.kind.to_string());
            part(&node.priority.to_string());
            for address in &node.addresses {
                part(&address.as_ref().map(Host::to_string).unwrap_or_default());
            }
            part(&node.serves.len().to_string());
            for host in &node.serves {
                part(&host.to_string());
            }
        }
        for role in self.roles.keys() {
            part(role.as_str());
        }
        let digest: [u8; 32] = hash.finalize().into();
        let (first, _) = digest.split_at(8);
        first.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}
