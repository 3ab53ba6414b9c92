//! What is evidence that a node is cut off, and what is proof that another is not.

use super::ground::{Cut, Ground, Grounds, Seen};
use super::*;
use baton_shared::id::Boot;

const ME: usize = 0;

fn owner(n: usize) -> Owner {
    Owner {
        node: NodeId(n as u64 + 1),
        boot: Boot(1),
    }
}

fn name(n: usize) -> NodeName {
    NodeName::new(["a", "b", "c", "d", "e"][n]).unwrap()
}

/// So many nodes that all have a carrier and hear each other.
fn well(nodes: usize) -> Ground {
    let all = (1 << nodes) - 1;
    let seen = |n: usize| Seen {
        owner: owner(n),
        name: name(n),
        side: Side {
            carrier: Some(true),
            gateway: None,
        },
        lately: all & !(1 << n),
        missed: 0,
    };
    Ground {
        network: 0,
        nodes: (0..nodes).map(seen).collect(),
    }
}

impl Ground {
    /// What `from` sends does not reach `to`, for long.
    fn deafen(mut self, from: usize, to: usize) -> Ground {
        self.nodes[to].lately &= !(1 << from);
        self.nodes[to].missed |= 1 << from;
        self
    }

    /// Nothing that it sends reaches anybody; or nothing reaches it.
    fn mute(self, n: usize) -> Ground {
        let others = (0..self.nodes.len()).filter(|m| *m != n).collect::<Vec<_>>();
        others.into_iter().fold(self, |ground, m| ground.deafen(n, m))
    }

    fn deaf(self, n: usize) -> Ground {
        let others = (0..self.nodes.len()).filter(|m| *m != n).collect::<Vec<_>>();
        others.into_iter().fold(self, |ground, m| ground.deafen(m, n))
    }

    fn carrier(mut self, n: usize, carrier: Option<bool>) -> Ground {
        self.nodes[n].side.carrier = carrier;
        self
    }

    fn gateway(mut self, n: usize, gateway: Option<bool>) -> Ground {
        self.nodes[n].side.gateway = gateway;
        self
    }
}

fn heirs(ground: &Ground) -> Vec<usize> {
    (1..ground.nodes.len())
        .filter(|n| ground.proves(*n, owner(ME)))
        .collect()
}

#[test]
fn holder_is_cut_off_by_its_carrier_its_gateway_or_the_word_of_two_that_hear_each_other() {
    let pair = |cut: fn(NodeName, NodeName) -> Cut, one, other| Some(cut(name(one), name(other)));
    let gateway = |ground: Ground, me, b| ground.gateway(ME, me).gateway(1, b);
    for (what, ground, cut) in [
        ("all is well", well(3), None),
        ("no carrier", well(3).carrier(ME, Some(false)), Some(Cut::Carrier)),
        (
            "no carrier, of two",
            well(2).carrier(ME, Some(false)),
            Some(Cut::Carrier),
        ),
        ("its carrier cannot be seen", well(3).carrier(ME, None), None),
        ("silent", well(3).mute(ME).deaf(ME), pair(Cut::Mute, 1, 2)),
        ("heard by nobody", well(3).mute(ME), pair(Cut::Mute, 1, 2)),
        ("it hears nobody", well(3).deaf(ME), pair(Cut::Deaf, 1, 2)),
        ("missed by one of two", well(3).deafen(ME, 1), None),
        ("one cannot vouch", well(2).mute(ME).deaf(ME), None),
        (
            "the two do not hear each other",
            well(3).mute(ME).deaf(ME).deafen(1, 2),
            None,
        ),
        (
            "the network is gone",
            well(3).mute(ME).deaf(ME).mute(1).mute(2),
            None,
        ),
        (
            "in two halves",
            well(4).deafen(ME, 1).deafen(ME, 2).deafen(1, ME).deafen(2, ME),
            None,
        ),
        (
            "silent, and one of three others is too",
            well(4).mute(ME).deaf(ME).mute(3).deaf(3),
            pair(Cut::Mute, 1, 2),
        ),
        (
            "the gateway answers another",
            gateway(well(2), Some(false), Some(true)),
            Some(Cut::Gateway(name(1))),
        ),
        (
            "the gateway answers it, whatever the others hear",
            gateway(well(3).mute(ME).deaf(ME), Some(true), Some(true)),
            None,
        ),
        (
            "the gateway answers nobody",
            gateway(well(3), Some(false), Some(false)),
            None,
        ),
        ("nobody else can tell", gateway(well(3), Some(false), None), None),
        ("it cannot tell itself", gateway(well(3), None, Some(true)), None),
    ] {
        assert_eq!(ground.cut(ME), cut, "{what}");
    }
}

