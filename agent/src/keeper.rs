//! Programs under a keeper: whatever a program starts, in whatever session or group, is killed with it, and "it has ended" means that
//! nothing of it is left.
//!
//! A keeper is a tiny process between its owner (the guardian, or the agent) and one program. It adopts everybody below it, kills them
//! all when it is told to, when its owner is gone, or when the lease of its role is about to end; and then it says that nobody is left.
//! Where the system allows it the program is in a [`cgroup`] of its own as well. Starting one waits for nothing: a program on a disk
//! that hangs holds up its keeper's child alone.

pub mod cgroup;
pub mod environment;
pub mod mark;
mod process;
pub mod program;
pub mod running;
pub mod sweep;

use baton_core::guardian::keeper::Rest;
use baton_core::guardian::page::RoleSlot;
use cgroup::Cgroup;
pub use process::keep_only;
use process::{EMPTY, ENDED, KILL, LEADER, LEAVE, NOT_STARTED, Plan, REPORT, STARTED, STUCK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use sweep::Stat;

/// What every keeper is called.
pub const NAME: &CStr = c"baton-keeper";
/// Where programs are looked for when the environment does not say.
const PATHS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is started, and how it is kept.
pub struct Start<'a, Word> {
    /// Program and arguments.
    pub command: &'a [Word],
    /// The whole environment: [`environment::for_child`].
    pub environment: Vec<CString>,
    /// Where its input comes from; `None`: there is none.
    pub input: Option<BorrowedFd<'a>>,
    /// Where its output and its errors go; `None`: where this process's go.
    pub output: Option<[BorrowedFd<'a>; 2]>,
    /// Where it lives, if the system has such a place.
    pub cgroup: Option<Cgroup>,
    /// Its lease, if it acts for a role, and how long before its end everything is killed.
    pub lease: Option<(&'a RoleSlot, Duration)>,
    /// What becomes of what it leaves behind.
    pub rest: Rest,
}

/// A program that runs under its keeper. When this is dropped, all of it is killed.
#[derive(Debug)]
pub struct Kept {
    /// The keeper, a child of this process; to be reaped by its owner.
    pub keeper: Pid,
    line: OwnedFd,
    cgroup: Option<Cgroup>,
}

/// What a keeper says, in this order; [`Report::Stuck`] at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The program runs as this process.
    Started(Pid),
    /// It could not be run.
    NotStarted(Errno),
    /// It has ended, as wait(2) has it; what it left is being killed, or stays.
    Ended(i32),
    /// Nothing of it is left; how long that took from the first SIGKILL on, if there was any.
    Empty(Option<Duration>),
    /// Some of it was killed long ago and is still there.
    Stuck,
}

/// Starts a program under a keeper; what comes of it is [heard](Kept::hear).
pub fn start<Word: AsRef<OsStr>>(start: Start<'_, Word>) -> io::Result<Kept> {
    let text = |text: &Word| {
        CString::new(text.as_ref().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let arguments: Vec<CString> = start.command.iter().map(text).collect::<Result<_, _>>()?;
    let program = start.command.first().ok_or(io::ErrorKind::InvalidInput)?;
    let paths = paths(program.as_ref(), &start.environment)?;
    let paths: Vec<&CStr> = paths.iter().map(CString::as_c_str).collect();
    let script = [c"/bin/sh", c""].into_iter();
    let script = script.chain(arguments.iter().skip(1).map(CString::as_c_str));
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let output = start.output.map(|output| output.map(|fd| fd.as_raw_fd()));
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (line, its) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let plan = Plan {
        paths: &paths,
        arguments: &process::pointers(arguments.iter().map(CString::as_c_str)),
        environment: &process::pointers(start.environment.iter().map(CString::as_c_str)),
        script: &mut process::pointers(script),
        streams: [
            Some(start.input.map_or(null.as_raw_fd(), |input| input.as_raw_fd())),
            output.map(|[out, _]| out),
            output.map(|[_, err]| err),
        ],
        line: its.as_raw_fd(),
        cgroup: start.cgroup.as_ref().map(|cgroup| cgroup.dir().as_raw_fd()),
        slot: start.lease.map(|(slot, _)| slot),
        lead: start.lease.map_or(Duration::ZERO, |(_, lead)| lead),
        rest: start.rest,
        mark: mark::mine(),
        files: crate::descriptors::given().map(|limit| libc::rlimit {
            rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
        }),
    };
    // SAFETY: everything in the plan lives until the end of this function, and the descriptors are open.
    let keeper = unsafe { process::fork(plan) }?;
    Ok(Kept {
        keeper,
        line,
        cgroup: start.cgroup,
    })
}

/// Where a program may be: a path is itself, a name is looked for as a shell does.
fn paths(program: &OsStr, environment: &[CString]) -> io::Result<Vec<CString>> {
    let path = |text: Vec<u8>| CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let program = program.as_bytes();
    if program.contains(&b'/') {
        return Ok(vec![path(program.to_owned())?]);
    }
    let dirs = environment
        .iter()
        .find_map(|variable| variable.to_str().ok()?.strip_prefix("PATH="));
    let dirs = dirs
        .unwrap_or(PATHS)
        .split(':')
        .map(|dir| if dir.is_empty() { "." } else { dir });
    dirs.map(|dir| path([dir.as_bytes(), b"/", program].concat()))
        .collect()
}

impl Kept {
    /// Sends its program a signal: to that process alone, or to its group.
    pub fn signal(&self, signal: i32, whole: bool) {
        if let Ok(signal @ 1..LEADER) = u8::try_from(signal) {
            self.tell(if whole { signal } else { LEADER + signal });
        }
    }

    /// Kills all of it.
    pub fn kill(&self) {
        self.tell(KILL);
    }

    /// Its program has ended: what that left stays, and nobody keeps it any more.
    pub fn leave(&self) {
        self.tell(LEAVE);
    }

    /// Has the keeper look at the lease again.
    pub fn look(&self) {
        self.tell(0);
    }

    fn tell(&self, order: u8) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(&self.line, &[order], flags); // a keeper that is gone has kept its word
    }

    /// The next report. `None`: not yet. An error: the keeper is gone.
    pub fn hear(&self) -> io::Result<Option<Report>> {
        self.hear_once(true)
    }

    fn hear_once(&self, again: bool) -> io::Result<Option<Report>> {
        let mut text = [0; REPORT];
        match rustix::net::recv(&self.line, &mut text, RecvFlags::DONTWAIT) {
            Ok((_, REPORT)) => Ok(Report::read(text)),
            Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            // A keeper that ended with an order unread: said once, before its last words.
            Err(Errno::CONNRESET) if again => self.hear_once(false),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Who is left, in words.
    pub fn left(&self) -> String {
        words(self.keeper, self.cgroup.as_ref())
    }

    /// In a process that was forked from its owner: this copy is closed, and nothing else.
    pub fn let_go(self) {
        std::mem::forget(self.cgroup); // its directory is the owner's to remove
    }

    /// Where it lives, if it has such a place.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }
}

/// Kills all below a keeper that is not this process's own, by all means that there are. One walk.
pub fn kill_below(keeper: Pid, cgroup: Option<&Cgroup>) {
    let _ = kill_process(keeper, process::KILL_SIGNAL); // it may be gone already
    if let Some(cgroup) = cgroup {
        cgroup::kill(cgroup.dir());
    }
    sweep::sweep(keeper, Signal::KILL, &[]);
}

/// A program that another process's keeper keeps: the guardian's, as the agent sees it.
#[derive(Debug)]
pub struct Foreign {
    keeper: Pid,
    /// So that its number's next owner is not taken for it.
    handle: OwnedFd,
    cgroup: Option<Cgroup>,
}

impl Foreign {
    /// The one whose first process this is, and what its cgroup is called. `None`: it has ended.
    pub fn of(leader: Pid, cgroup: &str) -> Option<Foreign> {
        let keeper = Pid::from_raw(Stat::of(leader)?.parent)?;
        let handle = pidfd_open(keeper, PidfdFlags::empty()).ok()?;
        // Its keeper lives as long as it does: the handle was opened in time.
        let still =
            Stat::of(leader)?.parent == keeper.as_raw_nonzero().get() && sweep::is_called(keeper, NAME);
        still.then(|| Foreign {
            keeper,
            handle,
            cgroup: cgroup::base().and_then(|base| base.existing(cgroup)),
        })
    }

    /// Kills all of it from here. One walk.
    pub fn kill(&self) {
        if !self.has_ended() {
            kill_below(self.keeper, self.cgroup.as_ref());
        } else if let Some(cgroup) = &self.cgroup {
            cgroup::kill(cgroup.dir());
        }
    }

    /// Whether nothing of it is left: its keeper has ended; or that is stopped, and nobody is below it.
    pub fn is_gone(&self) -> bool {
        let below = !self.has_ended() && (!sweep::is_stopped(self.keeper) || sweep::any_alive(self.keeper));
        !below
            && !self
                .cgroup
                .as_ref()
                .map(Cgroup::dir)
                .is_some_and(cgroup::populated)
    }

    /// Who is left, in words.
    pub fn left(&self) -> String {
        words(self.keeper, self.cgroup.as_ref())
    }

    fn has_ended(&self) -> bool {
        has_ended(&self.handle)
    }
}

/// Whether the process of a pidfd has ended.
pub fn has_ended(handle: &OwnedFd) -> bool {
    let mut fd = [PollFd::new(handle, PollFlags::IN)];
    poll(&mut fd, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

impl Drop for Foreign {
    fn drop(&mut self) {
        std::mem::forget(self.cgroup.take()); // its directory is the guardian's to remove
    }
}

fn words(keeper: Pid, cgroup: Option<&Cgroup>) -> String {
    const MOST: usize = 8;
    let mut left: Vec<String> = sweep::living(keeper, &[], MOST)
        .into_iter()
        .map(sweep::describe)
        .collect();
    if left.is_empty() {
        left = cgroup
            .into_iter()
            .flat_map(Cgroup::processes)
            .take(MOST)
            .collect();
    }
    left.join("; ")
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl AsRawFd for Kept {
    fn as_raw_fd(&self) -> RawFd {
        self.line.as_raw_fd()
    }
}

impl Report {
    fn read(text: [u8; REPORT]) -> Option<Report> {
        let (head, more) = text.split_first_chunk::<8>()?;
        let number = i32::from_le_bytes(*head.last_chunk()?);
        let more = u64::from_le_bytes(*more.first_chunk()?);
        Some(match head[0] {
            STARTED => Report::Started(Pid::from_raw(number)?),
            NOT_STARTED => Report::NotStarted(Errno::from_raw_os_error(number)),
            ENDED => Report::Ended(number),
            EMPTY => Report::Empty((more > 0).then(|| Duration::from_nanos(more))),
            STUCK => Report::Stuck,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
