//! The parent process: the dead man's handle (DESIGN §7). One thread, no async, no port, no configuration: what it needs to know it is
//! told by the agent, its child, over a pair of sockets, and reads from a page of memory that both share.
//!
//! - The agent dies: everything that it started is killed, the fence command of each role that it held is run, and only then does a
//!   death notice go out, which lets the next in line take over at once (V6). Then the agent is started again.
//! - The agent stands still: before the lease ends, the application is fenced and its process killed all the same.
//! - It is process 1 of a container as well: signals are passed on, orphans reaped.
//!
//! Nothing here waits for the agent, for a peer, or for whoever reads the log.

use baton_shared::clock::Mono;
use baton_shared::death::DeathNotice;
use baton_shared::id::{ClusterId, Epoch, NodeName, Owner, RoleName};
use baton_shared::seal::{Header, Seal};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Most roles (`config::roles`).
const SLOTS: usize = 16;
/// The first file descriptor that a service manager passes, and how many are looked at.
const FIRST_PASSED: i32 = 3;
const MAX_PASSED: i32 = 64;
/// Longest message between agent and parent, in bytes: a command line and its environment.
const MAX_MESSAGE: usize = 1 << 20;
/// Between two looks at processes that are to end.
const LOOK: Duration = Duration::from_millis(1);
/// How long killed processes may take to vanish before it is said aloud (stuck in the kernel).
const VANISH: Duration = Duration::from_secs(2);
/// A fence command that failed is run again after this, so many times in all.
const FENCE_AGAIN: Duration = Duration::from_secs(1);
const FENCE_TRIES: u32 = 3;
/// A death notice is repeated so many times, at most so far apart.
const NOTICES: u32 = 30;
/// An agent that dies again is started after this, twice as long each time, until one has lived for a while.
const RESTART: Duration = Duration::from_millis(100);
const LONGEST_RESTART: Duration = Duration::from_secs(10);
const LIVED: Duration = Duration::from_secs(60);
/// Exit status when the agent cannot be started or watched at all.
const ENVIRONMENT: u8 = 1;

/// What agent and parent share for one role; written by the agent alone, but for the end of a fence.
#[derive(Debug, Default)]
pub struct Slot {
    /// Until when the application may act, in nanoseconds of [`Mono`]; 0: it does not.
    until: AtomicU64,
    epoch: AtomicU64,
    /// The agent is stopping the application.
    stopping: AtomicBool,
    /// How many promotions have begun, and how many have ended, however.
    begun: AtomicU64,
    over: AtomicU64,
    /// How many had begun when a fence last succeeded and none was under way; written by the parent.
    fenced: AtomicU64,
    /// An event that wakes the parent; 0: none.
    bell: AtomicI32,
}

impl Slot {
    /// The application may act until then.
    pub fn lend(&self, until: Option<Mono>) {
        let before = self.until.swap(until.map_or(0, |at| at.0), SeqCst);
        // A lease that is renewed only ends later.
        if before == 0 && until.is_some() {
            self.ring();
        }
    }

    /// The parent sleeps until what it knows of is due, and of this it does not know.
    fn ring(&self) {
        let bell = self.bell.load(SeqCst);
        if bell > 0 {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes of an event that this process inherited and that does not block; a full one rings already.
            unsafe { libc::write(bell, one.as_ptr().cast(), one.len()) };
        }
    }

    /// An agent begins: no promotion is under way.
    pub fn begin_anew(&self) {
        self.over.store(self.begun.load(SeqCst), SeqCst);
    }

    /// It is promoted at this epoch, until [`promotion_over`](Slot::promotion_over).
    pub fn promoted(&self, epoch: Epoch) {
        self.begun.fetch_add(1, SeqCst);
        self.epoch.fetch_max(epoch.0, SeqCst);
        self.stopping(false);
    }

    /// A promotion has ended, well or not.
    pub fn promotion_over(&self) {
        self.over.fetch_add(1, SeqCst);
    }

    /// Whether a fence has succeeded since whatever may have started the application: it acts no more, whatever its demote says (H4).
    pub fn is_fenced(&self) -> bool {
        let begun = self.begun.load(SeqCst);
        begun > 0 && self.fenced.load(SeqCst) == begun
    }

    /// Promotions so far, unless one is under way: that may start the application after a fence.
    fn quiet(&self) -> Option<u64> {
        let (over, begun) = (self.over.load(SeqCst), self.begun.load(SeqCst));
        (over == begun).then_some(begun)
    }

    /// The agent stops the application, or does so no more.
    pub fn stopping(&self, yes: bool) {
        // Whom nobody stops any more is to be fenced sooner than whom the agent stops.
        if self.stopping.swap(yes, SeqCst) && !yes {
            self.ring();
        }
    }

    fn lent(&self) -> Option<Mono> {
        Some(Mono(self.until.load(SeqCst))).filter(|at| *at > Mono::ZERO)
    }
}

/// The page of memory that both share: a slot for each role, in the roles' order.
#[derive(Debug, Default)]
pub struct Board([Slot; SLOTS]);

