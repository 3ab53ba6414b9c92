//! Transfers as bytes, read again by hickory-proto. What real servers make of them is in `real.rs`.

use super::*;
use crate::testing::{qtype, question, read, with_edns};
use baton_shared::config::{TsigAlgorithm, TsigKey};
use hickory_proto::rr::rdata::{A, SOA, TXT};
use std::net::Ipv4Addr;

mod real;

const NOW: u64 = 1_800_000_000;
const CLIENT: &str = "10.0.0.53";

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn soa(serial: u32) -> Record {
    let data = SOA::new(
        name("a.node.orders.internal."),
        name("hostmaster.orders.internal."),
        serial,
        5,
        2,
        30,
        1,
    );
    Record::from_rdata(name("orders.internal."), 1, RData::SOA(data))
}

fn addresses(count: u32) -> Vec<Record> {
    let address = |n: u32| {
        let owner = name(&format!("n{n}.node.orders.internal."));
        Record::from_rdata(owner, 1, RData::A(A(Ipv4Addr::from_bits(0x0a00_0000 + n))))
    };
    (0..count).map(address).collect()
}

fn transfers(allow: &[&str], key: Option<&str>) -> Transfers {
    let mut dns = Dns::new(Vec::new(), "orders.internal".into());
    for name in ["xfer.example", "other.example"] {
        let key = TsigKey {
            algorithm: TsigAlgorithm::HmacSha256,
            secret: b"secret-of-twenty-bytes!".to_vec(),
        };
        dns.keys.insert(name.into(), key);
    }
    dns.transfer = Some(config::Transfer {
        allow: allow.iter().map(|text| text.parse().unwrap()).collect(),
        key: key.map(Into::into),
        notify: Vec::new(),
    });
    Transfers::new(&dns)
}

/// The zone of these records, and no other.
fn served(soa: &Record, records: &[Record]) -> impl Fn(&Name, Extent) -> Contents + use<> {
    let whole = [std::slice::from_ref(soa), records].concat();
    move |name, extent| match (*name == whole[0].name, extent) {
        (true, Extent::Whole) => Contents::Records(whole.clone()),
        (true, Extent::Soa) => Contents::Records(whole[..1].to_vec()),
        (false, _) => Contents::NotOurs,
    }
}

fn ask(transfers: &Transfers, query: &[u8], via: Via, soa: &Record, records: &[Record]) -> Vec<Message> {
    let zone = served(soa, records);
    let messages = transfers.respond(query, via, CLIENT.parse().unwrap(), zone, NOW);
    assert!(messages.iter().all(|message| message.len() <= MESSAGE_MAX));
    messages.iter().map(|message| read(message)).collect()
}

fn axfr() -> Vec<u8> {
    question("Orders.Internal", qtype::AXFR)
}

/// A request as in RFC 1995 §3: the client's SOA in the authority section.
fn ixfr(serial: u32) -> Vec<u8> {
    let mut query = question("orders.internal", qtype::IXFR);
    query[9] = 1;
    query.extend(soa(serial).to_bytes().unwrap());
    query
}

fn code(messages: &[Message]) -> u16 {
    let [message] = messages else {
        panic!("{} messages", messages.len());
    };
    assert!(message.answers.is_empty());
    message.metadata.response_code.into()
}

fn is_signed(message: &Message) -> bool {
    message
        .additionals
        .iter()
        .any(|record| record.record_type() == RecordType::TSIG)
}

#[test]
fn whole_zone_stands_between_two_soas_with_the_question_as_it_came() {
    let (soa, records) = (soa(7), addresses(3));
    let query = with_edns(axfr(), 4096, 0, false);
    let messages = ask(&transfers(&[CLIENT], None), &query, Via::Tcp, &soa, &records);
    let [message] = &messages[..] else {
        panic!("{messages:?}");
    };
    let expected: Vec<Record> = [&[soa.clone()][..], &records, &[soa]].concat();
    assert_eq!(message.answers, expected);
    assert_eq!(message.queries[0].name.to_ascii(), "Orders.Internal.");
    assert!(message.metadata.authoritative && message.edns.is_some());
    assert_eq!(message.metadata.id, 0x1234);
}

