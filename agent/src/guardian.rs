//! The guardian: the process above the agent (DESIGN §7). One thread, no async, no port, no configuration: what it needs to know it is
//! told by the agent, its child, over a pair of sockets, and reads from a page of memory that both share. What it decides is
//! [`baton_core::guardian`]; this is its shell, which carries that out in order.
//!
//! - The agent dies: everything that it started is killed, the fence of each role that it held is run, and only then does a death
//!   notice go out, which lets the next in line take over at once (V6). Then the agent is started again.
//! - The agent stands still: before the lease ends, the application is fenced and killed all the same.
//! - It is process 1 of a container as well: signals are passed on, orphans reaped.
//!
//! Nothing here waits for the agent, for a peer, for a program's file, or for whoever reads the log.

pub mod link;
mod lock;
mod notices;
mod remains;
mod running;
mod shell;
mod speaker;

pub use lock::VARIABLE as LOCK_DIR_VARIABLE;

use crate::keeper::cgroup::{self, Base};
use crate::keeper::environment::Vault;
use crate::keeper::mark;
use baton_core::guardian::page::{LeasePage, RoleSlot};
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use rustix::process::{Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

/// Longest message between agent and guardian, in bytes: a command line and its environment.
const MAX_MESSAGE: usize = 1 << 20;
/// The guardian answers the agent's first word within this; it may have to wait for killed processes to vanish.
const WELCOME: Duration = Duration::from_secs(30);
/// What a guardian is called, and an agent.
pub const NAME: &CStr = c"baton-guardian";
const AGENT: &CStr = c"baton";
/// Exit status when the agent cannot be started or watched at all.
const ENVIRONMENT: u8 = 1;

/// The lease page, as the agent has it.
#[derive(Clone, Copy, Debug)]
pub struct SharedPage {
    page: &'static LeasePage,
    bell: RawFd,
}

/// One role's slot of it.
#[derive(Clone, Copy, Debug)]
pub struct SharedSlot {
    slot: &'static RoleSlot,
    bell: RawFd,
}

impl SharedPage {
    /// One whose guardian is a test.
    #[cfg(test)]
    pub fn of_test() -> SharedPage {
        let page = shell::shared_page().unwrap();
        SharedPage { page, bell: -1 }
    }

    fn ring(&self) {
        ring(self.bell);
    }

    /// The slot of the role at this place in the configuration.
    pub fn slot(&self, place: usize) -> Option<SharedSlot> {
        let slot = self.page.slot(place)?;
        Some(SharedSlot {
            slot,
            bell: self.bell,
        })
    }
}

impl Deref for SharedPage {
    type Target = LeasePage;

    fn deref(&self) -> &LeasePage {
        self.page
    }
}

impl SharedSlot {
    /// The slot itself, for a keeper.
    pub fn slot(self) -> &'static RoleSlot {
        self.slot
    }

    /// The application may act until then.
    pub fn lend(self, until: Option<Mono>) {
        self.ring(self.slot.lend(until));
    }

    /// It is promoted at this epoch, until the promotion is over.
    pub fn promoted(self, epoch: Epoch) {
        self.ring(self.slot.promoted(epoch));
    }

    /// The agent stops the application, or does so no more.
    pub fn stopping(self, yes: bool) {
        self.ring(self.slot.stopping(yes));
    }

    /// The guardian sleeps until what it knows of is due, and of this it does not know.
    fn ring(self, needed: bool) {
        if needed {
            ring(self.bell);
        }
    }
}

fn ring(bell: RawFd) {
    if bell >= 0 {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes to an event that this process inherited and that does not block; a full one rings already.
        unsafe { libc::write(bell, one.as_ptr().cast(), one.len()) };
    }
}

impl Deref for SharedSlot {
    type Target = RoleSlot;

    fn deref(&self) -> &RoleSlot {
        self.slot
    }
}

/// This agent's.
static PAGE: OnceLock<SharedPage> = OnceLock::new();

/// A keeper of this process died before its last word: who was below it is below the guardian now, which will see to them.
pub fn keeper_was_lost() {
    if let Some(page) = PAGE.get() {
        page.keeper_lost();
        page.ring();
    }
}

/// The guardian, for who is below it.
#[derive(Debug)]
pub struct Above {
    handle: OwnedFd,
    is_init: bool,
}