impl Board {
    /// In memory that stays shared after a fork; this event rings when something is lent.
    fn shared(bell: RawFd) -> io::Result<&'static Board> {
        // SAFETY: a fresh anonymous mapping of at least this size, page-aligned, zeroed (which is a valid Board: all atomics), and
        // never unmapped.
        unsafe {
            let page = libc::mmap(
                std::ptr::null_mut(),
                size_of::<Board>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if page == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let board: &Board = &*page.cast();
            for slot in &board.0 {
                slot.bell.store(bell, SeqCst);
            }
            Ok(board)
        }
    }

    /// The slot of the role at this place in the configuration.
    pub fn slot(&self, place: usize) -> Option<&Slot> {
        self.0.get(place)
    }

    /// Whether the application at this place may still act since a run of the agent that ended without a word.
    pub fn left_over(&self, place: usize) -> bool {
        self.slot(place).is_some_and(|slot| slot.lent().is_some())
    }
}

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// What to do if the agent dies or stands still.
    Will(Box<Will>),
    /// Start the application of a role, unless it runs.
    Start {
        /// The role's place.
        slot: usize,
        /// For the answer.
        epoch: Epoch,
        /// Program and arguments.
        command: Vec<String>,
        /// Added to the environment.
        env: Vec<(String, String)>,
        /// It runs whether its node is active or not.
        warm: bool,
    },
    /// Stop it: this signal, and after `grace` SIGKILL to its whole group; sooner if the lease ends. Answered by
    /// [`Answer::Ended`], also when it does not run.
    Stop {
        /// The role's place.
        slot: usize,
        /// The first signal.
        signal: i32,
        /// Until SIGKILL.
        grace: Duration,
    },
    /// Send it a signal.
    Signal {
        /// The role's place.
        slot: usize,
        /// Which.
        signal: i32,
    },
}

/// What the parent tells the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A start was tried; the process id, or why not.
    Started {
        /// The role's place.
        slot: usize,
        /// Of the request.
        epoch: Epoch,
        /// What came of it.
        result: Result<u32, String>,
    },
    /// The application ended, with all of its process group.
    Ended {
        /// The role's place.
        slot: usize,
        /// How, in words.
        how: String,
    },
    /// The agent stood still for so long that the application was stopped without it.
    Fenced {
        /// The role's place.
        slot: usize,
    },
}

/// What to do if the agent dies or stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The cluster.
    pub cluster: ClusterId,
    /// This run of this node.
    pub owner: Owner,
    /// The cluster's window.
    pub window: Duration,
    /// Who is told.
    pub heirs: Vec<Heir>,
    /// What is stopped.
    pub roles: Vec<Last>,
    /// Start the agent again.
    pub restart: bool,
    /// A stop in order takes no longer.
    pub stop: Duration,
}

/// One node that is told of the agent's death.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heir {
    /// Its name.
    pub name: NodeName,
    /// The key of its notices.
    pub key: [u8; 32],
    /// The network's place, this node's address on it, and where the other one is.
    pub places: Vec<(u8, IpAddr, SocketAddr)>,
}

impl std::fmt::Debug for Heir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Heir({}, {:?})", self.name, self.places)
    }
}

/// How the application of one role is stopped for sure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The role.
    pub role: RoleName,
    /// Before the end of the lease: when to run `command`, and when to kill.
    pub fence: Duration,
    /// See `fence`.
    pub kill: Duration,
    /// The last resort, and how long it may take.
    pub command: Option<(Vec<String>, Duration)>,
    /// It is another command than the agent's own demote: to be run also while the agent is at that.
    pub harder: bool,
    /// There is something to stop, and no way to do so from here.
    pub unproven: bool,
    /// How a process of its own is asked to end, and how long it may take.
    pub stop: (i32, Duration),
    /// For its environment.
    pub env: Vec<(String, String)>,
    /// If it fails for good, the death is announced all the same.
    pub release: bool,
}

impl Last {
    /// How long before the end of the lease this process steps in, while the agent is stopping the application or is not.
    fn lead(&self, stopping: bool) -> Duration {
        if stopping && !self.harder {
            self.kill
        } else {
            self.fence
        }
    }
}

/// The agent's end of the line.
#[derive(Debug)]
pub struct Line {
    /// What is shared.
    pub board: &'static Board,
    /// Requests go out, answers come in, each behind its length (four bytes, little-endian). It ends with the parent.
    pub stream: UnixStream,
}

