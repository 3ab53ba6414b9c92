//! A machine's disk: what was not synced when the power failed is there, lost, or torn.
//!
//! The store above is the production one, and so is its order of writes and syncs; only the bottom is simulated.

use super::dice::Dice;
use super::time;
use crate::consensus::folder::{Blob, Folder, How, Lock, Work};
use crate::consensus::net::Later;
use redb::{Builder, Database, DatabaseError, StorageBackend};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::sleep;

/// Whoever waits for a disk that hangs looks so often whether it still does.
const LOOK: Duration = Duration::from_millis(50);
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The disk of one machine. Outlives every run of its node.
#[derive(Debug)]
pub(super) struct Platter {
    state: Mutex<State>,
    dice: Dice,
}

#[derive(Debug)]
struct State {
    /// Every name and file as the node sees them.
    names: BTreeMap<String, u64>,
    /// Changes of names that are not on disk yet, in order.
    renamed: Vec<Change>,
    /// The names that are on disk.
    kept: BTreeMap<String, u64>,
    files: BTreeMap<u64, Contents>,
    next: u64,
    /// Grows when the power fails: what was opened before is closed for good.
    life: u64,
    powered: bool,
    /// The power fails at the write after so many.
    fuse: Option<u64>,
    /// Longest time that an operation waits.
    slow: Duration,
    /// No operation ends before this instant of the world's time.
    hung_until: Duration,
    /// Says "synced" and is not.
    lies: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Rename(String, String),
}

/// A file: as it is seen, as it is on disk, and what lies between.
#[derive(Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    kept: Vec<u8>,
    unsynced: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Length(usize),
}

impl Write {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Write::Bytes(at, bytes) => {
                let end = at + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*at..end].copy_from_slice(bytes);
            }
            Write::Length(length) => file.resize(*length, 0),
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, file) => drop(names.insert(name.clone(), *file)),
            Change::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

impl Contents {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.seen);
        self.unsynced.push(write);
    }

    fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.kept);
        }
    }

    /// Each write since the last sync is there, lost, or there in some of its sectors; all are lost if the disk `lied`.
    fn lose_power(&mut self, dice: &Dice, lied: bool) {
        for write in std::mem::take(&mut self.unsynced) {
            match (write, dice.roll(3)) {
                (_, 0) => {}
                _ if lied => {}
                (Write::Bytes(at, bytes), 1) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if dice.one_in(2) {
                            Write::Bytes(at + n * SECTOR, sector.to_vec()).apply(&mut self.kept);
                        }
                    }
                }
                (whole, _) => whole.apply(&mut self.kept),
            }
        }
        self.seen.clone_from(&self.kept);
    }
}

impl Platter {
    /// An empty disk.
    pub(super) fn new(dice: Dice) -> Arc<Platter> {
        Arc::new(Platter {
            state: Mutex::new(State {
                names: BTreeMap::new(),
                renamed: Vec::new(),
                kept: BTreeMap::new(),
                files: BTreeMap::new(),
                next: 0,
                life: 0,
                powered: true,
                fuse: None,
                slow: Duration::from_millis(2),
                hung_until: Duration::ZERO,
                lies: false,
            }),
            dice,
        })
    }

    /// The folder on it, for one run of the node.
    pub(super) fn folder(self: &Arc<Self>) -> Arc<dyn Folder> {
        Arc::new(Mounted {
            life: self.state().life,
            platter: self.clone(),
        })
    }

    /// The power fails in the midst of what is written: at the write after `writes` more.
    pub(super) fn fail_at(&self, writes: u64) {
        self.state().fuse = Some(writes);
    }

    /// From now on the power holds.
    pub(super) fn hold(&self) {
        self.state().fuse = None;
    }

    /// Whether it still has power.
    pub(super) fn powered(&self) -> bool {
        self.state().powered
    }

    /// Nothing more is written, though the node may not know yet.
    pub(super) fn cut_power(&self) {
        self.state().powered = false;
    }

    /// After the power failed: decides what is there, and can be mounted again.
    pub(super) fn lose_power(&self) {
        let state = &mut *self.state();
        let lies = state.lies;
        for file in state.files.values_mut() {
            file.lose_power(&self.dice, lies);
        }
        let changes = std::mem::take(&mut state.renamed);
        let there = self.dice.roll(changes.len() as u64 + 1);
        for change in changes.iter().take(there as usize) {
            change.apply(&mut state.kept);
        }
        state.names.clone_from(&state.kept);
        let State { names, files, .. } = state;
        files.retain(|file, _| names.values().any(|named| named == file));
        state.remount();
    }

    /// The process ended and the machine did not: what was written is there, synced or not.
    pub(super) fn outlive(&self) {
        self.state().remount();
    }

