//! The policy: who may ask, and what is told beside the zone. Made once, of the configuration.

use crate::cookie::Cookies;
use crate::question::{HEADER, Question, code};
use crate::zone::Records;
use baton_shared::config::Dns;
use baton_shared::id::NodeName;
use baton_shared::prefix::Prefix;
use std::net::IpAddr;

/// What the program calls itself.
const PROGRAM: &str = concat!("Baton ", env!("CARGO_PKG_VERSION"));
/// Names of class CHAOS in wire form (RFC 4892, and what BIND made of it).
const VERSION_NAMES: [&[u8]; 2] = [b"\x07version\x04bind\0", b"\x07version\x06server\0"];
const NODE_NAMES: [&[u8]; 2] = [b"\x08hostname\x04bind\0", b"\x02id\x06server\0"];

/// What [`answer()`](crate::answer()) keeps to beside the zone.
#[derive(Debug)]
pub struct Policy {
    /// Who may ask; empty: anybody.
    allow: Vec<Prefix>,
    pub(crate) nsid: Option<Box<[u8]>>,
    pub(crate) cookies: Option<Cookies>,
    chaos: Option<Chaos>,
}

impl Policy {
    /// Takes it from `[dns]`; `me` is this node's name, and `secret` makes the cluster's cookies.
    pub fn new(dns: &Dns, me: &NodeName, secret: &[u8; 16]) -> Policy {
        Policy {
            allow: dns.allow.clone(),
            nsid: dns.nsid.then(|| me.as_str().as_bytes().into()),
            cookies: dns.cookies.then(|| Cookies::new(secret)),
            chaos: dns.chaos.then(|| Chaos::new(me)),
        }
    }

    /// Whether `ip` may ask.
    pub(crate) fn admits(&self, ip: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|prefix| prefix.contains(ip))
    }

    /// What there is in class CHAOS: `None` if the name has nothing there, `Some(None)` if nothing of the type.
    pub(crate) fn chaos(&self, question: &Question) -> Option<Option<&Records>> {
        let chaos = self.chaos.as_ref()?;
        let is = |name: &&[u8]| question.name.is(name);
        let text = if VERSION_NAMES.iter().any(is) {
            &chaos.version
        } else if NODE_NAMES.iter().any(is) {
            &chaos.node
        } else {
            return None;
        };
        Some(matches!(question.qtype, code::TXT | code::ANY).then_some(text))
    }
}

/// The records of class CHAOS.
#[derive(Debug)]
struct Chaos {
    version: Records,
    node: Records,
}

impl Chaos {
    fn new(me: &NodeName) -> Chaos {
        Chaos {
            version: text(PROGRAM),
            node: text(me.as_str()),
        }
    }
}

/// A TXT record of class CHAOS and TTL 0, as the answer to a question for its name.
fn text(text: &str) -> Records {
    let text = text.get(..255).unwrap_or(text).as_bytes();
    let len = text.len() as u8; // cut to 255 above
    let [t0, t1] = code::TXT.to_be_bytes();
    let [c0, c1] = code::CLASS_CH.to_be_bytes();
    let [l0, l1] = (u16::from(len) + 1).to_be_bytes();
    let fixed = [0xc0, HEADER as u8, t0, t1, c0, c1, 0, 0, 0, 0, l0, l1, len];
    Records {
        count: 1,
        bytes: [&fixed[..], text].concat().into(),
    }
}
