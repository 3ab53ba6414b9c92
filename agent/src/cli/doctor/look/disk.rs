//! The storage directory, and how long its disk takes: looked at by a process of its own.
//!
//! Whoever writes to a disk that hangs cannot be ended, not even by the end of the program: a thread that does so would keep the
//! doctor from ending. A process is left behind, and ends when the disk answers.

use super::super::facts::{Facts, Hung, Spread, Storage};
use super::apart;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access, statfs, statvfs};
use rustix::process::geteuid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// Writes that are timed, at most, and for how long.
const FLUSHES: usize = 8;
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// A write as the agent's own are: a page.
const PAGE: [u8; 4096] = [0x5a; 4096];
/// Between two tries to have the turn.
const TURN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Files of the storage directory that are counted.
const MAX_FILES: usize = 10_000;
/// statfs(2)
const TMPFS: u64 = 0x0102_1994;
const OVERLAY: u64 = 0x794c_7630;
const NFS: u64 = 0x6969;

/// How the writing went.
#[derive(Debug, Serialize, Deserialize)]
enum Written {
    /// It took so long; nothing was timed if that is none.
    Took(Option<Spread>),
    /// This user may not write there.
    Denied,
    /// The directory is not there.
    Missing,
    /// Another error, in words.
    Failed(String),
}

/// The process that looks, while it does.
pub(super) struct Disk {
    dir: PathBuf,
    begun: Instant,
    storage: oneshot::Receiver<Result<Storage, String>>,
    written: oneshot::Receiver<Written>,
}

impl Disk {
    /// Starts to look.
    pub(super) fn look(dir: &Path) -> Disk {
        let (one, storage) = oneshot::channel();
        let (other, written) = oneshot::channel();
        let asked = dir.to_owned();
        // What is not answered is told by the receivers.
        drop(apart(move || {
            let (mut looking, mut answers) = match start(&asked) {
                Ok(started) => started,
                Err(error) => return drop(one.send(Err(error.to_string()))),
            };
            if let Some(seen) = next(&mut answers) {
                let _ = one.send(seen);
            }
            if let Some(seen) = next(&mut answers) {
                let _ = other.send(seen);
            }
            let _ = looking.wait();
        }));
        Disk {
            dir: dir.to_owned(),
            begun: Instant::now(),
            storage,
            written,
        }
    }

    /// What it has seen by `end`.
    pub(super) async fn seen(self, end: tokio::time::Instant, facts: &mut Facts) {
        let dir = self.dir.display();
        let hung = |what: String| Hung {
            about: "disk",
            what,
            waited_ms: self.begun.elapsed().as_secs_f64() * 1e3,
        };
        match timeout_at(end, self.storage).await {
            Ok(Ok(Ok(storage))) => facts.storage = Some(storage),
            Ok(Ok(Err(error))) => facts.miss("the storage directory", format!("{dir}: {error}")),
            Ok(Err(_)) => facts.miss(
                "the storage directory",
                format!("{dir}: who looked at it has died"),
            ),
            Err(_) => return facts.hung.push(hung(format!("looking at {dir}"))),
        }
        let why = match timeout_at(end, self.written).await {
            Err(_) => return facts.hung.push(hung(format!("writing a page to {dir}"))),
            Ok(Ok(Written::Took(spread))) => {
                facts.flush = spread;
                return;
            }
            Ok(Ok(Written::Denied)) => {
                format!("this user may not write to {dir}; run the doctor as the agent's user, or with sudo")
            }
            Ok(Ok(Written::Missing)) => format!("{dir} is not there yet"),
            Ok(Ok(Written::Failed(error))) => {
                facts.unwritable = Some(error);
                return;
            }
            Ok(Err(_)) => return, // said above
        };
        facts.miss("how long the disk takes", why);
    }
}

/// Starts the process that looks, and gives it and what it will say.
fn start(dir: &Path) -> io::Result<(Child, BufReader<ChildStdout>)> {
    let mut looking = Command::new("/proc/self/exe")
        .args(["doctor", "--look-at"])
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let said = looking.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
    Ok((looking, BufReader::new(said)))
}