impl Above {
    fn of_this_process() -> Option<Above> {
        let id = getppid()?;
        let handle = pidfd_open(id, PidfdFlags::empty()).ok()?;
        // It was its child when it opened that.
        (getppid() == Some(id)).then_some(Above {
            handle,
            is_init: id == Pid::INIT,
        })
    }

    /// Process 1 cannot be killed by those below it.
    pub fn is_init(&self) -> bool {
        self.is_init
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        crate::keeper::has_ended(&self.handle)
    }

    /// Kills it.
    pub fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL); // it may be gone already
    }
}

/// The agent's way to its guardian.
#[derive(Debug)]
pub struct GuardianChannel {
    /// The process; `None` where a kernel before 5.3 cannot tell it from another one.
    pub guardian: Option<Above>,
    /// What is shared.
    pub page: SharedPage,
    /// Requests go out, answers come in, each behind its length (four bytes, little-endian). It ends with the guardian.
    pub stream: UnixStream,
}

/// An agent's first word: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    cluster: String,
    node: String,
}

/// The answer: go on; or why not.
type Welcome = Result<(), String>;

impl GuardianChannel {
    /// Says whose agent this is. The guardian sees to it that it is the only one, and that nothing is left of one before; an error says
    /// what is in the way, and what to do. Nothing else may have been said before.
    pub fn begin(&mut self, cluster: &str, node: &str) -> Result<(), String> {
        let gone = |error: io::Error| format!("the guardian process does not answer: {error}");
        self.stream.set_nonblocking(false).map_err(gone)?;
        self.stream.set_read_timeout(Some(WELCOME)).map_err(gone)?;
        let hello = Hello {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
        };
        self.stream.write_all(&framed(&hello)).map_err(gone)?;
        let (mut heard, mut byte) = (Vec::new(), [0]);
        let welcome: Welcome = loop {
            self.stream.read_exact(&mut byte).map_err(gone)?;
            heard.push(byte[0]);
            if let Some(welcome) = unframe(&mut heard)? {
                break welcome;
            }
        };
        welcome?;
        self.stream.set_nonblocking(true).map_err(gone)?;
        self.guardian = Above::of_this_process();
        let dir = lock::dir(std::env::var(lock::VARIABLE).ok().as_deref());
        cgroup::adopt(base(&dir, cluster, node).ok());
        mark::adopt(cluster, node);
        let _ = PAGE.set(self.page); // it is one guardian's, for as long as this process lives
        Ok(())
    }
}

/// The first part of the name of a node's directory of cgroups; the place of an unusual lock may follow.
pub fn cgroups_of(cluster: &str, node: &str) -> String {
    format!("baton-{cluster}.{node}")
}

/// Where this node's cgroups are. Names are as good as the lock: where that is not at the usual place, they have its place in them.
fn base(dir: &Path, cluster: &str, node: &str) -> Result<Base, String> {
    let usual = lock::usual(dir);
    let place = if usual { String::new() } else { place_word(dir) };
    Base::make(&(cgroups_of(cluster, node) + &place))
}

/// A short word for a directory: the same in every run.
fn place_word(dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    format!("-{:016x}", mark::fnv(dir.as_os_str().as_bytes().iter().copied()))
}

/// Runs `agent` as a child process, and watches it to its end. Gives the exit status. The calling process must have one thread.
pub fn run(agent: impl Fn(GuardianChannel) -> u8) -> u8 {
    // SAFETY: this process has one thread, and nobody holds what came from its environment.
    let started = unsafe { Vault::lock_up() }.and_then(shell::Shell::start);
    match started {
        Ok(shell) => shell.watch(&agent),
        Err(error) => {
            eprintln!("baton: cannot watch over an agent: {error}");
            ENVIRONMENT
        }
    }
}

/// A message with its length before it.
pub fn framed(message: &impl Serialize) -> Vec<u8> {
    let text = postcard::to_stdvec(message).unwrap_or_default();
    let mut frame = u32::try_from(text.len()).unwrap_or(0).to_le_bytes().to_vec();
    frame.extend_from_slice(&text);
    frame
}

/// Takes the next whole message off the front of `bytes`. An error: this is no channel between agent and guardian.
pub fn unframe<T: for<'a> Deserialize<'a>>(bytes: &mut Vec<u8>) -> Result<Option<T>, String> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_MESSAGE {
        return Err(format!("a message of {length} bytes"));
    }
    let Some(text) = rest.get(..length) else {
        return Ok(None);
    };
    let message = postcard::from_bytes(text).map_err(|error| error.to_string())?;
    bytes.drain(..4 + length);
    Ok(Some(message))
}
