//! The zone: every name, and every node's records, ready to be copied behind a question.
//!
//! It says where nodes *are*; who is *active* is no part of it, and is asked of a [`Source`] at each answer.

use crate::question::{Lower, Name, code};
use crate::render::Renderer;
use crate::transfer::{Contents, Extent};
use baton_shared::config::{Dns, NameServer, NobodyActive, Service};
use baton_shared::id::{NodeName, RoleName};
use baton_shared::view::{NodeView, PeerState, View, Word};
use hickory_proto::rr::{Name as DomainName, Record};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

mod origin;
#[cfg(test)]
mod tests;

pub use origin::Origin;
pub(crate) use origin::Reverse;

/// The label under which nodes have their names.
pub(crate) const NODE_LABEL: &str = "node";
/// The label under which name servers of the configuration have theirs.
pub(crate) const SERVER_LABEL: &str = "ns";
/// The name with the addresses of all members.
const ALL_LABEL: &str = "all";
/// The name with the addresses of the members that could take over.
const STANDBY_LABEL: &str = "standby";
/// The name that tells roles, nodes and epochs as text.
const TOLD_LABEL: &str = "_baton";
/// Services are offered over it (RFC 2782).
const PROTOCOL_LABEL: &str = "_tcp";
/// The role whose active node the zone's own name stands for.
const MAIN_ROLE: &str = "main";
/// Name servers named at most: with their addresses they still fit one UDP response, as the root's thirteen do.
const NAME_SERVERS_MAX: usize = 13;

/// What of the configuration goes into records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The zone's name.
    pub origin: Origin,
    /// TTL of every record in an answer, in seconds.
    pub ttl: u32,
    /// SOA minimum: how long "no such data" is kept (RFC 2308 §4), in seconds.
    pub negative_ttl: u32,
    /// What is said while nobody is active.
    pub nobody_active: NobodyActive,
    services: Vec<Service>,
    servers: Vec<NameServer>,
    reverse: Vec<Reverse>,
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
            nobody_active: dns.nobody_active,
            services: dns.services.clone(),
            servers: dns.ns.clone(),
            reverse: dns
                .reverse
                .iter()
                .map(|prefix| Reverse::new(*prefix))
                .collect::<Result<_, _>>()?,
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

impl Records {
    /// Several of the same question, one behind the other. Those of them that point do so into the question alone.
    fn joined<'r>(all: impl Iterator<Item = &'r Records>) -> Records {
        let (mut count, mut bytes) = (0, Vec::new());
        for records in all {
            count += records.count;
            bytes.extend_from_slice(&records.bytes);
        }
        Records {
            count,
            bytes: bytes.into(),
        }
    }
}

/// Says who is active.
pub trait Source {
    /// Now, as far as this node may say. It is asked once for each role that an answer concerns, so that no answer mixes epochs.
    fn word(&self, role: &RoleName) -> Word;

    /// The node that was active last, if it is known; asked only while nobody is.
    fn last(&self, role: &RoleName) -> Option<NodeName>;

    /// Whether a secondary may keep what it has at this serial: asked for an SOA alone.
    fn vouches(&self) -> bool {
        true
    }
}

impl<F: Fn(&RoleName) -> Word> Source for F {
    fn word(&self, role: &RoleName) -> Word {
        self(role)
    }

    fn last(&self, _: &RoleName) -> Option<NodeName> {
        None
    }
}

/// One node's own records.
struct NodeRecords {
    name: NodeName,
    serves: Vec<IpAddr>,
    /// It may be active for a role.
    member: bool,
    /// It is heard, or is this node.
    up: bool,
    a: Records,
    aaaa: Records,
    /// Those of its addresses that no node before it has: sets of several nodes have each address once (RFC 2181 §5).
    distinct: [Records; 2],
    /// Its name and addresses in full, behind any other records.
    glue: Records,
    /// One for each service.
    services: Vec<Records>,
}