#[test]
fn large_zone_is_divided_and_complete() {
    let (soa, records) = (soa(7), addresses(3_000));
    let messages = ask(&transfers(&[CLIENT], None), &axfr(), Via::Tcp, &soa, &records);
    assert!(messages.len() > 3);
    let all: Vec<Record> = messages
        .iter()
        .flat_map(|message| message.answers.clone())
        .collect();
    assert_eq!(all, [&[soa.clone()][..], &records, &[soa]].concat());
    for (index, message) in messages.iter().enumerate() {
        assert_eq!(message.queries.len(), usize::from(index == 0));
        assert_eq!(message.metadata.id, 0x1234);
        assert!(message.metadata.authoritative);
    }
}

#[test]
fn zone_beyond_the_bound_is_a_failure_of_the_server() {
    let text = vec![[b'x'; 255]; 250];
    let data = TXT::from_bytes(text.iter().map(|t| &t[..]).collect());
    let large = Record::from_rdata(name("t.orders.internal."), 1, RData::TXT(data));
    let records = vec![large; 70];
    let transfers = transfers(&[CLIENT], None);
    let messages = transfers.respond(
        &axfr(),
        Via::Tcp,
        CLIENT.parse().unwrap(),
        served(&soa(7), &records),
        NOW,
    );
    assert_eq!(code(&messages.iter().map(|m| read(m)).collect::<Vec<_>>()), 2);
}

#[test]
fn only_the_right_address_and_key_are_served() {
    let (soa, records) = (soa(7), addresses(3));
    let signed_by = |name: &str| {
        let transfers = transfers(&[], None);
        transfers.keys.get(name).unwrap().sign_request(axfr(), NOW).0
    };
    let (right, wrong) = (signed_by("xfer.example"), signed_by("other.example"));
    let key = Some("xfer.example");
    for (allow, key, query, served) in [
        (&[CLIENT][..], None, axfr(), true),
        (&["10.0.0.0/24", "fd00::/8"], None, axfr(), true),
        (&["10.0.1.0/24"], None, axfr(), false),
        (&[], None, axfr(), false),
        (&[], key, axfr(), false),
        (&[], key, right.clone(), true),
        (&[], key, wrong.clone(), false),
        (&[CLIENT], key, right.clone(), true),
        (&[CLIENT], key, axfr(), false),
        (&["10.0.1.0/24"], key, right.clone(), false),
        (&[CLIENT], None, wrong, true),
    ] {
        let messages = ask(&transfers(allow, key), &query, Via::Tcp, &soa, &records);
        if served {
            assert_eq!(messages[0].answers.len(), 5);
        } else {
            assert_eq!(code(&messages), 5, "{allow:?} {key:?}");
        }
        assert_eq!(is_signed(&messages[0]), query != axfr());
    }
    let nobody = Transfers::new(&Dns::new(Vec::new(), "orders.internal".into()));
    assert_eq!(code(&ask(&nobody, &axfr(), Via::Tcp, &soa, &records)), 5);
    // Without the key configured, its signature is one of a stranger: NOTAUTH, BADKEY.
    assert_eq!(code(&ask(&nobody, &right, Via::Tcp, &soa, &records)), 9);
}

#[test]
fn every_message_of_a_signed_transfer_is_signed_in_its_turn() {
    let (soa, records) = (soa(7), addresses(3_000));
    let transfers = transfers(&[], Some("xfer.example"));
    let key = transfers.keys.get("xfer.example").unwrap();
    let (query, awaited) = key.sign_request(axfr(), NOW);
    let zone = || served(&soa, &records);
    let messages = transfers.respond(&query, Via::Tcp, CLIENT.parse().unwrap(), zone(), NOW);
    assert!(messages.len() > 3);
    assert!(messages.iter().all(|message| is_signed(&read(message))));
    assert!(awaited.verify(&messages[0], NOW).is_ok());
    // The second is signed over the first one's signature, not over the request's.
    assert!(awaited.verify(&messages[1], NOW).is_err());
}

