//! Who does not hear whom on each network, in words: for the history. Pure; nothing is decided by it.

use crate::cluster::Cluster;
use crate::peer::Peer;
use baton_shared::clock::Mono;
use baton_shared::history::list;
use baton_shared::id::{NodeId, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// Sentences about one network at most.
const MAX_PHRASES: usize = 4;

/// A hearer, and whom it does not hear.
pub(crate) type Deaf = BTreeSet<(NodeName, NodeName)>;

/// The pairs of nodes that are up of which one does not hear the other on a network, and how many nodes could; as far as heard from
/// those that this node hears.
pub(crate) fn deaf(network: usize, c: &Cluster, now: Mono) -> (Deaf, usize) {
    let bit = 1 << network;
    let there = |name: &NodeName| {
        let node = c.config.nodes.get(name);
        node.is_some_and(|node| node.addresses.get(network).is_some_and(Option::is_some))
    };
    let votes = |name: &NodeName| c.config.nodes.get(name).is_some_and(|node| node.kind.votes());
    // Whom each of those that can be asked hears there.
    let mut hears: BTreeMap<NodeName, BTreeSet<NodeName>> = BTreeMap::new();
    let mine = c
        .peers
        .values()
        .filter(|peer| peer.heard_on(&c.timing_of(peer), now) & bit != 0);
    hears.insert(c.me().clone(), mine.map(|peer| peer.name.clone()).collect());
    for (peer, report) in c
        .peers
        .values()
        .filter_map(|p| Some((p, p.fresh(&c.timing, now)?)))
    {
        let bits = report.heartbeat.hears.iter();
        let heard = bits.filter(|(_, networks)| networks & bit != 0);
        let heard = heard.filter_map(|(id, _)| c.name_of(*id)).collect();
        hears.insert(peer.name.clone(), heard);
    }
    let up: BTreeSet<NodeName> = c
        .peers
        .values()
        .filter(|peer| !c.dead.contains(&peer.owner()) && is_heard(peer, c, now))
        .map(|peer| peer.name.clone())
        .chain([c.me().clone()])
        .filter(|name| there(name))
        .collect();
    let mut deaf = Deaf::new();
    for (hearer, heard) in hears.iter().filter(|(hearer, _)| up.contains(*hearer)) {
        let speakers = up.iter().filter(|name| *name != hearer && !heard.contains(*name));
        // Nodes without a vote leave each other alone.
        let speakers = speakers.filter(|name| votes(name) || votes(hearer));
        deaf.extend(speakers.map(|name| (hearer.clone(), name.clone())));
    }
    (deaf, up.len())
}

/// Whether this node, or one that it hears, hears the peer on any network.
pub(crate) fn is_heard(peer: &Peer, c: &Cluster, now: Mono) -> bool {
    peer.heard(&c.timing_of(peer), now) || by_others(peer.id, c, now)
}

fn by_others(id: NodeId, c: &Cluster, now: Mono) -> bool {
    let mut reports = c.peers.values().filter_map(|peer| peer.fresh(&c.timing, now));
    id != NodeId(0)
        && reports.any(|report| {
            let mut hears = report.heartbeat.hears.iter();
            hears.any(|(heard, networks)| *heard == id && *networks != 0)
        })
}

/// `a and b do not hear each other; c does not hear a`; empty if all `nodes` hear each other.
pub(crate) fn words(deaf: &Deaf, nodes: usize) -> String {
    let both = |one: &NodeName, other: &NodeName| {
        let pair = |a: &NodeName, b: &NodeName| deaf.contains(&(a.clone(), b.clone()));
        pair(one, other) && pair(other, one)
    };
    let names: BTreeSet<&NodeName> = deaf.iter().flat_map(|(a, b)| [a, b]).collect();
    if nodes > 2 && deaf.len() == nodes * (nodes - 1) {
        return "nobody hears anybody".into();
    }
    // Whoever has lost all the others is named alone.
    let lost =
        |name: &&NodeName| nodes > 2 && names.iter().filter(|other| both(name, other)).count() == nodes - 1;
    let cut_off: Vec<&NodeName> = names.iter().copied().filter(lost).collect();
    let rest = |(a, b): &&(NodeName, NodeName)| !cut_off.contains(&a) && !cut_off.contains(&b);
    let mut phrases: Vec<String> = Vec::new();
    if !cut_off.is_empty() {
        let is = if cut_off.len() == 1 { "is" } else { "are" };
        phrases.push(format!("{} {is} cut off", list(&cut_off)));
    }
    for (one, other) in deaf.iter().filter(rest) {
        if !both(one, other) {
            phrases.push(format!("{one} does not hear {other}"));
        } else if one < other {
            phrases.push(format!("{one} and {other} do not hear each other"));
        }
    }
    if phrases.len() > MAX_PHRASES {
        let more = phrases.len() - MAX_PHRASES + 1;
        phrases.truncate(MAX_PHRASES - 1);
        phrases.push(format!("and so on for {more} more"));
    }
    phrases.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaf(pairs: &[&str]) -> Deaf {
        let name = |c: char| NodeName::new(&c.to_string()).unwrap();
        let pair = |pair: &&str| {
            let mut both = pair.chars().map(name);
            (both.next().unwrap(), both.next().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn directions_pairs_and_nodes_that_lost_everybody_are_told_apart() {
        for (pairs, nodes, told) in [
            (&[][..], 3, ""),
            (&["ab"][..], 3, "a does not hear b"),
            (&["ab", "ba"][..], 3, "a and b do not hear each other"),
            (&["ab", "ba"][..], 2, "a and b do not hear each other"),
            (&["ba", "ca"][..], 3, "b does not hear a; c does not hear a"),
            (&["ab", "ba", "ac", "ca"][..], 3, "a is cut off"),
            (
                &["ab", "ba", "ac", "ca", "bc"][..],
                3,
                "a is cut off; b does not hear c",
            ),
            (
                &["ab", "ba", "ac", "ca", "bc", "cb"][..],
                3,
                "nobody hears anybody",
            ),
        ] {
            assert_eq!(words(&deaf(pairs), nodes), told, "{pairs:?}");
        }
        let many = words(&deaf(&["ab", "ac", "ad", "ae", "bc", "bd"]), 5);
        assert_eq!(
            many,
            "a does not hear b; a does not hear c; a does not hear d; and so on for 3 more"
        );
    }
}
