//! The seal on a datagram: XChaCha20-Poly1305 under a key of the cluster (DESIGN §4, S5).
//!
//! ```text
//! 0      2        10     18        19     26
//! | BA 01 | sender | boot | network | seq  | ciphertext ... tag(16) |
//!         '---------- the nonce, 24 bytes -'
//! ```
//!
//! The header is the nonce: sender, boot, network and sequence, all big-endian. A sequence is never used twice on one
//! network within a boot, so no nonce is. The header is authenticated with the text.
//!
//! Death notices begin with `BA 02` and have keys of their own: who may send them, a guardian, holds no key of heartbeats, and
//! counts its sequences from 0 again.

use crate::id::{Boot, NodeId, Owner};
use crate::key::ClusterKey;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// Largest datagram sent or accepted, in bytes, seal included. Enough for 32 nodes; usual ones are under 600 bytes.
pub const MAX_DATAGRAM: usize = 8192;
/// A heartbeat's first bytes.
const HEARTBEAT: [u8; 2] = [0xBA, 0x01];
/// A death notice's.
const NOTICE: [u8; 2] = [0xBA, 0x02];
const HEADER: usize = 2 + 24;
const TAG: usize = 16;
const MAX_SEQ: u64 = (1 << 56) - 1;

/// What the header of a datagram says; true once [`Seal::open`] returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Consensus id of the sender.
    pub sender: NodeId,
    /// Its run.
    pub boot: Boot,
    /// The network it was sent on, by its place in the sender's configuration.
    pub network: u8,
    /// Sequence number, below 2⁵⁶.
    pub seq: u64,
}

impl Header {
    /// The run that sent it.
    pub fn owner(&self) -> Owner {
        Owner {
            node: self.sender,
            boot: self.boot,
        }
    }
}

/// Why a datagram was dropped. Nothing else comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSeal {
    /// Too short, too long, or not of this protocol or version.
    #[error("not a datagram of this protocol")]
    Form,
    /// Sealed with another key, or altered.
    #[error("not sealed with this cluster's key")]
    Key,
}

/// Seals and opens datagrams of one cluster.
#[derive(Clone)]
pub struct Seal {
    cipher: XChaCha20Poly1305,
    magic: [u8; 2],
}

impl Seal {
    /// For the heartbeats of the cluster of this name and key.
    pub fn new(key: &ClusterKey, cluster: &str) -> Seal {
        Seal {
            cipher: XChaCha20Poly1305::new(&key.derive("heartbeat", cluster).into()),
            magic: HEARTBEAT,
        }
    }

    /// For death notices, under a key that [`notice_key`] made.
    pub fn of_notices(key: &[u8; 32]) -> Seal {
        Seal {
            cipher: XChaCha20Poly1305::new(&(*key).into()),
            magic: NOTICE,
        }
    }

    /// Seals `text` behind `header`. The caller never seals two texts with one header.
    pub fn seal(&self, header: Header, text: &[u8]) -> Vec<u8> {
        assert!(
            header.seq <= MAX_SEQ,
            "sequence numbers last longer than machines"
        );
        let mut datagram = Vec::with_capacity(HEADER + text.len() + TAG);
        datagram.extend_from_slice(&self.magic);
        datagram.extend_from_slice(&header.sender.0.to_be_bytes());
        datagram.extend_from_slice(&header.boot.0.to_be_bytes());
        datagram.extend_from_slice(&(u64::from(header.network) << 56 | header.seq).to_be_bytes());
        let sealed = self
            .cipher
            .encrypt(
                &nonce(&datagram),
                Payload {
                    msg: text,
                    aad: &self.magic,
                },
            )
            .expect("a datagram is far below the cipher's limit");
        datagram.extend_from_slice(&sealed);
        datagram
    }

