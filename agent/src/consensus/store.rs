//! The node's storage: who it is, what it promised, and the engine's database.
//!
//! Three files, so that none delays another: `identity` and `promises` (small records) and `raft.redb`. They belong
//! together: each names the node, and if one is lost or damaged all three are moved aside and the node starts as a new
//! one (V7). Nothing is ever deleted.

use super::Identity;
use super::disk::{Disk, decode, encode};
use super::folder::{Blob, Directory, Folder, How, Lock};
use super::pledge::{Card, No, Pledge};
use super::progress::Progress;
use super::record::{Record, Unusable};
use crate::data_dir::Untrusted;
use baton_core::Durable;
use baton_shared::clock::wall_ms;
use baton_shared::id::{Boot, ClusterId, NodeId};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const IDENTITY: &str = "identity";
const PROMISES: &str = "promises";
const DATABASE: &str = "raft.redb";
/// Written when nothing else is, to see whether the disk answers. Its contents mean nothing.
const PROBE: &str = "probe";
/// There once the identity is another run's (V7): the last boot that had it here.
const SUPERSEDED: &str = "superseded";

/// The node's storage: identity, promises, log, votes, applied state. On disk, or in memory.
pub struct Store {
    card: Mutex<Kept<Card>>,
    promises: Mutex<Kept<Promises>>,
    disk: Arc<Disk>,
    lock: Mutex<Option<Lock>>,
    /// Where it all is; `None` in memory.
    folder: Option<Arc<dyn Folder>>,
    /// How long ago somebody had last written here when this was opened.
    last_write: Option<Duration>,
    /// The identity is another run's.
    superseded: AtomicBool,
    /// The file for probes, once it is open, and how many were written.
    probe: Mutex<(Option<Box<dyn Blob>>, u64)>,
}

/// A value, and where it is kept.
struct Kept<T> {
    value: T,
    place: Place,
}

enum Place {
    Memory,
    Disk(Record),
    Closed,
}

/// What the voter must not forget, and whose it is.
#[derive(Clone, Serialize, Deserialize)]
struct Promises {
    node: NodeId,
    durable: Durable,
}

impl<T: Serialize> Kept<T> {
    /// Replaces the value; on disk before it counts.
    fn keep(&mut self, value: T) -> Result<(), String> {
        match &mut self.place {
            Place::Memory => {}
            Place::Disk(record) => record
                .save(&encode(&value)?)
                .map_err(|error| unwritable(&error))?,
            Place::Closed => return Err("the storage is closed".into()),
        }
        self.value = value;
        Ok(())
    }

    /// Waits until all that is on its way is on disk, so that the next `keep` need not.
    fn settle(&mut self) -> Result<(), String> {
        match &mut self.place {
            Place::Disk(record) => record.settle().map_err(|error| unwritable(&error)),
            Place::Memory | Place::Closed => Ok(()),
        }
    }
}

fn unwritable(error: &io::Error) -> String {
    format!(
        "the data directory could not be written: {error}; {}",
        remedy(error)
    )
}

impl Store {
    /// Opens (and locks) the directory, or starts in memory. The error is one line that says what to do.
    pub fn open(dir: Option<&Path>) -> Result<Arc<Store>, String> {
        match dir {
            Some(dir) => Store::on(Arc::new(Directory::new(dir))),
            None => Store::in_memory(),
        }
    }

    fn in_memory() -> Result<Arc<Store>, String> {
        let card = Card::fresh(draw()?, next_boot(Boot(0), wall_ms())?);
        let node = card.node;
        Ok(Arc::new(Store {
            disk: Disk::in_memory(node.0)?,
            card: Mutex::new(Kept {
                value: card,
                place: Place::Memory,
            }),
            promises: Mutex::new(Kept {
                value: Promises {
                    node,
                    durable: Durable::default(),
                },
                place: Place::Memory,
            }),
            lock: Mutex::default(),
            folder: None,
            last_write: None,
            superseded: AtomicBool::default(),
            probe: Mutex::default(),
        }))
    }

