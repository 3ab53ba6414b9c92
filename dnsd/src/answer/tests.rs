use super::*;
use crate::testing::*;
use baton_shared::clock::Mono;
use baton_shared::config::Dns;
use baton_shared::id::Epoch;
use baton_shared::id::RoleName;
use baton_shared::view::{Published, Word};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, RData, RecordType};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

const NOW: Mono = Mono(1_000);

/// The reply to `query` at `now`.
fn reply(published: &Published, now: Mono, query: &[u8], via: Via) -> Option<(Reply, Vec<u8>)> {
    let mut out = vec![0xee; 65_535];
    let word = |role: &RoleName| published.word(role, now);
    let reply = answer(query, client(via), &policy(), &zone(published), &word, &mut out)?;
    assert!(
        out[reply.len..].iter().all(|b| *b == 0xee),
        "nothing is written behind the reply"
    );
    out.truncate(reply.len);
    Some((reply, out))
}

fn ask(published: &Published, name: &str, qtype: u16) -> Message {
    let (_, bytes) = reply(published, NOW, &question(name, qtype), Via::Udp).unwrap();
    read(&bytes)
}

fn raw(query: &[u8]) -> Option<(Reply, Vec<u8>)> {
    reply(&active("b"), NOW, query, Via::Udp)
}

/// `name` is active for `main`, as node a knows.
fn active(name: &str) -> Arc<Published> {
    let mut view = view();
    if name != "a" {
        holder(&mut view, "main", name);
    }
    let published = published(view);
    if name == "a" {
        published.guards[&role("main")].open(Epoch(9), IN_TOUCH_UNTIL);
    }
    published
}

fn nobody() -> Arc<Published> {
    published(view())
}

fn out_of_touch() -> Arc<Published> {
    let mut view = view();
    view.in_touch_until = Mono::ZERO;
    published(view)
}

#[test]
fn every_name_and_type_with_b_active() {
    use hickory_proto::op::ResponseCode as R;
    use qtype::*;
    let b: &[&str] = &["10.0.0.2", "10.0.1.2"];
    let cases: &[(&str, u16, R, &[&str])] = &[
        ("orders.internal", A, R::NoError, b),
        ("orders.internal", AAAA, R::NoError, &[]),
        ("orders.internal", TXT, R::NoError, &[]),
        ("main.orders.internal", A, R::NoError, b),
        ("main.orders.internal", AAAA, R::NoError, &[]),
        ("main.orders.internal", SOA, R::NoError, &[]),
        ("main.orders.internal", NS, R::NoError, &[]),
        ("batch.orders.internal", A, R::NoError, &[]),
        ("a.node.orders.internal", A, R::NoError, &["10.0.0.1"]),
        ("a.node.orders.internal", AAAA, R::NoError, &["2001:db8::1"]),
        ("b.node.orders.internal", AAAA, R::NoError, &[]),
        ("c.node.orders.internal", A, R::NoError, &[]),
        ("c.node.orders.internal", AAAA, R::NoError, &["2001:db8::3"]),
        ("node.orders.internal", A, R::NoError, &[]),
        ("node.orders.internal", ANY, R::NoError, &[]),
        ("w.node.orders.internal", A, R::ServFail, &[]),
        ("w.node.orders.internal", TXT, R::NoError, &[]),
        ("none.orders.internal", A, R::NXDomain, &[]),
        ("none.node.orders.internal", A, R::NXDomain, &[]),
        ("x.a.node.orders.internal", A, R::NXDomain, &[]),
        ("x.main.orders.internal", AAAA, R::NXDomain, &[]),
        ("orders.internal", AXFR, R::Refused, &[]),
        ("orders.internal", IXFR, R::Refused, &[]),
        ("internal", A, R::Refused, &[]),
        ("", A, R::Refused, &[]),
        ("borders.internal", A, R::Refused, &[]),
        ("x\u{6}orders.internal", A, R::Refused, &[]),
        ("orders.internal.example", A, R::Refused, &[]),
    ];
    let published = active("b");
    for (name, qtype, rcode, expected) in cases {
        let message = ask(&published, name, *qtype);
        let case = format!("{name} {qtype}");
        assert_eq!(message.metadata.response_code, *rcode, "{case}");
        assert_eq!(addresses(&message.answers), *expected, "{case}");
        let known = matches!(rcode, R::NoError | R::NXDomain);
        assert_eq!(message.metadata.authoritative, known, "{case}");
        let soa = known && message.answers.is_empty();
        assert_eq!(message.authorities.len(), usize::from(soa), "{case}");
        for record in &message.authorities {
            assert_eq!(record.record_type(), RecordType::SOA, "{case}");
            assert_eq!(
                (record.name.to_ascii(), record.ttl),
                ("orders.internal.".into(), 1),
                "{case}"
            );
        }
        for record in &message.answers {
            assert_eq!(record.name.to_ascii(), format!("{name}."), "{case}");
            assert_eq!(record.ttl, 2, "{case}");
        }
    }
}

