//! Whether streams pass: each peer is tried on each network now and then.
//!
//! Questions go over one network at a time, and small ones pass where large ones do not (a packet that is longer than some hop
//! takes is lost without a word where firewalls drop ICMP): neither shows by itself. A try has a stream of its own, which ends
//! with it: a large message that is lost would hold up what waits behind it.

use super::channel::{Kind, Reader, Writer};
use super::dial::Dial;
use super::rpc::Body;
use super::streams::{Fault, Route, Seen, Streams};
use baton_core::input::{Tried, Tries};
use baton_shared::config::Config;
use baton_shared::id::{NetworkName, NodeId, NodeName};
use baton_shared::view::StreamState;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Where streams pass, they are tried again after this.
const WELL: Duration = Duration::from_secs(15);
/// ... where they do not, after this.
const ILL: Duration = Duration::from_secs(5);
/// What failed once may have been a lost packet: it is tried again before it is told.
const AGAIN: Duration = Duration::from_secs(1);
/// After a start peers may be starting, too.
const FIRST: Duration = Duration::from_secs(2);
/// Between two looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
/// A question is answered within this.
const ANSWER: Duration = Duration::from_secs(3);
/// Tries at once.
const MAX_AT_ONCE: usize = 64;
/// Bytes of a large question: two packets of the longest kind in use (9,000 bytes), and more than a peer's buffers need.
const LARGE: usize = 20_000;

type Key = (NodeName, NetworkName);

/// When a network to a peer is tried, and was.
struct Trial {
    due: Instant,
    began: Instant,
    under_way: bool,
    /// In a row.
    failures: u32,
}

impl Trial {
    fn new(now: Instant) -> Trial {
        Trial {
            due: now + FIRST,
            began: now,
            under_way: false,
            failures: 0,
        }
    }

    /// Whether it is due: by the clock, or since the streams that carry questions have seen otherwise.
    fn is_due(&self, seen: Seen, now: Instant) -> bool {
        let otherwise = if self.failures == 0 {
            seen.failed
        } else {
            seen.connected
        };
        let contradicted = otherwise.is_some_and(|at| at > self.began) && now >= self.began + AGAIN;
        !self.under_way && (now >= self.due || contradicted)
    }

    fn begin(&mut self, now: Instant) {
        (self.began, self.under_way) = (now, true);
    }

    /// How it ended; whether that is to be told.
    fn end(&mut self, passed: bool, now: Instant) -> bool {
        self.under_way = false;
        self.failures = if passed {
            0
        } else {
            self.failures.saturating_add(1)
        };
        self.due = now
            + match self.failures {
                0 => WELL,
                1 => AGAIN,
                _ => ILL,
            };
        self.failures != 1
    }
}

/// Tries until it is dropped; `tries` has what was found. Ends only when a try panicked.
pub(super) async fn run(dial: Dial, tries: watch::Sender<Tries>) {
    let mut trials: BTreeMap<Key, Trial> = BTreeMap::new();
    let mut under_way = JoinSet::new();
    let mut look = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(look) => {
                look = Instant::now() + LOOK;
                let config = dial.streams.config();
                let present: BTreeMap<Key, usize> = shared(&config).collect();
                follow(&mut trials, &present, &tries);
                let room = MAX_AT_ONCE.saturating_sub(under_way.len());
                for (key, network) in due(&trials, present, &dial.streams).into_iter().take(room) {
                    let route = dial.streams.route(&config, &key.0, network);
                    if let Some(trial) = trials.get_mut(&key).filter(|_| route.address().is_some()) {
                        trial.begin(Instant::now());
                        let dial = dial.clone();
                        under_way.spawn(async move { (pass(&dial, &route).await, key) });
                    }
                }
            }
            Some(ended) = under_way.join_next() => {
                let Ok((result, key)) = ended else { return };
                let Some(trial) = trials.get_mut(&key) else { continue };
                if trial.end(result.is_ok(), Instant::now()) {
                    tell(&tries, key, result);
                }
            }
        }
    }
}

/// The networks that this node and a peer are both on, by the peer's name; with the place of each in the configuration.
fn shared(config: &Config) -> impl Iterator<Item = (Key, usize)> {
    let mine = &config.my_node().addresses;
    let peers = config.nodes.iter().filter(|(name, _)| **name != config.me);
    peers.flat_map(move |(name, node)| {
        let both = mine.iter().zip(&node.addresses).zip(&config.networks).enumerate();
        both.filter(|(_, ((mine, theirs), _))| mine.is_some() && theirs.is_some())
            .map(|(place, (_, network))| ((name.clone(), network.name.clone()), place))
    })
}

/// Takes up what the configuration has by now, and forgets what it has not.
fn follow(trials: &mut BTreeMap<Key, Trial>, present: &BTreeMap<Key, usize>, tries: &watch::Sender<Tries>) {
    let now = Instant::now();
    trials.retain(|key, _| present.contains_key(key));
    for key in present.keys() {
        trials.entry(key.clone()).or_insert_with(|| Trial::new(now));
    }
    tries.send_if_modified(|tries| {
        let before = tries.len();
        tries.retain(|key, _| present.contains_key(key));
        tries.len() != before
    });
}

/// What is to be tried now, those that have waited longest first.
fn due(trials: &BTreeMap<Key, Trial>, present: BTreeMap<Key, usize>, streams: &Streams) -> Vec<(Key, usize)> {
    let now = Instant::now();
    let trial = |key: &Key| trials.get(key);
    let is_due = |(key, network): &(Key, usize)| {
        trial(key).is_some_and(|trial| trial.is_due(streams.seen(&key.0, *network), now))
    };
    let mut all: Vec<(Key, usize)> = present.into_iter().filter(is_due).collect();
    all.sort_by_key(|(key, _)| trial(key).map(|trial| trial.due));
    all
}

