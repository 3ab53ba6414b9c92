//! The queries of RFC 8906 §8, one test for each section: what a zone's operator is to try, and to see.

use super::*;
use crate::testing::*;
use baton_shared::clock::Mono;
use baton_shared::id::RoleName;
use hickory_proto::op::{Message, ResponseCode};

/// An option and a flag that nobody has defined yet.
const UNKNOWN_OPTION: u16 = 100;
const UNKNOWN_FLAG: u8 = 0x40;

/// What came back.
struct Response {
    bytes: Vec<u8>,
    message: Message,
}

fn ask_via(query: &[u8], via: Via) -> Response {
    let mut view = view();
    holder(&mut view, "main", "b");
    let published = published(view);
    let mut bytes = vec![0; 65_535];
    let word = |role: &RoleName| published.word(role, Mono(1_000));
    let zone = zone(&published);
    let reply = answer(query, client(via), &policy(), &zone, &word, &mut bytes).expect("a response");
    bytes.truncate(reply.len);
    let message = read(&bytes);
    Response { bytes, message }
}

fn ask(query: &[u8]) -> Response {
    ask_via(query, Via::Udp)
}

/// As `dig +norec soa` asks: no recursion, no EDNS.
fn soa() -> Vec<u8> {
    of_type(qtype::SOA)
}

fn of_type(of: u16) -> Vec<u8> {
    let mut query = question(ZONE, of);
    query[2] = 0;
    query
}

/// Flags of the header: QR, opcode, AA, TC, RD, then RA, Z, AD, CD, RCODE.
const ANSWERED: [u8; 2] = [0x84, 0x00];

impl Response {
    #[track_caller]
    fn brings_the_soa(self) -> Self {
        assert_eq!(self.message.metadata.response_code, ResponseCode::NoError);
        assert_eq!(self.bytes[2..4], ANSWERED, "AA and no other flag");
        let types: Vec<_> = self.message.answers.iter().map(|r| r.record_type()).collect();
        assert_eq!(types, [hickory_proto::rr::RecordType::SOA]);
        self
    }

    #[track_caller]
    fn says_bad_version(self) -> Self {
        let rcode = u16::from(self.message.metadata.response_code);
        assert_eq!(rcode, Rcode::BadVers as u16);
        assert!(self.message.answers.is_empty(), "no SOA");
        assert_eq!(self.bytes[2] & 0x04, 0, "no AA");
        self.has_edns()
    }

    #[track_caller]
    fn has_edns(self) -> Self {
        let edns = self.message.edns.as_ref().expect("an OPT record");
        assert_eq!(edns.version(), 0);
        assert_eq!(edns.max_payload(), EDNS_SIZE);
        assert_eq!(edns.flags().z, 0, "unknown flags are not echoed");
        self
    }

    #[track_caller]
    fn has_no_edns(self) -> Self {
        assert!(self.message.edns.is_none());
        self
    }

    fn dnssec_ok(&self) -> bool {
        self.message
            .edns
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok)
    }

    fn options(&self) -> Vec<u16> {
        let edns = self.message.edns.as_ref().expect("an OPT record");
        let options = edns.options();
        options.options.iter().map(|(code, _)| u16::from(*code)).collect()
    }
}

fn edns(version: u8, dnssec_ok: bool) -> Vec<u8> {
    with_edns(soa(), 4096, version, dnssec_ok)
}

/// Sets a flag behind DO in the OPT record, which is the query's last.
fn with_unknown_flag(mut query: Vec<u8>) -> Vec<u8> {
    let opt = soa().len();
    query[opt + 7] |= UNKNOWN_FLAG;
    query
}

#[test]
fn section_8_1_1_server_is_configured_for_the_zone() {
    ask(&soa()).brings_the_soa().has_no_edns();
}

#[test]
fn section_8_1_2_unknown_type() {
    let response = ask(&of_type(1000)).has_no_edns();
    assert_eq!(response.message.metadata.response_code, ResponseCode::NoError);
    assert_eq!(response.bytes[2..4], ANSWERED);
    assert!(response.message.answers.is_empty());
}

#[test]
fn section_8_1_3_1_checking_disabled() {
    let mut query = soa();
    query[3] = 0x10;
    ask(&query).brings_the_soa();
}

#[test]
fn section_8_1_3_2_authentic_data() {
    let mut query = soa();
    query[3] = 0x20;
    ask(&query).brings_the_soa();
}

#[test]
fn section_8_1_3_3_reserved_bit() {
    let mut query = soa();
    query[3] = 0x40;
    ask(&query).brings_the_soa();
}

