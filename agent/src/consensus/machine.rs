//! The replicated state as the engine applies it: in memory, on disk after each apply, and told to the core.
//!
//! Invariant: a state is on disk before anyone hears of it, so what was applied is never rolled back (DESIGN §5).

use super::disk::{Disk, Failure, decode, encode};
use super::engine::{Peer, Types};
use baton_core::{Outcome, State};
use baton_shared::clock::wall_ms;
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta,
    StorageError, StorageIOError, StoredMembership,
};
use serde::{Deserialize, Serialize};
use std::io::Cursor;
use std::sync::Arc;
use tokio::sync::watch;

const APPLIED: &str = "applied";
const SNAPSHOT: &str = "snapshot";

/// The state, and how far it is.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId<u64>>,
    membership: StoredMembership<u64, Peer>,
    state: Arc<State>,
}

/// The newest snapshot, as it is kept and sent.
#[derive(Serialize, Deserialize)]
struct Kept {
    meta: SnapshotMeta<u64, Peer>,
    text: Vec<u8>,
}

/// What the core is told: the state and the index of its last entry.
pub(super) type Learned = (Arc<State>, u64);

/// The state machine.
pub(super) struct Machine {
    disk: Arc<Disk>,
    applied: Applied,
    learned: watch::Sender<Learned>,
}

/// Takes one consistent state.
pub(super) struct Taker {
    disk: Arc<Disk>,
    applied: Applied,
}

type Fault = StorageError<u64>;

fn fault(failure: Failure) -> Fault {
    StorageIOError::write_state_machine(AnyError::error(failure)).into()
}

impl Machine {
    /// Begins with what is on disk.
    pub(super) fn open(disk: Arc<Disk>) -> Result<(Machine, watch::Receiver<Learned>), Failure> {
        let applied: Applied = disk.get(APPLIED)?.unwrap_or_default();
        let (learned, hears) = watch::channel(applied.learned());
        let machine = Machine {
            disk,
            applied,
            learned,
        };
        Ok((machine, hears))
    }

    async fn keep(&mut self, applied: Applied, snapshot: Option<Vec<u8>>) -> Result<(), Failure> {
        let disk = self.disk.clone();
        let mut values = vec![(APPLIED, encode(&applied)?)];
        values.extend(snapshot.map(|text| (SNAPSHOT, text)));
        self.disk.aside(move || disk.put(&values)).await?;
        self.learned.send_replace(applied.learned());
        self.applied = applied;
        Ok(())
    }
}

impl Applied {
    fn learned(&self) -> Learned {
        (self.state.clone(), self.last.map_or(0, |last| last.index))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Taker;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, Peer>), Fault> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut next = self.applied.clone();
        let mut outcomes = Vec::new();
        for entry in entries {
            next.last = Some(entry.log_id);
            outcomes.push(match entry.payload {
                EntryPayload::Blank => Outcome::Applied,
                EntryPayload::Normal(command) => Arc::make_mut(&mut next.state).apply(&command),
                EntryPayload::Membership(membership) => {
                    next.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Outcome::Applied
                }
            });
        }
        self.keep(next, None).await.map_err(fault)?;
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Taker {
        Taker {
            disk: self.disk.clone(),
            applied: self.applied.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Fault> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, Peer>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Fault> {
        let text = snapshot.into_inner();
        let applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            state: Arc::new(decode(&text).map_err(fault)?),
        };
        let meta = meta.clone();
        let kept = encode(&Kept { meta, text }).map_err(fault)?;
        self.keep(applied, Some(kept)).await.map_err(fault)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Fault> {
        let kept: Option<Kept> = self.disk.get(SNAPSHOT).map_err(fault)?;
        Ok(kept.map(|kept| Snapshot {
            meta: kept.meta,
            snapshot: Box::new(Cursor::new(kept.text)),
        }))
    }
}

impl RaftSnapshotBuilder<Types> for Taker {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Fault> {
        let last = self.applied.last;
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: self.applied.membership.clone(),
            snapshot_id: format!("{}-{}", last.map_or(0, |last| last.index), wall_ms()),
        };
        let text = encode(&self.applied.state).map_err(fault)?;
        let kept = encode(&Kept {
            meta: meta.clone(),
            text: text.clone(),
        })
        .map_err(fault)?;
        let disk = self.disk.clone();
        self.disk
            .aside(move || disk.put(&[(SNAPSHOT, kept)]))
            .await
            .map_err(fault)?;
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::LogStore;
    use super::super::store::Store;
    use super::*;
    use openraft::testing::{StoreBuilder, Suite};

    struct InMemory;
    struct OnDisk;

    fn parts(store: &Store) -> (LogStore, Machine) {
        let (machine, _) = Machine::open(store.disk()).unwrap();
        (LogStore::new(store.disk()), machine)
    }

    impl StoreBuilder<Types, LogStore, Machine, Arc<Store>> for InMemory {
        async fn build(&self) -> Result<(Arc<Store>, LogStore, Machine), Fault> {
            let store = Store::open(None).map_err(fault)?;
            let (log, machine) = parts(&store);
            Ok((store, log, machine))
        }
    }

    impl StoreBuilder<Types, LogStore, Machine, (Arc<Store>, tempfile::TempDir)> for OnDisk {
        async fn build(&self) -> Result<((Arc<Store>, tempfile::TempDir), LogStore, Machine), Fault> {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(Some(dir.path())).map_err(fault)?;
            let (log, machine) = parts(&store);
            Ok(((store, dir), log, machine))
        }
    }

    #[test]
    fn the_engines_own_suite_passes_in_memory() {
        Suite::test_all(InMemory).unwrap();
    }

    #[test]
    fn the_engines_own_suite_passes_on_disk() {
        Suite::test_all(OnDisk).unwrap();
    }
}