#[test]
fn the_word_decides_at_the_apex_and_at_the_role() {
    use hickory_proto::op::ResponseCode as R;
    let cases: [(Arc<Published>, R, &[&str]); 5] = [
        (active("a"), R::NoError, &["10.0.0.1"]),
        (active("b"), R::NoError, &["10.0.0.2", "10.0.1.2"]),
        (nobody(), R::NoError, &[]),
        (out_of_touch(), R::ServFail, &[]),
        (active("w"), R::ServFail, &[]),
    ];
    for (published, rcode, expected) in &cases {
        for name in ["orders.internal", "main.orders.internal"] {
            let message = ask(published, name, qtype::A);
            assert_eq!(message.metadata.response_code, *rcode);
            assert_eq!(addresses(&message.answers), *expected);
        }
        let aaaa = ask(published, "orders.internal", qtype::AAAA);
        assert_eq!(
            aaaa.metadata.response_code, *rcode,
            "AAAA is never worse than A: musl gives up"
        );
    }
}

#[test]
fn node_that_is_out_of_touch_still_says_what_is_always_true() {
    let published = out_of_touch();
    for (name, qtype) in [
        ("orders.internal", qtype::SOA),
        ("orders.internal", qtype::NS),
        ("a.node.orders.internal", qtype::A),
    ] {
        let message = ask(&published, name, qtype);
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert!(!message.answers.is_empty(), "{name}");
    }
}

#[test]
fn frozen_holder_says_servfail_on_its_first_answer_without_a_new_view() {
    let mut view = view();
    view.in_touch_until = Mono(5_000);
    let published = published(view);
    published.guards[&role("main")].open(Epoch(9), Mono(5_000));
    let query = question(ZONE, qtype::A);
    let rcode = |now| reply(&published, now, &query, Via::Udp).unwrap().0.rcode;
    assert_eq!(rcode(Mono(4_999)), Rcode::NoError);
    assert_eq!(rcode(Mono(5_000)), Rcode::ServFail);
}

#[test]
fn guard_speaks_for_this_node_even_if_the_view_names_another() {
    let published = active("b");
    published.guards[&role("main")].open(Epoch(10), IN_TOUCH_UNTIL);
    assert_eq!(addresses(&ask(&published, ZONE, qtype::A).answers), ["10.0.0.1"]);
}

