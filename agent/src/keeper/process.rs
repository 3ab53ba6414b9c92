//! The keeper's own process: it starts the program, and sees to it that nothing is left of it in the end.
//!
//! It is cloned from a process that may have other threads, so it allocates nothing, takes no lock, and never returns: system calls
//! alone, on what was prepared before. It adopts whoever below it loses his parent, so "nobody is left" is the kernel's word: it has no
//! child any more, and the cgroup, if there is one, is empty. What it does and when is decided by [`Keeper`].

use super::cgroup;
use super::sweep::sweep;
use baton_core::guardian::keeper::{Keeper, Rest, Seen};
use baton_core::guardian::page::RoleSlot;
use baton_shared::clock::Mono;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, c_char};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::null;
use std::time::Duration;

/// A byte to a keeper below this is a signal for the group of its program; 0 has it look at the lease.
pub(super) const LEADER: u8 = 128;
/// What the program has left stays, although its owner ends.
pub(super) const LEAVE: u8 = 254;
/// Kill everything.
pub(super) const KILL: u8 = 255;
/// Also as a signal, for whoever has not the keeper's line but may signal it.
pub(super) const KILL_SIGNAL: Signal = Signal::USR2;
/// Length of a keeper's report: what, a number, and another.
pub(super) const REPORT: usize = 16;

pub(super) const STARTED: u8 = 1;
pub(super) const NOT_STARTED: u8 = 2;
pub(super) const ENDED: u8 = 3;
pub(super) const EMPTY: u8 = 4;
pub(super) const STUCK: u8 = 5;

/// How long killed processes may take to vanish before it is said.
const VANISH: Duration = Duration::from_secs(2);
/// Walks after which all are stopped before they are killed: a fork bomb that is killed one by one goes on for ever.
const WALKS: u32 = 3;
/// Where a program's last error goes to, by way of the shell's habit.
const NOT_FOUND: i32 = 127;

/// What was prepared before the fork.
pub(super) struct Plan<'a> {
    /// Where the program may be, in order, each ended by a zero.
    pub paths: &'a [&'a CStr],
    /// Its arguments and environment, each list ended by a null.
    pub arguments: &'a [*const c_char],
    pub environment: &'a [*const c_char],
    /// The same arguments behind `/bin/sh` and a place for the path: for a script that does not say who reads it.
    pub script: &'a mut [*const c_char],
    /// For its standard streams; the others of this process stay as they are.
    pub streams: [Option<RawFd>; 3],
    /// The keeper's end of the line to its owner.
    pub line: RawFd,
    pub cgroup: Option<RawFd>,
    pub slot: Option<&'a RoleSlot>,
    pub lead: Duration,
    pub rest: Rest,
    /// What it and all that it starts is known by: see [`super::mark`].
    pub mark: Option<u64>,
    /// The limit of open files that the program gets.
    pub files: Option<libc::rlimit>,
}

/// Clones the keeper. It blocks all signals from its first instant on.
///
/// # Safety
/// What the plan points to must outlive the call; descriptors are open.
pub(super) unsafe fn fork(plan: Plan<'_>) -> Result<Pid, Errno> {
    // SAFETY: both sets are plain values; the signal mask is this thread's, and is put back.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let id = clone();
        if id == Ok(None) {
            Process::begin(plan);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        id.map(|id| id.unwrap_or(Pid::INIT)) // `None` was the child, which never comes here
    }
}

/// A bare clone: the C library's fork takes locks that another thread may hold. `None`: this is the child.
///
/// # Safety
/// The child may make system calls alone.
unsafe fn clone() -> Result<Option<Pid>, Errno> {
    // SAFETY: a fork; no pointer is followed.
    let id = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match i32::try_from(id) {
        Ok(id @ 0..) => Ok(Pid::from_raw(id)),
        // SAFETY: it points to this thread's error number.
        _ => Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() })),
    }
}

