//! The messages of a push: what the server is asked, what its answers mean, and the update (RFC 2136).
//!
//! The server's own data is the fence. The TXT record at `_epoch.NAME` holds the epoch that was pushed last, and every update
//! has the prerequisite that it is still the one that was read: of two updates that cross, in whatever order and however
//! late, the second finds its prerequisite gone.

use baton_shared::config::Push;
use baton_shared::id::Epoch;
use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The label under the name at which the epoch stands.
const EPOCH_LABEL: &[u8] = b"_epoch";

/// What shall be true in the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub epoch: Epoch,
    pub addresses: BTreeSet<IpAddr>,
}

/// What is true in the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub epoch: Option<Epoch>,
    pub addresses: BTreeSet<IpAddr>,
}

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No answer to this question.
    Malformed,
    /// Its response code.
    Code(ResponseCode),
    /// Not from the server's own data.
    NotAuthoritative,
    /// Somebody else's text stands where the epoch should.
    ForeignText,
    /// The name is an alias (CNAME), at which an address would be dropped without a word (RFC 2136 §3.4.2.2).
    Alias,
}

/// What is to be done about what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// It is so already.
    Done,
    /// A greater epoch is there: the node that has it, not this one, is or was active last (S2).
    Superseded(Epoch),
    /// Change it.
    Update,
}

/// The fencing token decides.
pub(super) fn decide(found: &Found, wish: &Wish) -> Move {
    match found.epoch {
        Some(theirs) if theirs > wish.epoch => Move::Superseded(theirs),
        Some(theirs) if theirs == wish.epoch && found.addresses == wish.addresses => Move::Done,
        _ => Move::Update,
    }
}

/// The names of a push.
#[derive(Clone, Debug)]
pub(super) struct Names {
    zone: Name,
    name: Name,
    epoch: Name,
    ttl: u32,
}

impl Names {
    /// Takes them from `[dns.push.LABEL]`; the configuration has checked that they are names with room for a label.
    pub fn new(push: &Push) -> Result<Names, String> {
        let read = |text: &str| {
            Name::from_labels(text.split('.').map(str::as_bytes))
                .map_err(|error| format!("[dns.push.{}] \"{text}\": {error}", push.label))
        };
        let name = read(&push.name)?;
        let epoch = name.clone().prepend_label(EPOCH_LABEL);
        Ok(Names {
            zone: read(&push.zone)?,
            epoch: epoch.map_err(|error| format!("[dns.push.{}] \"{}\": {error}", push.label, push.name))?,
            name,
            ttl: push.ttl.as_secs().min(i32::MAX as u64) as u32,
        })
    }

