//! The cluster key: 32 bytes that make a datagram or stream one of ours (S5), and the keys derived from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt;

/// The secret that all nodes of a cluster share. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

/// Why a text is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not base64, or not 32 bytes.
    #[error("not a cluster key: expected 32 bytes in base64 (44 characters), as `baton keygen` prints them")]
    Form,
}

impl ClusterKey {
    /// Wraps raw bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> ClusterKey {
        ClusterKey(bytes)
    }

    /// Parses the base64 text of a key file; white space around it is ignored.
    pub fn parse(text: &str) -> Result<ClusterKey, BadKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| BadKey::Form)?;
        bytes.try_into().map(ClusterKey).map_err(|_| BadKey::Form)
    }

    /// The text of a key file.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// A key for one purpose (`heartbeat`, `stream`) of one cluster. SHA-256 over length-prefixed parts: the key is
    /// uniformly random and every input has one form, so that this is a pseudo-random function of the purpose.
    pub fn derive(&self, purpose: &str, cluster: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [
            b"baton key v1".as_slice(),
            &self.0,
            purpose.as_bytes(),
            cluster.as_bytes(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        let key = ClusterKey::from_bytes([7; 32]);
        assert_eq!(ClusterKey::parse(&format!("  {}\n", key.to_text())).unwrap(), key);
        for bad in ["", "hello", "AAAA", &"A".repeat(45)] {
            assert!(ClusterKey::parse(bad).is_err(), "{bad}");
        }
        assert_ne!(key.derive("heartbeat", "a"), key.derive("heartbeat", "b"));
        assert_ne!(key.derive("heartbeat", "a"), key.derive("stream", "a"));
        assert!(!format!("{key:?}").contains('7'));
    }
}
