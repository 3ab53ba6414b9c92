//! One secondary's notices in time, without sockets; and the task against a secondary played by a socket.

use super::*;
use baton_shared::config::{Transfer, TsigAlgorithm, TsigKey};
use hickory_proto::rr::rdata::SOA;

const T0: Mono = Mono(1_000_000_000_000);
const UNIX: u64 = 1_800_000_000;

fn soa(zone: &str, serial: u32) -> Record {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let data = SOA::new(
        name("a.node.internal."),
        name("hostmaster.internal."),
        serial,
        5,
        2,
        30,
        1,
    );
    Record::from_rdata(name(zone), 1, RData::SOA(data))
}

fn key() -> Key {
    let key = TsigKey {
        algorithm: TsigAlgorithm::HmacSha256,
        secret: b"secret-of-twenty-bytes!".to_vec(),
    };
    Key::new("xfer.example", &key)
}

fn ids() -> impl FnMut() -> u16 {
    let mut next = 0;
    move || {
        next += 1;
        next
    }
}

fn update(secondary: &mut Secondary, serial: u32, now: Mono) {
    secondary.update(&[soa("internal.", serial)], now, UNIX, || serial as u16);
}

/// What a secondary says to `request`.
fn answer(request: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut message = Message::from_vec(request).unwrap().into_response();
    message.metadata.response_code = code;
    message.answers.clear();
    message.additionals.clear();
    message.to_vec().unwrap()
}

fn signed_answer(request: &[u8]) -> Vec<u8> {
    let config = TsigKey {
        algorithm: TsigAlgorithm::HmacSha256,
        secret: b"secret-of-twenty-bytes!".to_vec(),
    };
    let keys = Keys::new(&BTreeMap::from([("xfer.example".to_owned(), config)]));
    let mut signed = crate::tsig::check(request, &keys, UNIX).unwrap().unwrap();
    signed
        .session
        .sign(answer(&signed.request, ResponseCode::NoError), UNIX)
}

/// Lets time pass until nothing is due; gives the seconds at which something was sent.
fn sent(secondary: &mut Secondary) -> (Vec<u64>, Vec<Word>) {
    let (mut seconds, mut words) = (Vec::new(), Vec::new());
    while let Some(now) = secondary.next() {
        let requests = secondary.due(now);
        seconds.extend(requests.iter().map(|_| now.since(T0).as_secs()));
        words.extend(secondary.silence());
    }
    (seconds, words)
}

#[test]
fn notice_is_a_question_for_the_soa_with_the_new_one_as_answer() {
    let mut secondary = Secondary::new(None);
    update(&mut secondary, 7, T0);
    let requests = secondary.due(T0);
    let message = Message::from_vec(&requests[0]).unwrap();
    assert_eq!(message.metadata.op_code, OpCode::Notify);
    assert_eq!(message.metadata.message_type, MessageType::Query);
    assert!(message.metadata.authoritative);
    assert_eq!(
        message.queries,
        [Query::query(
            Name::from_ascii("internal.").unwrap(),
            RecordType::SOA
        )]
    );
    assert_eq!(message.answers, [soa("internal.", 7)]);
}

#[test]
fn silent_secondary_is_told_five_times_with_growing_pauses_and_reported_once() {
    let mut secondary = Secondary::new(None);
    update(&mut secondary, 7, T0);
    assert_eq!(sent(&mut secondary), (vec![0, 1, 3, 7, 15], vec![Word::Silent]));
    update(&mut secondary, 7, T0);
    assert_eq!(secondary.next(), None);
    update(&mut secondary, 8, T0 + Duration::from_secs(60));
    let request = secondary.due(T0 + Duration::from_secs(60));
    assert_eq!(secondary.silence(), None, "said before");
    let answer = answer(&request[0], ResponseCode::NoError);
    assert_eq!(secondary.received(&answer, UNIX), Some(Word::Good));
    assert_eq!(secondary.received(&answer, UNIX), None);
    assert_eq!(secondary.next(), None);
}

#[test]
fn silence_shows_also_while_the_zone_keeps_changing() {
    let mut secondary = Secondary::new(None);
    let mut words = Vec::new();
    for n in 0..10u32 {
        let now = T0 + Duration::from_millis(500) * n;
        update(&mut secondary, n, now);
        assert_eq!(secondary.due(now).len(), 1);
        words.extend(secondary.silence());
    }
    assert_eq!(words, [Word::Silent]);
}

