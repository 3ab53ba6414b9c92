//! A client in front of a balancer: who answered it, and when; and what that tells of a takeover.

use crate::deadline::{GENEROUS, until};
use crate::namespace::Namespace;
use baton_agent::demo::connection::Connection;
use baton_agent::demo::poller::{Poller, Record};
use baton_shared::clock::Mono;
use std::net::SocketAddr;
use std::time::Duration;

/// So many answers in a row are no accident of a balancer that takes turns.
const STEADY: usize = 100;

/// Asks a balancer every 2 ms, and writes down the name in each answer. It ends when dropped.
#[derive(Debug)]
pub struct Client {
    /// What it asks.
    pub through: &'static str,
    poller: Poller<String>,
}

impl Client {
    /// Asks from that host. A question without an answer is given up after `patience`, and asked anew over a new connection.
    pub fn start(through: &'static str, host: &Namespace, address: SocketAddr, patience: Duration) -> Client {
        Client::asking(through, host, address, patience, true)
    }

    /// The same over a new connection for each question: balancers keep their own to whom they asked, for whoever comes next.
    pub fn anew(through: &'static str, host: &Namespace, address: SocketAddr, patience: Duration) -> Client {
        Client::asking(through, host, address, patience, false)
    }

    fn asking(
        through: &'static str,
        host: &Namespace,
        address: SocketAddr,
        patience: Duration,
        keep: bool,
    ) -> Client {
        let host = host.clone();
        let mut connection = None;
        let ask = move |_: &_| {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(address, patience).ok()?,
            };
            let answer = open.ask("/").ok()?;
            (answer.status == 200).then_some(())?;
            connection = keep.then_some(open);
            Some(answer.text().trim().to_owned())
        };
        Client {
            through,
            poller: Poller::start(move || host.enter(), ask),
        }
    }

    /// Waits until `node` answers a question asked since then.
    #[track_caller]
    pub fn await_answer(&self, node: &str, since: Mono) -> Record<String> {
        until(
            GENEROUS,
            &format!("{node} answers through {}", self.through),
            || {
                let found = self.poller.first_since(since, |record| is_from(record, node));
                found.ok_or_else(|| format!("{:?}", self.poller.newest()))
            },
        )
    }

    /// Waits until so many answers in a row, all asked for since then, are `node`'s.
    #[track_caller]
    pub fn await_steady(&self, node: &str, since: Mono) {
        until(
            GENEROUS,
            &format!("{node} alone answers through {}", self.through),
            || {
                let records = self.poller.records();
                let newest = &records[records.len().saturating_sub(STEADY)..];
                let recent = newest.len() == STEADY && newest[0].sent >= since;
                let other = newest.iter().rfind(|record| !is_from(record, node));
                match (recent, other) {
                    (true, None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        );
    }

    /// The longest time without an answer from anybody, from the last one before `since` on.
    #[track_caller]
    pub fn gap(&self, since: Mono) -> Duration {
        let records = self.poller.records();
        let gap = longest(&records, since);
        gap.unwrap_or_else(|| panic!("nothing answered through {} before and since", self.through))
    }

    /// For how long after the first answer of `to` since then others answered, too.
    #[track_caller]
    pub fn overlap(&self, since: Mono, to: &str) -> Duration {
        let first = self.await_answer(to, since).received;
        let records = self.poller.records();
        let other = records
            .iter()
            .rfind(|r| r.heard.as_ref().is_some_and(|name| name != to));
        other.map_or(Duration::ZERO, |record| record.received.since(first))
    }

    /// How often nobody answered a question asked since then.
    pub fn failures(&self, since: Mono) -> usize {
        let records = self.poller.records();
        let recent = records.iter().filter(|record| record.sent >= since);
        recent.filter(|record| record.heard.is_none()).count()
    }

    /// How often `node` answered questions asked since then.
    pub fn answers(&self, node: &str, since: Mono) -> usize {
        let records = self.poller.records();
        let recent = records.iter().filter(|record| record.sent >= since);
        recent.filter(|record| is_from(record, node)).count()
    }
}

fn is_from(record: &Record<String>, node: &str) -> bool {
    record.heard.as_deref() == Some(node)
}

/// `None` without an answer on both sides of `since`.
fn longest(records: &[Record<String>], since: Mono) -> Option<Duration> {
    let answered = records.iter().filter(|record| record.heard.is_some());
    let good: Vec<Mono> = answered.map(|record| record.received).collect();
    let after = good.partition_point(|at| *at < since);
    if after == 0 || after == good.len() {
        return None;
    }
    let pairs = good[after - 1..].windows(2);
    pairs.map(|pair| pair[1].since(pair[0])).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(at_ms: u64, heard: Option<&str>) -> Record<String> {
        let at = Mono::ZERO + Duration::from_millis(at_ms);
        Record {
            sent: at,
            received: at + Duration::from_millis(1),
            heard: heard.map(str::to_owned),
        }
    }

    #[test]
    fn a_gap_is_between_answers_on_both_sides() {
        let records = [
            said(0, Some("a")),
            said(100, Some("a")),
            said(110, None),
            said(150, Some("b")),
            said(152, Some("b")),
        ];
        let since = |ms| Mono::ZERO + Duration::from_millis(ms);
        assert_eq!(longest(&records, since(105)), Some(Duration::from_millis(50)));
        assert_eq!(longest(&records, since(152)), Some(Duration::from_millis(2)));
        assert_eq!(longest(&records, since(0)), None, "nobody answered before");
        assert_eq!(longest(&records, since(200)), None, "nobody has answered since");
    }
}
