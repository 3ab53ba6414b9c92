//! The guardian's voice: a process of its own writes its lines to the log, for a log can stand still (a full pipe, a frozen disk), and
//! the guardian must not. What does not fit in the pipe between them is lost, and it is said how many lines that were.

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::{read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Longest line, in bytes: a pipe takes it whole or not at all (PIPE_BUF).
const LONGEST: usize = 4096;
/// One that was killed is replaced no sooner.
const AGAIN: Duration = Duration::from_secs(1);
/// At the end of the guardian its last words are waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The way to the speaking process.
#[derive(Debug)]
pub struct Speaker {
    pipe: Option<OwnedFd>,
    /// Reaped by whoever reaps this process's children.
    pub process: Pid,
    started: Instant,
    lost: u64,
}

impl Speaker {
    /// Forks it. To be called while this process has one thread.
    pub fn start() -> io::Result<Speaker> {
        let (its, pipe) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: this process has one thread, so the child may do anything that a fresh process may.
        match unsafe { libc::fork() } {
            0 => {
                drop(pipe);
                // It may be a later one: a keeper must see the end of its line when the guardian is gone, and not only this.
                crate::keeper::keep_only(&mut [2, its.as_raw_fd()]);
                speak(&its)
            }
            id => {
                let process = forked(id)?;
                rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
                Ok(Speaker {
                    pipe: Some(pipe),
                    process,
                    started: Instant::now(),
                    lost: 0,
                })
            }
        }
    }

    /// A child of this process was reaped: if it was this one, another follows when there is something to say.
    pub fn was_reaped(&mut self, id: Pid) {
        if id == self.process {
            self.pipe = None;
        }
    }

    /// A line for the operator. Never waits.
    pub fn say(&mut self, text: &str) {
        if self.pipe.is_none()
            && self.started.elapsed() > AGAIN
            && let Ok(next) = Speaker::start()
        {
            *self = Speaker {
                lost: self.lost,
                ..next
            };
        }
        if self.lost > 0 {
            let lost = format!(
                "baton: ({} lines of the guardian were lost: whoever reads its log did not keep up)\n",
                self.lost
            );
            if self.write(&lost) {
                self.lost = 0;
            }
        }
        let mut line = format!("baton: {text}");
        line.truncate(line.floor_char_boundary(LONGEST - 1));
        line.push('\n');
        if !self.write(&line) {
            self.lost += 1;
        }
    }

    fn write(&self, line: &str) -> bool {
        self.pipe
            .as_ref()
            .is_some_and(|pipe| write(pipe, line.as_bytes()).is_ok())
    }

    /// In a process that was forked from this one: it has a voice of its own.
    pub fn leave(&mut self) {
        self.pipe = None;
    }

    /// Nothing more is said; what was said is heard, if somebody reads it.
    pub fn end(&mut self) {
        self.pipe = None;
        let since = Instant::now();
        while matches!(waitpid(Some(self.process), WaitOptions::NOHANG), Ok(None))
            && since.elapsed() < LAST_WORDS
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What fork(2) has given the parent.
pub(super) fn forked(id: libc::pid_t) -> io::Result<Pid> {
    let id = Some(id).filter(|id| *id > 0); // a negative one is an error, and no process id
    id.and_then(Pid::from_raw).ok_or_else(io::Error::last_os_error)
}

/// Writes what comes to the standard error stream, until nothing more can come.
fn speak(pipe: &OwnedFd) -> ! {
    // SAFETY: this process is one of its own now; it ends when its pipe does, and not with a signal that is meant for all.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, c"baton-speaker".as_ptr(), 0, 0, 0);
        libc::setpgid(0, 0);
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    let mut text = [0; LONGEST];
    while let Ok(length @ 1..) = read(pipe, &mut text) {
        let mut rest = &text[..length];
        while let Ok(written @ 1..) = write(rustix::stdio::stderr(), rest) {
            rest = &rest[written..];
        }
    }
    // SAFETY: nothing of the guardian's is to be done at the end of this copy of it.
    unsafe { libc::_exit(0) }
}