    /// An empty disk in its place.
    pub(super) fn wipe(&self) {
        let state = &mut *self.state();
        state.names.clear();
        state.renamed.clear();
        state.kept.clear();
        state.files.clear();
        state.remount();
    }

    /// How long an operation may take.
    pub(super) fn slow(&self, slow: Duration) {
        self.state().slow = slow;
    }

    /// For so long no operation ends; what hung before ends as these do.
    pub(super) fn hang(&self, long: Duration) {
        self.state().hung_until = time::now() + long;
    }

    /// For how much longer it hangs.
    fn hangs_for(&self) -> Duration {
        self.state().hung_until.saturating_sub(time::now())
    }

    /// From now on syncs are acknowledged and do nothing: sabotage.
    pub(super) fn lie(&self) {
        self.state().lies = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn remount(&mut self) {
        self.life += 1;
        self.powered = true;
        self.fuse = None;
    }

    /// An error unless what was opened in `life` may still be used.
    fn check(&self, life: u64) -> io::Result<()> {
        if self.powered && self.life == life {
            return Ok(());
        }
        Err(io::Error::other("the power is gone"))
    }

    /// Like [`State::check`], for what changes the disk: the power may fail here.
    fn spend(&mut self, life: u64) -> io::Result<()> {
        self.check(life)?;
        match &mut self.fuse {
            Some(0) => self.powered = false,
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn file(&mut self, file: u64) -> io::Result<&mut Contents> {
        self.files
            .get_mut(&file)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// The folder as one run of the node has it.
#[derive(Debug)]
struct Mounted {
    platter: Arc<Platter>,
    life: u64,
}

impl Display for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated")
    }
}

impl Mounted {
    fn handle(&self, file: u64) -> Handle {
        Handle {
            platter: self.platter.clone(),
            life: self.life,
            file,
        }
    }
}

impl Folder for Mounted {
    fn lock(&self) -> io::Result<Option<Lock>> {
        self.platter.state().check(self.life)?;
        Ok(Some(Box::new(())))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        let state = self.platter.state();
        state.check(self.life)?;
        Ok(state.names.contains_key(name))
    }

    fn open(&self, name: &str, how: How) -> io::Result<Box<dyn Blob>> {
        let state = &mut *self.platter.state();
        state.check(self.life)?;
        let file = match (state.names.get(name).copied(), how) {
            (Some(file), How::Existing) => file,
            (None, How::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (Some(_), How::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), How::Emptied) => {
                state.spend(self.life)?;
                state.file(file)?.write(Write::Length(0));
                file
            }
            (None, _) => {
                state.spend(self.life)?;
                let file = state.next;
                state.next += 1;
                state.files.insert(file, Contents::default());
                let link = Change::Link(name.to_owned(), file);
                link.apply(&mut state.names);
                state.renamed.push(link);
                file
            }
        };
        Ok(Box::new(self.handle(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.platter.state();
        state.spend(self.life)?;
        let change = Change::Rename(from.to_owned(), to.to_owned());
        change.apply(&mut state.names);
        state.renamed.push(change);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.platter.state();
        state.check(self.life)?;
        for change in std::mem::take(&mut state.renamed) {
            change.apply(&mut state.kept);
        }
        Ok(())
    }

    fn database(&self, name: &str, builder: &Builder) -> Result<Database, DatabaseError> {
        let file = self.platter.state().names.get(name).copied();
        let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        builder.create_with_backend(self.handle(file))
    }

    fn wall_ms(&self) -> u64 {
        time::wall_ms()
    }

    fn aside(&self, work: Work) -> Later<'_, ()> {
        let wait = self.platter.dice.up_to(self.platter.state().slow);
        Box::pin(async move {
            sleep(wait).await;
            while !self.platter.hangs_for().is_zero() {
                sleep(self.platter.hangs_for().min(LOOK)).await;
            }
            work();
        })
    }
}

/// An open file.
#[derive(Debug)]
struct Handle {
    platter: Arc<Platter>,
    life: u64,
    file: u64,
}

impl Handle {
    fn put(&self, write: Write) -> io::Result<()> {
        let state = &mut *self.platter.state();
        state.spend(self.life)?;
        state.file(self.file)?.write(write);
        state.check(self.life) // the power may have failed at this very write
    }

    fn get(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.platter.state();
        state.check(self.life)?;
        let at = place(offset)?;
        let bytes = state.file(self.file)?.seen.get(at..at + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.platter.state();
        state.check(self.life)?;
        if !state.lies {
            state.file(self.file)?.sync();
        }
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl Blob for Handle {
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.get(offset, buffer)
    }

    fn write(&self, text: &[u8], offset: u64) -> io::Result<()> {
        self.put(Write::Bytes(place(offset)?, text.to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        let state = &mut *self.platter.state();
        state.check(self.life)?;
        Ok(state.file(self.file)?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.get(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.put(Write::Length(place(len)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.put(Write::Bytes(place(offset)?, data.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Store;
    use baton_core::Durable;
    use baton_shared::id::{ElectorateId, Epoch, RoleName};
    use baton_shared::succession::Floor;

    /// A file of two sectors, synced as `a`, then written as `b`.
    fn written(platter: &Arc<Platter>) -> Box<dyn Blob> {
        let folder = platter.folder();
        let file = folder.open("file", How::New).unwrap();
        file.write(&[b'a'; 2 * SECTOR], 0).unwrap();
        file.sync_data().unwrap();
        folder.sync().unwrap();
        file.write(&[b'b'; 2 * SECTOR], 0).unwrap();
        file
    }

    fn reopened(platter: &Arc<Platter>) -> Option<[u8; 2 * SECTOR]> {
        let file = platter.folder().open("file", How::Existing).ok()?;
        let mut bytes = [0; 2 * SECTOR];
        file.read(&mut bytes, 0).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_was_synced_is_kept_and_the_rest_is_there_or_lost_or_torn() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let platter = Platter::new(Dice::new(seed, "disk"));
            let before = written(&platter);
            platter.lose_power();
            assert!(before.write(b"x", 0).is_err(), "that run is over");
            let bytes = reopened(&platter).unwrap();
            ends.insert((bytes[0], bytes[SECTOR]));
        }
        let all = [(b'a', b'a'), (b'a', b'b'), (b'b', b'a'), (b'b', b'b')];
        assert_eq!(ends, all.into());
    }

    #[test]
    fn a_process_that_ends_loses_nothing_and_a_wiped_disk_has_nothing() {
        let platter = Platter::new(Dice::new(1, "disk"));
        written(&platter);
        platter.outlive();
        assert_eq!(reopened(&platter), Some([b'b'; 2 * SECTOR]));
        platter.wipe();
        assert_eq!(reopened(&platter), None);
    }

    #[test]
    fn the_power_fails_at_the_write_that_was_said() {
        let platter = Platter::new(Dice::new(1, "disk"));
        let file = written(&platter);
        platter.fail_at(1);
        file.write(b"x", 0).unwrap();
        assert!(platter.powered());
        assert!(file.write(b"y", 0).is_err() && !platter.powered());
        assert!(file.sync_data().is_err());
    }

    /// What a voter must not forget, in several sectors: one alone is never torn.
    fn promised(n: u64) -> Durable {
        let mut durable = Durable::default();
        durable.electorate.id = ElectorateId(n);
        for role in 0..100 {
            let floor = Floor {
                epoch: Epoch(n),
                ..Floor::default()
            };
            durable
                .floors
                .insert(RoleName::new(&format!("role-{role}")).unwrap(), floor);
        }
        durable
    }

    /// The invariant of `consensus/record.rs`: copy 0 is not touched before copy 1 is on disk, whoever waited for that.
    #[test]
    fn the_power_fails_at_any_write_and_the_voter_remembers_what_it_last_acknowledged() {
        let (mut failed, mut settled, mut under_way) = (0, 0, 0);
        for seed in 0..150 {
            let dice = Dice::new(seed, "saves");
            let platter = Platter::new(Dice::new(seed, "disk"));
            let mut store = Store::on(platter.folder()).unwrap();
            let me = store.identity().node;
            let mut acknowledged = 0;
            for n in 1..8 {
                match dice.roll(4) {
                    0 => {
                        drop(store);
                        platter.outlive();
                        store = Store::on(platter.folder()).unwrap();
                    }
                    1 => {
                        store.settle_durable().unwrap();
                        settled += 1;
                    }
                    _ => {}
                }
                if dice.one_in(3) {
                    platter.fail_at(dice.roll(2));
                }
                if store.save_durable(&promised(n)).is_ok() {
                    acknowledged = n;
                }
                platter.hold();
                if platter.powered() && !dice.one_in(4) {
                    continue;
                }
                drop(store);
                platter.lose_power();
                store = Store::on(platter.folder()).unwrap();
                assert_eq!(store.identity().node, me, "seed {seed}: both copies were lost");
                let found = store.durable().electorate.id.0;
                assert!(
                    found == acknowledged || found == n,
                    "seed {seed}: {acknowledged} was acknowledged, and {found} came back"
                );
                failed += 1;
                under_way += u32::from(found != acknowledged);
                acknowledged = found;
            }
        }
        assert!(
            failed > 300 && settled > 100 && under_way > 20,
            "{failed} {settled} {under_way}"
        );
    }

    #[test]
    fn a_disk_that_lies_loses_what_it_said_was_synced() {
        let platter = Platter::new(Dice::new(1, "disk"));
        platter.lie();
        written(&platter);
        platter.lose_power();
        let file = platter.folder().open("file", How::Existing).unwrap();
        assert!(file.read(&mut [0], 0).is_err(), "it is empty");
    }
}