/// The same, born into a cgroup where there is one; and whether it was. Moving a process there later waits for all processors to pass
/// through a grace period (some ten milliseconds), which a start that others wait for must not.
///
/// # Safety
/// As for [`clone`]; the descriptor is open.
unsafe fn clone_into(cgroup: Option<RawFd>) -> Result<(Option<Pid>, bool), Errno> {
    const INTO_CGROUP: u64 = 0x2_0000_0000; // CLONE_INTO_CGROUP, since Linux 5.7
    if let Some(cgroup) = cgroup {
        // SAFETY: a fork; all-zero is a valid value of this plain structure, which outlives the call.
        let id = unsafe {
            let mut wanted: libc::clone_args = std::mem::zeroed();
            wanted.flags = INTO_CGROUP;
            wanted.exit_signal = libc::SIGCHLD as u64;
            wanted.cgroup = cgroup as u64;
            libc::syscall(libc::SYS_clone3, &raw const wanted, size_of_val(&wanted))
        };
        if let Ok(id @ 0..) = i32::try_from(id) {
            return Ok((Pid::from_raw(id), true));
        }
    }
    // SAFETY: as the caller promises.
    unsafe { clone() }.map(|id| (id, false))
}

/// The running keeper.
struct Process<'a> {
    me: Pid,
    leader: Pid,
    line: RawFd,
    signals: RawFd,
    timer: RawFd,
    /// Says how the program's exec went; -1: it is known.
    exec: RawFd,
    cgroup: Option<BorrowedFd<'a>>,
    slot: Option<&'a RoleSlot>,
    keeper: Keeper,
    seen: Wake,
    walks: u32,
    said_stuck: bool,
}

/// What has been heard and seen so far.
#[derive(Default)]
struct Wake {
    parent_gone: bool,
    told_to_kill: bool,
    leader_ended: bool,
    childless: bool,
}