fn next<T: DeserializeOwned>(answers: &mut impl BufRead) -> Option<T> {
    let mut line = String::new();
    answers.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

/// Waits until no other process looks at `dir`, and keeps others waiting while what it gives lives: who waits for a disk that hangs cannot
/// be ended, and every further doctor would leave another behind. `None` if who asked has gone meanwhile.
fn turn(dir: &Path) -> Option<io::Result<UnixListener>> {
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    let name = format!("baton-doctor-{:x}", hasher.finish());
    let address = SocketAddr::from_abstract_name(name);
    loop {
        let bound = address.as_ref().map_err(|error| error.kind().into());
        let bound = bound.and_then(UnixListener::bind_addr);
        match &bound {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            _ => return Some(bound),
        }
        let stdout = io::stdout();
        let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
        poll(&mut asked, Some(&TURN)).ok()?;
        if !asked[0].revents().is_empty() {
            return None;
        }
    }
}

/// What the process does: it looks and says so in a line, then writes and says so. Gives its exit status.
pub(in super::super) fn report(dir: &Path) -> u8 {
    // Where there are no such names it looks all the same.
    let Some(_turn) = turn(dir) else { return 0 };
    // Who asked may be gone by now, and then nobody is to be told.
    let _ = say(&storage(dir).map_err(|error| error.to_string()));
    let written = match flushes(dir) {
        Ok(spread) => Written::Took(spread),
        Err(error) => match error.kind() {
            ErrorKind::PermissionDenied => Written::Denied,
            ErrorKind::NotFound => Written::Missing,
            _ => Written::Failed(error.to_string()),
        },
    };
    let _ = say(&written);
    0
}

fn say(what: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(what)? + "\n";
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// A file that is gone when this is dropped.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(dir: &Path) -> io::Result<Temporary> {
        let path = dir.join(format!(".baton-doctor.{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Temporary { file, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing else can be done about it, and the file is small.
        let _ = fs::remove_file(&self.path);
    }
}

/// How long a page takes to be on the disk that has `dir`.
fn flushes(dir: &Path) -> io::Result<Option<Spread>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    let mut temporary = Temporary::create(dir)?;
    while times.len() < FLUSHES && begun.elapsed() < FLUSH_LIMIT {
        let start = Instant::now();
        temporary.file.write_all(&PAGE)?;
        temporary.file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Spread::of(times))
}

/// The storage directory; if it is not there yet, what it will be made in.
fn storage(dir: &Path) -> io::Result<Storage> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    let (space, kind) = (statvfs(there)?, statfs(there)?.f_type as u64);
    let (exists, metadata) = (absolute.exists(), fs::metadata(there)?);
    let owner = metadata.uid();
    Ok(Storage {
        dir: dir.to_owned(),
        exists,
        foreign: Some(owner).filter(|owner| ![0, geteuid().as_raw()].contains(owner)),
        writable: access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        mode: metadata.permissions().mode() & 0o7777,
        used: if exists { used(&absolute) } else { 0 },
        free: space.f_bavail.saturating_mul(space.f_frsize),
        size: space.f_blocks.saturating_mul(space.f_frsize),
        free_inodes: space.f_favail,
        inodes: space.f_files,
        medium: match kind & 0xffff_ffff {
            TMPFS => Some("tmpfs".into()),
            OVERLAY => Some("overlay".into()),
            NFS => Some("nfs".into()),
            _ => None,
        },
    })
}

/// Bytes that the files of a directory take up; those that may not be looked at are not counted.
fn used(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries
        .take(MAX_FILES)
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file);
    files.map(|file| file.blocks().saturating_mul(512)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let spread = flushes(dir.path()).unwrap().unwrap();
        assert!(spread.count >= 1 && spread.worst_ms >= spread.median_ms);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(flushes(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_directory_to_come_is_judged_by_what_it_will_be_in() {
        let dir = tempfile::tempdir().unwrap();
        let to_come = storage(&dir.path().join("x/y")).unwrap();
        assert!(
            !to_come.exists && to_come.writable && to_come.free > 0,
            "{to_come:?}"
        );
        assert!(to_come.size >= to_come.free && to_come.used == 0, "{to_come:?}");
        fs::write(dir.path().join("file"), [1; 10_000]).unwrap();
        assert!(storage(dir.path()).unwrap().used >= 8192);
    }

    #[test]
    fn what_is_said_is_understood() {
        let said = "{\"Took\":null}\n{\"Failed\":\"x\"}\nnonsense\n";
        let mut said = BufReader::new(said.as_bytes());
        assert!(matches!(next(&mut said), Some(Written::Took(None))));
        assert!(matches!(next(&mut said), Some(Written::Failed(_))));
        assert!(next::<Written>(&mut said).is_none() && next::<Written>(&mut said).is_none());
    }
}