    /// Opens (and locks) a folder; see [`Store::open`].
    pub(crate) fn on(folder: Arc<dyn Folder>) -> Result<Arc<Store>, String> {
        let last_write = folder.last_write(); // before this run writes there
        let lock = lock(&*folder)?;
        let mut store = match load(&folder) {
            Ok(store) => store,
            Err(Unusable::Superseded) => {
                move_aside(&*folder, SUPERSEDED).map_err(|error| advice(&*folder, &error))?;
                tracing::warn!(
                    "the consensus id in the data directory {folder} is another process's by now; its files were moved aside as \
                     *.superseded-*, and this node joins its cluster again as a new one"
                );
                create(&folder).map_err(|trouble| stop(&*folder, trouble))?
            }
            Err(Unusable::Corrupt(why)) => {
                move_aside(&*folder, "corrupt").map_err(|error| advice(&*folder, &error))?;
                tracing::warn!(
                    "the data directory {folder} is damaged ({why}); its files were moved aside as *.corrupt-*, and this node joins its \
                     cluster again as an empty one"
                );
                create(&folder).map_err(|trouble| stop(&*folder, trouble))?
            }
            Err(trouble) => return Err(stop(&*folder, trouble)),
        };
        *store.lock.lock().unwrap_or_else(|e| e.into_inner()) = Some(lock);
        (store.folder, store.last_write) = (Some(folder), last_write);
        Ok(Arc::new(store))
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        let card = &self.card().value;
        Identity {
            node: card.node,
            boot: card.boot,
            cluster: card.cluster,
            last_write: self.last_write,
        }
    }

    /// What the voter's disk remembers.
    pub fn durable(&self) -> Durable {
        self.promises().value.durable.clone()
    }

    /// Puts it on disk; returns when it is there. Blocks: called on the flush thread.
    pub fn save_durable(&self, durable: &Durable) -> Result<(), String> {
        let under_way = self.disk.progress.begin();
        let mut promises = self.promises();
        let node = promises.value.node;
        promises.keep(Promises {
            node,
            durable: durable.clone(),
        })?;
        under_way.completed();
        Ok(())
    }

    /// How far the writes are: of promises and of the engine's database. Whoever writes a probe counts it there.
    pub fn progress(&self) -> Arc<Progress> {
        self.disk.progress.clone()
    }

    /// Writes something small, and returns when it is on disk. Blocks. Nothing is written in memory, or after the end.
    pub fn probe(&self) -> Result<(), String> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        if matches!(self.card().place, Place::Closed) {
            return Ok(());
        }
        let mut probe = self.probe.lock().unwrap_or_else(|e| e.into_inner());
        let (file, number) = &mut *probe;
        *number += 1;
        let opened = match file.take() {
            Some(file) => Ok(file),
            None => folder.open(PROBE, How::Emptied),
        };
        let written = opened.and_then(|opened| {
            opened.write(&number.to_be_bytes(), 0)?;
            opened.sync_data()?;
            *file = Some(opened);
            Ok(())
        });
        written.map_err(|error| unwritable(&error))
    }

    /// In quiet time, after a save was told of: makes the next one quicker. Blocks as that does.
    pub fn settle_durable(&self) -> Result<(), String> {
        self.promises().settle()
    }

    /// The engine's database.
    pub(super) fn disk(&self) -> Arc<Disk> {
        self.disk.clone()
    }

    /// Remembers that the identity is another run's by now: the next to be opened here is new. Blocks.
    pub(super) fn superseded(&self) -> Result<(), String> {
        self.superseded.store(true, Relaxed);
        let Some(folder) = &self.folder else {
            return Ok(()); // what is in memory is not opened again
        };
        let boot = self.card().value.boot;
        let note = || {
            let file = folder.open(SUPERSEDED, How::Emptied)?;
            file.write(&boot.0.to_be_bytes(), 0)?;
            file.sync_all()?;
            folder.sync()
        };
        note().map_err(|error| unwritable(&error))
    }

    /// Whether that was remembered.
    pub(super) fn is_superseded(&self) -> bool {
        self.superseded.load(Relaxed)
    }

    /// What this node has said yes to.
    pub(super) fn pledge(&self) -> Option<Pledge> {
        self.card().value.pledge.clone()
    }

    /// Lets a fresh node into `cluster`, durably. True if it is (now) of that cluster.
    pub(super) fn join(&self, cluster: ClusterId) -> Result<bool, String> {
        let mut card = self.card();
        if card.value.cluster == ClusterId(0) && cluster != ClusterId(0) {
            let joined = Card {
                cluster,
                ..card.value.clone()
            };
            card.keep(joined)?;
        }
        Ok(card.value.cluster == cluster)
    }

    /// Says yes to `pledge`, durably, or says why not.
    pub(super) fn promise(&self, pledge: Pledge) -> Result<(), No> {
        let mut card = self.card();
        let promised = card.value.promise(pledge)?;
        card.keep(promised).map_err(No::Failed)
    }

    /// What this node asks the others for as initialiser, durably recorded before it is asked.
    pub(super) fn found(&self, members: super::pledge::Members) -> Result<Pledge, No> {
        let fresh = draw().map_err(No::Failed)?;
        let mut card = self.card();
        let founding = card.value.found(ClusterId(fresh), members)?;
        let pledge = founding.pledge.clone();
        card.keep(founding).map_err(No::Failed)?;
        pledge.ok_or_else(|| No::Failed("nothing was recorded".into()))
    }

    /// Closes every file and lets go of the directory.
    pub(super) fn close(&self) {
        self.disk.close();
        if matches!(self.card().place, Place::Disk(_)) {
            self.card().place = Place::Closed;
            self.promises().place = Place::Closed;
        }
        *self.lock.lock().unwrap_or_else(|e| e.into_inner()) = None;
    }

    fn card(&self) -> MutexGuard<'_, Kept<Card>> {
        self.card.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn promises(&self) -> MutexGuard<'_, Kept<Promises>> {
        self.promises.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Takes the directory for this process alone; makes it if need be.
