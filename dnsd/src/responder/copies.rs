//! Copies of the zone, and the serial that they go under.

use super::*;
use crate::testing::*;
use baton_shared::config::{Dns, Transfer};
use baton_shared::id::{Epoch, NodeId};
use baton_shared::view::HolderView;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECONDARY: &str = "10.0.0.53";

fn responder(published: &Arc<Published>) -> Responder {
    let dns = Dns {
        transfer: Some(Transfer {
            allow: vec![SECONDARY.parse().unwrap()],
            key: None,
            notify: Vec::new(),
        }),
        ..dns(&[])
    };
    let settings = Settings::new(&dns).unwrap();
    let transfers = Some(Transfers::new(&dns));
    let policy = Policy::new(&dns, &published.view.load().me, &SECRET);
    let counters = Arc::default();
    Responder::new(settings, policy, None, transfers, published.clone(), counters)
}

/// The records of a copy, if there is one.
fn copy_of(responder: &Responder) -> Option<Vec<Record>> {
    let transfers = responder.transfers.as_ref().unwrap();
    let query = question(ZONE, qtype::AXFR);
    let messages = responder.transfer(transfers, &query, SECONDARY.parse().unwrap(), Via::Tcp);
    let [message] = &messages[..] else {
        panic!("{} messages", messages.len());
    };
    match read(message) {
        Message { answers, .. } if !answers.is_empty() => Some(answers),
        refused => {
            assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
            None
        }
    }
}

fn serial_of(records: &[Record]) -> u32 {
    match &records[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other:?}"),
    }
}

fn soa_code(responder: &Responder) -> u8 {
    let mut out = [0; 1232];
    let mut sitting = responder.sitting();
    sitting.respond(&question(ZONE, qtype::SOA), CLIENT.into(), Via::Udp, &mut out);
    out[3] & 0x0f
}

/// The log has, as its next entry, what this view shows.
fn agree(view: &mut View) {
    view.serial += 1;
    view.applied += 1;
    let words = published(view.clone()).words(view, Mono::now());
    view.copy.digest = copy::digest(view, &words);
}

#[test]
fn role_that_nobody_holds_any_more_keeps_no_copy_back() {
    let mut view = view();
    holder(&mut view, "main", "b");
    view.roles[0].last = Some(node("c"));
    agree(&mut view);
    let published = published(view.clone());
    let responder = responder(&published);
    let before = copy_of(&responder).expect("batch was active once, and is not: that is a state like others");
    assert_eq!(soa_code(&responder), 0);
    // It takes over; until the log has that, what is said belongs to no serial.
    view.serial += 1;
    view.applied += 1;
    holder(&mut view, "main", "c");
    published.view.store(Arc::new(view.clone()));
    assert_eq!(copy_of(&responder), None);
    assert_eq!(soa_code(&responder), 2);
    agree(&mut view);
    published.view.store(Arc::new(view));
    let after = copy_of(&responder).expect("the log has it");
    assert!(serial_of(&after) > serial_of(&before));
    assert_ne!(before[1..], after[1..]);
}

#[test]
fn secondary_is_given_no_leave_to_go_on_by_a_node_that_lost_touch() {
    let mut view = view();
    holder(&mut view, "main", "b");
    agree(&mut view);
    let published = published(view.clone());
    let responder = responder(&published);
    assert_eq!(soa_code(&responder), 0);
    let at = Mono::now();
    view.serial += 1;
    view.in_touch_until = at;
    view.roles[1].holder.as_mut().unwrap().fresh_until = at;
    published.view.store(Arc::new(view));
    assert_eq!(soa_code(&responder), 2, "its refresh must not succeed");
    assert_eq!(copy_of(&responder), None);
}

