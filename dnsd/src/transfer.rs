//! Zone transfer: the site's own name servers copy the zone (AXFR, RFC 5936; IXFR answered as RFC 1995 §4 allows).
//!
//! [`respond`] decides alone; [`Transfers`] bounds how many are under way. Every message stays below 16 KiB, where
//! compression pointers reach, and each one is signed if the request was.

use crate::answer::{EDNS_SIZE, Via};
use crate::message::{Layout, u16_at};
use crate::question::{HEADER, Header, Question, code};
use crate::tsig::{self, Keys, Session, Signed};
use baton_shared::config::{self, Dns};
use hickory_proto::ProtoError;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};

#[cfg(test)]
mod tests;

/// Octets of one message at most, signature included.
const MESSAGE_MAX: usize = 16 << 10;
/// Room kept in each message for the OPT and TSIG records.
const RESERVE: usize = 512;
/// Octets of a whole transfer: a zone of 64 nodes and roles is a tenth of that.
const TRANSFER_MAX: usize = 4 << 20;
/// Transfers made and written at once; together they hold at most so many times [`TRANSFER_MAX`].
const AT_ONCE: usize = 8;

/// What there is of a zone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Contents {
    /// As many of its records as were asked for, the SOA first.
    Records(Vec<Record>),
    /// Part of it is not known now.
    Unsure,
    /// It is not served here.
    NotOurs,
}

/// How much of a zone is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Its SOA alone.
    Soa,
    /// All of it.
    Whole,
}

/// Who may copy, and how many at once.
#[derive(Debug)]
pub(crate) struct Transfers {
    allowed: Option<config::Transfer>,
    keys: Keys,
    at_once: Semaphore,
}

impl Transfers {
    pub fn new(dns: &Dns) -> Transfers {
        Transfers {
            allowed: dns.transfer.clone(),
            keys: Keys::new(&dns.keys),
            at_once: Semaphore::new(AT_ONCE),
        }
    }

    /// Whether the zone may be copied at all.
    pub fn are_allowed(&self) -> bool {
        self.allowed.is_some()
    }

    /// The server's keys, for signed queries of other kinds.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Waits until there is room for one more transfer. Kept until it is written.
    pub async fn begin(&self) -> SemaphorePermit<'_> {
        let permit = self.at_once.acquire().await;
        permit.expect("the semaphore is never closed")
    }

    /// The messages that answer `query`, a request for a transfer ([`is_transfer`]), at `now` (Unix seconds). `zone` gives
    /// the contents of the zone with this name; it is asked only for a client that may have them, and over UDP, where
    /// addresses are forged, for the SOA alone.
    pub fn respond(
        &self,
        query: &[u8],
        via: Via,
        peer: IpAddr,
        zone: impl FnMut(&Name, Extent) -> Contents,
        now: u64,
    ) -> Vec<Vec<u8>> {
        match tsig::check(query, &self.keys, now) {
            Err(rejected) => rejected.response(query).into_iter().collect(),
            Ok(None) => {
                let allowed = self.admits(peer, None);
                respond(query, via, allowed, zone, |message| message)
            }
            Ok(Some(Signed { request, mut session })) => {
                let allowed = self.admits(peer, Some(&session));
                respond(&request, via, allowed, zone, |message| session.sign(message, now))
            }
        }
    }

    /// What is said to a client over TCP who may not copy, or whose request is none, at `now` (Unix seconds).
    pub fn refusal(&self, query: &[u8], peer: IpAddr, now: u64) -> Option<Vec<Vec<u8>>> {
        let mut admitted = false;
        let zone = |_: &Name, _| {
            admitted = true;
            Contents::Unsure
        };
        let messages = self.respond(query, Via::Tcp, peer, zone, now);
        (!admitted).then_some(messages)
    }

    /// The right address where there is a list, and the right key where there is one.
    fn admits(&self, peer: IpAddr, session: Option<&Session<'_>>) -> bool {
        let Some(allowed) = &self.allowed else {
            return false;
        };
        let by_address = allowed.allow.is_empty() || allowed.allow.iter().any(|prefix| prefix.contains(peer));
        let by_key = match (&allowed.key, session) {
            (None, _) => !allowed.allow.is_empty(),
            (Some(name), Some(session)) => self.keys.get(name).is_some_and(|key| session.is_by(key)),
            (Some(_), None) => false,
        };
        by_address && by_key
    }
}

/// Whether `query` asks for a transfer: AXFR, or IXFR. Cheap.
pub(crate) fn is_transfer(query: &[u8]) -> bool {
    let Some(header) = Header::parse(query).filter(|header| header.opcode == 0) else {
        return false;
    };
    Question::parse(query, &header)
        .is_ok_and(|q| q.is_some_and(|q| matches!(q.qtype, code::AXFR | code::IXFR)))
}

/// Writes `messages` as a TCP stream has them, each behind its length (RFC 1035 §4.2.2).
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), messages: &[Vec<u8>]) -> io::Result<()> {
    for message in messages {
        let length = u16::try_from(message.len()).map_err(io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes(), &message[..]].concat())
            .await?;
    }
    stream.flush().await
}

/// Response codes given here.
#[derive(Clone, Copy)]
enum Rcode {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    Refused = 5,
    NotAuth = 9,
}