fn lock(folder: &dyn Folder) -> Result<Lock, String> {
    match folder.lock() {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(format!(
            "data directory {folder} is in use by another baton process; stop that one, or give this node its own [storage] dir"
        )),
        Err(error) => Err(advice(folder, &error)),
    }
}

/// Opens what is there, or makes it all; the new boot is on disk before this returns.
fn load(folder: &Arc<dyn Folder>) -> Result<Store, Unusable> {
    let files = [IDENTITY, PROMISES, DATABASE];
    let mut missing = Vec::new();
    for name in files {
        if !folder.has(name)? {
            missing.push(name);
        }
    }
    if missing.len() == files.len() {
        return create(folder);
    }
    if !missing.is_empty() {
        return Err(Unusable::Corrupt(format!("{} is missing", missing.join(" and "))));
    }
    let (identity, text) = Record::open(&**folder, IDENTITY).map_err(named(IDENTITY))?;
    let mut card: Card = decode(&text)
        .map_err(Unusable::Corrupt)
        .map_err(named(IDENTITY))?;
    if is_superseded(&**folder, card.boot)? {
        return Err(Unusable::Superseded);
    }
    let (record, text) = Record::open(&**folder, PROMISES).map_err(named(PROMISES))?;
    let promises: Promises = decode(&text)
        .map_err(Unusable::Corrupt)
        .map_err(named(PROMISES))?;
    if promises.node != card.node {
        return Err(Unusable::Corrupt("promises are another node's".into()));
    }
    let disk = Disk::open(folder, DATABASE, card.node.0).map_err(named(DATABASE))?;
    card.boot = next_boot(card.boot, folder.wall_ms()).map_err(failed)?;
    assemble(card, identity, promises, record, disk)
}

/// Whether the run of this boot was superseded. A directory on the network may be the later run's as well: its boot is a later one, too.
fn is_superseded(folder: &dyn Folder, boot: Boot) -> io::Result<bool> {
    if !folder.has(SUPERSEDED)? {
        return Ok(false);
    }
    let mut superseded = [0xff; 8];
    let whole = folder.open(SUPERSEDED, How::Existing)?.read(&mut superseded, 0);
    Ok(whole.is_err() || boot.0 <= u64::from_be_bytes(superseded))
}

