//! Names of zones.

use super::wire;
use baton_shared::config::Prefix;
use baton_shared::id::Label;
use std::net::IpAddr;

/// Room left below the zone for `LABEL.node` (labels of 63), of the 255 octets of a name (RFC 1035 §3.1).
pub(super) const ORIGIN_MAX: usize = 255 - 64 - 5;

/// The zone's own name, short enough for all names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In lower case, without the final dot.
    text: String,
    wire: Box<[u8]>,
}

impl Origin {
    /// Parses `zone`, with or without the final dot. The error says what a zone's name is.
    pub fn new(zone: &str) -> Result<Origin, String> {
        let labels: Vec<Label> = zone
            .strip_suffix('.')
            .unwrap_or(zone)
            .split('.')
            .map(Label::new)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("[dns] zone \"{zone}\" is not a domain name: {error}"))?;
        let texts: Vec<&str> = labels.iter().map(Label::as_str).collect();
        let text = texts.join(".");
        let wire = [&wire(&texts)[..], &[0]].concat();
        if wire.len() > ORIGIN_MAX {
            return Err(format!(
                "[dns] zone \"{zone}\" is too long: {} octets leave no room for node names below it, use at most \
                 {ORIGIN_MAX}",
                wire.len()
            ));
        }
        Ok(Origin {
            text,
            wire: wire.into(),
        })
    }

    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    pub(crate) fn labels(&self) -> impl Iterator<Item = &[u8]> {
        self.text.split('.').map(str::as_bytes)
    }
}

/// The labels of an address's name, the most specific first, and the zone that all such names are in (RFC 1035 §3.5, RFC 3596 §2.5).
fn reversed(ip: IpAddr) -> (Vec<String>, &'static str) {
    match ip {
        IpAddr::V4(ip) => {
            let octets = ip.octets().into_iter().rev().map(|octet| octet.to_string());
            (octets.collect(), "in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles = ip
                .octets()
                .into_iter()
                .rev()
                .flat_map(|octet| [octet & 0xf, octet >> 4]);
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
        }
    }
}

/// The zone that has the names of a network's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reverse {
    pub prefix: Prefix,
    pub origin: Origin,
}

impl Reverse {
    /// The configuration has made sure that the prefix ends at a label.
    pub fn new(prefix: Prefix) -> Result<Reverse, String> {
        let (labels, family) = reversed(prefix.network());
        let below = labels.len() - Reverse::labels_of(prefix);
        let origin = Origin::new(&[&labels[below..].join("."), family].join("."))?;
        Ok(Reverse { prefix, origin })
    }

    /// Labels that the network itself takes.
    fn labels_of(prefix: Prefix) -> usize {
        let bits = if prefix.network().is_ipv4() { 8 } else { 4 };
        usize::from(prefix.length()) / bits
    }

    /// The labels of an address below the origin, in wire form.
    pub fn labels(&self, ip: IpAddr) -> Box<[u8]> {
        let (labels, _) = reversed(ip);
        let below = labels.len() - Reverse::labels_of(self.prefix);
        let labels: Vec<&str> = labels[..below].iter().map(String::as_str).collect();
        wire(&labels)
    }
}