    /// The questions whose answers make a [`Found`], in this order.
    pub fn questions(&self, ids: [u16; 3]) -> Result<[Vec<u8>; 3], ProtoError> {
        let question = |id, name: &Name, kind| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(name.clone(), kind));
            message.to_vec()
        };
        Ok([
            question(ids[0], &self.epoch, RecordType::TXT)?,
            question(ids[1], &self.name, RecordType::A)?,
            question(ids[2], &self.name, RecordType::AAAA)?,
        ])
    }

    /// Reads the answers to [`questions`](Self::questions).
    pub fn found(&self, answers: [&[u8]; 3]) -> Result<Found, Unfit> {
        let [epoch, v4, v6] = answers;
        let text = self.records(epoch, &self.epoch, RecordType::TXT)?;
        let epoch = match &text[..] {
            [] => None,
            [RData::TXT(text)] => Some(read_epoch(text).ok_or(Unfit::ForeignText)?),
            _ => return Err(Unfit::ForeignText),
        };
        let v4 = self.records(v4, &self.name, RecordType::A)?;
        let v6 = self.records(v6, &self.name, RecordType::AAAA)?;
        let address = |data: &RData| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        };
        Ok(Found {
            epoch,
            addresses: v4.iter().chain(&v6).filter_map(address).collect(),
        })
    }

    fn records(&self, answer: &[u8], name: &Name, kind: RecordType) -> Result<Vec<RData>, Unfit> {
        let message = Message::from_vec(answer).map_err(|_| Unfit::Malformed)?;
        let header = &message.metadata;
        let question = Query::query(name.clone(), kind);
        if header.message_type != MessageType::Response || header.op_code != OpCode::Query {
            return Err(Unfit::Malformed);
        }
        match header.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(Unfit::Code(code)),
        }
        if message.queries != [question] || header.truncation {
            return Err(Unfit::Malformed);
        }
        if !header.authoritative {
            return Err(Unfit::NotAuthoritative);
        }
        let here = || message.answers.iter().filter(|record| record.name == *name);
        if here().any(|record| record.record_type() == RecordType::CNAME) {
            return Err(Unfit::Alias);
        }
        let records = here().filter(|record| record.record_type() == kind);
        Ok(records.map(|record| record.data.clone()).collect())
    }

    /// The update from what was found to what is wished: all of it or nothing (RFC 2136 §3.7).
    ///
    /// Within one epoch, which is one node's, the addresses are part of the prerequisite: so its own updates cannot cross.
    pub fn update(&self, id: u16, found: &Found, wish: &Wish) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Update);
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        let is = |name: &Name, data: RData| self.record(name, data, 0, DNSClass::IN);
        match found.epoch {
            Some(epoch) => message.add_answer(is(&self.epoch, text(epoch))),
            None => message.add_answer(self.empty(&self.epoch, RecordType::TXT, DNSClass::NONE)),
        };
        message.add_answer(self.empty(&self.name, RecordType::CNAME, DNSClass::NONE));
        if found.epoch == Some(wish.epoch) {
            for kind in [RecordType::A, RecordType::AAAA] {
                let of_kind = found
                    .addresses
                    .iter()
                    .map(data)
                    .filter(|data| data.record_type() == kind);
                let mut prerequisites: Vec<Record> = of_kind.map(|data| is(&self.name, data)).collect();
                if prerequisites.is_empty() {
                    prerequisites.push(self.empty(&self.name, kind, DNSClass::NONE));
                }
                message.add_answers(prerequisites);
            }
        }
        for (name, kind) in [
            (&self.name, RecordType::A),
            (&self.name, RecordType::AAAA),
            (&self.epoch, RecordType::TXT),
        ] {
            message.add_authority(self.empty(name, kind, DNSClass::ANY));
        }
        for address in &wish.addresses {
            message.add_authority(self.record(&self.name, data(address), self.ttl, DNSClass::IN));
        }
        message.add_authority(self.record(&self.epoch, text(wish.epoch), self.ttl, DNSClass::IN));
        message.to_vec()
    }

    fn record(&self, name: &Name, data: RData, ttl: u32, class: DNSClass) -> Record {
        let mut record = Record::from_rdata(name.clone(), ttl, data);
        record.dns_class = class;
        record
    }

    /// A record without data: of class NONE it asks that there is none of the kind, of class ANY it deletes all.
    fn empty(&self, name: &Name, kind: RecordType, class: DNSClass) -> Record {
        self.record(name, RData::Update0(kind), 0, class)
    }
}

/// The response code of an answer to an update.
pub(super) fn code(answer: &[u8]) -> Result<ResponseCode, Unfit> {
    let message = Message::from_vec(answer).map_err(|_| Unfit::Malformed)?;
    let header = &message.metadata;
    if header.message_type == MessageType::Response && header.op_code == OpCode::Update {
        Ok(header.response_code)
    } else {
        Err(Unfit::Malformed)
    }
}

fn data(address: &IpAddr) -> RData {
    match address {
        IpAddr::V4(ip) => RData::A(A(*ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
    }
}

fn text(epoch: Epoch) -> RData {
    RData::TXT(TXT::new(vec![epoch.0.to_string()]))
}

/// Only as [`text`] writes it: the prerequisite compares bytes.
fn read_epoch(text: &TXT) -> Option<Epoch> {
    let [only] = &text.txt_data[..] else { return None };
    let number: u64 = std::str::from_utf8(only).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == &only[..]).then_some(Epoch(number))
}

#[cfg(test)]
mod tests;
