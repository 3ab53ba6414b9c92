//! The renderer: names and record data to wire form, by hickory-proto. Runs when the zone's content changes.
//!
//! Records are rendered behind a question for the name they are an answer to, so that compressed names point to
//! offset 12 and stay right when copied behind a client's question for that name, in whatever case.

use crate::question::HEADER;
use crate::zone::{NODE_LABEL, Records, Settings};
use baton_shared::id::NodeName;
use hickory_proto::ProtoError;
use hickory_proto::op::Query;
use hickory_proto::rr::rdata::{A, AAAA, HINFO, NS, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};
use std::net::IpAddr;

/// Addresses rendered for one node at most; so many of one family fit one UDP response of 1232 octets.
const ADDRESSES_MAX: usize = 32;
/// SOA refresh, retry, expire in seconds. A secondary must not go on naming a node long after it lost touch.
const REFRESH: i32 = 5;
const RETRY: i32 = 2;
const EXPIRE: i32 = 30;

/// Renders records of one zone. [`Origin`](crate::Origin) has made sure that every name fits.
pub(crate) struct Renderer {
    origin: Name,
    ttl: u32,
    negative_ttl: u32,
}

impl Renderer {
    pub fn new(settings: &Settings) -> Renderer {
        let origin = Name::from_labels(settings.origin.labels()).expect("Origin::new checked its labels");
        Renderer {
            origin,
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
    pub fn soa(&self, primary: &NodeName, serial: u32) -> Records {
        self.behind_question(&[self.soa_record(primary, serial, self.ttl)])
    }

    /// The SOA for answers without data, in full: it comes behind questions for any name. Its TTL is the lesser of its
    /// own and the minimum (RFC 2308 §3).
    pub fn negative_soa(&self, primary: &NodeName, serial: u32) -> Records {
        let ttl = self.ttl.min(self.negative_ttl);
        let [records] = encode(None, [&[self.soa_record(primary, serial, ttl)]]);
        records
    }

    /// The name servers, as the answer to a question for the zone, and their addresses to follow right behind.
    pub fn name_servers(&self, servers: &[(&NodeName, &[IpAddr])]) -> [Records; 2] {
        let ns: Vec<Record> = servers
            .iter()
            .map(|(node, _)| RData::NS(NS(self.node(node))))
            .map(|data| Record::from_rdata(self.origin.clone(), self.ttl, data))
            .collect();
        let glue: Vec<Record> = servers
            .iter()
            .flat_map(|(node, serves)| self.address_records(&self.node(node), serves.iter().copied()))
            .collect();
        encode(Some(&self.origin), [&ns, &glue])
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

    fn soa_record(&self, primary: &NodeName, serial: u32, ttl: u32) -> Record {
        let hostmaster = self.below_origin("hostmaster", self.origin.clone());
        let data = SOA::new(
            self.node(primary),
            hostmaster,
            serial,
            REFRESH,
            RETRY,
            EXPIRE,
            self.negative_ttl,
        );
        Record::from_rdata(self.origin.clone(), ttl, RData::SOA(data))
    }

    fn node(&self, node: &NodeName) -> Name {
        let nodes = self.below_origin(NODE_LABEL, self.origin.clone());
        self.below_origin(node.as_str(), nodes)
    }

    fn below_origin(&self, label: &str, parent: Name) -> Name {
        parent
            // As bytes: text would be taken for a name to internationalise, and "ab--c" is not one.
            .prepend_label(label.as_bytes())
            .expect("Origin::new left room for two labels")
    }

    fn behind_question(&self, records: &[Record]) -> Records {
        let [records] = encode(Some(&self.origin), [records]);
        records
    }
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
