//! The question: what a client's bytes ask, read by hand and without allocation.
//!
//! Nothing here decides an answer. Whatever the bytes are, parsing ends after one pass and does not panic.

/// Length of a DNS header (RFC 1035 §4.1.1).
pub(crate) const HEADER: usize = 12;
/// Longest name in wire form, the root's zero included (RFC 1035 §3.1).
const NAME_MAX: usize = 255;
const LABEL_MAX: u8 = 63;

/// Types and classes that are treated by name.
pub(crate) mod code {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const TKEY: u16 = 249;
    pub const TSIG: u16 = 250;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const MAILB: u16 = 253;
    pub const MAILA: u16 = 254;
    pub const ANY: u16 = 255;
    pub const CLASS_IN: u16 = 1;
    pub const CLASS_CH: u16 = 3;
}

/// EDNS options that are treated by code (IANA, "DNS EDNS0 Option Codes").
pub(crate) mod option {
    pub const NSID: u16 = 3;
    pub const COOKIE: u16 = 10;
    pub const KEEPALIVE: u16 = 11;
}

/// The bytes are not what RFC 1035 says a query is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The fixed part of a query.
#[derive(Debug)]
pub(crate) struct Header {
    pub id: [u8; 2],
    pub opcode: u8,
    pub recursion_desired: bool,
    pub questions: u16,
    /// Records after the question: answer and authority, then additional.
    before_additional: u32,
    additional: u16,
}

impl Header {
    /// Reads the header; `None` if there is none, or if this is a response: such bytes get no answer at all.
    pub fn parse(query: &[u8]) -> Option<Header> {
        let h: &[u8; HEADER] = query.first_chunk()?;
        let count = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let is_response = h[2] & 0x80 != 0;
        (!is_response).then_some(Header {
            id: [h[0], h[1]],
            opcode: h[2] >> 3 & 0x0f,
            recursion_desired: h[2] & 0x01 != 0,
            questions: count(4),
            before_additional: u32::from(count(6)) + u32::from(count(8)),
            additional: count(10),
        })
    }
}

/// A question's name in wire form, in the client's upper and lower case.
#[derive(Clone, Copy)]
pub(crate) struct Name<'q>(&'q [u8]);

/// Room for the labels of a name in lower case, made only for a name that is not.
pub(crate) type Lower = Option<[u8; NAME_MAX]>;

impl<'q> Name<'q> {
    /// Reads an uncompressed name: the question's is the first in a message and has nothing to point to.
    fn parse(bytes: &'q [u8]) -> Result<Name<'q>, Malformed> {
        let mut len = 0;
        loop {
            match bytes.get(len) {
                Some(0) => break,
                Some(label) if *label <= LABEL_MAX => len += 1 + usize::from(*label),
                _ => return Err(Malformed),
            }
        }
        len += 1;
        if len > NAME_MAX {
            return Err(Malformed);
        }
        bytes.get(..len).map(Name).ok_or(Malformed)
    }

    /// How many octets are in front of `origin` (in wire form and lower case), if this name is at or below it.
    fn boundary(&self, origin: &[u8]) -> Option<usize> {
        let boundary = self.0.len().checked_sub(origin.len())?;
        let (labels, rest) = self.0.split_at(boundary);
        // Lengths are at most 63, below 'A': folding case does not touch them.
        if !rest.eq_ignore_ascii_case(origin) {
            return None;
        }
        let mut at = 0;
        while at < boundary {
            at += 1 + usize::from(labels[at]);
        }
        (at == boundary).then_some(boundary)
    }

    /// Whether this name is at or below `origin`.
    pub fn is_below(&self, origin: &[u8]) -> bool {
        self.boundary(origin).is_some()
    }

    /// The labels in front of `origin` (in wire form and lower case), if this name is at or below it: as they came if
    /// they are in lower case, as most clients write them, else folded in `lower`.
    pub fn below<'n>(&self, origin: &[u8], lower: &'n mut Lower) -> Option<&'n [u8]>
    where
        'q: 'n,
    {
        let boundary = self.boundary(origin)?;
        let labels = self.0.get(..boundary)?;
        if !labels.iter().any(u8::is_ascii_uppercase) {
            return Some(labels);
        }
        let folded = lower.insert([0; NAME_MAX]).get_mut(..boundary)?;
        folded.copy_from_slice(labels);
        folded.make_ascii_lowercase();
        Some(folded)
    }

    /// Whether this is `name` (in wire form and lower case).
    pub fn is(&self, name: &[u8]) -> bool {
        self.0.eq_ignore_ascii_case(name)
    }
}

/// One question.
pub(crate) struct Question<'q> {
    /// Name, type and class as they came, for the response (which so keeps the client's upper and lower case).
    pub echo: &'q [u8],
    pub name: Name<'q>,
    pub qtype: u16,
    pub qclass: u16,
}

