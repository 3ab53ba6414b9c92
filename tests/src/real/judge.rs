//! The judge: no process of an application acted after another node's application had begun to, nor after another node was active.
//!
//! It takes nothing but instants that are sure: the start of a record is one at which its process acted at the latest, and so is its
//! end at the earliest; a node was active no later than when its first 200 had come.

use crate::application::Acts;
use baton_agent::demo::verdict::Span;
use baton_shared::clock::Mono;
use std::fmt;
use std::time::Duration;

/// What must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// From when on.
    pub at: Mono,
    /// For at least so long.
    pub by: Duration,
    /// Which process of whom acted how long after whom.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Everything that the records prove, the worst first.
pub fn judge(acts: &[Acts], spans: &[Span]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut ordered: Vec<&Acts> = acts.iter().collect();
    ordered.sort_by_key(|acts| acts.name.started);
    for (place, later) in ordered.iter().enumerate() {
        let before = ordered[..place].iter().filter(|earlier| outlived(earlier, later));
        found.extend(before.map(|earlier| beside_application(earlier, later)));
    }
    let spans = merged(spans);
    for acts in &ordered {
        let beside = spans.iter().filter(|span| {
            span.node != acts.name.node
                && acts.last > span.first_received
                && acts.name.started < span.last_sent
        });
        found.extend(beside.map(|span| beside_active(acts, span)));
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.by));
    found
}

/// What several pollers heard of one node at one epoch, as one.
fn merged(spans: &[Span]) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::new();
    for span in spans {
        match all
            .iter_mut()
            .find(|known| known.node == span.node && known.epoch == span.epoch)
        {
            Some(known) => {
                known.first_received = known.first_received.min(span.first_received);
                known.last_sent = known.last_sent.max(span.last_sent);
            }
            None => all.push(span.clone()),
        }
    }
    all
}

/// Panics with what the judge says, and the whole record.
#[track_caller]
pub fn assert_none(found: &[Finding], acts: &[Acts]) {
    let said: Vec<String> = found.iter().take(20).map(Finding::to_string).collect();
    let all: String = acts.iter().map(|acts| format!("  {acts}\n")).collect();
    assert!(
        found.is_empty(),
        "{} findings, the worst first:\n{}\nall that acted:\n{all}",
        found.len(),
        said.join("\n")
    );
}

/// Whether one application went on although another one of its role had begun.
fn outlived(earlier: &Acts, later: &Acts) -> bool {
    earlier.name.role == later.name.role
        && earlier.name.group != later.name.group
        && earlier.last >= later.name.started
}

fn beside_application(earlier: &Acts, later: &Acts) -> Finding {
    let at = later.name.started;
    let by = earlier.last.min(later.last).since(at);
    Finding {
        at,
        by,
        text: format!(
            "{} acted until {:?}, {:?} after {} had begun to at {at:?}: at once for {by:?} or more",
            whose(earlier),
            earlier.last,
            earlier.last.since(at),
            whose(later),
        ),
    }
}

fn beside_active(acts: &Acts, span: &Span) -> Finding {
    let at = span.first_received.max(acts.name.started);
    let by = acts.last.min(span.last_sent).since(at);
    Finding {
        at,
        by,
        text: format!(
            "{} acted until {:?}, {:?} after /health of {} had said 200 (epoch {}) at {:?}: beside it for {by:?} or more",
            whose(acts),
            acts.last,
            acts.last.since(span.first_received),
            span.node,
            span.epoch,
            span.first_received,
        ),
    }
}

fn whose(acts: &Acts) -> String {
    let name = &acts.name;
    let mut text = format!("process {} of {}", acts.by, name.node);
    if !name.epoch.is_empty() {
        text += &format!(" (epoch {}, application {})", name.epoch, name.group);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::Name;
    use baton_shared::id::Epoch;

    fn acts(node: &str, group: &str, started: u64, last: u64) -> Acts {
        let name = Name {
            role: "main".into(),
            node: node.into(),
            epoch: "7".into(),
            id: 1,
            started: Mono(started),
            group: group.into(),
        };
        Acts {
            name,
            last: Mono(last),
            by: 12,
        }
    }

    fn span(node: &str, from: u64, to: u64) -> Span {
        Span {
            node: node.into(),
            epoch: Epoch(from),
            first_sent: Mono(from - 1),
            first_received: Mono(from),
            last_sent: Mono(to),
            last_received: Mono(to + 1),
        }
    }

    #[test]
    fn one_process_of_many_that_outlives_its_application_is_named() {
        let all = [
            acts("a", "1", 10, 20),
            acts("a", "1", 12, 45),
            acts("b", "2", 30, 90),
        ];
        let found = judge(&all, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].at, found[0].by), (Mono(30), Duration::from_nanos(15)));
        assert!(found[0].text.contains("process 12 of a"), "{}", found[0]);
    }

    #[test]
    fn acting_beside_an_active_node_is_found_though_its_application_says_nothing() {
        let all = [acts("a", "1", 10, 45)];
        assert_eq!(judge(&all, &[span("b", 30, 90)]).len(), 1);
        assert!(judge(&all, &[span("b", 46, 90), span("a", 11, 40)]).is_empty());
    }

    #[test]
    fn one_after_the_other_is_right_and_so_is_one_that_came_back() {
        let all = [
            acts("a", "1", 10, 20),
            acts("b", "2", 21, 30),
            acts("a", "3", 31, 40),
        ];
        let spans = [span("a", 11, 19), span("b", 22, 29), span("a", 32, 39)];
        assert!(judge(&all, &spans).is_empty());
    }
}