#[test]
fn soa_and_ns_name_the_nodes_that_have_addresses() {
    let published = active("b");
    let soa = ask(&published, ZONE, qtype::SOA);
    let RData::SOA(data) = &soa.answers[0].data else {
        panic!("{soa:?}")
    };
    assert_eq!(data.mname.to_ascii(), "a.node.orders.internal.");
    assert_eq!(data.rname.to_ascii(), "hostmaster.orders.internal.");
    assert_eq!(data.minimum, 1);
    assert_eq!(data.serial, 1_780_000_000 + 7);
    let ns = ask(&published, ZONE, qtype::NS);
    let names: Vec<String> = ns
        .answers
        .iter()
        .map(|r| match &r.data {
            RData::NS(ns) => ns.0.to_ascii(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        [
            "a.node.orders.internal.",
            "b.node.orders.internal.",
            "c.node.orders.internal."
        ]
    );
    let glue: Vec<String> = ns
        .additionals
        .iter()
        .map(|r| format!("{} {}", r.name, r.data))
        .collect();
    assert_eq!(
        glue,
        [
            "a.node.orders.internal. 10.0.0.1",
            "a.node.orders.internal. 2001:db8::1",
            "b.node.orders.internal. 10.0.0.2",
            "b.node.orders.internal. 10.0.1.2",
            "c.node.orders.internal. 2001:db8::3",
        ]
    );
}

#[test]
fn any_is_one_hinfo() {
    for name in [ZONE, "main.orders.internal", "a.node.orders.internal"] {
        let message = ask(&active("b"), name, qtype::ANY);
        assert_eq!(message.answers.len(), 1);
        assert_eq!(message.answers[0].record_type(), RecordType::HINFO);
    }
    assert!(ask(&active("b"), ZONE, qtype::HINFO).answers.is_empty());
}

#[test]
fn question_is_echoed_in_the_clients_case() {
    let query = question("MaIn.OrDeRs.InTeRnAl", qtype::A);
    let (reply, bytes) = raw(&query).unwrap();
    assert_eq!(reply.rcode, Rcode::NoError);
    assert_eq!(bytes[12..query.len()], query[12..]);
    assert_eq!(read(&bytes).answers[0].name.to_string(), "MaIn.OrDeRs.InTeRnAl.");
}

#[test]
fn header_keeps_id_and_rd_and_offers_no_recursion() {
    for (sent, expected) in [(0x01, 0x85), (0x00, 0x84)] {
        let mut query = question(ZONE, qtype::A);
        query[2] = sent;
        query[3] = 0xff; // RA, Z, AD, CD and a code: all for responses or for us to ignore.
        let (_, bytes) = raw(&query).unwrap();
        assert_eq!(bytes[..4], [0x12, 0x34, expected, 0x00]);
    }
}

#[test]
fn what_is_no_query_is_told_so_or_dropped() {
    let query = question(ZONE, qtype::A);
    let mut response = query.clone();
    response[2] |= 0x80;
    assert!(raw(&response).is_none());
    for len in 0..HEADER {
        assert!(raw(&query[..len]).is_none());
    }
    for opcode in 1..16u8 {
        let mut other = query.clone();
        other[2] = opcode << 3;
        let (reply, bytes) = raw(&other).unwrap();
        assert_eq!((reply.rcode, reply.len), (Rcode::NotImp, HEADER));
        assert_eq!(bytes[2] >> 3 & 0x0f, opcode);
    }
    for class in [0u16, 3, 4, 254, 255] {
        let mut other = query.clone();
        let at = other.len() - 2;
        other[at..].copy_from_slice(&class.to_be_bytes());
        assert_eq!(raw(&other).unwrap().0.rcode, Rcode::Refused);
    }
}

#[test]
fn malformed_queries_get_formerr() {
    let good = question(ZONE, qtype::A);
    let name_at = |bytes: &[u8]| {
        let mut query = good[..12].to_vec();
        query.extend_from_slice(bytes);
        query.extend_from_slice(&[0, 1, 0, 1]);
        query
    };
    let counts = |at: usize, n: u8| {
        let mut query = good.clone();
        query[at] = n;
        query
    };
    let long_label = [&[64][..], &[b'x'; 64], &[0]].concat();
    let long_name = [[&[63][..], &[b'x'; 63]].concat().repeat(4), vec![0]].concat();
    let edns = |f: &dyn Fn(&mut Vec<u8>)| {
        let mut query = with_edns(good.clone(), 1232, 0, false);
        f(&mut query);
        query
    };
    let opt = good.len();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no question", counts(5, 0)),
        ("two questions", {
            let mut query = counts(5, 2);
            query.extend_from_slice(&good[12..]);
            query
        }),
        ("label of 64", name_at(&long_label)),
        ("name of 257", name_at(&long_name)),
        ("pointer to itself", name_at(&[0xc0, 12])),
        ("pointer to the header", name_at(&[0xc0, 0])),
        ("pointer behind a label", name_at(&[1, b'a', 0xc0, 12])),
        ("reserved label type", name_at(&[0x80, 0])),
        ("trailing byte", [&good[..], &[0]].concat()),
        ("answer promised", counts(7, 1)),
        ("authority promised", counts(9, 1)),
        ("additional promised", counts(11, 1)),
        ("OPT in the answer section", edns(&|q| q.swap(7, 11))),
        (
            "OPT not at the root",
            edns(&|q| {
                q.splice(opt..opt + 1, [1, b'a', 0]);
            }),
        ),
        (
            "two OPT",
            with_edns(with_edns(good.clone(), 1232, 0, false), 1232, 0, false),
        ),
        ("OPT longer than the message", edns(&|q| q[opt + 10] = 1)),
        (
            "option longer than OPT",
            edns(&|q| {
                q[opt + 10] = 5;
                q.extend_from_slice(&[0, 10, 0, 2, 0xff]);
            }),
        ),
        (
            "half an option",
            edns(&|q| {
                q[opt + 10] = 3;
                q.extend_from_slice(&[0, 10, 0]);
            }),
        ),
    ];
    for (case, query) in cases {
        let (reply, bytes) = raw(&query).unwrap_or_else(|| panic!("{case}"));
        assert_eq!(reply.rcode, Rcode::FormErr, "{case}");
        assert!(read(&bytes).answers.is_empty(), "{case}");
    }
    for len in HEADER..good.len() {
        assert_eq!(raw(&good[..len]).unwrap().0.rcode, Rcode::FormErr, "cut at {len}");
    }
}

#[test]
fn additional_records_of_a_query_are_skipped() {
    let mut query = question(ZONE, qtype::IXFR);
    query[9] = 1; // The SOA that IXFR carries, its owner compressed (RFC 1995 §3).
    query.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0]);
    assert_eq!(raw(&query).unwrap().0.rcode, Rcode::Refused);
    let mut cookie = with_edns(question(ZONE, qtype::A), 1232, 0, false);
    let len = cookie.len();
    cookie[len - 1] = 12;
    cookie.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(raw(&cookie).unwrap().0.rcode, Rcode::NoError);
}