impl Process<'_> {
    /// # Safety
    /// As for [`fork`]; this is the child.
    unsafe fn begin(plan: Plan<'_>) -> ! {
        // SAFETY: system calls on plain values that live here; this process has one thread.
        unsafe {
            let me = rustix::process::getpid();
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
            libc::prctl(libc::PR_SET_NAME, super::NAME.as_ptr(), 0, 0, 0);
            libc::setpgid(0, 0);
            let mut heard: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut heard);
            libc::sigaddset(&raw mut heard, libc::SIGCHLD);
            libc::sigaddset(&raw mut heard, KILL_SIGNAL.as_raw());
            let signals = libc::signalfd(-1, &raw const heard, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            let timer = libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK);
            let mut pipe = [-1; 2];
            if signals < 0
                || timer < 0
                || libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0
            {
                report(plan.line, NOT_STARTED, *libc::__errno_location(), 0);
                libc::_exit(NOT_FOUND);
            }
            let (line, cgroup, slot) = (plan.line, plan.cgroup, plan.slot);
            let keeper = Keeper::new(plan.lead, plan.rest);
            let leader = match clone_into(cgroup) {
                Ok((None, entered)) => program(plan, me, pipe[1], entered),
                Ok((Some(leader), _)) => leader,
                Err(error) => {
                    report(line, NOT_STARTED, error.raw_os_error(), 0);
                    libc::_exit(NOT_FOUND);
                }
            };
            libc::setpgid(leader.as_raw_nonzero().get(), leader.as_raw_nonzero().get()); // a signal may come before it does so itself
            keep_only(&mut [line, signals, timer, pipe[0], cgroup.unwrap_or(line)]);
            if slot.is_some() {
                hurry();
            }
            let process = Process {
                me,
                leader,
                line,
                signals,
                timer,
                exec: pipe[0],
                cgroup: cgroup.map(|fd| BorrowedFd::borrow_raw(fd)),
                slot,
                keeper,
                seen: Wake::default(),
                walks: 0,
                said_stuck: false,
            };
            process.run()
        }
    }

    fn run(mut self) -> ! {
        loop {
            self.hear();
            self.reap();
            let now = Mono::now();
            let empty = self.seen.childless && !self.cgroup.is_some_and(cgroup::populated);
            let turn = self.keeper.turn(
                Seen {
                    slot: self.slot,
                    parent_gone: self.seen.parent_gone,
                    told_to_kill: self.seen.told_to_kill,
                    leader_ended: self.seen.leader_ended,
                    empty,
                },
                now,
            );
            if turn.done {
                let took = self
                    .keeper
                    .killing_since()
                    .map_or(0, |since| now.since(since).as_nanos().max(1));
                report(self.line, EMPTY, 0, u64::try_from(took).unwrap_or(u64::MAX));
                // SAFETY: this process ends, without a word to anybody else's memory.
                unsafe { libc::_exit(0) }
            }
            if turn.kill {
                self.kill();
            }
            if !self.said_stuck
                && self
                    .keeper
                    .killing_since()
                    .is_some_and(|since| now.since(since) > VANISH)
            {
                self.said_stuck = true;
                report(self.line, STUCK, 0, 0);
            }
            self.sleep(turn.wake);
        }
    }

    /// One walk over all that is below.
    fn kill(&mut self) {
        if let Some(cgroup) = self.cgroup {
            cgroup::kill(cgroup);
        }
        if !self.seen.leader_ended {
            // Needs no descriptor, and nothing to be seen in /proc.
            let leader = self.leader.as_raw_nonzero().get();
            // SAFETY: calls without pointers; it is not reaped, so its numbers are its own.
            unsafe {
                libc::kill(-leader, libc::SIGKILL);
                libc::kill(leader, libc::SIGKILL);
            }
        }
        if self.walks >= WALKS {
            sweep(self.me, Signal::STOP, &[]);
        }
        sweep(self.me, Signal::KILL, &[]);
        self.walks = self.walks.saturating_add(1);
    }

    /// Orders, the fate of the program's exec, and the end of the owner.
    fn hear(&mut self) {
        loop {
            let mut order = 0u8;
            // SAFETY: one byte, which outlives the call.
            let length = unsafe { libc::recv(self.line, (&raw mut order).cast(), 1, libc::MSG_DONTWAIT) };
            match length {
                0 => self.seen.parent_gone = true,
                1.. => {
                    self.order(order);
                    continue;
                }
                _ => self.seen.parent_gone |= !again(),
            }
            break;
        }
        if self.exec >= 0 {
            let mut error = 0i32;
            // SAFETY: four bytes, which outlive the call.
            let length = unsafe { libc::read(self.exec, (&raw mut error).cast(), size_of::<i32>()) };
            match length {
                0 => report(self.line, STARTED, self.leader.as_raw_nonzero().get(), 0),
                1.. => report(self.line, NOT_STARTED, error, 0),
                _ => return,
            }
            // SAFETY: it is this process's own, and not used again.
            unsafe { libc::close(self.exec) };
            self.exec = -1;
        }
    }

    fn order(&mut self, order: u8) {
        let leader = self.leader.as_raw_nonzero().get();
        match order {
            KILL => self.seen.told_to_kill = true,
            // SAFETY: this process ends, without a word to anybody else's memory.
            LEAVE if self.seen.leader_ended => unsafe { libc::_exit(0) },
            LEAVE => {} // its program is not left alone
            0 => {}     // a look is what it gets in any case
            // After it was reaped its number may be another's.
            _ if self.seen.leader_ended => {}
            // SAFETY: calls without pointers.
            LEADER.. => unsafe {
                libc::kill(leader, i32::from(order - LEADER));
            },
            // SAFETY: as above.
            _ => unsafe {
                libc::kill(-leader, i32::from(order));
            },
        }
    }

    fn reap(&mut self) {
        loop {
            // SAFETY: all-zero is a valid value of this plain structure; it outlives the call.
            let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
            // SAFETY: as above; as long as is said.
            let length = unsafe { libc::read(self.signals, (&raw mut info).cast(), size_of_val(&info)) };
            if length <= 0 {
                break;
            }
            self.seen.told_to_kill |= info.ssi_signo.cast_signed() == KILL_SIGNAL.as_raw();
        }
        loop {
            let mut status = 0;
            // SAFETY: `status` outlives the call.
            let id = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
            match id {
                0 => return,
                1.. if id == self.leader.as_raw_nonzero().get() => {
                    // What it failed to run it says first.
                    self.hear();
                    self.seen.leader_ended = true;
                    report(self.line, ENDED, status, 0);
                }
                1.. => {}
                // SAFETY: it points to this thread's error number.
                _ if unsafe { *libc::__errno_location() } == libc::EINTR => {}
                _ => {
                    self.seen.childless = true;
                    return;
                }
            }
        }
    }

    fn sleep(&self, wake: Option<Mono>) {
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // The end of the owner's line would ring for ever, once it is known.
        let line = if self.seen.parent_gone { -1 } else { self.line };
        let mut fds = [poll(line), poll(self.signals), poll(self.exec), poll(self.timer)];
        // SAFETY: all-zero is a valid value of this plain structure, and disarms; the entries are valid, and negative ones skipped.
        unsafe {
            let mut when: libc::itimerspec = std::mem::zeroed();
            if let Some(wake) = wake {
                let at = wake.0.max(1);
                when.it_value.tv_sec = (at / 1_000_000_000).cast_signed();
                when.it_value.tv_nsec = (at % 1_000_000_000).cast_signed();
            }
            libc::timerfd_settime(
                self.timer,
                libc::TFD_TIMER_ABSTIME,
                &raw const when,
                std::ptr::null_mut(),
            );
            libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1);
        }
    }
}

