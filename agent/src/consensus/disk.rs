//! The engine's database: log, vote, applied state, snapshot. One redb file, or the same in memory.
//!
//! Every write is one transaction and is flushed before it returns. Other records (identity, promises) are elsewhere, so
//! that nothing here ever delays them.

use super::folder::{Folder, How, on_a_thread};
use super::progress::Progress;
use super::record::Unusable;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, RwLock};
use tokio::sync::oneshot;

/// Entries by index.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Everything else by name.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Whose database this is; it ties the file to the identity beside it.
const NODE: &str = "node";
/// Version of what the tables hold.
const FORM: &str = "form";
const FORM_NOW: u32 = 2;
/// The whole of it fits: the log is cut at every snapshot.
const CACHE: usize = 16 << 20;

/// The database, until it is closed.
pub(super) struct Disk {
    database: RwLock<Option<Database>>,
    /// Where overridden entries are saved; `None` in memory.
    pub(super) folder: Option<Arc<dyn Folder>>,
    /// How far writes are, those beside the database too.
    pub(super) progress: Arc<Progress>,
}

/// Why a read or write failed, in a sentence.
pub(super) type Failure = String;

fn says(error: impl Into<redb::Error>) -> Failure {
    error.into().to_string()
}

impl Disk {
    /// A database in memory, for `node`.
    pub(super) fn in_memory(node: u64) -> Result<Arc<Disk>, Failure> {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(says)?;
        let disk = Disk {
            database: RwLock::new(Some(database)),
            folder: None,
            progress: Arc::default(),
        };
        disk.found(node)?;
        Ok(Arc::new(disk))
    }

    /// A new database in the file `name`, for `node`.
    pub(super) fn create(folder: &Arc<dyn Folder>, name: &str, node: u64) -> Result<Arc<Disk>, Unusable> {
        folder.open(name, How::New)?;
        let disk = Disk::at(folder, name)?;
        disk.found(node)
            .map_err(|failure| Unusable::Io(std::io::Error::other(failure)))?;
        Ok(Arc::new(disk))
    }

    /// The database in the file `name`, which must be that of `node`. Every page is checked.
    pub(super) fn open(folder: &Arc<dyn Folder>, name: &str, node: u64) -> Result<Arc<Disk>, Unusable> {
        // redb's own assertions panic on some damaged files where its release build returns an error.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let disk = Disk::at(folder, name)?;
            let form: Option<u32> = disk.get(FORM).map_err(Unusable::Corrupt)?;
            let owner: Option<u64> = disk.get(NODE).map_err(Unusable::Corrupt)?;
            match (form, owner) {
                (Some(FORM_NOW), Some(owner)) if owner == node => Ok(Arc::new(disk)),
                (Some(form), _) if form != FORM_NOW => Err(Unusable::Version),
                _ => Err(Unusable::Corrupt("it is not this node's database".into())),
            }
        }));
        opened.unwrap_or_else(|_| Err(Unusable::Corrupt("the database is damaged".into())))
    }

    fn at(folder: &Arc<dyn Folder>, name: &str) -> Result<Disk, Unusable> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
        let database = folder.database(name, &builder).map_err(unusable)?;
        Ok(Disk {
            database: RwLock::new(Some(database)),
            folder: Some(folder.clone()),
            progress: Arc::default(),
        })
    }

    fn found(&self, node: u64) -> Result<(), Failure> {
        let (form, node) = (encode(&FORM_NOW)?, encode(&node)?);
        self.write(|transaction| {
            transaction.open_table(LOG)?;
            let mut meta = transaction.open_table(META)?;
            meta.insert(FORM, form.as_slice())?;
            meta.insert(NODE, node.as_slice())?;
            Ok(())
        })
    }

    /// One transaction, flushed when this returns.
    pub(super) fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Failure> {
        self.with(|database| {
            let mut transaction = database.begin_write().map_err(says)?;
            // Written in one phase, a commit that rotted on the disk cannot be told from one that a crash had torn: at the next
            // start it would be rolled back without a word, though it had been acknowledged. In two phases it is damage, and said.
            transaction.set_two_phase_commit(true);
            change(&transaction).map_err(says)?;
            transaction.commit().map_err(says)
        })
    }

    /// A consistent look.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Failure> {
        self.with(|database| look(&database.begin_read().map_err(says)?).map_err(says))
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, Failure> {
        let database = self.database.read().unwrap_or_else(|e| e.into_inner());
        act(database.as_ref().ok_or("the storage is closed")?)
    }

    /// One value by its name.
    pub(super) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let bytes = self.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(name)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    /// Replaces values by their names, all or none.
    pub(super) fn put(&self, values: &[(&str, Vec<u8>)]) -> Result<(), Failure> {
        self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            for (name, value) in values {
                meta.insert(*name, value.as_slice())?;
            }
            Ok(())
        })
    }

    /// Runs a write, which may wait for the disk, away from the tasks that must not. It is under way until it has run, whoever still waits.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (tell, told) = oneshot::channel();
        let under_way = self.progress.begin();
        let work = Box::new(move || {
            let result = act();
            match &result {
                Ok(_) => under_way.completed(),
                Err(_) => drop(under_way),
            }
            drop(tell.send(result)); // dropped: nobody waits any more
        });
        match &self.folder {
            Some(folder) => folder.aside(work).await,
            None => on_a_thread(work).await,
        }
        told.await
            .unwrap_or_else(|_| Err("a disk operation was cut off".into()))
    }

    /// Waits for what is under way, and closes the file.
    pub(super) fn close(&self) {
        *self.database.write().unwrap_or_else(|e| e.into_inner()) = None;
    }
}

fn unusable(error: DatabaseError) -> Unusable {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) => error.into(),
        DatabaseError::UpgradeRequired(_) => Unusable::Version,
        DatabaseError::Storage(StorageError::Corrupted(why)) => Unusable::Corrupt(why),
        DatabaseError::RepairAborted => Unusable::Corrupt(error.to_string()),
        other => Unusable::Io(std::io::Error::other(other.to_string())),
    }
}

/// To bytes.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    postcard::to_stdvec(value).map_err(|error| format!("a record cannot be written: {error}"))
}

/// From bytes; nothing may be left over.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err("a record is longer than it should be".into()),
        Err(error) => Err(format!("a record cannot be read: {error}")),
    }
}