#[test]
fn signature_is_told_to_whom_verifies_it_and_must_come_last() {
    let tsig = [0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 2, 7, 7];
    let signed = |mut query: Vec<u8>| {
        query[11] += 1;
        query.extend_from_slice(&tsig);
        query
    };
    let plain = question(ZONE, qtype::A);
    for query in [signed(plain.clone()), signed(edns_query())] {
        let (reply, _) = raw(&query).unwrap();
        assert_eq!((reply.rcode, reply.signed), (Rcode::NoError, true));
    }
    assert!(!raw(&plain).unwrap().0.signed);
    let mut elsewhere = signed(plain.clone());
    elsewhere.swap(7, 11);
    for query in [
        signed(signed(plain.clone())),
        with_edns(signed(plain), 1232, 0, false),
        elsewhere,
    ] {
        assert_eq!(raw(&query).unwrap().0.rcode, Rcode::FormErr);
    }
}

#[test]
fn edns_is_answered_with_our_size() {
    let query = question(ZONE, qtype::A);
    assert!(read(&raw(&query).unwrap().1).edns.is_none());
    for dnssec_ok in [false, true] {
        let (_, bytes) = raw(&with_edns(query.clone(), 4096, 0, dnssec_ok)).unwrap();
        let edns = read(&bytes).edns.unwrap();
        assert_eq!(
            (edns.max_payload(), edns.version(), edns.flags().dnssec_ok),
            (1232, 0, dnssec_ok)
        );
    }
    let (reply, bytes) = raw(&with_edns(query, 4096, 1, false)).unwrap();
    let message = read(&bytes);
    assert_eq!(reply.rcode, Rcode::BadVers);
    assert_eq!(message.edns.unwrap().rcode_high(), 1);
    assert!(message.answers.is_empty());
}

/// The reply of node a, b being active, under the policy of `dns`.
fn under(dns: &Dns, query: &[u8], client: Client) -> (Reply, Message) {
    let published = active("b");
    let mut out = vec![0; 65_535];
    let word = |role: &RoleName| published.word(role, NOW);
    let reply = answer(query, client, &policy_of(dns), &zone(&published), &word, &mut out).unwrap();
    (reply, read(&out[..reply.len]))
}

fn edns_query() -> Vec<u8> {
    with_edns(question(ZONE, qtype::A), 1232, 0, false)
}

/// The data of an option of a response.
fn option(message: &Message, code: u16) -> Option<Vec<u8>> {
    use hickory_proto::serialize::binary::BinEncodable;
    let edns = message.edns.as_ref()?;
    let found = edns.option(EdnsCode::from(code))?;
    Some(match found {
        EdnsOption::Unknown(_, data) => data.clone(),
        EdnsOption::NSID(nsid) => nsid.as_ref().to_vec(),
        other => other.to_bytes().unwrap(),
    })
}

#[test]
fn only_clients_of_the_list_may_ask() {
    let few = Dns {
        allow: ["198.51.100.0/24", "2001:db8::/32"]
            .map(|p| p.parse().unwrap())
            .into(),
        ..dns(&[])
    };
    let query = with_option(edns_query(), option::NSID, &[]);
    for (ip, admitted) in [
        ("198.51.100.7", true),
        ("198.51.101.7", false),
        ("::ffff:198.51.100.7", true),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        let from = Client {
            ip: ip.parse().unwrap(),
            ..client(Via::Udp)
        };
        let (reply, message) = under(&few, &query, from);
        let expected = if admitted { Rcode::NoError } else { Rcode::Refused };
        assert_eq!((reply.rcode, reply.denied), (expected, !admitted), "{ip}");
        assert_eq!(message.answers.is_empty(), !admitted, "{ip}");
        assert!(message.authorities.is_empty() && message.edns.is_some(), "{ip}");
        assert_eq!(message.queries.len(), 1, "{ip}");
        let (_, plain) = under(&few, &question(ZONE, qtype::A), from);
        assert!(plain.edns.is_none(), "{ip}");
    }
}

