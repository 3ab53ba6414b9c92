//! The files under the store: a directory of the operating system in production, a simulated disk in the tests of
//! [`crate::simulation`]. What is flushed when is decided above, by the same code on both.

use super::net::Later;
use crate::data_dir::DataDir;
use baton_shared::clock::wall_ms;
use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, StorageError};
use rustix::fs::{FlockOperation, OFlags};
use std::fmt::{Debug, Display};
use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const LOCK: &str = "lock";

/// A directory; files are named without a path. Its `Display` is for messages.
pub trait Folder: Debug + Display + Send + Sync {
    /// Makes it if need be, and takes it for this process alone until the result is dropped; `None` if it is in use.
    fn lock(&self) -> io::Result<Option<Lock>>;

    /// Whether there is such a file.
    fn has(&self, name: &str) -> io::Result<bool>;

    /// Opens a file for reading and writing.
    fn open(&self, name: &str, how: How) -> io::Result<Box<dyn Blob>>;

    /// Renames a file, in place of one that was there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Returns when names are on disk.
    fn sync(&self) -> io::Result<()>;

    /// Opens the database in a file, which is made if need be.
    fn database(&self, name: &str, builder: &Builder) -> Result<Database, DatabaseError>;

    /// The wall clock, Unix milliseconds: for boots, and for names of files.
    fn wall_ms(&self) -> u64;

    /// How long ago anything in it was last written, if that can be told: for people.
    fn last_write(&self) -> Option<Duration> {
        None
    }

    /// Runs what may wait for the disk away from the tasks that must not. What is cut off is dropped.
    fn aside(&self, work: Work) -> Later<'_, ()>;
}

/// Holds a folder for this process.
pub type Lock = Box<dyn Send>;
/// What may wait for the disk.
pub type Work = Box<dyn FnOnce() + Send>;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It must be there.
    Existing,
    /// It must not be there yet.
    New,
    /// Made if need be, and emptied.
    Emptied,
}

/// An open file, read and written at offsets in bytes.
pub trait Blob: Debug + Send + Sync {
    /// Fills `buffer`, or fails.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `text`.
    fn write(&self, text: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when what was written is on disk.
    fn sync_data(&self) -> io::Result<()>;
    /// Returns when what was written, and the file's length, are on disk.
    fn sync_all(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// From the first use on.
    open: OnceLock<DataDir>,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Directory {
        Directory {
            path: path.to_owned(),
            open: OnceLock::new(),
        }
    }

    /// Made if need be.
    fn dir(&self) -> io::Result<&DataDir> {
        if let Some(dir) = self.open.get() {
            return Ok(dir);
        }
        let made = DataDir::make(&self.path)?;
        Ok(self.open.get_or_init(|| made))
    }
}

impl Display for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.path.display(), f)
    }
}

impl Folder for Directory {
    fn lock(&self) -> io::Result<Option<Lock>> {
        let file = self.dir()?.file(LOCK, OFlags::RDWR | OFlags::CREATE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        self.dir()?.has(name)
    }

    fn last_write(&self) -> Option<Duration> {
        let written = |entry: io::Result<DirEntry>| entry.ok()?.metadata().ok()?.modified().ok();
        let newest = fs::read_dir(&self.path).ok()?.filter_map(written).max()?;
        newest.elapsed().ok()
    }

    fn open(&self, name: &str, how: How) -> io::Result<Box<dyn Blob>> {
        let dir = self.dir()?;
        let file = match how {
            How::Existing => dir.file(name, OFlags::RDWR)?,
            How::New => dir.file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?,
            How::Emptied => dir.emptied(name)?,
        };
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir()?.rename(from, to)
    }

    fn sync(&self) -> io::Result<()> {
        self.dir()?.sync()
    }

    fn database(&self, name: &str, builder: &Builder) -> Result<Database, DatabaseError> {
        let open = || self.dir()?.file(name, OFlags::RDWR | OFlags::CREATE);
        let file = open().map_err(StorageError::Io)?;
        builder.create_with_backend(FileBackend::new(file)?)
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }

    fn aside(&self, work: Work) -> Later<'_, ()> {
        on_a_thread(work)
    }
}

/// Runs `work` on a thread for blocking work.
pub(super) fn on_a_thread(work: Work) -> Later<'static, ()> {
    Box::pin(async {
        // Whoever waits for what the work gives learns from its absence that it was cut off.
        let _ = tokio::task::spawn_blocking(work).await;
    })
}

impl Blob for File {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write(&self, text: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(text, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }
}
