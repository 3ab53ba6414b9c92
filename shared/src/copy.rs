//! What a copy of the DNS zone shows, as one number: who is active for each role at which epoch, and where each node is.
//!
//! The coordinator keeps this digest in the log ([`CopyView`]), and a node gives copies away only while what it sees has
//! the digest that its log names. So two copies that are made at the same place of the log have the same content,
//! whatever their nodes have heard or resolved; and a place of the log is what a serial number stands for.

use crate::clock::Mono;
use crate::id::{Epoch, RoleName};
use crate::view::{Published, View, Word};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What the log says of copies of the zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyView {
    /// The digest of what they show; `None` before the first.
    pub digest: Option<u64>,
    /// The greatest epoch ever given to any role. It never falls.
    pub greatest: Epoch,
}

/// Who is active for each role, all asked at one instant.
pub type Words = BTreeMap<RoleName, Word>;

impl Published {
    /// Who is active for each role at `now`, by one view.
    pub fn words(&self, view: &View, now: Mono) -> Words {
        let word = |role: &RoleName| match self.guards[role].active(now) {
            Some(epoch) => Word::Me(epoch),
            None => view.word_of_others(role, now),
        };
        self.guards
            .keys()
            .map(|role| (role.clone(), word(role)))
            .collect()
    }
}

/// The digest of what a copy of `view` with these words would show; `None` while one of them is not known.
///
/// The first 8 bytes of SHA-256 over length-prefixed parts; stable across versions of the program.
pub fn digest(view: &View, words: &Words) -> Option<u64> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"baton copy v1");
    for (role, word) in words {
        let (node, epoch) = match word {
            Word::Me(epoch) => (view.me.as_str(), *epoch),
            Word::Other(node, epoch) => (node.as_str(), *epoch),
            Word::Nobody => ("", Epoch(0)),
            Word::Unknown => return None,
        };
        part(role.as_str().as_bytes());
        part(node.as_bytes());
        part(&epoch.0.to_be_bytes());
    }
    let mut nodes: Vec<_> = view.nodes.iter().collect();
    nodes.sort_by_key(|node| &node.name);
    part(b"nodes");
    for node in nodes {
        part(node.name.as_str().as_bytes());
        part(&[node.kind.may_act().into()]);
        let mut serves = node.serves.clone();
        serves.sort();
        serves.dedup();
        part(&(serves.len() as u64).to_be_bytes());
        for ip in serves {
            part(ip.to_string().as_bytes());
        }
    }
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