#[test]
fn nsid_is_the_nodes_name_for_whom_asks() {
    let query = with_option(edns_query(), option::NSID, &[]);
    let (_, message) = under(&dns(&[]), &query, client(Via::Udp));
    assert_eq!(option(&message, option::NSID).as_deref(), Some(&b"a"[..]));
    let (_, unasked) = under(&dns(&[]), &edns_query(), client(Via::Udp));
    assert_eq!(option(&unasked, option::NSID), None);
    let silent = Dns {
        nsid: false,
        ..dns(&[])
    };
    let (reply, message) = under(&silent, &query, client(Via::Udp));
    assert_eq!(
        (reply.rcode, option(&message, option::NSID)),
        (Rcode::NoError, None)
    );
}

#[test]
fn keepalive_is_told_over_tcp_alone() {
    let query = with_option(edns_query(), option::KEEPALIVE, &[]);
    let (_, tcp) = under(&dns(&[]), &query, client(Via::Tcp));
    assert_eq!(option(&tcp, option::KEEPALIVE), Some(vec![0, 100]), "10 s");
    let (_, udp) = under(&dns(&[]), &query, client(Via::Udp));
    assert_eq!(option(&udp, option::KEEPALIVE), None);
}

#[test]
fn cookie_is_given_and_known_again() {
    let first = with_option(edns_query(), option::COOKIE, b"12345678");
    let (reply, message) = under(&dns(&[]), &first, client(Via::Udp));
    assert!(!reply.trusted && message.answers.len() == 2);
    let cookie = option(&message, option::COOKIE).unwrap();
    assert_eq!((cookie.len(), &cookie[..8]), (24, &b"12345678"[..]));

    let second = with_option(edns_query(), option::COOKIE, &cookie);
    let (reply, message) = under(&dns(&[]), &second, client(Via::Udp));
    assert!(reply.trusted);
    assert_eq!(option(&message, option::COOKIE).unwrap(), cookie);

    let elsewhere = Client {
        ip: "192.0.2.8".parse().unwrap(),
        ..client(Via::Udp)
    };
    let (reply, message) = under(&dns(&[]), &second, elsewhere);
    assert_eq!((reply.rcode, reply.trusted), (Rcode::NoError, false));
    let fresh = option(&message, option::COOKIE).unwrap();
    assert_eq!(fresh[..8], cookie[..8]);
    assert_ne!(fresh[8..], cookie[8..]);
}

#[test]
fn cookies_of_no_length_are_malformed_and_the_first_of_several_counts() {
    let off = Dns {
        cookies: false,
        ..dns(&[])
    };
    for len in [0, 7, 9, 15, 41] {
        let query = with_option(edns_query(), option::COOKIE, &vec![1; len]);
        let (reply, message) = under(&dns(&[]), &query, client(Via::Udp));
        assert_eq!(reply.rcode, Rcode::FormErr, "{len}");
        assert!(message.edns.is_some());
        let (reply, message) = under(&off, &query, client(Via::Udp));
        assert_eq!(reply.rcode, Rcode::NoError, "{len}");
        assert_eq!(option(&message, option::COOKIE), None);
    }
    let two = with_option(edns_query(), option::COOKIE, b"first678");
    let two = with_option(two, option::COOKIE, b"bad");
    let (_, message) = under(&dns(&[]), &two, client(Via::Udp));
    assert_eq!(option(&message, option::COOKIE).unwrap()[..8], *b"first678");
}

