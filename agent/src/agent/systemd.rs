//! What the service manager is told, by the protocol of sd_notify(3): datagrams to the socket that `$NOTIFY_SOCKET` names.
//!
//! Nothing here is waited for by anybody else. The watchdog's beat is sent by the control loop itself (`control/pulse.rs`).

use crate::control::RoleStates;
use baton_shared::view::{Published, RoleState, RoleView, View};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Where the manager listens, how often in microseconds it wants the watchdog's beat, and from whom.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// A manager that is busy is tried again so often, at such pauses.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// What is no change of a role's state, such as the cluster's beginning, is seen after this.
const LOOK: Duration = Duration::from_secs(2);
/// Longest status line, in characters.
const MAX_STATUS: usize = 256;
/// The loop turns every 500 ms at least: a beat that is wanted more often than this may be missed.
const SHORTEST: Duration = Duration::from_secs(1);

/// The way to the service manager; without one nothing is sent. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Manager(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    to: SocketAddr,
    /// How often the manager wants the beat.
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that these name: by a path, or after `@` by an abstract name.
    pub fn new(variables: Variables) -> Manager {
        let Variables { socket, interval } = variables;
        let Some(name) = socket.filter(|name| !name.is_empty()) else {
            return Manager::default();
        };
        match open(&name) {
            Ok((socket, to)) => Manager(Some(Arc::new(Line {
                socket,
                to,
                watchdog: interval.as_deref().and_then(OsStr::to_str).and_then(watchdog),
            }))),
            Err(error) => {
                tracing::warn!(
                    "cannot reach the service manager at {}={}: {error}; it is told nothing",
                    VARIABLES[0],
                    name.display()
                );
                Manager::default()
            }
        }
    }

    /// How often it wants the beat, if it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// Sends one datagram without waiting.
    pub fn send(&self, text: &str) -> io::Result<()> {
        match &self.0 {
            Some(line) => line.socket.send_to_addr(text.as_bytes(), &line.to).map(drop),
            None => Ok(()),
        }
    }

    /// Sends what must not be lost: while the manager's queue is full it is tried again, for a second.
    pub async fn say(&self, text: &str) {
        for _ in 0..TRIES {
            match self.send(text) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(PAUSE).await,
                Err(error) => return tracing::debug!("the service manager was not told {text:?}: {error}"),
                Ok(()) => return,
            }
        }
        tracing::warn!("the service manager was not told {text:?}: it does not take its messages");
    }

    /// Everything is bound, and runs.
    pub async fn ready(&self) {
        self.say("READY=1").await;
    }

    /// The configuration is being read again; [`Manager::ready`] follows.
    pub async fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}")).await;
    }

    /// The stop has begun.
    pub async fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopping: giving up what this node holds")
            .await;
    }

    /// Keeps the status line up to date, for ever.
    pub async fn follow(
        self,
        published: Arc<Published>,
        mut states: watch::Receiver<RoleStates>,
    ) -> Result<(), String> {
        let mut said = String::new();
        loop {
            states.borrow_and_update();
            let status = status(&published.view.load());
            if status != said {
                self.say(&format!("STATUS={status}")).await;
                said = status;
            }
            if let Ok(Err(_)) = timeout(LOOK, states.changed()).await {
                return std::future::pending().await; // the control loop has ended; others say so
            }
        }
    }
}

/// What the environment says of the service manager.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    socket: Option<OsString>,
    interval: Option<OsString>,
}

impl Variables {
    /// Takes them out of this process's environment, so that no action, check or application inherits them.
    ///
    /// # Safety
    ///
    /// No other thread runs yet: C code may read the environment at any time, and knows nothing of a lock.
    pub unsafe fn take() -> Variables {
        let [socket, interval, _] = VARIABLES.map(|name| {
            let value = std::env::var_os(name);
            // SAFETY: the caller's.
            unsafe { std::env::remove_var(name) };
            value
        });
        Variables { socket, interval }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(io::Error::new(
                ErrorKind::Unsupported,
                "neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

/// `WATCHDOG_PID` is not looked at: it names the guardian, and the beat is the agent's, its child's.
fn watchdog(micros: &str) -> Option<Duration> {
    let interval = Duration::from_micros(micros.parse().ok().filter(|micros| *micros > 0)?);
    if interval < SHORTEST {
        tracing::warn!(
            "WatchdogSec of {interval:?} is less than {SHORTEST:?}: a busy machine will be taken for a hanging agent"
        );
    }
    Some(interval)
}

/// What this node does, in a line.
fn status(view: &View) -> String {
    if view.cluster_id.0 == 0 {
        return "waiting for the cluster to begin".into();
    }
    let role = |role: &RoleView| format!("{}: {}", role.role, state(view, role));
    let text = view.roles.iter().map(role).collect::<Vec<_>>().join("; ");
    text.chars().take(MAX_STATUS).collect()
}

fn state(view: &View, role: &RoleView) -> String {
    let name = match role.state {
        RoleState::Standby => return "standby".into(),
        RoleState::Claiming => return "claiming".into(),
        RoleState::Promoting => "promoting",
        RoleState::Active => "active",
        RoleState::Demoting => "demoting",
    };
    match role.holder.as_ref().filter(|holder| holder.node == view.me) {
        Some(holder) => format!("{name} at epoch {}", holder.epoch),
        None => name.into(),
    }
}

#[cfg(test)]
mod tests;
