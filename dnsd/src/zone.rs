//! The zone: every name, and every node's records, ready to be copied behind a question.
//!
//! It says where nodes *are*; who is *active* is no part of it, and is asked at each answer.

use crate::question::code;
use crate::render;
use baton_shared::config::Dns;
use baton_shared::id::{Label, NodeName, RoleName};
use baton_shared::view::{View, Word};
use std::collections::BTreeMap;
use std::net::IpAddr;

#[cfg(test)]
mod tests;

/// The label under which nodes have their names.
pub(crate) const NODE_LABEL: &str = "node";
/// The role whose active node the zone's own name stands for.
const MAIN_ROLE: &str = "main";
/// Name servers named at most: with their addresses they still fit one UDP response, as the root's thirteen do.
const NAME_SERVERS_MAX: usize = 13;
/// Room left below the zone for `LABEL.node` (labels of 63), of the 255 octets of a name (RFC 1035 §3.1).
const ORIGIN_MAX: usize = 255 - 64 - 5;

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

/// What of the configuration goes into records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The zone's name.
    pub origin: Origin,
    /// TTL of every record in an answer, in seconds.
    pub ttl: u32,
    /// SOA minimum: how long "no such data" is kept (RFC 2308 §4), in seconds.
    pub negative_ttl: u32,
}

impl Settings {
    /// Takes them from `[dns]`. Part seconds are cut off: an answer must not be kept longer than was asked for.
    pub fn new(dns: &Dns) -> Result<Settings, String> {
        // RFC 2181 §8: a TTL has 31 bits.
        let seconds = |d: std::time::Duration| d.as_secs().min(i32::MAX as u64) as u32;
        Ok(Settings {
            origin: Origin::new(&dns.zone)?,
            ttl: seconds(dns.ttl),
            negative_ttl: seconds(dns.negative_ttl),
        })
    }
}

/// Records of one section in wire form. Names in them may point into the question that they were rendered for, which
/// always begins at offset 12, and into the section in front of them: they keep their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub count: u16,
    pub bytes: Box<[u8]>,
}

/// One node's own records.
struct NodeRecords {
    name: NodeName,
    serves: Vec<IpAddr>,
    a: Records,
    aaaa: Records,
}

/// What there is at one name.
#[derive(Default)]
struct Entry {
    /// Addresses of the node active for this role.
    role: Option<RoleName>,
    /// Addresses of this node: an index into `nodes`.
    node: Option<usize>,
    /// SOA and NS.
    apex: bool,
}

/// A zone as one view has it, pre-rendered.
pub struct Zone {
    origin: Origin,
    serial: u32,
    me: NodeName,
    /// Ordered by name.
    nodes: Vec<NodeRecords>,
    /// By the labels below the origin, in wire form.
    names: BTreeMap<Box<[u8]>, Entry>,
    soa: Records,
    ns: Records,
    glue: Records,
    any: Records,
    negative: Records,
}

/// What a question finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'z> {
    /// Records for the answer section, and such as may be added.
    Records(&'z Records, Option<&'z Records>),
    /// The name is there, and has nothing of the type.
    NoData,
    /// No such name.
    NoName,
    /// This node does not know.
    Unsure,
    /// Not given away.
    Refused,
}