#[test]
fn newer_serial_takes_the_place_of_the_one_before_and_waits_its_turn() {
    let mut secondary = Secondary::new(None);
    update(&mut secondary, 7, T0);
    secondary.due(T0);
    let soon = T0 + Duration::from_millis(10);
    update(&mut secondary, 8, soon);
    update(&mut secondary, 9, soon);
    assert_eq!(secondary.due(soon), Vec::<Vec<u8>>::new());
    assert_eq!(secondary.next(), Some(T0 + SPACING));
    let requests = secondary.due(T0 + SPACING);
    assert_eq!(requests.len(), 1);
    assert_eq!(
        Message::from_vec(&requests[0]).unwrap().answers,
        [soa("internal.", 9)]
    );
}

#[test]
fn only_the_answer_to_what_was_sent_ends_it() {
    let mut secondary = Secondary::new(Some(key()));
    update(&mut secondary, 7, T0);
    let request = secondary.due(T0).remove(0);
    let good = signed_answer(&request);
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    let mut query = good.clone();
    query[2] &= 0x7f;
    let unsigned = answer(&request, ResponseCode::NoError);
    for wrong in [&other_id[..], &query, &unsigned, &request, &good[..20], &[]] {
        assert_eq!(secondary.received(wrong, UNIX), None);
        assert!(secondary.next().is_some(), "{wrong:02x?}");
    }
    assert_eq!(secondary.received(&good, UNIX), None);
    assert_eq!(secondary.next(), None);
}

#[test]
fn refusal_is_told_once_and_does_not_end_it() {
    let mut secondary = Secondary::new(None);
    update(&mut secondary, 7, T0);
    let request = secondary.due(T0).remove(0);
    let refusal = answer(&request, ResponseCode::NotAuth);
    assert_eq!(
        secondary.received(&refusal, UNIX),
        Some(Word::Refuses(ResponseCode::NotAuth))
    );
    assert_eq!(secondary.received(&refusal, UNIX), None);
    assert!(secondary.next().is_some());
    assert_eq!(
        secondary.received(&answer(&request, ResponseCode::NoError), UNIX),
        Some(Word::Good)
    );
}

#[test]
fn node_whose_turn_it_is_not_says_nothing() {
    let mut secondary = Secondary::new(None);
    update(&mut secondary, 7, T0);
    secondary.due(T0);
    secondary.update(&[], T0, UNIX, ids());
    assert_eq!(secondary.next(), None);
    update(&mut secondary, 7, T0);
    assert_eq!(secondary.next(), None, "told by this node before");
    update(&mut secondary, 8, T0 + Duration::from_secs(1));
    assert!(secondary.next().is_some());
}

#[test]
fn zones_are_told_each_and_forgotten_when_gone() {
    let mut secondary = Secondary::new(None);
    let zones = [soa("internal.", 7), soa("10.in-addr.arpa.", 7)];
    secondary.update(&zones, T0, UNIX, ids());
    assert_eq!(secondary.due(T0).len(), 2);
    secondary.update(&zones[1..], T0, UNIX, ids());
    assert_eq!(secondary.notices.len(), 1);
}

#[test]
fn source_is_the_address_listened_on() {
    let listen: Vec<SocketAddr> = ["127.0.0.1:53", "10.0.0.1:53", "[::]:53"]
        .map(|a| a.parse().unwrap())
        .into();
    for (target, expected) in [
        ("10.0.0.53:53", "10.0.0.1"),
        ("127.0.0.9:53", "127.0.0.1"),
        ("[fd00::53]:53", "::"),
    ] {
        assert_eq!(
            local(&listen, target.parse().unwrap()),
            expected.parse::<IpAddr>().unwrap()
        );
    }
}

#[tokio::test]
async fn secondary_on_a_socket_is_told_and_each_change_again() {
    let limit = Duration::from_secs(20);
    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut dns = Dns::new(vec!["127.0.0.1:53".parse().unwrap()], "internal".into());
    dns.transfer = Some(Transfer {
        allow: Vec::new(),
        key: None,
        notify: vec![peer.local_addr().unwrap()],
    });
    let (serial, current) = watch::channel(7);
    let soas = move || vec![soa("internal.", *current.borrow())];
    let running = run(&dns, soas, std::future::pending());
    let secondary = async {
        let mut buffer = [0; 512];
        for expected in [7, 8] {
            serial.send_replace(expected);
            loop {
                let (len, from) = peer.recv_from(&mut buffer).await.unwrap();
                let message = Message::from_vec(&buffer[..len]).unwrap();
                if message.answers == [soa("internal.", expected)] {
                    let answer = answer(&buffer[..len], ResponseCode::NoError);
                    peer.send_to(&answer, from).await.unwrap();
                    break;
                }
            }
        }
    };
    tokio::select! {
        ended = running => panic!("{ended:?}"),
        done = tokio::time::timeout(limit, secondary) => done.unwrap(),
    }
}
