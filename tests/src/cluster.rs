//! A cluster under test: agents that really run, with their configuration, state and logs in a directory that goes
//! with them, and a watch over them from the first start on.

use crate::application::Applications;
use crate::binary::baton;
use crate::deadline::GENEROUS;
use crate::fault::Loss;
use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::plan::{ACTS, DNS_PORT, HTTP_PORT, NETWORKS, Plan, Seat};
use crate::process::{self, Process};
use crate::watch::Watch;
use baton_agent::demo::connection::Connection;
use baton_shared::clock::Mono;
use baton_shared::key::ClusterKey;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;

/// One request to an agent.
pub const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How long an agent may take from its start to when its promises begin to count.
const STARTING: Duration = Duration::from_millis(100);
/// The variable of a node's environment that names its [`Cluster::home`].
pub const HOME: &str = "BATON_TEST_HOME";
/// The lab's host that is no node.
pub const CLIENT: &str = "client";

/// Where the agents run.
#[derive(Debug)]
enum Ground {
    Lab(Lab),
    /// 127.block.place.x and 127.block.(place + 1).x
    Loopback {
        block: u8,
        place: u8,
    },
}

/// One node of the cluster, running or not.
#[derive(Debug)]
pub struct Node {
    /// Where it sits.
    pub seat: Seat,
    /// Its host.
    pub namespace: Namespace,
    /// Where a client on its own host reaches it.
    pub http: SocketAddr,
    /// Where a resolver on its own host reaches it.
    pub dns: SocketAddr,
    process: Option<Process>,
}

/// Agents, and all that belongs to them.
#[derive(Debug)]
pub struct Cluster {
    nodes: BTreeMap<String, Node>,
    /// What every node said.
    pub watch: Watch,
    plan: Plan,
    ground: Ground,
    dir: TempDir,
}

impl Cluster {
    /// Starts all nodes in a lab of their own, with a client beside them. Needs root.
    #[track_caller]
    pub fn in_lab(plan: Plan) -> Cluster {
        Cluster::unstarted_in_lab(plan).start_all()
    }

    /// The same, with nothing started yet.
    #[track_caller]
    pub fn unstarted_in_lab(plan: Plan) -> Cluster {
        let mut lab = Lab::new(&NETWORKS);
        lab.add_host_on(CLIENT, &NETWORKS[..1]);
        Cluster::lay_out(plan, Ground::Lab(lab))
    }

    /// Starts all nodes on loopback addresses that no other cluster uses.
    #[track_caller]
    pub fn on_loopback(plan: Plan) -> Cluster {
        Cluster::unstarted(plan).start_all()
    }

    /// The same, with nothing started yet.
    #[track_caller]
    pub fn unstarted(plan: Plan) -> Cluster {
        static PLACES: AtomicU8 = AtomicU8::new(1);
        let block = 16 + (std::process::id() % 200) as u8;
        let place = PLACES.fetch_add(2, Relaxed);
        Cluster::lay_out(plan, Ground::Loopback { block, place })
    }

    #[track_caller]
    fn start_all(mut self) -> Cluster {
        for name in self.names() {
            self.start(&name);
        }
        self
    }