/// What there is at one name, beside SOA and NS at a zone's own.
enum Content {
    /// Addresses of the node active for this role: an index into `roles`.
    Active(usize),
    /// Addresses of this node: an index into `nodes`.
    Node(usize),
    /// Addresses of a name server, by family.
    Server([Records; 2]),
    All,
    Standby,
    /// Indices into the settings' services and into `roles`.
    Service(usize, usize),
    Told,
    /// Names of an address.
    Pointers(Records),
}

/// The names of one zone.
struct Tree {
    origin: Origin,
    /// By the labels below the origin, in wire form; the zone's own name is the empty one. Without content: there are only
    /// names below it.
    names: BTreeMap<Box<[u8]>, Option<Content>>,
    soa: Records,
    ns: Records,
    glue: Records,
    negative: Records,
}

/// The zones as one view has them, pre-rendered.
pub struct Zone {
    serial: u32,
    me: NodeName,
    nobody_active: NobodyActive,
    render: Renderer,
    /// Ordered by name.
    nodes: Vec<NodeRecords>,
    /// Ordered by name.
    roles: Vec<RoleName>,
    /// The role that the zone's own name stands for.
    main: usize,
    forward: Tree,
    reverse: Vec<Tree>,
    /// All members' addresses, by family.
    all: [Records; 2],
    any: Records,
}

/// A name below one of the zones.
#[derive(Clone, Copy)]
pub(crate) struct Place<'z, 'n> {
    tree: &'z Tree,
    labels: &'n [u8],
}

impl<'z> Place<'z, '_> {
    /// The SOA for the authority section of an answer without data.
    pub fn negative(&self) -> &'z Records {
        &self.tree.negative
    }
}

/// What a question finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'z> {
    /// Records for the answer section, and such as may be added.
    Records(Cow<'z, Records>, Option<&'z Records>),
    /// The name is there, and has nothing of the type.
    NoData,
    /// No such name.
    NoName,
    /// This node does not know.
    Unsure,
    /// Not given away.
    Refused,
}

impl<'z> Found<'z> {
    /// No records are no data.
    fn kept(records: &'z Records, additional: Option<&'z Records>) -> Found<'z> {
        match records.count {
            0 => Found::NoData,
            _ => Found::Records(Cow::Borrowed(records), additional),
        }
    }

    fn made(records: Records) -> Found<'z> {
        match records.count {
            0 => Found::NoData,
            _ => Found::Records(Cow::Owned(records), None),
        }
    }
}

/// Whose records stand for a role.
enum Who {
    Node(usize),
    All,
    Nobody,
    Unsure,
}

