//! The engine's log and vote on disk.
//!
//! Invariant: what is acknowledged is flushed; what the cluster overrides is saved beside the store before it is cut.

use super::disk::{Disk, Failure, LOG, META, decode, encode};
use super::engine::Types;
use super::folder::{Blob, Folder, How};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    AnyError, Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader, StorageError,
    StorageIOError, Vote,
};
use redb::ReadableTable;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

const VOTE: &str = "vote";
const PURGED: &str = "purged";
/// Bytes of entries in one message at most (the first entry always goes); well below the largest frame.
const MAX_BATCH: usize = 4 << 20;

/// Log and vote.
#[derive(Clone)]
pub(super) struct LogStore {
    disk: Arc<Disk>,
}

type Fault = StorageError<u64>;

fn read_fault(failure: Failure) -> Fault {
    StorageIOError::read_logs(AnyError::error(failure)).into()
}

fn write_fault(failure: Failure) -> Fault {
    StorageIOError::write_logs(AnyError::error(failure)).into()
}

impl LogStore {
    pub(super) fn new(disk: Arc<Disk>) -> LogStore {
        LogStore { disk }
    }

    fn entries(
        &self,
        range: (Bound<u64>, Bound<u64>),
        max_bytes: usize,
    ) -> Result<Vec<Entry<Types>>, Failure> {
        let mut texts = Vec::new();
        self.disk.read(|transaction| {
            let log = transaction.open_table(LOG)?;
            let mut bytes = 0;
            for entry in log.range::<u64>(range)? {
                let text = entry?.1.value().to_vec();
                bytes += text.len();
                if bytes > max_bytes && !texts.is_empty() {
                    break;
                }
                texts.push(text);
            }
            Ok(())
        })?;
        texts.iter().map(|text| decode(text)).collect()
    }

    fn last(&self) -> Result<Option<LogId<u64>>, Failure> {
        let text = self.disk.read(|transaction| {
            let log = transaction.open_table(LOG)?;
            Ok(log.last()?.map(|(_, text)| text.value().to_vec()))
        })?;
        let entry: Option<Entry<Types>> = text.map(|text| decode(&text)).transpose()?;
        Ok(entry.map(|entry| entry.log_id))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry<Types>>, Fault> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.entries(range, usize::MAX).map_err(read_fault)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<Types>>, Fault> {
        self.entries((Bound::Included(start), Bound::Excluded(end)), MAX_BATCH)
            .map_err(read_fault)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Fault> {
        let purged: Option<LogId<u64>> = self.disk.get(PURGED).map_err(read_fault)?;
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: self.last().map_err(read_fault)?.or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Fault> {
        let fault = |failure: Failure| Fault::from(StorageIOError::write_vote(AnyError::error(failure)));
        let text = encode(vote).map_err(fault)?;
        let disk = self.disk.clone();
        let put = move || disk.put(&[(VOTE, text)]);
        self.disk.aside(put).await.map_err(fault)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Fault> {
        self.disk
            .get(VOTE)
            .map_err(|failure| StorageIOError::read_vote(AnyError::error(failure)).into())
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Result<(), Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let texts = entries
            .into_iter()
            .map(|entry| Ok((entry.log_id.index, encode(&entry)?)))
            .collect::<Result<Vec<_>, Failure>>();
        let disk = self.disk.clone();
        let write = move || {
            let texts = texts?;
            disk.write(|transaction| {
                let mut log = transaction.open_table(LOG)?;
                for (index, text) in &texts {
                    log.insert(index, text.as_slice())?;
                }
                Ok(())
            })
        };
        let result = self.disk.aside(write).await;
        flushed.log_io_completed(result.clone().map_err(std::io::Error::other));
        result.map_err(write_fault)
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Result<(), Fault> {
        let this = self.clone();
        let range = (Bound::Included(from.index), Bound::Unbounded);
        let cut = move || {
            if let Some(folder) = &this.disk.folder {
                save_overridden(&**folder, &this.entries(range, usize::MAX)?)?;
            }
            this.disk.write(|transaction| {
                transaction.open_table(LOG)?.retain_in(range, |_, _| false)?;
                Ok(())
            })
        };
        self.disk.aside(cut).await.map_err(write_fault)
    }

    async fn purge(&mut self, upto: LogId<u64>) -> Result<(), Fault> {
        let disk = self.disk.clone();
        let cut = move || {
            let text = encode(&upto)?;
            disk.write(|transaction| {
                transaction.open_table(META)?.insert(PURGED, text.as_slice())?;
                transaction
                    .open_table(LOG)?
                    .retain_in(..=upto.index, |_, _| false)?;
                Ok(())
            })
        };
        self.disk.aside(cut).await.map_err(write_fault)
    }
}

/// Writes the entries to `overridden-<Unix ms>.json`, for a person to read. An entry without content is not worth it.
fn save_overridden(folder: &dyn Folder, entries: &[Entry<Types>]) -> Result<(), Failure> {
    if entries
        .iter()
        .all(|entry| matches!(entry.payload, EntryPayload::Blank))
    {
        return Ok(());
    }
    let (name, file) = new_file(folder).map_err(|error| format!("{folder}: {error}"))?;
    let text = serde_json::to_vec_pretty(entries).map_err(|error| error.to_string())?;
    file.write(&text, 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| folder.sync())
        .map_err(|error| format!("{folder}/{name}: {error}"))?;
    tracing::warn!(
        "{} changes that were recorded here alone never came into force, for the other nodes went on without this one; nothing is to be \
         done. For the curious they are in {folder}/{name}",
        entries.len(),
    );
    Ok(())
}

/// A file that was not there before.
fn new_file(folder: &dyn Folder) -> std::io::Result<(String, Box<dyn Blob>)> {
    let mut stamp = folder.wall_ms();
    loop {
        let name = format!("overridden-{stamp}.json");
        match folder.open(&name, How::New) {
            Ok(file) => return Ok((name, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => stamp += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;
    use baton_core::Command;
    use openraft::CommittedLeaderId;
    use openraft::storage::RaftLogStorageExt;

    fn entry(index: u64, payload: EntryPayload<Types>) -> Entry<Types> {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload,
        }
    }

    #[tokio::test]
    async fn an_overridden_tail_is_saved_before_it_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        let mut log = LogStore::new(store.disk());
        let entries = [
            entry(1, EntryPayload::Blank),
            entry(2, EntryPayload::Normal(Command::Pause(true))),
            entry(3, EntryPayload::Blank),
        ];
        log.blocking_append(entries.clone()).await.unwrap();
        let saved = || -> Vec<String> {
            std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.to_string_lossy().contains("overridden-"))
                .map(|path| std::fs::read_to_string(path).unwrap())
                .collect()
        };
        log.truncate(entries[2].log_id).await.unwrap();
        assert!(saved().is_empty(), "a blank entry is nothing lost");
        log.truncate(entries[1].log_id).await.unwrap();
        assert!(saved().len() == 1 && saved()[0].contains("Pause"));
        let left = log.try_get_log_entries(0..10).await.unwrap();
        assert_eq!(left, entries[..1]);
    }
}
