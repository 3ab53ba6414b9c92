//! The stage of the demo: a directory, a configuration, and three agent processes on loopback addresses.
//!
//! Every agent is a process group of its own, so that Ctrl-C reaches the demo alone and the agents can be stopped in
//! order; and it dies with the demo, however that ends.

use super::connection::get;
use super::interrupt::Interrupt;
use super::question::{Asker, NOERROR};
use baton_shared::clock::Mono;
use baton_shared::key::ClusterKey;
use baton_shared::status::Status;
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The nodes.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// The zone, and the name whose address is the active node's.
pub const ZONE: &str = "demo.internal";

const HTTP_PORT: u16 = 7480;
const DNS_PORT: u16 = 5300;
const CLUSTER_PORT: u16 = 7400;
/// A single request to an agent on this machine.
const ASK_LIMIT: Duration = Duration::from_millis(250);
/// An agent that was asked to stop is killed after so long.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// One of the three agents.
pub struct Node {
    /// Its name.
    pub name: &'static str,
    place: u8,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Its address on the network `front`, which is also what DNS answers for it.
    pub fn front(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, self.place)
    }

    fn back(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 2, self.place)
    }

    /// Where it answers HTTP.
    pub fn http(&self) -> SocketAddr {
        (self.front(), HTTP_PORT).into()
    }

    /// Where it answers DNS.
    pub fn dns(&self) -> SocketAddr {
        (self.front(), DNS_PORT).into()
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.name))
    }

    /// What it logged.
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let child = self
            .child
            .as_ref()
            .ok_or_else(|| format!("node {} does not run", self.name))?;
        kill_process_group(Pid::from_child(child), signal)
            .map_err(|e| format!("cannot signal node {}: {e}", self.name))
    }

    /// How it ended, with the last words of its log.
    fn last_words(&self, how: ExitStatus) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it logged nothing");
        format!("{how}; {last}")
    }
}

/// The directory and the agents.
pub struct Stage {
    dir: PathBuf,
    remove: bool,
    program: PathBuf,
    nodes: Vec<Node>,
}

