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
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const CLASS_IN: u16 = 1;
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
    questions: u16,
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

/// A question name in lower case and wire form.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl Name {
    /// Reads an uncompressed name: the question's is the first in a message and has nothing to point to.
    fn parse(bytes: &[u8]) -> Result<Name, Malformed> {
        let mut len = 0;
        loop {
            match bytes.get(len) {
                Some(0) => break,
                Some(label) if *label <= LABEL_MAX => len += 1 + usize::from(*label),
                _ => return Err(Malformed),
            }
        }
        len += 1;
        let mut name = Name {
            bytes: [0; NAME_MAX],
            len,
        };
        let copy = name.bytes.get_mut(..len).ok_or(Malformed)?;
        copy.copy_from_slice(bytes.get(..len).ok_or(Malformed)?);
        // Lengths are at most 63, below 'A': folding the whole does not touch them.
        copy.make_ascii_lowercase();
        Ok(name)
    }

    /// The labels in front of `origin` (in wire form and lower case), if this name is at or below it.
    pub fn below(&self, origin: &[u8]) -> Option<&[u8]> {
        let name = self.bytes.get(..self.len)?;
        let boundary = name.len().checked_sub(origin.len())?;
        let (labels, rest) = name.split_at(boundary);
        if rest != origin {
            return None;
        }
        let mut at = 0;
        while at < boundary {
            at += 1 + usize::from(labels[at]);
        }
        (at == boundary).then_some(labels)
    }
}

/// One question.
pub(crate) struct Question<'q> {
    /// Name, type and class as they came, for the response (which so keeps the client's upper and lower case).
    pub echo: &'q [u8],
    pub name: Name,
    pub qtype: u16,
    pub qclass: u16,
}

impl<'q> Question<'q> {
    /// Reads the one question of `query`. None or several are malformed (RFC 9619 §4).
    pub fn parse(query: &'q [u8], header: &Header) -> Result<Question<'q>, Malformed> {
        if header.questions != 1 {
            return Err(Malformed);
        }
        let rest = query.get(HEADER..).ok_or(Malformed)?;
        let name = Name::parse(rest)?;
        let echo = rest.get(..name.len + 4).ok_or(Malformed)?;
        let tail = echo.get(name.len..).and_then(|t| t.first_chunk::<4>());
        let [t0, t1, c0, c1] = *tail.ok_or(Malformed)?;
        Ok(Question {
            echo,
            name,
            qtype: u16::from_be_bytes([t0, t1]),
            qclass: u16::from_be_bytes([c0, c1]),
        })
    }
}

/// What the client's OPT record says (RFC 6891 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Largest UDP response that it takes.
    pub size: u16,
    pub version: u8,
    /// The DO bit.
    pub dnssec_ok: bool,
}

impl Edns {
    /// Reads what follows the question, to the last byte; at most one OPT, in the additional section alone.
    pub fn parse(query: &[u8], header: &Header, question: &Question) -> Result<Option<Edns>, Malformed> {
        let mut rest = query.get(HEADER + question.echo.len()..).ok_or(Malformed)?;
        for _ in 0..header.before_additional {
            let (record, after) = Record::parse(rest)?;
            if record.rtype == code::OPT {
                return Err(Malformed);
            }
            rest = after;
        }
        let mut edns = None;
        for _ in 0..header.additional {
            let (record, after) = Record::parse(rest)?;
            if record.rtype == code::OPT && edns.replace(record.edns()?).is_some() {
                return Err(Malformed);
            }
            rest = after;
        }
        if rest.is_empty() { Ok(edns) } else { Err(Malformed) }
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

    fn edns(&self) -> Result<Edns, Malformed> {
        let mut options = self.data;
        while let Some(([_, _, l0, l1], after)) = options.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            options = after.get(len..).ok_or(Malformed)?;
        }
        if !options.is_empty() || !self.owner_is_root {
            return Err(Malformed);
        }
        Ok(Edns {
            size: self.class,
            version: self.ttl[1],
            dnssec_ok: self.ttl[2] & 0x80 != 0,
        })
    }
}
