//! A small record on disk, kept in two copies that are written one after the other, each with its checksum.
//!
//! Invariant: from the moment `save` returns, one copy is on disk and the other is on its way, and before the first is
//! touched again the second is on disk. So neither a torn write nor one rotten copy brings back an older record: the
//! one good copy is never older than what was last acknowledged.
//!
//! Whoever has time waits for the second copy with `settle`, once it has told of the first; a `save` that comes sooner waits itself.

use super::folder::{Blob, Folder, How};
use sha2::{Digest, Sha256};
use std::io;

/// Form and version of a copy; another version is another magic.
const MAGIC: [u8; 8] = *b"batonR01";
/// What every version begins with.
const FAMILY: usize = 6;
const HEADER: usize = 8 + 8 + 4 + 32;
/// Room for one copy: hundreds of roles. Preallocated, so that a flush writes data alone.
const COPY: usize = 64 * 1024;

/// Why a file of the store cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Its contents are not what was written.
    Corrupt(String),
    /// Written by another version of this program.
    Version,
    /// It is the identity of another run by now (V7).
    Superseded,
    /// The operating system refused.
    Io(io::Error),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Unusable {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Unusable::Corrupt(error.to_string()),
            _ => Unusable::Io(error),
        }
    }
}

/// An open record.
#[derive(Debug)]
pub(super) struct Record {
    file: Box<dyn Blob>,
    serial: u64,
    /// Both copies are on disk: the first may be touched.
    settled: bool,
    /// A flush failed: what is on disk is not known any more, and trying again would only hide that.
    broken: bool,
}

impl Record {
    /// Makes the file whole or not at all.
    pub(super) fn create(folder: &dyn Folder, name: &str, text: &[u8]) -> io::Result<Record> {
        let fresh = format!("{name}.new");
        let file = folder.open(&fresh, How::Emptied)?;
        file.write(&vec![0; 2 * COPY], 0)?;
        let mut record = Record {
            file,
            serial: 0,
            settled: false,
            broken: false,
        };
        record.save(text)?;
        record.file.sync_all()?;
        record.settled = true;
        folder.rename(&fresh, name)?;
        Ok(record)
    }

    /// Opens the file and reads the newest copy; mends the other.
    pub(super) fn open(folder: &dyn Folder, name: &str) -> Result<(Record, Vec<u8>), Unusable> {
        let file = folder.open(name, How::Existing)?;
        let copies = [0, 1].map(|n| read_copy(&*file, n));
        let newest = match &copies {
            [Ok(a), Ok(b)] => usize::from(b.0 > a.0),
            [Ok(_), Err(_)] => 0,
            [Err(_), Ok(_)] => 1,
            [Err(Unusable::Version), Err(_)] | [Err(_), Err(Unusable::Version)] => {
                return Err(Unusable::Version);
            }
            [Err(_), Err(_)] => return Err(Unusable::Corrupt("neither copy has its checksum".into())),
        };
        let same = matches!(&copies, [Ok(a), Ok(b)] if a.0 == b.0);
        let [a, b] = copies;
        let (serial, text) = if newest == 0 { a? } else { b? };
        if !same {
            // A write was torn here. The next one starts with copy 0: both must be good before that.
            file.write(&encode(serial, &text), ((1 - newest) * COPY) as u64)?;
            file.sync_data()?;
        }
        let record = Record {
            file,
            serial,
            // What a process that has ended wrote can be read, and need not be on disk.
            settled: !same,
            broken: false,
        };
        Ok((record, text))
    }

    /// Replaces the record; on disk when this returns.
    pub(super) fn save(&mut self, text: &[u8]) -> io::Result<()> {
        if text.len() > COPY - HEADER {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the record is too large",
            ));
        }
        if self.broken {
            return Err(io::Error::other("an earlier flush failed"));
        }
        self.note(|record| record.write_both(text))
    }

    /// Returns when both copies of the last save are on disk, so that the next save need not wait for that.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.settled || self.broken {
            return Ok(()); // if broken, the save that failed has said so
        }
        self.note(Record::sync)
    }

    fn note(&mut self, act: impl FnOnce(&mut Record) -> io::Result<()>) -> io::Result<()> {
        let result = act(self);
        self.broken = result.is_err();
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.settled = true;
        Ok(())
    }

    fn write_both(&mut self, text: &[u8]) -> io::Result<()> {
        let copy = encode(self.serial + 1, text);
        if !self.settled {
            self.sync()?; // copy 1 of the last save
        }
        self.settled = false;
        self.file.write(&copy, 0)?;
        self.file.sync_data()?;
        self.serial += 1;
        self.file.write(&copy, COPY as u64)
    }
}

