//! The last good addresses of names, in the data directory: a node that starts while no name server answers finds its peers where
//! they were. Only a hint, and never waited for: identity is no address.

use crate::data_dir::DataDir;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::Path;

/// The file, in the data directory. It begins with [`FIRST`], and has a line `NAME ADDRESS...` for each name.
const NAME: &str = "addresses";
const FIRST: &str = "baton addresses 1";
/// Far more than the most names take.
const MAX_FILE: u64 = 256 * 1024;

/// Addresses by name.
pub type Book = BTreeMap<String, Vec<IpAddr>>;

/// What was kept; nothing if there is no file, or none that is understood.
pub fn load(dir: &Path) -> Book {
    match read(dir) {
        Ok(text) => parse(&text).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Book::new(),
        Err(error) => {
            tracing::warn!("the last addresses of names cannot be read: {error}");
            Book::new()
        }
    }
}

/// Keeps these in place of what was there.
pub fn save(dir: &Path, book: &Book) -> io::Result<()> {
    let dir = DataDir::open(dir)?;
    let fresh = format!("{NAME}.new");
    dir.emptied(&fresh)?.write_all(text(book).as_bytes())?;
    dir.rename(&fresh, NAME)
}

fn read(dir: &Path) -> io::Result<String> {
    let file = DataDir::open(dir)?.file(NAME, OFlags::RDONLY)?;
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn parse(text: &str) -> Option<Book> {
    let (whole, _cut) = text.rsplit_once('\n')?; // a line without an end was cut
    let (first, rest) = whole.split_once('\n')?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let ips: Vec<IpAddr> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        (!ips.is_empty()).then_some((name, ips))
    };
    (first == FIRST).then(|| rest.lines().filter_map(line).collect())
}

fn text(book: &Book) -> String {
    let mut text = format!("{FIRST}\n");
    for (name, ips) in book.iter().filter(|(_, ips)| !ips.is_empty()) {
        text.push_str(name);
        for ip in ips {
            text.push_str(&format!(" {ip}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_and_garbage_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).is_empty());
        let book: Book = [
            (
                "b.example".to_owned(),
                vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            ),
            ("c".to_owned(), vec!["10.0.0.3".parse().unwrap()]),
        ]
        .into();
        save(dir.path(), &book).unwrap();
        save(dir.path(), &book).unwrap();
        assert_eq!(load(dir.path()), book);
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let kept = load(dir.path());
            assert!(
                kept.iter().all(|(name, ips)| book.get(name) == Some(ips)),
                "{kept:?}"
            );
        }
        for garbage in [
            "",
            "baton addresses 2\nb 10.0.0.2\n",
            "\u{0}\u{1}\n\n",
            "baton addresses 1\nb ten\nb\n",
        ] {
            std::fs::write(&path, garbage).unwrap();
            assert!(load(dir.path()).is_empty(), "{garbage:?}");
        }
    }
}
