//! A process check: healthy while the process lives whose number stands in a file. Its death is known at once.
//!
//! The process is held by a pidfd, which never means another one, whoever gets the number later. The number in the file
//! may be reused once that process is gone: so a file that named a dead process counts as dead until it is written anew.
//! Nothing can be known of a file that was already stale when it was first read, and its number reused by then.

use super::probe::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{JoinHandle, spawn_blocking};

/// Longest first line of a file, in bytes: a number, and white space. What follows it is somebody else's affair: PostgreSQL's
/// `postmaster.pid` goes on with a directory, a port and more.
const MAX_LINE: usize = 64;

/// A file, and the process that it names.
pub struct Process {
    file: PathBuf,
    /// A read that is under way. No second one is begun: the disk may hang.
    reading: Option<JoinHandle<Result<Named, Failure>>>,
    held: Option<Held>,
    /// What a file said of a process that is dead.
    dead: Option<Named>,
}

/// What a file says, and which state of the file that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    pid: Pid,
    stamp: [i128; 5],
}

/// A living process.
struct Held {
    named: Named,
    handle: AsyncFd<OwnedFd>,
}

impl Process {
    /// Watches the process of this file.
    pub fn new(file: PathBuf) -> Process {
        Process {
            file,
            reading: None,
            held: None,
            dead: None,
        }
    }

    /// Reads the file, and looks whether its process lives.
    pub async fn ask(&mut self) -> Result<String, Failure> {
        let named = self.read().await?;
        if self.dead == Some(named) {
            return Err(self.is_dead(named));
        }
        if self.held.as_ref().is_none_or(|held| held.named != named) {
            self.held = None;
            self.held = match open(named.pid) {
                Ok(handle) => Some(Held { named, handle }),
                Err(Errno::SRCH) => return Err(self.is_dead(named)),
                Err(Errno::NOSYS) => return Err("a process check needs Linux 5.3 or later".into()),
                Err(Errno::INVAL) => {
                    let text = format!("{}: {} is not the number of a process", self.show(), named.pid);
                    return Err(text.into());
                }
                Err(error) => return Err(format!("cannot watch process {}: {error}", named.pid).into()),
            };
        }
        match &self.held {
            Some(held) if !has_ended(&held.handle) => Ok(format!("process {} lives", named.pid)),
            _ => Err(self.is_dead(named)),
        }
    }

    /// Ready, with the reason, when the process that is held has died.
    pub async fn death(&mut self) -> String {
        let Some(held) = &self.held else {
            return std::future::pending().await;
        };
        let named = held.named;
        loop {
            match held.handle.readable().await {
                Ok(_) if has_ended(&held.handle) => return self.is_dead(named).reason,
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return std::future::pending().await, // the runtime is ending
            }
        }
    }

    fn is_dead(&mut self, named: Named) -> Failure {
        self.held = None;
        self.dead = Some(named);
        Failure {
            reason: format!("process {} of {} is dead", named.pid, self.show()),
            output: String::new(),
            proven: true,
        }
    }

    async fn read(&mut self) -> Result<Named, Failure> {
        let file = &self.file;
        let reading = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            spawn_blocking(move || read(&file))
        });
        let result = reading.await;
        self.reading = None;
        let result = result.unwrap_or_else(|error| Err(format!("the read was abandoned: {error}").into()));
        result.map_err(|failure| Failure {
            reason: format!("{}: {}", self.show(), failure.reason),
            ..failure
        })
    }

    fn show(&self) -> String {
        self.file.display().to_string()
    }
}

fn open(pid: Pid) -> Result<AsyncFd<OwnedFd>, Errno> {
    let handle = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    // SAFETY: an `OwnedFd` is open, and always the same, as long as the `AsyncFd` that owns it.
    unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }
        .map_err(|error| Errno::from_io_error(&error.into()).unwrap_or(Errno::IO))
}

/// A pidfd can be read once its process has ended, reaped or not: a zombie is dead.
fn has_ended(handle: &AsyncFd<OwnedFd>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&at_once)), Ok(n) if n > 0)
}

fn read(file: &Path) -> Result<Named, Failure> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    // Opening a FIFO would wait for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file);
    let mut opened = opened.map_err(unreadable)?;
    let state = fstat(&opened).map_err(|error| unreadable(error.into()))?;
    if !opened.metadata().map_err(unreadable)?.is_file() {
        return Err("not a plain file".into());
    }
    let mut text = Vec::new();
    let most = MAX_LINE as u64 + 1;
    opened
        .by_ref()
        .take(most)
        .read_to_end(&mut text)
        .map_err(unreadable)?;
    let stamp = [
        state.st_ino.into(),
        state.st_mtime.into(),
        state.st_mtime_nsec.into(),
        state.st_size.into(),
        state.st_dev.into(),
    ];
    Ok(Named {
        pid: number(&text)?,
        stamp,
    })
}

/// The number in the first line of a file.
fn number(text: &[u8]) -> Result<Pid, Failure> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.len() > MAX_LINE {
        let reason = format!("its first line is longer than {MAX_LINE} bytes; that must hold one number");
        return Err(reason.into());
    }
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let pid = text.parse().ok().filter(|_| digits).and_then(Pid::from_raw);
    pid.ok_or_else(|| match text {
        "" => "empty; it must hold the number of a process".into(),
        // Whatever file this is, what stands in it is not for everybody.
        text => Failure::saying("it does not hold the number of a process".into(), text.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_first_line_holds_one_number() {
        for (text, expected) in [
            ("1", Some(1)),
            (" 4711\n", Some(4711)),
            ("2147483647\r\n", Some(i32::MAX)),
            ("2147483648", None),
            ("0", None),
            ("-1", None),
            ("+1", None),
            ("1 2", None),
            ("1\n2\n", Some(1)),
            (
                "4711\n/var/lib/postgresql/17/main\n1764424800\n5432\n/run",
                Some(4711),
            ),
            ("-4711\n/var/lib/postgresql/17/main\n", None), // PostgreSQL for a single user: nobody can connect to it
            ("\n4711\n", None),
            ("pid\n4711\n", None),
            ("0x10", None),
            ("", None),
            ("\n", None),
            ("\u{661}", None),
        ] {
            let got = number(text.as_bytes()).ok().map(|pid| pid.as_raw_nonzero().get());
            assert_eq!(got, expected, "{text:?}");
        }
        assert!(number(&[b'1'; 65]).unwrap_err().reason.contains("longer than 64"));
        assert!(
            number(&[&b"1\n"[..], &[b'x'; 63]].concat()).is_ok(),
            "the rest is cut"
        );
        assert!(number(b"\xff").is_err());
    }

    /// The kernel cannot be told to give a number again; so this process stands for the one that got it.
    #[tokio::test]
    async fn a_number_that_is_given_again_is_not_taken_for_the_dead_process() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        std::fs::write(&file, std::process::id().to_string()).unwrap();
        let mut process = Process::new(file.clone());
        assert!(process.ask().await.is_ok());
        let named = process.held.as_ref().unwrap().named;
        assert!(process.is_dead(named).proven);
        let failure = process.ask().await.unwrap_err();
        assert!(failure.proven && process.held.is_none(), "{failure:?}");
        std::fs::write(dir.path().join("new"), std::process::id().to_string()).unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert!(process.ask().await.is_ok(), "it was written anew");
    }
}