#[test]
fn heir_proves_that_it_has_the_network_by_its_carrier_and_somebody_else_than_the_holder_or_the_gateway() {
    let silent = |nodes| well(nodes).mute(ME).deaf(ME);
    for (what, ground, expected) in [
        ("b and c hear each other", silent(3), vec![1, 2]),
        ("b has no carrier", silent(4).carrier(1, Some(false)), vec![2, 3]),
        ("b's carrier cannot be seen", silent(3).carrier(1, None), vec![2]),
        ("b is heard by nobody", silent(4).mute(1), vec![2, 3]),
        (
            "whoever hears b has lost its carrier",
            silent(3).carrier(2, Some(false)),
            vec![],
        ),
        ("b hears nobody", silent(4).deaf(1), vec![2, 3]),
        ("the holder alone vouches", well(2), vec![]),
        ("the gateway vouches", well(2).gateway(1, Some(true)), vec![1]),
        (
            "the gateway answers others, not b",
            silent(4).gateway(1, Some(false)).gateway(2, Some(true)),
            vec![2, 3],
        ),
        ("all are cut off", silent(3).mute(1).deaf(1), vec![]),
    ] {
        assert_eq!(heirs(&ground), expected, "{what}");
    }
}

#[test]
fn of_several_networks_the_heir_needs_those_that_the_holder_lost_and_lacks_none() {
    let on = |network, ground: Ground| Ground { network, ..ground };
    let at = |ground: Ground, other: Ground| Grounds(vec![on(0, ground), on(2, other)]);
    let lost = |grounds: &Grounds| grounds.lost(owner(ME), |_| true);
    let silent = || well(4).mute(ME).deaf(ME);
    let grounds = at(silent(), well(4).carrier(1, Some(false)));
    assert_eq!(lost(&grounds), [0]);
    let heirs = |grounds: &Grounds| -> Vec<usize> {
        let lost = lost(grounds);
        (1..4)
            .filter(|n| grounds.has(owner(*n), &lost, owner(ME)))
            .collect()
    };
    assert_eq!(heirs(&grounds), [2, 3], "b is cut off from the other");
    let grounds = at(silent(), silent().mute(2).deaf(2));
    assert_eq!((lost(&grounds), heirs(&grounds)), (vec![0, 2], vec![1, 3]));
    let mut grounds = at(silent(), well(4));
    grounds.0[0].nodes.pop();
    assert_eq!(heirs(&grounds), [1, 2], "the last has no address there");
}

#[test]
fn carrier_that_is_lost_counts_after_a_while_and_other_evidence_at_once() {
    let unplugged = Grounds(vec![well(3).carrier(ME, Some(false))]);
    assert!(unplugged.is_cut(owner(ME)));
    assert_eq!(unplugged.lost(owner(ME), |_| false), [0usize; 0]);
    assert_eq!(unplugged.lost(owner(ME), |_| true), [0]);
    let silent = Grounds(vec![well(3).mute(ME)]);
    assert_eq!(silent.lost(owner(ME), |_| false), [0]);
}