#[test]
fn address_that_changed_is_copied_under_a_new_serial_or_not_at_all() {
    let mut view = view();
    holder(&mut view, "main", "b");
    agree(&mut view);
    let published = published(view.clone());
    let responder = responder(&published);
    let before = copy_of(&responder).unwrap();
    view.serial += 1;
    view.nodes[1].serves = vec!["10.0.0.22".parse().unwrap()];
    published.view.store(Arc::new(view.clone()));
    assert_eq!(copy_of(&responder), None);
    agree(&mut view);
    published.view.store(Arc::new(view));
    let after = copy_of(&responder).unwrap();
    assert!(serial_of(&after) > serial_of(&before));
    assert!(addresses(&after).contains(&"10.0.0.22".to_owned()));
}

/// What happens in a cluster of three whose nodes hear, resolve and apply each in its own time.
#[derive(Clone, Debug)]
enum Step {
    /// A node becomes active for a role, or nobody is. The log's next entry records a takeover.
    Active(usize, Option<usize>),
    Moves(usize, u8),
    Hears(usize),
    Resolves(usize),
    Applies(usize),
    /// The log has what this node sees.
    Agrees(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..3usize;
    prop_oneof![
        2 => (0..2usize, proptest::option::weighted(0.7, n())).prop_map(|(r, n)| Step::Active(r, n)),
        1 => (n(), 1..4u8).prop_map(|(n, ip)| Step::Moves(n, ip)),
        3 => n().prop_map(Step::Hears),
        2 => n().prop_map(Step::Resolves),
        4 => n().prop_map(Step::Applies),
        3 => n().prop_map(Step::Agrees),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_serial_ever_belongs_to_two_contents(steps in proptest::collection::vec(step(), 1..60)) {
        let mut truth = view();
        truth.nodes.truncate(3);
        let nodes: Vec<Arc<Published>> = ["a", "b", "c"]
            .map(|me| published(View { me: node(me), ..truth.clone() }))
            .to_vec();
        let responders: Vec<Responder> = nodes.iter().map(responder).collect();
        let mut contents: BTreeMap<u32, Vec<Record>> = BTreeMap::new();
        let mut epoch = 1_780_000_000_000;
        for step in steps {
            let change = |n: usize, change: &dyn Fn(&mut View)| {
                let mut view = View::clone(&nodes[n].view.load());
                view.serial += 1;
                change(&mut view);
                nodes[n].view.store(Arc::new(view));
            };
            match step {
                Step::Active(role, who) => {
                    epoch += 700;
                    truth.roles[role].holder = who.map(|who| HolderView {
                        node: truth.nodes[who].name.clone(),
                        id: NodeId(1),
                        epoch: Epoch(epoch),
                        serving: true,
                        fresh_until: IN_TOUCH_UNTIL,
                    });
                    truth.applied += u64::from(who.is_some());
                    truth.copy.greatest = Epoch(epoch);
                }
                Step::Moves(n, ip) => truth.nodes[n].serves = vec![[10, 9, n as u8, ip].into()],
                Step::Hears(n) => change(n, &|view| {
                    for (role, is) in view.roles.iter_mut().zip(&truth.roles) {
                        role.holder = is.holder.clone();
                    }
                    let me = view.me.clone();
                    for (role, guard) in view.roles.iter_mut().zip(nodes[n].guards.values()) {
                        // Of itself a node knows by its guard.
                        let own = role.holder.take_if(|holder| holder.node == me);
                        match own {
                            Some(own) => guard.open(own.epoch, IN_TOUCH_UNTIL),
                            None => guard.shut(),
                        }
                    }
                }),
                Step::Resolves(n) => change(n, &|view| {
                    for (node, is) in view.nodes.iter_mut().zip(&truth.nodes) {
                        node.serves = is.serves.clone();
                    }
                }),
                Step::Applies(n) => change(n, &|view| {
                    (view.applied, view.copy) = (truth.applied, truth.copy);
                }),
                Step::Agrees(n) => {
                    let view = nodes[n].view.load();
                    truth.applied += 1;
                    truth.copy.digest = copy::digest(&view, &nodes[n].words(&view, Mono::now()));
                }
            }
            for responder in &responders {
                if let Some(records) = copy_of(responder) {
                    let known = contents.entry(serial_of(&records)).or_insert_with(|| records.clone());
                    prop_assert_eq!(&*known, &records);
                }
            }
        }
    }
}