#[test]
fn incremental_requests_get_the_whole_zone_or_the_lone_soa() {
    let (ours, records) = (soa(7), addresses(3));
    let transfers = transfers(&[CLIENT], None);
    for (theirs, via, answers) in [
        (6, Via::Tcp, 5),
        (7, Via::Tcp, 1),
        (8, Via::Tcp, 1),
        (u32::MAX - 5, Via::Tcp, 5),
        (7u32.wrapping_add(1 << 31), Via::Tcp, 5),
        (6, Via::Udp, 1),
        (7, Via::Udp, 1),
    ] {
        let messages = ask(&transfers, &ixfr(theirs), via, &ours, &records);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].answers.len(), answers, "{theirs} {via:?}");
        assert_eq!(messages[0].answers[0], ours);
    }
    let without_soa = question("orders.internal", qtype::IXFR);
    assert_eq!(code(&ask(&transfers, &without_soa, Via::Tcp, &ours, &records)), 1);
}

#[test]
fn other_zones_classes_and_ways_are_turned_away() {
    let (soa, records) = (soa(7), addresses(3));
    let transfers = transfers(&[CLIENT], None);
    let mut chaos = axfr();
    *chaos.last_mut().unwrap() = 3;
    let below = question("a.orders.internal", qtype::AXFR);
    for (query, via, expected) in [
        (question("example.com", qtype::AXFR), Via::Tcp, 9),
        (below, Via::Tcp, 9),
        (chaos, Via::Tcp, 5),
        (axfr(), Via::Udp, 1),
    ] {
        assert_eq!(
            code(&ask(&transfers, &query, via, &soa, &records)),
            expected,
            "{query:?}"
        );
    }
}

#[test]
fn requests_for_a_transfer_are_told_from_others() {
    assert!(is_transfer(&axfr()));
    assert!(is_transfer(&ixfr(1)));
    assert!(!is_transfer(&question("orders.internal", qtype::SOA)));
    assert!(!is_transfer(&axfr()[..20]));
    let mut response = axfr();
    response[2] |= 0x80;
    assert!(!is_transfer(&response));
    let mut notify = axfr();
    notify[2] |= 4 << 3;
    assert!(!is_transfer(&notify));
}

#[tokio::test]
async fn only_so_many_are_under_way() {
    let transfers = transfers(&[CLIENT], None);
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(transfers.begin().await);
    }
    let admitted = async || {
        tokio::select! {
            biased;
            _ = transfers.begin() => true,
            () = std::future::ready(()) => false,
        }
    };
    assert!(!admitted().await);
    held.pop();
    assert!(admitted().await);
}

#[test]
fn requests_cut_or_changed_anywhere_have_an_outcome() {
    let (soa, records) = (soa(7), addresses(3));
    let transfers = transfers(&[CLIENT], Some("xfer.example"));
    let (signed, _) = transfers
        .keys
        .get("xfer.example")
        .unwrap()
        .sign_request(ixfr(1), NOW);
    let zone = || served(&soa, &records);
    for query in [with_edns(axfr(), 512, 0, false), signed] {
        for at in 0..query.len() {
            let peer = CLIENT.parse().unwrap();
            for message in transfers.respond(&query[..at], Via::Tcp, peer, zone(), NOW) {
                read(&message);
            }
            for bit in 0..8 {
                let mut altered = query.clone();
                altered[at] ^= 1 << bit;
                for message in transfers.respond(&altered, Via::Tcp, peer, zone(), NOW) {
                    assert!(message.len() >= HEADER);
                }
            }
        }
    }
}

/// Its address may be forged: it must not cost a whole zone.
#[test]
fn question_over_udp_asks_for_no_more_than_the_soa() {
    let transfers = transfers(&[CLIENT], None);
    let peer = CLIENT.parse().unwrap();
    for query in [ixfr(6), ixfr(7), axfr()] {
        let messages = transfers.respond(
            &query,
            Via::Udp,
            peer,
            |_, extent| match extent {
                Extent::Soa => Contents::Records(vec![soa(7)]),
                Extent::Whole => panic!("the whole zone for a datagram"),
            },
            NOW,
        );
        assert_eq!(messages.len(), 1);
    }
}

#[test]
fn who_may_not_copy_is_told_so_without_waiting_for_room() {
    let transfers = transfers(&[CLIENT], None);
    let refusal = |query: &[u8], peer: &str| transfers.refusal(query, peer.parse().unwrap(), NOW);
    let refused = refusal(&axfr(), "10.0.0.54").expect("not on the list");
    assert_eq!(code(&[read(&refused[0])]), 5);
    assert_eq!(refusal(&axfr(), CLIENT), None);
    assert_eq!(refusal(&ixfr(7), CLIENT), None);
}