/// Makes the files of a new node; the identity last, because without it the others count for nothing.
fn create(folder: &Arc<dyn Folder>) -> Result<Store, Unusable> {
    let card = Card::fresh(
        draw().map_err(failed)?,
        next_boot(Boot(0), folder.wall_ms()).map_err(failed)?,
    );
    let promises = Promises {
        node: card.node,
        durable: Durable::default(),
    };
    let disk = Disk::create(folder, DATABASE, card.node.0)?;
    let record = Record::create(&**folder, PROMISES, &encode(&promises).map_err(failed)?)?;
    folder.sync()?;
    let identity = Record::create(&**folder, IDENTITY, &encode(&card).map_err(failed)?)?;
    folder.sync()?;
    assemble(card, identity, promises, record, disk)
}

fn assemble(
    card: Card,
    identity: Record,
    promises: Promises,
    record: Record,
    disk: Arc<Disk>,
) -> Result<Store, Unusable> {
    let mut kept = Kept {
        value: card.clone(),
        place: Place::Disk(identity),
    };
    kept.keep(card).map_err(failed)?;
    Ok(Store {
        folder: None,
        last_write: None,
        superseded: AtomicBool::default(),
        probe: Mutex::default(),
        card: Mutex::new(kept),
        promises: Mutex::new(Kept {
            value: promises,
            place: Place::Disk(record),
        }),
        disk,
        lock: Mutex::default(),
    })
}

/// Renames what is there. The identity goes first: from then on, whatever happens, the rest counts for nothing. What says that it is another
/// run's goes last.
fn move_aside(folder: &dyn Folder, why: &str) -> io::Result<()> {
    let stamp = folder.wall_ms();
    for name in [IDENTITY, PROMISES, DATABASE, SUPERSEDED] {
        if folder.has(name)? {
            folder.rename(name, &format!("{name}.{why}-{stamp}"))?;
            folder.sync()?;
        }
    }
    Ok(())
}

fn failed(why: String) -> Unusable {
    Unusable::Io(io::Error::other(why))
}

fn named(name: &'static str) -> impl Fn(Unusable) -> Unusable {
    move |trouble| match trouble {
        Unusable::Corrupt(why) => Unusable::Corrupt(format!("{name}: {why}")),
        other => other,
    }
}

fn stop(folder: &dyn Folder, trouble: Unusable) -> String {
    match trouble {
        Unusable::Corrupt(why) => format!("data directory {folder} cannot be used: {why}"),
        Unusable::Superseded => {
            format!("data directory {folder} cannot be used: its consensus id is another process's")
        }
        Unusable::Version => format!(
            "data directory {folder} was written by another version of baton; run that version, or move the directory \
             away to join again as an empty node"
        ),
        Unusable::Io(error) => advice(folder, &error),
    }
}

/// An error of the operating system, and what to do about it.
fn advice(folder: &dyn Folder, error: &io::Error) -> String {
    format!(
        "data directory {folder} cannot be used: {error}; {}",
        remedy(error)
    )
}

fn remedy(error: &io::Error) -> &'static str {
    if Untrusted::is_in(error) {
        return "or set another [storage] dir"; // it says itself what to do
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give it to the user that runs baton (chown), or set another [storage] dir"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable, or set another [storage] dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk and start again",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file is in the way; set another [storage] dir"
        }
        _ => "check the disk, or set another [storage] dir",
    }
}

/// A random number that is not 0.
pub(super) fn draw() -> Result<u64, String> {
    loop {
        match getrandom::u64() {
            Ok(0) => {}
            Ok(number) => return Ok(number),
            Err(error) => return Err(format!("the system gives no random numbers: {error}")),
        }
    }
}

/// A boot above `last` and, but for a clock set back, above every boot of a node without storage; `now` is Unix
/// milliseconds. By chance above: two processes with copies of one data directory have different boots, whatever their clocks say.
fn next_boot(last: Boot, now: u64) -> Result<Boot, String> {
    let low = draw()? & 0xf_ffff;
    Ok(Boot((last.0.saturating_add(1 + low)).max(now << 20 | low)))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