/// RFC 7873 §5.4.
#[test]
fn cookie_alone_may_be_asked_for() {
    let nothing = |cookie: &[u8]| {
        let with = with_option(with_edns(question("", qtype::A), 1232, 0, false), 10, cookie);
        let mut query = [&with[..12], &with[17..]].concat();
        query[5] = 0;
        query
    };
    let (reply, message) = under(&dns(&[]), &nothing(b"12345678"), client(Via::Udp));
    assert_eq!(reply.rcode, Rcode::NoError);
    assert!(message.queries.is_empty() && message.answers.is_empty());
    let cookie = option(&message, option::COOKIE).unwrap();
    let (reply, _) = under(&dns(&[]), &nothing(&cookie), client(Via::Udp));
    assert_eq!((reply.rcode, reply.trusted), (Rcode::NoError, true));
    let mut forged = cookie.clone();
    forged[23] ^= 1;
    let (reply, message) = under(&dns(&[]), &nothing(&forged), client(Via::Udp));
    assert_eq!(reply.rcode, Rcode::BadCookie);
    assert_eq!(u16::from(message.metadata.response_code), 23);
    assert_eq!(option(&message, option::COOKIE).unwrap(), cookie, "a right one");

    let off = Dns {
        cookies: false,
        ..dns(&[])
    };
    let (reply, _) = under(&off, &nothing(&cookie), client(Via::Udp));
    assert_eq!(reply.rcode, Rcode::FormErr);
    let mut plain = question("", qtype::A)[..12].to_vec();
    plain[5] = 0;
    assert_eq!(under(&dns(&[]), &plain, client(Via::Udp)).0.rcode, Rcode::FormErr);
}

#[test]
fn chaos_names_are_told_only_if_configured() {
    let chaos = |name: &str, qtype: u16| {
        let mut query = question(name, qtype);
        let at = query.len() - 1;
        query[at] = 3;
        query
    };
    let on = Dns {
        chaos: true,
        ..dns(&[])
    };
    let version = concat!("Baton ", env!("CARGO_PKG_VERSION"));
    for (name, text) in [
        ("version.bind", version),
        ("VERSION.server", version),
        ("hostname.bind", "a"),
        ("id.server", "a"),
    ] {
        for asked in [qtype::TXT, qtype::ANY] {
            let (reply, message) = under(&on, &chaos(name, asked), client(Via::Udp));
            assert_eq!(reply.rcode, Rcode::NoError, "{name}");
            let [record] = &message.answers[..] else {
                panic!("{name}: {message:?}")
            };
            assert_eq!((record.dns_class, record.ttl), (DNSClass::CH, 0), "{name}");
            assert_eq!(record.name.to_string(), format!("{name}."));
            let RData::TXT(txt) = &record.data else {
                panic!("{record:?}")
            };
            assert_eq!(txt.to_string(), text);
        }
        let (reply, message) = under(&on, &chaos(name, qtype::A), client(Via::Udp));
        assert_eq!((reply.rcode, message.answers.len()), (Rcode::NoError, 0));
        let (reply, _) = under(&dns(&[]), &chaos(name, qtype::TXT), client(Via::Udp));
        assert_eq!(reply.rcode, Rcode::Refused, "off by default");
    }
    for name in ["authors.bind", ZONE, "", "x.version.bind"] {
        let (reply, _) = under(&on, &chaos(name, qtype::TXT), client(Via::Udp));
        assert_eq!(reply.rcode, Rcode::Refused, "{name}");
    }
}

#[test]
fn types_that_are_no_data_are_told_apart() {
    for (asked, expected) in [
        (qtype::OPT, Rcode::FormErr),
        (qtype::TKEY, Rcode::FormErr),
        (qtype::TSIG, Rcode::FormErr),
        (qtype::MAILA, Rcode::NotImp),
        (qtype::MAILB, Rcode::NotImp),
        (qtype::AXFR, Rcode::Refused),
        (qtype::IXFR, Rcode::Refused),
        // RFC 3597 §3: a type like any other.
        (0, Rcode::NoError),
        (128, Rcode::NoError),
        (65_280, Rcode::NoError),
        (65_535, Rcode::NoError),
    ] {
        let (reply, bytes) = raw(&question(ZONE, asked)).unwrap();
        assert_eq!(reply.rcode, expected, "type {asked}");
        let authorities = read(&bytes).authorities.len();
        assert_eq!(
            authorities,
            usize::from(expected == Rcode::NoError),
            "type {asked}"
        );
        let (outside, _) = raw(&question("example.com", asked)).unwrap();
        assert_eq!(outside.rcode, Rcode::Refused, "type {asked}");
    }
    assert_eq!(
        raw(&question("", qtype::NS)).unwrap().0.rcode,
        Rcode::Refused,
        "root"
    );
}

