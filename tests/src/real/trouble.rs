//! What befalls a node: its processes are asked, killed or stopped, and what they write to stands still.

use crate::cgroup::Cgroup;
use crate::cluster::Cluster;
use crate::deadline::{GENEROUS, until};
use crate::disk::Disk;
use crate::namespace::Namespace;
use crate::process::{lives, signal_one};
use crate::real::kin;
use rustix::process::Signal;
use std::process::{Child, Stdio};

/// One kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// An operator moves the role.
    Switchover,
    /// The node is asked to stop.
    Stop,
    /// The agent alone.
    AgentKilled,
    /// It stands still, and goes on later.
    AgentStopped,
    /// The guardian, parent of the agent, alone.
    GuardianKilled,
    /// It stands still.
    GuardianStopped,
    /// Both at once.
    BothKilled,
    /// Both stand still, and go on later.
    BothStopped,
    /// What the node logs to stands still, and then its agent is killed.
    LogFrozen,
    /// What the node stores to stands still, and then its agent is killed.
    StorageFrozen,
    /// There is no memory left for node and application, and then its agent is killed.
    NoMemory,
}

/// All of them.
pub const TROUBLES: [Trouble; 11] = [
    Trouble::Switchover,
    Trouble::Stop,
    Trouble::AgentKilled,
    Trouble::AgentStopped,
    Trouble::GuardianKilled,
    Trouble::GuardianStopped,
    Trouble::BothKilled,
    Trouble::BothStopped,
    Trouble::LogFrozen,
    Trouble::StorageFrozen,
    Trouble::NoMemory,
];

/// The disks of the node that trouble befalls.
#[derive(Debug)]
pub struct Disks {
    log: Disk,
    store: Disk,
}

impl Disks {
    /// Under a node that has not started.
    #[track_caller]
    pub fn under(cluster: &Cluster, name: &str) -> Disks {
        let logs = cluster.dir().join(format!("log-of-{name}"));
        let log = Disk::mount(&logs);
        std::os::unix::fs::symlink(logs.join("log"), cluster.log(name))
            .expect("the directory can be written");
        let store = Disk::for_data(&cluster.dir().join(name));
        Disks { log, store }
    }
}

/// Trouble that lasts until it is lifted.
#[derive(Debug)]
pub struct Lasting {
    trouble: Trouble,
    agent: Option<u32>,
    guardian: u32,
    memory: Option<(Cgroup, Child)>,
    asked: Option<Child>,
}

impl Trouble {
    /// Befalls a node that is active.
    #[track_caller]
    pub fn befall(self, cluster: &Cluster, name: &str, disks: &Disks) -> Lasting {
        let process = cluster.process(name);
        let mut lasting = Lasting {
            trouble: self,
            agent: process.agent(),
            guardian: process.guardian(),
            memory: None,
            asked: None,
        };
        let agent = lasting.agent.expect("an active node has an agent");
        let guardian = lasting.guardian;
        match self {
            Trouble::Switchover => {
                lasting.asked = Some(cluster.ask(name, &["switchover", "--to", "b"]));
            }
            Trouble::Stop => signal_one(guardian, Signal::TERM),
            Trouble::AgentKilled => signal_one(agent, Signal::KILL),
            Trouble::AgentStopped => signal_one(agent, Signal::STOP),
            Trouble::GuardianKilled => signal_one(guardian, Signal::KILL),
            Trouble::GuardianStopped => signal_one(guardian, Signal::STOP),
            Trouble::BothKilled => both(guardian, agent, Signal::KILL),
            Trouble::BothStopped => both(guardian, agent, Signal::STOP),
            Trouble::LogFrozen => {
                disks.log.freeze();
                signal_one(agent, Signal::KILL);
            }
            Trouble::StorageFrozen => {
                disks.store.freeze();
                signal_one(agent, Signal::KILL);
            }
            Trouble::NoMemory => {
                lasting.memory = Some(starve(cluster, name));
                signal_one(agent, Signal::KILL);
            }
        }
        lasting
    }
}

/// As close to each other as can be: the first to be signalled has no time to see what becomes of the second.
fn both(guardian: u32, agent: u32, signal: Signal) {
    signal_one(guardian, signal);
    signal_quietly(agent, signal);
}

