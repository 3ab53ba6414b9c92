//! A cgroup (version 2) of its own for each application, check and action, where the system lets us: what is in it is killed by one
//! write, forks included, and the kernel says when nobody is left (cgroups(7), `cgroup.kill` since Linux 5.14).
//!
//! They lie below the cgroup that this process is in: a service manager that delegates gives that to us, root owns it elsewhere, or
//! somebody has given it to this user (chown). No file system is mounted. Guardian, agent and keepers stay where they are.

use super::sweep::read_all;
use crate::mount::Mount;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::write;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Where this node's cgroups are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(PathBuf);

/// Found once in a process's life: [`adopt`].
static BASE: OnceLock<Option<Base>> = OnceLock::new();

/// The base of this process from now on.
pub fn adopt(base: Option<Base>) {
    let _ = BASE.set(base); // the first word counts
}

/// This process's base, if there is one.
pub fn base() -> Option<&'static Base> {
    BASE.get()?.as_ref()
}

impl Base {
    /// Makes it, or says why there is none. `name` is one word, and the same at each start.
    pub fn make(name: &str) -> Result<Base, String> {
        let dir = directory_of(None)?.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{} cannot be made: {error}", dir.display()));
            }
            _ => {}
        }
        let base = Base(dir);
        base.usable().map(|()| base)
    }

    /// Below which directory one could be made from here, or why there could be none; nothing is left behind.
    pub fn possible() -> Result<PathBuf, String> {
        let dir = directory_of(None)?;
        // Another probe of this process may be under way.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("baton-probe-{}-{number}", std::process::id());
        let base = Base(dir.join(&name));
        let usable = Base::make(&name).map(drop);
        base.remove();
        usable.map(|()| dir)
    }

    fn usable(&self) -> Result<(), String> {
        let parent = self.0.parent().unwrap_or(&self.0);
        for file in [
            self.0.join("cgroup.kill"),
            self.0.join("cgroup.procs"),
            parent.join("cgroup.procs"),
        ] {
            let writable = fs::OpenOptions::new().write(true).open(&file);
            writable.map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }

    /// A cgroup below it, made if need be.
    pub fn cgroup(&self, name: &str) -> io::Result<Cgroup> {
        let dir = self.0.join(name);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Cgroup::open(dir)
    }

    /// One that is there.
    pub fn existing(&self, name: &str) -> Option<Cgroup> {
        Cgroup::open(self.0.join(name)).ok()
    }

    /// A fresh one, with a number behind its name.
    pub fn numbered(&self, name: &str) -> io::Result<Cgroup> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // A restarted agent begins anew, and what the one before left may have such a number still.
        let me = std::process::id();
        self.cgroup(&format!("{name}-{me}-{}", NEXT.fetch_add(1, Relaxed)))
    }

    /// Kills whatever is in any of them, and waits until they are empty. Says who is left.
    pub fn clear(&self, limit: Duration) -> Result<(), String> {
        let since = Instant::now();
        let mut left = self.others(&[]);
        loop {
            for cgroup in &left {
                kill(cgroup.dir.as_fd());
            }
            left.retain(|cgroup| populated(cgroup.dir.as_fd()));
            if left.is_empty() {
                return Ok(());
            }
            if since.elapsed() > limit {
                let names: Vec<String> = left.iter().flat_map(Cgroup::processes).take(8).collect();
                return Err(names.join("; "));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Those that exist below it, but these.
    pub fn others(&self, but: &[String]) -> Vec<Cgroup> {
        let dirs = fs::read_dir(&self.0).into_iter().flatten().flatten();
        dirs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| !but.iter().any(|name| entry.file_name() == name.as_str()))
            .filter_map(|entry| Cgroup::open(entry.path()).ok())
            .collect()
    }

    /// Removes it and those below it, if nobody is left in them.
    pub fn remove(&self) {
        drop(self.others(&[]));
        let _ = fs::remove_dir(&self.0); // one that is used is not removed
    }
}

/// An open cgroup. It is removed when this is dropped and nobody is in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: OwnedFd,
}

