//! Every process below another one: found, signalled, described.
//!
//! The walk allocates nothing, for a keeper may not: it is forked from a process with many threads. A process is signalled through a
//! descriptor that was opened before it was seen to be below the root, so a number that passes to a stranger meanwhile harms nobody.
//! Whoever is forked during a walk is found by the next one: walk until nobody is left.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, RawDir, open};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, Signal, getpgid, pidfd_open};
use std::ffi::CStr;
use std::fmt::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Levels below the root that one walk goes down; who is deeper comes up when those above it are dead.
const DEPTH: usize = 48;
/// One read of a list of children, or of a process's state.
const CHUNK: usize = 512;

/// What a walk met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Processes that are not dead.
    pub alive: u32,
    /// Of those, the ones that this user may not signal.
    pub denied: u32,
}

/// Sends a signal to every process below `root` but the spared ones and what is below them. The caller sees to it that `root` is
/// itself, a child that it has not reaped, or otherwise cannot pass its number on.
pub fn sweep(root: Pid, signal: Signal, spared: &[Pid]) -> Met {
    let mut met = Met::default();
    walk(root, &mut |process| {
        if spared.contains(&process.id) {
            return false;
        }
        if process.alive() {
            met.alive += 1;
            met.denied += u32::from(process.signal(signal) == Err(Errno::PERM));
        }
        true
    });
    met
}

/// Sends a signal to every process below `root` that is not in this group.
pub fn sweep_others(root: Pid, signal: Signal, group: Option<Pid>) {
    walk(root, &mut |process| {
        if getpgid(Some(process.id)).ok() != group {
            let _ = process.signal(signal); // it may be gone, or another user's
        }
        true
    });
}

/// Whether a process is stopped (SIGSTOP, or a tracer).
pub fn is_stopped(id: Pid) -> bool {
    Stat::of(id).is_some_and(|stat| matches!(stat.state, b'T' | b't'))
}

/// Whether any process below `root` is not dead.
pub fn any_alive(root: Pid) -> bool {
    let mut alive = false;
    walk(root, &mut |process| {
        alive |= process.alive();
        !alive
    });
    alive
}

/// The living below `root` but the spared ones and what is below them, at most `most`.
pub fn living(root: Pid, spared: &[Pid], most: usize) -> Vec<Pid> {
    let mut found = Vec::new();
    walk(root, &mut |process| {
        if spared.contains(&process.id) {
            return false;
        }
        if process.alive() && found.len() < most {
            found.push(process.id);
        }
        true
    });
    found
}

/// A process in words: number, name, state, and what a sleeping kernel waits for.
pub fn describe(id: Pid) -> String {
    let number = id.as_raw_nonzero();
    let Some(stat) = Stat::of(id) else {
        return format!("process {number}");
    };
    let name = std::fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
    let user =
        std::fs::metadata(format!("/proc/{number}")).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    let waits = std::fs::read_to_string(format!("/proc/{number}/wchan")).unwrap_or_default();
    let waits = match waits.trim() {
        "" | "0" => String::new(),
        place => format!(", waits in {place}"),
    };
    let user = match user {
        Ok(user) if user != rustix::process::getuid().as_raw() => format!(", of user {user}"),
        _ => String::new(),
    };
    format!(
        "process {number} ({}), state {}{user}{waits}",
        name.trim(),
        char::from(stat.state)
    )
}

/// Whether that is a process's name.
pub fn is_called(id: Pid, name: &CStr) -> bool {
    let mut text = [0; 32];
    let length = read_file(
        &path(format_args!("/proc/{}/comm", id.as_raw_nonzero())),
        &mut text,
    )
    .unwrap_or(0);
    text[..length].trim_ascii() == name.to_bytes()
}

/// One process, as a walk finds it.
pub struct Found {
    /// Its number.
    pub id: Pid,
    stat: Stat,
    /// `None`: whether this number is still that process's is not known.
    handle: Option<Handle>,
}

impl Found {
    /// It is no zombie.
    pub fn alive(&self) -> bool {
        self.stat.alive()
    }

    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let handle = self.handle.as_ref().ok_or(Errno::PERM)?;
        handle.signal(signal.as_raw())
    }
}