impl Zone {
    /// Renders the zone of `view` for a cluster with `roles`.
    pub fn new<'r>(settings: &Settings, view: &View, roles: impl IntoIterator<Item = &'r RoleName>) -> Zone {
        let render = render::Renderer::new(settings);
        let mut nodes: Vec<NodeRecords> = view
            .nodes
            .iter()
            .map(|node| NodeRecords {
                name: node.name.clone(),
                serves: node.serves.clone(),
                a: render.addresses(&node.serves, false),
                aaaa: render.addresses(&node.serves, true),
            })
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let servers: Vec<(&NodeName, &[IpAddr])> = nodes
            .iter()
            .filter(|node| !node.serves.is_empty())
            .map(|node| (&node.name, node.serves.as_slice()))
            .take(NAME_SERVERS_MAX)
            .collect();
        let first = servers.first().map_or(&view.me, |(name, _)| *name);
        let serial = serial(view);
        let [ns, glue] = render.name_servers(&servers);
        Zone {
            origin: settings.origin.clone(),
            serial,
            me: view.me.clone(),
            soa: render.soa(first, serial),
            negative: render.negative_soa(first, serial),
            ns,
            glue,
            any: render.any(),
            names: names(&nodes, roles),
            nodes,
        }
    }

    /// Whether `view` would render to the same zone.
    pub(crate) fn is_of(&self, view: &View) -> bool {
        self.serial == serial(view)
            && self.nodes.len() == view.nodes.len()
            && view.nodes.iter().all(|node| {
                self.node(&node.name)
                    .is_some_and(|known| known.serves == node.serves)
            })
    }

    /// The zone's serial number (RFC 1982 arithmetic).
    pub fn serial(&self) -> u32 {
        self.serial
    }

    pub(crate) fn origin(&self) -> &[u8] {
        self.origin.wire()
    }

    /// The SOA for the authority section of an answer without data.
    pub(crate) fn negative(&self) -> &Records {
        &self.negative
    }

    /// What there is of `qtype` at the name with `labels` below the origin; `word` says who is active.
    pub(crate) fn find(&self, labels: &[u8], qtype: u16, word: impl FnOnce(&RoleName) -> Word) -> Found<'_> {
        let Some(entry) = self.names.get(labels) else {
            return Found::NoName;
        };
        match qtype {
            code::A | code::AAAA => match (&entry.role, entry.node) {
                (Some(role), _) => self.active(&word(role), qtype),
                (None, Some(node)) => addresses(self.nodes.get(node), qtype),
                (None, None) => Found::NoData,
            },
            code::SOA if entry.apex => Found::Records(&self.soa, None),
            code::NS if entry.apex && self.ns.count > 0 => Found::Records(&self.ns, Some(&self.glue)),
            code::ANY if entry.role.is_some() || entry.node.is_some() || entry.apex => {
                Found::Records(&self.any, None)
            }
            code::AXFR | code::IXFR => Found::Refused,
            _ => Found::NoData,
        }
    }

    fn active(&self, word: &Word, qtype: u16) -> Found<'_> {
        match word {
            Word::Me(_) => addresses(self.node(&self.me), qtype),
            Word::Other(node, _) => addresses(self.node(node), qtype),
            Word::Nobody => Found::NoData,
            Word::Unknown => Found::Unsure,
        }
    }

    fn node(&self, name: &NodeName) -> Option<&NodeRecords> {
        let at = self.nodes.binary_search_by(|node| node.name.cmp(name)).ok()?;
        self.nodes.get(at)
    }
}

/// One node's addresses. A node without any has a host name that is not resolved yet: that is not knowing, not "none".
fn addresses(node: Option<&NodeRecords>, qtype: u16) -> Found<'_> {
    let Some(node) = node.filter(|node| !node.serves.is_empty()) else {
        return Found::Unsure;
    };
    let records = if qtype == code::A { &node.a } else { &node.aaaa };
    if records.count == 0 {
        Found::NoData
    } else {
        Found::Records(records, None)
    }
}

fn names<'r>(
    nodes: &[NodeRecords],
    roles: impl IntoIterator<Item = &'r RoleName>,
) -> BTreeMap<Box<[u8]>, Entry> {
    let mut names: BTreeMap<Box<[u8]>, Entry> = BTreeMap::new();
    let mut apex = Entry {
        apex: true,
        ..Entry::default()
    };
    for role in roles {
        if apex.role.is_none() || role.as_str() == MAIN_ROLE {
            apex.role = Some(role.clone());
        }
        names.entry(wire(&[role.as_str()])).or_default().role = Some(role.clone());
    }
    names.insert(wire(&[]), apex);
    names.entry(wire(&[NODE_LABEL])).or_default();
    for (index, node) in nodes.iter().enumerate() {
        let name = wire(&[node.name.as_str(), NODE_LABEL]);
        names.entry(name).or_default().node = Some(index);
    }
    names
}

fn wire(labels: &[&str]) -> Box<[u8]> {
    labels
        .iter()
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()))
        .collect()
}

/// The zone's serial: seconds of the greatest epoch in the roles' lines, plus the index of the last applied log entry,
/// in 32 bits.
///
/// Every takeover is recorded in the log, so each change is followed by a greater index; every new line has greater
/// epochs (Unix milliseconds). Both are replicated: nodes that have applied the same log say the same serial, one that
/// lags says an older one (RFC 1982), which secondaries ignore. The seconds let a cluster that was set up anew, and
/// counts its log from 1 again, go on with greater serials. Epochs alone would not do: places of one line differ by
/// a millisecond, and milliseconds do not fit 32 bits.
fn serial(view: &View) -> u32 {
    let greatest = view
        .roles
        .iter()
        .flat_map(|role| {
            let line = role.line.iter().map(|(_, place)| place.epoch);
            line.chain(role.holder.as_ref().map(|holder| holder.epoch))
        })
        .max()
        .unwrap_or_default();
    (greatest.0 / 1_000).wrapping_add(view.applied) as u32
}