/// All of a node in a group with hardly more memory than it has, and one in it that wants ever more.
#[track_caller]
fn starve(cluster: &Cluster, name: &str) -> (Cgroup, Child) {
    let group = Cgroup::create("memory").expect("this machine has memory groups of version 1");
    let home = cluster.home(name);
    for kin in kin::left(&home).into_iter().chain(kin::own(&home)) {
        group.try_add(kin.id);
    }
    let mut hog = Namespace::here()
        .command("sh")
        .args(["-c", "read -r go; exec tail /dev/zero"]) // it looks for the end of a line, and keeps it all
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be run");
    group.try_add(hog.id());
    let used: u64 = group.get("memory.usage_in_bytes").parse().unwrap_or(0);
    group.set("memory.limit_in_bytes", &(used + (16 << 20)).to_string());
    drop(hog.stdin.take());
    (group, hog)
}

impl Lasting {
    /// It is over. What is amiss with how the node took it, in words. A guardian that is process 1 of a container cannot be ended from
    /// inside: its node says so at `/live`.
    #[track_caller]
    pub fn lift(mut self, cluster: &mut Cluster, name: &str, disks: &Disks, contained: bool) -> Vec<String> {
        let mut amiss = Vec::new();
        match self.trouble {
            Trouble::AgentKilled => {}
            Trouble::Switchover => {
                let asked = self.asked.take().expect("it was asked");
                let output = asked.wait_with_output().expect("a child can be waited for");
                if !output.status.success() {
                    amiss.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
                }
            }
            Trouble::Stop => match cluster.ended_within(name, GENEROUS) {
                Some(status) if status.success() => {}
                Some(status) => amiss.push(format!("{name} did not stop in order: {status}")),
                None => amiss.push(format!("{name} was told to stop and does not end")),
            },
            Trouble::AgentStopped => self.go_on(),
            Trouble::GuardianKilled | Trouble::BothKilled => drop(cluster.ended_within(name, GENEROUS)),
            Trouble::GuardianStopped if contained => match cluster.live(name) {
                503 => {}
                status => amiss.push(format!(
                    "/live of {name} says {status} while its guardian is stopped"
                )),
            },
            Trouble::GuardianStopped => match cluster.ended_within(name, GENEROUS / 6) {
                Some(status) if !status.success() => {}
                Some(status) => amiss.push(format!("the agent of a stopped guardian ended well: {status}")),
                None => amiss.push(format!(
                    "nobody has ended the stopped guardian {} of {name}",
                    self.guardian
                )),
            },
            Trouble::BothStopped => self.go_on(),
            Trouble::LogFrozen => disks.log.thaw(),
            Trouble::StorageFrozen => disks.store.thaw(),
            Trouble::NoMemory => {
                let (group, mut hog) = self.memory.take().expect("it was made");
                let _ = hog.kill(); // the kernel may have done so
                let _ = hog.wait();
                group.set("memory.limit_in_bytes", "-1");
            }
        }
        if matches!(self.trouble, Trouble::GuardianStopped) {
            self.go_on();
        }
        amiss
    }

    fn go_on(&self) {
        for id in [Some(self.guardian), self.agent].into_iter().flatten() {
            signal_quietly(id, Signal::CONT);
        }
    }
}

/// Starts a node again if it has ended, by `start`, once nothing holds its ports any more.
#[track_caller]
pub fn revive(cluster: &mut Cluster, name: &str, start: impl FnOnce(&mut Cluster)) {
    if cluster.ended_within(name, std::time::Duration::ZERO).is_none()
        && cluster.running().contains(&name.to_owned())
    {
        return;
    }
    until(GENEROUS, "its own processes have ended", || {
        let left = kin::own(&cluster.home(name));
        match left.first() {
            None => Ok(()),
            Some(kin) => Err(format!("{kin} lives")),
        }
    });
    start(cluster);
}

/// It may have ended.
fn signal_quietly(id: u32, signal: Signal) {
    if lives(id)
        && let Some(pid) = rustix::process::Pid::from_raw(id.cast_signed())
    {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