    /// Opens a datagram from anywhere.
    pub fn open(&self, datagram: &[u8]) -> Result<(Header, Vec<u8>), BadSeal> {
        let fits = (HEADER + TAG..=MAX_DATAGRAM).contains(&datagram.len());
        if !fits || datagram[..2] != self.magic {
            return Err(BadSeal::Form);
        }
        let word = |at: usize| u64::from_be_bytes(datagram[at..at + 8].try_into().expect("eight bytes"));
        let header = Header {
            sender: NodeId(word(2)),
            boot: Boot(word(10)),
            network: datagram[18],
            seq: word(18) & MAX_SEQ,
        };
        let text = self
            .cipher
            .decrypt(
                &nonce(datagram),
                Payload {
                    msg: &datagram[HEADER..],
                    aad: &self.magic,
                },
            )
            .map_err(|_| BadSeal::Key)?;
        Ok((header, text))
    }
}

/// Whether a datagram would be a death notice.
pub fn is_notice(datagram: &[u8]) -> bool {
    datagram.starts_with(&NOTICE)
}

/// Whether a datagram is of another version of this protocol, by its first bytes.
pub fn is_of_another_version(datagram: &[u8]) -> bool {
    datagram.starts_with(&HEARTBEAT[..1]) && !datagram.starts_with(&HEARTBEAT) && !is_notice(datagram)
}

/// The key of the notices of one cluster: all that a guardian needs to know.
pub fn notice_key(key: &ClusterKey, cluster: &str) -> [u8; 32] {
    key.derive("death notice", cluster)
}

fn nonce(datagram: &[u8]) -> XNonce {
    let bytes: [u8; 24] = datagram[2..HEADER].try_into().expect("the header is longer");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Seal, Header, Vec<u8>) {
        let seal = Seal::new(&ClusterKey::from_bytes([1; 32]), "orders");
        let header = Header {
            sender: NodeId(u64::MAX),
            boot: Boot(3),
            network: 255,
            seq: MAX_SEQ,
        };
        let datagram = seal.seal(header, b"hello");
        (seal, header, datagram)
    }

    #[test]
    fn opens_what_it_sealed() {
        let (seal, header, datagram) = sample();
        assert_eq!(seal.open(&datagram), Ok((header, b"hello".to_vec())));
    }

    #[test]
    fn strangers_are_refused() {
        let (seal, _, datagram) = sample();
        for at in 0..datagram.len() {
            let mut altered = datagram.clone();
            altered[at] ^= 1;
            assert!(seal.open(&altered).is_err(), "bit flipped in byte {at}");
            assert!(seal.open(&datagram[..at]).is_err(), "cut at {at}");
        }
        assert!(seal.open(&vec![0xBA; MAX_DATAGRAM + 1]).is_err());
        let other_key = Seal::new(&ClusterKey::from_bytes([2; 32]), "orders");
        assert_eq!(other_key.open(&datagram), Err(BadSeal::Key));
        let other_cluster = Seal::new(&ClusterKey::from_bytes([1; 32]), "invoices");
        assert_eq!(other_cluster.open(&datagram), Err(BadSeal::Key));
    }

    #[test]
    fn notices_and_heartbeats_are_not_taken_for_each_other() {
        let (seal, header, datagram) = sample();
        let notices = Seal::of_notices(&notice_key(&ClusterKey::from_bytes([1; 32]), "orders"));
        let notice = notices.seal(header, b"gone");
        assert!(is_notice(&notice) && !is_notice(&datagram));
        assert_eq!(notices.open(&notice), Ok((header, b"gone".to_vec())));
        assert!(notices.open(&datagram).is_err() && seal.open(&notice).is_err());
        let mut disguised = notice;
        disguised[1] = 1;
        assert_eq!(seal.open(&disguised), Err(BadSeal::Key));
    }

    #[test]
    fn another_version_is_told_from_noise() {
        let (_, _, mut datagram) = sample();
        assert!(!is_of_another_version(&datagram));
        datagram[1] = 3;
        assert!(is_of_another_version(&datagram));
        datagram[0] = b'G';
        assert!(!is_of_another_version(&datagram) && !is_of_another_version(&[]));
    }
}