    #[track_caller]
    fn lay_out(mut plan: Plan, ground: Ground) -> Cluster {
        // What a node keeps by its cluster's name, beside its own directories, is this cluster's alone.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        plan.cluster = format!("orders-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let mut builder = tempfile::Builder::new();
        builder.prefix("baton-test-");
        let memory = Path::new("/dev/shm");
        let dir = match plan.on_disk || !memory.is_dir() {
            true => builder.tempdir(),
            false => builder.tempdir_in(memory),
        };
        let dir = dir.expect("the temporary directory can be written");
        std::fs::create_dir(dir.path().join(ACTS)).expect("the temporary directory can be written");
        let mut secret = [0u8; 32];
        secret[..4].copy_from_slice(&std::process::id().to_be_bytes());
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            watch: Watch::default(),
            plan,
            ground,
            dir,
        };
        write_private(
            &cluster.dir.path().join("cluster.key"),
            &ClusterKey::from_bytes(secret).to_text(),
        );
        cluster.seat_nodes();
        cluster.write_config();
        cluster
    }

    /// Gives every node of the plan that has no seat yet one, and a watch.
    fn seat_nodes(&mut self) {
        for (name, kind) in self.plan.nodes.clone() {
            if self.nodes.contains_key(&name) {
                continue;
            }
            let number = 11 + self.nodes.len() as u8;
            let (namespace, front, back, inner) = match &mut self.ground {
                Ground::Lab(lab) => {
                    let host = lab.add_host(&name);
                    let [front, back] = NETWORKS.map(|network| host.addresses[network]);
                    (host.namespace.clone(), front, back, Ipv4Addr::LOCALHOST)
                }
                Ground::Loopback { block, place } => {
                    let front = Ipv4Addr::new(127, *block, *place, number);
                    let back = Ipv4Addr::new(127, *block, *place + 1, number);
                    (Namespace::here(), front, back, front)
                }
            };
            let http = (inner, HTTP_PORT).into();
            self.watch.beside(&name, namespace.clone(), http);
            if let Ground::Lab(lab) = &self.ground {
                let client = lab.host(CLIENT).namespace.clone();
                self.watch.afar(&name, client, (front, HTTP_PORT).into());
            }
            let node = Node {
                seat: Seat {
                    name: name.clone(),
                    kind,
                    front,
                    back,
                },
                namespace,
                http,
                dns: (inner, self.plan.dns_port.unwrap_or(DNS_PORT)).into(),
                process: None,
            };
            self.nodes.insert(name, node);
        }
    }

    fn write_config(&self) {
        let seats: Vec<Seat> = self
            .plan
            .nodes
            .iter()
            .map(|(name, _)| self.nodes[name].seat.clone())
            .collect();
        let inner = matches!(self.ground, Ground::Lab(_));
        let text = self.plan.toml(&seats, self.dir.path(), inner);
        write_private(&self.config(), &text);
    }

    /// Changes the node list in the configuration file; nobody is told. New nodes get a host and are not started.
    pub fn replan(&mut self, nodes: &[(String, baton_shared::id::Kind)]) {
        self.plan.nodes = nodes.to_vec();
        self.seat_nodes();
        self.write_config();
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("cluster.toml")
    }

    /// What the test application did on all nodes.
    pub fn applications(&self) -> Applications {
        Applications::of(&self.dir.path().join(ACTS))
    }

    /// The directory with everything in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// W.
    pub fn window(&self) -> Duration {
        self.plan.window
    }

    /// Its shape.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Names of the nodes in the plan, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.plan.nodes.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Names of all nodes but these.
    pub fn others(&self, but: &[&str]) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| !but.contains(&name.as_str()));
        names
    }

    /// The node of that name.
    #[track_caller]
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// Names of the nodes that run.
    pub fn running(&self) -> Vec<String> {
        let running = self.nodes.iter().filter(|(_, node)| node.process.is_some());
        running.map(|(name, _)| name.clone()).collect()
    }

    /// The lab. Panics for a cluster on loopback.
    #[track_caller]
    pub fn lab(&mut self) -> &mut Lab {
        match &mut self.ground {
            Ground::Lab(lab) => lab,
            Ground::Loopback { .. } => panic!("a cluster on loopback has no lab"),
        }
    }

    // Processes.

    /// Starts a node that does not run.
    #[track_caller]
    pub fn start(&mut self, name: &str) {
        self.start_with(name, &[]);
    }

    /// Starts a node with more arguments.
    #[track_caller]
    pub fn start_with(&mut self, name: &str, more: &[&str]) {
        self.start_through(name, &[], more);
    }

    /// Starts a node with more arguments through another program, which is given the agent's command line behind its own.
    #[track_caller]
    pub fn start_through(&mut self, name: &str, through: &[&str], more: &[&str]) {
        let config = self.config().display().to_string();
        let log = self.log(name);
        let node = self.node(name);
        assert!(node.process.is_none(), "{name} runs already");
        let mut arguments = vec!["agent", "--config", &config, "--node", name];
        arguments.extend(more);
        let program = baton().display().to_string();
        let mut line = [through, &[program.as_str()], &arguments].concat();
        let first = PathBuf::from(line.remove(0));
        let home = self.home(name);
        std::fs::create_dir_all(&home).expect("the cluster's directory can be written");
        let mut command = node.namespace.command(&first);
        // Whatever it starts can be known by either, whoever adopted it meanwhile.
        command.args(&line).current_dir(&home).env(HOME, &home);
        command.env("RUNTIME_DIRECTORY", &home);
        command.envs(self.plan.env.iter().cloned());
        let process = Process::run(command, &log);
        let node = self.nodes.get_mut(name).expect("it was found above");
        node.process = Some(process);
    }

    /// One more variable for the environment of every node that is started from now on.
    pub fn give(&mut self, name: &str, value: &str) {
        self.plan.env.push((name.to_owned(), value.to_owned()));
    }

    /// Where a node runs: its working directory, and the one that a service manager would give it for what lasts as long as it does.
    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join("run").join(name)
    }

    /// A node's log.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    /// A running node's process.
    #[track_caller]
    pub fn process(&self, name: &str) -> &Process {
        let process = self.node(name).process.as_ref();
        process.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// How long a node's agent has surely been running; its guardian may have started it again since the node's own start.
    pub fn age(&self, name: &str) -> Duration {
        let process = self.node(name).process.as_ref();
        let started = process.and_then(|process| process::started(process.agent()?));
        started.map_or(Duration::ZERO, |at| Mono::now().since(at + STARTING))
    }

    #[track_caller]
    fn take(&mut self, name: &str) -> Process {
        let node = self.nodes.get_mut(name);
        let process = node.and_then(|node| node.process.take());
        process.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Waits for a node that is expected to end by itself, and returns how it did.
    #[track_caller]
    pub fn wait_ended(&mut self, name: &str) -> ExitStatus {
        self.take(name).wait(GENEROUS)
    }

    /// How a node has ended, if it does within this time. It is not running any more then.
    pub fn ended_within(&mut self, name: &str, limit: Duration) -> Option<ExitStatus> {
        let deadline = Mono::now() + limit;
        let node = self.nodes.get_mut(name)?;
        loop {
            let status = node.process.as_mut()?.ended();
            if status.is_some() {
                node.process = None;
                return status;
            }
            if Mono::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks a node to stop and waits until it has.
    #[track_caller]
    pub fn stop(&mut self, name: &str) {
        let status = self.take(name).stop();
        assert!(status.success(), "{name} did not stop in order: {status}");
    }

    /// Kills a node.
    #[track_caller]
    pub fn kill(&mut self, name: &str) {
        self.take(name).kill();
    }

    /// Freezes a node.
    #[track_caller]
    pub fn freeze(&self, name: &str) {
        self.process(name).freeze();
    }

    /// Thaws a node (or its agent alone) that was frozen beyond its lease, and sees that the first thing it says is 503 (S4).
    #[track_caller]
    pub fn thaw_and_ask(&self, name: &str) {
        let node = self.node(name);
        let mut asked = node.namespace.inside(|| {
            let mut connection =
                Connection::open(node.http, ASK_LIMIT).expect("the kernel of a frozen node connects");
            connection.send("/health").expect("and takes a request");
            connection
        });
        self.process(name).thaw();
        let answer = asked.receive(|| false);
        let answer = answer.unwrap_or_else(|e| panic!("{name} did not answer on waking: {e}"));
        assert_eq!(answer.status, 503, "{name} lied on waking: {}", answer.text());
    }

    /// Removes the state of a node that does not run.
    #[track_caller]
    pub fn wipe(&self, name: &str) {
        assert!(self.node(name).process.is_none(), "{name} still runs");
        let dir = self.dir.path().join(name);
        std::fs::remove_dir_all(&dir).unwrap_or_else(|e| panic!("cannot remove {}: {e}", dir.display()));
    }

    // Faults.

    /// Cuts a node off: no packet comes in or goes out on any network.
    #[track_caller]
    pub fn silence(&mut self, name: &str) {
        self.lab().lose(name, Loss::all());
    }

    /// Takes all faults of the network from a node.
    #[track_caller]
    pub fn heal(&mut self, name: &str) {
        self.lab().heal(name);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

#[track_caller]
fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}
