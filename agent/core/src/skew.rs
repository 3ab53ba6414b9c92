//! Whose wall clock is off: for people. Leases do not depend on it.

use crate::alarm::About;
use crate::cluster::{Cluster, Queue};
use baton_shared::clock::Mono;
use baton_shared::history::duration;
use baton_shared::id::NodeName;
use baton_shared::view::PeerState;
use std::time::Duration;

/// Wall clocks further apart are an alarm.
const MAX_MS: i64 = 60_000;

impl Cluster {
    /// An alarm for each clock that is off.
    pub fn note_clocks(&mut self, q: &mut Queue, now: Mono) {
        let up = self.peers.values();
        let up = up.filter(|peer| peer.state(&self.timing_of(peer), now) == PeerState::Up);
        let skews: Vec<(NodeName, i64)> = up.map(|peer| (peer.name.clone(), peer.skew_ms)).collect();
        for (whose, skew_ms) in off(&skews) {
            self.alarms
                .seen(About::Clock(whose.cloned()), q, now, || words(whose, skew_ms));
        }
    }
}

/// Those whose clock is off, and by how much, of what each is ahead of this node's. `None` is this node: all others agree with each other.
fn off(skews: &[(NodeName, i64)]) -> Vec<(Option<&NodeName>, i64)> {
    let is_off = |skew_ms: i64| skew_ms.abs() > MAX_MS;
    let all = || skews.iter().map(|(_, skew_ms)| *skew_ms);
    if let (Some(least), Some(most)) = (all().min(), all().max())
        && skews.len() > 1
        && all().all(is_off)
        && most - least <= MAX_MS
    {
        return vec![(None, -least)];
    }
    let off = skews.iter().filter(|(_, skew_ms)| is_off(*skew_ms));
    off.map(|(name, skew_ms)| (Some(name), *skew_ms)).collect()
}

fn words(whose: Option<&NodeName>, skew_ms: i64) -> String {
    let way = if skew_ms > 0 { "ahead of" } else { "behind" };
    let by = duration(Duration::from_millis(skew_ms.unsigned_abs()));
    match whose {
        None => format!("the wall clock of this node is {by} {way} all others: set it"),
        Some(name) => format!("the wall clock of {name} is {by} {way} this node's: set it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(skews: &[(&str, i64)]) -> Vec<String> {
        let named = skews.iter().map(|(name, ms)| (NodeName::new(name).unwrap(), *ms));
        let named: Vec<_> = named.collect();
        let off = off(&named).into_iter();
        off.map(|(whose, ms)| words(whose, ms)).collect()
    }

    #[test]
    fn the_clock_that_is_off_is_the_one_that_is_alone() {
        const HOURS: i64 = 3 * 3_600_000;
        let none: [String; 0] = [];
        assert_eq!(told(&[]), none);
        assert_eq!(told(&[("b", 59_000), ("c", -59_000)]), none);
        let theirs = "the wall clock of c is 3 h 0 min ahead of this node's: set it";
        assert_eq!(told(&[("b", 3), ("c", HOURS)]), [theirs]);
        let own = "the wall clock of this node is 3 h 0 min ahead of all others: set it";
        assert_eq!(told(&[("a", -HOURS), ("b", 5 - HOURS)]), [own]);
        // Of two it cannot be told whose it is.
        let other = "the wall clock of a is 3 h 0 min behind this node's: set it";
        assert_eq!(told(&[("a", -HOURS)]), [other]);
        assert_eq!(told(&[("a", -HOURS), ("b", HOURS)]).len(), 2);
    }
}
