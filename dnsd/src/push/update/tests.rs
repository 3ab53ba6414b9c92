//! Messages of a push, against a model of what RFC 2136 §3 says that a server does with them. Real ones are in
//! `tests/push.rs`.

use super::*;
use baton_shared::config::Dns;
use proptest::prelude::*;

fn push() -> Push {
    Push {
        label: "site".into(),
        server: "127.0.0.1:53".parse().unwrap(),
        zone: "example.com".into(),
        name: "orders.example.com".into(),
        role: None,
        ttl: Dns::DEFAULT_TTL,
        key: None,
    }
}

fn names() -> Names {
    Names::new(&push()).unwrap()
}

fn wish(epoch: u64, addresses: &[&str]) -> Wish {
    Wish {
        epoch: Epoch(epoch),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
    }
}

/// A server's records: names, types and data.
#[derive(Clone, Debug, Default, PartialEq)]
struct Server(Vec<Record>);

impl Server {
    fn of(&self, name: &Name, kind: RecordType) -> Vec<&RData> {
        let all = self
            .0
            .iter()
            .filter(|r| r.name == *name && r.record_type() == kind);
        all.map(|record| &record.data).collect()
    }

    fn ask(&self, question: &[u8]) -> Vec<u8> {
        let mut message = Message::from_vec(question).unwrap().into_response();
        let query = message.queries[0].clone();
        message.metadata.authoritative = true;
        let all = self
            .0
            .iter()
            .filter(|r| r.name == query.name && r.record_type() == query.query_type);
        message.add_answers(all.cloned());
        message.to_vec().unwrap()
    }

    fn found(&self) -> Found {
        let [a, b, c] = names().questions([1, 2, 3]).unwrap();
        names()
            .found([&self.ask(&a), &self.ask(&b), &self.ask(&c)])
            .unwrap()
    }

    /// RFC 2136 §3.2 and §3.4, as far as pushes need them.
    fn update(&mut self, update: &[u8]) -> ResponseCode {
        let message = Message::from_vec(update).unwrap();
        let mut required: Vec<(Name, RecordType, Vec<RData>)> = Vec::new();
        for p in &message.answers {
            let here = self.of(&p.name, p.record_type());
            match p.dns_class {
                DNSClass::NONE if !here.is_empty() => return ResponseCode::YXRRSet,
                DNSClass::NONE => {}
                DNSClass::IN => match required
                    .iter_mut()
                    .find(|(n, k, _)| *n == p.name && *k == p.record_type())
                {
                    Some((_, _, data)) => data.push(p.data.clone()),
                    None => required.push((p.name.clone(), p.record_type(), vec![p.data.clone()])),
                },
                class => panic!("{class}"),
            }
        }
        for (name, kind, data) in required {
            let here = self.of(&name, kind);
            if here.len() != data.len() || !data.iter().all(|data| here.contains(&data)) {
                return ResponseCode::NXRRSet;
            }
        }
        for u in &message.authorities {
            match u.dns_class {
                DNSClass::ANY => self
                    .0
                    .retain(|r| r.name != u.name || r.record_type() != u.record_type()),
                DNSClass::IN => self.0.push(u.clone()),
                class => panic!("{class}"),
            }
        }
        ResponseCode::NoError
    }
}

fn update(server: &Server, wish: &Wish) -> Vec<u8> {
    names().update(7, &server.found(), wish).unwrap()
}

#[test]
fn first_update_takes_an_empty_name_and_leaves_what_is_wished() {
    let mut server = Server::default();
    let wish = wish(5, &["10.0.0.1", "10.0.0.2", "2001:db8::1"]);
    assert_eq!(decide(&server.found(), &wish), Move::Update);
    let update = update(&server, &wish);
    assert_eq!(server.update(&update), ResponseCode::NoError);
    assert_eq!(decide(&server.found(), &wish), Move::Done);
    let ttls: Vec<u32> = server.0.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [1; 4]);
    // Sent again, it fails: its prerequisite was that there is no epoch.
    assert_eq!(server.update(&update), ResponseCode::YXRRSet);
}

#[test]
fn late_update_of_a_lesser_epoch_finds_its_prerequisite_gone() {
    let mut server = Server::default();
    let first = update(&server, &wish(5, &["10.0.0.1"]));
    server.update(&first);
    let (late, newer) = (wish(6, &["10.0.0.2"]), wish(7, &["10.0.0.3", "2001:db8::3"]));
    let late_bytes = update(&server, &late);
    let newer_bytes = update(&server, &newer);
    assert_eq!(server.update(&newer_bytes), ResponseCode::NoError);
    assert_eq!(server.update(&late_bytes), ResponseCode::NXRRSet);
    assert_eq!(
        server.found(),
        Found {
            epoch: Some(newer.epoch),
            addresses: newer.addresses
        }
    );
    assert_eq!(decide(&server.found(), &late), Move::Superseded(Epoch(7)));
}

#[test]
fn updates_of_one_epoch_cannot_cross_either() {
    let mut server = Server::default();
    let bytes = update(&server, &wish(5, &["10.0.0.1"]));
    server.update(&bytes);
    let before = update(&server, &wish(5, &["10.0.0.2"]));
    let after = update(&server, &wish(5, &["2001:db8::1"]));
    assert_eq!(server.update(&after), ResponseCode::NoError);
    assert_eq!(server.update(&before), ResponseCode::YXRRSet);
    let back = update(&server, &wish(5, &["10.0.0.1"]));
    assert_eq!(server.update(&back), ResponseCode::NoError);
}