impl Zone {
    /// Renders the zones of `view` for a cluster with `roles`.
    pub fn new<'r>(settings: &Settings, view: &View, roles: impl IntoIterator<Item = &'r RoleName>) -> Zone {
        let render = Renderer::new(settings);
        let roles: Vec<RoleName> = roles.into_iter().cloned().collect();
        let main = roles.iter().position(|role| role.as_str() == MAIN_ROLE);
        let nodes = nodes(settings, &render, view);
        let servers = servers(settings, &render, &nodes);
        let me = || render.node(&view.me);
        let first = &servers.first().map_or_else(me, |(name, _)| name.clone());
        let serial = serial(view);
        let [ns, glue] = render.name_servers(&servers);
        let forward = Tree {
            origin: settings.origin.clone(),
            names: names(settings, &render, &nodes, &roles, main.unwrap_or_default()),
            soa: render.soa(first, serial),
            negative: render.negative_soa(&settings.origin, first, serial),
            ns,
            glue,
        };
        let glue: Vec<Records> = servers.iter().map(|(name, ips)| render.glue(name, ips)).collect();
        let reverse = settings.reverse.iter().map(|reverse| Tree {
            origin: reverse.origin.clone(),
            names: pointers(reverse, &nodes, &render),
            soa: render.soa_of_any_name(first, serial),
            negative: render.negative_soa(&reverse.origin, first, serial),
            ns: render.name_servers_of_any_name(&servers),
            glue: Records::joined(glue.iter()),
        });
        let members = || nodes.iter().filter(|node| node.member);
        Zone {
            serial,
            me: view.me.clone(),
            nobody_active: settings.nobody_active,
            main: main.unwrap_or_default(),
            reverse: reverse.collect(),
            all: [0, 1].map(|family| Records::joined(members().map(|node| &node.distinct[family]))),
            any: render.any(),
            render,
            forward,
            roles,
            nodes,
        }
    }

    /// Whether `view` would render to the same zones.
    pub(crate) fn is_of(&self, view: &View) -> bool {
        self.serial == serial(view)
            && self.nodes.len() == view.nodes.len()
            && view.nodes.iter().all(|node| {
                self.node(&node.name).is_some_and(|known| {
                    let known = &self.nodes[known];
                    known.serves == node.serves
                        && known.up == is_up(node)
                        && known.member == node.kind.may_act()
                })
            })
    }

    /// The zones' serial number (RFC 1982 arithmetic).
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Where a name is, if it is in one of the zones.
    pub(crate) fn place<'n>(&self, name: &Name<'n>, lower: &'n mut Lower) -> Option<Place<'_, 'n>> {
        let trees = std::iter::once(&self.forward).chain(&self.reverse);
        let above = trees.filter(|tree| name.is_below(tree.origin.wire()));
        // The nearest: networks may lie in one another (RFC 1034 §4.3.2 step 2).
        let tree = above.max_by_key(|tree| tree.origin.wire().len())?;
        let labels = name.below(tree.origin.wire(), lower)?;
        Some(Place { tree, labels })
    }

    /// What there is of `qtype` at a place.
    pub(crate) fn find<'z>(&'z self, place: Place<'z, '_>, qtype: u16, source: &impl Source) -> Found<'z> {
        let Place { tree, labels } = place;
        if self.roles.is_empty() {
            return Found::Unsure; // every cluster has a role: nobody has said yet what there is
        }
        let Some(content) = tree.names.get(labels) else {
            return Found::NoName;
        };
        let apex = labels.is_empty();
        match (qtype, content) {
            (code::A | code::AAAA, Some(content)) => self.addresses(content, qtype, source),
            (code::SOA, _) if apex && source.vouches() => Found::kept(&tree.soa, None),
            (code::SOA, _) if apex => Found::Unsure,
            (code::NS, _) if apex => Found::kept(&tree.ns, Some(&tree.glue)),
            (code::SRV, Some(Content::Service(service, role))) => self.service(*service, *role, source),
            (code::TXT, Some(Content::Told)) => self.told(source),
            (code::PTR, Some(Content::Pointers(records))) => Found::kept(records, None),
            (code::ANY, Some(_)) => Found::kept(&self.any, None),
            (code::ANY, None) if apex => Found::kept(&self.any, None),
            (code::AXFR | code::IXFR, _) => Found::Refused,
            _ => Found::NoData,
        }
    }

    fn addresses<'z>(&'z self, content: &'z Content, qtype: u16, source: &impl Source) -> Found<'z> {
        match content {
            Content::Active(role) => match self.who(*role, source) {
                Who::Node(node) => self.of_node(node, qtype),
                Who::All => self.of_all(qtype),
                Who::Nobody => Found::NoData,
                Who::Unsure => Found::Unsure,
            },
            Content::Node(node) => self.of_node(*node, qtype),
            Content::Server(addresses) => Found::kept(&addresses[family(qtype)], None),
            Content::All => self.of_all(qtype),
            Content::Standby => self.of_standbys(qtype, source),
            Content::Service(..) | Content::Told | Content::Pointers(_) => Found::NoData,
        }
    }

    /// Who stands for a role; asks the source once.
    fn who(&self, role: usize, source: &impl Source) -> Who {
        let Some(role) = self.roles.get(role) else {
            return Who::Nobody; // a cluster without roles
        };
        let known = |node: &NodeName| self.node(node).map_or(Who::Unsure, Who::Node);
        match (source.word(role), self.nobody_active) {
            (Word::Me(_), _) => known(&self.me),
            (Word::Other(node, _), _) => known(&node),
            (Word::Unknown, _) | (Word::Nobody, NobodyActive::ServFail) => Who::Unsure,
            (Word::Nobody, NobodyActive::NoData) => Who::Nobody,
            (Word::Nobody, NobodyActive::All) => Who::All,
            (Word::Nobody, NobodyActive::Last) => {
                // A node that was taken out since is nobody.
                let last = source.last(role).and_then(|last| self.node(&last));
                last.map_or(Who::Nobody, Who::Node)
            }
        }
    }

    /// One node's addresses. A node without any has a host name that is not resolved yet: that is not knowing, not "none".
    fn of_node(&self, node: usize, qtype: u16) -> Found<'_> {
        let Some(node) = self.nodes.get(node).filter(|node| !node.serves.is_empty()) else {
            return Found::Unsure;
        };
        Found::kept(if qtype == code::A { &node.a } else { &node.aaaa }, None)
    }

    /// All members' addresses, as far as any is known.
    fn of_all(&self, qtype: u16) -> Found<'_> {
        if self.all.iter().all(|records| records.count == 0) {
            return Found::Unsure;
        }
        Found::kept(&self.all[family(qtype)], None)
    }

    /// Addresses of the members that are up and not active for the main role.
    fn of_standbys(&self, qtype: u16, source: &impl Source) -> Found<'_> {
        let active = match self.roles.get(self.main).map(|role| source.word(role)) {
            Some(Word::Unknown) => return Found::Unsure,
            Some(Word::Me(_)) => Some(self.me.clone()),
            Some(Word::Other(node, _)) => Some(node),
            Some(Word::Nobody) | None => None,
        };
        let standbys = self
            .nodes
            .iter()
            .filter(|node| node.member && node.up && Some(&node.name) != active.as_ref());
        Found::made(Records::joined(
            standbys.map(|node| &node.distinct[family(qtype)]),
        ))
    }

    fn service<'z>(&'z self, service: usize, role: usize, source: &impl Source) -> Found<'z> {
        let of = |node: &'z NodeRecords| node.services.get(service);
        match self.who(role, source) {
            Who::Node(node) => match self
                .nodes
                .get(node)
                .and_then(|node| Some((of(node)?, &node.glue)))
            {
                Some((records, glue)) => Found::kept(records, Some(glue)),
                None => Found::Unsure,
            },
            Who::All => Found::made(Records::joined(
                self.nodes.iter().filter(|node| node.member).filter_map(of),
            )),
            Who::Nobody => Found::NoData,
            Who::Unsure => Found::Unsure,
        }
    }

    /// Roles, nodes and epochs as text, a record for each role. Nothing is said unless all is known.
    fn told(&self, source: &impl Source) -> Found<'_> {
        let mut texts = Vec::new();
        for role in &self.roles {
            let (node, epoch) = match source.word(role) {
                Word::Me(epoch) => (self.me.to_string(), epoch.0.to_string()),
                Word::Other(node, epoch) => (node.to_string(), epoch.0.to_string()),
                Word::Nobody => (String::new(), String::new()),
                Word::Unknown => return Found::Unsure,
            };
            texts.push(vec![
                format!("role={role}"),
                format!("node={node}"),
                format!("epoch={epoch}"),
            ]);
        }
        Found::made(self.render.texts(texts))
    }

    fn node(&self, name: &NodeName) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.name.cmp(name)).ok()
    }

    /// The SOA of each zone.
    pub(crate) fn soas(&self) -> Vec<Record> {
        let trees = std::iter::once(&self.forward).chain(&self.reverse);
        let soa = |tree: &Tree| self.render.parsed(tree.origin.wire(), &tree.soa);
        trees.flat_map(soa).collect()
    }

    /// The records of the zone with this name (in wire form and lower case), its SOA first, just as questions are answered now.
    ///
    /// Without `standby`: who is up is seen by each node for itself, and raises no serial.
    pub(crate) fn contents(&self, name: &[u8], extent: Extent, source: &impl Source) -> Contents {
        let mut trees = std::iter::once(&self.forward).chain(&self.reverse);
        match trees.find(|tree| tree.origin.wire() == name) {
            Some(tree) if extent == Extent::Soa => {
                Contents::Records(self.render.parsed(tree.origin.wire(), &tree.soa))
            }
            Some(tree) => match self.records_of(tree, source) {
                Ok(records) => Contents::Records(records),
                Err(Unsure) => Contents::Unsure,
            },
            None => Contents::NotOurs,
        }
    }

    /// Whether this is of a role that nobody is active for.
    fn is_vacant(&self, content: Option<&Content>, source: &impl Source) -> bool {
        let (Some(Content::Active(role)) | Some(Content::Service(_, role))) = content else {
            return false;
        };
        let role = self.roles.get(*role);
        role.is_some_and(|role| source.word(role) == Word::Nobody)
    }

    fn records_of(&self, tree: &Tree, source: &impl Source) -> Result<Vec<Record>, Unsure> {
        let mut all = Vec::new();
        for (labels, content) in &tree.names {
            if matches!(content, Some(Content::Standby)) {
                continue;
            }
            let place = Place { tree, labels };
            for qtype in [
                code::SOA,
                code::NS,
                code::A,
                code::AAAA,
                code::SRV,
                code::TXT,
                code::PTR,
            ] {
                match self.find(place, qtype, source) {
                    Found::Records(records, _) => {
                        let name = [labels, tree.origin.wire()].concat();
                        all.extend(self.render.parsed(&name, &records));
                    }
                    // A host name of one node that does not resolve is nobody else's loss.
                    Found::Unsure if matches!(content, Some(Content::Node(_))) => {}
                    // A copy cannot say SERVFAIL, as `nobody_active` may have it: the other roles go on.
                    Found::Unsure if self.is_vacant(content.as_ref(), source) => {}
                    Found::Unsure => return Err(Unsure),
                    Found::NoData | Found::NoName | Found::Refused => {}
                }
            }
        }
        Ok(all)
    }
}