impl<'q> Question<'q> {
    /// Reads the one question of `query`, if it has one. Several are malformed (RFC 9619 §4).
    pub fn parse(query: &'q [u8], header: &Header) -> Result<Option<Question<'q>>, Malformed> {
        match header.questions {
            0 => return Ok(None),
            1 => {}
            _ => return Err(Malformed),
        }
        let rest = query.get(HEADER..).ok_or(Malformed)?;
        let name = Name::parse(rest)?;
        let echo = rest.get(..name.0.len() + 4).ok_or(Malformed)?;
        let tail = echo.get(name.0.len()..).and_then(|t| t.first_chunk::<4>());
        let [t0, t1, c0, c1] = *tail.ok_or(Malformed)?;
        Ok(Some(Question {
            echo,
            name,
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
        }))
    }
}

/// What the client's OPT record says (RFC 6891 §6.1). Of an unknown version, options are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns<'q> {
    /// Largest UDP response that it takes.
    pub size: u16,
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
    /// The server's name is asked for (RFC 5001 §2.1).
    pub nsid: bool,
    /// The connection's idle timeout is asked for (RFC 7828 §3.2.1).
    pub keepalive: bool,
    /// Data of the first COOKIE option, of any length; more of them do not count (RFC 7873 §5.2).
    pub cookie: Option<&'q [u8]>,
}

/// What follows a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind<'q> {
    pub edns: Option<Edns<'q>>,
    /// The last record is a TSIG (RFC 8945 §4.2).
    pub signed: bool,
}

impl<'q> Behind<'q> {
    /// Reads what follows the question (`echo`), to the last byte; at most one OPT, in the additional section alone, and
    /// at most one TSIG, as the last record (RFC 8945 §5.1).
    pub fn parse(query: &'q [u8], header: &Header, echo: &[u8]) -> Result<Behind<'q>, Malformed> {
        let mut rest = query.get(HEADER + echo.len()..).ok_or(Malformed)?;
        for _ in 0..header.before_additional {
            let (record, after) = Record::parse(rest)?;
            if matches!(record.rtype, code::OPT | code::TSIG) {
                return Err(Malformed);
            }
            rest = after;
        }
        let mut behind = Behind::default();
        for _ in 0..header.additional {
            let (record, after) = Record::parse(rest)?;
            if behind.signed || record.rtype == code::OPT && behind.edns.is_some() {
                return Err(Malformed);
            }
            match record.rtype {
                code::OPT => behind.edns = Some(record.edns()?),
                code::TSIG => behind.signed = true,
                _ => {}
            }
            rest = after;
        }
        if rest.is_empty() {
            Ok(behind)
        } else {
            Err(Malformed)
        }
    }
}

/// One record behind the question.
struct Record<'q> {
    owner_is_root: bool,
    rtype: u16,
    class: u16,
    ttl: [u8; 4],
    data: &'q [u8],
}

impl<'q> Record<'q> {
    /// Reads one record, and gives what comes after it. A compressed owner is skipped, never followed: nothing loops.
    fn parse(bytes: &'q [u8]) -> Result<(Record<'q>, &'q [u8]), Malformed> {
        let mut owner = 0;
        let owner_len = loop {
            match bytes.get(owner) {
                Some(0) => break owner + 1,
                Some(label) if *label <= LABEL_MAX => owner += 1 + usize::from(*label),
                Some(pointer) if *pointer >= 0xc0 => break owner + 2,
                _ => return Err(Malformed),
            }
        };
        let rest = bytes.get(owner_len..).ok_or(Malformed)?;
        let (fixed, rest) = rest.split_first_chunk::<10>().ok_or(Malformed)?;
        let [t0, t1, c0, c1, ttl @ .., l0, l1] = *fixed;
        let data_len = usize::from(u16::from_be_bytes([l0, l1]));
        let (data, rest) = rest.split_at_checked(data_len).ok_or(Malformed)?;
        let record = Record {
            owner_is_root: bytes[0] == 0,
            rtype: u16::from_be_bytes([t0, t1]),
            class: u16::from_be_bytes([c0, c1]),
            ttl,
            data,
        };
        Ok((record, rest))
    }

    fn edns(&self) -> Result<Edns<'q>, Malformed> {
        if !self.owner_is_root {
            return Err(Malformed);
        }
        let mut edns = Edns {
            size: self.class,
            version: self.ttl[1],
            dnssec_ok: self.ttl[2] & 0x80 != 0,
            nsid: false,
            keepalive: false,
            cookie: None,
        };
        if edns.version != 0 {
            return Ok(edns);
        }
        let mut options = self.data;
        while let Some(([c0, c1, l0, l1], after)) = options.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (data, after) = after.split_at_checked(len).ok_or(Malformed)?;
            match u16::from_be_bytes([*c0, *c1]) {
                option::NSID => edns.nsid = true,
                option::KEEPALIVE => edns.keepalive = true,
                option::COOKIE => edns.cookie = edns.cookie.or(Some(data)),
                // RFC 6891 §6.1.2: unknown options are ignored.
                _ => {}
            }
            options = after;
        }
        if options.is_empty() {
            Ok(edns)
        } else {
            Err(Malformed)
        }
    }
}