/// Tells what was found, if it is news.
fn tell(tries: &watch::Sender<Tries>, key: Key, result: Result<(), Fault>) {
    let (state, why) = match result {
        Ok(()) => (StreamState::Up, String::new()),
        Err(fault) => (fault.state, fault.why),
    };
    let found = Tried { state, why };
    tries.send_if_modified(|tries| {
        let news = tries.get(&key) != Some(&found);
        if news {
            tries.insert(key, found);
        }
        news
    });
}

/// One try: a small question and a large one, over a new stream.
pub(super) async fn pass(dial: &Dial, route: &Route) -> Result<(), Fault> {
    let to = route
        .address()
        .map_or_else(String::new, |address| address.to_string());
    let (mut reader, mut writer) = route.connect().await?;
    for size in [0, LARGE] {
        let question = dial.letter(NodeId(0), Body::Echo(vec![0; size]));
        let question = question.map_err(|why| Fault::new(StreamState::Failed, why))?;
        match timeout(ANSWER, ask(&mut reader, &mut writer, &question)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let why = format!("the stream to {to} broke: {error}");
                return Err(Fault::new(StreamState::Failed, why));
            }
            Err(_) if size == 0 => {
                let why = format!("{to} takes streams and answers no question");
                return Err(Fault::new(StreamState::Silent, why));
            }
            Err(_) => {
                let why =
                    format!("messages of {LARGE} bytes do not pass to {to} and back, while small ones do");
                return Err(Fault::new(StreamState::LargeLost, why));
            }
        }
    }
    Ok(())
}

/// Asks, and takes whatever is answered: a peer that knows no such question refuses it, and so it has passed.
async fn ask(reader: &mut Reader, writer: &mut Writer, question: &[u8]) -> io::Result<()> {
    writer.queue(Kind::Request, 1, question)?;
    while writer.waiting() > 0 {
        writer.flush().await?;
    }
    match reader.next().await? {
        Some(_) => Ok(()),
        None => Err(io::Error::other("the peer closed the stream")),
    }
}

/// Why consensus did not do what it was asked, with the peers that streams reach on no network.
pub(super) fn explain(why: String, tries: &Tries) -> String {
    let mut peers: BTreeMap<&NodeName, Option<Vec<String>>> = BTreeMap::new();
    for ((peer, network), tried) in tries {
        let whys = peers.entry(peer).or_insert_with(|| Some(Vec::new()));
        match whys {
            Some(whys) if tried.state.fails() => whys.push(format!("on {network} {}", tried.why)),
            _ => *whys = None, // it is reached
        }
    }
    let unreached: Vec<String> = peers
        .into_iter()
        .filter_map(|(peer, whys)| Some(format!("{peer} ({})", whys?.join(", "))))
        .collect();
    if unreached.is_empty() {
        return why;
    }
    format!(
        "{why}; consensus streams (TCP) do not pass to {}",
        unreached.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_once_is_tried_again_before_it_is_told() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let unseen = Seen::default();
        let mut trial = Trial::new(start);
        assert!(!trial.is_due(unseen, at(1)) && trial.is_due(unseen, at(2)));
        trial.begin(at(2));
        assert!(!trial.is_due(unseen, at(60)), "it is under way");
        assert!(trial.end(true, at(2)) && !trial.is_due(unseen, at(16)) && trial.is_due(unseen, at(17)));
        // The stream that carries questions has failed since.
        let failed = Seen {
            failed: Some(at(4)),
            connected: None,
        };
        assert!(trial.is_due(failed, at(4)));
        trial.begin(at(4));
        assert!(!trial.end(false, at(4)) && !trial.is_due(failed, at(4)) && trial.is_due(failed, at(5)));
        trial.begin(at(5));
        assert!(trial.end(false, at(6)) && !trial.is_due(failed, at(10)) && trial.is_due(failed, at(11)));
        // A peer that is down is asked all the time, which is no reason to try more often.
        let failed = Seen {
            failed: Some(at(8)),
            ..failed
        };
        assert!(!trial.is_due(failed, at(8)));
        let connected = Seen {
            connected: Some(at(8)),
            ..failed
        };
        assert!(trial.is_due(connected, at(8)), "and it is back");
        trial.begin(at(8));
        assert!(trial.end(true, at(8)));
    }

    #[test]
    fn an_order_that_fails_names_whom_no_stream_reaches() {
        let key = |peer, network| (NodeName::new(peer).unwrap(), NetworkName::new(network).unwrap());
        let tried = |state: StreamState| Tried {
            state,
            why: if state.fails() {
                "10.0.0.2:7400 does not answer"
            } else {
                ""
            }
            .into(),
        };
        let mut tries = Tries::from([
            (key("b", "front"), tried(StreamState::Silent)),
            (key("b", "back"), tried(StreamState::Up)),
            (key("c", "front"), tried(StreamState::Up)),
        ]);
        assert_eq!(explain("no".into(), &tries), "no");
        tries.insert(key("b", "back"), tried(StreamState::Refused));
        assert_eq!(
            explain("no".into(), &tries),
            "no; consensus streams (TCP) do not pass to b (on back 10.0.0.2:7400 does not answer, on front 10.0.0.2:7400 does not \
             answer)"
        );
    }
}
