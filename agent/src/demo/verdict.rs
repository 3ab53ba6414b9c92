//! The judge of what pollers wrote down: was anybody active at the same instant as somebody else (S1), did epochs grow
//! (S2), and how long was nobody there for a client?
//!
//! A 200 says that its node was active at some instant between the sending of the question and the receipt of the
//! answer; the judge assumes no more. A [`Span`] is all that one node said at one epoch. Its node was active at an
//! instant no later than the receipt of the first answer, and at one no earlier than the sending of the last. If it was
//! not active all the time between these two, then it was active twice at one epoch, and whoever was active in between
//! had a smaller or an equal one before or after: a breach of S2 instead of S1. Either way two spans that cannot be put
//! one after the other are a breach, and two that can be are none.

use super::poller::{Health, Record};
use baton_shared::clock::Mono;
use baton_shared::id::Epoch;
use std::fmt;
use std::time::Duration;

/// All 200 answers of one node at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which node.
    pub node: String,
    /// At which epoch; 0 if it named none.
    pub epoch: Epoch,
    /// The first answer was asked for at.
    pub first_sent: Mono,
    /// The first answer came at.
    pub first_received: Mono,
    /// The last answer was asked for at.
    pub last_sent: Mono,
    /// The last answer came at.
    pub last_received: Mono,
}

impl Span {
    /// Whether this node may have stopped being active before the other began.
    fn may_precede(&self, other: &Span) -> bool {
        self.last_sent < other.first_received
    }
}

/// What must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Two nodes were active at one instant.
    Overlap {
        /// One.
        one: Span,
        /// The other.
        other: Span,
        /// For at least so long.
        at_least: Duration,
    },
    /// A later holder had no greater epoch.
    Epoch {
        /// Who was active before.
        before: Span,
        /// Who was active after.
        after: Span,
    },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Breach::Overlap { one, other, at_least } => write!(
                f,
                "{} (epoch {}) and {} (epoch {}) were active at once for at least {at_least:?}",
                one.node, one.epoch, other.node, other.epoch
            ),
            Breach::Epoch { before, after } => write!(
                f,
                "{} became active at epoch {} after {} at epoch {}",
                after.node, after.epoch, before.node, before.epoch
            ),
        }
    }
}

/// What the answers of one node say, by epoch, in the order of their beginning.
pub fn spans(node: &str, records: &[Record<Health>]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for record in records {
        let Some(Health { status: 200, epoch }) = record.heard else {
            continue;
        };
        let epoch = epoch.unwrap_or_default();
        match spans.iter_mut().find(|span| span.epoch == epoch) {
            Some(span) => {
                span.first_received = span.first_received.min(record.received);
                span.last_sent = span.last_sent.max(record.sent);
                span.last_received = span.last_received.max(record.received);
            }
            None => spans.push(Span {
                node: node.to_owned(),
                epoch,
                first_sent: record.sent,
                first_received: record.received,
                last_sent: record.sent,
                last_received: record.received,
            }),
        }
    }
    spans
}

/// Every proven breach among the spans of all nodes.
pub fn breaches(spans: &[Span]) -> Vec<Breach> {
    let mut found = Vec::new();
    for (index, one) in spans.iter().enumerate() {
        for other in &spans[index + 1..] {
            found.extend(breach(one, other));
        }
    }
    found
}

fn breach(one: &Span, other: &Span) -> Option<Breach> {
    if one.node == other.node && one.epoch == other.epoch {
        return None; // seen by two pollers
    }
    match (one.may_precede(other), other.may_precede(one)) {
        (true, true) => None,
        // A holder that is given a greater epoch renews (DESIGN §5): its own spans may touch.
        (false, false) if one.node == other.node => None,
        (false, false) => Some(Breach::Overlap {
            one: one.clone(),
            other: other.clone(),
            at_least: one
                .last_sent
                .min(other.last_sent)
                .since(one.first_received.max(other.first_received)),
        }),
        (true, false) => (one.epoch >= other.epoch).then(|| Breach::Epoch {
            before: one.clone(),
            after: other.clone(),
        }),
        (false, true) => (other.epoch >= one.epoch).then(|| Breach::Epoch {
            before: other.clone(),
            after: one.clone(),
        }),
    }
}

/// The longest time, among everything received from `since` on, in which no poller of `logs` received a 200. It begins
/// with the last 200 before `since`; `None` if there was none before or none after.
pub fn outage(logs: &[Vec<Record<Health>>], since: Mono) -> Option<Duration> {
    let mut good: Vec<Mono> = logs
        .iter()
        .flatten()
        .filter(|record| record.heard.is_some_and(|health| health.status == 200))
        .map(|record| record.received)
        .collect();
    good.sort_unstable();
    let after = good.partition_point(|at| *at < since);
    if after == 0 || after == good.len() {
        return None;
    }
    good[after - 1..]
        .windows(2)
        .map(|pair| pair[1].since(pair[0]))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sent: u64, received: u64, status: u16, epoch: u64) -> Record<Health> {
        Record {
            sent: Mono(sent),
            received: Mono(received),
            heard: Some(Health {
                status,
                epoch: (status == 200).then_some(Epoch(epoch)),
            }),
        }
    }

    fn judge(a: &[Record<Health>], b: &[Record<Health>]) -> Vec<Breach> {
        let mut all = spans("a", a);
        all.extend(spans("b", b));
        breaches(&all)
    }

    #[test]
    fn one_after_the_other_is_no_breach() {
        let a = [said(0, 1, 200, 7), said(10, 11, 200, 7), said(20, 21, 503, 0)];
        let b = [said(5, 6, 503, 0), said(15, 16, 200, 8), said(25, 26, 200, 8)];
        assert_eq!(judge(&a, &b), []);
        assert_eq!(
            outage(&[a.to_vec(), b.to_vec()], Mono(12)),
            Some(Duration::from_nanos(10))
        );
        assert_eq!(outage(&[a.to_vec()], Mono(12)), None);
    }

    #[test]
    fn answers_that_only_may_have_overlapped_prove_nothing() {
        // Both were asked for during the whole change; one may have been true early, the other late.
        assert_eq!(judge(&[said(0, 100, 200, 7)], &[said(0, 100, 200, 8)]), []);
    }

    #[test]
    fn two_at_once_are_found_even_by_one_answer_inside() {
        let a = [said(0, 1, 200, 7), said(50, 51, 200, 7)];
        let found = judge(&a, &[said(20, 22, 200, 8)]);
        assert!(matches!(found[..], [Breach::Overlap { .. }]), "{found:?}");
        let found = judge(&a, &[said(20, 22, 200, 8), said(60, 61, 200, 8)]);
        let [Breach::Overlap { at_least, .. }] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(*at_least, Duration::from_nanos(28));
    }

    #[test]
    fn an_epoch_that_does_not_grow_is_found() {
        for (first, second) in [(8, 7), (7, 7)] {
            let found = judge(&[said(0, 1, 200, first)], &[said(5, 6, 200, second)]);
            assert!(matches!(found[..], [Breach::Epoch { .. }]), "{found:?}");
        }
    }

    #[test]
    fn a_renewal_at_a_greater_epoch_is_no_breach_but_a_return_to_an_old_one_is() {
        assert_eq!(judge(&[said(0, 1, 200, 7), said(2, 3, 200, 9)], &[]), []);
        let a = [said(0, 1, 200, 7), said(20, 21, 200, 7)];
        assert_eq!(judge(&a, &[said(5, 6, 200, 8)]).len(), 1);
    }
}
