//! One answer: from the question's bytes, the zone and the word on who is active to the response's bytes.
//!
//! Pure: no clock, no socket, no allocation; every input has an outcome, and no input makes it panic.

use crate::question::{Edns, HEADER, Header, Question, code};
use crate::zone::{Found, Records, Source, Zone};
use std::borrow::Cow;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

/// UDP payload that is offered and kept to: it passes every common path unfragmented (DNS flag day 2020).
pub const EDNS_SIZE: u16 = 1232;
/// UDP payload for clients without EDNS (RFC 1035 §4.2.1).
const PLAIN_SIZE: u16 = 512;
/// Length of an OPT record without options.
const OPT_LEN: usize = 11;

/// How a question came, which bounds the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// One datagram: 512 octets, or what the client's EDNS allows up to [`EDNS_SIZE`].
    Udp,
    /// A stream: as much as the caller's buffer takes.
    Tcp,
}

/// Response codes given (RFC 1035 §4.1.1, RFC 6891 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rcode {
    /// An answer, or no data of the type asked.
    NoError = 0,
    /// The query is malformed.
    FormErr = 1,
    /// This node does not know.
    ServFail = 2,
    /// No such name in the zone.
    NxDomain = 3,
    /// Not a query.
    NotImp = 4,
    /// Not this zone, not class IN, or a zone transfer.
    Refused = 5,
    /// An EDNS version other than 0.
    BadVers = 16,
}

/// A response, written to the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Length in octets.
    pub len: usize,
    /// Its response code.
    pub rcode: Rcode,
    /// It did not fit, and says so (TC): the client asks again over TCP.
    pub truncated: bool,
}

/// Answers `query` from `zone` into `out`; `None` if it must not be answered (no header, a response, no room for a header).
///
/// `source` says who is active for a role *now*; it is asked at most once for each role, so that one answer names one node.
pub fn answer(query: &[u8], via: Via, zone: &Zone, source: &impl Source, out: &mut [u8]) -> Option<Reply> {
    let header = Header::parse(query)?;
    let bare = Draft::new(&header, via);
    if header.opcode != 0 {
        return bare.rcode(Rcode::NotImp).write(out);
    }
    let Ok(question) = Question::parse(query, &header) else {
        return bare.rcode(Rcode::FormErr).write(out);
    };
    let echoing = Draft {
        echo: question.echo,
        ..bare
    };
    let Ok(edns) = Edns::parse(query, &header, &question) else {
        return echoing.rcode(Rcode::FormErr).write(out);
    };
    let draft = Draft { edns, ..echoing };
    if edns.is_some_and(|edns| edns.version != 0) {
        return draft.rcode(Rcode::BadVers).write(out);
    }
    draft.resolve(&question, zone, source).write(out)
}

/// A response before it is written.
struct Draft<'a> {
    header: &'a Header,
    via: Via,
    echo: &'a [u8],
    edns: Option<Edns>,
    rcode: Rcode,
    authoritative: bool,
    answer: Option<Cow<'a, Records>>,
    authority: Option<Cow<'a, Records>>,
    /// Left out when it does not fit (RFC 2181 §9).
    additional: Option<&'a Records>,
}