/// Shows `each` the processes below `root`, parents first; it says whether to go on below that one.
pub fn walk(root: Pid, each: &mut dyn FnMut(&Found) -> bool) {
    let itself = Handle { id: root, fd: None };
    go(root, &itself, 0, each);
}

fn go(root: Pid, parent: &Handle, depth: usize, each: &mut dyn FnMut(&Found) -> bool) {
    children(parent.id, &mut |id| {
        let handle = Handle::open(id);
        let stat = match Stat::of(id) {
            Some(stat) => stat,
            // It cannot be seen, or be read of: it counts, and a child of this process, whose number nobody else has, is signalled.
            None if handle.exists() && handle.fd.is_some() => {
                let mine = parent.id == root && root == rustix::process::getpid();
                let stat = Stat::unknown(parent.id);
                each(&Found {
                    id,
                    stat,
                    handle: mine.then_some(handle),
                });
                return;
            }
            None => return,
        };
        // Seen below its parent after its descriptor was opened, while the parent's number was still the parent's; or below the root,
        // which adopts those whose parent has died.
        let below = stat.parent == root.as_raw_nonzero().get()
            || (stat.parent == parent.id.as_raw_nonzero().get() && parent.exists());
        let found = Found {
            id,
            stat,
            handle: Some(handle),
        };
        if below
            && each(&found)
            && depth < DEPTH
            && let Some(handle) = &found.handle
        {
            go(root, handle, depth + 1, each);
        }
    });
}

/// A hold on a process that its number's next owner does not inherit.
struct Handle {
    id: Pid,
    /// `None`: a kernel before 5.3, or the root, whose number is the caller's care.
    fd: Option<OwnedFd>,
}

impl Handle {
    fn open(id: Pid) -> Handle {
        let fd = pidfd_open(id, PidfdFlags::empty()).ok();
        Handle { id, fd }
    }

    fn exists(&self) -> bool {
        self.fd.is_none() || self.signal(0) != Err(Errno::SRCH)
    }

    fn signal(&self, signal: i32) -> Result<(), Errno> {
        let id = self.id.as_raw_nonzero().get();
        // SAFETY: calls without pointers that are followed.
        let result = unsafe {
            match &self.fd {
                Some(fd) => libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    fd.as_raw_fd(),
                    signal,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                ),
                None => libc::syscall(libc::SYS_kill, id, signal),
            }
        };
        match result {
            0 => Ok(()),
            // SAFETY: it points to this thread's error number.
            _ => Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() })),
        }
    }
}

/// What /proc/PID/stat says (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The letter of its state.
    pub state: u8,
    /// Its parent's number.
    pub parent: i32,
    /// Threads that it has.
    threads: u32,
    /// When it began, in clock ticks since the machine did: with the number it names one process.
    pub started: u64,
}

impl Stat {
    /// `None`: there is no such process, or it cannot be seen.
    pub fn of(id: Pid) -> Option<Stat> {
        let mut text = [0; CHUNK];
        let length = read_file(
            &path(format_args!("/proc/{}/stat", id.as_raw_nonzero())),
            &mut text,
        )?;
        Stat::parse(text.get(..length)?)
    }

    /// Of one of which nothing can be read.
    fn unknown(parent: Pid) -> Stat {
        Stat {
            state: b'?',
            parent: parent.as_raw_nonzero().get(),
            threads: 1,
            started: 0,
        }
    }

    /// The fields behind the name, which is in parentheses and may hold anything.
    fn parse(text: &[u8]) -> Option<Stat> {
        let behind = text.iter().rposition(|byte| *byte == b')')? + 1;
        let mut fields = text
            .get(behind..)?
            .split(|byte| *byte == b' ')
            .filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?;
        let parent = i32::try_from(number(fields.next()?)?).ok()?;
        let threads = u32::try_from(number(fields.nth(15)?)?).ok()?;
        let started = number(fields.nth(1)?)?;
        Some(Stat {
            state,
            parent,
            threads,
            started,
        })
    }