#[test]
fn operators_record_at_the_name_is_replaced_and_an_alias_is_not() {
    let name = Name::from_ascii("orders.example.com.").unwrap();
    let mut server = Server(vec![Record::from_rdata(
        name.clone(),
        60,
        data(&"192.0.2.1".parse().unwrap()),
    )]);
    let wished = wish(5, &["10.0.0.1"]);
    let bytes = update(&server, &wished);
    let target = Name::from_ascii("elsewhere.example.com.").unwrap();
    let alias = Record::from_rdata(name, 60, RData::CNAME(hickory_proto::rr::rdata::CNAME(target)));
    let mut aliased = Server(vec![alias]);
    assert_eq!(aliased.update(&bytes), ResponseCode::YXRRSet);
    assert_eq!(server.update(&bytes), ResponseCode::NoError);
    assert_eq!(server.found().addresses, wished.addresses);
}

#[test]
fn answers_that_say_something_else_are_unfit() {
    let names = names();
    let [a, b, c] = names.questions([1, 2, 3]).unwrap();
    let server = Server::default();
    let good = [server.ask(&a), server.ask(&b), server.ask(&c)];
    let found = |change: &dyn Fn(&mut Message)| {
        let mut message = Message::from_vec(&good[0]).unwrap();
        change(&mut message);
        names.found([&message.to_vec().unwrap(), &good[1], &good[2]])
    };
    let txt = |texts: &[&str]| {
        let text = TXT::new(texts.iter().map(|t| (*t).to_owned()).collect());
        Record::from_rdata(names.epoch.clone(), 1, RData::TXT(text))
    };
    assert_eq!(found(&|_| {}), Ok(Found::default()));
    for (change, expected) in [
        (
            &(|m: &mut Message| m.metadata.response_code = ResponseCode::NXDomain) as &dyn Fn(&mut Message),
            None,
        ),
        (
            &|m| m.metadata.response_code = ResponseCode::Refused,
            Some(Unfit::Code(ResponseCode::Refused)),
        ),
        (
            &|m| m.metadata.authoritative = false,
            Some(Unfit::NotAuthoritative),
        ),
        (&|m| m.metadata.truncation = true, Some(Unfit::Malformed)),
        (
            &|m| m.metadata.message_type = MessageType::Query,
            Some(Unfit::Malformed),
        ),
        (
            &|m| m.queries[0].query_type = RecordType::A,
            Some(Unfit::Malformed),
        ),
        (
            &|m| {
                m.add_answer(txt(&["5"]));
            },
            None,
        ),
        (
            &|m| {
                m.add_answer(txt(&["05"]));
            },
            Some(Unfit::ForeignText),
        ),
        (
            &|m| {
                m.add_answer(txt(&["5", "6"]));
            },
            Some(Unfit::ForeignText),
        ),
        (
            &|m| {
                m.add_answer(txt(&["v=spf1"]));
            },
            Some(Unfit::ForeignText),
        ),
        (
            &|m| {
                m.add_answer(txt(&["18446744073709551616"]));
            },
            Some(Unfit::ForeignText),
        ),
        (
            &|m| {
                m.add_answers([txt(&["5"]), txt(&["6"])]);
            },
            Some(Unfit::ForeignText),
        ),
    ] {
        assert_eq!(found(change).err(), expected);
    }
    assert_eq!(
        names.found([&good[0][..11], &good[1], &good[2]]),
        Err(Unfit::Malformed)
    );
}

#[test]
fn answers_to_updates_are_told_from_others() {
    let update = update(&Server::default(), &wish(5, &["10.0.0.1"]));
    assert_eq!(code(&update), Err(Unfit::Malformed));
    let mut answer = Message::from_vec(&update).unwrap().into_response();
    answer.metadata.response_code = ResponseCode::NXRRSet;
    assert_eq!(code(&answer.to_vec().unwrap()), Ok(ResponseCode::NXRRSet));
    answer.metadata.op_code = OpCode::Query;
    assert_eq!(code(&answer.to_vec().unwrap()), Err(Unfit::Malformed));
}

proptest! {
    /// Pushers read and write in any order, writes arrive late or twice: the epoch in the server never falls, and its
    /// addresses are always those of its epoch.
    #[test]
    fn epoch_in_the_server_only_grows(steps in prop::collection::vec((0usize..4, any::<bool>()), 1..60)) {
        let wishes: Vec<Wish> = (0u64..4)
            .map(|n| wish(10 + n, &[["10.0.0.1"], ["10.0.0.2"], ["2001:db8::3"], ["10.0.0.4"]][n as usize]))
            .collect();
        let mut server = Server::default();
        let mut on_the_way: Vec<Vec<u8>> = Vec::new();
        for (who, arrives) in steps {
            if arrives && !on_the_way.is_empty() {
                let update = on_the_way[who % on_the_way.len()].clone();
                let before = server.found().epoch;
                server.update(&update);
                prop_assert!(server.found().epoch >= before);
            } else if decide(&server.found(), &wishes[who]) == Move::Update {
                on_the_way.push(update(&server, &wishes[who]));
            }
            let found = server.found();
            if let Some(epoch) = found.epoch {
                let of = wishes.iter().find(|wish| wish.epoch == epoch).unwrap();
                prop_assert_eq!(&found.addresses, &of.addresses);
            }
        }
    }
}