/// Part of the zone is not known now.
struct Unsure;

fn family(qtype: u16) -> usize {
    usize::from(qtype == code::AAAA)
}

fn is_up(node: &NodeView) -> bool {
    matches!(node.state, PeerState::Up | PeerState::Myself)
}

fn nodes(settings: &Settings, render: &Renderer, view: &View) -> Vec<NodeRecords> {
    let mut views: Vec<&NodeView> = view.nodes.iter().collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    let mut seen: Vec<IpAddr> = Vec::new();
    let node = |node: &NodeView| {
        let serves = &node.serves;
        let member = node.kind.may_act();
        let known = |ip: &&IpAddr| !seen.contains(ip);
        let fresh: Vec<IpAddr> = serves.iter().filter(known).filter(|_| member).copied().collect();
        seen.extend(&fresh);
        NodeRecords {
            name: node.name.clone(),
            serves: serves.clone(),
            member,
            up: is_up(node),
            a: render.addresses(serves, false),
            aaaa: render.addresses(serves, true),
            distinct: [false, true].map(|v6| render.addresses(&fresh, v6)),
            glue: render.glue(&render.node(&node.name), serves),
            services: settings
                .services
                .iter()
                .map(|service| render.service(&node.name, service.port))
                .collect(),
        }
    };
    views.into_iter().map(node).collect()
}

