//! The command that `baton follow` runs: started as a process group of its own, signalled and stopped as one, and never
//! outliving us.

use super::super::out::Failure;
use super::decide::{Active, by_signal};
use super::group::lives;
use baton_shared::id::RoleName;
use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group, set_parent_process_death_signal};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Between two looks at a group that is to vanish.
const LOOK: Duration = Duration::from_millis(25);
/// How long a killed group may take to vanish before it is let be (a zombie, or stuck in the kernel).
const VANISH: Duration = Duration::from_secs(1);

/// What is run, and how.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// Program and arguments; not empty.
    pub words: Vec<OsString>,
    /// Put behind the address.
    pub port: Option<u16>,
    /// The role that is followed, if it was named.
    pub role: Option<RoleName>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

/// What the command finds in its environment; `None`: it finds no such variable, even if we have one.
pub(super) fn environment(command: &Command, active: Option<&Active>) -> [(&'static str, Option<String>); 5] {
    let address = active.and_then(|active| active.addresses.first());
    let role = active.map(|active| &active.role).or(command.role.as_ref());
    [
        ("BATON_ROLE", role.map(RoleName::to_string)),
        (
            "BATON_ACTIVE",
            Some(active.map(|active| active.node.to_string()).unwrap_or_default()),
        ),
        ("BATON_ADDRESS", address.map(|ip| with_port(*ip, command.port))),
        ("BATON_EPOCH", active.map(|active| active.epoch.to_string())),
        ("BATON_CLUSTER", active.map(|active| active.cluster.clone())),
    ]
}

fn with_port(ip: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    }
}

/// The running command.
pub(super) struct Child {
    leader: tokio::process::Child,
    /// Its process group, until nobody is left in it that matters.
    group: Option<Pid>,
    grace: Duration,
    /// It was told to stop, and is killed at this instant.
    kill_at: Option<Instant>,
    status: Option<u8>,
}

impl Child {
    /// Starts the command. The failure has the status that `env` and the shells give.
    pub(super) fn start(command: &Command, active: Option<&Active>) -> Result<Child, Failure> {
        let (program, arguments) = command
            .words
            .split_first()
            .ok_or_else(|| Failure::usage("there is no command to run"))?;
        let mut starting = std::process::Command::new(program);
        starting.args(arguments).process_group(0);
        for (name, value) in environment(command, active) {
            match value {
                Some(value) => starting.env(name, value),
                None => starting.env_remove(name),
            };
        }
        let us = getpid();
        // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
        unsafe {
            starting.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                match getppid() == Some(us) {
                    true => Ok(()),
                    false => Err(io::Error::from_raw_os_error(libc::ESRCH)), // we died before it could be told
                }
            });
        }
        let leader = tokio::process::Command::from(starting)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure {
                status: match error.kind() {
                    ErrorKind::NotFound => 127,
                    _ => 126,
                },
                text: format!("cannot run {}: {error}", program.display()),
            })?;
        let id = leader.id().and_then(|id| i32::try_from(id).ok());
        Ok(Child {
            leader,
            group: id.and_then(Pid::from_raw),
            grace: command.grace,
            kill_at: None,
            status: None,
        })
    }

    /// Sends a signal to all of it.
    pub(super) fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            self.send(signal);
        }
    }

    fn send(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, signal); // it may be gone already
        }
    }

    /// Asks it to stop; whoever is left after the grace period is killed.
    pub(super) fn stop(&mut self) {
        self.send(Signal::TERM);
        self.kill_at.get_or_insert(Instant::now() + self.grace);
    }

    /// Waits for its end, and says how it ended; after [`Child::stop`], for the end of the whole group. May be dropped
    /// while it waits, and called again.
    pub(super) async fn ended(&mut self) -> u8 {
        let status = match self.status {
            Some(status) => status,
            None => self.leader_ended().await,
        };
        self.status = Some(status);
        if let Some(kill_at) = self.kill_at {
            self.rest_gone(kill_at).await;
        }
        self.group = None; // what it left behind on purpose may stay
        status
    }

    async fn leader_ended(&mut self) -> u8 {
        let ended = match self.kill_at {
            None => self.leader.wait().await,
            Some(kill_at) => match timeout_at(kill_at, self.leader.wait()).await {
                Ok(ended) => ended,
                Err(_) => {
                    self.send(Signal::KILL);
                    self.leader.wait().await
                }
            },
        };
        ended.map_or(1, status) // an error: somebody else has reaped it
    }

    async fn rest_gone(&self, kill_at: Instant) {
        while self.group.is_some_and(lives) && Instant::now() < kill_at + VANISH {
            if Instant::now() >= kill_at {
                self.send(Signal::KILL);
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.send(Signal::KILL);
    }
}

/// What the shells make of an exit status.
fn status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(u8::MAX),
        (None, Some(signal)) => by_signal(signal),
        (None, None) => 1,
    }
}
