//! Another implementation as the oracle: hickory-server on the same records says the same to every question, but for
//! the differences listed in [`Difference`].

use crate::served::{NAMES, Served, zone_file};
use crate::wire::{ANSWER_LIMIT, Question, read};
use baton_tests::namespace::Namespace;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_proto::serialize::txt::Parser;
use hickory_server::Server as Oracle;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use proptest::{option, prop_oneof, sample};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

/// Questions asked.
const QUESTIONS: usize = 6_000;
/// Asked at once, below what a socket's default buffer holds.
const TOGETHER: usize = 48;

/// Where we mean to differ from the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// ANY: we give one HINFO record (RFC 8482 §4.2), the oracle all it has.
    Any,
    /// Questions that are for no class IN zone of ours: both refuse, and the oracle may say so with AA or an SOA.
    NotOurs,
    /// Zone transfers over UDP give no zone: one SOA at most (RFC 1995 §4). The codes differ from server to server.
    Transfer,
}

impl Difference {
    fn of(question: &Question) -> Option<Difference> {
        let ours = question.name.to_ascii_lowercase();
        let ours = ours == "orders.internal" || ours.ends_with(".orders.internal");
        match question.qtype {
            _ if !ours || question.qclass != 1 => Some(Difference::NotOurs),
            251 | 252 => Some(Difference::Transfer),
            255 => Some(Difference::Any),
            _ => None,
        }
    }
}

/// What must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Gist {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    recursion_desired: bool,
    recursion_available: bool,
    /// The question's octets come back as they were, upper and lower case included.
    echo: Vec<String>,
    answers: BTreeSet<String>,
    /// The SOA alone: NS records beside an answer are optional, and the oracle gives them.
    authority: BTreeSet<String>,
    edns: Option<u8>,
}

impl Gist {
    fn of(message: &Message) -> Gist {
        let records = |records: &[Record]| records.iter().map(gist).collect::<BTreeSet<String>>();
        Gist {
            code: message.response_code,
            authoritative: message.authoritative,
            truncated: message.truncation,
            recursion_desired: message.recursion_desired,
            recursion_available: message.recursion_available,
            echo: message.queries.iter().map(ToString::to_string).collect(),
            answers: records(&message.answers),
            authority: records(&message.authorities)
                .into_iter()
                .filter(|record| record.contains(" soa "))
                .collect(),
            edns: message.edns.as_ref().map(|edns| edns.version()),
        }
    }
}

/// A record without the case of names in it, which may be the question's (RFC 4343 §4.1).
fn gist(record: &Record) -> String {
    let Record { name, ttl, data, .. } = record;
    format!("{name} {ttl} {} {data}", record.record_type()).to_ascii_lowercase()
}

/// The oracle, on a loopback port, for as long as its runtime lives.
fn oracle(serial: u32) -> (SocketAddr, tokio::runtime::Runtime) {
    let zone = zone_file(serial);
    let origin = Name::from_ascii(format!("{}.", zone.name)).expect("it is a name");
    let parsed = Parser::new(zone.text, None, Some(origin.clone())).parse();
    let (_, records) = parsed.expect("the records are in master file format");
    let handler: InMemoryZoneHandler =
        InMemoryZoneHandler::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny)
            .expect("the zone is complete");
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(handler)]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let socket = runtime
        .block_on(tokio::net::UdpSocket::bind("127.0.0.1:0"))
        .expect("loopback has ports");
    let address = socket.local_addr().expect("it is bound");
    let _within = runtime.enter();
    let mut server = Oracle::new(catalog);
    server.register_socket(socket);
    runtime.spawn(async move { server.block_until_done().await });
    (address, runtime)
}