/// Whether the last call would only have had to wait.
fn again() -> bool {
    // SAFETY: it points to this thread's error number.
    let error = unsafe { *libc::__errno_location() };
    matches!(error, libc::EAGAIN | libc::EINTR)
}

fn report(line: RawFd, what: u8, number: i32, more: u64) {
    let mut text = [0; REPORT];
    text[0] = what;
    text[4..8].copy_from_slice(&number.to_le_bytes());
    text[8..].copy_from_slice(&more.to_le_bytes());
    // SAFETY: `text` is as long as is said. An owner that is gone needs no word.
    unsafe {
        libc::send(
            line,
            text.as_ptr().cast(),
            text.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
}

/// Closes every descriptor but these. The standard streams become /dev/null: whoever reads the program's output waits for its end.
pub fn keep_only(kept: &mut [RawFd]) {
    kept.sort_unstable(); // allocates nothing
    // SAFETY: calls without pointers but for a constant; what is closed is this process's copy.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for stream in 0..3 {
            if !kept.contains(&stream) && libc::dup2(null, stream) < 0 {
                libc::close(stream);
            }
        }
        let mut from = 3;
        for fd in kept.iter().copied().filter(|fd| *fd >= 3).chain([RawFd::MAX]) {
            if from < fd {
                close_between(from, fd - 1);
            }
            from = from.max(fd.saturating_add(1));
        }
    }
}

/// # Safety
/// Nobody may own what is closed.
unsafe fn close_between(first: RawFd, last: RawFd) {
    // SAFETY: calls without pointers, but for a limit that outlives its call.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) == 0 {
            return;
        }
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let most = RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX).min(65_536);
        for fd in first..=last.min(most) {
            libc::close(fd);
        }
    }
}

/// As the guardian and the control thread: it acts while the machine is busy; and what it needs stays in memory. Best effort.
fn hurry() {
    const ON_FAULT: libc::c_int = 4; // MCL_ONFAULT
    let low = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is this process; `low` outlives the call; the last call has no pointer.
    unsafe {
        if libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const low) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -10);
        }
        libc::mlockall(libc::MCL_CURRENT | ON_FAULT);
    }
}

/// The program's process: in a group of its own, in the cgroup, with everything as a program expects it; then the program.
///
/// # Safety
/// As for [`fork`].
unsafe fn program(plan: Plan<'_>, keeper: Pid, exec: RawFd, entered: bool) -> ! {
    // SAFETY: system calls on what was prepared and lives on.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        if rustix::process::getppid() != Some(keeper) {
            libc::_exit(NOT_FOUND); // nobody keeps it
        }
        if let Some(cgroup) = plan.cgroup.filter(|_| !entered) {
            cgroup::enter(BorrowedFd::borrow_raw(cgroup)); // else the tree alone tells who is below
        }
        for (stream, fd) in (0..).zip(plan.streams) {
            if let Some(fd) = fd {
                libc::dup2(fd, stream);
            }
        }
        // Also before the program runs: its file may lie on a disk that hangs, and ports, locks and lines must not hang with it.
        keep_only(&mut [0, 1, 2, exec]);
        if let Some(mark) = plan.mark {
            super::mark::set(mark);
        }
        if let Some(files) = plan.files {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files);
        }
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL); // two cannot be, and two are the C library's
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        let mut error = libc::ENOENT;
        for path in plan.paths {
            libc::execve(path.as_ptr(), plan.arguments.as_ptr(), plan.environment.as_ptr());
            let why = *libc::__errno_location();
            if why == libc::ENOEXEC
                && let Some(place) = plan.script.get_mut(1)
            {
                *place = path.as_ptr();
                libc::execve(
                    c"/bin/sh".as_ptr(),
                    plan.script.as_ptr(),
                    plan.environment.as_ptr(),
                );
            }
            match why {
                libc::ENOENT | libc::ENOTDIR => {} // perhaps the next
                libc::EACCES => error = why,
                _ => {
                    error = why;
                    break;
                }
            }
        }
        libc::write(exec, (&raw const error).cast(), size_of::<i32>());
        libc::_exit(NOT_FOUND)
    }
}

/// A list of arguments for the kernel.
pub(super) fn pointers<'a>(texts: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    texts.map(CStr::as_ptr).chain([null()]).collect()
}