impl Stage {
    /// Makes the directory and the configuration; nothing runs yet.
    pub fn build(dir: Option<&Path>, window: Option<Duration>) -> Result<Stage, String> {
        let program =
            std::env::current_exe().map_err(|e| format!("cannot find this program's own file: {e}"))?;
        let own = std::env::temp_dir().join(format!("baton-demo-{}", std::process::id()));
        let path = dir.unwrap_or(&own).to_owned();
        DirBuilder::new()
            .recursive(dir.is_some())
            .mode(0o700)
            .create(&path)
            .map_err(|e| format!("cannot create {}: {e}; choose another with --dir", path.display()))?;
        let nodes = (1..)
            .zip(NAMES)
            .map(|(place, name)| Node {
                name,
                place,
                dir: path.clone(),
                child: None,
            })
            .collect();
        let stage = Stage {
            dir: path,
            remove: dir.is_none(),
            program,
            nodes,
        };
        stage.check_ports()?;
        stage.write_files(window)?;
        Ok(stage)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// This program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The agents, in the order of their names.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The agent of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// A port that is taken is said here, before anything starts, and not by one agent of three.
    fn check_ports(&self) -> Result<(), String> {
        for node in &self.nodes {
            let streams = [
                node.http(),
                node.dns(),
                (node.front(), CLUSTER_PORT).into(),
                (node.back(), CLUSTER_PORT).into(),
            ];
            for address in streams {
                TcpListener::bind(address)
                    .map(drop)
                    .and_then(|()| UdpSocket::bind(address).map(drop))
                    .map_err(|e| format!("{address} cannot be used ({e}); is another demo running?"))?;
            }
        }
        Ok(())
    }

    fn write_files(&self, window: Option<Duration>) -> Result<(), String> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|e| format!("no random bytes for a key: {e}"))?;
        let key = self.dir.join("cluster.key");
        write(&key, &ClusterKey::from_bytes(secret).to_text())?;
        let mut nodes = String::new();
        for node in &self.nodes {
            nodes += &format!(
                "\n[nodes.{}]\nfront = \"{}\"\nback = \"{}\"\n",
                node.name,
                node.front(),
                node.back()
            );
        }
        let window = window.map_or(String::new(), |w| {
            format!("window = \"{}ms\"\n", w.as_secs_f64() * 1000.0)
        });
        let dir = self.dir.display();
        let key = key.display();
        let config = format!(
            "# Three agents on one machine, as `baton demo` runs them.\n\
             [cluster]\nname = \"demo\"\n{window}key = \"file:{key}\"\n\n\
             [networks]\nfront = {{ port = {CLUSTER_PORT} }}\nback = {{ port = {CLUSTER_PORT} }}\n\
             {nodes}\n\
             [storage]\ndir = \"{dir}/{{node}}\"\n\n\
             [http]\nlisten = \"{{front}}:{HTTP_PORT}\"\n\n\
             [control]\nlisten = \"unix:{dir}/{{node}}.sock\"\n\n\
             [dns]\nlisten = \"{{front}}:{DNS_PORT}\"\nzone = \"{ZONE}\"\n"
        );
        write(&self.config(), &config)
    }

    fn config(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    /// Starts the agent of that name. To be called by the main thread alone: the agent dies with its caller.
    pub fn start(&mut self, name: &str) -> Result<(), String> {
        let config = self.config();
        let program = self.program.clone();
        let node = self.node_mut(name)?;
        let log = open_log(&node.log())?;
        let errors = log.try_clone().map_err(|e| format!("cannot share a log: {e}"))?;
        let mut command = Command::new(program);
        command
            .args(["agent", "--node", name, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if rustix::process::getppid() != Some(parent) {
                    return Err(std::io::ErrorKind::BrokenPipe.into()); // the demo died before the call above
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .map_err(|e| format!("cannot start node {name}: {e}"))?;
        node.child = Some(child);
        Ok(())
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node, String> {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .ok_or_else(|| format!("there is no node {name}"))
    }

    /// Freezes an agent (SIGSTOP).
    pub fn freeze(&self, name: &str) -> Result<(), String> {
        self.expect(name)?.signal(Signal::STOP)
    }

    /// Lets a frozen agent go on (SIGCONT).
    pub fn thaw(&self, name: &str) -> Result<(), String> {
        self.expect(name)?.signal(Signal::CONT)
    }

    /// Kills an agent (SIGKILL).
    pub fn kill(&mut self, name: &str) -> Result<(), String> {
        let node = self.node_mut(name)?;
        node.signal(Signal::KILL)?;
        if let Some(mut child) = node.child.take() {
            child
                .wait()
                .map_err(|e| format!("cannot wait for node {name}: {e}"))?;
        }
        Ok(())
    }

    fn expect(&self, name: &str) -> Result<&Node, String> {
        self.node(name).ok_or_else(|| format!("there is no node {name}"))
    }

    /// Runs a command of this program against the agent of that name, as an operator would.
    pub fn operate(&self, name: &str, arguments: &[&str]) -> Result<String, String> {
        let socket = self.expect(name)?.socket();
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--socket")
            .arg(socket)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("cannot run baton {}: {e}", arguments.join(" ")))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("baton {}: {}", arguments.join(" "), said.trim()))
        }
    }

    /// Agents that ended unasked, and how.
    pub fn reap(&mut self) -> Vec<(&'static str, String)> {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            let done = node
                .child
                .as_mut()
                .and_then(|child| child.try_wait().ok().flatten());
            if let Some(how) = done {
                node.child = None;
                ended.push((node.name, node.last_words(how)));
            }
        }
        ended
    }

    /// The cluster's state as the active agent sees it, or else the first that answers.
    pub fn status(&self) -> Option<Status> {
        let seen: Vec<Status> = self.nodes.iter().filter_map(status_of).collect();
        let holder = seen
            .iter()
            .position(|s| s.roles.iter().any(|r| r.active.as_ref() == Some(&s.node)));
        seen.into_iter().nth(holder.unwrap_or(0))
    }

    /// Waits until one agent is active and all three are up, know it and say so over DNS. Its name, or `None` if
    /// interrupted.
    pub fn wait_ready(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Option<String>, String> {
        let deadline = Mono::now() + limit;
        loop {
            if let Some((name, how)) = self.reap().into_iter().next() {
                return Err(format!("node {name} ended: {how}"));
            }
            let why = match self.agreed() {
                Ok(active) => return Ok(Some(active)),
                Err(why) => why,
            };
            if Mono::now() > deadline {
                return Err(format!("the cluster did not settle within {limit:?}: {why}"));
            }
            if interrupt.wait(LOOK) {
                return Ok(None);
            }
        }
    }

    /// The active agent that everybody names, or what stands in the way.
    fn agreed(&self) -> Result<String, String> {
        let mut active = None;
        for node in &self.nodes {
            let status = status_of(node).ok_or_else(|| format!("{} does not answer", node.name))?;
            let named = status.roles.first().and_then(|role| role.active.clone());
            let named = named.ok_or_else(|| format!("{} names no active node", node.name))?;
            if !status.ready {
                return Err(format!("{} is not ready", node.name));
            }
            match &active {
                Some(other) if *other != named => return Err("the agents do not agree yet".into()),
                _ => active = Some(named),
            }
        }
        let active = active.ok_or("there are no agents")?.to_string();
        let address = self.expect(&active)?.front();
        for node in &self.nodes {
            let reply = Asker::new(node.dns(), ZONE, ASK_LIMIT)
                .and_then(|mut asker| asker.ask())
                .map_err(|e| format!("{} does not answer DNS: {e}", node.name))?;
            if reply.code != NOERROR || reply.addresses != [address] {
                return Err(format!("{} does not give {active}'s address yet", node.name));
            }
        }
        Ok(active)
    }

    /// Stops the agents in order, the active one last, so that nothing moves about on the way out.
    pub fn stop(&mut self) {
        let active = self
            .status()
            .and_then(|status| status.roles.first()?.active.clone())
            .map(|name| name.to_string());
        self.nodes
            .sort_by_key(|node| active.as_deref() == Some(node.name));
        for node in &mut self.nodes {
            // Thawed first: a frozen process does not see SIGTERM.
            let asked = node.signal(Signal::CONT).and_then(|()| node.signal(Signal::TERM));
            let Some(mut child) = node.child.take() else {
                continue;
            };
            let deadline = Mono::now() + STOP_LIMIT;
            while asked.is_ok() && matches!(child.try_wait(), Ok(None)) && Mono::now() < deadline {
                std::thread::sleep(LOOK);
            }
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.signal(Signal::KILL);
            if let Some(mut child) = node.child.take() {
                let _ = child.wait();
            }
        }
        if self.remove {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn status_of(node: &Node) -> Option<Status> {
    let answer = get(node.http(), "/status", ASK_LIMIT).ok()?;
    serde_json::from_slice(&answer.body).ok()
}

fn open_log(path: &Path) -> Result<File, String> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}

/// Writes a file that only its owner can read: one of them is the key.
fn write(path: &Path, text: &str) -> Result<(), String> {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|e| format!("cannot write {}: {e}", path.display()))
}
