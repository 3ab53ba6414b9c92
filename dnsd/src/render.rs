//! The renderer: names and record data to wire form, by hickory-proto. Runs when the zone's content changes.
//!
//! Records are rendered behind a question for the name they are an answer to, so that compressed names point to
//! offset 12 and stay right when copied behind a client's question for that name, in whatever case.

use crate::question::HEADER;
use crate::zone::{NODE_LABEL, Origin, Records, SERVER_LABEL, Settings};
use baton_shared::id::NodeName;
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use std::net::IpAddr;

/// Addresses rendered for one node at most; so many of one family fit one UDP response of 1232 octets.
const ADDRESSES_MAX: usize = 32;
/// SOA refresh, retry, expire in seconds. A secondary must not go on naming a node long after it lost touch.
const REFRESH: i32 = 5;
const RETRY: i32 = 2;
const EXPIRE: i32 = 30;

/// A pointer to the question's name (RFC 1035 §4.1.4).
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// Renders records of one cluster. [`Origin`](crate::Origin) has made sure that every name fits.
pub(crate) struct Renderer {
    origin: Name,
    ttl: u32,
    negative_ttl: u32,
}

impl Renderer {
    pub fn new(settings: &Settings) -> Renderer {
        Renderer {
            origin: absolute(&settings.origin),
            ttl: settings.ttl,
            negative_ttl: settings.negative_ttl,
        }
    }

    /// Addresses of one family, as the answer to a question for whatever name has them.
    pub fn addresses(&self, serves: &[IpAddr], v6: bool) -> Records {
        let of_family = serves.iter().filter(|ip| ip.is_ipv6() == v6).copied();
        let records = self.address_records(&self.origin, of_family);
        self.behind_question(&records)
    }

    /// The SOA, as the answer to a question for the zone.
    pub fn soa(&self, primary: &Name, serial: u32) -> Records {
        let data = self.soa_data(primary, serial);
        self.behind_question(&[Record::from_rdata(self.origin.clone(), self.ttl, data)])
    }

    /// The SOA of another zone, as the answer to a question for that.
    pub fn soa_of_any_name(&self, primary: &Name, serial: u32) -> Records {
        self.of_any_name([self.soa_data(primary, serial)])
    }

    /// The SOA for answers without data in a zone, in full: it comes behind questions for any name. Its TTL is the lesser
    /// of its own and the minimum (RFC 2308 §3).
    pub fn negative_soa(&self, zone: &Origin, primary: &Name, serial: u32) -> Records {
        let ttl = self.ttl.min(self.negative_ttl);
        let record = Record::from_rdata(absolute(zone), ttl, self.soa_data(primary, serial));
        in_full(&[record])
    }

    /// The name servers, as the answer to a question for the zone, and their addresses to follow right behind.
    pub fn name_servers(&self, servers: &[(Name, &[IpAddr])]) -> [Records; 2] {
        let ns: Vec<Record> = servers
            .iter()
            .map(|(name, _)| RData::NS(NS(name.clone())))
            .map(|data| Record::from_rdata(self.origin.clone(), self.ttl, data))
            .collect();
        let glue: Vec<Record> = servers
            .iter()
            .flat_map(|(name, ips)| self.address_records(name, ips.iter().copied()))
            .collect();
        encode(Some(&self.origin), [&ns, &glue])
    }

    /// The name servers, as the answer to a question for another zone.
    pub fn name_servers_of_any_name(&self, servers: &[(Name, &[IpAddr])]) -> Records {
        self.of_any_name(servers.iter().map(|(name, _)| RData::NS(NS(name.clone()))))
    }

    /// A host's name and addresses, to stand behind whatever names it.
    pub fn glue(&self, host: &Name, ips: &[IpAddr]) -> Records {
        in_full(&self.address_records(host, ips.iter().copied()))
    }

    /// Where a service is on a node (RFC 2782), as the answer to a question for any name.
    pub fn service(&self, node: &NodeName, port: u16) -> Records {
        self.of_any_name([RData::SRV(SRV::new(0, 0, port, self.node(node)))])
    }

    /// Texts, as the answer to a question for any name.
    pub fn texts(&self, texts: Vec<Vec<String>>) -> Records {
        self.of_any_name(texts.into_iter().map(|text| RData::TXT(TXT::new(text))))
    }

    /// The names of nodes, as the answer to a question for an address.
    pub fn pointers(&self, nodes: &[&NodeName]) -> Records {
        self.of_any_name(nodes.iter().map(|node| RData::PTR(PTR(self.node(node)))))
    }