/// Any question that can be read: names in and around the zone in any case, any type and class, with and without EDNS.
fn question() -> impl Strategy<Value = Question> {
    let near = sample::select(NAMES.to_vec()).prop_map(str::to_owned);
    let below = ("[a-zA-Z0-9_*-]{1,63}", sample::select(NAMES.to_vec()))
        .prop_map(|(label, name)| format!("{label}.{name}"));
    let service = ("_[a-z]{1,15}\\._(tcp|udp)", sample::select(NAMES.to_vec()))
        .prop_map(|(label, name)| format!("{label}.{name}"));
    let names = prop_oneof![6 => near, 2 => below, 1 => service];
    let cased = (names, proptest::collection::vec(proptest::bool::ANY, 255)).prop_map(|(name, upper)| {
        let letters = name.chars().zip(upper);
        letters
            .map(|(c, upper)| if upper { c.to_ascii_uppercase() } else { c })
            .collect::<String>()
    });
    let usual = sample::select(vec![
        1u16, 2, 5, 6, 12, 13, 15, 16, 28, 33, 35, 64, 65, 251, 252, 255, 257,
    ]);
    let types = prop_oneof![9 => usual, 1 => proptest::num::u16::ANY];
    let classes = prop_oneof![12 => sample::select(vec![1u16]), 1 => sample::select(vec![3, 4, 255])];
    // RD, and the bits that a server must ignore in questions: AD and CD.
    let flags = proptest::bits::u16::masked(0x0130);
    let edns = option::of((512u16..4096, sample::select(vec![0u32, 0x8000])));
    (flags, cased, types, classes, edns).prop_map(|(flags, name, qtype, qclass, edns)| Question {
        id: 0,
        flags,
        name,
        qtype,
        qclass,
        edns: edns.map(|(size, ttl)| (size, ttl, Vec::new())),
    })
}

/// Asks all of them, and gives the answers by id.
fn ask_all(server: SocketAddr, questions: &[Question]) -> BTreeMap<u16, Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has ports");
    socket.connect(server).expect("loopback is routed");
    socket
        .set_read_timeout(Some(ANSWER_LIMIT))
        .expect("it is not zero");
    for question in questions {
        socket.send(&question.bytes()).expect("loopback takes it");
    }
    let mut answers = BTreeMap::new();
    let mut buffer = [0; 4096];
    while answers.len() < questions.len() {
        let Ok(length) = socket.recv(&mut buffer) else {
            break;
        };
        let answer = buffer[..length].to_vec();
        let id = answer.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        answers.insert(id, answer);
    }
    answers
}

/// A type that the reader below does not take as a question's.
fn unreadable(question: &Question) -> bool {
    matches!(
        RecordType::from(question.qtype),
        RecordType::ZERO | RecordType::OPT
    )
}

#[test]
fn says_what_hickory_says_to_thousands_of_questions() {
    let ours = Served::start(&Namespace::here());
    let (oracle, _runtime) = oracle(ours.serial);
    let mut runner = TestRunner::deterministic();
    let strategy = question();
    let mut compared: BTreeMap<Option<Difference>, usize> = BTreeMap::new();
    for round in 0..QUESTIONS / TOGETHER {
        let mut questions: Vec<Question> = (0..TOGETHER)
            .map(|_| strategy.new_tree(&mut runner).expect("it has values").current())
            .filter(|question| !unreadable(question))
            .collect();
        for (id, question) in (round as u16 * TOGETHER as u16..).zip(&mut questions) {
            question.id = id;
        }
        let (we, they) = (ask_all(ours.address, &questions), ask_all(oracle, &questions));
        for question in &questions {
            let said = |answers: &BTreeMap<u16, Vec<u8>>, who| {
                let answer = answers.get(&question.id);
                Gist::of(&read(
                    answer.unwrap_or_else(|| panic!("{who} did not answer {question:?}")),
                ))
            };
            let (we, they) = (said(&we, "we"), said(&they, "hickory"));
            let difference = Difference::of(question);
            *compared.entry(difference).or_default() += 1;
            match difference {
                None => assert_eq!(we, they, "{question:?}"),
                Some(Difference::Any) => assert_any(&we, &they, question),
                Some(Difference::Transfer) => assert!(we.answers.len() <= 1, "{question:?}"),
                Some(Difference::NotOurs) => {
                    assert_eq!(we.code, ResponseCode::Refused, "{question:?}");
                    assert!(!we.authoritative && we.answers.is_empty() && we.authority.is_empty());
                    assert_eq!(we.echo, they.echo, "{question:?}");
                }
            }
        }
    }
    eprintln!("compared: {compared:?}");
    assert!(compared.get(&None).is_some_and(|n| *n > QUESTIONS / 2));
    assert_eq!(compared.len(), 4, "every difference was met");
}

#[track_caller]
fn assert_any(we: &Gist, they: &Gist, question: &Question) {
    assert_eq!(
        (we.code, we.authoritative),
        (they.code, they.authoritative),
        "{question:?}"
    );
    match they.answers.is_empty() {
        true => assert!(we.answers.is_empty(), "{question:?}"),
        false => assert!(we.answers.iter().all(|a| a.contains(" hinfo ")) && we.answers.len() == 1),
    }
}
