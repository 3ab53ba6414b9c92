use super::*;
use crate::testing::{holder, node, node_view, published, role, settings, view, zone};
use baton_shared::id::{Boot, Epoch, NodeId, Owner};
use baton_shared::succession::Place;

/// Whether `b` is the newer serial (RFC 1982 §3.2).
fn rises(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 1 << 31
}

fn place(name: &str, epoch: u64) -> (NodeName, Place) {
    let owner = Owner {
        node: NodeId(1),
        boot: Boot(1),
    };
    (
        node(name),
        Place {
            epoch: Epoch(epoch),
            owner,
        },
    )
}

#[test]
fn serial_rises_with_every_recorded_change_and_a_lagging_node_says_an_older_one() {
    let mut before = view();
    holder(&mut before, "main", "b");
    before.roles[1].line = vec![place("a", 1_780_000_000_001), place("b", 1_780_000_000_002)];
    let mut after = before.clone();
    holder(&mut after, "main", "a");
    after.roles[1].line.remove(0);
    after.applied += 1;
    assert!(rises(serial(&before), serial(&after)));
    let mut later = after.clone();
    later.roles[1].line = vec![place("b", 1_790_000_000_000)];
    later.applied += 1;
    assert!(rises(serial(&after), serial(&later)));
    let mut same = later.clone();
    same.me = node("c");
    same.serial = 99;
    assert_eq!(serial(&later), serial(&same));
    assert!(
        rises(serial(&view()), serial(&before)),
        "a node that knows no holder yet"
    );
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
        let mut asked = None;
        zone.find(&[], code::A, |role| {
            asked = Some(role.to_string());
            Word::Nobody
        });
        asked.unwrap()
    };
    assert_eq!(apex(&["batch", "main", "web"]), "main");
    assert_eq!(apex(&["batch", "web"]), "batch");
}

#[test]
fn role_named_node_has_its_address_and_the_nodes_keep_theirs() {
    let zone = Zone::new(&settings(), &view(), &[role("node")]);
    let me = |_: &RoleName| Word::Me(Epoch(1));
    assert!(matches!(
        zone.find(&wire(&["node"]), code::A, me),
        Found::Records(..)
    ));
    assert!(matches!(
        zone.find(&wire(&["b", "node"]), code::A, me),
        Found::Records(..)
    ));
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
    assert_eq!(zone.ns.count, 5);
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
    assert_eq!(Zone::new(&settings, &view, &[role("main")]).ns.count, 4);
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
    assert_eq!(zone.ns.count, 13);
    let size = zone.ns.bytes.len() + zone.glue.bytes.len();
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
