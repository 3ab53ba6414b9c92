//! One agent of the demo: where it is, and its process, which is a group of its own and dies with the demo.

use super::connection::get;
use super::stage::ASK_LIMIT;
use baton_shared::clock::Mono;
use baton_shared::status::Status;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal};
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Port of the agents' HTTP listeners.
pub const HTTP_PORT: u16 = 7480;
/// Port of the agents' name servers: one that needs no root.
pub const DNS_PORT: u16 = 5300;
/// Port on which the agents talk to each other.
pub const CLUSTER_PORT: u16 = 7400;

/// An agent that was asked to stop is killed after so long.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(5);

/// One of the agents.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    place: u8,
    dir: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// An agent that does not run yet. Its addresses end in `place`; its files are in `dir`.
    pub fn new(name: &'static str, place: u8, dir: &Path) -> Node {
        Node {
            name,
            place,
            dir: dir.to_owned(),
            child: None,
        }
    }

    /// Its address on the network `front`, which is also what DNS answers for it.
    pub fn front(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 1, self.place)
    }

    /// Its address on the network `back`.
    pub fn back(&self) -> Ipv4Addr {
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

    /// All that it binds.
    pub fn addresses(&self) -> [SocketAddr; 4] {
        [
            self.http(),
            self.dns(),
            (self.front(), CLUSTER_PORT).into(),
            (self.back(), CLUSTER_PORT).into(),
        ]
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.name))
    }

    /// What it logs.
    pub fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    /// The process id of its guardian while it runs, which is also that of the group.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The process id of its agent, if there is one at the moment.
    pub fn agent(&self) -> Option<u32> {
        agent_of(self.pid()?)
    }

    /// What it says of the cluster, if it answers.
    pub fn status(&self) -> Option<Status> {
        let answer = get(self.http(), "/status", ASK_LIMIT).ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// Starts it. To be called by the main thread alone: the agent dies with the thread that started it.
    pub fn start(&mut self, program: &Path, config: &Path) -> Result<(), String> {
        let failed = |e| format!("cannot start node {}: {e}", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|e| format!("cannot write {}: {e}", self.log().display()))?;
        let mut command = Command::new(program);
        command
            .args(["agent", "--node", self.name, "--config"])
            .arg(config)
            // Another demo on this machine has nodes of these names, too.
            .env(
                crate::guardian::LOCK_DIR_VARIABLE,
                self.log().parent().unwrap_or(config),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0);
        let demo = rustix::process::getpid();
        // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if rustix::process::getppid() != Some(demo) {
                    return Err(std::io::ErrorKind::BrokenPipe.into()); // the demo died before the call above
                }
                Ok(())
            });
        }
        self.child = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Freezes it (SIGSTOP).
    pub fn freeze(&self) -> Result<(), String> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub fn thaw(&self) -> Result<(), String> {
        self.signal(Signal::CONT)
    }

    /// Kills its agent alone (SIGKILL); its guardian starts another one.
    pub fn kill_agent(&self) -> Result<(), String> {
        let failed =
            |why: &dyn std::fmt::Display| format!("cannot kill the agent of node {}: {why}", self.name);
        let agent = self.agent().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let agent = agent.ok_or_else(|| failed(&"it has none"))?;
        kill_process(agent, Signal::KILL).map_err(|e| failed(&e))
    }

    /// Kills it, agent and guardian at once (SIGKILL).
    pub fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL)?;
        let ended = self.child.take().map(|mut child| child.wait());
        match ended {
            Some(Err(e)) => Err(format!("cannot wait for node {}: {e}", self.name)),
            _ => Ok(()),
        }
    }

    /// Asks it to stop and waits until it has; kills it if it takes too long.
    pub fn stop(&mut self) {
        // Thawed first: a frozen process does not see SIGTERM.
        let asked = self.thaw().and_then(|()| self.signal(Signal::TERM));
        let deadline = Mono::now() + STOP_LIMIT;
        while asked.is_ok() && self.ended().is_none() && self.child.is_some() && Mono::now() < deadline {
            std::thread::sleep(LOOK);
        }
        if self.child.is_some() {
            let _ = self.kill();
        }
    }

    /// How it ended, with the last words of its log, if it did so since it was last asked.
    pub fn ended(&mut self) -> Option<String> {
        let how = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let last = log.lines().last().unwrap_or("it logged nothing");
        Some(format!("{how}; {last}"))
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        let failed = |why: String| format!("cannot signal node {}: {why}", self.name);
        let child = self
            .child
            .as_ref()
            .ok_or_else(|| failed("it does not run".into()))?;
        kill_process_group(Pid::from_child(child), signal).map_err(|e| failed(e.to_string()))
    }
}

/// The agent of a guardian, if it has one that lives.
pub fn agent_of(guardian: u32) -> Option<u32> {
    let list = fs::read_to_string(format!("/proc/{guardian}/task/{guardian}/children")).ok()?;
    let below = list.split_whitespace().filter_map(|word| word.parse().ok());
    let is_named =
        |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == "baton");
    let threads = |id: &u32| fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    // A guardian's other children have one thread each.
    below.filter(is_named).max_by_key(threads)
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.kill();
        }
    }
}