/// Runs `agent` as a child process, and watches it to its end. Gives the exit status. The calling process must have one thread.
pub fn run(agent: impl Fn(Line) -> u8) -> u8 {
    match Parent::new() {
        Ok(mut parent) => parent.watch(&agent),
        Err(error) => {
            say(&format!("cannot watch over an agent: {error}"));
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

/// Takes the next whole message off the front of `bytes`. An error: this is no line between agent and parent.
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

/// An application that runs.
#[derive(Debug)]
struct Managed {
    /// Its leader, and its process group's id.
    id: Pid,
    warm: bool,
    /// How the leader ended; what is left of its group is being killed.
    ended: Option<String>,
    /// SIGKILL is due then.
    kill_at: Option<Mono>,
}

impl Managed {
    /// Kills the whole group, if its leader is not reaped yet: after that the group was killed, and its number may be another's.
    fn kill(&self) {
        if self.ended.is_none() {
            let _ = kill_process_group(self.id, Signal::KILL); // it may be dead already
        }
    }

    fn gone(&self) -> bool {
        // The dead that nobody reaps do not count: their own parent may have left the group.
        self.ended.is_some() && !crate::group::lives(self.id)
    }
}

/// A fence command that runs.
#[derive(Debug)]
struct Fencing {
    id: Pid,
    /// Promotions when it began, if none was under way.
    since: Option<u64>,
    /// It is killed then; and given up some time later, if that does not end it.
    until: Mono,
    killed: bool,
}

/// The fence of one role after the agent's death.
struct Fence {
    last: Last,
    tries: u32,
    /// Not before.
    at: Mono,
}

/// A death that is being announced.
struct Announcement {
    datagrams: Vec<(UdpSocket, Seal, Header, Vec<u8>)>,
    pause: Duration,
    at: Mono,
    left: u32,
}

/// What became of a process.
enum Fate {
    Exited(i32),
    Killed(i32),
    /// It was killed, and does not end.
    Stuck,
}

impl Fate {
    /// As `wait` gave it.
    fn of(status: i32) -> Option<Fate> {
        if libc::WIFEXITED(status) {
            Some(Fate::Exited(libc::WEXITSTATUS(status)))
        } else if libc::WIFSIGNALED(status) {
            Some(Fate::Killed(libc::WTERMSIG(status)))
        } else {
            None
        }
    }

    fn words(&self) -> String {
        match self {
            Fate::Exited(status) => format!("exited with status {status}"),
            Fate::Killed(signal) => format!("was killed by signal {signal}{}", signal_name(*signal)),
            Fate::Stuck => "was killed and does not end".to_owned(),
        }
    }

    fn status(&self) -> u8 {
        match self {
            Fate::Exited(status) => u8::try_from(*status).unwrap_or(ENVIRONMENT),
            Fate::Killed(signal) => u8::try_from(128 + signal).unwrap_or(ENVIRONMENT),
            Fate::Stuck => ENVIRONMENT,
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGABRT => " (SIGABRT, a panic)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGINT => " (SIGINT)",
        _ => "",
    }
}

/// The parent.
struct Parent {
    board: &'static Board,
    bell: RawFd,
    signals: RawFd,
    /// It counts suspend, as [`Mono`] does.
    timer: RawFd,
    agent: Option<Pid>,
    line: Option<UnixStream>,
    heard: Vec<u8>,
    will: Option<Box<Will>>,
    managed: BTreeMap<usize, Managed>,
    fencing: BTreeMap<usize, Fencing>,
    /// How the last fence commands ended: well or not.
    fences: BTreeMap<usize, bool>,
    /// The lease's end for which a slot was fenced.
    fenced: BTreeMap<usize, Mono>,
    announcement: Option<Announcement>,
    started: Mono,
    restart_at: Option<Mono>,
    pause: Duration,
    /// It was asked to end.
    ending: bool,
    /// An agent that has not ended by then is killed.
    kill_agent_at: Option<Mono>,
}

impl Parent {
    fn new() -> io::Result<Parent> {
        keep_sockets();
        // SAFETY: plain system calls; `set` is initialised by sigemptyset before it is used.
        let signals = unsafe {
            // Orphans of the agent become children of this process: they can be found, killed and reaped.
            if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::prctl(libc::PR_SET_NAME, c"baton-parent".as_ptr(), 0, 0, 0);
            // A terminal that stops its jobs would stop this one, and the agent, but not the application. And children that are ignored
            // could not be waited for.
            for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            // What it starts gets the ordinary priority again.
            crate::control::priority::raise();
            let set = signal_set();
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        // SAFETY: plain system calls.
        let (bell, timer) = unsafe {
            (
                libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK),
                libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK),
            )
        };
        if signals < 0 || bell < 0 || timer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Parent {
            board: Board::shared(bell)?,
            bell,
            signals,
            timer,
            agent: None,
            line: None,
            heard: Vec::new(),
            will: None,
            managed: BTreeMap::new(),
            fencing: BTreeMap::new(),
            fences: BTreeMap::new(),
            fenced: BTreeMap::new(),
            announcement: None,
            started: Mono::ZERO,
            restart_at: None,
            pause: RESTART,
            ending: false,
            kill_agent_at: None,
        })
    }

    fn watch(&mut self, agent: &impl Fn(Line) -> u8) -> u8 {
        self.restart_at = Some(Mono::ZERO);
        loop {
            let now = Mono::now();
            if self.restart_at.is_some_and(|at| now >= at) {
                self.start(agent, now);
            }
            self.sleep(now);
            self.take_signals();
            self.listen();
            if let Some(fate) = self.reap() {
                // Told to stop before the agent could hear of it: nothing was begun.
                let unheard = self.ending
                    && self.will.is_none()
                    && matches!(fate, Fate::Killed(libc::SIGTERM | libc::SIGINT))
                    && !(0..SLOTS).any(|place| self.board.left_over(place));
                if self.agent_ended(&fate) || self.ending {
                    self.farewell();
                    return if unheard { 0 } else { fate.status() };
                }
            } else if self.ending && self.agent.is_none() {
                self.farewell();
                return ENVIRONMENT;
            }
            self.dead_man(Mono::now());
            self.announce(Mono::now());
        }
    }

    /// Forks. The child never returns from here.
    fn start(&mut self, agent: &impl Fn(Line) -> u8, now: Mono) {
        self.restart_at = None;
        let pair = UnixStream::pair();
        let parent = rustix::process::getpid();
        let id = match &pair {
            // SAFETY: this process has one thread, so the child may do anything that a fresh process may.
            Ok(_) => unsafe { libc::fork() },
            Err(_) => -1,
        };
        let (Ok((mine, its)), 0..) = (pair, id) else {
            say(&format!(
                "cannot start the agent: {}; trying again",
                io::Error::last_os_error()
            ));
            return self.start_later(now);
        };
        if id == 0 {
            drop(mine);
            // SAFETY: this is the child: the descriptor is its own copy, and signals go back to what they do by themselves.
            unsafe {
                libc::close(self.signals);
                let set = signal_set();
                libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
                libc::prctl(libc::PR_SET_NAME, c"baton".as_ptr(), 0, 0, 0);
            }
            self.announcement = None; // its sockets are the parent's
            let orphan = rustix::process::getppid() != Some(parent);
            let status = match its.set_nonblocking(true) {
                Ok(()) if !orphan => agent(Line {
                    board: self.board,
                    stream: its,
                }),
                _ => ENVIRONMENT,
            };
            std::process::exit(status.into());
        }
        self.agent = Pid::from_raw(id);
        self.line = mine.set_nonblocking(true).is_ok().then_some(mine);
        self.heard.clear();
        self.will = None; // it was another boot's
        self.started = now;
    }

    fn start_later(&mut self, now: Mono) {
        if now.since(self.started) > LIVED && self.started > Mono::ZERO {
            self.pause = RESTART;
        }
        self.restart_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_RESTART);
    }

    /// Until a signal, a word of the agent, or the next thing that is due.
    fn sleep(&self, now: Mono) {
        let due = self.due(now).0.max(1); // 0 would disarm the timer
        // SAFETY: all-zero is a valid value of this plain structure.
        let mut when: libc::itimerspec = unsafe { std::mem::zeroed() };
        when.it_value.tv_sec = (due / 1_000_000_000) as libc::time_t;
        when.it_value.tv_nsec = (due % 1_000_000_000) as libc::c_long;
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut rung = 0u64;
        let mut fds = [
            poll(self.signals),
            poll(self.line.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
            poll(self.bell),
            poll(self.timer),
        ];
        // SAFETY: four valid entries; a negative descriptor is skipped; `when` outlives the call. The event is eight bytes long, and
        // nothing is lost if it has not rung.
        unsafe {
            let set = libc::timerfd_settime(
                self.timer,
                libc::TFD_TIMER_ABSTIME,
                &raw const when,
                std::ptr::null_mut(),
            );
            // A timer that cannot be set is made up for by looking often.
            let wait = if set == 0 {
                -1
            } else {
                LOOK.as_millis() as libc::c_int
            };
            libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, wait);
            libc::read(self.bell, (&raw mut rung).cast(), size_of_val(&rung));
        }
    }

    fn due(&self, now: Mono) -> Mono {
        let hour = now + Duration::from_secs(3600);
        let mut due = self.restart_at.unwrap_or(hour).min(hour);
        due = due.min(self.kill_agent_at.unwrap_or(hour));
        for managed in self.managed.values() {
            due = due.min(managed.kill_at.unwrap_or(hour));
            if managed.ended.is_some() {
                due = due.min(now + LOOK);
            }
        }
        for fencing in self.fencing.values() {
            due = due.min(fencing.until);
        }
        if let Some(announcement) = &self.announcement {
            due = due.min(announcement.at);
        }
        if self.agent.is_some() {
            for (place, last) in self.roles() {
                if let Some(until) = self.board.slot(place).and_then(Slot::lent)
                    && self.fenced.get(&place) != Some(&until)
                {
                    due = due.min(until - last.lead(self.board.0[place].stopping.load(SeqCst)));
                }
            }
        }
        due.max(now)
    }

    fn roles(&self) -> impl Iterator<Item = (usize, &Last)> {
        self.will
            .iter()
            .flat_map(|will| will.roles.iter().enumerate().take(SLOTS))
    }

    /// Signals are the agent's business; what it does not live to hear ends this process.
    fn take_signals(&mut self) {
        loop {
            // SAFETY: all-zero is a valid value of this plain structure.
            let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            let size = size_of::<libc::signalfd_siginfo>();
            // SAFETY: `info` is as long as is said, and outlives the call.
            let length = unsafe { libc::read(self.signals, (&raw mut info).cast(), size) };
            if length <= 0 {
                return;
            }
            let signal = info.ssi_signo as i32;
            if matches!(signal, libc::SIGCHLD | libc::SIGUSR1 | libc::SIGUSR2) {
                continue; // the last two mean nothing here, and would end the agent
            }
            let ends = matches!(
                signal,
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGABRT
            );
            // A service manager whose watchdog ran out: the agent hangs, and would not hear it.
            let signal = if signal == libc::SIGABRT {
                libc::SIGKILL
            } else {
                signal
            };
            match self.agent {
                Some(agent) => {
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        let _ = kill_process(agent, signal); // it may be gone: then its end is the next thing heard
                    }
                }
                None => self.ending |= ends,
            }
            if ends {
                // An agent that dies of it, or after it, is not started again; one that hangs is killed.
                self.ending = true;
                let limit = self.will.as_ref().map_or(VANISH, |will| will.stop);
                self.kill_agent_at.get_or_insert(Mono::now() + limit);
            }
        }
    }

    /// Takes what the agent asks for.
    fn listen(&mut self) {
        let mut chunk = [0; 8192];
        while let Some(line) = &mut self.line {
            match line.read(&mut chunk) {
                Ok(0) => self.line = None, // it is ending
                Ok(length) => self.heard.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.line = None,
            }
            loop {
                match unframe(&mut self.heard) {
                    Ok(Some(request)) => self.take(request),
                    Ok(None) => break,
                    Err(error) => {
                        say(&format!(
                            "the agent is not understood ({error}); it is not listened to any more"
                        ));
                        self.line = None;
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Will(will) => self.will = Some(will),
            Request::Start {
                slot,
                epoch,
                command,
                env,
                warm,
            } => {
                let result = self.start_managed(slot, &command, &env, warm && epoch == Epoch(0), warm);
                self.answer(&Answer::Started { slot, epoch, result });
            }
            Request::Stop { slot, signal, grace } => match self.managed.get_mut(&slot) {
                None => {
                    let how = "it did not run".to_owned();
                    self.answer(&Answer::Ended { slot, how });
                }
                Some(managed) => {
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        let _ = kill_process_group(managed.id, signal);
                    }
                    managed.kill_at = Some(Mono::now() + grace);
                }
            },
            Request::Signal { slot, signal } => {
                if let (Some(managed), Some(signal)) =
                    (self.managed.get(&slot), Signal::from_named_raw(signal))
                {
                    let _ = kill_process(managed.id, signal);
                }
            }
        }
    }

    /// Never waits: an agent that stands still must not hold this process up.
    fn answer(&mut self, answer: &Answer) {
        if let Some(line) = &mut self.line
            && line.write_all(&framed(answer)).is_err()
        {
            self.line = None; // half an answer is none; an agent that cannot be spoken to notices the end of the line
        }
    }

    fn start_managed(
        &mut self,
        slot: usize,
        command: &[String],
        env: &[(String, String)],
        idle: bool,
        warm: bool,
    ) -> Result<u32, String> {
        if let Some(managed) = self.managed.get(&slot) {
            return match managed.ended {
                None => Ok(managed.id.as_raw_nonzero().get().unsigned_abs()),
                Some(_) => Err("what is left of its last run has not ended yet".into()),
            };
        }
        let kill = self
            .roles()
            .nth(slot)
            .map_or(Duration::ZERO, |(_, last)| last.kill);
        let lent = self.board.slot(slot).and_then(Slot::lent);
        let fenced = lent.is_some() && self.fenced.get(&slot) == lent.as_ref();
        if !idle && (fenced || lent.is_none_or(|until| Mono::now() + kill >= until)) {
            return Err("the lease is over".into());
        }
        let id = spawn(command, env)?;
        self.managed.insert(
            slot,
            Managed {
                id,
                warm,
                ended: None,
                kill_at: None,
            },
        );
        Ok(id.as_raw_nonzero().get().unsigned_abs())
    }

    /// Reaps whoever has ended. Gives the agent's fate if it was among them.
    fn reap(&mut self) -> Option<Fate> {
        let mut agent = None;
        while let Some(id) = ended() {
            if let Some(managed) = self.managed.values().find(|managed| managed.id == id) {
                managed.kill(); // a group without its leader is nobody's
            }
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let reaped = unsafe { libc::waitpid(id.as_raw_nonzero().get(), &raw mut status, libc::WNOHANG) };
            let Some(fate) = Fate::of(status).filter(|_| reaped > 0) else {
                break;
            };
            if self.agent == Some(id) {
                (self.agent, self.line) = (None, None);
                agent = Some(fate);
                continue;
            }
            if let Some(managed) = self.managed.values_mut().find(|managed| managed.id == id) {
                managed.ended = Some(fate.words());
                managed.kill_at = None;
            }
            let of = self.fencing.iter().find(|(_, f)| f.id == id);
            if let Some((slot, since)) = of.map(|(slot, f)| (*slot, f.since)) {
                self.fencing.remove(&slot);
                self.fence_ended(slot, since, &fate);
            }
        }
        self.bury();
        agent
    }

    /// Says of those who have ended, with their whole group, that they have.
    fn bury(&mut self) {
        let now = Mono::now();
        for managed in self.managed.values_mut() {
            if managed.kill_at.is_some_and(|at| now >= at) {
                managed.kill();
                managed.kill_at = None;
            }
        }
        let gone: Vec<usize> = self
            .managed
            .iter()
            .filter(|(_, m)| m.gone())
            .map(|(slot, _)| *slot)
            .collect();
        for slot in gone {
            let how = self.managed.remove(&slot).and_then(|managed| managed.ended);
            let how = how.unwrap_or_default();
            self.answer(&Answer::Ended { slot, how });
        }
    }

    /// The agent hears of a fence when it has ended, not when it begins: what it promoted meanwhile was stopped too.
    fn fence_ended(&mut self, slot: usize, since: Option<u64>, fate: &Fate) {
        let well = matches!(fate, Fate::Exited(0));
        // A process that runs was killed by nobody, or started since.
        if let (true, Some(since), false) = (well, since, self.managed.contains_key(&slot)) {
            self.board.0[slot].fenced.store(since, SeqCst);
        }
        if !well {
            let role = self.roles().nth(slot).map(|(_, last)| last.role.to_string());
            let role = role.unwrap_or_default();
            say(&format!("role {role}: the fence command {}", fate.words()));
        }
        self.fences.insert(slot, well);
        self.answer(&Answer::Fenced { slot });
    }

    fn kill_late_fences(&mut self, now: Mono) {
        let mut given_up = Vec::new();
        for (slot, fencing) in self
            .fencing
            .iter_mut()
            .filter(|(_, fencing)| now >= fencing.until)
        {
            let _ = kill_process_group(fencing.id, Signal::KILL); // it may be gone already
            fencing.until = now + VANISH;
            if std::mem::replace(&mut fencing.killed, true) {
                given_up.push(*slot);
            }
        }
        for slot in given_up {
            self.fencing.remove(&slot);
            self.fence_ended(slot, None, &Fate::Stuck);
        }
    }

    /// What the agent itself started (actions, checks), with their process groups.
    fn kill_agents_children(&self) {
        let Some(agent) = self.agent else { return };
        let agent = agent.as_raw_nonzero();
        let tasks = std::fs::read_dir(format!("/proc/{agent}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for id in list
                .split_whitespace()
                .filter_map(|id| id.parse().ok().and_then(Pid::from_raw))
            {
                let _ = kill_process_group(id, Signal::KILL);
                let _ = kill_process(id, Signal::KILL); // both may be gone already
            }
        }
    }

    /// Begins a fence command.
    fn begin_fence(&mut self, place: usize, last: &Last, cause: &str) -> Result<(), String> {
        let Some((command, limit)) = &last.command else {
            return Ok(());
        };
        self.fences.remove(&place);
        let since = self.board.slot(place).and_then(Slot::quiet);
        let id = spawn(command, &self.environment(place, last, cause))?;
        let fencing = Fencing {
            id,
            since,
            until: Mono::now() + *limit,
            killed: false,
        };
        self.fencing.insert(place, fencing);
        Ok(())
    }

    /// The dead man's handle: the lease of a role is about to end, and its application may still act.
    fn dead_man(&mut self, now: Mono) {
        self.kill_late_fences(now);
        let Some(agent) = self.agent else { return };
        if self.kill_agent_at.is_some_and(|at| now >= at) {
            self.kill_agent_at = None;
            say("the agent was asked to end and does not: it is killed");
            let _ = kill_process(agent, Signal::KILL); // it may be gone already
        }
        let due = |(place, last): (usize, &Last)| {
            let slot = self.board.slot(place)?;
            let until = slot.lent()?;
            let stopping = slot.stopping.load(SeqCst);
            let at = until - last.lead(stopping);
            let new = self.fenced.get(&place) != Some(&until);
            (new && now >= at).then(|| (place, until, stopping, last.clone()))
        };
        let due: Vec<_> = self.roles().filter_map(due).collect();
        for (place, until, stopping, last) in due {
            self.fenced.insert(place, until);
            let Last { role, command, .. } = &last;
            let killed = self.managed.get(&place).map(Managed::kill).is_some();
            let command = command.as_ref().filter(|_| !stopping || last.harder);
            if stopping && !killed && command.is_none() {
                continue; // the agent is at it, and there is nothing harder to do
            }
            say(&format!(
                "role {role}: the lease is about to end and the agent {}; the application is {}",
                if stopping {
                    "has not stopped the application yet"
                } else {
                    "stands still"
                },
                if killed { "killed" } else { "stopped without it" },
            ));
            let cause = match stopping {
                true => "the lease is about to end, and the agent has not stopped the application yet",
                false => "the agent stands still",
            };
            if !stopping {
                // A promotion under way must not undo what follows.
                self.kill_agents_children();
            }
            if command.is_none() {
                self.answer(&Answer::Fenced { slot: place });
            } else if !self.fencing.contains_key(&place)
                && let Err(error) = self.begin_fence(place, &last, cause)
            {
                say(&format!("role {role}: the fence command does not run: {error}"));
                self.answer(&Answer::Fenced { slot: place });
            }
        }
    }

    fn environment(&self, place: usize, last: &Last, cause: &str) -> Vec<(String, String)> {
        let epoch = self.board.slot(place).map_or(0, |slot| slot.epoch.load(SeqCst));
        let mut env = last.env.clone();
        env.push(("BATON_EPOCH".into(), epoch.to_string()));
        env.push(("BATON_CAUSE".into(), cause.into()));
        env
    }

    /// Fences, tells the others, and sees to what comes next. True: this process ends too.
    fn agent_ended(&mut self, fate: &Fate) -> bool {
        if matches!(fate, Fate::Exited(0)) {
            self.stop_managed();
            return true;
        }
        let why = format!("its agent {}", fate.words());
        // An exit before it did anything has said why itself.
        let early = self.will.is_none() && (self.ending || matches!(fate, Fate::Exited(_)));
        if !early {
            say(&format!("{why}; its application is stopped"));
        }
        if self.fence(&why) {
            self.tell(&why);
        }
        // An exit is a word of its own, about configuration or environment: another start would end the same way.
        let again = matches!(fate, Fate::Killed(_)) && self.will.as_ref().is_none_or(|will| will.restart);
        if again && !self.ending {
            self.start_later(Mono::now());
        }
        !again
    }

    /// Stops all that the dead agent started, for sure (H4, V6). False: it cannot be said that the application has stopped.
    fn fence(&mut self, why: &str) -> bool {
        // Only what ends from here on says anything of this death.
        self.fences.clear();
        let lent: Vec<usize> = (0..SLOTS).filter(|place| self.board.left_over(*place)).collect();
        let keeps = |managed: &Managed| managed.warm && lent.is_empty() && !self.ending;
        let kept: Vec<Pid> = self.managed.values().filter(|m| keeps(m)).map(|m| m.id).collect();
        self.kill_managed(|managed| !kept.contains(&managed.id));
        // What was under way before the agent died may end: beginning anew could outlast the lease.
        let under_way = self.fencing.values().map(|fencing| fencing.id);
        let spared: Vec<Pid> = kept.iter().copied().chain(under_way).collect();
        // A process that does not die must not hold up the fences until the lease is over.
        let due = |(place, last): (usize, &Last)| Some(self.board.slot(place)?.lent()? - last.fence);
        let fence_at = self.roles().filter_map(due).min().unwrap_or(Mono::MAX);
        let cleared = self.kill_children(&kept, &spared, fence_at);
        let roles: Vec<(usize, Last)> = self.roles().map(|(place, last)| (place, last.clone())).collect();
        let held = roles.into_iter().filter(|(place, _)| lent.contains(place));
        let fence = |last| Fence {
            last,
            tries: 0,
            at: Mono::ZERO,
        };
        let mut fences: BTreeMap<usize, Fence> = held.map(|(place, last)| (place, fence(last))).collect();
        let mut all = cleared;
        // All at once: the lease of the last must not end while the first is tried again.
        while !fences.is_empty() {
            self.reap();
            let now = Mono::now();
            self.kill_late_fences(now);
            let places: Vec<usize> = fences.keys().copied().collect();
            for place in places {
                let ended = fences
                    .get_mut(&place)
                    .and_then(|fence| self.turn_fence(place, fence, why, now));
                if let Some(well) = ended {
                    fences.remove(&place);
                    all &= well;
                    if well && cleared {
                        let slot = &self.board.0[place];
                        slot.lend(None);
                        // What promoted it is dead, too.
                        slot.fenced.store(slot.begun.load(SeqCst), SeqCst);
                    }
                }
            }
            std::thread::sleep(LOOK);
        }
        // What could not be fenced is the next agent's to stop: it demotes first.
        for place in lent {
            if let Some(until) = self.board.0[place].lent() {
                self.fenced.insert(place, until);
            }
        }
        all
    }

    /// Runs the fence command of a role until it succeeds, a few times at most. `None`: not yet.
    fn turn_fence(&mut self, place: usize, fence: &mut Fence, why: &str, now: Mono) -> Option<bool> {
        if fence.last.command.is_none() {
            if fence.last.unproven {
                say(&format!(
                    "role {}: nothing here can stop the application without the agent, so nobody is told; add actions.fence",
                    fence.last.role
                ));
            }
            return Some(!fence.last.unproven);
        }
        let mut ended = self.fences.remove(&place);
        let due = ended.is_none() && !self.fencing.contains_key(&place) && now >= fence.at;
        if due && let Err(error) = self.begin_fence(place, &fence.last, why) {
            say(&format!(
                "role {}: the fence command does not run: {error}",
                fence.last.role
            ));
            ended = Some(false);
        }
        match ended? {
            true => Some(true),
            false if fence.tries + 1 < FENCE_TRIES => {
                fence.tries += 1;
                fence.at = now + FENCE_AGAIN;
                None
            }
            false if fence.last.release => Some(true),
            false => {
                say(&format!(
                    "role {}: the application could not be fenced, so nobody is told: others take over when the lease has ended",
                    fence.last.role
                ));
                Some(false)
            }
        }
    }

    /// In order: what still runs (a warm process) is asked first.
    fn stop_managed(&mut self) {
        let mut limit = Mono::now();
        for (slot, managed) in &self.managed {
            let (signal, grace) = self
                .roles()
                .nth(*slot)
                .map_or((libc::SIGTERM, VANISH), |(_, last)| last.stop);
            if let Some(signal) = Signal::from_named_raw(signal) {
                let _ = kill_process_group(managed.id, signal); // it may be gone already
            }
            limit = limit.max(Mono::now() + grace);
        }
        self.await_managed(limit);
    }

    /// Until none of them is left, at most until then.
    fn await_managed(&mut self, limit: Mono) {
        while !self.managed.is_empty() && Mono::now() < limit {
            self.reap();
            std::thread::sleep(LOOK);
        }
    }

    fn kill_managed(&self, which: impl Fn(&Managed) -> bool) {
        for managed in self.managed.values().filter(|managed| which(managed)) {
            managed.kill();
        }
    }

    /// Kills every child but the spared ones, and theirs that come to light when their own parents die, until none is left.
    fn kill_children(&mut self, kept: &[Pid], spared: &[Pid], fence_at: Mono) -> bool {
        let now = Mono::now();
        let limit = (now + VANISH).min(fence_at.max(now + LOOK * 20));
        loop {
            self.reap();
            let Some(all) = children() else {
                say("/proc cannot be read, so nobody is told that the application has stopped");
                return false;
            };
            let left: Vec<Pid> = all.into_iter().filter(|id| !spared.contains(id)).collect();
            if left.is_empty() && self.managed.values().all(|managed| kept.contains(&managed.id)) {
                return true;
            }
            if Mono::now() > limit {
                say(&format!(
                    "processes {left:?} cannot be killed; nobody is told that the application has stopped"
                ));
                return false;
            }
            for id in left {
                let _ = kill_process(id, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Begins to tell the others that this boot is gone.
    fn tell(&mut self, why: &str) {
        let Some(will) = &self.will else { return };
        let mut datagrams = Vec::new();
        for heir in &will.heirs {
            let notice = DeathNotice {
                cluster: will.cluster,
                to: heir.name.clone(),
                why: why.to_owned(),
            };
            for (network, from, to) in &heir.places {
                let Ok(socket) = UdpSocket::bind((*from, 0)) else {
                    continue; // that network is down
                };
                let _ = socket.set_nonblocking(true);
                // Nobody else is heard on it.
                if socket.connect(*to).is_err() {
                    continue;
                }
                let header = Header {
                    sender: will.owner.node,
                    boot: will.owner.boot,
                    network: *network,
                    seq: 0,
                };
                datagrams.push((socket, Seal::of_notices(&heir.key), header, notice.encode()));
            }
        }
        self.announcement = Some(Announcement {
            datagrams,
            pause: (will.window / 10).max(Duration::from_millis(3)),
            at: Mono::ZERO,
            left: NOTICES,
        });
        self.announce(Mono::now());
    }

    fn announce(&mut self, now: Mono) {
        let Some(announcement) = &mut self.announcement else {
            return;
        };
        if now < announcement.at {
            return;
        }
        for (socket, seal, header, text) in &mut announcement.datagrams {
            let _ = socket.send(&seal.seal(*header, text)); // it is repeated
            header.seq += 1;
        }
        announcement.at = now + announcement.pause;
        announcement.left -= 1;
        if announcement.left == 0 {
            self.announcement = None;
        }
    }

    /// Before the end of this process: nobody is left, and a death is told a few more times, quickly.
    fn farewell(&mut self) {
        self.kill_managed(|_| true);
        self.await_managed(Mono::now() + VANISH);
        for _ in 0..5 {
            if self.announcement.is_some() {
                std::thread::sleep(LOOK * 4);
                self.announce(Mono::MAX);
            }
        }
    }
}

/// A child that has ended, and is not reaped yet: its number cannot pass to another process before that.
fn ended() -> Option<Pid> {
    // SAFETY: all-zero is a valid value of this plain structure, and stands for "nobody"; it outlives the call.
    let id = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let found = libc::waitid(libc::P_ALL, 0, &raw mut info, how) == 0;
        if found { info.si_pid() } else { 0 }
    };
    Pid::from_raw(id)
}

/// The signals that this process hears of.
fn signal_set() -> libc::sigset_t {
    // SAFETY: all-zero is a valid value; sigemptyset initialises it in any case.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGABRT,
            libc::SIGHUP,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Starts a program in a process group of its own, which dies with this process.
fn spawn(command: &[String], env: &[(String, String)]) -> Result<Pid, String> {
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .env_remove("NOTIFY_SOCKET") // the service manager hears from the agent alone
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .env_remove("LISTEN_FDS") // and its sockets are the agent's
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::null())
        .process_group(0);
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only system calls are made; nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            let set = signal_set();
            libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            for signal in [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU] {
                libc::signal(signal, libc::SIG_DFL);
            }
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
    let child = command
        .spawn()
        .map_err(|error| format!("cannot run \"{program}\": {error}"))?;
    Ok(Pid::from_child(&child)) // it is reaped by its id
}

/// Sockets that the service manager has passed stay with this process and its agents (sd_listen_fds(3)).
fn keep_sockets() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<i32>().ok();
    if number("LISTEN_PID") != Some(rustix::process::getpid().as_raw_nonzero().get()) {
        return;
    }
    let count = number("LISTEN_FDS").unwrap_or(0).clamp(0, MAX_PASSED);
    for fd in FIRST_PASSED..FIRST_PASSED + count {
        // SAFETY: a call without pointers; a descriptor that is not open is an error that harms nobody.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The children of this process, the zombies among them too. `None`: they cannot be known.
fn children() -> Option<Vec<Pid>> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    let id = |word: &str| word.parse().ok().and_then(Pid::from_raw);
    if let Ok(list) = std::fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        return Some(list.split_whitespace().filter_map(id).collect());
    }
    // A kernel without that file: the fourth field of each process's stat, behind its name (proc_pid_stat(5)).
    let mine = |name: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        let parent = stat
            .rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse::<i32>()
            .ok()?;
        (parent == me).then(|| id(name)).flatten()
    };
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    Some(
        all.filter_map(|entry| mine(entry.file_name().to_str()?))
            .collect(),
    )
}

/// A line for the operator, unless whoever reads it does not keep up.
fn say(text: &str) {
    let mut fd = libc::pollfd {
        fd: 2,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut fd, 1, 0) } == 1 && fd.revents & libc::POLLOUT != 0;
    if ready {
        let _ = writeln!(io::stderr(), "baton: {text}");
    }
}

#[cfg(test)]
mod tests;
