//! Bytes from anybody: datagrams, heartbeats, configurations.

use crate::config::{Config, Loaded};
use crate::id::{Boot, NodeId, NodeName};
use crate::key::ClusterKey;
use crate::seal::{BadSeal, Header, MAX_DATAGRAM, Seal};
use crate::wire::Heartbeat;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Header and tag.
const SEALED: usize = 26 + 16;

/// First byte of an input: what the rest is. A datagram; changes to a sealed one; or a header and a text to seal.
#[test]
fn fuzz_seal() {
    let seal = Seal::new(&ClusterKey::from_bytes([1; 32]), "orders");
    baton_fuzz::fuzz("seal", 50_000, move |input| match input.split_first() {
        None => {}
        Some((0, datagram)) => assert!(seal.open(datagram).is_err(), "sealed without the key"),
        Some((1, changes)) => {
            let good = seal.seal(header(&[7; 25]), b"the text of a heartbeat");
            let changed = change(&good, changes);
            assert_eq!(seal.open(&changed).is_ok(), changed == good, "{changes:?}");
        }
        Some((_, rest)) => {
            let (head, text) = rest.split_at(rest.len().min(25));
            let header = header(head);
            let datagram = seal.seal(header, text);
            assert_eq!(datagram.len(), SEALED + text.len());
            let expected = if datagram.len() <= MAX_DATAGRAM {
                Ok((header, text.to_vec()))
            } else {
                Err(BadSeal::Form)
            };
            assert_eq!(seal.open(&datagram), expected);
        }
    });
}

/// Sender, boot, network and sequence from up to 25 bytes.
fn header(bytes: &[u8]) -> Header {
    let mut all = [0; 25];
    all[..bytes.len()].copy_from_slice(bytes);
    let word = |at: usize| {
        all[at..at + 8]
            .iter()
            .fold(0, |n, byte| n << 8 | u64::from(*byte))
    };
    Header {
        sender: NodeId(word(0)),
        boot: Boot(word(8)),
        network: all[16],
        seq: word(17) >> 8,
    }
}

/// Each three bytes change one byte of the datagram; what is left over is hung on, or cut off.
fn change(good: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut changed = good.to_vec();
    let (triples, rest) = changes.as_chunks::<3>();
    for [high, low, bits] in triples {
        let at = usize::from(u16::from_be_bytes([*high, *low])) % changed.len();
        changed[at] ^= bits;
    }
    match rest {
        [] => {}
        [cut] => changed.truncate(usize::from(*cut)),
        more => changed.extend_from_slice(more),
    }
    changed
}

/// What can be read as a heartbeat says the same when it is written and read again, and needs no more room.
#[test]
fn fuzz_heartbeat() {
    let read = Arc::new(AtomicU64::new(0));
    let count = read.clone();
    baton_fuzz::fuzz("heartbeat", 50_000, move |input| {
        let Ok(heartbeat) = Heartbeat::decode(input) else {
            return;
        };
        count.fetch_add(1, Relaxed);
        let written = heartbeat.encode();
        assert!(
            written.len() <= input.len(),
            "{} > {}",
            written.len(),
            input.len()
        );
        assert_eq!(Heartbeat::decode(&written), Ok(heartbeat));
        assert!(Heartbeat::decode(&[&written[..], &[0]].concat()).is_err());
        assert!(Heartbeat::decode(&written[..written.len() - 1]).is_err());
    });
    let read = read.load(Relaxed);
    assert!(
        read > 100,
        "only {read} inputs could be read: the corpus is of another format"
    );
}

/// A text and, behind a zero byte, overrides. It has a directory with `k` (a key) and `token` in it.
#[test]
fn fuzz_config() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = ClusterKey::from_bytes([7; 32]).to_text();
    std::fs::write(dir.path().join("k"), key).expect("a key");
    std::fs::write(dir.path().join("token"), "0123456789abcdef").expect("a token");
    let file = dir.path().join("c.toml").display().to_string();
    let good = Arc::new(AtomicU64::new(0));
    let count = good.clone();
    baton_fuzz::fuzz("config", 3_000, move |input| {
        let _ = &dir; // it stays while the target runs
        let text = String::from_utf8_lossy(input);
        let mut parts = text.split('\0').map(str::to_owned);
        let text = parts.next().unwrap_or_default();
        let sets: Vec<String> = parts.take(3).collect();
        count.fetch_add(u64::from(configuration(&file, &text, &sets)), Relaxed);
    });
    let good = good.load(Relaxed);
    assert!(
        good > 20,
        "only {good} configurations were accepted: the corpus is of another format"
    );
}

/// Whether it was accepted. If so it is the same for every node; if not, the lines of the error can be used.
fn configuration(file: &str, text: &str, sets: &[String]) -> bool {
    let loaded = Config::parse(text, file, None, sets);
    assert_eq!(
        loaded,
        Config::parse(text, file, None, sets),
        "same text, same configuration"
    );
    let Loaded { config, .. } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            assert!(!error.lines().is_empty());
            error
                .lines()
                .iter()
                .for_each(|line| names_its_place(line, file, text, sets));
            return false;
        }
    };
    assert!(config.nodes.contains_key(&config.me));
    assert!(
        !config.describe().contains('\u{1b}'),
        "nothing for the terminal but text"
    );
    for other in config.nodes.keys() {
        // A listener may have no meaning on another node; that is an error then, and no panic.
        if let Ok(theirs) = Config::parse(text, file, Some(other), sets) {
            assert_eq!(theirs.config.me, *other);
            assert_eq!(
                theirs.config.digest(),
                config.digest(),
                "all nodes must agree on it"
            );
        }
    }
    let nobody = NodeName::new("nobody-of-this-name").expect("a name");
    let known = config.nodes.contains_key(&nobody);
    assert_eq!(Config::parse(text, file, Some(&nobody), sets).is_ok(), known);
    true
}

fn names_its_place(line: &str, file: &str, text: &str, sets: &[String]) {
    assert!(!line.contains("not recorded"), "{line}");
    if line.starts_with("--set ") {
        assert!(!sets.is_empty());
        return;
    }
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let place = line.strip_prefix(file).and_then(|rest| rest.strip_prefix(':'));
    let (number, problem) = place
        .and_then(|rest| rest.split_once(": "))
        .unwrap_or_else(|| panic!("{line}"));
    let number: usize = number.parse().unwrap_or_else(|_| panic!("{line}"));
    assert!(number >= 1 && number <= text.split('\n').count(), "{line}");
    assert!(!problem.is_empty() && Path::new(file).is_absolute());
}