/// With RD, which is told back, and without it (above); RA never, and TC and RA in a query mean nothing.
#[test]
fn section_8_1_3_4_recursive_query() {
    let mut query = soa();
    query[2] = 0x01;
    let response = ask(&query);
    assert_eq!(response.bytes[2..4], [0x85, 0x00]);
    assert_eq!(response.message.answers.len(), 1);
    query[2] = 0x02;
    query[3] = 0x80;
    ask(&query).brings_the_soa();
}

#[test]
fn section_8_1_4_unknown_opcodes() {
    for opcode in 1..16u8 {
        // With nothing but a header, as `dig +header-only` sends it, and with a question.
        for len in [HEADER, soa().len()] {
            let mut query = soa()[..len].to_vec();
            query[2] = opcode << 3;
            query[5] = u8::from(len > HEADER);
            let response = ask(&query);
            assert_eq!(response.message.metadata.response_code, ResponseCode::NotImp);
            assert_eq!(response.bytes[2], 0x80 | opcode << 3, "no AA");
            assert!(response.message.answers.is_empty());
            response.has_no_edns();
        }
        let mut query = edns(0, false);
        query[2] = opcode << 3;
        let response = ask(&query).has_edns();
        assert_eq!(response.message.metadata.response_code, ResponseCode::NotImp);
    }
}

#[test]
fn section_8_1_5_tcp() {
    ask_via(&soa(), Via::Tcp).brings_the_soa().has_no_edns();
    ask_via(&edns(0, false), Via::Tcp).brings_the_soa().has_edns();
}

#[test]
fn section_8_2_1_minimal_edns() {
    ask(&edns(0, false)).brings_the_soa().has_edns();
}

#[test]
fn section_8_2_2_edns_version_negotiation() {
    for version in [1, 2, 100, 255] {
        ask(&edns(version, false)).says_bad_version();
    }
}

#[test]
fn section_8_2_3_unknown_option() {
    let query = with_option(edns(0, false), UNKNOWN_OPTION, &[]);
    let response = ask(&query).brings_the_soa().has_edns();
    assert!(response.options().is_empty());
    let query = with_option(query, UNKNOWN_OPTION, &[7; 300]);
    assert!(ask(&query).brings_the_soa().has_edns().options().is_empty());
}

#[test]
fn section_8_2_4_unknown_flags() {
    ask(&with_unknown_flag(edns(0, false)))
        .brings_the_soa()
        .has_edns();
}

#[test]
fn section_8_2_5_version_negotiation_with_unknown_flags() {
    ask(&with_unknown_flag(edns(1, false))).says_bad_version();
}

#[test]
fn section_8_2_6_version_negotiation_with_unknown_option() {
    let query = with_option(edns(1, false), UNKNOWN_OPTION, &[]);
    assert!(ask(&query).says_bad_version().options().is_empty());
    // What the record's data are in another version is not known.
    let mut query = with_edns(soa(), 4096, 1, false);
    let len = query.len();
    query[len - 1] = 3;
    query.extend_from_slice(&[1, 2, 3]);
    ask(&query).says_bad_version();
}

#[test]
fn section_8_2_7_truncated_response() {
    let mut view = view();
    let serves: Vec<String> = (0..32).map(|i| format!("2001:db8::{i:x}")).collect();
    view.nodes[1] = node_view("b", &serves.iter().map(String::as_str).collect::<Vec<_>>());
    holder(&mut view, "main", "b");
    let published = published(view);
    let query = with_edns(of_type(qtype::AAAA), 512, 0, true);
    let mut bytes = vec![0; 1232];
    let word = |role: &RoleName| published.word(role, Mono(1_000));
    let zone = zone(&published);
    let reply = answer(&query, client(Via::Udp), &policy(), &zone, &word, &mut bytes).unwrap();
    bytes.truncate(reply.len);
    let message = read(&bytes);
    let response = Response { bytes, message }.has_edns();
    assert!(response.message.metadata.truncation && response.dnssec_ok());
}

#[test]
fn section_8_2_8_dnssec_ok() {
    assert!(ask(&edns(0, true)).brings_the_soa().has_edns().dnssec_ok());
    assert!(!ask(&edns(0, false)).dnssec_ok());
}

#[test]
fn section_8_2_9_version_negotiation_with_dnssec_ok() {
    ask(&edns(1, true)).says_bad_version();
}

#[test]
fn section_8_2_10_several_defined_options() {
    // NSID, COOKIE, EXPIRE (RFC 7314), client subnet 0.0.0.0/0 (RFC 7871).
    let query = with_option(edns(0, false), option::NSID, &[]);
    let query = with_option(query, option::COOKIE, b"8 octets");
    let query = with_option(query, 9, &[]);
    let query = with_option(query, 8, &[0, 1, 0, 0]);
    let response = ask(&query).brings_the_soa().has_edns();
    assert_eq!(response.options(), [option::NSID, option::COOKIE]);
}
