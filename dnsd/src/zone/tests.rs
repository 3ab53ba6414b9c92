use super::origin::ORIGIN_MAX;
use super::*;
use crate::answer::{Via, answer};
use crate::testing::{
    ZONE, addresses, client, dns, holder, name, node, node_view, policy, published, qtype, question, read,
    role, settings, view, zone,
};
use crate::transfer::Extent;
use baton_shared::clock::Mono;
use baton_shared::id::{Boot, Epoch, Kind, NodeId, Owner};
use baton_shared::succession;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use std::cell::RefCell;

/// Whether `b` is the newer serial (RFC 1982 §3.2).
fn rises(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

#[test]
fn serial_rises_with_the_log_alone_and_not_with_what_a_node_hears() {
    let mut before = view();
    holder(&mut before, "main", "b");
    let owner = Owner {
        node: NodeId(1),
        boot: Boot(1),
    };
    let epoch = Epoch(1_780_000_000_002);
    before.roles[1].line = vec![(node("a"), succession::Place { epoch, owner })];
    let mut drained = before.clone();
    drained.roles[1].line.clear();
    drained.roles[1].holder = None;
    assert_eq!(serial(&before), serial(&drained), "no line, nobody heard");
    let mut after = drained.clone();
    after.applied += 1;
    assert!(rises(serial(&before), serial(&after)));
    let mut later = after.clone();
    later.copy.greatest = Epoch(1_790_000_000_000);
    later.applied += 1;
    assert!(rises(serial(&after), serial(&later)));
    let mut same = later.clone();
    same.me = node("c");
    same.serial = 99;
    assert_eq!(serial(&later), serial(&same));
}

#[test]
fn zone_is_of_views_with_the_same_records_only() {
    let first = view();
    let published = published(first.clone());
    let zone = zone(&published);
    let mut next = first.clone();
    next.serial += 1;
    next.coordinator = Some(node("b"));
    assert!(zone.is_of(&next));
    for change in [
        |v: &mut View| v.nodes[0].serves.clear(),
        |v: &mut View| v.nodes[0].serves.reverse(),
        |v: &mut View| v.nodes.push(node_view("d", &[])),
        |v: &mut View| v.nodes[0].name = node("z"),
        |v: &mut View| v.applied += 1,
        |v: &mut View| v.nodes[1].state = PeerState::Down,
        |v: &mut View| v.nodes[1].kind = Kind::Witness,
    ] {
        let mut changed = first.clone();
        change(&mut changed);
        assert!(!zone.is_of(&changed));
    }
}

#[test]
fn apex_is_mains_or_the_first_roles() {
    let apex = |roles: &[&str]| {
        let roles: Vec<RoleName> = roles.iter().map(|name| role(name)).collect();
        let zone = Zone::new(&settings(), &view(), &roles);
        let asked = RefCell::new(None);
        let word = |role: &RoleName| {
            asked.replace(Some(role.to_string()));
            Word::Nobody
        };
        zone.find(zone.place(&name(ZONE), &mut None).unwrap(), code::A, &word);
        asked.into_inner().unwrap()
    };
    assert_eq!(apex(&["batch", "main", "web"]), "main");
    assert_eq!(apex(&["batch", "web"]), "batch");
}

#[test]
fn role_named_node_has_its_address_and_the_nodes_keep_theirs() {
    let zone = Zone::new(&settings(), &view(), &[role("node")]);
    let me = |_: &RoleName| Word::Me(Epoch(1));
    for text in ["node.orders.internal", "b.node.orders.internal"] {
        let name = name(text);
        let found = zone.find(zone.place(&name, &mut None).unwrap(), code::A, &me);
        assert!(matches!(found, Found::Records(..)), "{text}");
    }
}

#[test]
fn names_that_are_no_international_names_are_still_names() {
    let mut view = view();
    view.nodes.push(node_view("ab--c", &["10.0.0.9"]));
    view.nodes
        .push(node_view(&format!("xn--{}", "z".repeat(59)), &["10.0.0.10"]));
    let mut settings = settings();
    settings.origin = Origin::new(&format!("9.ab--c.{}.xn--a.", "y".repeat(63))).unwrap();
    let zone = Zone::new(&settings, &view, &[role("main")]);
    assert_eq!(zone.forward.ns.count, 5);
}

#[test]
fn longest_origin_still_has_room_for_node_names() {
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{}", "x".repeat(ORIGIN_MAX - 130));
    let mut settings = settings();
    settings.origin = Origin::new(&longest).unwrap();
    assert_eq!(settings.origin.wire().len(), ORIGIN_MAX);
    let mut view = view();
    view.nodes.push(node_view(&label, &["10.0.0.9"]));
    assert_eq!(Zone::new(&settings, &view, &[role("main")]).forward.ns.count, 4);
    assert!(Origin::new(&format!("{longest}x")).is_err());
}

#[test]
fn at_most_thirteen_name_servers() {
    let mut view = view();
    for i in 0..40 {
        view.nodes
            .push(node_view(&format!("n{i}"), &["10.0.0.9", "2001:db8::9"]));
    }
    let zone = Zone::new(&settings(), &view, &[role("main")]);
    assert_eq!(zone.forward.ns.count, 13);
    let size = zone.forward.ns.bytes.len() + zone.forward.glue.bytes.len();
    assert!(size < 1232 - 12 - 21 - 11, "{size}");
}

#[test]
fn ttls_are_whole_seconds_rounded_down() {
    let mut dns = crate::testing::dns(&[]);
    dns.ttl = std::time::Duration::from_millis(1_900);
    dns.negative_ttl = std::time::Duration::ZERO;
    let settings = Settings::new(&dns).unwrap();
    assert_eq!((settings.ttl, settings.negative_ttl), (1, 0));
}

#[test]
fn address_given_twice_is_one_record() {
    let mut view = view();
    view.nodes[0] = node_view("a", &["10.0.0.1", "2001:db8::1", "10.0.0.1", "2001:db8::1"]);
    let zone = Zone::new(&settings(), &view, &[role("main")]);
    assert_eq!((zone.nodes[0].a.count, zone.nodes[0].aaaa.count), (1, 1));
}

/// Who was active last, beside who is.
struct Told<'v>(&'v View, Option<&'v str>);

impl Source for Told<'_> {
    fn word(&self, role: &RoleName) -> Word {
        self.0.word_of_others(role, Mono(1))
    }

    fn last(&self, _: &RoleName) -> Option<NodeName> {
        self.1.map(node)
    }
}