impl Cgroup {
    fn open(path: PathBuf) -> io::Result<Cgroup> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Cgroup { path, dir })
    }

    /// For [`enter`], [`kill`] and [`populated`].
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its last name.
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// Who is in it, in words.
    pub fn processes(&self) -> Vec<String> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        let ids = list.lines().filter_map(|line| line.parse().ok());
        ids.filter_map(rustix::process::Pid::from_raw)
            .map(super::sweep::describe)
            .collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name())
            && let Ok(name) = CString::new(name.as_bytes())
            && let Ok(parent) = rustix::fs::open(parent, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = unlinkat(parent, &name, AtFlags::REMOVEDIR); // one that is used is not removed
        }
    }
}

/// Moves the calling process into it. Allocates nothing.
pub fn enter(dir: BorrowedFd<'_>) -> bool {
    written(dir, c"cgroup.procs", b"0")
}

/// Kills everybody in it and below. Allocates nothing.
pub fn kill(dir: BorrowedFd<'_>) -> bool {
    written(dir, c"cgroup.kill", b"1")
}

/// Whether anybody is in it or below. Allocates nothing. One that cannot be read has been removed.
pub fn populated(dir: BorrowedFd<'_>) -> bool {
    let mut text = [0; 256];
    let file = openat(
        dir,
        c"cgroup.events",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let length = file
        .ok()
        .and_then(|file| read_all(file.as_fd(), &mut text))
        .unwrap_or(0);
    let word = b"populated 1";
    text[..length].windows(word.len()).any(|part| part == word)
}

fn written(dir: BorrowedFd<'_>, name: &std::ffi::CStr, text: &[u8]) -> bool {
    let file = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    file.is_ok_and(|file| write(file, text).is_ok())
}

/// The directory of the cgroup that a process is in, as it is seen from here. `None`: this one.
pub fn directory_of(process: Option<u32>) -> Result<PathBuf, String> {
    let (who, dir) = match process {
        Some(id) => (format!("process {id}"), format!("/proc/{id}")),
        None => ("this process".to_owned(), "/proc/self".to_owned()),
    };
    let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let mounts = read("/proc/self/mountinfo")?;
    let (root, mount) = mount_point(&mounts).ok_or("no cgroup2 file system is mounted")?;
    let groups = read(&format!("{dir}/cgroup"))?;
    let path = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| format!("{who} is in no cgroup of version 2"))?;
    below(root, mount, path).ok_or_else(|| format!("the cgroup {path} is not visible below {mount}"))
}

/// Where cgroup2 is mounted: what of it, and the directory.
fn mount_point(mounts: &str) -> Option<(&str, &str)> {
    let mut mounts = mounts.lines().filter_map(Mount::parse);
    mounts
        .find(|mount| mount.kind == "cgroup2")
        .map(|mount| (mount.root, mount.at))
}

fn below(root: &str, mount: &str, path: &str) -> Option<PathBuf> {
    let inside = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(mount).join(inside).components().collect()) // without a slash behind it
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_that_exists_is_used() {
        let mounts = "24 30 0:22 / /proc rw - proc proc rw\n35 24 0:30 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n\
                      36 35 0:31 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some(("/", "/sys/fs/cgroup/unified")));
        assert_eq!(mount_point("36 35 0:31 / /x rw - cgroup cgroup rw\n"), None);
        let service = below("/", "/sys/fs/cgroup", "/system.slice/baton.service");
        assert_eq!(
            service,
            Some(PathBuf::from("/sys/fs/cgroup/system.slice/baton.service"))
        );
        assert_eq!(
            below("/a", "/sys/fs/cgroup", "/a/b"),
            Some(PathBuf::from("/sys/fs/cgroup/b"))
        );
        assert_eq!(below("/a", "/sys/fs/cgroup", "/../b"), None);
    }
}
