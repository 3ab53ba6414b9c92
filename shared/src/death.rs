//! What a death notice says: "the boot in this header is gone, and so is its application" (V6, DESIGN §7). Sent by the guardian
//! of an agent that died, once it has made sure that the application acts no more.

use crate::id::{ClusterId, NodeName};
use serde::{Deserialize, Serialize};

/// Longest reason, in bytes.
const MAX_WHY: usize = 200;

/// The text behind the [seal](crate::seal)'s header, which names the boot that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeathNotice {
    /// The cluster.
    pub cluster: ClusterId,
    /// For whom this is (V7).
    pub to: NodeName,
    /// How the agent ended, in a few words.
    pub why: String,
}

impl DeathNotice {
    /// To bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From bytes that a seal vouched for; nothing may be left over. The reason is made fit for a log.
    pub fn decode(bytes: &[u8]) -> Option<DeathNotice> {
        let (mut notice, rest): (DeathNotice, _) = postcard::take_from_bytes(bytes).ok()?;
        let why = &notice.why[..notice.why.floor_char_boundary(MAX_WHY)];
        notice.why = why
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        rest.is_empty().then_some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_cuts_what_is_too_long() {
        let notice = |why: &str| DeathNotice {
            cluster: ClusterId(7),
            to: NodeName::new("b").unwrap(),
            why: why.into(),
        };
        let bytes = notice("killed").encode();
        assert_eq!(DeathNotice::decode(&bytes), Some(notice("killed")));
        assert_eq!(DeathNotice::decode(&bytes[1..]), None);
        assert_eq!(DeathNotice::decode(&[&bytes[..], &[0]].concat()), None);
        let long = DeathNotice::decode(&notice(&"\u{1b}ä".repeat(400)).encode()).unwrap();
        assert!(long.why.len() <= MAX_WHY && !long.why.contains('\u{1b}'));
    }
}
