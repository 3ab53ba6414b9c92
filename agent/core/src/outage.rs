//! Since when nobody has been active for a role, across attempts that failed, and what failed here last: for people. Nothing is
//! decided by it.
//!
//! Every node keeps the last instant at which it knew of somebody who was active, and says in its heartbeats how long ago that
//! is; so a node that was started meanwhile knows it too.

use crate::chronicle;
use crate::cluster::{Cluster, Queue};
use crate::role::RoleCore;
use baton_shared::clock::Mono;
use baton_shared::history::{list, stage, what};
use baton_shared::id::NodeName;
use baton_shared::view::{Event, RoleState};
use baton_shared::wire::{Condition, RoleBeat};
use std::time::Duration;

/// Bytes of what heartbeats say of a failure, or of why a node is unfit.
const WORDS: usize = 200;
/// And of all such words together, each taken twice: a heartbeat is one datagram, and one that is too large is not sent at all.
const ALL_WORDS: usize = 2400;
/// Another node's word of when somebody was last active counts if it is so much later than what is known here. Below that it is the
/// same instant and the time that the word was under way: handed on from node to node, that would add up.
const LATER: Duration = Duration::from_secs(1);

/// When somebody was last active, as far as this node knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outage {
    last: Option<Mono>,
    /// Who that was, if this node knows.
    who: Option<NodeName>,
    /// How it came to its end, and when that was put down: by who stepped forward next, or saw somebody do so.
    ended: Option<(String, Mono)>,
}

/// What failed here, and has not succeeded since.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What, and how, in public words.
    pub words: String,
    pub at: Mono,
    /// How often in a row.
    times: u32,
}

impl Outage {
    /// Somebody was active at `at`.
    fn active(&mut self, who: Option<NodeName>, at: Mono) {
        if self.last.is_none_or(|last| at > last) {
            (self.last, self.who) = (Some(at), who);
        }
    }

    /// A report of `from` came in at `now`.
    pub fn hear(&mut self, from: &NodeName, beat: &RoleBeat, now: Mono) {
        if beat.serving.is_some() {
            self.active(Some(from.clone()), now);
        } else if let Some(idle) = beat.condition.idle {
            let at = now - idle;
            if self.last.is_none_or(|last| at > last + LATER) {
                self.active(None, at);
            }
        }
    }

    /// When somebody was last active.
    pub fn last(&self) -> Option<Mono> {
        self.last
    }

    /// How the last who was active came to its end, if that was put down since.
    fn ended(&self) -> Option<&str> {
        let (words, at) = self.ended.as_ref()?;
        self.last.is_none_or(|last| last <= *at).then_some(words.as_str())
    }
}

/// Something that failed since anybody was active.
pub(crate) struct Attempt {
    pub node: NodeName,
    pub words: String,
    pub at: Mono,
}

impl RoleCore {
    /// While this node is active, that is the last instant; not after the end of its lease, if it slept past that.
    pub(crate) fn note_active(&mut self, c: &Cluster, now: Mono) {
        if let Some((_, until)) = self.guard.filter(|_| self.state == RoleState::Active) {
            self.outage.active(Some(c.me().clone()), now.min(until));
        }
    }

    /// What heartbeats say for people.
    pub(crate) fn condition(&self, c: &Cluster, now: Mono) -> Condition {
        let limit = WORDS.min(ALL_WORDS / c.config.roles.len().max(1));
        let short = |words: &str| words[..words.floor_char_boundary(limit)].to_owned();
        Condition {
            state: self.state,
            idle: self.outage.last.map(|last| now.since(last)),
            failed: self
                .failed
                .as_ref()
                .map(|failure| (short(&failure.words), now.since(failure.at))),
            unfit: self
                .unable(c, now)
                .or_else(|| self.refused(c))
                .filter(|why| {
                    let failed = self.failed.as_ref().map(|failure| &failure.words);
                    c.config.my_node().kind.may_act() && failed != Some(why)
                })
                .map(|why| short(&why)),
        }
    }

    /// Something failed here. It is an event the first time, then when it has failed twice as often as at the last: a node that
    /// fails for days must not fill the history.
    pub(crate) fn fails(&mut self, words: String, c: &Cluster, q: &mut Queue, now: Mono) {
        let same = self.failed.as_ref().filter(|before| before.words == words);
        let times = same.map_or(1, |before| before.times.saturating_add(1));
        if times.is_power_of_two() {
            let cause = match times {
                1 => words.clone(),
                _ => format!("{words} ({times} times in a row)"),
            };
            q.tell(self.own_event(what::FAILED, cause, c));
        }
        self.failed = Some(Failure {
            words,
            at: now,
            times,
        });
        q.dirty = true;
    }

    /// An event of this node in this role.
    pub(crate) fn own_event(&self, what: &str, cause: String, c: &Cluster) -> Event {
        Event {
            role: Some(self.name.clone()),
            ..chronicle::event(what, Some(c.me()), cause, c)
        }
    }

