//! The command that `baton follow` runs: under a keeper, so that all that it starts is stopped with it, in whatever group or session,
//! and nothing of it outlives us.

use super::super::out::Failure;
use super::decide::{Active, by_signal};
use crate::keeper::program::cannot_run;
use crate::keeper::running::Running;
use crate::keeper::{self, Start, environment};
use baton_core::guardian::Rest;
use baton_shared::id::RoleName;
use rustix::process::Signal;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long what was killed may take to vanish before it is let be (stuck in the kernel).
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
pub(super) fn told(command: &Command, active: Option<&Active>) -> [(&'static str, Option<String>); 5] {
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

/// The running command. When this is dropped, all of it is killed.
pub(super) struct Child {
    program: OsString,
    running: Option<Running>,
    grace: Duration,
    /// It was told to end, by us or by a signal that was handed on: nothing of it stays.
    ending: bool,
    /// Whoever is left is killed at this instant.
    kill_at: Option<Instant>,
    status: Option<u8>,
}

impl Child {
    /// Starts the command. Whether it could be run is known when it [has ended](Child::ended).
    pub(super) fn start(command: &Command, active: Option<&Active>) -> Result<Child, Failure> {
        let program = command
            .words
            .first()
            .ok_or_else(|| Failure::usage("there is no command to run"))?;
        let begin = || {
            let kept = keeper::start(Start {
                command: &command.words,
                environment: environment::for_client(&told(command, active)),
                input: Some(io::stdin().as_fd()),
                output: None,
                cgroup: None,
                lease: None,
                rest: Rest::Stays,
            })?;
            Running::new(kept)
        };
        let running = begin().map_err(|error| cannot(program, &error))?;
        Ok(Child {
            program: program.clone(),
            running: Some(running),
            grace: command.grace,
            ending: false,
            kill_at: None,
            status: None,
        })
    }

    /// Sends its group a signal. One that ends it is for all of it.
    pub(super) fn signal(&mut self, number: i32) {
        let Some(running) = &self.running else { return };
        running.signal(number);
        if matches!(number, libc::SIGTERM | libc::SIGINT) {
            running.signal_others(Signal::TERM);
            self.ending = true;
        }
    }

    /// Asks all of it to stop; whoever is left after the grace period is killed.
    pub(super) fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        self.kill_at.get_or_insert(Instant::now() + self.grace);
    }

    /// Waits for its end, and says how it ended; once it was told to end, for the end of all that it started. May be dropped while
    /// it waits, and called again. A failure has the status that `env` and the shells give.
    pub(super) async fn ended(&mut self) -> Result<u8, Failure> {
        let status = match self.status {
            Some(status) => status,
            None => self.leader_ended().await?,
        };
        self.status = Some(status);
        if self.ending {
            self.rest_gone().await;
        } else if let Some(running) = self.running.take() {
            running.forsake(); // what it left behind on purpose may stay
        }
        Ok(status)
    }

    async fn leader_ended(&mut self) -> Result<u8, Failure> {
        let Some(running) = &mut self.running else {
            return Ok(1);
        };
        let ended = match self.kill_at {
            None => running.ended().await,
            Some(kill_at) => match timeout_at(kill_at, running.ended()).await {
                Ok(ended) => ended,
                Err(_) => {
                    running.kill();
                    running.ended().await
                }
            },
        };
        match ended {
            Ok(how) => Ok(status(ExitStatus::from_raw(how))),
            // Its keeper was killed, and it with it.
            Err(error) if error.raw_os_error().is_none() => Ok(by_signal(libc::SIGKILL)),
            Err(error) => Err(cannot(&self.program, &error)),
        }
    }

    async fn rest_gone(&mut self) {
        let kill_at = *self.kill_at.get_or_insert(Instant::now() + self.grace);
        if let Some(running) = &mut self.running
            && !running
                .empty(kill_at.saturating_duration_since(Instant::now()))
                .await
        {
            running.kill();
            running.empty(VANISH).await;
        }
    }
}

fn cannot(program: &OsString, error: &io::Error) -> Failure {
    Failure {
        status: match error.kind() {
            ErrorKind::NotFound => 127,
            _ => 126,
        },
        text: cannot_run(&program.to_string_lossy(), error),
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
