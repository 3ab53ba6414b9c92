//! A whole message's layout: where its question ends, what EDNS offers, and where a TSIG record begins.
//!
//! For messages off the fast path: signed queries, transfers, and other servers' answers. Reading is one pass, and no
//! input makes it panic.

use crate::question::{HEADER, Malformed};

/// Longest name in wire form (RFC 1035 §3.1).
const NAME_MAX: usize = 255;
/// Type, class, TTL and length between a record's name and its data.
const FIXED: usize = 10;
const OPT: u16 = 41;
const TSIG: u16 = 250;

/// Where the parts of a message are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Where the question section ends.
    pub question_end: usize,
    /// The UDP payload size of the OPT record.
    pub edns_size: Option<u16>,
    /// Where the TSIG record begins: the last one, if it is there (RFC 8945 §5.1).
    pub tsig: Option<usize>,
}

impl Layout {
    /// Reads `message` to its end. A TSIG record anywhere but at the end, or bytes behind the last record, are malformed.
    pub fn read(message: &[u8]) -> Result<Layout, Malformed> {
        let mut layout = Layout::default();
        layout.walk(message)?;
        Ok(layout)
    }

    /// Whether a TSIG record is met in `message`, at its place or not.
    #[cfg(test)]
    pub fn meets_tsig(message: &[u8]) -> bool {
        let mut layout = Layout::default();
        let _ = layout.walk(message); // what was met in front of the fault counts
        layout.tsig.is_some()
    }

    fn walk(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let header: &[u8; HEADER] = message.first_chunk().ok_or(Malformed)?;
        let count = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
        let mut at = HEADER;
        for _ in 0..count(4) {
            // Nothing stands before it that a pointer could lead to.
            if message.get(at..).is_some_and(has_pointer) {
                return Err(Malformed);
            }
            at = skip_name(message, at)? + 4;
        }
        self.question_end = at;
        let before_additional = count(6) + count(8);
        for index in 0..before_additional + count(10) {
            let start = at;
            let fixed = skip_name(message, at)?;
            let kind = u16_at(message, fixed).ok_or(Malformed)?;
            let length = u16_at(message, fixed + FIXED - 2).ok_or(Malformed)?;
            at = fixed + FIXED + usize::from(length);
            if self.tsig.is_some() {
                return Err(Malformed);
            }
            match kind {
                OPT => self.edns_size = u16_at(message, fixed + 2),
                TSIG => {
                    self.tsig = Some(start);
                    if index < before_additional {
                        return Err(Malformed);
                    }
                }
                _ => {}
            }
        }
        if at == message.len() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

/// Two octets in network order.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*pair))
}

/// Where the name at `at` ends, its labels unread behind a pointer.
fn skip_name(message: &[u8], mut at: usize) -> Result<usize, Malformed> {
    let start = at;
    loop {
        match *message.get(at).ok_or(Malformed)? {
            0 => at += 1,
            length @ 1..=63 => {
                at += 1 + usize::from(length);
                if at - start >= NAME_MAX {
                    return Err(Malformed);
                }
                continue;
            }
            0xc0.. => at += 2,
            _ => return Err(Malformed),
        }
        return if at <= message.len() {
            Ok(at)
        } else {
            Err(Malformed)
        };
    }
}

/// Whether the name at the beginning of `bytes` ends in a pointer.
fn has_pointer(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [length @ 1..=63, labels @ ..] = rest {
        rest = labels.get(usize::from(*length)..).unwrap_or_default();
    }
    matches!(rest.first(), Some(0xc0..))
}

/// The name at `at` in full and in lower case (the canonical form of RFC 4034 §6.2), and where it ends.
pub(crate) fn name(message: &[u8], at: usize) -> Result<(Vec<u8>, usize), Malformed> {
    let end = skip_name(message, at)?;
    let mut wire = Vec::new();
    let mut at = at;
    // A pointer leads in front of what has been read since the last one: so this ends.
    let mut before = at;
    loop {
        match *message.get(at).ok_or(Malformed)? {
            0 => break,
            length @ 1..=63 => {
                let label = message.get(at..=at + usize::from(length)).ok_or(Malformed)?;
                wire.extend_from_slice(label);
                at += label.len();
            }
            0xc0.. => {
                let pointer = usize::from(u16_at(message, at).ok_or(Malformed)? & 0x3fff);
                if pointer >= before {
                    return Err(Malformed);
                }
                (at, before) = (pointer, pointer);
            }
            _ => return Err(Malformed),
        }
        if wire.len() >= NAME_MAX {
            return Err(Malformed);
        }
    }
    wire.push(0);
    wire.make_ascii_lowercase();
    Ok((wire, end))
}

/// `text`, a domain name as the configuration has checked it, in wire form and in lower case.
pub(crate) fn wire_name(text: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    wire.push(0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{qtype, question, with_edns};

    #[test]
    fn question_and_edns_are_found() {
        let plain = question("a.orders.internal", qtype::A);
        let layout = Layout::read(&plain).unwrap();
        assert_eq!(layout.question_end, plain.len());
        assert_eq!((layout.edns_size, layout.tsig), (None, None));
        let edns = with_edns(plain.clone(), 1400, 0, false);
        let layout = Layout::read(&edns).unwrap();
        assert_eq!(layout.question_end, plain.len());
        assert_eq!(layout.edns_size, Some(1400));
    }

    #[test]
    fn every_cut_and_every_surplus_is_malformed() {
        let whole = with_edns(question("a.orders.internal", qtype::A), 1400, 0, false);
        for cut in 0..whole.len() {
            assert_eq!(Layout::read(&whole[..cut]), Err(Malformed), "{cut}");
        }
        assert_eq!(Layout::read(&[&whole[..], &[0]].concat()), Err(Malformed));
    }

    #[test]
    fn question_that_points_somewhere_is_malformed() {
        let mut query = question("a.orders.internal", qtype::A);
        query[14..16].copy_from_slice(&[0xc0, 0]);
        assert_eq!(Layout::read(&query), Err(Malformed));
    }

    #[test]
    fn tsig_stands_last_or_is_malformed() {
        let mut message = question("a.orders.internal", qtype::A);
        let at = message.len();
        let record = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0];
        message.extend(record);
        message[11] = 1;
        assert_eq!(Layout::read(&message).unwrap().tsig, Some(at));
        assert!(Layout::meets_tsig(&message));
        let last_of_two = with_edns(message.clone(), 1400, 0, false);
        assert_eq!(Layout::read(&last_of_two), Err(Malformed));
        let twice = [&message[..], &record].concat();
        assert_eq!(
            Layout::read(&[&twice[..11], &[2], &twice[12..]].concat()),
            Err(Malformed)
        );
        (message[7], message[11]) = (1, 0);
        assert_eq!(Layout::read(&message), Err(Malformed));
        assert!(Layout::meets_tsig(&message));
    }

    #[test]
    fn names_are_read_through_pointers_which_lead_back() {
        let mut bytes = wire_name("Example.ORG");
        let second = bytes.len();
        bytes.extend([1, b'A', 0xc0, 0]);
        assert_eq!(
            name(&bytes, second).unwrap(),
            (wire_name("a.example.org"), bytes.len())
        );
        for looping in [&[0xc0, 0][..], &[1, b'a', 0xc0, 0], &[0xc0, 2, 0xc0, 0]] {
            assert_eq!(name(looping, 0), Err(Malformed), "{looping:?}");
        }
        let long = [[&[63][..], &[b'a'; 63]].concat().repeat(4), vec![0]].concat();
        assert_eq!(name(&long, 0), Err(Malformed));
    }
}