impl<'a> Draft<'a> {
    fn new(header: &'a Header, via: Via) -> Draft<'a> {
        Draft {
            header,
            via,
            echo: &[],
            edns: None,
            rcode: Rcode::NoError,
            authoritative: false,
            answer: None,
            authority: None,
            additional: None,
        }
    }

    fn rcode(self, rcode: Rcode) -> Self {
        Draft { rcode, ..self }
    }

    fn resolve(self, question: &Question, zone: &'a Zone, source: &impl Source) -> Self {
        let place = zone.place(&question.name);
        let Some(place) = place.filter(|_| question.qclass == code::CLASS_IN) else {
            return self.rcode(Rcode::Refused);
        };
        let known = Draft {
            authoritative: true,
            ..self
        };
        match zone.find(place, question.qtype, source) {
            Found::Records(answer, additional) => Draft {
                answer: Some(answer),
                additional,
                ..known
            },
            Found::NoData => Draft {
                authority: Some(Cow::Borrowed(place.negative())),
                ..known
            },
            Found::NoName => Draft {
                rcode: Rcode::NxDomain,
                authority: Some(Cow::Borrowed(place.negative())),
                ..known
            },
            Found::Unsure => Draft {
                rcode: Rcode::ServFail,
                authoritative: false,
                ..known
            },
            Found::Refused => Draft {
                rcode: Rcode::Refused,
                authoritative: false,
                ..known
            },
        }
    }

    /// Largest response that the client takes.
    fn limit(&self) -> usize {
        match (self.via, self.edns) {
            (Via::Tcp, _) => usize::from(u16::MAX),
            (Via::Udp, None) => PLAIN_SIZE.into(),
            // RFC 6891 §6.2.3: values below 512 are taken as 512.
            (Via::Udp, Some(edns)) => edns.size.clamp(PLAIN_SIZE, EDNS_SIZE).into(),
        }
    }

    fn write(mut self, out: &mut [u8]) -> Option<Reply> {
        let limit = self.limit().min(out.len());
        let fixed = HEADER + self.echo.len() + self.edns.map_or(0, |_| OPT_LEN);
        let needed = fixed + len(self.answer.as_deref()) + len(self.authority.as_deref());
        let truncated = needed > limit;
        if truncated {
            (self.answer, self.authority) = (None, None);
        }
        if truncated || needed + len(self.additional) > limit {
            self.additional = None;
        }
        let mut writer = Writer { out, at: 0 };
        writer.put(&self.head(truncated))?;
        writer.put(self.echo)?;
        let sections = [self.answer.as_deref(), self.authority.as_deref(), self.additional];
        for records in sections.into_iter().flatten() {
            writer.put(&records.bytes)?;
        }
        if let Some(edns) = self.edns {
            writer.put(&self.opt(edns))?;
        }
        Some(Reply {
            len: writer.at,
            rcode: self.rcode,
            truncated,
        })
    }

    fn head(&self, truncated: bool) -> [u8; HEADER] {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let count = |records: Option<&Records>| records.map_or(0, |r| r.count);
        let [id0, id1] = self.header.id;
        let [an0, an1] = count(self.answer.as_deref()).to_be_bytes();
        let [ns0, ns1] = count(self.authority.as_deref()).to_be_bytes();
        let additional = count(self.additional) + u16::from(self.edns.is_some());
        let [ar0, ar1] = additional.to_be_bytes();
        let high = 0x80
            | self.header.opcode << 3
            | flag(self.authoritative, 0x04)
            | flag(truncated, 0x02)
            | flag(self.header.recursion_desired, 0x01);
        let low = self.rcode as u8 & 0x0f;
        let questions = u8::from(!self.echo.is_empty());
        [id0, id1, high, low, 0, questions, an0, an1, ns0, ns1, ar0, ar1]
    }

    /// The OPT record (RFC 6891 §6.1.2): root owner, our size as class, upper bits of the code and flags as TTL.
    fn opt(&self, edns: Edns) -> [u8; OPT_LEN] {
        let [size0, size1] = EDNS_SIZE.to_be_bytes();
        let code_high = self.rcode as u8 >> 4;
        let dnssec_ok = if edns.dnssec_ok { 0x80 } else { 0 };
        [
            0,
            0,
            code::OPT as u8,
            size0,
            size1,
            code_high,
            0,
            dnssec_ok,
            0,
            0,
            0,
        ]
    }
}

fn len(records: Option<&Records>) -> usize {
    records.map_or(0, |r| r.bytes.len())
}

/// Writes into a buffer, and not past its end.
struct Writer<'o> {
    out: &'o mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at.checked_add(bytes.len())?;
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }
}