/// The zone's name servers: those of the configuration, or the nodes.
fn servers<'r>(
    settings: &'r Settings,
    render: &Renderer,
    nodes: &'r [NodeRecords],
) -> Vec<(DomainName, &'r [IpAddr])> {
    if !settings.servers.is_empty() {
        let named = settings.servers.iter();
        return named
            .map(|server| (render.server(&server.name), server.addresses.as_slice()))
            .collect();
    }
    let known = nodes.iter().filter(|node| !node.serves.is_empty());
    known
        .map(|node| (render.node(&node.name), node.serves.as_slice()))
        .take(NAME_SERVERS_MAX)
        .collect()
}

fn names(
    settings: &Settings,
    render: &Renderer,
    nodes: &[NodeRecords],
    roles: &[RoleName],
    main: usize,
) -> BTreeMap<Box<[u8]>, Option<Content>> {
    let mut names = BTreeMap::new();
    let mut add = |labels: &[&str], content| {
        let name: &mut Option<Content> = names.entry(wire(labels)).or_default();
        if name.is_none() {
            *name = content;
        }
    };
    // Roles first: one that is called like another name takes it.
    for (index, role) in roles.iter().enumerate() {
        add(&[role.as_str()], Some(Content::Active(index)));
    }
    let apex = roles.get(main).map(|_| Content::Active(main));
    add(&[], apex);
    add(&[NODE_LABEL], None);
    for (index, node) in nodes.iter().enumerate() {
        add(&[node.name.as_str(), NODE_LABEL], Some(Content::Node(index)));
    }
    if !settings.servers.is_empty() {
        add(&[SERVER_LABEL], None);
    }
    for server in &settings.servers {
        let addresses = [false, true].map(|v6| render.addresses(&server.addresses, v6));
        add(
            &[server.name.as_str(), SERVER_LABEL],
            Some(Content::Server(addresses)),
        );
    }
    add(&[ALL_LABEL], Some(Content::All));
    add(&[STANDBY_LABEL], Some(Content::Standby));
    add(&[TOLD_LABEL], Some(Content::Told));
    for (index, service) in settings.services.iter().enumerate() {
        let label = format!("_{}", service.name);
        if !roles.is_empty() {
            add(&[PROTOCOL_LABEL], None);
            add(&[&label, PROTOCOL_LABEL], Some(Content::Service(index, main)));
        }
        for (at, role) in roles.iter().enumerate() {
            add(&[PROTOCOL_LABEL, role.as_str()], None);
            let content = Content::Service(index, at);
            add(&[&label, PROTOCOL_LABEL, role.as_str()], Some(content));
        }
    }
    names
}