/// A name in wire form.
fn wire_of(name: &str) -> Box<[u8]> {
    let labels: Vec<&str> = name.split('.').collect();
    [&wire(&labels)[..], &[0]].concat().into()
}

/// The configuration of every name there is: two services, two networks.
fn full() -> Dns {
    Dns {
        services: [("https", 443), ("postgresql", 5432)]
            .map(|(name, port)| Service {
                name: name.into(),
                port,
            })
            .to_vec(),
        reverse: vec!["10.0.0.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ..dns(&[])
    }
}

fn ask_with(dns: &Dns, told: Told, name: &str, qtype: u16) -> Message {
    let zone = Zone::new(
        &Settings::new(dns).unwrap(),
        told.0,
        told.0.roles.iter().map(|role| &role.role),
    );
    let mut out = [0; 4096];
    let reply = answer(
        &question(name, qtype),
        client(Via::Tcp),
        &policy(),
        &zone,
        &told,
        &mut out,
    )
    .unwrap();
    read(&out[..reply.len])
}

/// `b` is active for `main`, nobody for `batch`.
fn ask(name: &str, qtype: u16) -> Message {
    let mut view = view();
    holder(&mut view, "main", "b");
    ask_with(&full(), Told(&view, None), name, qtype)
}

fn texts(message: &Message) -> Vec<String> {
    let data = message.answers.iter().map(|record| record.data.to_string());
    data.collect()
}

#[test]
fn services_name_the_active_node_and_bring_its_addresses() {
    for name in ["_https._tcp.orders.internal", "_https._tcp.main.orders.internal"] {
        let message = ask(name, code::SRV);
        assert_eq!(texts(&message), ["0 0 443 b.node.orders.internal."], "{name}");
        assert_eq!(message.answers[0].name.to_utf8(), format!("{name}."));
        assert_eq!(addresses(&message.additionals), ["10.0.0.2", "10.0.1.2"]);
        assert_eq!(message.additionals[0].name.to_utf8(), "b.node.orders.internal.");
    }
    let nobody = ask("_postgresql._tcp.batch.orders.internal", code::SRV);
    assert_eq!(
        (nobody.metadata.response_code, nobody.answers.len()),
        (ResponseCode::NoError, 0)
    );
    assert_eq!(nobody.authorities.len(), 1);
    let unknown = ask("_smtp._tcp.orders.internal", code::SRV);
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn names_above_others_are_there_without_data() {
    for name in ["_tcp", "_tcp.main", "node", "0.10.in-addr.arpa"] {
        let full = match name.ends_with("arpa") {
            true => "0.0.10.in-addr.arpa".to_owned(),
            false => format!("{name}.orders.internal"),
        };
        let message = ask(&full, code::A);
        let outcome = (
            message.metadata.response_code,
            message.answers.len(),
            message.authorities.len(),
        );
        assert_eq!(outcome, (ResponseCode::NoError, 0, 1), "{full}");
    }
}

#[test]
fn all_are_the_members_and_standby_those_that_are_up_and_not_active() {
    let mut view = view();
    holder(&mut view, "main", "b");
    view.nodes.push(node_view("d", &["10.0.0.4", "10.0.0.1"]));
    view.nodes.push(node_view("x", &["10.0.0.9"]));
    view.nodes[5].kind = Kind::Witness;
    let ask = |view: &View, name: &str, qtype| {
        let message = ask_with(
            &full(),
            Told(view, None),
            &format!("{name}.orders.internal"),
            qtype,
        );
        addresses(&message.answers)
    };
    let all = ["10.0.0.1", "10.0.0.2", "10.0.1.2", "10.0.0.4"];
    assert_eq!(ask(&view, "all", code::A), all, "each once");
    assert_eq!(ask(&view, "all", code::AAAA), ["2001:db8::1", "2001:db8::3"]);
    assert_eq!(ask(&view, "standby", code::A), ["10.0.0.1", "10.0.0.4"]);
    view.nodes[0].state = PeerState::Down;
    assert_eq!(ask(&view, "standby", code::A), ["10.0.0.4"]);
    assert_eq!(ask(&view, "all", code::A), all);
    view.in_touch_until = Mono::ZERO;
    view.roles[1].holder = None;
    let message = ask_with(&full(), Told(&view, None), "standby.orders.internal", code::A);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn text_tells_every_role_or_nothing() {
    let message = ask("_baton.orders.internal", code::TXT);
    let said: Vec<String> = message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::TXT(text) => {
                let parts = text
                    .txt_data
                    .iter()
                    .map(|part| String::from_utf8_lossy(part).into_owned());
                parts.collect::<Vec<_>>().join(" ")
            }
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(
        said,
        ["role=batch node= epoch=", "role=main node=b epoch=1780000000000"]
    );
    let mut lost = view();
    holder(&mut lost, "main", "b");
    lost.in_touch_until = Mono::ZERO;
    let message = ask_with(&full(), Told(&lost, None), "_baton.orders.internal", code::TXT);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn addresses_have_names_in_the_networks_given() {
    let pointer = |name: &str| {
        let message = ask(name, code::PTR);
        (message.metadata.response_code, texts(&message))
    };
    let found = |name: &str| {
        (
            ResponseCode::NoError,
            vec![format!("{name}.node.orders.internal.")],
        )
    };
    assert_eq!(pointer("2.0.0.10.in-addr.arpa"), found("b"));
    let v6 = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(pointer(v6), found("c"));
    let above = v6.split_once('.').unwrap().1;
    assert_eq!(pointer(above), (ResponseCode::NoError, vec![]));
    assert_eq!(pointer("9.0.0.10.in-addr.arpa"), (ResponseCode::NXDomain, vec![]));
    assert_eq!(pointer("2.1.0.10.in-addr.arpa").0, ResponseCode::Refused);
    let soa = ask("0.0.10.in-addr.arpa", code::SOA);
    assert_eq!(soa.answers[0].name.to_utf8(), "0.0.10.in-addr.arpa.");
    assert!(texts(&soa)[0].starts_with("a.node.orders.internal. hostmaster.orders.internal. "));
    let ns = ask("0.0.10.in-addr.arpa", code::NS);
    assert_eq!(ns.answers.len(), 3);
    assert_eq!(addresses(&ns.additionals).len(), 5);
}

#[test]
fn while_nobody_is_active_it_says_what_was_asked_for() {
    let view = view();
    let ask = |nobody_active, last, name: &str, qtype| {
        let dns = Dns {
            nobody_active,
            ..full()
        };
        let message = ask_with(&dns, Told(&view, last), &format!("{name}orders.internal"), qtype);
        let code = message.metadata.response_code;
        (
            code,
            message
                .answers
                .iter()
                .map(|record| record.data.to_string())
                .collect::<Vec<_>>(),
        )
    };
    let said = |list: &[&str]| {
        (
            ResponseCode::NoError,
            list.iter().map(|text| text.to_string()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(ask(NobodyActive::NoData, Some("b"), "", code::A), said(&[]));
    assert_eq!(
        ask(NobodyActive::ServFail, Some("b"), "", code::A).0,
        ResponseCode::ServFail
    );
    assert_eq!(
        ask(NobodyActive::ServFail, Some("b"), "", code::AAAA).0,
        ResponseCode::ServFail
    );
    assert_eq!(
        ask(NobodyActive::ServFail, Some("b"), "", qtype::HTTPS),
        said(&[])
    );
    assert_eq!(
        ask(NobodyActive::Last, Some("b"), "", code::A),
        said(&["10.0.0.2", "10.0.1.2"])
    );
    assert_eq!(ask(NobodyActive::Last, Some("gone"), "", code::A), said(&[]));
    assert_eq!(ask(NobodyActive::Last, None, "", code::A), said(&[]));
    assert_eq!(
        ask(NobodyActive::All, None, "", code::AAAA),
        said(&["2001:db8::1", "2001:db8::3"])
    );
    let services = said(
        &["a", "b", "c", "w"]
            .map(|node| format!("0 0 443 {node}.node.orders.internal."))
            .each_ref()
            .map(|text| &**text),
    );
    assert_eq!(ask(NobodyActive::All, None, "_https._tcp.", code::SRV), services);
}

#[test]
fn a_copy_of_the_zone_is_what_questions_find() {
    let mut view = view();
    holder(&mut view, "main", "b");
    let told = Told(&view, None);
    let zone = Zone::new(
        &Settings::new(&full()).unwrap(),
        &view,
        view.roles.iter().map(|role| &role.role),
    );
    let whole = |name: &str, told: &Told| zone.contents(&wire_of(name), Extent::Whole, told);
    let Contents::Records(records) = whole(ZONE, &told) else {
        panic!("all is known but one node's address");
    };
    let kinds = |kind: &str| {
        records
            .iter()
            .filter(|record| record.record_type().to_string() == kind)
            .count()
    };
    assert_eq!(records[0].record_type().to_string(), "SOA");
    let counted = ["SOA", "NS", "A", "AAAA", "SRV", "TXT", "PTR"].map(kinds);
    assert_eq!(counted, [1, 3, 2 + 2 + 3 + 3, 2 + 2, 4, 2, 0]);
    for record in &records {
        let qtype = record.record_type().into();
        let message = ask_with(&full(), Told(&view, None), &record.name.to_utf8(), qtype);
        assert!(message.answers.contains(record), "{record}");
    }
    let Contents::Records(reverse) = whole("0.0.10.in-addr.arpa", &told) else {
        panic!("it is a zone, too");
    };
    assert_eq!(reverse.len(), 1 + 3 + 2);
    for other in ["a.node.orders.internal", "example.com"] {
        assert_eq!(whole(other, &told), Contents::NotOurs);
    }
    assert_eq!(zone.soas().len(), 3);
    let soa = zone.contents(&wire_of(ZONE), Extent::Soa, &told);
    assert_eq!(soa, Contents::Records(records[..1].to_vec()));
    view.in_touch_until = Mono::ZERO;
    assert_eq!(whole(ZONE, &Told(&view, None)), Contents::Unsure);
}

#[test]
fn name_servers_of_the_configuration_have_names_of_their_own() {
    let ns = |name: &str, ips: &[&str]| NameServer {
        name: name.into(),
        addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let dns = Dns {
        ns: vec![ns("ns1", &["10.0.0.53", "fd00::53"]), ns("ns2", &["10.0.0.54"])],
        ..full()
    };
    let mut view = view();
    holder(&mut view, "main", "b");
    let ask = |name: &str, qtype: u16| ask_with(&dns, Told(&view, None), name, qtype);
    for zone in [ZONE, "0.0.10.in-addr.arpa"] {
        let message = ask(zone, qtype::NS);
        let names: Vec<String> = message
            .answers
            .iter()
            .map(|record| record.data.to_string())
            .collect();
        assert_eq!(names, ["ns1.ns.orders.internal.", "ns2.ns.orders.internal."]);
        assert_eq!(
            addresses(&message.additionals),
            ["10.0.0.53", "fd00::53", "10.0.0.54"]
        );
        let soa = ask(zone, qtype::SOA);
        assert!(
            soa.answers[0]
                .data
                .to_string()
                .starts_with("ns1.ns.orders.internal. ")
        );
    }
    let own = ask("ns1.ns.orders.internal", qtype::AAAA);
    assert_eq!(addresses(&own.answers), ["fd00::53"]);
    assert_eq!(
        ask("ns.orders.internal", qtype::A).metadata.response_code,
        ResponseCode::NoError
    );
    assert_eq!(
        ask("ns2.ns.orders.internal", qtype::AAAA).metadata.response_code,
        ResponseCode::NoError
    );
    let zone = Zone::new(
        &Settings::new(&dns).unwrap(),
        &view,
        view.roles.iter().map(|role| &role.role),
    );
    let told = Told(&view, None);
    let Contents::Records(records) = zone.contents(&wire_of(ZONE), Extent::Whole, &told) else {
        panic!("all is known but one node's address");
    };
    let own = records
        .iter()
        .filter(|record| record.name.to_ascii().ends_with(".ns.orders.internal."));
    assert_eq!(own.count(), 3);
}

#[test]
fn smaller_network_has_its_names_in_its_own_zone() {
    let dns = Dns {
        reverse: ["10.0.0.0/8", "10.0.0.0/24"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        ..dns(&[])
    };
    let message = ask_with(&dns, Told(&view(), None), "9.0.0.10.in-addr.arpa", qtype::PTR);
    assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(message.authorities[0].name.to_ascii(), "0.0.10.in-addr.arpa.");
    let delegated = ask_with(&dns, Told(&view(), None), "0.0.10.in-addr.arpa", qtype::SOA);
    assert_eq!(delegated.answers.len(), 1);
}

#[test]
fn zone_of_which_nobody_has_said_anything_is_not_known() {
    let mut view = view();
    view.roles.clear();
    view.nodes.clear();
    for name in [ZONE, "main.orders.internal", "none.orders.internal"] {
        for qtype in [qtype::A, qtype::SOA, qtype::ANY] {
            let message = ask_with(&dns(&[]), Told(&view, None), name, qtype);
            assert_eq!(message.metadata.response_code, ResponseCode::ServFail, "{name}");
        }
    }
}