#[test]
fn reply_that_is_cut_keeps_question_and_options_alone() {
    let query = with_option(edns_query(), option::NSID, &[]);
    for (query, edns) in [(query, true), (question(ZONE, qtype::NS), false)] {
        let (mut reply, mut bytes) = raw(&query).unwrap();
        reply.cut(&mut bytes);
        let message = read(&bytes[..reply.len]);
        assert!(reply.truncated && message.metadata.truncation);
        assert_eq!(message.queries.len(), 1);
        assert_eq!((message.answers.len(), message.additionals.len()), (0, 0));
        assert_eq!(option(&message, option::NSID).is_some(), edns);
        assert_eq!(message.edns.is_some(), edns);
        let again = (reply.len, bytes.clone());
        reply.cut(&mut bytes);
        assert_eq!(again, (reply.len, bytes), "cut already");
    }
}

/// A cluster whose active node serves `n` addresses.
fn wide(n: usize) -> Arc<Published> {
    let mut view = view();
    let serves: Vec<String> = (0..n).map(|i| format!("2001:db8::{i:x}")).collect();
    let serves: Vec<&str> = serves.iter().map(String::as_str).collect();
    view.nodes[1] = node_view("b", &serves);
    holder(&mut view, "main", "b");
    published(view)
}

#[test]
fn response_that_does_not_fit_is_cut_to_nothing_and_says_so() {
    let published = wide(32);
    let plain = question(ZONE, qtype::AAAA);
    let edns = |size| with_edns(plain.clone(), size, 0, false);
    for (query, via, fits) in [
        (plain.clone(), Via::Udp, false),
        (edns(0), Via::Udp, false),
        (edns(900), Via::Udp, false),
        (edns(1232), Via::Udp, true),
        (edns(65_535), Via::Udp, true),
        (plain.clone(), Via::Tcp, true),
    ] {
        let (reply, bytes) = reply(&published, NOW, &query, via).unwrap();
        let message = read(&bytes);
        assert_eq!(reply.truncated, !fits);
        assert_eq!(message.metadata.truncation, !fits);
        assert_eq!(message.answers.len(), if fits { 32 } else { 0 });
        assert_eq!(message.edns.is_some(), query.len() > plain.len());
    }
}

#[test]
fn name_servers_addresses_are_left_out_before_the_response_is_cut() {
    let (reply, bytes) = reply(&wide(32), NOW, &question(ZONE, qtype::NS), Via::Udp).unwrap();
    let message = read(&bytes);
    assert!(!reply.truncated);
    assert_eq!((message.answers.len(), message.additionals.len()), (3, 0));
}

#[test]
fn buffers_too_small_are_not_overrun() {
    let published = active("b");
    let (zone, policy) = (zone(&published), policy());
    let query = with_edns(question(ZONE, qtype::A), 1232, 0, false);
    for size in 0..120 {
        let mut out = vec![0; size];
        let word = |role: &RoleName| published.word(role, NOW);
        if let Some(reply) = answer(&query, client(Via::Tcp), &policy, &zone, &word, &mut out) {
            assert!(reply.len <= size);
            read(&out[..reply.len]);
        }
    }
}

/// An option, of those that are known more often than others.
fn any_option() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let code = prop_oneof![
        Just(option::NSID),
        Just(option::COOKIE),
        Just(option::KEEPALIVE),
        any::<u16>()
    ];
    (code, proptest::collection::vec(any::<u8>(), 0..48))
}

