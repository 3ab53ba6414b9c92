//! The stage of the demo: a directory, a configuration, and three agents on loopback addresses. When it goes, the agents
//! and the directory go with it.

use super::interrupt::Interrupt;
use super::node::{CLUSTER_PORT, DNS_PORT, HTTP_PORT, Node};
use super::question::{Asker, NOERROR};
use baton_shared::clock::Mono;
use baton_shared::key::ClusterKey;
use baton_shared::status::Status;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The nodes.
pub const NAMES: [&str; 3] = ["a", "b", "c"];
/// The zone, and the name whose address is the active node's.
pub const ZONE: &str = "demo.internal";
/// A single request to an agent on this machine.
pub const ASK_LIMIT: Duration = Duration::from_millis(250);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// The directory and the agents.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    /// The directory is the demo's own.
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
        let path = dir.unwrap_or(&own);
        let failed = |e| format!("cannot make {}: {e}; choose another with --dir", path.display());
        DirBuilder::new()
            .recursive(dir.is_some())
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let stage = Stage {
            nodes: (1..)
                .zip(NAMES)
                .map(|(place, name)| Node::new(name, place, &path))
                .collect(),
            dir: path,
            remove: dir.is_none(),
            program,
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

    /// The agents.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The agent of that name.
    pub fn node(&self, name: &str) -> Result<&Node, String> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.ok_or_else(|| format!("there is no node {name}"))
    }

    /// The agent of that name, to do something to.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node, String> {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.ok_or_else(|| format!("there is no node {name}"))
    }

    /// Starts the agent of that name; see [`Node::start`] for by whom.
    pub fn start(&mut self, name: &str) -> Result<(), String> {
        let (program, config) = (self.program.clone(), self.config());
        self.node_mut(name)?.start(&program, &config)
    }

    /// Runs a command of this program against the agent of that name, as an operator would.
    pub fn operate(&self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let said = |what: &dyn std::fmt::Display| format!("baton {}: {what}", arguments.join(" "));
        let output = Command::new(&self.program)
            .args(arguments)
            .arg("--socket")
            .arg(self.node(name)?.socket())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| said(&e))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(said(&String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Agents that ended unasked, and how.
    pub fn ended(&mut self) -> Vec<(&'static str, String)> {
        let how = |node: &mut Node| Some((node.name, node.ended()?));
        self.nodes.iter_mut().filter_map(how).collect()
    }

    /// The cluster's state as the active agent sees it, or else the first that answers.
    pub fn status(&self) -> Option<Status> {
        let mut seen: Vec<Status> = self.nodes.iter().filter_map(Node::status).collect();
        let is_active = |status: &Status| {
            let mut roles = status.roles.iter();
            roles.any(|role| role.active.as_ref() == Some(&status.node))
        };
        match seen.iter().position(is_active) {
            Some(place) => Some(seen.swap_remove(place)),
            None => seen.into_iter().next(),
        }
    }

    /// Waits until one agent is active and all three are up, know it and say so over DNS. Its name, or `None` if
    /// interrupted.
    pub fn wait_ready(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Option<String>, String> {
        let deadline = Mono::now() + limit;
        loop {
            if let Some((name, how)) = self.ended().into_iter().next() {
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
            let status = node
                .status()
                .ok_or_else(|| format!("{} does not answer", node.name))?;
            let role = status.roles.first();
            let named = role.and_then(|role| role.active.clone());
            let named = named.ok_or_else(|| format!("{} names no active node", node.name))?;
            if !status.ready || role.is_none_or(|role| role.line.is_empty()) {
                return Err(format!("{} is not ready", node.name));
            }
            if active.get_or_insert_with(|| named.clone()) != &named {
                return Err("the agents do not agree yet".into());
            }
        }
        let active = active.ok_or("there are no agents")?.to_string();
        let address = self.node(&active)?.front();
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
        let role = self.status().and_then(|status| status.roles.into_iter().next());
        let active = role.and_then(|role| role.active);
        let is_active = |node: &Node| active.as_ref().is_some_and(|name| name.as_str() == node.name);
        self.nodes.sort_by_key(is_active);
        self.nodes.iter_mut().for_each(Node::stop);
    }

    /// A port that is taken is said here, before anything starts, and not by one agent of three.
    fn check_ports(&self) -> Result<(), String> {
        for address in self.nodes.iter().flat_map(Node::addresses) {
            TcpListener::bind(address)
                .map(drop)
                .and_then(|()| UdpSocket::bind(address).map(drop))
                .map_err(|e| {
                    format!("cannot use {address}: {e}; end the other demo or what else is there")
                })?;
        }
        Ok(())
    }

    fn config(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    fn write_files(&self, window: Option<Duration>) -> Result<(), String> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|e| format!("no random bytes for a key: {e}"))?;
        write(
            &self.dir.join("cluster.key"),
            &ClusterKey::from_bytes(secret).to_text(),
        )?;
        write(&self.config(), &self.configuration(window))
    }

    fn configuration(&self, window: Option<Duration>) -> String {
        let window = window.map_or(String::new(), |window| {
            format!("window = \"{}ms\"\n", window.as_secs_f64() * 1000.0)
        });
        let nodes: String = self
            .nodes
            .iter()
            .map(|node| {
                let (name, front, back) = (node.name, node.front(), node.back());
                format!("\n[nodes.{name}]\nfront = \"{front}\"\nback = \"{back}\"\n")
            })
            .collect();
        let dir = self.dir.display();
        format!(
            "# Three agents on one machine, as `baton demo` runs them.\n\
             [cluster]\nname = \"demo\"\n{window}key = \"file:{dir}/cluster.key\"\n\n\
             [networks]\nfront = {{ port = {CLUSTER_PORT} }}\nback = {{ port = {CLUSTER_PORT} }}\n\
             {nodes}\n\
             [storage]\ndir = \"{dir}/{{node}}\"\n\n\
             [http]\nlisten = \"{{front}}:{HTTP_PORT}\"\n\n\
             [control]\nlisten = \"unix:{dir}/{{node}}.sock\"\n\n\
             [dns]\nlisten = \"{{front}}:{DNS_PORT}\"\nzone = \"{ZONE}\"\n"
        )
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.nodes.clear(); // which kills those that still run
        if self.remove {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
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