    /// A zombie may have threads that run on.
    pub fn alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x') || self.threads > 1
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Shows `each` the children of a process.
fn children(parent: Pid, each: &mut dyn FnMut(Pid)) {
    let number = parent.as_raw_nonzero();
    if lists_children() {
        return entries(&path(format_args!("/proc/{number}/task")), &mut |thread| {
            list(&path(format_args!("/proc/{number}/task/{thread}/children")), each);
        });
    }
    entries(&path(format_args!("/proc")), &mut |id| {
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        if let Some(id) = id.filter(|id| Stat::of(*id).is_some_and(|stat| stat.parent == number.get())) {
            each(id);
        }
    });
}

/// Whether this kernel has a list of each thread's children (CONFIG_PROC_CHILDREN); seen once.
fn lists_children() -> bool {
    const UNKNOWN: u8 = 0;
    static LISTS: AtomicU8 = AtomicU8::new(UNKNOWN);
    match LISTS.load(Relaxed) {
        UNKNOWN => {
            let lists = list(&path(format_args!("/proc/thread-self/children")), &mut |_| {});
            LISTS.store(if lists { 1 } else { 2 }, Relaxed);
            lists
        }
        known => known == 1,
    }
}

/// The numbers in a file, as they are read. False: there is no such file.
fn list(path: &Path, each: &mut dyn FnMut(Pid)) -> bool {
    let Ok(file) = open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let (mut chunk, mut number) = ([0u8; CHUNK], 0i32);
    while let Ok(length @ 1..) = read(&file, &mut chunk) {
        for byte in &chunk[..length] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if let Some(id) = Pid::from_raw(std::mem::take(&mut number)) {
                each(id);
            }
        }
    }
    true
}

/// The numeric names in a directory.
fn entries(path: &Path, each: &mut dyn FnMut(u64)) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = open(path.as_c_str(), flags, Mode::empty()) else {
        return;
    };
    let mut buffer = [MaybeUninit::uninit(); 2 * CHUNK];
    let mut names = RawDir::new(&dir, &mut buffer);
    while let Some(Ok(entry)) = names.next() {
        if let Some(name) = number(entry.file_name().to_bytes()) {
            each(name);
        }
    }
}

/// A small file's text; how long it is.
pub fn read_file(path: &Path, text: &mut [u8]) -> Option<usize> {
    let file = open(path.as_c_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    read_all(rustix::fd::AsFd::as_fd(&file), text)
}

/// From here to the end, or until `text` is full.
pub fn read_all(file: BorrowedFd<'_>, text: &mut [u8]) -> Option<usize> {
    let mut length = 0;
    while let Some(room @ [_, ..]) = text.get_mut(length..) {
        match read(file, room) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(length)
}

/// A path on the stack.
pub struct Path {
    text: [u8; 64],
    length: usize,
}

/// What is longer than its room names nothing.
pub fn path(text: fmt::Arguments<'_>) -> Path {
    let mut path = Path {
        text: [0; 64],
        length: 0,
    };
    if path.write_fmt(text).is_err() {
        path.text[0] = 0;
    }
    path
}

impl Path {
    /// For system calls.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).unwrap_or_default()
    }
}

impl Write for Path {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let end = self.length + more.len();
        let last = self.text.len() - 1; // a zero stays
        let room = self.text[..last].get_mut(self.length..end).ok_or(fmt::Error)?;
        room.copy_from_slice(more.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_confuse() {
        let text = b"9 (a) Z 1 (2)) D 77 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 9 9\n";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.state, stat.parent, stat.threads, stat.started),
            (b'D', 77, 3, 12345)
        );
        assert!(stat.alive());
        for bad in [&b""[..], b"9 (a", b"9 (a)", b"9 (a) R x", b"9 (a) R 1 2 3"] {
            assert_eq!(Stat::parse(bad), None);
        }
        let me = Stat::of(rustix::process::getpid()).unwrap();
        assert!(me.alive() && me.started > 0);
    }

    #[test]
    fn a_path_that_is_too_long_names_nothing_that_exists() {
        let long = path(format_args!("/proc/{:0>100}/stat", 1));
        assert_eq!(long.as_c_str(), c"");
        assert_eq!(
            path(format_args!("/proc/{}/stat", 77)).as_c_str(),
            c"/proc/77/stat"
        );
    }
}