/// Names and types of this zone and around it, in any case.
fn any_question() -> impl Strategy<Value = Vec<u8>> {
    let label = prop_oneof![
        Just("orders".to_string()),
        Just("internal".to_string()),
        Just("node".to_string()),
        Just("MAIN".to_string()),
        Just("batch".to_string()),
        Just("a".to_string()),
        Just("b".to_string()),
        "[ -~]{1,63}".prop_map(|s| s.replace('.', "-")),
    ];
    let labels = proptest::collection::vec(label, 0..3);
    let qtype = prop_oneof![
        Just(qtype::A),
        Just(qtype::AAAA),
        Just(qtype::SOA),
        Just(qtype::NS),
        any::<u16>()
    ];
    (labels, any::<bool>(), qtype).prop_map(|(mut labels, inside, qtype)| {
        if inside {
            labels.push(ZONE.to_string());
        }
        question(&labels.join("."), qtype)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some((_, response)) = raw(&bytes) {
            read(&response);
        }
    }

    #[test]
    fn damaged_queries_never_panic_and_replies_can_be_read(
        mut query in any_question(),
        edns in any::<bool>(),
        options in proptest::collection::vec(any_option(), 0..4),
        via in prop_oneof![Just(Via::Udp), Just(Via::Tcp)],
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        if edns {
            query = with_edns(query, 1400, 0, true);
            query = options.iter().fold(query, |query, (code, data)| with_option(query, *code, data));
        }
        for (at, byte) in damage {
            let at = at.index(query.len());
            query[at] = byte;
        }
        if let Some(cut) = cut {
            query.truncate(cut.index(query.len()));
        }
        if let Some((reply, response)) = reply(&active("b"), NOW, &query, via) {
            prop_assert!(response.len() <= usize::from(EDNS_SIZE));
            let message = read(&response);
            prop_assert_eq!(u16::from(message.metadata.response_code) & 0x0f, reply.rcode as u16 & 0x0f);
        }
    }

    #[test]
    fn options_are_answered_as_asked_whatever_stands_among_them(
        options in proptest::collection::vec(any_option(), 0..6),
        via in prop_oneof![Just(Via::Udp), Just(Via::Tcp)],
    ) {
        let query = options.iter().fold(edns_query(), |query, (code, data)| with_option(query, *code, data));
        let (reply, message) = under(&dns(&[]), &query, client(via));
        let cookie = options.iter().find(|(code, _)| *code == option::COOKIE).map(|(_, data)| data);
        if cookie.is_some_and(|data| data.len() != 8 && !(16..=40).contains(&data.len())) {
            prop_assert_eq!(reply.rcode, Rcode::FormErr);
            return Ok(());
        }
        prop_assert_eq!(reply.rcode, Rcode::NoError);
        let asked = |code| options.iter().any(|(other, _)| *other == code);
        prop_assert_eq!(option(&message, option::NSID).is_some(), asked(option::NSID));
        let keepalive = asked(option::KEEPALIVE) && via == Via::Tcp;
        prop_assert_eq!(option(&message, option::KEEPALIVE).is_some(), keepalive);
        let answered = option(&message, option::COOKIE);
        prop_assert_eq!(answered.map(|data| data[..8].to_vec()), cookie.map(|data| data[..8].to_vec()));
        let options = usize::from(asked(option::NSID)) + usize::from(cookie.is_some()) + usize::from(keepalive);
        prop_assert_eq!(message.edns.unwrap().options().options.len(), options, "no others");
    }

    /// However often who is active changes while an answer is made.
    #[test]
    fn one_answer_never_mixes_two_nodes(query in any_question(), who in 0..3usize) {
        let names = ["a", "b", "c"];
        let published = active("b");
        let zone = zone(&published);
        let asked = RefCell::new(BTreeMap::new());
        let flipping = |role: &RoleName| {
            let mut asked = asked.borrow_mut();
            let node = names[(who + asked.values().sum::<usize>()) % 3];
            *asked.entry(role.clone()).or_insert(0) += 1;
            Word::Other(self::node(node), Epoch(7))
        };
        let mut out = [0; 4096];
        let reply = answer(&query, client(Via::Tcp), &policy(), &zone, &flipping, &mut out);
        prop_assert!(asked.borrow().values().all(|times| *times == 1), "asked {:?}", asked);
        if let Some(reply) = reply {
            let said = addresses(&read(&out[..reply.len]).answers);
            let owners = view().nodes.iter().filter(|node| {
                node.serves.iter().any(|ip| said.contains(&ip.to_string()))
            }).count();
            prop_assert!(owners <= 1, "{:?}", said);
        }
    }
}

#[test]
fn answering_allocates_nothing() {
    let published = active("b");
    let (zone, policy) = (zone(&published), policy());
    let mut out = [0; 1232];
    for (name, qtype) in [
        (ZONE, qtype::A),
        ("MAIN.orders.internal", qtype::A),
        (ZONE, qtype::NS),
        ("a.node.orders.internal", qtype::AAAA),
        ("none.orders.internal", qtype::A),
        ("example.com", qtype::A),
    ] {
        let query = with_edns(question(name, qtype), 1232, 0, false);
        let query = with_option(query, option::NSID, &[]);
        let query = with_option(query, option::COOKIE, b"12345678");
        let mut ask = || {
            let word = |role: &RoleName| published.word(role, NOW);
            assert!(answer(&query, client(Via::Udp), &policy, &zone, &word, &mut out).is_some());
        };
        ask(); // Whatever is set up once per thread.
        assert_eq!(allocations(ask), 0, "{name}");
    }
}
