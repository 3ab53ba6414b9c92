//! The files under the store: a directory of the operating system in production, a simulated disk in the tests of
//! [`crate::simulation`]. What is flushed when is decided above, by the same code on both.

use super::net::Later;
use baton_shared::clock::wall_ms;
use redb::{Builder, Database, DatabaseError};
use rustix::fs::FlockOperation;
use std::fmt::{Debug, Display};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

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
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: &Path) -> Directory {
        Directory(path.to_owned())
    }
}

impl Display for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Display::fmt(&self.0.display(), f)
    }
}

impl Folder for Directory {
    fn lock(&self) -> io::Result<Option<Lock>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.0.join(LOCK))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        self.0.join(name).try_exists()
    }

    fn open(&self, name: &str, how: How) -> io::Result<Box<dyn Blob>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(how == How::Emptied)
            .truncate(how == How::Emptied)
            .create_new(how == How::New)
            .mode(0o600)
            .open(self.0.join(name))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn database(&self, name: &str, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create(self.0.join(name))
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