    /// What failed since anybody was active, on which node, the first first.
    pub(crate) fn attempts(&self, c: &Cluster) -> Vec<Attempt> {
        let since = self.outage.last.unwrap_or_default();
        let own = self.failed.iter().map(|failure| Attempt {
            node: c.me().clone(),
            words: failure.words.clone(),
            at: failure.at,
        });
        let theirs = c.peers.values().filter_map(|peer| {
            let (words, ago) = peer.beat(&self.name)?.condition.failed.clone()?;
            Some(Attempt {
                node: peer.name.clone(),
                words,
                at: peer.report.as_ref()?.came - ago,
            })
        });
        let mut all: Vec<Attempt> = own.chain(theirs).filter(|attempt| attempt.at > since).collect();
        all.sort_by_key(|attempt| attempt.at);
        all
    }

    /// Somebody steps forward after whoever was active last: from now on its end is told in these words, whoever else steps forward.
    pub(crate) fn note_end(&mut self, words: impl FnOnce(&RoleCore) -> String, now: Mono) {
        if self.outage.ended().is_none() {
            self.outage.ended = Some((words(self), now));
        }
    }

    /// How the last who was active came to its end, if attempts have failed since.
    pub(crate) fn end_before_attempts(&self) -> Option<&str> {
        self.outage.ended()
    }

    /// Who was active last.
    pub(crate) fn last_active(&self, c: &Cluster) -> Option<NodeName> {
        let recorded = || c.name_of(c.state.roles.get(&self.name)?.active?.owner.node);
        self.outage.who.clone().or_else(recorded)
    }

    /// The stages of a takeover from when anybody was last active, where `stages` begin later: a heartbeat or two do not matter.
    pub(crate) fn since_active(&self, stages: &mut Vec<(&'static str, Mono)>, c: &Cluster) {
        let Some(last) = self.outage.last else { return };
        if let Some(tried) = self.attempts(c).last() {
            stages.retain(|(_, at)| *at > tried.at);
            stages.push((stage::LAST_ACTIVE, last));
            stages.push((stage::ATTEMPTS, tried.at));
            return;
        }
        let gone = [stage::STEPPED_DOWN, stage::LAST_HEARD];
        let told = stages.iter().filter(|(name, _)| gone.contains(name));
        let told = told.map(|(_, at)| *at).min();
        if told.is_none_or(|told| last + c.timing.interval * 2 < told) {
            stages.push((stage::LAST_ACTIVE, last));
        }
    }
}

/// What failed, and where: `; promotion failed on b and c: exit status 3`. Empty if nothing did.
pub(crate) fn told(attempts: &[Attempt]) -> String {
    let mut words: Vec<(&str, Vec<&NodeName>)> = Vec::new();
    for attempt in attempts {
        match words.iter_mut().find(|(words, _)| *words == attempt.words) {
            Some((_, nodes)) => nodes.push(&attempt.node),
            None => words.push((&attempt.words, vec![&attempt.node])),
        }
    }
    let one = |(words, nodes): &(&str, Vec<&NodeName>)| match words.split_once(": ") {
        Some((what, how)) => format!("; {what} on {}: {how}", list(nodes)),
        None => format!("; {words} on {}", list(nodes)),
    };
    words.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn attempt(node: &str, words: &str) -> Attempt {
        Attempt {
            node: NodeName::new(node).unwrap(),
            words: words.into(),
            at: Mono(0),
        }
    }

    #[test]
    fn attempts_that_failed_alike_are_told_together() {
        let alike = "promotion failed: exit status 3";
        let all = [
            attempt("b", alike),
            attempt("a", "it would not"),
            attempt("c", alike),
        ];
        assert_eq!(
            told(&all),
            "; promotion failed on b and c: exit status 3; it would not on a"
        );
        assert_eq!(told(&[]), "");
    }

    #[test]
    fn the_newest_word_of_who_was_active_counts_and_an_end_belongs_to_one_outage() {
        let mut outage = Outage::default();
        let name = |n: &str| Some(NodeName::new(n).unwrap());
        outage.active(name("a"), Mono(1_000 * MS));
        outage.ended = Some(("a died".into(), Mono(1_500 * MS)));
        let says = |ms| RoleBeat {
            condition: Condition {
                idle: Some(Duration::from_millis(ms)),
                ..Condition::default()
            },
            ..crate::sim::idle_beat()
        };
        // The same instant, as others say: however often they do, it stays where it is.
        for heard in 0..1_000 {
            outage.hear(&name("b").unwrap(), &says(heard), Mono((1_050 + heard) * MS));
        }
        assert_eq!((outage.last, &outage.who), (Some(Mono(1_000 * MS)), &name("a")));
        assert_eq!(outage.ended(), Some("a died"));
        outage.hear(&name("b").unwrap(), &says(0), Mono(9_000 * MS));
        assert_eq!((outage.last, &outage.who), (Some(Mono(9_000 * MS)), &None));
        assert_eq!(outage.ended(), None);
    }
}