/// The messages of a response to `query`, which has no signature left; `seal` finishes each of them.
fn respond(
    query: &[u8],
    via: Via,
    allowed: bool,
    zone: impl FnMut(&Name, Extent) -> Contents,
    mut seal: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let Ok(request) = Request::read(query) else {
        return Vec::new();
    };
    let messages = match request.records(via, allowed, zone) {
        Ok(records) => request.messages(&records),
        Err(rcode) => request.message(rcode, &[], true).map(|message| vec![message]),
    };
    // A zone that is too large, or has what cannot be encoded.
    let messages = messages.or_else(|_| Ok(vec![request.message(Rcode::ServFail, &[], true)?]));
    let messages: Result<Vec<_>, ProtoError> = messages;
    messages.unwrap_or_default().into_iter().map(&mut seal).collect()
}

/// A request for a transfer.
struct Request<'q> {
    query: &'q [u8],
    header: [u8; HEADER],
    layout: Layout,
    zone: Name,
    incremental: bool,
}

impl<'q> Request<'q> {
    fn read(query: &'q [u8]) -> Result<Request<'q>, ()> {
        let header = *query.first_chunk().ok_or(())?;
        let layout = Layout::read(query).map_err(|_| ())?;
        let mut decoder = BinDecoder::new(query.get(HEADER..layout.question_end).ok_or(())?);
        let zone = Name::read(&mut decoder).map_err(|_| ())?;
        let qtype = u16_at(query, layout.question_end.wrapping_sub(4)).ok_or(())?;
        Ok(Request {
            query,
            header,
            layout,
            zone,
            incremental: qtype == code::IXFR,
        })
    }

    /// What is sent, or the code that says why not.
    fn records(
        &self,
        via: Via,
        allowed: bool,
        mut zone: impl FnMut(&Name, Extent) -> Contents,
    ) -> Result<Vec<Record>, Rcode> {
        let class = u16_at(self.query, self.layout.question_end - 2);
        if !allowed || class != Some(code::CLASS_IN) {
            return Err(Rcode::Refused);
        }
        let mut records = |extent| match zone(&self.zone, extent) {
            Contents::Records(records) => Ok(records),
            Contents::Unsure => Err(Rcode::ServFail),
            Contents::NotOurs => Err(Rcode::NotAuth),
        };
        if self.incremental {
            let theirs = self.serial().ok_or(Rcode::FormErr)?;
            let soa = records(Extent::Soa)?;
            let ours = soa.first().and_then(serial).ok_or(Rcode::ServFail)?;
            // RFC 1995 §2: the SOA alone says "you are up to date", and over UDP "come by TCP".
            if via == Via::Udp || !is_newer(ours, theirs) {
                return Ok(soa);
            }
        } else if via == Via::Udp {
            return Err(Rcode::FormErr); // RFC 5936 §4.2 leaves it undefined
        }
        let mut records = records(Extent::Whole)?;
        let soa = records.first().cloned().ok_or(Rcode::ServFail)?;
        records.push(soa);
        Ok(records)
    }

    /// The serial that an IXFR client has: in the SOA of the authority section (RFC 1995 §3).
    fn serial(&self) -> Option<u32> {
        let message = Message::from_vec(self.query).ok()?;
        message.authorities.iter().find_map(serial)
    }

    /// `records` in as few messages as hold them.
    fn messages(&self, records: &[Record]) -> Result<Vec<Vec<u8>>, ProtoError> {
        let mut messages = Vec::new();
        let mut from = 0;
        let mut room = MESSAGE_MAX - RESERVE - self.layout.question_end;
        let mut left = TRANSFER_MAX;
        for (at, record) in records.iter().enumerate() {
            // Uncompressed, and so an upper bound.
            let size = record.to_bytes()?.len();
            left = left
                .checked_sub(size)
                .ok_or_else(|| ProtoError::from("the zone is too large"))?;
            if size > room && at > from {
                messages.push(self.message(Rcode::NoError, &records[from..at], from == 0)?);
                from = at;
                room = MESSAGE_MAX - RESERVE - HEADER;
            }
            room = room.saturating_sub(size);
        }
        messages.push(self.message(Rcode::NoError, &records[from..], from == 0)?);
        Ok(messages)
    }

    /// One message; only the first repeats the question (RFC 5936 §2.2.1) and has an OPT record (§2.2.5).
    fn message(&self, rcode: Rcode, records: &[Record], first: bool) -> Result<Vec<u8>, ProtoError> {
        let mut bytes = Vec::new();
        let mut encoder = BinEncoder::new(&mut bytes);
        let [id0, id1, flags, ..] = self.header;
        let authoritative = if records.is_empty() { 0 } else { 0x04 };
        let edns = first && self.layout.edns_size.is_some();
        let [an0, an1] = (records.len() as u16).to_be_bytes();
        let flags = 0x80 | authoritative | flags & 0x79;
        let low = rcode as u8;
        encoder.emit_vec(&[
            id0,
            id1,
            flags,
            low,
            0,
            first.into(),
            an0,
            an1,
            0,
            0,
            0,
            edns.into(),
        ])?;
        if first {
            encoder.emit_vec(
                self.query
                    .get(HEADER..self.layout.question_end)
                    .unwrap_or_default(),
            )?;
        }
        encoder.emit_all(records.iter())?;
        if edns {
            let [size0, size1] = EDNS_SIZE.to_be_bytes();
            encoder.emit_vec(&[0, 0, code::OPT as u8, size0, size1, 0, 0, 0, 0, 0, 0])?;
        }
        Ok(bytes)
    }
}

fn serial(record: &Record) -> Option<u32> {
    match (&record.data, record.record_type()) {
        (RData::SOA(soa), RecordType::SOA) => Some(soa.serial),
        _ => None,
    }
}

/// Serial arithmetic (RFC 1982 §3.2); of two that it does not order, ours is taken for the newer.
fn is_newer(ours: u32, theirs: u32) -> bool {
    ours != theirs && ours.wrapping_sub(theirs) <= 1 << 31
}