    /// What was rendered as the answer to a question for this name (in wire form), as records again.
    pub fn parsed(&self, name: &[u8], records: &Records) -> Vec<Record> {
        let head = [0, 0, 0x80, 0, 0, 1];
        let count = records.count.to_be_bytes();
        let question = [name, &[0, 1, 0, 1]].concat();
        let message = [&head[..], &count, &[0; 4], &question, &records.bytes].concat();
        Message::from_vec(&message)
            .expect("it was made by this renderer")
            .answers
    }

    /// The one record that stands for all types (RFC 8482 §4.2).
    pub fn any(&self) -> Records {
        let data = RData::HINFO(HINFO::new("RFC8482".into(), String::new()));
        self.behind_question(&[Record::from_rdata(self.origin.clone(), self.ttl, data)])
    }

    /// Each address once (RFC 2181 §5): two host names may have the same.
    fn address_records(&self, owner: &Name, ips: impl Iterator<Item = IpAddr>) -> Vec<Record> {
        let mut distinct: Vec<IpAddr> = Vec::new();
        for ip in ips {
            if !distinct.contains(&ip) && distinct.len() < ADDRESSES_MAX {
                distinct.push(ip);
            }
        }
        let data = distinct.into_iter().map(|ip| match ip {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        });
        data.map(|data| Record::from_rdata(owner.clone(), self.ttl, data))
            .collect()
    }

    fn soa_data(&self, primary: &Name, serial: u32) -> RData {
        let hostmaster = self.below_origin("hostmaster", self.origin.clone());
        RData::SOA(SOA::new(
            primary.clone(),
            hostmaster,
            serial,
            REFRESH,
            RETRY,
            EXPIRE,
            self.negative_ttl,
        ))
    }

    /// The name of a name server that the configuration names.
    pub fn server(&self, label: &str) -> Name {
        let servers = self.below_origin(SERVER_LABEL, self.origin.clone());
        self.below_origin(label, servers)
    }

    pub fn node(&self, node: &NodeName) -> Name {
        let nodes = self.below_origin(NODE_LABEL, self.origin.clone());
        self.below_origin(node.as_str(), nodes)
    }

    fn below_origin(&self, label: &str, parent: Name) -> Name {
        parent
            // As bytes: text would be taken for a name to internationalise, and "ab--c" is not one.
            .prepend_label(label.as_bytes())
            .expect("Origin::new left room for two labels")
    }

    /// Records whose owner is the question's name, whatever that is; names in them are in full.
    fn of_any_name(&self, data: impl IntoIterator<Item = RData>) -> Records {
        let mut bytes = Vec::new();
        let mut count = 0;
        for data in data {
            let record = in_full(&[Record::from_rdata(Name::root(), self.ttl, data)]);
            bytes.extend_from_slice(&TO_QUESTION);
            bytes.extend_from_slice(&record.bytes[1..]); // the root is one octet
            count += 1;
        }
        Records {
            count,
            bytes: bytes.into(),
        }
    }

    fn behind_question(&self, records: &[Record]) -> Records {
        let [records] = encode(Some(&self.origin), [records]);
        records
    }
}

fn absolute(origin: &Origin) -> Name {
    Name::from_labels(origin.labels()).expect("Origin::new checked its labels")
}

/// Records that may stand anywhere.
fn in_full(records: &[Record]) -> Records {
    let [records] = encode(None, [records]);
    records
}

/// Encodes sections that follow one another behind a header and a question for `question`, and cuts these off again.
/// Without a question, names are written in full, and the records may stand anywhere.
fn encode<const N: usize>(question: Option<&Name>, sections: [&[Record]; N]) -> [Records; N] {
    // 13 servers with 32 addresses of 28 octets each are far from 64 KiB.
    try_encode(question, sections).expect("record counts are bounded and names fit")
}

fn try_encode<const N: usize>(
    question: Option<&Name>,
    sections: [&[Record]; N],
) -> Result<[Records; N], ProtoError> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.emit_vec(&[0; HEADER])?;
    match question {
        Some(name) => Query::query(name.clone(), RecordType::A).emit(&mut encoder)?,
        None => encoder.set_name_encoding(NameEncoding::Uncompressed),
    }
    let mut ends = [0; N];
    let start = encoder.len();
    for (end, records) in ends.iter_mut().zip(sections) {
        encoder.emit_all(records.iter())?;
        *end = encoder.len();
    }
    let mut from = start;
    Ok(std::array::from_fn(|i| {
        let section = from..ends[i];
        from = section.end;
        Records {
            count: sections[i].len() as u16,
            bytes: bytes[section].into(),
        }
    }))
}