/// The names of the addresses in one network, and the labels above them.
fn pointers(
    reverse: &Reverse,
    nodes: &[NodeRecords],
    render: &Renderer,
) -> BTreeMap<Box<[u8]>, Option<Content>> {
    let mut named: BTreeMap<IpAddr, Vec<&NodeName>> = BTreeMap::new();
    for node in nodes {
        for ip in node.serves.iter().filter(|ip| reverse.prefix.contains(**ip)) {
            let names = named.entry(*ip).or_default();
            if !names.contains(&&node.name) {
                names.push(&node.name);
            }
        }
    }
    let mut names = BTreeMap::from([(wire(&[]), None)]);
    for (ip, nodes) in named {
        let labels = reverse.labels(ip);
        let mut rest = &labels[..];
        while let Some((length, after)) = rest.split_first() {
            rest = after.get(usize::from(*length)..).unwrap_or_default();
            names.entry(rest.into()).or_default();
        }
        names.insert(labels, Some(Content::Pointers(render.pointers(&nodes))));
    }
    names
}

fn wire(labels: &[&str]) -> Box<[u8]> {
    labels
        .iter()
        .flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()))
        .collect()
}

/// The zone's serial: seconds of the greatest epoch ever given, plus the index of the last applied log entry, in 32 bits.
///
/// Each change of what copies show is a log entry (`baton_shared::copy`), and epochs are Unix milliseconds. Both are of
/// the replicated state alone, and neither falls: nodes that have applied the same log say the same serial, one that
/// lags says an older one (RFC 1982), which secondaries ignore. The seconds let a cluster that was set up anew, and
/// counts its log from 1 again, go on with greater serials. Epochs alone would not do: places of one line differ by
/// a millisecond, and milliseconds do not fit 32 bits.
fn serial(view: &View) -> u32 {
    (view.copy.greatest.0 / 1_000).wrapping_add(view.applied) as u32
}