fn encode(serial: u64, text: &[u8]) -> Vec<u8> {
    let mut copy = Vec::with_capacity(HEADER + text.len());
    copy.extend(MAGIC);
    copy.extend(serial.to_be_bytes());
    copy.extend((text.len() as u32).to_be_bytes());
    copy.extend(checksum(&copy, text));
    copy.extend(text);
    copy
}

fn checksum(head: &[u8], text: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(head)
        .chain_update(text)
        .finalize()
        .into()
}

fn read_copy(file: &dyn Blob, n: usize) -> Result<(u64, Vec<u8>), Unusable> {
    let torn = || Unusable::Corrupt("checksum".into());
    let mut copy = vec![0; COPY];
    file.read(&mut copy, (n * COPY) as u64)?;
    let (magic, rest) = copy.split_first_chunk::<8>().ok_or_else(torn)?;
    if *magic != MAGIC {
        let other_version = magic[..FAMILY] == MAGIC[..FAMILY];
        return Err(if other_version { Unusable::Version } else { torn() });
    }
    let (serial, rest) = rest.split_first_chunk::<8>().ok_or_else(torn)?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(torn)?;
    let (sum, rest) = rest.split_first_chunk::<32>().ok_or_else(torn)?;
    let text = rest.get(..u32::from_be_bytes(*len) as usize).ok_or_else(torn)?;
    if checksum(&copy[..HEADER - 32], text) != *sum {
        return Err(torn());
    }
    Ok((u64::from_be_bytes(*serial), text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::super::folder::Directory;
    use super::*;

    const NAME: &str = "record";

    fn damage(folder: &Directory, at: usize) {
        let file = folder.open(NAME, How::Existing).unwrap();
        file.write(b"torn!", at as u64).unwrap();
    }

    #[test]
    fn a_torn_copy_gives_way_to_the_other_and_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::new(dir.path());
        for copy in [0, COPY] {
            let mut record = Record::create(&folder, NAME, b"one").unwrap();
            record.save(b"two").unwrap();
            drop(record);
            damage(&folder, copy + HEADER);
            assert_eq!(Record::open(&folder, NAME).unwrap().1, b"two");
            // Mended: now the other copy may go.
            damage(&folder, COPY - copy + HEADER);
            let (mut record, text) = Record::open(&folder, NAME).unwrap();
            assert_eq!(text, b"two");
            record.save(b"three").unwrap();
            drop(record);
            assert_eq!(Record::open(&folder, NAME).unwrap().1, b"three");
        }
    }

    #[test]
    fn a_crash_between_the_copies_keeps_the_newer() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::new(dir.path());
        let record = Record::create(&folder, NAME, b"one").unwrap();
        record.file.write(&encode(2, b"two"), 0).unwrap();
        drop(record);
        assert_eq!(Record::open(&folder, NAME).unwrap().1, b"two");
    }

    #[test]
    fn two_bad_copies_or_a_short_file_are_corrupt_and_another_version_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::new(dir.path());
        Record::create(&folder, NAME, b"one").unwrap();
        damage(&folder, 9);
        damage(&folder, COPY + 9);
        assert!(matches!(Record::open(&folder, NAME), Err(Unusable::Corrupt(_))));
        std::fs::write(dir.path().join(NAME), b"short").unwrap();
        assert!(matches!(Record::open(&folder, NAME), Err(Unusable::Corrupt(_))));
        let mut other = vec![0; 2 * COPY];
        other[..8].copy_from_slice(b"batonR02");
        std::fs::write(dir.path().join(NAME), other).unwrap();
        assert!(matches!(Record::open(&folder, NAME), Err(Unusable::Version)));
    }
}
