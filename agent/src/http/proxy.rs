//! The PROXY protocol (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>): a header that a balancer sends ahead
//! of a check when its servers expect one. Where the check came from matters to nobody here, so the header is validated
//! and skipped. Pure functions of bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

const V1: &[u8] = b"PROXY ";
/// Longest header of version 1, with its end (§2.1).
const MAX_V1: usize = 107;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 up to and with its length.
const V2_HEAD: usize = 16;
/// Longest of what follows: addresses of Unix sockets, and a kilobyte of extras such as a client's certificate name.
const MAX_V2: usize = 1280;

/// What a connection's first bytes are to this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// None of its headers.
    Absent,
    /// The beginning of one.
    Partial,
    /// A whole one, of so many bytes.
    Whole(usize),
    /// One that cannot be right, and why.
    Wrong(&'static str),
}

/// Reads the first bytes of a connection; at least one.
pub(super) fn header(bytes: &[u8]) -> Header {
    if V1.starts_with(bytes) || V2.starts_with(bytes) {
        Header::Partial
    } else if bytes.starts_with(V1) {
        v1(bytes)
    } else if bytes.starts_with(V2) {
        v2(bytes)
    } else {
        Header::Absent
    }
}

fn v1(bytes: &[u8]) -> Header {
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() {
            0..MAX_V1 => Header::Partial,
            _ => Header::Wrong("its line does not end"),
        };
    };
    let Ok(text) = std::str::from_utf8(&line[V1.len()..end]) else {
        return Header::Wrong("its line is not ASCII");
    };
    let mut words = text.split(' ');
    let good = match words.next() {
        Some("UNKNOWN") => true,
        Some("TCP4") => addresses::<Ipv4Addr>(words),
        Some("TCP6") => addresses::<Ipv6Addr>(words),
        _ => false,
    };
    match good {
        true => Header::Whole(end + 2),
        false => {
            Header::Wrong("its line is neither UNKNOWN nor TCP4 or TCP6 with two addresses and two ports")
        }
    }
}

/// Source and destination, then their ports.
fn addresses<'a, A: std::str::FromStr>(mut words: impl Iterator<Item = &'a str>) -> bool {
    let mut address = || words.next().is_some_and(|word| word.parse::<A>().is_ok());
    let both = address() && address();
    let mut port = || words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    both && port() && port() && words.next().is_none()
}

fn v2(bytes: &[u8]) -> Header {
    let Some(&[version, family, high, low]) = bytes.get(V2.len()..V2_HEAD) else {
        return Header::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // §2.2: LOCAL, which is what checks are sent with, says nothing of addresses; PROXY has them as its family wants.
    let least = match (version, family) {
        (0x20, _) => 0,
        (0x21, 0x00) => 0,
        (0x21, 0x11 | 0x12) => 12,
        (0x21, 0x21 | 0x22) => 36,
        (0x21, 0x31 | 0x32) => 216,
        (0x21, _) => return Header::Wrong("its address family is unknown"),
        _ => return Header::Wrong("its version or command is unknown"),
    };
    match length {
        _ if length < least => Header::Wrong("it is too short for its addresses"),
        _ if length > MAX_V2 => Header::Wrong("it is longer than 1280 bytes"),
        _ if bytes.len() < V2_HEAD + length => Header::Partial,
        _ => Header::Whole(V2_HEAD + length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_of(version: u8, family: u8, length: u16, follows: usize) -> Vec<u8> {
        let mut bytes = [V2, &[version, family]].concat();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len() + follows, 7);
        bytes
    }

    #[test]
    fn headers_are_skipped_whole_or_refused() {
        let wrong = |bytes: &[u8]| matches!(header(bytes), Header::Wrong(_));
        for good in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ff::1 ff::2 1 65535\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\n",
            b"PROXY TCP6 2001:db8::1 ::1 5000 80\r\n",
            &v2_of(0x20, 0, 0, 0),
            &v2_of(0x20, 0x11, 12, 12),
            &v2_of(0x21, 0x11, 12, 12),
            &v2_of(0x21, 0x21, 50, 50),
            &v2_of(0x21, 0x31, 1280, 1280),
        ] {
            assert_eq!(header(good), Header::Whole(good.len()), "{good:?}");
            let before = [good, b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(header(&before), Header::Whole(good.len()), "{good:?}");
            for length in 1..good.len() {
                assert_eq!(
                    header(&good[..length]),
                    Header::Partial,
                    "{good:?} cut at {length}"
                );
            }
        }
        for bad in [
            &b"PROXY \r\n"[..],
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 5000\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80 1\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 65536\r\n",
            b"PROXY TCP4 ::1 ::1 5000 80\r\n",
            b"PROXY TCP5 ::1 ::1 5000 80\r\n",
            b"PROXY \xff\r\n",
            &[V1, &[b'x'; 200]].concat(),
            &v2_of(0x21, 0x11, 11, 11),
            &v2_of(0x21, 0x44, 50, 50),
            &v2_of(0x22, 0x11, 12, 12),
            &v2_of(0x11, 0x11, 12, 12),
            &v2_of(0x21, 0x11, 1281, 0),
        ] {
            assert!(wrong(bad), "{bad:?}: {:?}", header(bad));
        }
        for other in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/2.0\r\n",
            b"\r\nGET /",
            b"\x16\x03",
        ] {
            assert_eq!(header(other), Header::Absent, "{other:?}");
        }
    }
}
